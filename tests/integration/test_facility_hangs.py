"""Workers that are stopped or hang, schedulers that do not answer: an end in time, with the same pairs."""

import contextlib
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import pytest
from injection import hangs, workers

from gammastar import facility
from gammastar.core.errors import SteeringError, StoreError


@pytest.mark.parametrize("how", ["stopped", "waits"])
def test_a_local_worker_that_is_stuck_loses_its_chunk(tmp_path, how):
    job = replace(workers.job(tmp_path / "chunks", step=2_000), cuts=hangs.stopping(tmp_path / "first", how))
    with facility.open_executor(workers=2, patience=hangs.SHORT) as executor:
        found, _ = executor.pairs(job)
        assert workers.content(found) == workers.content(workers.serial()[0])
        assert any("worker process" in note and "na60_data.root[" in note for note in executor.events)


def test_tasks_of_stuck_workers_are_done_again(tmp_path):
    def task(i):
        if i == 3 and _first(tmp_path / "stopped"):
            os.kill(os.getpid(), signal.SIGSTOP)
        if i == 4 and _first(tmp_path / "waits"):
            time.sleep(10_000)
        return i * i

    def _first(path):
        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return False
        return True

    with facility.open_executor(workers=2, patience=hangs.SHORT) as executor:
        assert executor.map(task, range(8)) == [i * i for i in range(8)]
        assert any("task" in note for note in executor.events)


def test_whoever_computes_is_not_stuck():
    def long(_):
        end = time.process_time() + 1.2
        while time.process_time() < end:
            pass
        return os.getpid()

    patience = replace(hangs.SHORT, silence=0.5, idle=0.5)
    with facility.open_executor(workers=1, patience=patience) as executor:
        executor.map(long, [0])
        assert executor.events == []


@pytest.mark.slow
@pytest.mark.parametrize("nanny", ["--nanny", "--no-nanny"])
def test_a_dask_worker_that_is_stopped_loses_its_chunk(tmp_path, nanny):
    job = replace(
        workers.job(tmp_path / "chunks", step=2_000), cuts=hangs.stopping(tmp_path / "first", "stopped")
    )
    with (
        hangs.dask(tmp_path, options=(nanny,)) as (address, _),
        facility.open_executor(dask=address, patience=hangs.SHORT) as executor,
    ):
        found, _ = executor.pairs(job)
        assert workers.content(found) == workers.content(workers.serial()[0])
        assert any("has not answered" in note for note in executor.events)


@pytest.mark.slow
@pytest.mark.parametrize("what", [signal.SIGKILL, signal.SIGSTOP])
def test_a_scheduler_that_is_gone_is_told_in_time_and_the_run_can_go_on(tmp_path, what):
    job = workers.job(tmp_path / "chunks", step=200)

    def some():
        return len(list(job.folder.glob("*.parquet"))) > 5

    with (
        hangs.dask(tmp_path) as (address, processes),
        facility.open_executor(dask=address, patience=hangs.SHORT) as executor,
        hangs.after(some, lambda: processes[0].send_signal(what)),
    ):
        start = time.monotonic()
        with pytest.raises(StoreError, match=r"scheduler tcp://.*--resume"):
            executor.pairs(job)
        assert time.monotonic() - start < 40
    kept = {path: path.stat().st_mtime_ns for path in job.folder.glob("pairs-*.parquet")}
    with facility.open_executor() as executor:
        found, _ = executor.pairs(job)
        assert workers.content(found) == workers.content(workers.serial()[0])
    assert all(path.stat().st_mtime_ns == at for path, at in kept.items())
    assert kept


@pytest.mark.slow
def test_workers_leave_and_join(tmp_path):
    job = workers.job(tmp_path / "chunks", step=200)

    def some():
        return len(list(job.folder.glob("*.parquet"))) > 5

    with hangs.dask(tmp_path, workers=1) as (address, processes):

        def change():
            processes.append(hangs.worker(address))
            processes[1].terminate()

        with (
            facility.open_executor(dask=address, patience=replace(hangs.SHORT, nobody=60.0)) as executor,
            hangs.after(some, change),
        ):
            found, _ = executor.pairs(job)
            assert workers.content(found) == workers.content(workers.serial()[0])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("missing.json", "missing.json: the scheduler file cannot be read"),
        ("nonsense.json", "nonsense.json: is no scheduler file"),
        ("tcp://127.0.0.1:1", r"no scheduler with a worker answers within 1 s"),
        ("nobody", "no scheduler with a worker answers within 1 s"),
        ("stopped", "no scheduler with a worker answers within 1 s"),
    ],
)
def test_what_is_no_cluster_is_refused_in_time(tmp_path, monkeypatch, given, said):
    monkeypatch.chdir(tmp_path)
    Path("nonsense.json").write_text('{"address": ', encoding="utf-8")
    start = time.monotonic()
    with contextlib.ExitStack() as stack:
        if given in {"nobody", "stopped"}:
            file, processes = stack.enter_context(hangs.dask(tmp_path, workers=0))
            if given == "stopped":
                processes[0].send_signal(signal.SIGSTOP)
            given, start = file, time.monotonic()
        patience = replace(hangs.SHORT, start=1.0)
        with pytest.raises(SteeringError, match=said), facility.open_executor(dask=given, patience=patience):
            pass
        assert time.monotonic() - start < 10


def test_workers_with_too_little_memory_are_refused(tmp_path):
    with (
        hangs.dask(tmp_path, workers=1, options=("--memory-limit", "500MiB")) as (address, _),
        pytest.raises(SteeringError, match="500 MiB of memory, needed are 800 MiB"),
        facility.open_executor(dask=address, patience=hangs.SHORT),
    ):
        pass


def test_a_task_that_hangs_on_every_worker_is_an_error():
    def sleeps(_):
        time.sleep(10_000)

    options = {"workers": 1, "retries": 1, "patience": replace(hangs.SHORT, idle=1.0)}
    said = "workers died 2 times; 2 tasks are not finished: task 0, task 1"
    with pytest.raises(StoreError, match=said), facility.open_executor(**options) as executor:
        executor.map(sleeps, range(2))
