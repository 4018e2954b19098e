"""New methods of unfolding and subtraction are one file of the user: spectrum, sources, statistics."""

import re
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT
from click.testing import CliRunner

from gammastar.cli import app
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.records import Spectrum, filled
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_json
from gammastar.subtract import same_sign
from gammastar.testing import ContractError, check_subtraction, check_unfolder
from gammastar.unfold import iterative, least_squares
from gammastar.unfold.folding import Method
from gammastar.unfold.methods import METHODS

STEERING = """
[analysis]
name = "own"
seed = 1
mock = true
[read]
files = ["data.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
mass = { bins = 18, low = 0.2125, high = 1.1125 }
pt = [0.0, 6.0]
energy = [0.2, 400.0]
[subtract]
r_factor = 1.173
r_factor_sigma = 0.05
[unfold]
mass = { bins = 9, low = 0.2125, high = 1.1125 }
n_replicas = 20
scan = []
"""
SOURCES = "[systematics]\nefficiency = 0.02\npolarisation = 0.3\nradiation = 0.2\nbackground = true\n"
OWN = '''
import numpy as np
from gammastar.core.records import filled
from gammastar.core.records import Spectrum

FACTOR = 1.0


def solved(y, migration, weight):
    normal = np.linalg.inv(migration.T @ weight @ migration)
    return FACTOR * normal @ migration.T @ weight @ y, normal


def unfolder(measured, response):
    """Least squares by the normal equations; the simulation enters by its bootstraps."""
    genuine = 1 - response.fakes
    y, cov = measured.values.ravel() * genuine, measured.cov * np.outer(genuine, genuine)
    weight = np.linalg.inv(cov + np.diag(np.where(np.diag(cov) > 0, 0.0, 1.0)))
    values, cov = solved(y, response.migration, weight)
    if len(response.cov_replicas) > 1:
        copies = [solved(y, one, weight)[0] for one in response.cov_replicas]
        cov = cov + np.cov(np.array(copies), rowvar=False)
    hist = filled(response.true, values, np.diag(cov))
    return Spectrum(hist, cov, "counts", None, np.ones([len(a) for a in response.true], dtype=bool))


def on_measured_axes(measured, response):
    return measured


number = 3
'''


@pytest.fixture(scope="module")
def go(tmp_path_factory, mock_schema, with_charm):
    """Write the files once; return a function that runs a method on them."""
    base = tmp_path_factory.mktemp("own")
    with_charm(base)
    (base / "schema.toml").write_text(mock_schema)

    def made(method, own=OWN):
        (base / "mine.py").write_text(own)
        unfolding = f"weights = 'signed'\n[unfold]\nmethod = '{method}'\n"
        text = STEERING.replace("[unfold]\n", unfolding) + SOURCES
        (base / "steering.toml").write_text(text)
        folder = run(base / "steering.toml", output=base / "run", resume=True)
        return folder, dict(np.load(folder / "stages" / "unfold.npz"))

    made.base = base
    return made


def test_least_squares_of_ones_own_is_that_of_the_package(go):
    folder, own = go("mine.py:unfolder")
    assert "own method" in read_json(folder / "manifest.json")["methods"]["unfolded spectrum"]
    _, known = go("least squares")
    inside = known["domain"].ravel()
    np.testing.assert_allclose(own["values"].ravel()[inside], known["values"].ravel()[inside], rtol=1e-6)
    assert own["source_names"].tolist() == known["source_names"].tolist()
    assert len(own["source_names"]) == 4
    for mine, theirs in zip(own["source_shifts"], known["source_shifts"], strict=True):
        np.testing.assert_allclose(mine[inside], theirs[inside], rtol=1e-6, atol=1e-6 * abs(theirs).max())
    # the data as a derivative, the simulation by other first-order and full shifts of the same bootstraps
    assert own["statistics"][0] == pytest.approx(known["statistics"][0], rel=1e-6)
    assert own["statistics"][1] == pytest.approx(known["statistics"][1], rel=0.5)
    assert own["statistics"][1] > 0


def singular_values(kept):
    """Return an unfolder by the largest singular values of the whitened response: all are least squares."""

    def unfolder(measured, response):
        genuine = 1 - response.fakes
        y, cov = measured.values.ravel() * genuine, measured.cov * np.outer(genuine, genuine)
        white = 1 / np.sqrt(np.where(np.diag(cov) > 0, np.diag(cov), 1.0))
        left, size, right = np.linalg.svd(white[:, None] * response.migration, full_matrices=False)
        inverse = right[:kept].T @ (left[:, :kept] / size[:kept]).T
        values = inverse @ (white * y)
        cov = inverse @ (white[:, None] * cov * white) @ inverse.T
        domain = np.ones([len(axis) for axis in response.true], dtype=bool)
        return Spectrum(filled(response.true, values, np.diag(cov)), cov, "counts", None, domain)

    return unfolder


def test_a_new_method_is_a_line(go, monkeypatch):
    made = Method(
        lambda _measured, _response, options: (singular_values(options.n_iterations), options.n_iterations),
        lambda _, strength: f"{strength:g} singular values",
        takes=frozenset({"n_iterations"}),
        linear=True,
    )
    monkeypatch.setitem(METHODS, "svd", made)
    folder, every = go("svd' # \nn_iterations = 9 #")
    assert "9 singular values" in read_json(folder / "manifest.json")["methods"]["unfolded spectrum"]
    _, exact = go("least squares")
    inside = exact["domain"].ravel()
    off = (every["values"] - exact["values"]).ravel()[inside]
    assert np.abs(off / np.sqrt(np.diag(exact["cov"]))[inside]).max() < 0.5  # other weights of the cells
    assert every["source_names"].tolist() == exact["source_names"].tolist()
    _, few = go("svd' # \nn_iterations = 4 #")
    assert np.trace(few["cov"]) < np.trace(every["cov"])
    with pytest.raises(SteeringError, match="tau: method 'svd' does not know this"):
        go("svd' # \ntau = 1.0 #")


