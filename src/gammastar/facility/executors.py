"""Local processes, Dask and other executors of coffea behind one small interface."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import cloudpickle
import distributed
from coffea.processor import DaskExecutor, FuturesExecutor, IterativeExecutor
from coffea.util import coffea_console
from loky import get_reusable_executor

from gammastar.core.errors import GammastarError, SteeringError, StoreError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.resolve import guarded, install, installed
from gammastar.facility.harvest import LOST, Harvest, harvest
from gammastar.facility.processor import matched_of, pairs_of
from gammastar.facility.warm import local_worker, warm
from gammastar.select import Cutflow, Step
from gammastar.store.chunks import Job
from gammastar.store.manifest import package_digest

__all__ = ["Farm", "open_farm"]

Client: Any = distributed.Client  # without types
LocalCluster: Any = distributed.LocalCluster
WAIT = 60  # seconds for a scheduler and its first worker
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
    submit : function like ``concurrent.futures.Executor.submit``, or None
        For `map`; without it the tasks go through the executor as well.
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
    """

    name: str
    executor: Callable[[], Any]
    submit: Callable[..., Any] | None = None
    retries: int = 3
    skip_bad: bool = False
    events: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    flows: dict[str, Cutflow] = field(default_factory=dict)
    threads: int = 1
    tell: Tell | None = None
    ready: Callable[[], int] = warm_here

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

    def _harvest(self, job: Job) -> Harvest:
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
            of its calls: take random numbers from ``core.rng.stream`` under the name of the item.
        items : iterable
        stage : str, optional
            Report finished tasks under this name.

        Raises
        ------
        GammastarError
            What `function` raised for the first item that fails.
        StoreError
            If workers were lost more often than `retries` allows.
        """
        waiting = dict(enumerate(items))
        results: dict[int, Any] = {}
        blob, total = _packed(function), len(waiting)
        for attempt in range(1 + self.retries):
            if waiting:
                found = {}
                for index, value in self._round(blob, waiting):
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

    def _round(self, blob: bytes, waiting: dict[int, Any]) -> Iterator[tuple[int, Any]]:
        for index, error, value in self._answers(blob, waiting):
            if error is not None:
                raise error
            yield index, value

    def _answers(self, blob: bytes, waiting: dict[int, Any]) -> Iterator[tuple[int, Any, Any]]:
        if self.submit is None:
            answers, _ = self.executor()(list(waiting.items()), functools.partial(_listed, blob), None)
            yield from answers
            return
        try:
            futures = [self.submit(_call, blob, index, item) for index, item in waiting.items()]
        except LOST:
            return
        for future in futures:
            with contextlib.suppress(*LOST):
                yield future.result()

    def note(self, attempt: int, waiting: int, what: str) -> None:
        """Note that a round left something to do."""
        if waiting:
            self.events.append(f"round {attempt + 1} left {waiting} {what}")
            logger.warning("%s: %s", self.name, self.events[-1])


def _packed(function: Callable[[Any], Any]) -> bytes:
    """Return a function with the user code that it may need, for `_function`."""
    blob = cloudpickle.dumps(function)
    code = {name: modules for name, modules in installed().items() if name.encode() in blob}
    packed: bytes = cloudpickle.dumps((code, blob))
    return packed


@functools.lru_cache(maxsize=2)
def _function(packed: bytes) -> Callable[[Any], Any]:
    code, blob = cloudpickle.loads(packed)  # our own function, on its way to our own worker
    install(code)
    found: Callable[[Any], Any] = cloudpickle.loads(blob)
    return found


def _call(blob: bytes, index: int, item: Any) -> tuple[int, GammastarError | None, Any]:
    try:
        with guarded():
            return index, None, _function(blob)(item)
    except GammastarError as error:
        return index, error, None


def _listed(blob: bytes, item: tuple[int, Any]) -> list[Any]:
    return [_call(blob, *item)]


@contextlib.contextmanager
def open_farm(
    *, workers: int | None = None, dask: str | None = None, retries: int = 3, skip_bad: bool = False
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

    Raises
    ------
    SteeringError
        If no scheduler or no worker is there.
    StoreError
        If a worker has another version of this package.
    """
    options: dict[str, Any] = {"retries": retries, "skip_bad": skip_bad}
    coffea_console.quiet = True  # its bars would mix with ours
    if dask is not None:
        with _client(dask, workers) as client:
            yield _dask_farm(client, **options)
    elif workers:
        yield _local_farm(workers, **options)
    else:
        yield Farm("this process", lambda: IterativeExecutor(status=False, retries=0), **options)


def _local_farm(workers: int, **options: Any) -> Farm:
    def pool() -> Any:
        return get_reusable_executor(max_workers=workers, timeout=600, initializer=local_worker)

    def ready() -> int:
        seen: set[int] = set()
        end = time.monotonic() + WAIT
        while len(seen) < workers and time.monotonic() < end:
            seen |= {future.result() for future in [pool().submit(_resting) for _ in range(2 * workers)]}
        return len(seen)

    def executor() -> Any:
        return FuturesExecutor(pool=pool(), workers=workers, status=False, retries=0, compression=None)

    def submit(*arguments: Any) -> Any:
        return pool().submit(*arguments)

    pool().submit(os.getpid)  # workers start and compile while this process goes on
    return Farm(f"{workers} local processes", executor, submit, threads=workers, ready=ready, **options)


def _resting() -> int:
    time.sleep(0.05)  # long enough that the others get one as well
    return os.getpid()


def _dask_farm(client: Any, **options: Any) -> Farm:
    def executor() -> Any:
        return DaskExecutor(client=client, status=False, retries=3, compression=None)

    def submit(*arguments: Any) -> Any:
        return client.submit(*arguments, pure=False, retries=3, key=f"gammastar-task-{uuid.uuid4().hex}")

    def ready() -> int:
        return len(client.run(warm))

    n = len(client.scheduler_info(n_workers=-1)["workers"])
    threads = min(n, os.cpu_count() or 1)
    return Farm(f"Dask, {n} workers", executor, submit, threads=threads, ready=ready, **options)


@contextlib.contextmanager
def _client(address: str, workers: int | None) -> Iterator[Any]:
    with contextlib.ExitStack() as stack:
        try:
            if address == "local":
                cluster = LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=None, processes=True
                )
                client = stack.enter_context(Client(stack.enter_context(cluster)))
            elif "://" in address or ":" in address:
                client = stack.enter_context(Client(address, timeout=WAIT))
            else:
                client = stack.enter_context(Client(scheduler_file=address, timeout=WAIT))
            client.wait_for_workers(1, timeout=WAIT)
        except (OSError, TimeoutError, ValueError) as error:
            msg = f"--dask {address}: no scheduler with a worker answers within {WAIT} s ({error})"
            raise SteeringError(msg) from error
        _same_code(client)
        yield client


def _same_code(client: Any) -> None:
    try:
        found = client.run(package_digest)
    except (ImportError, AttributeError) as error:
        msg = f"a worker cannot import gammastar ({error}); install the same version there"
        raise StoreError(msg) from error
    other = sorted(worker for worker, code in found.items() if code != package_digest())
    if other:
        msg = f"the workers {', '.join(other)} have another version of gammastar; install the same everywhere"
        raise StoreError(msg)
