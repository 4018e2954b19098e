"""What can be checked of a steering file before any work starts."""

from __future__ import annotations

from pathlib import Path

from gammastar.config import Read, Steering, read_toml
from gammastar.core.errors import SteeringError
from gammastar.core.resolve import resolve
from gammastar.pipeline.context import find_file, shipped

__all__ = ["check_files"]


def check_files(steering: Steering, base: Path) -> None:
    """Look for every file that a steering file names, and read the small ones.

    Raises
    ------
    UserError
        Naming the key and what is wrong with its file.
    """
    if steering.simulate is not None:
        read_toml(shipped(steering.simulate.card, base, "cards"))
    if steering.read is not None:
        _check_read(steering, steering.read, base)
    if steering.select is not None:
        for name in (*steering.select.event_functions, *steering.select.pair_functions):
            resolve(name, base)
    if steering.accept is not None:
        from gammastar.physics.detector import load_detector

        for name in steering.accept.detectors:
            load_detector(shipped(name, base, "detectors"))
    if steering.predict is not None and ":" in steering.predict.model:
        resolve(steering.predict.model, base)


def _check_read(steering: Steering, section: Read, base: Path) -> None:
    if not section.files and steering.simulate is None:
        msg = "read.files: empty, and there is no [simulate] section that makes the data"
        raise SteeringError(msg)
    for name in (*section.files, *section.response):
        find_file(name, base)
    if section.schema_file.endswith(".toml"):
        from gammastar.read.schema import Schema

        Schema.from_mapping(read_toml(base / section.schema_file))
    else:
        resolve(section.schema_file, base)
