"""Time of a three-dimensional response with its bootstrap replicas, and of unfolding with it."""

from __future__ import annotations

import time
from collections.abc import Iterator

import numpy as np

from gammastar import unfold
from gammastar.core.axes import regular
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum
from gammastar.core.rng import stream
from gammastar.core.stats import filled

AXES = (regular("mass", 36, 0.2, 1.1), regular("pt", 5, 0, 2.5), regular("energy", 6, 5, 125))


def rows() -> Iterator[dict]:
    rng, n = stream(1, "unfold"), 1_000_000
    true = np.stack([rng.uniform(0.2, 1.1, n), rng.gamma(2, 0.35, n), 5 + rng.exponential(25, n)], axis=1)
    reco = true + rng.standard_normal((n, 3)) * np.array([0.03, 0.04, 0.5])
    reco[rng.random(n) > 0.05] = np.nan
    sample = MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))
    start = time.perf_counter()
    response = unfold.response(sample, AXES, AXES, n_replicas=100, rng=rng)
    made = time.perf_counter() - start
    y = np.histogramdd(reco[np.isfinite(reco[:, 0])], [axis.edges for axis in AXES])[0]
    measured = Spectrum(filled(AXES, y, y), np.diag(y.ravel()), "counts", None, y > 0)
    start = time.perf_counter()
    unfold.iterative(measured, response, n_iterations=4)
    done = time.perf_counter() - start
    cells = "36 x 5 x 6 cells, 100 bootstraps"
    yield {
        "claim": f"response of 1e6 dimuons, {cells}",
        "measured": made,
        "goal": 20,
        "higher": False,
        "unit": " s",
    }
    yield {
        "claim": f"4 iterations with errors, {cells}",
        "measured": done,
        "goal": 10,
        "higher": False,
        "unit": " s",
    }
