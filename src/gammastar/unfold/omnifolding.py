"""OmniFold: unbinned unfolding by classifiers, with acceptance, background, replicas and bias."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.files import one_openmp_thread
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import (
    KINEMATICS,
    MASS,
    BoolArray,
    FloatArray,
    IntArray,
    Response,
    Rng,
    Spectrum,
    divided,
    effective_size,
    filled,
)
from gammastar.unfold.folding import Method, Unfolder
from gammastar.unfold.response_matrix import EFFICIENCY_FLOOR, cells, n_cells
from gammastar.unfold.simulation import in_window
from gammastar.unfold.systematics import Source

MAX_EVENTS = 200_000  # events from which scikit-learn draws a part without weights, which is quick


@dataclass(frozen=True, slots=True, eq=False)
class BinnedTrees:
    """Trees that know features by the number of their bin."""

    model: Any
    # Of each feature; none where the trees know the features themselves, shape (n_bins − 1,)
    edges: tuple[FloatArray, ...] | None

    def decision_function(self, x: FloatArray) -> FloatArray:
        """Return the logarithm of the odds of points, shape (n,)."""
        return np.asarray(self.model.decision_function(_numbers(x, self.edges)), dtype=np.float64)


def fit_trees(model: Any, x: FloatArray, label: IntArray, weight: FloatArray) -> BinnedTrees:
    """Train the trees of scikit-learn on bins of the features: it sorts them anew for each quantile."""
    part = _part(model, label)
    edges = None
    if len(part) <= MAX_EVENTS and np.isfinite(x).all():
        edges = tuple(_edges(column[part], weight[part], model.max_bins) for column in x.T)
    model.fit(_numbers(x, edges), label, sample_weight=weight)
    return BinnedTrees(model, edges)


def _part(model: Any, label: IntArray) -> IntArray:
    """Return the events that scikit-learn trains on: the others tell when to stop."""
    every = np.arange(len(label))
    if not model.early_stopping:
        return every
    from sklearn.model_selection import train_test_split

    seed = np.random.RandomState(model.random_state).randint(np.iinfo(np.uint32).max, dtype="u8")
    options = {"test_size": model.validation_fraction, "stratify": label, "random_state": seed}
    return np.asarray(train_test_split(every, **options)[0])


def _edges(column: FloatArray, weight: FloatArray, bins: int) -> FloatArray:
    """Return what divides a feature into bins of equal weight, or between all its values if they are few."""
    column, weight = column[weight != 0], weight[weight != 0]
    distinct = np.unique(column)
    if len(distinct) <= bins:
        return np.asarray((distinct[1:] + distinct[:-1]) / 2)
    order = np.argsort(column)
    column, below = column[order], np.cumsum(weight[order])
    wanted = np.linspace(0, 100, bins + 1)[1:-1] / 100 * below[-1]
    at = np.minimum(np.searchsorted(below, wanted), len(column) - 1)
    after = np.minimum(at + 1, len(column) - 1)
    inside = below[at] - wanted > np.finfo(np.float64).eps
    return np.unique(np.where(inside, column[at], (column[at] + column[after]) / 2))


def _numbers(x: FloatArray, edges: tuple[FloatArray, ...] | None) -> FloatArray:
    """Return the numbers of the bins of points; a point on an edge is below it."""
    if edges is None:
        return x
    columns = [np.searchsorted(edge, column) for edge, column in zip(edges, x.T, strict=True)]
    return np.stack(columns, axis=1).astype(np.float64)


Sample: TypeAlias = tuple[FloatArray, FloatArray]
Ratio: TypeAlias = Callable[[FloatArray], FloatArray]
CLIP = 1e-3  # ratios stay within [CLIP, 1/CLIP]
log = logging.getLogger(__name__)


class Classifier(Protocol):
    """Learns the ratio of two weighted samples."""

    def __call__(self, above: Sample, below: Sample, rng: Rng) -> Ratio:
        """Return x ↦ (density of `above`)/(density of `below`), normalisation included."""


@dataclass(frozen=True, slots=True)
class BoostedTrees:
    """Histogram gradient boosting (scikit-learn) with early stopping."""

    n_trees: int = 100  # At most
    rate: float = 0.2  # Learning rate
    # Leaves of a tree, and events in a leaf at least: a leaf has one ratio, so that a steep tail of fewer
    # events is not resolved
    leaves: int = 8
    per_leaf: int = 50
    validation: float = 0.2  # Fraction of the events that decides when to stop; 0 grows all trees
    patience: int = 20  # Trees without improvement of the validation loss that stop
    # Quantile bins of each feature, at most 255: the finest structure that the ratio resolves
    bins: int = 255

    def __call__(self, above: Sample, below: Sample, rng: Rng) -> Ratio:
        """Return the ratio p/(1 − p) of the trained classifier, clipped to [10⁻³, 10³]."""
        try:
            from sklearn.ensemble import HistGradientBoostingClassifier
        except ImportError as error:
            text = "OmniFold needs scikit-learn: pip install 'gammastar[omnifold]'"
            raise UserError(text) from error

        features = np.concatenate([above[0], below[0]])
        weight = np.concatenate([above[1], below[1]])
        label = np.repeat([1, 0], [len(above[0]), len(below[0])])
        total = [float(above[1].sum()), float(below[1].sum())]
        # equal sums of weights: the trees learn shapes, the normalisation is exact
        balance = np.where(label == 1, 1 / max(total[0], 1e-300), 1 / max(total[1], 1e-300))
        model = HistGradientBoostingClassifier(
            max_iter=self.n_trees,
            learning_rate=self.rate,
            max_leaf_nodes=self.leaves,
            min_samples_leaf=min(self.per_leaf, max(len(label) // 20, 1)),
            early_stopping=self.validation > 0,
            validation_fraction=self.validation or None,
            n_iter_no_change=self.patience,
            max_bins=self.bins,
            random_state=int(rng.integers(2**31)),
        )
        with one_openmp_thread():  # sums of several threads are not reproducible
            trees = fit_trees(model, features, label, weight * balance * len(label) / 2)
        scale = total[0] / max(total[1], 1e-300)

        def ratio(x: FloatArray) -> FloatArray:
            if not len(x):
                return np.zeros(0)
            odds = np.exp(trees.decision_function(x))
            return np.asarray(scale * np.clip(odds, CLIP, 1 / CLIP))

        return ratio


def subtracted_replicas(
    values: FloatArray,
    *,
    signed: FloatArray,
    posterior: FloatArray,
    event: npt.NDArray[Any],
    axes: Sequence[Any],
    rng: Rng,
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
        raise UserError(
            f"subtracted_replicas: values {np.shape(values)}, signed {np.shape(signed)}, posterior "
            f"{np.shape(posterior)}, event {np.shape(event)}; give (n, 3) and three times (n,)"
        )
    if n and float(np.min(posterior)) < 0:
        raise UserError(
            f"subtracted_replicas: the lowest posterior weight is {posterior.min():.3g}, below zero"
        )
    cell = cells(values, axes)
    inside, size = cell >= 0, int(np.prod([len(axis) for axis in axes]))
    place = cell[inside]
    nominal = np.bincount(place, posterior[inside], size)
    _, group = np.unique(event, return_inverse=True)
    result = np.zeros((n_replicas, n))
    for drawn in result:
        draw = rng.poisson(1.0, int(group.max(initial=-1)) + 1)[group].astype(np.float64)
        drawn[:] = posterior * draw
        before = np.bincount(place, drawn[inside], size)
        after = nominal + np.bincount(place, (signed * (draw - 1))[inside], size)
        factor = divided(np.maximum(after, 0.0), before)
        drawn[inside] *= factor[place]
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Unbinned:
    """Weights of the simulated true pairs that make them the unfolded data."""

    # One per true pair of the simulation; their sum is the unfolded yield. Replaces the simulation's own,
    # shape (n,)
    weight: FloatArray
    history: FloatArray  # The same after every iteration, shape (n_iterations, n)
    change: FloatArray  # Weighted mean of |Δ weight|/weight of each iteration, shape (n_iterations,)
    effective: float  # Effective number of pairs, (Σw)²/Σw²


def _columns(values: FloatArray, names: Sequence[str]) -> FloatArray:
    wrong = [name for name in names if name not in KINEMATICS]
    if wrong or not names:
        raise UserError(f"omnifold: columns {list(names)} must be some of {', '.join(KINEMATICS)}")
    return np.ascontiguousarray(values[:, [KINEMATICS.index(name) for name in names]])


@dataclass(frozen=True, slots=True, eq=False)
class _Problem:
    """What does not change from one iteration to the next."""

    data: Sample
    reco: FloatArray
    true: FloatArray
    fakes: Sample
    nominal: FloatArray
    seen: BoolArray
    classifier: Classifier

    def pull(self, push: FloatArray, rng: Rng) -> FloatArray:
        """Step 1: reweight the reconstructed simulation to the data, and carry that to the misses."""
        now = self.nominal * push
        weights = np.concatenate([now[self.seen], self.fakes[1]])
        simulated = np.concatenate([self.reco, self.fakes[0]]), weights
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

    def push(self, pull: FloatArray, rng: Rng) -> FloatArray:
        """Step 2: make the weights a function of the truth."""
        above, below = (self.true, self.nominal * pull), (self.true, self.nominal)
        return self._ratio(above, below, rng)(self.true)

    def _ratio(self, above: Sample, below: Sample, rng: Rng) -> Ratio:
        """Return the classifier's ratio, scaled so that `below` times it has the sum of `above`."""
        found = self.classifier(above, below, rng)
        reached = float((below[1] * found(below[0])).sum())
        scale = float(above[1].sum()) / reached if reached > 0 else 1.0
        return lambda x: scale * found(x)


