"""Hadrons that become lepton pairs: form factors of mesons and of the proton, line shapes, Dalitz decays."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from math import comb
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.integrate import simpson

from gammastar.core.constants import M_MU, M_PI0, M_PI_CHARGED, mass, width
from gammastar.core.errors import InputFileError, PhysicsError, require
from gammastar.core.files import read_columns, text_of
from gammastar.core.records import FloatArray
from gammastar.physics.qed import lepton_factor, pseudoscalar_dalitz, vector_dalitz

ETA_INVERSE_LAMBDA2 = 1.934  # GeV⁻², NA60, arXiv:1608.07898
ETA_INVERSE_LAMBDA2_ERROR = math.hypot(0.067, 0.050)  # statistical and systematic, same paper
OMEGA_INVERSE_LAMBDA2 = 2.223  # GeV⁻², NA60, arXiv:1608.07898
OMEGA_INVERSE_LAMBDA2_ERROR = math.hypot(0.026, 0.037)  # statistical and systematic, same paper
ETA_PRIME_POLE = 0.764  # GeV; vector-dominance fit to the data compiled by Landsberg (1985)
ETA_PRIME_WIDTH = 0.102  # GeV; same fit
PI0_SLOPE = 0.0332  # ± 0.0029, in units of 1/m²(π⁰); PDG 2026, S009A
ComplexArray: TypeAlias = npt.NDArray[np.complex128]


def _pole2(q2: npt.ArrayLike, inverse_lambda2: float) -> FloatArray:
    scaled = np.asarray(q2, dtype=np.float64) * inverse_lambda2
    if bool(np.any(scaled >= 1.0)):
        raise PhysicsError(
            f"pole form factor: q² = {float(np.max(scaled)) / inverse_lambda2:.6g} GeV² reaches the pole at "
            f"{1.0 / inverse_lambda2:.6g} GeV²; the form holds below it only"
        )
    return np.asarray((1.0 - scaled) ** -2, dtype=np.float64)


def pointlike(q2: npt.ArrayLike) -> FloatArray:
    """Return 1 for every q² [GeV²]: no form factor."""
    return np.ones_like(np.asarray(q2, dtype=np.float64))


def eta2(q2: npt.ArrayLike, inverse_lambda2: float = ETA_INVERSE_LAMBDA2) -> FloatArray:
    """Return |F_η(q²)|² = (1 − q²/Λ²)⁻² (NA60, arXiv:1608.07898)."""
    return _pole2(q2, inverse_lambda2)


def omega2(q2: npt.ArrayLike, inverse_lambda2: float = OMEGA_INVERSE_LAMBDA2) -> FloatArray:
    """Return |F_ω(q²)|² = (1 − q²/Λ²)⁻² of ω → π⁰γ*; arguments as `eta2`.

    NA60, arXiv:1608.07898. Together with BR(ω → π⁰γ) it gives a branching fraction of ω → π⁰μ⁺μ⁻ 25 to 30 %
    below the measured one: choose one normalisation and say which.
    """
    return _pole2(q2, inverse_lambda2)


def eta_prime2(q2: npt.ArrayLike) -> FloatArray:
    """Return |F_η'(q²)|² = m⁴ / [(m² − q²)² + m²Γ²] with m = 0.764, Γ = 0.102 GeV; q² in GeV².

    L. G. Landsberg, Phys. Rept. 128 (1985) 301; the width keeps the ρ pole, inside the η' range, finite.
    |F(0)|² lies (Γ/m)² = 1.8 % below one.
    """
    q2 = np.asarray(q2, dtype=np.float64)
    pole2 = ETA_PRIME_POLE**2
    return np.asarray(pole2**2 / ((pole2 - q2) ** 2 + pole2 * ETA_PRIME_WIDTH**2), dtype=np.float64)


def pi0_2(q2: npt.ArrayLike) -> FloatArray:
    """Return |F_π⁰(q²)|² = (1 + a q²/m²)² with the slope a = 0.0332 (PDG); q² in GeV²."""
    q2 = np.asarray(q2, dtype=np.float64)
    return np.asarray((1.0 + PI0_SLOPE * q2 / M_PI0**2) ** 2, dtype=np.float64)


@dataclass(frozen=True, slots=True)
class PoleFormFactor:
    """F1 as a coherent sum of vector mesons, Σ f M²/(M² − q² − iMΓ); no Pauli part."""

    name: str
    # One entry per meson; masses and widths [GeV]. Without entries F1 = 1: a point-like proton
    couplings: tuple[float, ...] = ()
    masses: tuple[float, ...] = ()
    widths: tuple[float, ...] = ()

    def __call__(self, mass: npt.ArrayLike) -> tuple[ComplexArray, ComplexArray]:
        """Return (F1, F2) at q² = mass² [GeV²], each of the shape of `mass`."""
        q2 = np.square(np.asarray(mass, dtype=np.float64))[..., None]
        if not self.couplings:
            return np.ones(q2.shape[:-1], dtype=np.complex128), np.zeros(q2.shape[:-1], dtype=np.complex128)
        f, m, g = np.array(self.couplings), np.array(self.masses), np.array(self.widths)
        terms = f * m**2 / (m**2 - q2 - 1j * m * g)
        total = np.asarray(terms.sum(axis=-1), dtype=np.complex128)
        return total, np.zeros_like(total)


@dataclass(frozen=True, slots=True)
class DipolePenalty:
    """F1 = 1 below Q = Λ and (Λ/m)⁴ above: the squared form is (m²/Λ²)⁻⁴, no phase, no Pauli part."""

    name: str
    scale2: float = 0.71

    def __call__(self, mass: npt.ArrayLike) -> tuple[ComplexArray, ComplexArray]:
        """Return (F1, F2) at q² = mass² [GeV²]."""
        q2 = np.square(np.asarray(mass, dtype=np.float64))
        total = np.asarray(np.maximum(q2 / self.scale2, 1.0) ** -2, dtype=np.complex128)
        return total, np.zeros_like(total)


@dataclass(frozen=True, slots=True, eq=False)
class TabulatedFormFactor:
    """F1 and F2 interpolated linearly in a table, real and imaginary parts apart."""

    name: str
    mass: FloatArray  # Strictly increasing, shape (n,) [GeV]
    # shape (n,)
    f1: ComplexArray
    f2: ComplexArray

    def __post_init__(self) -> None:
        if self.mass.ndim != 1 or not self.mass.shape == self.f1.shape == self.f2.shape:
            raise PhysicsError(f"form factor {self.name!r}: mass, F1 and F2 must be equally long columns")
        if len(self.mass) < 2 or (np.diff(self.mass) <= 0).any():
            raise PhysicsError(f"form factor {self.name!r}: two masses or more must increase strictly")

    @classmethod
    def read(cls, path: Path) -> TabulatedFormFactor:
        """Read columns ``mass_GeV,re_f1,im_f1,re_f2,im_f2`` (lines that start with # are comments).

        Without a heading the three columns mass, F1 and F2 are read, separated by blanks and complex numbers
        written as ``(1.0+-0.2j)``: the public tables of the unitary and analytic model of arXiv:2409.09123.
        """
        wanted = ["mass_GeV", "re_f1", "im_f1", "re_f2", "im_f2"]
        try:
            lines = [line for line in text_of(path).splitlines() if line and not line.startswith("#")]
        except (OSError, ValueError) as error:
            raise InputFileError(f"{path}: the table of form factors cannot be read ({error})") from error
        if lines and lines[0].count("(") == 2:
            return cls._complex_columns(path, lines)
        table = read_columns(path, wanted)
        return cls(path.stem, table[:, 0], table[:, 1] + 1j * table[:, 2], table[:, 3] + 1j * table[:, 4])

    @classmethod
    def _complex_columns(cls, path: Path, lines: list[str]) -> TabulatedFormFactor:
        try:
            table = np.array([[complex(word.replace("+-", "-")) for word in line.split()] for line in lines])
        except ValueError as error:
            raise InputFileError(f"{path}: three columns, mass and complex F1 and F2 ({error})") from error
        if table.ndim != 2 or table.shape[1] != 3:
            raise InputFileError(f"{path}: columns mass and complex F1 and F2 expected, not {table.shape}")
        return cls(path.stem, table[:, 0].real, table[:, 1], table[:, 2])

    def __call__(self, mass: npt.ArrayLike) -> tuple[ComplexArray, ComplexArray]:
        """Return (F1, F2); a mass outside the table is an error."""
        values = np.asarray(mass, dtype=np.float64)
        if ((values < self.mass[0]) | (values > self.mass[-1])).any():
            raise PhysicsError(
                f"form factor {self.name!r} is tabulated from {self.mass[0]:g} to {self.mass[-1]:g} GeV; "
                f"asked for {values.min():g} to {values.max():g} GeV"
            )
        parts = (self.f1.real, self.f1.imag, self.f2.real, self.f2.imag)
        found = [np.interp(values, self.mass, part) for part in parts]
        f1, f2 = found[0] + 1j * found[1], found[2] + 1j * found[3]
        return np.asarray(f1, dtype=np.complex128), np.asarray(f2, dtype=np.complex128)


FormFactor: TypeAlias = PoleFormFactor | DipolePenalty | TabulatedFormFactor

# Isovector family, then isoscalar; A. Faessler et al., arXiv:0910.5589.
_COUPLINGS = (0.616, 0.223, -0.339, 1.011, -0.881, 0.369)

FORM_FACTORS: dict[str, FormFactor] = {
    "pointlike": PoleFormFactor("pointlike"),
    # With the meson masses and widths of the PDG, as arXiv:2108.05900 takes them.
    "vmd": PoleFormFactor(
        "vmd",
        _COUPLINGS,
        (0.77526, 1.465, 1.720, 0.78266, 1.410, 1.670),
        (0.1474, 0.400, 0.250, 0.00868, 0.290, 0.315),
    ),
    # With one mass for the rho and the omega of each level, as P. deNiverville et al., arXiv:1609.01770.
    "vmd-degenerate": PoleFormFactor(
        "vmd-degenerate", _COUPLINGS, (0.77, 1.25, 1.45, 0.77, 1.25, 1.45), (0.15, 0.3, 0.5, 0.0085, 0.3, 0.5)
    ),
    "dipole": DipolePenalty("dipole"),
}


def form_factor(name: str) -> FormFactor:
    """Return a built-in form factor: "pointlike", "vmd", "vmd-degenerate" or "dipole"."""
    if name not in FORM_FACTORS:
        raise PhysicsError(f"form factor {name!r} is not known; there are {', '.join(sorted(FORM_FACTORS))}")
    return FORM_FACTORS[name]


PI0, ETA, ETA_PRIME, RHO, OMEGA, PHI = 111, 221, 331, 113, 223, 333
RHO_MASS_MAX = 1.5  # GeV: upper end of the normalised ρ line shape
RHO_TEMPERATURE = 0.161  # GeV: effective temperature in In-In, NA60, arXiv:0902.2547; assumed for p-A


def breit_wigner(m: npt.ArrayLike, pole: float, gamma: float) -> FloatArray:
    """Return the relativistic Breit-Wigner dN/dm of constant width [GeV⁻¹], of integral one over all m²."""
    m = np.asarray(m, dtype=np.float64)
    scale = pole * gamma
    return np.asarray(2.0 * m / np.pi * scale / ((m**2 - pole**2) ** 2 + scale**2), dtype=np.float64)


def rho_width(m: npt.ArrayLike) -> FloatArray:
    """Return the mass-dependent P-wave width Γ₀ (M_ρ/m)(q/q₀)³ of ρ → ππ [GeV]; 0 below 2 m_π."""
    m = np.asarray(m, dtype=np.float64)
    pole = mass(RHO)
    q0 = np.sqrt(pole**2 / 4.0 - M_PI_CHARGED**2)
    q = np.sqrt(np.clip(m**2 / 4.0 - M_PI_CHARGED**2, 0.0, None))
    return np.asarray(width(RHO) * pole / np.maximum(m, 1e-9) * (q / q0) ** 3, dtype=np.float64)


def rho_omega_phase(m: npt.ArrayLike) -> FloatArray:
    """Return the phase of the propagator of the ω less that of the ρ [rad].

    Phases of 1/(M² − m² − iMΓ), the width of the ρ running. For amplitudes that are made in phase the
    interference goes as its cosine: at the ω both pass a right angle, and it is largest.
    """
    s = np.asarray(m, dtype=np.float64) ** 2
    rho = mass(RHO) ** 2 - s - 1j * mass(RHO) * rho_width(np.sqrt(s))
    omega = mass(OMEGA) ** 2 - s - 1j * mass(OMEGA) * width(OMEGA)
    return np.asarray(np.angle(rho) - np.angle(omega), dtype=np.float64)


def _gounaris_sakurai(m: FloatArray, pole: float) -> FloatArray:
    """Return the two-pion loop in M² − m² over Γ₀ (Phys. Rev. Lett. 21 (1968) 244), zero at the pole."""

    def momentum(x: FloatArray) -> FloatArray:
        return np.asarray(np.sqrt(np.clip(x**2 / 4.0 - M_PI_CHARGED**2, 0.0, None)))

    def loop(x: FloatArray) -> FloatArray:
        q = momentum(x)
        return np.asarray(2.0 / np.pi * q / x * np.log((x + 2.0 * q) / (2.0 * M_PI_CHARGED)))

    x, at = np.maximum(m, 2.0 * M_PI_CHARGED), np.asarray(pole)
    q0 = float(momentum(at))
    slope = loop(at) * (1 / (8 * q0**2) - 1 / (2 * pole**2)) + 1 / (2 * np.pi * pole**2)
    shift = momentum(x) ** 2 * (loop(x) - loop(at)) + (pole**2 - x**2) * q0**2 * slope
    return np.asarray(pole**2 / q0**3 * shift)


def _rho_shape(
    m: npt.ArrayLike, temperature: float, m_lepton: float, shape: tuple[float, float, float]
) -> FloatArray:
    m = np.asarray(m, dtype=np.float64)
    pole, stretch, gounaris = mass(RHO) + shape[0], shape[1], shape[2]
    pions = np.clip(1.0 - 4.0 * M_PI_CHARGED**2 / np.maximum(m, 1e-9) ** 2, 0.0, None) ** 1.5
    real = pole**2 - m**2
    if gounaris:
        real = real + gounaris * stretch * width(RHO) * _gounaris_sakurai(m, pole)
    propagator = real**2 + (pole * stretch * rho_width(m)) ** 2
    thermal = (np.clip(m, 0.0, None) * temperature) ** 1.5 * np.exp(-m / temperature)
    return np.asarray(lepton_factor(m**2, m_lepton) * pions / propagator * thermal, dtype=np.float64)


@lru_cache(maxsize=256)
def _rho_norm(temperature: float, m_lepton: float, shape: tuple[float, float, float]) -> float:
    low = max(2.0 * M_PI_CHARGED, 2.0 * m_lepton)
    grid = np.linspace(low, RHO_MASS_MAX, 4001)
    return float(simpson(_rho_shape(grid, temperature, m_lepton, shape), x=grid))


def rho_mass_density(
    m: npt.ArrayLike,
    temperature: float,
    *,
    m_lepton: float = M_MU,
    shape: tuple[float, float, float] = (0.0, 1.0, 0.0),
) -> FloatArray:
    """Return dN/dm of ρ → l⁺l⁻, normalised to one between 2 m_π and 1.5 GeV [GeV⁻¹].

    Shift of the pole [GeV], factor on the width and share of Gounaris and Sakurai's dispersion are `shape`.

    Two-pion phase space, P-wave width, photon propagator and lepton threshold times (mT)^{3/2} e^{−m/T}, the
    form of the NA60 and ALICE low-mass dimuon analyses (e.g. NA60, Phys. Lett. B 677 (2009) 260).
    """
    require(temperature > 0, f"rho_mass_density: temperature = {temperature!r} GeV must be positive")
    m = np.asarray(m, dtype=np.float64)
    inside = m <= RHO_MASS_MAX
    density = _rho_shape(m, temperature, m_lepton, shape) / _rho_norm(temperature, m_lepton, shape)
    return np.where(inside, density, 0.0)


@dataclass(frozen=True, slots=True)
class Component:
    """A line shape of true mass."""

    name: str
    density: Callable[[FloatArray], FloatArray]  # Any normalisation: the fit multiplies it [GeV]


def _drell_yan(m: FloatArray, m_lepton: float) -> FloatArray:
    """Return (GeV/m)³, quarks far from the end of phase space."""
    return np.asarray(lepton_factor(m**2, m_lepton) / np.maximum(m, 1e-3) ** 3)


def _bernstein(m: FloatArray, k: int, degree: int, ends: tuple[float, float], m_lepton: float) -> FloatArray:
    low, high = ends
    x = np.clip((m - low) / (high - low), 0, 1)
    inside = (m >= low) & (m <= high)
    basis = comb(degree, k) * x**k * (1 - x) ** (degree - k)
    return np.where(inside, basis * lepton_factor(m**2, m_lepton), 0.0)


def _scaled(m: FloatArray, shape: Callable[[FloatArray], FloatArray], norm: float) -> FloatArray:
    return np.asarray(shape(m) / norm)


def cocktail_components(
    mass_range: tuple[float, float],
    *,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    m_lepton: float = M_MU,
) -> tuple[Component, ...]:
    """Return the line shapes of a low-mass dilepton spectrum.

    η, η′ and ω Dalitz decays, for electrons that of the π⁰ too; ρ, ω and φ; Drell-Yan; and for what is smooth
    a positive basis of polynomials times the threshold factor of the leptons.

    Dalitz decays: Landsberg, Phys. Rept. 128 (1985) 301; ρ: NA60, Phys. Lett. B 677 (2009) 260; ω and φ:
    relativistic Breit-Wigner. All but Drell-Yan and the polynomials are normalised to one.
    """

    def dalitz(m: FloatArray, parent: int, daughter: float | None, form: Any) -> FloatArray:
        if daughter is None:
            return 2 * m * pseudoscalar_dalitz(m**2, mass(parent), m_lepton, form)
        return 2 * m * vector_dalitz(m**2, mass(parent), daughter, m_lepton, form)

    result = []
    for name, parent, daughter, form in (
        ("pi0_dalitz", PI0, None, pi0_2),
        ("eta_dalitz", ETA, None, eta2),
        ("eta_prime_dalitz", ETA_PRIME, None, eta_prime2),
        ("omega_dalitz", OMEGA, M_PI0, omega2),
    ):
        if mass(parent) <= 2 * m_lepton:
            continue
        shape = partial(dalitz, parent=parent, daughter=daughter, form=form)
        top = mass(parent) - (daughter or 0.0)
        grid = 2 * m_lepton + (top - 2 * m_lepton) * np.linspace(0, 1, 6001) ** 1.5
        norm = float(np.trapezoid(shape(grid), grid))
        result.append(Component(name, partial(_scaled, shape=shape, norm=norm)))
    result.append(Component("rho", partial(rho_mass_density, temperature=temperature, m_lepton=m_lepton)))
    for name, pdg in (("omega", OMEGA), ("phi", PHI)):
        result.append(Component(name, partial(breit_wigner, pole=mass(pdg), gamma=width(pdg))))
    if smooth:
        result.append(Component("drell_yan", partial(_drell_yan, m_lepton=m_lepton)))
    basis = partial(_bernstein, degree=smooth - 1, ends=mass_range, m_lepton=m_lepton)
    result += [Component(f"smooth_{k}", partial(basis, k=k)) for k in range(smooth)]
    return tuple(result)
