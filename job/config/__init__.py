"""What a run is: its settings, where each value came from, settings.json, and what a start may change."""
