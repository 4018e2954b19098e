"""Detectors as data, TOML files with a source for every number; the mass resolution of measured pairs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, TypeAdapter
from scipy.special import ndtr

from gammastar.core.errors import InputFileError, PhysicsError, PortabilityError, SteeringError, require
from gammastar.core.files import Pathlike, filled_in, from_toml, name_of, sourced_card, sources_of, validated
from gammastar.core.pairs import Pairs, VertexPairs
from gammastar.core.records import Exposure, FloatArray
from gammastar.physics.geometry import Volume

GROUPS = 40  # of simulated pairs in order of true mass, at most
FINEST = 1 / 150  # of the range of masses: groups are no narrower
LEAST = 30  # reconstructed pairs of a group
SHAPES, TAILS = 12, 2000  # of the shape of the resolution: groups at most, and reconstructed pairs of each
LEVELS = np.concatenate([[0.0], ndtr(np.linspace(-4.0, 4.0, 321)), [1.0]])
STEP = 0.02  # of the masses of a folding, in resolutions
LOWEST = 1e-3  # GeV, of the true masses of a folding; 2 m_e
MOST = 2000  # resolutions of a search: its bins follow from them
FINE = 5e-4  # GeV: the φ is 4 MeV wide


@dataclass(frozen=True, slots=True, eq=False)
class MassResolution:
    """How pairs of one true mass are spread over reconstructed masses."""

    # True masses [GeV]; in between everything is interpolated, outside it stays as at the ends, shape (n,)
    mass: FloatArray
    width: FloatArray  # Half of the central 68 % [GeV], shape (n,)
    shift: FloatArray  # Median of reconstructed minus true mass [GeV], shape (n,)
    # Reconstructed and selected pairs per true one; only its dependence on the mass counts in situ, shape
    # (n,)
    efficiency: FloatArray
    # Distribution function of (reconstructed − true − shift)/width at each mass, shape (n, k), or the one and
    # same at all, (k,): tails near threshold are not those of ω and φ
    pull: FloatArray
    level: FloatArray
    efficiency_error: FloatArray  # Relative, of a finite simulation, shape (n,)

    def __post_init__(self) -> None:
        if not (np.diff(self.mass) > 0).all() or not (np.isfinite(self.width) & (self.width > 0)).all():
            raise PhysicsError(
                f"mass resolution: widths {self.width} must be positive, masses {self.mass} must increase"
            )

    @classmethod
    def gaussian(cls, mass: npt.ArrayLike, width: npt.ArrayLike) -> MassResolution:
        """Return normal distributions of given standard deviations [GeV], with a flat efficiency."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        sigma = np.broadcast_to(np.asarray(width, dtype=np.float64), m.shape)
        pull = np.linspace(-6.0, 6.0, 601)
        none = np.zeros(len(m))
        return cls(m, sigma, none, np.ones(len(m)), pull, ndtr(pull), none)

    def sigma(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the width at true masses [GeV]."""
        return np.asarray(np.interp(np.asarray(mass, dtype=np.float64), self.mass, self.width))

    def efficiency_at(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the efficiency at true masses."""
        return np.asarray(np.interp(np.asarray(mass, dtype=np.float64), self.mass, self.efficiency))

    def cells(self, mass: npt.ArrayLike, edges: npt.ArrayLike) -> FloatArray:
        """Return the part of the selected pairs of a true mass in each bin of reconstructed mass."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))[:, None]
        centre = m + np.interp(m, self.mass, self.shift)
        pull = (np.asarray(edges, dtype=np.float64)[None, :] - centre) / self.sigma(m)
        rows = np.atleast_2d(self.pull)
        place = np.interp(m[:, 0], self.mass, np.arange(len(self.mass)) if len(rows) > 1 else 0.0 * self.mass)
        below = np.zeros_like(pull)
        for i, row in enumerate(rows):
            share = np.clip(1.0 - np.abs(place - i), 0.0, None)
            own = share > 0
            below[own] += share[own, None] * np.interp(pull[own], row, self.level, left=0.0, right=1.0)
        return np.diff(below, axis=1)

    def folded(self, density: Callable[[FloatArray], FloatArray], edges: npt.ArrayLike) -> FloatArray:
        """Return the selected pairs in bins of reconstructed mass of a density of true ones, shape (n,)."""
        e = np.asarray(edges, dtype=np.float64)
        reach = 6.0 * float(self.width.max())
        low, high = max(e[0] - reach, LOWEST), e[-1] + reach
        even = np.arange(low, high, min(FINE, STEP * float(self.width.max())))
        grid = np.unique(np.concatenate([even, np.geomspace(low, high, 400), [high]]))
        selected = (density(grid) * self.efficiency_at(grid))[:, None] * self.cells(grid, e)
        return np.asarray(np.trapezoid(selected, grid, axis=0))

    def scaled(self, factor: float = 1.0, scale: float = 1.0) -> MassResolution:
        """Return the resolution with widths times `factor`, reconstructed masses times `scale`."""
        return replace(self, width=factor * self.width, shift=self.shift + (scale - 1.0) * self.mass)

    def steps(self, low: float, high: float, per_width: float) -> FloatArray:
        """Return edges from `low` to `high` [GeV] at equal parts of the resolution, about 1/`per_width`."""
        grid = np.linspace(low, high, 4001)
        passed = np.concatenate([[0.0], np.cumsum(np.diff(grid) / self.sigma(0.5 * (grid[1:] + grid[:-1])))])
        if passed[-1] > MOST:
            raise PhysicsError(
                f"in_situ.resolution: {passed[-1]:.3g} widths lie between {low:g} and {high:g} GeV, at most "
                f"{MOST} are searched: give the width in GeV, or fewer masses"
            )
        n = max(int(np.ceil(per_width * passed[-1])), 1)
        return np.asarray(np.interp(np.linspace(0.0, passed[-1], n + 1), passed, grid))


def _quantile(values: FloatArray, weight: FloatArray, level: FloatArray) -> FloatArray:
    order = np.argsort(values)
    sums = np.cumsum(weight[order])
    return np.asarray(np.interp(level, (sums - 0.5 * weight[order]) / sums[-1], values[order]))


def measured_resolution(
    true: FloatArray, reco: FloatArray, weight: FloatArray, photons: FloatArray | None = None
) -> MassResolution:
    """Return the resolution of simulated pairs; the efficiency is per weight of `photons`, or of the same.

    In groups of equally many reconstructed pairs in order of true mass: the median and half the central 68 %
    of reconstructed minus true mass, which tails do not move; the shape in fewer groups, where tails are
    known, and straight between them. One shape for all would give ω and φ the tails of pairs near threshold.
    """
    seen = np.isfinite(reco) & (weight > 0)
    if int(seen.sum()) < LEAST:
        raise PhysicsError(
            f"mass resolution: {int(seen.sum())} simulated pairs are reconstructed, at least {LEAST} are "
            "needed; simulate more, or give in_situ.resolution as numbers"
        )
    m, moved, w = true[seen], (reco - true)[seen], weight[seen]
    groups = min(GROUPS, max(int(len(m) / LEAST / 2), 1))
    cuts = np.quantile(m, np.linspace(0.0, 1.0, groups + 1))
    narrow = FINEST * (cuts[-1] - cuts[0])
    edges = [cuts[0]]
    for cut in cuts[1:-1]:
        if cut - edges[-1] >= narrow and cuts[-1] - cut >= narrow:
            edges.append(cut)
    rows = []
    for low, high in pairwise([*edges, np.nextafter(cuts[-1], np.inf)]):
        own = (m >= low) & (m < high)
        if own.sum() < LEAST:
            continue
        left, centre, right = _quantile(moved[own], w[own], ndtr([-1.0, 0.0, 1.0]))
        there = float((weight if photons is None else photons)[(true >= low) & (true < high)].sum())
        if not there > 0:
            continue
        found, error = w[own].sum(), np.sqrt(np.sum(w[own] ** 2))
        middle = np.average(m[own], weights=w[own])
        rows.append((middle, 0.5 * (right - left), centre, found / there, error / found))
    require(rows, "mass resolution: photons of no mass weigh more than zero: see the spectrum")
    mass, width, shift, efficiency, error = np.array(rows).T
    pull = (moved - np.interp(m, mass, shift)) / np.interp(m, mass, width)
    parts = np.array_split(np.argsort(m), int(np.clip(len(m) // TAILS, 1, SHAPES)))
    centres = [np.average(m[part], weights=w[part]) for part in parts]
    levels = np.array([_quantile(pull[part], w[part], LEVELS) for part in parts])
    at_mass = np.stack([np.interp(mass, centres, level) for level in levels.T], axis=1)
    quantiles = np.maximum.accumulate(at_mass + 1e-9 * np.arange(len(LEVELS)), axis=1)
    return MassResolution(mass, width, shift, efficiency, quantiles, LEVELS, error)


DUMP = 1.0  # interaction lengths: nothing is seen out of a target as thick as this
FLAGS = frozenset({"volume.spherical", "illustrative"})  # keys that are true or false
Scaling: TypeAlias = Literal["per_interaction", "power"]
STRICT = ConfigDict(extra="forbid", allow_inf_nan=True)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the beam interacts."""

    # Mass and atomic number
    a: float
    z: float
    thickness: float  # In nuclear interaction lengths; inf for a dump that stops every proton
    # Centre of production in the frame of the planes [m]; the only place that holds it
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        for name in ("a", "z", "thickness"):
            require(getattr(self, name) > 0, f"target.{name} = {getattr(self, name)!r} must be positive")
        place = self.position
        require(all(map(math.isfinite, place)), f"target.position = {place!r} m must be finite")

    @property
    def interaction_probability(self) -> float:
        """Probability that a proton interacts, 1 − exp(−thickness)."""
        return -math.expm1(-self.thickness)


COLLISION = Target(1.0, 1.0, math.inf)
"""The point of a collider where beams meet, in the place of a target: every collision makes particles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposed:
    """What a detector sees of a beam: a target and protons on it, or the luminosity of a collider."""

    target: Target = COLLISION
    pot: float | None = None  # Protons on target
    # Integrated luminosity of a collider [1/pb], in the place of `pot`; particles then count by their cross
    # section [pb], and no `target` is needed
    luminosity: float | None = None

    def __post_init__(self) -> None:
        both = (("pot", self.pot), ("luminosity", self.luminosity))
        given = {name: value for name, value in both if value is not None}
        require(
            len(given) == 1,
            "give either pot, the protons on target, or luminosity [1/pb], the integrated one of a collider; "
            f"found {' and '.join(given) or 'none of them'}",
        )
        for name, value in given.items():
            require(math.isfinite(value) and value > 0, f"{name} = {value!r} must be positive")
        target = self.pot is None or self.target is not COLLISION
        require(target, "target: protons on target need the target they hit")

    @property
    def exposure(self) -> float:
        """Protons on target, or the luminosity [1/pb]: events over what a rate counts in."""
        return float(self.pot if self.luminosity is None else self.luminosity)  # type: ignore[arg-type]

    @property
    def exposure_text(self) -> str:
        """Protons on target or luminosity as words."""
        if self.luminosity is None:
            return f"{self.pot:.3g} protons on target"
        return f"{self.luminosity / 1e3:.4g} /fb"


class DetectorLike(Protocol):
    """A detector with its beam and target, of whatever kind."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def beam_energy(self) -> float:
        """Energy of the beam [GeV]."""

    @property
    def target(self) -> Target:
        """Where the beam interacts."""


@dataclass(frozen=True, slots=True)
class Plane:
    """A plane that both leptons must cross inside the aperture."""

    name: str
    z: float  # [m]
    # Half-widths [m]
    half_x: float = math.inf
    half_y: float = math.inf
    octagon: float = math.inf  # Upper limit on |x| + |y| [m]
    # Limits on the distance from the centre [m]
    r_min: float = 0.0
    r_max: float = math.inf
    # Centre [m]
    x: float = 0.0
    y: float = 0.0
    min_separation: float = 0.0  # Smallest distance of the two leptons [m]
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        for name in ("z", "x", "y"):
            value = getattr(self, name)
            require(math.isfinite(value), f"plane {self.name!r}: {name} = {value!r} must be finite")
        for name in ("half_x", "half_y", "octagon", "r_max"):
            value = getattr(self, name)
            require(value > 0, f"plane {self.name!r}: {name} = {value!r} must be positive")
        low, high = self.r_min, self.r_max
        require(0 <= low < high, f"plane {self.name!r}: 0 <= r_min < r_max needed, got {low!r}, {high!r}")


@dataclass(frozen=True, slots=True)
class Magnet:
    """A thin dipole that changes p_x by ± kick × charge."""

    z: float  # [m]
    kick: float  # Change of the transverse momentum of a unit charge [GeV]
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        for name in ("z", "kick"):
            value = getattr(self, name)
            require(math.isfinite(value), f"magnet.{name} = {value!r} must be finite")


@dataclass(frozen=True, slots=True)
class LeptonCuts:
    """Smallest momentum of each lepton, smallest and largest sum of energies [GeV]."""

    min_momentum: float = 0.0  # Of each lepton [GeV]
    # Of both leptons [GeV]
    min_energy_sum: float = 0.0
    max_energy_sum: float = math.inf
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        for name in ("min_momentum", "min_energy_sum"):
            value = getattr(self, name)
            require(0 <= value < math.inf, f"cuts.{name} = {value!r} GeV must be finite, not negative")
        low, high = self.min_energy_sum, self.max_energy_sum
        require(low < high, f"cuts: nothing lies between energy sums of {low!r} and {high!r} GeV")


@dataclass(frozen=True, slots=True, kw_only=True)
class Detector(Exposed):
    """A beam dump or fixed-target detector."""

    name: str
    source: str
    beam_energy: float  # [GeV]
    volume: Volume  # Where decays count
    # Whether the line of the long-lived particle alone decides, or both leptons must be seen
    accept_on: Literal["parent", "daughters"]
    # Selection efficiency; its keys are the final states that the detector sees
    efficiency: Mapping[str, float]
    sources: Mapping[str, str]  # Where each number comes from
    pot_sigma: float = 0.0  # Relative uncertainty of `pot` or `luminosity`
    planes: tuple[Plane, ...] = ()
    magnet: Magnet | None = None
    cuts: LeptonCuts = LeptonCuts()
    # Expected events; None where the source gives none
    background: float | None = None
    background_sigma: float | None = None
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        energy = self.beam_energy
        require(math.isfinite(energy) and energy > 0, f"beam_energy = {energy!r} must be positive")
        Exposed.__post_init__(self)
        for name in ("pot_sigma", "background", "background_sigma"):
            value = getattr(self, name)
            require(value is None or 0 <= value < math.inf, f"{name} = {value!r}: finite, not negative")
        softest = max(self.cuts.min_energy_sum, self.cuts.min_momentum)
        soft = f"cuts: leptons above {softest:g} GeV are asked of a beam of {energy:g} GeV"
        require(softest < energy, soft)
        for state, value in self.efficiency.items():
            require(state == state.lower(), f"efficiency.{state}: final states are in small letters")
            require(0 <= value <= 1, f"efficiency.{state} = {value!r} must lie between 0 and 1")
        require(len(self.efficiency) > 0, "efficiency: at least one final state is needed")
        daughters = self.accept_on == "daughters"
        endless = "volume: decays are drawn in it, so it must be finite when accept_on = 'daughters'"
        require(not daughters or self.volume.is_bounded, endless)
        idle = "planes, magnet and cuts act on leptons: accept_on = 'daughters' is needed"
        require(daughters or not (self.planes or self.magnet or self.cuts != LeptonCuts()), idle)
        self._check_places()

    def _check_places(self) -> None:
        """Refuse a volume around or before the target, and planes that no lepton reaches."""
        place, (first, last) = self.target.position, self.volume.z_range
        where = f"the target at ({', '.join(f'{value:g}' for value in place)}) m"
        require(last > place[2], f"volume: ends at z = {last:g} m, before {where}; see also target.position")
        require(
            self.target.thickness < DUMP or self.pot is None or not self.volume.holds(place),
            f"volume: holds {where}, a dump of {self.target.thickness:g} interaction lengths, in which "
            "nothing is seen; begin behind it or beside it (keys of volume), or correct target.position",
        )
        for plane in self.planes:
            before = f"z = {plane.z:g} m lies before the decay volume, which begins at {first:g} m"
            require(plane.z > first, f"plane {plane.name!r}: {before}: no lepton reaches it")


def _leaves(data: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield dotted keys and values; entries of a list go by their name, or the list's own key."""
    if isinstance(data, Mapping):
        for name, value in data.items():
            yield from _leaves(value, f"{key}.{name}" if key else name)
    elif isinstance(data, list):
        for entry in data:
            name = entry.get("name", "") if isinstance(entry, Mapping) else ""
            yield from _leaves(entry, f"{key}.{name}" if name else key)
    else:
        yield key, data


def read_detector(path: Path) -> dict[str, Any]:
    """Return the tables of a detector file, in which every number has a line in ``[sources]``."""
    try:
        data = from_toml(path)
        name_of(data)
        sources = sources_of(data)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: the detector file cannot be read ({error})") from error
    filled_in(data, f"{path}: ")
    leaves = dict(_leaves({key: value for key, value in data.items() if key != "sources"}))
    numbers = [key for key, value in leaves.items() if isinstance(value, int | float)]
    counted = [key for key in numbers if not isinstance(leaves[key], bool)]
    missing = [key for key in counted if not any(f"{key}.".startswith(f"{s}.") for s in sources)]
    if missing:
        raise SteeringError(f"{path}: no source for {missing}; name each key, or its table, under [sources]")
    true = next((key for key in numbers if isinstance(leaves[key], bool) and key not in FLAGS), None)
    if true is not None:  # it would count as zero or one
        raise SteeringError(f"{path}: {true} is true or false, which is no number")
    return data


_ADAPTER: TypeAdapter[Detector] = TypeAdapter(Detector)


def load_detector(path: Pathlike) -> Detector:
    """Read a detector file."""
    return validated(_ADAPTER, read_detector(Path(path)), Path(path))


def target_factor(
    exposure: Exposure,
    detector: DetectorLike,
    *,
    scaling: Scaling = "per_interaction",
    alpha: float | None = None,
    alpha_inelastic: float | None = None,
) -> float:
    """Return the factor from a rate per proton on the measured target to one on the detector's target.

    factor = (1 − e^−t)/(1 − e^−L) × (A_detector/A_measured)^(α − α_inel), with the thicknesses t of the
    detector's target and L of the measured one in interaction lengths; 1 − e^−L is L for a thin target.
    Only the first interaction of each proton counts: secondary cascades of a thick target are omitted
    (they add soft mesons, so the rate is an underestimate), and production sits at the target's position.
    """
    if not math.isclose(exposure.beam_energy, detector.beam_energy, rel_tol=1e-3):
        raise PortabilityError(
            f"spectrum measured at {exposure.beam_energy:g} GeV, detector {detector.name!r} stands at "
            f"{detector.beam_energy:g} GeV: use a spectrum of that beam, or a theory channel"
        )
    ratio = detector.target.interaction_probability / -math.expm1(-exposure.thickness)
    if scaling == "per_interaction":
        none = alpha is None and alpha_inelastic is None
        require(none, "target_factor: 'per_interaction' takes no exponents; choose scaling = 'power'")
        return ratio
    if alpha is None or alpha_inelastic is None:
        raise PhysicsError("target_factor: scaling = 'power' needs alpha and alpha_inelastic")
    return ratio * float((detector.target.a / exposure.target_a) ** (alpha - alpha_inelastic))


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
        rising = len(self.planes) > 0 and all(np.diff((0.0, *self.planes)) > 0)
        _require(rising, f"planes = {list(self.planes)} must be positive and increase")
        hits, n = self.min_hits, len(self.planes)
        _require(1 <= hits <= n, f"min_hits = {hits} must lie between 1 and {n}, the number of planes")
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

        Both leptons need `min_hits` of the planes behind the decay; edges and holes of planes do not count.
        """
        planes = np.array(self.planes)
        left = np.arange(len(planes), self.min_hits - 1, -1)
        from scipy.stats import binom

        track = binom.sf(self.min_hits - 1, left, self.hit_efficiency)
        return np.r_[0.0, planes[: len(left)]], np.asarray((track / track[0]) ** 2)


def _require(condition: bool, text: str) -> None:
    require(condition, f"vertex telescope: {text}")


def load_telescope(path: Path) -> VertexTelescope:
    """Read the card of a vertex telescope: TOML with its attributes, each with a source."""
    return sourced_card(VertexTelescope, path, "vertex telescope")


def _errors(
    telescope: VertexTelescope, pairs: Pairs, z: FloatArray, lepton_mass: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return σ of the vertex along the beam, of the distance and of the impact of pairs that decay at z [m].

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
    energies = 0.5 * pairs.energy + half, 0.5 * pairs.energy - half
    legs = [np.sqrt(np.maximum(e**2 - lepton_mass**2, 1e-12)) for e in energies]
    square = [telescope.resolution**2 + (telescope.scattering / p) ** 2 for p in legs]
    total = legs[0] + legs[1]
    mean = (legs[0] ** 2 * square[0] + legs[1] ** 2 * square[1]) / total**2
    lever = z * angle * legs[0] * legs[1] / total**2
    both = square[0] + square[1]
    distance, impact = both + 2.0 * (telescope.slope * z) ** 2, mean + 2.0 * (telescope.momentum * lever) ** 2
    return np.sqrt(both) / angle, np.sqrt(distance), np.sqrt(impact)


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
    sigma, of_distance, of_impact = _errors(telescope, pairs, z, lepton_mass)
    use &= (distance <= most[0] * of_distance) & (impact <= most[1] * of_impact) & (pairs.weight == 1)
    pz = np.sqrt(np.maximum(pairs.energy**2 - pairs.mass**2 - pairs.pt**2, 0.0))
    return VertexPairs(pairs.mass, pz, z, sigma, weight, ~pairs.os, use)


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
