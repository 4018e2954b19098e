"""What every missing-momentum recast shares: survival along flights, probabilities, excluded couplings.

A search for an invisible dark photon excludes ε > ε_lim(M). A semi-visible one fills it with probability
P(M, ε), so that ε² P(M, ε) > ε_lim(M)² is excluded. Long-lived states are invisible: P depends on ε, and the
excluded couplings may form several intervals.

A decay at mean length λ ∝ 1/ε² survives to L with e^(−kε²). Averages of such factors are sums of
exponentials: an event is a few (rate, weight) pairs and a sample is a histogram of rates, whatever the
couplings. Where a line of flight may hold several decays, a compiled sum over decay positions takes their
place.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray, Reach

STEP = 1e-3  # width of the bins in ln(rate): second order, below 1e-7 of the number of events
STEPS = 2000  # of a band of couplings: its free part is known to 1/2000
LOWEST = -690.0  # stands for ln 0


@dataclass(frozen=True, slots=True, eq=False)
class Missing:
    """Probability that a semi-visible dark photon counts as missing momentum."""

    epsilon: FloatArray  # shape (k,)
    # Probability and its Monte Carlo error, shape (k,)
    value: FloatArray
    error: FloatArray
    # Band of thresholds, acceptances and of the factor that the selection card gives, shape (k,)
    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        require(
            (self.low <= self.value * (1 + 1e-09)).all() and (self.value <= self.high * (1 + 1e-09)).all(),
            "the band of a missing-momentum probability must hold its central value",
        )


def from_sums(sums: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and its error from Σ P and Σ P² of n events, shape (2, k)."""
    mean = np.clip(sums[0] / n, 0.0, 1.0)  # sums of exponentials cancel up to rounding
    return mean, np.sqrt(np.clip(sums[1] / n - mean**2, 0.0, None) / n)


def excess(epsilon: FloatArray, probability: FloatArray, limit: npt.ArrayLike) -> FloatArray:
    """Return ln(ε² P/ε_lim²), shape (masses, couplings): above zero is excluded.

    Parameters
    ----------
    epsilon : NDArray, shape (k,)
    probability : NDArray, shape (m, k)
    limit : array_like, shape (m,)
        Published limit on ε of the invisible dark photon; nan where there is none, −inf is returned there.
    """
    bound = np.asarray(limit, dtype=np.float64)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        height = np.log(epsilon**2 * probability / bound**2)
    return np.asarray(np.where(np.isnan(height), -np.inf, height), dtype=np.float64)


def excluded_plane(epsilon: FloatArray, probability: FloatArray, limit: npt.ArrayLike) -> BoolArray:
    """Return where ε² P > ε_lim², shape (masses, couplings); arguments as in `excess`."""
    return np.asarray(excess(epsilon, probability, limit) > 0)


def intervals(mass: FloatArray, epsilon: FloatArray, probability: FloatArray, limit: npt.ArrayLike) -> Reach:
    """Return the excluded intervals of coupling at every mass [GeV]; arguments as in `excess`.

    Returns
    -------
    Reach
        One entry per mass and interval, nan edges where nothing is excluded; ``signal`` holds the largest
        ε² P/ε_lim², and edges are interpolated straight in the logarithms.
    """
    return _islands(mass, np.log(epsilon), excess(epsilon, probability, limit))


def free_intervals(mass: FloatArray, epsilon: FloatArray, *excesses: FloatArray) -> Reach:
    """Return the intervals of coupling that no search excludes, at every mass."""
    return _islands(mass, np.log(epsilon), -np.max(excesses, axis=0))


