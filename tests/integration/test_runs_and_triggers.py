"""Trigger words, good runs, protons and prescales of runs: the spectrum is that of data cut by hand."""

import re

import numpy as np
import pytest
import uproot
from builders import ntuple

from gammastar import load
from gammastar.config.checks import examine_file
from gammastar.core.errors import SteeringError
from gammastar.pipeline.run import run

BIT = 2**60  # of the trigger word
POT = {4010: 4e9, 4011: 2.5e9, 4012: 1e9, 4013: 3e9, 4014: 5e-3}  # 4014 has no event, and needs none
PRESCALE = {4010: 1, 4011: 3, 4012: 1, 4013: 1, 4014: 1}
GOOD = "4010-4011, 4014 # 4012: magnet off, 4013: commissioning\n"
SCHEMA = """
tree = "dimuons"
layout = "pair"
lepton = "mu"
unit = 1e-3
event = "evt"
charge = ["mup_q", "mum_q"]
{more}
[kinematics]
px = ["mup_px", "mum_px"]
py = ["mup_py", "mum_py"]
pz = ["mup_pz", "mum_pz"]
[truth]
mass = "genMass"
pt = "gen_qT"
energy = "true_energy"
"""
STEERING = """
[analysis]
name = "runs"
mock = true
[read]
files = ["{data}"]
response = ["mc.root"]
schema = "{schema}"
{runs}
[select]
mass = {{ bins = 8, low = 0.25, high = 1.05 }}
{cuts}
[subtract]
method = "geometric mean"
weights = "signed"
[unfold]
method = "iterative"
n_replicas = 2
scan = []
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = {pot}
"""
RUNS = '[read.runs]\ngood = "good.txt"\ntable = "runs.csv"\npot = "pot"\nprescale = "prescale"'
WORD = f"event = {{ L0 = {{ all = {BIT:#x}, none = 0x2 }} }}"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Data with runs, words and prescales; the same data cut by hand; simulation of run 1, with words."""
    here, rng = tmp_path_factory.mktemp("runs"), np.random.default_rng(5)
    for name, n in (("data", 4000), ("mc", 6000)):
        ntuple(here / "plain.root", n, 11 if name == "data" else 12, truth=name == "mc")
        rows = uproot.open(here / "plain.root")["dimuons"].arrays(library="np")
        rows["L0"] = np.where(rng.random(n) < 0.8, BIT, 0) | rng.integers(0, 4, n)
        rows["run"] = rng.choice([4010, 4011, 4012, 4013], n) if name == "data" else np.ones(n, int)
        with uproot.recreate(here / f"{name}.root") as file:
            file["dimuons"] = rows
        if name == "data":
            keep = (rows["L0"] & BIT != 0) & (rows["L0"] & 2 == 0) & (rows["run"] <= 4011)
            mine = {key: value[keep] for key, value in rows.items()}
            mine["w"] = np.array([PRESCALE[number] for number in mine["run"].tolist()], float)
            with uproot.recreate(here / "byhand.root") as file:
                file["dimuons"] = mine
    lines = [f"{number},{POT[number]!r},{PRESCALE[number]}" for number in POT]
    (here / "runs.csv").write_text("\n".join(["run,pot,prescale", *lines]))
    (here / "good.txt").write_text(GOOD)
    word = '[event_columns]\nL0 = "L0"\n'
    (here / "schema.toml").write_text(SCHEMA.format(more='run = "run"') + word)
    (here / "byhand.toml").write_text(SCHEMA.format(more="") + word)
    (here / "own.py").write_text("def late(events):\n    return events.run > 4010\n")
    return here


def steering(folder, name="steering", **changes):
    given = {"data": "data.root", "schema": "schema.toml", "runs": RUNS, "cuts": WORD, "pot": '"runs"'}
    path = folder / f"{name}.toml"
    path.write_text(STEERING.format(**(given | changes)))
    return path


def test_runs_words_protons_and_prescales_give_the_spectrum_of_data_cut_by_hand(folder):
    found = load(run(steering(folder), output=folder / "out"))
    total = sum(POT[number] for number in (4010, 4011, 4014))
    assert found.spectrum.exposure.pot == pytest.approx(total, rel=1e-14)
    # the word must act on the simulation as well: its efficiency is part of the response
    rows = uproot.open(folder / "mc.root")["dimuons"].arrays(library="np")
    with uproot.recreate(folder / "mc_w.root") as file:
        file["dimuons"] = rows | {"w": np.ones(len(rows["evt"]))}
    words = '[event_columns]\nL0 = "L0"\n'
    (folder / "weighted.toml").write_text(SCHEMA.format(more='weight = "w"') + words)
    path = steering(folder, "hand", data="byhand.root", schema="weighted.toml", runs="", pot=repr(total))
    path.write_text(path.read_text().replace("mc.root", "mc_w.root"))
    plain = load(run(path, output=folder / "plain"))
    np.testing.assert_allclose(found.spectrum.values, plain.spectrum.values, rtol=1e-12)
    np.testing.assert_allclose(found.spectrum.cov, plain.spectrum.cov, rtol=1e-9)
    assert (found.spectrum.values > 0).all()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cuts": "event = { run = [4010, 4012] }"}, r"select.event.run: simulation has no runs"),
        ({"cuts": 'event_functions = ["own.py:late"]'}, r"late\(\): no field .*'run'.*no runs.* in mc.root"),
        ({"cuts": "event = { L0 = { all = 0x10000000000000000 } }"}, r"select.event.L0: all: .* less than"),
        ({"cuts": "event = { L0 = { al = 1 } }"}, r"select.event.L0: al: unknown key; the keys are all, any"),
        ({"cuts": "event = { L0 = {} }"}, r"select.event.L0: asks for nothing"),
        ({"cuts": "lepton = { charge = { any = 1 } }"}, r"select.lepton.charge: .* need integers"),
        ({"cuts": "event = { L1 = { all = 1 } }"}, r"select.event.L1: the schema gives no such column; .*L0"),
        ({"cuts": "data = { event = { runn = [1, 2] } }"}, r"select.data.event.runn: .* did you mean 'run'"),
        ({"runs": RUNS.replace("good.txt", "none.txt")}, r"none.txt: cannot be read"),
        (
            {"runs": RUNS.replace("runs.csv", "short.csv")},
            r"1 runs of the data have no pot .*: 4011",
        ),
        ({"runs": RUNS.replace("good.txt", "late.txt")}, r"none of the 4 runs of the data is good"),
        ({"runs": ""}, r"spectrum.pot: 'runs' needs \[read.runs\]"),
        ({"pot": "1e10"}, r"read.runs.pot: is not used"),
        ({"schema": "byhand.toml"}, r"read.runs: the schema names no branch of runs"),
        ({"runs": '[read.runs]\ntable = "runs.csv"'}, r"a table needs a column pot or prescale"),
    ],
)
def test_mistakes_are_found_before_work(folder, changes, message):
    (folder / "short.csv").write_text("run,pot,prescale\n4010,4e9,1\n")
    (folder / "late.txt").write_text("5000-5010")
    findings = [str(finding) for finding in examine_file(steering(folder, "wrong", **changes))[1]]
    assert any(re.search(message, text) for text in findings), findings


def test_a_cut_on_runs_that_acts_on_the_simulation_stops_the_run(folder):
    path = steering(
        folder, "late", cuts="pair = { run = [4011, 4012] }", schema="column.toml", pot="1e10", runs=""
    )
    (folder / "column.toml").write_text(SCHEMA.format(more="") + '[event_columns]\nrun = "run"\n')
    with pytest.raises(SteeringError, match=r"select.pair.run: unknown quantity"):
        run(path, output=folder / "late")
