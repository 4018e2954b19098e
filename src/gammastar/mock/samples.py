"""Mock samples: data-like, simulated with truth, or background alone; in blocks of bounded size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import Rng
from gammastar.core.sampling import stream
from gammastar.mock import combinatorial, ntuple, pythia
from gammastar.mock.card import Card, PythiaCard
from gammastar.mock.cocktail import generate_pairs, mode_rates
from gammastar.mock.combinatorial import DecayMuons, MuonPairs, Pairing
from gammastar.mock.engines import ENGINES, N_HARD, TOY, Engine, EngineName, normalised, pythia_engine
from gammastar.mock.ntuple import Candidates, SimulatedEvents, triggered
from gammastar.mock.spectrometer import recorded_share

BLOCK = 100_000  # expected pairs, or rows, of a block
PILOT = 200_000  # dimuons and interactions that fix the normalisation
CHUNK = 200_000  # dimuons at a time
MISS_PRESCALE = 5  # of simulated dimuons that are not recorded one in five is kept
SMALLEST_POOL, LARGEST_POOL = 50_000, 1_000_000  # interactions behind the background of a block
MESONS_PER_EVENT = {"pp": 2.0, "pPb": 3.7}  # of pythia.MESONS, Pythia 8.317 at 400 GeV
PIONS_PER_EVENT = {"pp": 4.85, "pPb": 9.0}  # neutral ones, the same
DECAYS_OF_EVENT = 3  # times an event serves the background: R owes most of its error to the decays
FEWEST_EVENTS = 20_000
RUN = {"data": 5001, "mc": 6001, "background": 7001, "charm": 8001}

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


@dataclass(frozen=True, slots=True, eq=False)
class Plan:
    """What all blocks of a sample share: rates measured once, with pilots."""

    kind: Kind
    pairing: Pairing
    miss_prescale: int
    # Recorded opposite-sign pairs per proton on target, without those of two decay muons (data), of these
    # alone (background), of open charm (charm); share of simulated dimuons that is recorded (mc)
    rate: float = 0.0
    norm: Normalisation | None = None  # Of the combinatorial background, for data and background


def normalisation(
    card: Card, rng: Rng, *, pairs: MuonPairs | None = None, n: int = PILOT, engine: Engine = TOY
) -> Normalisation:
    """Measure the rates that fix exposure and background with a pilot sample of `n` dimuons.

    Parameters
    ----------
    pairs : MuonPairs, optional
        Background pool; one of `n` interactions, paired within events, is made if it is not given.

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
        pairs = combinatorial.muon_pairs(engine.decay_muons(card, n, rng), rng)
    muons = pairs.muons
    dimuons = generate_pairs(card, n, rng, mesons=engine.mesons)
    third_muon: Any = {"muons": muons, "probability": 1.0}
    candidates = _recorded(card, ntuple.signal_candidates(card, dimuons, rng, minimum=2, **third_muon), rng)
    # cocktail pairs that are recorded when no third muon helps the trigger
    both = candidates.take(np.flatnonzero(candidates.present[0] & candidates.present[1]))
    share = recorded_share(card, both.p, both.charge, both.present)
    alone = recorded_share(card, both.p[:, :2], both.charge[:2], both.present[:2])
    signal = float((both.weight * alone / share).sum())
    none = f"card {card.name!r}: none of {n} dimuons is recorded"
    require(signal > 0, f"{none}; widen [detector] or raise [efficiency]")
    third = float(muons.weight.sum()) / muons.n_events * card.background.third_muon_factor
    linear = ntuple.false_pairs(candidates) * third
    sums = combinatorial.charge_sums(pairs, combinatorial.recorded_weight(card, pairs))
    sums = sums * card.target.interactions
    fraction = card.background.fraction
    none = f"card {card.name!r}: no pair of decay muons in {muons.n_events} interactions is recorded"
    require(fraction <= 0 or sums[0].sum() > 0, none)
    scale = 0.0
    if fraction > 0:  # quadratic scale² + linear scale = background
        background = fraction / (1.0 - fraction) * signal
        root = np.sqrt(linear[0] ** 2 + 4.0 * sums[0].sum() * background)
        scale = 2.0 * background / float(linear[0] + root)
    everything = sums
    if scale > 0:
        everything = scale**2 * sums + scale * linear[:, np.newaxis] / combinatorial.N_BLOCKS
    r_factors = (*combinatorial.like_sign_ratio(everything), *combinatorial.like_sign_ratio(sums))
    return Normalisation(signal, scale, scale * third, *r_factors)


