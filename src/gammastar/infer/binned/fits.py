"""Fits of a binned model to many data sets at once: damped Newton steps with bounds, all sets in step.

Where the Hessian does not lead down, a step takes the curvature of scoring: n/ν² of each bin times the
products of slopes, plus that of log-normal factors where n < ν and that of the constraints; it is never
negative. Each set has its own damping (K. Levenberg, Q. Appl. Math. 2 (1944) 164) and is taken out when it
has converged. Once a step failed, free samples change their yields linearly along the next ones: straight
steps creep along the curved valley of a factor and a nuisance. All starts of a set are fitted side by side,
and the lowest counts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.sparse import csr_array
from scipy.special import xlogy

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.model import SMALLEST, Bends, BinnedModel, Expectation, IntArray, Layout

STEPS = 2000  # few sets need more than some tens
RIDGE = 1e-10  # curvature of parameters that nothing else bends, in units of them or of one
DONE = 1e-11  # gain of −ln L that a step still promises
ROUNDING = 1e-15  # of −ln L for each count, by which a step may seem to rise
ENOUGH = 1e-4  # the same after all steps, for sets that creep along a kink or a flat valley
KINK = 1.0  # damping that a smooth likelihood does not need near its minimum
SOFTER = 0.8  # what is left of the curvature of a kink after a step that gained
# Steps without such a gain, after which a set of parameters lies on kinks from all sides
IDLE, GAIN = 40, 1e-8
SMOOTH = 4  # steps that one counts for in a valley without kinks, which may end at infinity
CAREFUL = 30.0  # damping of short steps, for a second fit that does not jump over a kink
NEAR = 1e-8  # a parameter this near to the bound that it is pushed to goes there
FLAT = 1e-12  # least curvature along an eigenvector of the scaled Hessian
LEAST, TURNED = 0.5, 2  # distance of the other sign of a nuisance, and how many are tried
NEARBY = 3.0  # −ln L above the minimum up to which the other sign is tried
NUMBERS = 2_000_000  # derivatives in memory at once
ORDINARY = 1e-2  # damping of first steps
FAR = 0.1  # damping after a step that leads up, as those from far away
FEW, BARE = 6.0, 1e-3  # counts for each free factor of the signal below which fits begin without these too
SURE = 1e-7  # gain of −ln L up to which scoring says what a step still promises

Strength: TypeAlias = float | FloatArray | tuple[float, float]
"""Fixed, or fixed in each data set, or its range."""
Rows: TypeAlias = IntArray | slice


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Fits of n data sets."""

    x: FloatArray  # shape (n, parameters)
    nll: FloatArray  # −ln L over that of perfect counts; infinite where a fit has not ended, shape (n,)
    slope: FloatArray  # Its derivative by the strength, shape (n,)


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

    `held` parameters stay where they begin. `further`: where a template vanishes, or free backgrounds
    describe any data, fits begin at other places too, and at the other sign of nuisances that move events the
    same way for both.
    """
    sets, p = len(counts), len(model.start)
    aux = np.broadcast_to(aux, (sets, p))
    measured = np.where(np.isfinite(model.width), aux, model.start)
    measured = np.where(np.isfinite(model.tau), aux / model.tau, measured)
    starts = [measured] if start is None else [start] if isinstance(start, np.ndarray) else [*start]
    starts.append(np.broadcast_to(model.start, (sets, p)))
    begun = np.array([np.broadcast_to(x, (sets, p)) for x in starts])
    fixed = model.fixed if held is None else model.fixed | held
    low, high = (np.where(fixed, begun[0], bound) for bound in (model.low, model.high))
    ends = strength if isinstance(strength, tuple) else (strength, strength)
    low[:, model.poi], high[:, model.poi] = ends
    found = lowest(model, Data(counts, aux, low, high), np.clip(begun, low, high), further=further)
    if missed := int(np.isinf(found.nll).sum()):
        missing = f"{missed} of {sets} fits did not converge"
        raise PhysicsError(f"exact limits: {missing}; look for templates that vanish")
    return found


@dataclass(frozen=True, slots=True, eq=False)
class Data:
    """Data sets and the bounds of their parameters, equal ones where a parameter is fixed; n rows each."""

    counts: FloatArray  # shape (n, bins)
    aux: FloatArray  # shape (n, parameters)
    low: FloatArray
    high: FloatArray

    def of(self, rows: Rows) -> Data:
        """Return some of the data sets."""
        return Data(self.counts[rows], self.aux[rows], self.low[rows], self.high[rows])


def lowest(model: BinnedModel, data: Data, starts: FloatArray, *, further: bool) -> Fitted:
    """Return the lowest minimum of each data set from several starts, shape (starts, n, parameters).

    The last one is the nominal one, which serves where others do not do.
    """
    sets = len(data.counts)
    chunk = max(NUMBERS // (model.events.numbers * len(starts)), 1)
    parts = []
    for first in range(0, sets, chunk):
        part = slice(first, first + chunk)
        parts.append(_lowest(model, data.of(part), starts[:, part], further=further))
    return Fitted(*(np.concatenate([getattr(one, name) for one in parts]) for name in ("x", "nll", "slope")))


def _lowest(model: BinnedModel, data: Data, starts: FloatArray, *, further: bool) -> _Lowest:
    nominal, every = starts[-1], np.arange(len(data.counts))
    free = np.flatnonzero((data.low < data.high).any(axis=0))
    several = _corners(model, free) if further else []
    sided = np.intersect1d(free, model.one_sided) if further else free[:0]
    starts = starts if several or sided.size else starts[:-1]
    best = _Lowest(starts[0])
    best.take(model, data, np.tile(every, len(starts)), np.concatenate(starts))
    if further:
        linear = model.events.linear
        contents = np.intersect1d(_loose(model, free), linear[(linear == model.poi).any(axis=1)])
        few = np.flatnonzero(data.counts.sum(axis=1) < FEW * contents.size)
        bare = nominal[few]
        bare[:, contents] = np.maximum(data.low[few[:, None], contents], BARE)
        best.take(model, data, few, bare)  # what the signal is made of may vanish
    again = np.flatnonzero((further & vanished(model.events, best.x)) | np.isinf(best.nll) | bool(several))
    careful = [nominal[again] for _ in ([], *several)]  # there may be a minimum before one vanishes
    for begin, corner in zip(careful, ([], *several), strict=True):
        begin[:, corner] = model.low[corner]
    best.take(model, data, np.tile(again, len(careful)), np.concatenate(careful), CAREFUL)
    turned = [_turned(model, data, best, sided, rank) for rank in range(min(TURNED, sided.size))]
    if turned:
        rows, starts = (np.concatenate(part) for part in zip(*turned, strict=True))
        best.take(model, data, rows, starts)
    return best


class _Lowest:
    """The lowest minimum of each data set so far."""

    def __init__(self, x: FloatArray) -> None:
        self.x, self.nll, self.slope = x.copy(), np.full(len(x), np.inf), np.zeros(len(x))

    def take(
        self, model: BinnedModel, data: Data, rows: IntArray, starts: FloatArray, damping: float = ORDINARY
    ) -> None:
        """Fit some data sets, each as often as it comes, from starts; keep what is lower."""
        if not rows.size:
            return
        found = _minimised(model, data.of(rows), starts, damping)
        last, order = np.zeros(len(self.x), dtype=np.int64), np.argsort(-found.nll, kind="stable")
        last[rows[order]] = order  # the lowest of a data set is written last
        own = np.unique(rows)
        own = own[found.nll[last[own]] < self.nll[own]]
        for name in ("x", "nll", "slope"):
            getattr(self, name)[own] = getattr(found, name)[last[own]]


def _turned(
    model: BinnedModel, data: Data, best: _Lowest, sided: IntArray, rank: int
) -> tuple[IntArray, FloatArray]:
    """Return the data sets that may gain from the other sign of one of these nuisances, and their starts."""
    trials, centre, n = np.repeat(best.x[None], len(sided), axis=0), model.start, len(best.x)
    for trial, k in zip(trials, sided, strict=True):
        shift = trial[:, k] - centre[k]
        trial[:, k] = centre[k] - np.copysign(np.clip(np.abs(shift), LEAST, 3.0), shift)
    most = max(NUMBERS // (n * max(model.events.nominal.size, 1)), 1)
    parts = np.array_split(trials, -(-len(sided) // most))
    values = np.concatenate(
        [
            _nll(model, part.reshape(-1, part.shape[2]), data.of(np.tile(np.arange(n), len(part))))
            for part in parts
        ]
    ).reshape(-1, n)
    chosen = values.argsort(axis=0)[rank]
    rows = np.flatnonzero(np.take_along_axis(values, chosen[None], axis=0)[0] - best.nll < NEARBY)
    return rows, trials[chosen[rows], rows]


def _loose(model: BinnedModel, free: IntArray) -> IntArray:
    """Return the free parameters without a constraint, but for the strength."""
    unknown = np.isnan(model.width[free]) & np.isnan(model.tau[free])
    return np.asarray(free[unknown & (free != model.poi)], dtype=np.int64)


def _corners(model: BinnedModel, free: IntArray) -> list[list[int]]:
    """Return the free normalisations of backgrounds where they are as many as bins or more, else none.

    They describe any data, in several ways, and where templates move as well each way may have a minimum:
    fits then begin at the lowest value of each of them too, and of each two where they are three or four.
    """
    loose = _loose(model, free).tolist()
    if not model.events.odd.nnz or len(loose) < model.counts.size:
        return []
    sizes = (1, 2) if 2 < len(loose) < 5 else (1,)
    return [list(group) for size in sizes for group in combinations(loose, size)]


def _nll(model: BinnedModel, x: FloatArray, data: Data) -> FloatArray:
    return negative_log(model, x, data.counts, data.aux)


def _minimised(model: BinnedModel, data: Data, x: FloatArray, damping: float) -> Fitted:
    """Return the minima that fits from one start each end in; long steps may zigzag, and do not end."""
    n, best = len(x), x.copy()
    found, ended = _nll(model, x, data), np.ones(n, dtype=np.bool_)
    open_sets, damp, idle = np.arange(n), np.full(n, damping), np.zeros(n, dtype=np.int64)
    newton, stiffness = np.ones(n, dtype=np.bool_), np.zeros((n, model.events.nominal.size))
    state, rounding = _State.at(model, best, data), ROUNDING * (1.0 + data.counts.sum(axis=1))
    yields, curved = _Yields.of(model, data), np.zeros(n, dtype=np.bool_)
    for _ in range(STEPS):
        own = state.of(open_sets)
        if (stiff := stiffness[open_sets]).any():
            own = own.stiffer(model.events, best[open_sets], stiff)
        here, low, high = best[open_sets], data.low[open_sets], data.high[open_sets]
        gradient = own.gradient
        distance = np.where(gradient > 0, here - low, high - here)
        stuck = distance <= NEAR
        step, promised = _step(model.events.layout, own, newton[open_sets], stuck, distance, damp[open_sets])
        to_bound = np.where(stuck & (gradient != 0), np.where(gradient > 0, low, high), here + step)
        trial = np.clip(to_bound, low, high)
        if (rows := np.flatnonzero(curved[open_sets])).size:
            steps, part = yields.followed(model.events, here[rows], trial[rows])
            trial[rows] = np.clip(steps, low[rows], high[rows])
            promised[rows] *= part * (2.0 - part)
        going = promised > DONE
        open_sets, trial = open_sets[going], trial[going]
        if not open_sets.size:
            break
        new = _nll(model, trial, data.of(open_sets))
        better = new <= found[open_sets] + rounding[open_sets]
        waits = np.where(curved[open_sets] & ~stiffness[open_sets].any(axis=1), SMOOTH, 1)
        idle[open_sets] = np.where(found[open_sets] - new > GAIN, 0, idle[open_sets] + waits)
        moved = open_sets[better]
        failed, met = open_sets[~better], newton[open_sets]
        curved[failed] = True
        if failed.size and model.events.shifted:
            kinks = crossings(model.events, best[failed], trial[~better])
            met[~better] |= (kinks > 1.1 * stiffness[failed]).any(axis=1)
            stiffness[failed] = np.maximum(kinks, stiffness[failed])
        newton[open_sets] = better
        best[moved], found[moved] = trial[better], new[better]
        damp[open_sets] *= np.where(
            better, np.where(damp[open_sets] > KINK, 0.4, 0.1), np.where(met, 1.0, 8.0)
        )
        worse = open_sets[~better & ~met]
        damp[worse] = np.maximum(damp[worse], FAR)
        if moved.size:
            state.take(moved, _State.at(model, best[moved], data.of(moved)))
            stiffness[moved] *= SOFTER
        on = (damp[open_sets] <= 1e9) & (idle[open_sets] < IDLE)
        open_sets, gain = open_sets[on], promised[going][on]
        damp = np.maximum(damp, 1e-9)
    else:
        ended[open_sets[gain > ENOUGH]] = False
    return Fitted(best, np.where(ended, found, np.inf), state.gradient[:, model.poi])


@dataclass(frozen=True, slots=True, eq=False)
class _Yields:
    """Free factors of samples that no other one scales, and the others, as μ in a joint fit."""

    alone: IntArray
    beside: IntArray
    # Which cells they scale, shape (factors, cells)
    cells_alone: csr_array
    cells_beside: csr_array

    @classmethod
    def of(cls, model: BinnedModel, data: Data) -> _Yields:
        """Return those that are free in any data set."""
        free = np.flatnonzero((data.low < data.high).any(axis=0))
        free = np.union1d(_loose(model, free), np.intersect1d(free, [model.poi]))
        scaled = (model.events.linear[None] == free[:, None, None]).any(axis=2)
        single = scaled & (scaled.sum(axis=0) == 1)
        some = single.any(axis=1)
        return cls(free[some], free[~some], csr_array(1.0 * single[some]), csr_array(1.0 * scaled[~some]))

    def followed(
        self, events: Expectation, x: FloatArray, trial: FloatArray
    ) -> tuple[FloatArray, FloatArray]:
        """Return the ends of steps that change yields linearly, not factors, and the part of each taken.

        Where a nuisance takes events from a template and its factor brings them back, −ln L has a curved
        valley, which straight steps leave at once. None takes more than 90 % of a template.
        """
        step, part = trial - x, np.ones(len(x))
        for factors, cells in ((self.alone, self.cells_alone), (self.beside, self.cells_beside)):
            if not factors.size:
                continue
            begin = np.concatenate([x, x + NUDGE * step])
            here, nudged = np.split(_per_factor(events, begin, factors, cells), 2)
            change = (nudged - here) / NUDGE
            if factors is self.alone:
                lost = np.divide(-change, here, out=np.zeros_like(here), where=here > 0.0).max(axis=1)
                part = KEPT / np.maximum(lost, KEPT)
                step, change = step * part[:, None], change * part[:, None]
                trial = x + step
            there = _per_factor(events, trial, factors, cells)
            new = here * trial[:, factors] + x[:, factors] * change
            trial[:, factors] = np.divide(new, there, out=trial[:, factors], where=there > 0.0)
        return trial, part


NUDGE, KEPT = 1e-3, 0.9  # part of a step, to differentiate; part of a template that a step may take


def _per_factor(events: Expectation, x: FloatArray, factors: IntArray, cells: csr_array) -> FloatArray:
    """Return the events of samples at factors of one, shape (n, factors)."""
    x = x.copy()
    x[:, factors] = 1.0
    return np.asarray((cells @ events.cells(x)).T)


def negative_log(model: BinnedModel, x: FloatArray, counts: FloatArray, aux: FloatArray) -> FloatArray:
    """Return −ln L over that of perfect counts, without constants of the constraints: it keeps its digits."""
    mean = model.expected(x)
    bins = mean - counts - xlogy(counts, np.maximum(mean, SMALLEST) / np.where(counts > 0, counts, 1.0))
    return np.asarray(bins.sum(axis=1) + model.penalty(x, aux)[0], dtype=np.float64)


def derivatives(
    model: BinnedModel, x: FloatArray, counts: FloatArray, aux: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return gradient and Hessian of −ln L in all parameters, shape (n, p) and (n, p, p)."""
    found = _State.at(model, x, Data(counts, aux, x, x))
    return found.gradient, model.events.layout.whole(found.hessian)


