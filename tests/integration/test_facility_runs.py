"""Whole runs on local processes and on a real Dask cluster; what partial data may and may not do."""

import json
import subprocess
import sys
import time
from pathlib import Path

import forks
import pytest
import uproot
from builders import ROOT
from injection import kills, workers

from gammastar.core.errors import SteeringError
from gammastar.facility import open_executor
from gammastar.pipeline.run import run
from gammastar.results.show import verify_results


def gammastar(*arguments, check=True):
    return forks.gammastar(*arguments, check=check)


@pytest.mark.slow
def test_the_whole_chain_on_processes_and_on_a_real_dask_cluster(tmp_path):
    steering = kills.steering(tmp_path / "steering.toml")
    gammastar("run", steering, "--output", tmp_path / "serial")
    expected = kills.contents(tmp_path / "serial")
    gammastar("run", steering, "--output", tmp_path / "two", "--workers", 2)
    assert kills.contents(tmp_path / "two") == expected
    file = tmp_path / "scheduler.json"
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    base = [sys.executable, "-m", "dask"]
    commands = [
        [*base, "scheduler", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)],
        *[[*base, "worker", "--no-dashboard", "--nthreads", "1", "--scheduler-file", str(file)]] * 2,
    ]
    running = [subprocess.Popen(command, cwd=tmp_path, **options) for command in commands]
    try:
        for _ in range(600):
            if file.is_file():
                break
            time.sleep(0.1)
        address = json.loads(file.read_text())["address"]
        gammastar("run", steering, "--output", tmp_path / "dask", "--dask", address)
    finally:
        for process in running:
            process.terminate()
        for process in running:
            process.wait()
    assert kills.contents(tmp_path / "dask") == expected


@pytest.mark.slow
def test_partial_data_make_no_limit_unless_allowed(tmp_path):
    files = [str(path) for path in workers.poisoned(tmp_path, 100, (42,))]
    steering = kills.steering(tmp_path / "steering.toml")
    text = steering.read_text()
    start = text.index("files = [")
    end = text.index("]", start) + 1
    steering.write_text(text[:start] + f"files = {json.dumps(files)}" + text[end:])
    run = gammastar("run", steering, "--output", tmp_path / "a", "--workers", 1, check=False)
    assert run.returncode == 2
    assert "part042.root" in run.stderr
    options = ["--workers", 1, "--skip-bad"]
    run = gammastar("run", steering, "--output", tmp_path / "a", *options, check=False)
    assert run.returncode == 2
    assert "--allow-partial" in run.stderr
    gammastar("run", steering, "--output", tmp_path / "a", *options, "--allow-partial", "--resume")
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_text())
    partial = manifest["partial"]["select"]
    assert partial["lost_fraction"] == pytest.approx(0.01)
    assert partial["skipped"][0]["file"].endswith("part042.root")
    assert any("protons on target lost" in note for note in manifest["notes"])
    exposure = json.loads((tmp_path / "a" / "spectrum.json").read_text())["metadata"]["exposure"]
    assert exposure["pot"] == pytest.approx(0.99 * 1.1988e11)


@pytest.mark.slow
def test_a_killed_run_with_workers_resumes_from_its_chunks_and_leaves_no_process(tmp_path):
    steering = kills.steering(tmp_path / "steering.toml", step="100 kB")
    gammastar("run", steering, "--output", tmp_path / "serial")
    folder = tmp_path / "killed"
    command = [
        sys.executable,
        "-m",
        "gammastar",
        "run",
        str(steering),
        "--output",
        str(folder),
        "--workers",
        "2",
    ]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "start_new_session": True}
    process = subprocess.Popen(command, **options)
    for _ in range(6000):
        if len(list(folder.glob("chunks/pairs/*.parquet"))) >= 3 or process.poll() is not None:
            break
        time.sleep(0.01)
    process.kill()
    process.wait()
    kept = {path: path.stat().st_mtime_ns for path in folder.glob("chunks/pairs/pairs-*.parquet")}
    gammastar("run", steering, "--output", folder, "--workers", 2, "--resume")
    assert kills.contents(folder) == kills.contents(tmp_path / "serial")
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    for _ in range(300):
        left = [p for p in Path("/proc").glob("[0-9]*") if _session(p) == process.pid]
        if not left:
            break
        time.sleep(0.1)
    assert not left


