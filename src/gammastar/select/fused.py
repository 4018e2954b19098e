"""Compiled loops: the pairs of an event, and the whole selection with its histograms in one pass."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import hist
import numba
import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray


@numba.njit(cache=True)
def combine(offsets: Any, leptons: Any, charge: Any) -> Any:
    """Combine all pairs of leptons within each event.

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


QUANTITIES = ("mass", "pt", "energy")
BLOCK = 2048  # pairs at a time: they stay in the cache between the passes


def fillable(axes: Sequence[Any], ranges: Iterable[str]) -> bool:
    """Return whether ranges and axes are of mass, pt or energy, and axes plain with under- and overflow."""
    if not set(ranges) <= set(QUANTITIES):
        return False
    kinds = (hist.axis.Regular, hist.axis.Variable)
    for axis in axes:
        traits = axis.traits
        plain = traits.underflow and traits.overflow and not traits.growth and not traits.circular
        if axis.name not in QUANTITIES or not isinstance(axis, kinds) or not plain:
            return False
        if isinstance(axis, hist.axis.Regular) and getattr(axis, "transform", None) is not None:
            return False
    return True


def fill_pairs(
    leptons: Mapping[str, npt.NDArray[Any]], axes: Sequence[Any], ranges: Mapping[str, tuple[float, float]]
) -> tuple[FloatArray, FloatArray] | None:
    """Fill the pairs of each event by charge."""
    sizes = [len(axis) for axis in axes]
    edges = [np.asarray(axis.edges, dtype=np.float64) for axis in axes]
    starts = np.cumsum([0, *(len(e) for e in edges)])[:-1]
    strides = [int(np.prod([n + 2 for n in sizes[k + 1 :]], dtype=np.int64)) for k in range(len(sizes))]
    regular = [isinstance(axis, hist.axis.Regular) for axis in axes]
    quantity = [QUANTITIES.index(axis.name) for axis in axes]
    layout = np.array([quantity, sizes, strides, starts, regular], dtype=np.int64).reshape(5, len(sizes))
    cut = np.array([QUANTITIES.index(name) for name in ranges], dtype=np.int64)
    bounds = np.array(list(ranges.values()), dtype=np.float64).reshape(-1, 2)
    filled = np.zeros((3, 2, int(np.prod([n + 2 for n in sizes], dtype=np.int64))))
    passed = np.zeros((1 + len(cut), 3, 3))
    four = tuple(leptons[key] for key in ("px", "py", "pz"))
    mass, weight = _repeated(leptons["mass"]), _repeated(leptons["weight"])
    given = leptons["charge"]
    charge = (given == 1).astype(np.int8) - (given == -1)  # one type: another one is seconds of compilation
    good = _loop(
        np.asarray(leptons["offsets"], dtype=np.int64),
        (*four, mass, charge, weight),
        (layout, np.concatenate(edges), cut, bounds),
        filled,
        passed,
    )
    return (filled.reshape(3, 2, *(n + 2 for n in sizes)), passed) if good else None