def test_a_changed_file_runs_again(go):
    _, before = go("mine.py:unfolder")
    _, after = go("mine.py:unfolder", OWN.replace("FACTOR = 1.0", "FACTOR = 1.1"))
    np.testing.assert_allclose(after["values"], 1.1 * before["values"], rtol=1e-12)


def test_a_wrong_result_is_named(go):
    with pytest.raises(UserError, match=r"'mine.py:on_measured_axes': its axes .*mass\(18\)"):
        go("mine.py:on_measured_axes")
    with pytest.raises(SteeringError, match=r"unfold.method: 'mine.py:number' is 3, not a function"):
        go("mine.py:number")
    with pytest.raises(SteeringError, match=r"unfold.method: .*has no 'nobody'"):
        go("mine.py:nobody")
    with pytest.raises(SteeringError, match="'omnifold', or a function of one's own"):
        go("bayes")
    (go.base / "broken.py").write_text(
        "def unfolder(measured, response):\n    return measured.values[9999]\n"
    )
    with pytest.raises(SteeringError, match=r"broken.py:unfolder, line 2: IndexError"):
        go("broken.py:unfolder")


def test_check_names_the_missing_file(go):
    path = go.base / "steering.toml"
    text = STEERING.replace("[unfold]\n", "[unfold]\nmethod = 'elsewhere.py:unfolder'\n")
    path.write_text(text)
    found = CliRunner().invoke(app, ["check", str(path)])
    assert found.exit_code != 0
    assert "elsewhere.py" in found.output


def test_contract_of_a_method():
    for method in (iterative, least_squares):
        check_unfolder(method)
    with pytest.raises(ContractError, match="its axes"):
        check_unfolder(lambda measured, _: measured)

    def halved(measured, response):
        result = least_squares(measured, response)
        result.hist.view(flow=False)["value"] *= 0.5
        return result

    with pytest.raises(ContractError, match="the truth is missed"):
        check_unfolder(halved)

    def restless(measured, response, count=[0]):  # noqa: B006
        count[0] += 1
        return iterative(measured, response, n_iterations=count[0])

    with pytest.raises(ContractError, match="another call"):
        check_unfolder(restless)


PAGE = (ROOT / "docs" / "howto" / "measured.md").read_text()
(SUBTRACTION,) = re.findall(r"```python\n# file: mine.py\n(.*?)```", PAGE, re.DOTALL)


def subtract_with(go, keys, own=SUBTRACTION):
    (go.base / "subtraction.py").write_text(own)
    text = STEERING.split("[unfold]", maxsplit=1)[0].replace(
        "r_factor = 1.173\nr_factor_sigma = 0.05\n", keys
    )
    (go.base / "steering.toml").write_text(text)
    folder = run(go.base / "steering.toml", output=go.base / "subtracted", resume=True)
    return folder, dict(np.load(folder / "stages" / "subtract.npz"))


def test_a_subtraction_of_ones_own_as_on_the_page(go):
    folder, own = subtract_with(go, "method = 'subtraction.py:subtraction'\n")
    assert "own method" in read_json(folder / "manifest.json")["methods"]["background"]
    _, known = subtract_with(
        go, "method = 'geometric mean'\nweights = 'signed'\nr_factor = 1.02\nr_factor_sigma = 0.01\n"
    )
    np.testing.assert_allclose(own["values"], known["values"], atol=1e-9)
    # weights: each pair the share of its cell, so that their sum is the spectrum
    assert own["weight"].sum() == pytest.approx(own["values"].sum(), rel=1e-9)
    assert (own["weight"] >= 0).all() or (own["values"] < 0).any()
    _, moved = subtract_with(
        go, "method = 'subtraction.py:subtraction'\n", SUBTRACTION.replace("1.02 *", "1.2 *")
    )
    assert moved["values"].sum() < own["values"].sum()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("method = 'subtraction.py:nobody'\n", "subtract.method: .*has no 'nobody'"),
        ("method = 'subtraction.py:subtraction'\nr_factor = 1.1\n", "r_factor: a method of one's own"),
        ("method = 'B9'\n", "must be one of 'likelihood', 'regions', .*'file.py:function'"),
    ],
)
def test_a_wrong_subtraction_is_named(go, keys, message):
    with pytest.raises(SteeringError, match=message):
        subtract_with(go, keys)


def test_contract_of_a_subtraction():
    names = {}
    exec(SUBTRACTION, names)  # noqa: S102
    good = names["subtraction"]
    check_subtraction(good)
    check_subtraction(lambda hists: same_sign(hists, method="regions"))
    with pytest.raises(ContractError, match="the signal is missed"):
        check_subtraction(lambda hists: same_sign(hists, method="regions", r_factor=2.0))
    with pytest.raises(ContractError, match="it must return a gammastar Spectrum"):
        check_subtraction(lambda hists: hists.os)

    def exact(hists):
        found = good(hists)
        return replace(found, cov=np.zeros_like(found.cov))

    with pytest.raises(ContractError, match="variance above 0"):
        check_subtraction(exact)
