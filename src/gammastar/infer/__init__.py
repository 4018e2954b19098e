"""Room infer."""
