"""Chunks of a job: divided, worked on in rounds, counted, checked and put in order."""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

from coffea.nanoevents import BaseSchema
from coffea.processor import Runner
from coffea.processor.executor import WorkItem

from gammastar.core import errors
from gammastar.core.errors import BranchError, GammastarError, InputFileError, StoreError
from gammastar.facility.crew import LOST, Times
from gammastar.facility.processor import FIRST, DileptonPairs, summary, write_costs
from gammastar.store.filesets import write_fileset
from gammastar.store.pairs import Chunk, Job, Kept, Source, read_chunk, split

logger = logging.getLogger(__name__)
PAUSE = 0.5  # seconds between two looks at the finished chunks
Found = dict[Chunk, dict[str, Any]]


class Backend(Protocol):
    """What `harvest` needs of an executor."""

    retries: int
    skip_bad: bool
    skipped: list[dict[str, Any]]
    entries: dict[str, int]
    costs: dict[str, str]
    threads: int
    times: Times

    @property
    def coffea(self) -> Any:
        """Return the function that makes an executor of coffea."""

    def map(self, function: Any, items: Any) -> list[Any]:
        """Return ``[function(item) for item in items]``."""

    def note(self, attempt: int, waiting: int, what: str) -> None:
        """Note that a round left something to do."""

    def told(self, stage: str, done: int, total: int, what: str) -> None:
        """Report progress to whoever listens."""


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


def harvest(executor: Backend, job: Job) -> Harvest:
    """Work on all chunks of a job."""
    chunks = plan(executor, job)
    done: Found = {}
    failed: Found = {}
    waiting = list(chunks)
    executor.times.seconds.clear()
    executor.times.name = job.kind
    with _watched(executor, job, chunks):
        for attempt in range(1 + executor.retries):
            if not waiting:
                break
            executor.times.attempt = attempt
            good, failed = _round(executor, job, waiting)
            done |= good
            _raise_final(executor, failed)
            waiting = [chunk for chunk in waiting if chunk not in done]
            executor.note(attempt, len(waiting), "chunks")
    if waiting and len(waiting) == len(chunks) and waiting[0] in failed:
        raise _error(failed[waiting[0]])  # nothing would be left
    for chunk in waiting:
        _skip(executor, job, chunk, failed.get(chunk))
    entries = sum(int(note["entries"]) for note in done.values())
    expected = sum(chunk.stop - chunk.start for chunk in chunks if chunk in done)
    if entries != expected or len(done) + len(waiting) != len(chunks):
        raise StoreError(f"{job.folder}: the chunks hold {entries} entries, expected {expected}")
    notes = {chunk: done[chunk] for chunk in chunks if chunk in done}
    write_costs(job.folder / f"costs_{job.kind}.csv", list(notes.values()))
    executor.costs[job.kind] = summary(list(notes.values()))
    return Harvest(job, notes, executor.threads)


@contextlib.contextmanager
def _watched(executor: Backend, job: Job, chunks: list[Chunk]) -> Iterator[None]:
    """Report the number of published chunks while the block runs: whatever executor makes them."""
    names, over = {job.path(chunk).name for chunk in chunks}, threading.Event()
    what = "chunks" if job.kind == "pairs" else "chunks of the simulation"

    def count() -> None:
        there = {path.name for path in job.folder.iterdir()}
        executor.told("read", len(names & there), len(names), what)

    def watch() -> None:
        while not over.wait(PAUSE):
            count()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
        count()
    finally:
        over.set()
        thread.join()


def plan(executor: Backend, job: Job) -> list[Chunk]:
    """Return the chunks of a job, and write ``fileset_<kind>.json``."""
    found = executor.map(functools.partial(_split, job), [source.path for source in job.sources])
    sources: list[Source] = []
    unread: list[tuple[str, GammastarError]] = []
    steps: dict[str, tuple[int, ...]] = {}
    chunks: list[Chunk] = []
    first = 0
    for index, (source, ((total, edges, uuid), error)) in enumerate(zip(job.sources, found, strict=True)):
        if error is not None:
            unread.append((source.path, error))
            continue
        sources.append(replace(source, entries=total, uuid=uuid))
        steps[source.path] = edges
        chunks.extend(Chunk(source.path, index, *edge, first) for edge in pairwise(edges))
        first += total
    executor.entries[job.kind] = first + _unread(executor, job, unread, steps, first)
    job.folder.mkdir(parents=True, exist_ok=True)
    write_fileset(job.folder / f"fileset_{job.kind}.json", job.kind, job.schema.tree, sources, steps)
    return chunks