@pytest.mark.slow
@pytest.mark.flow
def test_a_run_killed_while_its_flow_is_trained_resumes_to_the_same(tmp_path):
    steering = tmp_path / "steering.toml"
    text = kills.SMALL.read_text().partition("[predict]")[0].replace("../../", f"{ROOT}/")
    schema = f'schema = "{kills.SMALL.parent}/schema.toml"'
    steering.write_text(text.replace('schema = "schema.toml"', schema))
    gammastar("run", steering, "--output", tmp_path / "once")
    folder = tmp_path / "killed"
    command = [sys.executable, "-m", "gammastar", "run", str(steering), "--output", str(folder), "--resume"]
    options = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    for wait in (0.5, 2.0):
        process = subprocess.Popen(command, **options)
        for _ in range(60_000):
            if (folder / "spectrum.json").is_file() or process.poll() is not None:
                break
            time.sleep(0.01)
        time.sleep(wait)
        process.kill()
        process.wait()
        assert kills.whole(folder) == []
    gammastar(*command[3:])
    expected = kills.contents(tmp_path / "once")
    assert "flow" in expected
    assert kills.contents(folder) == expected


def _session(process):
    """Return the session of a process; workers stay in that of their run."""
    try:
        return int((process / "stat").read_text().rpartition(")")[2].split()[3])
    except (OSError, ValueError, IndexError):
        return -1


def test_missing_files_are_left_out_and_reported(tmp_path):
    """A dataset of a fileset, known by UUID, beside a file that is not there."""
    path = kills.steering(tmp_path / "steering.toml")
    text = path.read_text().split("[subtract]")[0]
    start = text.index("files = [")
    files = {"data": {"files": {str(workers.DATA): "events"}}, "ttbar": {"files": ["other.root"]}}
    (tmp_path / "fileset.json").write_text(json.dumps(files))
    names = 'files = ["fileset.json:data", "gone.root"]\ndigest = "uuid"'
    path.write_text(text[:start] + names + text[text.index("]", start) + 1 :])
    with pytest.raises(SteeringError, match=r"gone\.root"):
        run(path, output=tmp_path / "strict")
    with open_executor(skip_bad=True) as executor:
        run(path, output=tmp_path / "out", executor=executor)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    with uproot.open(workers.DATA) as file:
        uuid = str(file.file.uuid)
    assert any(str(sha).startswith(f"uuid:{uuid}:") for sha in manifest["inputs"].values())
    (skipped,) = manifest["partial"]["select"]["skipped"]
    assert skipped["file"] == str(tmp_path / "gone.root")
    assert "UUID" in manifest["methods"]["identity of inputs"]
    assert any("ok uuid:" in line for line in verify_results(tmp_path / "out"))


@pytest.mark.slow
@pytest.mark.flow
def test_what_was_skipped_stands_in_every_result(tmp_path):
    """A reach without a part of the data says so in page, JSON, submission, terminal and reinterpretation."""
    small = kills.ROOT / "analysis" / "na60_dimuon"
    broken = tmp_path / "broken.root"
    whole = (kills.ROOT / "data" / "mock" / "na60_data.root").read_bytes()
    broken.write_bytes(whole[: len(whole) // 2])
    text = (small / "small.toml").read_text().replace('"schema.toml"', f'"{small / "schema.toml"}"')
    files = f'files = ["mock/na60_data.root", "{broken}", "{tmp_path / "absent.root"}"]'
    (tmp_path / "steering.toml").write_text(text.replace('files = ["mock/na60_data.root"]', files))
    folder = tmp_path / "out"
    options = ["--skip-bad", "--allow-partial"]
    told = gammastar("run", tmp_path / "steering.toml", "--output", folder, *options).stderr
    again = gammastar("show", folder).stdout
    other = tmp_path / "other"
    run = gammastar("reinterpret", folder, "--output", other, check=False)
    assert run.returncode == 2
    assert "--allow-partial" in run.stderr
    gammastar("reinterpret", folder, "--output", other, "--allow-partial")
    page, reach = (folder / "report.html").read_text(), (folder / "reach.json").read_text()
    submission = "".join(path.read_text() for path in sorted((folder / "hepdata").glob("submission.yaml")))
    for name in ("broken.root", "absent.root"):
        for place in (told, again, page, reach, submission):
            assert name in place
    assert "broken.root" in (other / "report.html").read_text()


@pytest.mark.slow
def test_two_runs_that_begin_together_do_not_mix(tmp_path):
    """Of two runs into one folder one works and the other is refused, with host and process."""
    for k in range(6):
        paths = [kills.steering(tmp_path / f"{k}_{seed}.toml") for seed in (1, 2)]
        paths[1].write_text(paths[1].read_text().replace("seed = 1", "seed = 2"))
        folder = tmp_path / f"out {k}"
        both = [
            subprocess.Popen(
                [sys.executable, "-m", "gammastar", "run", str(path), "--output", str(folder)],
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for path in paths
        ]
        errors = [process.communicate(timeout=600)[1] for process in both]
        codes = [process.returncode for process in both]
        assert sorted(codes) == [0, 2], errors
        lost = codes.index(2)
        assert f"process {both[1 - lost].pid} works in this folder" in " ".join(errors[lost].split())
        gammastar("verify", folder)
        seed = json.loads((folder / "manifest.json").read_text())["seed"]
        assert seed == 2 - lost
