"""The pair loop: compiled, in double precision, free of cancellation."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

__all__ = ["combine", "count_kept", "signed_pairs", "usable"]


@numba.njit(cache=True)
def combine(offsets: Any, leptons: Any, charge: Any) -> Any:
    """Combine all pairs of leptons within each event.

    Parameters
    ----------
    offsets : NDArray of int64, shape (n_events + 1,)
        Where the leptons of each event begin.
    leptons : NDArray, shape (n_leptons, 4) [GeV]
        px, py, pz, mass.
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
                x1, y1, z1, m1 = leptons[a, 0], leptons[a, 1], leptons[a, 2], leptons[a, 3]
                x2, y2, z2, m2 = leptons[b, 0], leptons[b, 1], leptons[b, 2], leptons[b, 3]
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
                mass = math.sqrt(threshold * threshold + above)
                values[k, 0] = mass
                values[k, 1] = math.hypot(x1 + x2, y1 + y2)
                values[k, 2] = e1 + e2
                values[k, 3] = math.atan2(math.sqrt(cross), dot)
                values[k, 4] = above / (mass + threshold) if mass > 0.0 else 0.0
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


@numba.njit(cache=True)
def _combinations(offsets: Any, charge: Any) -> Any:
    """Return the numbers of +-, ++ and -- pairs."""
    number = np.zeros(3, dtype=np.int64)
    for event in range(len(offsets) - 1):
        plus = 0
        for i in range(offsets[event], offsets[event + 1]):
            plus += charge[i] > 0
        minus = offsets[event + 1] - offsets[event] - plus
        number[0] += plus * minus
        number[1] += plus * (plus - 1) // 2
        number[2] += minus * (minus - 1) // 2
    return number


@numba.njit(cache=True, error_model="numpy")
def signed_pairs(offsets: Any, px: Any, py: Any, pz: Any, mass: Any, charge: Any, want: Any) -> Any:
    """Combine all pairs within each event, sorted by charge: +-, then ++, then --.

    Single-precision input is computed in double precision.

    Parameters
    ----------
    offsets : NDArray of int64, shape (n_events + 1,)
    px, py, pz, mass, charge : NDArray, shape (n_leptons,)
    want : NDArray of bool, shape (3,)
        Whether pt, the event number and the energy are wanted; what is not is left undefined.

    Returns
    -------
    values : NDArray, shape (3, n_pairs) [GeV]
        Mass, pt, energy; as `combine`, without what histograms seldom need.
    event : NDArray of int64, shape (n_pairs,), or (0,) if not wanted
    ends : NDArray of int64, shape (3,)
        Where +-, ++ and -- end.
    """
    number = _combinations(offsets, charge)
    ends = np.cumsum(number)
    place = ends - number
    values = np.empty((3, ends[2]))
    row = np.empty(ends[2] if want[1] else 0, dtype=np.int64)
    for event in range(len(offsets) - 1):
        for i in range(offsets[event], offsets[event + 1]):
            x1, y1 = np.float64(px[i]), np.float64(py[i])
            z1, m1 = np.float64(pz[i]), np.float64(mass[i])
            e1 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
            for j in range(i + 1, offsets[event + 1]):
                x2, y2 = np.float64(px[j]), np.float64(py[j])
                z2, m2 = np.float64(pz[j]), np.float64(mass[j])
                e2 = math.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
                sign = 0 if (charge[i] > 0) != (charge[j] > 0) else (1 if charge[i] > 0 else 2)
                k = place[sign]
                place[sign] += 1
                plus_dot = x1 * x2 + y1 * y2 + z1 * z2 + m1 * m2
                if plus_dot > 0.0:
                    cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
                    dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
                    square = cx * cx + cy * cy + cz * cz + dx * dx + dy * dy + dz * dz
                    above = 2.0 * square / (e1 * e2 + plus_dot)
                else:
                    above = 2.0 * (e1 * e2 - plus_dot)
                threshold = m1 + m2
                values[0, k] = math.sqrt(threshold * threshold + above)
                if want[2]:
                    values[2, k] = e1 + e2
                if want[0]:
                    x, y = x1 + x2, y1 + y2
                    values[1, k] = math.sqrt(x * x + y * y)
                if want[1]:
                    row[k] = event
    return values, row, ends
