"""Classifiers of like-sign against opposite-sign pairs, as fine as the held-out events bear."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import threadpool_limits

from gammastar.core.records import BoolArray, FloatArray

__all__ = ["LEAF", "Sample", "as_fine_as_data", "log_odds"]

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
class Sample:
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
        with threadpool_limits(limits=1, user_api="openmp"):  # sums of several threads are not reproducible
            model.fit(self.x[train], label, sample_weight=weight * (weight.sum() / 2 / total)[label])
        return model, total[1] / total[0]

    def cross_fitted(self, leaves: int, seeds: Sequence[int]) -> tuple[tuple[Any, ...], FloatArray]:
        """Return a classifier per fold, trained without it, and the cross entropy of each held-out event."""
        loss, fitted = np.zeros(len(self.x)), []
        for k, seed in enumerate(seeds):
            one = self.fitted(self.fold != k, leaves, seed)
            fitted.append(one)
            score = np.flatnonzero(self.fold == k)
            if one is not None and len(score):
                value = log_odds(one, self.x[score])
                loss[score] = np.logaddexp(0.0, value) - self.background[score] * value
        return tuple(fitted), np.bincount(self.event, self.weight * loss).astype(np.float64)


def log_odds(fitted: Any, x: FloatArray) -> FloatArray:
    """Return ln(b/os) of points by a classifier, shape (n,)."""
    model, ratio = fitted
    with threadpool_limits(limits=1, user_api="openmp"):
        return np.asarray(model.decision_function(x) + np.log(ratio))


def as_fine_as_data(sample: Sample, seeds: Sequence[int]) -> tuple[tuple[Any, ...], int]:
    """Return classifiers with as many leaves per tree as the held-out events bear, and this number.

    Doubled until the loss of the held-out events exceeds the lowest one by more than its standard error.
    """
    leaves = LEAVES[0]
    fitted, lowest = sample.cross_fitted(leaves, seeds)
    while 2 * leaves <= LEAVES[1] and None not in fitted:
        finer, loss = sample.cross_fitted(2 * leaves, seeds)
        worse = loss - lowest
        if worse.sum() > np.sqrt(np.sum(worse**2)):
            break
        fitted, leaves = finer, 2 * leaves
        lowest = loss if worse.sum() < 0 else lowest
    _LOG.info("posterior weights: %d leaves per tree", leaves)
    return fitted, leaves
