"""Training: the pure step, and the loop around it that reads, writes and resumes."""
