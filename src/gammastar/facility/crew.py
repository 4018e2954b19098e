"""Tasks given to workers that are watched for so long: whoever is stuck loses its task to another."""

from __future__ import annotations

import functools
import logging
import queue
import statistics
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Mapping
from concurrent.futures import BrokenExecutor
from concurrent.futures import CancelledError as Cancelled
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from coffea.processor import accumulate
from coffea.processor.executor import ExecutorBase
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

ENOUGH = 3  # finished tasks whose median says something
LONGEST_STEP = 5.0  # s between two looks; more means that this process was stopped itself


@dataclass(frozen=True)
class Patience:
    """Limits in seconds. Whoever computes is never stuck, however long its task takes.

    Attributes
    ----------
    start : float
        For a scheduler and its first worker to answer when a run begins.
    silence : float
        A stopped process, a Dask worker without heartbeat, a scheduler that does not answer: for so long.
    factor : float
        A task is given to somebody else when its worker has not computed for `factor` times the median
        time of the finished tasks, and not before `silence`.
    unknown : float
        The same while fewer than three tasks are finished; and how long no worker at all may be there.

    Examples
    --------
    >>> Patience().limit([1.0, 2.0, 30.0]), Patience().limit([20.0] * 3), Patience().limit([])
    (60.0, 200.0, 600.0)
    """

    start: float = 60.0
    silence: float = 60.0
    factor: float = 10.0
    unknown: float = 600.0

    def limit(self, seconds: deque[float] | list[float], attempt: int = 0) -> float:
        """Return how long a worker may rest on a task; every further attempt has twice the time.

        Parameters
        ----------
        seconds : sequence of float [s]
            What finished tasks took.
        attempt : int
            Number of the attempt.
        """
        known = self.factor * statistics.median(seconds) if len(seconds) >= ENOUGH else self.unknown
        return float(max(self.silence, known) * 2**attempt)


@dataclass
class Times:
    """Seconds that the finished tasks of a kind took, the attempt that runs, and their name."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    attempt: int = 0
    name: str = "tasks"


class Clock:
    """Seconds during which this process was awake: a run that is stopped itself suspects nobody."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.now = 0.0

    def tick(self) -> float:
        """Return the time now."""
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, LONGEST_STEP)
        return self.now


class Idle:
    """For how long a worker has shown the same and nothing else."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def seconds(self, worker: Hashable, sign: Hashable, now: float) -> float:
        """Return since when the worker has given this sign; None is one of life."""
        known = self._seen.get(worker)
        if sign is None or known is None or known[0] != sign:
            self._seen[worker] = (sign, now)
            return 0.0
        return now - known[1]


POLL = 0.5  # s between two looks at the workers
Function: TypeAlias = Callable[[Any], Any]
logger = logging.getLogger(__name__)


class Lost(Exception):
    """What a worker had is not there any more; it is done again."""


LOST = (BrokenExecutor, Cancelled, FutureCancelledError, KilledWorker, Lost)


def timed(function: Function, item: Any) -> tuple[float, Any]:
    """Return the seconds that a task took where it was worked on, and its result."""
    start = time.monotonic()
    value = function(item)
    return time.monotonic() - start, value


class Crew(ABC):
    """Workers behind an interface of futures.

    Subclasses give tasks to workers (`_submit`), fetch results (`_result`), look after the workers (`_look`).
    """

    window = 1000  # tasks that are given out at the same time

    def __init__(self, patience: Patience, events: list[str]) -> None:
        self.patience = patience
        self.events = events
        self.clock = Clock()
        self.finished = 0  # tasks, of all kinds
        self._told: set[tuple[str, Any]] = set()

    def say(self, text: str) -> None:
        """Tell the user, and note it for the manifest."""
        self.events.append(text)
        logger.warning("%s", text)

    def once(self, what: str, key: Any, text: str) -> None:
        """Warn, but not again of the same."""
        if (what, key) not in self._told:
            self._told.add((what, key))
            logger.warning("%s", text)

    def prepare(self) -> None:  # noqa: B027  # local workers need no waiting
        """Wait until there are workers, or raise."""

    def shared(self, content: bytes) -> bytes | Path:
        """Return what stands in each task for what all of them need: a file that workers see, or itself."""
        return content

    def gather(
        self, function: Function, items: Mapping[int, Any], times: Times, label: Callable[[Any], str]
    ) -> Iterator[tuple[int, Any]]:
        """Yield number and ``function(item)`` as they come; what was lost is left out."""
        self.prepare()
        waiting = deque(items)
        running: dict[int, Any] = {}
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        self.clock.tick()
        looked = self.clock.now
        try:
            while waiting or running:
                while waiting and len(running) < self.window:
                    index = waiting.popleft()
                    try:
                        future = self._submit(function, index, items[index], times.name)
                    except LOST:
                        return
                    running[index] = future
                    future.add_done_callback(functools.partial(_arrived, done, index))
                for index in _ready(done):
                    try:
                        seconds, value = self._result(running.pop(index))
                    except LOST:
                        continue
                    times.seconds.append(seconds)
                    self.finished += 1
                    yield index, value
                if self.clock.tick() - looked >= POLL:
                    looked = self.clock.now
                    self._look({index: label(items[index]) for index in running}, times)
        finally:
            self._drop(running)

    @abstractmethod
    def _submit(self, function: Function, index: int, item: Any, name: str) -> Any:
        """Hand one item to a worker; `name` says what it is."""

    @abstractmethod
    def _result(self, future: Any) -> tuple[float, Any]:
        """Return seconds and value of a finished future."""

    @abstractmethod
    def _look(self, running: Mapping[int, str], times: Times) -> None:
        """Look at the running items, by index, and at the workers behind them."""

    @abstractmethod
    def _drop(self, running: Mapping[int, Any]) -> None:
        """Give up what still runs."""

    def close(self) -> None:  # noqa: B027  # a cluster is not ours to end
        """Leave nothing that would hold the end of this process."""


def _arrived(done: queue.SimpleQueue[int], index: int, _: Any) -> None:
    done.put(index)


def _ready(done: queue.SimpleQueue[int]) -> Iterator[int]:
    """Wait a moment for the first number; yield all that are there."""
    try:
        yield done.get(timeout=POLL)
        while True:
            yield done.get_nowait()
    except queue.Empty:
        return


@dataclass
class Through(ExecutorBase):  # type: ignore[misc]  # coffea has no types
    """An executor for coffea's Runner whose work is done by a crew.

    Results are added as they come; those that were lost are missing in the sum.
    """

    crew: Any = None
    times: Times | None = None

    def __call__(self, items: Any, function: Any, accumulator: Any) -> Any:
        """Return the sum over the items that came back."""
        numbered = dict(enumerate(items))
        times = self.times or Times()
        found = [value for _, value in self.crew.gather(function, numbered, times, _name)]
        if numbered and not found:
            raise Lost("nothing came back")
        return accumulate(found, accumulator), 0


def _name(item: Any) -> str:
    return f"{item.filename}[{item.entrystart}:{item.entrystop}]"
