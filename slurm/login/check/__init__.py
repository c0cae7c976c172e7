"""`aae-slurm check`: what would make a submit go wrong later, found before it."""
