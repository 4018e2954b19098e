"""A detector at a collider: luminosity in the place of protons on target, mesons from spectra of FORESEE."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from gammastar.core.constants import mass
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.signal import SignalPlanes
from gammastar.physics.detector import load_detector
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run

STEERING = """
[analysis]
name = "collider"

[predict]
source = "theory"
beam_energy = 7000.0
mesons = "14TeV"
channels = ["pseudoscalar_dalitz"]
masses = [0.2, 0.3]
n_sample = 3000
{more}
[accept]
detectors = ["faser2.toml"]

[infer]
coupling = [1e-8, 1e-4]
n_couplings = 21
min_effective = 1.0

[report]
"""
FASER2 = """
name = "FASER2"
source = "arXiv:2105.07077"
beam_energy = 7000.0 # GeV
luminosity = 3e6 # 1/pb
accept_on = "parent"
background = 0.0

[volume]
kind = "cylinder"
radius = 1.0 # m
z0 = 620.0
z1 = 630.0

[efficiency]
ee = 1.0
mumu = 1.0

[sources]
beam_energy = "LHC"
luminosity = "HL-LHC"
background = "assumed"
volume = "arXiv:2105.07077"
efficiency = "all decays in the volume count"
"""
TOTAL = 1.6e11  # pb


def write_files(folder):
    theta, p = np.meshgrid(np.arange(-4.975, -2, 0.05), np.arange(2.025, 3.9, 0.05), indexing="ij")
    q = 10 ** (theta + p)
    weight = (q**2 * np.exp(-((q / 0.3) ** 2)) * 10**p * np.exp(-(10**p) / 1200)).ravel()
    rows = np.stack([theta.ravel(), p.ravel(), TOTAL * weight / weight.sum()], axis=1)
    (folder / "14TeV").mkdir()
    np.savetxt(folder / "14TeV" / "FORMULA_14TeV_221.txt", rows, fmt="%15.5e")
    (folder / "faser2.toml").write_text(FASER2)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    folder = tmp_path_factory.mktemp("collider")
    write_files(folder)
    (folder / "steering.toml").write_text(STEERING.format(more=""))
    return run(folder / "steering.toml", output=folder / "out")


def test_the_rate_is_a_cross_section(results):
    manifest = json.loads((results / "manifest.json").read_text())
    assert "cross sections [pb]" in manifest["methods"]["rate"]
    assert "14TeV" in " ".join(manifest["inputs"])
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["faser2"]
    best = float(plane.signal[1].max())
    # ε² of 2e-12 … 2e-10: some ten to a thousand decays of 1e11 pb × 3e6 /pb × BR × ε² × acceptance
    assert 1.0 < best < 1e5


def test_no_result_speaks_of_protons_on_target(results):
    reach = json.loads((results / "reach.json").read_text())
    assert reach["detector"] == {"name": "faser2", "luminosity": 3e6}
    pages = [path.read_text() for path in results.glob("*.html") if path.name != "explorer.html"]
    assert pages
    text = re.sub(r"base64,[^\"']+", "", " ".join(pages))
    assert "3000 /fb" in text
    assert "POT" not in text
    assert "rotons on target" not in text


def test_cross_sections_and_protons_do_not_mix(tmp_path):
    write_files(tmp_path)
    (tmp_path / "steering.toml").write_text(STEERING.format(more="sigma_inelastic = 80.0"))
    with pytest.raises(PhysicsError, match="has a luminosity, the rate counts per proton"):
        run(tmp_path / "steering.toml", output=tmp_path / "out")
    text = FASER2.replace("luminosity = 3e6 # 1/pb", "luminosity = 3e6\npot = 1e20").replace(
        "[sources]", '[sources]\npot = "x"'
    )
    (tmp_path / "both.toml").write_text(text)
    with pytest.raises(SteeringError, match="give either pot"):
        load_detector(tmp_path / "both.toml")
    (tmp_path / "none.toml").write_text(
        FASER2.replace("luminosity = 3e6 # 1/pb", "").replace('luminosity = "HL-LHC"\n', "")
    )
    with pytest.raises(SteeringError, match="none of them"):
        load_detector(tmp_path / "none.toml")
    pot = FASER2.replace("luminosity = 3e6 # 1/pb", "pot = 3e6").replace('luminosity = "HL-LHC"', 'pot = "x"')
    (tmp_path / "pot.toml").write_text(pot)
    with pytest.raises(SteeringError, match="target"):
        load_detector(tmp_path / "pot.toml")


def test_an_edited_spectrum_makes_another_result(tmp_path):
    write_files(tmp_path)
    (tmp_path / "steering.toml").write_text(STEERING.format(more="").replace("\n[report]\n", ""))
    first = run(tmp_path / "steering.toml", output=tmp_path / "out")
    before = load_arrays(first / "stages" / "predict.npz")["value"]
    path = tmp_path / "14TeV" / "FORMULA_14TeV_221.txt"
    rows = np.loadtxt(path)
    rows[:, 2] *= 2.0
    np.savetxt(path, rows, fmt="%15.5e")
    again = run(tmp_path / "steering.toml", output=tmp_path / "out", resume=True)
    after = load_arrays(again / "stages" / "predict.npz")["value"]
    np.testing.assert_allclose(after, 2.0 * before, rtol=1e-4)
    assert mass(221) > 0.3
