"""The measured half as a coffea processor: a range of entries in, a Parquet file of pairs out."""

from __future__ import annotations

import functools
import hashlib
import itertools
import logging
import operator
import os
import socket
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import awkward as ak
import numpy as np
import uproot

from gammastar import read, select
from gammastar.core import errors
from gammastar.core.errors import BranchError, GammastarError, InputFileError, StoreError
from gammastar.core.files import ANY_SIZE, disk_full_message, is_disk_full, opened, state_of, tune_malloc
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray
from gammastar.core.resolve import user_code_errors
from gammastar.select import Cutflow, Cuts, Step
from gammastar.select.histogram import chunk_sums, flat_suffices
from gammastar.store.filesets import Remote, identity, kind_of
from gammastar.store.manifest import package_digest, versions
from gammastar.store.pairs import Arrays, Chunk, Job, Source, read_chunk, write_chunk

# versions that decide numbers
DECIDE = ("awkward", "numba", "numpy", "scipy", "torch", "uproot", "vector", "zuko")
MOST_FILES = 20  # of a job that every worker looks at before work
EDGE = 4096  # bytes at both ends of a file
Signature = tuple[tuple[str, str], ...]
Print = tuple[tuple[str, str], ...]


@functools.cache
def signature() -> Signature:
    """Return the digest of the package's code and the versions that decide numbers, of this process."""
    found = versions()
    python = ".".join(found["python"].split(".")[:2])
    return (
        ("code of gammastar", package_digest()),
        ("python", python),
        *((name, found[name]) for name in DECIDE),
    )


def compare(there: Iterable[tuple[str, str]], here: Signature, worker: str) -> None:
    """Refuse a worker with other code or other libraries."""
    known = {name: version[:12] if len(version) == 64 else version for name, version in there}
    ours = [(name, version[:12] if len(version) == 64 else version) for name, version in here]
    other = [
        f"{name} {known.get(name, 'unknown')} there, {version} here"
        for name, version in ours
        if known.get(name) != version
    ]
    if other:
        raise StoreError(
            f"worker {worker} has another version: {'; '.join(other)}; install the same everywhere"
        )


def same_here(here: Signature) -> None:
    """Refuse to work in this process for a run with other code or libraries."""
    mine = signature()
    if mine != here:
        compare(mine, here, f"{socket.gethostname()}, process {os.getpid()},")


