"""R and background shapes from mixed events: leptons of different events of one class, combined."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numba
import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, IntArray, PairHists, Rng, Spectrum, filled, flow_free
from gammastar.core.sampling import SeedArray, event_seeds
from gammastar.subtract.weights import Coarse, pair_cells, regions

Leptons: TypeAlias = tuple[FloatArray, npt.NDArray[np.int8], IntArray, IntArray]
MOST = 200_000  # leptons of a class
EXACT = 2.0**53  # integers below are floats as well
SIGNS: tuple[tuple[int, int, int], ...] = ((0, 1, -1), (2, 1, 1), (-2, -1, -1))


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Single leptons to mix.

    Attributes
    ----------
    momentum : NDArray, shape (n, 4) [GeV]
        px, py, pz, mass.
    charge : NDArray of int8, shape (n,)
    event : NDArray of int64, shape (n,)
        Leptons of one event are never combined with each other.
    group : NDArray of int64, shape (n,)
        Class of the event (target, field, multiplicity, vertex): only leptons of one class are combined.
    share : mapping of int to float
        Which part of the events of a class is in the pool; 1 for classes that are not named.
    """

    momentum: FloatArray
    charge: npt.NDArray[np.int8]
    event: IntArray
    group: IntArray
    share: Mapping[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.charge)
        if self.momentum.shape != (n, 4) or self.event.shape != (n,) or self.group.shape != (n,):
            msg = f"Pool: {n} charges, but momentum {self.momentum.shape}, event {self.event.shape}"
            raise UserError(msg)

    @property
    def complete(self) -> bool:
        """True if no event was left out."""
        return all(share == 1 for share in self.share.values())


