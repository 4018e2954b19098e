"""Reading, combining and scanning workspaces of others."""

from __future__ import annotations

import copy
import json
import tarfile

import numpy as np
import pyhf
import pytest
from scipy.stats import poisson

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.infer import (
    Convention,
    combine,
    counting_limit,
    exact_cls,
    exact_limit,
    patchset,
    read_likelihood,
    scan,
    to_hs3,
    workspace,
    write_xml,
)
from gammastar.infer.histfactory.hs3 import from_hs3
from gammastar.infer.histfactory.workspaces import channels_of

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
    with pytest.raises(InputFileError, match="holds no JSON file"):
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
    expected = counting_limit(1, 0.5, signal_sigma=POT, background_sigma=0.3, method="exact")
    assert abs(found.events - expected) < 3.5 * found.error


def configured(observed=1, **settings):
    space = workspace("ee", 0.5, 0.3, [observed], pot_search_sigma=POT)
    space["channels"][0]["samples"][0]["data"] = [2.5]
    space["measurements"][0]["config"]["parameters"] += [
        {"name": name, **entry} for name, entry in settings.items()
    ]
    return space


def profiled(space, strength):
    """−ln L of pyhf at a strength, minimised over what is not fixed, at exponential interpolation."""
    pyhf.set_backend("numpy", pyhf.optimize.scipy_optimizer(tolerance=1e-10))
    spaces = pyhf.Workspace(space)
    model = spaces.model(modifier_settings={"normsys": {"interpcode": "code1"}})
    _, twice = pyhf.infer.mle.fixed_poi_fit(strength, spaces.data(model), model, return_fitted_val=True)
    pyhf.set_backend("numpy")
    return float(twice)


def q_of(space, strength):
    """−2 ln L(s + b)/L(b) of the exact engine, each profiled."""
    found = exact_cls(
        channels_of(space),
        rng=np.random.default_rng(1),
        strength=strength,
        convention=Convention(auxiliary="randomised"),
        n_toys=100,
    )
    return found.q


@pytest.mark.long
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"pot_search": {"auxdata": [1.5]}},
        {"pot_search": {"auxdata": [-2.0]}, "background_norm_ee": {"auxdata": [0.7], "inits": [0.2]}},
        {"pot_search": {"fixed": True}},
        {"pot_search": {"fixed": True, "inits": [1.2]}, "background_norm_ee": {"auxdata": [-1.0]}},
        {"background_norm_ee": {"fixed": True, "inits": [-2.0], "bounds": [[-3.0, 1.0]]}},
        {"background_norm_ee": {"bounds": [[-8.0, 8.0]]}},
        {"somebody_else": {"auxdata": [3.0]}},
    ],
)
@pytest.mark.parametrize("observed", [1, 4])
def test_parameters_of_the_measurement_count_as_in_pyhf(settings, observed):
    """Statistic of the exact engine against pyhf's own likelihood, for centres and fixed parameters."""
    space = configured(observed, **settings)
    wanted = profiled(space, 1.3) - profiled(space, 1e-10)
    assert q_of(space, 1.3) == pytest.approx(wanted, abs=2e-5)


def test_limit_follows_the_centre_of_a_constraint():
    """Fixed toys: P(≤ n) at pyhf's own profiled expectations, with and without signal."""
    space = configured(1, pot_search={"auxdata": [1.5]}, background_norm_ee={"auxdata": [-1.0]})
    spaces = pyhf.Workspace(space)
    model = spaces.model(modifier_settings={"normsys": {"interpcode": "code1"}})
    data = spaces.data(model)
    means = [
        model.expected_actualdata(pyhf.infer.mle.fixed_poi_fit(mu, data, model))[0] for mu in (1.0, 1e-10)
    ]
    wanted = poisson.cdf(1, means[0]) / poisson.cdf(1, means[1])
    found = exact_cls(channels_of(space), rng=np.random.default_rng(5), n_toys=40_000)
    assert found.cls == pytest.approx(wanted, abs=4 * found.error + 1e-3)
    centred = exact_cls(channels_of(configured(1)), rng=np.random.default_rng(5), n_toys=40_000)
    assert abs(centred.cls - wanted) > 20 * found.error


@pytest.mark.parametrize(
    ("name", "entry", "words"),
    [
        ("pot_search", {"bounds": [[-1.0, 1.0]]}, "bounds"),
        ("pot_search", {"sigmas": [2.0]}, "sigmas"),
        ("pot_search", {"auxdata": [1.0, 2.0]}, "one finite number"),
        ("pot_search", {"fixed": True, "inits": [0.0, 1.0]}, "one finite number"),
    ],
)
def test_parameters_that_the_exact_engine_lacks_are_refused_by_name(name, entry, words):
    with pytest.raises(PhysicsError, match=f"{name}.*{words}"):
        channels_of(configured(**{name: entry}))


def test_fixed_nuisances_survive_hs3_and_centres_are_written():
    space = configured(pot_search={"fixed": True, "inits": [1.2]})
    document = to_hs3(space)
    (again,) = channels_of(from_hs3(document))
    (wanted,) = channels_of(space)
    assert again.signal == pytest.approx(wanted.signal)
    assert again.signal == pytest.approx(2.5 * np.exp(1.2 * POT))
    assert dict(again.signal_sigma) == dict(wanted.signal_sigma) == {}
    moved = to_hs3(configured(pot_search={"auxdata": [1.5]}))
    point = {entry["name"]: entry["value"] for entry in moved["parameter_points"][0]["parameters"]}
    assert point["nom_alpha_pot_search"] == 1.5


def test_a_parameter_of_interest_that_is_fixed_is_refused():
    space = configured()
    space["measurements"][0]["config"]["parameters"][0]["fixed"] = True
    with pytest.raises(PhysicsError, match=r"'mu'.*fixed"):
        channels_of(space)


def test_two_modifiers_of_one_name_do_not_overwrite_each_other():
    space = configured()
    space["channels"][0]["samples"][0]["modifiers"] += [
        {"name": "pot_search", "type": "normsys", "data": {"hi": 2.0, "lo": 0.5}}
    ]
    with pytest.raises(PhysicsError, match="'pot_search' occurs twice"):
        channels_of(space)


def test_xml(tmp_path):
    top = write_xml(channels()[0], tmp_path)
    assert b"<Combination" in top.read_bytes()
    assert list((tmp_path / "data").glob("*.root"))
