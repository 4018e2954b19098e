"""More tests of a flow than the divergence: a classifier, the marginals, the support, the calibration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.stats import kstwobign
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler
from gammastar.flow.network import inside_limits

__all__ = ["Calibration", "Quality", "calibration", "classifier_test", "quality"]

_FOLDS = 2


class Density(Protocol):
    """A sampler that knows its density: a flow or an ensemble."""

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass [GeV]."""

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw pt and energy [GeV]."""

    def log_prob(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ln p(pt, energy | mass)."""


def classifier_test(model: FloatArray, data: FloatArray, *, rng: np.random.Generator) -> tuple[float, float]:
    """Return how well a classifier tells two samples apart: area under the curve, and its error.

    Parameters
    ----------
    model, data : NDArray, shape (n, d) and (m, d)
    rng : numpy.random.Generator

    Returns
    -------
    auc : float
        0.5 for equal distributions; mean of two folds, each judged on points that it was not trained on.
    error : float
        Standard deviation of `auc` for equal distributions.

    Raises
    ------
    PhysicsError
        If a sample has fewer than 200 points.

    Notes
    -----
    Classifier two-sample test (arXiv:1610.06545) with gradient-boosted trees; the error is that of a
    Mann-Whitney statistic without ties.
    """
    n, m = len(model), len(data)
    if min(n, m) < 200:
        msg = f"classifier_test: {n} and {m} points; at least 200 of each are needed"
        raise PhysicsError(msg)
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
class Calibration:
    """Content of regions of highest density.

    Attributes
    ----------
    nominal : NDArray, shape (n,)
        Probability content of the region after the model.
    found : NDArray, shape (n,)
        Share of the data inside it.
    p_value : float
        Of the largest distance between the two (Kolmogorov); small if the density is not that of the data.
    """

    nominal: FloatArray
    found: FloatArray
    p_value: float


def calibration(
    model: Density,
    data: FloatArray,
    *,
    rng: np.random.Generator,
    n_draws: int = 40,
    nominal: FloatArray | None = None,
) -> Calibration:
    """Compare the content of the model's regions of highest density with the data's.

    Parameters
    ----------
    model : Density
    data : NDArray, shape (n, 3) [GeV]
        mass, pt, energy; unweighted.
    rng : numpy.random.Generator
    n_draws : int
        Draws of the model at the mass of each pair; they rank its density.
    nominal : NDArray, optional
        Contents at which the two are compared; 0.05 to 0.95 by default.

    Notes
    -----
    The rank of ln p(pair | m) among draws at the same mass is uniform if the density is right.
    """
    mass, pt, energy = data.T
    own = model.log_prob(mass, pt, energy)
    drawn = model.sample(np.repeat(mass, n_draws), rng)
    others = model.log_prob(np.repeat(mass, n_draws), *drawn).reshape(len(mass), n_draws)
    # rank from the top, uniform in 0 … n_draws, spread evenly inside its step
    rank = ((others > own[:, None]).sum(axis=1) + rng.random(len(mass))) / (n_draws + 1.0)
    grid = np.linspace(0.05, 0.95, 19) if nominal is None else np.asarray(nominal, dtype=np.float64)
    ordered = np.sort(rank)
    found = np.searchsorted(ordered, grid, side="right") / len(rank)
    steps = np.arange(len(rank) + 1) / len(rank)
    distance = max(float(np.max(steps[1:] - ordered)), float(np.max(ordered - steps[:-1])))
    return Calibration(grid, found, float(kstwobign.sf(np.sqrt(len(rank)) * distance)))


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """What `quality` finds.

    Attributes
    ----------
    auc, auc_error : float
        Of the classifier in (mass, ln pt, ln energy), and its error for equal distributions.
    marginals : dict of str to (float, float)
        Kolmogorov distance and p-value in pt and in energy.
    unphysical : float
        Share of draws outside the physical limits.
    beyond : float
        Share of draws beyond the largest pt or energy of the data: support that no pair has tested.
    """

    auc: float
    auc_error: float
    marginals: dict[str, tuple[float, float]]
    unphysical: float
    beyond: float


def quality(model: Sampler, data: FloatArray, *, beam_energy: float, rng: np.random.Generator) -> Quality:
    """Compare draws at the masses of the data with the data.

    Parameters
    ----------
    model : Sampler
        A flow, an ensemble, a histogram, a kernel or a mixture: all on the same footing.
    data : NDArray, shape (n, 3) [GeV]
        mass, pt, energy; unweighted pairs that the model was not trained on.
    beam_energy : float [GeV]
    rng : numpy.random.Generator
    """
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
    return distance, float(kstwobign.sf(np.sqrt(size) * distance))
