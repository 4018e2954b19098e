"""What an uncertain signal does to a limit: averages over nuisances, coverage against κ, few toys."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy.special import gammaincc
from scipy.stats import norm, poisson
from validation.infer_coverage import TOYS, kept
from validation.infer_toys import POT, row
from validation.toy_coverage import Coverage, coverage

from gammastar.core.errors import PhysicsError
from gammastar.infer import Channel, Convention, counting_channel, counting_limit
from gammastar.infer.counting import counting_cls

LEVEL = 0.10
KAPPAS = (1.1, 1.2, 1.25, 1.4, 1.63, 2.0, 3.0)
SIGNALS = np.geomspace(0.5, 60.0, 25)
MOST_TOYS = 2_000_000
NAMES = {"exact": "at the fit", "marginalised": "averaged"}


def nuisance_rows(quick: bool) -> Iterator[dict]:
    yield from _averages(quick)
    yield from _against_kappa()
    yield from _few_toys(quick)
    if not quick:
        yield from _worst()


def _averages(quick: bool) -> Iterator[dict]:
    """CLs averaged over nuisances against the trapezoidal rule with a step far below every width."""
    rng, theta = np.random.default_rng(3), np.linspace(-8.5, 8.5, 1501)
    weight = np.exp(-0.5 * theta**2) / np.exp(-0.5 * theta**2).sum()
    cases = [(300.0, 300, 100.0, 0.2, np.log(3.0)), (20.0, 40, 30.0, 0.05, 1.4)]
    for most in (5, 60, 300, 1000):
        n = rng.integers(0, most, 2 if quick else 10)
        s, b = rng.uniform(0.1, 1.5, len(n)) * (n + 2), rng.uniform(0.05, 1.5, len(n)) * (n + 1)
        cases += list(zip(s, n, b, *rng.uniform(0.05, 1.2, (2, len(n))), strict=True))
    worst = 0.0
    for s, n, b, s_sigma, b_sigma in cases:
        signal, background = s * np.exp(s_sigma * theta), b * np.exp(b_sigma * theta)
        above = weight @ (gammaincc(n + 1.0, signal[:, None] + background) @ weight)
        wanted = above / (gammaincc(n + 1.0, background) @ weight)
        options = {"signal_sigma": s_sigma, "background_sigma": b_sigma, "method": "marginalised"}
        worst = max(worst, abs(float(counting_cls(s, n, b, **options)) / wanted - 1.0))
    label = f"averaged CLs, {len(cases)} searches of 0 to 1000 events, κ up to 4: largest relative error"
    yield row(label, worst, 0.0, 5e-6, "trapezoidal rule, 1501 nodes per nuisance")


def excluded(
    signal: np.ndarray,
    background: float,
    kappa: float,
    method: str,
    measured: tuple[float, float] = (1.0, 0.0),
) -> np.ndarray:
    """Return how often a true signal is excluded if its measured factor varies by κ: sums over counts.

    A measurement high by a standard deviations raises the nominal yield by κ^a, and the truth is excluded if
    that lies beyond the limit of the count. `measured` is κ of the background and where its measurement lies.
    """
    n = np.arange(int(poisson.ppf(1.0 - 1e-10, signal.max() + background)) + 1)
    sigmas = {"signal_sigma": np.log(kappa), "background_sigma": np.log(measured[0])}
    limits = counting_limit(n, background * measured[0] ** measured[1], **sigmas, method=method)
    seen = poisson.pmf(n[:, None], signal + background)
    return (seen * norm.cdf(np.log(signal / limits[:, None]) / np.log(kappa))).sum(axis=0)


def _against_kappa() -> Iterator[dict]:
    for background in (0.01, 3.0):
        for kappa in KAPPAS:
            for method, name in NAMES.items():
                most = excluded(SIGNALS, background, kappa, method).max()
                why = f"sums over counts; {'' if method == 'marginalised' else 'not '}the default"
                label = f"largest fraction that excludes the truth, b = {background:g}, κ = {kappa:g}, {name}"
                yield row(label, most, LEVEL, 0.01, why) | {"measured": True}
        most = max(excluded(SIGNALS, background, k, "marginalised").max() for k in KAPPAS)
        label = f"the most that averaged limits exclude beyond 0.10, any κ, b = {background:g}"
        yield row(label, max(most - LEVEL, 0.0), 0.0, 0.005, "sums over counts")


def _worst() -> Iterator[dict]:
    """Return the largest fraction that excludes the truth where both measurements vary, in a map."""
    node, weight = np.polynomial.hermite_e.hermegauss(15)
    for method, background, kappa_b in (
        *(("marginalised", b, k) for b in (0.01, 0.3, 3.0, 30.0) for k in (1.2, 1.5, 2.0)),
        *(("mid-p", b, k) for b in (0.01, 0.3, 3.0) for k in (1.5,)),
    ):
        for kappa in (1.2, 2.0):
            parts = [excluded(SIGNALS, background, kappa, method, (kappa_b, g)) for g in node.tolist()]
            most = float((weight / weight.sum() @ np.array(parts)).max())
            label = f"excluded at most, {method}, b = {background:g}, κ = {kappa:g}, κ_b = {kappa_b:g}"
            yield row(label, most, LEVEL, 0.01, "sums over counts and both measurements") | {"measured": True}


def _few_toys(quick: bool) -> Iterator[dict]:
    """Return the coverage of toys that keep measurements, with few of them, where few experiments exclude."""
    for auxiliary, signal, shift in (("averaged", 1.6, 1.0), ("averaged", 4.0, -1.0), ("fixed", 4.0, 1.0)):
        channel = counting_channel(
            "c", signal=signal, background=0.1, observed="masked", signal_sigma={"pot": POT}
        )
        label = (
            f"P(CLs+b < 0.1), one bin, S = {signal:g}, POT at {shift:+.0f} σ, {TOYS[auxiliary]}, few of them"
        )
        exact = kept(signal, auxiliary, shift)
        if quick:
            yield row(label, np.nan, exact, np.nan, "sum over counts") | {"skipped": "quick"}
            continue
        found = _fewest(channel, Convention("ratio", auxiliary), shift)
        source = f"sum over counts; error of {found.toys} toys included, fewer are refused or not tried"
        yield row(label, found.clsb, exact, 3.0 * found.error, source)


def _fewest(channel: Channel, convention: Convention, shift: float) -> Coverage:
    """Return the coverage with the fewest toys, 20 000 times a power of four, that are not refused."""
    n_toys = 20_000
    while True:
        rng = np.random.default_rng(5)
        options = {"rng": rng, "convention": convention, "truth": {"pot": shift}, "experiments": 50_000}
        try:
            return coverage([channel], n_toys=n_toys, **options)
        except PhysicsError:
            n_toys *= 4
            if n_toys > MOST_TOYS:
                raise
