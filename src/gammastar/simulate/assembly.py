"""Event samples before measurement: data-like, simulated with truth, or background alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.simulate.candidates import (
    Candidates,
    background_candidates,
    charm_candidates,
    signal_candidates,
    triggered,
)
from gammastar.simulate.card import Card
from gammastar.simulate.charm import charm_rate
from gammastar.simulate.cocktail import mode_rates
from gammastar.simulate.combinatorial import (
    DecayMuons,
    MuonPairs,
    Pairing,
    muon_pairs,
    recorded_weight,
)
from gammastar.simulate.engines import TOY, Engine
from gammastar.simulate.exposure import PILOT, Normalisation, normalisation
from gammastar.simulate.toy import generate_pairs

__all__ = ["MISS_PRESCALE", "Progress", "background_sample", "charm_sample", "cocktail_sample", "data_sample"]

CHUNK = 200_000  # dimuons at a time
MISS_PRESCALE = 5  # of simulated dimuons that are not recorded one in five is kept
SMALLEST_POOL, LARGEST_POOL = 50_000, 1_000_000  # interactions

Progress: TypeAlias = Callable[[int, int], None]
Sample: TypeAlias = tuple[Candidates, dict[str, Any]]


def _dimuons_per_pot(card: Card) -> float:
    return sum(mode_rates(card).values()) * card.target.interactions


def _pool(
    card: Card, n_pairs: int, rng: np.random.Generator, pairing: Pairing, engine: Engine
) -> tuple[MuonPairs, Normalisation]:
    interactions = int(np.clip(3 * n_pairs, SMALLEST_POOL, LARGEST_POOL))
    pairs = muon_pairs(engine.decay_muons(card, interactions, rng), rng, pairing=pairing)
    return pairs, normalisation(card, rng, pairs=pairs, engine=engine)


def _background_meta(card: Card, norm: Normalisation, pairing: Pairing) -> dict[str, Any]:
    return {
        "pairing": pairing,
        "background_fraction": card.background.fraction,
        "decay_length": norm.decay_scale * card.background.decay_length,
        "third_muon_probability": norm.third_muon,
        "r_factor": norm.r_factor,
        "r_factor_sigma": norm.r_factor_sigma,
        "r_pool": norm.r_pool,
        "r_pool_sigma": norm.r_pool_sigma,
    }


def _shuffled(parts: list[Candidates], rng: np.random.Generator) -> Candidates:
    candidates = Candidates.concatenate(parts)
    return candidates.take(rng.permutation(len(candidates)))


def _recorded_background(
    card: Card, pairs: MuonPairs, norm: Normalisation, pot: float, rng: np.random.Generator
) -> Candidates:
    expected = pot * card.target.interactions * norm.decay_scale**2
    candidates = background_candidates(
        pairs, expected, norm.third_muon, rng, card.detector.sextants, card.background.decay_length
    )
    return candidates.take(np.flatnonzero(triggered(card, candidates, rng)))


def data_sample(
    card: Card,
    n_pairs: int,
    rng: np.random.Generator,
    pairing: Pairing,
    progress: Progress | None,
    engine: Engine = TOY,
) -> Sample:
    """Return recorded events of an exposure in which `n_pairs` opposite-sign pairs are expected."""
    pairs, norm = _pool(card, n_pairs, rng, pairing, engine)
    charm = _recorded_charm_rate(card, rng, engine) if card.has_charm else 0.0
    pot = n_pairs * (1.0 - card.background.fraction) / (norm.signal + charm)
    n_dimuons = int(rng.poisson(pot * _dimuons_per_pot(card)))
    parts = [_recorded_background(card, pairs, norm, pot, rng)]
    for start in range(0, n_dimuons, CHUNK):
        dimuons = generate_pairs(card, min(CHUNK, n_dimuons - start), rng, mesons=engine.mesons)
        candidates = signal_candidates(
            card, dimuons, rng, muons=pairs.muons, probability=norm.third_muon, minimum=2
        )
        parts.append(candidates.take(np.flatnonzero(triggered(card, candidates, rng))))
        if progress is not None:
            progress(min(start + CHUNK, n_dimuons), n_dimuons)
    if card.has_charm:
        parts += _recorded_charm(card, pot, rng, engine, muons=pairs.muons, probability=norm.third_muon)[0]
    candidates = _shuffled(parts, rng)
    candidates.weight[:] = 1.0
    return candidates, {"N_POT": pot, "n_generated": n_dimuons, **_background_meta(card, norm, pairing)}


def _recorded_charm_rate(card: Card, rng: np.random.Generator, engine: Engine) -> float:
    """Return recorded lepton pairs of open charm per proton on target."""
    candidates = charm_candidates(card, engine.charm(card, PILOT, rng), rng)
    rate = float(candidates.weight[triggered(card, candidates, rng)].sum())
    if not rate > 0:
        msg = f"card {card.name!r}: none of {PILOT} pairs of open charm is recorded; widen [detector]"
        raise PhysicsError(msg)
    return rate


def _recorded_charm(
    card: Card,
    pot: float,
    rng: np.random.Generator,
    engine: Engine,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    progress: Progress | None = None,
) -> tuple[list[Candidates], int]:
    """Return recorded events of open charm of an exposure, and how many were generated."""
    n = int(rng.poisson(pot * charm_rate(card) * card.target.interactions))
    parts = []
    for start in range(0, n, CHUNK):
        pairs = engine.charm(card, min(CHUNK, n - start), rng)
        candidates = charm_candidates(card, pairs, rng, muons=muons, probability=probability)
        parts.append(candidates.take(np.flatnonzero(triggered(card, candidates, rng))))
        if progress is not None:
            progress(min(start + CHUNK, n), n)
    return parts, n


def charm_sample(
    card: Card, n_pairs: int, rng: np.random.Generator, progress: Progress | None, engine: Engine = TOY
) -> Sample:
    """Return recorded pairs of open charm alone, `n_pairs` expected: a template of known normalisation."""
    per_pot = _recorded_charm_rate(card, rng, engine)
    pot = n_pairs / per_pot
    parts, n = _recorded_charm(card, pot, rng, engine, progress=progress)
    if not parts:
        msg = f"charm: no pair was drawn for n = {n_pairs!r}; ask for more"
        raise PhysicsError(msg)
    candidates = _shuffled(parts, rng)
    candidates.weight[:] = 1.0
    return candidates, {"N_POT": pot, "n_generated": n}


def background_sample(
    card: Card, n_pairs: int, rng: np.random.Generator, pairing: Pairing, engine: Engine = TOY
) -> Sample:
    """Return recorded pairs of decay muons alone, `n_pairs` opposite-sign ones expected."""
    pairs, norm = _pool(card, n_pairs, rng, pairing, engine)
    opposite = float(recorded_weight(card, pairs)[pairs.charge == 0].sum())
    per_pot = opposite * card.target.interactions * norm.decay_scale**2
    if not per_pot > 0:
        msg = f"card {card.name!r}: background.fraction = {card.background.fraction!r} gives no background"
        raise PhysicsError(msg)
    pot = n_pairs / per_pot
    candidates = _shuffled([_recorded_background(card, pairs, norm, pot, rng)], rng)
    return candidates, {"N_POT": pot, "n_generated": len(candidates), **_background_meta(card, norm, pairing)}


def cocktail_sample(
    card: Card,
    n: int,
    rng: np.random.Generator,
    miss_prescale: int,
    progress: Progress | None,
    engine: Engine = TOY,
) -> Sample:
    """Return about `n` simulated dimuons; of those not recorded one in `miss_prescale` is kept."""
    pilot = signal_candidates(card, generate_pairs(card, PILOT // 4, rng, mesons=engine.mesons), rng)
    reconstructed = float(triggered(card, pilot, rng, prescaled=False).mean())
    n_dimuons = int(np.ceil(n / (reconstructed + (1.0 - reconstructed) / miss_prescale)))
    parts = []
    for start in range(0, n_dimuons, CHUNK):
        candidates = signal_candidates(
            card, generate_pairs(card, min(CHUNK, n_dimuons - start), rng, mesons=engine.mesons), rng
        )
        recorded = triggered(card, candidates, rng, prescaled=False)
        keep = recorded | (rng.random(len(candidates)) < 1.0 / miss_prescale)
        lost = ~recorded & (candidates.present.sum(axis=0) >= 2)  # no trigger or no pair found
        candidates.present[:, lost] = False
        candidates.weight[:] = np.where(recorded, 1.0, miss_prescale)
        parts.append(candidates.take(np.flatnonzero(keep)))
        if progress is not None:
            progress(min(start + CHUNK, n_dimuons), n_dimuons)
    return _shuffled(parts, rng), {
        "N_POT": n_dimuons / _dimuons_per_pot(card),
        "n_generated": n_dimuons,
        "miss_prescale": miss_prescale,
    }