def _recorded(card: Card, candidates: Candidates, rng: Rng) -> Candidates:
    """Return the events that are triggered and reconstructed."""
    return candidates.take(np.flatnonzero(triggered(card, candidates, rng)))


def _dimuons_per_pot(card: Card) -> float:
    return sum(mode_rates(card).values()) * card.target.interactions


def _muon_pairs(card: Card, n_pairs: int, rng: Rng, pairing: Pairing, engine: Engine) -> MuonPairs:
    muons = engine.decay_muons(card, interactions(n_pairs), rng)
    return combinatorial.muon_pairs(muons, rng, pairing=pairing)


def interactions(n_pairs: int) -> int:
    """Return the interactions whose decay muons are the background of a block."""
    return int(np.clip(3 * n_pairs, SMALLEST_POOL, LARGEST_POOL))


def expected_dimuons(card: Card, n: int, plan: Plan, rng: Rng) -> float:
    """Return dimuons of the cocktail that a block will generate, with the toy's acceptance and charm."""
    if plan.kind not in {"data", "mc"}:
        return 0.0
    pilot = ntuple.signal_candidates(card, generate_pairs(card, PILOT // 4, rng), rng)
    share = float(triggered(card, pilot, rng, prescaled=plan.kind == "data").mean())
    require(share > 0, f"card {card.name!r}: none of {PILOT // 4} dimuons is recorded; widen [detector]")
    if plan.kind == "mc":
        return n / (share + (1.0 - share) / plan.miss_prescale)
    rate = _dimuons_per_pot(card)
    charm = _recorded_charm_rate(card, rng, TOY, PILOT // 4) if card.has_charm else 0.0
    return n * (1.0 - card.background.fraction) * rate / (rate * share + charm)


def prepared(card: Card, n: int, rng: Rng, engine: Engine, plan: Plan) -> tuple[Plan, MuonPairs | None]:
    """Return the plan with its rates, and the pool of background pairs of the first block."""
    if plan.kind == "charm":
        return replace(plan, rate=_recorded_charm_rate(card, rng, engine, PILOT)), None
    if plan.kind == "mc":
        dimuons = generate_pairs(card, PILOT // 4, rng, mesons=engine.mesons)
        pilot = ntuple.signal_candidates(card, dimuons, rng)
        return replace(plan, rate=float(triggered(card, pilot, rng, prescaled=False).mean())), None
    pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
    norm = normalisation(card, rng, pairs=pairs, n=PILOT, engine=engine)
    if plan.kind == "data":
        rate = norm.signal + (_recorded_charm_rate(card, rng, engine, PILOT) if card.has_charm else 0.0)
    else:
        opposite = float(combinatorial.recorded_weight(card, pairs)[pairs.charge == 0].sum())
        rate = opposite * card.target.interactions * norm.decay_scale**2
        fraction = card.background.fraction
        require(rate > 0, f"card {card.name!r}: background.fraction = {fraction!r} gives no background")
    return replace(plan, rate=rate, norm=norm), pairs


def assembled(
    card: Card,
    n: int,
    plan: Plan,
    rng: Rng,
    engine: Engine,
    pairs: MuonPairs | None = None,
    progress: Progress | None = None,
) -> Sample:
    """Return the events of one block."""
    if plan.kind == "mc":
        return _cocktail_sample(card, n, plan, rng, engine, progress)
    if plan.kind == "charm":
        return _charm_sample(card, n, plan, rng, engine, progress)
    norm = plan.norm
    if norm is None:
        raise PhysicsError(f"{plan.kind}: the plan has no normalisation; take one from `prepared`")
    if pairs is None:
        pairs = _muon_pairs(card, n, rng, plan.pairing, engine)
    data, background = plan.kind == "data", card.background
    pot = n * (1.0 - background.fraction if data else 1.0) / plan.rate
    n_dimuons = int(rng.poisson(pot * _dimuons_per_pot(card))) if data else 0
    expected = pot * card.target.interactions * norm.decay_scale**2
    false = ntuple.background_candidates(
        pairs, expected, norm.third_muon, rng, card.detector.sextants, background.decay_length
    )
    parts = [_recorded(card, false, rng)]
    third: Any = {"muons": pairs.muons, "probability": norm.third_muon}
    for size in _chunks(n_dimuons, progress):
        dimuons = generate_pairs(card, size, rng, mesons=engine.mesons)
        parts.append(_recorded(card, ntuple.signal_candidates(card, dimuons, rng, minimum=2, **third), rng))
    if data and card.has_charm:
        parts += _recorded_charm(card, pot, rng, engine, **third)[0]
    candidates = _shuffled(parts, rng)
    if data:
        candidates.weight[:] = 1.0
    return candidates, {
        "N_POT": pot,
        "n_generated": n_dimuons if data else len(candidates),
        "pairing": plan.pairing,
        "background_fraction": background.fraction,
        "decay_length": norm.decay_scale * background.decay_length,
        "third_muon_probability": norm.third_muon,
        **{key: getattr(norm, key) for key in ("r_factor", "r_factor_sigma", "r_pool", "r_pool_sigma")},
    }


def _chunks(n: int, progress: Progress | None) -> Iterator[int]:
    """Yield sizes of chunks that make up n, and tell after each how much is done."""
    for start in range(0, n, CHUNK):
        yield min(CHUNK, n - start)
        if progress is not None:
            progress(min(start + CHUNK, n), n)


def _shuffled(parts: list[Candidates], rng: Rng) -> Candidates:
    candidates = Candidates.concatenate(parts)
    return candidates.take(rng.permutation(len(candidates)))


def _recorded_charm_rate(card: Card, rng: Rng, engine: Engine, n: int) -> float:
    """Return recorded lepton pairs of open charm per proton on target, from `n` generated ones."""
    candidates = ntuple.charm_candidates(card, engine.charm(card, n, rng), rng)
    rate = float(candidates.weight[triggered(card, candidates, rng)].sum())
    require(rate > 0, f"card {card.name!r}: none of {n} pairs of open charm is recorded; widen [detector]")
    return rate


def _recorded_charm(
    card: Card,
    pot: float,
    rng: Rng,
    engine: Engine,
    *,
    muons: DecayMuons | None = None,
    probability: float = 0.0,
    progress: Progress | None = None,
) -> tuple[list[Candidates], int]:
    """Return recorded events of open charm of an exposure, and how many were generated."""
    n = int(rng.poisson(pot * combinatorial.charm_rate(card) * card.target.interactions))
    parts = []
    for size in _chunks(n, progress):
        pairs = engine.charm(card, size, rng)
        candidates = ntuple.charm_candidates(card, pairs, rng, muons=muons, probability=probability)
        parts.append(_recorded(card, candidates, rng))
    return parts, n


def _charm_sample(
    card: Card, n_pairs: int, plan: Plan, rng: Rng, engine: Engine, progress: Progress | None
) -> Sample:
    """Return recorded pairs of open charm alone, `n_pairs` expected: a template of known normalisation."""
    pot = n_pairs / plan.rate
    parts, n = _recorded_charm(card, pot, rng, engine, progress=progress)
    require(parts, f"charm: no pair was drawn for n = {n_pairs!r}; ask for more")
    candidates = _shuffled(parts, rng)
    candidates.weight[:] = 1.0
    return candidates, {"N_POT": pot, "n_generated": n}


def _cocktail_sample(
    card: Card, n: int, plan: Plan, rng: Rng, engine: Engine, progress: Progress | None
) -> Sample:
    """Return about `n` simulated dimuons; of those not recorded one in `miss_prescale` is kept."""
    reconstructed, miss_prescale = plan.rate, plan.miss_prescale
    n_dimuons = int(np.ceil(n / (reconstructed + (1.0 - reconstructed) / miss_prescale)))
    parts = []
    for size in _chunks(n_dimuons, progress):
        dimuons = generate_pairs(card, size, rng, mesons=engine.mesons)
        candidates = ntuple.signal_candidates(card, dimuons, rng)
        recorded = triggered(card, candidates, rng, prescaled=False)
        keep = recorded | (rng.random(len(candidates)) < 1.0 / miss_prescale)
        lost = ~recorded & (candidates.present.sum(axis=0) >= 2)  # no trigger or no pair found
        candidates.present[:, lost] = False
        candidates.weight[:] = np.where(recorded, 1.0, miss_prescale)
        parts.append(candidates.take(np.flatnonzero(keep)))
    meta = {"N_POT": n_dimuons / _dimuons_per_pot(card), "n_generated": n_dimuons}
    return _shuffled(parts, rng), meta | {"miss_prescale": miss_prescale}


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """The checked arguments of `simulate_events`."""

    card: Card
    n: int
    kind: Kind = "data"
    prior: str = "nominal"
    seed: int = 0
    progress: Progress | None = None
    engine: EngineName | Engine = "toy"
    pairing: Pairing = "same-event"
    miss_prescale: int = MISS_PRESCALE
    workers: int = 1
    n_events: int | None = None

    def __post_init__(self) -> None:
        start = "simulate_events:"
        choices = {"kind": KINDS, "pairing": combinatorial.PAIRINGS, "engine": ENGINES}
        for name, known in choices.items():
            value = getattr(self, name)
            if name != "engine" or isinstance(value, str):
                require(value in known, f"{start} {name} = {value!r} is not one of {list(known)}")
        require(self.n > 0, f"{start} n = {self.n!r} must be positive")
        require(self.miss_prescale >= 1, f"{start} miss_prescale = {self.miss_prescale!r} must be at least 1")
        self.card.with_prior(self.prior)
        if self.engine == "pythia":
            pythia.version()  # says what to install if it is absent

    @property
    def sizes(self) -> list[int]:
        """Sizes of the blocks."""
        return [min(BLOCK, self.n - start) for start in range(0, self.n, BLOCK)]

    @property
    def plan(self) -> Plan:
        """The plan of the sample, its rates not yet measured."""
        return Plan(self.kind, self.pairing, self.miss_prescale)

    def told(self, index: int) -> Progress | None:
        """Return the progress of a block as that of the sample."""
        tell, size = self.progress, self.sizes[index]
        return tell and (lambda done, total: tell(index * BLOCK + size * done // max(total, 1), self.n))


class _Maker:
    """Makes blocks in any order; the plan is found with the random numbers of the first one."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._card = request.card.with_prior(request.prior)
        self._plan: Plan | None = None

    def made(self, index: int) -> SimulatedEvents:
        """Return a block."""
        request, n, pairs = self._request, self._request.sizes[index], None
        if index == 0 or self._plan is None:
            engine = self._engine(0)
            self._card = normalised(self._card, engine)
            rng = stream(request.seed, "simulate", request.kind)
            self._plan, pairs = prepared(self._card, request.sizes[0], rng, engine, request.plan)
        if index > 0:
            rng, pairs = stream(request.seed, "simulate", request.kind, "block", index), None
            engine = self._engine(index)
        sample = assembled(self._card, n, self._plan, rng, engine, pairs, request.told(index))
        return self._recorded(index, sample, rng, engine)

    def _recorded(self, index: int, sample: Sample, rng: Rng, engine: Engine) -> SimulatedEvents:
        """Return the branches of the events, and the record of the block."""
        request, source, (candidates, meta) = self._request, self._card, sample
        card, kind = request.card, request.kind  # the card as it was given
        branches = ntuple.event_branches(source, candidates, RUN[kind], rng)
        branches["Muon"] = ntuple.muon_branches(source, candidates, rng, truth=kind != "data")
        names: tuple[str | int, ...] = ("simulate", kind, "detector")
        names = names if index == 0 else (*names, "block", index)
        rng = stream(request.seed, *names)
        more = ntuple.richer(source, candidates, branches, meta["N_POT"], rng)
        muons = branches["Muon"]  # without what only the simulation of the detector needs
        branches["Muon"] = muons[[name for name in muons.fields if not name.startswith("hidden_")]]
        if kind != "data":
            branches |= ntuple.truth_branches(source, candidates)
        record = {
            "card": card.name,
            "card_digest": card.digest,
            "prior": request.prior,
            "kind": kind,
            "seed": request.seed,
            "version": metadata.version("gammastar"),
            "numpy": np.__version__,
            "beam_energy": card.beam.energy,
            "L": card.target.thickness,
            "A": card.target.a,
            "Z": card.target.z,
            "sigma_inel": card.target.sigma_inel,
            "n_events": len(candidates),
            "engine": engine.name,
            **engine.meta(),
            **meta,
            **more,
            "sum_weights": _sums(source, candidates),
        }
        return SimulatedEvents(branches=branches, meta=record)

    def _engine(self, index: int) -> Engine:
        """Return the engine of a block, made if it was named."""
        request, n = self._request, self._request.sizes[index]
        if not isinstance(request.engine, str):
            return request.engine
        if request.engine == "toy":
            return TOY
        if request.n_events is None:
            n_events = events_wanted(self._card, n, request)
        else:
            n_events = -(-request.n_events * n // request.n)
        card, kind = self._card, request.kind  # without the hard processes that the sample has no use for
        without: dict[str, Any] = {"charm": None} if kind in {"mc", "background"} else {}
        if kind in {"background", "charm"}:
            without["modes"] = {key: mode for key, mode in card.modes.items() if mode.continuum is None}
        return pythia_engine(
            card.model_copy(update=without),
            n_events,
            seed=(request.seed, index),
            workers=request.workers,
            progress=request.told(index),
            n_hard=-(-N_HARD * n // BLOCK),
        )


def events_wanted(card: Card, n: int, request: Request) -> int:
    """Return inelastic events that serve a block: each meson decays `reuse` times on average."""
    options = card.pythia or PythiaCard()
    rng = stream(request.seed, "simulate", request.kind, "wanted", n)
    dimuons = expected_dimuons(card, n, request.plan, rng)
    mesons = MESONS_PER_EVENT[options.system]
    if card.lepton == "e":
        mesons += PIONS_PER_EVENT[options.system]
    if options.system == "pp":
        mesons *= 2.0  # and their mirror images
    background = 0.0 if request.kind == "mc" else interactions(n) / DECAYS_OF_EVENT
    return max(int(np.ceil(max(dimuons / (mesons * options.reuse), background))), FEWEST_EVENTS)


def _sums(card: Card, candidates: Candidates) -> dict[str, float]:
    """Return the sum of weights (times prescale) of every process."""
    total = np.bincount(candidates.process, candidates.weight, minlength=128)
    names = {key: mode.process for key, mode in card.modes.items() if mode.enabled}
    names |= {"combinatorial": ntuple.COMBINATORIAL}
    if card.charm is not None and card.has_charm:
        names |= {"charm": card.charm.process}
    return {key: float(total[code]) for key, code in names.items()}


def _blocks(request: Request) -> Iterator[SimulatedEvents]:
    """Yield the blocks, each with random numbers and events of Pythia of its own."""
    maker = _Maker(request)
    events, bursts = 0, 0
    for index in range(len(request.sizes)):
        block = maker.made(index)
        yield ntuple.shifted(block, events, bursts, request.card.run.events_per_burst)
        events += len(block)
        bursts += int(block.meta.get("n_bursts", 0))


def simulate_events(card: Card, n: int, **options: Any) -> SimulatedEvents:
    """Simulate a mock dimuon ntuple.

    Parameters
    ----------
    n : int
        ``"mc"``: expected number of rows; otherwise expected number of recorded opposite-sign pairs.
    kind : {"data", "mc", "background", "charm"}, optional
        ``"data"``: unweighted cocktail, pairs of decay muons, third muons and, where the card has it, open
        charm, no truth. ``"mc"``: cocktail with truth, dimuons that are not recorded included (fewer than
        two muons). ``"background"``: pairs of decay muons alone, with truth, for the like-sign ratio R.
        ``"charm"``: open charm alone, a template whose normalisation is `N_POT`.
    prior : str
        ``"nominal"`` [default] or a key of the card's priors.
    seed : int
        [0]
    progress : callable, optional
        Called as ``progress(done, total)`` after each chunk of dimuons, and of generated events before.
    engine : {"toy", "pythia"} or Engine
        Source of the hadrons ["toy"]. ``"pythia"`` generates what `n` asks for first; an engine made before
        (`pythia_engine`) serves several samples.
    pairing : {"same-event", "mixed"}
        Of decay muons ["same-event"]; ``"mixed"`` has R = 1.
    miss_prescale : int
        Simulated dimuons that are not recorded are kept once in this many [5], as ``prescale`` says.
    workers : int
        Processes of Pythia [1]; the sample does not depend on their number.
    n_events : int
        Inelastic events of Pythia [from `n` and the card's ``pythia.reuse``].

    Raises
    ------
    PhysicsError
        If `n`, `kind`, `pairing` or `miss_prescale` is out of range, or the card records nothing.
    SteeringError
        If the card has no such prior.
    UserError
        If the engine is Pythia and pythia8mc is not installed.
    """
    blocks = list(simulate_blocks(card, n, **options))
    return ntuple.joined(blocks, shared_engine=not isinstance(options.get("engine", "toy"), str))


def simulate_blocks(card: Card, n: int, **options: Any) -> Iterator[SimulatedEvents]:
    """Return the sample of `simulate_events` in blocks, one after the other: memory stays flat.

    `combined_meta` of the records of the blocks is the record of the sample. Arguments are those of
    `simulate_events`, and refused at once where they are out of range.
    """
    return _blocks(Request(card, n, **options))
