"""Exclusive channels as one, other vectors decay by decay, replicas of the kinematics."""

from dataclasses import replace

import numpy as np
import pytest

from gammastar import accept, predict
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.bremsstrahlung import band, preset
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import CHARGES, E_CHARGE, kinetic_mixing_loop
from gammastar.predict.mixture import (
    Mixture,
    Scaled,
    process_of,
    recoupled_channels,
    shares_of,
    single_decays,
)
from gammastar.predict.models import rate_ratio
from gammastar.testing import check_channel

TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
MESONS = [
    leaf(TABLE, 400.0)
    for leaf in (predict.PionDalitz, predict.PseudoscalarDalitz, predict.VectorDalitz, predict.VectorMixing)
]
BREM = predict.Bremsstrahlung(preset("qra_v2"), 400.0)


def test_a_mixture_is_a_channel_and_its_rates_add():
    mixture = Mixture((*MESONS, BREM))
    check_channel(mixture, masses=(0.1, 0.3, 0.77), beam_energy=400.0)
    masses = np.array([0.1, 0.3, 0.77])
    rate, cov = mixture.rate(masses)
    assert rate == pytest.approx(sum(c.rate(masses)[0] for c in (*MESONS, BREM)))
    assert np.diag(cov) == pytest.approx(sum(np.diag(c.rate(masses)[1]) for c in (*MESONS, BREM)))


def test_overlapping_channels_are_refused():
    with pytest.raises(PhysicsError, match="bremsstrahlung"):
        Mixture((BREM, replace(BREM, kernel=preset("na62"))))
    with pytest.raises(PhysicsError, match="no production channel"):
        Mixture(())


def test_a_channel_adds_nothing_outside_its_masses():
    below = replace(MESONS[1], mass_range=(0.0, 0.2))
    mixture = Mixture((below, BREM))
    assert mixture.rate([0.3])[0] == pytest.approx(BREM.rate([0.3])[0])
    assert mixture.rate([0.1])[0] > BREM.rate([0.1])[0]


def test_shares_sum_to_one_and_follow_the_mesons():
    masses = np.array([0.1, 0.3, 0.6, 0.7827])
    shares = shares_of([*MESONS, BREM], masses)
    assert np.sum(list(shares.values()), axis=0) == pytest.approx(1.0)
    assert shares["pion_dalitz"][0] > 0.7
    assert shares["eta_dalitz"][1] > 0.5
    assert shares["omega"][3] + shares["bremsstrahlung"][3] > 0.9  # the ω, in both


def test_b_minus_l_from_theory_equals_shares_times_the_sum():
    """Two ways: ratio of each decay, or the mixture's rate times the ratio weighted with shares."""
    charges, masses = CHARGES["b_minus_l"], np.array([0.25, 0.5])
    channels = [*MESONS[1:], BREM]
    direct = recoupled_channels(channels, charges).rate(masses)[0]
    ratio = rate_ratio(charges, masses, shares_of(channels, masses))
    assert direct == pytest.approx(Mixture(tuple(channels)).rate(masses)[0] * ratio)


def test_flavour_traces_of_baryon_number():
    """B sees isoscalar currents alone: nothing from ω → π⁰, all of ρ → π⁰ with (1/3 : 1/9·3/2)."""
    charges = CHARGES["b_minus_l"]
    assert charges.production_ratio("omega_dalitz", 0.3) == 0.0
    assert charges.production_ratio("rho", 0.3) == 0.0
    assert charges.production_ratio("omega", 0.3) == pytest.approx(4 / E_CHARGE**2)
    assert charges.production_ratio("rho_dalitz", 0.3) == charges.production_ratio("omega", 0.3)
    assert charges.production_ratio("eta_prime_dalitz", 0.3) == pytest.approx(
        ((1 / 3 * (2 / 3 - 1 / 3 - 2 / 3)) / (4 / 9 + 1 / 9 + 2 / 9)) ** 2 / E_CHARGE**2
    )
    assert CHARGES["protophobic"].production_ratio("pion_dalitz", 0.05) == pytest.approx(0.0, abs=1e-30)


def test_a_loop_mixed_vector_is_a_dark_photon_with_a_running_coupling():
    masses = np.array([0.25, 0.6])
    found = recoupled_channels([*MESONS[1:], BREM], CHARGES["lmu_ltau"]).rate(masses)[0]
    photons = Mixture((*MESONS[1:], BREM)).rate(masses)[0]
    assert found / photons == pytest.approx(np.abs(kinetic_mixing_loop(masses**2)) ** 2)


def test_every_decay_of_the_table_has_a_process():
    for channel in [*MESONS, BREM]:
        assert single_decays([channel])
    with pytest.raises(PhysicsError, match="ratio for another vector"):
        process_of(replace(TABLE.decays[0], kind="pseudoscalar_dalitz", parent="jpsi"))
    with pytest.raises(PhysicsError, match="needs its process"):
        single_decays([Scaled(BREM, np.ones_like)])


def test_replicas_share_particles_and_decays():
    """Weights of one reproduce the nominal signal exactly; a tilt moves it as a tilted sample would."""
    detector = load_detector(data_path("detectors/ship_ecn3.toml"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    sample = MESONS[1].produce(0.3, n=20_000, rng=stream(1, "replicas"))
    tilt = np.asarray(sample.p4.E) / np.average(sample.p4.E)
    replicated = accept.Replicated.of(sample, np.stack([np.ones(20_000), tilt]))
    couplings = np.geomspace(1e-7, 1e-4, 12)
    found = accept.yields(replicated, 0.3, couplings, model, detector, rng=stream(2, "decays"))
    plain = accept.yields(sample, 0.3, couplings, model, detector, rng=stream(2, "decays"))
    tilted = replace(sample, weight=sample.weight * tilt)
    other = accept.yields(tilted, 0.3, couplings, model, detector, rng=stream(2, "decays"))
    assert plain.replicas is None
    assert found.signal == pytest.approx(plain.signal, rel=1e-12)
    assert found.replicas[0] == pytest.approx(plain.signal, rel=1e-12)
    assert found.replicas[1] == pytest.approx(other.signal, rel=1e-12)
    with pytest.raises(PhysicsError, match="do not fit"):
        accept.Replicated.of(sample, np.ones((2, 3)))


def test_edges_of_a_sum_add_each_side_by_itself():
    """The band of Λ is not symmetric: what lowers a rate says nothing of what raises it."""
    masses = np.array([0.3, 0.7])
    low, high = (edge.rate(masses, 400.0) for edge in band(BREM.kernel))
    own, meson = BREM.kernel.rate(masses, 400.0), MESONS[2]
    rate, cov = meson.rate(masses)
    total, bottom, top = Mixture((BREM, meson)).envelope(masses)
    np.testing.assert_allclose(total, own + rate)
    np.testing.assert_allclose(total - bottom, np.hypot(own - low, np.sqrt(np.diag(cov))))
    np.testing.assert_allclose(top - total, np.hypot(high - own, np.sqrt(np.diag(cov))))
    assert (high - own > 1.2 * (own - low)).all()