def _unread(
    executor: Backend,
    job: Job,
    unread: list[tuple[str, GammastarError]],
    steps: Mapping[str, Any],
    total: int,
) -> int:
    """Skip files that cannot be opened or lack a branch; each counts as an average file, or by its size."""
    if unread and not (executor.skip_bad and steps):
        raise unread[0][1]
    known = sum(_size(path) for path in steps)
    lost = 0
    for path, error in unread:
        by_size = total * _size(path) / known if known else 0.0
        entries = max(1, round(by_size), round(total / max(1, len(steps))))
        lost += entries
        entry = {"kind": job.kind, "file": path, "entries": entries, "estimated": True, "why": str(error)}
        executor.skipped.append(entry)
        logger.warning("%s: skipped", path)
    return lost


def _size(path: str) -> int:
    local = Path(path)
    return local.stat().st_size if local.is_file() else 0


def _split(job: Job, path: str) -> tuple[tuple[int, tuple[int, ...], str], GammastarError | None]:
    try:
        return split(path, job.schema, job.step, truth=job.kind == "truth"), None
    except (BranchError, InputFileError) as error:
        return (0, (0,), ""), error


def _round(executor: Backend, job: Job, chunks: list[Chunk]) -> tuple[Found, Found]:
    """Send chunks to the workers; return the notes of those that are finished and that failed."""
    try:
        answer = _coffea(executor, job, chunks)
    except LOST as error:
        logger.warning("a worker was lost (%s)", type(error).__name__)
        return {}, {}
    except Exception as error:
        if "KilledWorker" in str(error):
            logger.warning("a worker was lost: %s", error)
            return {}, {}
        if type(error) is not Exception:
            raise
        # coffea could not open a file: every chunk tells for itself what is wrong.
        logger.warning("%s; the chunks are tried one by one", " ".join(str(error).split())[:200])
        notes = executor.map(DileptonPairs(job, notes=True).work, chunks)
        answer = {key: [entry for note in notes for entry in note[key]] for key in ("done", "failed")}
    by_place = {(chunk.index, chunk.start, chunk.stop): chunk for chunk in chunks}
    places = [(note["index"], note["start"], note["stop"]) for note in answer["done"]]
    if len(set(places)) != len(places):
        twice = sorted({place for place in places if places.count(place) > 1})
        raise StoreError(f"chunks came back twice: {twice[:5]}")
    done = {by_place[place]: note for place, note in zip(places, answer["done"], strict=True)}
    failed = {by_place[note["index"], note["start"], note["stop"]]: note for note in answer["failed"]}
    return done, failed


def _coffea(executor: Backend, job: Job, chunks: list[Chunk]) -> dict[str, list[dict[str, Any]]]:
    items = [
        WorkItem(job.kind, c.path, job.schema.tree, c.start, c.stop, b"", {FIRST: c.first}) for c in chunks
    ]
    runner = Runner(executor=executor.coffea(), schema=BaseSchema, savemetrics=False)
    # coffea's own view of the events is not used; one branch keeps it small for trees with thousands.
    options = {"filter_name": [job.schema.branches()[0]]}
    answer: dict[str, list[dict[str, Any]]] = runner.run(
        items, DileptonPairs(job, notes=True), iteritems_options=options
    )["out"]
    return answer


def _raise_final(executor: Backend, failed: Mapping[Chunk, dict[str, Any]]) -> None:
    """Raise what another round cannot heal: everything but an unreadable file, or one to be left out."""
    bad = {"InputFileError", "BranchError"} if executor.skip_bad else {"InputFileError"}
    for chunk in sorted(failed, key=lambda c: (c.index, c.start)):
        if failed[chunk]["error"] not in bad:
            raise _error(failed[chunk])


def _error(note: Mapping[str, Any]) -> GammastarError:
    kind = getattr(errors, str(note["error"]), GammastarError)
    found: GammastarError = kind(str(note["message"]))
    return found


def _skip(executor: Backend, job: Job, chunk: Chunk, note: Mapping[str, Any] | None) -> None:
    if note is None:
        raise StoreError(f"{chunk.label}: the workers on this chunk died {1 + executor.retries} times")
    if not executor.skip_bad:
        raise _error(note)
    entry = {"kind": job.kind, "file": chunk.path, "start": chunk.start, "stop": chunk.stop}
    executor.skipped.append(entry | {"entries": chunk.stop - chunk.start, "why": str(note["message"])})
    logger.warning("%s: skipped", chunk.label)
