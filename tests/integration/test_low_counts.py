"""A handful of pairs goes through the subtraction: the numbers are counted by hand from the files."""

import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar.core.constants import M_MU
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.mock import load_card, simulate_events
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.store.events import write_tree
from gammastar.store.manifest import read_json

SCHEMA = """
tree = "t"
layout = "pair"
lepton = "mu"
kinematics = { px = ["px1", "px2"], py = ["py1", "py2"], pz = ["pz1", "pz2"] }
charge = ["q1", "q2"]
"""
STEERING = """
[analysis]
name = "few"
mock = true
[read]
files = ["few.root"]
schema = "schema.toml"
[select]
mass = [0.2, 0.5, 1.0]
[subtract]
method = "regions"
"""


def leptons(masses, energy=20.0):
    """Return the momenta of two muons of these pair masses [GeV], decayed at right angles to the flight."""
    masses = np.asarray(masses, dtype=float)
    gamma, half = energy / masses, np.sqrt(masses**2 / 4 - M_MU**2)
    pz = np.sqrt(gamma**2 - 1) * masses / 2
    zero = np.zeros_like(masses)
    return {"px1": half, "px2": -half, "py1": zero, "py2": zero, "pz1": pz, "pz2": pz}


def steered(folder, pairs, keys="", schema=SCHEMA, tail=""):
    """Run on pairs of (mass, charge of both legs); return the arrays of the subtraction and the manifest."""
    masses, first, second = (np.array(column, dtype=float) for column in zip(*pairs, strict=True))
    branches = leptons(masses) | {"q1": first.astype(np.int32), "q2": second.astype(np.int32)}
    with uproot.recreate(folder / "few.root") as file:
        file.mktree("t", {name: column.dtype for name, column in branches.items()})
        file["t"].extend(branches)
    (folder / "schema.toml").write_text(schema)
    (folder / "steering.toml").write_text(STEERING + keys + tail)
    run(folder / "steering.toml", output=folder / "out")
    return load_arrays(folder / "out" / "stages" / "subtract.npz"), read_json(
        folder / "out" / "manifest.json"
    )


OS, PP, MM = (1, -1), (1, 1), (-1, -1)


def of(*groups):
    return [(mass, *charge) for n, charge, mass in groups for _ in range(n)]


@pytest.mark.parametrize(
    ("pairs", "values", "positive"),
    [
        (of((1, OS, 0.3)), [1, 0], [1]),
        (of((3, OS, 0.3), (2, OS, 0.7)), [3, 2], [1, 1, 1, 1, 1]),
        (of((1, PP, 0.3)), [-1, 0], [0]),
        (of((2, PP, 0.3), (2, MM, 0.7)), [-2, -2], [0, 0, 0, 0]),
        (of((4, OS, 0.7), (1, PP, 0.7), (1, MM, 0.7)), [0, 2], [0.5] * 4 + [0, 0]),
        (of((1, OS, 0.7), (2, PP, 0.7), (2, MM, 0.7)), [0, -3], None),
        # two pairs too many are taken from the other cell, so that the sums agree
        (of((4, OS, 0.7), (2, PP, 0.3)), [-2, 4], [0.5] * 4 + [0, 0]),
        (of((6, OS, 0.3), (4, PP, 0.3), (1, MM, 0.3)), [2, 0], [1 / 3] * 6 + [0] * 5),
    ],
    ids=["one", "no like sign", "one ++", "like sign", "one bin", "negative", "empty cell", "asymmetric"],
)
def test_few_pairs_carry_the_weights_counted_by_hand(tmp_path, pairs, values, positive):
    kept, manifest = steered(tmp_path, pairs)
    np.testing.assert_allclose(kept["values"].ravel(), values, atol=1e-12)
    assert kept["weight"].sum() == pytest.approx(sum(values))
    if positive is None:  # background beyond the pairs: little, and not below zero
        assert 0 < kept["posterior"].max() < 0.5
    else:
        np.testing.assert_allclose(kept["posterior"], positive, atol=1e-9)
    assert "posterior" in manifest["methods"]["weights of the pairs"]
    few = min(sum(q == 1 for _, q, p in pairs if p == q), sum(q == -1 for _, q, p in pairs if p == q)) < 5
    assert any("of one charge" in note or "missing ones" in note for note in manifest["notes"]) == few
    assert any("no signal" in note for note in manifest["notes"]) == (sum(values) <= 0)


