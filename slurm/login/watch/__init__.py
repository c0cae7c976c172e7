"""`aae-slurm watch`: a run, or all of a sweep, as it goes; files are looked at every second, the scheduler hardly ever."""
