"""A short draw of every fault; the long campaigns are ``analysis/validate.py facility`` and the benchmark."""

import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from injection import damage, kills, memory, models, record, steerings, texts

from gammastar.core.errors import InputFileError, StoreError
from gammastar.core.pairs import Pairs
from gammastar.pipeline.run import run
from gammastar.results.show import verify_results
from gammastar.store.filesets import check_listed, read_fileset
from gammastar.store.folder import finite
from gammastar.store.manifest import file_sha256, write_json
from gammastar.store.pairs import check_chunks, write_chunk


@pytest.mark.long
def test_damaged_files_are_never_silent_with_a_manifest():
    found = damage.summary(damage.campaign(1, manifest=True))
    assert set(found) <= {"error", "same"}
    assert found["error"] > 45


@pytest.mark.long
def test_damaged_files_without_a_manifest_never_hang():
    found = damage.campaign(1, manifest=False)
    assert set(damage.summary(found)) <= {
        "error",
        "same",
        "silent",
    }  # what is silent is why there is a manifest
    assert all(
        form.startswith(("TTree", "RNTuple without")) for form, _, result in found if result == "silent"
    )


def test_malformed_steering_files_name_their_key(tmp_path):
    cases = list(steerings.malformed())[::6]
    for what, content, word in cases:
        if what in {"ten megabytes", "deep arrays", "deep tables", "infer.coupling: falling"}:
            continue  # measured by the validation
        path = tmp_path / "steering.toml"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        with pytest.raises(steerings.UserError) as error:
            steerings.check_files(steerings.config.load(path), kills.SMALL.parent)
        assert word in str(error.value), what


@pytest.mark.flow
def test_malformed_models_neither_run_nor_load(tmp_path):
    for attack in (models.attack_flows, models.attack_workspaces):
        found = attack(tmp_path, 3)
        assert (found.silent, found.executed, found.crashed) == ([], [], [])
        assert found.files > 30


def test_files_that_were_cut_off_are_errors(tmp_path):
    pytest.importorskip("pyhepmc")
    for kind, (tried, silent, crashed) in texts.campaign(tmp_path, 10).items():
        assert (tried, silent, crashed) == (10, [], []), kind


@pytest.mark.long
def test_a_damaged_stage_runs_again(tmp_path):
    """A kept stage that was cut off or changed is computed again, not trusted and not an obstacle."""
    path = kills.steering(tmp_path / "steering.toml")
    path.write_text(path.read_text().split("[unfold]")[0])
    run(path, output=tmp_path / "out")
    expected = kills.contents(tmp_path / "out")
    kept = tmp_path / "out" / "stages" / "select.npz"
    for damaged in (kept.read_bytes()[:-500], b"", kept.read_bytes()[:200] + bytes(400)):
        kept.write_bytes(damaged)
        with pytest.raises(StoreError):
            list(verify_results(tmp_path / "out"))
        run(path, output=tmp_path / "out", resume=True)
        assert kills.contents(tmp_path / "out") == expected


@pytest.mark.slow
def test_a_stream_larger_than_its_memory(tmp_path):
    found = memory.streamed(tmp_path, 3.0)
    assert found.finished
    assert found.gigabytes > 3.0
    assert found.peak < 1024


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:jsonschema.exceptions.RefResolutionError:DeprecationWarning")
def test_killed_runs_lose_nothing(tmp_path):
    found = kills.kill_runs(tmp_path, 4)
    assert (found.broken, found.different, found.failed) == ([], [], 0)


def test_listed_digests_are_checked_before_work_starts(tmp_path):
    path = tmp_path / "data.root"
    path.write_bytes(b"content")
    sha = file_sha256(path)
    check_listed([path], [sha])
    (tmp_path / "SHA256SUMS").write_text(f"{sha}  data.root\n")
    check_listed([path], [sha])
    other = tmp_path / "other"
    other.mkdir()
    (other / "SHA256SUMS").write_text(f"{'0' * 64} *data.root\n")
    (other / "data.root").write_bytes(b"content")
    with pytest.raises(InputFileError, match="changed or damaged"):
        check_listed([other / "data.root"], [sha])


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"a": 1}', '{"a": {"files": [1]}}', "[" * 100_000])
def test_what_is_no_fileset(tmp_path, content):
    path = tmp_path / "fileset.json"
    path.write_text(content)
    with pytest.raises(InputFileError, match=r"fileset\.json"):
        read_fileset(path)
    path.write_text('{"a": ["x.root", "x.root"]}')
    with pytest.raises(InputFileError, match="twice"):
        read_fileset(path)


