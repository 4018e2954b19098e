"""Detectors keep their names: none overwrites another, and what is said of one holds for it alone."""

import shutil
import tomllib

import pytest
from builders import ROOT

from gammastar import config
from gammastar.config.checks import check_steering
from gammastar.core.errors import SteeringError
from gammastar.pipeline.context import detector_files
from gammastar.pipeline.stages.accept import _depths


def accepting(**keys):
    return config.Accept.model_validate({"detectors": ["na62_dump", "ship_ecn3"], **keys})


def test_two_detectors_of_one_name_are_refused(tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        shutil.copy(ROOT / "data" / "detectors" / "na62_dump.toml", tmp_path / folder / "det.toml")
    with pytest.raises(SteeringError, match=r"a/det\.toml and .*b/det\.toml are both named 'det'"):
        detector_files(["a/det.toml", "b/det.toml"], tmp_path, "accept.detectors")
    content = tomllib.loads((ROOT / "analysis" / "na60_dimuon" / "small.toml").read_text())
    content["accept"]["detectors"] = ["a/det.toml", "b/det.toml"]
    found = check_steering(config.parse(content), tmp_path, stages=["accept"], open_files=False)
    assert any(f.level == "error" and "'det'" in f.message for f in found)


def test_an_interaction_length_belongs_to_its_detector():
    names = ["na62_dump", "ship_ecn3"]
    with pytest.raises(SteeringError, match="no detector na62_dmup; they are na62_dump, ship_ecn3"):
        _depths(accepting(interaction_length={"na62_dmup": 0.5}), names)
    text = _depths(accepting(interaction_length={"na62_dump": 0.5}), names)
    assert text == (
        "na62_dump: exponential along the target, interaction length 0.5 m; "
        "ship_ecn3: all of it at the target's position"
    )
    assert "length 0.5 m" in _depths(accepting(interaction_length=0.5), names)
    assert _depths(accepting(), names) == "all of it at the target's position"
