"""The stage that makes MOCK files in a run: formats, tuning, placeholders, interruption."""

import shutil
import sys

import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar.core.errors import SteeringError, UserError
from gammastar.core.files import data_path
from gammastar.mock import load_card, mass_templates, samples
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_json

SCHEMA = ROOT / "analysis" / "na60_dimuon" / "schema.toml"
STEERING = """
[analysis]
name = "made"
seed = 3
mock = true

[simulate]
card = "{card}"
engine = "toy"
n_pairs = 1500
n_response = 3000
response_prior = "varied"
{more}

[read]
schema = "schema.toml"

[select]
mass = {{ bins = 18, low = 0.2125, high = 1.1125 }}
pt = [0.0, 0.5, 6.0]
energy = [0.2, 6.0, 20.0, 40.0, 400.0]
"""


@pytest.fixture
def steering(tmp_path, small_pilots):
    small_pilots.setattr(samples, "BLOCK", 1000)
    shutil.copy(SCHEMA, tmp_path / "schema.toml")

    def write(card="na60_mock", more=""):
        path = tmp_path / "run.toml"
        path.write_text(STEERING.format(card=card, more=more))
        return path

    return write


def content(folder):
    with uproot.open(folder / "input" / "mock_data.root") as data:
        return data["meta"]["content_sha256"].array()[0], data.classnames(cycle=False)["events"]


def test_made_in_one_format_and_read(tmp_path, steering):
    out = tmp_path / "out"
    run(steering(more='format = "rntuple"\ncompression = "zlib"'), output=out, only="select")
    assert content(out)[1] == "ROOT::RNTuple"
    assert not (out / "input" / "blocks").exists()
    assert read_json(out / "manifest.json")["stages"].keys() >= {"simulate", "select"}


@pytest.mark.slow
def test_interrupted_stage_goes_on(tmp_path, steering, monkeypatch):
    whole, part = tmp_path / "whole", tmp_path / "part"
    run(steering(more='format = "rntuple"'), output=whole, only="simulate")
    made, calls = samples.assembled, []

    def interrupted(*args):
        calls.append(args[1])
        if len(calls) == 4:
            raise KeyboardInterrupt
        return made(*args)

    monkeypatch.setattr(samples, "assembled", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(steering(), output=part, only="simulate")
    run(steering(), output=part, only="simulate", resume=True)
    # data in two blocks, response in three of which the second was killed, R; the rest was taken up
    assert calls == [1000, 500, 1000, 1000, 1000, 1000, 1000, 500]
    assert content(part)[0] == content(whole)[0]  # of two formats


@pytest.mark.slow
def test_tuned_card_is_told(tmp_path, steering):
    card = load_card(data_path("cards/na60_mock.toml"))
    edges = np.linspace(0.2, 1.2, 21)
    templates, _ = mass_templates(card, edges, 1e12, n=20_000, seed=9)
    with uproot.recreate(tmp_path / "mass.root") as file:
        file["mass"] = (np.round(sum(templates.values())), edges)
    tagged = 'tag = "placeholder", source = "illustrative" }'
    section = [
        "[tuning]",
        'spectrum = "mass.root:mass"',
        f"pot = {{ value = 1e12, {tagged}",
        f"n = {{ value = 20000, {tagged}",
    ]
    text = data_path("cards/na60_mock.toml").read_text(encoding="utf-8")
    (tmp_path / "tuned.toml").write_text("\n".join([text, *section]), encoding="utf-8")
    run(steering("tuned.toml"), output=tmp_path / "out", only="simulate")
    manifest = read_json(tmp_path / "out" / "manifest.json")
    assert str(tmp_path / "mass.root") in manifest["inputs"]
    assert "phi_2body × " in manifest["numbers"]["yields of the mock"]
    assert any(key.endswith("(tuned)") for key in manifest["inputs"])


def test_data_are_of_pythia_by_default(tmp_path, steering, monkeypatch):
    """A closure test with data and response of one engine is trivial; without Pythia the extra is named."""
    monkeypatch.setitem(sys.modules, "pythia8mc", None)
    path = steering()
    path.write_text(path.read_text().replace('engine = "toy"\n', ""))
    with pytest.raises(UserError, match=r"gammastar\[simulate\]"):
        run(path, output=tmp_path / "out", only="simulate")


def test_mistakes_in_the_section(steering):
    for more, match in (('format = "csv"', "simulate.format"), ("blocks = 3", "simulate.blocks")):
        with pytest.raises(SteeringError, match=match):
            run(steering(more=more))
