"""Schemas that come with the package, on small files in their layout; leptons as flat columns."""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read, select
from gammastar.core.errors import BranchError, InputFileError
from gammastar.core.records import regular
from gammastar.core.sampling import stream

AXES = (regular("mass", 10, 0.2, 3.0), regular("pt", 4, 0, 3))


def muons(n=300):
    rng = stream(1, "presets")
    counts = rng.poisson(1.6, n)
    t = int(counts.sum())
    flat = {k: rng.normal(0, 0.5, t).astype(np.float32) for k in ("px", "py", "dx", "dy", "chi2match")}
    flat |= {
        "pz": rng.uniform(3, 60, t).astype(np.float32),
        "charge": rng.choice([-1, 1], t).astype(np.int32),
    }
    return ak.zip({k: ak.unflatten(v, counts) for k, v in flat.items()})


def na60_file(path):
    muon = muons()
    ids = {k: np.arange(300, dtype=np.int32) // d for k, d in (("run", 300), ("burst", 10), ("event", 1))}
    with uproot.recreate(path) as file:
        tree = file.mktree("events", {"Muon": muon.type.content} | dict.fromkeys(ids, "int32"))
        tree.extend({"Muon": muon} | ids)
    return path


def test_all_presets_are_schemas():
    assert {"nanoaod_muon", "nanoaod_electron", "na60_muon", "spinquest_dimuon"} <= set(read.builtin_names())
    for name in read.builtin_names():
        assert read.builtin(name).branches()


@pytest.mark.long
def test_na60_preset_and_flat_columns(tmp_path):
    path, schema = na60_file(tmp_path / "na60.root"), read.builtin("na60_muon")
    pairs, flow = select.collect(read.open_events(path, schema))
    assert {"dx_1", "dy_2", "chi2match_1"} <= set(pairs.columns)
    found, lean = select.histograms(read.open_flat(path, schema, step=70), AXES)
    table = select.fill(pairs, AXES)
    for name in ("os", "pp", "mm"):
        np.testing.assert_allclose(getattr(found, name).values(), getattr(table, name).values())
    assert [(s.name, s.n) for s in lean.steps] == [(s.name, s.n) for s in flow.steps]
    proposal = read.Schema.from_mapping(read.propose(path)[0].schema)
    assert proposal.event == ("run", "burst", "event")
    assert proposal.kinematics == schema.kinematics


@pytest.mark.long
def test_spinquest_preset_goes_through_both_readers(tmp_path):
    rng, n = stream(2, "spinquest"), 200
    schema = read.builtin("spinquest_dimuon")
    branches = {
        f"{k}_{sign}_vtx": rng.normal(0, 1, n) if k != "pz" else rng.uniform(10, 80, n)
        for k in ("px", "py", "pz")
        for sign in ("pos", "neg")
    }
    branches |= {"charge_pos": np.ones(n, np.int32), "charge_neg": -np.ones(n, np.int32)}
    branches |= {k: np.arange(n, dtype=np.int32) for k in ("runID", "spillID", "eventID")}
    branches["vtx_z"] = rng.normal(-130, 5, n)
    path = tmp_path / "spinquest.root"
    with uproot.recreate(path) as file:
        file.mktree("dimuons", {k: v.dtype for k, v in branches.items()}).extend(branches)
    pairs, _ = select.collect(read.open_events(path, schema))
    assert int(pairs.os.sum()) == n
    np.testing.assert_allclose(pairs.columns["vertex_z"], branches["vtx_z"])
    found, _ = select.histograms(read.open_flat(path, schema), AXES)
    assert found.os.sum(flow=True).value == n


def test_flat_columns_refuse_what_events_refuse(tmp_path):
    schema = read.builtin("na60_muon")
    with pytest.raises(InputFileError):
        list(read.open_flat(tmp_path / "missing.root", schema))
    path = na60_file(tmp_path / "na60.root")
    other = read.Schema.from_mapping(
        {"tree": "events", "layout": "jagged", "lepton": "mu", "charge": "run",
         "kinematics": {k: f"Muon_{k}" for k in ("px", "py", "pz")}}
    )  # fmt: skip
    with pytest.raises(BranchError, match="list of numbers"):
        list(read.open_flat(path, other))


def test_a_trial_finds_the_unit(tmp_path):
    rng, n = np.random.default_rng(5), 400
    branches = {f"p{axis}{leg}": rng.normal(0, 400, n) for axis in "xy" for leg in (1, 2)}
    branches |= {f"pz{leg}": rng.uniform(5e3, 5e4, n) for leg in (1, 2)}
    branches |= {f"Q{leg}": rng.choice(np.array([-1, 1]), n) for leg in (1, 2)}
    branches |= {"run": np.ones(n, int), "event": np.arange(n) // 4}
    path = tmp_path / "pairs.root"
    with uproot.recreate(path) as file:
        file.mktree("events", {k: v.dtype for k, v in branches.items()}).extend(branches)
    with pytest.raises(BranchError, match="neither names nor masses say which"):
        read.propose(path)
    (found,) = read.propose(path, lepton="mu")
    assert found.schema["unit"] == 1e-3
    assert found.findings == ()
    assert "as asked for" in found.notes[1]
