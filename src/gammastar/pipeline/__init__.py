"""The stages of a steering file in their order, with checkpoints and result files.

`run` knows the order, `cache` keeps finished stages, `record` is what a run publishes for a reinterpretation,
`context` is what every stage shares; `stages` has one file per section of the steering file.
"""