def omnifold(
    data: FloatArray,
    matched: MatchedPairs,
    *,
    rng: Rng,
    data_weight: FloatArray | None = None,
    columns: Sequence[str] = KINEMATICS,
    classifier: Classifier | None = None,
    n_iterations: int = 3,
    tolerance: float = 0.0,
) -> Unbinned:
    """Unfold pairs without bins.

    Parameters
    ----------
    data : NDArray, shape (n_data, 3) [GeV]
        Reconstructed mass, pt and energy of the measured pairs.
    matched : MatchedPairs
        Simulated pairs; those that were not reconstructed carry the acceptance.
    data_weight : NDArray, shape (n_data,), optional
        Not negative: posterior weights after a background subtraction.
    columns : sequence of {"mass", "pt", "energy"}
        What is unfolded.
    classifier : Classifier, optional
        `BoostedTrees` by default; any callable that returns a density ratio.
    n_iterations : int
        At most. The noise grows with every iteration: few are best.
    tolerance : float
        Stop early when the weights change by less than this, on average and relative.

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
        raise UserError(f"omnifold: n_iterations = {n_iterations} must be at least 1")
    push = np.ones(len(matched))
    history, change = [], []
    for number in range(n_iterations):
        new = problem.push(problem.pull(push, rng), rng)
        moved = problem.nominal * np.abs(new - push)
        change.append(float(moved.sum() / max(float((problem.nominal * push).sum()), 1e-300)))
        push = new
        history.append(problem.nominal * push)
        log.info("omnifold: iteration %d, weights changed by %.3g", number + 1, change[-1])
        if change[-1] < tolerance:
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
        given = f"data of shape {np.shape(data)}, {len(weight)} weights"
        raise UserError(f"omnifold: {given}; give finite (n, 3) and (n,)")
    for name, values in (("data", weight), ("simulation", matched.weight), ("fakes", matched.fake_weight)):
        if not np.isfinite(values).all() or (values < 0).any():
            raise UserError(f"omnifold: no weight of the {name} may be negative; use posterior weights")
    seen = matched.reconstructed
    if weight.sum() <= 0 or matched.weight[seen].sum() <= 0:
        raise UserError("omnifold: the data or the reconstructed simulation is empty")
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
    rng: Rng,
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
        raise UserError(
            f"omnifold_replicas: data_weight of shape {weight.shape}; give ({len(data)},), or "
            f"({n_replicas}, {len(data)}) with the draws of each replica"
        )
    event = np.arange(len(data)) if data_event is None else np.asarray(data_event)
    _, group = np.unique(event, return_inverse=True)
    _, mc_group = np.unique(matched.event, return_inverse=True)
    result = np.zeros((n_replicas, len(matched)))
    for k in range(n_replicas):
        draw = rng.poisson(1.0, int(group.max(initial=-1)) + 1)[group]
        mc_draw = rng.poisson(1.0, int(mc_group.max(initial=-1)) + 1)[mc_group]
        fake_weight = matched.fake_weight * rng.poisson(1.0, len(matched.fake_weight))
        copy = replace(matched, weight=matched.weight * mc_draw, fake_weight=fake_weight)
        drawn = weight[k] if ready else weight * draw
        result[k] = omnifold(data, copy, rng=rng, data_weight=drawn, **options).weight
    return result


def omnifold_bias(
    truth: FloatArray, matched: MatchedPairs, *, rng: Rng, n_repeats: int = 3, **options: Any
) -> FloatArray:
    """Return unfolded minus true weights when the truth is the simulation with other weights.

    Parameters
    ----------
    truth : NDArray, shape (n,)
        Weights of the simulated true pairs: those of another model or of a binned unfolding (`reweighted`),
        or the unfolded ones of `omnifold`.
    n_repeats : int
        Repetitions that are averaged: trees that draw a validation sample have noise of their own.
    **options
        As for `omnifold`: columns, classifier, n_iterations, tolerance.

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
        raise UserError(
            f"omnifold_bias: weights of shape {weight.shape} for {len(matched)} simulated pairs, "
            f"n_repeats = {n_repeats}; give one weight for each true pair and at least 1 repetition"
        )
    seen = matched.reconstructed
    folded = np.concatenate([matched.reco[seen], matched.fakes])
    share = float(weight[seen].sum()) / max(float(matched.weight[seen].sum()), 1e-300)
    pseudo = np.concatenate([weight[seen], share * matched.fake_weight])
    options = {**options, "rng": rng, "data_weight": pseudo}
    again = [omnifold(folded, matched, **options).weight for _ in range(n_repeats)]
    return np.asarray(np.mean(again, axis=0) - weight)


