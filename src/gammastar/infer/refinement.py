"""Masses that a reach on a grid still needs: where its contour bends, where it ends, at resonances."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from gammastar.core import constants
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Reach

__all__ = ["more_masses"]

NARROW = 2e-3  # relative gaps that are not divided any further


def more_masses(
    found: Reach,
    *,
    tolerance: float = 0.01,
    special: Sequence[tuple[float, float]] | None = None,
    most: int = 20,
) -> FloatArray:
    """Return further masses, the most needed first.

    Parameters
    ----------
    found : Reach
        From `reach` on a grid of masses.
    tolerance : float
        Of the contour drawn through the points [decades].
    special : sequence of (float, float)
        Mass and width of resonances [GeV]: their centre is asked for if the grid passes by at more than half
        a width. Without it ρ, ω and φ.
    most : int

    Returns
    -------
    NDArray, shape (at most `most`,) [GeV]

    Raises
    ------
    PhysicsError
        For a tolerance that is not positive.

    Notes
    -----
    A gap is divided where an island begins or ends in it, and where an edge misses the straight line between
    its neighbours in mass by more than 1.2 times the tolerance; edges that the scan clips do not count.

    Examples
    --------
    >>> from gammastar.infer import reach
    >>> m, g = np.array([0.3, 0.4, 0.5]), np.geomspace(1e-7, 1e-3, 81)
    >>> rows = [3e21 * 10.0**k * g**4 * np.exp(-((g / 1e-4) ** 2)) for k in (0.0, 0.0, -9.0)]
    >>> more_masses(reach(m, g, rows, 2.3), special=())  # the contour ends between 0.4 and 0.5 GeV
    array([0.4472136])
    """
    if not tolerance > 0:
        msg = f"more_masses: tolerance = {tolerance!r} decades must be positive"
        raise PhysicsError(msg)
    mass = np.unique(found.mass)
    inside = np.array(
        [[s not in side.split(", ") for s in ("lower", "upper")] for side in found.clipped_side]
    )
    reached = np.isfinite(found.edges[:, 0])
    rows = [np.flatnonzero((found.mass == m) & reached) for m in mass]
    log_mass, gap = np.log(mass), np.diff(np.log(mass))
    score = np.array([float(len(a) != len(b)) for a, b in pairwise(rows)])
    for i in range(1, len(mass) - 1):
        near = [rows[k] for k in (i - 1, i, i + 1)]
        if not len(near[0]) == len(near[1]) == len(near[2]) > 0:
            continue
        part = gap[i - 1] / (gap[i - 1] + gap[i])
        before, here, after = (np.log10(found.edges[row]) for row in near)
        free = inside[near[0]] & inside[near[1]] & inside[near[2]]
        off = np.abs(here - (1 - part) * before - part * after)[free]
        if off.size and off.max() > 1.2 * tolerance:
            score[i - 1 : i + 1] = np.maximum(score[i - 1 : i + 1], min(float(off.max()), 0.9))
    score[gap < NARROW] = 0.0
    order = np.argsort(-score, kind="stable")
    middle = np.exp(0.5 * (log_mass[order] + log_mass[order + 1]))[score[order] > 0]
    if special is None:
        special = [(constants.mass(code), constants.width(code)) for code in (113, 223, 333)]
    centres = [m for m, width in special if _passed(mass, m, width)]
    return np.asarray([*centres, *middle][:most], dtype=np.float64)


def _passed(mass: FloatArray, centre: float, width: float) -> bool:
    """Return whether a grid that covers a resonance has no point near its centre."""
    return bool(mass[0] < centre < mass[-1] and np.abs(mass - centre).min() > 0.5 * width)
