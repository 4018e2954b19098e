"""Chunks and tasks on local processes, Dask and other executors of coffea, through one small interface."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle
import numpy as np
from coffea.processor import IterativeExecutor
from coffea.util import coffea_console

from gammastar.core import errors
from gammastar.core.errors import BranchError, GammastarError, InputFileError, StoreError
from gammastar.core.files import disk_full_message, is_disk_full
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray
from gammastar.core.resolve import install, installed, user_code_errors
from gammastar.facility.crew import Crew, DaskCrew, LocalCrew, Patience, connected
from gammastar.facility.processor import (
    DileptonPairs,
    matched_of,
    pairs_of,
    same_here,
    signature,
)
from gammastar.select import Cutflow, Step
from gammastar.store.filesets import write_fileset
from gammastar.store.pairs import Chunk, Job, Kept, Source, read_chunk, split

Tell: TypeAlias = Callable[[str, float | None, str], None]
logger = logging.getLogger(__name__)


@dataclass
class Executor:
    """Where chunks and independent tasks are worked on.

    Attributes
    ----------
    name : str
        For the manifest, e.g. ``"2 local processes"``.
    coffea : function without arguments that returns an executor of coffea, or None
        Without `crew` it does the work, a new one in every round and without limits in time; None: here.
    crew : Crew or None
        Workers that are watched.
    retries : int
        Further rounds for what failed or was lost; every one is logged and noted in `events`.
    skip_bad : bool
        Leave out chunks that stay unreadable and report them in `skipped`.
    entries : dict
        Entries of the data and of the simulation, skipped ones included.
    flows : dict
        Cutflows of the finished jobs on data and simulation.
    threads : int
        Kept chunks that this process reads and checks at the same time.
    tell : function of stage, fraction and text, or None
        Receives progress: finished chunks and tasks.
    companions : dict
        Code and versions that all workers have, for the manifest.
    events : list of str
        What happened, for the record.
    skipped : list of mapping
        What was left out of the input.
    """

    name: str
    coffea: Callable[[], Any] | None = None
    crew: Crew | None = None
    retries: int = 3
    skip_bad: bool = False
    events: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    flows: dict[str, Cutflow] = field(default_factory=dict)
    threads: int = 1
    tell: Tell | None = None
    companions: dict[str, str] = field(default_factory=dict)

    def lost_fraction(self, kind: str = "pairs") -> float:
        """Return which part of the entries of the data ("pairs") or simulation ("truth") was left out."""
        lost = sum(int(entry["entries"]) for entry in self.skipped if entry["kind"] == kind)
        return lost / self.entries[kind] if lost else 0.0

    def pairs(self, job: Job) -> tuple[Iterator[Pairs], Cutflow]:
        """Return the pairs chunk by chunk in the order of the files, read when asked for; the cutflow."""
        found = self._harvest(job)
        return (pairs_of(kept.arrays) for kept in found), self.flows["pairs"]

    def histograms(self, job: Job) -> tuple[FloatArray, Cutflow]:
        """Return the sums of the pairs by charge in the axes of the job, with flow bins, and the cutflow."""
        found = self._harvest(job)
        sums = functools.reduce(np.add, (kept.arrays["sums"] for kept in found))
        return sums.reshape(3, 2, *(len(axis) + 2 for axis in job.axes)), self.flows["pairs"]

    def truth(self, job: Job) -> Iterator[MatchedPairs]:
        """Return the simulated photons chunk by chunk in the order of the files, read when asked for."""
        return (matched_of(kept.arrays) for kept in self._harvest(job))

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers of other machines that see other files than this one, or not the folder."""
        if isinstance(self.crew, DaskCrew):
            self.crew.same_files(paths, folder)

    def _harvest(self, job: Job) -> Harvest:
        self.same_files([source.path for source in job.sources], job.folder)
        found = harvest(self, job)
        flow = Cutflow()
        for note in found.notes.values():
            flow += Cutflow(tuple(Step(**row) for row in note["cutflow"]))
        self.flows[job.kind] = flow
        return found

    def map(
        self,
        function: Callable[[Any], Any],
        items: Iterable[Any],
        *,
        stage: str | None = None,
        what: str = "tasks",
        label: Callable[[Any], str] | None = None,
    ) -> list[Any]:
        """Return ``[function(item) for item in items]``, computed by the workers.

        Parameters
        ----------
        function : callable
            For grid points, toys, campaigns and members of an ensemble. It must not depend on order or place
            of its calls: take random numbers from ``core.sampling.stream`` under the name of the item.
        stage : str, optional
            Report finished tasks under this name.
        what : str
            What is counted.
        label : function of an item, optional
            What it is called in messages.
        """
        waiting = dict(enumerate(items))
        results: dict[int, Any] = {}
        blob, total = _packed(function), len(waiting)

        def named(task: tuple[int, Any]) -> str:
            return f"task {task[0]}" if label is None else label(task[1])

        for attempt in range(1 + self.retries):
            tasks = {index: (index, item) for index, item in waiting.items() if index not in results}
            if not tasks:
                break
            for index, error, value in self._answers(blob, tasks, named, (stage or what, attempt)):
                if error is not None:
                    raise error
                if index in results:
                    raise StoreError(f"{self.name}: {named((index, items))} came back twice")
                results[index] = value
                if stage is not None and self.tell is not None:
                    text = f"{len(results)} of {total} {what}, {self.name}"
                    self.tell(stage, len(results) / max(1, total), text)
            self.note(attempt, total - len(results), what)
        lost = [named((index, item)) for index, item in waiting.items() if index not in results]
        if lost:
            raise StoreError(
                f"{self.name}: workers died {1 + self.retries} times; {len(lost)} {what} are not finished: "
                f"{', '.join(lost[:3])}"
            )
        return [results[index] for index in sorted(results)]

    def _answers(
        self, blob: bytes, tasks: dict[int, Any], label: Callable[[Any], str], about: tuple[str, int]
    ) -> Iterator[tuple[int, GammastarError | None, Any]]:
        if self.crew is None:
            listed = [_Task(*task) for task in tasks.values()]
            made = self.coffea or functools.partial(IterativeExecutor, status=False, retries=0)
            yield from made()(listed, functools.partial(_listed, blob), None)[0]
            return
        shared = self.crew.shared(blob)
        name, attempt = about
        try:
            work = functools.partial(_call, shared)
            for _, answer in self.crew.gather(work, tasks, label, name=name, attempt=attempt):
                yield answer
        finally:
            if isinstance(shared, Path):
                shared.unlink(missing_ok=True)

    def note(self, attempt: int, waiting: int, what: str) -> None:
        """Note that a round left something to do."""
        if waiting:
            self.events.append(f"round {attempt + 1} left {waiting} {what}")
            logger.warning("%s: %s", self.name, self.events[-1])


