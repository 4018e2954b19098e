"""Proton bremsstrahlung of dark photons: one kernel, its conventions as named presets.

Every rate is per proton that interacts inelastically and per ε²; multiply by 1 − exp(−L) for a thin target of
L interaction lengths.

Splitting functions d²P/(dz dpT²) of p → p A' are at unit mixing, with the formulas of four conventions.
z is the momentum fraction of the dark photon, pT its transverse momentum, and
H = pT² + z² m_p² + (1 − z) m² the virtuality denominator. All functions broadcast and return GeV⁻².
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_PROTON
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Rng
from gammastar.physics.hadrons import FORM_FACTORS, FormFactor

Splitting = Literal["qra_v2", "qra_v1", "fww"]
CrossSection = Literal["nsd", "total"]
SPrime = Literal["collinear", "energy"]

_TRANSFER = 0.25  # GeV, Λ_QCD: momentum that the target may take before the picture of one splitting ends
_S_MIN = 2.0  # GeV²; below it the cross sections are not parametrised
_NODES = 24  # agrees with 96 nodes to 2e-6 for every preset
_MP2 = M_PROTON**2


def cross_section_nsd(s: npt.ArrayLike) -> FloatArray:
    """Return σ(pp, non-single-diffractive) = 1.76 + 19.8 s^0.057 [mb], s in GeV²; arXiv:2108.05900."""
    return np.asarray(1.76 + 19.8 * np.asarray(s, dtype=np.float64) ** 0.057, dtype=np.float64)


def cross_section_total(s: npt.ArrayLike) -> FloatArray:
    """Return σ(pp, total) [mb], s in GeV²; the fit 35.45 + 0.308 ln²(s/28.94) + … of the PDG."""
    s = np.asarray(s, dtype=np.float64)
    return np.asarray(35.45 + 0.308 * np.log(s / 28.94) ** 2 + 42.53 * s**-0.458 - 33.34 * s**-0.545)


@dataclass(frozen=True, slots=True)
class Bremsstrahlung:
    """One convention of p → p A'; change one of a preset with `dataclasses.replace`."""

    name: str  # Printed with every result
    splitting: Splitting  # Splitting functions of arXiv:2409.09123, 2108.05900 and 1311.3870
    # Time-like F1 and F2 of the proton; "qra_v1" and "fww" use F1 alone
    form_factor: FormFactor = FORM_FACTORS["pointlike"]
    # Λ [GeV] of F_v = Λ⁴/(Λ⁴ + (H/z)²), which enters squared; None: no off-shell form factor
    off_shell: float | None = None
    z_range: tuple[float, float] = (0.1, 0.9)  # Window of z = p_z/p_beam
    pt_max: float = 1.0  # [GeV]
    cross_section: CrossSection = "total"  # The rate is weighted with σ(s')/σ(s)
    # s' = 2 m_p E (1 − z) + 2 m_p² with s = 2 m_p E + 2 m_p², or s' = 2 m_p (E − E_A') with s = 2 m_p E,
    # never below 2 GeV²
    s_prime: SPrime = "energy"
    # σ_inel(pp) [mb]: divide by it instead of by σ(s), for a rate per inelastic interaction
    inelastic: float | None = None

    def __post_init__(self) -> None:
        low, high = self.z_range
        if not 0 < low < high < 1 or not self.pt_max > 0:
            raise PhysicsError(
                f"bremsstrahlung {self.name!r}: window z = {self.z_range}, pT < {self.pt_max} is not physical"
            )
        if self.off_shell is not None and not self.off_shell > 0:
            raise PhysicsError(f"bremsstrahlung {self.name!r}: off_shell {self.off_shell!r} must be positive")

    def describe(self) -> str:
        """Return the conventions in one line, to be printed beside the numbers."""
        shell = "none" if self.off_shell is None else f"Λ = {self.off_shell:g} GeV"
        low, high = self.z_range
        norm = "σ(s)" if self.inelastic is None else f"{self.inelastic:g} mb"
        return (
            f"{self.name}: splitting {self.splitting}, {low:g} < z < {high:g}, pT < {self.pt_max:g} GeV, "
            f"form factor {self.form_factor.name}, off-shell {shell}, σ {self.cross_section} over {norm}, "
            f"s' {self.s_prime}"
        )

    def largest_mass(self, beam_energy: float) -> float:
        """Return the largest mass for which the approximation holds in the whole window [GeV]; 0 for none.

        Emission is factorised from the collision with the target while the target takes little momentum:
        q_min = (M² − m_p²)/2E = [z² m_p² + (1 − z) m²]/(2 z (1 − z) E) < Λ_QCD = 0.25 GeV, M being the mass
        of p A' at pT = 0 (arXiv:1311.3870). That also keeps E_A' and E − E_A' above m_p and m. It is asked
        for at both ends of the window in z. Never above `kinematic_limit`.
        """
        energy = _energy(beam_energy)
        ends = []
        for z in self.z_range:
            room = 2 * z * (1 - z) * energy * _TRANSFER - (z * M_PROTON) ** 2
            ends.append(max(room, 0.0) / (1 - z))
        return min(float(np.sqrt(min(ends))), kinematic_limit(energy))

    def check(self, mass: npt.ArrayLike, beam_energy: float) -> FloatArray:
        """Return masses [GeV] as an array, if the kernel speaks of them at this beam energy."""
        values, energy = _masses(mass), _energy(beam_energy)
        worst = float(values.max(initial=0.0))
        closed = kinematic_limit(energy)
        if worst >= closed:
            raise PhysicsError(
                f"bremsstrahlung {self.name!r}: {worst:g} GeV cannot be made by a beam of {energy:g} GeV on "
                f"protons at rest: p p → p p A' is open below √s − 2 m_p = {closed:.3g} GeV"
            )
        limit = self.largest_mass(energy)
        if worst > limit:
            low, high = self.z_range
            holds = f"up to {limit:.3g} GeV" if limit > 0 else "for no mass"
            raise PhysicsError(
                f"bremsstrahlung {self.name!r}: {worst:g} GeV from a beam of {energy:g} GeV is beyond the "
                f"approximation, which holds {holds} here: at an end of {low:g} < z < {high:g} the target "
                f"takes more than {_TRANSFER:g} GeV. Leave such masses out, give a harder beam, or "
                "narrow z_range with dataclasses.replace"
            )
        return values

    def differential(
        self, z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike, beam_energy: float
    ) -> FloatArray:
        """Return d²N/(dz dpT²) per interacting proton and ε² [GeV⁻²]; zero outside the window."""
        z, pt2 = np.asarray(z, dtype=np.float64), np.asarray(pt2, dtype=np.float64)
        mass = self.check(mass, beam_energy)
        low, high = self.z_range
        inside = (z >= low) & (z <= high) & (pt2 >= 0) & (pt2 <= self.pt_max**2)
        safe_z, safe_pt2 = np.where(inside, z, 0.5), np.where(inside, pt2, 0.0)
        density = self._splitting(safe_z, safe_pt2, mass) * self._flux(safe_z, safe_pt2, mass, beam_energy)
        if self.off_shell is not None:
            virtual = virtuality(safe_z, safe_pt2, mass) / safe_z
            density = density / (1 + (virtual / self.off_shell**2) ** 2) ** 2
        return np.asarray(np.where(inside, density, 0.0), dtype=np.float64)

    def rate(self, mass: npt.ArrayLike, beam_energy: float) -> FloatArray:
        """Return the number of dark photons in the window per interacting proton and ε².

        Gauss-Legendre in ln z and ln(1 + pT²/A), A = z² m_p² + (1 − z) m², 24 nodes each.
        """
        mass = self.check(mass, beam_energy)[..., None, None]
        nodes, weights = np.polynomial.legendre.leggauss(_NODES)
        u, w = 0.5 * (nodes + 1), 0.5 * weights
        z, pt2, jacobian = self._map(u[:, None], u[None, :], mass)
        density = self.differential(z, pt2, mass, beam_energy) * jacobian
        return np.asarray(np.einsum("...ij,i,j->...", density, w, w), dtype=np.float64)

    def sample(
        self, mass: float, beam_energy: float, n: int, rng: Rng
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Draw dark photons with weights."""
        require(n >= 1, f"bremsstrahlung: {n} particles asked for; give one or more")
        z, pt2, jacobian = self._map(rng.uniform(size=n), rng.uniform(size=n), self.check(mass, beam_energy))
        weight = self.differential(z, pt2, mass, beam_energy) * jacobian / n
        energy = np.sqrt((z * beam_energy) ** 2 + pt2 + mass**2)
        return np.asarray(energy), np.asarray(np.sqrt(pt2)), np.asarray(weight)

    def _map(
        self, u: FloatArray, v: FloatArray, mass: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Map the unit square onto the window, dense where 1/(zH) is large."""
        low, high = self.z_range
        log_range = np.log(high / low)
        z = low * np.exp(u * log_range)
        a = virtuality(z, 0.0, mass)
        span = np.log1p(self.pt_max**2 / a)
        pt2 = a * np.expm1(v * span)
        return z, pt2, z * log_range * (a + pt2) * span

    def _splitting(self, z: FloatArray, pt2: FloatArray, mass: FloatArray) -> FloatArray:
        f1, f2 = self.form_factor(mass)
        dirac2 = np.abs(f1) ** 2
        if self.splitting == "fww":
            return np.asarray(dirac2 * fww_splitting(z, pt2, mass))
        if self.splitting == "qra_v1":
            return np.asarray(dirac2 * polarisation_sum_splitting(z, pt2, mass))
        total = dirac2 * dirac_splitting(z, pt2, mass)
        if np.any(f2):
            total = total + np.abs(f2) ** 2 * pauli_splitting(z, pt2, mass)
            total = total + (f1 * np.conj(f2)).real * interference_splitting(z, pt2, mass)
        return np.asarray(total, dtype=np.float64)

    def _flux(self, z: FloatArray, pt2: FloatArray, mass: FloatArray, beam_energy: float) -> FloatArray:
        if self.s_prime == "collinear":
            s = 2 * M_PROTON * beam_energy + 2 * M_PROTON**2
            after = 2 * M_PROTON * beam_energy * (1 - z) + 2 * M_PROTON**2
        else:
            s = 2 * M_PROTON * beam_energy
            energy = np.sqrt((z * beam_energy) ** 2 + pt2 + mass**2)
            after = np.maximum(2 * M_PROTON * (beam_energy - energy), _S_MIN)
        sigma = cross_section_nsd if self.cross_section == "nsd" else cross_section_total
        return sigma(after) / (sigma(s) if self.inelastic is None else self.inelastic)


def kinematic_limit(beam_energy: float) -> float:
    """Return √s − 2 m_p [GeV], the largest mass of p p → p p A' with protons at rest; 0 if none."""
    s = 2 * M_PROTON**2 + 2 * M_PROTON * _energy(beam_energy)
    return max(0.0, float(np.sqrt(s)) - 2 * M_PROTON)


def _energy(beam_energy: float) -> float:
    if not (np.isfinite(beam_energy) and beam_energy > M_PROTON):
        raise PhysicsError(f"bremsstrahlung: beam energy {beam_energy!r} GeV is not above the proton's mass")
    return float(beam_energy)


def _masses(mass: npt.ArrayLike) -> FloatArray:
    values = np.asarray(mass, dtype=np.float64)
    if not (np.isfinite(values) & (values > 0)).all():
        raise PhysicsError(f"bremsstrahlung: mass {values.min():g} GeV must be positive and finite")
    return values


_QRA = Bremsstrahlung("qra_v2", "qra_v2", FORM_FACTORS["vmd"], 1.5, (0.1, 0.9), 3.0, "nsd", "collinear", None)

PRESETS: dict[str, Bremsstrahlung] = {
    # arXiv:2409.09123 with the F1 of arXiv:0910.5589: the default.
    "qra_v2": _QRA,
    # arXiv:2108.05900.
    "qra_v1": replace(_QRA, name="qra_v1", splitting="qra_v1"),
    # arXiv:1311.3870 as the NA62 search in beam-dump mode, arXiv:2312.12055, appears to use it.
    "na62": Bremsstrahlung("na62", "fww"),
    # The wide window and the dipole of FairShip.
    "fairship": Bremsstrahlung("fairship", "fww", FORM_FACTORS["dipole"], None, (0.14, 0.99), 4.0),
    # arXiv:1311.3870 with the form factor of BdNMC, arXiv:1609.01770.
    "fww_vmd": Bremsstrahlung("fww_vmd", "fww", FORM_FACTORS["vmd-degenerate"]),
}


TITLES = {"qra_v2": "quasi-real, v2", "qra_v1": "quasi-real, v1", "na62": "as NA62"}
TITLES |= {"fairship": "as FairShip", "fww_vmd": "FWW, VMD form factor"}
"""What figures call the presets."""


def preset(name: str) -> Bremsstrahlung:
    """Return a named preset: "qra_v2", "qra_v1", "na62", "fairship" or "fww_vmd"."""
    if name not in PRESETS:
        raise PhysicsError(f"bremsstrahlung preset {name!r} is not known; there are {', '.join(PRESETS)}")
    return PRESETS[name]


def band(central: Bremsstrahlung, factor: float = 2.0) -> tuple[Bremsstrahlung, Bremsstrahlung]:
    """Return the conventions with Λ/factor and factor·Λ: edges of the theory band, an assumption."""
    if central.off_shell is None:
        raise PhysicsError(f"bremsstrahlung {central.name!r} has no off-shell form factor, so no band of Λ")
    low, high = central.off_shell / factor, central.off_shell * factor
    low_name, high_name = (f"{central.name}, Λ = {scale:g} GeV" for scale in (low, high))
    return replace(central, name=low_name, off_shell=low), replace(central, name=high_name, off_shell=high)


def virtuality(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return H = pT² + z² m_p² + (1 − z) m² [GeV²]."""
    z = np.asarray(z, dtype=np.float64)
    return np.asarray(np.asarray(pt2) + z**2 * _MP2 + (1.0 - z) * np.square(mass), dtype=np.float64)


def dirac_splitting(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₁₁, the part ∝ |F1|² with the longitudinal polarisation e_L − q/m.

    Quasi-real approximation, second version: arXiv:2409.09123. At m → 0 it is the photon splitting function
    (α/2π) [(1 + (1−z)²)/(zH) − 2z(1−z) m_p²/H²].
    """
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    bracket = (1 + (1 - z) ** 2) / z - z * (1 - z) * (2 * _MP2 + m2) / h
    return np.asarray(ALPHA / (2 * np.pi * h) * bracket, dtype=np.float64)


def pauli_splitting(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₂₂, the part ∝ |F2|² of the anomalous moment; arXiv:2409.09123."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    extra = (1 - (1 - z) * (4 * _MP2 + m2) / h) * (1 / z - z / 4 * (4 * _MP2 - m2) / h)
    return np.asarray(dirac_splitting(z, pt2, mass) + ALPHA / (4 * np.pi * _MP2) * extra, dtype=np.float64)


def interference_splitting(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return w₁₂, the part ∝ Re(F1 F2*); arXiv:2409.09123."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    return np.asarray(ALPHA / (2 * np.pi * h) * (2 * z - 3 * z * (1 - z) * m2 / h), dtype=np.float64)


def polarisation_sum_splitting(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return the plain sum over polarisations, ∝ |F1|², arXiv:2108.05900; it grows as 1/m² at small mass."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    bracket = z - z * (1 - z) * (2 * _MP2 + m2) / h + h / (2 * z * m2)
    return np.asarray(ALPHA / (2 * np.pi * h) * bracket, dtype=np.float64)


def fww_splitting(z: npt.ArrayLike, pt2: npt.ArrayLike, mass: npt.ArrayLike) -> FloatArray:
    """Return the Fermi-Weizsäcker-Williams splitting of Blümlein and Brunner, arXiv:1311.3870, Eq. 5."""
    z, m2 = np.asarray(z, dtype=np.float64), np.square(mass)
    h = virtuality(z, pt2, mass)
    both = 1 + (1 - z) ** 2
    bracket = both / z - 2 * z * (1 - z) * ((2 * _MP2 + m2) / h - 2 * z**2 * _MP2**2 / h**2)
    bracket = bracket + 2 * z * (1 - z) * m2 * (both * _MP2 + (1 - z) * m2) / h**2
    return np.asarray(ALPHA / (2 * np.pi * h) * bracket, dtype=np.float64)
