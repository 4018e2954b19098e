"""Published curves of CHARM and NuCal, read from a folder that the user names in ``GAMMASTAR_CURVES``."""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

FILES = {
    "charm": "charm_foresee_polygon.csv",
    "nucal": "nucal_foresee_polygon.csv",
    "nucal_brem": "darkcast_NuCAL_Blumlein1991xh.csv",
    "nucal_pi0": "darkcast_NuCAL_Blumlein1990ay.csv",
    "charm_tsai": "darkcast_CHARM_Tsai2019mtm.csv",
    "nucal_tsai": "darkcast_NuCAL_Tsai2019mtm.csv",
}


def _rows(name: str):
    folder = os.environ.get("GAMMASTAR_CURVES", "")
    path = Path(folder) / FILES[name]
    if not folder or not path.is_file():
        return None
    with path.open() as stream:
        return np.array([row for row in csv.reader(stream) if row and row[0][:1].isdigit()], dtype=float)


def polygon(name: str):
    """Return a published curve as a polygon, shape (n, 2), or None where the user has no copy."""
    rows = _rows(name)
    if rows is None or rows.shape[1] == 2:
        return rows
    return np.concatenate([rows[:, [0, 1]], rows[::-1][:, [0, 2]]])


def edges(name: str, masses):
    """Return log10 of the published lower and upper edge, shape (n, 2), nan outside; None without a copy."""
    points = polygon(name)
    if points is None:
        return None
    x, y = np.log(points[:, 0]), np.log10(points[:, 1])
    u, v = np.roll(x, -1), np.roll(y, -1)
    rows = []
    for mass in np.log(np.asarray(masses, dtype=float)):
        cut = ((x - mass) * (u - mass) <= 0) & (x != u)
        at = y[cut] + (mass - x[cut]) * (v[cut] - y[cut]) / (u[cut] - x[cut])
        rows.append([at.min(), at.max()] if len(at) else [np.nan, np.nan])
    return np.array(rows)
