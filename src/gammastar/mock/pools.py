"""Pools of Pythia events: made in shares by copies of one initialised process, and kept on disk."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import current_process, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from gammastar.core.documents import opened
from gammastar.core.errors import GammastarError, PhysicsError, StoreError
from gammastar.core.files import atomic
from gammastar.mock import pythia
from gammastar.mock.card import Card, PythiaCard
from gammastar.mock.pythia import Process, System

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Progress: TypeAlias = Callable[[int, int], None]
Share: TypeAlias = tuple[dict[str, npt.NDArray[Any]], float]

SHARE = {"pp": 10_000, "pPb": 4_000, "hard": 5_000}  # events of one share: a second or some
COPIES = sys.platform == "linux"  # whether processes are copied safely
BLOCK_SHARES = 1_000_000  # numbers of shares of a block
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Hadrons of generated events."""

    arrays: Arrays  # As `pythia.generate` returns them
    process: Process
    system: System
    n_events: int  # Events that Pythia finished
    rate: float  # Events per second, shares that were at hand not counted; nan if all were

    @property
    def sigma(self) -> float:
        """Generated cross section [mb]."""
        return float(self.arrays["sigma"])

    def multiplicity(self, pdg: int) -> float:
        """Return mesons of a species per event (weighted)."""
        weight = self.arrays["event_weight"].sum()
        return float(self.arrays[f"{pdg}_weight"].sum(dtype=np.float64) / weight)


@dataclass(frozen=True, slots=True)
class _Job:
    """A share: settings, process, events, seed, number, and the file that keeps it."""

    lines: tuple[str, ...]
    process: Process
    n: int
    seed: int
    index: int
    file: Path | None


def _made(job: _Job, ready: Any = None) -> Share:
    """Generate a share; return it with the seconds it took."""
    start = time.perf_counter()
    result = pythia.generate(job.lines, job.process, job.n, job.seed, job.index, ready=ready)
    seconds = time.perf_counter() - start
    if job.file is not None:
        with atomic(job.file) as temporary, temporary.open("wb") as output:
            np.savez(output, **result)  # type: ignore[arg-type]
    return result, seconds


def _kept(job: _Job) -> Share | None:
    """Return a share that is at hand, or None; one that cannot be read is made again."""
    if job.file is None or not job.file.is_file():
        return None
    with (
        contextlib.suppress(OSError, ValueError, EOFError, BadZipFile),
        opened(job.file) as stream,
        np.load(stream, allow_pickle=False) as kept,
    ):
        return dict(kept), 0.0
    return None


def _shares(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    """Yield the shares in their order, those at hand read, the others made."""
    kept = {index: share for index, job in enumerate(jobs) if (share := _kept(job)) is not None}
    missing = [job for index, job in enumerate(jobs) if index not in kept]
    made: Iterator[Share]
    if COPIES and not current_process().daemon:  # which may have no children
        made = _copies(missing, workers)
    elif workers == 1 or len(missing) < 2:
        made = map(_made, missing)
    else:
        made = _spawned(missing, workers)
    for index in range(len(jobs)):
        yield kept.pop(index) if index in kept else next(made)


def _spawned(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    with ProcessPoolExecutor(min(workers, len(jobs)), mp_context=get_context("spawn")) as executor:
        yield from executor.map(_made, jobs)


def _copies(jobs: Sequence[_Job], workers: int) -> Iterator[Share]:
    """Yield shares, each made by a copy of this process, in which Pythia is ready and has made nothing yet.

    Notes
    -----
    Initialisation takes as long as 13 000 events. Pythia cannot be used for another share afterwards: it
    keeps, for one, the parameters of multiple interactions in a diffractive system where the next one has
    nearly the same mass, and events would depend on those before. A copy costs some milliseconds.
    """
    context = get_context("fork")
    ready = pythia.initialised(jobs[0].lines)
    running: list[tuple[Any, Connection]] = []
    try:
        for index, job in enumerate(jobs):
            for new in jobs[index + len(running) : index + workers]:
                ours, theirs = context.Pipe(duplex=False)
                process = context.Process(target=_send, args=(theirs, new, ready), daemon=True)
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", DeprecationWarning)  # of threads: a copy only generates
                    process.start()
                theirs.close()
                running.append((process, ours))
            process, ours = running[0]
            yield _received(ours, job)
            process.join()
            del running[0]
    finally:
        for process, ours in running:
            process.terminate()
            process.join()
            ours.close()


def _send(pipe: Connection, job: _Job, ready: Any) -> None:
    """Make a share and send it, or the error that came instead."""
    try:
        pipe.send(_made(job, ready))
    except Exception as error:  # noqa: BLE001 - raised where the share is wanted
        pipe.send(error)


def _received(pipe: Connection, job: _Job) -> Share:
    with pipe:
        try:
            found: Share | Exception = pipe.recv()
        except EOFError as error:
            msg = f"pythia: the process of share {job.index} was ended from outside; is there enough memory?"
            raise GammastarError(msg) from error
    if isinstance(found, Exception):
        raise found
    return found


def _jobs(
    lines: tuple[str, ...], process: Process, n: int, seed: int, size: int, cache: Path | None, first: int
) -> Iterator[_Job]:
    words = (pythia.version(), pythia.START, str(seed), str(size), *lines)
    key = hashlib.sha256("\n".join(words).encode()).hexdigest()[:16]
    for index in range(first, first - (-n // size)):
        file = None if cache is None else cache / f"{process}_{key}_{index:05d}.npz"
        yield _Job(lines, process, size, seed, index, file)


def _joined(shares: list[dict[str, npt.NDArray[Any]]]) -> dict[str, npt.NDArray[Any]]:
    """Return one set of arrays; event numbers run on, the cross section is the mean."""
    offset = 0
    for share in shares:
        if "hadron_event" in share:
            share["hadron_event"] = share["hadron_event"] + offset
        offset += len(share["event_weight"])
    joined = {
        key: np.concatenate([share[key] for share in shares], axis=-1) for key in shares[0] if key != "sigma"
    }
    return joined | {"sigma": np.mean([share["sigma"] for share in shares])}


def make_pool(
    card: Card,
    n: int,
    *,
    process: Process = "soft",
    seed: int = 0,
    workers: int = 1,
    cache: str | Path | None = None,
    progress: Progress | None = None,
    block: int = 0,
) -> Pool:
    """Generate at least `n` events with Pythia and keep their hadrons."""
    if n <= 0 or workers <= 0:
        msg = f"make_pool: n = {n!r} and workers = {workers!r} must be positive"
        raise PhysicsError(msg)
    options = card.pythia or PythiaCard()
    system = options.system
    lines = pythia.settings(card.beam.energy, system=system, process=process, extra=options.settings)
    size = SHARE[system] if process in pythia.SOFT else SHARE["hard"]
    folder = None if cache is None else Path(cache)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        jobs = list(_jobs(lines, process, n, seed, size, folder, block * BLOCK_SHARES))
        shares, busy, made = [], 0.0, 0
        for share, seconds in _shares(jobs, workers):
            shares.append(share)
            busy += seconds
            made += size if seconds > 0 else 0
            if progress is not None:
                progress(min(len(shares) * size, n), n)
    except OSError as error:
        msg = f"pythia: {folder} cannot hold the generated shares ({error.strerror}); give another folder"
        raise StoreError(msg) from error
    joined = _joined(shares)
    rate = made / busy * min(workers, len(jobs)) if busy > 0 else float("nan")
    LOG.info("pythia %s %s: %d events, %.3g per second", process, system, len(joined["event_weight"]), rate)
    return Pool(joined, process, system, len(joined["event_weight"]), rate)
