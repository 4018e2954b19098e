"""Where hadrons come from: power laws and Gaussians (toy), or pools of Pythia events kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt
from iminuit import Minuit

from gammastar.core.documents import opened
from gammastar.core.errors import GammastarError, PhysicsError, StoreError, require
from gammastar.core.files import atomic
from gammastar.core.records import FloatArray
from gammastar.mock import pythia
from gammastar.mock.card import Card, Mode, PythiaCard
from gammastar.mock.cocktail import beam_kinematics, momentum, rapidity_limit, toy_mesons
from gammastar.mock.combinatorial import (
    NEUTRAL_PION,
    CharmPairs,
    DecayMuons,
    charm_rate,
    decay_charm,
    decay_muons,
    generate_charm,
    in_flight,
    photon_electrons,
)
from gammastar.mock.pythia import Process, System
from gammastar.mock.spectrometer import accepted

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Progress: TypeAlias = Callable[[int, int], None]
Share: TypeAlias = tuple[dict[str, npt.NDArray[Any]], float]

SHARE = {"pp": 10_000, "pPb": 4_000, "hard": 5_000}  # events of one share: a second or some
COPIES = sys.platform == "linux"  # whether processes are copied safely
BLOCK_SHARES = 1_000_000  # numbers of shares of a block
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Hadrons of generated events."""

    arrays: Arrays  # As `pythia.generate` returns them
    process: Process
    system: System
    n_events: int  # Events that Pythia finished
    rate: float  # Events per second, shares that were at hand not counted; nan if all were

    @property
    def sigma(self) -> float:
        """Generated cross section [mb]."""
        return float(self.arrays["sigma"])

    def multiplicity(self, pdg: int) -> float:
        """Return mesons of a species per event (weighted)."""
        weight = self.arrays["event_weight"].sum()
        return float(self.arrays[f"{pdg}_weight"].sum(dtype=np.float64) / weight)


@dataclass(frozen=True, slots=True)
class _Job:
    """A share: settings, process, events, seed, number, and the file that keeps it."""

    lines: tuple[str, ...]
    process: Process
    n: int
    seed: int
    index: int
    file: Path | None


def _made(job: _Job, ready: Any = None) -> Share:
    """Generate a share; return it with the seconds it took."""
    start = time.perf_counter()
    result = pythia.generate(job.lines, job.process, job.n, job.seed, job.index, ready=ready)
    seconds = time.perf_counter() - start
    if job.file is not None:
        with atomic(job.file) as temporary, temporary.open("wb") as output:
            np.savez(output, **result)  # type: ignore[arg-type]
    return result, seconds


def _kept(job: _Job) -> Share | None:
    """Return a share that is at hand, or None; one that cannot be read is made again."""
    if job.file is None or not job.file.is_file():
        return None
    with (
        contextlib.suppress(OSError, ValueError, EOFError, BadZipFile),
        opened(job.file) as stream,
        np.load(stream, allow_pickle=False) as kept,
    ):
        return dict(kept), 0.0
    return None