def omnifold_spectrum(
    matched: MatchedPairs,
    nominal: Unbinned,
    copies: FloatArray,
    response: Response,
    *,
    efficiency_floor: float = EFFICIENCY_FLOOR,
) -> Spectrum:
    """Return the histogram of OmniFold weights on the true axes, with the covariance of the replicas."""
    cell, n = cells(matched.true, response.true), n_cells(response.true)
    inside = cell >= 0
    values = np.bincount(cell[inside], nominal.weight[inside], n)
    scattered = np.array([np.bincount(cell[inside], copy[inside], n) for copy in copies])
    domain = response.efficiency >= efficiency_floor
    cov = np.where(np.outer(domain, domain), np.cov(scattered, rowvar=False).reshape(n, n), 0.0)
    hist = filled(response.true, np.where(domain, values, 0.0), np.diag(cov))
    return Spectrum(hist, cov, "counts", None, domain.reshape([len(axis) for axis in response.true]))


def unfolded_pairs(
    pairs: Pairs,
    weights: tuple[FloatArray, FloatArray],
    matched: MatchedPairs,
    response: Response,
    *,
    rngs: Sequence[Rng],
    n_replicas: int,
    efficiency_floor: float,
    **options: Any,
) -> tuple[Spectrum, Unbinned]:
    """Unfold subtracted pairs; the spectrum has the errors of replicas of data and simulation."""
    signed, posterior = weights
    use = np.flatnonzero(posterior > 0)
    values = np.stack([getattr(pairs, name) for name in KINEMATICS], axis=1)
    inside = in_window(matched, response.reco)  # posterior weights are 0 outside
    nominal = omnifold(values[use], inside, rng=rngs[0], data_weight=posterior[use], **options)
    drawn = subtracted_replicas(
        values,
        signed=signed,
        posterior=posterior,
        event=pairs.event,
        axes=[axis for axis in response.reco if axis.name == MASS],
        rng=rngs[1],
        n_replicas=n_replicas,
    )
    again = {"rng": rngs[2], "n_replicas": n_replicas, "data_weight": drawn[:, use], **options}
    copies = omnifold_replicas(values[use], inside, **again)
    spectrum = omnifold_spectrum(inside, nominal, copies, response, efficiency_floor=efficiency_floor)
    return spectrum, nominal


