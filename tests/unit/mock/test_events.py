"""Mock ntuples: resolution, efficiency, background, like-sign ratio, truth and exposure."""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.mock import (
    efficiency,
    load_card,
    measured_r,
    mode_rates,
    normalisation,
    samples,
    simulate_events,
)
from gammastar.store.events import write_tree

CARD = load_card(data_path("cards/na60_mock.toml"))
FLAT = {"run", "burst", "event", "target", "trigger", "PV_x", "PV_y", "PV_z", "weight", "prescale"}
N_DATA, N_MC = 20_000, 100_000


@pytest.fixture(scope="module")
def data():
    return simulate_events(CARD, N_DATA, seed=11)


@pytest.fixture(scope="module")
def mc():
    return simulate_events(CARD, N_MC, kind="mc", prior="varied", seed=12)


@pytest.fixture(scope="module")
def background():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "PILOT", 50_000)  # of the exposure, which is not asked for
        return simulate_events(CARD, N_DATA, kind="background", seed=2)


def charge_counts(events):
    pairs = ak.combinations(events.branches["Muon"].charge, 2, fields=["a", "b"])
    total = ak.to_numpy(ak.flatten(pairs.a + pairs.b))
    return np.array([np.sum(total == q) for q in (0, 2, -2)])


def pair_mass(muons):
    """Return mass and energy of events with two muons."""
    p = np.stack([ak.to_numpy(muons[c]).astype(float) for c in ("px", "py", "pz")])
    energy = np.sqrt(np.sum(p**2, axis=0) + M_MU**2).sum(axis=1)
    return np.sqrt(energy**2 - np.sum(p.sum(axis=2) ** 2, axis=0)), energy


def weights(events):
    return events.branches["weight"] * events.branches["prescale"]


@pytest.mark.long
def test_layout(data, mc):
    assert set(data.branches) == {*FLAT, "Muon"}
    assert set(mc.branches) == {*FLAT, "Muon", "gen_process", "gen_mll", "gen_qT", "gen_E"}
    assert {len(array) for array in data.branches.values()} == {len(data)}
    muon = data.branches["Muon"]
    assert muon.fields == ["px", "py", "pz", "charge", "chi2match", "dx", "dy"]
    assert muon.px.type.content.content.primitive == "float32"
    assert muon.charge.type.content.content.primitive == "int8"
    assert data.branches["event"].dtype == np.int64
    assert len(np.unique(data.branches["event"])) == len(data)
    assert data.branches["burst"].max() == (len(data) - 1) // CARD.run.events_per_burst


@pytest.mark.long
@pytest.mark.parametrize("name", ["data", "mc"])
def test_recorded_commands_give_the_shipped_files(request, name):
    """The content of data/mock/*.root: branch by branch, but for rounding."""
    made = request.getfixturevalue(name)
    with uproot.open(data_path(f"mock/na60_{name}.root")) as file:
        arrays, meta = file["events"].arrays(), file["meta"].arrays()
    assert meta.N_POT[0] == made.meta["N_POT"]
    for key, values in made.branches.items():
        if key != "Muon":
            np.testing.assert_allclose(ak.to_numpy(arrays[key]), values, rtol=1e-11)
    for member in made.branches["Muon"].fields:
        assert ak.array_equal(arrays[f"Muon_{member}"], made.branches["Muon"][member])


@pytest.mark.long
def test_data_are_recorded_and_unweighted(data):
    counts = ak.num(data.branches["Muon"])
    assert set(np.unique(counts)) == {2, 3}
    assert np.mean(counts == 3) == pytest.approx(data.meta["third_muon_probability"], rel=0.35)
    assert np.all(weights(data) == 1.0)
    assert np.all(data.branches["trigger"] == 1)


def test_order_of_muons_hides_the_charge(data):
    first = ak.to_numpy(ak.firsts(data.branches["Muon"].charge))
    assert np.mean(first == 1) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(len(first)) + 0.01)


def test_background_fraction(data):
    """Like-sign pairs and R give the background fraction of the card back."""
    os, pp, mm = charge_counts(data)
    assert os == pytest.approx(N_DATA, abs=5 * np.sqrt(N_DATA))
    fraction = data.meta["r_factor"] * 2.0 * np.sqrt(float(pp) * float(mm)) / os
    assert fraction == pytest.approx(CARD.background.fraction, abs=0.008)  # 3 σ of the like-sign counts


