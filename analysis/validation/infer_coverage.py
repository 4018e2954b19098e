"""Coverage: toys against the definition of a level and sums over counts; what is reachable at all."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.stats import norm, poisson
from validation.infer_toys import POT, pair, row
from validation.toy_coverage import Coverage, coverage

from gammastar.infer import Convention, counting_channel
from gammastar.infer.toys import TIE, draw, statistics, toy_model

LEVEL = 0.10
BAR = 0.01  # of what must not exclude more than the level
MOVED = ("pot", "b_ee", "b_mumu")
SIGNALS = (1.6, 3.2, 6.4, 9.6)
STATISTICS = ("ratio", "qtilde")
TOYS = {
    "averaged": "toys averaged over nuisances",
    "randomised": "toys at the fit",
    "fixed": "toys at the fit",
}
KEPT = {"averaged": "", "randomised": ", measurements drawn", "fixed": ", measurements kept"}
DEFINITION = "definition of the level"


def rows(*, quick: bool) -> Iterator[dict]:
    known: list[Coverage] = []
    moved: list[Coverage] = []
    yield from _nominal(quick, known)
    if not quick:
        yield from _by_nominal_distributions()
        yield from _moved(moved)
        yield from _reachable()
    yield from _enumerated(quick)
    ahead = max(found.cls - found.clsb for found in known + moved)
    yield row("most that CLs excludes beyond CLs+b", max(ahead, 0.0), 0.0, 0.0, "definition of CLs")
    most = max(found.cls for found in known) - LEVEL
    yield row("most that CLs excludes beyond 0.10", max(most, 0.0), 0.0, 0.005, "definition of CLs")
    if moved:
        most = max(found.cls for found in moved) - LEVEL
        label = "the same, nuisances at ±1 σ, fitted or averaged"
        yield row(label, max(most, 0.0), 0.0, BAR, "definition of CLs")


def _table(label: str, ours: float, ideal: float, why: str) -> dict:
    """Return a row of the measured table of coverage, which is no gate: an analysis has what it has."""
    return row(label, ours, ideal, BAR, why) | {"measured": True}


def _nominal(quick: bool, cases: list[Coverage]) -> Iterator[dict]:
    """Distributions of the statistic at the true nuisances: every signal size must give the level."""
    n = 20_000 if quick else 100_000
    for signal in (2.0,) if quick else (1.0, 2.0, 4.0):
        for statistic in ("ratio",) if quick else STATISTICS:
            found = coverage(
                pair(signal),
                rng=np.random.default_rng(5),
                convention=Convention(statistic, "randomised"),
                experiments=n,
                n_toys=4 * n,
                fitted=False,
            )
            cases.append(found)
            label = f"P(CLs+b < 0.1), {statistic}, {n} experiments, S = {1.6 * signal:g}, nominal nuisances"
            yield row(label, found.clsb, LEVEL, 0.005, DEFINITION)


def _by_nominal_distributions() -> Iterator[dict]:
    """Truth one standard deviation away, distributions of the statistic at nominal nuisances.

    No analysis would do so; it is how coverage is often quoted, and asks whether the statistic is pivotal.
    """
    for statistic, signal, shift in product(STATISTICS, SIGNALS, (1.0, -1.0)):
        found = coverage(
            pair(signal / 1.6),
            rng=np.random.default_rng(5),
            convention=Convention(statistic, "randomised"),
            truth=dict.fromkeys(MOVED, shift),
            experiments=100_000,
            n_toys=200_000,
            fitted=False,
        )
        label = (
            f"P(CLs+b < 0.1), {statistic}, S = {signal:g}, nuisances at {shift:+.0f} σ, toys at nominal ones"
        )
        yield _table(label, found.clsb, LEVEL, f"the statistic is not pivotal; CLs {found.cls:.4f}")


def _moved(cases: list[Coverage]) -> Iterator[dict]:
    """Truth one standard deviation away, toys as an analysis has them."""
    for auxiliary, statistic, signal, shift in product(TOYS, STATISTICS, SIGNALS, (1.0, -1.0)):
        found = coverage(
            pair(signal / 1.6),
            rng=np.random.default_rng(5),
            convention=Convention(statistic, auxiliary),
            truth=dict.fromkeys(MOVED, shift),
            experiments=100_000,
            n_toys=200_000 if auxiliary == "randomised" else 400_000,
        )
        cases.append(found)
        how = f"{TOYS[auxiliary]}{KEPT[auxiliary]}"
        label = f"P(CLs+b < 0.1), {statistic}, S = {signal:g}, nuisances at {shift:+.0f} σ, {how}"
        yield _table(label, found.clsb, LEVEL, f"counts are discrete; CLs {found.cls:.4f}")


def _reachable() -> Iterator[dict]:
    """Return how near to the level any threshold on the statistic comes, whatever defines it.

    One threshold for all measurements of the nuisances, chosen best for true values at −1, 0 and +1 σ; and
    thresholds for given measurements, where data sets without a signal-like event are one atom.
    """
    for statistic, signal in product(STATISTICS, SIGNALS):
        model, rng = toy_model(pair(signal / 1.6)), np.random.default_rng(3)
        moved = np.array([name in MOVED for name in model.nuisances], dtype=np.float64)

        def values(shift, randomise, n=100_000, model=model, moved=moved, rng=rng, statistic=statistic):
            toys = draw(model, shift * moved, 1.0, n, rng, randomise=randomise)
            return np.sort(statistics(model, toys, 1.0, statistic))

        drawn = [values(shift, randomise=True) for shift in (0.0, 1.0, -1.0)]
        cuts = np.quantile(np.concatenate(drawn), np.linspace(0.3, 1.0, 4001))
        beyond = np.array([1.0 - np.searchsorted(q, cuts) / len(q) for q in drawn])
        best = np.abs(beyond - LEVEL).max(axis=0).min()
        label = (
            f"smallest max |P(q ≥ c) − 0.1| at −1, 0, +1 σ for any threshold c, {statistic}, S = {signal:g}"
        )
        yield _table(label, best, 0.0, "what no threshold can beat")
        if signal == SIGNALS[0]:
            kept = values(0.0, randomise=False)
            sizes = np.append(1.0 - np.searchsorted(kept, np.unique(kept) - TIE) / len(kept), 0.0)
            best = np.abs(sizes - LEVEL).min()
            label = f"the same for given measurements and known nuisances, {statistic}, S = {signal:g}"
            yield _table(label, best, 0.0, f"no signal-like event: {sizes[sizes > 0].min():.3f}")


def _enumerated(quick: bool) -> Iterator[dict]:
    """One bin, where counts are discrete: the engine against sums over counts and integrals over POT."""
    n = 20_000 if quick else 100_000
    for auxiliary, signal in product(("randomised", "averaged", "fixed"), (1.6, 4.0, 8.0)):
        channel = counting_channel(
            "c", signal=signal, background=0.1, observed="masked", signal_sigma={"pot": POT}
        )
        found = coverage(
            [channel],
            rng=np.random.default_rng(6),
            convention=Convention("ratio", auxiliary),
            experiments=n,
            n_toys=4 * n,
        )
        exact = enumerated(signal, 0.1, POT) if auxiliary == "randomised" else kept(signal, auxiliary)
        label = f"P(CLs+b < 0.1), one bin, S = {signal:g}, b = 0.1, {TOYS[auxiliary]}{KEPT[auxiliary]}"
        yield row(label, found.clsb, exact, 4 * found.error + 0.002, "sum over counts, integral over POT")
    for signal, shift in product(SIGNALS, (1.0, -1.0)):
        label = f"P(CLs+b < 0.1), one bin, S = {signal:g}, POT at {shift:+.0f} σ, averaged, ties by lot"
        yield row(label, kept(signal, "averaged", shift, by_lot=True), LEVEL, BAR, "sum over counts")


def kept(s: float, auxiliary: str, shift: float = 0.0, b: float = 0.1, *, by_lot: bool = False) -> float:
    """Return P(p < level) of one bin where toys keep the measurement of POT, without toys.

    Given the measurement a the statistic falls with the count, so that p = P(≤ n). `by_lot`: outcomes that
    straddle the level are excluded with the probability that makes up for the steps of the counts.
    """
    a = np.linspace(-7.5, 7.5, 6001)
    n = np.arange(int(poisson.ppf(1 - 1e-9, s * np.exp(6 * POT) + b)) + 1.0)[:, None]
    if auxiliary == "averaged":
        theta, weight = np.polynomial.hermite_e.hermegauss(61)
        rates = [
            (w, s * np.exp(POT * (a + t)) + b) for t, w in zip(theta, weight / weight.sum(), strict=True)
        ]
        p = sum(w * poisson.cdf(n, rate) for w, rate in rates)
        step = sum(w * poisson.pmf(n, rate) for w, rate in rates)
    else:
        rate = s * np.exp(POT * fitted(n, a, s, b, POT)) + b
        p, step = poisson.cdf(n, rate), poisson.pmf(n, rate)
    lot = np.clip((LEVEL - p + step) / step, 0.0, 1.0) if by_lot else p < LEVEL
    true = poisson.pmf(n, s * np.exp(POT * shift) + b) * norm.pdf(a - shift) * (a[1] - a[0])
    return float((true * lot).sum())


def fitted(n: np.ndarray, a: np.ndarray, s: float, b: float, sigma: float) -> np.ndarray:
    """Return θ̂ with the signal for counts n and measurements a, by bisection."""
    low, high = a - 30.0 * sigma * s, a + 3.0 * sigma * (n + 3.0)
    for _ in range(60):
        middle = 0.5 * (low + high)
        rate = s * np.exp(sigma * middle)
        rising = sigma * rate * (1.0 - n / (rate + b)) + middle - a > 0
        low, high = np.where(rising, low, middle), np.where(rising, middle, high)
    return middle


def enumerated(s: float, b: float, sigma: float, level: float = LEVEL) -> float:
    """Return P(p < level) of the ratio of profiled likelihoods in one bin, without toys.

    The measurement a of ln(POT)/σ is unit normal around its true value 0. Of each outcome (n, a), θ̂ is
    fitted with the signal; p is the probability of a statistic at least as large at θ̂.
    """
    counts = np.arange(0, int(poisson.ppf(1 - 1e-9, s * np.exp(4 * sigma) + b)) + 1)
    wide, few = np.linspace(-7.5, 7.5, 3001), np.linspace(-5.5, 5.5, 301)

    def statistic(n, a):
        theta = fitted(n, a, s, b, sigma)
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
