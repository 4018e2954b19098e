"""Events as files: ROOT trees, Parquet, lists of particles, and the formats of generators by their suffix."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import awkward as ak
import numpy as np
import numpy.typing as npt
import uproot
from scipy.constants import c as SPEED_OF_LIGHT

from gammastar.core.errors import UserError, require
from gammastar.core.files import atomic
from gammastar.core.records import FloatArray, IntArray, Rng, Sample, divided
from gammastar.core.sampling import systematic
from gammastar.store.manifest import root_file

PROTON = 2212
MM = 1e3  # of a metre
PROCESS = 1  # process number in LHE files

Compression: TypeAlias = Literal["zstd", "zlib", "lz4", "lzma", "none"]
Layout: TypeAlias = Literal["ttree", "rntuple"]
LAYOUTS: tuple[str, ...] = get_args(Layout)
CODECS: Mapping[str, Callable[[], Any] | None] = {
    "zstd": partial(uproot.ZSTD, 5),
    "zlib": partial(uproot.ZLIB, 4),
    "lz4": partial(uproot.LZ4, 4),
    "lzma": partial(uproot.LZMA, 5),
    "none": None,
}
SUFFIXES = (".root", ".parquet", ".lhe", ".lhe.gz", ".hepmc", ".hepmc3")
GENERATION = 1_000_000  # rows of one Parquet row group


@dataclass(frozen=True, slots=True, eq=False)
class EventTable:
    """Particles, one per event, with their decays if they have any."""

    number: IntArray  # Number of the event, shape (n,)
    p4: FloatArray  # px, py, pz, E; the beam is along z, shape (4, n) [GeV]
    mass: FloatArray  # shape (n,) [GeV]
    weight: FloatArray  # shape (n,)
    origin: FloatArray  # Production vertex; the target is at zero, shape (3, n) [m]
    pdg: int = 4900022  # PDG number of the particle; 4900022, a hidden photon, by default
    # PDG number and four-momenta of each daughter, shape (4, n)
    daughters: tuple[tuple[int, FloatArray], ...] = ()
    # Decay vertex; None: no decay, or one at the production vertex, shape (3, n) [m]
    decay: FloatArray | None = None

    def __post_init__(self) -> None:
        n = len(self.number)
        shapes = {"p4": (4, n), "mass": (n,), "weight": (n,), "origin": (3, n)}
        found = {name: np.shape(getattr(self, name)) for name in shapes}
        if self.decay is not None:
            shapes["decay"], found["decay"] = (3, n), np.shape(self.decay)
        for i, (_, p4) in enumerate(self.daughters):
            shapes[f"daughters[{i}]"], found[f"daughters[{i}]"] = (4, n), np.shape(p4)
        for name, shape in shapes.items():
            if found[name] != shape:
                raise UserError(f"EventTable.{name} has shape {found[name]}, expected {shape}")
        numbers = [self.p4, self.mass, self.weight, self.origin, *(p4 for _, p4 in self.daughters)]
        numbers += [] if self.decay is None else [self.decay]
        if not all(np.isfinite(a).all() for a in numbers):
            raise UserError("EventTable: momenta, masses, weights and vertices must be finite")

    def __len__(self) -> int:
        return len(self.number)

    @property
    def decay_time(self) -> FloatArray:
        """Time of the decay after the production [s], shape (n,): distance over β c; 0 without one."""
        if self.decay is None:
            return np.zeros(len(self))
        distance = np.linalg.norm(self.decay - self.origin, axis=0)
        momentum = np.linalg.norm(self.p4[:3], axis=0)
        return divided(distance * self.p4[3], momentum * SPEED_OF_LIGHT)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return flat columns: GeV, metres, seconds, with ``d1_px`` … for the first daughter and so on."""
        names = ("px", "py", "pz", "E")
        columns: dict[str, npt.NDArray[Any]] = {"event": self.number}
        columns |= dict(zip(names, self.p4, strict=True))
        columns |= {"mass": self.mass, "weight": self.weight}
        columns |= {f"v{axis}": row for axis, row in zip("xyz", self.origin, strict=True)}
        if self.decay is not None:
            columns |= {f"decay_{axis}": row for axis, row in zip("xyz", self.decay, strict=True)}
            columns["decay_t"] = self.decay_time
        for i, (pdg, p4) in enumerate(self.daughters, start=1):
            columns |= {f"d{i}_{name}": row for name, row in zip(names, p4, strict=True)}
            columns[f"d{i}_pdg"] = np.full(len(self), pdg, dtype=np.int32)
        return columns


