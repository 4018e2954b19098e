"""Theory channels: closed forms, peaks, rates that are the sums of the weights, exclusive groups."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core import constants
from gammastar.core.constants import M_MU
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.core.files import data_path
from gammastar.mock.card import load_card
from gammastar.mock.cocktail import mass_spectrum
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import Decay, MesonTable, beam_frame, dark_photon_branching
from gammastar.physics.qed import dark_photon_rate
from gammastar.predict.channel import VirtualPhoton, check_exclusive
from gammastar.predict.theory import (
    Bremsstrahlung,
    JPsi,
    PionDalitz,
    PseudoscalarDalitz,
    VectorDalitz,
    VectorMixing,
)
from gammastar.testing import check_channel

TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
BEAM = 400.0
LEAVES = (PionDalitz, PseudoscalarDalitz, VectorDalitz, VectorMixing, JPsi)


def _branching(parent: str, kind: str, mass: list[float], **changes: object) -> np.ndarray:
    decay = next(d for d in TABLE.decays if d.parent == parent and d.kind == kind)
    meson = TABLE.mesons[parent]
    return dark_photon_branching(replace(decay, **changes), meson.mass, constants.width(meson.pdg), mass)


def test_dalitz_branching_ratios() -> None:
    pi0 = _branching("pi0", "pseudoscalar_dalitz", [0.05, 0.1, 0.13], form_factor="pointlike")
    np.testing.assert_allclose(pi0, [1.2694, 0.18145, 7.496e-4], rtol=5e-4)
    eta = _branching("eta", "pseudoscalar_dalitz", [0.25, 0.3, 0.4, 0.5])
    np.testing.assert_allclose(eta, [0.5056, 0.3961, 0.1681, 0.01377], rtol=5e-4)
    omega = _branching("omega", "vector_dalitz", [0.3, 0.5, 0.6])
    np.testing.assert_allclose(omega, [0.0765, 0.0639, 0.0483], rtol=2e-3)
    assert _branching("eta", "pseudoscalar_dalitz", [0.6])[0] == 0.0
    assert _branching("omega", "vector_dalitz", [0.649])[0] == 0.0


def test_vector_dalitz_starts_at_the_branching_ratio_into_a_photon() -> None:
    assert _branching("omega", "vector_dalitz", [1e-6])[0] == pytest.approx(
        constants.branching("omega -> pi0 gamma"), rel=1e-9
    )


def test_peaks_of_the_vector_mesons() -> None:
    assert _branching("omega", "vector_mixing", [0.78266])[0] == pytest.approx(2.747, rel=5e-3)
    assert _branching("phi", "vector_mixing", [1.019461])[0] == pytest.approx(29.23, rel=5e-3)


def test_sum_of_meson_channels_is_eq_6_on_the_cocktail_of_the_mock() -> None:
    """The mock normalises its Dalitz modes to dimuon branching ratios: η and η' agree to 10 %."""
    card = load_card(data_path("cards/na60_mock.toml"))
    mass = np.array([0.25, 0.3, 0.4, 0.77, 0.7827, 0.9, 1.0195])
    ours = sum(
        leaf(TABLE, BEAM, interaction=0.01).rate(mass)[0]
        for leaf in (PseudoscalarDalitz, VectorDalitz, VectorMixing)
    )
    mock = dark_photon_rate(mass_spectrum(card, mass), mass, M_MU)
    np.testing.assert_allclose(ours, mock, rtol=0.12)


@pytest.mark.parametrize("leaf", LEAVES)
def test_channels_keep_the_contract(leaf: type) -> None:
    masses = {"PionDalitz": (0.02, 0.1), "JPsi": (3.05, 3.0969), "VectorMixing": (0.7, 0.9)}
    check_channel(leaf(TABLE, BEAM), masses=masses.get(leaf.__name__, (0.25, 0.4)))


def test_bremsstrahlung_keeps_the_contract_and_prints_its_convention() -> None:
    channel = Bremsstrahlung(preset("qra_v2"), BEAM, 0.01)
    check_channel(channel, masses=(0.3, 0.9))
    assert "0.1 < z < 0.9" in channel.describe()
    assert "cascades are omitted" in channel.describe()
    central, low, high = channel.envelope([0.495, 0.775])
    np.testing.assert_allclose(central, [5.1e-5, 1.2e-2], rtol=0.05)  # reference of two digits
    np.testing.assert_allclose(low, [2.3e-6, 3.5e-4], rtol=0.05)
    np.testing.assert_allclose(high, [2.0e-4, 7.1e-2], rtol=0.03)
    fixed = Bremsstrahlung(preset("na62"), BEAM)
    assert (fixed.rate([0.3])[1] == 0).all()


def test_a_process_is_never_counted_twice() -> None:
    check_exclusive([leaf(TABLE, BEAM) for leaf in LEAVES] + [Bremsstrahlung(preset("na62"), BEAM)])
    with pytest.raises(PhysicsError, match="both contain"):
        check_exclusive([PionDalitz(TABLE, BEAM), PionDalitz(TABLE, BEAM, 0.01)])


