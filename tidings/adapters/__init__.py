"""One file a service: its words and errors become ours here, and nowhere else."""
