"""Numbers of events of every size and type: distinct events stay distinct, as uproot and numpy count them."""

import re

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT, jagged_schema

from gammastar import read, select, subtract
from gammastar.core.errors import BranchError
from gammastar.core.pairs import Pairs
from gammastar.core.sampling import event_seeds, stream
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_manifest

SMALL = ROOT / "analysis" / "na60_dimuon"
N = 300
WINDOWS = {
    "beyond 2^53": np.int64(2**53) + np.arange(N, dtype=np.int64),
    "beyond 2^62": np.int64(2**63 - 1) - np.arange(N, dtype=np.int64),
    "uint64 beyond 2^63": np.uint64(2**63) + np.arange(N, dtype=np.uint64),
    "uint64 at the end": np.uint64(2**64 - 1) - np.arange(N, dtype=np.uint64),
    "negative": -1 - np.arange(N, dtype=np.int64),
    "around zero": np.arange(-N // 2, N - N // 2, dtype=np.int64),
    "int32": np.arange(-N // 2, N - N // 2, dtype=np.int32) * 1000,
    "uint32": np.uint32(2**32 - 1) - np.arange(N, dtype=np.uint32),
    "int16": np.arange(N, dtype=np.int16) - np.int16(100),
}


def schema(*event):
    return jagged_schema(event=list(event) or None)


def write(path, seed=1, **numbers):
    """Write pairs of muons with branches that number the events."""
    rng = stream(seed, "odd events")
    n = len(next(iter(numbers.values())))
    columns = {key: rng.normal(0, 0.4, 2 * n) for key in ("px", "py")} | {
        "pz": 5 + rng.exponential(20, 2 * n)
    }
    jagged = {key: ak.unflatten(values, np.full(n, 2)) for key, values in columns.items()}
    jagged["charge"] = ak.unflatten(rng.choice(np.array([-1, 1], np.int32), 2 * n), np.full(n, 2))
    kinds = {key: values.type.content for key, values in jagged.items()}
    with uproot.recreate(path) as file:
        file.mktree("events", kinds | {key: values.dtype for key, values in numbers.items()})
        file["events"].extend(jagged | numbers)
    return path


def pairs_of(*paths, event=("number",), step=70):
    return select.collect(
        read.open_events([str(p) for p in paths], read.load_schema(schema(*event)), step=step)
    )[0]


def counted(*paths, event=("number",)):
    """Return how many distinct events plain uproot and numpy find."""
    parts = [uproot.open({str(path): None})["events"].arrays(list(event), library="np") for path in paths]
    rows = list(zip(*(np.concatenate([p[name] for p in parts]).tolist() for name in event), strict=True))
    return len(set(rows))


@pytest.mark.parametrize("name", WINDOWS)
def test_distinct_events_stay_distinct(tmp_path, name):
    path = write(tmp_path / "a.root", number=WINDOWS[name])
    pairs = pairs_of(path)
    assert len(np.unique(pairs.event)) == counted(path) == N
    assert (pairs.event >= 0).all()
    known = WINDOWS[name].astype(np.int64)
    np.testing.assert_array_equal(pairs.event[known >= 0], known[known >= 0])
    seeds = event_seeds(pairs.event)
    assert len(np.unique(seeds)) == N


@pytest.mark.long
def test_runs_of_32_bits_and_events_that_repeat_in_them(tmp_path):
    rng = stream(2, "runs")
    run_ = rng.integers(0, 2**32, N, dtype=np.uint32) // 7
    number = rng.integers(0, 40, N).astype(np.uint64) + np.uint64(2**63)
    block = rng.integers(-3, 3, N).astype(np.int32)
    paths = [write(tmp_path / f"{i}.root", i, run=run_ % (5 + i), number=number, block=block) for i in (1, 2)]
    names = ("run", "block", "number")
    assert len(np.unique(pairs_of(*paths, event=names).event)) == counted(*paths, event=names)
    for step, some in ((1, paths[:1]), (33, paths), (1000, paths)):
        again = pairs_of(*some, event=names, step=step)
        np.testing.assert_array_equal(again.event, pairs_of(*some, event=names).event)


def test_without_a_branch_every_row_is_an_event(tmp_path):
    paths = [write(tmp_path / f"{i}.root", number=np.zeros(N, np.int64)) for i in range(2)]
    assert len(np.unique(pairs_of(*paths, event=()).event)) == 2 * N


@pytest.mark.parametrize("kind", [np.float64, np.float32, bool])
def test_numbers_that_are_no_integers_are_refused(tmp_path, kind):
    path = write(tmp_path / "a.root", number=np.arange(N).astype(kind))
    with pytest.raises(BranchError, match=r"a\.root: event branch 'number' of type"):
        pairs_of(path)


@pytest.mark.long
def test_mixed_pairs_keep_events_of_large_numbers_apart():
    """A pool of numbers that a float cannot tell apart has the error of one of small numbers."""
    results = []
    for first in (0, 2**62):
        rng, n = stream(3, "pool"), 400
        momentum = np.column_stack(
            [rng.normal(0, 0.4, (n, 2)), 5 + rng.exponential(20, n), np.full(n, 0.10566)]
        )
        event = np.int64(first) + np.repeat(np.arange(n // 2, dtype=np.int64), 2)
        pool = subtract.Pool(momentum, rng.choice([-1, 1], n), event, np.zeros(n, np.int64))
        mixed = subtract.mixed_pairs(pool, 3000, rng=stream(4, "mix"))
        assert len(np.unique(mixed.columns["event_1"])) > 150
        axes = [select_axis(name) for name in ("mass", "pt", "energy")]
        results.append(subtract.r_factor(mixed, axes)[1])
    np.testing.assert_allclose(*results)
    assert 0.001 < results[0].max() < 0.5


def select_axis(name):
    from gammastar.core.records import variable

    return variable(name, [0.0, 1e6])


def test_numbers_that_come_back_are_told(tmp_path):
    one = write(tmp_path / "one.root", 1, number=np.arange(N))
    other = write(tmp_path / "other.root", 2, number=np.arange(100, N))
    assert select.repeated_events(pairs_of(one)) == ""
    assert re.match(
        r"200 event numbers come back.*name all branches", select.repeated_events(pairs_of(one, other))
    )
    copied = write(tmp_path / "copied.root", 1, number=np.arange(N) % 250)
    text = select.repeated_events(pairs_of(one, copied))
    assert re.match(r"250 event numbers.*250 of 600 pairs are there twice", text)
    empty = Pairs.empty()
    assert select.repeated_events(empty) == ""


def test_a_run_tells_of_events_in_two_files(tmp_path):
    for i, first in enumerate((0, 200)):
        write(tmp_path / f"{i}.root", i, number=np.arange(first, first + N))
    text = (
        '[analysis]\nname = "x"\n[read]\nfiles = ["0.root", "1.root"]\nschema = "s.toml"\n'
        "[select]\nmass = [0.2, 0.5, 3.0]\npt = [0.0, 100.0]\n"
    )
    (tmp_path / "run.toml").write_text(text)
    (tmp_path / "s.toml").write_text(
        'tree = "events"\nlayout = "jagged"\nlepton = "mu"\ncharge = "charge"\nevent = ["number"]\n'
        'kinematics = { px = "px", py = "py", pz = "pz" }\n'
    )
    notes = read_manifest(run(tmp_path / "run.toml", output=tmp_path / "out"))["notes"]
    assert any("100 event numbers come back" in note for note in notes)