def _repeated(column: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return one entry of a column that was broadcast from a single number."""
    return np.ascontiguousarray(column[:1] if column.strides == (0,) else column)


@numba.njit(cache=True, error_model="numpy", inline="always")
def _square(one: Any, two: Any) -> Any:  # pragma: no cover - compiled
    """Return m² without cancellation, as `kernel.combine`, and the energy."""
    x1, y1, z1, m1 = one
    x2, y2, z2, m2 = two
    e1 = math.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
    e2 = math.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
    plus_dot = x1 * x2 + y1 * y2 + z1 * z2 + m1 * m2
    if plus_dot > 0.0:
        cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
        square = cx * cx + cy * cy + cz * cz + dx * dx + dy * dy + dz * dz
        above = 2.0 * square / (e1 * e2 + plus_dot)
    else:
        above = 2.0 * (e1 * e2 - plus_dot)
    return (m1 + m2) * (m1 + m2) + above, e1 + e2


@numba.njit(cache=True, error_model="numpy")
def _combine(
    offsets: Any, leptons: Any, event: int, values: Any, sign: Any, weight: Any
) -> Any:  # pragma: no cover - compiled
    """Put the pairs of the next events into a block; return where it stopped and the number of pairs.

    An event of its own never exceeds the block: see `_loop`. The event -1 reports a lepton of no use.
    """
    px, py, pz, mass, charge, weights = leptons
    per_lepton, per_event = len(mass) > 1, len(weights) > 1
    n = 0
    while event < len(offsets) - 1:
        first, last = offsets[event], offsets[event + 1]
        if n + (last - first) * (last - first - 1) // 2 > len(sign):
            break
        w = np.float64(weights[event if per_event else 0])
        for i in range(first, last):
            m1 = np.float64(mass[i if per_lepton else 0])
            x1, y1, z1 = np.float64(px[i]), np.float64(py[i]), np.float64(pz[i])
            if not math.isfinite(x1 + y1 + z1 + m1) or abs(charge[i]) != 1:
                return -1, 0
            for j in range(i + 1, last):
                m2 = np.float64(mass[j if per_lepton else 0])
                x2, y2, z2 = np.float64(px[j]), np.float64(py[j]), np.float64(pz[j])
                values[0, n], values[2, n] = _square((x1, y1, z1, m1), (x2, y2, z2, m2))
                values[1, n] = (x1 + x2) * (x1 + x2) + (y1 + y2) * (y1 + y2)
                sign[n] = 0 if charge[i] != charge[j] else (1 if charge[i] > 0 else 2)
                weight[n] = w
                n += 1
        event += 1
    return event, n


@numba.njit(cache=True, error_model="numpy")
def _place(values: Any, n: int, axis: Any, edges: Any, cell: Any) -> None:  # pragma: no cover - compiled
    """Add the place on one axis, counted with underflow, to the cells; as boost-histogram places it."""
    bins, stride, first, regular = axis
    low, high = edges[first], edges[first + bins]
    if regular:
        span = high - low
        for i in range(n):
            z = (values[i] - low) / span
            place = bins + 1 if not z < 1.0 else (0 if z < 0.0 else 1 + int(z * bins))
            cell[i] += place * stride
    else:
        own = edges[first : first + bins + 1]
        for i in range(n):
            cell[i] += np.searchsorted(own, values[i], side="right") * stride


@numba.njit(cache=True, error_model="numpy")
def _ranged(
    values: Any, sign: Any, weight: Any, n: int, cuts: Any, passed: Any
) -> int:  # pragma: no cover - compiled
    """Count the pairs through the ranges and move those that pass to the front of the block."""
    cut, bounds = cuts
    kept = 0
    for i in range(n):
        s, w = sign[i], weight[i]
        step = 0
        while True:
            passed[step, s, 0] += 1.0
            passed[step, s, 1] += w
            passed[step, s, 2] += w * w
            if step == len(cut) or not bounds[step, 0] <= values[cut[step], i] < bounds[step, 1]:
                break
            step += 1
        if step == len(cut):
            for k in range(3):
                values[k, kept] = values[k, i]
            sign[kept], weight[kept] = s, w
            kept += 1
    return kept


@numba.njit(cache=True, error_model="numpy")
def _loop(
    offsets: Any, leptons: Any, binning: Any, filled: Any, passed: Any
) -> bool:  # pragma: no cover - compiled
    layout, edges, cut, bounds = binning
    size = BLOCK
    for k in range(len(offsets) - 1):
        size = max(size, (offsets[k + 1] - offsets[k]) * (offsets[k + 1] - offsets[k] - 1) // 2)
    values, weight = np.empty((3, size)), np.empty(size)
    sign, cell = np.empty(size, np.int64), np.empty(size, np.int64)
    event: Any = np.int64(0)  # a plain 0 is a type of its own, for which all is compiled once more
    while event < len(offsets) - 1:
        event, n = _combine(offsets, leptons, event, values, sign, weight)
        if event < 0:
            return False
        for k in range(2):
            for i in range(n):
                values[k, i] = math.sqrt(values[k, i])
        n = _ranged(values, sign, weight, n, (cut, bounds), passed)
        for i in range(n):
            cell[i] = 0
        for k in range(layout.shape[1]):
            axis = (layout[1, k], layout[2, k], layout[3, k], layout[4, k])
            _place(values[layout[0, k]], n, axis, edges, cell)
        for i in range(n):
            filled[sign[i], 0, cell[i]] += weight[i]
            filled[sign[i], 1, cell[i]] += weight[i] * weight[i]
    return True
