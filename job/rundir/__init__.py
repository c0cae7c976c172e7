"""Where a run lies: every path, the ways to write there, who may, and what the run is doing now."""
