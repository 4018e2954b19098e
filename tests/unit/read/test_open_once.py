"""Files are opened once where it is asked for, and anew when they change; wide files; lists of an RNTuple."""

import os

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read, select
from gammastar.core.records import regular
from gammastar.read import files

AXES = (regular("mass", 20, 0.2, 4.2),)


def muons(n, seed=1):
    rng = np.random.default_rng(seed)
    counts = rng.poisson(1.5, n)
    t = int(counts.sum())
    members = {
        "px": rng.normal(0, 0.5, t),
        "py": rng.normal(0, 0.5, t),
        "pz": rng.uniform(3, 60, t),
        "charge": rng.choice(np.array([-1, 1], np.int32), t),
    }
    return ak.zip({key: ak.unflatten(column, counts) for key, column in members.items()})


def write(path, found, blocks=1):
    with uproot.recreate(path) as file:
        for _ in range(blocks):
            columns = {"Muon": found, "event": np.arange(len(found))}
            if "events" in file:
                file["events"].extend(columns)
            else:
                file.mkrntuple("events", columns)


@pytest.fixture
def opened(monkeypatch):
    """Return the paths that uproot opens."""
    paths, plain = [], uproot.open

    def counted(place, **options):
        paths.append(next(iter(place)))
        return plain(place, **options)

    monkeypatch.setattr(files.uproot, "open", counted)
    return paths


def test_describe_opens_a_file_once_and_knows_untyped_collections(tmp_path, opened):
    path = tmp_path / "f.root"
    write(path, muons(500))
    found = read.describe(path)
    assert opened == [str(path)]
    assert found.schemas[0].schema["kinematics"] == {key: f"Muon.{key}" for key in ("px", "py", "pz")}


def test_a_file_that_changed_is_opened_anew(tmp_path, opened):
    path = tmp_path / "f.root"
    write(path, muons(10))
    with files.kept_open():
        assert [tree.entries for _ in range(2) for tree in read.inspect(path)] == [10, 10]
        other = tmp_path / "g.root"
        write(other, muons(11, seed=2))
        other.replace(path)
        assert read.inspect(path)[0].entries == 11
        assert opened == [str(path)] * 2
        with files.kept_open():  # the outer block keeps what the inner one opens
            read.inspect(path)
        read.inspect(path)
        assert len(opened) == 2
    read.inspect(path)
    assert len(opened) == 3


def test_only_a_few_files_stay_open(tmp_path, opened):
    paths = [tmp_path / f"{i}.root" for i in range(files.MOST + 2)]
    for path in paths:
        write(path, muons(3))
    held = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else None  # noqa: PTH112, PTH208
    with files.kept_open():
        for path in paths * 2:
            read.inspect(path)
    assert len(opened) == len(paths) + 2
    if held is not None:
        assert len(os.listdir("/proc/self/fd")) == held  # noqa: PTH208


@pytest.mark.long
@pytest.mark.parametrize("step", [37, "1 MB"])
def test_flat_columns_of_a_part_of_a_cluster_are_those_of_the_events(tmp_path, step):
    path = tmp_path / "f.root"
    write(path, muons(200), blocks=3)
    schema = read.Schema.from_mapping(dict(read.propose(path, lepton="mu")[0].schema))
    flat, flow = select.histograms(read.open_flat(path, schema, step=step), AXES)
    full, cutflow = select.histograms(read.open_events(path, schema, step=step), AXES)
    for one, other in ((flat.os, full.os), (flat.pp, full.pp), (flat.mm, full.mm)):
        np.testing.assert_allclose(one.values(flow=True), other.values(flow=True), rtol=1e-12)
    assert flow["pairs"].n == cutflow["pairs"].n > 0