def _islands(mass: FloatArray, x: FloatArray, height: FloatArray) -> Reach:
    """Return where the height is positive, one entry per mass and island, edges in exp(x)."""
    height = np.clip(height, LOWEST, -LOWEST)
    padded = np.pad(height > 0, ((0, 0), (1, 1))).astype(np.int8)
    row, begin = np.nonzero(np.diff(padded, axis=1) == 1)
    end = np.nonzero(np.diff(padded, axis=1) == -1)[1] - 1  # the last excluded point of each interval
    lower = _crossing(x, height, row, begin, np.maximum(begin - 1, 0))
    upper = _crossing(x, height, row, end, np.minimum(end + 1, len(x) - 1))
    rows = np.concatenate([row, np.setdiff1d(np.arange(len(mass)), row)])
    edges = np.full((len(rows), 2), np.nan)
    edges[: len(row)] = np.exp(np.column_stack([lower, upper]))
    cut_low, cut_high = (np.zeros(len(rows), dtype=bool) for _ in range(2))
    cut_low[: len(row)], cut_high[: len(row)] = begin == 0, end == len(x) - 1
    order = np.lexsort((np.nan_to_num(edges[:, 0]), rows))
    names = np.array(["", "lower", "upper", "lower, upper"])
    side = names[cut_low[order].astype(int) + 2 * cut_high[order].astype(int)]
    return Reach(
        mass=mass[rows[order]],
        edges=edges[order],
        signal=np.exp(height.max(axis=1))[rows[order]],
        limit=np.ones(len(rows)),
        closed=side == "",
        clipped_side=tuple(str(s) for s in side),
    )


def _crossing(
    x: FloatArray, height: FloatArray, row: IntArray, inside: IntArray, outside: IntArray
) -> FloatArray:
    """Return where the height passes zero between two neighbours, or the inner one at an end."""
    high, low = height[row, inside], height[row, outside]
    step = np.where(inside == outside, 1.0, high - low)
    fraction = np.where(inside == outside, 0.0, high / step)
    return np.asarray(x[inside] + fraction * (x[outside] - x[inside]))


def allowed(band: FloatArray, epsilon: FloatArray, *excesses: FloatArray) -> FloatArray:
    """Return the fraction of a band of couplings, in ln ε, that no search excludes, shape (masses,).

    Parameters
    ----------
    band : NDArray, shape (2, m)
        Lower and upper coupling at each mass, as `gammastar.semivisible.gm2.Reference.band` gives them. What
        lies outside the couplings of the grid does not count.
    epsilon : NDArray, shape (k,)
        Increasing.
    *excesses : NDArray, shape (m, k)
        From `excess`, one for each search.

    Returns
    -------
    NDArray, shape (m,)
        Of `STEPS` couplings in the band, between which the excess is straight in the logarithms: couplings of
        the grid may lie farther apart than the band is wide. nan where the band is outside the grid.

    Examples
    --------
    >>> epsilon = np.array([1e-3, 1e-1])
    >>> height = excess(epsilon, np.ones((1, 2)), [1e-2])
    >>> allowed(np.array([[5e-3], [2e-2]]), epsilon, height).round(2)
    array([0.5])
    """
    if len(epsilon) < 2:
        raise PhysicsError(f"allowed part of a band: {len(epsilon)} coupling given, at least two are needed")
    x = np.log(epsilon)
    with np.errstate(divide="ignore"):
        low, high = np.clip(np.log(band), x[0], x[-1])
    inside = high > low
    at = low[:, None] + (high - low)[:, None] * (np.arange(STEPS) + 0.5) / STEPS
    left = np.clip(np.searchsorted(x, at) - 1, 0, len(x) - 2)
    part = (at - x[left]) / (x[left + 1] - x[left])
    free = np.ones(at.shape, dtype=bool)
    for height in excesses:
        level = np.maximum(height, LOWEST)
        below, above = (np.take_along_axis(level, left + k, axis=1) for k in (0, 1))
        free &= (1.0 - part) * below + part * above <= 0
    return np.asarray(np.where(inside, free.mean(axis=1), np.nan), dtype=np.float64)