def mixing_pool(parts: Iterable[Leptons], *, dataset: str = "", most: int = MOST) -> Pool:
    """Return a pool of at most `most` leptons of each class, holding twice that and one part at most.

    Parameters
    ----------
    parts : iterable of (momentum, charge, event, group)
        As from ``select.singles``; whole events, which no two parts share.
    dataset : str
        Of the hash that orders the events.
    most : int
        Leptons of one class.

    Returns
    -------
    Pool
        Of each class the events of smallest hash that fit into `most`, ordered by their hash. Its `share`
        holds which part of the events of the class that is.

    Raises
    ------
    UserError
        If `most` is not positive.

    Notes
    -----
    The hash knows the identifier of an event and nothing of its leptons, so the chosen events are a fair
    sample of their class, and the same for every order and size of the parts (bottom-k sampling, Cohen and
    Kaplan, PODC 2007).
    """
    if most < 1:
        raise UserError(f"mixing_pool: most = {most} leptons must be positive")
    kept: dict[int, _Class] = {}
    for momentum, charge, event, group in parts:
        seed = event_seeds(event, dataset=dataset)
        for label in map(int, np.unique(group)):
            inside = group == label
            own = event[inside]
            found = _Class(momentum[inside], charge[inside], own, seed[inside], len(np.unique(own)))
            if label in kept:
                found = kept[label].joined(found)
            kept[label] = found.smallest(most) if len(found.seed) > 2 * most else found
    classes = {label: whole.smallest(most) for label, whole in kept.items()}
    if not classes:
        none = np.zeros(0, np.int64)
        return Pool(np.zeros((0, 4)), np.zeros(0, np.int8), none, none)
    return Pool(
        np.concatenate([part.momentum for part in classes.values()]),
        np.concatenate([part.charge for part in classes.values()]),
        np.concatenate([part.event for part in classes.values()]),
        np.concatenate([np.full(len(part.seed), label, np.int64) for label, part in classes.items()]),
        {label: len(np.unique(part.event)) / part.n_events for label, part in classes.items()},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """Leptons of one class, of so many events that were seen of it."""

    momentum: FloatArray
    charge: npt.NDArray[np.int8]
    event: IntArray
    seed: SeedArray
    n_events: int

    def joined(self, other: _Class) -> _Class:
        return _Class(
            np.concatenate([self.momentum, other.momentum]),
            np.concatenate([self.charge, other.charge]),
            np.concatenate([self.event, other.event]),
            np.concatenate([self.seed, other.seed]),
            self.n_events + other.n_events,
        )

    def smallest(self, most: int) -> _Class:
        """Return the leptons of the events of smallest hash, whole events: at most `most`, or one event."""
        order = np.argsort(self.seed, kind="stable")
        ordered, stop = self.seed[order], len(order)
        if stop > most:
            # the event that `most` would cut goes as a whole
            stop = int(np.searchsorted(ordered, ordered[most], side="left"))
            stop = stop or int(np.searchsorted(ordered, ordered[0], side="right"))
        kept = order[:stop]
        return _Class(self.momentum[kept], self.charge[kept], self.event[kept], ordered[:stop], self.n_events)


@numba.njit(cache=True)
def _kinematics(leptons: Any, first: Any, second: Any) -> Any:
    """Return mass, pt, energy and opening angle of pairs, free of cancellation (as in the pair loop)."""
    result = np.empty((len(first), 4))
    for k in range(len(first)):
        x1, y1, z1, m1 = leptons[first[k]]
        x2, y2, z2, m2 = leptons[second[k]]
        e1 = np.sqrt(x1 * x1 + y1 * y1 + z1 * z1 + m1 * m1)
        e2 = np.sqrt(x2 * x2 + y2 * y2 + z2 * z2 + m2 * m2)
        dot = x1 * x2 + y1 * y2 + z1 * z2
        cx, cy, cz = y1 * z2 - z1 * y2, z1 * x2 - x1 * z2, x1 * y2 - y1 * x2
        cross = cx * cx + cy * cy + cz * cz
        plus = dot + m1 * m2
        if plus > 0.0:
            dx, dy, dz = m1 * x2 - m2 * x1, m1 * y2 - m2 * y1, m1 * z2 - m2 * z1
            above = 2.0 * (cross + dx * dx + dy * dy + dz * dz) / (e1 * e2 + plus)
        else:
            above = 2.0 * (e1 * e2 - plus)
        result[k, 0] = np.sqrt((m1 + m2) ** 2 + above)
        result[k, 1] = np.hypot(x1 + x2, y1 + y2)
        result[k, 2] = e1 + e2
        result[k, 3] = np.arctan2(np.sqrt(cross), dot)
    return result


def _drawn(pool: Pool, signs: tuple[int, int], n: int, rng: Rng) -> tuple[IntArray, IntArray, FloatArray]:
    """Draw leptons of two charges from different events of one class; weights sum to the pairs expected."""
    firsts, seconds, weights = [], [], []
    labels, size = np.unique(pool.group, return_counts=True)
    number = [np.unique(pool.event[pool.group == label], return_counts=True)[1] for label in labels]
    combined = np.array([float((k * (k - 1)).sum()) for k in number])  # ordered pairs within events
    draws = np.ceil(n * size * (combined > 0) / max(size[combined > 0].sum(), 1)).astype(int)
    for label, ordered, leptons, drawn in zip(labels, combined, size, draws, strict=True):
        inside = pool.group == label
        one, two = (np.flatnonzero(inside & (pool.charge == sign)) for sign in signs)
        if not len(one) or not len(two) or not drawn:
            continue
        a, b = one[rng.integers(len(one), size=drawn)], two[rng.integers(len(two), size=drawn)]
        kept = pool.event[a] != pool.event[b]
        # a class that was thinned would count for less; like-sign pairs are unordered
        count = ordered / (2 if signs[0] == signs[1] else 1) / pool.share.get(int(label), 1.0)
        total = count * len(one) / leptons * len(two) / leptons
        firsts.append(a[kept])
        seconds.append(b[kept])
        weights.append(np.full(int(kept.sum()), total / max(int(kept.sum()), 1)))
    if not firsts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0)
    return np.concatenate(firsts), np.concatenate(seconds), np.concatenate(weights)


