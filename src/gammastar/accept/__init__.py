"""Room accept."""
