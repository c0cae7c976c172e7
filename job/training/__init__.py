"""The loop and its one step."""
