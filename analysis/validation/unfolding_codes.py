"""Unfolding against TUnfold and PyUnfold, coverage of toys, OmniFold's benchmark (part of unfold)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
from hist import axis
from scipy.stats import norm
from validation._rows import row

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Response, Spectrum, filled, regular
from gammastar.core.sampling import stream

TUNFOLD = (  # penalty, tau, chi2, mean global correlation as printed
    ("size", 0.0, 46.219, 0.3636),
    ("size", 1e-3, 46.527, 0.2735),
    ("size", 3e-3, 49.246, 0.2449),
    ("size", 1e-2, 267.432, 0.2023),
    ("curvature", 1e-3, 46.515, 0.2507),
    ("curvature", 3e-3, 47.309, 0.2327),
    ("curvature", 1e-2, 55.259, 0.5757),
)


def tunfold(counts: np.ndarray, true: np.ndarray, y: np.ndarray) -> Iterator[dict]:
    """RooUnfold's example in 20 true bins; V = diag(max(1, y)), no area constraint."""
    pairs = true.reshape(20, 2).sum(axis=1)
    migration = counts.reshape(40, 20, 2).sum(axis=2) / pairs
    reco, truth = ((axis.Regular(n, -10, 10, name="x"),) for n in (40, 20))
    response = Response(
        migration, migration.sum(axis=0), np.zeros(40), reco, truth, pairs, np.zeros((0, 40, 20))
    )
    variance = np.maximum(y, 1.0)
    for penalty, tau, chi2, rho in TUNFOLD:
        found = unfold.regularised.fit(y, np.diag(variance), response, tau=tau, penalty=penalty)
        label = f"Tikhonov, {penalty}, τ = {tau:g}"
        yield row(f"{label}: χ²", found.chi2, chi2, 5.1e-4, "TUnfold V17, as printed")
        yield row(f"{label}: ⟨ρ⟩", found.mean_correlation, rho, 5.1e-5, "TUnfold V17, as printed")
    measured = Spectrum(filled(reco, y, variance), np.diag(variance), "counts", None, np.ones(40, bool))
    for penalty, tau in (("size", 1.78e-3), ("curvature", 7.8e-3)):
        best = unfold.l_curve(measured, response, penalty=penalty, taus=np.geomspace(1e-4, 0.1, 60)).best
        label = f"corner of the L-curve, {penalty}: log₂ of τ over TUnfold's"
        yield row(label, np.log2(best / tau), 0, 1, "depends on the scan: a factor of two")


def pyunfold() -> Iterator[dict]:
    labels = ("largest relative difference of 24 values", "median ratio of 24 errors")
    try:
        from pyunfold import iterative_unfold
    except ImportError:
        for label in labels:
            yield row(f"PyUnfold, 4 iterations: {label}", np.nan, 0, 0, "") | {"skipped": "not installed"}
        return
    rng = stream(1, "pyunfold")
    x = (np.arange(24) + 0.5) / 24
    true = 4000 * np.exp(-3 * x) + 1500 * np.exp(-0.5 * ((x - 0.6) / 0.05) ** 2)
    smear = np.exp(-0.5 * ((x[:, None] - x) / 0.05) ** 2)
    migration = smear / smear.sum(axis=0) * (0.3 + 0.5 * x)
    y = rng.poisson(migration @ true).astype(float)
    axes, efficiency, prior = (axis.Regular(24, 0, 1, name="x"),), migration.sum(axis=0), np.ones(24)
    response = Response(migration, efficiency, np.zeros(24), axes, axes, prior, np.zeros((0, 24, 24)))
    measured = Spectrum(filled(axes, y, y), np.diag(y), "counts", None, np.ones(24, bool))
    ours = unfold.iterative(measured, response, n_iterations=4)
    theirs = iterative_unfold(
        data=y,
        data_err=np.sqrt(y),
        response=migration,
        response_err=np.zeros_like(migration),
        efficiencies=efficiency,
        efficiencies_err=np.zeros(24),
        prior=prior / 24,
        ts_stopping=1e-30,
        max_iter=4,
        cov_type="poisson",
    )
    worst = np.abs(ours.values / theirs["unfolded"] - 1).max()
    yield row(f"PyUnfold, 4 iterations: {labels[0]}", worst, 0, 1e-10, "PyUnfold 0.5.0 run beside")
    ratio = np.median(np.sqrt(np.diag(ours.cov)) / theirs["stat_err"])
    yield row(f"PyUnfold, 4 iterations: {labels[1]}", ratio, 1, 2e-3, "PyUnfold 0.5.0 run beside")


