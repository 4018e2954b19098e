"""What chunks cost where they were worked on: time and memory, as a table beside them and in words."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from gammastar.store.records import write_table

PLACE = ("file", "start", "stop", "entries", "pairs")
COLUMNS = (*PLACE, "seconds", "cpu_seconds", "memory_mb", "worker", "taken")
_RESET = Path("/proc/self/clear_refs")
_STATUS = Path("/proc/self/status")


def stopwatch() -> Callable[[], dict[str, Any]]:
    """Begin to measure this process; return the function that says what was spent since then."""
    with contextlib.suppress(OSError):
        _RESET.write_text(
            "5", encoding="utf-8"
        )  # the mark of the largest resident memory falls to what is resident now
    begin, cpu = time.monotonic(), time.process_time()

    def spent() -> dict[str, Any]:
        return {
            "seconds": round(time.monotonic() - begin, 4),
            "cpu_seconds": round(time.process_time() - cpu, 4),
            "memory_mb": round(_highest() / 1e6, 1),
            "worker": f"{socket.gethostname()}:{os.getpid()}",
        }

    return spent


def _highest() -> float:
    """Return the largest resident memory of this process [bytes]."""
    with contextlib.suppress(OSError):
        for line in _STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1]) * 1024.0
    unit = 1.0 if sys.platform == "darwin" else 1024.0
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def write_costs(path: Path, notes: Sequence[Mapping[str, Any]]) -> None:
    """Write what the chunks of a job cost as CSV, one line per chunk."""
    rows = [{**note, "file": note["path"], "taken": int(note["taken"])} for note in notes]
    write_table(path, {name: [row[name] for row in rows] for name in COLUMNS})


def summary(notes: Sequence[Mapping[str, Any]]) -> str:
    """Return number, median and longest time and largest memory of chunks in words."""
    new = [note for note in notes if not note["taken"]]
    if not new:
        return f"{len(notes)} chunks, all of an earlier run"
    longest = max(new, key=lambda note: note["seconds"])
    seconds = [note["seconds"] for note in new]
    taken = f", {len(notes) - len(new)} of an earlier run" if len(new) < len(notes) else ""
    median = statistics.median(seconds)
    return (
        f"{len(notes)} chunks{taken}, {sum(seconds):.3g} s of work: median {median:.3g} s, "
        f"longest {longest['seconds']:.3g} s ({longest['path']}[{longest['start']}:{longest['stop']}]), "
        f"largest memory {max(note['memory_mb'] for note in new):.0f} MB"
    )
