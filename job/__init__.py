"""The training job: settings, run directory, event log, training loop, checkpoints. It knows no scheduler."""