def dimuons(n: float, slope: float = 0.25) -> Response:
    """Exact response: continuum, a wide and a narrow peak, 30 MeV, 40 reconstructed and 20 true bins."""
    reco, true = (regular("mass", 40, 0.2, 1.2),), (regular("mass", 20, 0.2, 1.2),)
    fine = np.linspace(0.2, 1.2, 2001)
    m = (fine[1:] + fine[:-1]) / 2
    density = 0.6 * np.exp(-(m - 0.2) / slope) / slope + 0.33 * 0.06 / np.pi / ((m - 0.776) ** 2 + 0.06**2)
    density = (density + 0.07 * norm.pdf(m, 1.019, 0.004)) * n * np.diff(fine)
    chance = np.diff(norm.cdf(reco[0].edges[:, None], m, 0.03), axis=0)
    chance *= (0.15 + 0.55 * (1 - np.exp(-((m / 0.5) ** 2)))) * 0.7
    cell = np.searchsorted(true[0].edges, m, "right") - 1
    prior = np.bincount(cell, density, 20)
    migration = np.stack([np.bincount(cell, one * density, 20) for one in chance]) / prior
    return Response(migration, migration.sum(axis=0), np.zeros(40), reco, true, prior, np.zeros((0, 40, 20)))


def coverage(*, quick: bool) -> Iterator[dict]:
    """As many simulated as measured pairs, the simulation drawn again for every toy, 100 replicas."""
    cases = [("least squares", 1e6, unfold.least_squares, 900)]
    cases += [
        ("30 iterations", size, partial(unfold.iterative, n_iterations=30), 300)
        for size in ((1e5,) if quick else (1e5, 1e6))
    ]
    for label, size, unfolder, n_toys in cases:
        rng = stream(11, "coverage", label, int(size))
        study = unfold.closure(dimuons(size), unfolder, rng=rng, n_toys=n_toys)
        name, source = f"closure, N_MC = N_data = {size:.0e}, {label}", f"{n_toys} toys of 20 bins"
        yield row(f"{name}: coverage", study.coverage.mean(), 0.68, 0.02, f"{source}; 0.66 to 0.70")
        yield row(f"{name}: lowest bin", study.coverage.min(), 0.68, 0.08, f"{source}; 0.60 to 0.76")
        yield row(f"{name}: highest bin", study.coverage.max(), 0.68, 0.08, f"{source}; 0.60 to 0.76")
        yield row(f"{name}: width of pulls", study.width.mean(), 1, 0.05, source)
        yield row(f"{name}: χ²/ndf", study.chi2_ndf, 1.025, 0.125, f"{source}; 0.9 to 1.15")
        yield _refolding(name, study.refolding_ndf, dimuons(size), unfolder, n_toys)
    n_toys = 300
    known = unfold.closure(
        dimuons(1e5), unfold.least_squares, rng=stream(11, "known"), n_toys=n_toys, mc_statistics=False
    )
    source = f"{n_toys} toys of 20 bins"
    yield row("closure, response known: coverage", known.coverage.mean(), 0.683, 0.02, source)
    yield row("closure, response known: χ²/ndf", known.chi2_ndf, 1, 0.1, source)
    ten = partial(unfold.iterative, n_iterations=10)
    simulated, data = dimuons(1e5, 1.15 * 0.25), dimuons(1e5).prior
    study = unfold.closure(simulated, ten, truth=data, rng=stream(12), n_toys=n_toys)
    source = f"{n_toys} toys; slope of the simulation 15 % larger"
    yield row(
        "stress, 10 iterations: mean |bias| in σ (limit 0.3)", np.abs(study.bias).mean(), 0, 0.3, source
    )
    worst = np.abs(study.bias).max()
    yield row("stress, 10 iterations: largest |bias| of a bin in σ (limit 1)", worst, 0, 1, source)
    low = min(float(study.coverage.mean()), 0.683)
    yield row("stress, 10 iterations: coverage (at least 0.64)", low, 0.683, 0.043, source)