def exponential_sum(rate: FloatArray, weight: FloatArray, epsilon: FloatArray) -> FloatArray:
    """Return Σ w e^(−rate ε²) for every coupling."""
    falling = (rate > 0) & (weight != 0)
    constant = float(weight[rate == 0].sum())
    if not falling.any():
        return np.full(len(epsilon), constant)
    k, w = rate[falling], weight[falling]
    x = np.log(k)
    low = float(x.min())
    index = ((x - low) / STEP).astype(np.int64)
    centre = np.exp(low + (np.arange(index.max() + 1) + 0.5) * STEP)
    total, first = np.bincount(index, w), np.bincount(index, w * (k - centre[index]))
    used = (total != 0) | (first != 0)
    centre, total, first = centre[used], total[used], first[used]
    square = epsilon[:, None] ** 2
    terms = np.exp(-np.minimum(centre * square, 700.0)) * (total - first * square)
    return np.asarray(constant + terms.sum(axis=1), dtype=np.float64)


@njit(cache=True)
def _decays(length: float, mean: float) -> Any:
    """Return the probability to decay within a length."""
    x = length / mean
    if x > 40.0:
        return 1.0
    # Twice as fast as expm1, and as good to 2e-9.
    return x * (1.0 - 0.5 * x) if x < 1e-4 else 1.0 - np.exp(-x)


@njit(cache=True)
def _unseen(event: int, lines: Any, reach: float, square: float, work: FloatArray) -> None:
    """Fill the probability of all lines but the last, and of the last with its two parts, per selection."""
    visible, source, flight, slope, uniform = lines
    slots, variants = visible.shape[1], visible.shape[2]
    gone = 0.0
    for v in range(variants):
        work[0, v], work[1, v], work[2, v] = 1.0, 0.0, 1.0
    for slot in range(slots):
        if source[event, slot] == -2:
            break
        if source[event, slot] == -1 and slot > 0:
            gone = 0.0
            for v in range(variants):
                work[0, v] *= work[1, v] + work[2, v]
                work[1, v], work[2, v] = 0.0, 1.0
        mean = flight[event, slot] / square
        inside = _decays(max(reach - gone, 0.0) / max(slope[event, slot], 1e-12), mean)
        for v in range(variants):
            work[1, v] += work[2, v] * (1.0 - inside)
            work[2, v] = 0.0 if visible[event, slot, v] else work[2, v] * inside
        if slot + 1 < slots and source[event, slot + 1] == slot:
            gone -= mean * np.log1p(-uniform[event, slot] * inside) * slope[event, slot]


@njit(cache=True)
def no_visible_decay(
    visible: BoolArray,
    source: IntArray,
    flight: FloatArray,
    slope: FloatArray,
    uniform: FloatArray,
    reach: float,
    epsilon: FloatArray,
) -> FloatArray:
    """Return Σ P and Σ P² of "no visible decay inside the radius", shape (2, variants, len(epsilon))."""
    n, _, variants = visible.shape
    out = np.zeros((2, variants, len(epsilon)))
    work = np.empty((3, variants))
    lines = (visible, source, flight, slope, uniform)
    for event in range(n):
        if not visible[event].any():
            out += 1.0
            continue
        for e in range(len(epsilon)):
            _unseen(event, lines, reach, epsilon[e] * epsilon[e], work)
            for v in range(variants):
                p = work[0, v] * (work[1, v] + work[2, v])
                out[0, v, e] += p
                out[1, v, e] += p * p
    return out


@njit(cache=True)
def _keep(outcome: FloatArray, count: int, p: float, first: float, behind: float, largest: float) -> Any:
    """Note an outcome that can still pass; return how many there are."""
    if p < 1e-14 or behind > largest:
        return count
    outcome[count, 0], outcome[count, 1], outcome[count, 2] = p, first, behind
    return count + 1


