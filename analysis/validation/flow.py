"""The flow against the truth of the toy cocktail: without and with acceptance, and with signed weights."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from gammastar.core.data import data_path
from gammastar.core.rng import stream
from gammastar.flow import FlowOptions, KinematicFlow, fit, inside_limits, kl_scan
from gammastar.simulate.card_file import load_card
from gammastar.simulate.detector import accepted, efficiency
from gammastar.simulate.toy import generate_pairs

SEED = 20
RANGE = (0.2114, 1.2)  # GeV, masses that are learned
WINDOWS = np.arange(0.25, 1.051, 0.05)
FLOOR = 0.01  # lowest efficiency that is corrected for
LEAST = 20  # simulated pairs that measure an efficiency
# Narrow where the efficiency changes fast: wide cells bias the corrected density near the edge of the cone.
EDGES = (
    np.concatenate([np.linspace(0.2114, 0.99, 21), [1.005, 1.035, 1.07, 1.2]]),
    np.concatenate([np.linspace(0.0, 1.5, 61), [1.75, 2.0, 2.5, 3.0, 12.0]]),
    np.concatenate([np.geomspace(5.0, 150.0, 91), [400.0]]),
)
SPARSE = {"rho": 6.0, "eta_prime_dalitz": 10.0, "eta_dalitz": 0.5}  # more simulation where data are few
CARD = load_card(data_path("cards/na60_mock.toml"))
CRITERION = "mean of 100 draws in 95 % of single data draws"


def rows(*, quick: bool) -> Iterator[dict]:
    rng = stream(SEED, "flow")
    n = 50_000 if quick else 100_000
    train, truth = _pairs(n, rng)[0], _pairs(n, rng)[0]
    flow = _fit(train, np.ones(len(train)), FlowOptions(mass_range=RANGE))
    yield from _density(flow)
    yield _windows("KL in windows, trained on truth", flow, truth, 800 if quick else 1200)
    yield _signed(train[: n // 2], truth, flow)
    label = "KL in windows, acceptance on"
    if quick:
        yield {"quantity": label, "ours": np.nan, "expected": 1.0, "tolerance": 0.1} | {
            "source": CRITERION,
            "skipped": "long",
        }
        return
    measured = _efficiency(stream(SEED, "efficiency"))
    pairs, seen = _pairs(3_000_000, rng)
    found = pairs[seen][:n]
    weight = _correction(found, measured)
    weight = np.divide(1.0, weight, out=np.zeros_like(weight), where=weight > 0)
    corrected = _fit(found[weight > 0], weight[weight > 0], FlowOptions(mass_range=RANGE))
    other = _pairs(1_000_000, rng)[0]
    yield _windows(label, corrected, other[_correction(other, measured) > 0][:n], 1200)


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": float(ours),
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }


def _pairs(n: int, rng: np.random.Generator, card=CARD) -> tuple[np.ndarray, np.ndarray]:
    """Return true (mass, pt, energy), shape (n, 3), in random order, and whether each is reconstructed."""
    pairs = generate_pairs(card, n, rng)
    kept = rng.permutation(np.flatnonzero((pairs.mass > RANGE[0]) & (pairs.mass < RANGE[1])))
    chance = efficiency(pairs.mass, pairs.pt, pairs.energy, CARD.efficiency)
    seen = accepted(pairs.plus, CARD.detector) & accepted(pairs.minus, CARD.detector)
    seen &= rng.random(n) < chance
    return np.column_stack([pairs.mass, pairs.pt, pairs.energy])[kept], seen[kept]


def _efficiency(rng: np.random.Generator) -> np.ndarray:
    """Return the efficiency of each cell from simulation of another prior, 0 below the floor."""
    card = CARD.with_prior("varied")
    modes = {
        key: mode.model_copy(update={"branching": mode.branching * SPARSE.get(key, 1.0)})
        for key, mode in card.modes.items()
    }
    card = card.model_copy(update={"modes": modes})
    total = found = np.zeros([len(edges) - 1 for edges in EDGES])
    for _ in range(8):  # in parts, for the memory
        pairs, seen = _pairs(2_000_000, rng, card)
        total = total + np.histogramdd(pairs, EDGES)[0]
        found = found + np.histogramdd(pairs[seen], EDGES)[0]
    share = np.divide(found, total, out=np.zeros_like(total), where=total >= LEAST)
    return np.where(share >= FLOOR, share, 0.0)


def _correction(pairs: np.ndarray, measured: np.ndarray) -> np.ndarray:
    """Return the efficiency of the cell of each pair; 0 outside the measured domain."""
    index = [np.searchsorted(e, column, side="right") - 1 for e, column in zip(EDGES, pairs.T, strict=True)]
    inside = np.all([(i >= 0) & (i < n) for i, n in zip(index, measured.shape, strict=True)], axis=0)
    clipped = tuple(np.clip(i, 0, n - 1) for i, n in zip(index, measured.shape, strict=True))
    return np.where(inside, measured[clipped], 0.0)


def _fit(pairs: np.ndarray, weight: np.ndarray, options: FlowOptions) -> KinematicFlow:
    rng = stream(SEED, "fit")
    return fit(*pairs.T, weight, beam_energy=CARD.beam.energy, options=options, rng=rng)


def _density(flow: KinematicFlow) -> Iterator[dict]:
    log_pt = np.linspace(np.log(1e-5), np.log(300.0), 450)
    share = np.linspace(0.0, 1.0, 452)[1:-1]
    pt = np.exp(log_pt)[:, None]
    for mass in (0.25, 0.7, 1.02):
        mt = np.hypot(mass, pt)
        y_max = np.arccosh(flow.beam_energy / mt)
        y = share * y_max
        density = np.exp(flow.log_prob(mass, pt, mt * np.cosh(y)))
        inner = np.trapezoid(density * mt * np.sinh(y) * y_max, share, axis=1)
        total = np.trapezoid(inner * pt[:, 0], log_pt)
        yield _row(f"∫ p dpt dE at {mass} GeV", total, 1.0, 2e-3, "normalisation")
    rng = stream(SEED, "limits")
    mass = rng.uniform(*RANGE, 200_000)
    share = inside_limits(mass, *flow.sample(mass, rng), flow.beam_energy).mean()
    yield _row("samples inside √(m² + pt²) < E < E_beam", share, 1.0, 0.0, "kinematics")


def _windows(label: str, flow: KinematicFlow, truth: np.ndarray, max_points: int) -> dict:
    scan = kl_scan(flow, truth, masses=WINDOWS, rng=stream(SEED, label), max_points=max_points)
    label = f"{label}: fraction of {int(scan.tested.sum())} inside"
    return _row(label, scan.fraction_inside, 1.0, 0.1, CRITERION)


def _signed(train: np.ndarray, truth: np.ndarray, plain: KinematicFlow) -> dict:
    """Opposite sign with a background of half the signal, minus like sign of the same density."""
    rng = stream(SEED, "signed")
    parts = []
    for _ in range(2):
        mass = RANGE[0] + rng.gamma(2.0, 0.18, len(train) // 2)
        pt = rng.gamma(2.0, 0.08, len(mass))
        energy = np.hypot(mass, pt) * np.cosh(rng.normal(3.4, 0.7, len(mass)))
        inside = (mass < RANGE[1]) & inside_limits(mass, pt, energy, CARD.beam.energy)
        parts.append(np.column_stack([mass, pt, energy])[inside])
    weight = np.concatenate([np.ones(len(train) + len(parts[0])), -np.ones(len(parts[1]))])
    options = FlowOptions(mass_range=RANGE, epochs=10)
    flow = _fit(np.concatenate([train, *parts]), weight, options)
    change = (plain.log_prob(*truth.T) - flow.log_prob(*truth.T)).mean()
    return _row("loss of signed weights against pure signal [nats]", change, 0.0, 0.02, "same truth")
