"""Millicharged particles χ from virtual photons (Eq. 8, meson decays, dark photons), and what detects them.

Production counts pairs χχ̄ and is per Q²; a detector that sees single particles sees two per pair.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, TypeAdapter
from scipy.special import gammainc

from gammastar.core.constants import ALPHA, GEV2_MB, M_E
from gammastar.core.errors import PhysicsError, require
from gammastar.core.files import Pathlike, validated
from gammastar.core.records import BoolArray, FloatArray, divided
from gammastar.physics.detector import Exposed, read_detector
from gammastar.physics.qed import FormFactor2, kappa, lepton_factor, pseudoscalar_dalitz

_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(64)


def pair_factor(mass: npt.ArrayLike, m_chi: float, m_lepton: float) -> FloatArray:
    """Return pairs χχ̄ over pairs l⁺l⁻ of a virtual photon, per Q² (Allison and Blinov 2025, Eq. 8)."""
    m = np.asarray(mass, dtype=np.float64)
    if not bool(np.all(m > 2 * m_lepton)):
        raise PhysicsError(
            f"pair_factor: mass {float(np.min(m)):.6g} GeV is not above the threshold {2 * m_lepton:.6g} GeV "
            "of the measured leptons; add a theory channel for lighter virtual photons"
        )
    return lepton_factor(m**2, m_chi) / lepton_factor(m**2, m_lepton)


def bin_factors(edges: npt.ArrayLike, m_chi: npt.ArrayLike, m_lepton: float) -> FloatArray:
    """Return the mean of `pair_factor` over bins of mass, the spectrum flat in each, zero below 2 m_chi."""
    edges = np.asarray(edges, dtype=np.float64)
    if edges.ndim != 1 or len(edges) < 2 or not (np.diff(edges) > 0).all():
        raise PhysicsError(f"bin_factors: edges of shape {edges.shape} must increase")
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))[:, None, None]
    low, high = np.maximum(edges[:-1], 2 * m_lepton), edges[1:]
    width = np.clip(high - low, 0.0, None)
    start = np.clip(np.maximum(low[None, :], 2 * chi[:, :, 0]), None, high)
    # Nodes quadratic in the distance from the lower end: the threshold is a square root.
    u = 0.5 * (_NODES + 1)
    m = start[..., None] + (high - start)[..., None] * u**2
    safe = np.maximum(m, 2 * m_lepton * (1 + 1e-12) + 1e-300)
    ratio_chi = np.square(chi / safe)
    ratio_l = np.square(m_lepton / safe)
    above = 1 - 4 * ratio_chi
    root = np.sqrt(np.clip(above, 0.0, None) / np.clip(1 - 4 * ratio_l, 1e-300, None))
    factor = np.where(above > 0, root * (1 + 2 * ratio_chi) / (1 + 2 * ratio_l), 0.0)
    factor = np.where(chi == m_lepton, 1.0, factor)
    mean = (factor * 2 * u) @ (0.5 * _WEIGHTS)
    share = divided(high - start, width)
    return np.asarray(mean * share, dtype=np.float64)


def from_dark_photons(
    rate: Callable[[FloatArray], FloatArray],
    m_chi: npt.ArrayLike,
    mass_max: float,
    *,
    mass_min: float = 0.0,
    panels: int = 100,
) -> FloatArray:
    """Return pairs χχ̄ per Q² from any production of dark photons.

    Eqs. 6 and 8 of Allison and Blinov (2025) together: dN_χχ/dm² = Q² (κ_χ(m)/m²) N_A'(m)/ε². It holds for
    each channel that emits a single virtual photon, bremsstrahlung included.
    """
    chi = np.atleast_1d(np.asarray(m_chi, dtype=np.float64))
    if not (chi > 0).all() or not mass_max > 0:
        raise PhysicsError(f"from_dark_photons: masses {chi.min():g} and {mass_max:g} GeV must be positive")
    x, weights = np.polynomial.legendre.leggauss(8)
    u = ((np.arange(panels)[:, None] + 0.5 * (x + 1)) / panels).ravel()
    w = np.tile(0.5 * weights / panels, panels)
    result = np.zeros(len(chi))
    for i, m in enumerate(chi):  # one curve of a few hundred nodes per m_chi
        low = max(2 * m, mass_min)
        if low >= mass_max:
            continue
        span = np.log(mass_max / low)
        masses = low * np.exp(span * u**2)
        integrand = 2 * kappa(masses, float(m)) * rate(masses)  # dm²/m² = 2 d ln m
        result[i] = float(np.sum(w * 2 * u * span * integrand))
    return result


def pseudoscalar_branching(
    m_chi: float, parent_mass: float, branching_gg: float, form_factor2: FormFactor2
) -> float:
    """Return BR(P → γχχ̄)/Q².

    The Kroll-Wada spectrum with m_l → m_χ; "I⁽³⁾" of arXiv:1806.03310 and 1812.03998, which count particles
    where this counts pairs.
    """
    low, high = 4 * m_chi**2, parent_mass**2
    if low >= high:
        return 0.0
    x, w = np.polynomial.legendre.leggauss(400)
    u = 0.5 * (x + 1)
    span = np.log(high / low)
    q2 = low * np.exp(span * u**2)  # dense at threshold
    density = pseudoscalar_dalitz(q2, parent_mass, m_chi, form_factor2)
    return branching_gg * float(np.sum(0.5 * w * 2 * u * span * q2 * density))


def vector_branching(m_chi: npt.ArrayLike, parent_mass: float, branching_ee: float) -> FloatArray:
    """Return BR(V → χχ̄)/Q² = BR(V → ee) (1 + 2r) √(1 − 4r), r = m_χ²/M², over the same for electrons.

    arXiv:1812.03998.
    """
    r = np.square(np.asarray(m_chi, dtype=np.float64) / parent_mass)
    open_ = np.sqrt(np.clip(1 - 4 * r, 0.0, None)) * (1 + 2 * r)
    electrons = lepton_factor(parent_mass**2, M_E)
    return np.asarray(branching_ee * open_ / electrons, dtype=np.float64)


_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
LARGEST = 1e100
_CM2_PER_MB = 1e-27


def _positive(**values: float) -> None:
    for name, value in values.items():
        require(0 < value < LARGEST, f"{name} = {value!r} must be positive and below {LARGEST:g}")


def largest_recoil(energy: npt.ArrayLike, m_chi: float) -> FloatArray:
    """Return the largest kinetic energy that χ can give to an electron at rest [GeV], shape of `energy`.

    T_max = 2 m_e p²/(m_χ² + 2E m_e + m_e²): all of E − m_χ only where m_χ = m_e.
    """
    e = np.asarray(energy, dtype=np.float64)
    if not (np.isfinite(m_chi) and m_chi >= 0 and np.isfinite(e).all() and (e >= m_chi * (1 - 1e-9)).all()):
        low = float(e.min()) if e.size else np.nan
        particle = f"a particle of {m_chi:g} GeV"
        raise PhysicsError(f"recoils: energies from {low:g} GeV of {particle}: below its mass")
    p2 = np.clip(e**2 - m_chi**2, 0.0, None)
    return np.asarray(2 * M_E * p2 / (m_chi**2 + 2 * e * M_E + M_E**2), dtype=np.float64)


def recoil_cross_section(
    energy: npt.ArrayLike, m_chi: float, t_min: float, t_max: float | None = None
) -> FloatArray:
    """Return σ(χe → χe)/Q² for electrons that recoil with a kinetic energy in a window [mb].

    The integral of dσ/dT = (2πα²/(m_e β² T²)) (1 − β² T/T_kin + T²/2E²) from t_min to the lower of t_max and
    T_kin, `largest_recoil`: knock-on electrons of a spin-1/2 particle (PDG, "Passage of particles through
    matter"). For fast particles and without t_max it tends to 2πα²/(m_e t_min).
    """
    _window(t_min, t_max)
    e = np.asarray(energy, dtype=np.float64)
    kinematic = largest_recoil(e, m_chi)
    open_ = kinematic > t_min
    top = np.where(open_, kinematic if t_max is None else np.minimum(kinematic, t_max), t_min)
    beta2 = np.where(open_, 1 - m_chi**2 / e**2, 1.0)
    slope = beta2 / np.where(open_, kinematic, 1.0)
    bracket = 1 / t_min - 1 / top - slope * np.log(top / t_min) + (top - t_min) / (2 * e**2)
    sigma = 2 * np.pi * ALPHA**2 / (M_E * beta2) * bracket
    return np.asarray(np.where(open_, np.clip(sigma, 0.0, None), 0.0) * GEV2_MB, dtype=np.float64)


def _window(t_min: float, t_max: float | None) -> None:
    _positive(t_min=t_min)
    if t_max is not None and not (np.isfinite(t_max) and t_max > t_min):
        raise PhysicsError(f"t_max = {t_max!r} GeV must be finite and above t_min = {t_min!r} GeV")


@dataclass(frozen=True, slots=True)
class Scintillator:
    """Layers of bars in a row, each of which must give a photo-electron."""

    kind: Literal["scintillator"]
    layers: int  # All of them must be hit: the n-fold coincidence
    photo_electrons: float  # Mean number per layer for unit charge; it goes as Q²
    threshold: int = 1  # Photo-electrons asked of each layer
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _positive(layers=self.layers, photo_electrons=self.photo_electrons, threshold=self.threshold)

    @property
    def exponent(self) -> int:
        """Power of Q of the detection probability at small Q."""
        return 2 * self.layers * self.threshold

    def probability(self, energy: FloatArray, m_chi: float, charge: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the detection probability, shape (k, n), of particles (n,) with charges (k,)."""
        one = gammainc(self.threshold, self.photo_electrons * charge**2)
        return np.broadcast_to((one**self.layers)[:, None], (len(charge), len(energy)))


@dataclass(frozen=True, slots=True)
class Recoil:
    """A volume of electrons: at least so many recoils in a window of energy along the track."""

    kind: Literal["recoil"]
    electrons: float  # Electrons per cm² along the track
    t_min: float  # Lower threshold on the kinetic energy of the electron [GeV]
    min_hits: int = 1
    # Upper threshold [GeV], above which the search counts no recoil; kinematics bounds it anyway
    t_max: float | None = None
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _positive(electrons=self.electrons, t_min=self.t_min, min_hits=self.min_hits)
        _window(self.t_min, self.t_max)

    @property
    def exponent(self) -> int:
        """Power of Q of the detection probability at small Q."""
        return 2 * self.min_hits

    def probability(self, energy: FloatArray, m_chi: float, charge: FloatArray) -> FloatArray:
        """Return the Poisson probability of enough recoils, shape (k, n)."""
        mean = self.electrons * _CM2_PER_MB * recoil_cross_section(energy, m_chi, self.t_min, self.t_max)
        return np.asarray(gammainc(self.min_hits, np.multiply.outer(charge**2, mean)), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Hits:
    """A sensitive thickness with a known mean number of hits for unit charge, whatever the energy."""

    kind: Literal["hits"]
    mean: float  # Hits along the track for Q = 1; it goes as Q²
    min_hits: int = 1
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _positive(mean=self.mean, min_hits=self.min_hits)

    @property
    def exponent(self) -> int:
        """Power of Q of the detection probability at small Q."""
        return 2 * self.min_hits

    def probability(self, energy: FloatArray, m_chi: float, charge: FloatArray) -> FloatArray:  # noqa: ARG002
        """Return the Poisson probability of enough hits, shape (k, n)."""
        seen = gammainc(self.min_hits, self.mean * charge**2)
        return np.broadcast_to(seen[:, None], (len(charge), len(energy)))


Detection: TypeAlias = Annotated[Scintillator | Recoil | Hits, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Front:
    """The rectangle that a particle must cross."""

    z: float  # Position along the beam in the frame of the target's position [m]
    # [m]
    half_x: float
    half_y: float
    # Centre [m]
    x: float = 0.0
    y: float = 0.0
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def crossed(self, origin: FloatArray, p: FloatArray) -> BoolArray:
        """Return which straight lines from origins (n, 3) [m] with momenta (4, n) cross it."""
        forward = p[2] > 0
        step = (self.z - origin[:, 2]) / np.where(forward, p[2], 1.0)
        x, y = origin[:, 0] + p[0] * step, origin[:, 1] + p[1] * step
        inside = (np.abs(x - self.x) < self.half_x) & (np.abs(y - self.y) < self.half_y)
        return np.asarray(inside & forward & (step > 0), dtype=np.bool_)


@dataclass(frozen=True, slots=True, kw_only=True)
class MillichargeDetector(Exposed):
    """A detector of millicharged particles behind a target."""

    name: str
    source: str
    illustrative: bool  # True if a number is neither measured nor of a design; figures say so
    beam_energy: float  # [GeV]
    front: Front
    detection: Detection
    sources: Mapping[str, str]
    efficiency: float = 1.0
    # Expected events and their standard deviation
    background: float | None = None
    background_sigma: float | None = None
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _positive(beam_energy=self.beam_energy, efficiency=self.efficiency)
        Exposed.__post_init__(self)
        if self.front.z <= self.target.position[2]:
            where = f"the target at {self.target.position[2]:g} m"
            raise PhysicsError(f"front.z = {self.front.z:g} m: not behind {where}")

    @property
    def exponent(self) -> int:
        """Power of Q of the signal at small Q: two from production, the rest from detection."""
        return 2 + self.detection.exponent


_ADAPTER: TypeAdapter[MillichargeDetector] = TypeAdapter(MillichargeDetector)


def load_millicharge_detector(path: Pathlike) -> MillichargeDetector:
    """Read a TOML file whose keys are the attributes of `MillichargeDetector`."""
    return validated(_ADAPTER, read_detector(Path(path)), Path(path))
