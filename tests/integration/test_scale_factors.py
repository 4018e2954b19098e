"""Data that lose leptons which the simulation keeps: the table of factors gives them back."""

import sys

import pytest
from builders import ROOT

pytest.importorskip("correctionlib")
sys.path.insert(0, str(ROOT / "analysis"))

from validation import full_example

from gammastar.config.checks import examine_file

BROKEN = (
    ('correction = "muon"', 'correction = "muons"', "select.scale_factors", "has no correction 'muons'"),
    ('p = "momentum"', 'q = "momentum"', "select.scale_factors", "missing ['p'], unknown ['q']"),
    ('file = "muons.json"', 'file = "m.json"', "select.scale_factors", "m.json"),
    ('"muon reconstruction"', '"efficiency"', "select.scale_factors", "built-in source"),
    ('way = "nominal"', 'way = "usual"', "select", "muons.json: correction 'muon'"),
)


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    folder = tmp_path_factory.mktemp("example")
    one = full_example.experiment
    full_example.experiment = lambda: one(size=0.1)
    try:
        truth = full_example.make(folder, 401, sample=200_000)
    finally:
        full_example.experiment = one
    return folder, truth


def test_the_rate_is_that_of_the_truth(example):
    """Without the factors it is a fifth too small."""
    folder, truth = example
    pulls, _ = full_example.compared(folder, truth)
    assert abs(pulls.total) < 3
    assert abs(pulls.bins).max() < 4.5
    table = (folder / "results" / "systematics.csv").read_text()
    assert {"muon reconstruction", "momentum scale"} <= set(table.replace("\n", ",").split(","))


@pytest.mark.parametrize(("old", "new", "where", "said"), BROKEN)
def test_mistakes_are_found_by_the_check(example, tmp_path, old, new, where, said):
    folder, _ = example
    for file in folder.iterdir():
        if file.is_file():
            (tmp_path / file.name).symlink_to(file)
    text = (folder / "steering.toml").read_text()
    assert text.count(old) == 1
    (tmp_path / "steering.toml").unlink()
    (tmp_path / "steering.toml").write_text(text.replace(old, new))
    wrong = [finding for finding in examine_file(tmp_path / "steering.toml")[1] if finding.level == "error"]
    assert any(finding.where.startswith(where) and said in finding.message for finding in wrong), wrong
