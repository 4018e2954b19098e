"""The measured half as a coffea processor: a range of entries in, a Parquet file of pairs out."""

from __future__ import annotations

import functools
import itertools
import logging
import operator
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from gammastar import read, select
from gammastar.core import errors
from gammastar.core.errors import BranchError, GammastarError, InputFileError, StoreError
from gammastar.core.files import state_of
from gammastar.core.machine import full, keep_heap, told
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray
from gammastar.core.resolve import guarded
from gammastar.facility.companions import Signature, same_here, signature
from gammastar.facility.costs import stopwatch
from gammastar.select import Cutflow, Cuts, Step
from gammastar.store.chunks import Arrays, Chunk, Job, Source, read_chunk, write_chunk
from gammastar.store.remote import Remote, identity, kind_of

TRIAL_SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}

APART = 1 << 40  # events of one file, at most
FIRST = "gammastar_first"  # beside metadata of users
FIELDS = ("mass", "pt", "energy", "charge", "weight", "event")
logger = logging.getLogger(__name__)


class BadFile(InputFileError, OSError):
    """A file that cannot be read or lacks a branch, as coffea's ``skipbadfiles`` knows it."""


@dataclass(frozen=True)
class DileptonPairs:
    """Select the lepton pairs of a chunk and keep them as Parquet; a plain callable for coffea's ``Runner``.

    Attributes
    ----------
    job : Job
        What to select, from which files, and where to keep it.
    fill : callable, optional
        Takes the pairs of a chunk and returns a mapping of name to histogram, or to anything else that coffea
        can add.
    notes : bool
        Return what went wrong as notes under "failed" and nothing but notes, as ``Executor`` wants it, since
        exceptions lose their type on some executors.
    code : tuple of (name, version)
        Digest of the code and versions of libraries of the run; a worker with others refuses to work.

    Raises
    ------
    BadFile
        By a call, unless `notes` is set: a file cannot be read or lacks a branch. It is an OSError, so that
        `skipbadfiles` and `retries` of the ``Runner`` act.
    GammastarError
        Whatever else is wrong: a function of the user, another version of the package.

    Notes
    -----
    A call returns, to be added by coffea over the chunks that came back: ``done``, one note per chunk with
    the name of its Parquet file, its time and memory (`stopwatch`); ``entries`` and ``pairs``, their numbers;
    ``cutflow``; ``columns``, the branches that were read (coffea's own metrics see none of them, since its
    events are not touched); and under ``filled`` what `fill` returned. What it weighs does not depend on the
    number of pairs.
    """

    job: Job
    fill: Callable[[Pairs], Mapping[str, Any]] | None = None
    notes: bool = False
    code: Signature = field(default_factory=signature)

    def __call__(self, events: Any) -> dict[str, Any]:
        """Work on the entries that coffea's metadata name."""
        at = events.metadata
        index = self.index(at["filename"])
        first = int(at[FIRST]) if FIRST in at else self.first(index)
        path = self.job.sources[index].path
        chunk = Chunk(path, index, int(at["entrystart"]), int(at["entrystop"]), first)
        found = self.work(chunk)
        if self.notes:
            return found
        for failed in found["failed"]:
            raise _error(failed)
        (note,) = found["done"]
        result = {
            "done": found["done"],
            "entries": int(note["entries"]),
            "pairs": int(note["pairs"]),
            "cutflow": Cutflow(tuple(Step(**row) for row in note["cutflow"])),
            "columns": set(self.job.schema.branches(truth=self.job.kind == "truth")),
        }
        if self.fill is None:
            return result
        arrays = read_chunk(self.job.path(chunk), self.job.chunk_key(chunk)).arrays
        with guarded():
            return result | {"filled": dict(self.fill(pairs_of(arrays)))}

    def index(self, path: str) -> int:
        """Return the number of a file in the job."""
        try:
            return self._numbers[path]
        except KeyError:
            msg = f"{path}: is not a file of this job"
            raise InputFileError(msg) from None

    def first(self, index: int) -> int:
        """Return the number of a file's first event where the schema names no event branch.

        The sum of the entries before it if the job knows them; else far enough from those of other files.

        Parameters
        ----------
        index : int
            Number of the file.
        """
        return self._firsts[index]

    @functools.cached_property
    def _firsts(self) -> list[int]:
        entries = [source.entries for source in self.job.sources]
        if min(entries, default=0) >= 0:
            return list(itertools.accumulate(entries, initial=0))
        return [i * APART for i in range(len(entries))]

    @functools.cached_property
    def _numbers(self) -> dict[str, int]:
        return {source.path: i for i, source in enumerate(self.job.sources)}

    def work(self, chunk: Chunk) -> dict[str, list[dict[str, Any]]]:
        """Return the note of a finished chunk, or that of its failure."""
        where = {"index": chunk.index, "start": chunk.start, "stop": chunk.stop, "path": chunk.path}
        try:
            same_here(self.code)
            spent = stopwatch()
            with guarded():
                return {"done": [where | _kept(self.job, chunk) | spent()], "failed": []}
        except GammastarError as error:
            found: GammastarError = error
        except OSError as error:
            if not full(error):
                raise
            found = StoreError(f"{chunk.label}: {told(error)}")
        name, code = type(found).__name__, found.exit_code
        return {"done": [], "failed": [where | {"error": name, "message": str(found), "exit_code": code}]}


