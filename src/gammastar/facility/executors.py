"""Local processes, Dask and other executors of coffea behind one small interface."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import cloudpickle
from coffea.processor import IterativeExecutor
from coffea.util import coffea_console

from gammastar.core.errors import GammastarError, StoreError
from gammastar.core.machine import full, told
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.resolve import guarded, install, installed
from gammastar.facility.cluster import DaskCrew, connected
from gammastar.facility.companions import same_here, signature
from gammastar.facility.crew import Crew, Patience, Through, Times
from gammastar.facility.harvest import Harvest, harvest
from gammastar.facility.local import LocalCrew
from gammastar.facility.processor import matched_of, pairs_of, warm
from gammastar.select import Cutflow, Step
from gammastar.store.chunks import Job

__all__ = ["Farm", "open_farm"]

Tell: TypeAlias = Callable[[str, float | None, str], None]
logger = logging.getLogger(__name__)


def warm_here() -> int:
    """Warm this process, the only worker."""
    warm()
    return 1


@dataclass
class Farm:
    """Where chunks and independent tasks are worked on.

    Attributes
    ----------
    name : str
        For the manifest, e.g. ``"2 local processes"``.
    executor : function without arguments that returns an executor of coffea
        Called before every round, so that a pool whose worker died is replaced.
    crew : Crew or None
        Workers that are watched; without it all goes through the executor, without limits in time.
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
    ready : function without arguments that returns the number of workers, or None
        Waits until every worker has imported and compiled what a chunk needs.
    companions : dict
        Code and versions that all workers have, for the manifest.
    times : Times
        Of the chunks of the job that runs.
    """

    name: str
    executor: Callable[[], Any]
    crew: Crew | None = None
    retries: int = 3
    skip_bad: bool = False
    events: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    flows: dict[str, Cutflow] = field(default_factory=dict)
    threads: int = 1
    tell: Tell | None = None
    ready: Callable[[], int] = warm_here
    companions: dict[str, str] = field(default_factory=dict)
    times: Times = field(default_factory=Times)

    def lost_fraction(self, kind: str = "pairs") -> float:
        """Return which part of the entries of the data ("pairs") or simulation ("truth") was left out."""
        lost = sum(int(entry["entries"]) for entry in self.skipped if entry["kind"] == kind)
        return lost / self.entries[kind] if lost else 0.0

    def pairs(self, job: Job) -> tuple[Iterator[Pairs], Cutflow]:
        """Return the pairs chunk by chunk in the order of the files, read when asked for; the cutflow."""
        found = self._harvest(job)
        return (pairs_of(kept.arrays) for kept in found), self.flows["pairs"]

    def truth(self, job: Job) -> Iterator[MatchedPairs]:
        """Return the simulated photons chunk by chunk in the order of the files, read when asked for."""
        return (matched_of(kept.arrays) for kept in self._harvest(job))

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers of other machines that see other files than this one, or not the folder.

        Raises
        ------
        StoreError
            Naming worker, host and file.
        """
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
        self, function: Callable[[Any], Any], items: Iterable[Any], *, stage: str | None = None
    ) -> list[Any]:
        """Return ``[function(item) for item in items]``, computed by the workers.

        Parameters
        ----------
        function : callable
            For grid points, toys, campaigns and members of an ensemble. It must not depend on order or place
            of its calls: take random numbers from ``core.sampling.stream`` under the name of the item.
        items : iterable
        stage : str, optional
            Report finished tasks under this name.

        Raises
        ------
        GammastarError
            What `function` raised for the first item that fails.
        StoreError
            If workers were lost more often than `retries` allows, or nobody is there.
        """
        waiting = dict(enumerate(items))
        results: dict[int, Any] = {}
        times = Times()
        blob, total = _packed(function), len(waiting)
        for attempt in range(1 + self.retries):
            if waiting:
                times.attempt = attempt
                found = {}
                for index, value in self._round(blob, waiting, times):
                    found[index] = value
                    if stage is not None:
                        self.told(stage, len(results) + len(found), total, "tasks")
                results |= found
                waiting = {index: item for index, item in waiting.items() if index not in found}
                self.note(attempt, len(waiting), "tasks")
        if waiting:
            msg = f"{self.name}: workers died {1 + self.retries} times; {len(waiting)} tasks are not finished"
            raise StoreError(msg)
        return [results[index] for index in sorted(results)]

    def told(self, stage: str, done: int, total: int, what: str) -> None:
        """Report progress to whoever listens."""
        if self.tell is not None:
            self.tell(stage, done / max(1, total), f"{done} of {total} {what}, {self.name}")

    def _round(self, blob: bytes, waiting: dict[int, Any], times: Times) -> Iterator[tuple[int, Any]]:
        for index, error, value in self._answers(blob, waiting, times):
            if error is not None:
                raise error
            yield index, value

    def _answers(
        self, blob: bytes, waiting: dict[int, Any], times: Times
    ) -> Iterator[tuple[int, GammastarError | None, Any]]:
        if self.crew is None:
            answers, _ = self.executor()(list(waiting.items()), functools.partial(_listed, blob), None)
            yield from answers
            return
        tasks = {index: (index, item) for index, item in waiting.items()}
        work = functools.partial(_call, blob)
        for _, answer in self.crew.gather(work, tasks, times, lambda task: f"task {task[0]}"):
            yield answer

    def note(self, attempt: int, waiting: int, what: str) -> None:
        """Note that a round left something to do."""
        if waiting:
            self.events.append(f"round {attempt + 1} left {waiting} {what}")
            logger.warning("%s: %s", self.name, self.events[-1])


