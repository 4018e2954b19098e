"""The pair loop: compiled, in double precision, free of cancellation."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

__all__ = ["combine", "count_kept", "usable"]


@numba.njit(cache=True)
def combine(offsets: Any, leptons: Any, charge: Any) -> Any:
    """Combine all pairs of leptons within each event.

    Parameters
    ----------
    offsets : NDArray of int64, shape (n_events + 1,)
        Where the leptons of each event begin.
    leptons : tuple of NDArray, shape (n_leptons,) each [GeV]
        px, py, pz, mass in double precision.
    charge : NDArray of int8, shape (n_leptons,)

    Returns
    -------
    values : NDArray, shape (n_pairs, 5)
        Mass, pt, energy [GeV], opening angle [rad], mass above threshold [GeV].
    index : NDArray of int64, shape (n_pairs, 3)
        Event, and the two leptons; the positive lepton of an opposite-sign pair is first.

    Notes
    -----
    m² = (m₁ + m₂)² + 2 (A − B) with A = E₁E₂ and B = p₁·p₂ + m₁m₂. For fast collinear leptons A − B cancels,
    so it is computed as (A² − B²)/(A + B), where A² − B² = |p₁ × p₂|² + |m₁p₂ − m₂p₁|² is a sum of squares.
    The mass is therefore never below threshold, and exact also where E² − p² would lose all digits.
    """
    px, py, pz, mass = leptons
    n = 0
    for event in range(len(offsets) - 1):
        size = offsets[event + 1] - offsets[event]
        n += size * (size - 1) // 2
    values = np.empty((n, 5))
    index = np.empty((n, 3), dtype=np.int64)
    k = 0
    for event in range(len(offsets) - 1):
        for i in range(offsets[event], offsets[event + 1]):
            for j in range(i + 1, offsets[event + 1]):
                a, b = (j, i) if charge[j] > charge[i] else (i, j)
                x1, y1, z1, m1 = px[a], py[a], pz[a], mass[a]
                x2, y2, z2, m2 = px[b], py[b], pz[b], mass[b]
                e1 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
                e2 = math.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
                dot = x1 * x2 + y1 * y2 + z1 * z2
                cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                cross = cx * cx + cy * cy + cz * cz
                plus = dot + m1 * m2
                if plus > 0.0:
                    dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
                    above = 2.0 * (cross + dx * dx + dy * dy + dz * dz) / (e1 * e2 + plus)
                else:
                    above = 2.0 * (e1 * e2 - plus)
                threshold = m1 + m2
                m = math.sqrt(threshold * threshold + above)
                values[k, 0] = m
                x, y = x1 + x2, y1 + y2
                values[k, 1] = math.sqrt(x * x + y * y)  # hypot costs as much as all the rest
                values[k, 2] = e1 + e2
                values[k, 3] = math.atan2(math.sqrt(cross), dot)
                values[k, 4] = above / (m + threshold) if m > 0.0 else 0.0
                index[k, 0], index[k, 1], index[k, 2] = event, a, b
                k += 1
    return values, index


@numba.njit(cache=True)
def usable(px: Any, py: Any, pz: Any, mass: Any, charge: Any) -> Any:
    """Return where all quantities are finite and the charge is ±1."""
    result = np.empty(len(px), dtype=np.bool_)
    for i in range(len(px)):
        total = px[i] + py[i] + pz[i] + mass[i]
        result[i] = (abs(charge[i]) == 1) and math.isfinite(total)
    return result


@numba.njit(cache=True)
def count_kept(offsets: Any, mask: Any) -> Any:
    """Return how many entries of a mask are kept in each event."""
    result = np.zeros(len(offsets) - 1, dtype=np.int64)
    for event in range(len(result)):
        for i in range(offsets[event], offsets[event + 1]):
            if mask[i]:
                result[event] += 1
    return result
