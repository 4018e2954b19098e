"""The processor in coffea's own Runner: failures are raised, events keep numbers, results can be added."""

import shutil
from dataclasses import replace
from pathlib import Path

import hist
import numpy as np
import pytest
import uproot
from coffea.nanoevents import BaseSchema
from coffea.processor import DaskExecutor, IterativeExecutor, Runner, SimpleCheckpointer
from injection import workers

from gammastar import facility
from gammastar.core.errors import BranchError, InputFileError, StoreError
from gammastar.facility.processor import pairs_of
from gammastar.store.pairs import Chunk, Source, read_chunk


def run(processor, files, retries=0, **options):
    options = {"schema": BaseSchema, "chunksize": 20, "savemetrics": True} | options
    runner = Runner(IterativeExecutor(status=False, retries=retries), **options)
    return runner({"data": {"files": {str(path): "events" for path in files}}}, processor)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Return three files of 40 events."""
    return workers.poisoned(tmp_path_factory.mktemp("parts"), 3, ())


def job(folder, files, **changes):
    sources = tuple(Source(str(path)) for path in files)
    return replace(workers.job(folder / "chunks", step=20), sources=sources, **changes)


def without_branch(path):
    """Write a tree that coffea opens and that lacks the charge."""
    with uproot.open({str(workers.DATA): None}) as file:
        names = [b.name for b in file["events"].branches if not b.name.startswith("n")]
        part = file["events"].arrays(names, entry_stop=40)
    kept = {n: part[n] for n in names if "charge" not in n.lower()}
    with uproot.recreate(path) as file:
        file.mktree("events", {n: a.type.content for n, a in kept.items()}).extend(kept)
    return path


def test_failures_are_raised_and_can_be_skipped(parts, tmp_path):
    files = [*parts[:2], without_branch(tmp_path / "bad.root")]
    processor = facility.DileptonPairs(job(tmp_path, files))
    with pytest.raises(Exception, match=r"bad\.root") as error:
        run(processor, files)
    chain = [error.value]
    while chain[-1].__cause__ is not None:
        chain.append(chain[-1].__cause__)
    (found,) = [one for one in chain if isinstance(one, InputFileError)]
    assert isinstance(found, OSError)
    with pytest.warns(UserWarning, match="Skipping bad file"):
        out, metrics = run(processor, files, skipbadfiles=True)
    assert out["entries"] == metrics["entries"] == 80
    assert {Path(note["path"]).name for note in out["done"]} == {path.name for path in files[:2]}
    with pytest.warns(UserWarning, match="attempt 1 out of 2"), pytest.raises(Exception, match="bad"):
        run(processor, files, retries=1)
    with pytest.raises(Exception, match="another version") as error:
        run(replace(processor, code=(("code of gammastar", "another"),)), files[:1], skipbadfiles=True)
    assert isinstance(error.value.__cause__, StoreError)


def test_notes_for_the_farm_do_not_raise(tmp_path):
    path = without_branch(tmp_path / "bad.root")
    note = facility.DileptonPairs(job(tmp_path, [path])).work(Chunk(str(path), 0, 0, 10))
    assert note["error"] == BranchError.__name__
    assert "content" not in note


@pytest.mark.parametrize("known", [True, False])
def test_events_without_numbers_stay_apart(parts, tmp_path, known):
    """Three files of 40 events, in chunks of 20: as many numbers as events, in every order of the chunks."""
    files = parts
    schema = replace(workers.schema(), event=())
    given = job(tmp_path, files, schema=schema)
    if known:
        given = replace(given, sources=tuple(replace(s, entries=40) for s in given.sources))
    out, _ = run(facility.DileptonPairs(given), files)
    events = [read_chunk(given.folder / note["file"]).arrays["event"] for note in out["done"]]
    expected, _ = run(facility.DileptonPairs(job(tmp_path / "own", files)), files)
    plain = [read_chunk(tmp_path / "own" / "chunks" / n["file"]).arrays["event"] for n in expected["done"]]
    # of each file, the events with pairs are as many as their own numbers say
    assert len(np.unique(np.concatenate(events))) == sum(len(np.unique(chunk)) for chunk in plain)
    if known:
        assert np.concatenate(events).max() < 120


def _fill(pairs):
    axis = hist.axis.Regular(20, 0.2, 1.2, name="mass")
    return {"mass": hist.Hist(axis).fill(mass=pairs.mass[pairs.charge == 0])}


def test_histograms_and_partial_results_are_added(parts, tmp_path):
    files = parts
    given = job(tmp_path, files)
    processor = facility.DileptonPairs(given, fill=_fill)
    whole, _ = run(processor, files)
    parts = [run(processor, [path])[0] for path in files]
    expected = np.concatenate(
        [
            found.mass[found.charge == 0]
            for note in whole["done"]
            for found in [pairs_of(read_chunk(given.folder / note["file"]).arrays)]
        ]
    )
    counts, _ = np.histogram(expected, 20, (0.2, 1.2))
    assert whole["filled"]["mass"].values().tolist() == counts.tolist()
    assert counts.sum() > 20
    added = sum((part["filled"]["mass"] for part in parts[1:]), parts[0]["filled"]["mass"])
    assert added == whole["filled"]["mass"]
    assert whole["entries"] == sum(part["entries"] for part in parts) == 120
    assert whole["cutflow"]["events"].n == 120
    assert whole["columns"] == set(given.schema.branches())


def _of_files(found):
    """Return what a result says of chunks, without whether they were taken."""
    return {(Path(n["path"]).name, n["start"], n["stop"], n["content"]) for n in found["done"]}


def test_every_chunk_says_whether_it_was_taken(parts, tmp_path):
    files = parts[:2]
    processor = facility.DileptonPairs(job(tmp_path, files))
    first, _ = run(processor, files)
    again, _ = run(processor, files)
    assert [n["taken"] for n in first["done"]] == [False] * 4
    assert [n["taken"] for n in again["done"]] == [True] * 4
    assert _of_files(first) == _of_files(again)


def test_checkpoints_of_coffea_are_taken_and_chunks_are_not_read_again(parts, tmp_path):
    """The second file fails in the first call; the second call works on it alone."""
    files = parts[:2]
    given = job(tmp_path, files)
    keeper = SimpleCheckpointer(str(tmp_path / "checkpoints"))
    calls = tmp_path / "calls"  # the processor travels as a copy

    def failing(pairs):
        with calls.open("a") as file:
            file.write("x")
        if calls.read_text() == "xxx":
            raise RuntimeError("of the user")
        return _fill(pairs)

    with pytest.raises(Exception, match="of the user"):
        run(facility.DileptonPairs(given, fill=failing), files, checkpointer=keeper)
    assert calls.read_text() == "xxx"
    out, _ = run(facility.DileptonPairs(given, fill=failing), files, checkpointer=keeper)
    assert calls.read_text() == "xxxxx"  # two chunks came from the checkpoints, and were not counted again
    expected, _ = run(facility.DileptonPairs(job(tmp_path / "own", files), fill=_fill), files)
    assert out["filled"]["mass"] == expected["filled"]["mass"]
    assert out["entries"] == expected["entries"] == 80


def test_metadata_of_the_user_and_some_of_the_chunks(parts, tmp_path):
    files = [Path(shutil.copy(path, tmp_path)) for path in parts[:2]]  # coffea keeps what it knows of a name
    fileset = {
        "data": {
            "files": {str(path): "events" for path in files},
            "metadata": {"period": "A", "first": 7, "entries": -1},
        }
    }
    runner = Runner(IterativeExecutor(status=False), schema=BaseSchema, chunksize=20, maxchunks=3)
    chunks = list(runner.preprocess(fileset))
    assert {chunk.usermeta["period"] for chunk in chunks} == {"A"}
    schema = replace(workers.schema(), event=())
    some = runner.run(chunks, facility.DileptonPairs(job(tmp_path / "some", files, schema=schema)))["out"]
    assert some["entries"] == 60
    whole, _ = run(facility.DileptonPairs(job(tmp_path / "all", files, schema=schema)), files)
    assert {row[:3] for row in _of_files(some)} < {row[:3] for row in _of_files(whole)}
    assert _of_files(some) < _of_files(whole)  # events have the same numbers


@pytest.mark.slow
def test_on_a_dask_cluster_by_coffeas_own_executor(parts, tmp_path):
    from distributed import Client, LocalCluster

    files = parts
    processor = facility.DileptonPairs(job(tmp_path, files), fill=_fill)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        runner = Runner(DaskExecutor(client=client, status=False, retries=1), schema=BaseSchema, chunksize=20)
        out = runner({"data": {"files": {str(path): "events" for path in files}}}, processor)
    here, _ = run(facility.DileptonPairs(job(tmp_path / "here", files), fill=_fill), files)
    assert _of_files(out) == _of_files(here)
    assert out["filled"]["mass"] == here["filled"]["mass"]
