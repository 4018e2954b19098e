"""Events as files: ROOT trees, Parquet, LHE and HepMC3."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import uproot

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray
from gammastar.store.manifest import atomic

__all__ = ["SUFFIXES", "EventTable", "write_events", "write_tree"]

SUFFIXES = (".root", ".parquet", ".lhe", ".lhe.gz", ".hepmc", ".hepmc3")
GENERATION = 1_000_000  # rows of one Parquet row group


@dataclass(frozen=True, slots=True, eq=False)
class EventTable:
    """Particles, one per event, with their decays if they have any.

    Attributes
    ----------
    number : NDArray of int64, shape (n,)
        Number of the event.
    p4 : NDArray, shape (4, n) [GeV]
        px, py, pz, E; the beam is along z.
    mass : NDArray, shape (n,) [GeV]
    weight : NDArray, shape (n,)
    origin : NDArray, shape (3, n) [m]
        Production vertex; the target is at zero.
    pdg : int
        PDG number of the particle; 4900022, a hidden photon, by default.
    daughters : tuple of (int, NDArray of shape (4, n))
        PDG number and four-momenta of each daughter.
    decay : NDArray, shape (3, n) [m], or None
        Decay vertex; None: no decay, or one at the production vertex.
    """

    number: npt.NDArray[np.int64]
    p4: FloatArray
    mass: FloatArray
    weight: FloatArray
    origin: FloatArray
    pdg: int = 4900022
    daughters: tuple[tuple[int, FloatArray], ...] = ()
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
                msg = f"EventTable.{name} has shape {found[name]}, expected {shape}"
                raise UserError(msg)
        if not all(np.isfinite(a).all() for a in (self.p4, self.mass, self.weight, self.origin)):
            msg = "EventTable: momenta, masses, weights and vertices must be finite"
            raise UserError(msg)

    def __len__(self) -> int:
        return len(self.number)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """Return flat columns: GeV, metres, with ``d1_px`` … for the first daughter and so on."""
        names = ("px", "py", "pz", "E")
        columns: dict[str, npt.NDArray[Any]] = {"event": self.number}
        columns |= dict(zip(names, self.p4, strict=True))
        columns |= {"mass": self.mass, "weight": self.weight}
        columns |= {f"v{axis}": row for axis, row in zip("xyz", self.origin, strict=True)}
        if self.decay is not None:
            columns |= {f"decay_{axis}": row for axis, row in zip("xyz", self.decay, strict=True)}
        for i, (pdg, p4) in enumerate(self.daughters, start=1):
            columns |= {f"d{i}_{name}": row for name, row in zip(names, p4, strict=True)}
            columns[f"d{i}_pdg"] = np.full(len(self), pdg, dtype=np.int32)
        return columns


def write_events(path: Path, events: EventTable, *, beam_energy: float) -> None:
    """Write events in the format of the suffix, at once or not at all.

    Parameters
    ----------
    path : Path
        ``.root`` (tree "events"), ``.parquet``, ``.lhe``, ``.lhe.gz``, ``.hepmc`` or ``.hepmc3``.
    events : EventTable
    beam_energy : float
        Energy of the proton beam [GeV], for the headers.

    Raises
    ------
    UserError
        If the suffix is unknown, or the library of the format is not installed.
    StoreError
        If the file cannot be written.
    """
    suffix = next((s for s in sorted(SUFFIXES, key=len, reverse=True) if path.name.endswith(s)), None)
    if suffix is None:
        msg = f"{path}: the suffix is none of {', '.join(SUFFIXES)}"
        raise UserError(msg)
    if suffix == ".root":
        write_tree(path, {"events": events.columns()})
        return
    try:
        if suffix == ".parquet":
            _write_parquet(path, events, beam_energy)
            return
        from gammastar.store import events_generator

        if suffix.startswith(".lhe"):
            events_generator.write_lhe(path, events, beam_energy)
        else:
            events_generator.write_hepmc(path, events, beam_energy)
    except ImportError as error:
        msg = f"{path}: {suffix} needs the package {error.name}: pip install {error.name}"
        raise UserError(msg) from error


def _write_parquet(path: Path, events: EventTable, beam_energy: float) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(events.columns())
    notes = {"generator": "gammastar", "beam_energy_GeV": repr(beam_energy), "pdg": str(events.pdg)}
    with atomic(path) as temporary:
        pq.write_table(
            table.replace_schema_metadata(notes), temporary, compression="zstd", row_group_size=GENERATION
        )


def write_tree(path: Path, trees: Mapping[str, Mapping[str, Any]]) -> None:
    """Write flat and jagged arrays as TTrees, at once or not at all.

    Parameters
    ----------
    path : Path
    trees : mapping of tree name to mapping of branch name to array
        Jagged arrays of one collection are given as one record array per collection (``Muon``), which is
        written as ``nMuon`` and ``Muon_*``.
    """
    with atomic(path) as temporary, uproot.recreate(temporary, compression=uproot.ZLIB(4)) as file:
        for name, branches in trees.items():
            types = {key: getattr(array, "type", None) or array.dtype for key, array in branches.items()}
            types = {key: (kind.content if hasattr(kind, "content") else kind) for key, kind in types.items()}
            tree = file.mktree(name, types)
            tree.extend(dict(branches))
