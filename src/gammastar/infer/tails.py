"""Tail probabilities of many pseudo-experiments, each with toys of its own nuisances.

Given the numbers of signal and background events, yields e^{A·θ} make toys an exponential family in the
nuisances, with T = Σ n A as sufficient statistic, and with T + g where toys draw unit-normal measurements g.
One set of toys from several θ, weighted by e^{T·θ − R(θ) − θ²/2} over their mixture, then serves all of them.
Where toys keep the measurements, their statistic depends on them: experiments are drawn in groups that share
their measurements, and each group has its toys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer import profile
from gammastar.infer.toys import Convention, Model, Toys, draw, statistics
from gammastar.infer.weighted_toys import TIE

__all__ = ["BATCHES", "Experiments", "grouped_tails", "weighted_tails"]

BATCHES = 8  # parts of the toys, for their error
PROPOSALS = 32  # nuisances at which weighted toys are drawn
COARSE = 16  # of so many toys one decides which experiments need all
FEW = 4  # the same per group
WIDER = 1.3  # proposals are spread more than the fits


@dataclass(frozen=True, slots=True, eq=False)
class Experiments:
    """Pseudo-experiments with their statistic and the nuisances fitted under one hypothesis.

    Attributes
    ----------
    strength : float
        Of the hypothesis, 0 or 1.
    q : NDArray, shape (n,)
    aux, fitted : NDArray, shape (n, nuisances)
        Measurements and fitted values of the nuisances.
    """

    strength: float
    q: FloatArray
    aux: FloatArray
    fitted: FloatArray

    @classmethod
    def under(cls, strength: float, model: Model, toys: Toys, q: FloatArray) -> Experiments:
        """Fit the nuisances of data sets at a strength of 0 or 1."""
        aux, times = toys.aux - model.shift, np.ones(len(toys.ratio))
        fitted, _ = profile.fit(strength, model.arrays(), aux, toys.ratio, times, toys.offsets)
        return cls(strength, q, toys.aux, np.asarray(fitted, dtype=np.float64))

    def chosen(self, at: npt.NDArray[np.int64]) -> Experiments:
        """Return some of the experiments."""
        return Experiments(self.strength, self.q[at], self.aux[at], self.fitted[at])


def weighted_tails(
    model: Model,
    convention: Convention,
    experiments: Experiments,
    n_toys: int,
    rng: np.random.Generator,
    most: float,
) -> FloatArray:
    """Return P(≥ q) at the fitted nuisances of each experiment, toys with randomised measurements.

    Parameters
    ----------
    model, convention, experiments, rng
    n_toys : int
        In all.
    most : float
        Above this tails are only estimated with one in 16 toys.

    Returns
    -------
    NDArray, shape (n, 8)
        Averages over the eight parts of the toys; their mean is the probability.
    """
    fitted, strength = experiments.fitted, experiments.strength
    middle, each = fitted.mean(axis=0), max(n_toys // PROPOSALS, BATCHES * COARSE)
    at = middle + WIDER * (fitted[rng.integers(0, len(fitted), PROPOSALS)] - middle)
    theta = np.repeat(at, each, axis=0)
    toys = draw(model, theta, strength, len(theta), rng, randomise=True)
    q = statistics(model, toys, 1.0, convention.statistic)
    order = rng.permutation(len(q))  # proposals mixed in every part
    family = _family(model, toys)[order]
    logs = family @ at.T - _normalisation(model, at, strength)
    mixture = logs.max(axis=1) + np.log(np.mean(np.exp(logs - logs.max(axis=1)[:, None]), axis=1))
    norm = _normalisation(model, fitted, strength)
    if strength == 0.0:  # nearly all toys lie beyond: count the others
        everything = _sorted(-q[order], family, mixture, 1)
        return np.asarray(1.0 - _tail(TIE - experiments.q, fitted, norm, *everything), dtype=np.float64)
    bound = experiments.q - TIE
    parts = _tail(bound, fitted, norm, *_sorted(q[order], family, mixture, COARSE))
    near = np.flatnonzero(parts.mean(axis=1) < most)
    everything = _sorted(q[order], family, mixture, 1)
    parts[near] = _tail(bound[near], fitted[near], norm[near], *everything)
    return np.asarray(parts, dtype=np.float64)


def _family(model: Model, toys: Toys, *, measured: bool = True) -> FloatArray:
    """Return the sufficient statistic T of drawn data sets, shape (sets, nuisances)."""
    if toys.parts is None:
        msg = "weights of toys need the numbers of their signal and background events"
        raise PhysicsError(msg)
    a, d = model.exponents
    counted = toys.parts[:, :, 0] @ a + toys.parts[:, :, 1] @ d
    return np.asarray(toys.aux + counted if measured else counted, dtype=np.float64)


def _normalisation(model: Model, theta: FloatArray, strength: float) -> FloatArray:
    """Return R(θ) + θ²/2, all expected events and the constraint."""
    return np.asarray(model.rates(theta, strength).sum(axis=(1, 2)) + 0.5 * (theta**2).sum(axis=1))


def _sorted(q: FloatArray, family: FloatArray, mixture: FloatArray, step: int) -> tuple[Any, ...]:
    """Return values, sufficient statistics, mixture and part of every step-th toy, largest value first."""
    chosen = np.arange(0, len(q), step)
    batch = np.arange(len(chosen)) % BATCHES
    order = np.argsort(-q[chosen], kind="stable")
    chosen = chosen[order]
    return q[chosen], np.ascontiguousarray(family[chosen]), mixture[chosen], batch[order]


@numba.njit(cache=True)
def _tail(bound: Any, theta: Any, norm: Any, values: Any, family: Any, mixture: Any, batch: Any) -> Any:
    """Return weighted fractions of toys at or above a bound, per part of the toys."""
    n, k, p = len(bound), len(values), theta.shape[1]
    parts = np.zeros((n, BATCHES))
    for i in range(n):
        for t in range(k):
            if values[t] < bound[i]:
                break
            log = -norm[i] - mixture[t]
            for j in range(p):
                log += family[t, j] * theta[i, j]
            parts[i, batch[t]] += np.exp(log)
    return parts * (BATCHES / k)


def grouped_tails(
    model: Model,
    convention: Convention,
    experiments: Experiments,
    n_toys: int,
    rng: np.random.Generator,
) -> FloatArray:
    """Return P(≥ q) of experiments in groups of equal measurements, which toys keep.

    Parameters
    ----------
    model, convention, rng
    experiments : Experiments
        Groups of the same size one after the other, `aux` has a row per group.
    n_toys : int
        In all, shared equally by the groups.

    Returns
    -------
    NDArray, shape (n,)
    """
    aux, strength = experiments.aux, experiments.strength
    groups, p = aux.shape
    size, each = len(experiments.q) // groups, max(n_toys // groups, 1)
    fitted = experiments.fitted.reshape(groups, size, p)
    if convention.auxiliary == "averaged":
        theta = (aux[:, None, :] + rng.standard_normal((groups, each, p))).reshape(-1, p)
    else:
        middle = fitted.mean(axis=1, keepdims=True)
        at = middle + WIDER * (fitted[:, rng.integers(0, size, FEW)] - middle)
        theta = at[:, rng.permutation(np.arange(each) % FEW)].reshape(-1, p)
    drawn = draw(model, theta, strength, groups * each, rng, randomise=False)
    toys = Toys(drawn.ratio, drawn.offsets, np.repeat(aux, each, axis=0), drawn.parts)
    q = statistics(model, toys, 1.0, convention.statistic).reshape(groups, each)
    if convention.auxiliary == "averaged":
        family, mixture, norm = np.zeros((groups, each, p)), np.zeros(q.shape), np.zeros((groups, size))
    else:
        family = _family(model, drawn, measured=False).reshape(groups, each, p)
        logs = np.einsum("gkp,gjp->gkj", family, at) - model.rates(at, strength).sum(axis=(2, 3))[:, None, :]
        mixture = np.asarray(logsumexp(logs, axis=2)) - np.log(FEW)
        norm = model.rates(fitted, strength).sum(axis=(2, 3))
    bound = experiments.q.reshape(groups, size) - TIE
    sign = 1.0 if strength > 0 else -1.0  # without signal nearly all toys lie beyond: count the others
    order = np.argsort(-sign * q, axis=1, kind="stable")
    ranked = [np.take_along_axis(x, order, axis=1) for x in (sign * q, mixture)]
    family = np.take_along_axis(family, order[:, :, None], axis=1)
    tail = np.empty(bound.shape)
    batch = np.arange(each) % BATCHES
    for g in range(groups):
        part = _tail(sign * bound[g], fitted[g], norm[g], ranked[0][g], family[g], ranked[1][g], batch)
        tail[g] = part.mean(axis=1)
    return np.asarray(tail if strength > 0 else 1.0 - tail, dtype=np.float64).ravel()
