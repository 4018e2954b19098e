"""Dalitz spectra, form factors, line shapes and Eq. 6 against closed forms and published numbers."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from gammastar.core.constants import ALPHA, BRANCHING, M_E, M_MU, M_PI0, branching, mass, width
from gammastar.core.errors import PhysicsError
from gammastar.physics import hadrons
from gammastar.physics.hadrons import RHO_MASS_MAX, breit_wigner, rho_mass_density
from gammastar.physics.qed import dark_photon_rate, kappa, lepton_factor, pseudoscalar_dalitz, vector_dalitz

ETA, ETA_PRIME, OMEGA, RHO, PHI = 221, 331, 223, 113, 333
BR_GG = {111: branching("pi0 -> gamma gamma"), ETA: branching("eta -> gamma gamma")}
BR_PI0_GAMMA = branching("omega -> pi0 gamma")


def integral(density, low: float, high: float) -> float:
    """Integrate in ln q², where the spectrum is smooth."""
    value, _ = quad(lambda t: float(density(np.exp(t))) * np.exp(t), np.log(low), np.log(high), limit=200)
    return value


@pytest.mark.parametrize(
    ("m", "expected"),
    [(0.25, 1780.86), (0.3, 1457.87), (0.5, 1308.22), (0.77, 1294.36), (1.0, 1292.52)],
)
def test_inverse_kappa_of_muons(m: float, expected: float) -> None:
    assert float(1 / kappa(m, M_MU)) == pytest.approx(expected, rel=2e-5)


def test_inverse_kappa_of_electrons_is_three_pi_over_alpha() -> None:
    assert float(1 / kappa(1.0, M_E)) == pytest.approx(1291.534, rel=1e-5)


def test_lepton_factor_vanishes_at_and_below_threshold() -> None:
    q2 = np.array([0.0, M_MU**2, 4 * M_MU**2, 4 * M_MU**2 * (1 + 1e-9)])
    assert lepton_factor(q2, M_MU)[:3].tolist() == [0.0, 0.0, 0.0]
    assert lepton_factor(q2, M_MU)[3] > 0


@pytest.mark.parametrize(
    ("pdg", "m_lepton", "form_factor", "expected"),
    [
        (111, M_E, hadrons.pointlike, 0.0118514),
        (111, M_E, hadrons.pi0_2, 0.0118774),
        (ETA, M_MU, hadrons.pointlike, 5.5139e-4),
        (ETA, M_MU, hadrons.eta2, 8.2356e-4),
        (ETA, M_E, hadrons.pointlike, 1.6190e-2),
        (ETA, M_E, hadrons.eta2, 1.6748e-2),
        (ETA_PRIME, M_MU, hadrons.pointlike, 1.7244e-3),
        (ETA_PRIME, M_MU, hadrons.eta_prime2, 4.9000e-3),
    ],
)
def test_dalitz_ratio_to_two_photons(pdg: int, m_lepton: float, form_factor, expected: float) -> None:
    parent = mass(pdg)
    ratio = integral(
        lambda q2: pseudoscalar_dalitz(q2, parent, m_lepton, form_factor), 4 * m_lepton**2, parent**2
    )
    assert ratio == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("m_lepton", "form_factor", "expected"),
    [
        (M_MU, hadrons.pointlike, 5.5501e-4),
        (M_MU, hadrons.omega2, 1.2295e-3),
        (M_E, hadrons.pointlike, 8.5594e-3),
        (M_E, hadrons.omega2, 9.4379e-3),
    ],
)
def test_omega_dalitz_ratio_to_pi0_gamma(m_lepton: float, form_factor, expected: float) -> None:
    parent = mass(OMEGA)
    ratio = integral(
        lambda q2: vector_dalitz(q2, parent, M_PI0, m_lepton, form_factor),
        4 * m_lepton**2,
        (parent - M_PI0) ** 2,
    )
    assert ratio == pytest.approx(expected, rel=1e-3)


def test_pi0_dalitz_branching_agrees_with_pdg() -> None:
    ratio = integral(lambda q2: pseudoscalar_dalitz(q2, M_PI0, M_E, hadrons.pi0_2), 4 * M_E**2, M_PI0**2)
    assert abs(ratio * BR_GG[111] - BRANCHING["pi0 -> e e gamma"].value) < BRANCHING["pi0 -> e e gamma"].error


@pytest.mark.parametrize(
    ("pdg", "form_factor", "m", "m_lepton", "expected"),
    [
        (111, hadrons.pointlike, 0.05, M_E, 1.2694),
        (111, hadrons.pointlike, 0.10, M_E, 0.18145),
        (111, hadrons.pointlike, 0.13, M_E, 7.496e-4),
        (ETA, hadrons.eta2, 0.25, M_MU, 0.5056),
        (ETA, hadrons.eta2, 0.3, M_MU, 0.3961),
        (ETA, hadrons.eta2, 0.4, M_MU, 0.1681),
        (ETA, hadrons.eta2, 0.5, M_MU, 0.01377),
        (ETA, hadrons.pointlike, 0.25, M_MU, 0.3907),
        (ETA, hadrons.pointlike, 0.5, M_MU, 0.00367),
    ],
)
def test_eq6_returns_the_branching_of_p_to_gamma_dark_photon(pdg, form_factor, m, m_lepton, expected) -> None:
    spectrum = BR_GG[pdg] * 2 * m * pseudoscalar_dalitz(m**2, mass(pdg), m_lepton, form_factor)
    rate = float(dark_photon_rate(spectrum, m, m_lepton))
    closed = float(2 * BR_GG[pdg] * (1 - m**2 / mass(pdg) ** 2) ** 3 * form_factor(m**2))
    assert rate == pytest.approx(closed, rel=1e-12)
    assert rate == pytest.approx(expected, rel=2e-3)


@pytest.mark.parametrize(("m", "expected"), [(0.3, 0.0765), (0.5, 0.0639), (0.6, 0.0483)])
def test_eq6_returns_the_branching_of_omega_to_pi0_dark_photon(m: float, expected: float) -> None:
    spectrum = BR_PI0_GAMMA * 2 * m * vector_dalitz(m**2, mass(OMEGA), M_PI0, M_MU, hadrons.omega2)
    assert float(dark_photon_rate(spectrum, m, M_MU)) == pytest.approx(expected, rel=2e-3)


def test_eq6_does_not_depend_on_the_lepton() -> None:
    rates = [
        float(dark_photon_rate(2 * 0.4 * pseudoscalar_dalitz(0.16, mass(ETA), m, hadrons.eta2), 0.4, m))
        for m in (M_E, M_MU)
    ]
    assert rates[0] == pytest.approx(rates[1], rel=1e-12)


@pytest.mark.parametrize(
    ("pdg", "branching", "expected", "smeared"),
    [(OMEGA, branching("omega -> e e"), 2.747, 0.498), (PHI, branching("phi -> e e"), 29.23, 2.594)],
)
def test_eq6_at_narrow_vector_mesons(pdg: int, branching: float, expected: float, smeared: float) -> None:
    pole, gamma, sigma = mass(pdg), width(pdg), 0.030
    peak = float(dark_photon_rate(branching * breit_wigner(pole, pole, gamma), pole, M_E))
    assert peak == pytest.approx(3 / ALPHA * pole / gamma * branching, rel=1e-5)
    assert peak == pytest.approx(expected, rel=1e-2)
    gaussian = branching / np.sqrt(2 * np.pi) / sigma
    assert float(dark_photon_rate(gaussian, pole, M_E)) == pytest.approx(smeared, rel=2e-3)


def test_eq6_refuses_masses_below_threshold() -> None:
    with pytest.raises(PhysicsError, match="threshold"):
        dark_photon_rate(np.ones(2), np.array([0.2, 0.5]), M_MU)


def test_pole_form_factor_refuses_its_pole() -> None:
    with pytest.raises(PhysicsError, match="pole"):
        hadrons.eta2(0.6)


@pytest.mark.parametrize("function", [hadrons.eta2, hadrons.omega2, hadrons.pi0_2, hadrons.pointlike])
def test_form_factors_are_one_at_zero(function) -> None:
    assert float(function(0.0)) == 1.0


def test_rho_line_shape_is_normalised_and_pulled_down_by_temperature() -> None:
    for temperature in (0.12, 0.161, 0.25):
        assert quad(lambda m, t=temperature: float(rho_mass_density(m, t)), 0.27914, RHO_MASS_MAX, limit=300)[
            0
        ] == pytest.approx(1, abs=1e-5)
    m = np.linspace(0.28, 1.49, 4000)
    means = [float(np.average(m, weights=rho_mass_density(m, t))) for t in (0.12, 0.161, 0.25)]
    assert means == sorted(means)
    assert 0.68 < m[np.argmax(rho_mass_density(m, 0.161))] < mass(RHO)
    assert rho_mass_density(0.27, 0.161) == 0.0


def test_rho_line_shape_refuses_a_temperature_of_zero() -> None:
    with pytest.raises(PhysicsError, match="temperature"):
        rho_mass_density(0.5, 0.0)


def test_breit_wigner_integrates_to_one() -> None:
    value, _ = quad(lambda m: float(breit_wigner(m, 1.02, 0.004)), 0, 60, points=[1.0, 1.02, 1.04], limit=500)
    assert value == pytest.approx(1, abs=2e-3)
