"""Sizes that follow from a user's number are bounded before anything is made of them, with their key."""

import re

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import jagged_schema
from injection import kills

from gammastar import config, read
from gammastar.config.checks import check_steering
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.infer.counting import count_probabilities, expected_limits

SCHEMA = jagged_schema("Muon_")
FLOW = "[flow]\nwindow = 1e-9\n\n[predict]"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("max_patches = 50", "projections = [1e-9]", "infer.projections"),
        ("max_patches = 50", "projections = [1e90]", "infer.projections"),
        ("max_patches = 50", "observed = [1_000_000_000]", "infer.observed"),
        ("max_patches = 50", "background = 3.0\nbackground_sigma = 50.0", "infer.background_sigma"),
        ("[predict]", FLOW, "flow: .*window"),
        ("high = 1.1125", "high = 1e9", "select.mass.*at most 10000 GeV"),
        ("0.5, 6.0]", "0.5, 6.0, 1e9]", "select.pt.*at most 1e"),
        ("40.0, 400.0]", "40.0, 400.0, 1e9]", "select.energy.*at most 1e"),
        ("efficiency_floor = 0.01", "mass = [0.2, 1e9]", "unfold.mass"),
        ("n_masses = 8", "masses = [0.3, 1e9]", "predict.masses"),
        ("n_masses = 8", "mass_range = [0.3, 1e9]", "predict.mass_range"),
        ("n_sample = 1_000", "n_sample = 100_000_000", "predict.n_sample"),
        ('step = "300 kB"', "step = 1", "read.step"),
        ('step = "300 kB"', 'step = "1 kB"', "read.step"),
    ],
)
def test_sizes_without_bound_are_refused_with_their_key(tmp_path, old, new, said):
    path = kills.steering(tmp_path / "steering.toml")
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(SteeringError, match=said):
        config.load(path)


def test_replicas_that_need_too_much_memory_name_their_key(tmp_path):
    path = kills.steering(tmp_path / "steering.toml")
    text = re.sub(
        r"\[subtract\][^[]*", "[subtract]\nmethod = 'regions'\nbootstrap = 100000\n\n", path.read_text()
    )
    text = text.replace("bins = 18", "bins = 180")
    path.write_text(text, encoding="utf-8")
    found = [str(finding) for finding in check_steering(config.load(path), tmp_path, open_files=False)]
    assert any(re.search(r"bootstrap: 100000 replicas of \d+ cells take .* GB", one) for one in found)


@pytest.mark.parametrize("method", ["exact", "marginalised"])
@pytest.mark.parametrize("background", [1e-30, 1e-20, 1e-12])
def test_backgrounds_of_next_to_nothing_are_none(background, method):
    counts, probability = count_probabilities(background, 0.5, method=method)
    assert counts.tolist() == [0.0]
    assert probability.tolist() == [1.0]
    found, none = (expected_limits(b, background_sigma=0.5, signal_sigma=0.2) for b in (background, 0.0))
    assert found == pytest.approx(none)


def _file(path, weight, sign=1.0):
    rng = np.random.default_rng(1)
    counts, momenta = np.full(100, 2), {key: rng.normal(0, 0.4, 200) for key in ("px", "py")}
    momenta["pz"] = sign * rng.uniform(5.0, 50.0, 200)
    branches = {f"Muon_{key}": ak.unflatten(values, counts) for key, values in momenta.items()}
    branches["Muon_charge"] = ak.unflatten(np.tile([1.0, -1.0], 100), counts)
    with uproot.recreate(path) as file:
        kinds = dict.fromkeys(branches, "var * float64") | {"w": "float64"}
        file.mktree("events", kinds).extend(branches | {"w": np.full(100, weight)})
    return path


@pytest.mark.parametrize("weight", [1e300, -1e300, np.inf])
def test_weights_that_overflow_are_an_error_of_their_branch(tmp_path, weight):
    path = _file(tmp_path / "heavy.root", weight)
    with pytest.raises(InputFileError, match=r"heavy\.root: 100 weights of 'w'"):
        list(read.open_events(path, read.load_schema(SCHEMA | {"weight": "w"})))


def test_leptons_that_all_fly_backwards_are_noted(tmp_path):
    said = [str(finding) for finding in read.examine(_file(tmp_path / "back.root", 1.0, -1.0), SCHEMA)]
    assert [line for line in said if "pz" in line and "negative in all 200 leptons" in line]
    assert not [
        line for line in map(str, read.examine(_file(tmp_path / "on.root", 1.0), SCHEMA)) if "pz" in line
    ]
