"""Event samples before measurement: data-like, simulated with truth, or background alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

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

__all__ = ["KINDS", "MISS_PRESCALE", "Kind", "Plan", "Progress", "Sample", "assembled", "prepared"]

CHUNK = 200_000  # dimuons at a time
MISS_PRESCALE = 5  # of simulated dimuons that are not recorded one in five is kept
SMALLEST_POOL, LARGEST_POOL = 50_000, 1_000_000  # interactions

Kind: TypeAlias = Literal["data", "mc", "background", "charm"]
KINDS: tuple[str, ...] = get_args(Kind)
Progress: TypeAlias = Callable[[int, int], None]
Sample: TypeAlias = tuple[Candidates, dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What all blocks of a sample share: rates measured once, with pilots.

    Attributes
    ----------
    kind : {"data", "mc", "background", "charm"}
    rate : float
        Recorded opposite-sign pairs per proton on target, without those of two decay muons (data), of these
        alone (background), of open charm (charm); share of simulated dimuons that is recorded (mc).
    norm : Normalisation, optional
        Of the combinatorial background, for data and background.
    pairing : {"same-event", "mixed"}
    miss_prescale : int
    """

    kind: Kind
    rate: float
    norm: Normalisation | None
    pairing: Pairing
    miss_prescale: int


def _dimuons_per_pot(card: Card) -> float:
    return sum(mode_rates(card).values()) * card.target.interactions


def _muon_pairs(
    card: Card, n_pairs: int, rng: np.random.Generator, pairing: Pairing, engine: Engine
) -> MuonPairs:
    interactions = int(np.clip(3 * n_pairs, SMALLEST_POOL, LARGEST_POOL))
    return muon_pairs(engine.decay_muons(card, interactions, rng), rng, pairing=pairing)


def prepared(
    card: Card, n: int, rng: np.random.Generator, engine: Engine, plan: Plan
) -> tuple[Plan, MuonPairs | None]:
    """Return the plan with its rates, and the pool of background pairs of the first block.

    Parameters
    ----------
    card : Card
    n : int
        Size of the first block.
    rng : numpy.random.Generator
        Of the first block, which goes on with it.
    engine : Engine
    plan : Plan
        Kind and options of the sample; `rate` and `norm` are found here.

    Raises
    ------
    PhysicsError
        If nothing would be recorded.
    """
    pairs, norm = None, None
    if plan.kind in {"data", "background"}:
        pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
        norm = normalisation(card, rng, pairs=pairs, engine=engine)
    if plan.kind == "data" and norm is not None:
        rate = norm.signal + (_recorded_charm_rate(card, rng, engine) if card.has_charm else 0.0)
    elif pairs is not None and norm is not None:
        opposite = float(recorded_weight(card, pairs)[pairs.charge == 0].sum())
        rate = opposite * card.target.interactions * norm.decay_scale**2
        if not rate > 0:
            msg = (
                f"card {card.name!r}: background.fraction = {card.background.fraction!r} gives no background"
            )
            raise PhysicsError(msg)
    elif plan.kind == "charm":
        rate = _recorded_charm_rate(card, rng, engine)
    else:
        pilot = signal_candidates(card, generate_pairs(card, PILOT // 4, rng, mesons=engine.mesons), rng)
        rate = float(triggered(card, pilot, rng, prescaled=False).mean())
    return Plan(plan.kind, rate, norm, plan.pairing, plan.miss_prescale), pairs


def assembled(
    card: Card,
    n: int,
    plan: Plan,
    rng: np.random.Generator,
    engine: Engine,
    pairs: MuonPairs | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Return the events of one block.

    Parameters
    ----------
    card : Card
    n : int
        Size of the block: recorded opposite-sign pairs that are expected, or rows (mc).
    plan : Plan
    rng : numpy.random.Generator
    engine : Engine
    pairs : MuonPairs, optional
        Pool of background pairs; made here if it is needed and not given.
    progress : callable, optional
    """
    if plan.kind == "mc":
        return _cocktail_sample(card, n, rng, plan, progress, engine)
    if plan.kind == "charm":
        return _charm_sample(card, n, rng, plan, progress, engine)
    if pairs is None:
        pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
    if plan.norm is None:
        msg = f"{plan.kind}: the plan has no normalisation; take one from `prepared`"
        raise PhysicsError(msg)
    if plan.kind == "data":
        return _data_sample(card, n, rng, (plan, plan.norm, pairs), progress, engine)
    pot = n / plan.rate
    candidates = _shuffled([_recorded_background(card, pairs, plan.norm, pot, rng)], rng)
    found = _background_meta(card, plan.norm, plan.pairing)
    return candidates, {"N_POT": pot, "n_generated": len(candidates), **found}


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


def _data_sample(
    card: Card,
    n_pairs: int,
    rng: np.random.Generator,
    given: tuple[Plan, Normalisation, MuonPairs],
    progress: Progress | None,
    engine: Engine = TOY,
) -> Sample:
    """Return recorded events of an exposure in which `n_pairs` opposite-sign pairs are expected."""
    plan, norm, pairs = given
    pot = n_pairs * (1.0 - card.background.fraction) / plan.rate
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
    return candidates, {"N_POT": pot, "n_generated": n_dimuons, **_background_meta(card, norm, plan.pairing)}


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


def _charm_sample(
    card: Card,
    n_pairs: int,
    rng: np.random.Generator,
    plan: Plan,
    progress: Progress | None,
    engine: Engine = TOY,
) -> Sample:
    """Return recorded pairs of open charm alone, `n_pairs` expected: a template of known normalisation."""
    pot = n_pairs / plan.rate
    parts, n = _recorded_charm(card, pot, rng, engine, progress=progress)
    if not parts:
        msg = f"charm: no pair was drawn for n = {n_pairs!r}; ask for more"
        raise PhysicsError(msg)
    candidates = _shuffled(parts, rng)
    candidates.weight[:] = 1.0
    return candidates, {"N_POT": pot, "n_generated": n}


def _cocktail_sample(
    card: Card,
    n: int,
    rng: np.random.Generator,
    plan: Plan,
    progress: Progress | None,
    engine: Engine = TOY,
) -> Sample:
    """Return about `n` simulated dimuons; of those not recorded one in `miss_prescale` is kept."""
    reconstructed, miss_prescale = plan.rate, plan.miss_prescale
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
