"""How far draws of a density are from pairs: a classifier, marginal distributions, unphysical draws."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.special import kolmogorov

from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler
from gammastar.flow.network import inside_limits

_FOLDS = 2


def classifier_test(model: FloatArray, data: FloatArray, *, rng: np.random.Generator) -> tuple[float, float]:
    """Return how well a classifier tells two samples apart: area under the curve, and its error.

    Notes
    -----
    Classifier two-sample test (arXiv:1610.06545) with gradient-boosted trees; the error is that of a
    Mann-Whitney statistic without ties.
    """
    n, m = len(model), len(data)
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.metrics import roc_auc_score

    features = np.concatenate([model, data])
    label = np.repeat([0, 1], [n, m])
    fold = rng.integers(_FOLDS, size=n + m)
    areas = []
    for k in range(_FOLDS):
        trees = HistGradientBoostingClassifier(
            max_iter=80, max_leaf_nodes=15, min_samples_leaf=50, random_state=int(rng.integers(2**31))
        )
        trees.fit(features[fold != k], label[fold != k])
        areas.append(roc_auc_score(label[fold == k], trees.predict_proba(features[fold == k])[:, 1]))
    error = float(np.sqrt((n + m + 1.0) / (12.0 * n * m)))
    return float(np.mean(areas)), error


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """What `quality` finds."""

    # Of the classifier in (mass, ln pt, ln energy), and its error for equal distributions
    auc: float
    auc_error: float
    marginals: dict[str, tuple[float, float]]  # Kolmogorov distance and p-value in pt and in energy
    unphysical: float  # Share of draws outside the physical limits
    # Share of draws beyond the largest pt or energy of the data: support that no pair has tested
    beyond: float


def quality(model: Sampler, data: FloatArray, *, beam_energy: float, rng: np.random.Generator) -> Quality:
    """Compare draws at the masses of the data with data, (m, 3), that trained nothing."""
    mass, pt, energy = data.T
    drawn_pt, drawn_energy = model.sample(mass, rng)
    logs = [
        np.column_stack([mass, np.log(p), np.log(e)]) for p, e in ((drawn_pt, drawn_energy), (pt, energy))
    ]
    auc, error = classifier_test(*logs, rng=rng)
    outside = ~inside_limits(mass, drawn_pt, drawn_energy, beam_energy)
    beyond = (drawn_pt > pt.max()) | (drawn_energy > energy.max())
    marginals = {"pt": _kolmogorov(drawn_pt, pt), "energy": _kolmogorov(drawn_energy, energy)}
    return Quality(auc, error, marginals, float(outside.mean()), float(beyond.mean()))


def _kolmogorov(first: FloatArray, second: FloatArray) -> tuple[float, float]:
    """Return distance and p-value of two samples."""
    both = np.concatenate([first, second])
    cdf = [np.searchsorted(np.sort(a), both, side="right") / len(a) for a in (first, second)]
    distance = float(np.max(np.abs(cdf[0] - cdf[1])))
    size = len(first) * len(second) / (len(first) + len(second))
    return distance, float(kolmogorov(np.sqrt(size) * distance))
