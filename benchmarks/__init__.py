"""Speed and memory, side by side with what else could do the job."""