def scaled_sources(
    spectrum: Spectrum, binned: Spectrum, sources: Sequence[Source]
) -> tuple[Spectrum, tuple[Source, ...]]:
    """Add systematic sources to the covariance of an OmniFold spectrum.

    OmniFold with classifiers that are constant in cells is the iterative unfolding of these cells
    (Andreassen et al., arXiv:1911.09107): its relative shifts stand for those of OmniFold. One more OmniFold
    per source instead would differ from the nominal one by the noise of the classifiers: 4 % of a cell in
    MOCK data of 1400 effective pairs, where one standard deviation of R is 0.6 %.
    """
    values, other = spectrum.values.ravel(), binned.values.ravel()
    scale = np.divide(values, other, out=np.ones_like(values), where=(other > 0) & (values > 0))
    inside, size = spectrum.domain.ravel(), max(float(np.abs(values).sum()), 1e-300)
    cov, moved = spectrum.cov.copy(), []
    for source in sources:
        shift = np.where(inside, source.shift * scale, 0.0)
        cov += np.outer(shift, shift)
        total, mean = float(shift.sum()) / size, float(np.abs(shift).sum()) / size
        moved.append(replace(source, shift=shift, total=total, mean=mean))
    hist = filled(tuple(spectrum.hist.axes), values, np.diag(cov))
    return replace(spectrum, hist=hist, cov=cov), tuple(moved)


def _prepare(*_: object) -> tuple[Unfolder, float]:
    raise UserError("OmniFold weights pairs; it cannot unfold a histogram")


OMNIFOLD = Method(
    _prepare,
    lambda options, _: f"OmniFold, {options.n_iterations} iterations",
    takes=frozenset({"n_iterations", "tolerance"}),
    pairs=True,
)
