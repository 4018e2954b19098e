"""The named models of semi-visible dark photons, each as a mass matrix with charges."""

from __future__ import annotations

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.physics.dark_sector import DarkSector, from_dirac, from_majorana

__all__ = [
    "dark_dirac_seesaw",
    "i2dm",
    "idm",
    "inverse_seesaw",
    "pseudo_dirac",
    "scalar_idm",
]


def pseudo_dirac(
    mu_left: float, mu_right: float, dirac: float, *, mediator: float, alpha_d: float, name: str = "iDM"
) -> DarkSector:
    """Return a Dirac fermion split by Majorana masses μ_L and μ_R [GeV].

    For μ_L = μ_R the coupling is off-diagonal and a vector; otherwise axial diagonal couplings of order
    (μ_L − μ_R)/2m_D appear.
    """
    matrix = [[mu_left, dirac], [dirac, mu_right]]
    return from_majorana(name, matrix, [1.0, -1.0], mediator=mediator, alpha_d=alpha_d)


def idm(mediator: float, *, ratio: float, splitting: float, alpha_d: float, name: str = "iDM") -> DarkSector:
    """Return inelastic dark matter with m₁ = ratio · M and m₂ = (1 + splitting) m₁.

    Examples
    --------
    >>> idm(1.0, ratio=1 / 3, splitting=0.4, alpha_d=0.5).masses.round(4)
    array([0.3333, 0.4667])
    """
    light, heavy = _two(mediator, ratio, splitting)
    half = 0.5 * (heavy - light)
    return pseudo_dirac(half, half, 0.5 * (heavy + light), mediator=mediator, alpha_d=alpha_d, name=name)


def scalar_idm(
    mediator: float, *, ratio: float, splitting: float, alpha_d: float, name: str = "scalar iDM"
) -> DarkSector:
    """Return a complex scalar split by a mass term of charge two; masses as in `idm`."""
    vector = np.array([[0.0, 1.0], [1.0, 0.0]], dtype=np.complex128)
    return DarkSector(
        name=name,
        mediator=mediator,
        alpha_d=alpha_d,
        masses=np.array(_two(mediator, ratio, splitting)),
        vector=vector,
        axial=np.zeros_like(vector),
        field="scalar",
        squared_charges=0.25,
    )


def inverse_seesaw(
    mu: float,
    lambda_left: float,
    lambda_right: float,
    dirac: float,
    *,
    mediator: float,
    alpha_d: float,
    name: str = "dark inverse seesaw",
) -> DarkSector:
    """Return three Majorana states: a neutral one of mass μ, mixed by Λ_L, Λ_R with a charged pair (M_X).

    All in GeV. For Λ_L = Λ_R the dark photon couples only the C-odd state to the two C-even ones, and the
    cascade is ψ₃ → ψ₂ → ψ₁.
    """
    matrix = [[mu, lambda_left, lambda_right], [lambda_left, 0.0, dirac], [lambda_right, dirac, 0.0]]
    return from_majorana(name, matrix, [0.0, 1.0, -1.0], mediator=mediator, alpha_d=alpha_d)


def dark_dirac_seesaw(
    m_neutral: float,
    m_charged: float,
    mixing: float,
    *,
    mediator: float,
    alpha_d: float,
    name: str = "dark Dirac seesaw",
) -> DarkSector:
    """Return two Dirac states from [[M₁, M_m], [M_m, M₂]], only the second charged [GeV].

    With M₁ M₂ < M_m² the light eigenvalue is negative and the off-diagonal vertex is axial.
    """
    matrix = [[m_neutral, mixing], [mixing, m_charged]]
    return from_dirac(name, matrix, [0.0, 1.0], mediator=mediator, alpha_d=alpha_d)


def i2dm(
    mediator: float, *, ratio: float, splitting: float, theta: float, alpha_d: float, name: str = "i2DM"
) -> DarkSector:
    """Return the Dirac seesaw with given masses (as in `idm`) and mixing angle [rad]; vector couplings.

    Examples
    --------
    >>> abs(i2dm(1.0, ratio=0.33, splitting=0.4, theta=0.0785398, alpha_d=0.5).vector).round(4)
    array([[0.0062, 0.0782],
           [0.0782, 0.9938]])
    """
    light, heavy = _two(mediator, ratio, splitting)
    s, c = np.sin(theta), np.cos(theta)
    m_1, m_2 = light * c**2 + heavy * s**2, light * s**2 + heavy * c**2
    return dark_dirac_seesaw(m_1, m_2, (heavy - light) * s * c, mediator=mediator, alpha_d=alpha_d, name=name)


def _two(mediator: float, ratio: float, splitting: float) -> tuple[float, float]:
    if not (ratio > 0 and splitting > 0):
        msg = f"masses: ratio {ratio!r} and splitting {splitting!r} must be positive"
        raise PhysicsError(msg)
    light = ratio * mediator
    return light, light * (1.0 + splitting)
