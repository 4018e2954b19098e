"""A joint run on MOCK pairs with charm and corrections, in memory and in files, and resumed."""

import csv

import numpy as np
import pytest

from gammastar.core.errors import GammastarError
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.pipeline.stages import joint
from gammastar.store.manifest import read_json

MASSES, WINDOW = (0.45, 0.6), 0.05
# Standard deviation of a template in a window: 1000 weighted pairs are some 90 effective ones there; the
# number of charm pairs, fitted to as few, is uncertain by 18 %.
TEMPLATES = {"open_charm": 0.21, "Bethe_Heitler": 0.11}
PT, ENERGY = (0.0, 6.0), (0.2, 14.0, 400.0)
STEERING = f"""
[analysis]
name = "joint"
seed = 5
mock = true
[read]
files = ["data.root"]
response = ["mc.root"]
schema = "schema.toml"
[select]
mass = {{ bins = 12, low = 0.2125, high = 1.1125 }}
pt = {list(PT)}
energy = {list(ENERGY)}
[subtract]
r_factor = 1.173
r_factor_sigma = 0.05
[subtract.charm]
template = ["charm.root"]
offset = ["dx", "dy"]
edges = [0, 60, 120, 180, 260, 400, 2000]
[[subtract.corrections]]
name = "Bethe-Heitler"
files = ["charm.root"]
fraction = 0.02
sigma = 0.01
[unfold]
n_replicas = 5
[spectrum]
beam_energy = 400.0
target_a = 207.2
target_z = 82.0
thickness = 0.01
pot = 1e10
[predict]
sampler = "histogram"
masses = {list(MASSES)}
n_sample = 2000
[accept]
detectors = ["na62_dump"]
target_scaling = "per_interaction"
[infer]
likelihood = "joint"
method = "asymptotic"
coupling = [1e-9, 1e-3]
n_couplings = 41
min_effective = 3.0
[infer.joint]
pt = {list(PT)}
energy = {list(ENERGY)}
window = {WINDOW}
n_couplings = 1
n_replicas = 5
[systematics]
pot = 0.1
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory, mock_schema, with_charm):
    """Return the folders of the run in memory and of that with pairs in files."""
    base = tmp_path_factory.mktemp("joint")
    with_charm(base)
    (base / "schema.toml").write_text(mock_schema)
    found = {}
    for name, more in (("memory", ""), ("files", "max_in_memory = 1000\n")):
        text = STEERING.replace("[select]\n", f"[select]\n{more}")
        (base / f"{name}.toml").write_text(text)
        found[name] = run(base / f"{name}.toml", output=base / name)
    return found


def prescaled(folder, mass):
    """Return Σw and Σw²/Σw of opposite-sign pairs in the bins of a window, or of all in bins of few."""
    pairs = load_arrays(folder / "stages" / "select.npz")
    own = pairs["charge"] == 0
    sample = np.stack([pairs[k][own] for k in ("mass", "pt", "energy")], axis=1)
    edges = ([mass - 3 * WINDOW, mass - WINDOW, mass + WINDOW, mass + 3 * WINDOW], PT, ENERGY)
    total, square = (
        np.histogramdd(sample, edges, weights=pairs["weight"][own] ** k)[0].ravel() for k in (1, 2)
    )
    return total, np.where(total**2 >= 20 * square, square / total, square.sum() / total.sum())


def channel(folder, mass, name="opposite_sign"):
    spec = read_json(folder / "joint_na62_dump" / f"m{mass:.4f}".replace(".", "p") / "workspace.json")
    samples = next(c["samples"] for c in spec["channels"] if c["name"] == name)
    return {s["name"]: s for s in samples}, {o["name"]: o["data"] for o in spec["observations"]}


def test_templates_are_the_pairs_of_their_files_scaled_to_their_number(runs, tmp_path):
    """Shape by numpy from the pairs that a run of its own selects, number from corrections.csv.

    A tenth of the trigger of single muons is recorded: counts and templates are in units of the weights.
    """
    folder = runs["memory"]
    with (folder / "corrections.csv").open() as stream:
        number = {row["source"]: float(row["pairs"]) for row in csv.DictReader(stream)}
    base = folder.parent
    text = STEERING.partition("[subtract]")[0].replace("data.root", "charm.root")
    (base / "charm_only.toml").write_text(text + "[subtract]\n")
    pairs = load_arrays(run(base / "charm_only.toml", output=tmp_path / "c") / "stages" / "select.npz")
    own = pairs["charge"] == 0
    sample = np.stack([pairs[k][own] for k in ("mass", "pt", "energy")], axis=1)
    weights = pairs["weight"][own]
    inside = np.histogramdd(sample, ((0.2125, 1.1125), PT, ENERGY), weights=weights)[0].sum()
    for mass in MASSES:
        edges = [mass - 3 * WINDOW, mass - WINDOW, mass + WINDOW, mass + 3 * WINDOW]
        by_hand = np.histogramdd(sample, (edges, PT, ENERGY), weights=weights)[0].ravel() / inside
        samples, counts = channel(folder, mass)
        total, unit = prescaled(folder, mass)
        assert unit.max() > 1.5
        assert counts["opposite_sign"] == np.rint(total / unit).tolist()
        for name, label in (("open charm", "open_charm"), ("Bethe-Heitler", "Bethe_Heitler")):
            assert np.array(samples[label]["data"]) == pytest.approx(number[name] * by_hand / unit, rel=1e-6)
            assert [m["name"] for m in samples[label]["modifiers"]] == [f"{label}_norm"]


def test_pairs_in_files_give_the_likelihood_of_pairs_in_memory(runs):
    """Counts and response to the last pair; charm and the scale of contents from a sample of 1000 pairs."""
    for mass in MASSES:
        (ours, counts), (theirs, same) = (channel(runs[name], mass) for name in ("files", "memory"))
        assert counts == same
        assert sorted(ours) == sorted(theirs)
        for name, sample in ours.items():
            one, other = (np.array(values["data"]) for values in (sample, theirs[name]))
            if name in TEMPLATES:
                assert one.sum() == pytest.approx(other.sum(), rel=3 * TEMPLATES[name])
                continue
            if name.startswith("pairs_"):
                one, other = one / one.sum(), other / other.sum()
            assert one == pytest.approx(other, rel=1e-6)


def test_a_resumed_run_takes_the_limits_of_finished_windows(runs, monkeypatch):
    folder = runs["memory"]
    before, solved = read_json(folder / "reach.json"), []

    def told(model, options, *, seed):
        solved.append(solved[0] if solved else limit(model, options, seed=seed))
        return solved[-1]

    limit = joint.joint_limit
    monkeypatch.setattr(joint, "joint_limit", told)
    (folder / "stages" / "joint_na62_dump_0p6.npz").unlink()  # as if killed before this window
    run(folder.parent / "memory.toml", output=folder, resume=True)
    assert len(solved) == 1
    assert read_json(folder / "reach.json") == before
    run(folder.parent / "memory.toml", output=folder, only="infer")
    assert len(solved) == 3  # asked to compute again, where nobody looks at the limits


def test_a_window_with_another_likelihood_is_solved_again(runs, monkeypatch):
    folder = runs["memory"]
    (folder.parent / "other.toml").write_text(STEERING.replace("pot = 0.1", "pot = 0.2"))

    def refused(*_, **__):
        message = "solved again"
        raise GammastarError(message)

    monkeypatch.setattr(joint, "joint_limit", refused)
    with pytest.raises(GammastarError, match="solved again"):
        run(folder.parent / "other.toml", output=folder, resume=True)
