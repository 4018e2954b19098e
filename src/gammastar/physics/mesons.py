"""Mesons as sources of virtual photons: multiplicities, spectra and dark photons per meson."""

from __future__ import annotations

import logging
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, ConfigDict, TypeAdapter
from scipy.special import ndtr, ndtri

from gammastar.core import constants
from gammastar.core.constants import ALPHA, M_E, M_MU, M_PROTON
from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import Pathlike, atomic, data_path, from_toml, opened, text_of, validated
from gammastar.core.records import FloatArray, Rng
from gammastar.physics import hadrons
from gammastar.physics.hadrons import breit_wigner, rho_mass_density
from gammastar.physics.qed import FormFactor2, dark_photon_rate, lepton_factor

PB_PER_MB = 1e9
MAX_TABLE_BYTES = 256 << 20  # bytes of one table
NAMES: Mapping[int, str] = MappingProxyType(
    {111: "pi0", 221: "eta", 331: "eta_prime", 113: "rho", 223: "omega", 333: "phi", 443: "jpsi"}
)
"""Mesons by their PDG number as the tables of decays name them."""
FILE = re.compile(r".*_(-?\d+)\.(txt|npy)")
LOG_RANGES = (-12.0, 1.0), (-6.0, 6.0)  # of angles [rad] and momenta [GeV] that a table may hold


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Particles in cells of log10 angle and log10 momentum, evenly spread inside each."""

    # Centres of the cells: log10 of the angle to the beam [rad] and of the momentum [GeV], (n,)
    log_angle: FloatArray
    log_momentum: FloatArray
    weight: FloatArray  # Content of each cell; not negative, (n,)
    width: tuple[float, float]  # Of a cell, in both logarithms

    @property
    def total(self) -> float:
        """Sum of the contents."""
        return float(self.weight.sum())

    def within(self, *, max_angle: float = np.inf, min_momentum: float = 0.0) -> Cells:
        """Return the cells that a detector needs, also in part: nothing else is counted afterwards."""
        with np.errstate(divide="ignore"):
            near = self.log_angle - self.width[0] / 2 < np.log10(max_angle)
            keep = near & (self.log_momentum + self.width[1] / 2 > np.log10(min_momentum))
        log_angle, log_momentum, weight = self.log_angle[keep], self.log_momentum[keep], self.weight[keep]
        return replace(self, log_angle=log_angle, log_momentum=log_momentum, weight=weight)

    def sample(self, mass: npt.ArrayLike, n: int, rng: Rng) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), of particles of this mass, of equal weight."""
        require(self.total > 0, "a table of angles and momenta holds nothing: every cell is empty")
        index = rng.choice(len(self.weight), size=n, p=self.weight / self.total)
        theta = 10 ** (self.log_angle[index] + self.width[0] * rng.uniform(-0.5, 0.5, n))
        p = 10 ** (self.log_momentum[index] + self.width[1] * rng.uniform(-0.5, 0.5, n))
        phi = rng.uniform(-np.pi, np.pi, n)
        pt = p * np.sin(theta)
        energy = np.hypot(p, np.asarray(mass, dtype=np.float64))
        return np.stack([pt * np.cos(phi), pt * np.sin(phi), p * np.cos(theta), energy])


def read_cells(path: Pathlike) -> Cells:
    """Read a table of three columns or an array of three rows (``.npy``); a cell is as wide as its steps."""
    path = Path(path)
    try:
        if path.suffix == ".npy":
            with opened(path, MAX_TABLE_BYTES) as stream:
                table: Any = np.load(stream, allow_pickle=False)
        else:
            table = np.loadtxt(text_of(path, MAX_TABLE_BYTES).splitlines(), comments="#", ndmin=2).T
        columns = np.asarray(table, dtype=np.float64)
    except (OSError, ValueError, UnicodeDecodeError) as error:
        raise InputFileError(f"{path}: is no table of log10 angle, momentum, content ({error})") from error
    if columns.ndim != 2 or len(columns) != 3 or columns.shape[1] < 2:
        raise InputFileError(f"{path}: expected log10 angle, momentum, cross section; found {columns.shape}")
    bad = ~np.isfinite(columns).all(axis=0) | (columns[2] < 0)
    for row, (low, high), name in zip(columns, LOG_RANGES, ("angle", "momentum"), strict=False):
        outside = ~((row >= low) & (row <= high)) & ~bad
        if outside.any():
            value = row[outside][0]
            outside_of = f"not in {low:g} to {high:g}; give rad and GeV"
            raise InputFileError(f"{path}: log10 {name} = {value:g} {outside_of}")
    if bad.any():
        where = int(np.argmax(bad))
        raise InputFileError(
            f"{path}: cell {where}: {columns[:, where].tolist()}: must be finite, not negative"
        )
    angle, momentum, content = columns
    return Cells(angle, momentum, content, (_step(path, angle, "angle"), _step(path, momentum, "momentum")))


