"""Fits of a binned model to many data sets at once: damped scoring with bounds, all sets in step.

The curvature is n/ν² of each bin times the products of slopes, exact for linear parameters, plus that of
log-normal factors where n < ν and that of the constraints; it is never negative. Each set has its own
damping (K. Levenberg, Q. Appl. Math. 2 (1944) 164) and is taken out when it has converged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    strength: float | tuple[float, float],
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
    low, high, fixed = model.low.copy(), model.high.copy(), model.fixed.copy()
    if held is not None:
        fixed |= held
    fixed[model.poi] = not isinstance(strength, tuple)
    low[model.poi], high[model.poi] = strength if isinstance(strength, tuple) else (strength, strength)
    free = np.flatnonzero(~fixed)
    measured = np.where(np.isfinite(model.width), aux, model.start)
    measured = np.where(np.isfinite(model.tau), aux / model.tau, measured)
    starts = [measured] if start is None else [start] if isinstance(start, np.ndarray) else [*start]
    inside = np.append(free, model.poi)

    def begun(x: FloatArray) -> FloatArray:
        x = np.array(np.broadcast_to(x, (sets, p)))
        x[:, inside] = np.clip(x[:, inside], low[inside], high[inside])
        return x

    starts = [begun(x) for x in starts]
    starts.append(begun(np.where(fixed, starts[0], model.start)))
    found, nll = starts[0].copy(), np.empty(sets)
    chunk = max(NUMBERS // max(model.events.numbers, p * p), 1)
    for first in range(0, sets, chunk):
        part = slice(first, first + chunk)
        data = _Data(model, counts[part], aux[part], free, low[free], high[free])
        best = _lowest(data, [x[part] for x in starts], further=further)
        if best.left.any():
            missed = f"{best.left.sum()} of {len(best.x)} fits"
            raise PhysicsError(f"exact limits: {missed} did not converge; look for templates that vanish")
        found[part], nll[part] = best.x, best.nll
    return Fitted(found, nll)


def _lowest(data: _Data, starts: Sequence[FloatArray], *, further: bool) -> _Lowest:
    """Return the lowest minimum of each data set; the last start is the nominal one."""
    model, nominal = data.model, starts[-1]
    several = _corners(model, data.free) if further else ()
    sided = np.intersect1d(data.free, model.one_sided) if further else data.free[:0]
    best = _Lowest(*_minimised(data, starts[0]))
    for x in starts[1:] if several or sided.size else starts[1:-1]:
        best.take(slice(None), *_minimised(data, x))
    again = np.flatnonzero((further & vanished(model.events, best.x)) | best.left | bool(several))
    for corner in (None, *several) if again.size else ():  # there may be a minimum before one vanishes
        careful = nominal[again]
        if corner is not None:
            careful[:, corner] = model.low[corner]
        best.take(again, *_minimised(data.of(again), careful, damping=CAREFUL))
    for rank in range(min(TURNED, sided.size)):
        rows, turned = _turned(data, best, sided, rank)
        best.take(rows, *_minimised(data.of(rows), turned))
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
        return replace(self, counts=self.counts[rows], aux=self.aux[rows])


class _Lowest:
    """The lowest minimum of each data set so far: parameters, −ln L, and whether the fit was left open."""

    def __init__(self, x: FloatArray, nll: FloatArray, left: npt.NDArray[np.bool_]) -> None:
        self.x, self.nll, self.left = x, nll, left

    def take(
        self,
        rows: npt.NDArray[np.int64] | slice,
        x: FloatArray,
        nll: FloatArray,
        left: npt.NDArray[np.bool_],
    ) -> None:
        """Take other fits of some data sets where they are better."""
        rows = np.arange(len(self.x))[rows]
        better = ((nll < self.nll[rows]) | self.left[rows]) & ~left
        at = rows[better]
        self.x[at], self.nll[at], self.left[at] = x[better], nll[better], False


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
    data: _Data, x: FloatArray, damping: float = 1e-6
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return parameters, −ln L, and which sets would still gain after all steps: long ones may zigzag."""
    model, counts, aux, free = data.model, data.counts, data.aux, data.free
    low, high = data.low, data.high
    best, found, left = x.copy(), _nll(model, x, counts, aux), np.zeros(len(x), dtype=np.bool_)
    if not free.size:
        return best, found, left
    open_sets, damp = np.arange(len(x)), np.full(len(x), damping)
    idle = np.zeros(len(x), dtype=np.int64)
    state, stiffness = _slopes(model, best, counts, aux, free), np.zeros((len(x), model.events.nominal.size))
    for _ in range(STEPS):
        gradient, curvature, excess = (part[open_sets] for part in state)
        if (stiff := stiffness[open_sets]).any():
            curvature = stiffened(model.events, curvature, best[open_sets], excess, stiff, free)
        here = best[open_sets][:, free]
        distance = np.where(gradient > 0, here - low, high - here)
        stuck = distance <= NEAR
        step, promised = _step(gradient, curvature, stuck, distance, damp[open_sets])
        going = promised > DONE
        open_sets = open_sets[going]
        if not open_sets.size:
            return best, found, left
        trial = best[open_sets].copy()
        to_bound = np.where(stuck & (gradient != 0), np.where(gradient > 0, low, high), here + step)
        trial[:, free] = np.clip(to_bound[going], low, high)
        new = _nll(model, trial, counts[open_sets], aux[open_sets])
        better = new <= found[open_sets]
        idle[open_sets] = np.where(found[open_sets] - new > 10.0 * DONE, 0, idle[open_sets] + 1)
        moved = open_sets[better]
        failed, met = open_sets[~better], np.zeros(len(open_sets), dtype=bool)
        if failed.size:
            kinks = crossings(model.events, best[failed], trial[~better])
            met[~better] = (kinks > 1.1 * stiffness[failed]).any(axis=1)
            stiffness[failed] = np.maximum(kinks, stiffness[failed])
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
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return gradient and curvature of the free parameters, and 1 − n/ν where it is positive."""
    mean, slopes, norms = model.events.with_slopes(x)
    mean, slopes = np.maximum(mean, SMALLEST), slopes[:, :, free]
    _, gradient, diagonal = model.penalty(x, aux)
    gradient = gradient[:, free] + np.matmul((1.0 - counts / mean)[:, None, :], slopes)[:, 0]
    excess = np.maximum(1.0 - counts / mean, 0.0)
    weight = (norms.samples @ (excess[:, norms.bins] * norms.events).T).T
    root = np.concatenate(
        [
            slopes * (np.sqrt(counts) / mean)[:, :, None],
            norms.logs[:, :, free] * np.sqrt(np.maximum(weight, 0.0))[:, :, None],
        ],
        axis=1,
    )
    curvature = np.matmul(root.transpose(0, 2, 1), root)
    index = np.arange(free.size)
    curvature[:, index, index] += diagonal[:, free] + 1e-10
    return gradient, curvature, excess


def _step(
    gradient: FloatArray,
    curvature: FloatArray,
    stuck: npt.NDArray[np.bool_],
    distance: FloatArray,
    damping: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the damped step with parameters at their bounds left out, and the gain without damping.

    Gradient over distance of the bound that it points to stands on the diagonal (T. F. Coleman and Y. Li,
    SIAM J. Optim. 6 (1996) 418): a bin without counts bends nothing; its content ends at zero.
    """
    g, keep = np.where(stuck, 0.0, gradient), ~stuck
    h = curvature * (keep[:, :, None] & keep[:, None, :])
    index = np.arange(g.shape[1])
    wall = np.abs(g) / np.maximum(distance, NEAR)
    diagonal = np.where(stuck, 1.0, h[:, index, index] + wall)
    scale = 1.0 / np.sqrt(diagonal)
    h *= scale[:, :, None] * scale[:, None, :]
    h[:, index, index] = 1.0 + FLAT
    down = (g * scale)[:, :, None]
    promised = 0.5 * (down * np.linalg.solve(h, down))[:, :, 0].sum(axis=1)
    h[:, index, index] += damping[:, None]
    step = np.linalg.solve(h, down)[:, :, 0] * scale
    return np.asarray(-step, dtype=np.float64), np.asarray(promised, dtype=np.float64)


