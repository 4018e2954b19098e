"""Posterior weights: opposite-sign pairs weighted with their probability to be signal, from a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray
from gammastar.subtract.replicas import event_seeds

__all__ = ["Closure", "PosteriorModel", "fit_posterior", "posterior_weights", "projection_closure"]

MEMBERS = ("mass", "pt", "energy")


def _features(pairs: Pairs, names: Sequence[str]) -> FloatArray:
    known = (*MEMBERS, *pairs.columns)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        msg = f"posterior_weights: features {list(names)} must be some of {', '.join(known)}"
        raise UserError(msg)
    columns = [getattr(pairs, n) if n in MEMBERS else pairs.columns[n] for n in names]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def _classifier(seed: int) -> Any:
    return HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.1,
        max_leaf_nodes=8,
        min_samples_leaf=100,
        early_stopping=False,
        random_state=seed,
    )


def _fitted(x: FloatArray, background: BoolArray, weight: FloatArray, rng: np.random.Generator) -> Any:
    """Return a classifier and the ratio of the sums of weights, None where one of them is empty."""
    label = background.astype(int)
    total = np.array([weight[label == 0].sum(), weight[label == 1].sum()])
    if (total <= 0).any():
        return None
    model = _classifier(int(rng.integers(2**31)))
    # equal sums of weights for the trees, the true ratio put back into the odds
    with threadpool_limits(limits=1, user_api="openmp"):  # sums of several threads are not reproducible
        model.fit(x, label, sample_weight=weight * (weight.sum() / 2 / total)[label])
    return model, total[1] / total[0]


def _signal_share(fitted: Any, x: FloatArray) -> FloatArray:
    """Return max(0, 1 − b/os) of pairs; 1 without a classifier."""
    if fitted is None:
        return np.ones(len(x))
    model, ratio = fitted
    with threadpool_limits(limits=1, user_api="openmp"):
        odds = np.exp(model.decision_function(x)) * ratio
    return np.asarray(np.clip(1 - odds, 0, None))


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorModel:
    """Classifiers that weight any number of pairs, part by part.

    Attributes
    ----------
    fitted : tuple
        One classifier with its ratio of sums per fold, or None.
    features : tuple of str
    """

    fitted: tuple[Any, ...]
    features: tuple[str, ...]

    def weights(self, pairs: Pairs, signed: FloatArray) -> FloatArray:
        """Return signed weight × max(0, 1 − b/os) of opposite-sign pairs, shape (n,); 0 for like-sign ones.

        The fold follows from the event alone, so that no pair is scored by a classifier that has seen its
        event. The sum is not scaled to that of the signed weights: a part does not know it.
        """
        x, fold = _features(pairs, self.features), _hashed_fold(pairs, len(self.fitted))
        use = pairs.os & (signed != 0)
        result = np.zeros(len(pairs))
        for k, fitted in enumerate(self.fitted):
            score = np.flatnonzero(use & (fold == k))
            if len(score):
                result[score] = signed[score] * _signal_share(fitted, x[score])
        return result


def _hashed_fold(pairs: Pairs, n_folds: int) -> npt.NDArray[np.int64]:
    # the lower half of the hash; a subsample of events is chosen by its upper digits
    return ((event_seeds(pairs.event) & np.uint64(0xFFFFFFFF)) % np.uint64(n_folds)).astype(np.int64)


def fit_posterior(
    pairs: Pairs,
    signed: FloatArray,
    *,
    rng: np.random.Generator,
    features: Sequence[str] = MEMBERS,
    n_folds: int = 5,
) -> PosteriorModel:
    """Return the classifiers of `posterior_weights`, trained with a part of the pairs, for all of them.

    Parameters
    ----------
    pairs, signed, features, n_folds
        As for `posterior_weights`; a sample of events suffices.
    rng : numpy.random.Generator

    Raises
    ------
    UserError
        If a feature is unknown or the number of folds is below two.
    """
    if n_folds < 2:
        msg = f"fit_posterior: n_folds = {n_folds}; events are split into at least two"
        raise UserError(msg)
    x, fold = _features(pairs, features), _hashed_fold(pairs, n_folds)
    active = np.asarray(signed) != 0
    fitted = []
    for k in range(n_folds):
        train = np.flatnonzero(active & (fold != k))
        fitted.append(_fitted(x[train], ~pairs.os[train], np.abs(signed[train]), rng))
    return PosteriorModel(tuple(fitted), tuple(features))


def posterior_weights(
    pairs: Pairs,
    signed: FloatArray,
    *,
    rng: np.random.Generator,
    features: Sequence[str] = MEMBERS,
    n_folds: int = 5,
) -> FloatArray:
    """Return weights of the opposite-sign pairs that are not negative, for training a density.

    Parameters
    ----------
    pairs : Pairs
        Opposite- and like-sign pairs.
    signed : NDArray, shape (n,)
        From `event_weights`.
    rng : numpy.random.Generator
    features : sequence of str
        What the classifier sees: the variables of the density, in any case mass, pt and energy.
    n_folds : int
        Events are split; no pair is scored by a classifier that has seen its event.

    Returns
    -------
    NDArray, shape (n,)
        Opposite-sign pairs: own weight × max(0, 1 − b/os); like-sign pairs: 0. The sum equals that of the
        signed weights, unless clipping would have to remove more than there is.

    Raises
    ------
    UserError
        If a feature is unknown or there are too few pairs for the folds.

    Notes
    -----
    The classifier separates like-sign pairs, with their subtraction weights, from opposite-sign pairs; its
    odds are the ratio b/os of densities. Idea: Borisyak and Kazeev, arXiv:1905.11719; Nachman and Thaler,
    arXiv:2007.11586. The expectation of a signed weight given the kinematics, so every projection agrees
    with that of the signed weights within errors (`projection_closure`); unlike them it cannot drive a
    likelihood to minus infinity.
    """
    signed = np.asarray(signed, dtype=np.float64)
    if signed.shape != (len(pairs),):
        msg = f"posterior_weights: {signed.shape} signed weights for {len(pairs)} pairs"
        raise UserError(msg)
    x = _features(pairs, features)
    active = np.flatnonzero(signed != 0)
    background = ~pairs.os
    events, group = np.unique(pairs.event[active], return_inverse=True)
    if n_folds < 2 or len(events) < 2 * n_folds:
        msg = f"posterior_weights: {len(events)} events cannot be split into {n_folds} folds"
        raise UserError(msg)
    fold = rng.permutation(len(events))[group] % n_folds
    result = np.zeros(len(pairs))
    if not background[active].any():
        return np.where(pairs.os, signed, 0.0)
    for k in range(n_folds):
        train, score = active[fold != k], active[(fold == k) & pairs.os[active]]
        if not len(score):
            continue
        fitted = _fitted(x[train], background[train], np.abs(signed[train]), rng)
        result[score] = signed[score] * _signal_share(fitted, x[score])
    return _rescaled(result, float(signed.sum()))


def _rescaled(weight: FloatArray, total: float) -> FloatArray:
    """Scale to the signed sum: clipping at zero would otherwise keep too much."""
    found = float(weight.sum())
    return weight * (total / found) if found > 0 and total > 0 else weight


@dataclass(frozen=True, slots=True)
class Closure:
    """A projection of two sets of weights.

    Attributes
    ----------
    names : tuple of str
    chi2_ndf : float
        Of the difference, with the errors of the signed weights.
    """

    names: tuple[str, ...]
    chi2_ndf: float


def projection_closure(
    pairs: Pairs, signed: FloatArray, posterior: FloatArray, axes: Sequence[Any]
) -> tuple[Closure, ...]:
    """Compare every one- and two-dimensional projection of posterior and signed weights.

    Parameters
    ----------
    pairs : Pairs
    signed, posterior : NDArray, shape (n,)
    axes : sequence of hist axes
        Named as columns of the pairs.

    Returns
    -------
    tuple of Closure
        A good set of weights has χ²/ndf below 1.5 everywhere. Both sums share the opposite-sign pairs, so
        expect values below one.
    """
    names = [axis.name for axis in axes]
    chosen: list[tuple[int, ...]] = [(i,) for i in range(len(axes))]
    chosen += [(i, j) for i in range(len(axes)) for j in range(i + 1, len(axes))]
    result = []
    for pick in chosen:
        values = _features(pairs, [names[i] for i in pick])
        edges = [np.asarray(axes[i].edges) for i in pick]
        a, b, v = (
            np.histogramdd(values, edges, weights=w)[0].ravel() for w in (signed, posterior, signed**2)
        )
        use = v > 0
        chi2 = float(np.sum((a - b)[use] ** 2 / v[use]))
        result.append(Closure(tuple(names[i] for i in pick), chi2 / max(int(use.sum()), 1)))
    return tuple(result)
