"""Flow members, other vectors and millicharged particles from the shipped MOCK dimuons, end to end."""

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.errors import SteeringError
from gammastar.physics.vectors import SPLIT_MAX
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.results.reinterpret import reinterpret
from gammastar.store.manifest import read_json

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"
CHARGED = """
[predict.millicharge]
masses = [0.02, 0.15, 0.3]
strategy = "{strategy}"
channels = [{channels}]
n_sample = 6000

[accept]
millicharge_detectors = ["mcp_bars"]
longitudinal_sigma = 0.2
"""
LIGHT = '"pion_dalitz", "pseudoscalar_dalitz", "jpsi"'

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def steering(folder, *, model="dark_photon", strategy="conditional", channels=LIGHT):
    text = SMALL.read_text().split("[report]")[0].replace("schema.toml", f"{SMALL.parent}/schema.toml")
    text = text.replace("epochs = 4", "epochs = 3\nmembers = 2").replace("n_masses = 20", "n_masses = 4")
    text = text.replace("n_masses", f'model = "{model}"\nn_masses')
    text = text.replace("[accept]\n", CHARGED.format(strategy=strategy, channels=channels))
    path = folder / "steering.toml"
    path.write_text(text)
    return path


def stage(folder, name):
    return load_arrays(folder / "stages" / f"{name}.npz")


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    return run(steering(folder), output=folder / "out")


def test_every_source_of_error_reaches_the_yield(results):
    arrays = stage(results, "accept")
    names = {k.rpartition("|")[2] for k in arrays if k.startswith("ship_ecn3|yield_budget|")}
    assert {"measurement", "protons on target", "spin state of the decays", "flow", "finite sample"} <= names
    assert arrays["ship_ecn3|signal_variations"].shape == (2, *arrays["ship_ecn3|signal"].shape)
    spread = np.sqrt(np.diag(arrays["ship_ecn3|yield_budget|flow"])) / arrays["ship_ecn3|best_signal"]
    student = 12.71 / 1.96  # of two members, which the band carries
    assert ((spread > 0) & (spread < 0.7 * student)).all()
    pot = np.diag(arrays["ship_ecn3|yield_budget|protons on target"])
    assert np.sqrt(pot) / arrays["ship_ecn3|best_signal"] == pytest.approx(0.1)
    assert stage(results, "accept_millicharge")["mcp_bars|signal_variations"].shape[0] == 2


def test_a_reinterpretation_keeps_the_band_of_the_flow(results, tmp_path):
    again = reinterpret(results, output=tmp_path / "again", tell=lambda *_: None)
    first, second = (stage(folder, "accept") for folder in (results, again))
    for name in ("signal", "signal_variations", "extrapolation"):
        np.testing.assert_array_equal(second[f"ship_ecn3|{name}"], first[f"ship_ecn3|{name}"])
    inputs = read_json(again / "manifest.json")["inputs"]
    assert any(name.endswith("/flow_members.01.safetensors") for name in inputs)


def test_photons_below_the_threshold_of_dimuons_come_from_theory(results):
    pairs = stage(results, "millicharge")
    assert pairs["channel|pion_dalitz"][0] > 5 * pairs["channel|virtual_photon"][0]
    assert (pairs["channel|pseudoscalar_dalitz"][1:] == 0).all()  # 2 m_chi above 2 m_mu
    assert (pairs["low"] <= pairs["rate"]).all()
    assert (pairs["rate"] <= pairs["high"]).all()
    methods = read_json(results / "manifest.json")["methods"]
    assert any("photons up to 0.2125 GeV" in key for key in methods)


@pytest.mark.parametrize("strategy", ["rejection", "per_mass"])
def test_the_other_strategies_agree_with_the_default(strategy, results, tmp_path):
    other = stage(
        run(steering(tmp_path, strategy=strategy), output=results, resume=True), "accept_millicharge"
    )
    default = stage(run(steering(tmp_path), output=results, resume=True), "accept_millicharge")
    value, known = (a["mcp_bars|signal"][1:, 20] for a in (other, default))
    error = np.hypot(other["mcp_bars|mc_error"][1:, 20], default["mcp_bars|mc_error"][1:, 20])
    # flows of three epochs on two thousand effective pairs: a quarter beside the sample's error
    assert (np.abs(value - known) < 3 * error + 0.25 * known).all()


def test_b_minus_l_ends_where_its_widths_are_known(results, tmp_path):
    folder = run(steering(tmp_path, model="b_minus_l", channels=""), output=results, resume=True)
    made = stage(folder, "predict")
    assert made["mass"].max() == pytest.approx(SPLIT_MAX)
    assert (made["rate"] > 0).all()
    assert "shares of the processes" in read_json(folder / "manifest.json")["methods"]["model"]


def test_a_channel_that_dimuons_already_contain_is_refused(results, tmp_path):
    path = steering(tmp_path)
    path.write_text(path.read_text().replace("n_masses", 'channels = ["bremsstrahlung"]\nn_masses'))
    with pytest.raises(SteeringError, match=r"virtual_photon.*\[predict\] outside"):
        run(path, output=results, resume=True)


def test_forward_bremsstrahlung_adds_to_the_signal_with_its_band(results, tmp_path):
    path = steering(tmp_path)
    text = path.read_text().replace("n_masses", 'outside = ["bremsstrahlung"]\nn_masses')
    path.write_text(text.replace("[infer]", '[infer]\nnuisances = ["pot", "spectrum", "theory"]'))
    folder = run(path, output=results, resume=True)
    made, seen = stage(folder, "predict"), stage(folder, "accept")
    parts = [made[f"channel|{group}"] for group in ("virtual_photon", "bremsstrahlung")]
    assert made["rate"] == pytest.approx(parts[0] + parts[1])
    signal = [seen[f"na62_dump|part|{group}"] for group in ("virtual_photon", "bremsstrahlung")]
    np.testing.assert_allclose(signal[0] + signal[1], seen["na62_dump|signal"], rtol=1e-9, atol=1e-12)
    low, high = seen["na62_dump|band|bremsstrahlung"]
    assert (low <= seen["na62_dump|signal"] * (1 + 1e-9)).all()
    assert (high >= seen["na62_dump|signal"] * (1 - 1e-9)).all()
    half = 0.5 * (high - low)
    best = seen["na62_dump|signal"].argmax(axis=1)
    budget = np.diag(seen["na62_dump|yield_budget|theory, bremsstrahlung"])
    assert np.sqrt(budget) == pytest.approx(half[np.arange(len(best)), best])
    # the spectrum's error moves the measured part alone
    of_rate = np.sqrt(np.diag(made["budget|measurement"])) / parts[0]
    share = (signal[0] / np.maximum(seen["na62_dump|signal"], 1e-300))[np.arange(len(best)), best]
    value = seen["na62_dump|best_signal"]
    found = np.sqrt(np.diag(seen["na62_dump|yield_budget|measurement"]))
    assert found == pytest.approx(of_rate * share * value, rel=1e-6)
    assert "theory" in (folder / "patchset.json").read_text()
