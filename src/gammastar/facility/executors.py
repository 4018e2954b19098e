"""Local processes, Dask and other executors of coffea behind one small interface."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import logging
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import awkward as ak
import cloudpickle
import numpy as np
import psutil
import uproot
from coffea.processor import IterativeExecutor
from coffea.util import coffea_console
from loky import get_reusable_executor

from gammastar import read
from gammastar.core.errors import GammastarError, StoreError
from gammastar.core.files import disk_full_message, is_disk_full, tune_malloc, write_whole
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.core.records import FloatArray
from gammastar.core.resolve import install, installed, user_code_errors
from gammastar.facility.crew import Crew, DaskCrew, Function, Idle, Patience, Through, Times, connected, timed
from gammastar.facility.harvest import Harvest, harvest
from gammastar.facility.processor import matched_of, pairs_of, same_here, signature
from gammastar.select import Cutflow, Cuts, Step
from gammastar.store.pairs import Job, Source

SLOWLY = 10  # times the patience with a scheduler have workers to start: libraries may come over a network
REST = 600  # s after which idle workers end
COMPUTES = 0.03  # of one core: less is waiting
TRIAL_SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "kinematics": {key: key for key in ("px", "py", "pz")},
}

LARGE = 1_000_000  # bytes of a function beyond which workers read it from a file
SHARED = "shared-"
STOPPED = {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP}


class LocalCrew(Crew):
    """A pool of processes; one that is stuck is killed, and what the pool had in hand is done again."""

    def __init__(self, workers: int, patience: Patience, events: list[str]) -> None:
        super().__init__(patience, events)
        self.workers, self.window = workers, 4 * workers
        self._idle, self._cpu = Idle(), dict[int, tuple[float, float]]()
        self._left: list[Any] = []  # what was running when its run ended with an error
        self.pool().submit(os.getpid)  # workers start and compile while this process goes on

    def pool(self) -> Any:
        """Return the pool; a new one if a worker of the old one died."""
        return get_reusable_executor(
            max_workers=self.workers, timeout=REST, initializer=_begin, initargs=(_marks().name,)
        )

    def ready(self) -> int:
        """Return how many workers have imported and compiled what a chunk needs."""
        seen: set[int] = set()
        end = time.monotonic() + self.patience.start
        while len(seen) < self.workers and time.monotonic() < end:
            futures = [self.pool().submit(_resting) for _ in range(2 * self.workers)]
            seen |= {future.result(self.patience.start) for future in futures}
        return len(seen)

    def shared(self, content: bytes) -> bytes | Path:
        """Return a file of the folder of this process' workers, each of which reads it once."""
        if len(content) < LARGE:
            return content
        path = Path(_marks().name, SHARED + hashlib.sha256(content).hexdigest())
        try:
            if not path.is_file():
                write_whole(path, content)
        except (OSError, StoreError):  # no space is left: then by the pipe, task by task
            return content
        return path

    def _submit(self, function: Function, index: int, item: Any, _: str) -> Any:
        return self.pool().submit(_marked, index, function, item)

    def _result(self, future: Any) -> tuple[float, Any]:
        found: tuple[float, Any] = future.result()
        return found

    def _drop(self, running: Mapping[int, Any]) -> None:
        self._left = [future for future in running.values() if not future.cancel()]

    def _look(self, running: Mapping[int, str], times: Times) -> None:
        processes = self._processes()
        for process in processes:
            with contextlib.suppress(psutil.Error):
                self._judge(process, running, times)
        busy = any(_held(process.pid) in running for process in processes)
        nobody = None if busy else ("nobody", self.finished)
        limit = SLOWLY * self.patience.start
        if self._idle.seconds("pool", nobody, self.clock.now) >= limit:
            within = f"within {limit:.0f} s"
            raise StoreError(
                f"none of {self.workers} worker processes began a task {within}; go on with --resume"
            )

    def _judge(self, process: psutil.Process, running: Mapping[int, str], times: Times) -> None:
        pid, now = process.pid, self.clock.now
        held = running.get(_held(pid), "")
        stopped = process.status() in STOPPED
        computes = self._computes(process)
        limit = self.patience.silence if stopped else self.patience.limit(times.seconds, times.attempt)
        sign = ("stopped", "") if stopped else ("waits", held) if held and not computes else None
        if self._idle.seconds(pid, sign, now) < limit:
            return
        what = "was stopped" if stopped else "did not go on"
        at = f" at {held}" if held else ""
        self.say(f"worker process {pid} {what} for {limit:.0f} s{at}; it is ended and its task done again")
        process.send_signal(signal.SIGKILL)

    def _computes(self, process: psutil.Process) -> bool:
        used = process.cpu_times()
        cpu, now = used.user + used.system, self.clock.now
        before, at = self._cpu.get(process.pid, (0.0, now))
        self._cpu[process.pid] = cpu, now
        return bool(cpu - before > COMPUTES * max(now - at, 0.0))

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in list(getattr(self.pool(), "_processes", None) or ()):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def close(self) -> None:
        """End workers that are stopped or still at work: the end of this process would wait for them."""
        if not all(future.done() for future in self._left):
            self.pool().shutdown(wait=True, kill_workers=True)
            return
        for process in self._processes():
            with contextlib.suppress(psutil.Error):
                if process.status() in STOPPED:
                    process.kill()


