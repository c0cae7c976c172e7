"""From the login node: submits the training job to Slurm and keeps watch over it."""
