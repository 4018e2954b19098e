"""Posterior weights: opposite-sign pairs weighted with their probability to be signal, from a classifier."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import rescaled
from gammastar.core.errors import UserError
from gammastar.core.machine import one_openmp_thread
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray
from gammastar.core.sampling import event_seeds
from gammastar.core.trees import fit_trees
from gammastar.subtract.moment_weights import MomentWeights, moment_weights

MEMBERS = ("mass", "pt", "energy")
FOLDS = 5
SLICE_ERROR = 0.1  # relative error of the signed sum in the slices where the posterior is brought to it

_LOG = logging.getLogger(__name__)
LEAVES = (8, 256)  # per tree: the fewest and the most
LEAF = 100  # pairs in a leaf, at least


def _classifier(leaves: int, seed: int) -> Any:
    from sklearn.ensemble import HistGradientBoostingClassifier

    return HistGradientBoostingClassifier(
        max_iter=60,
        learning_rate=0.1,
        max_leaf_nodes=leaves,
        min_samples_leaf=LEAF,
        early_stopping=False,
        random_state=seed,
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Sample:
    """Pairs of a training: features, label, weight, fold, and the event counted from 0."""

    x: FloatArray
    background: BoolArray
    weight: FloatArray
    fold: npt.NDArray[np.int64]
    event: npt.NDArray[np.int64]

    def fitted(self, train: BoolArray, leaves: int, seed: int) -> Any:
        """Return a classifier and the ratio of the sums of weights, None where one of them is empty."""
        label, weight = self.background[train].astype(int), self.weight[train]
        total = np.array([weight[label == 0].sum(), weight[label == 1].sum()])
        if (total <= 0).any():
            return None
        model = _classifier(leaves, seed)
        # equal sums of weights for the trees, the true ratio put back into the odds
        with one_openmp_thread():  # sums of several threads are not reproducible
            trees = fit_trees(model, self.x[train], label, weight * (weight.sum() / 2 / total)[label])
        return trees, total[1] / total[0]

    def cross_fitted(self, leaves: int, seeds: Sequence[int]) -> tuple[tuple[Any, ...], FloatArray]:
        """Return a classifier per fold, trained without it, and the cross entropy of each held-out event."""
        loss, fitted = np.zeros(len(self.x)), []
        for k, seed in enumerate(seeds):
            one = self.fitted(self.fold != k, leaves, seed)
            fitted.append(one)
            score = np.flatnonzero(self.fold == k)
            if one is not None and len(score):
                value = _log_odds(one, self.x[score])
                loss[score] = np.logaddexp(0.0, value) - self.background[score] * value
        return tuple(fitted), np.bincount(self.event, self.weight * loss).astype(np.float64)


def _log_odds(fitted: Any, x: FloatArray) -> FloatArray:
    """Return ln(b/os) of points by a classifier, shape (n,)."""
    model, ratio = fitted
    with one_openmp_thread():
        return np.asarray(model.decision_function(x) + np.log(ratio))


def _as_fine_as_data(sample: _Sample, seeds: Sequence[int]) -> tuple[tuple[Any, ...], int]:
    """Return classifiers with as many leaves per tree as the held-out events bear, and this number.

    Doubled until the loss of the held-out events exceeds the lowest one by more than its standard error.
    """
    leaves = LEAVES[0]
    fitted, lowest = sample.cross_fitted(leaves, seeds)
    while 2 * leaves <= LEAVES[1] and None not in fitted:
        if leaves * LEAF > len(sample.x):  # no tree grows so many, and finer ones are the same
            leaves = LEAVES[1]
            break
        finer, loss = sample.cross_fitted(2 * leaves, seeds)
        worse = loss - lowest
        if worse.sum() > np.sqrt(np.sum(worse**2)):
            break
        fitted, leaves = finer, 2 * leaves
        lowest = loss if worse.sum() < 0 else lowest
    _LOG.info("posterior weights: %d leaves per tree", leaves)
    return fitted, leaves


def _features(pairs: Pairs, names: Sequence[str]) -> FloatArray:
    known = (*MEMBERS, *pairs.columns)
    wrong = [name for name in names if name not in known]
    if wrong or not names:
        msg = f"posterior_weights: features {list(names)} must be some of {', '.join(known)}"
        raise UserError(msg)
    columns = [getattr(pairs, n) if n in MEMBERS else pairs.columns[n] for n in names]
    return np.stack([np.asarray(c, dtype=np.float64) for c in columns], axis=1)


def _signal_share(fitted: Any, x: FloatArray) -> FloatArray:
    """Return max(0, 1 − b/os) of pairs; 1 without a classifier."""
    if fitted is None:
        return np.ones(len(x))
    return np.asarray(np.clip(1 - np.exp(_log_odds(fitted, x)), 0, None))


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorModel:
    """Classifiers that weight any number of pairs, part by part."""

    fitted: tuple[Any, ...]  # One classifier with its ratio of sums per fold, or None
    features: tuple[str, ...]
    moments: MomentWeights  # Factors that give slices of mass the sums and moments of the signed weights
    leaves: int  # Per tree

    def weights(self, pairs: Pairs, signed: FloatArray) -> FloatArray:
        """Return signed weight × max(0, 1 − b/os) × factor of the slice, opposite sign; 0 for like sign.

        The fold follows from the event alone, so that no pair is scored by a classifier that has seen its
        event. The sum is not scaled to that of the signed weights: a part does not know it.
        """
        weight = _folded(self.fitted, self.features, pairs, signed)
        return weight * self.moments.factors(pairs.mass, _shape(pairs))


def _folded(fitted: Sequence[Any], features: Sequence[str], pairs: Pairs, signed: FloatArray) -> FloatArray:
    x, fold = _features(pairs, features), _hashed_fold(pairs, len(fitted))
    use = pairs.os & (signed != 0)
    result = np.zeros(len(pairs))
    for k, one in enumerate(fitted):
        score = np.flatnonzero(use & (fold == k))
        if len(score):
            result[score] = signed[score] * _signal_share(one, x[score])
    return result


def _shape(pairs: Pairs) -> FloatArray:
    # acceptances end at angles, near pt / energy, and at boosts
    logs = np.log(np.maximum(np.stack([pairs.pt / pairs.energy, pairs.energy], axis=1), 1e-300))
    return np.asarray(logs, dtype=np.float64)


def _hashed_fold(pairs: Pairs, n_folds: int) -> npt.NDArray[np.int64]:
    # the lower half of the hash; a subsample of events is chosen by its upper digits
    return ((event_seeds(pairs.event) & np.uint64(0xFFFFFFFF)) % np.uint64(n_folds)).astype(np.int64)


def too_few_for_posterior(pairs: Pairs, signed: FloatArray, *, n_folds: int = FOLDS) -> str:
    """Return why pairs are too few for `fit_posterior` to learn from, "" if they are enough.

    Notes
    -----
    A tree splits nothing with fewer than twice the pairs of a leaf outside its fold: the posterior would be
    one number, or that of very few like-sign pairs. Without any like-sign pair nothing is to be learned, and
    the signed weights are the posterior ones.
    """
    active = np.asarray(signed) != 0
    n, n_like = int(active.sum()), int((active & ~pairs.os).sum())
    needed = -(-2 * LEAF * n_folds // (n_folds - 1))
    n_events = len(np.unique(pairs.event[active]))
    if n < needed:
        return f"{n} pairs inside the axes, {n_like} of them to subtract; a classifier needs {needed}"
    if n_events < 2 * n_folds:
        return f"the {n} pairs inside the axes are of {n_events} events; a classifier needs {2 * n_folds}"
    return ""


def fit_posterior(
    pairs: Pairs,
    signed: FloatArray,
    *,
    rng: np.random.Generator,
    features: Sequence[str] = MEMBERS,
    n_folds: int = FOLDS,
) -> PosteriorModel:
    """Return classifiers of like-sign against opposite-sign pairs: weights for these pairs and any others.

    Notes
    -----
    The classifier separates like-sign pairs, with their subtraction weights, from opposite-sign pairs; its
    odds are the ratio b/os of densities. Idea: Borisyak and Kazeev, arXiv:1905.11719; Nachman and Thaler,
    arXiv:2007.11586. The expectation of a signed weight given the kinematics, so every projection agrees
    with that of the signed weights within errors; unlike them it cannot drive a
    likelihood to minus infinity.

    A classifier of limited size blurs the edges of the background alike in every data set. Two things that
    grow with the sample stand against it. The leaves per tree follow from the held-out events, by the rule of
    one standard error (Breiman et al., Classification and Regression Trees, 1984, sec. 3.4.3), but towards
    the finer trees, since their noise averages out in the density that is learned. And in slices of mass
    whose signed sum is known to 10 % the posterior is brought to that sum, and to the means, variances and
    covariance of ln(pt/E) and ln E (`moment_weights`).
    """
    signed = np.asarray(signed, dtype=np.float64)
    if signed.shape != (len(pairs),):
        msg = f"fit_posterior: {signed.shape} signed weights for {len(pairs)} pairs"
        raise UserError(msg)
    active = np.flatnonzero(signed != 0)
    x = _features(pairs, features)[active]
    events, group = np.unique(pairs.event[active], return_inverse=True)
    if n_folds < 2 or len(events) < 2 * n_folds:
        msg = (
            f"fit_posterior: {len(events)} events with pairs of weight other than 0 cannot be split into "
            f"n_folds = {n_folds}, at least two and two events per fold; use the signed weights of so few"
        )
        raise UserError(msg)
    fold = _hashed_fold(pairs, n_folds)[active]
    sample = _Sample(x, ~pairs.os[active], np.abs(signed[active]), fold, group)
    fitted, leaves = _as_fine_as_data(sample, [int(rng.integers(2**31)) for _ in range(n_folds)])
    posterior = _folded(fitted, features, pairs, signed)
    moments = moment_weights(
        pairs.mass[active], _shape(pairs)[active], signed[active], posterior[active], error=SLICE_ERROR
    )
    return PosteriorModel(fitted, tuple(features), moments, leaves)


def posterior_weights(pairs: Pairs, signed: FloatArray, **options: Any) -> FloatArray:
    """Return weights of the opposite-sign pairs that are not negative, for training a density.

    Parameters
    ----------
    pairs, signed, **options
        As for `fit_posterior`.

    Returns
    -------
    NDArray, shape (n,)
        Opposite-sign pairs: own weight × max(0, 1 − b/os); like-sign pairs: 0. The sum equals that of the
        signed weights, unless clipping would have to remove more than there is.

    Raises
    ------
    UserError
        As `fit_posterior`.
    """
    weight = fit_posterior(pairs, signed, **options).weights(pairs, np.asarray(signed, dtype=np.float64))
    return rescaled(weight, float(np.sum(signed)))
