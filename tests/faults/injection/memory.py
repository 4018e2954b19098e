"""A stream of events that is far larger than the memory it may use."""

from __future__ import annotations

import os
import resource
from dataclasses import dataclass
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from gammastar import read, select
from gammastar.core.sampling import stream
from gammastar.store.pairs import write_pairs

LIMIT = 2 << 30
EVENTS = 1_000_000
SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}


@dataclass(frozen=True)
class Streamed:
    """Whether a stream was read to its end, its size as arrays [GB], and the largest resident memory [MB]."""

    finished: bool
    gigabytes: float
    peak: float


def sound_file(path: Path, portion: int) -> None:
    """Write events with 0 to 4 muons."""
    rng = stream(47, "memory", portion)
    counts = rng.poisson(2.0, EVENTS)
    total = int(counts.sum())
    flat = {key: rng.normal(0, s, total).astype(np.float32) for key, s in (("px", 0.4), ("py", 0.4))}
    flat["pz"] = (5 + rng.exponential(20, total)).astype(np.float32)
    flat["charge"] = rng.choice(np.array([-1, 1], np.int8), total)
    kinds = {key: f"var * {values.dtype}" for key, values in flat.items()}
    with uproot.recreate(path, compression=uproot.LZ4(1)) as file:
        file.mktree("events", kinds).extend({key: ak.unflatten(v, counts) for key, v in flat.items()})


def streamed(folder: Path, gigabytes: float, *, portion: int = 0) -> Streamed:
    """Select pairs of events that are `gigabytes` large as arrays, in a child that may use 2 GiB of data."""
    path = folder / "events.root"
    sound_file(path, portion)
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
            size = _work(path, folder, gigabytes)
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            os.write(there, f"{size} {peak}".encode())
            code = 0
        finally:
            os._exit(code)
    os.close(there)
    with os.fdopen(here, "rb") as pipe:
        answer = pipe.read().decode().split()
    os.waitpid(child, 0)
    return Streamed(True, float(answer[0]), float(answer[1])) if answer else Streamed(False, 0.0, np.nan)


def _work(path: Path, folder: Path, gigabytes: float) -> float:
    schema, size = read.load_schema(SCHEMA), 0
    while size < gigabytes * 1e9:
        for events in read.open_events(path, schema, step=250_000):
            size += events.nbytes
            write_pairs(folder / "pairs", [select.pairs(events)[0]])
    return size / 1e9