def _refolding(name: str, found: float, known: Response, unfolder: Any, n_toys: int) -> dict:
    """Expect tr V⁻¹A(V + C)Aᵀ, residuals A = P D − 1, as many simulated as measured pairs."""
    p, t = known.migration, known.prior
    y = p @ t
    if unfolder is unfold.least_squares:
        whitened = np.linalg.pinv(p / np.sqrt(y)[:, None])
        slope = whitened / np.sqrt(y)
    else:
        _, slope = unfold.iterative_bayes.unfold_values(y, known, t, unfolder.keywords["n_iterations"])
    a = p @ slope - np.eye(len(y))
    both = 2 * np.diag(y) - p @ np.diag(t) @ p.T
    expected = float(np.trace(a @ both @ a.T / y[:, None]))
    # half of the expectation is the degrees of freedom, and twice a χ² of these has this scatter
    error = 2 * np.sqrt(2 * (expected / 2)) / np.sqrt(n_toys)
    source = f"{n_toys} toys; expectation from the derivative of the unfolding; 3 σ of the toys"
    return row(f"{name}: refolding χ²/cells", found, expected / len(y), 3 * error / len(y), source)


def toy(rng: np.random.Generator, n: int, *, gauss: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return truth and reconstruction (nan: lost) of the benchmark of arXiv:2503.09720."""
    x = rng.normal(0, 2, 3 * n) if gauss else 0.3 + 1.25 * rng.standard_cauchy(3 * n)
    x = x[np.abs(x) < 10][:n]
    seen = rng.random(n) < 0.3 + 0.7 * (x + 10) / 20
    return x, np.where(seen, x + rng.normal(-2.5, 0.2, n), np.nan)


def omnifold(*, quick: bool) -> Iterator[dict]:
    n_data, n_mc, limit = (10_000, 40_000, 3.0) if quick else (50_000, 200_000, 1.0)
    rng, edges = stream(13, "omnifold"), np.linspace(-10, 10, 41)
    (_, reco), (x, y) = toy(rng, n_data, gauss=True), toy(rng, n_mc, gauss=False)

    def three(values: np.ndarray) -> np.ndarray:
        zero = np.where(np.isfinite(values), 0.0, np.nan)
        return np.stack([values, zero, zero], axis=1)

    def triangular(weight: np.ndarray) -> float:
        p, q = np.histogram(x, edges, weights=weight)[0], np.diff(norm.cdf(edges, 0, 2))
        p = p / p.sum()
        return 1e3 * 0.5 * float(np.sum((p - q) ** 2 / (p + q)))

    none = np.empty((0, 3))
    mc = MatchedPairs(three(x), three(y), np.ones(n_mc), np.arange(n_mc), none, np.empty(0))
    data = three(reco[np.isfinite(reco)])
    found = unfold.omnifold(data, mc, rng=rng, columns=("mass",), n_iterations=3)
    source = f"arXiv:2503.09720, {n_data} data, {n_mc} simulated"
    yield row(
        "OmniFold, Gaussian toy: 10³ × triangular distance before", triangular(np.ones(n_mc)), 55, 3, source
    )
    for k, weight in enumerate(found.history, start=1):
        label = f"OmniFold, Gaussian toy: the same after {k} iteration{'s' if k > 1 else ''}"
        yield row(label, triangular(weight), 0, limit, f"limit {limit:g}")
    sigma = 1 / np.sqrt(len(data)) + 1 / np.sqrt(np.isfinite(y).sum())
    tolerance = max(0.01, 2 * sigma) if quick else 0.01
    yield row("OmniFold, Gaussian toy: total over truth", found.weight.sum() / n_data, 1, tolerance, source)
