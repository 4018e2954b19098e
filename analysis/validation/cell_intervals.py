"""Do intervals of unfolded cells by profile likelihood hold the truth? (part of unfold)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import sparse
from scipy.stats import norm
from validation._rows import row

from gammastar.physics.pair_counts import Counts
from gammastar.unfold.profile_intervals import profile_intervals

Array = NDArray[np.float64]
BINS, SIGMAS = (20, 3, 4), (0.5, 0.08, 0.1)  # mass, pt, energy; resolution in bins
PAIRS, CHOSEN, LEAST = 18_000.0, 40, 1.0  # of the signal; cells of each toy; expected pairs


def _smeared(n: int, sigma: float) -> Array:
    at = np.arange(n) + np.linspace(0.05, 0.95, 10)[:, None]
    return np.diff(norm.cdf((np.arange(n + 1)[:, None, None] - at) / sigma), axis=0).mean(axis=1)


def _model(*, bump: bool) -> tuple[Array, Array]:
    """Return P and true contents: falling in mass, with a bump of 0.6 bins that four times stand above it."""
    matrix = np.ones((1, 1))
    for n, sigma in zip(BINS, SIGMAS, strict=True):
        matrix = np.kron(matrix, _smeared(n, sigma))
    m = np.arange(BINS[0])
    mass = np.exp(-m / 4.5) + bump * 3 * np.exp(-11 / 4.5) * np.exp(-0.5 * ((m - 11) / 0.6) ** 2)
    others = np.outer([0.4, 0.35, 0.25], [0.1, 0.3, 0.35, 0.25])
    efficiency = (0.3 + 0.02 * m)[:, None, None] * np.array([0.2, 0.5, 0.8, 1.0]) * np.ones((BINS[1], 1))
    truth = (mass[:, None, None] * others).ravel()
    matrix = matrix * efficiency.ravel()
    return matrix, truth * PAIRS / (matrix @ truth).sum()


def _covered(
    n_toys: int, *, bump: bool = False, purity: float = 1.0, simulated: float = 0.0
) -> tuple[float, int]:
    """Return the share of cells in their interval, and the number of cells."""
    rng, (matrix, truth) = np.random.default_rng(1), _model(bump=bump)
    signal, n = matrix @ truth, len(truth)
    base = np.repeat(signal.reshape(BINS[0], -1).mean(axis=1), n // BINS[0]) * (1 / purity - 1)
    place = np.arange(n) // (n // BINS[0])
    cov = 4e-4 * np.outer(base, base) * np.exp(-0.5 * ((place[:, None] - place) / 6.0) ** 2)
    root = np.linalg.cholesky(cov + 1e-9 * np.eye(n))
    held = []
    for _ in range(n_toys):
        observed = rng.poisson(np.maximum(signal + base + root @ rng.normal(size=n), 0)).astype(float)
        known, entries = matrix, np.zeros(0)
        if simulated:
            prior = np.repeat(np.exp(-np.arange(BINS[0]) / 8.0), n // BINS[0])
            prior *= simulated * PAIRS / (matrix @ prior).sum()
            seen = rng.poisson(matrix * prior)
            entries = np.maximum(seen.sum(axis=0) + rng.poisson(prior * (1 - matrix.sum(axis=0))), 1.0)
            known = seen / entries
        cell = rng.permutation(n)[:CHOSEN]
        counts = Counts(observed, sparse.csr_array(known), base, cov, 1.0, entries)
        low, high = profile_intervals(counts, truth, np.eye(n)[cell], rng=rng).T
        inside = (low <= truth[cell]) & (truth[cell] <= high)
        held.append(inside[(matrix.sum(axis=0) * truth)[cell] >= LEAST])
    return float(np.concatenate(held).mean()), sum(map(len, held))


def rows(n_toys: int) -> Iterator[dict]:
    """Yield the coverage of 240 cells of 1 to 500 expected pairs, resolution of half a bin."""
    cases = {
        "falling spectrum": {},
        "with a bump that the simulation lacks": {"bump": True},
        "three background pairs per signal pair": {"purity": 0.25},
        "a simulation as large as the data": {"purity": 0.75, "simulated": 1.0},
    }
    for name, options in cases.items():
        share, n = _covered(n_toys, **options)
        tolerance = 3 * np.sqrt(0.217 / n)
        yield row(
            f"intervals of cells, {name}: coverage", share, 0.6827, tolerance, f"{n} cells; 3 binomial errors"
        )
