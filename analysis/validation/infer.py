"""Exact counting limits, CLs of the NA62 reading, asymptotic limits, and a contour known in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw
from scipy.stats import norm, poisson
from validation.infer_peers import peer_rows
from validation.infer_toys import toy_rows

from gammastar.infer import (
    counting_cls,
    counting_limit,
    discovery_yield,
    expected_limits,
    reach,
    refined_reach,
    upper_limit,
)

CLASSIC = "exact CLs, one bin, 90 % CL"
NA62 = "arXiv:2312.12055 App. B, closed form"
POT = float(np.log(1.2))
TABLE = (  # count, background, exact, asymptotic
    (0, 0.01, 2.303, 1.372),
    (0, 0.5, 2.303, 1.637),
    (0, 3.0, 2.303, 1.953),
    (1, 0.5, 3.508, 2.825),
    (3, 3.0, 4.362, 3.814),
    (10, 10.0, 6.630, 6.140),
)


def rows(*, quick: bool) -> Iterator[dict]:
    for count, background, exact, asymptotic in TABLE:
        label = f"n = {count}, b = {background:g}"
        yield _row(f"limit, {label}", counting_limit(count, background), exact, 6e-4, CLASSIC)
        if not quick:
            ours = upper_limit(background, 0.0, count, method="asymptotic").observed
            yield _row(f"asymptotic limit, {label}", ours, asymptotic, 1e-3, "pyhf 0.7.6, too strong")
    for label, sigma, nuisance, value in (
        ("no nuisance", POT, "none", 2.3026),
        ("plug-in, σ = ln 1.2", POT, "plug-in", 2.4857),
        ("plug-in, σ = 0.20", 0.20, "plug-in", 2.5247),
        ("marginalised, σ = ln 1.2", POT, "marginalised", 2.3527),
        ("marginalised, σ = 0.20", 0.20, "marginalised", 2.3630),
    ):
        ours = counting_limit(
            0, 0.0094, signal_sigma=sigma, background_sigma=float(np.log(4)), nuisance=nuisance
        )
        source = "average over log-normal POT" if nuisance == "marginalised" else NA62
        yield _row(f"NA62 ee limit, {label}", ours, value, 6e-5, source)
    for signal, value in ((2.0, 0.1528), (float(np.log(10)), 0.1172), (2.4857, 0.1000), (3.0, 0.0646)):
        ours = counting_cls(signal, 0, 0.0094, signal_sigma=POT)
        yield _row(f"NA62 CLs at S = {signal:.4g}", ours, value, 6e-5, NA62)
    yield _row(
        "expected −2σ … +2σ ratio, no background",
        np.divide(*expected_limits(1e-9, signal_sigma=POT, randomise_pot=True)[[4, 0]]),
        1.2**4,
        1e-3,
        "log-normal POT",
    )
    yield from _excluded(60_000 if quick else 400_000)
    yield from _contour()
    yield from _discovered()
    yield from toy_rows(quick)
    yield from peer_rows(quick)


def _discovered() -> Iterator[dict]:
    """Median discoveries against Poisson sums written anew."""
    for background, significance in ((0.01, 5.0), (0.5, 5.0), (10.0, 5.0), (0.5, 3.0)):
        needed = 0
        while poisson.sf(needed - 1, background) > norm.sf(significance):
            needed += 1
        median = brentq(lambda s, n=needed, b=background: poisson.cdf(n - 1, s + b) - 0.5, 0, 100)
        label = f"signal discovered at {significance:g} σ, b = {background:g}"
        ours = discovery_yield(background, significance=significance)
        yield _row(label, ours, median, 1e-4, "Poisson sums")


def _excluded(n: int) -> Iterator[dict]:
    """Fraction of pseudo-experiments that exclude a true signal, against its exact sum."""
    rng = np.random.default_rng(11)
    limits = counting_limit(np.arange(200), 3.0)
    excluded = np.mean(limits[rng.poisson(25.0 + 3.0, n)] < 25.0)
    highest = int(np.flatnonzero(limits < 25.0).max())
    exact = float(np.exp(-28.0) * np.sum(np.cumprod(np.r_[1.0, 28.0 / np.arange(1, highest + 1)])))
    error = float(np.sqrt(exact * (1 - exact) / n))
    yield _row("excluded at s = 25, b = 3", excluded, exact, 4 * error, "Poisson sum, at most 0.10")


def _contour() -> Iterator[dict]:
    """N = A e^{−m/0.12} u² e^{−u m²/10⁻¹³} with u = ε²: edges by the Lambert function."""
    norm, limit = 2e28, 2.4857

    def signal(m, g):
        return norm * np.exp(-m / 0.12) * g**4 * np.exp(-(g**2) * m**2 / 1e-13)

    tip = brentq(lambda m: 4 * norm * np.exp(-m / 0.12 - 2) * (1e-13 / m**2) ** 2 - limit, 0.2, 3.0)
    mass, coupling = np.linspace(0.21, tip - 0.02, 25), np.geomspace(1e-8, 1e-5, 30)
    found = reach(mass, coupling, signal(mass[:, None], coupling), limit)
    argument = -np.sqrt(limit / norm * np.exp(mass / 0.12)) * mass**2 / 2e-13
    roots = np.array([lambertw(argument, 0).real, lambertw(argument, -1).real]).T
    exact = np.sqrt(-2e-13 * roots / mass[:, None] ** 2)
    error = np.abs(np.log10(found.edges / exact)).max()
    yield _row("contour, largest error of both edges [decades], 750 yields", error, 0.0, 0.01, "Lambert W")
    wide = np.linspace(0.21, 1.6, 40)
    ours = reach(wide, coupling, signal(wide[:, None], coupling), limit).tip
    yield _row("tip of the contour [GeV]", np.nan if ours is None else ours[0], tip, 1e-3, "closed form")
    yield from _refined(norm, limit)


def _refined(norm: float, limit: float) -> Iterator[dict]:
    """Refine masses of the same yield with a resonance of 6 MeV at 400 MeV."""

    def peak(m):
        return 1 + 30 / (1 + ((m - 0.4) / 0.006) ** 2)

    def signal(m, g):
        return norm * peak(m) * np.exp(-m / 0.12) * g**4 * np.exp(-(g**2) * m**2 / 1e-13)

    found = refined_reach(signal, limit, mass_range=(0.21, 1.0), coupling_range=(1e-8, 1e-5), special=(0.4,))
    reached = np.isfinite(found.reach.edges).all(axis=1)
    fine = np.geomspace(0.21, 0.64, 4000)
    argument = -np.sqrt(limit / norm / peak(fine) * np.exp(fine / 0.12)) * fine**2 / 2e-13
    worst = 0.0
    for side in (0, 1):
        exact = np.sqrt(-2e-13 * lambertw(argument, -side).real / fine**2)
        drawn = np.interp(
            np.log(fine), np.log(found.reach.mass[reached]), np.log10(found.reach.edges[reached, side])
        )
        worst = max(worst, np.abs(drawn - np.log10(exact)).max())
    label = "contour over a resonance, masses refined: largest error along it [decades]"
    yield _row(label, worst, 0.0, 0.01, "Lambert W")
    yield _row("yields evaluated for it (at most 800)", found.evaluations, 400, 400, "budget")


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(np.asarray(ours)),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }
