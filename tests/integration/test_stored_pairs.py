"""More pairs than the memory is to hold: files instead of arrays, the same spectrum."""

import re
import shutil

import numpy as np
import pytest
from builders import ROOT, first_entries

from gammastar import config, subtract
from gammastar.core.errors import StoreError
from gammastar.core.pairs import Pairs
from gammastar.core.records import effective_size, regular
from gammastar.core.sampling import stream
from gammastar.facility import open_executor
from gammastar.pipeline.cache import open_cache
from gammastar.pipeline.context import Context, RunState
from gammastar.pipeline.run import STAGES, run
from gammastar.pipeline.stages import read as read_stage
from gammastar.pipeline.stages import unfold
from gammastar.pipeline.stages.flow import training
from gammastar.pipeline.stages.report import pairs_sections
from gammastar.pipeline.stages.subtract import charge_ratio, subtract_stage
from gammastar.store.manifest import read_json
from gammastar.store.pairs import Truth, read_pairs, thinned

SMALL = ROOT / "analysis" / "na60_dimuon" / "small.toml"
LIMIT = 2000


def tell(*_):
    """Report nothing."""


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    """Return a folder with the first entries of the shipped MOCK files."""
    folder = tmp_path_factory.mktemp("mock")
    for name, n in (("na60_data.root", 8000), ("na60_mc.root", 30_000)):
        first_entries(folder / name, name, n)
    return folder


def steering(folder, mock, *, limit=None, step=5000, weights="posterior"):
    """Write the small run without its dark half, with a limit of pairs in memory."""
    text = SMALL.read_text().partition("[flow]")[0]
    text = text.replace("schema.toml", str(SMALL.parent / "schema.toml")).replace('"mock/', f'"{mock}/')
    text += "[systematics]\npolarisation = 0.3\nradiation = 0.2\nprior = true\nbackground = true\n"
    if limit is not None:
        text = text.replace("[select]\n", f"[select]\nmax_in_memory = {limit}\n")
    text = text.replace('schema = "', f'step = {step}\nschema = "')
    path = folder / "steering.toml"
    path.write_text(text.replace("[subtract]\n", f'[subtract]\nweights = "{weights}"\n'))
    return path


def arrays(folder, stage):
    return dict(np.load(folder / "stages" / f"{stage}.npz"))


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mock):
    found = {}
    for name, limit in (("memory", None), ("files", LIMIT)):
        base = tmp_path_factory.mktemp(name)
        found[name] = run(steering(base, mock, limit=limit), output=base / "run")
    return found


def test_spectrum_of_stored_pairs_is_the_same_to_the_last_pair(runs):
    held, stored = (arrays(runs[name], "subtract") for name in ("memory", "files"))
    for key in ("values", "cov", "like_sign", "domain", "r_factor"):
        np.testing.assert_array_equal(stored[key], held[key], err_msg=key)
    one, other = (arrays(runs[name], "unfold") for name in ("memory", "files"))
    for key in ("values", "cov", "source_shifts"):
        np.testing.assert_allclose(other[key], one[key], rtol=1e-9, atol=1e-9 * np.abs(one[key]).max())
    for key in ("efficiency", "prior"):
        np.testing.assert_allclose(other[key], one[key], rtol=1e-12)
    flows = [arrays(runs[name], "select") for name in ("memory", "files")]
    for key in ("cutflow_n", "cutflow_weight", "cutflow_os"):
        np.testing.assert_array_equal(flows[1][key], flows[0][key])


def test_all_pairs_are_in_files_with_weights_of_the_same_sum(runs):
    held, everything = arrays(runs["memory"], "subtract"), list(read_pairs(runs["files"] / "pairs"))
    assert len(everything) >= 4
    assert max(len(chunk.pairs) for chunk in everything) < 2 * LIMIT
    assert sum(len(chunk.pairs) for chunk in everything) == len(held["weight"])
    signed, posterior = (
        np.concatenate([getattr(chunk, name) for chunk in everything]) for name in ("signed", "posterior")
    )
    np.testing.assert_array_equal(signed, held["weight"])  # the order is that of the files
    assert posterior.sum() == pytest.approx(held["posterior"].sum(), rel=1e-9)
    assert posterior.min() >= 0


