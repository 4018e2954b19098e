"""What can be checked of a steering file before any work starts."""

from __future__ import annotations

from pathlib import Path

from gammastar.config import Predict, Read, Steering, read_toml
from gammastar.core.errors import SteeringError
from gammastar.core.resolve import resolve
from gammastar.pipeline.context import find_file, shipped

__all__ = ["check_files"]

NOMINAL_BEAM = 400.0  # GeV; only whether the channels can be made is looked at


def check_files(steering: Steering, base: Path) -> None:
    """Look for every file that a steering file names, and read the small ones.

    Raises
    ------
    UserError
        Naming the key and what is wrong with its file.
    """
    if steering.simulate is not None:
        from gammastar.simulate import load_card

        load_card(shipped(steering.simulate.card, base, "cards"))
    if steering.read is not None:
        _check_read(steering, steering.read, base)
    if steering.select is not None:
        for name in (*steering.select.event_functions, *steering.select.pair_functions):
            resolve(name, base)
    if steering.accept is not None:
        from gammastar.physics.detector import load_detector

        for name in steering.accept.detectors:
            load_detector(shipped(name, base, "detectors"))
        from gammastar.physics.millicharge_detector import load_millicharge_detector

        for name in steering.accept.millicharge_detectors:
            load_millicharge_detector(shipped(name, base, "detectors"))
    section = steering.predict
    if section is not None and (section.channels or section.millicharge or section.model != "dark_photon"):
        _check_predict(section, base)  # imports more than the main job's check needs


def _check_predict(section: Predict, base: Path) -> None:
    """Make the model and every theory channel, which reads their tables."""
    from gammastar.pipeline.producing import make_model, theory_channel
    from gammastar.predict import check_exclusive

    make_model(section.model, base)
    beam = section.beam_energy or NOMINAL_BEAM
    charged = () if section.millicharge is None else section.millicharge.channels
    for names in (section.channels, charged):
        check_exclusive([theory_channel(name, section, base, beam) for name in names])


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
