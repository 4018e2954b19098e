"""Samples in blocks of bounded size: memory does not grow with the events, interrupted runs go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, TypedDict, Unpack
from zipfile import BadZipFile

import awkward as ak
import numpy as np

from gammastar.core.documents import from_json, opened
from gammastar.core.errors import require
from gammastar.core.files import atomic
from gammastar.core.sampling import stream
from gammastar.mock import pythia
from gammastar.mock.card import Card, PythiaCard
from gammastar.mock.combinatorial import PAIRINGS, MuonPairs, Pairing
from gammastar.mock.engines import ENGINES, N_HARD, TOY, Engine, EngineName, normalised, pythia_engine
from gammastar.mock.exposure import (
    KINDS,
    MISS_PRESCALE,
    Kind,
    Plan,
    Progress,
    Sample,
    assembled,
    expected_dimuons,
    interactions,
    prepared,
)
from gammastar.mock.ntuple import (
    COMBINATORIAL,
    Candidates,
    SimulatedEvents,
    event_branches,
    joined,
    muon_branches,
    richer,
    shifted,
    truth_branches,
    without_hidden,
)

BLOCK = 100_000  # expected pairs, or rows, of a block
MESONS_PER_EVENT = {"pp": 2.0, "pPb": 3.7}  # of pythia.MESONS, Pythia 8.317 at 400 GeV
PIONS_PER_EVENT = {"pp": 4.85, "pPb": 9.0}  # neutral ones, the same
DECAYS_OF_EVENT = 3  # times an event serves the background: R owes most of its error to the decays
FEWEST_EVENTS = 20_000
RUN = {"data": 5001, "mc": 6001, "background": 7001, "charm": 8001}


class Options(TypedDict, total=False):
    """What to simulate; see `simulate_events`."""

    kind: Kind
    prior: str
    seed: int
    progress: Progress | None
    engine: EngineName | Engine
    pairing: Pairing
    miss_prescale: int
    workers: int
    cache: str | Path | None
    n_events: int | None


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """A sample that was asked for, checked; see `simulate_events`."""

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
    cache: str | Path | None = None
    n_events: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("kind", KINDS), ("pairing", PAIRINGS), ("engine", ENGINES)):
            value = getattr(self, name)
            if name != "engine" or isinstance(value, str):
                _check(value in known, f"{name} = {value!r} is not one of {list(known)}")
        _check(self.n > 0, f"n = {self.n!r} must be positive")
        _check(self.miss_prescale >= 1, f"miss_prescale = {self.miss_prescale!r} must be at least 1")
        self.card.with_prior(self.prior)
        if self.engine == "pythia":
            pythia.version()  # says what to install if it is absent

    @property
    def sizes(self) -> list[int]:
        """Sizes of the blocks."""
        return [min(BLOCK, self.n - start) for start in range(0, self.n, BLOCK)]

    @property
    def folder(self) -> Path | None:
        """Where finished blocks are kept; nowhere if the engine was given as an object."""
        return Path(self.cache) if self.cache is not None and isinstance(self.engine, str) else None

    def key(self) -> str:
        """Return the digest of all that decides about the content."""
        versions = [metadata.version("gammastar"), np.__version__]
        if self.engine == "pythia":
            versions.append(pythia.version())
        what = [self.card.digest, self.n, self.kind, self.prior, self.seed, str(self.engine), self.pairing]
        what += [self.miss_prescale, self.n_events, BLOCK, *versions]
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()[:16]


def make_blocks(request: Request) -> Iterator[SimulatedEvents]:
    """Yield the blocks of a sample, made or taken from the cache.

    Notes
    -----
    Each block has random numbers and, with Pythia, generated events of its own; the normalisation is
    measured in front of the first one, and once more where a run goes on.
    """
    maker = _Maker(request)
    events, bursts = 0, 0
    for index in range(len(request.sizes)):
        block = _kept(request, index)
        if block is None:
            block = maker.made(index)
            _keep(request, index, block)
        yield shifted(block, events, bursts, request.card.run.events_per_burst)
        events += len(block)
        bursts += int(block.meta.get("n_bursts", 0))


class _Maker:
    """Makes blocks in any order; the plan is found with the random numbers of the first one."""

    def __init__(self, request: Request) -> None:
        self._request = request
        self._card = request.card.with_prior(request.prior)
        self._plan: Plan | None = None

    def _start(self) -> tuple[Plan, np.random.Generator, Engine, MuonPairs | None]:
        asked, n = self._request, self._request.sizes[0]
        engine = self._engine(0)
        self._card = normalised(self._card, engine)
        rng = stream(asked.seed, "simulate", asked.kind)
        plan = Plan(asked.kind, 0.0, None, asked.pairing, asked.miss_prescale)
        plan, pairs = prepared(self._card, n, rng, engine, plan)
        return plan, rng, engine, pairs

    def made(self, index: int) -> SimulatedEvents:
        """Return a block."""
        asked, n = self._request, self._request.sizes[index]
        if index == 0 or self._plan is None:
            self._plan, rng, engine, pairs = self._start()
        if index > 0:
            rng, pairs = stream(asked.seed, "simulate", asked.kind, "block", index), None
            engine = self._engine(index)
        sample = assembled(self._card, n, self._plan, rng, engine, pairs, self._progress(index))
        return self._recorded(index, sample, rng, engine)

    def _recorded(
        self, index: int, sample: Sample, rng: np.random.Generator, engine: Engine
    ) -> SimulatedEvents:
        asked, source, (candidates, meta) = self._request, self._card, sample
        card = asked.card  # as it was given
        branches = event_branches(source, candidates, RUN[asked.kind], rng)
        branches["Muon"] = muon_branches(source, candidates, rng, truth=asked.kind != "data")
        names: tuple[str | int, ...] = ("simulate", asked.kind, "detector")
        names = names if index == 0 else (*names, "block", index)
        more = richer(source, candidates, branches, meta["N_POT"], stream(asked.seed, *names))
        branches["Muon"] = without_hidden(branches["Muon"])
        if asked.kind != "data":
            branches |= truth_branches(source, candidates)
        record = {
            "card": card.name,
            "card_digest": card.digest,
            "prior": asked.prior,
            "kind": asked.kind,
            "seed": asked.seed,
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

    def _progress(self, index: int) -> Progress | None:
        tell, n, before = self._request.progress, self._request.n, index * BLOCK
        size = self._request.sizes[index]
        return None if tell is None else lambda done, total: tell(before + size * done // max(total, 1), n)

    def _engine(self, index: int) -> Engine:
        """Return the engine of a block, made if it was named."""
        asked = self._request
        if not isinstance(asked.engine, str):
            return asked.engine
        if asked.engine == "toy":
            return TOY
        n = asked.sizes[index]
        if asked.n_events is None:
            wanted = events_wanted(self._card, n, asked)
        else:
            wanted = -(-asked.n_events * n // asked.n)
        return pythia_engine(
            _needed(self._card, asked.kind),
            wanted,
            seed=asked.seed,
            workers=asked.workers,
            cache=asked.cache,
            progress=self._progress(index),
            block=index,
            n_hard=-(-N_HARD * n // BLOCK),
        )


def events_wanted(card: Card, n: int, asked: Request) -> int:
    """Return inelastic events that serve a block: each meson decays `reuse` times on average."""
    options = card.pythia or PythiaCard()
    plan = Plan(asked.kind, 0.0, None, asked.pairing, asked.miss_prescale)
    dimuons = expected_dimuons(card, n, plan, stream(asked.seed, "simulate", asked.kind, "wanted", n))
    mesons = MESONS_PER_EVENT[options.system]
    if card.lepton == "e":
        mesons += PIONS_PER_EVENT[options.system]
    if options.system == "pp":
        mesons *= 2.0  # and their mirror images
    background = 0.0 if asked.kind == "mc" else interactions(n) / DECAYS_OF_EVENT
    return max(int(np.ceil(max(dimuons / (mesons * options.reuse), background))), FEWEST_EVENTS)


def _needed(card: Card, kind: Kind) -> Card:
    """Return the card without the hard processes that a sample has no use for."""
    modes = {key: mode for key, mode in card.modes.items() if mode.continuum is None}
    without: dict[str, Any] = {"charm": None} if kind in {"mc", "background"} else {}
    without |= {"modes": modes} if kind in {"background", "charm"} else {}
    return card.model_copy(update=without)


def _sums(card: Card, candidates: Candidates) -> dict[str, float]:
    """Return the sum of weights (times prescale) of every process."""
    total = np.bincount(candidates.process, candidates.weight, minlength=128)
    names = {key: mode.process for key, mode in card.modes.items() if mode.enabled}
    names |= {"combinatorial": COMBINATORIAL}
    if card.charm is not None and card.has_charm:
        names |= {"charm": card.charm.process}
    return {key: float(total[code]) for key, code in names.items()}


def _path(request: Request, index: int) -> Path | None:
    folder = request.folder
    return None if folder is None else folder / f"block_{request.kind}_{request.key()}_{index:05d}.npz"


def _keep(request: Request, index: int, block: SimulatedEvents) -> None:
    """Write a finished block, at once or not at all."""
    path = _path(request, index)
    if path is None:
        return
    arrays: dict[str, Any] = {"meta": np.array(json.dumps(dict(block.meta), default=float))}
    muons = block.branches["Muon"]
    arrays["counts"] = ak.to_numpy(ak.num(muons))
    arrays["members"] = np.array(muons.fields)
    arrays |= {f"muon_{name}": ak.to_numpy(ak.flatten(muons[name])) for name in muons.fields}
    arrays |= {f"flat_{name}": values for name, values in block.branches.items() if name != "Muon"}
    with atomic(path) as temporary, temporary.open("wb") as stream_:
        np.savez(stream_, **arrays)


def _kept(request: Request, index: int) -> SimulatedEvents | None:
    """Return a finished block, or None where there is none that can be read."""
    path = _path(request, index)
    if path is None or not path.is_file():
        return None
    try:
        with opened(path) as stream_, np.load(stream_, allow_pickle=False) as file:
            arrays = dict(file)
        muons = ak.zip({str(name): arrays[f"muon_{name}"] for name in arrays["members"]})
        muons = ak.unflatten(muons, arrays["counts"])
        meta = from_json(str(arrays["meta"]))
    except (OSError, ValueError, KeyError, TypeError, BadZipFile):
        return None
    flat = {name.removeprefix("flat_"): x for name, x in arrays.items() if name.startswith("flat_")}
    return SimulatedEvents(flat | {"Muon": muons}, meta)


def simulate_events(card: Card, n: int, **options: Unpack[Options]) -> SimulatedEvents:
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
        Where hadrons come from ["toy"]. ``"pythia"`` generates what `n` asks for first; an engine made before
        (`pythia_engine`) serves several samples.
    pairing : {"same-event", "mixed"}
        Of decay muons ["same-event"]; ``"mixed"`` has R = 1.
    miss_prescale : int
        Simulated dimuons that are not recorded are kept once in this many [5], as ``prescale`` says.
    workers : int
        Processes of Pythia [1]; the sample does not depend on their number.
    cache : path
        Folder for finished blocks and shares of Pythia: an interrupted run goes on there and gives the same
        sample.
    n_events : int
        Inelastic events of Pythia [from `n` and the card's ``pythia.reuse``].
    options : any
        Attributes of `Options` by name.

    Returns
    -------
    SimulatedEvents

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
    return joined(blocks, shared_engine=not isinstance(options.get("engine", "toy"), str))


def simulate_blocks(card: Card, n: int, **options: Unpack[Options]) -> Iterator[SimulatedEvents]:
    """Return the sample of `simulate_events` in blocks, one after the other: memory stays flat.

    Arguments are those of `simulate_events`, and refused here already where they are out of range.

    Parameters
    ----------
    n : int
        Pairs.
    options : any
        Attributes of `Options` by name.

    Returns
    -------
    iterator of SimulatedEvents
        `combined_meta` of the blocks' records is that of the sample.
    """
    return make_blocks(Request(card, n, **options))


def _check(condition: bool, message: str) -> None:
    require(condition, f"simulate_events: {message}")