def _step(path: Path, centres: FloatArray, name: str) -> float:
    """Return the distance of neighbouring centres; refuse cells of different sizes."""
    steps = np.diff(np.unique(centres.round(6)))
    if not len(steps) or not np.allclose(steps / steps.min(), np.round(steps / steps.min()), atol=1e-2):
        raise InputFileError(
            f"{path}: log10 {name} has no even steps ({steps[:5].tolist()} …), so that cells have no width"
        )
    return float(steps.min())


def write_cells(path: Path, cells: Cells, note: str = "") -> None:
    """Write cells as FORESEE reads them: ``.npy`` of three rows, or text of three columns below a note."""
    rows = np.stack([cells.log_angle, cells.log_momentum, cells.weight])
    with atomic(path) as temporary:
        if path.suffix == ".npy":
            np.save(temporary, rows)
        else:
            header = "\n".join([*note.splitlines(), "log10(theta) log10(p/GeV) cross-section[pb/bin]"])
            np.savetxt(temporary, rows.T, fmt="%12.5e", header=header, comments="# ", encoding="utf-8")


class Species(ABC):
    """What decays need to know of a meson: a parametrised one or one with a tabulated spectrum."""

    __slots__ = ()
    pdg: int  # PDG number
    sigma: float  # Relative uncertainty of the yield

    @property
    @abstractmethod
    def per_interaction(self) -> float:
        """Mesons per inelastic interaction on the nucleus, or their cross section [pb]."""

    @property
    def mass(self) -> float:
        """Mass [GeV]."""
        return constants.mass(self.pdg)

    @abstractmethod
    def sample(self, mass: npt.ArrayLike, n: int, beam_energy: float, rng: Rng) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for an (off-shell) mass."""


@dataclass(frozen=True, slots=True, eq=False)
class MesonSpectrum(Species):
    """A meson with a tabulated spectrum, in the place of a `gammastar.physics.mesons.Meson`."""

    pdg: int
    cells: Cells  # Cross section [pb] of each cell
    # Mesons per interaction and pb; 1 leaves cross sections, for a luminosity in the place of protons
    per_cross_section: float = 1.0
    sigma: float = 0.0  # Relative uncertainty of the cross section

    @property
    def per_interaction(self) -> float:
        """Mesons per inelastic interaction, or their cross section [pb]."""
        return self.cells.total * self.per_cross_section

    def sample(
        self,
        mass: npt.ArrayLike,
        n: int,
        beam_energy: float,  # noqa: ARG002 - the table is of one beam
        rng: Rng,
    ) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for an (off-shell) mass: angle and momentum stay."""
        return self.cells.sample(mass, n, rng)


def read_meson_spectra(
    folder: Pathlike, *, sigma_inelastic: float | None = None, sigma: float = 0.0
) -> dict[str, MesonSpectrum]:
    """Read the spectra of one generator, ``<generator>_<energy>TeV_<PDG number>.txt``, in a folder."""
    folder = Path(folder)
    if sigma_inelastic is not None and not 0 < sigma_inelastic < np.inf:
        raise PhysicsError(f"sigma_inelastic = {sigma_inelastic!r} mb must be positive")
    if not (np.isfinite(sigma) and sigma >= 0):
        raise PhysicsError(f"sigma = {sigma!r}: relative error of the mesons must be finite, not negative")
    scale = 1.0 if sigma_inelastic is None else 1.0 / (sigma_inelastic * PB_PER_MB)
    spectra: dict[str, tuple[Path, MesonSpectrum]] = {}
    for path in sorted(folder.glob("*_*.*")):
        match = FILE.fullmatch(path.name)
        name = NAMES.get(int(match[1])) if match else None
        if match is None or name is None:
            continue
        if name in spectra:
            raise InputFileError(
                f"{folder}: {spectra[name][0].name} and {path.name} are both of the {name}; keep one of them"
            )
        spectra[name] = path, MesonSpectrum(int(match[1]), read_cells(path), scale, sigma)
    if not spectra:
        known = ", ".join(map(str, NAMES))
        raise InputFileError(f"{folder}: no spectra <generator>_<energy>TeV_<PDG number>.txt of {known}")
    return {name: spectrum for name, (_, spectrum) in spectra.items()}