def test_sample_is_chosen_by_event_and_weighted_to_the_whole(runs):
    pairs, kept = arrays(runs["files"], "select"), arrays(runs["files"], "subtract")
    n, total = len(pairs["mass"]), int(pairs["stored_pairs"])
    assert n == pytest.approx(LIMIT, abs=6 * np.sqrt(LIMIT))
    everything = arrays(runs["memory"], "select")
    chosen = np.isin(everything["event"], pairs["event"])
    np.testing.assert_array_equal(everything["mass"][chosen], pairs["mass"])  # whole events
    assert total == len(everything["mass"])
    held = arrays(runs["memory"], "subtract")
    assert kept["posterior"].sum() == pytest.approx(held["posterior"].sum(), rel=1e-9)
    size = effective_size(kept["posterior"])
    assert 0.3 * n < size <= n
    manifest = read_json(runs["files"] / "manifest.json")
    assert manifest["numbers"]["pairs in memory"] == f"{n} (effective {size:.0f})"
    assert any("max_in_memory" in note for note in manifest["notes"])
    assert not any("max_in_memory" in note for note in read_json(runs["memory"] / "manifest.json")["notes"])


def training_pairs(path, folder):
    """Return what the flow of a finished run learns from."""
    cache = open_cache(folder, resume=True, seed=config.load(path).analysis.seed, mock=True)
    ctx, state = Context(config.load(path), path.parent, folder, cache, tell), RunState()
    for stage in config.STAGES[: config.STAGES.index("flow")]:
        if stage in STAGES and getattr(ctx.steering, stage) is not None:
            STAGES[stage](ctx, state)
    return training(ctx, state)


def test_training_set_of_the_flow_is_the_sample(runs, mock, tmp_path):
    n = len(arrays(runs["files"], "select")["mass"])
    few = training_pairs(steering(tmp_path, mock, limit=LIMIT), runs["files"])
    many = training_pairs(steering(tmp_path, mock), runs["memory"])
    assert few.measured.sum() < n < many.measured.sum()
    inner = [t.weight[t.measured].sum() for t in (few, many)]
    assert inner[0] == pytest.approx(inner[1], rel=0.05)
    mean = [np.average(t.pt[t.measured], weights=t.weight[t.measured]) for t in (few, many)]
    spread = many.pt[many.measured].std() / np.sqrt(effective_size(few.weight[few.measured]))
    assert abs(mean[0] - mean[1]) < 4 * spread


def test_page_says_which_stages_had_a_sample(runs, mock, tmp_path):
    folder = runs["files"]
    parsed = config.load(steering(tmp_path, mock, limit=LIMIT))
    cache, made = open_cache(folder, resume=True, seed=1, mock=True), RunState()
    ctx = Context(parsed, tmp_path, folder, cache, tell)
    made.inputs = read_stage.inputs(ctx, {})
    made.pairs, made.cutflow = read_stage.select_stage(ctx, made.inputs)
    subtract_stage(ctx, made)
    unfold.unfold_stage(ctx, made)
    text = " ".join(pairs_sections(ctx, made)[0].paragraphs)
    n, total, photons = len(made.pairs), int(made.cutflow["stored_pairs"]), made.truth.size
    assert f"more pairs than select.max_in_memory = {LIMIT}" in text
    assert f"all {total} pairs" in text
    assert f"sample of {n} pairs (effective" in text
    assert f"{100 * LIMIT / total:.3g} % of the events" in text
    assert f"all {photons} of them" in text
    assert f"sample of {len(made.matched)}, " in text
    assert "mixed events" not in text
    made.cutflow = {k: v for k, v in made.cutflow.items() if not k.startswith("stored")}
    made.truth = Truth(made.matched)
    assert "max_in_memory" not in " ".join(pairs_sections(ctx, made)[0].paragraphs)


def test_mixed_events_of_more_leptons_than_the_limit_give_the_same_ratio(tmp_path, mock):
    found = {}
    for limit in (None, LIMIT):
        path = steering(tmp_path, mock, limit=limit)
        text = path.read_text()
        asked = 'r_factor = "mixed"\nmixed_pairs = 60000\n'
        path.write_text(re.sub(r"r_factor = .*\nr_factor_sigma = .*\n", asked, text))
        parsed, folder = config.load(path), tmp_path / f"{limit}"
        ctx = Context(parsed, tmp_path, folder, open_cache(folder, resume=False, seed=1, mock=True), tell)
        axes = (regular("mass", 6, 0.2125, 1.1125),)
        found[limit] = charge_ratio(ctx, axes, {}, read_stage.inputs(ctx, {}))
    held, chosen = found[None], found[LIMIT]
    assert held[1] == chosen[1] == 0  # the pool is bounded by class, whatever the limit
    np.testing.assert_array_equal(held[0].value, chosen[0].value)
    np.testing.assert_array_equal(held[0].sigma, chosen[0].sigma)


