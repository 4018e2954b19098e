"""Polarisation, radiation, triggers, thick targets, electrons."""

import awkward as ak
import numpy as np
import pytest

from gammastar.core.constants import ALPHA, M_E, M_MU, branching
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.mock import (
    accepted,
    generate_pairs,
    load_card,
    mass_spectrum,
    mode_rates,
    simulate_events,
)
from gammastar.mock.card import Polarisation
from gammastar.mock.cocktail import momentum, polarised_decay, sample_angles
from gammastar.mock.combinatorial import DecayMuons, like_sign_ratio, muon_pairs
from gammastar.mock.spectrometer import fired, vertex_z
from gammastar.physics.qed import kept_momentum, radiated

CARD = load_card(data_path("cards/na60_mock.toml"))
FULL = load_card(data_path("cards/na60_full.toml"))
ELECTRONS = load_card(data_path("cards/na45_mock.toml"))


@pytest.fixture
def rng():
    return np.random.default_rng(8)


def alone(key, card=CARD, **update):
    return card.model_copy(update={"modes": {key: card.modes[key].model_copy(update=update)}})


def test_angles_have_the_coefficients(rng):
    """⟨cos²θ⟩ = (1 + 3λθ/5)/(3 + λθ), ⟨cos 2φ⟩ = λφ/(3 + λθ), ⟨sin 2θ cos φ⟩ = (4/5) λθφ/(3 + λθ)."""
    n, lam = 200_000, Polarisation(theta=0.5, phi=0.2, theta_phi=-0.3)
    cosine, phi = sample_angles(lam, n, rng)
    norm = 3.0 + lam.theta
    sine2 = 2.0 * cosine * np.sqrt(1 - cosine**2)
    for values, expected in (
        (cosine**2, (1 + 0.6 * lam.theta) / norm),
        (np.cos(2 * phi), lam.phi / norm),
        (sine2 * np.cos(phi), 0.8 * lam.theta_phi / norm),
    ):
        assert values.mean() == pytest.approx(expected, abs=4.5 * values.std() / np.sqrt(n))


@pytest.mark.parametrize("frame", ["helicity", "collins_soper", "laboratory"])
def test_leptons_of_polarised_photons_are_on_shell_and_back_to_back(rng, frame):
    n = 2000
    mass = np.full(n, 0.78)
    photon = momentum(mass, rng.exponential(0.5, n), rng.normal(3.4, 1, n), rng.uniform(0, 6.28, n))
    plus = polarised_decay(photon, mass, M_MU, Polarisation(theta=1.0, frame=frame), 400.0, rng)
    minus = photon - plus
    for p in (plus, minus):
        np.testing.assert_allclose(p[3] ** 2 - np.sum(p[:3] ** 2, axis=0), M_MU**2, atol=2e-6)


def test_unpolarised_frame_does_not_matter():
    """λ = 0 in any frame is the isotropic decay; λθ and acceptance: A(+1) = (3 A(0) − A(−1))/2 exactly."""
    seen = {}
    for theta in (-1.0, 0.0, 1.0):
        card = alone("omega_2body", polarisation=Polarisation(theta=theta))
        d = generate_pairs(card, 100_000, np.random.default_rng(1))
        seen[theta] = (accepted(d.plus, CARD.detector) & accepted(d.minus, CARD.detector)).mean()
    assert seen[0.0] == pytest.approx(0.0978, abs=0.004)
    assert seen[1.0] == pytest.approx(1.5 * seen[0.0] - 0.5 * seen[-1.0], abs=0.006)
    assert seen[-1.0] > 1.2 * seen[0.0] > seen[1.0]


def test_laboratory_frame_is_the_flight_of_the_photon(rng):
    """cos θ there is (2E₊ − E)/(β*p), β* of the muons; λθ = −1, +1 change the acceptance as known."""
    n = 20_000
    mass = np.full(n, 0.78)
    photon = momentum(mass, rng.exponential(0.5, n), rng.normal(3.4, 1, n), rng.uniform(0, 6.28, n))
    plus = polarised_decay(photon, mass, M_MU, Polarisation(theta=-1.0, frame="laboratory"), 400.0, rng)
    beta_star = np.sqrt(1 - 4 * M_MU**2 / mass**2)
    cosine = (2 * plus[3] - photon[3]) / (beta_star * np.sqrt(photon[3] ** 2 - mass**2))
    assert np.mean(cosine**2) == pytest.approx(0.2, abs=4 * np.std(cosine**2) / np.sqrt(n))  # sin²θ
    seen = {}
    for theta in (-1.0, 0.0, 1.0):
        card = alone("omega_2body", polarisation=Polarisation(theta=theta, frame="laboratory"))
        d = generate_pairs(card, 150_000, np.random.default_rng(1))
        seen[theta] = (accepted(d.plus, CARD.detector) & accepted(d.minus, CARD.detector)).mean()
    assert seen[-1.0] / seen[0.0] == pytest.approx(1.32, abs=0.04)
    assert seen[1.0] / seen[0.0] == pytest.approx(0.84, abs=0.04)


