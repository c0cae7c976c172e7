"""What is asked of Slurm itself: which jobs there are, and to start one again."""