@pytest.mark.long
def test_signal_is_the_exposure_times_the_recorded_rate(data, mc):
    rates = mode_rates(CARD)
    assert data.meta["n_generated"] == pytest.approx(
        data.meta["N_POT"] * sum(rates.values()) * CARD.target.thickness, rel=5e-3
    )
    signal = sum(data.meta["sum_weights"].values()) - data.meta["sum_weights"]["combinatorial"]
    assert signal == pytest.approx(0.9 * N_DATA, rel=0.04)  # with one lost muon and a third one: above 0.9
    assert mc.meta["sum_weights"]["combinatorial"] == 0.0


def test_omega_resolution(mc):
    """30 MeV at the ω for pairs that are recorded."""
    two = (ak.num(mc.branches["Muon"]) == 2) & (mc.branches["gen_process"] == 4)
    mass, _ = pair_mass(mc.branches["Muon"][two])
    difference = mass - mc.branches["gen_mll"][ak.to_numpy(two)]
    assert two.to_numpy().sum() > 2500
    assert difference.std() == pytest.approx(0.030, abs=0.003)
    assert abs(difference.mean()) < 0.002


@pytest.mark.long
def test_recorded_fraction_is_acceptance_times_efficiency(mc):
    """Simulated rows with both muons in acceptance survive with the efficiency of the card, in bins of E."""
    code, muons = mc.branches["gen_process"], mc.branches["Muon"]
    recorded = ak.to_numpy(ak.num(muons)) == 2
    wide = simulate_events(
        CARD.model_copy(
            update={
                "efficiency": CARD.efficiency.model_copy(
                    update={"soft_depth": 0.0, "energy_half": 0.0, "energy_width": 0.05, "plateau": 1.0}
                )
            }
        ),
        N_MC,
        kind="mc",
        prior="varied",
        seed=7,
    )
    reached = ak.to_numpy(ak.num(wide.branches["Muon"])) == 2
    gen = [wide.branches[key][reached] for key in ("gen_mll", "gen_qT", "gen_E")]
    weight = efficiency(*gen, CARD.efficiency) / wide.meta["N_POT"]
    bins = np.array([6.0, 9.0, 12.0, 16.0, 22.0, 60.0])
    expected = np.histogram(gen[2], bins, weights=weight)[0]
    found = np.histogram(mc.branches["gen_E"][recorded], bins)[0]
    assert found / mc.meta["N_POT"] == pytest.approx(expected, rel=0.08)
    assert set(np.unique(code)) == {2, 3, 4, 5, 6, 7}


def test_truth_sums_to_dimuons_per_proton(mc):
    """Σ weight × prescale over simulated rows is N_POT times the rate of every mode."""
    rates = mode_rates(CARD.with_prior("varied"))
    assert set(np.unique(mc.branches["prescale"])) == {1.0, 5.0}
    total = weights(mc)
    for key, rate in rates.items():
        chosen = mc.branches["gen_process"] == CARD.modes[key].process
        error = np.sqrt(np.sum(total[chosen] ** 2)) / mc.meta["N_POT"]
        assert total[chosen].sum() / mc.meta["N_POT"] == pytest.approx(rate * 0.01, abs=4.5 * error)
        assert total[chosen].sum() == mc.meta["sum_weights"][key]
    assert total.sum() == pytest.approx(mc.meta["n_generated"], rel=7e-3)  # 2 σ


def test_lost_dimuons_are_in_the_simulation(mc):
    counts = ak.to_numpy(ak.num(mc.branches["Muon"]))
    assert set(np.unique(counts)) == {0, 1, 2}
    assert np.array_equal(mc.branches["prescale"] == 5.0, counts < 2)
    assert np.array_equal(mc.branches["trigger"] == 1, counts == 2)
    assert len(mc) == pytest.approx(N_MC, rel=0.02)


