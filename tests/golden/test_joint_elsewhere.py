"""Joint workspaces in other hands: RooFit reads them as HS3, cabinetry as they are; both fit what we fit.

ROOT is looked for here or behind GAMMASTAR_ROOT_PYTHON.
"""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pyhf
import pytest
from builders import ROOT
from hs3_likelihood import hs3_nll, hs3_parameters
from joint_models import MODELS

from gammastar.infer import to_hs3
from gammastar.infer.joint.expectation import arrays_of, fit, joint_workspace

ORACLE = ROOT / "tests" / "golden" / "hs3_oracle.py"
PYTHON = os.environ.get("GAMMASTAR_ROOT_PYTHON") or (
    sys.executable if importlib.util.find_spec("ROOT") else ""
)
CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}
FITTED = ("window", "no effects", "two bins of the search")
needs_root = pytest.mark.skipif(not PYTHON, reason="no interpreter with ROOT (GAMMASTAR_ROOT_PYTHON)")


def asked(*arguments):
    command = [PYTHON, str(ORACLE), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return np.array(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", ["window", "no effects", "two bins of the search", "in situ", "empty pairs"])
def test_roofit_has_the_same_likelihood(tmp_path, name):
    spec = joint_workspace(MODELS[name])
    document, model = to_hs3(spec), pyhf.Workspace(spec).model(modifier_settings=CODES)
    rng, start = np.random.default_rng(3), np.array(model.config.suggested_init())
    drawn = rng.normal(size=(5, len(start)))
    values = np.where(start == 0.0, 0.3 * drawn, start * np.exp(0.2 * drawn))
    points = [hs3_parameters(model, row) for row in values]
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "points.json").write_text(json.dumps(points))
    peer = asked("read", tmp_path / "model.json", tmp_path / "points.json")
    ours = np.array([hs3_nll(document, point) for point in points])
    data = pyhf.Workspace(spec).data(model)
    theirs = np.array([-model.logpdf(row, data)[0] for row in values])
    assert np.abs(np.diff(ours)).min() > 0.1
    np.testing.assert_allclose(np.diff(ours), np.diff(peer), rtol=0, atol=1e-9)
    np.testing.assert_allclose(np.diff(ours), np.diff(theirs), rtol=0, atol=1e-9)


@pytest.mark.slow
@needs_root
@pytest.mark.parametrize("name", FITTED)
def test_roofit_fits_the_same_strength(tmp_path, name):
    one = MODELS[name]
    (tmp_path / "model.json").write_text(json.dumps(to_hs3(joint_workspace(one))))
    strength, error, _ = asked("fit", tmp_path / "model.json")
    ours = fit(arrays_of(one), one.data).point.core[0, 0]
    assert error > 0.1
    assert abs(ours - strength) < 1e-3 * error


@pytest.mark.slow
@pytest.mark.parametrize("name", FITTED)
def test_cabinetry_fits_the_same_strength(name):
    cabinetry = pytest.importorskip("cabinetry")
    one = MODELS[name]
    model, data = cabinetry.model_utils.model_and_data(joint_workspace(one))
    found = cabinetry.fit.fit(model, data, strategy=2, maxiter=100_000)
    index = model.config.poi_index
    ours = fit(arrays_of(one), one.data).point.core[0, 0]
    assert found.uncertainty[index] > 0.1
    assert abs(ours - found.bestfit[index]) < 3e-3 * found.uncertainty[index]