@dataclass(frozen=True, slots=True, eq=False)
class _State:
    """−ln L of data sets at their parameters: gradient, curvature of scoring, Hessian, max(1 − n/ν, 0)."""

    gradient: FloatArray
    scoring: Bends
    hessian: Bends
    excess: FloatArray

    @classmethod
    def at(cls, model: BinnedModel, x: FloatArray, data: Data) -> _State:
        events, layout = model.events, model.events.layout
        found = events.with_slopes(x)
        mean = np.maximum(found.total, SMALLEST)
        weight, root = 1.0 - data.counts / mean, np.sqrt(data.counts) / mean
        excess, m = np.maximum(weight, 0.0), np.arange(layout.core.size)
        _, gradient, diagonal = model.penalty(x, data.aux)
        core = np.matmul(weight[:, None, :], found.core)[:, 0]
        near = found.core * root[:, :, None]
        square = np.swapaxes(near, 1, 2) @ near
        own, behind = layout.split(diagonal + RIDGE / np.maximum(x**2, 1.0), 1.0)
        square[:, m, m] += own
        (g, s), bent = layout.local.shape, events.curvature(weight, found)
        cross, blocks = bent.cross, bent.blocks
        if g:
            rows = np.where(layout.rows < events.bins, layout.rows, 0)  # slopes behind the last bin are zero
            local = (np.swapaxes(found.local, 2, 3) @ weight[:, rows, None])[..., 0]
            far = found.local * root[:, rows, None]
            cross = np.swapaxes(far, 2, 3) @ near[:, rows]
            blocks = np.swapaxes(far, 2, 3) @ far
            blocks[:, :, np.arange(s), np.arange(s)] += behind
            gradient = gradient + layout.joined(core, local)
        else:
            gradient[:, layout.core] += core
        exact = Bends(square + bent.core, cross + bent.cross, blocks + bent.blocks)
        if found.logs.size:
            heavy = np.sqrt(np.maximum(events.of_samples(excess, found), 0.0))
            norms = found.logs * heavy[:, :, None]
            square = square + np.swapaxes(norms, 1, 2) @ norms
        return cls(gradient, Bends(square, cross, blocks), exact, excess)

    def of(self, rows: IntArray) -> _State:
        """Return that of some data sets, in order."""
        if rows.size == len(self.gradient):
            return self
        return _State(self.gradient[rows], self.scoring.of(rows), self.hessian.of(rows), self.excess[rows])

    def take(self, rows: IntArray, other: _State) -> None:
        """Take that of some data sets, in place."""
        self.gradient[rows], self.excess[rows] = other.gradient, other.excess
        for mine, new in ((self.scoring, other.scoring), (self.hessian, other.hessian)):
            mine.core[rows], mine.cross[rows], mine.blocks[rows] = new.core, new.cross, new.blocks

    def stiffer(self, events: Expectation, x: FloatArray, stiffness: FloatArray) -> _State:
        """Return that with the curvatures of the kinks that steps have met."""
        extra = stiffened(events, x, self.excess, stiffness)
        scoring, hessian = (replace(bends, core=bends.core + extra) for bends in (self.scoring, self.hessian))
        return _State(self.gradient, scoring, hessian, self.excess)