SHARE = 0.05  # of a bin, which a template must have to be missed there
CLOSEST = 1e-9  # events between both sides of a kink, of which no more is asked


def crossings(events: Expectation, before: FloatArray, after: FloatArray) -> FloatArray:
    """Return one over the change of each template that passes zero between parameters, else zero."""
    first, last = events.shape(before), events.shape(after)
    passed = (first > 0.0) != (last > 0.0)
    return np.where(passed, 1.0 / np.maximum(np.abs(last - first), CLOSEST), 0.0)


def stiffened(
    events: Expectation,
    curvature: FloatArray,
    x: FloatArray,
    excess: FloatArray,
    stiffness: FloatArray,
    free: npt.NDArray[np.int64],
) -> FloatArray:
    """Return curvatures with those of the kinks that steps have met."""
    weight = stiffness * excess[:, events.bin_of]
    of_set, cell = np.nonzero(weight)
    if not of_set.size:
        return curvature
    sets, rank = np.unique(of_set, return_inverse=True)
    slot = np.arange(of_set.size) - np.searchsorted(of_set, of_set)
    moved, weights = events.shape_slopes(x[of_set], cell), weight[of_set, cell]
    factor = events.factor(x[sets])[rank, cell]
    rows = np.zeros((sets.size, int(slot.max()) + 1, free.size))
    rows[rank, slot] = moved[:, free] * np.sqrt(weights * np.maximum(factor, 0.0))[:, None]
    stiff = curvature.copy()
    stiff[sets] += np.matmul(rows.transpose(0, 2, 1), rows)
    return stiff


def vanished(events: Expectation, x: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether a template that matters is zero at parameters (sets, parameters), shape (sets,).

    It matters where its nominal yield is more than 5 % of that of its bin.
    """
    matters = events.nominal > SHARE * (events.gather @ events.nominal)[events.bin_of]
    return np.asarray(((events.shape(x) <= 0.0) & matters & (events.nominal > 0.0)).any(axis=1))