def _error(note: Mapping[str, Any]) -> GammastarError:
    kind = getattr(errors, str(note["error"]), GammastarError)
    if kind in (InputFileError, BranchError):
        kind = BadFile
    found: GammastarError = kind(str(note["message"]))
    return found


def _kept(job: Job, chunk: Chunk) -> dict[str, Any]:
    path, key = job.path(chunk), job.chunk_key(chunk)
    if path.is_file():
        try:
            found = read_chunk(path, key)
        except StoreError as error:
            logger.warning("%s; the chunk is made again", error)
        else:
            return {"file": path.name, "content": found.content, "taken": True, **found.notes}
    source = job.sources[chunk.index]
    if source.sha256:
        check_digest(source.path, source.sha256)
    before = state_of(Path(source.path))
    arrays, notes = _truth(job, chunk) if job.kind == "truth" else _pairs(job, chunk)
    if state_of(Path(source.path)) != before:
        msg = f"{chunk.label}: somebody touched or replaced the file while it was read; run again"
        raise InputFileError(msg)
    content = write_chunk(path, key, arrays, notes)
    return {"file": path.name, "content": content, "taken": False, **notes}


def check_digest(path: str, sha256: str) -> None:
    """Check a file once per process, and again when it changes."""
    kind = kind_of(sha256)
    found = _remote(path, kind) if "://" in path else _local(path, kind, state_of(Path(path)))
    if found != sha256:
        what = "SHA-256" if kind == "sha256" else "UUID"
        msg = f"{path}: {what} is {found}, expected {sha256}; the file was changed or damaged"
        raise InputFileError(msg)


@functools.lru_cache(maxsize=4096)
def _local(path: str, kind: str, _state: tuple[int, ...]) -> str:
    return identity(Path(path), kind)


@functools.lru_cache(maxsize=4096)
def _remote(path: str, kind: str) -> str:
    return identity(Remote(path), kind)


def _events(job: Job, chunk: Chunk) -> ak.Array | None:
    size = max(1, chunk.stop - chunk.start)
    found = list(
        read.open_events(chunk.path, job.schema, step=size, entry_start=chunk.start, entry_stop=chunk.stop)
    )
    if not found:
        return None
    events = found[0] if len(found) == 1 else ak.concatenate(found)
    if not job.schema.event and chunk.first:  # numbered through all files, as without workers
        events = ak.with_field(events, np.asarray(events.event) + chunk.first, "event")
    return events


def _pairs(job: Job, chunk: Chunk) -> tuple[Arrays, dict[str, Any]]:
    events = _events(job, chunk)
    found, flow = (Pairs.empty(), Cutflow()) if events is None else select.pairs(events, job.cuts())
    arrays = {name: getattr(found, name) for name in FIELDS}
    notes = {"entries": chunk.stop - chunk.start, "pairs": len(found), "cutflow": flow.rows()}
    return arrays, notes


def _truth(job: Job, chunk: Chunk) -> tuple[Arrays, dict[str, Any]]:
    flows: list[Cutflow] = []
    found = read.matched(
        chunk.path,
        job.schema,
        select.counting(job.cuts(), flows),
        step=max(1, chunk.stop - chunk.start),
        entry_start=chunk.start,
        entry_stop=chunk.stop,
    )
    first = 0 if job.schema.event else chunk.first
    n, m = len(found), len(found.fake_weight)
    arrays = {
        "true": np.concatenate([found.true, np.full((m, 3), np.nan)]),
        "reco": np.concatenate([found.reco, found.fakes]),
        "weight": np.concatenate([found.weight, found.fake_weight]),
        "event": np.concatenate([found.event + first, np.full(m, -1, dtype=np.int64)]),
        "fake": np.arange(n + m) >= n,
    }
    rows = functools.reduce(operator.add, flows, Cutflow()).rows()
    return arrays, {"entries": chunk.stop - chunk.start, "pairs": n, "fakes": m, "cutflow": rows}


def pairs_of(arrays: Mapping[str, Any]) -> Pairs:
    """Return the pairs of a kept chunk."""
    return Pairs(*(arrays[name] for name in FIELDS))


def matched_of(arrays: Mapping[str, Any]) -> MatchedPairs:
    """Return the simulated photons of a kept chunk."""
    fake = np.asarray(arrays["fake"], dtype=bool)
    true: FloatArray = arrays["true"][~fake]
    reco, weight = arrays["reco"], arrays["weight"]
    return MatchedPairs(true, reco[~fake], weight[~fake], arrays["event"][~fake], reco[fake], weight[fake])


@functools.cache
def warm() -> int:
    """Select pairs of three events by the way of every other chunk; return the number of this process.

    A worker that compiles during its first chunk delays the whole job by that time: seconds, against tenths
    of a second for a chunk.
    """
    from gammastar.facility.executors import open_executor

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
        job = Job("pairs", (Source(str(path)),), read.load_schema(TRIAL_SCHEMA), Cuts, 2, "warm", path.parent)
        with open_executor() as executor:
            executor.pairs(job)
    return os.getpid()