@functools.cache
def _marks() -> tempfile.TemporaryDirectory[str]:
    """Return the folder in which the workers of this process say what they are at."""
    try:
        return tempfile.TemporaryDirectory(prefix="gammastar-workers-")  # goes with this process
    except OSError as error:
        raise StoreError(
            f"workers need a folder for temporary files: {disk_full_message(error, Path(_temporary()))}"
        ) from error


def _temporary() -> str:
    return tempfile.tempdir or os.environ.get("TMPDIR", "/tmp")  # noqa: S108 - named in a message


def _held(pid: int) -> int:
    """Return the number of the task that a worker says it is at, -1 if it does not say."""
    try:
        return int(Path(_marks().name, str(pid)).read_bytes() or -1)
    except (OSError, ValueError):
        return -1


class _Worker:
    """What a worker process knows of itself."""

    mark = -1  # open file that tells the number of the task
    trouble = ""


def _begin(folder: str) -> None:
    """Warm a process of the pool, and end it when the run that started it is gone.

    A run that is killed cannot end its workers; idle ones would wait ten minutes for another chunk. What
    goes wrong here is told by the first task: the pool would only say that a process died.
    """
    parent, mark = os.getppid(), Path(folder) / str(os.getpid())

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        with contextlib.suppress(OSError):
            mark.unlink()
            for left in mark.parent.glob(f"{SHARED}*"):
                left.unlink(missing_ok=True)
            mark.parent.rmdir()  # by the last worker
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        _Worker.mark = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _note(-1)  # takes its block now: later there may be none
        warm()
    except (GammastarError, OSError) as error:
        why = disk_full_message(error, Path(_temporary())) if isinstance(error, OSError) else error
        _Worker.trouble = f"worker process {os.getpid()} cannot start: {why}"


def _note(index: int) -> None:
    os.pwrite(_Worker.mark, b"%20d" % index, 0)


def _marked(index: int, function: Function, item: Any) -> tuple[float, Any]:
    """Work on a task and say so."""
    if _Worker.trouble:
        raise StoreError(_Worker.trouble)
    with contextlib.suppress(OSError):
        _note(index)
    try:
        return timed(function, item)
    finally:
        with contextlib.suppress(OSError):
            _note(-1)


def _resting() -> int:
    time.sleep(0.05)  # long enough that the others get one as well
    return os.getpid()


Tell: TypeAlias = Callable[[str, float | None, str], None]
logger = logging.getLogger(__name__)


def warm_here() -> int:
    """Warm this process, the only worker."""
    warm()
    return 1


