"""Backgrounds of a search with very few events: rejection factors and their posteriors, random pairs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import norm

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "Expectation",
    "PassFraction",
    "RandomPairs",
    "accidental_rate",
    "expectation",
    "matched_to_median",
    "random_pairs",
]

Shape: TypeAlias = Literal["gamma", "gaussian", "lognormal"]

_SIGMA = norm.cdf([-1.0, 0.0, 1.0])  # 15.9, 50, 84.1 %


@dataclass(frozen=True, slots=True)
class PassFraction:
    """Events that survive one condition, out of a control sample.

    Attributes
    ----------
    name : str
    passed, total : int
        Survivors and events before the condition.

    Notes
    -----
    With a uniform prior the posterior of the pass fraction is Beta(passed + 1, total − passed + 1).
    """

    name: str
    passed: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.passed <= self.total or self.total < 1:
            msg = f"{self.name}: {self.passed} of {self.total} events survive; 0 <= passed <= total needed"
            raise PhysicsError(msg)

    def draw(self, n: int, rng: np.random.Generator) -> FloatArray:
        """Return `n` draws from the posterior of the pass fraction."""
        return rng.beta(self.passed + 1, self.total - self.passed + 1, n)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Posterior of an expected number of background events.

    Attributes
    ----------
    draws : NDArray, shape (n,)
        Expected events of each pseudo-experiment.
    """

    draws: FloatArray

    @property
    def median(self) -> float:
        """Median expected events."""
        return float(np.median(self.draws))

    @property
    def interval(self) -> tuple[float, float]:
        """Quantiles at 15.9 % and 84.1 %."""
        low, _, high = np.quantile(self.draws, _SIGMA)
        return float(low), float(high)

    @property
    def p_zero(self) -> float:
        """Probability to observe no event: the mean of exp(−b), not exp(−median)."""
        return float(np.mean(np.exp(-self.draws)))

    def counts(self, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return one Poisson count per pseudo-experiment: the posterior predictive distribution."""
        return np.asarray(rng.poisson(self.draws), dtype=np.int64)

    def kappa(self) -> float:
        """Return κ of a log-normal with the same median and 68 % width in the logarithm."""
        low, high = self.interval
        return float(np.sqrt(high / low))

    def scaled(self, factor: float) -> Expectation:
        """Return the expectation times a positive factor."""
        return Expectation(self.draws * factor)


def _normalisation(mean: float, sigma: float, shape: Shape, n: int, rng: np.random.Generator) -> FloatArray:
    """Return draws of the events before all conditions; `sigma` is relative."""
    if sigma == 0:
        return np.full(n, mean)
    if shape == "gamma":
        return rng.gamma(1 / sigma**2, mean * sigma**2, n)
    if shape == "lognormal":
        return np.asarray(mean * np.exp(np.log1p(sigma) * rng.standard_normal(n)))
    draws = 1 + sigma * rng.standard_normal(n)
    while (negative := draws <= 0).any():
        draws[negative] = 1 + sigma * rng.standard_normal(int(negative.sum()))
    return mean * draws


def expectation(
    events: float,
    fractions: Sequence[PassFraction],
    *,
    relative_sigma: float = 0.5,
    shape: Shape = "gamma",
    n: int = 1_000_000,
    rng: np.random.Generator,
) -> Expectation:
    """Return the expected background after independent conditions, by pseudo-experiments.

    Parameters
    ----------
    events : float
        Expected events before the conditions, e.g. vertices in the fiducial volume.
    fractions : sequence of PassFraction
        One per condition, sampled independently.
    relative_sigma : float
        Systematic uncertainty of `events`.
    shape : {"gamma", "gaussian", "lognormal"}
        Of that uncertainty: gamma with this relative deviation, a Gaussian restricted to positive values, or
        a log-normal of κ = 1 + `relative_sigma`.
    n : int
        Pseudo-experiments.
    rng : numpy.random.Generator

    Raises
    ------
    PhysicsError
        If a number is out of range.

    Notes
    -----
    NA62, arXiv:2312.12055, section IV: rejection factors with uniform prior and binomial likelihood; the
    number in the fiducial volume and the factors vary independently.

    Examples
    --------
    >>> rng = np.random.default_rng(1)
    >>> one = expectation(10.0, [PassFraction("veto", 0, 100)], relative_sigma=0.0, n=10_000, rng=rng)
    >>> abs(one.draws.mean() / (10 / 102) - 1) < 0.05
    np.True_
    """
    if not (np.isfinite(events) and events > 0 and relative_sigma >= 0 and n >= 1):
        msg = f"expectation: events = {events!r}, relative_sigma = {relative_sigma!r}, n = {n!r} out of range"
        raise PhysicsError(msg)
    if shape not in {"gamma", "gaussian", "lognormal"}:
        msg = f"expectation: shape = {shape!r} must be 'gamma', 'gaussian' or 'lognormal'"
        raise PhysicsError(msg)
    draws = _normalisation(events, relative_sigma, shape, n, rng)
    for fraction in fractions:
        draws = draws * fraction.draw(n, rng)
    return Expectation(draws)


def matched_to_median(found: Expectation, median: float) -> Expectation:
    """Return the expectation rescaled to a published median, where raw counts are not published."""
    if not (np.isfinite(median) and median > 0):
        msg = f"matched_to_median: median = {median!r} must be positive"
        raise PhysicsError(msg)
    return found.scaled(median / found.median)


@dataclass(frozen=True, slots=True, eq=False)
class RandomPairs:
    """Pseudo-events of two single tracks.

    Attributes
    ----------
    first, second : NDArray of int, shape (n,)
        Indices of the positive and the negative track.
    weight : NDArray, shape (n,)
        Expected events per pseudo-event.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: FloatArray

    def expected(self, passed: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Return the expected events among those that pass, and the statistical error.

        Tracks are used again in many pairs, so the error counts each track once: the two terms are the
        variances over the positive and over the negative tracks.
        """
        weight = np.where(passed, self.weight, 0.0)
        total = float(weight.sum())
        square = 0.0
        for index in (self.first, self.second):
            if index.size:
                square += float(np.sum(np.bincount(index, weight) ** 2))
        return total, float(np.sqrt(square))


def accidental_rate(
    n_positive: float, n_negative: float, *, window: float, live_time: float, downscaling: float
) -> float:
    """Return the expected random pairs inside a coincidence window.

    Parameters
    ----------
    n_positive, n_negative : float
        Single tracks recorded by a trigger that keeps one event in `downscaling`.
    window : float
        Half-width of the coincidence: |t₁ − t₂| < window [s].
    live_time : float
        Time with beam [s].
    downscaling : float

    Notes
    -----
    N = (D N₊)(D N₋) 2w/T for tracks that come at random in time.
    """
    for name, value in (("window", window), ("live_time", live_time)):
        if not (np.isfinite(value) and value > 0):
            msg = f"random pairs: {name} = {value!r} must be positive"
            raise PhysicsError(msg)
    if not downscaling >= 1:
        msg = f"random pairs: downscaling = {downscaling!r} must be at least one"
        raise PhysicsError(msg)
    return float(downscaling**2 * n_positive * n_negative * 2 * window / live_time)


def random_pairs(
    charge: npt.NDArray[np.int8],
    *,
    window: float,
    live_time: float,
    downscaling: float,
    n_max: int,
    rng: np.random.Generator,
) -> RandomPairs:
    """Pair single tracks of opposite charge at random.

    Parameters
    ----------
    charge : NDArray of int, shape (n,)
        +1 or −1 of each single-track event.
    window, live_time, downscaling
        As in `accidental_rate`; the tracks themselves need not be close in time, the weight says how often
        they would be.
    n_max : int
        Pairs to make at most; all of them if there are not more.
    rng : numpy.random.Generator

    Notes
    -----
    Every pair stands for D² 2w/T events: the time window and the downscaling of NA62, arXiv:2312.12055,
    section IV. If only `n_max` of the pairs are made, their weight grows accordingly.
    """
    positive, negative = np.flatnonzero(charge > 0), np.flatnonzero(charge < 0)
    total = len(positive) * len(negative)
    expected = accidental_rate(
        len(positive), len(negative), window=window, live_time=live_time, downscaling=downscaling
    )
    if total == 0:
        empty = np.zeros(0, dtype=np.int64)
        return RandomPairs(empty, empty, np.zeros(0))
    n = min(total, n_max)
    code = np.arange(total) if n == total else rng.integers(total, size=n)
    return RandomPairs(
        positive[code // len(negative)], negative[code % len(negative)], np.full(n, expected / n)
    )
