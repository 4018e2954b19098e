"""Vectors that do not couple like the photon: charges, widths, production relative to a dark photon.

Couplings g multiply the charges; e is not taken out. A dark photon has g = εe and the electric charges.

Hadronic widths up to the φ are split into the parts that couple like ρ, ω and φ: vector-meson dominance.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_E, M_MU, M_PI0, M_PI_CHARGED, M_TAU, branching, mass, width
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.hadrons import RHO, rho_width

Process = Literal[
    "pion_dalitz",
    "eta_dalitz",
    "eta_prime_dalitz",
    "omega_dalitz",
    "omega_eta_dalitz",
    "rho_dalitz",
    "phi_pi_dalitz",
    "phi_dalitz",
    "rho",
    "omega",
    "phi",
    "bremsstrahlung",
]

E_CHARGE = float(np.sqrt(4 * np.pi * ALPHA))
_Q = np.array([2 / 3, -1 / 3, -1 / 3])  # u, d, s
# Flavour content of the pseudoscalars, not normalised; η with the mixing angle −19.5°.
_ETA = np.array([1.0, 1.0, -1.0])
_ETA_PRIME = np.array([1.0, 1.0, 2.0])
_PI0 = np.array([1.0, -1.0, 0.0])
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(200)
MesonName = Literal["rho", "omega", "phi"]
SPLIT_MAX = 1.03  # GeV; beyond, kaon pairs of the ρ and ω and excited mesons are no longer small
_SPLIT_NODES, _SPLIT_WEIGHTS = np.polynomial.legendre.leggauss(40)
_K_CHARGED, _K_NEUTRAL, _ETA_CODE = 321, 311, 221


def kinetic_mixing_loop(q2: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    """Return ε(q²)/g of L_μ − L_τ from the loops of muons and taus.

    `q2`: [GeV²]; complex above 4 m_μ².

    ε(q²) = (g e/2π²) ∫₀¹ dx x(1 − x) ln[(m_τ² − x(1 − x) q²)/(m_μ² − x(1 − x) q²)], which at q² = 0 is
    (g e/12π²) ln(m_τ²/m_μ²) ≈ g/70 (e.g. arXiv:1803.05466). The logarithm below threshold takes q² + i0. A
    tree-level mixing of either sign may add; none is assumed.

    Examples
    --------
    >>> round(float(1 / kinetic_mixing_loop(0.0).real), 1)
    69.3
    """
    x, w = 0.5 * (_NODES + 1), 0.5 * _WEIGHTS
    u = x * (1 - x)
    s = np.asarray(q2, dtype=np.float64)[..., None] * u
    tau = np.log(M_TAU**2 - s - 0j)
    muon = np.log(np.abs(M_MU**2 - s)) - 1j * np.pi * (s > M_MU**2)
    integral = ((tau - muon) * u) @ w
    return np.asarray(E_CHARGE / (2 * np.pi**2) * integral, dtype=np.complex128)


@dataclass(frozen=True, slots=True)
class Charges:
    """Charges of a vector X under its own group.

    `quarks` (tuple of float): u, d, s; `neutrinos` (tuple of float): of the three left-handed neutrinos;
    `loop_mixing`: charges of quarks and electrons come from the loop ε(q²) of L_μ − L_τ; `condition`: under
    which a rate of virtual photons predicts this vector.
    """

    name: str
    quarks: tuple[float, float, float]
    electron: float
    muon: float
    tau: float
    neutrinos: tuple[float, float, float]
    condition: str
    loop_mixing: bool = False

    def production_ratio(self, process: Process, mass_: npt.ArrayLike) -> FloatArray:
        """Return X per g² over dark photons per ε² in one process, shape of `mass_`.

        `mass_`, shape (n,) [GeV].

        P → γX: (Σ c_q Q_q x_q/Σ c_q Q_q²)²/e² with the flavour content c of the meson (SU(3), no form factor
        of its own); V → PX: the same with Σ v_q p_q x_q over Σ v_q p_q Q_q, the contents v and p of both
        mesons (φ → π⁰X through its ω part); V ↔ X: (Σ x_q over the content of V, over the same with Q)²/e²;
        proton bremsstrahlung: (2x_u + x_d)²/e², right at small q² only, where F1 of the proton counts charge.
        A loop-mixed vector: |ε(m²)/g|² in every process.
        """
        m = np.asarray(mass_, dtype=np.float64)
        if self.loop_mixing:
            return np.asarray(np.abs(kinetic_mixing_loop(m**2)) ** 2, dtype=np.float64)
        x = np.array(self.quarks)
        amplitudes = {
            "pion_dalitz": (_PI0 * _Q) @ x / ((_PI0 * _Q) @ _Q),
            "eta_dalitz": (_ETA * _Q) @ x / ((_ETA * _Q) @ _Q),
            "eta_prime_dalitz": (_ETA_PRIME * _Q) @ x / ((_ETA_PRIME * _Q) @ _Q),
            # ω → π⁰ goes through the isovector photon (the ρ), ρ → π⁰ and ω → η through the isoscalar one
            "omega_dalitz": x[0] - x[1],
            "omega_eta_dalitz": (x[0] + x[1]) / (_Q[0] + _Q[1]),
            "rho_dalitz": (x[0] + x[1]) / (_Q[0] + _Q[1]),
            "phi_pi_dalitz": x[0] - x[1],
            "phi_dalitz": x[2] / _Q[2],
            "rho": x[0] - x[1],
            "omega": (x[0] + x[1]) / (_Q[0] + _Q[1]),
            "phi": x[2] / _Q[2],
            "bremsstrahlung": 2 * x[0] + x[1],
        }
        if process not in amplitudes:
            raise PhysicsError(f"process {process!r} is not known; there are {', '.join(amplitudes)}")
        ratio = (amplitudes[process] / E_CHARGE) ** 2
        return np.full(m.shape, ratio)

    def lepton_charges(self, mass_: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return |charge| of e, μ and τ at q² = `mass_`² [GeV²], that of the electron by its loop too."""
        m = np.asarray(mass_, dtype=np.float64)
        induced = E_CHARGE * np.abs(kinetic_mixing_loop(m**2)) if self.loop_mixing else np.zeros(m.shape)
        muon, tau = np.full(m.shape, abs(self.muon)), np.full(m.shape, abs(self.tau))
        return {"ee": np.abs(self.electron) + induced, "mumu": muon, "tautau": tau}

    def lepton_widths(self, mass_: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return partial widths per g² into charged leptons and neutrinos [GeV].

        `mass_`, shape (n,) [GeV].

        Γ = x² m/(12π) √(1 − 4r)(1 + 2r); each left-handed neutrino has half a massless charged lepton.
        """
        m = np.asarray(mass_, dtype=np.float64)
        if not (m > 0).all():
            raise PhysicsError(f"{self.name}: mass {m.min():g} GeV must be positive")
        widths = {}
        heavy = {"ee": M_E, "mumu": M_MU, "tautau": M_TAU}
        for state, charge in self.lepton_charges(m).items():
            r = np.square(heavy[state] / m)
            phase = np.sqrt(np.clip(1 - 4 * r, 0.0, None)) * (1 + 2 * r)
            widths[state] = np.asarray(charge**2 * m / (12 * np.pi) * phase)
        total = sum(x**2 for x in self.neutrinos)
        widths["neutrinos"] = np.asarray(0.5 * total * m / (12 * np.pi))
        return widths


CHARGES: dict[str, Charges] = {
    "lmu_ltau": Charges(
        "Lμ − Lτ",
        (0.0, 0.0, 0.0),
        0.0,
        1.0,
        -1.0,
        (0.0, 1.0, 1.0),
        "exact for production through virtual photons: quarks see X through its mixing ε(q²) alone",
        loop_mixing=True,
    ),
    "b_minus_l": Charges(
        "B − L",
        (1 / 3, 1 / 3, 1 / 3),
        -1.0,
        -1.0,
        -1.0,
        (1.0, 1.0, 1.0),
        "needs the share of each process in the virtual photons, from the fit of the cocktail; no X from ρ",
    ),
    "protophobic": Charges(
        "protophobic",
        (-1 / 3, 2 / 3, 2 / 3),
        -1.0,
        -1.0,
        -1.0,
        (0.0, 0.0, 0.0),
        "needs the share of each process in the virtual photons; none from π⁰ and, at small q², from protons",
    ),
}


@dataclass(frozen=True, slots=True)
class _Resonance:
    """PDG code, branching fraction to e⁺e⁻, and those to hadrons."""

    pdg: int
    electrons: float
    hadrons: tuple[tuple[str, float], ...]


def _resonance(name: MesonName, pdg: int, **hadrons: str) -> _Resonance:
    """Return a meson with the fractions of its decays in `core.constants.BRANCHING`."""
    listed = tuple((channel, branching(f"{name} -> {decay}")) for channel, decay in hadrons.items())
    return _Resonance(pdg, branching(f"{name} -> e e"), listed)


_MESONS: dict[MesonName, _Resonance] = {
    "rho": _Resonance(RHO, branching("rho -> e e"), (("two_pions", 1.0),)),
    "omega": _resonance("omega", 223, three_pions="pi pi pi0", pion_photon="pi0 gamma"),
    "phi": _resonance(
        "phi",
        333,
        charged_kaons="K+ K-",
        neutral_kaons="KL KS",
        three_pions="pi pi pi0",
        eta_photon="eta gamma",
    ),
}


def _three_pions(m: float) -> float:
    """Return Γ(V → πππ) of mass m up to a constant, through ρπ in the three charge states.

    Γ ∝ m⁻³ ∫∫ ds₁₂ ds₂₃ (s₁₂ s₂₃ s₃₁ − m_π²(m² − m_π²)²) |Σ 1/D_ρ(sᵢⱼ)|² over the Dalitz plot, the square of
    the antisymmetric amplitude; pions of equal mass.
    """
    pion2, s = M_PI_CHARGED**2, m * m
    low, high = 4 * pion2, (m - M_PI_CHARGED) ** 2
    if high <= low:
        return 0.0
    s12 = (0.5 * (high - low) * (_SPLIT_NODES + 1) + low)[:, None]
    reach = np.sqrt(np.clip((s12 - 4 * pion2) * ((s - s12 - pion2) ** 2 - 4 * s12 * pion2) / s12, 0.0, None))
    s23 = 0.5 * (s + 3 * pion2 - s12) + 0.5 * reach * _SPLIT_NODES[None, :]
    s31 = s + 3 * pion2 - s12 - s23
    kibble = np.clip(s12 * s23 * s31 - pion2 * (s - pion2) ** 2, 0.0, None)
    pole2 = mass(RHO) ** 2
    amplitude = sum(1 / (pole2 - x - 1j * np.sqrt(x) * rho_width(np.sqrt(x))) for x in (s12, s23, s31))
    inner = (kibble * np.abs(amplitude) ** 2 * (0.5 * reach)) @ _SPLIT_WEIGHTS
    return float(0.5 * (high - low) * inner @ _SPLIT_WEIGHTS / m**3)


@cache
def _three_pion_table() -> tuple[FloatArray, FloatArray]:
    masses = np.linspace(3 * M_PI_CHARGED, 1.3, 240)
    return masses, np.array([_three_pions(float(m)) for m in masses])


def _channel(name: str, m: FloatArray) -> FloatArray:
    if name == "three_pions":
        return np.asarray(np.interp(m, *_three_pion_table(), left=0.0), dtype=np.float64)
    if name in ("pion_photon", "eta_photon"):
        meson = M_PI0 if name == "pion_photon" else mass(_ETA_CODE)
        return np.asarray((np.clip(m**2 - meson**2, 0.0, None) / m) ** 3, dtype=np.float64)
    light = {"two_pions": M_PI_CHARGED, "charged_kaons": mass(_K_CHARGED), "neutral_kaons": mass(_K_NEUTRAL)}
    square = np.clip(m**2 / 4 - light[name] ** 2, 0.0, None)  # P wave
    return np.asarray(square**1.5 / m**2, dtype=np.float64)


def meson_ratio(name: MesonName, m: npt.ArrayLike) -> FloatArray:
    """Return R of one vector meson, σ(e⁺e⁻ → V → hadrons) over 4πα²/3s.

    `name`, {"rho", "omega", "phi"}; `m`, any shape [GeV].

    R = (9 m²/α²) Γ_ee(m) Γ_h(m)/[(M² − m²)² + m²Γ_h(m)²] with Γ_ee(m) = Γ_ee (M/m)³, a photon of constant
    coupling, and Γ_h(m) the width of a meson of mass m: 2π, 3π through ρπ, KK, π⁰γ and ηγ. The peak
    is that of the Breit-Wigner formula, (9/α²) BR(ee) BR(h). Masses and branching fractions: PDG. The
    interference of ω and φ in three pions and that of ρ and ω in two are left out.

    Examples
    --------
    >>> [round(float(meson_ratio("omega", m)), 2) for m in (0.7, 0.9)]
    [0.01, 0.07]
    """
    x = np.asarray(m, dtype=np.float64)
    meson = _MESONS[name]
    pole = mass(meson.pdg)
    at_pole, gamma = np.array(pole), width(meson.pdg)
    listed = sum(fraction for _, fraction in meson.hadrons)
    partial = np.sum(
        [f * gamma * _channel(c, x) / _channel(c, at_pole) for c, f in meson.hadrons], axis=0
    )  # GeV
    total = partial / listed
    electrons = meson.electrons * gamma * (pole / x) ** 3
    propagator = (pole**2 - x**2) ** 2 + x**2 * total**2
    return np.asarray(9 * x**2 / ALPHA**2 * electrons * partial / propagator, dtype=np.float64)


def meson_parts(m: npt.ArrayLike, measured: npt.ArrayLike) -> dict[MesonName, FloatArray]:
    """Return measured R as a sum of what couples like ρ, ω and φ.

    `m` (any shape [GeV]): from 2 m_π to `SPLIT_MAX`; `measured` (shape of `m`): R over a massless muon pair.

    ω and φ are `meson_ratio`; the rest, pion pairs above all and four pions through ωπ⁰, is isovector, zero
    where a coarse table falls below ω and φ. The idea of splitting R by meson: arXiv:1801.04847.
    """
    x = np.asarray(m, dtype=np.float64)
    bad = ~((x > 2 * M_PI_CHARGED) & (x <= SPLIT_MAX))
    if bad.any():
        raise PhysicsError(
            f"R is split into ρ, ω and φ between {2 * M_PI_CHARGED:.4f} and {SPLIT_MAX} GeV; "
            f"{x[bad].flat[0]:g} GeV asked: choose lower masses, or a model with its own hadronic widths"
        )
    omega, phi = meson_ratio("omega", x), meson_ratio("phi", x)
    rest = np.clip(np.asarray(measured, dtype=np.float64) - omega - phi, 0.0, None)
    return {"rho": np.asarray(rest, dtype=np.float64), "omega": omega, "phi": phi}
