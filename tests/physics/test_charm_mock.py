"""Open charm of the mock: rate, decay angles, displacement, and what like-sign pairs do not see."""

import awkward as ak
import numpy as np
import pytest
from scipy.stats import kstest

from gammastar.core import constants
from gammastar.core.constants import M_MU, branching
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.mock import accepted, charm_rate, generate_charm, load_card, samples, simulate_events
from gammastar.mock.combinatorial import semileptonic

CARD = load_card(data_path("cards/na60_full.toml"))
N = 100_000


@pytest.fixture(scope="module")
def pairs():
    return generate_charm(CARD, N, np.random.default_rng(1))


def test_rate_is_cross_section_times_branching_squared():
    """Per cc̄: (Σ share × BR)² = 8e-3; 20 µb per nucleon are 2.4e-3 cc̄ per p-Pb interaction."""
    per_ccbar = charm_rate(CARD) / (20e-6 * 207.2 / 1.724)
    fractions = [branching(f"{hadron} -> e anything") for hadron in ("D+", "D0", "Ds+", "Lambda_c+")]
    leptons = np.dot([0.283, 0.535, 0.085, 0.097], fractions)
    assert per_ccbar == pytest.approx(leptons**2, rel=1e-6)
    assert 7e-3 < per_ccbar < 10e-3


def test_leptons_are_on_shell_and_weights_give_the_rate(pairs):
    for lepton in (pairs.dimuons.plus, pairs.dimuons.minus):
        mass2 = lepton[3] ** 2 - np.sum(lepton[:3] ** 2, axis=0)
        np.testing.assert_allclose(mass2, M_MU**2, atol=1e-5)
    assert pairs.dimuons.weight.sum() == pytest.approx(charm_rate(CARD) * -np.expm1(-0.01), rel=1e-12)


def test_pseudoscalar_semileptonic_decay_at_rest():
    """sin²θ of the lepton about the flight of lν and the end point (M² − m_K²)/2M of the lepton's energy."""
    species = CARD.charm.hadrons["d_zero"].model_copy(update={"heavy_share": 0.0})
    mass = constants.mass(421)
    at_rest = np.zeros((4, N))
    at_rest[3] = mass
    energy = semileptonic(at_rest, species, 1e-4, CARD.charm.pole_mass, np.random.default_rng(2))[3]
    assert energy.max() < (mass**2 - species.recoil**2) / (2 * mass) + 1e-6
    # massless lepton and sin²θ: ⟨E⟩ of the lepton and of the neutrino are equal, so both are half of ⟨E_W⟩
    q2 = np.linspace(1e-8, (mass - species.recoil) ** 2, 20_001)
    e_w = (mass**2 + q2 - species.recoil**2) / (2 * mass)
    p = np.sqrt(np.clip(e_w**2 - q2, 0, None))
    density = p**3 / (1 - q2 / CARD.charm.pole_mass**2) ** 2
    mean = np.trapezoid(density * e_w / 2, q2) / np.trapezoid(density, q2)
    assert energy.mean() == pytest.approx(mean, abs=4 * energy.std() / np.sqrt(N))


def test_lifetime_shows_in_the_offset(pairs):
    """Half an exponential: offsets scale with cτ; D⁺ are farther than D⁰ by the ratio of the lifetimes."""
    size = np.hypot(*pairs.offset[:, 0])
    medians = [np.median(size[pairs.mother[0] == pdg]) for pdg in (411, 421)]
    assert medians[0] / medians[1] == pytest.approx(309.8 / 123.0, rel=0.06)
    longer = CARD.charm.model_copy(
        update={
            "hadrons": {k: h.model_copy(update={"ctau": 10 * h.ctau}) for k, h in CARD.charm.hadrons.items()}
        }
    )
    other = generate_charm(CARD.model_copy(update={"charm": longer}), N, np.random.default_rng(1))
    np.testing.assert_allclose(other.offset, 10 * pairs.offset, rtol=1e-9)


def test_kinematics_are_those_of_pythia(pairs):
    """HardQCD:hardccbar of Pythia 8.317 with the same decays: mass above 1.1 GeV and acceptance."""
    d = pairs.dimuons
    cone = CARD.detector.model_copy(update={"coil": 0.0})
    seen = accepted(d.plus, cone) & accepted(d.minus, cone)
    assert (d.mass > 1.1).mean() == pytest.approx(0.33, abs=0.03)
    assert seen.mean() == pytest.approx(0.122, rel=0.10)
    assert kstest(np.arctan2(d.plus[1], d.plus[0])[::10], "uniform", (-np.pi, 2 * np.pi)).pvalue > 1e-3


@pytest.mark.long
def test_charm_sample_is_a_template():
    charm = simulate_events(CARD, 4000, kind="charm", seed=3)
    assert len(charm) == pytest.approx(4000, abs=5 * np.sqrt(4000) + 100)
    muon = charm.branches["Muon"]
    assert ak.all(ak.sum(muon.charge, axis=1) == 0)
    assert set(np.unique(charm.branches["gen_process"])) == {9}
    assert not charm.branches["gen_mll"].any()  # no virtual photon
    offset = ak.to_numpy(ak.flatten(np.hypot(muon.dx, muon.dy)))
    prompt = 60.0 * np.sqrt(np.pi / 2)  # mean of a Rayleigh distribution
    assert offset.mean() > 1.8 * prompt
    assert charm.meta["sum_weights"]["charm"] == len(charm)


@pytest.mark.long
def test_charm_in_the_data_is_opposite_sign_and_absent_from_other_cards(monkeypatch):
    monkeypatch.setattr(samples, "PILOT", 40_000)
    monkeypatch.setattr(samples, "SMALLEST_POOL", 10_000)
    data = simulate_events(CARD, 5000, seed=4)
    assert 0.05 < data.meta["sum_weights"]["charm"] / len(data) < 0.15
    off = CARD.model_copy(update={"charm": CARD.charm.model_copy(update={"enabled": False})})
    assert "charm" not in simulate_events(off, 2000, seed=4).meta["sum_weights"]
    plain = load_card(data_path("cards/na60_mock.toml"))
    with pytest.raises(PhysicsError, match=r"no section \[charm\]"):
        simulate_events(plain, 100, kind="charm")
    with pytest.raises(PhysicsError, match="n = 0"):
        generate_charm(CARD, 0, np.random.default_rng(1))
