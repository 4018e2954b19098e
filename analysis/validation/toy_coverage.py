"""How often a true signal is excluded: pseudo-experiments against the distributions of the statistic.

Tail probabilities of many pseudo-experiments, each with toys of its own nuisances:
Given the numbers of signal and background events, yields e^{A·θ} make toys an exponential family in the
nuisances, with T = Σ n A as sufficient statistic, and with T + g where toys draw unit-normal measurements g.
One set of toys from several θ, weighted by e^{T·θ − R(θ) − θ²/2} over their mixture, then serves all of them.
Where toys keep the measurements, their statistic depends on them: experiments are drawn in groups that share
their measurements, and each group has its toys.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
from scipy.special import logsumexp, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer import profile
from gammastar.infer.channels import Channel
from gammastar.infer.toys import TIE, Convention, ToyModel, Toys, draw, statistics, toy_model

__all__ = [
    "BATCHES",
    "Coverage",
    "Experiments",
    "coverage",
    "decided_tails",
    "grouped_tails",
    "weighted_tails",
]

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
    def under(cls, strength: float, model: ToyModel, toys: Toys, q: FloatArray) -> Experiments:
        """Fit the nuisances of data sets at a strength of 0 or 1."""
        aux, times = toys.aux - model.shift, np.ones(len(toys.ratio))
        fitted, _ = profile.fit(strength, model.arrays(), aux, toys.ratio, times, toys.offsets)
        return cls(strength, q, toys.aux, np.asarray(fitted, dtype=np.float64))

    def chosen(self, at: npt.NDArray[np.int64]) -> Experiments:
        """Return some of the experiments."""
        return Experiments(self.strength, self.q[at], self.aux[at], self.fitted[at])


def weighted_tails(
    model: ToyModel,
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


def _family(model: ToyModel, toys: Toys, *, measured: bool = True) -> FloatArray:
    """Return the sufficient statistic T of drawn data sets, shape (sets, nuisances)."""
    if toys.parts is None:
        msg = "weights of toys need the numbers of their signal and background events"
        raise PhysicsError(msg)
    a, d = model.exponents
    counted = toys.parts[:, :, 0] @ a + toys.parts[:, :, 1] @ d
    return np.asarray(toys.aux + counted if measured else counted, dtype=np.float64)


def _normalisation(model: ToyModel, theta: FloatArray, strength: float) -> FloatArray:
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
    model: ToyModel,
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
    NDArray, shape (n, 8)
        As `weighted_tails`.
    """
    aux, strength = experiments.aux, experiments.strength
    groups, p = aux.shape
    size, each = len(experiments.q) // groups, max(n_toys // groups, BATCHES)
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
    tail = np.empty((*bound.shape, BATCHES))
    batch = order % BATCHES  # of the toys as they were drawn
    for g in range(groups):
        tail[g] = _tail(sign * bound[g], fitted[g], norm[g], ranked[0][g], family[g], ranked[1][g], batch[g])
    return np.asarray(tail if strength > 0 else 1.0 - tail, dtype=np.float64).reshape(-1, BATCHES)


