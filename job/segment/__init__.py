"""One start of a run, from the claim to an orderly end, and the story of one that had none."""