def _packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function with the user code that it may need, for `_function`."""
    blob = cloudpickle.dumps(function)
    code = {name: modules for name, modules in installed().items() if name.encode() in blob}
    packed: bytes = cloudpickle.dumps((signature(), code, blob))
    return packed


@functools.lru_cache(maxsize=2)
def _function(packed: bytes) -> Callable[[Any], Any]:
    here, code, blob = cloudpickle.loads(packed)  # our own function, on its way to our own worker
    same_here(here)
    install(code)
    found: Callable[[Any], Any] = cloudpickle.loads(blob)
    return found


def _call(blob: bytes, task: tuple[int, Any]) -> tuple[int, GammastarError | None, Any]:
    index, item = task
    try:
        with guarded():
            return index, None, _function(blob)(item)
    except GammastarError as error:
        return index, error, None
    except OSError as error:
        if full(error):
            return index, StoreError(told(error)), None
        raise


def _listed(blob: bytes, task: tuple[int, Any]) -> list[Any]:
    return [_call(blob, task)]


@contextlib.contextmanager
def open_farm(
    *,
    workers: int | None = None,
    dask: str | None = None,
    retries: int = 3,
    skip_bad: bool = False,
    patience: Patience | None = None,
) -> Iterator[Farm]:
    """Yield a farm of local processes, of a Dask cluster, or of this process.

    Parameters
    ----------
    workers : int, optional
        Number of local processes; none is this process.
    dask : str, optional
        Address of a scheduler (``tcp://host:8786``) or its scheduler file; ``"local"`` starts a LocalCluster
        of `workers` processes.
    retries, skip_bad
        As in `Farm`.
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
            yield _dask_farm(client, patience, **options)
    elif workers:
        events: list[str] = []
        crew = LocalCrew(workers, patience, events)
        name = f"{workers} local processes"
        farm = _watched(name, crew, threads=workers, companions=_listing(name), **options)
        try:
            yield farm
        finally:
            crew.close()
    else:
        yield Farm("this process", lambda: IterativeExecutor(status=False, retries=0), **options)


def _watched(name: str, crew: Any, **options: Any) -> Farm:
    def executor() -> Through:
        return Through(status=False, compression=None, crew=crew, times=farm.times)

    farm = Farm(name, executor, crew, events=crew.events, ready=crew.ready, **options)
    return farm


def _dask_farm(client: Any, patience: Patience, **options: Any) -> Farm:
    crew = DaskCrew(client, patience, [])
    crew.check()
    n = len(crew.workers(patience.start))
    name, threads = f"Dask, {n} workers", min(n, os.cpu_count() or 1)
    return _watched(name, crew, threads=threads, companions=_listing(name), **options)


def _listing(name: str) -> dict[str, str]:
    """Return what all workers have in common, as it was compared."""
    same = ", ".join(f"{what} {value}" for what, value in signature() if what != "code of gammastar")
    return {"workers": f"{name}: {same}, and the code of this run"}