def decided_tails(
    model: ToyModel,
    convention: Convention,
    both: Sequence[Experiments],
    n_toys: int,
    rng: np.random.Generator,
    level: float,
) -> tuple[FloatArray, FloatArray]:
    """Return `grouped_tails` with and without signal, with more toys where few leave the decision open.

    An experiment with P near the level is put on its wrong side by the noise of its toys, and as these sides
    are not equally full a fraction of experiments comes out wrong. Groups with open decisions get twice as
    many toys, time and again, until the experiments on the wrong side are few beside the error of their
    number.
    """
    groups, n = len(both[0].aux), len(both[0].q)
    size, p = n // groups, both[0].fitted.shape[1]
    toys = np.zeros(groups)
    sums = np.zeros((2, groups, size, BATCHES))
    chosen, each = np.arange(groups), max(n_toys // groups, BATCHES)
    for _ in range(MOST_ROUNDS):
        for k, experiments in enumerate(both):
            q, fitted = (
                x.reshape(groups, size, *x.shape[1:])[chosen] for x in (experiments.q, experiments.fitted)
            )
            some = Experiments(
                experiments.strength, q.ravel(), experiments.aux[chosen], fitted.reshape(-1, p)
            )
            found = grouped_tails(model, convention, some, each * len(chosen), rng)
            sums[k][chosen] += each * found.reshape(-1, size, BATCHES)
        toys[chosen] += each
        parts = sums / toys[:, None, None]
        wrong = np.maximum(
            *(_wrong_side(x, level, toys) for x in (parts[0], parts[0] - level * (parts[1] - 1.0)))
        )
        shares = (parts[0].mean(axis=-1) < level).mean(axis=1)
        allowed = n * max(shares.std() / np.sqrt(groups), 0.5 * np.sqrt(level / n))
        if wrong.sum() < allowed:
            break
        chosen = np.flatnonzero(wrong.sum(axis=1) > 0.3 * allowed / groups)
        each = int(toys[chosen].min())
    return parts[0].reshape(n, BATCHES), parts[1].reshape(n, BATCHES)


def _wrong_side(parts: FloatArray, level: float, toys: FloatArray) -> FloatArray:
    """Return the probabilities that the noise of the toys puts experiments on the wrong side of the level."""
    least = np.sqrt(level * (1.0 - level) / toys)[:, None]
    error = np.maximum(parts.std(axis=-1, ddof=1) / np.sqrt(BATCHES), least)
    return np.asarray(ndtr(-np.abs(parts.mean(axis=-1) - level) / error), dtype=np.float64)


GROUPS = 1000  # of equal measurements, where toys keep them
MOST_ROUNDS = 7  # of twice as many toys
BIASED = 3.0  # errors by which the toys may bias a fraction


@dataclass(frozen=True, slots=True)
class Coverage:
    """Fractions of pseudo-experiments with the signal in which the signal is excluded.

    Attributes
    ----------
    clsb, cls : float
        P(CLs+b < 1 − cl), which should be 1 − cl, and P(CLs < 1 − cl), which is smaller by construction.
    error : float
        Standard deviation of `clsb` from the number of pseudo-experiments and of toys.
    experiments, toys : int
    method : str
    """

    clsb: float
    cls: float
    error: float
    experiments: int
    toys: int
    method: str


def coverage(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    cl: float = 0.90,
    truth: Mapping[str, float] | None = None,
    experiments: int = 100_000,
    n_toys: int = 200_000,
    fitted: bool = True,
) -> Coverage:
    """Return how often a signal of strength one is excluded when it is there.

    Parameters
    ----------
    channels : sequence of Channel
        Their observed events play no role.
    rng : numpy.random.Generator
    convention : Convention, optional
        What the analysis does; by default the ratio of likelihoods with randomised auxiliary measurements.
        In the pseudo-experiments themselves measurements always vary around the true nuisances.
    cl : float
    truth : mapping of str to float, optional
        True nuisances of the pseudo-experiments in standard deviations, 0 by default.
    experiments : int
    n_toys : int
        Toys in all of each hypothesis.
    fitted : bool
        Toys as an analysis has them; else all at nominal nuisances, with randomised measurements.

    Returns
    -------
    Coverage

    Raises
    ------
    PhysicsError
        For true values of nuisances that do not occur, toys at nominal nuisances that keep measurements, and
        so few toys that they bias the fraction by more than three times its error.

    Notes
    -----
    Drawing toys anew for each experiment is hopeless. With randomised measurements one set of weighted toys
    serves all experiments; otherwise experiments come in 1000 groups of equal measurements, which fill their
    distribution evenly, and each group has its toys, more of them where decisions are open (`decided_tails`).
    `error` holds the error of the number of experiments (of groups, which is too large a little: they are
    spread evenly) and that of the toys: the jackknife over eight parts of them, which also says how much
    their number biases the fraction.
    """
    convention = Convention("ratio", "randomised") if convention is None else convention
    model = toy_model(channels, convention)
    unknown = set(truth or {}) - set(model.nuisances)
    if unknown:
        msg = f"coverage: true values of {sorted(unknown)}; the nuisances are {model.nuisances}"
        raise PhysicsError(msg)
    if not fitted and convention.auxiliary != "randomised":
        msg = f"coverage: toys at nominal nuisances need randomised measurements, not {convention.auxiliary}"
        raise PhysicsError(msg)
    true = np.array([(truth or {}).get(name, 0.0) for name in model.nuisances])
    toyed = _Toyed(model, convention, n_toys, rng, 2.0 * (1.0 - cl))
    groups = 1 if convention.auxiliary == "randomised" else GROUPS
    experiments = max(experiments // groups, 1) * groups
    toys = draw(model, true, 1.0, experiments, rng, randomise=True)
    if groups > 1:
        aux = true + _evenly_spread(groups, len(true), rng)
        toys = replace(toys, aux=np.repeat(aux, experiments // groups, axis=0))
    q = statistics(model, toys, 1.0, convention.statistic)
    clsb, clb = toyed.tails(toys, q, fitted=fitted and bool(model.nuisances))
    level = 1.0 - cl
    excluded = clsb.mean(axis=1) < level
    by_cls = clsb.mean(axis=1) < level * clb
    fraction = float(excluded.mean())
    counted = np.clip(fraction, 1.0 / experiments, 1.0)
    drawn = counted * (1.0 - counted) / experiments
    if groups > 1:  # experiments of a group are excluded all or not at all where few events are expected
        drawn = max(drawn, np.var(excluded.reshape(groups, -1).mean(axis=1)) / groups)
    left_out = (clsb.sum(axis=1)[:, None] - clsb) / (BATCHES - 1)
    fractions = np.mean(left_out < level, axis=0)
    error = float(np.sqrt(drawn + (BATCHES - 1) * np.var(fractions)))
    bias = float((BATCHES - 1) * (fractions.mean() - fraction))
    if abs(bias) > BIASED * error:
        msg = (
            f"coverage: {n_toys} toys are too few, they bias {fraction:.4g} ± {error:.2g} by {-bias:.2g}; "
            "give four times as many"
        )
        raise PhysicsError(msg)
    what = {"fixed": "fitted", "randomised": "fitted", "averaged": "averaged"}[convention.auxiliary]
    label = f"{experiments} experiments, toys at {what if fitted else 'nominal'} nuisances, {convention}"
    return Coverage(fraction, float(by_cls.mean()), error, experiments, n_toys, label)


def _evenly_spread(n: int, dimensions: int, rng: np.random.Generator) -> FloatArray:
    """Return unit-normal vectors that fill each dimension evenly (Latin hypercube), shape (n, dimensions)."""
    cells = np.argsort(rng.random((n, dimensions)), axis=0)
    return np.asarray(ndtri((cells + rng.random((n, dimensions))) / n), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class _Toyed:
    """Toys of an analysis; tails above `most` need not be known well."""

    model: ToyModel
    convention: Convention
    n_toys: int
    rng: np.random.Generator
    most: float

    def tails(self, toys: Toys, q: FloatArray, *, fitted: bool) -> tuple[FloatArray, FloatArray]:
        """Return CLs+b in parts of the toys, and CLb of all experiments that may be excluded, else 1."""
        how = (self.model, self.convention)
        without = np.ones(len(q))
        if self.convention.auxiliary != "randomised":
            aux = toys.aux[:: len(q) // GROUPS]
            both = [
                replace(Experiments.under(strength, self.model, toys, q), aux=aux) for strength in (1.0, 0.0)
            ]
            tails = decided_tails(*how, both, self.n_toys, self.rng, 0.5 * self.most)
            return tails[0], tails[1].mean(axis=1)
        if not fitted:
            tail = self.nominal(q, 1.0)
            near = np.flatnonzero(tail.mean(axis=1) < self.most)
            without[near] = self.nominal(q[near], 0.0).mean(axis=1)
            return tail, without
        experiments = Experiments.under(1.0, self.model, toys, q)
        tail = weighted_tails(*how, experiments, self.n_toys, self.rng, self.most)
        near = np.flatnonzero(tail.mean(axis=1) < self.most)
        experiments = Experiments.under(0.0, self.model, toys, q).chosen(near)
        without[near] = weighted_tails(*how, experiments, self.n_toys, self.rng, self.most).mean(axis=1)
        return tail, without

    def nominal(self, q: FloatArray, strength: float) -> FloatArray:
        """Return P(≥ q) at nominal nuisances in parts of the toys."""
        theta = np.zeros(len(self.model.nuisances))
        toys = draw(self.model, theta, strength, self.n_toys, self.rng, randomise=True)
        parts = np.array_split(statistics(self.model, toys, 1.0, self.convention.statistic), BATCHES)
        below = [np.searchsorted(np.sort(part), q - TIE) / len(part) for part in parts]
        return np.asarray(1.0 - np.stack(below, axis=1), dtype=np.float64)
