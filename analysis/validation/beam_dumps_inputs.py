"""Edges of CHARM and NuCal against two recasts each, with what the inputs leave open as the tolerance."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from validation._rows import row as _row

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "beam_dumps"))

import curves
import dump_yields
import sensitivity

SOURCES = {
    "charm": "curve of CHARM in arXiv:1311.3870",
    "nucal": "arXiv:1311.3870",
    "charm_tsai": "arXiv:1908.07525",
    "nucal_tsai": "arXiv:1908.07525",
}
DIGITISED = 0.02  # log10: the published curves, as their vertices scatter
# edges that no range of an input reaches, or barely
BEYOND = {
    ("charm", "lower"): (0.1, 0.15, 0.2),  # the η flux that `beam_dumps.ROWS` infers
    ("nucal_tsai", "upper"): (0.3, 0.4),
}


def rows(n: int) -> Iterator[dict]:
    for experiment in sensitivity.TITLES:
        found = sensitivity.shifts(experiment, n=n)
        yield from _largest(experiment, found)
        yield from _residuals(experiment, found, n)
        yield from _known(experiment, found)


def _largest(experiment: str, found: dict) -> Iterator[dict]:
    """Yield the shift by each input, half of its range, where it matters most."""
    for (name, change), shift in found.items():
        half = 0.5 * np.abs(shift[1] - shift[0])
        for k, side in enumerate(("lower", "upper")):
            i = int(half[:, k].argmax())
            label = f"{experiment}: half the range of the {side} edge, {name} ({change}), largest"
            label += f" at {sensitivity.MASSES[experiment][i]:g} GeV"
            yield _row(label, half[i, k], 0.0, np.nan, "range: analysis/beam_dumps/sensitivity.py") | {
                "measured": True
            }


def _residuals(experiment: str, found: dict, n: int) -> Iterator[dict]:
    """Yield our edges against the published ones.

    The tolerance is two standard deviations: what each input moves the edge towards the published one counts
    as one, all in quadrature with the digitisation.
    """
    ours = dump_yields.edges(dump_yields.variant(experiment), sensitivity.MASSES[experiment], 2 * n)
    down, up = sensitivity.reaches(found)
    for key in (experiment, f"{experiment}_tsai"):
        wanted = curves.edges(key, sensitivity.MASSES[experiment])
        for k, side in enumerate(("lower", "upper")):
            for i, mass in enumerate(sensitivity.MASSES[experiment]):
                label = f"{experiment}: log10 of the {side} edge, {mass:g} GeV; tolerance from the inputs"
                if wanted is None:
                    row = _row(label, np.nan, np.nan, np.nan, SOURCES[key])
                    yield row | {"skipped": "GAMMASTAR_CURVES not set"}
                elif np.isfinite(wanted[i, k]) and np.isfinite(ours[i, k]):
                    towards = up if wanted[i, k] > ours[i, k] else down
                    tolerance = 2 * np.hypot(towards[i, k], DIGITISED)
                    row = _row(label, ours[i, k], wanted[i, k], tolerance, SOURCES[key])
                    beyond = mass in BEYOND.get((key, side), ())
                    yield row | ({"measured": True} if beyond else {})


def _known(experiment: str, found: dict) -> Iterator[dict]:
    """Yield shifts that follow from the decay law alone.

    Lower edge: the yield goes as the fourth power of the coupling. Upper edge: the yield falls as
    exp(−z₀/ℓ) with ℓ ∝ 1/ε², so that ε² z₀ stays nearly constant when the start z₀ of the volume moves.
    """
    by_name = {name: shift for (name, _), shift in found.items()}
    shift = by_name["protons, efficiency or limit"][1, 0, 0]
    expected = -0.25 * np.log10(1.5)
    label = f"{experiment}: shift of the lower edge with 1.5 times the protons, 50 MeV"
    yield _row(label, shift, expected, 0.004, "yield as ε⁴")
    detector = dump_yields.detector_of(experiment)
    z0, z1 = detector.volume.z0, detector.volume.z1
    expected = -0.5 * np.log10((z0 + 0.1 * (z1 - z0)) / z0)
    label = f"{experiment}: shift of the upper edge where the volume starts later, 50 MeV"
    yield _row(label, by_name["start of the volume"][0, 0, 1], expected, 0.004, "ε² z₀ constant")