def test_numbers_in_json_are_finite():
    finite({"a": [1.0, {"b": 2}]}, "file")
    with pytest.raises(StoreError, match=r"file\.a\[1\]\.b"):
        finite({"a": [1.0, {"b": float("nan")}]}, "file")


@pytest.mark.long
def test_a_full_disk_is_an_error_and_leaves_nothing(tmp_path):
    """A limit of the file size stands in for a full disk: writes fail in the middle with an OSError."""
    pairs = Pairs.empty()
    code = f"""
import resource, signal, sys, numpy as np
from pathlib import Path
from gammastar.core.errors import StoreError
from gammastar.store.pairs import write_chunk
from gammastar.store.manifest import write_text
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))
folder = Path({str(tmp_path)!r})
noise = {{"a": np.random.default_rng(1).random(50000)}}
for write in (lambda: write_text(folder / "a.json", "x" * 100000),
              lambda: write_chunk(folder / "b.parquet", "k", noise, {{}})):
    try:
        write()
    except StoreError as error:
        print("StoreError", error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("StoreError") == 2, done.stderr
    assert list(tmp_path.iterdir()) == []
    assert len(pairs) == 0
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 20000


def test_clock_that_jumps_changes_nothing(tmp_path):
    arrays = {"a": np.arange(5.0)}
    first = write_chunk(tmp_path / "chunks" / "a.parquet", "k", arrays, {})
    os.utime(tmp_path / "chunks" / "a.parquet", (4e9, 4e9))
    second = write_chunk(tmp_path / "chunks" / "b.parquet", "k", arrays, {})
    assert first == second
    assert check_chunks(tmp_path) == 2
    (tmp_path / "chunks" / "b.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"b\.parquet"):
        check_chunks(tmp_path)


@pytest.mark.long
def test_a_resumed_run_never_takes_a_changed_input(tmp_path):
    """An input that changed between two runs is another input: everything after it runs again."""
    data = tmp_path / "data.root"
    data.write_bytes((kills.ROOT / "data" / "mock" / "na60_data.root").read_bytes())
    steering = kills.steering(tmp_path / "steering.toml")
    text = steering.read_text().split("[unfold]")[0]
    start = text.index("files = [")
    steering.write_text(text[:start] + f'files = ["{data}"]' + text[text.index("]", start) + 1 :])
    run(steering, output=tmp_path / "out")
    first = kills.contents(tmp_path / "out")
    write_json(tmp_path / "note.json", first)
    data.write_bytes((kills.ROOT / "data" / "mock" / "na60_mc.root").read_bytes())
    run(steering, output=tmp_path / "out", resume=True)
    assert kills.contents(tmp_path / "out")["select"] != first["select"]


@pytest.mark.parametrize(
    ("ends", "said"), [("os.kill(os.getpid(), 9)", "SIGKILL"), ("sys.exit(3)", "exit 3"), ("pass", "exit 0")]
)
def test_a_portion_whose_process_ends_is_counted(tmp_path, monkeypatch, ends, said):
    """Killed, or at an end without a result: a wrong one, with how it ended and what it was at."""
    script = tmp_path / "tests" / "faults" / "campaigns.py"
    script.parent.mkdir(parents=True)
    journal = f"open(sys.argv[-1] + '/{record.JOURNAL}', 'w').write('[analysis]')"
    script.write_text(f"import os, sys\n{journal}\n{ends}\n")
    monkeypatch.setattr(record, "ROOT", tmp_path)
    monkeypatch.setattr(record, "state", lambda: "s")
    monkeypatch.setitem(record.FULL, "chunks", replace(record.FULL["chunks"], portions=2))
    rows = record.campaign("chunks", kept=tmp_path / "kept", record=tmp_path / "record.json")
    assert [(row.tried, row.wrong) for row in rows] == [(2, 2)]
    assert f"portion 1 of chunks: {said}, at " in rows[0].note
    assert (tmp_path / "kept" / f"portion 0 of chunks {record.JOURNAL}").read_text() == "[analysis]"
    assert record.recorded(tmp_path / "record.json")["chunks"] == rows