@dataclass
class Executor:
    """Where chunks and independent tasks are worked on.

    Attributes
    ----------
    name : str
        For the manifest, e.g. ``"2 local processes"``.
    coffea : function without arguments that returns an executor of coffea
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
    costs : dict of str to str
        Time and memory of their chunks, in words; ``costs_<kind>.csv`` beside the chunks has each of them.
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
    events : list of str
        What happened, for the record.
    skipped : list of mapping
        What was left out of the input.
    """

    name: str
    coffea: Callable[[], Any]
    crew: Crew | None = None
    retries: int = 3
    skip_bad: bool = False
    events: list[str] = field(default_factory=list)
    skipped: list[dict[str, Any]] = field(default_factory=list)
    entries: dict[str, int] = field(default_factory=dict)
    flows: dict[str, Cutflow] = field(default_factory=dict)
    costs: dict[str, str] = field(default_factory=dict)
    threads: int = 1
    tell: Tell | None = None
    ready: Callable[[], int] = warm_here
    companions: dict[str, str] = field(default_factory=dict)
    times: Times = field(default_factory=Times)

    def lost_fraction(self, kind: str = "pairs") -> float:
        """Return which part of the entries of the data ("pairs") or simulation ("truth") was left out.

        Parameters
        ----------
        kind : str
            "pairs" or "truth".
        """
        lost = sum(int(entry["entries"]) for entry in self.skipped if entry["kind"] == kind)
        return lost / self.entries[kind] if lost else 0.0

    def pairs(self, job: Job) -> tuple[Iterator[Pairs], Cutflow]:
        """Return the pairs chunk by chunk in the order of the files, read when asked for; the cutflow.

        Parameters
        ----------
        job : Job
            What is read, and how.
        """
        found = self._harvest(job)
        return (pairs_of(kept.arrays) for kept in found), self.flows["pairs"]

    def histograms(self, job: Job) -> tuple[FloatArray, Cutflow]:
        """Return the sums of the pairs by charge in the axes of the job, with flow bins, and the cutflow.

        Parameters
        ----------
        job : Job
            What is read, and how; with axes.
        """
        found = self._harvest(job)
        sums = functools.reduce(np.add, (kept.arrays["sums"] for kept in found))
        return sums.reshape(3, 2, *(len(axis) + 2 for axis in job.axes)), self.flows["pairs"]

    def truth(self, job: Job) -> Iterator[MatchedPairs]:
        """Return the simulated photons chunk by chunk in the order of the files, read when asked for.

        Parameters
        ----------
        job : Job
            What is read, and how.
        """
        return (matched_of(kept.arrays) for kept in self._harvest(job))

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers of other machines that see other files than this one, or not the folder.

        Parameters
        ----------
        folder : path
            Of the results.
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
        stage : str, optional
            Report finished tasks under this name.
        """
        waiting = dict(enumerate(items))
        results: dict[int, Any] = {}
        times = Times(name=stage or "tasks")
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
            raise StoreError(
                f"{self.name}: workers died {1 + self.retries} times; {len(waiting)} tasks are not finished"
            )
        return [results[index] for index in sorted(results)]

    def told(self, stage: str, done: int, total: int, what: str) -> None:
        """Report progress to whoever listens.

        Parameters
        ----------
        what : str
            What is counted.
        """
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
            tasks = [_Task(index, item) for index, item in waiting.items()]
            yield from self.coffea()(tasks, functools.partial(_listed, blob), None)[0]
            return
        numbered = {index: (index, item) for index, item in waiting.items()}
        shared = self.crew.shared(blob)
        work = functools.partial(_call, shared)
        try:
            for _, answer in self.crew.gather(work, numbered, times, lambda task: f"task {task[0]}"):
                yield answer
        finally:
            if isinstance(shared, Path):
                shared.unlink(missing_ok=True)

    def note(self, attempt: int, waiting: int, what: str) -> None:
        """Note that a round left something to do.

        Parameters
        ----------
        attempt : int
            Number of the round.
        waiting : int
            What is left to do.
        what : str
            What is counted.
        """
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
        events: list[str] = []
        crew = LocalCrew(workers, patience, events)
        name = f"{workers} local processes"
        executor = _watched(name, crew, threads=workers, ready=crew.ready, **options)
        try:
            yield executor
        finally:
            crew.close()
    else:
        yield Executor("this process", lambda: IterativeExecutor(status=False, retries=0), **options)


def _watched(name: str, crew: Any, **options: Any) -> Executor:
    def coffea() -> Through:
        return Through(status=False, compression=None, crew=crew, times=executor.times)

    executor = Executor(name, coffea, crew, events=crew.events, companions=_listing(name), **options)
    return executor


def _dask_executor(client: Any, patience: Patience, **options: Any) -> Executor:
    crew = DaskCrew(client, patience, [])
    crew.check()
    n = len(crew.workers(patience.start))
    name, threads = f"Dask, {n} workers", min(n, os.cpu_count() or 1)
    return _watched(name, crew, threads=threads, ready=lambda: len(crew.everywhere(warm)), **options)


def _listing(name: str) -> dict[str, str]:
    """Return what all workers have in common, as it was compared."""
    same = ", ".join(f"{what} {value}" for what, value in signature() if what != "code of gammastar")
    return {"workers": f"{name}: {same}, and the code of this run"}


@functools.cache
def warm() -> int:
    """Select pairs of three events by the way of every other chunk; return the number of this process.

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
        with open_executor() as executor:
            executor.pairs(job)
    return os.getpid()
