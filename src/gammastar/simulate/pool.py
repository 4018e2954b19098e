"""Pools of generated hadrons: made in independent shares, by several processes, kept and taken up again."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeAlias
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, StoreError
from gammastar.core.whole import atomic
from gammastar.simulate import pythia
from gammastar.simulate.card import Card
from gammastar.simulate.card_parts import PythiaCard
from gammastar.simulate.pythia import Process, System

__all__ = ["Pool", "make_pool"]

Arrays: TypeAlias = Mapping[str, npt.NDArray[Any]]
Progress: TypeAlias = Callable[[int, int], None]

SHARE = {"pp": 20_000, "pPb": 4_000}  # events of one share: some seconds
BLOCK_SHARES = 1_000_000  # numbers of shares of a block
LOG = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class Pool:
    """Hadrons of generated events.

    Attributes
    ----------
    arrays : mapping of str to NDArray
        As `pythia.generate` returns them.
    process, system : str
    n_events : int
        Events that Pythia finished.
    rate : float
        Events per second, shares that were at hand not counted; nan if all were.
    """

    arrays: Arrays
    process: Process
    system: System
    n_events: int
    rate: float

    @property
    def sigma(self) -> float:
        """Generated cross section [mb]."""
        return float(self.arrays["sigma"])

    def multiplicity(self, pdg: int) -> float:
        """Return mesons of a species per event (weighted)."""
        weight = self.arrays["event_weight"].sum()
        return float(self.arrays[f"{pdg}_weight"].sum(dtype=np.float64) / weight)


def _share(
    job: tuple[tuple[str, ...], Process, int, int, int, str | None],
) -> tuple[dict[str, npt.NDArray[Any]], float]:
    """Generate one share, or read it; return it with the seconds it took (0 if it was read)."""
    lines, process, n, seed, index, file = job
    path = None if file is None else Path(file)
    if path is not None and path.is_file():
        with (
            contextlib.suppress(OSError, ValueError, EOFError, BadZipFile),  # damaged: made again
            path.open("rb") as stream,
            np.load(stream, allow_pickle=False) as kept,
        ):
            return dict(kept), 0.0
    start = time.perf_counter()
    result = pythia.generate(lines, process, n, seed, index)
    seconds = time.perf_counter() - start
    if path is not None:
        with atomic(path) as temporary, temporary.open("wb") as output:
            np.savez(output, **result)  # type: ignore[arg-type]
    return result, seconds


def _jobs(
    lines: tuple[str, ...], process: Process, n: int, seed: int, size: int, cache: Path | None, first: int
) -> Iterator[tuple[tuple[str, ...], Process, int, int, int, str | None]]:
    key = hashlib.sha256("\n".join((pythia.version(), str(seed), str(size), *lines)).encode()).hexdigest()[
        :16
    ]
    for index in range(first, first - (-n // size)):
        file = None if cache is None else str(cache / f"{process}_{key}_{index:05d}.npz")
        yield lines, process, size, seed, index, file


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
    """Generate at least `n` events with Pythia and keep their hadrons.

    Parameters
    ----------
    card : Card
        Its section ``[pythia]`` says which collisions and which further settings; pp without.
    n : int
        Events; rounded up to whole shares (20 000 in pp, 4 000 in p-Pb).
    process : {"soft", "electrons", "charm", "drell_yan"}
    seed : int
    workers : int
        Processes; the result does not depend on their number.
    cache : path, optional
        Folder where finished shares are kept: an interrupted run goes on there, and gives what an
        uninterrupted one gives.
    progress : callable, optional
        Called as ``progress(events done, events wanted)``.
    block : int
        Pools of different blocks hold independent events.

    Raises
    ------
    PhysicsError
        If `n` or `workers` is not positive.
    UserError
        If pythia8mc is not installed, or does not know a setting.
    StoreError
        If the folder cannot be written.
    """
    if n <= 0 or workers <= 0:
        msg = f"make_pool: n = {n!r} and workers = {workers!r} must be positive"
        raise PhysicsError(msg)
    options = card.pythia or PythiaCard()
    system = options.system
    lines = pythia.settings(card.beam.energy, system=system, process=process, extra=options.settings)
    size = SHARE[system] if process in pythia.SOFT else SHARE["pp"]
    folder = None if cache is None else Path(cache)
    try:
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
        jobs = list(_jobs(lines, process, n, seed, size, folder, block * BLOCK_SHARES))
        shares, busy, made = [], 0.0, 0
        for share, seconds in _run(jobs, min(workers, len(jobs))):
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


def _run(jobs: list[Any], workers: int) -> Iterator[tuple[dict[str, npt.NDArray[Any]], float]]:
    if workers == 1:
        yield from map(_share, jobs)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as executor:
        yield from executor.map(_share, jobs)
