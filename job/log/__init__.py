"""The event log: what its records hold, how they are written, and which of them count."""
