"""Millicharged pairs: rates, pairs from theory channels."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.constants import M_MU, M_PI0, branching, mass
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.sampling import Sampler
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.hadrons import pi0_2
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import from_dark_photons, pseudoscalar_branching
from gammastar.predict.millicharge import (
    chi_from_channel,
    chi_from_resonances,
    chi_pairs,
    chi_rate,
    conditional,
    resonance_rate,
)
from gammastar.predict.theory import Bremsstrahlung, JPsi, PionDalitz

TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
EDGES = np.linspace(2 * M_MU, 1.1, 60)
BEAM = 400.0


class Simple(Sampler):
    """pT grows with the mass; energies are exponential."""

    def sample(self, mass, rng):
        pt = rng.exponential(0.3 + 0.3 * mass)
        return pt, np.sqrt(mass**2 + pt**2) + rng.exponential(10 + 10 * mass)

    @property
    def mass_range(self):
        return 0.0, 2.0


def everywhere(mass, pt, energy):  # noqa: ARG001
    return energy < 20.0


def _spectrum() -> np.ndarray:
    centre = 0.5 * (EDGES[1:] + EDGES[:-1])
    return 1e-7 * np.exp(-centre / 0.2) + 3e-8 * np.exp(-(((centre - 0.78) / 0.03) ** 2))


def test_rate_with_the_mass_of_the_muon_is_the_dimuon_yield_with_its_error() -> None:
    pairs = _spectrum()
    cov = np.diag((0.1 * pairs) ** 2)
    rate, error = chi_rate(EDGES, pairs, cov, [M_MU, 0.3], M_MU)
    assert rate[0] == pytest.approx(pairs.sum(), rel=1e-14)
    assert error[0, 0] == pytest.approx(cov.sum(), rel=1e-12)
    assert 0 < error[0, 1] <= np.sqrt(error[0, 0] * error[1, 1])
    with pytest.raises(PhysicsError, match="do not fit"):
        chi_rate(EDGES, pairs[1:], cov, [0.3], M_MU)


def test_nothing_above_threshold_is_said() -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(PhysicsError, match="no virtual photon above"):
        conditional(0.6, (EDGES, _spectrum()), M_MU, Simple(), everywhere, n=10, rng=rng)
    with pytest.raises(PhysicsError, match="makes no virtual photon"):
        chi_from_channel(PionDalitz(TABLE, BEAM), 0.1, mass_range=(0, M_PI0), n=10, rng=rng)
    with pytest.raises(PhysicsError, match="above all its resonances"):
        chi_from_resonances(JPsi(TABLE, BEAM), 1.6, n=10, rng=rng)


def test_pairs_are_on_shell_and_add_up_to_their_photon() -> None:
    rng = np.random.default_rng(6)
    photons = conditional(0.3, (EDGES, _spectrum()), M_MU, Simple(), everywhere, n=20_000, rng=rng)
    sample = chi_pairs(photons, 0.3, rng=rng, longitudinal=0.0)
    n = len(photons.mass)
    assert sample.weight.sum() == pytest.approx(2 * photons.weight.sum())
    np.testing.assert_allclose(np.asarray(sample.p4.mass), 0.3, rtol=1e-4)
    total = sample.p4[:n] + sample.p4[n:]
    np.testing.assert_allclose(np.asarray(total.mass), photons.mass, rtol=1e-6)
    np.testing.assert_allclose(np.asarray(total.E), photons.energy, rtol=1e-12)


def test_longitudinal_photons_share_their_energy_more_evenly() -> None:
    rng = np.random.default_rng(7)
    photons = conditional(0.05, (EDGES, _spectrum()), M_MU, Simple(), everywhere, n=50_000, rng=rng)
    n = len(photons.mass)
    spread = []
    for fraction in (0.0, 1 / 3, 1.0):
        sample = chi_pairs(photons, 0.05, rng=rng, longitudinal=fraction)
        share = np.asarray(sample.p4.E)[:n] / photons.energy
        spread.append(np.sqrt(np.average((share - 0.5) ** 2, weights=photons.weight)))
    assert spread[0] > spread[1] > spread[2]
    by_mass = chi_pairs(photons, 0.05, rng=rng, longitudinal=lambda m: np.full(len(m), 1 / 3))
    assert len(by_mass.weight) == 2 * n


def test_pions_make_chi_as_their_branching_ratio_says() -> None:
    channel = PionDalitz(TABLE, BEAM)
    pions = TABLE.mesons["pi0"].per_interaction
    for m_chi in (0.01, 0.05):
        photons = chi_from_channel(
            channel, m_chi, mass_range=(0.0, 2 * M_MU), n=4000, rng=np.random.default_rng(8)
        )
        expected = pions * pseudoscalar_branching(m_chi, M_PI0, branching("pi0 -> gamma gamma"), pi0_2)
        assert photons.weight.sum() == pytest.approx(expected, rel=1e-5)
        assert (photons.mass > 2 * m_chi).all()


def test_bremsstrahlung_of_chi() -> None:
    channel = Bremsstrahlung(preset("qra_v2"), BEAM, 0.01)
    photons = chi_from_channel(channel, 0.3, mass_range=(0.0, 1.5), n=4000, rng=np.random.default_rng(9))
    expected = from_dark_photons(lambda m: channel.rate(m)[0], [0.3], 1.5)
    assert photons.weight.sum() == pytest.approx(expected[0], rel=1e-6)
    assert np.median(photons.energy) > 40  # a tenth of the beam at least


def test_jpsi_of_chi() -> None:
    channel = JPsi(TABLE, BEAM)
    photons = chi_from_resonances(channel, 1.0, n=2000, rng=np.random.default_rng(10))
    assert photons.weight.sum() == pytest.approx(1e-5 * 0.0551, rel=1e-3)
    assert photons.mass == pytest.approx(mass(443))
    assert resonance_rate(channel, [1.0, 1.6]) == pytest.approx([photons.weight.sum(), 0.0])
