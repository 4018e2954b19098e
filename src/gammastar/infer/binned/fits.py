"""Fits of a binned model to many data sets at once: damped Newton steps with bounds, all sets in step.

Where the Hessian does not lead down, a step takes the curvature of scoring: n/ν² of each bin times the
products of slopes, plus that of log-normal factors where n < ν and that of the constraints; it is never
negative. Each set has its own damping (K. Levenberg, Q. Appl. Math. 2 (1944) 164) and is taken out when it
has converged. All starts of a set are fitted side by side, and the lowest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.model import SMALLEST, BinnedModel, Expectation

STEPS = 2000  # few sets need more than some tens
DONE = 1e-9  # gain that a step still promises, in units of the NLL
ENOUGH = 1e-4  # the same after all steps, for sets that creep along a kink or a flat valley
KINK = 1.0  # damping that a smooth likelihood does not need near its minimum
SOFTER = 0.8  # what is left of the curvature of a kink after a step that gained
IDLE = 100  # steps without gain, after which a set of parameters lies on kinks from all sides
CAREFUL = 30.0  # damping of short steps, for a second fit that does not jump over a kink
NEAR = 1e-8  # a parameter this near to the bound that it is pushed to goes there
FLAT = 1e-12  # least curvature along an eigenvector of the scaled Hessian
LEAST, TURNED = 0.5, 2  # distance of the other sign of a nuisance, and how many are tried
NEARBY = 3.0  # −ln L above the minimum up to which the other sign is tried
NUMBERS = 8_000_000  # derivatives in memory at once
ORDINARY = 1e-6  # damping of first steps

Strength: TypeAlias = float | FloatArray | tuple[float, float]
"""Fixed, or fixed in each data set, or its range."""
Rows: TypeAlias = npt.NDArray[np.int64] | slice


class Fitted:
    """Fitted parameters (sets, parameters) and −ln L without constants (sets,)."""

    __slots__ = ("nll", "x")

    def __init__(self, x: FloatArray, nll: FloatArray) -> None:
        self.x, self.nll = x, nll


def fitted(
    model: BinnedModel,
    counts: FloatArray,
    aux: FloatArray,
    *,
    strength: Strength,
    start: FloatArray | Sequence[FloatArray] | None = None,
    held: npt.NDArray[np.bool_] | None = None,
    further: bool = True,
) -> Fitted:
    """Return the fits of data sets; of several starts the one that leads lowest counts.

    `further`: where a template vanishes, or free backgrounds describe any data, fits begin at other places
    too, and at the other sign of nuisances that move events the same way for both.
    """
    sets, p = len(counts), len(model.start)
    aux = np.broadcast_to(aux, (sets, p))
    fixed = model.fixed.copy() if held is None else model.fixed | held
    fixed[model.poi] = not isinstance(strength, tuple)
    ends = strength if isinstance(strength, tuple) else (strength, strength)
    low, high = (np.repeat(bound[None], sets, axis=0) for bound in (model.low, model.high))
    low[:, model.poi], high[:, model.poi] = ends
    free = np.flatnonzero(~fixed)
    measured = np.where(np.isfinite(model.width), aux, model.start)
    measured = np.where(np.isfinite(model.tau), aux / model.tau, measured)
    starts = [measured] if start is None else [start] if isinstance(start, np.ndarray) else [*start]
    starts.append(np.where(fixed, starts[0], model.start))
    inside = np.append(free, model.poi)
    begun = np.array([np.broadcast_to(x, (sets, p)) for x in starts])
    begun[:, :, inside] = np.clip(begun[:, :, inside], low[:, inside], high[:, inside])
    found, nll = begun[0].copy(), np.empty(sets)
    chunk = max(NUMBERS // (max(model.events.numbers, p * p) * len(begun)), 1)
    for first in range(0, sets, chunk):
        part = slice(first, first + chunk)
        data = _Data(model, counts[part], aux[part], free, low[part][:, free], high[part][:, free])
        best = _lowest(data, begun[:, part], further=further)
        if missed := int(np.isinf(best.nll).sum()):
            missing = f"{missed} of {len(best.x)} fits did not converge"
            raise PhysicsError(f"exact limits: {missing}; look for templates that vanish")
        found[part], nll[part] = best.x, best.nll
    return Fitted(found, nll)


def _lowest(data: _Data, starts: FloatArray, *, further: bool) -> _Lowest:
    """Return the lowest minimum of each data set; the last start is the nominal one."""
    model, nominal, every = data.model, starts[-1], np.arange(len(data.counts))
    several = _corners(model, data.free) if further else ()
    sided = np.intersect1d(data.free, model.one_sided) if further else data.free[:0]
    starts = starts if several or sided.size else starts[:-1]
    best = _Lowest(starts[0])
    best.take(data, np.tile(every, len(starts)), np.concatenate(starts), ORDINARY)
    again = np.flatnonzero((further & vanished(model.events, best.x)) | np.isinf(best.nll) | bool(several))
    for corner in (None, *several) if again.size else ():  # there may be a minimum before one vanishes
        careful = nominal[again]
        if corner is not None:
            careful[:, corner] = model.low[corner]
        best.take(data, again, careful, CAREFUL)
    turned = [_turned(data, best, sided, rank) for rank in range(min(TURNED, sided.size))]
    if turned:
        best.take(data, *(np.concatenate(part) for part in zip(*turned, strict=True)), ORDINARY)
    return best


@dataclass(frozen=True, slots=True, eq=False)
class _Data:
    """Data sets of one block, with the parameters that are free and their bounds."""

    model: BinnedModel
    counts: FloatArray
    aux: FloatArray
    free: npt.NDArray[np.int64]
    low: FloatArray
    high: FloatArray

    def of(self, rows: npt.NDArray[np.int64]) -> _Data:
        """Return some of the data sets."""
        names = ("counts", "aux", "low", "high")
        return replace(self, **{name: getattr(self, name)[rows] for name in names})


class _Lowest:
    """The lowest minimum of each data set so far: parameters and −ln L, infinite where no fit has ended."""

    def __init__(self, x: FloatArray) -> None:
        self.x, self.nll = x.copy(), np.full(len(x), np.inf)

    def take(self, data: _Data, rows: npt.NDArray[np.int64], starts: FloatArray, damping: float) -> None:
        """Fit some data sets, each as often as it comes, from starts; keep what is lower."""
        x, nll, left = _minimised(data.of(rows), starts, damping)
        nll[left] = np.inf
        lowest, order = np.zeros(len(self.x), dtype=np.int64), np.argsort(-nll, kind="stable")
        lowest[rows[order]] = order  # the lowest of a data set is written last
        own = np.unique(rows)
        own = own[nll[lowest[own]] < self.nll[own]]
        self.x[own], self.nll[own] = x[lowest[own]], nll[lowest[own]]


def _turned(
    data: _Data, best: _Lowest, sided: npt.NDArray[np.int64], rank: int
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the data sets that may gain from the other sign of one of these nuisances, and their starts."""
    trials, centre = np.repeat(best.x[None], len(sided), axis=0), data.model.start
    for trial, k in zip(trials, sided, strict=True):
        shift = trial[:, k] - centre[k]
        trial[:, k] = centre[k] - np.copysign(np.clip(np.abs(shift), LEAST, 3.0), shift)
    values = np.array([_nll(data.model, trial, data.counts, data.aux) for trial in trials])
    chosen = values.argsort(axis=0)[rank]
    rows = np.flatnonzero(np.take_along_axis(values, chosen[None], axis=0)[0] - best.nll < NEARBY)
    return rows, trials[chosen[rows], rows]


