"""Decays of dark states as another generator (DarkNews) gives them: lepton pairs and analytic decay weights.

Files are read by `darknews_files`. Decay positions of the files are one unforced draw each: decays
are placed with analytic weights instead, never with both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import from_toml
from gammastar.core.records import FloatArray, Momenta, Sample
from gammastar.physics.geometry import Volume

MOMENTA = ("parent", "daughter", "particle", "antiparticle")
TOLERANCE = 1e-5  # largest violation of momentum conservation relative to the energy of the parent
SAME_MASS = 1e-4  # relative difference up to which two parents are one state, rounding of momenta on top
NAMED = 4  # masses that a message names


@dataclass(frozen=True, slots=True)
class DarkNewsSchema:
    """What columns and particles mean: the tables ``parquet``, ``hepmc`` and ``units`` of a TOML file."""

    parquet: Mapping[str, Any]
    hepmc: Mapping[str, Any]
    units: Mapping[str, float]


def load_schema(path: Path | None = None) -> DarkNewsSchema:
    """Return the schema of a TOML file, by default that of DarkNews 0.4."""
    shipped = Path(__file__).with_name("darknews.toml")
    try:
        tables = from_toml(shipped.read_text() if path is None else path)
        return DarkNewsSchema(tables["parquet"], tables["hepmc"], tables["units"])
    except (OSError, ValueError, KeyError) as error:
        raise InputFileError(
            f"{path}: is no schema of events with parquet, hepmc and units ({error})"
        ) from error


@dataclass(frozen=True, slots=True, eq=False)
class DarkEvents:
    """Decays N → N' l+l− as a generator gave them (px, py, pz, E in GeV; lengths in m)."""

    # shape (n, 4)
    parent: FloatArray
    daughter: FloatArray
    particle: FloatArray
    antiparticle: FloatArray
    origin: FloatArray  # Where the parent was produced, shape (n, 3)
    # Their sum is the expected number of events, over all decay positions, for the whole exposure, shape (n,)
    weight: FloatArray

    def __post_init__(self) -> None:
        arrays = [getattr(self, name) for name in (*MOMENTA, "origin", "weight")]
        if not all(np.isfinite(array).all() for array in arrays):
            raise PhysicsError(
                "DarkNews events: momenta, positions or weights hold values that are not finite"
            )
        if (self.weight < 0).any():
            index = int(self.weight.argmin())
            raise PhysicsError(
                f"DarkNews event {index}: weight {self.weight[index]:g}; no number of events is negative"
            )
        rest = self.parent - self.daughter - self.particle - self.antiparticle
        space = np.array(
            [((p := getattr(self, name))[:, :3] ** 2).sum(axis=1) - p[:, 3] ** 2 for name in MOMENTA]
        )
        scale = np.maximum(self.parent[:, 3], 1e-300)
        worst = np.maximum(np.abs(rest).max(axis=1) / scale, space.max(axis=0) / scale**2)
        if worst.size and worst.max() > TOLERANCE:
            index = int(worst.argmax())
            raise PhysicsError(
                f"DarkNews event {index}: momentum conservation or a mass is off by {worst[index]:.2g} of "
                "the energy; check the order of the components in the schema"
            )

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def mass(self) -> FloatArray:
        """Mass of the parent [GeV], shape (n,)."""
        square = self.parent[:, 3] ** 2 - (self.parent[:, :3] ** 2).sum(axis=1)
        return np.asarray(np.sqrt(np.clip(square, 0.0, None)))

    @property
    def parents(self) -> FloatArray:
        """Masses of the decaying states in the file, increasing [GeV], shape (p,): a file may mix several."""
        return self._grouped()[0]

    def _grouped(self) -> tuple[FloatArray, npt.NDArray[np.int64]]:
        """Return the masses of the states, and which of them each event holds."""
        if not len(self):
            return np.empty(0), np.empty(0, dtype=np.int64)
        order = np.argsort(self.mass)
        mass = self.mass[order]
        # m² = E² − p² is known to some 1e-15 E²
        rounding = 1e-14 * self.parent[order, 3] ** 2 / np.maximum(mass, 1e-300)
        width = np.maximum(SAME_MASS * mass, rounding)
        state = np.concatenate([[0], np.cumsum(np.diff(mass) > np.maximum(width[1:], width[:-1]))])
        group = np.empty(len(self), dtype=np.int64)
        group[order] = state
        return np.asarray(np.bincount(state, mass) / np.bincount(state), dtype=np.float64), group

    def per_parent(self, ctau: npt.ArrayLike) -> FloatArray:
        """Return the proper decay length of each event, shape (1, n) or (k, n) [m]."""
        masses, group = self._grouped()
        values = np.atleast_2d(np.asarray(ctau, dtype=np.float64))
        if values.ndim != 2 or values.shape[1] != len(masses):
            raise PhysicsError(
                f"DarkNews: {_several(masses)}; ctau of shape {np.shape(ctau)} must have one of each"
            )
        return np.asarray(values[:, group])

    def of_parent(self, mass: float) -> DarkEvents:
        """Return the events of one of the `parents`, the one of this mass [GeV]."""
        masses, group = self._grouped()
        nearest = int(np.argmin(np.abs(masses - mass))) if len(masses) else 0
        if not len(masses) or not abs(masses[nearest] - mass) <= 0.01 * masses[nearest]:
            raise PhysicsError(f"DarkNews: {_several(masses)}, none of {mass!r} GeV")
        keep = group == nearest
        return DarkEvents(*(getattr(self, name)[keep] for name in (*MOMENTA, "origin", "weight")))

    @property
    def relative_error(self) -> float:
        """Relative statistical error of the sum of weights."""
        return float(np.sqrt((self.weight**2).sum()) / self.weight.sum())

    def sample(self, pot: float) -> Sample:
        """Return the parents per proton on target; none lies in a measured domain."""
        if len(self.parents) > 1:
            raise PhysicsError(
                f"DarkNews: {_several(self.parents)}, but a sample has one mass; take of_parent(mass)"
            )
        p4 = Momenta(*self.parent.T)
        return Sample(p4, self.weight / pot, self.origin, np.zeros(len(self), dtype=bool))

    def leptons(self, weight: FloatArray | None = None) -> ak.Array:
        """Return the lepton pairs as events for `gammastar.select.pairing`."""
        both = np.stack([self.particle, self.antiparticle], axis=1)
        square = both[..., 3] ** 2 - (both[..., :3] ** 2).sum(axis=-1)
        muons = square > (0.5 * LEPTON_MASS["mu"]) ** 2
        columns = {name: both[..., k] for k, name in enumerate(("px", "py", "pz"))}
        columns["mass"] = np.where(muons, LEPTON_MASS["mu"], LEPTON_MASS["e"])
        columns["charge"] = np.broadcast_to([-1.0, 1.0], columns["mass"].shape)
        fields = {
            "lepton": ak.zip({name: ak.from_regular(ak.Array(value)) for name, value in columns.items()}),
            "event": ak.Array(np.arange(len(self), dtype=np.int64)),
            "weight": ak.Array(self.weight if weight is None else weight),
        }
        return ak.zip(fields, depth_limit=1)