def chosen(paths: Sequence[str]) -> list[str]:
    """Return the local files that are compared: all, or some evenly spread."""
    local = [path for path in paths if "://" not in path]
    step = max(1, -(-len(local) // MOST_FILES))
    return local[::step]


def fingerprint(paths: list[str], token: str) -> Print:
    """Return size and ends of files as this process sees them, and the content of a small one."""
    return tuple((path, _seen(Path(path), whole=path == token)) for path in [token, *paths])


def _seen(path: Path, *, whole: bool) -> str:
    try:
        with opened(path, ANY_SIZE) as file:
            if whole:
                return file.read(EDGE).decode(errors="replace")
            size = file.seek(0, os.SEEK_END)
            file.seek(0)
            content = file.read(EDGE)
            file.seek(max(0, size - EDGE))
            return f"{size} bytes, ends {hashlib.sha256(content + file.read(EDGE)).hexdigest()[:12]}"
    except OSError as error:
        return error.strerror or type(error).__name__


def other_files(there: Mapping[str, Any], here: Print, folder: Path) -> None:
    """Refuse workers that see other files, or not the folder of results."""
    host = socket.gethostname()
    for worker, seen in there.items():
        for (path, theirs), (_, ours) in zip(seen, here, strict=True):
            if theirs == ours:
                continue
            if path == here[0][0]:
                msg = (
                    f"worker {worker} does not see the folder of results {folder} of {host} ({theirs}); "
                    "both must share it under the same path: choose one with --output"
                )
            else:
                msg = (
                    f"{path}: worker {worker} sees another file ({theirs}) than {host} ({ours}); "
                    "mount the same data under the same path everywhere"
                )
            raise StoreError(msg)


TRIAL_SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}
APART = 1 << 40  # events of one file, at most
FIELDS = ("mass", "pt", "energy", "charge", "weight", "event")
COLUMN = "column_"  # before the name of another one
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
    code : tuple of (name, version)
        Digest of the code and versions of libraries of the run; a worker with others refuses to work.

    Raises
    ------
    BadFile
        By a call: a file cannot be read or lacks a branch. It is an OSError, so that `skipbadfiles` and
        `retries` of the ``Runner`` act.
    GammastarError
        Whatever else is wrong: a function of the user, another version of the package.

    Notes
    -----
    A call returns, to be added by coffea over the chunks that came back: ``done``, one note per chunk with
    the name of its Parquet file; ``entries`` and ``pairs``, their numbers;
    ``cutflow``; ``columns``, the branches that were read (coffea's own metrics see none of them, since its
    events are not touched); and under ``filled`` what `fill` returned. What it weighs does not depend on the
    number of pairs.
    """

    job: Job
    fill: Callable[[Pairs], Mapping[str, Any]] | None = None
    code: Signature = field(default_factory=signature)

    def __call__(self, events: Any) -> dict[str, Any]:
        """Work on the entries that coffea's metadata name."""
        at = events.metadata
        path = at["filename"]
        if path not in self._firsts:
            raise InputFileError(f"{path}: is not a file of this job")
        index, first = self._firsts[path]
        chunk = Chunk(path, index, int(at["entrystart"]), int(at["entrystop"]), first)
        note = self.work(chunk)
        if "error" in note:
            kind = getattr(errors, str(note["error"]), GammastarError)
            raise (BadFile if kind in (InputFileError, BranchError) else kind)(str(note["message"]))
        result = {
            "done": [note],
            "entries": int(note["entries"]),
            "pairs": int(note["pairs"]),
            "cutflow": Cutflow(tuple(Step(**row) for row in note["cutflow"])),
            "columns": set(self.job.schema.branches(truth=self.job.kind == "truth")),
        }
        if self.fill is None:
            return result
        arrays = read_chunk(self.job.path(chunk), self.job.chunk_key(chunk)).arrays
        with user_code_errors():
            return result | {"filled": dict(self.fill(pairs_of(arrays)))}

    @functools.cached_property
    def _firsts(self) -> dict[str, tuple[int, int]]:
        """Number of each file and of its first event, where the schema names no event branch.

        The sum of the entries before it if the job knows them; else far enough from those of other files.
        """
        entries = [source.entries for source in self.job.sources]
        sizes = entries if min(entries, default=0) >= 0 else [APART] * len(entries)
        places = enumerate(itertools.accumulate(sizes, initial=0))
        return {source.path: place for source, place in zip(self.job.sources, places, strict=False)}

    def work(self, chunk: Chunk) -> dict[str, Any]:
        """Return the note of a finished chunk, or of its failure: elsewhere exceptions lose their type."""
        where = {"index": chunk.index, "start": chunk.start, "stop": chunk.stop, "path": chunk.path}
        try:
            same_here(self.code)
            with user_code_errors():
                return where | _kept(self.job, chunk)
        except GammastarError as error:
            found: GammastarError = error
        except OSError as error:
            if not is_disk_full(error):
                raise
            found = StoreError(f"{chunk.label}: {disk_full_message(error)}")
        return where | {"error": type(found).__name__, "message": str(found)}


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
    make = _truth if job.kind == "truth" else _sums if job.axes else _pairs
    arrays, notes = make(job, chunk)
    if state_of(Path(source.path)) != before:
        raise InputFileError(
            f"{chunk.label}: somebody touched or replaced the file while it was read; run again"
        )
    content = write_chunk(path, key, arrays, notes)
    return {"file": path.name, "content": content, "taken": False, **notes}


def check_digest(path: str, sha256: str) -> None:
    """Check a file once per process, and again when it changes."""
    kind = kind_of(sha256)
    found = _identity(path, kind, state_of(path))
    if found != sha256:
        what = "SHA-256" if kind == "sha256" else "UUID"
        raise InputFileError(f"{path}: {what} is {found}, expected {sha256}; the file was changed or damaged")


@functools.lru_cache(maxsize=4096)
def _identity(path: str, kind: str, _state: tuple[int, ...]) -> str:
    return identity(Remote(path) if "://" in path else Path(path), kind)


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
    arrays |= {COLUMN + name: column for name, column in job.wanted(found).items()}
    notes = {"entries": chunk.stop - chunk.start, "pairs": len(found), "cutflow": flow.rows()}
    return arrays, notes


def _sums(job: Job, chunk: Chunk) -> tuple[Arrays, dict[str, Any]]:
    """Fill the histograms of a chunk: what comes back does not grow with its pairs."""
    cuts = job.cuts()
    reader: Any = read.open_flat if flat_suffices(job.axes, cuts) else read.open_events
    n = chunk.stop - chunk.start
    events = reader(chunk.path, job.schema, step=max(1, n), entry_start=chunk.start, entry_stop=chunk.stop)
    sums, flow = np.zeros((3, 2, *(len(axis) + 2 for axis in job.axes))), Cutflow()
    for more, steps in chunk_sums(events, job.axes, cuts):
        sums, flow = sums + more, flow + steps
    pairs = sum(step.n for step in flow.steps[-1:])
    return {"sums": sums.ravel()}, {"entries": n, "pairs": pairs, "cutflow": flow.rows()}


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
    for name, column in job.wanted(found).items():
        arrays[COLUMN + name] = np.concatenate([column, np.zeros(m, dtype=column.dtype)])
    rows = functools.reduce(operator.add, flows, Cutflow()).rows()
    return arrays, {"entries": chunk.stop - chunk.start, "pairs": n, "fakes": m, "cutflow": rows}


def pairs_of(arrays: Mapping[str, Any]) -> Pairs:
    """Return the pairs of a kept chunk."""
    columns = {name.removeprefix(COLUMN): arrays[name] for name in arrays if name.startswith(COLUMN)}
    return Pairs(**{name: arrays[name] for name in FIELDS}, columns=columns)


def matched_of(arrays: Mapping[str, Any]) -> MatchedPairs:
    """Return the simulated photons of a kept chunk."""
    fake = np.asarray(arrays["fake"], dtype=bool)
    true: FloatArray = arrays["true"][~fake]
    reco, weight, event = arrays["reco"], arrays["weight"], arrays["event"][~fake]
    columns = {name.removeprefix(COLUMN): arrays[name][~fake] for name in arrays if name.startswith(COLUMN)}
    return MatchedPairs(true, reco[~fake], weight[~fake], event, reco[fake], weight[fake], columns)


def warm() -> int:
    """Select pairs of three events by the way of every other chunk; return that one process is ready.

    A worker that compiles during its first chunk delays the whole job by that time: seconds, against tenths
    of a second for a chunk.
    """
    tune_malloc()
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
        note = DileptonPairs(job).work(Chunk(str(path), 0, 0, 3))
        if "error" in note:
            raise StoreError(str(note["message"]))
        pairs_of(read_chunk(path.parent / note["file"]).arrays)
    return 1
