"""The figures of `envelope.py`, one after the other."""

from __future__ import annotations

from pathlib import Path

from envelope_rates import dark_photons, envelope, millicharge
from envelope_run import load
from envelope_searches import detectors, phase_space

from gammastar.core.files import data_path
from gammastar.physics.mesons import MesonTable


def draw(results: Path, output: Path, *, mock: bool) -> dict:
    run = load(results, mock=mock)
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    numbers: dict = {"inputs": str(results.name), "mock": mock}
    for part in (envelope, dark_photons, millicharge, phase_space, detectors):
        numbers[part.__name__] = part(run, table, output, mock)
    return numbers
