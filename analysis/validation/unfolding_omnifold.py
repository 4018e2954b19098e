"""Coverage of OmniFold's replicas, bias of its bins, and what makes it (part of unfold)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy.stats import binom, norm, t
from validation.unfolding_codes import row, toy

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.sampling import stream

EDGES = np.linspace(-5, 5, 21)  # bins of 2.5 times the resolution
N_DATA, N_MC, REPLICAS, ITERATIONS = 3000, 12_000, 10, 3
TRUTH = N_DATA * np.diff(norm.cdf(EDGES, 0, 2))
TREES = unfold.omnifolding.BoostedTrees(20, rate=0.3, per_leaf=50, validation=0, bins=128)
COARSE = replace(TREES, bins=64)
NEAR = 0.06  # tolerance of the coverage for 50 toys


def rows(*, quick: bool) -> Iterator[dict]:
    n_toys = 6 if quick else 50
    values, spread = np.zeros((2, n_toys, len(TRUTH)))
    for i in range(n_toys):
        values[i], spread[i] = _one(i)
    source = f"{n_toys} toys of {len(TRUTH)} bins, {REPLICAS} replicas, {N_DATA} data, {N_MC} simulated"
    if quick:
        source = f"--quick: {source}"
    yield from _bias(values, source, each=not quick)
    yield from _coverage(values, spread, source)
    if not quick:
        yield from _default(30)
        yield from _coarse(f"OmniFold, {COARSE.bins} quantiles", COARSE, 25)


def _samples(i: int) -> tuple[np.ndarray, np.ndarray, MatchedPairs, np.random.Generator]:
    """Return data, true coordinate and simulation of the benchmark; the number of data is of Poisson."""
    rng = stream(31, "omnifold coverage", i)
    (_, reco), (x, y) = toy(rng, rng.poisson(N_DATA), gauss=True), toy(rng, N_MC, gauss=False)

    def three(one: np.ndarray) -> np.ndarray:
        zero = np.where(np.isfinite(one), 0.0, np.nan)
        return np.stack([one, zero, zero], axis=1)

    none = np.empty((0, 3))
    simulated = MatchedPairs(three(x), three(y), np.ones(N_MC), np.arange(N_MC), none, np.empty(0))
    return three(reco[np.isfinite(reco)]), x, simulated, rng


def _one(i: int) -> tuple[np.ndarray, np.ndarray]:
    data, x, simulated, rng = _samples(i)
    options = {"rng": rng, "columns": ("mass",), "n_iterations": ITERATIONS, "classifier": TREES}
    found = unfold.omnifold(data, simulated, **options)
    copies = unfold.omnifold_replicas(data, simulated, n_replicas=REPLICAS, **options)
    counts = [np.histogram(x, EDGES, weights=copy)[0] for copy in copies]
    return np.histogram(x, EDGES, weights=found.weight)[0], np.std(counts, axis=0, ddof=1)


def _bias(values: np.ndarray, source: str, *, each: bool) -> Iterator[dict]:
    bias = (values.mean(axis=0) - TRUTH) / values.std(axis=0, ddof=1)
    error = 1 / np.sqrt(len(values))
    source = f"{source}; error of one bin {error:.2f} σ"
    worst = int(np.argmax(np.abs(bias)))
    for k in sorted({0, worst, len(bias) - 1}) if each else ():
        where = f"{EDGES[k]:g} to {EDGES[k + 1]:g}{', the largest' if k == worst else ', at the edge'}"
        yield row(f"OmniFold: bias of the bin {where}, in σ (limit 1)", bias[k], 0, 1, source)
    # a bias of nothing has the square of its statistical error
    rest = np.sqrt(max(np.mean(bias**2) - error**2, 0.0))
    yield row("OmniFold: rms bias of the bins in σ, less its statistical part", rest, 0, 0.5, source)


def _coverage(values: np.ndarray, spread: np.ndarray, source: str) -> Iterator[dict]:
    """Student's law: the interval of a σ from few replicas covers less than that of a known one."""
    n_toys, n_bins = values.shape
    student = 2 * t.cdf(1, REPLICAS - 1) - 1
    inside = np.abs(values - TRUTH) < spread
    # bins of a toy share its fluctuations: the error is that of the means of toys
    error = inside.mean(axis=1).std(ddof=1) / np.sqrt(n_toys)
    law = f"{source}; expected: Student with {REPLICAS - 1} degrees of freedom"
    yield row(
        "OmniFold: coverage of nominal ± spread of the replicas, mean of the bins",
        inside.mean(),
        student,
        NEAR if n_toys >= 50 else max(NEAR, 3 * error),
        f"{law}; statistical error {error:.3f}",
    )
    at_least = binom.sf(np.arange(n_toys), n_toys, student) ** n_bins  # P(lowest > 0, 1, …)
    lowest = at_least.sum() / n_toys
    square = ((2 * np.arange(n_toys) + 1) * at_least).sum() / n_toys**2
    width = np.sqrt(max(square - lowest**2, 0.0))
    text = f"{law}, lowest of {n_bins} binomial shares; 3 σ of it"
    yield row("OmniFold: coverage of the lowest bin", inside.mean(axis=0).min(), lowest, 3 * width, text)
    ratio = np.sqrt(np.mean((spread**2).mean(axis=0) / values.var(axis=0, ddof=1)))
    tolerance = max(0.1, 3 / np.sqrt(2 * (n_toys - 1) * n_bins))
    yield row("OmniFold: spread of the replicas over scatter of the toys", ratio, 1, tolerance, source)