def test_truth_of_muons(mc):
    two = ak.num(mc.branches["Muon"]) == 2
    muon = mc.branches["Muon"][two]
    true = ak.zip({c: muon[f"gen_{c}"] for c in ("px", "py", "pz")})
    mass, energy = pair_mass(true)
    chosen = ak.to_numpy(two)
    np.testing.assert_allclose(mass, mc.branches["gen_mll"][chosen], atol=1e-4)
    np.testing.assert_allclose(energy, mc.branches["gen_E"][chosen], rtol=1e-5)
    assert set(np.unique(ak.flatten(muon.motherPdg))) == {113, 221, 223, 331, 333}


def test_prior_of_the_simulation_differs_from_the_data(mc):
    nominal = simulate_events(CARD, N_MC // 2, kind="mc", seed=1)
    means = [np.average(e.branches["gen_qT"] ** 2, weights=weights(e)) for e in (nominal, mc)]
    assert means[1] / means[0] == pytest.approx(1.12**2, rel=0.08)
    assert (nominal.meta["prior"], mc.meta["prior"]) == ("nominal", "varied")
    assert nominal.meta["card_digest"] == CARD.digest  # the card is the same, the prior is one of its tables
    assert mc.meta["card_digest"] == CARD.digest


@pytest.mark.long
def test_same_event_pairs_have_r_above_one(background):
    """Charge conservation: 1.16 ± 0.03 in p-Pb of Angantyr; mixed pairs have R = 1."""
    rng = np.random.default_rng(5)
    r, error = measured_r(CARD, 35_000, rng)
    accepted, _ = measured_r(CARD, 30_000, rng, recorded=False)
    mixed, mixed_error = measured_r(CARD, 20_000, rng, pairing="mixed")
    assert r - 1.0 > 20 * error
    assert accepted == pytest.approx(1.156, abs=0.04)
    assert mixed == pytest.approx(1.0, abs=4 * mixed_error)
    os, pp, mm = charge_counts(background)
    found = os / (2.0 * np.sqrt(float(pp) * float(mm)))
    spread = found * np.sqrt(1.0 / os + 0.25 / pp + 0.25 / mm)
    assert found == pytest.approx(r, abs=4 * np.hypot(spread, error))
    assert np.all(background.branches["gen_mll"] == 0.0)
    assert np.all(background.branches["gen_process"] == 8)


@pytest.mark.usefixtures("small_pilots")
def test_mixed_data_have_r_of_one():
    norm = normalisation(CARD, np.random.default_rng(3), n=30_000)
    assert 1.0 < norm.r_factor < norm.r_pool
    mixed = simulate_events(CARD, 2000, pairing="mixed", seed=1).meta
    assert mixed["r_pool"] == pytest.approx(1.0, abs=5 * mixed["r_pool_sigma"])


@pytest.mark.usefixtures("small_pilots")
def test_seed_decides_everything():
    one, two, three = (simulate_events(CARD, 300, seed=seed) for seed in (4, 4, 5))
    assert all(ak.array_equal(one.branches[key], two.branches[key]) for key in one.branches)
    assert one.meta == two.meta
    assert len(one) != len(three) or not ak.array_equal(one.branches["Muon"], three.branches["Muon"])


@pytest.mark.usefixtures("small_pilots")
def test_progress_is_told():
    seen = []
    simulate_events(CARD, 5000, kind="mc", seed=1, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1][0] == seen[-1][1] > 0


@pytest.mark.usefixtures("small_pilots")
def test_no_background():
    clean = CARD.model_copy(update={"background": CARD.background.model_copy(update={"fraction": 0.0})})
    events = simulate_events(clean, 500, seed=1)
    assert events.meta["sum_weights"]["combinatorial"] == 0.0
    assert charge_counts(events)[1:].sum() == 0


def test_written_as_a_tree(tmp_path, mc):
    path = tmp_path / "mock.root"
    write_tree(path, {"events": mc.branches, "meta": mc.meta_branches()})
    with uproot.open(path) as file:
        events, meta = file["events"], file["meta"].arrays()
        assert events.num_entries == len(mc)
        assert {"nMuon", "Muon_px", "Muon_charge", "Muon_gen_px", "Muon_motherPdg"} <= set(events.keys())
        assert meta.N_POT[0] == mc.meta["N_POT"]
        assert meta.card_digest[0] == mc.meta["card_digest"]
        assert meta.sum_weights_phi_2body[0] == mc.meta["sum_weights"]["phi_2body"]