@njit(cache=True)
def _line(
    where: tuple[int, int, int],
    slots: Any,
    square: float,
    ends: tuple[float, float, float],
    outcome: FloatArray,
    later: FloatArray,
) -> Any:
    """Fill (probability, energy in the first section, energy behind it) of one line; return their number."""
    _, energies, leaks, flight, uniform = slots
    event, begin, end = where
    ecal, hcal, largest = ends
    count, branches = 0, 0
    p, first, behind, z = 1.0, 0.0, 0.0, 0.0
    for slot in range(begin, end):
        length, energy, last = flight[event, slot] / square, energies[event, slot], slot + 1 == end
        for b in range(branches):
            inside = _decays(hcal - later[b, 3], length)
            count = _keep(outcome, count, later[b, 0] * (1.0 - inside), later[b, 1], later[b, 2], largest)
            later[b, 0] *= inside
            later[b, 2] += energy
            if not last:
                later[b, 3] -= length * np.log1p(-uniform[event, slot] * inside)
        in_ecal, in_hcal = _decays(ecal - z, length), _decays(hcal - ecal, length)
        count = _keep(outcome, count, p * (1.0 - in_ecal) * (1.0 - in_hcal), first, behind, largest)
        if behind + energy <= largest:
            later[branches, 0], later[branches, 1] = p * (1.0 - in_ecal) * in_hcal, first
            later[branches, 2] = behind + energy
            later[branches, 3] = ecal - (0.0 if last else length * np.log1p(-uniform[event, slot] * in_hcal))
            branches += 1
        p *= in_ecal
        z -= 0.0 if last else length * np.log1p(-uniform[event, slot] * in_ecal)
        first += 0.0 if leaks[event, slot] else energy
        behind += energy if leaks[event, slot] else 0.0
    count = _keep(outcome, count, p, first, behind, largest)
    for b in range(branches):
        count = _keep(outcome, count, later[b, 0], later[b, 1], later[b, 2], largest)
    return count


@njit(cache=True)
def _lines(source: IntArray, bounds: IntArray) -> int:
    """Fill where each line of an event begins, and where the last ends; return how many there are."""
    lines, filled = 0, 0
    while filled < len(source) and source[filled] != -2:
        if source[filled] == -1:
            bounds[lines] = filled
            lines += 1
        filled += 1
    bounds[lines] = filled
    return lines


@njit(cache=True)
def _many_lines(
    bounds: IntArray, event: int, slots: Any, square: float, limits: Any, work: Any
) -> FloatArray:
    """Return (probability, energy in the first section, behind it) of all lines of an event together."""
    line, later = work
    joint = np.zeros((1, 3))
    joint[0, 0] = 1.0
    for k in range(len(bounds) - 1):
        n = _line((event, bounds[k], bounds[k + 1]), slots, square, limits, line, later)
        new, count = np.empty((len(joint) * n, 3)), 0
        for a in range(len(joint)):
            for b in range(n):
                p, first = joint[a, 0] * line[b, 0], joint[a, 1] + line[b, 1]
                count = _keep(new, count, p, first, joint[a, 2] + line[b, 2], limits[2])
        joint = new[:count]
    return joint


@njit(cache=True)
def missing_energy(
    photon: FloatArray,
    slots: tuple[IntArray, FloatArray, BoolArray, FloatArray, FloatArray],
    ends: tuple[float, float],
    cuts: tuple[float, float],
    epsilon: FloatArray,
) -> FloatArray:
    """Return Σ P and Σ P² of "enough energy missing, little behind the first section", shape (2, k)."""
    n, size = slots[0].shape
    out = np.zeros((2, len(epsilon)))
    work = np.zeros(((size + 1) * (size + 2), 3)), np.zeros((size + 1, 4))
    limits = (ends[0], ends[1], cuts[1])
    bounds = np.zeros(size + 1, dtype=np.int64)
    for event in range(n):
        lines = _lines(slots[0][event], bounds)
        for e in range(len(epsilon)):
            joint = _many_lines(bounds[: lines + 1], event, slots, epsilon[e] ** 2, limits, work)
            total = 0.0
            for a in range(len(joint)):
                if photon[event] - joint[a, 1] > cuts[0] and joint[a, 2] < cuts[1]:
                    total += joint[a, 0]
            out[0, e] += total
            out[1, e] += total * total
    return out
