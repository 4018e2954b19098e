"""Boosted trees whose quantile bins are found with one sort of each feature."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray

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


def fit_trees(model: Any, x: FloatArray, label: npt.NDArray[np.int64], weight: FloatArray) -> BinnedTrees:
    """Train trees on weighted events; they are those that scikit-learn grows from the features themselves.

    Notes
    -----
    scikit-learn 1.9 sorts a feature anew for each of its weighted quantiles, most of the time of a training;
    trees depend on nothing but the bins.
    """
    part = _part(model, label)
    edges = None
    if len(part) <= MAX_EVENTS and np.isfinite(x).all():
        edges = tuple(_edges(column[part], weight[part], model.max_bins) for column in x.T)
    model.fit(_numbers(x, edges), label, sample_weight=weight)
    return BinnedTrees(model, edges)


def _part(model: Any, label: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
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
    order = np.argsort(column)
    column, weight = column[order], weight[order]
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
