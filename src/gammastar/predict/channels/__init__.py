"""Room predict/channels."""
