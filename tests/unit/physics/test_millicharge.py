"""Eq. 8, branching ratios into millicharged pairs, and the angles of a polarised virtual photon."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from gammastar.core.constants import M_E, M_MU, M_PI0, branching, mass
from gammastar.core.errors import PhysicsError
from gammastar.physics import hadrons
from gammastar.physics.millicharge import (
    bin_factors,
    from_dark_photons,
    pair_factor,
    pseudoscalar_branching,
    vector_branching,
)
from gammastar.physics.polarisation import cosine, lambda_theta, lepton_cosine, longitudinal_fraction
from gammastar.physics.qed import pseudoscalar_dalitz

EDGES = np.linspace(0.2, 1.1, 19)  # the first bin straddles 2 m_mu
ETA = mass(221)
ETA_PHOTONS, PI0_PHOTONS = branching("eta -> gamma gamma"), branching("pi0 -> gamma gamma")


def test_chi_of_the_mass_of_the_muon_returns_the_dimuons_exactly() -> None:
    np.testing.assert_allclose(bin_factors(EDGES, M_MU, M_MU), 1.0, rtol=4e-16)
    np.testing.assert_allclose(pair_factor(np.linspace(0.22, 1.0, 20), M_MU, M_MU), 1.0, rtol=0, atol=0)


def test_bins_below_the_threshold_of_chi_give_nothing_and_the_threshold_is_no_step() -> None:
    factors = bin_factors(EDGES, [0.25, 0.31], M_MU)
    assert (factors[0, :6] == 0).all()
    assert (factors[0, 6:] > 0).all()
    scan = bin_factors(EDGES, np.linspace(0.2, 0.5, 601), M_MU) @ np.ones(18)
    assert (np.diff(scan) <= 1e-12).all()
    assert abs(np.diff(scan)).max() < 0.03


def test_bin_factors_are_the_mean_of_the_pair_factor() -> None:
    fine = 0.7 + 0.05 * (np.arange(20000) + 0.5) / 20000
    found = bin_factors([0.7, 0.75], [0.01, 0.3, 0.36], M_MU)[:, 0]
    expected = [pair_factor(fine, chi, M_MU).mean() for chi in (0.01, 0.3, 0.36)]
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_pair_factor_below_the_leptons_is_refused() -> None:
    with pytest.raises(PhysicsError, match="threshold"):
        pair_factor(0.2, 0.01, M_MU)


@pytest.mark.parametrize(
    ("m_chi", "expected"), [(0.001, 9.658e-3), (0.010, 2.755e-3), (0.020, 1.029e-3), (0.050, 1.143e-5)]
)
def test_pi0_to_gamma_chi_chi(m_chi: float, expected: float) -> None:
    ours = pseudoscalar_branching(m_chi, M_PI0, PI0_PHOTONS, hadrons.pointlike)
    assert ours == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("m_chi", "expected"), [(0.010, 2.969e-3), (0.100, 3.686e-4), (0.200, 1.415e-5), (0.250, 1.474e-7)]
)
def test_eta_to_gamma_chi_chi(m_chi: float, expected: float) -> None:
    ours = pseudoscalar_branching(m_chi, ETA, ETA_PHOTONS, hadrons.eta2)
    assert ours == pytest.approx(expected, rel=1e-3)


def test_pairs_are_counted_not_particles() -> None:
    """Codes that count particles give twice this."""
    ours = pseudoscalar_branching(0.1, ETA, ETA_PHOTONS, hadrons.pointlike)
    assert ours == pytest.approx(2.5283e-4, rel=5e-3)
    assert pseudoscalar_branching(M_E, M_PI0, 1.0, hadrons.pointlike) == pytest.approx(0.0118514, rel=1e-5)
    assert pseudoscalar_branching(0.07, M_PI0, 1.0, hadrons.pointlike) == 0.0


def test_jpsi_to_chi_chi() -> None:
    found = vector_branching([0.5, 1.0, 1.4, 1.5, 1.6], mass(443), branching("jpsi -> e e"))
    np.testing.assert_allclose(found, [0.05946, 0.05510, 0.03594, 0.02177, 0.0], rtol=1e-3)


def test_dark_photons_of_eta_give_its_chi_pairs() -> None:
    """Eq. 6 and the bridge to χ return the three-body branching ratio."""

    def rate(m: np.ndarray) -> np.ndarray:
        open_ = np.clip(1 - (m / ETA) ** 2, 0, None) ** 3
        return 2 * ETA_PHOTONS * open_ * hadrons.eta2(np.minimum(m, ETA) ** 2)

    chi = np.array([0.01, 0.1, 0.2])
    expected = [pseudoscalar_branching(x, ETA, ETA_PHOTONS, hadrons.eta2) for x in chi]
    np.testing.assert_allclose(from_dark_photons(rate, chi, ETA), expected, rtol=1e-6)
    assert from_dark_photons(rate, [0.3], ETA)[0] == 0.0


def test_eq_8_on_eta_dimuons_returns_the_heavy_part_of_its_chi_pairs() -> None:
    edges = np.linspace(2 * M_MU, ETA, 801)
    fine = edges[:-1, None] + np.diff(edges)[:, None] * (np.arange(20) + 0.5) / 20
    density = ETA_PHOTONS * pseudoscalar_dalitz(fine**2, ETA, M_MU, hadrons.eta2) * 2 * fine
    pairs = density.mean(axis=1) * np.diff(edges)
    found = bin_factors(edges, [0.2], M_MU) @ pairs
    assert found[0] == pytest.approx(pseudoscalar_branching(0.2, ETA, ETA_PHOTONS, hadrons.eta2), rel=2e-3)


def test_spin_states_of_the_virtual_photon() -> None:
    m, chi = 0.8, 0.3
    r = (2 * chi / m) ** 2
    assert lambda_theta(0.0, m, chi) == pytest.approx((1 - r) / (1 + r))
    assert lambda_theta(1.0, m, chi) == pytest.approx(-(1 - r))
    assert lambda_theta(1 / 3, m, chi) == pytest.approx(0.0, abs=1e-15)
    fraction = np.linspace(0, 1, 21)
    np.testing.assert_allclose(
        longitudinal_fraction(lambda_theta(fraction, m, chi), m, chi), fraction, atol=1e-12
    )
    with pytest.raises(PhysicsError, match="cannot come from a vector"):
        longitudinal_fraction(0.9, m, chi)
    with pytest.raises(PhysicsError, match="threshold"):
        lambda_theta(0.0, 0.5, 0.3)


def test_slow_pairs_are_isotropic_whatever_the_spin_state() -> None:
    assert abs(lambda_theta(0.0, 0.6001, 0.3)) < 1e-3
    assert abs(lambda_theta(1.0, 0.6001, 0.3)) < 1e-3


@pytest.mark.parametrize("lam", [-1.0, -0.6, -1e-12, 0.0, 0.5, 1.0])
def test_cosines_follow_their_density(lam: float) -> None:
    c = cosine(lam, np.random.default_rng(1).uniform(size=20_000))
    norm = 2 + 2 * lam / 3

    def cdf(x: np.ndarray) -> np.ndarray:
        return (x + 1 + lam * (x**3 + 1) / 3) / norm

    assert stats.kstest(c, cdf).pvalue > 1e-3


def test_transverse_photons_agree_with_the_dalitz_decays() -> None:
    u = np.linspace(0.001, 0.999, 99)
    m, m_l = 0.4, M_MU
    np.testing.assert_allclose(
        cosine(lambda_theta(0.0, m, m_l), u), lepton_cosine(np.full(99, m**2), m_l, u), atol=1e-9
    )
