"""Expected background after independent conditions, out of control samples: rejection factors.

NA62, arXiv:2312.12055, section IV: rejection factors with uniform prior and binomial likelihood.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy.stats import norm

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, IntArray, Rng

Shape: TypeAlias = Literal["gamma", "gaussian", "lognormal"]


_SIGMA = norm.cdf([-1.0, 0.0, 1.0])  # 15.9, 50, 84.1 %


@dataclass(frozen=True, slots=True)
class PassFraction:
    """Events that survive one condition, out of a control sample.

    `passed`, `total`: survivors and events before the condition.

    With a uniform prior the posterior of the pass fraction is Beta(passed + 1, total − passed + 1).
    """

    name: str
    passed: int
    total: int

    def __post_init__(self) -> None:
        if not 0 <= self.passed <= self.total or self.total < 1:
            raise PhysicsError(f"{self.name}: {self.passed} of {self.total} pass; give 0 <= passed <= total")

    def draw(self, n: int, rng: Rng) -> FloatArray:
        """Return `n` draws from the posterior of the pass fraction."""
        return rng.beta(self.passed + 1, self.total - self.passed + 1, n)


@dataclass(frozen=True, slots=True, eq=False)
class Expectation:
    """Posterior of an expected number of background events.

    `draws` (shape (n,)): expected events of each pseudo-experiment.
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

    def counts(self, rng: Rng) -> IntArray:
        """Return one Poisson count per pseudo-experiment: the posterior predictive distribution."""
        return np.asarray(rng.poisson(self.draws), dtype=np.int64)

    def kappa(self) -> float:
        """Return κ of a log-normal with the same median and 68 % width in the logarithm."""
        low, high = self.interval
        return float(np.sqrt(high / low))

    def scaled(self, factor: float) -> Expectation:
        """Return the expectation times a positive factor."""
        return Expectation(self.draws * factor)


def _normalisation(mean: float, sigma: float, shape: Shape, n: int, rng: Rng) -> FloatArray:
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
    rng: Rng,
) -> Expectation:
    """Return the expected background after independent conditions, by pseudo-experiments.

    `events`: expected events before the conditions, e.g. vertices in the fiducial volume; `fractions`
    (sequence of PassFraction): one per condition, sampled independently; `relative_sigma`: systematic
    uncertainty of `events`; `shape` ({"gamma", "gaussian", "lognormal"}): of that uncertainty: gamma with
    this relative deviation, a Gaussian restricted to positive values, or a log-normal of κ = 1 +
    `relative_sigma`; `n`: pseudo-experiments.

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
        given = f"events = {events!r}, sigma = {relative_sigma!r}, n = {n!r}"
        raise PhysicsError(f"expectation: {given} out of range")
    if shape not in {"gamma", "gaussian", "lognormal"}:
        raise PhysicsError(f"expectation: shape = {shape!r} must be 'gamma', 'gaussian' or 'lognormal'")
    draws = _normalisation(events, relative_sigma, shape, n, rng)
    for fraction in fractions:
        draws = draws * fraction.draw(n, rng)
    return Expectation(draws)