def mixed_pairs(pool: Pool, n: int, *, rng: Rng) -> Pairs:
    """Return `n` mixed pairs of each charge combination, weighted to the number expected within the events.

    Returns
    -------
    Pairs
        ``event`` is −1; columns ``angle`` [rad], ``event_1`` and ``event_2``. Apply the pair selection of the
        data to them (``select.apply``).

    Notes
    -----
    A class of events with k leptons each, N± of both charges in all, holds Σ k(k − 1) × N₊N₋/(N₊ + N₋)²
    opposite-sign pairs if charges are random and independent: N₊N₋ over the number of events if k has a
    Poisson law, (k − 1)/k of it if k is fixed, none if it is 1. This is the weight of the class among the
    others. Like-sign pairs are unordered: their weights carry the factor ½ that makes R = 1 where the
    acceptance does not tell charges apart.
    """
    if n < 1 or not len(pool.charge):
        msg = f"mixed_pairs: n = {n} pairs of a pool of {len(pool.charge)} leptons; both must be positive"
        raise UserError(msg)
    leptons = np.ascontiguousarray(pool.momentum, dtype=np.float64)
    events = pool.event
    if len(events) and np.abs(events.astype(np.float64)).max() > EXACT:
        events = np.unique(events, return_inverse=True)[1]  # numbers that columns of floats keep apart
    parts = []
    for charge, one, two in SIGNS:
        first, second, weight = _drawn(pool, (one, two), n, rng)
        values = _kinematics(leptons, first, second)
        columns = {"angle": values[:, 3], "event_1": events[first].astype(np.float64)}
        columns["event_2"] = events[second].astype(np.float64)
        signs, none = np.full(len(weight), charge, np.int8), np.full(len(weight), -1, np.int64)
        parts.append(Pairs(values[:, 0], values[:, 1], values[:, 2], signs, weight, none, columns))
    return Pairs.concatenate(parts)


def _ratio(os: FloatArray, pp: FloatArray, mm: FloatArray) -> FloatArray:
    below = 2 * np.sqrt(pp * mm)
    return np.asarray(np.divide(os, below, out=np.ones_like(os), where=(below > 0) & (os > 0)))


def r_factor(
    mixed: Pairs, axes: Sequence[Any], *, coarse: Coarse | None = None
) -> tuple[FloatArray, FloatArray]:
    """Return R = M₊₋/(2√(M₊₊M₋₋)) of mixed events and its error.

    Parameters
    ----------
    mixed : Pairs
        From `mixed_pairs`, after the pair selection.
    coarse : mapping of axis name to edges, optional
        R on coarse regions; by default one number for everything. ``{}`` is the same; name every axis with
        its own edges for R per cell.

    Returns
    -------
    r, sigma : NDArray, shape of the cells

    Notes
    -----
    Mixing corrects for the acceptance of pairs alone; correlations of the multiplicities of both charges (a
    binomial instead of a Poisson law) need R_mult from a simulation, see `with_multiplicity`.
    Regions without one of the charges have R = 1 ± 1. Mixed pairs reuse leptons, their number is not their
    statistics: Var ln R = Σ_e (Σ_{p∋e} g_p)² − Σ_p g_p² over events e and pairs p, where g is the share of a
    pair in ln R; each pair stands in two events and fluctuates once.
    """
    axes = tuple(axes)
    region = regions(axes, coarse)
    cell = pair_cells(mixed, axes)
    inside = np.flatnonzero(cell >= 0)
    place, n = region[cell[inside]], int(region.max(initial=0)) + 1
    chosen = mixed.select(inside)
    kinds = [np.flatnonzero(mask) for mask in (chosen.os, chosen.pp, chosen.mm)]
    sums = [np.bincount(place[k], chosen.weight[k], n).astype(np.float64) for k in kinds]
    result = _ratio(*sums)
    share = np.zeros(len(inside))  # of each pair in ln R
    for k, total, power in zip(kinds, sums, (1.0, -0.5, -0.5), strict=True):
        share[k] = power * chosen.weight[k] / np.maximum(total[place[k]], 1e-300)
    events = np.concatenate([chosen.columns["event_1"], chosen.columns["event_2"]])
    row = np.unique(events, return_inverse=True)[1]
    of_event = sparse.coo_array(
        (np.tile(share, 2), (row, np.tile(place, 2))), shape=(row.max(initial=0) + 1, n)
    )
    drawn = np.bincount(place, share**2, n)
    variance = np.maximum((of_event.tocsr() ** 2).sum(axis=0) - drawn, drawn)
    sigma = np.where(np.min(sums, axis=0) > 0, result * np.sqrt(variance), 1.0)
    cells = tuple(len(axis) for axis in axes)
    return result[region].reshape(cells), sigma[region].reshape(cells)


