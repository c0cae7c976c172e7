"""Checkpoints: one file each, whole or absent; saved in order with all that is due before them."""
