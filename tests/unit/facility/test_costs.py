"""Time and memory of a piece of work, and how tasks are called on Dask's dashboard."""

import mmap
import sys
import time
from types import SimpleNamespace

import pytest
from dask.utils import key_split

from gammastar.facility.crew import DaskCrew
from gammastar.facility.processor import stopwatch, summary


def test_time_and_processor_time():
    spent = stopwatch()
    time.sleep(0.2)
    found = spent()
    assert 0.2 <= found["seconds"] < 5.0
    assert found["cpu_seconds"] < 0.15


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel forgets the mark on Linux alone")
def test_memory_is_that_of_the_piece_alone():
    spent = stopwatch()
    before = spent()["memory_mb"]
    with mmap.mmap(-1, 240_000_000) as block:  # goes back to the system, whatever the allocator keeps
        for _ in range(240):
            block.write(b"1" * 1_000_000)
        assert spent()["memory_mb"] > before + 200.0
    assert stopwatch()()["memory_mb"] < before + 100.0


def test_longest_and_largest_are_of_new_chunks():
    note = {"path": "a.root", "start": 0, "stop": 10, "seconds": 1.0, "memory_mb": 300.0, "taken": False}
    old = note | {"seconds": 90.0, "memory_mb": 900.0, "taken": True}
    slow = note | {"path": "b.root", "seconds": 3.0, "memory_mb": 310.0}
    text = summary([note, old, slow])
    assert text.startswith(
        "3 chunks, 1 of an earlier run, 4 s of work: median 2 s, longest 3 s (b.root[0:10])"
    )
    assert text.endswith("310 MB")


@pytest.mark.parametrize(
    ("name", "bar"), [("pairs", "gammastar-pairs"), ("in_situ", "gammastar-insitu"), ("", "gammastar-tasks")]
)
def test_dashboards_show_what_is_done(name, bar):
    """Dask draws one bar per name in front of numbers."""
    keys = []
    client = SimpleNamespace(submit=lambda *_, key, **__: keys.append(key))
    crew = DaskCrew.__new__(DaskCrew)
    crew.client = client
    crew._submit(len, 3, [], name)
    assert key_split(keys[0]) == bar
