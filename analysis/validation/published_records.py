"""Rows of the topic `published`: what a run publishes itself, and what somebody else makes of it."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar import read
from gammastar.pipeline.record import read_record
from gammastar.pipeline.run import run
from gammastar.results.export import mass_spectrum, write_published

SMALL = Path(__file__).resolve().parents[1] / "na60_dimuon"
MASSES = ("0.22", "0.3", "0.45", "0.6", "0.7827", "0.79", "0.95", "1.0195", "1.05")
SOURCES = "\n[systematics]\nbackground = true\nefficiency = 0.02\n"


def record_rows() -> Iterator[dict]:
    """Yield the rows: one small MOCK run without detectors."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        text = (SMALL / "small.toml").read_text().split("[accept]")[0] + SOURCES
        (folder / "steering.toml").write_text(text.replace('"schema.toml"', f'"{SMALL / "schema.toml"}"'))
        record = read_record(run(folder / "steering.toml", output=folder / "results"))
        write_published(record, folder / "record")
        table = read.hepdata(folder / "record", "Mass spectrum")
        found, ours = read.published_spectrum(table, quantity="per_pot"), mass_spectrum(record.spectrum)
        told = "spectrum of a MOCK run -> HEPData record -> read.hepdata"
        worst = np.abs(found.spectrum.values / ours.values - 1).max()
        yield _row("own spectrum from its record, largest relative difference", worst, 1e-12, told)
        worst = np.abs(found.spectrum.cov - ours.cov).max() / np.diag(ours.cov).max()
        yield _row("its covariance, over the largest variance", worst, 1e-12, told)
        shifts = found.spectrum.shifts
        same = sum(np.allclose(shifts[f"table, {name}"], row, rtol=1e-9) for name, row in ours.shifts.items())
        yield _row(
            f"its named sources that differ, of {len(ours.shifts)}", len(ours.shifts) - same, 0.0, told
        )
        command = [sys.executable, "-I", "dark_photon_rate.py", "events.json", *MASSES]
        printed = subprocess.run(
            command, capture_output=True, text=True, check=True, cwd=folder / "record"
        ).stdout
        mass, rate, _ = np.array([line.split() for line in printed.splitlines()], dtype=float).T
        worst = np.abs(rate / record.channel().rate(mass)[0] - 1).max()
        told = "numpy alone, from the events of the record; against the run's own rate"
        yield _row(
            f"rate by somebody else's script at {len(mass)} masses, largest deviation", worst, 0.01, told
        )


def _row(quantity: str, ours: float, tolerance: float, source: str) -> dict:
    named = {"quantity": quantity, "ours": float(ours), "expected": 0.0}
    return named | {"tolerance": tolerance, "source": source}
