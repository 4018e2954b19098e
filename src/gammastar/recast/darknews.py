"""Decays of dark states as another generator (DarkNews) gives them: lepton pairs and analytic decay weights.

Files are read by `gammastar.store.darknews`. Decay positions of the files are one unforced draw each: decays
are placed with analytic weights instead, never with both.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import numpy.typing as npt
import vector

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Sample
from gammastar.physics.geometry import Volume

__all__ = ["MOMENTA", "DarkEvents", "DarkNewsSchema", "decay_probability", "load_schema"]

MOMENTA = ("parent", "daughter", "particle", "antiparticle")
TOLERANCE = 1e-5
"""Largest violation of momentum conservation relative to the energy of the parent."""


@dataclass(frozen=True, slots=True)
class DarkNewsSchema:
    """What columns and particles mean: the tables ``parquet``, ``hepmc`` and ``units`` of a TOML file."""

    parquet: Mapping[str, Any]
    hepmc: Mapping[str, Any]
    units: Mapping[str, float]


def load_schema(path: Path | None = None) -> DarkNewsSchema:
    """Return the schema of a TOML file, by default that of DarkNews 0.4."""
    if path is None:
        text = resources.files("gammastar.recast").joinpath("darknews.toml").read_text()
    else:
        text = path.read_text()
    tables = tomllib.loads(text)
    return DarkNewsSchema(tables["parquet"], tables["hepmc"], tables["units"])


@dataclass(frozen=True, slots=True, eq=False)
class DarkEvents:
    """Decays N → N' l+l− as a generator gave them (px, py, pz, E in GeV; lengths in m).

    Attributes
    ----------
    parent, daughter, particle, antiparticle : NDArray, shape (n, 4)
    origin : NDArray, shape (n, 3)
        Where the parent was produced.
    weight : NDArray, shape (n,)
        Their sum is the expected number of events, over all decay positions, for the whole exposure.

    Raises
    ------
    PhysicsError
        If a value is not finite or four-momentum is not conserved.
    """

    parent: FloatArray
    daughter: FloatArray
    particle: FloatArray
    antiparticle: FloatArray
    origin: FloatArray
    weight: FloatArray

    def __post_init__(self) -> None:
        arrays = [getattr(self, name) for name in (*MOMENTA, "origin", "weight")]
        if not all(np.isfinite(array).all() for array in arrays):
            msg = "DarkNews events: momenta, positions or weights hold values that are not finite"
            raise PhysicsError(msg)
        rest = self.parent - self.daughter - self.particle - self.antiparticle
        space = np.array(
            [((p := getattr(self, name))[:, :3] ** 2).sum(axis=1) - p[:, 3] ** 2 for name in MOMENTA]
        )
        scale = np.maximum(self.parent[:, 3], 1e-300)
        worst = np.maximum(np.abs(rest).max(axis=1) / scale, space.max(axis=0) / scale**2)
        if worst.size and worst.max() > TOLERANCE:
            index = int(worst.argmax())
            msg = (
                f"DarkNews event {index}: momentum conservation or a mass is off by {worst[index]:.2g} of "
                "the energy; check the order of the components in the schema"
            )
            raise PhysicsError(msg)

    def __len__(self) -> int:
        return len(self.weight)

    @property
    def mass(self) -> FloatArray:
        """Mass of the parent [GeV], shape (n,)."""
        square = self.parent[:, 3] ** 2 - (self.parent[:, :3] ** 2).sum(axis=1)
        return np.asarray(np.sqrt(np.clip(square, 0.0, None)))

    @property
    def relative_error(self) -> float:
        """Relative statistical error of the sum of weights."""
        return float(np.sqrt((self.weight**2).sum()) / self.weight.sum())

    def sample(self, pot: float) -> Sample:
        """Return the parents per proton on target; none lies in a measured domain.

        Parameters
        ----------
        pot : float
            Protons on target of the experiment that the weights refer to; the files do not tell.
        """
        p4 = vector.array(dict(zip(("px", "py", "pz", "E"), self.parent.T, strict=True)))
        return Sample(p4, self.weight / pot, self.origin, np.zeros(len(self), dtype=bool))

    def leptons(self, weight: FloatArray | None = None) -> ak.Array:
        """Return the lepton pairs as events for `gammastar.select.pairs`.

        Parameters
        ----------
        weight : NDArray, shape (n,), optional
            Replaces the weights, e.g. by weight × decay probability.
        """
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


def decay_probability(events: DarkEvents, volume: Volume, ctau: npt.ArrayLike) -> FloatArray:
    """Return the probability that each parent decays inside a volume.

    Parameters
    ----------
    events : DarkEvents
    volume : Volume
        From a detector card, in the frame of the events.
    ctau : array_like, shape () or (k,)
        Proper decay lengths [m]: the files do not tell them.

    Returns
    -------
    NDArray, shape (n,) or (k, n)
        e^(−entry/λ) − e^(−exit/λ) with λ = βγ cτ, zero where the line of flight misses. It replaces the decay
        positions of the file, which are one unforced draw each.
    """
    momentum = np.sqrt((events.parent[:, :3] ** 2).sum(axis=1))
    direction = events.parent[:, :3] / np.maximum(momentum, 1e-300)[:, None]
    entry, leave = volume.chord(events.origin, direction).T
    hit = np.isfinite(entry) & (momentum > 0)
    mean = np.asarray(ctau, dtype=np.float64)[..., None] * np.maximum(momentum / events.mass, 1e-300)
    first, last = (np.where(hit, np.maximum(length, 0.0), 0.0) for length in (entry, leave))
    return np.asarray(np.where(hit, np.exp(-first / mean) * -np.expm1(-(last - first) / mean), 0.0))