@dataclass(frozen=True)
class Harvest:
    """The finished chunks of a job, read one after the other in the order of files and entries."""

    job: Job
    notes: Mapping[Chunk, Mapping[str, Any]]  # What the workers told about their chunks
    # Chunks that are read at the same time; one more is in memory. Reading lets go of the interpreter
    threads: int

    def __iter__(self) -> Iterator[Kept]:
        reading: deque[Future[Kept]] = deque()
        with ThreadPoolExecutor(max(1, self.threads)) as pool:
            for chunk in self.notes:
                reading.append(pool.submit(self._read, chunk))
                if len(reading) > self.threads:
                    yield reading.popleft().result()
            while reading:
                yield reading.popleft().result()

    def _read(self, chunk: Chunk) -> Kept:
        path, note = self.job.path(chunk), self.notes[chunk]
        if not path.is_file():
            raise StoreError(
                f"{path}: a worker wrote it and it is not here; workers and the run must share this folder"
            )
        found = read_chunk(path, self.job.chunk_key(chunk))
        if found.content != note["content"] or found.notes["entries"] != note["entries"]:
            raise StoreError(f"{path}: is not what the worker wrote")
        return found


def harvest(executor: Executor, job: Job) -> Harvest:
    """Work on all chunks of a job; what another round cannot heal ends it: all but an unreadable file."""
    chunks = plan(executor, job)
    notes: dict[Chunk, dict[str, Any]] = {}
    work, what = DileptonPairs(job).work, "chunks" if job.kind == "pairs" else "chunks of the simulation"
    final = {"InputFileError", "BranchError"} if executor.skip_bad else {"InputFileError"}
    waiting = chunks
    for attempt in range(1 + executor.retries):
        found = executor.map(work, waiting, stage="read", what=what, label=lambda chunk: chunk.label)
        notes |= zip(waiting, found, strict=True)
        waiting = [chunk for chunk in waiting if "error" in notes[chunk]]
        for chunk in waiting:
            if notes[chunk]["error"] not in final:
                raise _error(notes[chunk])
        executor.note(attempt, len(waiting), "chunks")
        if not waiting:
            break
    for chunk in waiting:
        if not executor.skip_bad or len(waiting) == len(chunks):  # nothing would be left
            raise _error(notes[chunk])
        entry = {"kind": job.kind, "file": chunk.path, "start": chunk.start, "stop": chunk.stop}
        entry |= {"entries": chunk.stop - chunk.start, "why": str(notes.pop(chunk)["message"])}
        executor.skipped.append(entry)
        logger.warning("%s: skipped", chunk.label)
    for chunk, note in notes.items():
        if int(note["entries"]) != chunk.stop - chunk.start:
            raise StoreError(f"{chunk.label}: came back with {note['entries']} entries")
    return Harvest(job, notes, executor.threads)


