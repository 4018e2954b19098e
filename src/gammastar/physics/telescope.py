"""A vertex telescope behind a thin target: where pairs decay, how well that is seen, where it is lost."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.core.documents import sourced_card
from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import Pairs, VertexPairs
from gammastar.core.records import FloatArray

COLUMNS = ("vertex_z", "vertex_distance", "vertex_impact", "angle", "cos_theta")
"""Of the pairs that the displaced search needs."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VertexTelescope:
    """Planes behind a target that measure a pair's vertex; lengths along the beam from the interaction."""

    name: str
    planes: tuple[float, ...]  # Places of the planes [m], increasing
    min_hits: int  # Planes behind the decay that must see each lepton
    hit_efficiency: float  # Of a plane
    # Largest distance from an interaction to the end of the target [m]; the search begins behind it
    target_end: float
    fiducial: tuple[float, float]  # Decays between these places are searched for [m]
    # Standard deviation of the transverse place of a track at the interaction, at high momentum [m]
    resolution: float
    scattering: float  # The part of it that falls with the momentum, σ = a ⊕ b/p [m GeV]
    # Standard deviations of the slopes of a track [rad], and of its momentum, relative
    slope: float
    momentum: float
    sources: dict[str, str]

    def __post_init__(self) -> None:
        first, last = self.fiducial
        _require(
            len(self.planes) > 0 and all(np.diff((0.0, *self.planes)) > 0),
            f"planes = {list(self.planes)} must be positive and increase",
        )
        _require(
            1 <= self.min_hits <= len(self.planes),
            f"min_hits = {self.min_hits} must lie between 1 and {len(self.planes)}, the number of planes",
        )
        _require(0 < self.hit_efficiency <= 1, f"hit_efficiency = {self.hit_efficiency:g} must lie in (0, 1]")
        _require(
            self.resolution > 0 and min(self.scattering, self.slope, self.momentum) >= 0,
            f"resolution = {self.resolution:g} m must be positive; scattering = {self.scattering:g} m GeV, "
            f"slope = {self.slope:g} rad and momentum = {self.momentum:g} must not be negative",
        )
        _require(
            0 <= self.target_end <= first,
            f"fiducial = {list(self.fiducial)} m begins inside the target, which ends at target_end = "
            f"{self.target_end:g} m: secondary interactions are no background that the pairs' tails tell of",
        )
        end = self.planes[-self.min_hits]
        _require(
            first < last <= end,
            f"fiducial = {list(self.fiducial)} m must increase and end before {end:g} m, behind which fewer "
            f"than min_hits = {self.min_hits} planes are left",
        )

    def efficiency_steps(self) -> tuple[FloatArray, FloatArray]:
        """Return the efficiency for pairs over that of pairs from the interaction, constant between planes.

        Notes
        -----
        Both leptons need `min_hits` of the planes behind the decay, each seen with `hit_efficiency`. That a
        lepton misses a plane at its edge or in its hole is not in here.
        """
        planes = np.array(self.planes)
        left = np.arange(len(planes), self.min_hits - 1, -1)
        from scipy.stats import binom

        track = binom.sf(self.min_hits - 1, left, self.hit_efficiency)
        return np.r_[0.0, planes[: len(left)]], np.asarray((track / track[0]) ** 2)


def _require(condition: bool, text: str) -> None:
    if not condition:
        msg = f"vertex telescope: {text}"
        raise PhysicsError(msg)


def load_telescope(path: Path) -> VertexTelescope:
    """Read the card of a vertex telescope: TOML with its attributes, each with a source."""
    return sourced_card(VertexTelescope, path, "vertex telescope")


@dataclass(frozen=True, slots=True, eq=False)
class _Errors:
    """Standard deviations of pairs [m]: of the vertex along the beam, of distance and impact there."""

    z: FloatArray
    distance: FloatArray
    impact: FloatArray


