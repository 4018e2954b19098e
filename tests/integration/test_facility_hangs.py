"""Workers that are stopped or hang, schedulers that do not answer: an end in time, with the same pairs."""

import json
import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "faults"))

from injection import hangs, workers  # noqa: E402

from gammastar import facility  # noqa: E402
from gammastar.core.errors import SteeringError, StoreError  # noqa: E402


@pytest.mark.parametrize("how", ["stopped", "waits"])
def test_a_local_worker_that_is_stuck_loses_its_chunk(tmp_path, how):
    job = replace(
        workers.job(tmp_path / "chunks", step=2_000), cuts=hangs.stopping(tmp_path / "first", how)
    )
    with facility.open_farm(workers=2, patience=hangs.SHORT) as farm:
        found, _ = farm.pairs(job)
        assert workers.content(found) == workers.content(workers.serial()[0])
        assert any("worker process" in note and "na60_data.root[" in note for note in farm.events)


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

    with facility.open_farm(workers=2, patience=hangs.SHORT) as farm:
        assert farm.map(task, range(8)) == [i * i for i in range(8)]
        assert any("task" in note for note in farm.events)


def test_whoever_computes_is_not_stuck():
    def long(_):
        end = time.process_time() + 6.0
        while time.process_time() < end:
            pass
        return os.getpid()

    with facility.open_farm(workers=1, patience=hangs.SHORT) as farm:
        farm.map(long, [0])
        assert farm.events == []
