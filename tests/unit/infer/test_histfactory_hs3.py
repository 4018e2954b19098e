"""HS3 documents: the likelihood of what we write and read, against pyhf's and ROOT's."""

from __future__ import annotations

import copy
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

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer import read_likelihood, scan, to_hs3, workspace
from gammastar.infer.histfactory.hs3 import from_hs3

GOLDEN = ROOT / "tests" / "golden" / "root_hs3.json"
ORACLE = GOLDEN.with_name("hs3_oracle.py")
PYTHON = os.environ.get("GAMMASTAR_ROOT_PYTHON") or (
    sys.executable if importlib.util.find_spec("ROOT") else ""
)
PYHS3 = os.environ.get("GAMMASTAR_PYHS3_PYTHON") or (
    sys.executable if importlib.util.find_spec("pyhs3") else ""
)
CODES = {"normsys": {"interpcode": "code4"}, "histosys": {"interpcode": "code4p"}}


def modifier(name, kind, data=None):
    return {"name": name, "type": kind, "data": data}


def every_modifier():
    """Two channels in which every modifier of HistFactory occurs; two are shared."""
    pot, mu = modifier("pot", "normsys", {"hi": 1.2, "lo": 1 / 1.2}), modifier("mu", "normfactor")
    shape = modifier("shape", "histosys", {"hi_data": [2.3, 2.8], "lo_data": [1.8, 3.2]})
    one = [
        {"name": "signal", "data": [1.0, 2.0], "modifiers": [mu, pot, modifier("lumi", "lumi")]},
        {
            "name": "background",
            "data": [2.0, 3.0],
            "modifiers": [
                modifier("norm", "normsys", {"hi": 1.3, "lo": 0.8}),
                shape,
                modifier("like_sign_one", "shapesys", [0.4, 0.3]),
                modifier("mc_one", "staterror", [0.2, 0.3]),
            ],
        },
        {
            "name": "other",
            "data": [1.0, 1.5],
            "modifiers": [modifier("mc_one", "staterror", [0.1, 0.2]), modifier("free_one", "shapefactor")],
        },
    ]
    two = [
        {"name": "signal", "data": [1.0], "modifiers": [mu, pot]},
        {
            "name": "background",
            "data": [0.5],
            "modifiers": [modifier("shape", "histosys", {"hi_data": [0.6], "lo_data": [0.45]})],
        },
    ]
    lumi = {"name": "lumi", "auxdata": [1.0], "sigmas": [0.05], "bounds": [[0.5, 1.5]], "inits": [1.0]}
    return {
        "channels": [{"name": "one", "samples": one}, {"name": "two", "samples": two}],
        "observations": [{"name": "one", "data": [3.0, 4.0]}, {"name": "two", "data": [1.0]}],
        "measurements": [{"name": "limit", "config": {"poi": "mu", "parameters": [lumi]}}],
        "version": "1.0.0",
    }


def random_points(model, n, seed=3):
    rng, start = np.random.default_rng(seed), np.asarray(model.config.suggested_init())
    for _ in range(n):
        yield np.where(
            start == 0, rng.normal(0, 1.2, start.size), start * np.exp(rng.normal(0, 0.2, start.size))
        )


def test_every_modifier_has_pyhfs_likelihood():
    spec = every_modifier()
    document = to_hs3(spec)
    space = pyhf.Workspace(spec)
    model = space.model(modifier_settings=CODES)
    for values in random_points(model, 8):
        peer = -float(model.logpdf(values, space.data(model))[0])
        assert hs3_nll(document, hs3_parameters(model, values)) == pytest.approx(peer, rel=1e-10)


def test_round_trip_keeps_the_likelihood_and_the_limits():
    spec = every_modifier()
    again = from_hs3(json.loads(json.dumps(to_hs3(spec))))
    spaces = [pyhf.Workspace(s) for s in (spec, again)]
    models = [space.model(modifier_settings=CODES) for space in spaces]
    names = [set(model.config.par_names) for model in models]
    assert names[0] == names[1]
    document = to_hs3(again)
    for values in random_points(models[0], 4):
        named = hs3_parameters(models[0], values)
        peer = -float(models[0].logpdf(values, spaces[0].data(models[0]))[0])
        assert hs3_nll(document, named) == pytest.approx(peer, rel=1e-10)


