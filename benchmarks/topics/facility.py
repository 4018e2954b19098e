"""The measured half on warm workers: speed-up, cost of Dask, memory, merging; 1e7 events with ``--full``.

The fault campaigns have their own command, ``tests/faults/campaigns.py``; with ``GAMMASTAR_FAULTS=1`` in the
environment and ``--full`` they run here as well.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot
from coffea.processor import accumulate

from gammastar import facility, read
from gammastar.core.sampling import stream
from gammastar.select import Cuts
from gammastar.store.pairs import Job, Source

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests" / "faults"))

SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}
BLOCK = 500_000
STEP = 250_000
ROUNDS = 3
FAULTS = "GAMMASTAR_FAULTS"


def write_events(path: Path, n: int) -> None:
    """Write events with two muons each, block by block."""
    kinds = dict.fromkeys(("px", "py", "pz"), "var * float32") | {"charge": "var * int8"}
    with uproot.recreate(path, compression=uproot.LZ4(1)) as file:
        tree = file.mktree("events", kinds)
        for block in range(-(-n // BLOCK)):
            rng, size = stream(1, "facility", block), min(BLOCK, n - block * BLOCK)
            counts = rng.choice([1, 2, 3], size=size, p=[0.2, 0.6, 0.2])
            total = int(counts.sum())
            flat = {key: rng.normal(0, s, total).astype(np.float32) for key, s in (("px", 0.4), ("py", 0.4))}
            flat["pz"] = (5 + rng.exponential(20, total)).astype(np.float32)
            flat["charge"] = rng.choice(np.array([-1, 1], np.int8), total)
            tree.extend({key: ak.unflatten(values, counts) for key, values in flat.items()})


def _pid(_: int) -> int:
    time.sleep(0.05)  # long enough that the others get one as well
    return os.getpid()


def _ready(executor: facility.Executor, wanted: int) -> int:
    """Return how many workers have begun, after a minute at most: each has then compiled what it needs."""
    seen: set[int] = set()
    for _ in range(60):
        seen |= set(executor.map(_pid, range(2 * wanted)))
        if len(seen) >= wanted:
            break
    return len(seen)


def _job(path: Path, folder: Path) -> Job:
    return Job("pairs", (Source(str(path)),), read.load_schema(SCHEMA), Cuts, STEP, "k", folder)


def _timed(executor: Any, path: Path, folder: Path) -> float:
    start = time.perf_counter()
    parts, _flow = executor.pairs(_job(path, folder))
    n = sum(map(len, parts))
    seconds = time.perf_counter() - start
    if not n:
        msg = f"{path}: no pairs"
        raise RuntimeError(msg)
    shutil.rmtree(folder)
    return seconds


def _seconds(path: Path, small: Path, folder: Path, **kind: Any) -> float:
    """Return the seconds of one job on workers that have imported and compiled everything."""
    wanted = kind.get("workers", 1)
    with facility.open_executor(**kind) as executor:
        ready = _ready(executor, wanted)
        if ready != wanted:
            msg = f"{executor.name}: {ready} of {wanted} workers are ready"
            raise RuntimeError(msg)
        _timed(executor, small, folder / "warm")
        return _timed(executor, path, folder / "job")


def _shortest(path: Path, small: Path, folder: Path) -> dict[str, float]:
    """Return the shortest of some rounds of every kind; in turns, so that a busy minute hits all of them."""
    kinds: dict[str, dict[str, Any]] = {
        "alone": {},
        "one": {"workers": 1},
        "two": {"workers": 2},
        "dask": {"workers": 1, "dask": "local"},
    }
    found = [
        {name: _seconds(path, small, folder, **kind) for name, kind in kinds.items()} for _ in range(ROUNDS)
    ]
    return {name: min(row[name] for row in found) for name in kinds}


def _peak(path: Path, folder: Path) -> float:
    """Return the largest resident memory of one worker [MB]."""
    with facility.open_executor(workers=1, dask="local") as executor:
        parts, _flow = executor.pairs(_job(path, folder))
        sum(map(len, parts))
        return float(executor.map(_resident, [0])[0])


def _resident(_: int) -> float:
    """Return the peak of this process [MB]; ``getrusage`` would count the process that started it."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return float(status.partition("VmHWM:")[2].split()[0]) / 1024


def _merge(pairs: int) -> float:
    """Return the seconds to merge the notes of 1000 chunks with this many pairs each."""
    cutflow = [{"name": f"cut {i}", "level": "pair", "n": pairs, "weight": float(pairs)} for i in range(12)]
    notes = [
        {"done": [{"index": 0, "start": i, "stop": i + 1, "pairs": pairs, "cutflow": cutflow}], "failed": []}
        for i in range(1000)
    ]
    start = time.perf_counter()
    accumulate(notes)
    return time.perf_counter() - start


def rows(*, full: bool = False) -> Iterator[dict]:
    n = 10_000_000 if full else 4_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path, small = folder / "events.root", folder / "small.root"
        write_events(path, n)
        write_events(small, 100_000)
        text = f"{n:.0e} events, warm workers"
        took = _shortest(path, small, folder)
        speed = f"{text}: 2 processes against 1 ({took['one']:.2f} s, {took['two']:.2f} s)"
        yield {"claim": speed, "measured": took["one"] / took["two"], "goal": 1.7}
        claim = f"{text}: Dask with one worker against this process, time added"
        yield {
            "claim": claim,
            "measured": 100 * (took["dask"] / took["alone"] - 1),
            "goal": 15,
            "higher": False,
            "unit": " %",
        }
        yield from _memory(folder, small, path, n)
    few, many = min(_merge(1_000) for _ in range(3)), min(_merge(1_000_000) for _ in range(3))
    claim = "merging the notes of 1000 chunks: 1e9 pairs against 1e6"
    yield {"claim": claim, "measured": many / few, "goal": 1.2, "higher": False}
    if full and os.environ.get(FAULTS):
        yield from _faults()


def _memory(folder: Path, small: Path, path: Path, n: int) -> Iterator[dict]:
    middle = folder / "middle.root"
    write_events(middle, 1_000_000)
    found = {}
    for events, file in ((100_000, small), (1_000_000, middle), (n, path)):
        found[events] = _peak(file, folder / f"memory {events}")
        claim = f"largest memory of a worker, {events:.0e} events"
        yield {"claim": claim, "measured": found[events], "goal": 2048, "higher": False, "unit": " MB"}
    claim = f"memory of a worker: {n:.0e} against 1e6 events"
    yield {"claim": claim, "measured": found[n] / found[1_000_000], "goal": 1.3, "higher": False}


def _faults() -> Iterator[dict]:
    from injection import record

    found = record.recorded()
    results = [r for name in record.FULL for r in found.get(name) or record.campaign(name)]
    for result in (r for r in results if r.counted):
        claim = f"{result.what} ({result.tried} tried)"
        yield {"claim": claim, "measured": result.wrong, "goal": result.allowed, "higher": False, "unit": ""}
