"""What a flow learns from data with background, with and without posterior weights (part of subtract)."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gammastar import flow, select, subtract
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular
from gammastar.core.sampling import stream

MASSES = (0.3, 0.5, 0.776, 1.0)
HALF = 0.05  # GeV, window whose pairs give the statistical error
AXES = (regular("mass", 20, 0.2114, 1.4), regular("pt", 12, 0, 3), regular("energy", 10, 0, 400))
OPTIONS = {"bins": 8, "hidden": 32, "epoch_size": 40_000, "mass_range": (0.2114, 1.6)}


def rows(*, quick: bool) -> Iterator[dict]:
    n = 10_000 if quick else 40_000
    options = flow.FlowOptions(epochs=4 if quick else 8, **OPTIONS)
    for ratio in (0.5,) if quick else (0.1, 0.5):
        rng = stream(31, "training", str(ratio))
        pairs, truth = _mock(rng, n, ratio)
        hists = select.fill((pairs,), AXES)
        found = subtract.combinatorial(hists, subtract.ChargeRatio(1.0, 0.0), method="likelihood")
        signed, posterior = found.sign(pairs), subtract.posterior_weights(pairs, hists, found.spectrum)
        label = f"b/s = {ratio:g}"
        pull = (posterior.sum() - truth.sum()) / np.sqrt(np.sum(signed**2))
        yield _row(f"{label}: Σ posterior weights − true signal pairs, in σ", pull, 0, 2.5, "MOCK truth")
        worst = max(_projections(pairs, signed, posterior))
        yield _row(f"{label}: largest χ²/ndf of 6 projections (limit 1.5)", worst, 0, 1.5)
        trained = {
            "pure": _trained(pairs, truth.astype(float), options, ratio),
            "posterior": _trained(pairs, posterior, options, ratio),
            "plain": _trained(pairs, pairs.os.astype(float), options, ratio),
        }
        yield from _compared(label, pairs, truth, posterior, trained)


def _projections(pairs: Pairs, signed: np.ndarray, posterior: np.ndarray) -> Iterator[float]:
    """Yield χ²/ndf of every one- and two-dimensional projection, with the errors of the signed weights.

    Both sums share the opposite-sign pairs, so expect values below one.
    """
    for pick in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        values = np.stack([getattr(pairs, AXES[i].name) for i in pick], axis=1)
        edges = [AXES[i].edges for i in pick]
        a, b, v = (np.histogramdd(values, edges, weights=w)[0] for w in (signed, posterior, signed**2))
        yield float(np.mean((a - b)[v > 0] ** 2 / v[v > 0]))


def _mock(rng: np.random.Generator, n_signal: int, ratio: float) -> tuple[Pairs, np.ndarray]:
    """Signal with one pt law at every mass; soft background; like-sign pairs with a charge asymmetry."""

    def signal(n: int) -> tuple[np.ndarray, np.ndarray]:
        mass = np.where(rng.random(n) < 0.5, 0.22 + rng.exponential(0.2, n), rng.normal(0.776, 0.05, n))
        return mass, rng.gamma(2.5, 0.3, n)

    def soft(n: int) -> tuple[np.ndarray, np.ndarray]:
        return 0.22 + rng.gamma(2, 0.18, n), rng.gamma(2, 0.18, n)

    background = ratio * n_signal
    means = (n_signal, background, background / 2 * 0.7, background / 2 / 0.7)
    counts = [int(rng.poisson(mean)) for mean in means]
    parts = [signal(counts[0]), *(soft(n) for n in counts[1:])]
    mass, pt = (np.concatenate([part[k] for part in parts]) for k in range(2))
    energy = np.hypot(mass, pt) * np.cosh(rng.normal(3.2, 0.4, len(mass)))
    charge = np.repeat(np.array([0, 0, 2, -2], np.int8), counts)
    kept = (mass > 0.2114) & (mass < 1.4) & (energy < 399)
    truth = (np.arange(len(mass)) < counts[0])[kept]
    n = int(kept.sum())
    return Pairs(mass[kept], pt[kept], energy[kept], charge[kept], np.ones(n), np.arange(n)), truth


def _trained(pairs: Pairs, weight: np.ndarray, options: flow.FlowOptions, ratio: float) -> np.ndarray:
    """Return the mean pt of the flow at each mass."""
    use = weight > 0
    columns = (a[use] for a in (pairs.mass, pairs.pt, pairs.energy, weight))
    rng = stream(32, "flow", str(ratio))
    found = flow.fit(*columns, beam_energy=400.0, options=options, rng=rng)
    return np.array([found.sample(np.full(40_000, m), rng)[0].mean() for m in MASSES])


def _compared(
    label: str, pairs: Pairs, truth: np.ndarray, posterior: np.ndarray, trained: dict[str, np.ndarray]
) -> Iterator[dict]:
    for k, m in enumerate(MASSES):
        near = np.abs(pairs.mass - m) < HALF
        weight = posterior[near]
        spread = pairs.pt[near & truth].std() / pairs.pt[near & truth].mean()
        sigma = spread * np.sqrt(np.sum(weight**2)) / weight.sum()
        shift, plain = (trained[name][k] / trained["pure"][k] - 1 for name in ("posterior", "plain"))
        text = f"{label}, m = {m:g} GeV: ⟨qT⟩ of the flow, posterior over pure, − 1"
        beside = f"2 % + 2σ; without subtraction {100 * plain:+.1f} %"
        yield _row(text, shift, 0, 0.02 + 2 * sigma, beside)


def _row(
    quantity: str, ours: float, expected: float, tolerance: float, source: str = "signed weights, MOCK"
) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": float(expected),
        "tolerance": float(tolerance),
        "source": source,
    }
