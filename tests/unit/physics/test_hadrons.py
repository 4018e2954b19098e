"""Dalitz decays, the ρ and final-state radiation against two-body kinematics and the first order in α."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.constants import ALPHA, M_E, M_MU, M_PI0, M_PI_CHARGED, mass, width
from gammastar.physics.hadrons import RHO, pointlike, rho_width
from gammastar.physics.polarisation import momentum_in_rest_frame
from gammastar.physics.qed import kept_momentum, lepton_factor, vector_dalitz


def test_dalitz_decays_of_vectors_fall_with_the_cube_of_the_momentum() -> None:
    """V → Pγ* is a P wave: its width over that into a real photon is the ratio of momenta cubed."""
    omega, m = mass(223), np.linspace(0.22, 0.64, 22)
    p = momentum_in_rest_frame(omega, M_PI0, m) / momentum_in_rest_frame(omega, M_PI0, 0.0)
    wanted = ALPHA / (3 * np.pi * m**2) * p**3 * lepton_factor(m**2, M_MU)
    np.testing.assert_allclose(vector_dalitz(m**2, omega, M_PI0, M_MU, pointlike), wanted, rtol=1e-12)


def test_the_rho_decays_in_a_p_wave() -> None:
    """m Γ goes with the cube of the pions' momentum, and is that of the PDG at the pole."""
    m = np.array([0.3, 0.5, mass(RHO), 1.2])
    p = momentum_in_rest_frame(m, M_PI_CHARGED, M_PI_CHARGED)
    wanted = width(RHO) * mass(RHO) / m * (p / p[2]) ** 3
    np.testing.assert_allclose(rho_width(m), wanted, rtol=1e-12)
    assert rho_width(2 * M_PI_CHARGED) == 0.0


@pytest.mark.parametrize(("m", "lepton"), [(0.8, M_MU), (0.3, M_E)])
def test_leptons_lose_what_the_first_order_radiates(m: float, lepton: float) -> None:
    """⟨1 − z⟩ = (2α/3π) (ln m²/mₗ² − 1) for each lepton: (α/2π)(L − 1)(1 + z²)/(1 − z) times 1 − z."""
    uniform = (np.arange(200_000) + 0.5) / 200_000
    lost = 1 - kept_momentum(uniform, np.full(len(uniform), m), lepton)
    first = 2 * ALPHA / (3 * np.pi) * (2 * np.log(m / lepton) - 1)
    assert lost.mean() == pytest.approx(first, rel=3 * first)  # the next order
