"""Many runs as one thing: `aae-slurm submit --sweep`."""