def _errors(telescope: VertexTelescope, pairs: Pairs, z: FloatArray, lepton_mass: float) -> _Errors:
    """Return what the telescope resolves of pairs that decay at z.

    Notes
    -----
    Two tracks whose slopes differ by α meet at z = −Δ·α̂/α, with Δ their distance at z = 0: σ_z² =
    (σ₁² + σ₂²)/α² with σ_i² = a² + (b/p_i)². The distance at the vertex adds z σ_slope of both tracks, the
    impact z α p₁p₂/(p₁ + p₂)² of both relative momenta, so that cuts on the pulls of both keep the same share
    of pairs wherever these decay; of the impact 4 % more at 4 cm: momenta widen one projection only. The
    momenta follow from E₁ − E₂ = |P| √(1 − 4m²/M²) cos θ.
    """
    angle = np.maximum(pairs.columns["angle"], 1e-12)
    momentum = np.sqrt(np.maximum(pairs.energy**2 - pairs.mass**2, 0.0))
    velocity = np.sqrt(np.maximum(1.0 - (2.0 * lepton_mass / pairs.mass) ** 2, 0.0))
    half = 0.5 * momentum * velocity * pairs.columns["cos_theta"]
    legs = [
        np.sqrt(np.maximum(e**2 - lepton_mass**2, 1e-12))
        for e in (0.5 * pairs.energy + half, 0.5 * pairs.energy - half)
    ]
    square = [telescope.resolution**2 + (telescope.scattering / p) ** 2 for p in legs]
    total = legs[0] + legs[1]
    mean = (legs[0] ** 2 * square[0] + legs[1] ** 2 * square[1]) / total**2
    lever = z * angle * legs[0] * legs[1] / total**2
    return _Errors(
        z=np.sqrt(square[0] + square[1]) / angle,
        distance=np.sqrt(square[0] + square[1] + 2.0 * (telescope.slope * z) ** 2),
        impact=np.sqrt(mean + 2.0 * (telescope.momentum * lever) ** 2),
    )


def measured_vertices(
    pairs: Pairs,
    weight: FloatArray,
    telescope: VertexTelescope,
    *,
    lepton_mass: float,
    unit: float,
    most: tuple[float, float] = (np.inf, np.inf),
) -> VertexPairs:
    """Return selected pairs as the displaced search takes them."""
    _require(unit > 0, f"unit = {unit:g} must be positive, metres per unit of the vertex columns")
    missing = [name for name in COLUMNS if name not in pairs.columns]
    _require(
        not missing,
        f"the pairs have no column {', '.join(missing)}; they have {', '.join(pairs.columns) or 'none'}. "
        "[select] vertex makes them from two lepton columns",
    )
    z, distance, impact = (unit * pairs.columns[name] for name in COLUMNS[:3])
    use = np.isfinite(z) & np.isfinite(distance) & (weight != 0)
    z = np.where(use, z, 0.0)
    error = _errors(telescope, pairs, z, lepton_mass)
    use &= (distance <= most[0] * error.distance) & (impact <= most[1] * error.impact) & (pairs.weight == 1)
    pz = np.sqrt(np.maximum(pairs.energy**2 - pairs.mass**2 - pairs.pt**2, 0.0))
    return VertexPairs(pairs.mass, pz, z, error.z, weight, ~pairs.os, use)


def simulated_vertices(
    rows: FloatArray, telescope: VertexTelescope, share: float, **options: Any
) -> VertexPairs | None:
    """Return simulated pairs that are in the data and no virtual photons, e.g. of open charm."""
    mass, pt, energy, *columns, weight, _ = rows
    if not len(weight):
        return None
    one = np.ones(len(weight))
    named = dict(zip(COLUMNS, columns, strict=True))
    pairs = Pairs(mass, pt, energy, np.zeros(len(one), np.int8), one, np.arange(len(one)), named)
    found = measured_vertices(pairs, weight, telescope, **options)
    rest = replace(found, weight=(1.0 - share) * found.weight, good=np.zeros(len(one), bool))
    return VertexPairs.concatenate([replace(found, weight=share * found.weight), rest])