def with_multiplicity(
    r: FloatArray | float,
    sigma: FloatArray | float,
    r_mult: FloatArray | float,
    r_mult_sigma: FloatArray | float,
) -> tuple[FloatArray, FloatArray]:
    """Return R of the acceptance times R of the multiplicities, with its error."""
    values = [np.asarray(a, dtype=np.float64) for a in (r, sigma, r_mult, r_mult_sigma)]
    if (values[0] <= 0).any() or (values[2] <= 0).any() or any((v < 0).any() for v in values):
        raise UserError("with_multiplicity: R and R_mult must be positive, their errors not negative")
    product = values[0] * values[2]
    return product, np.asarray(product * np.hypot(values[1] / values[0], values[3] / values[2]))


def mixed_spectrum(hists: PairHists, mixed: PairHists, *, coarse: Coarse | None = None) -> Spectrum:
    """Subtract the mixed-event background, normalised to the like-sign pairs.

    Parameters
    ----------
    hists : PairHists
        Data.
    mixed : PairHists
        Mixed pairs on the same axes.
    coarse : mapping of axis name to edges, optional
        Regions of the normalisation; by default everything is one region.

    Returns
    -------
    Spectrum
        Quantity "counts".

    Notes
    -----
    B = a M₊₋, a = √(ΣN₊₊ ΣN₋₋/(ΣM₊₊ ΣM₋₋)); the error of a, Var a/a² = 1/4ΣN₊₊ + 1/4ΣN₋₋ + the same of the
    mixed pairs, is common to a region. PHENIX, arXiv:0912.0244. The smooth background stands in the variance
    of +- cells that hold fewer pairs than it.
    """
    if tuple(hists.os.axes) != tuple(mixed.os.axes):
        raise UserError("mixed_spectrum: data and mixed pairs have different axes")
    region = regions(hists.os.axes, coarse)
    member = np.eye(int(region.max(initial=0)) + 1)[region]
    (os, var_os), (shape, var_shape) = flow_free(hists.os), flow_free(mixed.os)
    scale2, relative = np.ones(member.shape[1]), np.zeros(member.shape[1])
    for hist, power in ((hists.pp, 1), (hists.mm, 1), (mixed.pp, -1), (mixed.mm, -1)):
        value, variance = (part @ member for part in flow_free(hist))
        if (value <= 0).any():
            raise UserError("mixed_spectrum: a region has no like-sign pairs of one charge; widen `coarse`")
        scale2 = scale2 * value**power
        relative = relative + variance / value**2 / 4
    a = np.sqrt(scale2)[region]
    size = a * shape
    # a cell without a pair still fluctuates: its variance is at least that of the expected background
    mean_weight = var_os.sum() / os.sum() if os.sum() > 0 else 1.0
    var_os = np.maximum(var_os, size * mean_weight)
    common = (np.outer(size, size) * relative[region]) * (region[:, None] == region)
    cov = np.diag(var_os + a**2 * var_shape) + (common + common.T) / 2
    hist = filled(tuple(hists.os.axes), os - size, np.diag(cov))
    shape_of = tuple(len(axis) for axis in hists.os.axes)
    return Spectrum(hist, cov, "counts", None, (os > 0).reshape(shape_of))
