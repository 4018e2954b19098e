"""Faults put in on purpose, and what became of them; used by the tests, the validation and the benchmark."""