log = logging.getLogger(__name__)


Kind = Literal["pseudoscalar_dalitz", "vector_dalitz", "vector_mixing", "rho_mixing"]
Unit = Literal["proton", "pb"]
"""What a rate counts in: particles per interacting proton, or their cross section, for a luminosity."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
FORM_FACTORS: dict[str, FormFactor2] = {
    name: getattr(hadrons, name) for name in ("pointlike", "pi0_2", "eta2", "eta_prime2", "omega2")
}


def _fraction(value: object) -> object:
    """Return a branching fraction: a number as it is, the name of a decay as its number in the table."""
    if not isinstance(value, str):
        return value
    try:
        return constants.branching(value)
    except PhysicsError as error:
        raise ValueError(str(error)) from error


def beam_frame(beam_energy: float) -> tuple[float, float]:
    """Return √s of proton-nucleon collisions [GeV] and the rapidity of their centre of mass."""
    must = f"must exceed the proton mass {M_PROTON} GeV"
    require(beam_energy > M_PROTON, f"beam energy {beam_energy!r} GeV {must}")
    sqrt_s = float(np.sqrt(2 * M_PROTON * (beam_energy + M_PROTON)))
    momentum = np.sqrt(beam_energy**2 - M_PROTON**2)
    return sqrt_s, float(np.arctanh(momentum / (beam_energy + M_PROTON)))


@dataclass(frozen=True, slots=True)
class Meson(Species):
    """One species."""

    pdg: int
    # Per inelastic pp interaction, and the factor to the nucleus
    multiplicity: float
    a_factor: float
    sigma: float  # Relative uncertainty of their product
    # dN/dpT ∝ pT (1 + (pT/p0)²)^−n, p0 in GeV
    p0: float
    n: float
    y_width: float  # Standard deviation of the rapidity in the proton-nucleon frame
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    @property
    def per_interaction(self) -> float:
        """Mesons per inelastic interaction on the nucleus."""
        return self.multiplicity * self.a_factor

    def sample(self, mass: npt.ArrayLike, n: int, beam_energy: float, rng: Rng) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for a mass; the recoil holds at least two nucleons."""
        sqrt_s, y_beam = beam_frame(beam_energy)
        pt = self.p0 * np.sqrt((1 - rng.uniform(size=n)) ** (-1 / (self.n - 1)) - 1)
        pt = np.minimum(pt, 0.45 * sqrt_s)
        mt = np.sqrt(np.square(mass) + pt**2)
        top = (sqrt_s**2 + np.square(mass) - 4 * M_PROTON**2) / (2 * sqrt_s)
        limit = np.arccosh(np.maximum(top / mt, 1.0)) / self.y_width
        first, last = ndtr(-limit), ndtr(limit)
        level = ndtri(first + rng.uniform(size=n) * (last - first))
        y = y_beam + self.y_width * np.clip(level, -limit, limit)
        phi = rng.uniform(-np.pi, np.pi, n)
        return np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)])


@dataclass(frozen=True, slots=True)
class Decay:
    """A way from a meson to one virtual photon."""

    parent: str  # Key of the meson in its table
    kind: Kind
    # To γγ, to Pγ, or to e⁺e⁻ for the mixings. A file may name a decay of `core.constants.BRANCHING`.
    branching: Annotated[float, BeforeValidator(_fraction)]
    form_factor: str = "pointlike"  # Name in `gammastar.physics.hadrons`
    daughter: int | None = None  # PDG code of P in V → Pγ*
    temperature: float | None = None  # Of the ρ line shape [GeV]
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        if self.form_factor not in FORM_FACTORS:
            raise PhysicsError(f"form_factor = {self.form_factor!r} is none of {', '.join(FORM_FACTORS)}")
        if (self.kind == "vector_dalitz") != (self.daughter is not None):
            raise PhysicsError(f"decay of {self.parent!r}: 'daughter' belongs to 'vector_dalitz' alone")
        if (self.kind == "rho_mixing") != (self.temperature is not None):
            raise PhysicsError(f"decay of {self.parent!r}: 'temperature' belongs to 'rho_mixing' alone")


