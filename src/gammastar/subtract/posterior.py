"""Posterior weights: opposite-sign pairs weighted with their probability to be signal, from a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray
from gammastar.subtract.classifier import LEAF, Sample, as_fine_as_data, log_odds
from gammastar.subtract.replicas import event_seeds
from gammastar.subtract.tilts import Tilts, make_tilts

__all__ = [
    "Closure",
    "PosteriorModel",
    "fit_posterior",
    "posterior_weights",
    "projection_closure",
    "too_few_for_posterior",
]

MEMBERS = ("mass", "pt", "energy")
FOLDS = 5
SLICE_ERROR = 0.1  # relative error of the signed sum in the slices where the posterior is brought to it


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
    return np.asarray(np.clip(1 - np.exp(log_odds(fitted, x)), 0, None))


@dataclass(frozen=True, slots=True, eq=False)
class PosteriorModel:
    """Classifiers that weight any number of pairs, part by part.

    Attributes
    ----------
    fitted : tuple
        One classifier with its ratio of sums per fold, or None.
    features : tuple of str
    tilts : Tilts
        Factors that give slices of mass the sums and moments of the signed weights.
    leaves : int
        Per tree.
    """

    fitted: tuple[Any, ...]
    features: tuple[str, ...]
    tilts: Tilts
    leaves: int

    def weights(self, pairs: Pairs, signed: FloatArray) -> FloatArray:
        """Return signed weight × max(0, 1 − b/os) × factor of the slice, opposite sign; 0 for like sign.

        The fold follows from the event alone, so that no pair is scored by a classifier that has seen its
        event. The sum is not scaled to that of the signed weights: a part does not know it.
        """
        weight = _folded(self.fitted, self.features, pairs, signed)
        return weight * self.tilts.factors(pairs.mass, _shape(pairs))


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

    Parameters
    ----------
    pairs : Pairs
    signed : NDArray, shape (n,)
        Pairs of weight 0 do not count.
    n_folds : int

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

    Parameters
    ----------
    pairs : Pairs
        Opposite- and like-sign pairs; a sample of the events suffices.
    signed : NDArray, shape (n,)
        From `event_weights`.
    rng : numpy.random.Generator
    features : sequence of str
        What the classifier sees: the variables of the density, in any case mass, pt and energy.
    n_folds : int
        Events are split; no pair is scored by a classifier that has seen its event.

    Returns
    -------
    PosteriorModel

    Raises
    ------
    UserError
        If a feature is unknown, or there are too few pairs for the folds.

    Notes
    -----
    The classifier separates like-sign pairs, with their subtraction weights, from opposite-sign pairs; its
    odds are the ratio b/os of densities. Idea: Borisyak and Kazeev, arXiv:1905.11719; Nachman and Thaler,
    arXiv:2007.11586. The expectation of a signed weight given the kinematics, so every projection agrees
    with that of the signed weights within errors (`projection_closure`); unlike them it cannot drive a
    likelihood to minus infinity.

    A classifier of limited size blurs the edges of the background alike in every data set. Two things that
    grow with the sample stand against it. The leaves per tree follow from the held-out events, by the rule of
    one standard error (Breiman et al., Classification and Regression Trees, 1984, sec. 3.4.3), but towards
    the finer trees, since their noise averages out in the density that is learned. And in slices of mass
    whose signed sum is known to 10 % the posterior is brought to that sum, and to the means, variances and
    covariance of ln(pt/E) and ln E (`make_tilts`).
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
    sample = Sample(x, ~pairs.os[active], np.abs(signed[active]), fold, group)
    fitted, leaves = as_fine_as_data(sample, [int(rng.integers(2**31)) for _ in range(n_folds)])
    posterior = _folded(fitted, features, pairs, signed)
    tilts = make_tilts(
        pairs.mass[active], _shape(pairs)[active], signed[active], posterior[active], error=SLICE_ERROR
    )
    return PosteriorModel(fitted, tuple(features), tilts, leaves)


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
    return _rescaled(weight, float(np.sum(signed)))


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
