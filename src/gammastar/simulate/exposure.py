"""Rates that tie signal, background and exposure of a mock together."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.simulate.candidates import false_pairs, signal_candidates, triggered
from gammastar.simulate.card import Card
from gammastar.simulate.combinatorial import (
    N_BLOCKS,
    MuonPairs,
    charge_sums,
    like_sign_ratio,
    muon_pairs,
    recorded_weight,
)
from gammastar.simulate.engines import TOY, Engine
from gammastar.simulate.toy import generate_pairs

__all__ = ["PILOT", "Normalisation", "normalisation"]

PILOT = 200_000  # dimuons and interactions that fix the normalisation


@dataclass(frozen=True, slots=True, eq=False)
class Normalisation:
    """Expected rates of recorded pairs.

    Attributes
    ----------
    signal : float
        Recorded cocktail pairs per proton on target.
    decay_scale : float
        Factor on the decay probabilities that gives the background fraction of the card.
    third_muon : float
        Probability of an accepted decay muon besides a dimuon.
    r_factor, r_factor_sigma : float
        OS/(2 √(++ −−)) of all recorded false pairs: two decay muons, or one and a muon of the cocktail.
    r_pool, r_pool_sigma : float
        The same of pairs of decay muons alone.
    """

    signal: float
    decay_scale: float
    third_muon: float
    r_factor: float
    r_factor_sigma: float
    r_pool: float
    r_pool_sigma: float


def _scale(quadratic: float, linear: float, background: float) -> float:
    """Return s > 0 with quadratic s² + linear s = background."""
    if background <= 0:
        return 0.0
    return 2.0 * background / (linear + float(np.sqrt(linear**2 + 4.0 * quadratic * background)))


def normalisation(
    card: Card,
    rng: np.random.Generator,
    *,
    pairs: MuonPairs | None = None,
    n: int = PILOT,
    engine: Engine = TOY,
) -> Normalisation:
    """Measure the rates that fix exposure and background with a pilot sample.

    Parameters
    ----------
    card : Card
    rng : numpy.random.Generator
    pairs : MuonPairs, optional
        Background pool; one of `n` interactions, paired within events, is made if it is not given.
    n : int
        Dimuons of the pilot sample.
    engine : Engine
        Where hadrons come from.

    Raises
    ------
    PhysicsError
        If no pilot dimuon is recorded, or no pair of decay muons although the card asks for background.

    Notes
    -----
    False pairs are either two decay muons (their rate goes as the square of the decay probability) or one
    with a muon of the cocktail (linear); one factor on the decay probability brings the sum to the card's
    background fraction among opposite-sign pairs. The second kind has R close to one: the recorded R lies
    below that of decay muons alone.
    """
    if pairs is None:
        pairs = muon_pairs(engine.decay_muons(card, n, rng), rng)
    muons = pairs.muons
    candidates = signal_candidates(
        card, generate_pairs(card, n, rng, mesons=engine.mesons), rng, muons=muons, probability=1.0, minimum=2
    )
    candidates = candidates.take(np.flatnonzero(triggered(card, candidates, rng)))
    both = candidates.present[0] & candidates.present[1]
    signal = float(candidates.weight[both].sum())
    if signal <= 0:
        msg = f"card {card.name!r}: none of {n} dimuons is recorded; widen [detector] or raise [efficiency]"
        raise PhysicsError(msg)
    third = float(muons.weight.sum()) / muons.n_events * card.background.third_muon_factor
    linear = false_pairs(candidates) * third
    sums = charge_sums(pairs, recorded_weight(card, pairs)) * card.target.interactions
    fraction = card.background.fraction
    if fraction > 0 and not sums[0].sum() > 0:
        msg = f"card {card.name!r}: no pair of decay muons in {muons.n_events} interactions is recorded"
        raise PhysicsError(msg)
    scale = _scale(float(sums[0].sum()), float(linear[0]), fraction / (1.0 - fraction) * signal)
    everything = scale**2 * sums + scale * linear[:, np.newaxis] / N_BLOCKS if scale > 0 else sums
    r_factor, pool = like_sign_ratio(everything), like_sign_ratio(sums)
    return Normalisation(signal, scale, scale * third, *r_factor, *pool)