@pytest.mark.parametrize("kind", ["Poisson", "Gaussian"])
def test_documents_of_root(kind):
    """ROOT's own exports: our value against ROOT's, and the same after a passage through pyhf's JSON."""
    golden = json.loads(GOLDEN.read_text())["documents"][kind]
    ours = np.array([hs3_nll(golden["hs3"], point) for point in golden["points"]])
    np.testing.assert_allclose(np.diff(ours), np.diff(golden["nll"]), rtol=0, atol=1e-9)
    spec = from_hs3(golden["hs3"])
    kinds = {m["type"] for s in spec["channels"][0]["samples"] for m in s["modifiers"]}
    assert ("staterror" in kinds) == (kind == "Gaussian")
    document = to_hs3(spec)
    through = np.array([hs3_nll(document, point) for point in golden["points"]])
    np.testing.assert_allclose(np.diff(through), np.diff(golden["nll"]), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(not PYTHON, reason="no interpreter with ROOT (extra `oracle`, GAMMASTAR_ROOT_PYTHON)")
def test_root_reads_what_we_write(tmp_path):
    spec = every_modifier()
    document = to_hs3(spec)
    model = pyhf.Workspace(spec).model(modifier_settings=CODES)
    points = [hs3_parameters(model, values) for values in random_points(model, 5)]
    (tmp_path / "model.json").write_text(json.dumps(document))
    (tmp_path / "points.json").write_text(json.dumps(points))
    command = [PYTHON, str(ORACLE), "read", str(tmp_path / "model.json"), str(tmp_path / "points.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    peer = np.array(json.loads(done.stdout.splitlines()[-1]))
    ours = np.array([hs3_nll(document, point) for point in points])
    np.testing.assert_allclose(np.diff(ours), np.diff(peer), rtol=0, atol=1e-9)


@pytest.mark.slow
@pytest.mark.skipif(not PYHS3, reason="no interpreter with pyhs3 (GAMMASTAR_PYHS3_PYTHON)")
def test_pyhs3_reads_what_we_write(tmp_path):
    """With the modifiers that pyhs3 0.4 has as ROOT: not bin-wise errors, nor a constrained luminosity."""
    spec, kinds = every_modifier(), {"normfactor", "normsys", "histosys", "shapefactor"}
    for sample in (s for channel in spec["channels"] for s in channel["samples"]):
        sample["modifiers"] = [m for m in sample["modifiers"] if m["type"] in kinds]
    spec["measurements"][0]["config"]["parameters"] = []
    document = to_hs3(spec)
    model = pyhf.Workspace(spec).model(modifier_settings=CODES)
    points = [hs3_parameters(model, values) for values in random_points(model, 4)]
    files = [tmp_path / "model.json", tmp_path / "points.json"]
    for path, content in zip(files, (document, points), strict=True):
        path.write_text(json.dumps(content))
    oracle = ROOT / "tests" / "golden" / "pyhs3_oracle.py"
    command = [PYHS3, str(oracle), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
    peer = json.loads(done.stdout.splitlines()[-1])
    np.testing.assert_allclose([hs3_nll(document, point) for point in points], peer, rtol=1e-9)


def test_scan_reads_hs3(tmp_path):
    spec = workspace("c", [4.0, 9.0], 0.2, [5, 8], pot_search_sigma=0.18)
    spec["channels"][0]["samples"][0]["data"] = [2.0, 3.0]
    for name, content in (("pyhf.json", spec), ("hs3.json", to_hs3(spec))):
        (tmp_path / name).write_text(json.dumps(content))
    both = [next(scan(read_likelihood(tmp_path / name))) for name in ("pyhf.json", "hs3.json")]
    assert both[1].observed == pytest.approx(both[0].observed, rel=1e-5)
    np.testing.assert_allclose(both[1].expected, both[0].expected, rtol=1e-5)


def test_an_empty_bin_with_an_error_is_refused_by_name():
    spec = every_modifier()
    spec["channels"][0]["samples"][1]["data"] = [0.0, 3.0]
    with pytest.raises(PhysicsError, match=r"like_sign_one.*bin 0"):
        to_hs3(spec)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda d: d["distributions"][0].update(type="generic_dist"), "generic_dist"),
        (lambda d: d["analyses"][0].update(parameters_of_interest=["mu", "nu"]), "expected one"),
        (
            lambda d: d["distributions"][0]["samples"][0]["modifiers"][1].update(interpolation=0),
            "interpolation 0",
        ),
        (lambda d: d["distributions"][0]["samples"][0]["modifiers"][0].update(type="spline"), "spline"),
        (lambda d: d["distributions"][-1].update(sigma=2.0), "unit width"),
    ],
)
def test_what_histfactory_cannot_express_is_refused_by_name(tmp_path, change, match):
    document = to_hs3(workspace("c", [4.0, 9.0], 0.2, [5, 8], pot_search_sigma=0.18))
    broken = copy.deepcopy(document)
    change(broken)
    with pytest.raises(PhysicsError, match=match):
        from_hs3(broken)
    (tmp_path / "hs3.json").write_text(json.dumps(broken))
    with pytest.raises(InputFileError, match=match):
        read_likelihood(tmp_path / "hs3.json")


@pytest.mark.parametrize("kind", ["Poisson", "Gaussian"])
def test_documents_of_older_root(kind):
    """Names that earlier versions leave out follow from those of modifiers: the likelihood is ROOT's."""
    golden = json.loads(GOLDEN.read_text())["documents"][kind]
    older = copy.deepcopy(golden["hs3"])
    for channel in older["distributions"]:
        for entry in (m for s in channel.get("samples", []) for m in s["modifiers"]):
            if entry["type"] == "normfactor" and "constraint_name" in entry:
                continue  # the luminosity
            entry.pop("parameter", None)
            entry.pop("parameters", None)
            entry.pop("constraint_name", None)
            if entry["type"] == "staterror":
                channel["staterror"] = {"constraint": entry.pop("constraint_type")}
            elif entry["type"] == "shapesys":
                entry["constraint"] = entry.pop("constraint_type")
    older["distributions"] = [d for d in older["distributions"] if not d["name"].startswith("alpha_")]
    ours = [hs3_nll(older, point) for point in golden["points"]]
    np.testing.assert_allclose(np.diff(ours), np.diff(golden["nll"]), atol=1e-9)
    assert from_hs3(older)["channels"] == from_hs3(golden["hs3"])["channels"]
