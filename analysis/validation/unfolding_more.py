"""OmniFold beside the binned method, linearity, bottom line, finite simulation (part of unfold)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
from scipy.stats import norm
from validation import cell_intervals
from validation.unfolding_codes import dimuons, row, toy

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, filled, regular
from gammastar.core.sampling import stream
from gammastar.unfold.closure_tests import drawn_again

EDGES = np.linspace(-10, 10, 41)
N_DATA, N_MC, REPLICAS = 10_000, 40_000, 12


def rows(*, quick: bool) -> Iterator[dict]:
    yield from _linearity()
    yield from _bottom_line()
    yield from _finite_simulation()
    yield from cell_intervals.rows(10 if quick else 60)
    yield from _low_cells(100 if quick else 1000)
    if not quick:
        yield _beside_the_binned()


def _low_cells(n_toys: int, n_data: float = 20_000.0) -> Iterator[dict]:
    """Cells of some 60 pairs, 1.7 resolutions wide, exact response: how many lie far from the truth."""
    truth, response, rng = dimuons(n_data), dimuons(n_data, slope=0.29), stream(25, "low cells")
    expected, n_cells = truth.migration @ truth.prior, len(truth.migration)
    far: dict[str, list[np.ndarray]] = {"least squares": [], "4 iterations": [], "20 iterations": []}
    for _ in range(n_toys):
        y = rng.poisson(expected).astype(float)
        measured = Spectrum(filled(response.reco, y, y), np.diag(y), "counts", None, np.ones(n_cells, bool))
        for name, found in zip(
            far,
            (
                unfold.least_squares(measured, response),
                unfold.iterative(measured, response, n_iterations=4),
                unfold.iterative(measured, response, n_iterations=20),
            ),
            strict=True,
        ):
            far[name].append((found.values - truth.prior) / np.sqrt(np.diag(found.cov)))
    for name, pulls in far.items():
        size = np.abs(pulls)
        text = f"{n_data:.0f} pairs in 20 cells, {name}: share of cells beyond 4 σ of the truth"
        source = f"{n_toys} toys; the farthest at {size.max():.1f} σ"
        yield row(text, np.mean(size > 4.0), 6.3e-5, 3e-4, source) | (
            {} if name == "least squares" else {"measured": True}
        )


def _linearity() -> Iterator[dict]:
    response = dimuons(1e5)
    x = (response.true[0].centers - 0.7) / 0.5
    for n in (4, 10):
        slope, offset = unfold.linearity(response, partial(unfold.iterative, n_iterations=n), x)
        source = "slope of the true spectrum changed by up to 20 %, expectation unfolded"
        yield row(f"linearity, {n} iterations: recovered over injected amplitude", slope, 1, 0.02, source)
        yield row(f"linearity, {n} iterations: offset", offset, 0, 0.005, source)


def _bottom_line() -> Iterator[dict]:
    """Add a narrow bump: unfolding must not make models easier to tell apart than the data do."""
    response, rng = dimuons(1e5), stream(22, "bottom line")
    n_cells, truth = 40, response.prior
    bump = truth * (1 + 0.3 * norm.pdf(response.true[0].centers, 0.6, 0.05) / norm.pdf(0, 0, 0.05))
    gains = []
    for _ in range(50):
        y = rng.poisson(response.migration @ truth).astype(float)
        measured = Spectrum(filled(response.reco, y, y), np.diag(y), "counts", None, np.ones(n_cells, bool))
        found = unfold.iterative(measured, response, n_iterations=10)
        lines = unfold.bottom_line(measured, found, response, {"none": truth, "bump": bump})
        before, after = (lines["bump"][k] - lines["none"][k] for k in (0, 1))
        gains.append(after / before)
    text = "bottom line: Δχ² of a bump after unfolding over before (more than 1 is impossible)"
    yield row(text, np.mean(gains), 0.9, 0.15, "50 toys, 10 iterations")


def _finite_simulation() -> Iterator[dict]:
    """Unfold the expected data with one simulation per toy: the mean less the truth is its bias."""
    exact, rng, n_toys = dimuons(4000), stream(23, "finite simulation"), 600
    expected = exact.migration @ exact.prior
    y = Spectrum(filled(exact.reco, expected, expected), np.diag(expected), "counts", None, np.ones(40, bool))
    plain, debiased = [], []
    for _ in range(n_toys):
        known = drawn_again(exact, 40, rng)
        plain.append(unfold.iterative(y, known, n_iterations=10).values - exact.prior)
        debiased.append(unfold.iterative(y, known, n_iterations=10, debias=True).values - exact.prior)
    scatter = np.std(plain, axis=0, ddof=1)
    before, each = ((np.array(x) / scatter).mean(axis=1) for x in (plain, debiased))
    error = each.std(ddof=1) / np.sqrt(n_toys)
    text = "bias from 4000 simulated pairs over their scatter, debiased with 40 replicas, mean of 20 bins"
    source = f"{n_toys} simulations, 3 σ of them; before: {before.mean():+.3f} ± {error:.3f}"
    yield row(text, each.mean(), 0, 3 * error, source)
    wider = np.mean(np.std(debiased, axis=0, ddof=1) / scatter)
    yield row("the same: scatter over that before", wider, 1, 0.2, "at most 20 %")


def _beside_the_binned() -> dict:
    rng = stream(21, "compared")
    (_, reco), (x, y) = toy(rng, N_DATA, gauss=True), toy(rng, N_MC, gauss=False)

    def three(values: np.ndarray) -> np.ndarray:
        zero = np.where(np.isfinite(values), 0.0, np.nan)
        return np.stack([values, zero, zero], axis=1)

    simulated = MatchedPairs(
        *(three(x), three(y), np.ones(N_MC), np.arange(N_MC), np.empty((0, 3)), np.empty(0))
    )
    data = three(reco[np.isfinite(reco)])
    options = {"columns": ("mass",), "n_iterations": 3}
    weight = unfold.omnifold(data, simulated, rng=rng, **options).weight
    copies = unfold.omnifold_replicas(data, simulated, rng=rng, n_replicas=REPLICAS, **options)
    axis = (regular("mass", 40, -10, 10),)
    response = unfold.response(simulated, axis, axis, n_replicas=0)
    counts = np.histogram(data[:, 0], EDGES)[0].astype(float)
    measured = Spectrum(filled(axis, counts, counts), np.diag(counts), "counts", None, counts > 0)
    binned = unfold.iterative(measured, response, n_iterations=4, efficiency_floor=1e-3).values
    found = np.histogram(x, EDGES, weights=weight)[0]
    sigma = np.std([np.histogram(x, EDGES, weights=copy)[0] for copy in copies], axis=0, ddof=1)
    use = N_DATA * np.diff(norm.cdf(EDGES, 0, 2)) > 20
    within = np.mean(np.abs(found - binned)[use] < 2 * sigma[use])
    text = "OmniFold within 2σ (bootstrap) of 4 iterations: share of bins (at least 0.9)"
    return row(text, within, 1, 0.1, f"{int(use.sum())} bins, {REPLICAS} replicas")