def test_impossible_polarisation():
    with pytest.raises(ValueError, match="becomes negative"):
        Polarisation(theta=-1.0, theta_phi=0.5)


@pytest.mark.parametrize(("mass", "lepton"), [(0.78, M_MU), (0.78, M_E)])
def test_mean_energy_loss_is_the_first_order_one(rng, mass, lepton):
    """⟨1 − z⟩ = (α/2π)(L − 1)·4/3 to first order, L = ln(m²/m_l²)."""
    n = 300_000
    kept = radiated(np.full(n, mass), lepton, rng)
    first = ALPHA / (2 * np.pi) * (2 * np.log(mass / lepton) - 1) * 4 / 3
    assert 1.0 - kept.mean() == pytest.approx(first, rel=0.08)
    assert kept.min() >= 0.0
    assert kept.max() <= 1.0


def test_quantiles_of_the_radiation_are_those_of_its_draws(rng):
    mass = np.full(200_000, 0.78)
    lost = 1 - radiated(mass, M_E, rng).ravel()
    quantile = 1 - kept_momentum((np.arange(len(mass)) + 0.5) / len(mass), mass, M_E)
    assert quantile.min() >= 0.0
    assert quantile.max() <= 1.0
    for least in (1e-9, 1e-3, 0.1, 0.5, 0.9):
        share = np.mean(quantile > least)
        assert np.mean(lost > least) == pytest.approx(share, abs=5 * np.sqrt(share / len(lost)))
    assert lost.mean() == pytest.approx(quantile.mean(), abs=5 * lost.std() / np.sqrt(len(lost)))


@pytest.mark.usefixtures("small_pilots")
def test_radiation_leaves_the_born_level_in_truth():
    mc = simulate_events(FULL, 3000, kind="mc", seed=1)
    muon = mc.branches["Muon"][ak.num(mc.branches["Muon"]) == 2]
    two = ak.to_numpy(ak.num(mc.branches["Muon"]) == 2)
    p = np.stack([ak.to_numpy(muon[f"gen_{c}"] / muon.fsr) for c in ("px", "py", "pz")]).astype(float)
    e = np.sqrt(np.sum(p**2, axis=0) + M_MU**2).sum(axis=1)
    born = np.sqrt(e**2 - np.sum(p.sum(axis=2) ** 2, axis=0))
    np.testing.assert_allclose(born, mc.branches["gen_mll"][two], rtol=2e-3, atol=2e-4)
    assert ak.to_numpy(ak.flatten(muon.fsr)).min() < 0.99


def test_triggers_see_sextants_and_prescales():
    apart = np.array([[1.0, -1.0], [0.5, -0.5], [9.0, 9.0]])[:, :, np.newaxis]
    close = np.array([[1.0, 1.0], [0.5, 0.6], [9.0, 9.0]])[:, :, np.newaxis]
    charge, present = np.array([[1], [-1]], dtype=np.int8), np.ones((2, 1), dtype=np.bool_)
    for muons, bits, prescale in ((apart, 0b11, 1), (close, 0b10, 10)):
        found = fired(FULL, muons, charge, present)
        assert (int(found[0][0]), int(found[1][0])) == (bits, prescale)


@pytest.mark.long
@pytest.mark.usefixtures("small_pilots")
def test_richer_spectrometer():
    data = simulate_events(FULL, 4000, seed=2)
    muon = data.branches["Muon"]
    assert {"chi2trk", "chi2match", "nPix", "nMS", "sextant", "dx", "dy"} < set(muon.fields)
    assert not any(name.startswith("hidden") for name in muon.fields)
    assert set(np.unique(data.branches["prescale"])) == {1.0, 10.0}
    pair = data.branches["Muon"][ak.num(muon) == 2]
    opposite = int(ak.sum(ak.sum(pair.charge, axis=1) == 0))
    assert opposite == pytest.approx(4000, rel=0.06)  # a third muon does not count for the trigger of a pair
    assert np.all(np.diff(data.branches["burst"]) >= 0)
    assert data.branches["burst"].max() < data.meta["n_bursts"]
    assert data.meta["pot_per_burst"] * data.meta["n_bursts"] == pytest.approx(data.meta["N_POT"])
    assert set(np.unique(data.branches["target"])) == set(range(6))
    phi = np.mod(np.arctan2(ak.to_numpy(ak.flatten(muon.py)), ak.to_numpy(ak.flatten(muon.px))), np.pi / 3)
    assert np.mean(np.minimum(phi, np.pi / 3 - phi) < 0.05) < 0.02  # coils, but for the smearing


def test_thick_target(rng):
    """Interactions along a target of several interaction lengths are an exponential."""
    thick = CARD.target.model_copy(update={"thickness": 3.0, "profile": "attenuated", "z_size": 30.0})
    z = vertex_z(thick, rng.uniform(-0.5, 0.5, 100_000))
    depth = z / 30.0 + 0.5
    mean = 1 / 3 - np.exp(-3.0) / -np.expm1(-3.0)
    assert depth.mean() == pytest.approx(mean, abs=0.004)
    assert thick.interactions == pytest.approx(1 - np.exp(-3.0))
    assert 0 <= depth.min() < depth.max() <= 1


