"""Fits of a binned model to many data sets at once: damped scoring with bounds, all sets in step.

The curvature is n/ν² of each bin times the products of slopes, exact for linear parameters, plus that of
log-normal factors where n < ν and that of the constraints; it is never negative. Each set has its own
damping (K. Levenberg, Q. Appl. Math. 2 (1944) 164) and is taken out when it has converged.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.kinks import crossings, stiffened, vanished
from gammastar.infer.binned.model import SMALLEST, BinnedModel

STEPS = 2000  # few sets need more than some tens
DONE = 1e-9  # gain that a step still promises, in units of the NLL
ENOUGH = 1e-4  # the same after all steps, for sets that creep along a kink or a flat valley
KINK = 1.0  # damping that a smooth likelihood does not need near its minimum
SOFTER = 0.8  # what is left of the curvature of a kink after a step that gained
IDLE = 100  # steps without gain, after which a set of parameters lies on kinks from all sides
CAREFUL = 30.0  # damping of short steps, for a second fit that does not jump over a kink
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
    start: FloatArray | None = None,
    held: npt.NDArray[np.bool_] | None = None,
) -> Fitted:
    """Return the fits of data sets."""
    sets, p = len(counts), len(model.start)
    aux = np.broadcast_to(aux, (sets, p))
    x = np.array(np.broadcast_to(model.start[None, :] if start is None else start, (sets, p)))
    low, high, fixed = model.low.copy(), model.high.copy(), model.fixed.copy()
    if held is not None:
        fixed |= held
    if isinstance(strength, tuple):
        low[model.poi], high[model.poi], fixed[model.poi] = *strength, False
    else:
        x[:, model.poi], fixed[model.poi] = strength, True
        low[model.poi], high[model.poi] = min(low[model.poi], strength), max(high[model.poi], strength)
    free = np.flatnonzero(~fixed)
    x[:, free] = np.clip(x[:, free], low[free], high[free])
    nll = np.empty(sets)
    chunk = max(NUMBERS // max(model.events.numbers, p * p), 1)
    for begin in range(0, sets, chunk):
        part = slice(begin, begin + chunk)
        room = (free, low[free], high[free])
        begun = x[part].copy()
        x[part], nll[part], left = _minimised(model, begun, counts[part], aux[part], room)
        several = _corners(model, fixed)
        again = begin + np.flatnonzero(vanished(model.events, x[part]) | left | bool(several))
        unfinished = left[again - begin]
        for corner in (None, *several) if again.size else ():  # there may be a minimum before one vanishes
            careful = begun[again - begin]
            if corner is not None:
                careful[:, corner] = low[corner]
            other, lower, left = _minimised(model, careful, counts[again], aux[again], room, damping=CAREFUL)
            gained = ((lower < nll[again]) | unfinished) & ~left
            x[again[gained]], nll[again[gained]] = other[gained], lower[gained]
            unfinished &= left
        _check(unfinished, len(again))
    return Fitted(x, nll)


def _corners(model: BinnedModel, fixed: npt.NDArray[np.bool_]) -> tuple[int, ...]:
    """Return the free normalisations of backgrounds where they are as many as bins or more, else none.

    They describe any data, in several ways, and where templates move as well each way may have a minimum:
    fits then begin at the lowest value of each of them too.
    """
    free = np.flatnonzero(~fixed & np.isnan(model.width) & np.isnan(model.tau))
    free = free[free != model.poi]
    return tuple(free.tolist()) if model.events.odd.nnz and len(free) >= model.counts.size else ()


def _minimised(
    model: BinnedModel,
    x: FloatArray,
    counts: FloatArray,
    aux: FloatArray,
    room: tuple[npt.NDArray[np.int64], FloatArray, FloatArray],
    damping: float = 1e-6,
) -> tuple[FloatArray, FloatArray, npt.NDArray[np.bool_]]:
    """Return parameters, −ln L, and which sets would still gain after all steps: long ones may zigzag."""
    free, low, high = room
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
        stuck = ((here <= low) & (gradient > 0)) | ((here >= high) & (gradient < 0))
        step, promised = _step(gradient, curvature, stuck, damp[open_sets])
        going = promised > DONE
        open_sets = open_sets[going]
        if not open_sets.size:
            return best, found, left
        trial = best[open_sets].copy()
        trial[:, free] = np.clip(here[going] + step[going], low, high)
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


def _check(left: npt.NDArray[np.bool_], tried: int) -> None:
    if left.any():
        msg = f"exact limits: {left.sum()} of {tried} fits did not converge; look for templates that vanish"
        raise PhysicsError(msg)


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
    gradient: FloatArray, curvature: FloatArray, stuck: npt.NDArray[np.bool_], damping: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the damped step with parameters at their bounds left out, and the gain without damping."""
    g = np.where(stuck, 0.0, gradient)
    keep = ~stuck
    h = curvature * (keep[:, :, None] & keep[:, None, :])
    index = np.arange(g.shape[1])
    h[:, index, index] = np.where(stuck, 1.0, h[:, index, index])
    promised = 0.5 * (g * np.linalg.solve(h, g[:, :, None])[:, :, 0]).sum(axis=1)
    h[:, index, index] *= 1.0 + damping[:, None]
    step = np.linalg.solve(h, g[:, :, None])[:, :, 0]
    return np.asarray(-step, dtype=np.float64), np.asarray(promised, dtype=np.float64)
