"""Events of an exposure before measurement: data-like, simulated with truth, or background alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gammastar.core.errors import PhysicsError, require
from gammastar.mock.card import Card
from gammastar.mock.cocktail import generate_pairs, mode_rates
from gammastar.mock.combinatorial import (
    N_BLOCKS,
    DecayMuons,
    MuonPairs,
    Pairing,
    charge_sums,
    charm_rate,
    like_sign_ratio,
    muon_pairs,
    recorded_weight,
)
from gammastar.mock.engines import TOY, Engine
from gammastar.mock.ntuple import (
    Candidates,
    background_candidates,
    charm_candidates,
    false_pairs,
    signal_candidates,
    triggered,
)
from gammastar.mock.spectrometer import recorded_share

PILOT = 200_000  # dimuons and interactions that fix the normalisation
CHUNK = 200_000  # dimuons at a time
MISS_PRESCALE = 5  # of simulated dimuons that are not recorded one in five is kept
SMALLEST_POOL, LARGEST_POOL = 50_000, 1_000_000  # interactions

Kind: TypeAlias = Literal["data", "mc", "background", "charm"]
KINDS: tuple[str, ...] = get_args(Kind)
Progress: TypeAlias = Callable[[int, int], None]
Sample: TypeAlias = tuple[Candidates, dict[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Normalisation:
    """Expected rates of recorded pairs."""

    signal: float  # Recorded cocktail pairs per proton on target
    decay_scale: float  # Factor on the decay probabilities that gives the background fraction of the card
    third_muon: float  # Probability of an accepted decay muon besides a dimuon
    # OS/(2 √(++ −−)) of all recorded false pairs: two decay muons, or one and a muon of the cocktail
    r_factor: float
    r_factor_sigma: float
    # The same of pairs of decay muons alone
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
    signal = _without_third(card, candidates)
    if signal <= 0:
        raise PhysicsError(
            f"card {card.name!r}: none of {n} dimuons is recorded; widen [detector] or raise [efficiency]"
        )
    third = float(muons.weight.sum()) / muons.n_events * card.background.third_muon_factor
    linear = false_pairs(candidates) * third
    sums = charge_sums(pairs, recorded_weight(card, pairs)) * card.target.interactions
    fraction = card.background.fraction
    if fraction > 0 and not sums[0].sum() > 0:
        raise PhysicsError(
            f"card {card.name!r}: no pair of decay muons in {muons.n_events} interactions is recorded"
        )
    scale = _scale(float(sums[0].sum()), float(linear[0]), fraction / (1.0 - fraction) * signal)
    everything = scale**2 * sums + scale * linear[:, np.newaxis] / N_BLOCKS if scale > 0 else sums
    r_factor, pool = like_sign_ratio(everything), like_sign_ratio(sums)
    return Normalisation(signal, scale, scale * third, *r_factor, *pool)


def _without_third(card: Card, candidates: Candidates) -> float:
    """Return the weight of the cocktail pairs that are recorded when no third muon helps the trigger."""
    both = candidates.take(np.flatnonzero(candidates.present[0] & candidates.present[1]))
    share = recorded_share(card, both.p, both.charge, both.present)
    alone = recorded_share(card, both.p[:, :2], both.charge[:2], both.present[:2])
    return float((both.weight * alone / share).sum())


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What all blocks of a sample share: rates measured once, with pilots."""

    kind: Kind
    # Recorded opposite-sign pairs per proton on target, without those of two decay muons (data), of these
    # alone (background), of open charm (charm); share of simulated dimuons that is recorded (mc)
    rate: float
    norm: Normalisation | None  # Of the combinatorial background, for data and background
    pairing: Pairing
    miss_prescale: int


def _dimuons_per_pot(card: Card) -> float:
    return sum(mode_rates(card).values()) * card.target.interactions


def _muon_pairs(
    card: Card, n_pairs: int, rng: np.random.Generator, pairing: Pairing, engine: Engine
) -> MuonPairs:
    return muon_pairs(engine.decay_muons(card, interactions(n_pairs), rng), rng, pairing=pairing)


def interactions(n_pairs: int) -> int:
    """Return the interactions whose decay muons are the background of a block."""
    return int(np.clip(3 * n_pairs, SMALLEST_POOL, LARGEST_POOL))


