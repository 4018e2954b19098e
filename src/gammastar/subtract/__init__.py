"""Room subtract."""
