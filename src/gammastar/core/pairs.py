"""Lepton pairs as flat columns, and simulated pairs with their truth (GeV, rad)."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import require
from gammastar.core.records import BoolArray, FloatArray, IntArray, ReprMixin

ChargeArray = npt.NDArray[np.int8]

CHARGES = (-2, 0, 2)
Record = TypeVar("Record", "Pairs", "MatchedPairs", "VertexPairs")


def _taken(record: Record, mask: BoolArray | IntArray, *, whole: Collection[str] = ()) -> Record:
    """Return the rows of a mask or of indices, of the columns as well; fields named `whole` stay."""
    rows = {
        f.name: getattr(record, f.name)[mask] for f in fields(record) if f.name not in {"columns", *whole}
    }
    if hasattr(record, "columns"):
        rows["columns"] = {name: column[mask] for name, column in record.columns.items()}
    return replace(record, **rows)


def blank(n: int, kind: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return the entries of a column where there is no pair: not a number, 0 of integers, False."""
    return np.full(n, np.nan if kind.kind == "f" else 0, dtype=kind)


def _column(name: str, parts: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Return a column of all parts; integers whose bits no common type holds are refused."""
    filled = [part for part in parts if len(part)] or parts[:1]
    kinds = list(dict.fromkeys(part.dtype for part in filled))
    lossy = np.result_type(*kinds).kind == "f" and any(k.kind in "iu" and k.itemsize == 8 for k in kinds)
    text = f"column {name!r} is of types {', '.join(map(str, kinds))}, and no type holds the bits of all"
    require(not lossy, f"{text}; are the files of one production?")
    return np.concatenate(filled)


def _joined(parts: Sequence[Record], columns: Sequence[str] = ()) -> Record:
    """Return the rows of all parts in order, with these columns."""
    first = parts[0]
    names = [f.name for f in fields(first) if f.name != "columns"]
    rows: dict[str, Any] = {name: np.concatenate([getattr(p, name) for p in parts]) for name in names}
    if hasattr(first, "columns"):
        every: Any = parts
        rows["columns"] = {name: _column(name, [p.columns[name] for p in every]) for name in columns}
    return replace(first, **rows)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class Pairs(ReprMixin):
    """Lepton pairs of one flavour, one entry per pair."""

    # Invariant mass, momentum transverse to the beam and energy, (n,) [GeV]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    charge: ChargeArray  # Sum of the two charges: +2, 0 or -2, (n,)
    weight: FloatArray  # Weight of the event; prescales are included, (n,)
    event: IntArray  # Event identifier: pairs of one event share it and must be resampled together, (n,)
    # Further pair quantities, e.g. the opening angle ``angle`` [rad]; integers of the schema stay such, (n,)
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = np.shape(self.mass)
        require(len(shape) == 1, f"Pairs.mass has shape {shape}, expected one dimension")
        for name in ("pt", "energy", "charge", "weight", "event"):
            found = np.shape(getattr(self, name))
            require(found == shape, f"Pairs.{name} has shape {found}, expected {shape} as Pairs.mass")
        for name, column in self.columns.items():
            what = f"Pairs.columns[{name!r}] has shape {np.shape(column)}"
            require(np.shape(column) == shape, f"{what}, expected {shape} as Pairs.mass")
        wrong = ~np.isin(self.charge, CHARGES)
        found = np.unique(self.charge[wrong])
        require(not wrong.any(), f"Pairs.charge must be +2, 0 or -2 (sum of two charges), found {found}")

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def os(self) -> BoolArray:
        """True for opposite-sign pairs, shape (n,)."""
        return np.asarray(self.charge == 0)

    @property
    def pp(self) -> BoolArray:
        """True for ++ pairs, shape (n,)."""
        return np.asarray(self.charge == 2)

    @property
    def mm(self) -> BoolArray:
        """True for -- pairs, shape (n,)."""
        return np.asarray(self.charge == -2)

    def select(self, mask: BoolArray | IntArray) -> Pairs:
        """Return the pairs of a boolean mask or of an array of indices (repeats allowed)."""
        return _taken(self, mask)

    @staticmethod
    def empty(columns: Sequence[str] = ()) -> Pairs:
        """Return no pairs, with the named extra columns."""
        none = np.empty(0)
        sign, event = np.empty(0, np.int8), np.empty(0, np.int64)
        return Pairs(none, none, none, sign, none, event, dict.fromkeys(columns, none))

    @staticmethod
    def concatenate(parts: Sequence[Pairs]) -> Pairs:
        """Return the pairs of all parts in order; the parts must carry the same extra columns."""
        if not parts:
            return Pairs.empty()
        names = list(parts[0].columns)
        for part in parts[1:]:
            both = f"{sorted(names)} and {sorted(part.columns)}"
            require(set(part.columns) == set(names), f"Pairs.concatenate: extra columns differ, {both}")
        return _joined(parts, names)


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class MatchedPairs(ReprMixin):
    """Simulated virtual photons with the pair that was reconstructed from each."""

    true: FloatArray  # Generated (mass, pt, energy), (n, 3) [GeV]
    # Reconstructed (mass, pt, energy), (n, 3) [GeV]; nan where the pair was not reconstructed or not selected
    reco: FloatArray
    weight: FloatArray  # (n,)
    event: IntArray  # Event identifier for bootstraps, (n,)
    fakes: FloatArray  # Reconstructed opposite-sign pairs without a true partner, (m, 3) [GeV]
    fake_weight: FloatArray  # (m,)
    # Columns of the reconstructed pairs, e.g. ``cos_theta``, (n,), `blank` where there is none; or empty
    columns: Mapping[str, npt.NDArray[Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n, m = len(self.weight), len(self.fake_weight)
        for name, rows in (("true", n), ("reco", n), ("fakes", m)):
            found = np.shape(getattr(self, name))
            require(found == (rows, 3), f"MatchedPairs.{name} has shape {found}, expected {(rows, 3)}")
        events = np.shape(self.event)
        require(events == (n,), f"MatchedPairs.event has shape {events}, expected {(n,)}")
        for name, column in self.columns.items():
            found = np.shape(column)
            require(found == (n,), f"MatchedPairs.columns[{name!r}] has shape {found}, expected {(n,)}")
        require(bool(np.isfinite(self.true).all()), "MatchedPairs.true holds values that are not finite")
        broken = np.isfinite(self.reco).any(axis=1) != np.isfinite(self.reco).all(axis=1)
        require(not broken.any(), f"MatchedPairs.reco: {int(broken.sum())} rows are only partly nan")

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def reconstructed(self) -> BoolArray:
        """True where the true photon has a reconstructed pair, shape (n,)."""
        return np.asarray(np.isfinite(self.reco).all(axis=1))

    def select(self, mask: BoolArray | IntArray) -> MatchedPairs:
        """Return the true photons of a boolean mask or of indices; the fakes stay as they are."""
        return _taken(self, mask, whole=("fakes", "fake_weight"))

    @staticmethod
    def concatenate(parts: Sequence[MatchedPairs]) -> MatchedPairs:
        """Return all parts in order, with the columns that all of them carry."""
        if not parts:
            none = np.empty((0, 3))
            return MatchedPairs(none, none, np.empty(0), np.empty(0, np.int64), none, np.empty(0))
        names = [name for name in parts[0].columns if all(name in p.columns for p in parts)]
        return _joined(parts, names)


@dataclass(frozen=True, slots=True, eq=False)
class VertexPairs:
    """Measured pairs with the place along the beam at which their tracks meet."""

    mass: FloatArray  # (n,) [GeV]
    pz: FloatArray  # Momentum of the pair along the beam, (n,) [GeV]
    # Vertex from the interaction, positive behind it, and its standard deviation, (n,) [m]
    z: FloatArray
    sigma: FloatArray
    weight: FloatArray  # Signed: their sum over any region counts virtual photons, (n,)
    like: BoolArray  # Like-sign pairs, whose weights are negative, (n,)
    good: BoolArray  # Pairs that are searched; the others count for the rate of prompt pairs only, (n,)

    def __post_init__(self) -> None:
        shape = np.shape(self.mass)
        for name in ("pz", "z", "sigma", "weight", "like", "good"):
            found = np.shape(getattr(self, name))
            require(found == shape, f"VertexPairs.{name} has shape {found}, expected {shape}")
        require(
            bool(np.isfinite(self.z).all() and np.isfinite(self.sigma).all() and (self.sigma > 0).all()),
            "VertexPairs: z must be finite and sigma positive",
        )

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def pull(self) -> FloatArray:
        """Vertex over its standard deviation, shape (n,)."""
        return np.asarray(self.z / self.sigma)

    def select(self, mask: BoolArray | IntArray) -> VertexPairs:
        """Return the pairs of a boolean mask or of an array of indices."""
        return _taken(self, mask)

    @staticmethod
    def concatenate(parts: Sequence[VertexPairs]) -> VertexPairs:
        """Return the pairs of all parts, of which there is at least one, in order."""
        return _joined(parts)