def dark_photon_branching(decay: Decay, parent_mass: float, width: float, mass: npt.ArrayLike) -> FloatArray:
    """Return dark photons per parent meson and ε².

    P → γA': 2 BR(γγ) (1 − m²/M²)³ |F|²; V → PA': BR(Pγ) [(1 + m²/Δ)² − 4M²m²/Δ²]^{3/2} |F|² with
    Δ = M² − m_P². Mixing of ω, φ and J/ψ: (3/α) BR(ee) m² MΓ/[(m² − M²)² + M²Γ²], Eq. 6 on a Breit-Wigner;
    the ρ: Eq. 6 on its dimuon line shape. Exactly zero outside the phase space.
    """
    m = np.asarray(mass, dtype=np.float64)
    if decay.kind == "rho_mixing":
        above = m > 2 * M_MU * (1 + 1e-9)
        safe = np.where(above, m, 1.0)
        density = rho_mass_density(safe, float(decay.temperature or 0.0))
        return np.where(above, decay.branching * dark_photon_rate(density, safe, M_MU), 0.0)
    if decay.kind == "vector_mixing":
        shape = breit_wigner(m, parent_mass, width) * m / 2
        return np.asarray(decay.branching * shape * 3 * np.pi / ALPHA / lepton_factor(parent_mass**2, M_E))
    form = FORM_FACTORS[decay.form_factor]
    if decay.kind == "pseudoscalar_dalitz":
        inside = m < parent_mass
        q2 = np.square(np.where(inside, m, 0.0))
        value = 2 * (1 - q2 / parent_mass**2) ** 3 * form(q2)
    else:
        light = constants.mass(int(decay.daughter or 0))
        inside = m < parent_mass - light
        q2 = np.square(np.where(inside, m, 0.0))
        gap = parent_mass**2 - light**2
        momentum = (1 + q2 / gap) ** 2 - 4 * parent_mass**2 * q2 / gap**2
        value = np.clip(momentum, 0.0, None) ** 1.5 * form(q2)
    return np.asarray(np.where(inside, decay.branching * value, 0.0), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class _Parametrised:
    """A file of mesons with parametrised spectra."""

    source: str
    mesons: Mapping[str, Meson]
    decays: tuple[Decay, ...]
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        _check_parents(self.mesons, self.decays)


def _check_parents(mesons: Mapping[str, Species], decays: tuple[Decay, ...]) -> None:
    unknown = {decay.parent for decay in decays} - set(mesons)
    if unknown:
        raise PhysicsError(f"decays of {sorted(unknown)}, which the table does not hold")


@dataclass(frozen=True, slots=True)
class MesonTable:
    """Mesons and decays of one beam, with the note where they come from."""

    source: str
    mesons: Mapping[str, Species]
    decays: tuple[Decay, ...]
    unit: Unit = "proton"  # What the mesons count in

    def __post_init__(self) -> None:
        empty = sorted(name for name, meson in self.mesons.items() if meson.per_interaction == 0)
        if empty:
            log.warning("mesons of %r: %s have zero multiplicity, add nothing", self.source, ", ".join(empty))
        _check_parents(self.mesons, self.decays)

    @classmethod
    def read(cls, path: Path, *, sigma_inelastic: float | None = None) -> MesonTable:
        """Read a TOML file such as ``measurements/mesons_400gev.toml``, or a folder of FORESEE's spectra."""
        if path.is_dir():
            return cls._of_spectra(path, sigma_inelastic)
        try:
            data: Any = from_toml(path)
        except (OSError, ValueError) as error:
            raise InputFileError(f"{path}: the table of mesons cannot be read ({error})") from error
        found = validated(TypeAdapter(_Parametrised), data, path)
        return cls(found.source, found.mesons, found.decays)

    @classmethod
    def _of_spectra(cls, folder: Path, sigma_inelastic: float | None) -> MesonTable:
        mesons = read_meson_spectra(folder, sigma_inelastic=sigma_inelastic)
        decays = cls.read(data_path("measurements/mesons_400gev.toml")).decays
        unit: Unit = "pb" if sigma_inelastic is None else "proton"
        counted = "cross sections" if unit == "pb" else f"over {sigma_inelastic:g} mb"
        return cls(
            f"spectra of {', '.join(mesons)} in {folder.name} ({counted}, forward hemisphere)",
            mesons,
            tuple(decay for decay in decays if decay.parent in mesons),
            unit,
        )
