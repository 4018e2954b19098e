"""Mesons as sources of virtual photons: multiplicities, spectra and dark photons per meson."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, ConfigDict, TypeAdapter
from scipy.special import ndtr, ndtri

from gammastar.core import constants
from gammastar.core.constants import ALPHA, M_E, M_MU, M_PROTON
from gammastar.core.documents import from_toml, validated
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.physics import hadrons
from gammastar.physics.hadrons import breit_wigner, rho_mass_density
from gammastar.physics.mesons.spectra import read_meson_spectra
from gammastar.physics.qed import FormFactor2, dark_photon_rate, lepton_factor

log = logging.getLogger(__name__)


Kind = Literal["pseudoscalar_dalitz", "vector_dalitz", "vector_mixing", "rho_mixing"]
Unit = Literal["proton", "pb"]
"""What a rate counts in: particles per interacting proton, or their cross section, for a luminosity."""
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
_FORM_FACTORS: dict[str, FormFactor2] = {
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
    if not beam_energy > M_PROTON:
        msg = f"beam energy {beam_energy!r} GeV must exceed the proton mass"
        raise PhysicsError(msg)
    sqrt_s = float(np.sqrt(2 * M_PROTON * (beam_energy + M_PROTON)))
    momentum = np.sqrt(beam_energy**2 - M_PROTON**2)
    return sqrt_s, float(np.arctanh(momentum / (beam_energy + M_PROTON)))


@dataclass(frozen=True, slots=True)
class Meson:
    """One species.

    Attributes
    ----------
    multiplicity, a_factor : float
        Per inelastic pp interaction, and the factor to the nucleus.
    sigma : float
        Relative uncertainty of their product.
    p0, n : float
        dN/dpT ∝ pT (1 + (pT/p0)²)^−n, p0 in GeV.
    y_width : float
        Standard deviation of the rapidity in the proton-nucleon frame.
    """

    pdg: int
    multiplicity: float
    a_factor: float
    sigma: float
    p0: float
    n: float
    y_width: float
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    @property
    def per_interaction(self) -> float:
        """Mesons per inelastic interaction on the nucleus."""
        return self.multiplicity * self.a_factor

    @property
    def mass(self) -> float:
        """Mass [GeV]."""
        return constants.mass(self.pdg)

    def sample(self, mass: npt.ArrayLike, n: int, beam_energy: float, rng: np.random.Generator) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for an (off-shell) mass.

        Notes
        -----
        The rapidity is truncated where the recoil would hold less than two nucleons.
        """
        sqrt_s, y_beam = beam_frame(beam_energy)
        pt = self.p0 * np.sqrt((1 - rng.uniform(size=n)) ** (-1 / (self.n - 1)) - 1)
        pt = np.minimum(pt, 0.45 * sqrt_s)
        mt = np.sqrt(np.square(mass) + pt**2)
        top = (sqrt_s**2 + np.square(mass) - 4 * M_PROTON**2) / (2 * sqrt_s)
        limit = np.arccosh(np.maximum(top / mt, 1.0)) / self.y_width
        first, last = ndtr(-limit), ndtr(limit)
        y = y_beam + self.y_width * np.clip(
            ndtri(first + rng.uniform(size=n) * (last - first)), -limit, limit
        )
        phi = rng.uniform(-np.pi, np.pi, n)
        return np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(y), mt * np.cosh(y)])


