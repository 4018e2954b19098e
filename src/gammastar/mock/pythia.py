"""Pythia 8.3: hadrons of proton-proton and proton-nucleus collisions on a target at rest, in shares.

The only module that imports pythia8mc, and only when it is used. Mesons leave here before they decay to
leptons: Pythia's own Dalitz decays and line shapes are not those of the measurements.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from importlib import metadata
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from typing import Any, Literal, TypeAlias, get_args

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import GammastarError, UserError, require
from gammastar.core.records import BoolArray, FloatArray, IntArray
from gammastar.core.sampling import stream
from gammastar.mock.card import Card, PythiaCard

System: TypeAlias = Literal["pp", "pPb"]
SYSTEMS: tuple[str, ...] = get_args(System)
Process: TypeAlias = Literal["soft", "electrons", "charm", "drell_yan"]
PROCESSES: tuple[str, ...] = get_args(Process)
Arrays: TypeAlias = dict[str, npt.NDArray[Any]]

SHARE = {"pp": 10_000, "pPb": 4_000, "hard": 5_000}  # events of one share: a second or some
COPIES = sys.platform == "linux"  # whether processes are copied safely
BLOCK_SHARES = 1_000_000  # numbers of shares of a block
BATCH = 2_000  # events in memory at a time, 7 kB each in pp
MESONS = (221, 113, 223, 333, 331)
DECAYING = (211, 321)
NEUTRAL = (111,)  # mesons, and mothers of single electrons, of electron pairs
SOFT = ("soft", "electrons")
CHARMED = (411, 421, 431, 4122)
HARDEST_SEED = 900_000_000
HADRON_E_MIN = 2.0  # GeV: softer hadrons give no muon that a spectrometer behind an absorber sees
NEUTRAL_E_MIN = 0.2  # GeV, of neutral pions
COMMON = (
    "Print:quiet = on",
    "Next:numberCount = 0",
    "Beams:idA = 2212",
    "Beams:frameType = 2",
    "Beams:eB = 0",
    "ParticleDecays:limitTau0 = on",
    "ParticleDecays:tau0Max = 10",  # mm: pions and kaons stay for the spectrometer
    "111:mayDecay = off",  # decays to photons are not wanted, and take time
    "Random:setSeed = on",
)
START = "Random:seed = 1"  # of the initialisation; every share has random numbers of its own
UNCHECKED = "Check:event = off"  # a tenth of the time: `_sound` looks at all events of a batch at once
CONSERVED = 1e-4  # of the energy, as Pythia's own check
HARD: Mapping[str, tuple[str, ...]] = {
    "soft": ("SoftQCD:inelastic = on",),
    "electrons": ("SoftQCD:inelastic = on",),
    "charm": ("HardQCD:hardccbar = on", "PhaseSpace:mHatMin = 3.0"),  # the threshold of a pair
    "drell_yan": (
        "WeakSingleBoson:ffbar2gmZ = on",
        "WeakZ0:gmZmode = 1",  # the virtual photon alone
        "23:onMode = off",
        "23:onIfAny = 13",
        "23:mMin = 1.0",
        "PhaseSpace:mHatMin = 1.0",
    ),
}
HEAVY_ION = (
    "HeavyIon:SigFitNGen = 0",
    "HeavyIon:SigFitDefPar = 2.15,17.24,0.33",  # fitted beforehand: the fit takes minutes
)


def _module() -> Any:
    try:
        return importlib.import_module("pythia8mc")
    except ImportError as error:
        raise UserError(
            "engine 'pythia' needs pythia8mc: pip install 'gammastar[simulate]', or take engine 'toy'"
        ) from error


def version() -> str:
    """Return the version of pythia8mc."""
    _module()
    return metadata.version("pythia8mc")


def settings(
    energy: float, *, system: System = "pp", process: Process = "soft", extra: tuple[str, ...] = ()
) -> tuple[str, ...]:
    """Return the settings of Pythia, without the seed."""
    for name, value, known in (("system", system, SYSTEMS), ("process", process, PROCESSES)):
        require(value in known, f"pythia: {name} = {value!r} is not one of {list(known)}")
    nuclear = system == "pPb" and process in SOFT
    target = "Beams:idB = 1000822080" if nuclear else "Beams:idB = 2212"
    particular = HEAVY_ION if nuclear else (UNCHECKED,)
    return (*COMMON, f"Beams:eA = {energy!r}", target, *particular, *HARD[process], *extra)


def _initialised(lines: tuple[str, ...]) -> Any:
    """Return Pythia, initialised and as yet unused."""
    pythia = _module().Pythia("", False)
    for line in (*lines, START):
        if not pythia.readString(line):
            raise UserError(f"pythia: the setting {line!r} is not known to this version")
    require(pythia.init(), f"pythia: initialisation failed with {list(lines)}", GammastarError)
    return pythia


initialised = lru_cache(maxsize=4)(_initialised)
"""The same once for each setting, for copies of this process to generate with: each serves several pools."""


def _sound(particles: Mapping[str, Any], event: IntArray, n: int, energy: float) -> BoolArray:
    """Return True for the events on a proton at rest that conserve energy and momentum, shape (n,)."""
    beam = {"px": 0.0, "py": 0.0, "pz": np.sqrt(energy**2 - M_PROTON**2), "e": energy + M_PROTON}
    last = np.flatnonzero(particles["status"] > 0)
    lost = [np.bincount(event[last], particles[key][last], n) - total for key, total in beam.items()]
    return np.asarray(np.max(np.abs(lost), axis=0) < CONSERVED * energy, dtype=np.bool_)


def _batch(pythia: Any, n: int) -> tuple[IntArray, Mapping[str, Any], FloatArray]:
    """Return the event of every particle, the particles as flat arrays, and the weights of the events."""
    events = pythia.nextBatch(n, errorMode="skip")
    number, columns, weights = _arrays(events)
    if pythia.flag("Check:event"):
        return number, columns, weights
    sound = _sound(columns, number, len(weights), pythia.parm("Beams:eA"))
    return (number, columns, weights) if bool(sound.all()) else _arrays(events[sound])


def _arrays(events: Any) -> tuple[IntArray, Mapping[str, Any], FloatArray]:
    particles = events.prt
    counts = ak.to_numpy(ak.num(particles))
    flat = ak.flatten(particles)
    p = flat.p
    columns = {"id": ak.to_numpy(flat.id), "status": ak.to_numpy(flat.status)}
    columns |= {key: ak.to_numpy(p[key]) for key in ("px", "py", "pz", "e")}
    weights = ak.to_numpy(events.info.weights[:, 0]).astype(np.float64)
    return np.repeat(np.arange(len(counts)), counts), columns, weights


def _pt_y(columns: Mapping[str, Any], chosen: npt.NDArray[np.intp]) -> Arrays:
    px, py, pz, e = (columns[key][chosen] for key in ("px", "py", "pz", "e"))
    mt = np.sqrt(np.maximum((e - pz) * (e + pz), 1e-12))
    y = np.arcsinh(pz / mt)
    return {"pt": np.hypot(px, py).astype(np.float32), "y": y.astype(np.float32)}


def _soft(
    event: IntArray,
    columns: Mapping[str, Any],
    weights: FloatArray,
    mesons: tuple[int, ...] = MESONS,
    mothers: tuple[int, ...] = DECAYING,
    e_min: float = HADRON_E_MIN,
) -> Arrays:
    """Return mesons (pt, y, weight) by species and the hadrons that may give a single lepton."""
    pdg, status = columns["id"], columns["status"]
    arrays: Arrays = {}
    hadron = np.abs(status) > 80  # each hadron once, decayed or not
    for number in mesons:
        chosen = np.flatnonzero((pdg == number) & hadron)
        arrays |= {f"{number}_{key}": value for key, value in _pt_y(columns, chosen).items()}
        arrays[f"{number}_weight"] = weights[event[chosen]].astype(np.float32)
    size = np.abs(pdg)
    wanted = np.logical_or.reduce([size == number for number in mothers])
    chosen = np.flatnonzero(wanted & (status > 0) & (columns["e"] > e_min) & (columns["pz"] > 0))
    arrays["hadron_p"] = np.stack([columns[key][chosen] for key in ("px", "py", "pz")]).astype(np.float32)
    arrays["hadron_pdg"] = pdg[chosen].astype(np.int16)
    arrays["hadron_event"] = event[chosen].astype(np.int64)
    arrays["event_weight"] = weights
    return arrays


def _charm(event: IntArray, columns: Mapping[str, Any], weights: FloatArray) -> Arrays:
    """Return pairs of weakly decaying hadrons that hold c and c̄, in this order."""
    pdg = columns["id"]
    size = np.abs(pdg)
    chosen = np.flatnonzero(np.isin(size, CHARMED) & (np.abs(columns["status"]) > 80))
    chosen = chosen[np.lexsort((-pdg[chosen], event[chosen]))]  # the positive number first
    number = event[chosen]
    pairs = np.flatnonzero((number[1:] == number[:-1]) & (pdg[chosen][1:] < 0) & (pdg[chosen][:-1] > 0))
    first, second = chosen[pairs], chosen[pairs + 1]
    p = np.stack([columns[key][[first, second]] for key in ("px", "py", "pz", "e")])
    return {
        "charm_p": p.astype(np.float64),
        "charm_pdg": np.stack([pdg[first], pdg[second]]).astype(np.int32),
        "charm_weight": weights[event[first]],
        "event_weight": weights,
    }


def _drell_yan(event: IntArray, columns: Mapping[str, Any], weights: FloatArray) -> Arrays:
    """Return mass, pt and rapidity of the virtual photons after showers."""
    chosen = np.flatnonzero((columns["id"] == 23) & (columns["status"] == -62))
    px, py, pz, e = (columns[key][chosen] for key in ("px", "py", "pz", "e"))
    mass = np.sqrt(np.maximum(e**2 - px**2 - py**2 - pz**2, 0.0))
    return {
        "photon_mass": mass,
        **{f"photon_{key}": value for key, value in _pt_y(columns, chosen).items()},
        "photon_weight": weights[event[chosen]],
        "event_weight": weights,
    }


EXTRACT: Mapping[str, Callable[..., Arrays]] = {
    "soft": _soft,
    "electrons": partial(_soft, mesons=(*NEUTRAL, *MESONS), mothers=NEUTRAL, e_min=NEUTRAL_E_MIN),
    "charm": _charm,
    "drell_yan": _drell_yan,
}


def generate(
    lines: tuple[str, ...], process: Process, n: int, seed: int, index: int = 0, *, ready: Any = None
) -> Arrays:
    """Generate one share of events and keep what the mock needs."""
    require(n > 0, f"pythia: n = {n!r} events must be positive")
    pythia = _initialised(lines) if ready is None else ready
    pythia.rndm.init(int(stream(seed, "pythia", *lines, index).integers(1, HARDEST_SEED)))
    parts: list[Arrays] = []
    done = 0
    for start in range(0, n, BATCH):
        event, columns, weights = _batch(pythia, min(BATCH, n - start))
        arrays = EXTRACT[process](event, columns, weights)
        if "hadron_event" in arrays:
            arrays["hadron_event"] += done
        done += len(weights)
        parts.append(arrays)
    result = {key: np.concatenate([part[key] for part in parts], axis=-1) for key in parts[0]}
    result["sigma"] = np.array(float(pythia.infoPython().sigmaGen()))
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Hadrons of generated events."""

    arrays: Arrays  # As `generate` returns them
    process: Process
    system: System
    n_events: int  # Events that Pythia finished

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
    """A share: settings, process, events, seed and number."""

    lines: tuple[str, ...]
    process: Process
    n: int
    seed: int
    index: int

    def made(self, ready: Any = None) -> Arrays:
        """Generate the share."""
        return generate(self.lines, self.process, self.n, self.seed, self.index, ready=ready)