def plan(executor: Executor, job: Job) -> list[Chunk]:
    """Return the chunks of a job, and write ``fileset_<kind>.json``.

    Files that cannot be opened or lack a branch are skipped where that is asked for; each counts as an
    average file, or by its size.
    """
    found = executor.map(functools.partial(_split, job), [source.path for source in job.sources])
    sources: list[Source] = []
    unread: list[tuple[str, GammastarError]] = []
    steps: dict[str, tuple[int, ...]] = {}
    chunks: list[Chunk] = []
    first = lost = 0
    for index, (source, ((total, edges, uuid), error)) in enumerate(zip(job.sources, found, strict=True)):
        if error is not None:
            unread.append((source.path, error))
            continue
        sources.append(replace(source, entries=total, uuid=uuid))
        steps[source.path] = edges
        chunks.extend(Chunk(source.path, index, *edge, first) for edge in pairwise(edges))
        first += total
    if unread and not (executor.skip_bad and steps):
        raise unread[0][1]
    known = sum(map(_size, steps))
    for path, error in unread:
        by_size = first * _size(path) / known if known else 0.0
        entries = max(1, round(by_size), round(first / len(steps)))
        lost += entries
        entry = {"kind": job.kind, "file": path, "entries": entries, "estimated": True, "why": str(error)}
        executor.skipped.append(entry)
        logger.warning("%s: skipped", path)
    executor.entries[job.kind] = first + lost
    job.folder.mkdir(parents=True, exist_ok=True)
    write_fileset(job.folder / f"fileset_{job.kind}.json", job.kind, job.schema.tree, sources, steps)
    return chunks


def _size(path: str) -> int:
    local = Path(path)
    return local.stat().st_size if local.is_file() else 0


def _split(job: Job, path: str) -> tuple[tuple[int, tuple[int, ...], str], GammastarError | None]:
    try:
        return split(path, job.schema, job.step, truth=job.kind == "truth"), None
    except (BranchError, InputFileError) as error:
        return (0, (0,), ""), error


def _error(note: Mapping[str, Any]) -> GammastarError:
    kind = getattr(errors, str(note["error"]), GammastarError)
    found: GammastarError = kind(str(note["message"]))
    return found


def _packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function with the user code that it may need, for `_function`."""
    blob = cloudpickle.dumps(function)
    code = {name: modules for name, modules in installed().items() if name.encode() in blob}
    packed: bytes = cloudpickle.dumps((signature(), code, blob))
    return packed


@functools.lru_cache(maxsize=2)
def _function(packed: bytes | Path) -> Callable[[Any], Any]:
    content = packed if isinstance(packed, bytes) else packed.read_bytes()
    here, code, blob = cloudpickle.loads(content)  # our own function, on its way to our own worker
    same_here(here)
    install(code)
    found: Callable[[Any], Any] = cloudpickle.loads(blob)
    return found


def _call(blob: bytes | Path, task: tuple[int, Any]) -> tuple[int, GammastarError | None, Any]:
    index, item = task
    try:
        with user_code_errors():
            return index, None, _function(blob)(item)
    except GammastarError as error:
        return index, error, None
    except OSError as error:
        if is_disk_full(error):
            return index, StoreError(disk_full_message(error)), None
        raise


@dataclass(frozen=True, eq=False)
class _Task:
    """What an executor of coffea gets: that of TaskVine keeps a set of them, and asks for size and file."""

    index: int
    item: Any
    filename: str = os.devnull  # an absolute path is not sent

    def __len__(self) -> int:
        return 1


def _listed(blob: bytes, task: _Task) -> list[Any]:
    return [_call(blob, (task.index, task.item))]


@contextlib.contextmanager
def open_executor(
    *,
    workers: int | None = None,
    dask: str | None = None,
    retries: int = 3,
    skip_bad: bool = False,
    patience: Patience | None = None,
) -> Iterator[Executor]:
    """Yield an executor of local processes, of a Dask cluster, or of this process.

    Parameters
    ----------
    workers : int, optional
        Number of local processes; none is this process.
    dask : str, optional
        Address of a scheduler (``tcp://host:8786``) or its scheduler file; ``"local"`` starts a LocalCluster
        of `workers` processes.
    retries, skip_bad
        As in `Executor`.
    patience : Patience, optional
        How long schedulers and workers are waited for.

    Raises
    ------
    SteeringError
        If no scheduler or no worker is there, or a worker has too little memory.
    StoreError
        If a worker has another version of this package or of a library that decides numbers.
    """
    options: dict[str, Any] = {"retries": retries, "skip_bad": skip_bad}
    patience = patience or Patience()
    coffea_console.quiet = True  # its bars would mix with ours
    if dask is not None:
        with connected(dask, workers, patience) as client:
            yield _dask_executor(client, patience, **options)
    elif workers:
        crew = LocalCrew(workers, patience)
        try:
            yield _watched(f"{workers} local processes", crew, workers, **options)
        finally:
            crew.close()
    else:
        yield Executor("this process", **options)


def _watched(name: str, crew: Crew, threads: int, **options: Any) -> Executor:
    same = ", ".join(f"{what} {value}" for what, value in signature() if what != "code of gammastar")
    companions = {"workers": f"{name}: {same}, and the code of this run"}
    options |= {"events": crew.events, "companions": companions}
    return Executor(name, crew=crew, threads=threads, **options)


def _dask_executor(client: Any, patience: Patience, **options: Any) -> Executor:
    crew = DaskCrew(client, patience)
    crew.check()
    n = len(crew.workers(patience.start))
    threads = min(n, os.cpu_count() or 1)
    return _watched(f"Dask, {n} workers", crew, threads, **options)
