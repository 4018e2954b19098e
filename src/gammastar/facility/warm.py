"""Workers that have imported and compiled everything before their first chunk."""

from __future__ import annotations

import functools
import os
import tempfile
from pathlib import Path

import awkward as ak
import numpy as np
import uproot

from gammastar import read
from gammastar.core.machine import keep_heap
from gammastar.select import Cuts
from gammastar.store.chunks import Job, Source

__all__ = ["warm"]

SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}


@functools.cache
def warm() -> int:
    """Select pairs of three events by the way of every other chunk; return the number of this process.

    A worker that compiles during its first chunk delays the whole job by that time: seconds, against tenths
    of a second for a chunk.
    """
    from gammastar.facility.executors import open_farm

    keep_heap()
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "events.root"
        momenta = {key: ak.Array(np.full((3, 2), value)) for key, value in (("px", 0.3), ("pz", 5.0))}
        leptons = momenta | {"py": ak.Array([[0.2, -0.2]] * 3)}
        charges = ak.Array(np.array([[-1, 1]] * 3, dtype=np.int8))
        with uproot.recreate(path) as file:
            kinds = dict.fromkeys(leptons, "var * float64") | {"charge": "var * int8"}
            branches = {**leptons, "charge": charges}
            file.mktree("events", kinds).extend(
                {key: ak.from_regular(value) for key, value in branches.items()}
            )
        job = Job("pairs", (Source(str(path)),), read.load_schema(SCHEMA), Cuts, 2, "warm", path.parent)
        with open_farm() as farm:
            farm.pairs(job)
    return os.getpid()
