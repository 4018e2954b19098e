"""Room spectrum."""