def _corners(model: BinnedModel, free: npt.NDArray[np.int64]) -> tuple[int, ...]:
    """Return the free normalisations of backgrounds where they are as many as bins or more, else none.

    They describe any data, in several ways, and where templates move as well each way may have a minimum:
    fits then begin at the lowest value of each of them too.
    """
    free = free[np.isnan(model.width[free]) & np.isnan(model.tau[free]) & (free != model.poi)]
    return tuple(free.tolist()) if model.events.odd.nnz and len(free) >= model.counts.size else ()


def _minimised(
    data: _Data, x: FloatArray, damping: float
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return parameters, −ln L, and which sets would still gain after all steps: long ones may zigzag."""
    model, counts, aux, free = data.model, data.counts, data.aux, data.free
    best, found, left = x.copy(), _nll(model, x, counts, aux), np.zeros(len(x), dtype=np.bool_)
    if not free.size:
        return best, found, left
    open_sets, damp = np.arange(len(x)), np.full(len(x), damping)
    idle, newton = np.zeros(len(x), dtype=np.int64), np.ones(len(x), dtype=np.bool_)
    state, stiffness = _slopes(model, best, counts, aux, free), np.zeros((len(x), model.events.nominal.size))
    for _ in range(STEPS):
        gradient, scoring, exact, excess = (part[open_sets] for part in state)
        if (stiff := stiffness[open_sets]).any():
            extra = stiffened(model.events, best[open_sets], excess, stiff, free)
            scoring, exact = scoring + extra, exact + extra
        here, low, high = best[open_sets][:, free], data.low[open_sets], data.high[open_sets]
        distance = np.where(gradient > 0, here - low, high - here)
        stuck = distance <= NEAR
        hessian = np.where(newton[open_sets, None, None], exact, scoring)
        step, promised = _step(gradient, scoring, hessian, stuck, distance, damp[open_sets])
        going = promised > DONE
        open_sets = open_sets[going]
        if not open_sets.size:
            return best, found, left
        trial = best[open_sets].copy()
        to_bound = np.where(stuck & (gradient != 0), np.where(gradient > 0, low, high), here + step)
        trial[:, free] = np.clip(to_bound, low, high)[going]
        new = _nll(model, trial, counts[open_sets], aux[open_sets])
        better = new <= found[open_sets]
        idle[open_sets] = np.where(found[open_sets] - new > 10.0 * DONE, 0, idle[open_sets] + 1)
        moved = open_sets[better]
        failed, met = open_sets[~better], newton[open_sets]
        if failed.size:
            kinks = crossings(model.events, best[failed], trial[~better])
            met[~better] |= (kinks > 1.1 * stiffness[failed]).any(axis=1)
            stiffness[failed] = np.maximum(kinks, stiffness[failed])
        newton[open_sets] = better
        best[moved], found[moved] = trial[better], new[better]
        damp[open_sets] *= np.where(
            better, np.where(damp[open_sets] > KINK, 0.4, 0.1), np.where(met, 1.0, 8.0)
        )
        if moved.size:
            fresh = _slopes(model, best[moved], counts[moved], aux[moved], free)
            for part, values in zip(state, fresh, strict=True):
                part[moved] = values
            stiffness[moved] *= SOFTER
        on = (damp[open_sets] <= 1e9) & (idle[open_sets] < IDLE)
        open_sets, gain = open_sets[on], promised[going][on]
        damp = np.maximum(damp, 1e-9)
    left[open_sets[gain > ENOUGH]] = True
    return best, found, left


def _nll(model: BinnedModel, x: FloatArray, counts: FloatArray, aux: FloatArray) -> FloatArray:
    mean = np.maximum(model.expected(x), SMALLEST)
    return np.asarray((mean - counts * np.log(mean)).sum(axis=1) + model.penalty(x, aux)[0], dtype=np.float64)


def _slopes(
    model: BinnedModel, x: FloatArray, counts: FloatArray, aux: FloatArray, free: npt.NDArray[np.int64]
) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
    """Return gradient, curvature of scoring and Hessian of the free parameters, and max(1 − n/ν, 0)."""
    found = model.events.with_slopes(x)
    mean, slopes = np.maximum(found.total, SMALLEST), found.slopes[:, :, free]
    weight = 1.0 - counts / mean
    _, gradient, diagonal = model.penalty(x, aux)
    gradient = gradient[:, free] + np.matmul(weight[:, None, :], slopes)[:, 0]
    excess, index = np.maximum(weight, 0.0), np.arange(free.size)
    root = slopes * (np.sqrt(counts) / mean)[:, :, None]
    square = np.matmul(root.transpose(0, 2, 1), root)
    square[:, index, index] += diagonal[:, free] + 1e-10
    exact = square + model.events.curvature(weight, found)[:, free[:, None], free]
    if found.logs.size:
        heavy = np.sqrt(np.maximum(model.events.of_samples(excess, found), 0.0))
        norms = found.logs[:, :, free] * heavy[:, :, None]
        square += np.matmul(norms.transpose(0, 2, 1), norms)
    return gradient, square, exact, excess


def _step(
    gradient: FloatArray,
    scoring: FloatArray,
    hessian: FloatArray,
    stuck: npt.NDArray[np.bool_],
    distance: FloatArray,
    damping: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the damped step with parameters at their bounds left out, and the gain without damping.

    Gradient over distance of the bound that it points to stands on the diagonal (T. F. Coleman and Y. Li,
    SIAM J. Optim. 6 (1996) 418): a bin without counts bends nothing; its content ends at zero. Where the
    Hessian leads up, scoring takes its place.
    """
    g, index = np.where(stuck, 0.0, gradient), np.arange(gradient.shape[1])
    wall = np.abs(g) / np.maximum(distance, NEAR)
    scale = np.where(stuck, 0.0, 1.0 / np.sqrt(np.where(stuck, 1.0, scoring[:, index, index] + wall)))
    down, more = (g * scale)[:, :, None], wall * scale**2 + stuck

    def solved(curvature: FloatArray, added: FloatArray, rows: Rows = slice(None)) -> FloatArray:
        own = scale[rows]
        h = curvature[rows] * own[:, :, None] * own[:, None, :]
        h[:, index, index] += more[rows] + added[rows]
        return np.linalg.solve(h, down[rows])

    promised = 0.5 * (down * solved(scoring, np.full((len(g), 1), FLAT)))[:, :, 0].sum(axis=1)
    step = solved(hessian, damping[:, None])
    leads_up = np.flatnonzero((step * down).sum(axis=(1, 2)) < 0.0)
    if leads_up.size:
        step[leads_up] = solved(scoring, damping[:, None], leads_up)
    return np.asarray(-step[:, :, 0] * scale, dtype=np.float64), np.asarray(promised, dtype=np.float64)


SHARE = 0.05  # of a bin, which a template must have to be missed there
CLOSEST = 1e-9  # events between both sides of a kink, of which no more is asked


def crossings(events: Expectation, before: FloatArray, after: FloatArray) -> FloatArray:
    """Return one over the change of each template that passes zero between parameters, else zero."""
    first, last = events.shape(before), events.shape(after)
    passed = (first > 0.0) != (last > 0.0)
    return np.where(passed, 1.0 / np.maximum(np.abs(last - first), CLOSEST), 0.0)


def stiffened(
    events: Expectation,
    x: FloatArray,
    excess: FloatArray,
    stiffness: FloatArray,
    free: npt.NDArray[np.int64],
) -> FloatArray:
    """Return the curvatures of the kinks that steps have met."""
    weight = stiffness * excess[:, events.bin_of]
    stiff = np.zeros((len(x), free.size, free.size))
    of_set, cell = np.nonzero(weight)
    if not of_set.size:
        return stiff
    sets, rank = np.unique(of_set, return_inverse=True)
    slot = np.arange(of_set.size) - np.searchsorted(of_set, of_set)
    moved, weights = events.shape_slopes(x[of_set], cell), weight[of_set, cell]
    factor = events.factor(x[sets])[rank, cell]
    rows = np.zeros((sets.size, int(slot.max()) + 1, free.size))
    rows[rank, slot] = moved[:, free] * np.sqrt(weights * np.maximum(factor, 0.0))[:, None]
    stiff[sets] = np.matmul(rows.transpose(0, 2, 1), rows)
    return stiff


def vanished(events: Expectation, x: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether a template that matters is zero at parameters (sets, parameters), shape (sets,).

    It matters where its nominal yield is more than 5 % of that of its bin.
    """
    matters = events.nominal > SHARE * (events.gather @ events.nominal)[events.bin_of]
    return np.asarray(((events.shape(x) <= 0.0) & matters & (events.nominal > 0.0)).any(axis=1))
