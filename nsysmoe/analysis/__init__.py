"""Questions answered: one file a question, from opened inputs to a value that can be kept."""
