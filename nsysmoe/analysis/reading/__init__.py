"""What is read of a run, and runs together: the way into every question."""
