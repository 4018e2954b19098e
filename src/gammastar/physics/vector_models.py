"""Vectors that do not couple like the photon: charges, widths, production relative to a dark photon.

Couplings g multiply the charges; e is not taken out. A dark photon has g = εe and the electric charges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, M_E, M_MU, M_TAU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["CHARGES", "E_CHARGE", "Charges", "Process", "kinetic_mixing_loop"]

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


def kinetic_mixing_loop(q2: npt.ArrayLike) -> npt.NDArray[np.complex128]:
    """Return ε(q²)/g of L_μ − L_τ from the loops of muons and taus.

    Parameters
    ----------
    q2 : array_like
        [GeV²]; complex above 4 m_μ².

    Notes
    -----
    ε(q²) = (g e/2π²) ∫₀¹ dx x(1 − x) ln[(m_τ² − x(1 − x) q²)/(m_μ² − x(1 − x) q²)], which at q² = 0 is
    (g e/12π²) ln(m_τ²/m_μ²) ≈ g/70 (e.g. arXiv:1803.05466). The logarithm below threshold takes q² + i0. A
    tree-level mixing of either sign may add; none is assumed.

    Examples
    --------
    >>> round(1 / kinetic_mixing_loop(0.0).real, 1)
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

    Attributes
    ----------
    name : str
    quarks : tuple of float
        u, d, s.
    electron, muon, tau : float
    neutrinos : tuple of float
        Of the three left-handed neutrinos.
    loop_mixing : bool
        Charges of quarks and electrons come from the loop ε(q²) of L_μ − L_τ.
    condition : str
        Under which a rate of virtual photons predicts this vector.
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

        Notes
        -----
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
            msg = f"process {process!r} is not known; there are {', '.join(amplitudes)}"
            raise PhysicsError(msg)
        ratio = (amplitudes[process] / E_CHARGE) ** 2
        return np.full(m.shape, ratio)

    def lepton_charges(self, mass_: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return |charge| of e, μ and τ at q² = m², the loop-induced one of the electron included."""
        m = np.asarray(mass_, dtype=np.float64)
        induced = E_CHARGE * np.abs(kinetic_mixing_loop(m**2)) if self.loop_mixing else np.zeros(m.shape)
        return {
            "ee": np.abs(self.electron) + induced,
            "mumu": np.full(m.shape, abs(self.muon)),
            "tautau": np.full(m.shape, abs(self.tau)),
        }

    def lepton_widths(self, mass_: npt.ArrayLike) -> dict[str, FloatArray]:
        """Return partial widths per g² into charged leptons and neutrinos [GeV].

        Notes
        -----
        Γ = x² m/(12π) √(1 − 4r)(1 + 2r); each left-handed neutrino has half a massless charged lepton.
        """
        m = np.asarray(mass_, dtype=np.float64)
        if not (m > 0).all():
            msg = f"{self.name}: mass {m.min():g} GeV must be positive"
            raise PhysicsError(msg)
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
