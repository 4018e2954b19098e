"""Density ratios from a classifier; boosted trees by default, anything with the same call otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sklearn.ensemble import HistGradientBoostingClassifier
from threadpoolctl import threadpool_limits

from gammastar.core.records import FloatArray

__all__ = ["BoostedTrees", "Classifier", "Ratio"]

Ratio = Callable[[FloatArray], FloatArray]
CLIP = 1e-3  # ratios stay within [CLIP, 1/CLIP]


class Classifier(Protocol):
    """Learns the ratio of two weighted samples."""

    def __call__(
        self,
        above: tuple[FloatArray, FloatArray],
        below: tuple[FloatArray, FloatArray],
        rng: np.random.Generator,
    ) -> Ratio:
        """Return x ↦ (density of `above`)/(density of `below`), normalisation included.

        Parameters
        ----------
        above, below : (features (n, d), weights (n,))
            Weights are not negative.
        rng : numpy.random.Generator
        """


@dataclass(frozen=True, slots=True)
class BoostedTrees:
    """Histogram gradient boosting (scikit-learn) with early stopping.

    Attributes
    ----------
    n_trees : int
        At most.
    rate : float
        Learning rate.
    leaves, per_leaf : int
        Leaves of a tree, and events in a leaf at least: a leaf has one ratio, so that a steep tail of fewer
        events is not resolved.
    validation : float
        Fraction of the events that decides when to stop; 0 grows all trees.
    patience : int
        Trees without improvement of the validation loss that stop.
    bins : int
        Quantile bins of each feature, at most 255: the finest structure that the ratio resolves, and most of
        the time of a small sample.
    """

    n_trees: int = 100
    rate: float = 0.2
    leaves: int = 8
    per_leaf: int = 50
    validation: float = 0.2
    patience: int = 20
    bins: int = 255

    def __call__(
        self,
        above: tuple[FloatArray, FloatArray],
        below: tuple[FloatArray, FloatArray],
        rng: np.random.Generator,
    ) -> Ratio:
        """Return the ratio p/(1 − p) of the trained classifier, clipped to [10⁻³, 10³]."""
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
        with threadpool_limits(limits=1, user_api="openmp"):  # sums of several threads are not reproducible
            model.fit(features, label, sample_weight=weight * balance * len(label) / 2)
        scale = total[0] / max(total[1], 1e-300)

        def ratio(x: FloatArray) -> FloatArray:
            if not len(x):
                return np.zeros(0)
            odds = np.exp(np.asarray(model.decision_function(x), dtype=np.float64))
            return np.asarray(scale * np.clip(odds, CLIP, 1 / CLIP))

        return ratio
