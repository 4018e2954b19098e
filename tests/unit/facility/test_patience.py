"""Who is stuck, and for how long nobody is."""

import subprocess
import sys

import psutil
import pytest

from gammastar.facility.crew import DaskCrew, LocalCrew, Patience


class Watched(LocalCrew):
    """A crew of processes of this test: nothing is started."""

    def __init__(self, *processes):
        self.now, self.events, self._used = 0.0, [], {}
        self.there = processes

    def _processes(self):
        return self.there


@pytest.fixture
def sleeping():
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        psutil.Process(process.pid).suspend()  # uses no CPU from here on
        yield psutil.Process(process.pid)
        process.kill()


def test_who_holds_a_task_and_computes_nothing_is_stuck(sleeping):
    crew = Watched(sleeping)
    for now, ended in ((0.0, 0), (9.0, 0), (10.0, 1)):
        crew.now = now
        crew._look({3: "chunk 3"}, 10.0)
        assert len(crew.events) == ended
    assert sleeping.wait(10.0) is None or not sleeping.is_running()
    assert f"worker process {sleeping.pid} did not go on for 10 s" in crew.events[0]
    assert crew.events[0].endswith("chunk 3")


def test_who_has_nothing_to_do_is_not_stuck(sleeping):
    crew = Watched(sleeping, psutil.Process())
    for now in (0.0, 100.0):
        crew._used[psutil.Process().pid] = 0.0, now  # the other one computes
        crew.now = now
        crew._look({3: "chunk 3"}, 10.0)
    assert not crew.events
    assert sleeping.is_running()
    crew._used[psutil.Process().pid] = 0.0, 100.0
    crew._look({3: "chunk 3", 4: "chunk 4"}, 10.0)  # one task more than workers that compute
    assert len(crew.events) == 1


def test_a_dask_worker_is_restarted_when_it_shows_nothing_new(monkeypatch):
    crew = DaskCrew.__new__(DaskCrew)
    crew.now, crew.events, crew._signs, crew._answered, crew._manned = 0.0, [], {}, 0.0, 0.0
    crew.patience, restarted = Patience(), []
    known = {"last_seen": 1.0, "metrics": {"cpu": 99.0}}
    monkeypatch.setattr(crew, "workers", lambda _: {"tcp://a": known}, raising=False)
    monkeypatch.setattr(crew, "_asked", lambda *_: {"tcp://a": ["gammastar-pairs-0-3"]}, raising=False)
    monkeypatch.setattr(crew, "restart", restarted.append, raising=False)
    for now, seen, cpu, n in ((1, 1.0, 99.0, 0), (9, 9.0, 99.0, 0), (18, 9.0, 99.0, 0), (19, 9.0, 99.0, 1)):
        crew.now, known["last_seen"], known["metrics"]["cpu"] = float(now), seen, cpu
        crew._look({3: "chunk 3"}, 10.0)
        assert len(restarted) == n  # without heartbeat for 10 s, whatever it showed last
    crew._signs.clear()
    for now, n in ((20, 1), (29, 1), (30, 2)):
        crew.now, known["last_seen"], known["metrics"]["cpu"] = float(now), float(now), 1.0
        crew._look({3: "chunk 3"}, 10.0)
        assert len(restarted) == n  # heartbeats, but nothing is computed
