"""The stage that makes MOCK files in a run: formats, engines, mistakes."""

import shutil
import sys

import pytest
import uproot
from builders import ROOT

from gammastar.core.errors import SteeringError, UserError
from gammastar.mock import samples
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


@pytest.mark.long
def test_made_in_one_format_and_read(tmp_path, steering):
    out = tmp_path / "out"
    run(steering(more='format = "rntuple"\ncompression = "zlib"'), output=out, only="select")
    assert content(out)[1] == "ROOT::RNTuple"
    assert read_json(out / "manifest.json")["stages"].keys() >= {"simulate", "select"}


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