def write_events(
    path: Path,
    events: EventTable | Iterable[EventTable],
    *,
    beam_energy: float,
    total: tuple[float, float, float] | None = None,
) -> None:
    """Write events in the format of the suffix; the file appears when it is complete, or not at all."""
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s)), None)
    if suffix is None:
        raise UserError(f"{path}: the suffix is none of {', '.join(SUFFIXES)}")
    parts = [events] if isinstance(events, EventTable) else events
    if suffix == ".root":
        with tree_writer(path) as file:
            for part in parts:
                file.extend("events", part.columns())
        return
    try:
        if suffix == ".parquet":
            _write_parquet(path, parts, beam_energy)
            return
        if suffix.startswith(".hepmc"):
            write_hepmc(path, parts, beam_energy)
            return
        if isinstance(events, EventTable):
            w = events.weight
            total = (float(w.sum()), float((w**2).sum()), float(w.max(initial=0.0)))
        if total is None:
            raise UserError(f"{path}: the header of a Les Houches file needs the total of the weights")
        write_lhe(path, parts, beam_energy, total)
    except ImportError as error:
        raise UserError(f"{path}: {suffix} needs {error.name}: pip install {error.name}") from error


def _write_parquet(path: Path, parts: Iterable[EventTable], beam_energy: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with atomic(path) as temporary, contextlib.ExitStack() as stack:
        writer = None
        for part in parts:
            table = pa.table(part.columns())
            if writer is None:
                notes = {"generator": "gammastar", "beam_energy_GeV": repr(beam_energy), "pdg": str(part.pdg)}
                schema = table.schema.with_metadata(notes)
                writer = stack.enter_context(pq.ParquetWriter(temporary, schema, compression="zstd"))
            writer.write_table(table.cast(schema), row_group_size=GENERATION)


class TreeWriter:
    """Trees of a file that is being written, block by block: memory does not grow with the events."""

    def __init__(self, file: Any, layout: Layout) -> None:
        self._file, self._layout = file, layout
        self._trees: dict[str, Any] = {}

    def extend(self, name: str, branches: Mapping[str, Any]) -> None:
        """Append entries to a tree; the first call makes it."""
        columns = dict(branches) if self._layout == "ttree" else _flattened(branches)
        if name not in self._trees:
            types = {key: getattr(array, "type", None) or array.dtype for key, array in columns.items()}
            types = {key: (kind.content if hasattr(kind, "content") else kind) for key, kind in types.items()}
            make = self._file.mktree if self._layout == "ttree" else self._file.mkrntuple
            self._trees[name] = make(name, types if self._layout == "ttree" else columns)
            if self._layout == "rntuple":  # made with its first entries
                return
        self._trees[name].extend(columns)


def _flattened(branches: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of jagged records as fields of their own, with their counts."""
    columns: dict[str, Any] = {}
    for name, array in branches.items():
        members = getattr(array, "fields", [])
        if members:
            columns[f"n{name}"] = ak.to_numpy(ak.num(array)).astype(np.int32)
            columns |= {f"{name}_{member}": ak.to_packed(array[member]) for member in members}
        else:
            columns[name] = array
    return columns


@contextlib.contextmanager
def tree_writer(
    path: Path, *, compression: Compression = "zstd", layout: Layout = "ttree"
) -> Iterator[TreeWriter]:
    """Open a ROOT file for writing; it appears under its name when the block ends without an error."""
    for what, value, known in (("compression", compression, CODECS), ("layout", layout, LAYOUTS)):
        require(value in known, f"{path}: {what} = {value!r} is not one of {sorted(known)}", UserError)
    codec = CODECS[compression]
    with root_file(path, compression=codec() if codec else None) as file:
        yield TreeWriter(file, layout)


def write_tree(
    path: Path,
    trees: Mapping[str, Mapping[str, Any]],
    *,
    compression: Compression = "zstd",
    layout: Layout = "ttree",
) -> None:
    """Write flat and jagged arrays as TTrees or RNTuples, at once or not at all."""
    with tree_writer(path, compression=compression, layout=layout) as file:
        for name, branches in trees.items():
            file.extend(name, branches)


def write_histograms(path: Path, contents: Mapping[str, FloatArray]) -> None:
    """Write one-dimensional histograms of a ROOT file, at once or not at all."""
    with root_file(path) as file:
        for name, values in contents.items():
            file[name] = np.asarray(values, dtype=np.float64), np.arange(len(values) + 1, dtype=np.float64)


def unweighted(sample: Sample, n: int, rng: Rng) -> Sample:
    """Return `n` particles of equal weight, drawn systematically with the weights of a sample."""
    weight = np.asarray(sample.weight, dtype=np.float64)
    total = float(weight.sum())
    if n < 1 or (weight < 0).any() or not (np.isfinite(total) and total > 0):
        raise UserError(f"unweighted: {n} particles from weights that sum to {total!r}: none may be negative")
    index = systematic(weight, n, rng)
    return Sample(sample.p4[index], np.full(n, total / n), sample.origin[index], sample.in_domain[index])


def write_particle_list(path: Path, sample: Sample, n: int, rng: Rng, *, note: str) -> None:
    """Write unweighted particles as lines ``px py pz E x y z t`` (GeV, m, s) for BdNMC (arXiv:1609.01770)."""
    drawn = unweighted(sample, n, rng)
    p4 = drawn.p4
    columns = [p4.px, p4.py, p4.pz, p4.E, *drawn.origin.T, np.zeros(n)]
    table = np.stack([np.asarray(column, dtype=np.float64) for column in columns], axis=1)
    lines = " ".join(note.splitlines())
    total = f"{drawn.weight.sum():.9g} per proton on target and squared coupling"
    header = f"{lines}; {total}\npx py pz E x y z t"
    with atomic(path) as temporary:
        np.savetxt(temporary, table, fmt="%.9g", header=header, comments="# ", encoding="utf-8")


def _daughter_mass(p4: FloatArray) -> FloatArray:
    mass: FloatArray = np.sqrt(np.maximum(p4[3] ** 2 - (p4[:3] ** 2).sum(axis=0), 0.0))
    return mass


def _particle(pdg: int, status: int, mother: int, p4: FloatArray, mass: float, proper: float) -> Any:
    import pylhe

    px, py, pz, energy = (float(x) for x in p4)
    momentum = {"px": px, "py": py, "pz": pz, "e": energy, "m": mass}
    unknown = 9.0  # spin
    line: dict[str, Any] = {"color1": 0, "color2": 0, "lifetime": proper, "spin": unknown, **momentum}
    return pylhe.LHEParticle(id=pdg, status=status, mother1=mother, mother2=mother, **line)


def _lhe_events(events: EventTable) -> Iterator[Any]:
    import pylhe

    proper = np.zeros(len(events))  # decay length [mm]: distance times mass over momentum
    if events.decay is not None:
        distance = np.linalg.norm(events.decay - events.origin, axis=0)
        proper = divided(MM * distance * events.mass, np.linalg.norm(events.p4[:3], axis=0))
    masses = [_daughter_mass(p4) for _, p4 in events.daughters]
    status = 2 if events.daughters else 1
    for i in range(len(events)):
        mass = float(events.mass[i])
        particles = [_particle(events.pdg, status, 0, events.p4[:, i], mass, float(proper[i]))]
        for (pdg, p4), light in zip(events.daughters, masses, strict=True):
            particles.append(_particle(pdg, 1, 1, p4[:, i], float(light[i]), 0.0))
        about = {"weight": float(events.weight[i]), "scale": mass, "aqed": -1.0, "aqcd": -1.0}
        info = pylhe.LHEEventInfo(nparticles=len(particles), pid=PROCESS, **about)
        vertex = " ".join(f"{MM * float(x):.9g}" for x in events.origin[:, i])
        note = f"# event {int(events.number[i])} vertex_mm {vertex}"
        yield pylhe.LHEEvent(eventinfo=info, particles=particles, optional=[note])


def write_lhe(
    path: Path, parts: Iterable[EventTable], beam_energy: float, total: tuple[float, float, float]
) -> None:
    """Write a Les Houches file of weights (strategy 4); `total` holds Σw, Σw² and the largest w."""
    import pylhe

    error = float(np.sqrt(total[1]))
    init = pylhe.LHEInit(
        initInfo=pylhe.LHEInitInfo(PROTON, PROTON, beam_energy, 0.0, 0, 0, 0, 0, 4, 1),
        procInfo=[pylhe.LHEProcInfo(total[0], error, total[2], PROCESS)],
        generators=[pylhe.LHEGenerator(name="gammastar", version="1", description="from measured dileptons")],
    )
    listed = itertools.chain.from_iterable(map(_lhe_events, parts))
    content = pylhe.LHEFile(init=init, events=listed, version="3.0")
    with atomic(path) as temporary:
        content.tofile(str(temporary))


def write_hepmc(path: Path, parts: Iterable[EventTable], beam_energy: float) -> None:
    """Write HepMC3 ASCII [GeV, mm]: beam proton → particle → daughters; the beam balances nothing."""
    import pyhepmc

    run = pyhepmc.GenRunInfo()
    run.weight_names = ["weight"]
    with atomic(path) as temporary, pyhepmc.open(str(temporary), "w") as file:
        for part in parts:
            for event in _hepmc_events(part, beam_energy, run):
                file.write(event)


def _hepmc_events(events: EventTable, beam_energy: float, run: Any) -> Iterator[Any]:
    import pyhepmc

    decay = events.origin if events.decay is None else events.decay
    masses = [_daughter_mass(p4) for _, p4 in events.daughters]
    for i in range(len(events)):
        event = pyhepmc.GenEvent(run, pyhepmc.Units.GEV, pyhepmc.Units.MM)
        event.event_number = int(events.number[i])
        event.weights = [float(events.weight[i])]
        beam = pyhepmc.GenParticle(_four(np.array([0.0, 0.0, beam_energy, beam_energy])), PROTON, 4)
        dark = pyhepmc.GenParticle(_four(events.p4[:, i]), events.pdg, 2 if events.daughters else 1)
        dark.generated_mass = float(events.mass[i])
        first = pyhepmc.GenVertex(_place(events.origin[:, i], 0.0))
        first.add_particle_in(beam)
        first.add_particle_out(dark)
        event.add_vertex(first)
        if events.daughters:
            distance = float(np.linalg.norm(decay[:, i] - events.origin[:, i]))
            speed = float(np.linalg.norm(events.p4[:3, i]) / events.p4[3, i])
            second = pyhepmc.GenVertex(_place(decay[:, i], distance / speed if speed > 0 else 0.0))
            second.add_particle_in(dark)
            for (pdg, p4), mass in zip(events.daughters, masses, strict=True):
                lepton = pyhepmc.GenParticle(_four(p4[:, i]), pdg, 1)
                lepton.generated_mass = float(mass[i])
                second.add_particle_out(lepton)
            event.add_vertex(second)
        yield event


def _four(p4: FloatArray) -> Any:
    import pyhepmc

    return pyhepmc.FourVector(*(float(x) for x in p4))


def _place(position: FloatArray, time: float) -> Any:
    """Return a vertex in mm; c·t counts from the production."""
    import pyhepmc

    return pyhepmc.FourVector(*(MM * float(x) for x in position), MM * time)