def _shares(jobs: Sequence[_Job], workers: int) -> Iterator[Arrays]:
    """Yield shares, each made by a copy of this process in which Pythia is ready and has made nothing yet."""
    if not COPIES or current_process().daemon:  # which may have no children
        yield from (job.made() for job in jobs)
        return
    context, ready = get_context("fork"), initialised(jobs[0].lines)
    running: deque[tuple[Any, Connection]] = deque()
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
            try:
                share: Arrays | Exception = running[0][1].recv()
            except EOFError as error:
                raise GammastarError(
                    f"pythia: process of share {job.index} was ended from outside; is there enough memory?"
                ) from error
            if isinstance(share, Exception):
                raise share
            yield share
            process, ours = running.popleft()
            process.join()
            ours.close()
    finally:
        for process, ours in running:
            process.terminate()
            process.join()
            ours.close()


def _send(pipe: Connection, job: _Job, ready: Any) -> None:
    """Make a share and send it, or the error that came instead."""
    try:
        pipe.send(job.made(ready))
    except Exception as error:  # noqa: BLE001 - raised where the share is wanted
        pipe.send(error)


def _joined(shares: Sequence[Arrays]) -> Arrays:
    """Return one set of arrays; event numbers run on, the cross section is the mean."""
    offset = 0
    for share in shares:
        if "hadron_event" in share:
            share["hadron_event"] = share["hadron_event"] + offset
        offset += len(share["event_weight"])
    keys = [key for key in shares[0] if key != "sigma"]
    joined = {key: np.concatenate([share[key] for share in shares], axis=-1) for key in keys}
    return joined | {"sigma": np.asarray(np.mean([share["sigma"] for share in shares]))}


def make_pool(
    card: Card,
    n: int,
    *,
    process: Process = "soft",
    seed: int | tuple[int, int] = 0,
    workers: int = 1,
    progress: Callable[[int, int], None] | None = None,
) -> Pool:
    """Generate at least `n` events with Pythia and keep their hadrons; a seed may name a block as well."""
    seed, block = seed if isinstance(seed, tuple) else (seed, 0)
    require(n > 0 and workers > 0, f"make_pool: n = {n!r} and workers = {workers!r} must be positive")
    options = card.pythia or PythiaCard()
    lines = settings(card.beam.energy, system=options.system, process=process, extra=options.settings)
    size = SHARE[options.system] if process in SOFT else SHARE["hard"]
    first = block * BLOCK_SHARES
    jobs = [_Job(lines, process, size, seed, i) for i in range(first, first - (-n // size))]
    shares = []
    for share in _shares(jobs, workers):
        shares.append(share)
        if progress is not None:
            progress(min(len(shares) * size, n), n)
    joined = _joined(shares)
    return Pool(joined, process, options.system, len(joined["event_weight"]))
