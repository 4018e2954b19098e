"""Reading, combining and scanning workspaces of others."""

from __future__ import annotations

import copy
import json
import tarfile

import numpy as np
import pyhf
import pytest

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer import (
    channels_of,
    combine,
    counting_limit,
    exact_limit,
    patchset,
    read_likelihood,
    scan,
    workspace,
    write_xml,
)

POT = float(np.log(1.2))


def written(tmp_path, **changes):
    space = workspace("dimuons", 0.5, 0.3, [1], pot_search_sigma=POT)
    patches = patchset(space, [0.3, 0.4], [1e-6, 1e-6], [3.0, 1.0])
    (tmp_path / "BkgOnly.json").write_text(json.dumps(space | changes))
    (tmp_path / "patchset.json").write_text(json.dumps(patches))
    return space, patches


def test_directory_and_archive_give_the_same(tmp_path):
    _, patches = written(tmp_path)
    found = read_likelihood(tmp_path)
    assert found.labels == ("mass_GeV", "eps")
    assert found.values["m0p300_log10eps_m6p00"] == (0.3, 1e-6)
    with tarfile.open(tmp_path / "both.tar.gz", "w:gz") as archive:
        for name in ("BkgOnly.json", "patchset.json"):
            archive.add(tmp_path / name, arcname=f"Region/{name}")
    again = read_likelihood(tmp_path / "both.tar.gz", region="Region")
    assert again.workspace == found.workspace
    points = list(scan(again))
    model = pyhf.Workspace(again.workspace).model(patches=[patches["patches"][0]["patch"]])
    data = pyhf.Workspace(again.workspace).data(model)
    peer = float(pyhf.infer.hypotest(1.0, data, model))
    assert points[0].observed == pytest.approx(peer, rel=1e-3)  # interpolation codes differ
    assert points[0].observed < points[1].observed


def test_single_patch_next_to_a_workspace(tmp_path):
    written(tmp_path)
    patch = [{"op": "replace", "path": "/channels/0/samples/0/data", "value": [2.0]}]
    (tmp_path / "patch.mine.json").write_text(json.dumps(patch))
    found = read_likelihood(tmp_path / "BkgOnly.json", patches=tmp_path / "patch.mine.json")
    assert list(found.patches) == ["mine"]
    with pytest.raises(PhysicsError, match="no patch"):
        next(scan(found, ["other"]))


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"data": [0.5]', '"data": [NaN]', "NaN"),
        ('"data": [0.5]', '"data": [-0.5]', "bin 0"),
        ('"data": [0.5]', '"data": ["a"]', "valid"),
        ('"lo": 0.74', '"lo": -0.74', "not positive"),
        ('"data": [0.5]', '"data": [0.6]', "another workspace"),
        ("{", "", "not JSON"),
    ],
)
def test_damaged_files_are_refused(tmp_path, old, new, match):
    written(tmp_path)
    text = (tmp_path / "BkgOnly.json").read_text()
    assert old in text
    (tmp_path / "BkgOnly.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputFileError, match=match):
        read_likelihood(tmp_path)


def test_missing_and_ambiguous_files(tmp_path):
    with pytest.raises(InputFileError, match="no such"):
        read_likelihood(tmp_path / "nothing.json")
    with pytest.raises(InputFileError, match="0 workspaces"):
        read_likelihood(tmp_path)


def channels(pot=("pot_search", "pot_search")):
    result = []
    for name, nuisance in zip(("ee", "mumu"), pot, strict=True):
        space = workspace(name, 0.3, 0.2, [0], pot_search_sigma=POT)
        space = json.loads(json.dumps(space).replace("pot_search", nuisance))
        space["channels"][0]["samples"][0]["data"] = [1.2]
        result.append(space)
    return result


def test_combination_shares_the_protons_on_target():
    both = combine(channels())
    model = pyhf.Workspace(both).model()
    assert sum(name == "pot_search" for name in model.config.par_order) == 1
    assert model.config.npars == 4  # mu, one POT, two backgrounds
    found = exact_limit(channels_of(both), rng=np.random.default_rng(1))
    assert found.events == pytest.approx(2.4857, abs=3e-4)


def test_combination_refuses_traps():
    with pytest.raises(PhysicsError, match="spelling"):
        combine(channels(("pot_search", "POT_search")))
    same = channels()
    with pytest.raises(PhysicsError, match="different names"):
        combine([same[0], same[0]])
    assert pyhf.Workspace(combine([same[0], same[0]], prefixes=["NA62", "SHiP"])).channels == [
        "NA62_ee",
        "SHiP_ee",
    ]
    binwise = copy.deepcopy(same)
    for space in binwise:
        space["channels"][0]["samples"][1]["modifiers"].append(
            {"name": "stat", "type": "shapesys", "data": [0.1]}
        )
    with pytest.raises(PhysicsError, match="bin-wise"):
        combine(binwise)
    with pytest.raises(PhysicsError, match="log-normal"):
        channels_of(binwise[0])


def test_exact_limit_of_a_workspace_equals_the_counting_limit():
    space = workspace("ee", 0.5, 0.3, [1], pot_search_sigma=POT)
    space["channels"][0]["samples"][0]["data"] = [1.0]
    found = exact_limit(channels_of(space), rng=np.random.default_rng(3), precision=0.01)
    expected = counting_limit(1, 0.5, signal_sigma=POT, background_sigma=0.3)
    assert abs(found.events - expected) < 3.5 * found.error


def test_xml(tmp_path):
    top = write_xml(channels()[0], tmp_path)
    assert b"<Combination" in top.read_bytes()
    assert list((tmp_path / "data").glob("*.root"))
