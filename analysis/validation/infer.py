"""Exact counting limits, CLs of the NA62 reading, asymptotic limits, and a contour known in closed form."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.optimize import brentq
from scipy.special import lambertw
from scipy.stats import norm, poisson
from validation.infer_atlas import atlas_rows
from validation.infer_binned import binned_rows
from validation.infer_few_pairs import few_pairs_rows
from validation.infer_hs3 import hs3_rows
from validation.infer_intervals import interval_rows
from validation.infer_joint import joint_rows
from validation.infer_joint_main import main_job_rows
from validation.infer_joint_map import map_rows
from validation.infer_nuisances import nuisance_rows
from validation.infer_peers import peer_rows
from validation.infer_published import published_rows
from validation.infer_toys import toy_rows
from validation.refined_reach import refined_reach

from gammastar.core.constants import M_MU, mass, width
from gammastar.infer import counting_limit, discovery_yield, expected_limits, reach, upper_limit
from gammastar.infer.counting import counting_cls

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
        ("plug-in, σ = ln 1.2", POT, "exact", 2.4857),
        ("plug-in, σ = 0.20", 0.20, "exact", 2.5247),
        ("marginalised, σ = ln 1.2", POT, "marginalised", 2.3527),
        ("marginalised, σ = 0.20", 0.20, "marginalised", 2.3630),
    ):
        ours = counting_limit(
            0, 0.0094, signal_sigma=sigma, background_sigma=float(np.log(4)), method=nuisance
        )
        source = "average over log-normal POT" if nuisance == "marginalised" else NA62
        yield _row(f"NA62 ee limit, {label}", ours, value, 6e-5, source)
    for signal, value in ((2.0, 0.1528), (float(np.log(10)), 0.1172), (2.4857, 0.1000), (3.0, 0.0646)):
        ours = counting_cls(signal, 0, 0.0094, signal_sigma=POT, method="exact")
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
    yield from nuisance_rows(quick)
    yield from hs3_rows(quick)
    yield from peer_rows(quick)
    yield from binned_rows(quick)
    yield from atlas_rows(quick)
    yield from published_rows(quick)
    yield from interval_rows(quick)
    yield from joint_rows(quick)
    yield from map_rows(quick)
    yield from main_job_rows(quick)
    yield from few_pairs_rows(quick)


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
    yield from _refined(limit)


RESONANCES = tuple((mass(pdg), width(pdg), height) for pdg, height in ((113, 6.0), (223, 40.0), (333, 300.0)))
ETA, DIMUON = mass(221), 2 * M_MU


def _shape(m):
    """Return a spectrum with ρ, ω, φ, the end of η → µµγ at m_η and the threshold of dimuons."""
    peaks = sum(height / (1 + ((m - pole) / (gamma / 2)) ** 2) for pole, gamma, height in RESONANCES)
    x = DIMUON**2 / m**2
    return np.sqrt(1 - x) * (1 + x / 2) * (1 + peaks + 2 * (m < ETA))


def _refined(limit: float) -> Iterator[dict]:
    """Refine the masses of contours with an island that ends in the ω, and one more in the φ."""
    special = (*((m, w) for m, w, _ in RESONANCES[1:]), ETA)
    for name, scale in (("up to omega", 4e27), ("up to phi", 4e28)):

        def signal(m, g, scale=scale):
            return scale * _shape(m) * np.exp(-m / 0.12) * g**4 * np.exp(-(g**2) * m**2 / 1e-13)

        found = refined_reach(
            signal, limit, mass_range=(0.215, 1.1), coupling_range=(1e-8, 1e-5), special=special, n_mass=10
        )
        fine = np.geomspace(0.215, 1.1, 20_000)
        argument = -np.sqrt(limit / scale / _shape(fine) * np.exp(fine / 0.12)) * fine**2 / 2e-13
        alive = argument > -np.exp(-1.0)
        reached = np.isfinite(found.reach.edges[:, 0])
        every = np.unique(found.reach.mass)
        drawn_here = np.isin(every, found.reach.mass[reached])
        gap = np.clip(np.searchsorted(every, fine) - 1, 0, len(every) - 2)
        covered = drawn_here[gap] & drawn_here[gap + 1] & alive
        worst = 0.0
        for side in (0, 1):
            roots = lambertw(np.where(alive, argument, -0.1), -side).real
            exact = np.log10(np.sqrt(-2e-13 * roots / fine**2))
            mass, edges = np.log(found.reach.mass[reached]), np.log10(found.reach.edges[reached, side])
            worst = max(worst, np.abs(np.interp(np.log(fine), mass, edges) - exact)[covered].max())
        ends = np.diff(alive.astype(int))
        missed = np.sum(alive & ~covered) * np.log(fine[1] / fine[0]) / max(np.abs(ends).sum(), 1)
        label = f"contour {name}, with the thresholds of eta and dimuons, masses refined"
        yield _row(f"{label}: largest error along it [decades]", worst, 0.0, 0.01, "Lambert W")
        yield _row(f"{label}: not covered per tip, in ln m", missed, 0.0, 1e-3, "Lambert W")
        tip = np.nan if found.reach.tip is None else found.reach.tip[0]
        last = float(fine[np.flatnonzero(ends < 0).max()])
        yield _row(f"{label}: last tip [GeV]", tip, last, 5e-4 * last, "Lambert W")
        yield _row(f"{label}: yields evaluated (below 1000)", found.evaluations, 500, 499, "budget")


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(np.asarray(ours)),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }
