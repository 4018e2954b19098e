"""Time of a three-dimensional response with its bootstrap replicas, and of unfolding with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, filled, regular
from gammastar.core.sampling import stream

AXES = (regular("mass", 36, 0.2, 1.1), regular("pt", 5, 0, 2.5), regular("energy", 6, 5, 125))


def rows() -> Iterator[dict]:
    rng, n = stream(1, "unfold"), 1_000_000
    true = np.stack([rng.uniform(0.2, 1.1, n), rng.gamma(2, 0.35, n), 5 + rng.exponential(25, n)], axis=1)
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.04, 0.5])
    reco[rng.random(n) > 0.05] = np.nan
    sample = MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))
    start = time.process_time()
    response = unfold.response(sample, AXES, AXES, n_replicas=100, rng=rng)
    made = time.process_time() - start
    y = np.histogramdd(reco[np.isfinite(reco[:, 0])], [axis.edges for axis in AXES])[0]
    measured = Spectrum(filled(AXES, y, y), np.diag(y.ravel()), "counts", None, y > 0)
    start = time.process_time()
    unfold.iterative(measured, response, n_iterations=4)
    done = time.process_time() - start
    yield small(rng)
    yield unbinned(rng)
    cells = "36 x 5 x 6 cells, 100 bootstraps"
    yield {
        "claim": f"response of 1e6 dimuons, {cells}, CPU time",
        "measured": made,
        "goal": 20,
        "higher": False,
        "unit": " s",
    }
    yield {
        "claim": f"4 iterations with errors, {cells}, CPU time",
        "measured": done,
        "goal": 10,
        "higher": False,
        "unit": " s",
    }


def small(rng: np.random.Generator) -> dict:
    """Time 40 reconstructed and 20 true mass bins with 100 replicas: response, unfolding, covariance."""
    reco, true = (regular("mass", 40, 0.2, 1.2),), (regular("mass", 20, 0.2, 1.2),)
    n = 100_000
    mass = 0.2 + rng.exponential(0.3, n)
    seen = np.where(rng.random(n) < 0.4, mass + 0.03 * rng.standard_normal(n), np.nan)
    columns = [
        np.stack([m, np.where(np.isfinite(m), 0.5, m), np.where(np.isfinite(m), 20.0, m)], 1)
        for m in (mass, seen)
    ]
    sample = MatchedPairs(*columns, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))
    y = np.histogram(seen[np.isfinite(seen)], reco[0].edges)[0].astype(float)
    measured = Spectrum(filled(reco, y, y), np.diag(y), "counts", None, y > 0)
    start = time.process_time()
    response = unfold.response(sample, reco, true, n_replicas=100, rng=rng)
    unfold.iterative(measured, response, n_iterations=10)
    used = time.process_time() - start
    claim = "40 x 20 cells, 1e5 simulated pairs, 100 replicas: response and 10 iterations, CPU time"
    return {"claim": claim, "measured": used, "goal": 2, "higher": False, "unit": " s"}


def unbinned(rng: np.random.Generator) -> dict:
    """OmniFold of mass and pt: 1e5 simulated and 3e4 measured pairs, 4 iterations of 3 classifiers."""

    def sample(n: int, slope: float) -> tuple[np.ndarray, np.ndarray]:
        true = np.stack([0.2 + rng.exponential(slope, n), rng.gamma(2, 0.35, n), np.full(n, 20.0)], axis=1)
        reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.04, 0.0])
        return true, np.where(rng.random((n, 1)) < 0.4, reco, np.nan)

    true, reco = sample(100_000, 0.3)
    n = len(true)
    simulated = MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))
    _, data = sample(75_000, 0.25)
    data = data[np.isfinite(data[:, 0])]
    start = time.process_time()
    unfold.omnifold(data, simulated, rng=rng, columns=("mass", "pt"), n_iterations=4)
    used = time.process_time() - start
    claim = "OmniFold, mass and pt, 1e5 simulated and 3e4 measured pairs, 4 iterations: CPU time"
    return {"claim": claim, "measured": used, "goal": 300, "higher": False, "unit": " s"}
