"""OmniFold: unbinned unfolding by classifiers, with acceptance, background, replicas and bias."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import KINEMATICS, effective_size
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import BoolArray, FloatArray
from gammastar.unfold.classifier import BoostedTrees, Classifier, Ratio
from gammastar.unfold.response_matrix import cells

__all__ = [
    "Unbinned",
    "in_window",
    "omnifold",
    "omnifold_bias",
    "omnifold_replicas",
    "subtracted_replicas",
]

Sample: TypeAlias = tuple[FloatArray, FloatArray]
log = logging.getLogger(__name__)


def in_window(matched: MatchedPairs, axes: Sequence[Any]) -> MatchedPairs:
    """Return the simulation as data see it that were cut to a window: pairs outside are not reconstructed.

    Parameters
    ----------
    matched : MatchedPairs
    axes : sequence of hist axes
        Of the reconstructed mass, pt or energy; their outer edges are the window.

    Returns
    -------
    MatchedPairs
        The same true pairs; those reconstructed outside the window are misses, fakes there are left out.

    Notes
    -----
    The binned response has the same rule. Where it is not kept, OmniFold takes the cut of the data for an
    absence of pairs, weights the simulated ones near and beyond the window down to nothing, and counts them
    in the total that is scaled to the data.
    """
    inside = cells(matched.reco, axes) >= 0
    kept = cells(matched.fakes, axes) >= 0
    return replace(
        matched,
        reco=np.where(inside[:, None], matched.reco, np.nan),
        fakes=matched.fakes[kept],
        fake_weight=matched.fake_weight[kept],
    )


def subtracted_replicas(
    values: FloatArray,
    *,
    signed: FloatArray,
    posterior: FloatArray,
    event: npt.NDArray[Any],
    axes: Sequence[Any],
    rng: np.random.Generator,
    n_replicas: int = 20,
) -> FloatArray:
    """Return bootstrapped posterior weights whose sum in each cell fluctuates like the subtracted yield.

    A bootstrap of the posterior weights alone knows nothing of the like-sign pairs: its variance is Σw² of
    weights below one, smaller than that of the signed weights.

    Parameters
    ----------
    values : NDArray, shape (n, 3) [GeV]
        mass, pt and energy of all pairs, like-sign ones too.
    signed, posterior : NDArray, shape (n,)
        Event weights of the subtraction; the posterior of like-sign pairs is 0.
    event : NDArray, shape (n,)
        Event identifiers: pairs of an event share their Poisson(1) weight.
    axes : sequence of hist axes
        Cells of mass, pt or energy that hold a few tens of pairs each at least.
    rng : numpy.random.Generator
    n_replicas : int

    Returns
    -------
    NDArray, shape (n_replicas, n)
        For `data_weight` of `omnifold_replicas`, like-sign pairs (weight 0) taken out.

    Raises
    ------
    UserError
        If shapes do not fit or a posterior weight is negative.

    Notes
    -----
    With draws d of the events the sum of a cell becomes Σ p + Σ s (d − 1), for posterior weights p and signed
    ones s: its variance is that of the subtraction, Σ s² over events. It is shared among the opposite-sign
    pairs in proportion to p d, and not below zero. Pairs outside the axes keep p d. The posterior is not
    trained again: its own error within a cell is not in the replicas.
    """
    n = len(values)
    if not np.shape(signed) == np.shape(posterior) == np.shape(event) == (n,) or np.shape(values) != (n, 3):
        msg = (
            f"subtracted_replicas: values {np.shape(values)}, signed {np.shape(signed)}, posterior "
            f"{np.shape(posterior)}, event {np.shape(event)}; give (n, 3) and three times (n,)"
        )
        raise UserError(msg)
    if n and float(np.min(posterior)) < 0:
        msg = f"subtracted_replicas: the lowest posterior weight, below zero, is {posterior.min():.3g}"
        raise UserError(msg)
    cell = cells(values, axes)
    inside, size = cell >= 0, int(np.prod([len(axis) for axis in axes]))
    place = cell[inside]
    nominal = np.bincount(place, posterior[inside], size)
    _, group = np.unique(event, return_inverse=True)
    result = np.zeros((n_replicas, n))
    for k in range(n_replicas):
        draw = rng.poisson(1.0, int(group.max(initial=-1)) + 1)[group].astype(np.float64)
        drawn = posterior * draw
        before = np.bincount(place, drawn[inside], size)
        after = nominal + np.bincount(place, (signed * (draw - 1))[inside], size)
        factor = np.divide(np.maximum(after, 0.0), before, out=np.zeros(size), where=before > 0)
        drawn[inside] *= factor[place]
        result[k] = drawn
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Unbinned:
    """Weights of the simulated true pairs that make them the unfolded data.

    Attributes
    ----------
    weight : NDArray, shape (n,)
        One per true pair of the simulation; their sum is the unfolded yield. Replaces the simulation's own.
    history : NDArray, shape (n_iterations, n)
        The same after every iteration.
    change : NDArray, shape (n_iterations,)
        Weighted mean of |Δ weight|/weight of each iteration.
    effective : float
        Effective number of pairs, (Σw)²/Σw².
    """

    weight: FloatArray
    history: FloatArray
    change: FloatArray
    effective: float


def _columns(values: FloatArray, names: Sequence[str]) -> FloatArray:
    wrong = [name for name in names if name not in KINEMATICS]
    if wrong or not names:
        msg = f"omnifold: columns {list(names)} must be some of {', '.join(KINEMATICS)}"
        raise UserError(msg)
    return np.ascontiguousarray(values[:, [KINEMATICS.index(name) for name in names]])


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What does not change from one iteration to the next."""

    data: tuple[FloatArray, FloatArray]
    reco: FloatArray
    true: FloatArray
    fakes: tuple[FloatArray, FloatArray]
    nominal: FloatArray
    seen: BoolArray
    classifier: Classifier

    def pull(self, push: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Step 1: reweight the reconstructed simulation to the data, and carry that to the misses."""
        now = self.nominal * push
        simulated = (
            np.concatenate([self.reco, self.fakes[0]]),
            np.concatenate([now[self.seen], self.fakes[1]]),
        )
        ratio = self._ratio(self.data, simulated, rng)(self.reco)
        result = push.copy()
        result[self.seen] *= ratio
        missed = ~self.seen
        if missed.any():
            # E[ratio | truth] of the reconstructed pairs, taken over to those that were not
            before, after = now[self.seen], now[self.seen] * ratio
            truth = self.true[self.seen]
            result[missed] *= self._ratio((truth, after), (truth, before), rng)(self.true[missed])
        return result

    def push(self, pull: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Step 2: make the weights a function of the truth."""
        above, below = (self.true, self.nominal * pull), (self.true, self.nominal)
        return self._ratio(above, below, rng)(self.true)

    def _ratio(self, above: Sample, below: Sample, rng: np.random.Generator) -> Ratio:
        """Return the classifier's ratio, scaled so that `below` times it has the sum of `above`."""
        found = self.classifier(above, below, rng)
        reached = float((below[1] * found(below[0])).sum())
        scale = float(above[1].sum()) / reached if reached > 0 else 1.0
        return lambda x: scale * found(x)


def omnifold(
    data: FloatArray,
    matched: MatchedPairs,
    *,
    rng: np.random.Generator,
    data_weight: FloatArray | None = None,
    columns: Sequence[str] = KINEMATICS,
    classifier: Classifier | None = None,
    n_iterations: int = 3,
    stop: float = 0.0,
) -> Unbinned:
    """Unfold pairs without bins.

    Parameters
    ----------
    data : NDArray, shape (n_data, 3) [GeV]
        Reconstructed mass, pt and energy of the measured pairs.
    matched : MatchedPairs
        Simulated pairs; those that were not reconstructed carry the acceptance.
    rng : numpy.random.Generator
    data_weight : NDArray, shape (n_data,), optional
        Not negative: posterior weights after a background subtraction.
    columns : sequence of {"mass", "pt", "energy"}
        What is unfolded.
    classifier : Classifier, optional
        `BoostedTrees` by default; any callable that returns a density ratio.
    n_iterations : int
        At most. The noise grows with every iteration: few are best.
    stop : float
        Stop early when the weights change by less than this, on average and relative.

    Returns
    -------
    Unbinned

    Raises
    ------
    UserError
        If shapes or weights do not fit, or one of the samples is empty.

    Notes
    -----
    Andreassen, Komiske, Metodiev, Nachman, Thaler, arXiv:1911.09107; acceptance effects as in
    arXiv:2503.09720: the weight of a pair that is not reconstructed is the mean of the step-1 ratio at its
    truth, learned by a third classifier. Simulated fakes enter step 1 with the factor that scales the whole
    simulation to the data, and are not reweighted. Every ratio is scaled so that the reweighted sample has
    the sum of the other, as in the iterative unfolding: the mean of a ratio whose logarithm is shrunk, as
    that of trees, lies below one. Simulated pairs outside a window to which the data were cut must be misses
    (`in_window`). Where no pair is reconstructed the classifier extrapolates the weights, and their sum is no
    measurement. Pairs of an unfolded sample are correlated
    (arXiv:2504.14072): take errors from `omnifold_replicas`, never from the weights. What the iterations and
    the classifier cannot recover is no part of the replicas' spread: `omnifold_bias` estimates it.
    """
    problem = _problem(data, matched, data_weight, columns, classifier or BoostedTrees())
    if n_iterations < 1:
        msg = f"omnifold: n_iterations = {n_iterations} must be at least 1"
        raise UserError(msg)
    push = np.ones(len(matched))
    history, change = [], []
    for number in range(n_iterations):
        new = problem.push(problem.pull(push, rng), rng)
        moved = problem.nominal * np.abs(new - push)
        change.append(float(moved.sum() / max(float((problem.nominal * push).sum()), 1e-300)))
        push = new
        history.append(problem.nominal * push)
        log.info("omnifold: iteration %d, weights changed by %.3g", number + 1, change[-1])
        if change[-1] < stop:
            break
    weight = history[-1]
    return Unbinned(weight, np.array(history), np.array(change), effective_size(weight))


def _problem(
    data: FloatArray,
    matched: MatchedPairs,
    data_weight: FloatArray | None,
    columns: Sequence[str],
    classifier: Classifier,
) -> _Problem:
    weight = np.ones(len(data)) if data_weight is None else np.asarray(data_weight, dtype=np.float64)
    if np.shape(data) != (len(weight), 3) or not np.isfinite(data).all():
        msg = f"omnifold: data of shape {np.shape(data)}, {len(weight)} weights; give finite (n, 3) and (n,)"
        raise UserError(msg)
    for name, values in (("data", weight), ("simulation", matched.weight), ("fakes", matched.fake_weight)):
        if not np.isfinite(values).all() or (values < 0).any():
            msg = f"omnifold: the weights of the {name} must not be negative; use posterior weights"
            raise UserError(msg)
    seen = matched.reconstructed
    if weight.sum() <= 0 or matched.weight[seen].sum() <= 0:
        msg = "omnifold: the data or the reconstructed simulation is empty"
        raise UserError(msg)
    # data and simulation of the same size, so that ratios are of order one; fakes keep their share of it
    scale = float(weight.sum() / (matched.weight[seen].sum() + matched.fake_weight.sum()))
    return _Problem(
        (_columns(data, columns), weight),
        _columns(matched.reco[seen], columns),
        _columns(matched.true, columns),
        (_columns(matched.fakes, columns), matched.fake_weight * scale),
        matched.weight * scale,
        seen,
        classifier,
    )


def omnifold_replicas(
    data: FloatArray,
    matched: MatchedPairs,
    *,
    rng: np.random.Generator,
    n_replicas: int = 20,
    data_event: npt.NDArray[Any] | None = None,
    data_weight: FloatArray | None = None,
    **options: Any,
) -> FloatArray:
    """Return replica weights: the whole unfolding with bootstrapped data and simulation.

    Parameters
    ----------
    data, matched, rng, **options
        As for `omnifold`.
    data_weight : NDArray, shape (n_data,) or (n_replicas, n_data), optional
        As for `omnifold`; or ready weights of every replica, with the draws in them: those of
        `subtracted_replicas` after a background subtraction.
    n_replicas : int
    data_event : NDArray, shape (n_data,), optional
        Event identifiers: pairs of an event share their Poisson(1) weight. By default every pair is its own.

    Returns
    -------
    NDArray, shape (n_replicas, n)
        Weights of the true pairs of the simulation. The spread of any histogram or mean over replicas is its
        error from the statistics of data and simulation. A σ from n replicas is itself uncertain: nominal
        ± σ covers the share of |t| < 1 in Student's law with n − 1 degrees of freedom, 0.657 for 10.

    Raises
    ------
    UserError
        If data_weight does not fit the data or the replicas.
    """
    weight = np.ones(len(data)) if data_weight is None else np.asarray(data_weight, dtype=np.float64)
    ready = weight.ndim == 2
    if weight.shape != ((n_replicas, len(data)) if ready else (len(data),)):
        msg = (
            f"omnifold_replicas: data_weight of shape {weight.shape}; give ({len(data)},), or "
            f"({n_replicas}, {len(data)}) with the draws of each replica"
        )
        raise UserError(msg)
    event = np.arange(len(data)) if data_event is None else np.asarray(data_event)
    _, group = np.unique(event, return_inverse=True)
    _, mc_group = np.unique(matched.event, return_inverse=True)
    result = np.zeros((n_replicas, len(matched)))
    for k in range(n_replicas):
        draw = rng.poisson(1.0, int(group.max(initial=-1)) + 1)[group]
        mc_draw = rng.poisson(1.0, int(mc_group.max(initial=-1)) + 1)[mc_group]
        copy = MatchedPairs(
            matched.true,
            matched.reco,
            matched.weight * mc_draw,
            matched.event,
            matched.fakes,
            matched.fake_weight * rng.poisson(1.0, len(matched.fake_weight)),
        )
        drawn = weight[k] if ready else weight * draw
        result[k] = omnifold(data, copy, rng=rng, data_weight=drawn, **options).weight
    return result


def omnifold_bias(
    truth: FloatArray, matched: MatchedPairs, *, rng: np.random.Generator, n_repeats: int = 3, **options: Any
) -> FloatArray:
    """Return unfolded minus true weights when the truth is the simulation with other weights.

    Parameters
    ----------
    truth : NDArray, shape (n,)
        Weights of the simulated true pairs: those of another model or of a binned unfolding (`reweighted`),
        or the unfolded ones of `omnifold`.
    matched : MatchedPairs
    rng : numpy.random.Generator
    n_repeats : int
        Repetitions that are averaged: trees that draw a validation sample have noise of their own.
    **options
        As for `omnifold`: columns, classifier, n_iterations, stop.

    Returns
    -------
    NDArray, shape (n,)
        Its histogram s is the bias of the bins for this truth, and enters a covariance as the systematic
        source outer(s, s).

    Raises
    ------
    UserError
        If the weights do not fit the simulation, or n_repeats is below 1.

    Notes
    -----
    The pseudo data are the reconstructed simulation with these weights, and fakes with their share in the
    simulation. They do not fluctuate against the simulation, so what is left is what iterations and
    classifiers miss. Taking the unfolded weights as the truth is the bootstrap estimate of a bias (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, ch. 10): it shows the iterations that are missing,
    too small by the share that is recovered, but never what the classifier cannot represent, since its own
    result is free of that. Only a truth from elsewhere shows it.
    """
    weight = np.asarray(truth, dtype=np.float64)
    if weight.shape != (len(matched),) or n_repeats < 1:
        msg = (
            f"omnifold_bias: weights of shape {weight.shape} for {len(matched)} simulated pairs, "
            f"n_repeats = {n_repeats}; give one weight for each true pair and at least 1 repetition"
        )
        raise UserError(msg)
    seen = matched.reconstructed
    folded = np.concatenate([matched.reco[seen], matched.fakes])
    share = float(weight[seen].sum()) / max(float(matched.weight[seen].sum()), 1e-300)
    pseudo = np.concatenate([weight[seen], share * matched.fake_weight])
    again = [
        omnifold(folded, matched, rng=rng, data_weight=pseudo, **options).weight for _ in range(n_repeats)
    ]
    return np.asarray(np.mean(again, axis=0) - weight)
