"""A source of uncertainty of one's own is one file: its name goes from the steering to the modifier."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from builders import ROOT

from gammastar.config.checks import examine_file
from gammastar.core.errors import PhysicsError
from gammastar.core.signal import Rate, SignalPlanes
from gammastar.core.sources import OwnSource
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run

FOLDER = ROOT / "analysis" / "na60_dimuon"
SOURCES = '''
from dataclasses import replace

import numpy as np

from gammastar.core.sources import OwnSource


def weaker(matched):
    """Lose 10 % of the reconstructed pairs, every tenth of them."""
    lost = np.arange(len(matched.reco)) % 10 == 0
    return replace(matched, reco=np.where(lost[:, None], np.nan, matched.reco))


def level_two(mass, pt, energy):
    return np.where(energy < 400.0, 0.9, 1.0)


trigger = OwnSource("trigger, second level", efficiency=level_two)
losses = OwnSource("losses", pairs=weaker)
cascade = OwnSource("hard cascade", particles=lambda mass, pt, energy: np.where(energy > 50.0, 1.2, 1.0))
nothing = 3
'''
OWN = """
[systematics]
pot = 0.1
own = ["mine.py:trigger", "mine.py:losses", "mine.py:cascade"]
nuisances = ["pot", "trigger, second level", "hard cascade"]

[report]
"""


@pytest.fixture(scope="module")
def steering(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own")
    text = (FOLDER / "small.toml").read_text().replace('"schema.toml"', f'"{FOLDER / "schema.toml"}"')
    for old, new in (("n_masses = 20", "n_masses = 8"), ("n_sample = 4_000", "n_sample = 1_500")):
        assert old in text
        text = text.replace(old, new)
    head, rest = text.split("[flow]")
    rest = rest[rest.index("[predict]") :].split("[systematics]")[0]
    head = head.replace("[subtract]", '[subtract]\nweights = "signed"')
    (folder / "mine.py").write_text(SOURCES)
    path = folder / "steering.toml"
    predict = '[predict]\nsampler = "histogram"'
    path.write_text(head + rest.replace("[predict]", predict) + OWN)
    return path


@pytest.fixture(scope="module")
def results(steering, tmp_path_factory):
    return run(steering, output=tmp_path_factory.mktemp("out") / "run")


def test_the_name_is_kept_from_the_steering_to_the_modifier(results):
    rate = Rate.from_arrays(load_arrays(results / "stages" / "predict.npz"))
    assert "trigger, second level" in rate.sources.names
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["na62_dump"]
    assert plane.effect("hard cascade").kind == "own"
    content = json.loads((results / "reach.json").read_text())
    assert {"trigger, second level", "hard cascade"} <= set(content["signal_uncertainties"])
    patch = json.loads((results / "patchset.json").read_text())["patches"][0]["patch"]
    names = {step["value"]["name"] for step in patch if step["op"] == "add"}
    assert {"trigger_second_level", "hard_cascade", "signal_mc"} == names
    rows = (results / "systematics.csv").read_text()
    assert "trigger, second level" in rows
    page = (results / "report.html").read_text()
    assert "trigger, second level" in page
    assert "hard cascade" in page
    manifest = json.loads((results / "manifest.json").read_text())
    assert any(name.startswith("[systematics] mine.py") for name in manifest["inputs"])


def test_the_sizes_are_those_of_the_functions(results):
    """An efficiency of 90 % is 11 % more photons; hard particles weigh 20 % more."""
    rate = Rate.from_arrays(load_arrays(results / "stages" / "predict.npz"))
    found = rate.relative("trigger, second level")
    assert np.median(found) == pytest.approx(1 / 0.9 - 1, abs=0.02)  # few pairs: single masses scatter
    with (results / "systematics.csv").open() as file:
        total = {row["source"]: float(row["total"]) for row in csv.DictReader(file)}
    assert total["losses"] == pytest.approx(1 / 0.9 - 1, abs=0.02)
    plane = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["na62_dump"]
    moved = plane.effect("hard cascade").values[plane.signal > 1e-290]  # below, a float has lost its digits
    assert moved.min() >= 0
    assert moved.max() <= 0.2 + 1e-9
    assert moved.max() == pytest.approx(0.2, rel=1e-6)  # short lives reach the dump with hard particles alone


def test_what_is_no_source_is_told_before_work(steering, first_mock, tmp_path):
    text = steering.read_text().replace('"mock/', f'"{first_mock}/')
    (tmp_path / "mine.py").write_text(SOURCES)
    path = tmp_path / "steering.toml"
    for old, new, said in (
        ("mine.py:cascade", "mine.py:nothing", "'mine.py:nothing' is int, not core.sources.OwnSource"),
        ("mine.py:cascade", "mine.py:other", "other"),
        ('"hard cascade"]', '"hard cascades"]', "'hard cascades' is no source; kinds are pot, spectrum"),
    ):
        path.write_text(text.replace(old, new))
        _, findings = examine_file(path)
        assert any(said in str(found) and found.level == "error" for found in findings)


@pytest.mark.parametrize(
    "broken",
    [
        {"name": "flow", "pairs": abs},
        {"name": "x"},
        {"name": "x", "pairs": abs, "particles": abs},
        {"name": "x", "pairs": 3},
        {"name": " "},
    ],
)
def test_sources_that_say_too_little_or_too_much_are_refused(broken):
    with pytest.raises(PhysicsError, match="source"):
        OwnSource(**broken)


def test_factors_are_looked_at():
    for function in (lambda m, _pt, _e: m[:1], lambda m, _pt, _e: -m, lambda m, _pt, _e: m / 0.0):
        with pytest.raises(PhysicsError, match="factors of shape"), np.errstate(all="ignore"):
            OwnSource("x", particles=function).factor(*np.ones((3, 3)))