def _step(
    layout: Layout,
    state: _State,
    newton: npt.NDArray[np.bool_],
    stuck: npt.NDArray[np.bool_],
    distance: FloatArray,
    damping: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return the damped step with parameters at their bounds left out, and the gain that it promises.

    Gradient over distance of the bound that it points to stands on the diagonal (T. F. Coleman and Y. Li,
    SIAM J. Optim. 6 (1996) 418): a bin without counts bends nothing; its content ends at zero. Where the
    Hessian leads up, or promises next to nothing, scoring takes its place.
    """
    g = np.where(stuck, 0.0, state.gradient)
    wall = np.abs(g) / np.maximum(distance, NEAR)
    m, s = layout.core.size, layout.local.shape[1]
    diagonal = state.scoring.core[:, np.arange(m), np.arange(m)]
    within = state.scoring.blocks[:, :, np.arange(s), np.arange(s)]
    bent = layout.joined(diagonal, within) + wall
    scale = np.where(stuck, 0.0, 1.0 / np.sqrt(np.where(stuck, 1.0, bent)))
    system = _System(layout, scale, g * scale, wall * scale**2 + stuck)
    step = np.empty_like(g)
    for rows, bends in ((np.flatnonzero(newton), state.hessian), (np.flatnonzero(~newton), state.scoring)):
        if rows.size:
            step[rows] = system.solved(bends, rows if rows.size < len(g) else slice(None), damping[rows])
    promised = 0.5 * (g * scale * step).sum(axis=1)
    unsure = np.flatnonzero(promised < SURE)
    if unsure.size:
        plain = system.solved(state.scoring, unsure, np.full(unsure.size, FLAT))
        up = promised[unsure] < 0.0
        promised[unsure] = 0.5 * (g[unsure] * scale[unsure] * plain).sum(axis=1)
        if up.any():
            step[unsure[up]] = system.solved(state.scoring, unsure[up], damping[unsure[up]])
    return np.asarray(-step * scale, dtype=np.float64), np.asarray(promised, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _System:
    """Linear equations of n data sets in scaled parameters: what they share whatever the curvature is."""

    layout: Layout
    scale: FloatArray
    down: FloatArray
    more: FloatArray  # On the diagonal

    def solved(self, bends: Bends, rows: Rows, damping: FloatArray) -> FloatArray:
        """Return the solutions of some data sets, with the blocks eliminated."""
        layout, n = self.layout, len(damping)
        near, far = layout.split(self.scale[rows])
        right, behind = layout.split(self.down[rows])
        more, beyond = layout.split(self.more[rows] + damping[:, None], 1.0)
        m, (g, s) = np.arange(near.shape[1]), layout.local.shape
        whole = bends.core[rows] * near[:, :, None] * near[:, None, :]
        whole[:, m, m] += more
        if not g:
            return np.asarray(np.linalg.solve(whole, right[:, :, None])[:, :, 0])
        cross = bends.cross[rows] * far[..., None] * near[:, None, None, :]
        blocks = bends.blocks[rows] * far[..., None] * far[:, :, None, :]
        blocks[:, :, np.arange(s), np.arange(s)] += beyond
        every = _small_systems(blocks, np.concatenate([cross, behind[..., None]], axis=3))
        flat, every = cross.reshape(n, g * s, -1), every.reshape(n, g * s, -1)
        left = np.swapaxes(flat, 1, 2) @ every
        core = np.linalg.solve(whole - left[:, :, :-1], (right - left[:, :, -1])[:, :, None])
        local = every[:, :, -1] - (every[:, :, :-1] @ core)[:, :, 0]
        return layout.joined(np.asarray(core[:, :, 0]), np.asarray(local.reshape(n, g, s)))


TINY = 1e-30  # in place of a determinant of zero: a step that large is refused, and damped


def _small_systems(matrices: FloatArray, right: FloatArray) -> FloatArray:
    """Return the solutions of many systems of equations, of one or two by Cramer's rule."""
    size = matrices.shape[-1]
    if size > 2:
        return np.asarray(np.linalg.solve(matrices, right))
    a, b = matrices[..., :1, :1], matrices[..., :1, size - 1 :]
    c, d = matrices[..., size - 1 :, :1], matrices[..., size - 1 :, size - 1 :]
    first, second = right[..., :1, :], right[..., size - 1 :, :]
    determinant = a if size == 1 else a * d - b * c
    found = first if size == 1 else np.concatenate([d * first - b * second, a * second - c * first], axis=-2)
    return np.asarray(found / np.where(determinant == 0.0, TINY, determinant))


SHARE = 0.05  # of a bin, which a template must have to be missed there
CLOSEST = 1e-9  # events between both sides of a kink, of which no more is asked


def crossings(events: Expectation, before: FloatArray, after: FloatArray) -> FloatArray:
    """Return one over the change of each template that passes zero between parameters, else zero."""
    first, last = events.shape(before), events.shape(after)
    passed = (first > 0.0) != (last > 0.0)
    return np.where(passed, 1.0 / np.maximum(np.abs(last - first), CLOSEST), 0.0)


def stiffened(events: Expectation, x: FloatArray, excess: FloatArray, stiffness: FloatArray) -> FloatArray:
    """Return the curvatures of the core from the kinks that steps have met."""
    weight, core = stiffness * excess[:, events.bin_of], events.layout.core
    stiff = np.zeros((len(x), core.size, core.size))
    of_set, cell = np.nonzero(weight)
    if not of_set.size:
        return stiff
    sets, rank = np.unique(of_set, return_inverse=True)
    slot = np.arange(of_set.size) - np.searchsorted(of_set, of_set)
    moved, weights = events.shape_slopes(x[of_set], cell), weight[of_set, cell]
    factor = events.factor(x[sets])[rank, cell]
    rows = np.zeros((sets.size, int(slot.max()) + 1, core.size))
    rows[rank, slot] = moved[:, core] * np.sqrt(weights * np.maximum(factor, 0.0))[:, None]
    stiff[sets] = np.swapaxes(rows, 1, 2) @ rows
    return stiff


def vanished(events: Expectation, x: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether a template that matters is zero at parameters (sets, parameters), shape (sets,).

    It matters where its nominal yield is more than 5 % of that of its bin.
    """
    matters = events.nominal > SHARE * (events.gather @ events.nominal)[events.bin_of]
    return np.asarray(((events.shape(x) <= 0.0) & matters & (events.nominal > 0.0)).any(axis=1))
