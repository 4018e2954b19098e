"""Coverage: toys against the definition of a level, and against an enumeration where counts are discrete."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.stats import norm, poisson
from validation.infer_toys import POT, pair, row

from gammastar.infer import Convention, counting_channel, coverage

LEVEL = 0.10
MOVED = ("pot", "b_ee", "b_mumu")


def coverage_rows(quick: bool) -> Iterator[dict]:
    cases = []
    yield from _nominal(quick, cases)
    yield from _moved(quick, cases)
    yield from _enumerated(quick)
    ahead = max(found.cls - found.clsb for found in cases)
    yield row("most that CLs excludes beyond CLs+b", max(ahead, 0.0), 0.0, 0.0, "definition of CLs")
    most = max(found.cls for found in cases) - LEVEL
    yield row("most that CLs excludes beyond 0.10", max(most, 0.0), 0.0, 0.005, "definition of CLs")


def _nominal(quick: bool, cases: list) -> Iterator[dict]:
    """Distributions of the statistic at the true nuisances: every signal size must give the level."""
    n = 20_000 if quick else 100_000
    for signal in (2.0,) if quick else (1.0, 2.0, 4.0):
        for statistic in ("ratio",) if quick else ("ratio", "qtilde"):
            found = coverage(
                pair(signal),
                rng=np.random.default_rng(5),
                convention=Convention(statistic, "randomised"),
                experiments=n,
                n_toys=4 * n,
                plug_in=False,
            )
            cases.append(found)
            label = f"P(CLs+b < 0.1), {statistic}, {n} experiments, S = {1.6 * signal:g}, nominal nuisances"
            yield row(label, found.clsb, LEVEL, 0.005, "definition of the level")


def _moved(quick: bool, cases: list) -> Iterator[dict]:
    """Truth one standard deviation away, toys at the nuisances fitted to each experiment."""
    if quick:
        return
    for signal, statistic in ((2.0, "ratio"), (2.0, "qtilde"), (4.0, "qtilde")):
        for shift in (1.0, -1.0):
            found = coverage(
                pair(signal),
                rng=np.random.default_rng(5),
                convention=Convention(statistic, "randomised"),
                truth=dict.fromkeys(MOVED, shift),
                experiments=100_000,
                n_toys=10_000,
            )
            cases.append(found)
            label = f"P(CLs+b < 0.1), {statistic}, S = {1.6 * signal:g}, nuisances at {shift:+.0f} σ, fitted"
            yield row(label, found.clsb, LEVEL, 0.01, "definition of the level")


def _enumerated(quick: bool) -> Iterator[dict]:
    """One bin: what toys at fitted nuisances cover where counts are discrete, against sums and integrals."""
    for signal, statistic in ((1.6, "ratio"), (4.0, "ratio"), (8.0, "ratio")):
        channel = counting_channel(
            "c", signal=signal, background=0.1, observed="masked", signal_sigma={"pot": POT}
        )
        found = coverage(
            [channel],
            rng=np.random.default_rng(6),
            convention=Convention(statistic, "randomised"),
            experiments=20_000 if quick else 100_000,
            n_toys=20_000 if quick else 100_000,
        )
        exact = enumerated(signal, 0.1, POT)
        label = f"P(CLs+b < 0.1), one bin, S = {signal:g}, b = 0.1, POT fitted and randomised"
        yield row(label, found.clsb, exact, 4 * found.error + 0.002, "sum over counts, integral over POT")


def enumerated(s: float, b: float, sigma: float, level: float = LEVEL) -> float:
    """Return P(p < level) of the ratio of profiled likelihoods in one bin, without toys.

    The measurement a of ln(POT)/σ is unit normal around its true value 0. Of each outcome (n, a), θ̂ is
    fitted with the signal; p is the probability of a statistic at least as large at θ̂.
    """
    counts = np.arange(0, int(poisson.ppf(1 - 1e-9, s * np.exp(4 * sigma) + b)) + 1)
    wide, few = np.linspace(-7.5, 7.5, 3001), np.linspace(-5.5, 5.5, 301)

    def fitted(n, a):
        low, high = a - 30.0 * sigma * s, a + 3.0 * sigma * (n + 3.0)
        for _ in range(60):
            middle = 0.5 * (low + high)
            rate = s * np.exp(sigma * middle)
            rising = sigma * rate * (1.0 - n / (rate + b)) + middle - a > 0
            low, high = np.where(rising, low, middle), np.where(rising, middle, high)
        return middle

    def statistic(n, a):
        theta = fitted(n, a)
        rate = s * np.exp(sigma * theta) + b
        return theta, 2.0 * (rate - n * np.log(rate) + 0.5 * (theta - a) ** 2 - b + n * np.log(b))

    _, table = statistic(counts[:, None].astype(float), wide)  # of every outcome of a toy
    excluded = 0.0
    for n in counts.astype(float):
        theta, observed = statistic(np.full(few.shape, n), few)
        p = np.zeros(len(few))
        for i, (t, q) in enumerate(zip(theta, observed, strict=True)):
            weight = norm.pdf(wide - t) * (wide[1] - wide[0])
            beyond = (table >= q - 1e-7) @ weight
            p[i] = poisson.pmf(counts, s * np.exp(sigma * t) + b) @ beyond
        fine = np.linspace(-5.5, 5.5, 20_001)
        below = np.interp(fine, few, p) < level
        excluded += poisson.pmf(n, s + b) * np.sum(norm.pdf(fine)[below]) * (fine[1] - fine[0])
    return float(excluded)
