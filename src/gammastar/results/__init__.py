"""What one does with a finished run, a trained flow or a published likelihood; one file per command.

Look at it (`show`), draw events from it (`events`), write tables for other tools (`export`, `exchange`), and
test published signals (`scan`).
"""