def expected_dimuons(card: Card, n: int, plan: Plan, rng: np.random.Generator) -> float:
    """Return dimuons of the cocktail that a block will generate, with the toy's acceptance and charm."""
    if plan.kind not in {"data", "mc"}:
        return 0.0
    pilot = signal_candidates(card, generate_pairs(card, PILOT // 4, rng), rng)
    share = float(triggered(card, pilot, rng, prescaled=plan.kind == "data").mean())
    if not share > 0:
        raise PhysicsError(f"card {card.name!r}: none of {PILOT // 4} dimuons is recorded; widen [detector]")
    if plan.kind == "mc":
        return n / (share + (1.0 - share) / plan.miss_prescale)
    rate = _dimuons_per_pot(card)
    charm = _recorded_charm_rate(card, rng, TOY, PILOT // 4) if card.has_charm else 0.0
    return n * (1.0 - card.background.fraction) * rate / (rate * share + charm)


def prepared(
    card: Card, n: int, rng: np.random.Generator, engine: Engine, plan: Plan
) -> tuple[Plan, MuonPairs | None]:
    """Return the plan with its rates, and the pool of background pairs of the first block."""
    pairs, norm = None, None
    if plan.kind in {"data", "background"}:
        pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
        norm = normalisation(card, rng, pairs=pairs, n=PILOT, engine=engine)
    if plan.kind == "data" and norm is not None:
        rate = norm.signal + (_recorded_charm_rate(card, rng, engine, PILOT) if card.has_charm else 0.0)
    elif pairs is not None and norm is not None:
        opposite = float(recorded_weight(card, pairs)[pairs.charge == 0].sum())
        rate = opposite * card.target.interactions * norm.decay_scale**2
        if not rate > 0:
            raise PhysicsError(
                f"card {card.name!r}: background.fraction = {card.background.fraction!r} gives no background"
            )
    elif plan.kind == "charm":
        rate = _recorded_charm_rate(card, rng, engine, PILOT)
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
    """Return the events of one block."""
    if plan.kind == "mc":
        return _cocktail_sample(card, n, plan, rng, engine, progress)
    if plan.kind == "charm":
        return _charm_sample(card, n, plan, rng, engine, progress)
    if plan.norm is None:
        raise PhysicsError(f"{plan.kind}: the plan has no normalisation; take one from `prepared`")
    if pairs is None:
        pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
    data = plan.kind == "data"
    pot = n * (1.0 - card.background.fraction if data else 1.0) / plan.rate
    n_dimuons = int(rng.poisson(pot * _dimuons_per_pot(card))) if data else 0
    parts = [_recorded_background(card, pairs, plan.norm, pot, rng)]
    third: Any = {"muons": pairs.muons, "probability": plan.norm.third_muon}
    for size in _chunks(n_dimuons, progress):
        dimuons = generate_pairs(card, size, rng, mesons=engine.mesons)
        candidates = signal_candidates(card, dimuons, rng, minimum=2, **third)
        parts.append(candidates.take(np.flatnonzero(triggered(card, candidates, rng))))
    if data and card.has_charm:
        parts += _recorded_charm(card, pot, rng, engine, **third)[0]
    candidates = _shuffled(parts, rng)
    if data:
        candidates.weight[:] = 1.0
    generated = n_dimuons if data else len(candidates)
    return candidates, {
        "N_POT": pot,
        "n_generated": generated,
        "pairing": plan.pairing,
        "background_fraction": card.background.fraction,
        "decay_length": plan.norm.decay_scale * card.background.decay_length,
        "third_muon_probability": plan.norm.third_muon,
        "r_factor": plan.norm.r_factor,
        "r_factor_sigma": plan.norm.r_factor_sigma,
        "r_pool": plan.norm.r_pool,
        "r_pool_sigma": plan.norm.r_pool_sigma,
    }


def _chunks(n: int, progress: Progress | None) -> Iterator[int]:
    """Yield sizes of chunks that make up n, and tell after each how much is done."""
    for start in range(0, n, CHUNK):
        yield min(CHUNK, n - start)
        if progress is not None:
            progress(min(start + CHUNK, n), n)


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


def _recorded_charm_rate(card: Card, rng: np.random.Generator, engine: Engine, n: int) -> float:
    """Return recorded lepton pairs of open charm per proton on target, from `n` generated ones."""
    candidates = charm_candidates(card, engine.charm(card, n, rng), rng)
    rate = float(candidates.weight[triggered(card, candidates, rng)].sum())
    require(rate > 0, f"card {card.name!r}: none of {n} pairs of open charm is recorded; widen [detector]")
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
    for size in _chunks(n, progress):
        pairs = engine.charm(card, size, rng)
        candidates = charm_candidates(card, pairs, rng, muons=muons, probability=probability)
        parts.append(candidates.take(np.flatnonzero(triggered(card, candidates, rng))))
    return parts, n


def _charm_sample(
    card: Card, n_pairs: int, plan: Plan, rng: np.random.Generator, engine: Engine, progress: Progress | None
) -> Sample:
    """Return recorded pairs of open charm alone, `n_pairs` expected: a template of known normalisation."""
    pot = n_pairs / plan.rate
    parts, n = _recorded_charm(card, pot, rng, engine, progress=progress)
    require(parts, f"charm: no pair was drawn for n = {n_pairs!r}; ask for more")
    candidates = _shuffled(parts, rng)
    candidates.weight[:] = 1.0
    return candidates, {"N_POT": pot, "n_generated": n}


def _cocktail_sample(
    card: Card, n: int, plan: Plan, rng: np.random.Generator, engine: Engine, progress: Progress | None
) -> Sample:
    """Return about `n` simulated dimuons; of those not recorded one in `miss_prescale` is kept."""
    reconstructed, miss_prescale = plan.rate, plan.miss_prescale
    n_dimuons = int(np.ceil(n / (reconstructed + (1.0 - reconstructed) / miss_prescale)))
    parts = []
    for size in _chunks(n_dimuons, progress):
        candidates = signal_candidates(card, generate_pairs(card, size, rng, mesons=engine.mesons), rng)
        recorded = triggered(card, candidates, rng, prescaled=False)
        keep = recorded | (rng.random(len(candidates)) < 1.0 / miss_prescale)
        lost = ~recorded & (candidates.present.sum(axis=0) >= 2)  # no trigger or no pair found
        candidates.present[:, lost] = False
        candidates.weight[:] = np.where(recorded, 1.0, miss_prescale)
        parts.append(candidates.take(np.flatnonzero(keep)))
    return _shuffled(parts, rng), {
        "N_POT": n_dimuons / _dimuons_per_pot(card),
        "n_generated": n_dimuons,
        "miss_prescale": miss_prescale,
    }