@dataclass(frozen=True, slots=True)
class Decay:
    """A way from a meson to one virtual photon.

    Attributes
    ----------
    parent : str
        Key of the meson in its table.
    kind : {"pseudoscalar_dalitz", "vector_dalitz", "vector_mixing", "rho_mixing"}
    branching : float
        To γγ, to Pγ, or to e⁺e⁻ for the mixings. A file may name a decay of `core.constants.BRANCHING`.
    form_factor : str
        Name in `gammastar.physics.hadrons`.
    daughter : int or None
        PDG code of P in V → Pγ*.
    temperature : float or None
        Of the ρ line shape [GeV].
    """

    parent: str
    kind: Kind
    branching: Annotated[float, BeforeValidator(_fraction)]
    form_factor: str = "pointlike"
    daughter: int | None = None
    temperature: float | None = None
    __pydantic_config__: ClassVar[ConfigDict] = _STRICT

    def __post_init__(self) -> None:
        if self.form_factor not in _FORM_FACTORS:
            msg = f"form_factor = {self.form_factor!r} is none of {', '.join(_FORM_FACTORS)}"
            raise PhysicsError(msg)
        if (self.kind == "vector_dalitz") != (self.daughter is not None):
            msg = f"decay of {self.parent!r}: 'daughter' belongs to kind 'vector_dalitz' and to no other"
            raise PhysicsError(msg)
        if (self.kind == "rho_mixing") != (self.temperature is not None):
            msg = f"decay of {self.parent!r}: 'temperature' belongs to kind 'rho_mixing' and to no other"
            raise PhysicsError(msg)


def dark_photon_branching(decay: Decay, parent_mass: float, width: float, mass: npt.ArrayLike) -> FloatArray:
    """Return dark photons per parent meson and ε².

    Parameters
    ----------
    parent_mass, width : float
        Of the parent [GeV].
    mass : array_like, shape (n,) [GeV]

    Notes
    -----
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
    form = _FORM_FACTORS[decay.form_factor]
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


class Species(Protocol):
    """What decays need to know of a meson: `Meson`, or a `gammastar.physics.mesons.spectra.MesonSpectrum`."""

    @property
    def pdg(self) -> int:
        """PDG number."""

    @property
    def sigma(self) -> float:
        """Relative uncertainty of the yield."""

    @property
    def per_interaction(self) -> float:
        """Mesons per interaction, or their cross section [pb]."""

    @property
    def mass(self) -> float:
        """Mass [GeV]."""

    def sample(self, mass: npt.ArrayLike, n: int, beam_energy: float, rng: np.random.Generator) -> FloatArray:
        """Draw px, py, pz, E [GeV], shape (4, n), for an (off-shell) mass."""


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
        msg = f"decays of {sorted(unknown)}, which the table does not hold"
        raise PhysicsError(msg)


@dataclass(frozen=True, slots=True)
class MesonTable:
    """Mesons and decays of one beam, with the note where they come from.

    Attributes
    ----------
    unit : {"proton", "pb"}
        What the mesons count in.
    """

    source: str
    mesons: Mapping[str, Species]
    decays: tuple[Decay, ...]
    unit: Unit = "proton"

    def __post_init__(self) -> None:
        empty = sorted(name for name, meson in self.mesons.items() if meson.per_interaction == 0)
        if empty:
            log.warning(
                "mesons of %r: %s have zero multiplicity, they add nothing", self.source, ", ".join(empty)
            )
        _check_parents(self.mesons, self.decays)

    @classmethod
    def read(cls, path: Path, *, sigma_inelastic: float | None = None) -> MesonTable:
        """Read a TOML file such as ``measurements/mesons_400gev.toml``, or a folder of FORESEE's spectra.

        Parameters
        ----------
        path : Path
            With a folder as `read_meson_spectra` takes it, decays and form factors are those of the shipped
            table.
        sigma_inelastic : float, optional
            Inelastic cross section [mb], by which the cross sections of a folder become mesons per
            interaction.

        Raises
        ------
        InputFileError
            If the file is missing or is not TOML, or the folder holds no spectra.
        SteeringError
            If a key is unknown, missing or wrong.
        """
        if path.is_dir():
            return cls._of_spectra(path, sigma_inelastic)
        try:
            data: Any = from_toml(path)
        except (OSError, ValueError) as error:
            msg = f"{path}: the table of mesons cannot be read ({error})"
            raise InputFileError(msg) from error
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