def _several(masses: FloatArray) -> str:
    """Name the parents of a file."""
    shown = ", ".join(f"{mass:.6g}" for mass in masses[:NAMED])
    more = f" … and {len(masses) - NAMED} more" if len(masses) > NAMED else ""
    return f"{len(masses)} parents of {shown}{more} GeV"


def decay_probability(events: DarkEvents, volume: Volume, ctau: npt.ArrayLike) -> FloatArray:
    """Return the probability that each parent decays inside a volume."""
    proper = np.asarray(ctau, dtype=np.float64)
    if not (proper > 0).all():
        raise PhysicsError(f"decay_probability: ctau = {proper[~(proper > 0)].flat[0]:g} m must be positive")
    if proper.ndim > 2 or (proper.ndim == 2 and proper.shape[1] != len(events)):
        raise PhysicsError(
            f"decay_probability: ctau of shape {proper.shape}, expected (), (k,) or (k, {len(events)})"
        )
    if proper.ndim < 2 and len(events.parents) > 1:
        raise PhysicsError(
            f"decay_probability: {_several(events.parents)}, but one ctau for all of them; give "
            "events.per_parent([…]), one per parent in this order"
        )
    momentum = np.sqrt((events.parent[:, :3] ** 2).sum(axis=1))
    direction = events.parent[:, :3] / np.maximum(momentum, 1e-300)[:, None]
    entry, leave = volume.chord(events.origin, direction).T
    hit = np.isfinite(entry) & (momentum > 0)
    each = proper if proper.ndim == 2 else proper[..., None]
    mean = each * np.maximum(momentum / events.mass, 1e-300)
    first, last = (np.where(hit, np.maximum(length, 0.0), 0.0) for length in (entry, leave))
    return np.asarray(np.where(hit, np.exp(-first / mean) * -np.expm1(-(last - first) / mean), 0.0))
