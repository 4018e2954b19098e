"""Open charm in MOCK data, fitted with a template that the run simulates: number and error are right."""

import functools
import shutil

import numpy as np
import pytest
import uproot
from scipy.stats import chi2

from gammastar import config, mock
from gammastar.core.files import data_path
from gammastar.facility import open_executor
from gammastar.mock import load_card, simulate_events
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, axes_of
from gammastar.pipeline.stages import read as read_stage
from gammastar.pipeline.stages.subtract import charm_component
from gammastar.store.events import write_tree
from gammastar.subtract import ChargeRatio

SETS = 3
CARD = data_path("cards/na60_full.toml")
STEERING = """
[analysis]
name = "charm"
seed = 5
mock = true
[simulate]
card = "na60_full"
n_pairs = 1000
n_response = 1000
engine = "toy"
[read]
files = ["data_SET.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
mass = { bins = 12, low = 0.2125, high = 1.1125 }
[subtract]
r_factor = 1.173
r_factor_sigma = 0.02
[subtract.charm]
template = "simulation"
n_template = 6000
offset = ["dx", "dy"]
edges = [0, 60, 120, 180, 260, 400, 2000]
"""


def write(folder, name, kind, n, seed):
    sample = simulate_events(load_card(CARD), n, kind=kind, seed=seed)
    write_tree(folder / f"{name}.root", {"events": sample.branches, "meta": sample.meta_branches()})
    return float(sample.meta["sum_weights"]["charm"])


@pytest.fixture(scope="module", autouse=True)
def one_template():
    """Simulate the charm of the runs once: it is the same in all of them."""
    made = functools.cache(lambda kind, n, seed: simulate_events(load_card(CARD), n, kind=kind, seed=seed))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mock, "simulate_events", lambda _, n, *, kind, seed: made(kind, n, seed))
        yield


@pytest.fixture(scope="module")
def fits(tmp_path_factory, mock_schema, mock_file):
    """Return fitted components and the charm pairs that each data set holds inside the axes."""
    base = tmp_path_factory.mktemp("charm")
    (base / "schema.toml").write_text(mock_schema)
    shutil.copy(mock_file("na60_full", "mc", 12_000, 2).path, base / "mc.root")
    found, known, truth = [], [], None
    for k in range(SETS):
        recorded = write(base, f"data_{k}", "data", 5000, 100 + k)
        path = base / "steering.toml"
        path.write_text(STEERING.replace("SET", str(k)))
        folder = base / f"run {k}"
        cache = open_cache(folder, resume=False, seed=5, mock=True)
        (folder / "input").mkdir()
        ctx = Context(config.load(path), base, folder, cache, lambda *_: None)
        given = read_stage.inputs(ctx, {})
        pairs, _ = read_stage.select_stage(ctx, given)
        truth = truth or read_stage.match_stage(ctx, given)  # the same for all
        axes = axes_of(ctx.steering.select)
        component, _ = charm_component(ctx, (pairs,), truth, ChargeRatio(1.173, 0.02), axes)
        found.append(component)
        known.append(recorded * inside(component, ctx))
    return found, np.array(known)


def inside(component, ctx):
    """Return which part of the charm pairs that the run simulated lies inside the axes."""
    with uproot.open(ctx.folder / "input" / "mock_charm.root") as file:
        total = float(file["meta"]["sum_weights_charm"].array()[0])
    edges, mass = axes_of(ctx.steering.select)[0].edges, component.pairs.mass
    return component.pairs.weight[(mass >= edges[0]) & (mass < edges[-1])].sum() / total


def test_fitted_number_is_that_of_the_mock(fits):
    components, known = fits
    pull = np.array([(c.amount - n) / c.sigma for c, n in zip(components, known, strict=True)])
    assert 0.05 < np.mean([c.sigma / c.amount for c in components]) < 0.3
    assert abs(pull.mean()) < 3 / np.sqrt(SETS)
    # chi2 of SETS degrees of freedom: 99.8 % of them lie inside
    low, high = chi2.ppf([0.001, 0.999], SETS)
    assert low < np.sum(pull**2) < high


def test_workers_read_the_columns_of_the_charm_fit(tmp_path, mock_schema, mock_file):
    (tmp_path / "schema.toml").write_text(mock_schema)
    for name, kind in (("data_0", "data"), ("mc", "mc")):
        shutil.copy(mock_file("na60_full", kind, 2000, 2).path, tmp_path / f"{name}.root")
    text = STEERING.replace("SET", "0").replace("[select]", "step = 700\n[select]")
    (tmp_path / "steering.toml").write_text(text + "[systematics]\npolarisation = 0.3\n")

    def read(name, executor):
        folder = tmp_path / name
        cache, told = open_cache(folder, resume=False, seed=5, mock=True), []
        steering = config.load(tmp_path / "steering.toml")
        ctx = Context(steering, tmp_path, folder, cache, lambda *text: told.append(text[-1]), executor)
        given = read_stage.inputs(ctx, {})
        pairs, _ = read_stage.select_stage(ctx, given)
        return pairs, read_stage.match_stage(ctx, given).sample, told

    pairs, truth, _ = read("serial", None)
    with open_executor(workers=2) as executor:
        others, same, told = read("workers", executor)
    assert any(executor.name in str(text) for text in told)
    assert set(pairs.columns) == {"dx_1", "dx_2", "dy_1", "dy_2"}
    assert set(truth.columns) == {*pairs.columns, "cos_theta"}
    for one, two in ((pairs, others), (truth, same)):
        for name, column in {"event": one.event, "weight": one.weight, **one.columns}.items():
            found = {"event": two.event, "weight": two.weight, **two.columns}[name]
            np.testing.assert_array_equal(found, column)
    assert np.isfinite(truth.columns["cos_theta"][truth.reconstructed]).all()
