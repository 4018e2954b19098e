"""Folders of results: files of others stay, those of other runs go, what was changed is noticed."""

import hashlib
import json
import multiprocessing
import os
import re
import shutil
import socket
import time
from pathlib import Path

import numpy as np
import pytest
from builders import ROOT
from forks import gammastar
from hypothesis import given, settings
from hypothesis import strategies as st
from injection import links
from matplotlib.figure import Figure

from gammastar.core.errors import GammastarError, InputFileError, StoreError, UserError
from gammastar.core.files import LOCK
from gammastar.pipeline.cache import open_cache, skipped_input_message
from gammastar.pipeline.record import FILES, checked_record
from gammastar.pipeline.run import run
from gammastar.pipeline.stages import read as read_stage
from gammastar.report.style import FORMATS, drawn
from gammastar.results.exchange import export_for
from gammastar.results.export import export
from gammastar.results.recast import recast_file
from gammastar.results.show import overlay_files, show_results, verify_results
from gammastar.results.start import reinterpret
from gammastar.store.filesets import Sealed
from gammastar.store.folder import check_results, published, sweep, working
from gammastar.store.manifest import is_published, read_manifest, write_manifest, write_text

SMALL = ROOT / "analysis" / "na60_dimuon"


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def steering(path, *, files=("mock/na60_data.root",), seed=1):
    """Write the smallest analysis: it reads and selects."""
    names = ", ".join(f'"{name}"' for name in files)
    text = (SMALL / "small.toml").read_text().split("[subtract]")[0]
    text = re.sub(r"files = .*\nresponse = .*", f"files = [{names}]", text)
    text = text.replace('"schema.toml"', f'"{SMALL}/schema.toml"').replace("seed = 1", f"seed = {seed}")
    path.write_text(text)
    return path


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run with a copy of its data."""
    base = tmp_path_factory.mktemp("finished")
    shutil.copy(ROOT / "data" / "mock" / "na60_data.root", base / "data.root")
    return run(steering(base / "steering.toml", files=[base / "data.root"]), output=base / "out")


@pytest.fixture
def results(finished, tmp_path):
    """A copy of the finished run."""
    shutil.copytree(finished, tmp_path / "out")
    return tmp_path / "out"


def pretended(folder, files, *, finished=True, **more):
    """Write files as a run would have, with their manifest."""
    for name, text in files.items():
        write_text(folder / name, text)
    sums = {name: hashlib.sha256(text.encode()).hexdigest() for name, text in files.items()}
    write_manifest(
        folder, {"finished": finished, "stages": {}, "inputs": {}, "versions": {}, "files": sums, **more}
    )
    return folder


# --- files of others -------------------------------------------------------------------------------------


def test_a_folder_with_files_of_others_is_refused_and_left_as_it_is(tmp_path):
    folder = tmp_path / "mine"
    (folder / ".git").mkdir(parents=True)
    for name in (".git/.config.abcdefgh.tmp", "thesis.tex", ".a.tmp"):
        (folder / name).write_text("mine")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match=r"not empty.*--output"):
        run(steering(tmp_path / "s.toml"), output=folder)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    (folder / "manifest.json").write_text('{"name": "of a web page"}')
    with pytest.raises(UserError, match=r"manifest\.json cannot be read.*--output"):
        run(steering(tmp_path / "s.toml"), output=folder)


@given(
    st.lists(
        st.tuples(st.sampled_from(links.FILES + links.FOLDERS), st.sampled_from(links.KINDS)), max_size=3
    ),
    st.booleans(),
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_links_at_any_level_are_refused_and_nothing_behind_them_changes(tmp_path_factory, places, resume):
    assert links.broken(tmp_path_factory.getbasetemp() / "links", places, resume=resume) == []


@given(
    st.lists(st.tuples(st.sampled_from(links.OUTPUTS), st.sampled_from(links.KINDS)), min_size=1, max_size=3)
)
@settings(max_examples=25, deadline=None, derandomize=True)
def test_links_in_a_folder_of_output_are_not_followed(tmp_path_factory, places):
    assert links.broken_output(tmp_path_factory.getbasetemp() / "output", places) == []


def test_every_command_with_a_folder_of_output_has_the_guard():
    for function in (export, export_for, overlay_files, recast_file):
        assert function.__code__.co_name == "inner"
        assert function.__wrapped__.__name__ == function.__name__


@pytest.mark.parametrize("resume", [False, True])
def test_a_forged_manifest_removes_no_file_of_the_user(tmp_path, resume):
    assert links.forged(tmp_path, resume=resume) == []


def test_files_of_others_in_a_folder_of_results_stay(tmp_path):
    folder = links.results(tmp_path / "out")
    (folder / ".git").mkdir()
    (folder / ".git" / ".report.html.abcdefgh.tmp.html").write_text("theirs")
    (folder / "mine.txt").symlink_to(tmp_path)
    (folder / "chunks" / "pairs" / "notes.tmp").write_text("mine")
    links.work(folder, resume=False)
    assert (folder / ".git" / ".report.html.abcdefgh.tmp.html").read_text() == "theirs"
    assert (folder / "mine.txt").is_symlink()
    assert (folder / "chunks" / "pairs" / "notes.tmp").read_text() == "mine"
    assert not list((folder / "chunks").rglob("*.parquet"))


def test_figures_and_kept_stages_carry_our_mark(tmp_path):
    for kind in FORMATS:
        assert b"gammastar" in drawn(Figure(), kind)
    cache = open_cache(tmp_path, resume=False, seed=1, mock=True)
    cache.arrays("select", "key", lambda: {"mass": np.ones(3)})
    assert (tmp_path / "stages" / "select.npz").read_bytes().endswith(b"gammastar")


def test_what_a_killed_write_left_is_swept(tmp_path):
    folder = pretended(tmp_path / "out", {"spectrum.json": "{}"})
    names = [
        ".spectrum.json.abcdefgh.tmp.json",
        "figures/.rate.png.a1b2c3d4.tmp",
        "stages/.select.npz.abcdefgh.tmp.npz",
    ]
    for name in names:
        write_text(folder / "figures" / "rate.png", "x")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("half")
    open_cache(folder, resume=True, seed=1, mock=True)
    assert not [name for name in names if (folder / name).exists()]


@pytest.mark.long
def test_a_linked_folder_of_results_stays_a_link(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "out").symlink_to(tmp_path / "disk")
    for _ in range(2):
        run(steering(tmp_path / "s.toml"), output=tmp_path / "out")
    assert (tmp_path / "out").is_symlink()
    assert (tmp_path / "disk" / "stages" / "select.npz").is_file()


def test_only_one_module_removes_files():
    """Others may remove what they just made: temporary files, the folder in which workers report."""
    code = {path.name: path.read_text() for path in (ROOT / "src" / "gammastar").rglob("*.py")}
    removes = re.compile(r"rmtree|(?<!temporary\.)\bunlink\(|\.rmdir\(|os\.remove")
    assert {name for name, text in code.items() if removes.search(text)} == {
        "files.py",
        "folder.py",
        "crew.py",
        "executors.py",
    }


def test_sweep_spares_parts_of_another_writer(tmp_path):
    (tmp_path / "part-00000.parquet").write_bytes(b"PAR1 of spark PAR1")
    (tmp_path / "part-00001.parquet").write_bytes(b"PAR1 gammastar PAR1")
    sweep(tmp_path, "parts")
    assert [path.name for path in tmp_path.iterdir()] == ["part-00000.parquet.aside"]


# --- files of earlier runs -------------------------------------------------------------------------------

OLD = {
    name: f"old {name}, gammastar"
    for name in (
        *("reach.json", "reach_ship.json", "report.html", "steering.json", "flow.json", "flow.safetensors"),
        *("figures/rate.png", "hepdata/contour.yaml", "detectors/ship.toml"),
    )
}


@pytest.mark.long
@pytest.mark.parametrize("resume", [False, True])
def test_a_run_lists_its_own_files_alone(tmp_path, resume):
    folder = pretended(tmp_path / "out", OLD)
    (folder / "mine.txt").write_text("mine")
    (folder / "report.html").write_text("old report.html with my remarks")
    run(steering(tmp_path / "s.toml"), output=folder, resume=resume)
    manifest = read_manifest(folder)
    assert manifest["finished"]
    assert manifest["files"] == {}  # a selection publishes nothing
    assert published(folder) == []
    left = {
        path.name: path.read_text()
        for path in (folder / "previous").rglob("*")
        if path.is_file() and path.name != "manifest.json"
    }
    assert left == {"report.html": "old report.html with my remarks"}
    assert any("previous/1/report.html" in note for note in manifest["notes"])
    assert (folder / "mine.txt").read_text() == "mine"
    assert "reach" not in show_results(folder)
    list(verify_results(folder))


def test_old_results_stay_until_a_new_run_is_finished(tmp_path, monkeypatch):
    folder = pretended(tmp_path / "out", OLD)
    with pytest.raises(GammastarError, match=r"absent\.root"):
        run(steering(tmp_path / "s.toml", files=["absent.root"]), output=folder)
    assert {name: (folder / name).read_text() for name in OLD} == OLD  # nothing began

    def stopped(*_):
        raise InputFileError("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(read_stage, "select_stage", stopped)
        with pytest.raises(InputFileError, match="stopped"):
            run(steering(tmp_path / "s.toml"), output=folder)
    kept = {name: (folder / "previous" / "1" / name).read_text() for name in OLD}
    assert kept == OLD
    assert not read_manifest(folder)["finished"]
    for _ in range(2):  # what a stopped run left goes when the next begins
        write_text(folder / "reach.json", "of a stopped run")
        cache = open_cache(folder, resume=True, seed=1, mock=True)
        write_text(folder / "spectrum.json", "of a stopped run")
        cache.done("spectrum", "key", "content")
    assert {name: (folder / "previous" / "1" / name).read_text() for name in OLD} == OLD
    run(steering(tmp_path / "s.toml"), output=folder, resume=True)
    assert published(folder) == []
    assert not list((folder / "previous").rglob("spectrum.json"))


def test_a_stage_alone_sets_the_later_results_aside(results, tmp_path):
    manifest = read_manifest(results)
    write_text(results / "reach.json", "old")
    write_manifest(results, manifest | {"files": {"reach.json": sha256(results / "reach.json")}})
    run(steering(tmp_path / "s.toml"), output=results, only="select")
    assert published(results) == []
    assert (results / "previous" / "1" / "reach.json").read_text() == "old"


def test_what_a_run_publishes_is_known_by_its_name():
    for name in (
        *FILES,
        "figures/rate.pdf",
        "figures/rate.svg",
        "histfactory_ship/config/limit.xml",
        "pairs/part-00012.parquet",
    ):
        assert is_published(name) or name == "manifest.json"
    for name in (
        "../spectrum.json",
        "hepdata/../../x",
        "/etc/passwd",
        "hepdata/./x",
        "figures/a/b.png",
        "reach.txt",
    ):
        assert not is_published(name)


# --- one run at a time -----------------------------------------------------------------------------------


def _hold(folder, ready, go):
    with working(Path(folder)):
        ready.set()
        go.wait(60)


def test_a_second_run_waits_its_turn(tmp_path):
    context = multiprocessing.get_context("forkserver")
    ready, go = context.Event(), context.Event()
    process = context.Process(target=_hold, args=(str(tmp_path), ready, go))
    process.start()
    assert ready.wait(120)
    try:
        with (
            pytest.raises(UserError, match=rf"process {process.pid} works in this folder"),
            working(tmp_path),
        ):
            pass
        process.kill()
        process.join()
        assert (tmp_path / LOCK).is_file()  # left by the killed one
        with working(tmp_path):
            assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()
    finally:
        process.kill()
    assert not (tmp_path / LOCK).exists()


def test_locks_of_other_hosts_and_damaged_ones(tmp_path):
    lock = tmp_path / LOCK
    lock.write_text(json.dumps({"host": "elsewhere.example", "process": 7}))
    with (
        pytest.raises(UserError, match=rf"elsewhere\.example.*remove {re.escape(str(lock))}"),
        working(tmp_path),
    ):
        pass
    assert lock.is_file()
    for text in ("", "{", "[" * 5000, "7", json.dumps({"host": socket.gethostname(), "process": 2**70})):
        lock.write_text(text)
        with working(tmp_path):
            with pytest.raises(UserError, match="works in this folder"), working(tmp_path):
                pass
            assert lock.is_file()


def test_a_failed_run_lets_the_folder_go(tmp_path):
    for _ in range(2):
        with pytest.raises(GammastarError, match=r"absent\.root"):
            run(steering(tmp_path / "s.toml", files=["absent.root"]), output=tmp_path / "out")
    assert not (tmp_path / "out" / LOCK).exists()


# --- inputs that change ----------------------------------------------------------------------------------


def test_an_input_replaced_while_it_is_read_is_noticed(tmp_path, monkeypatch):
    data = tmp_path / "data.root"
    shutil.copy(ROOT / "data" / "mock" / "na60_data.root", data)
    true = read_stage.read.open_events

    calls = []

    def replaced(*args, **options):  # by the same events in another file, each time it is opened
        calls.append(args)
        (tmp_path / "other").write_bytes(data.read_bytes() + bytes([len(calls)]))
        (tmp_path / "other").replace(data)
        return true(*args, **options)

    monkeypatch.setattr(read_stage.read, "open_events", replaced)
    with pytest.raises(InputFileError, match=r"data\.root: changed while the run"):
        run(steering(tmp_path / "s.toml", files=[data]), output=tmp_path / "out")
    assert "select" not in read_manifest(tmp_path / "out")["stages"]


def test_sealed_files_are_read_once_and_again_only_if_touched(tmp_path):
    path, hashed, reads = tmp_path / "a", [], []
    path.write_text("one")

    def digests(paths):
        hashed.extend(paths)
        return [sha256(p) for p in paths]

    seal = Sealed([path], digests)
    assert seal.read([path], lambda: reads.append(1)) is None
    assert (len(hashed), len(reads)) == (1, 1)

    def swapped():  # another file for a moment, and the first one back: what was read is not known
        reads.append(path.read_text())
        if len(reads) == 2:
            path.replace(tmp_path / "kept")
            path.write_text("two")
            reads.append(path.read_text())
            (tmp_path / "kept").replace(path)
        return reads[-1]

    assert seal.read([path], swapped) == "one"
    assert reads == [1, "one", "two", "one"]
    with pytest.raises(InputFileError, match="touches"):
        seal.read([path], lambda: os.utime(path, ns=(time.time_ns(), time.time_ns())))
    path.write_text("tw2")
    with pytest.raises(InputFileError, match="changed"):
        seal.read([path], lambda: pytest.fail("read though it changed between two stages"))


def test_a_worker_notices_a_file_that_is_replaced_and_put_back(tmp_path, monkeypatch):
    from gammastar.facility import open_executor, processor

    data, true = tmp_path / "data.root", processor._pairs
    shutil.copy(ROOT / "data" / "mock" / "na60_data.root", data)

    def swapped(job, chunk):
        data.rename(tmp_path / "kept")
        (tmp_path / "kept").rename(data)
        return true(job, chunk)

    monkeypatch.setattr(processor, "_pairs", swapped)
    with open_executor() as executor, pytest.raises(InputFileError, match="touched or replaced"):
        run(steering(tmp_path / "s.toml", files=[data]), output=tmp_path / "out", executor=executor)
    assert not list((tmp_path / "out" / "chunks").rglob("pairs-*.parquet"))


def test_two_inputs_of_one_name_stand_in_the_manifest_and_are_verified(tmp_path):
    data = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        data.append(tmp_path / name / "data.root")
        data[-1].write_bytes((ROOT / "data" / "mock" / "na60_data.root").read_bytes() + name.encode())
    folder = run(steering(tmp_path / "s.toml", files=data), output=tmp_path / "out")
    assert read_manifest(folder)["inputs"] == {str(path): sha256(path) for path in data}
    list(verify_results(folder))
    data[0].write_bytes(data[0].read_bytes()[:-1] + b"x")
    with pytest.raises(StoreError, match="first/data"):
        list(verify_results(folder))


# --- what was changed ------------------------------------------------------------------------------------


def published_like(folder):
    """Add files of every kind to the results of a finished run, as a longer chain would have."""
    files = {name: f"{{}} of {name}" for name in OLD} | {"pairs/part-00000.parquet": "pairs"}
    for name, text in files.items():
        write_text(folder / name, text)
    sums = {name: sha256(folder / name) for name in files}
    write_manifest(
        folder, {k: v for k, v in read_manifest(folder).items() if k != "digest"} | {"files": sums}
    )
    list(verify_results(folder))
    return folder


@pytest.mark.parametrize(
    "name",
    [
        "hepdata/contour.yaml",
        "detectors/ship.toml",
        "figures/rate.png",
        "pairs/part-00000.parquet",
        "stages/select.npz",
    ],
)
@pytest.mark.parametrize("how", ["changed", "removed"])
def test_verify_notices_files_in_folders(results, name, how):
    path = published_like(results) / name
    middle = path.stat().st_size // 2
    damaged = bytearray(path.read_bytes())
    damaged[middle] ^= 1
    path.unlink() if how == "removed" else path.write_bytes(bytes(damaged))
    with pytest.raises(StoreError, match=re.escape(path.name)):
        list(verify_results(results))


def edited(folder, change):
    content = json.loads((folder / "manifest.json").read_text())
    change(content)
    (folder / "manifest.json").write_text(json.dumps(content))


EDITS = {
    "mock": lambda m: m.update(mock=False),
    "loss forgotten": lambda m: m.pop("partial"),
    "another digest": lambda m: m["stages"]["select"].update(content="0" * 64),
    "file outside": lambda m: m["files"].update({"../../data.root": "0" * 64}),
    "stage outside": lambda m: m["stages"].update({"../x": m["stages"]["select"]}),
    "no digest": lambda m: m.pop("digest"),
    "shapes": lambda m: m.update(files=[1], stages={"select": 3}),
    "not finite": lambda m: m.update(partial={"select": {"lost_fraction": float("nan"), "skipped": []}}),
}
TEXTS = {
    "empty": "",
    "deep": '{"a":' * 100_000 + "1" + "}" * 100_000,
    "list": "[]",
    "number": "7",
    "null": "null",
    "not text": b"\xff\xfe\x00",
    "twice": '{"finished": true, "finished": 1}',
}


@pytest.mark.parametrize("what", [*EDITS, *TEXTS])
def test_a_manifest_that_is_not_as_it_was_written_is_an_error_for_every_command(results, what, tmp_path):
    if what in EDITS:
        edited(results, EDITS[what])
    else:
        text = TEXTS[what]
        (results / "manifest.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    calls = {
        "verify": lambda: list(verify_results(results)),
        "show": lambda: show_results(results),
        "resume": lambda: run(steering(tmp_path / "s.toml"), output=results, resume=True),
        "check": lambda: check_results(results, []),
    }
    for name, call in calls.items():
        with pytest.raises(GammastarError) as caught:
            call()
        assert "manifest" in str(caught.value), name
        assert len(str(caught.value)) < 1000


def test_a_run_without_resume_heals_an_edited_manifest(results, tmp_path):
    edited(results, EDITS["mock"])
    run(steering(tmp_path / "s.toml"), output=results)
    assert read_manifest(results)["mock"]


def with_arrays(results, change):
    """Change the arrays of the selection, with all digests as they would be."""
    from gammastar.store.manifest import digest

    path = results / "stages" / "select.npz"
    with np.load(path) as file:
        arrays = {name: file[name] for name in file.files}
    change(arrays)
    np.savez(path, **arrays)
    content = read_manifest(results)
    content["stages"]["select"]["content"] = digest(arrays)
    write_manifest(results, content)


def test_a_kept_stage_without_an_array_is_named(finished, results):
    with_arrays(results, lambda arrays: arrays.pop("mass"))
    with pytest.raises(StoreError, match=r"select\.npz.*'mass'.*--resume"):
        run(finished.parent / "steering.toml", output=results, resume=True)


def record(folder):
    """Write what looks like the record of a finished run."""
    names = [name for name in FILES if name != "manifest.json"]
    return pretended(folder, dict.fromkeys(names, "{}") | {"reach.json": "{}"})


@pytest.mark.parametrize("name", ["spectrum.json", "flow.safetensors", "steering.json", "manifest.json"])
def test_the_record_is_checked_before_anything_is_made_of_it(tmp_path, name):
    folder = record(tmp_path / "out")
    assert checked_record(folder)["finished"]
    path = folder / name
    if name == "manifest.json":
        edited(folder, EDITS["mock"])
        edited(folder, lambda m: m.update(mock=True))
    else:
        path.write_text('{"values": 10}')
    with pytest.raises(StoreError, match=re.escape(name)):
        reinterpret(folder, output=tmp_path / "new", tell=lambda *_: None)
    with pytest.raises(StoreError, match=re.escape(name)):
        checked_record(folder)
    assert not (tmp_path / "new").exists()


def test_files_of_another_run_are_no_record(tmp_path):
    folder = record(tmp_path / "out")
    write_text(folder / "flow_members.00.json", "{}")
    with pytest.raises(StoreError, match="does not know"):
        checked_record(folder)
    (folder / "flow_members.00.json").unlink()
    (folder / "flow.json").unlink()
    with pytest.raises(InputFileError, match=r"flow\.json"):
        checked_record(folder)
    with pytest.raises(StoreError, match="not finished"):
        checked_record(
            pretended(tmp_path / "half", {n: "{}" for n in FILES if n != "manifest.json"}, finished=False)
        )


# --- what was skipped ------------------------------------------------------------------------------------


def test_what_was_skipped_is_shown_and_kept_when_a_resumed_run_stops(results):
    loss = {"select": {"lost_fraction": 0.25, "skipped": [{"file": "/data/bad.root", "kind": "pairs"}]}}
    content = read_manifest(results)
    write_manifest(results, content | {"partial": loss})
    said = skipped_input_message(loss)
    assert "25.000%" in said
    assert "bad.root" in said
    assert said in show_results(results)
    assert said in list(verify_results(results))
    cache = open_cache(results, resume=True, seed=1, mock=True)  # and stops before its first stage is done
    assert read_manifest(results)["partial"] == loss
    again = open_cache(results, resume=True, seed=1, mock=True)
    key = content["stages"]["select"]["key"]
    assert not again.fresh("select", key)
    assert not cache.fresh("select", key)


def test_command_line_ends_with_an_error_and_no_traceback(results):
    (results / "manifest.json").write_text("")
    for command in ("show", "verify"):
        done = gammastar(command, results)
        assert done.returncode == 1
        assert done.stderr.startswith("error: ")
        assert "Traceback" not in done.stderr