def _shares(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    """Yield the shares in their order, those at hand read, the others made."""
    kept = {index: share for index, job in enumerate(jobs) if (share := _kept(job)) is not None}
    missing = [job for index, job in enumerate(jobs) if index not in kept]
    made: Iterator[Share]
    if COPIES and not current_process().daemon:  # which may have no children
        made = _copies(missing, workers)
    elif workers == 1 or len(missing) < 2:
        made = map(_made, missing)
    else:
        made = _spawned(missing, workers)
    for index in range(len(jobs)):
        yield kept.pop(index) if index in kept else next(made)


def _spawned(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as executor:
        yield from executor.map(_made, jobs)


def _copies(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    """Yield shares, each made by a copy of this process, in which Pythia is ready and has made nothing yet.

    Notes
    -----
    Initialisation takes as long as 13 000 events. Pythia cannot be used for another share afterwards: it
    keeps, for one, the parameters of multiple interactions in a diffractive system where the next one has
    nearly the same mass, and events would depend on those before. A copy costs some milliseconds.
    """
    context = get_context("fork")
    ready = pythia.initialised(jobs[0].lines)
    running: list[tuple[Any, Connection]] = []
    try:
        for index, job in enumerate(jobs):
            for new in jobs[index + len(running) : index + workers]:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_send, args=(theirs, new, ready), daemon=True)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of threads: a copy only generates
                    process.start()
                theirs.close()
                running.append((process, ours))
            process, ours = running[0]
            yield _received(ours, job)
            process.join()
            del running[0]
    finally:
        for process, ours in running:
            process.terminate()
            process.join()
            ours.close()


def _send(pipe: Connection, job: _Job, ready: Any) -> None:
    """Make a share and send it, or the error that came instead."""
    try:
        pipe.send(_made(job, ready))
    except Exception as error:  # noqa: BLE001 - raised where the share is wanted
        pipe.send(error)


def _received(pipe: Connection, job: _Job) -> Share:
    with pipe:
        try:
            found: Share | Exception = pipe.recv()
        except EOFError as error:
            raise GammastarError(
                f"pythia: the process of share {job.index} was ended from outside; is there enough memory?"
            ) from error
    if isinstance(found, Exception):
        raise found
    return found


def _jobs(
    lines: tuple[str, ...], process: Process, n: int, seed: int, size: int, cache: Path | None, first: int
) -> Iterator[_Job]:
    words = (pythia.version(), pythia.START, str(seed), str(size), *lines)
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    for index in range(first, first - (-n // size)):
        file = None if cache is None else cache / f"{process}_{key}_{index:05d}.npz"
        yield _Job(lines, process, size, seed, index, file)


def _joined(shares: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Return one set of arrays; event numbers run on, the cross section is the mean."""
    offset = 0
    for share in shares:
        if "hadron_event" in share:
            share["hadron_event"] = share["hadron_event"] + offset
        offset += len(share["event_weight"])
    joined = {
        key: np.concatenate([share[key] for share in shares], axis=-1) for key in shares[0] if key != "sigma"
    }
    return joined | {"sigma": np.mean([share["sigma"] for share in shares])}


def make_pool(
    card: Card,
    n: int,
    *,
    process: Process = "soft",
    seed: int = 0,
    workers: int = 1,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    block: int = 0,
) -> Pool:
    """Generate at least `n` events with Pythia and keep their hadrons."""
    if n <= 0 or workers <= 0:
        raise PhysicsError(f"make_pool: n = {n!r} and workers = {workers!r} must be positive")
    options = card.pythia or PythiaCard()
    system = options.system
    lines = pythia.settings(card.beam.energy, system=system, process=process, extra=options.settings)
    size = SHARE[system] if process in pythia.SOFT else SHARE["hard"]
    folder = None if cache is None else Path(cache)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        jobs = list(_jobs(lines, process, n, seed, size, folder, block * BLOCK_SHARES))
        shares, busy, made = [], 0.0, 0
        for share, seconds in _shares(jobs, workers):
            shares.append(share)
            busy += seconds
            made += size if seconds > 0 else 0
            if progress is not None:
                progress(min(len(shares) * size, n), n)
    except OSError as error:
        raise StoreError(
            f"pythia: {folder} cannot hold the generated shares ({error.strerror}); give another folder"
        ) from error
    joined = _joined(shares)
    rate = made / busy * min(workers, len(jobs)) if busy > 0 else float("nan")
    LOG.info("pythia %s %s: %d events, %.3g per second", process, system, len(joined["event_weight"]), rate)
    return Pool(joined, process, system, len(joined["event_weight"]), rate)


EngineName: TypeAlias = Literal["toy", "pythia"]
ENGINES: tuple[str, ...] = get_args(EngineName)
EVENTS = 20_000  # resampled events at a time
NEAR = 50  # neighbours in mass of a virtual photon
N_HARD = 10_000  # events of charm, and of Drell-Yan
WEIGHT_MAX = 20.0  # of a spectrum's reweighting
BINS = 400  # of the likelihood of a pt spectrum


class Engine(Protocol):
    """What assembles events needs from an engine."""

    @property
    def name(self) -> str:
        """Its name."""

    def mesons(self, card: Card, mode: Mode, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return four-momenta of mesons of these masses, shape (4, n) [GeV]."""

    def decay_muons(self, card: Card, n: int, rng: np.random.Generator) -> DecayMuons:
        """Return decay muons of `n` interactions."""

    def charm(self, card: Card, n: int, rng: np.random.Generator) -> CharmPairs:
        """Return `n` lepton pairs of open charm."""

    def meta(self) -> Mapping[str, Any]:
        """Return what the record of a sample says about the engine."""


@dataclass(frozen=True)
class ToyEngine:
    """Spectra of the card."""

    name: str = "toy"

    def mesons(self, card: Card, mode: Mode, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return mesons of the card's power laws and Gaussians.

        Parameters
        ----------
        mode : Mode
            A decay of the card.
        mass : NDArray, shape (n,) [GeV]
        """
        return toy_mesons(card, mode, mass, rng)

    def decay_muons(self, card: Card, n: int, rng: np.random.Generator) -> DecayMuons:
        """Return muons of charge-balanced clusters.

        Parameters
        ----------
        n : int
            How many particles.
        """
        return decay_muons(card, n, rng)

    def charm(self, card: Card, n: int, rng: np.random.Generator) -> CharmPairs:
        """Return pairs of the card's charm spectra.

        Parameters
        ----------
        n : int
            How many particles.
        """
        return generate_charm(card, n, rng)

    def meta(self) -> Mapping[str, Any]:
        """Return nothing: the card says all."""
        return {}


TOY = ToyEngine()


@dataclass(frozen=True, eq=False)
class PythiaEngine:
    """Hadrons of Pythia, decays of our own.

    Attributes
    ----------
    soft, charm_pool, photons : Pool
        Inelastic events, pairs of charmed hadrons, Drell-Yan photons; the last two may be missing.
    """

    soft: Pool
    charm_pool: Pool | None = None
    photons: Pool | None = None
    options: PythiaCard = field(default_factory=PythiaCard)
    name: str = "pythia"

    @cached_property
    def _cumulative(self) -> dict[tuple[int, float, float], FloatArray]:
        return {}

    def _pt_weights(self, card: Card, mode: Mode) -> FloatArray:
        """Return cumulative weights of the mesons of a mode; those of the events, times f_target/f_gen."""
        meson = card.mesons[mode.meson]
        key = (meson.pdg, meson.p0, meson.n)
        if key not in self._cumulative:
            weight = self.soft.arrays[f"{meson.pdg}_weight"].astype(np.float64)
            if self.options.pt == "card":
                pt = self.soft.arrays[f"{meson.pdg}_pt"].astype(np.float64)
                found = fit_pt(pt, weight)
                ratio = power_law(pt, meson.p0, meson.n) / power_law(pt, found.p0, found.n)
                weight = weight * np.minimum(ratio, WEIGHT_MAX)
            self._cumulative[key] = np.cumsum(weight)
        return self._cumulative[key]

    def mesons(self, card: Card, mode: Mode, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return mesons with pt and rapidity of generated ones; the toy's where Pythia made none.

        Parameters
        ----------
        mode : Mode
            A decay of the card.
        mass : NDArray, shape (n,) [GeV]
        """
        pdg, n = card.mesons[mode.meson].pdg, len(mass)
        if mode.continuum is not None and self.photons is not None:
            pt, y = self._photons(mass, rng)
        elif f"{pdg}_pt" in self.soft.arrays and len(self.soft.arrays[f"{pdg}_pt"]):
            index = self._drawn(card, mode, n, rng)
            pt, y = (self.soft.arrays[f"{pdg}_{key}"][index].astype(np.float64) for key in ("pt", "y"))
        else:
            return toy_mesons(card, mode, mass, rng)
        sqrt_s, y_cm = beam_kinematics(card.beam.energy)
        limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
        y = np.clip(y - y_cm, -limit, limit)
        if mode.continuum is not None or self.soft.system == "pp":  # both ends of the collision are alike
            y *= rng.choice(np.array([-1.0, 1.0]), n)
        return momentum(mass, pt, y_cm + y, rng.uniform(-np.pi, np.pi, n))

    def _drawn(self, card: Card, mode: Mode, n: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
        """Return the numbers of `n` mesons of a mode, drawn with their weights."""
        cumulative = self._pt_weights(card, mode)
        if cumulative[-1] == len(cumulative) * cumulative[0]:  # pp: all weights are one
            return rng.integers(0, len(cumulative), n)
        return np.asarray(np.searchsorted(cumulative, rng.random(n) * cumulative[-1]), dtype=np.int64)

    def _photons(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return pt and rapidity of generated photons of about these masses."""
        arrays = {} if self.photons is None else self.photons.arrays
        order = np.argsort(arrays["photon_mass"])
        near = np.searchsorted(arrays["photon_mass"][order], mass)
        near += rng.integers(-NEAR, NEAR + 1, len(mass))
        index = order[np.clip(near, 0, len(order) - 1)]
        pt, y = (arrays[f"photon_{key}"][index].astype(np.float64) for key in ("pt", "y"))
        return pt, y

    def decay_muons(self, card: Card, n: int, rng: np.random.Generator) -> DecayMuons:
        """Return decay muons of `n` interactions, drawn from the generated ones with their weights.

        Parameters
        ----------
        n : int
            How many particles.

        Notes
        -----
        Muons of one interaction keep their azimuths, and with them the charge and momentum correlations of
        the event. Where an event serves more than once, with new decays, its copies follow each other: they
        are then in one block of the jackknife of R.
        """
        weight = self.soft.arrays["event_weight"]
        if weight.min() == weight.max():
            again, rest = divmod(n, len(weight))
            last = rng.choice(len(weight), rest, replace=False)
            events = np.concatenate([np.tile(np.arange(len(weight)), again), last])
        else:
            events = rng.choice(len(weight), n, p=weight / weight.sum())
        events = np.sort(events)
        parts = [
            self._muons(card, events[start : start + EVENTS], start, rng) for start in range(0, n, EVENTS)
        ]
        p, charge, mother, probability, number, flight = (
            np.concatenate([part[i] for part in parts], axis=-1) for i in range(6)
        )
        return DecayMuons(p, charge, mother, probability, number, flight, n, correlated=True)

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return np.searchsorted(self.soft.arrays["hadron_event"], np.arange(self.soft.n_events + 1))

    def _muons(
        self, card: Card, events: npt.NDArray[np.int64], first: int, rng: np.random.Generator
    ) -> tuple[npt.NDArray[Any], ...]:
        counts = self._starts[events + 1] - self._starts[events]
        ends = np.cumsum(counts)
        index = np.arange(ends[-1]) + np.repeat(self._starts[events] - ends + counts, counts)
        number = np.repeat(np.arange(len(events)) + first, counts)
        pdg = self.soft.arrays["hadron_pdg"][index].astype(np.int32)
        hadron_p = self.soft.arrays["hadron_p"][:, index].astype(np.float64)
        found = []
        for hadron in card.background.hadrons.values():
            chosen = np.flatnonzero(np.abs(pdg) == hadron.pdg)
            if hadron.pdg == NEUTRAL_PION:
                lepton, mother = photon_electrons(hadron_p[:, chosen], rng)
                weight, flight = np.full(len(chosen), hadron.branching), np.zeros(len(chosen))
            else:
                lepton, weight, flight = in_flight(
                    hadron_p[:, chosen], hadron, card.background.decay_length, rng
                )
                mother = pdg[chosen]
            seen = np.flatnonzero(accepted(lepton, card.detector))
            sign = np.sign(mother[seen]).astype(np.int8)
            found.append(
                (lepton[:, seen], sign, mother[seen], weight[seen], number[chosen[seen]], flight[seen])
            )
        joined = [np.concatenate([part[i] for part in found], axis=-1) for i in range(6)]
        order = np.argsort(joined[4], kind="stable")
        return tuple(column[..., order] for column in joined)

    def charm(self, card: Card, n: int, rng: np.random.Generator) -> CharmPairs:
        """Return pairs of charmed hadrons of HardQCD:hardccbar, decayed by the same code as the toy's.

        Parameters
        ----------
        n : int
            How many particles.
        """
        if self.charm_pool is None or card.charm is None:
            return generate_charm(card, n, rng)
        arrays = self.charm_pool.arrays
        branching = {h.pdg: h.branching for h in card.charm.hadrons.values()}
        table = np.zeros(max(4122, *branching) + 1)
        table[list(branching)] = list(branching.values())
        weight = np.cumsum(arrays["charm_weight"] * np.prod(table[np.abs(arrays["charm_pdg"])], axis=0))
        if not weight[-1] > 0:
            raise PhysicsError(
                "charm: the card has none of the charmed hadrons that Pythia makes (411, 421, 431, 4122)"
            )
        index = np.searchsorted(weight, rng.random(n) * weight[-1])
        p = arrays["charm_p"][:, :, index]
        turn = rng.uniform(-np.pi, np.pi, n)
        cosine, sine = np.cos(turn), np.sin(turn)
        pz, energy = _mirrored(p[2], p[3], beam_kinematics(card.beam.energy)[1], rng.random(n) < 0.5)
        p = np.stack([cosine * p[0] - sine * p[1], sine * p[0] + cosine * p[1], pz, energy])
        rate = np.full(n, charm_rate(card) * card.target.interactions / n)
        return decay_charm(card, p, arrays["charm_pdg"][:, index], rate, rng)

    def meta(self) -> Mapping[str, Any]:
        """Return events, cross section, multiplicities and rate of the generator."""
        return {
            "pythia8mc": pythia.version(),
            "pythia_system": self.soft.system,
            "pythia_events": self.soft.n_events,
            "pythia_sigma_mb": self.soft.sigma,
            "pythia_multiplicity": {
                str(pdg): self.soft.multiplicity(pdg)
                for pdg in (*pythia.NEUTRAL, *pythia.MESONS)
                if f"{pdg}_weight" in self.soft.arrays
            },
        }


def _mirrored(
    pz: FloatArray, energy: FloatArray, y_cm: float, chosen: npt.NDArray[np.bool_]
) -> tuple[FloatArray, FloatArray]:
    """Return pz and E, those of the chosen ones with the rapidity in the centre of mass reversed."""
    sinh, cosh = np.sinh(2.0 * y_cm), np.cosh(2.0 * y_cm)
    return (
        np.where(chosen, sinh * energy - cosh * pz, pz),
        np.where(chosen, cosh * energy - sinh * pz, energy),
    )


def pythia_engine(
    card: Card,
    n_events: int,
    *,
    seed: int = 0,
    workers: int = 1,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    block: int = 0,
    n_hard: int = N_HARD,
) -> PythiaEngine:
    """Generate with Pythia what a card needs: soft events, and charm and Drell-Yan where it has them.

    Parameters
    ----------
    n_events : int
        Inelastic events.
    seed, workers, cache, progress, block
        As `make_pool`.
    n_hard : int
        Events of charm, and of Drell-Yan; each serves mirrored as well.
    """
    process: Process = "soft" if card.lepton == "mu" else "electrons"
    continuum = any(mode.enabled and mode.continuum is not None for mode in card.modes.values())
    kept: dict[str, Any] = {"seed": seed, "workers": workers, "cache": cache, "block": block}
    soft = make_pool(card, n_events, process=process, progress=progress, **kept)
    charm = make_pool(card, n_hard, process="charm", **kept) if card.has_charm else None
    photons = make_pool(card, n_hard, process="drell_yan", **kept) if continuum else None
    return PythiaEngine(soft, charm, photons, card.pythia or PythiaCard())


def normalised(card: Card, engine: Engine) -> Card:
    """Return the card with the yields of the generator, if its section ``[pythia]`` asks for them."""
    options = card.pythia
    if not isinstance(engine, PythiaEngine) or options is None or options.normalisation == "card":
        return card
    mesons = dict(card.mesons)
    for key, meson in card.mesons.items():
        if f"{meson.pdg}_pt" in engine.soft.arrays:
            factor = options.species.get(key, 1.0)
            update = {"multiplicity": engine.soft.multiplicity(meson.pdg) * factor}
            if options.system == "pPb":
                update["a_factor"] = 1.0
            mesons[key] = meson.model_copy(update=update)
    return card.model_copy(update={"mesons": mesons})


@dataclass(frozen=True, slots=True)
class PtFit:
    """Parameters of dN/dpt ∝ pt (1 + (pt/p0)²)^−n [GeV] and their errors."""

    p0: float
    n: float
    p0_error: float
    n_error: float


def power_law(pt: npt.ArrayLike, p0: float, n: float) -> FloatArray:
    """Return dN/dpt = (2(n − 1)/p0²) pt (1 + (pt/p0)²)^−n, normalised to one [GeV⁻¹]."""
    pt = np.asarray(pt, dtype=np.float64)
    return np.asarray(2.0 * (n - 1.0) / p0**2 * pt * (1.0 + (pt / p0) ** 2) ** -n, dtype=np.float64)


def fit_pt(pt: FloatArray, weight: FloatArray | None = None) -> PtFit:
    """Fit a power law to transverse momenta by binned maximum likelihood."""
    if len(pt) < 100:
        raise PhysicsError(f"fit_pt: {len(pt)} mesons are too few; at least 100 are needed")
    total, edges = np.histogram(pt, BINS, (0.0, float(pt.max()) * (1 + 1e-6)), weights=weight)
    square, _ = np.histogram(pt, edges, weights=None if weight is None else weight**2)
    scale = total.sum() / square.sum()  # effective events per unit of weight
    counts = total * scale

    def cost(p0: float, n: float) -> float:
        upper = (1.0 + (edges / p0) ** 2) ** (1.0 - n)
        share = np.maximum(upper[:-1] - upper[1:], 1e-300) / (1.0 - upper[-1])
        return float(-2.0 * np.sum(counts * np.log(share)))

    minuit = Minuit(cost, p0=1.0, n=5.0)
    minuit.errordef = Minuit.LIKELIHOOD * 2
    minuit.limits["p0"], minuit.limits["n"] = (0.05, 50.0), (1.5, 200.0)
    minuit.migrad()
    minuit.hesse()
    require(minuit.valid, "fit_pt: the power law does not fit these transverse momenta")
    values, errors = minuit.values, minuit.errors
    return PtFit(values["p0"], values["n"], errors["p0"], errors["n"])
