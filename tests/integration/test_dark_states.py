"""Flow members, other vectors and millicharged particles from the shipped MOCK dimuons, end to end."""

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.errors import SteeringError
from gammastar.core.signal import Rate, SignalPlanes
from gammastar.physics.vectors import SPLIT_MAX
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.results.start import reinterpret
from gammastar.store.manifest import read_json

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"
CHARGED = """
[predict.millicharge]
masses = [0.02, 0.15, 0.3]
channels = [{channels}]
n_sample = 6000

[accept]
millicharge_detectors = ["mcp_bars"]
"""
LIGHT = '"pion_dalitz", "pseudoscalar_dalitz", "jpsi"'

pytestmark = [pytest.mark.flow, pytest.mark.slow]


def steering(folder, *, model="dark_photon", channels=LIGHT):
    text = SMALL.read_text().split("[report]")[0].replace("schema.toml", f"{SMALL.parent}/schema.toml")
    text = text.replace("epochs = 4", "epochs = 3\nmembers = 2").replace("n_masses = 20", "n_masses = 4")
    text = text.replace("n_masses", f'model = "{model}"\nn_masses')
    text = text.replace("[accept]\n", CHARGED.format(channels=channels))
    path = folder / "steering.toml"
    path.write_text(text.replace("[systematics]\n", "[systematics]\nspin = 0.2\n"))
    return path


def stage(folder, name):
    return load_arrays(folder / "stages" / f"{name}.npz")


def planes(folder, name="accept"):
    return SignalPlanes.from_arrays(stage(folder, name)).by_detector


def rate_of(folder, name="predict"):
    return Rate.from_arrays(stage(folder, name))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("states")
    return run(steering(folder), output=folder / "out")


def test_every_source_of_error_reaches_the_yield(results):
    plane = planes(results)["ship_ecn3"]
    value, _, sources = plane.budget()
    wanted = {"measurement", "protons on target", "spin state of the decays", "flow", "finite sample"}
    assert wanted <= {part.name for part in sources.parts}
    assert plane.effect("flow").values.shape == (2, *plane.signal.shape)
    spread = np.sqrt(np.diag(sources.named("flow").cov)) / value
    student = 12.71 / 1.96  # of two members, which the band carries
    assert ((spread > 0) & (spread < 0.9 * student)).all()
    assert np.sqrt(np.diag(sources.named("protons on target").cov)) / value == pytest.approx(0.1)
    assert planes(results, "accept_millicharge")["mcp_bars"].effect("flow").values.shape[0] == 2


def test_a_reinterpretation_keeps_the_band_of_the_flow(results, tmp_path):
    again = reinterpret(results, output=tmp_path / "again", tell=lambda *_: None)
    first, second = (planes(folder)["ship_ecn3"] for folder in (results, again))
    np.testing.assert_array_equal(second.signal, first.signal)
    for name in ("flow", "extrapolation"):
        np.testing.assert_array_equal(second.effect(name).values, first.effect(name).values)
    inputs = read_json(again / "manifest.json")["inputs"]
    assert any(name.endswith("/flow_members.01.safetensors") for name in inputs)


def test_photons_below_the_threshold_of_dimuons_come_from_theory(results):
    pairs = rate_of(results, "millicharge")
    assert pairs.channels["pion_dalitz"][0] > 5 * pairs.channels["virtual_photon"][0]
    assert (pairs.channels["pseudoscalar_dalitz"][1:] == 0).all()  # 2 m_chi above 2 m_mu
    assert (pairs.low <= pairs.value).all()
    assert (pairs.value <= pairs.high).all()
    methods = read_json(results / "manifest.json")["methods"]
    assert any("photons up to 0.2125 GeV" in key for key in methods)


def test_b_minus_l_ends_where_its_widths_are_known(results, tmp_path):
    folder = run(steering(tmp_path, model="b_minus_l", channels=""), output=results, resume=True)
    made = rate_of(folder)
    assert made.mass.max() == pytest.approx(SPLIT_MAX)
    assert (made.value > 0).all()
    assert "shares of the processes" in read_json(folder / "manifest.json")["methods"]["model"]


def test_a_channel_that_dimuons_already_contain_is_refused(results, tmp_path):
    path = steering(tmp_path)
    path.write_text(path.read_text().replace("n_masses", 'channels = ["bremsstrahlung"]\nn_masses'))
    with pytest.raises(SteeringError, match=r"virtual_photon.*\[predict\] outside"):
        run(path, output=results, resume=True)


def test_forward_bremsstrahlung_adds_to_the_signal_with_its_band(results, tmp_path):
    path = steering(tmp_path)
    text = path.read_text().replace("n_masses", 'outside_domain = ["bremsstrahlung"]\nn_masses')
    limit = '[systematics]\nnuisances = ["pot", "spectrum", "theory"]'
    path.write_text(text.replace("[systematics]", limit))
    folder = run(path, output=results, resume=True)
    made, seen = rate_of(folder), planes(folder)["na62_dump"]
    parts = [made.channels[group] for group in ("virtual_photon", "bremsstrahlung")]
    assert made.value == pytest.approx(parts[0] + parts[1])
    own, forward = (seen.parts[group] for group in ("virtual_photon", "bremsstrahlung"))
    np.testing.assert_allclose(own + forward, seen.signal, rtol=1e-9, atol=1e-12)
    low, high = seen.effect("theory, bremsstrahlung").values
    assert (low <= seen.signal * (1 + 1e-9)).all()
    assert (high >= seen.signal * (1 - 1e-9)).all()
    value, _, sources = seen.budget()
    best = np.arange(len(value)), seen.signal.argmax(axis=1)
    of_theory = np.sqrt(np.diag(sources.named("theory, bremsstrahlung").cov))
    assert of_theory == pytest.approx(0.5 * (high - low)[best])
    # the spectrum's error moves the measured part alone
    of_rate = np.sqrt(np.diag(made.sources.named("measurement").cov)) / parts[0]
    found = np.sqrt(np.diag(sources.named("measurement").cov))
    assert found == pytest.approx(of_rate * own[best], rel=1e-6)
    assert "theory" in (folder / "patchset.json").read_text()
