"""Room predict/models."""