def test_simulation_above_the_limit_is_in_files_and_a_sample_in_memory(runs):
    whole, sample = (arrays(runs[name], "match") for name in ("memory", "files"))
    parts = list(read_pairs(runs["files"] / "stages" / "truth"))
    assert max(len(part.pairs) for part in parts) < 2 * LIMIT
    assert int(sample["stored_photons"]) == len(whole["weight"])
    assert int(sample["stored_pairs"]) == len(whole["weight"]) + len(whole["fake_weight"])
    n = len(sample["weight"]) + len(sample["fake_weight"])
    assert n == pytest.approx(LIMIT, abs=6 * np.sqrt(LIMIT))
    chosen = np.isin(whole["event"], sample["event"])
    for key in ("true", "reco", "event"):
        np.testing.assert_array_equal(sample[key], whole[key][chosen])
    for key in ("weight", "fake_weight"):
        assert sample[key].sum() == pytest.approx(whole[key].sum(), rel=1e-9)
    seen = [np.isfinite(a["reco"][:, 0]) for a in (whole, sample)]
    efficiency = [np.average(s, weights=a["weight"]) for s, a in zip(seen, (whole, sample), strict=True)]
    error = np.sqrt(efficiency[0] / effective_size(sample["weight"]))
    assert efficiency[1] == pytest.approx(efficiency[0], abs=4 * error)


def test_templates_of_many_pairs_are_thinned_by_event():
    rng, n = stream(3, "template"), 9000
    columns = (rng.uniform(0.2, 1.0, n), rng.uniform(0, 2, n), rng.uniform(10, 90, n))
    pairs = Pairs(*columns, np.zeros(n, np.int8), rng.uniform(0.5, 2, n), np.repeat(np.arange(n // 2), 2))
    parts = [pairs.select(np.arange(i, min(i + 700, n))) for i in range(0, n, 700)]
    few = thinned(parts, 2000, "a")
    assert 800 < len(few) <= 2000
    np.testing.assert_array_equal(thinned([pairs], 2000, "a").mass, few.mass)
    assert few.weight.sum() == pytest.approx(pairs.weight.sum(), rel=1e-12)
    assert set(np.unique(few.event, return_counts=True)[1]) == {2}
    shapes = [np.histogram(p.mass, 4, (0.2, 1.0), weights=p.weight)[0] for p in (few, pairs)]
    np.testing.assert_allclose(shapes[0] / shapes[1], 1, atol=0.2)
    whole = thinned(parts, n, "a")
    np.testing.assert_array_equal(whole.weight, pairs.weight)


def test_chunk_size_and_limit_do_not_choose_other_events(runs, mock, tmp_path):
    again = run(steering(tmp_path, mock, limit=LIMIT, step=3000), output=tmp_path / "run", only="subtract")
    for stage, key in (("select", "event"), ("subtract", "posterior")):
        ours, theirs = arrays(again, stage)[key], arrays(runs["files"], stage)[key]
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_chunks_of_a_farm_give_the_same_parts_and_samples(runs, mock, tmp_path):
    with open_executor() as executor:
        path = steering(tmp_path, mock, limit=LIMIT, step=3500, weights="signed")
        folder = run(path, output=tmp_path / "run", only="unfold", executor=executor)
    for stage, keys in (
        ("select", ("event", "stored_pairs")),
        ("match", ("true", "reco", "weight", "fakes", "stored_photons")),
        ("subtract", ("values", "cov")),
        ("unfold", ("efficiency", "values")),
    ):
        ours, theirs = arrays(folder, stage), arrays(runs["files"], stage)
        for key in keys:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-9, err_msg=key)


def test_resumed_run_refuses_changed_parts(runs, mock, tmp_path):
    folder = tmp_path / "run"
    shutil.copytree(runs["files"], folder)
    path = steering(tmp_path, mock, limit=LIMIT, weights="signed")
    run(path, output=folder, resume=True, only="subtract")
    (folder / "stages" / "pairs" / "part-00001.parquet").unlink()
    with pytest.raises(StoreError, match="without --resume"):
        run(path, output=folder, only="subtract")


def test_bootstrap_in_chunks_is_that_of_all_pairs():
    rng, n = stream(1, "chunks"), 6000
    columns = (rng.uniform(0.2, 1.0, n), rng.uniform(0, 2, n), rng.uniform(10, 90, n))
    charge = rng.choice(np.array([-2, 0, 2], dtype=np.int8), n, p=[0.15, 0.7, 0.15])
    pairs = Pairs(*columns, charge, np.ones(n), np.repeat(np.arange(n // 2), 2))
    axes = (regular("mass", 4, 0.2, 1.0),)
    whole = subtract.bootstrap_covariance([pairs], axes, n_replicas=400)
    parts = [pairs.select(np.arange(i, min(i + 1501, n))) for i in range(0, n, 1501)]  # events are cut in two
    again = subtract.bootstrap_covariance(parts, axes, n_replicas=400)
    np.testing.assert_allclose(again, whole, rtol=1e-9, atol=1e-9)
