"""Published contours that are shipped, as vertices and as edges at a mass."""

from __future__ import annotations

import numpy as np

from gammastar.core.files import data_path
from gammastar.core.records import FloatArray

OBSERVED = {"ee": "na62_dump_ee_observed", "mumu": "na62_dump_mumu_observed"}
DIGITISED = 0.02  # log10 of the coupling: spread of the vertices where the published curve is smooth


def vertices(name: str) -> FloatArray:
    """Return a shipped curve, shape (n, 2): mass [GeV] and coupling."""
    lines = data_path(f"measurements/{name}.csv").read_text().splitlines()
    rows = [line.split(",") for line in lines if line and line[0].isdigit()]
    return np.array(rows, dtype=np.float64)


def crossings(points: FloatArray, mass: float) -> FloatArray:
    """Return log10 of the lowest and highest coupling at which a closed curve crosses a mass; nan outside."""
    x, y = np.log(points).T
    u, v, at = np.roll(x, -1), np.roll(y, -1), np.log(mass)
    cut = ((x - at) * (u - at) <= 0) & (x != u)
    if not cut.any():
        return np.full(2, np.nan)
    crossed = y[cut] + (at - x[cut]) * (v[cut] - y[cut]) / (u[cut] - x[cut])
    return np.array([crossed.min(), crossed.max()]) / np.log(10)


def edges(state: str, mass: float) -> FloatArray:
    """Return log10 of the lower and upper edge of NA62's observed contour, interpolated; nan outside."""
    return crossings(vertices(OBSERVED[state]), mass)