@pytest.mark.parametrize("name", ["nano_dimuon", "nano_dy"])
def test_forty_events_of_cms(tmp_path, name):
    schema = (ROOT / "analysis" / "open_dimuon" / "nano.toml").read_text()
    (tmp_path / "schema.toml").write_text(schema)
    text = STEERING.replace("few.root", str(ROOT / "tests" / "data" / f"{name}.root"))
    (tmp_path / "steering.toml").write_text(text.replace("[0.2, 0.5, 1.0]", "[0.2, 5.0, 20.0, 200.0]"))
    run(tmp_path / "steering.toml", output=tmp_path / "out")
    kept = load_arrays(tmp_path / "out" / "stages" / "subtract.npz")
    with uproot.open(ROOT / "tests" / "data" / f"{name}.root") as file:
        charges = file["Events"]["Muon_charge"].array().tolist()
    products = [(a, b) for event in charges for i, a in enumerate(event) for b in event[i + 1 :]]
    n_pp, n_mm = products.count((1, 1)), products.count((-1, -1))
    left = len(products) - n_pp - n_mm - 2 * np.sqrt(n_pp * n_mm)  # one coarse region
    assert kept["values"].sum() == pytest.approx(left, rel=1e-9)
    assert kept["weight"].sum() == pytest.approx(left, rel=1e-9)


def test_weights_that_cannot_agree_with_the_subtraction_are_signed_and_an_alarm_says_so(tmp_path):
    pairs = of((50, OS, 0.3), (4, OS, 0.7), (40, PP, 0.7), (40, MM, 0.7))  # 76 pairs too few in one bin
    kept, manifest = steered(tmp_path, pairs, "coarse = { mass = [0.2, 0.5, 1.0] }\n")
    np.testing.assert_allclose(kept["values"].ravel(), [50, -76])
    assert kept["trained_weights"][0] == "signed"
    alarm = next(note for note in manifest["notes"] if note.startswith("subtract.weights"))
    assert "differ from the subtracted pairs in mass" in alarm
    assert "Instead of posterior weights the pairs carry signed ones" in alarm


def test_signed_weights_that_were_asked_for_are_no_alarm(tmp_path):
    rng = np.random.default_rng(3)
    signs = (OS, OS, OS, OS, OS, OS, PP, MM)
    pairs = [(m, *signs[i % 8]) for i, m in enumerate(rng.uniform(0.25, 0.95, 400))]
    kept, manifest = steered(tmp_path, pairs, 'weights = "signed"\n')
    assert kept["weight"].sum() == pytest.approx(kept["values"].sum())
    assert kept["trained_weights"][0] == "signed"
    assert manifest["notes"] == []


def test_no_spectrum_without_a_signal(tmp_path):
    card = load_card(data_path("cards/na60_mock.toml"))
    for kind in ("data", "mc"):
        events = simulate_events(card, 300, kind=kind, seed=1)
        write_tree(tmp_path / f"{kind}.root", {"events": events.branches})
    schema = f'schema = "{ROOT}/analysis/na60_dimuon/schema.toml"\nresponse = ["mc.root"]'
    text = STEERING.replace("few.root", "data.root").replace('schema = "schema.toml"', schema)
    text = text.replace("[subtract]\n", "pt = [0, 6]\n[subtract]\nr_factor = 1e4\n")
    text += "[unfold]\nmethod = 'iterative'\nn_replicas = 2\n"
    (tmp_path / "steering.toml").write_text(text)
    with pytest.raises(SteeringError, match=r"unfold: -.* pairs are left"):
        run(tmp_path / "steering.toml", output=tmp_path / "out")
