"""The stages of a run, one file per section of the steering file, and what they share."""