@pytest.mark.usefixtures("small_pilots")
def test_electron_pairs_below_twice_the_muon_mass():
    d = generate_pairs(ELECTRONS, 100_000, np.random.default_rng(3))
    pi0 = d.mass[d.process == 1]
    assert (pi0 < 2 * M_MU).all()
    assert pi0.min() < 5e-3
    edges = np.array([0.01, 0.02, 0.05, 0.1, 0.13])
    fine = np.linspace(edges[:-1], edges[1:], 129)
    expected = np.trapezoid(mass_spectrum(ELECTRONS, fine), fine, axis=0) / d.weight.sum() * len(d)
    found = np.histogram(d.mass, edges)[0]
    np.testing.assert_allclose(found, expected, atol=5 * np.sqrt(expected.max()))
    rates = mode_rates(ELECTRONS)
    assert rates["pi0_dalitz"] == pytest.approx(3.87 * branching("pi0 -> e e gamma"))
    data = simulate_events(ELECTRONS, 1000, seed=1)
    assert data.meta["sum_weights"]["combinatorial"] > 100
    assert data.meta["r_pool"] == pytest.approx(
        1.0, abs=4 * data.meta["r_pool_sigma"]
    )  # either lepton is lost


def test_switches_of_the_full_card(tmp_path):
    text = data_path("cards/na60_full.toml").read_text(encoding="utf-8")
    assert FULL.provenance["modes.drell_yan.continuum.low"].tag == "derived"
    for old, new, match in (
        ("[charm]\n", "[charm]\nbeauty = true\n", "charm.beauty: unknown key"),
        ('system = "pp"', 'system = "pBe"', "pythia.system"),
        ("different_sextants", "different_sectors", "different_sectors"),
    ):
        (tmp_path / "card.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(SteeringError, match=match):
            load_card(tmp_path / "card.toml")


@pytest.mark.usefixtures("small_pilots")
def test_tail_of_offsets_moves_nothing_else():
    """The tail has random numbers of its own: all but the offsets of its muons stays as it was."""
    card = FULL
    plain = card.model_copy(
        update={"spectrometer": card.spectrometer.model_copy(update={"offset_tail": 0.0})}
    )
    with_tail, without = (simulate_events(c, 4_000, kind="mc", seed=1, engine="toy") for c in (card, plain))
    assert set(with_tail.branches) == set(without.branches)
    muon, other = (ak.flatten(sample.branches["Muon"]) for sample in (with_tail, without))
    assert all(ak.all(muon[name] == other[name]) for name in muon.fields if name not in ("dx", "dy"))
    changed = np.asarray(muon["dx"] != other["dx"])
    assert changed.mean() == pytest.approx(card.spectrometer.offset_tail, abs=0.005)
    wider = np.abs(np.asarray(muon["dx"] / other["dx"]))[changed]
    assert np.median(wider) == pytest.approx(
        card.spectrometer.offset_tail_scale * 1.13, rel=0.15
    )  # median of t


def test_independent_muons_pair_as_poisson_numbers_do(rng):
    """Of a mean number of λ muons each interaction has λ²/2 pairs, whether of its own or mixed."""
    n, mean = 40_000, 0.7
    event = np.repeat(np.arange(n), rng.poisson(mean, n))
    nothing = np.zeros(len(event))
    muons = DecayMuons(
        np.zeros((4, len(event))),
        rng.choice(np.array([-1, 1], np.int8), len(event)),
        nothing.astype(np.int32),
        nothing + 1.0,
        event,
        nothing,
        n,
    )
    for pairing in ("same-event", "mixed"):
        found = muon_pairs(muons, rng, pairing=pairing).weight.sum()
        assert found == pytest.approx(mean**2 / 2, rel=4 * np.sqrt(2 / (mean**2 * n) + 4 / (mean * n)))


def test_the_error_of_r_is_its_scatter(rng):
    """Of 50 blocks of Poisson numbers: delete-one jackknife against samples."""
    numbers = np.array([20.0, 10.0, 8.0])[:, None]
    found = np.array([like_sign_ratio(rng.poisson(numbers, (3, 50)).astype(float)) for _ in range(400)])
    assert found[:, 0].std() / found[:, 1].mean() == pytest.approx(1, abs=4 / np.sqrt(2 * 400))


def test_photons_of_a_proton_are_those_of_its_mesons():
    """Mesons per interaction on the nucleus, not on a proton: so many times more with twice the factor."""
    card = load_card(data_path("cards/na60_mock.toml"))
    mesons = {key: m.model_copy(update={"a_factor": 2 * m.a_factor}) for key, m in card.mesons.items()}
    once, twice = mode_rates(card), mode_rates(card.model_copy(update={"mesons": mesons}))
    assert twice == pytest.approx({key: 2 * value for key, value in once.items()})