def _default(n_toys: int) -> Iterator[dict]:
    """Trees as a user gets them, which stop early on a part of the pairs."""
    values = np.zeros((n_toys, len(TRUTH)))
    for i in range(n_toys):
        data, x, simulated, rng = _samples(i)
        options = {"rng": rng, "columns": ("mass",), "n_iterations": ITERATIONS}
        values[i] = np.histogram(x, EDGES, weights=unfold.omnifold(data, simulated, **options).weight)[0]
    bias, sigma = values.mean(axis=0) - TRUTH, values.std(axis=0, ddof=1)
    error = 1 / np.sqrt(n_toys)
    worst = int(np.argmax(np.abs(bias / sigma)))
    source = (
        f"{n_toys} toys of {len(TRUTH)} bins, {N_DATA} data, {N_MC} simulated; error of one bin {error:.2f} σ"
    )
    where = f"{EDGES[worst]:g} to {EDGES[worst + 1]:g}"
    text = f"OmniFold, trees by default: largest bias, bin {where}, in σ (limit 1)"
    yield row(text, bias[worst] / sigma[worst], 0, 1, source)
    rest = np.sqrt(max(np.mean((bias / sigma) ** 2) - error**2, 0.0))
    text = "OmniFold, trees by default: rms bias of the bins in σ, less its statistical part"
    yield row(text, rest, 0, 0.5, source)
    total = values.sum(axis=1) / TRUTH.sum()
    text = "OmniFold, trees by default: pairs over true ones"
    spread = total.std(ddof=1) / np.sqrt(n_toys)
    yield row(text, total.mean(), 1, 3 * spread, f"{source}; statistical error {spread:.4f}")


def _coarse(label: str, trees: unfold.omnifolding.BoostedTrees, n_toys: int) -> Iterator[dict]:
    """Trees that cannot resolve the tail: a bias that replicas do not see, and `omnifold_bias` does."""
    values, shift, itself = np.zeros((3, n_toys, len(TRUTH)))
    for i in range(n_toys):
        data, x, simulated, rng = _samples(i)
        options = {"rng": rng, "columns": ("mass",), "n_iterations": ITERATIONS, "classifier": trees}
        found = unfold.omnifold(data, simulated, **options)
        values[i] = np.histogram(x, EDGES, weights=found.weight)[0]
        model = norm.pdf(x, 0, 2) * (1 + ((x - 0.3) / 1.25) ** 2)  # Gaussian over Breit-Wigner
        for truth, result in ((model * (N_DATA / model.sum()), shift), (found.weight, itself)):
            lost = unfold.omnifold_bias(truth, simulated, n_repeats=1, **options)
            result[i] = np.histogram(x, EDGES, weights=lost)[0]
    sigma = values.std(axis=0, ddof=1)[0]
    true, model_shift, own = (
        one[0] / sigma for one in ((values - TRUTH).mean(0), shift.mean(0), itself.mean(0))
    )
    source = f"{n_toys} toys, {trees.bins} quantiles in place of {TREES.bins}"
    text = f"{label}: |bias| of the first bin above 1 σ (1 = yes)"
    yield row(text, abs(true) > 1, 1, 0, f"{source}; it is {true:.2f} σ")
    text = f"{label}: bias of the first bin by `omnifold_bias` of the model over the true one"
    yield row(text, model_shift / true, 1, 0.5, source)
    text = f"{label}: the same of the result itself, which is blind to it"
    yield row(text, own / true, 0, 0.5, source)