def test_dark_photons_of_eta_carry_its_momentum_on_average() -> None:
    """At threshold the dark photon takes all of the meson's momentum, a light one takes half."""
    rng = np.random.default_rng(1)
    eta = TABLE.mesons["eta"].sample(TABLE.mesons["eta"].mass, 50_000, BEAM, rng)
    only = MesonTable(
        "eta", {"eta": TABLE.mesons["eta"]}, tuple(d for d in TABLE.decays if d.parent == "eta")
    )
    heavy = PseudoscalarDalitz(only, BEAM).produce(0.5475, n=50_000, rng=rng)
    light = PseudoscalarDalitz(only, BEAM).produce(0.01, n=50_000, rng=rng)
    assert np.mean(heavy.p4.E) == pytest.approx(eta[3].mean(), rel=0.03)
    assert np.mean(light.p4.E) == pytest.approx(eta[3].mean() / 2, rel=0.03)


def test_mesons_of_400_gev_protons() -> None:
    sqrt_s, y = beam_frame(BEAM)
    assert (sqrt_s, y) == (pytest.approx(27.43, abs=5e-3), pytest.approx(3.374, abs=1e-3))
    p = TABLE.mesons["eta"].sample(0.547862, 100_000, BEAM, np.random.default_rng(2))
    assert (p[3] < BEAM).all()
    pt = np.hypot(p[0], p[1])
    assert pt.mean() == pytest.approx(0.471, rel=0.03)
    assert p[3].mean() == pytest.approx(24.0, rel=0.15)
    assert TABLE.mesons["pi0"].per_interaction == pytest.approx(9.4, rel=0.01)


def test_errors_name_the_file_and_the_channel(tmp_path) -> None:
    path = tmp_path / "mesons.toml"
    with pytest.raises(InputFileError, match=r"mesons\.toml"):
        MesonTable.read(path)
    path.write_text(
        'source = "x"\nmesons = {}\n[[decays]]\nparent = "eta"\nkind = "vector_mixing"\nbranching = 1.0\n'
    )
    with pytest.raises(SteeringError, match="eta"):
        MesonTable.read(path)
    with pytest.raises(PhysicsError, match="form_factor"):
        Decay("eta", "vector_mixing", 1.0, "dipole")
    with pytest.raises(PhysicsError, match="daughter"):
        Decay("omega", "vector_dalitz", 0.08)
    with pytest.raises(PhysicsError, match=r"no decay is open.*\[predict\]"):
        PionDalitz(TABLE, BEAM).produce(0.2, n=10, rng=np.random.default_rng(1))
    with pytest.raises(PhysicsError, match="holds none"):
        PionDalitz(MesonTable("none", {}, ()), BEAM).rate([0.1])


def test_an_empty_table_is_said(caplog) -> None:
    """A generator that lacks a species must not look like one that predicts none of it."""
    from dataclasses import replace

    mesons = {name: replace(meson, multiplicity=0.0) for name, meson in TABLE.mesons.items()}
    with caplog.at_level("WARNING"):
        MesonTable("no mesons", mesons, TABLE.decays)
    assert "zero multiplicity" in caplog.text
    assert "omega" in caplog.text


def test_the_table_of_eventcalc_is_per_squared_mixing() -> None:
    """At 0.2 GeV 0.2466 per proton and ε²; a column of ε would read 0.497."""
    lines = data_path("measurements/ap_yield_400gev.csv").read_text().splitlines()
    row = next(line for line in lines if line.startswith("0.2,"))
    assert [float(x) for x in row.split(",")] == [0.2, 0.2466, 0.2445, 0.2556]
    assert "squared kinetic mixing" in lines[0]


def test_channels_may_share_a_process_at_other_masses() -> None:
    """η Dalitz decays below the dimuon threshold add to a rate measured with dimuons; above they do not."""
    measured = VirtualPhoton(np.array([0.225, 1.1]), np.ones(2), np.eye(2), None, None)
    below = PseudoscalarDalitz(TABLE, BEAM, mass_range=(0.0, 2 * M_MU))
    check_exclusive([measured, below, PionDalitz(TABLE, BEAM)])
    with pytest.raises(PhysicsError, match="pseudoscalar_dalitz"):
        check_exclusive([measured, PseudoscalarDalitz(TABLE, BEAM)])
    rate = below.rate([0.1, 0.2, 2 * M_MU, 0.3])[0]
    assert (rate[:2] > 0).all()
    assert (rate[2:] == 0).all()


@pytest.mark.parametrize("leaf", LEAVES)
def test_one_multiplicity_is_common_to_the_decays_of_a_meson(leaf: type) -> None:
    """The error of a rate is what one more standard deviation of each meson makes of it, in quadrature."""
    mass = np.array([0.05, 0.3, 0.5])
    value, cov = leaf(TABLE, BEAM).rate(mass)
    moved = []
    for name, meson in TABLE.mesons.items():
        more = replace(meson, multiplicity=meson.multiplicity * (1 + meson.sigma))
        other = replace(TABLE, mesons={**TABLE.mesons, name: more})
        moved.append(leaf(other, BEAM).rate(mass)[0] - value)
    np.testing.assert_allclose(cov, sum(np.outer(one, one) for one in moved), rtol=1e-9, atol=1e-30)
