"""Tasks for workers that are watched, also on a Dask cluster: who is stuck loses its task to another."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import queue
import statistics
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, ThreadPoolExecutor
from concurrent.futures import CancelledError as Cancelled
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import distributed
from coffea.processor import accumulate
from coffea.processor.executor import ExecutorBase
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker

from gammastar.core.errors import SteeringError, StoreError
from gammastar.core.files import text_of
from gammastar.facility.processor import Signature, chosen, compare, fingerprint, other_files, signature
from gammastar.store.manifest import write_text

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


Client: Any = distributed.Client  # without types
LocalCluster: Any = distributed.LocalCluster
Security: Any = distributed.Security
rpc: Any = distributed.rpc
NEED = 800 << 20  # bytes of memory of a worker
SOON = 5.0  # s without an answer after which the user is told what is waited for
COMPUTES = 10.0  # % of one core: less is waiting
PARDON = 10.0  # s that a nanny takes to end a process that does not listen
LEAVE = 5.0  # s to say goodbye
GONE = (OSError, TimeoutError, asyncio.CancelledError, CancelledError, RuntimeError, ValueError)


class DaskCrew(Crew):
    """Workers of a Dask scheduler.

    A worker without heartbeat, or that does not go on with a task, is restarted by its nanny, or removed
    from the scheduler if it has none: what Dask itself does after five minutes.
    """

    def __init__(self, client: Any, patience: Patience, events: list[str]) -> None:
        super().__init__(patience, events)
        self.client, self.address = client, str(client.scheduler.address)
        self._idle, self._looked = Idle(), -1e9
        self._pardon: dict[str, float] = {}  # restarts that are under way

    def _asked(self, call: Callable[[], Coroutine[Any, Any, Any]], timeout: float) -> Any:
        """Return the answer to a question, or raise one of `GONE`: Dask's own calls wait for ever."""

        async def asking() -> Any:
            return await asyncio.wait_for(call(), timeout)

        future = asyncio.run_coroutine_threadsafe(asking(), self.client.loop.asyncio_loop)
        return future.result(timeout + LEAVE)

    @property
    def _scheduler(self) -> Any:
        """The scheduler; a client that gave it up has none any more."""
        if self.client.scheduler is None:
            raise OSError(errno.ENOTCONN, f"{self.address}: given up")
        return self.client.scheduler

    def workers(self, timeout: float) -> dict[str, Any]:
        """Return what the scheduler knows of its workers."""

        async def asking() -> Any:
            return await self._scheduler.identity(n_workers=-1)

        found: dict[str, Any] = self._asked(asking, timeout)["workers"]
        return found

    def _soon(self) -> float:
        """Return how long one question may take: a scheduler with much to do answers late."""
        return self.patience.silence / 2

    def _gone(self) -> StoreError:
        why = "has closed the connection" if self.client.status == "closed" else "does not answer"
        return StoreError(
            f"the Dask scheduler {self.address} {why}, waited for {self.patience.silence:.0f} s; "
            "when it is back, go on with --resume"
        )

    def prepare(self) -> None:
        """Wait for scheduler and workers after something was lost."""
        begun, empty = self.clock.tick(), None
        while True:
            try:
                there = self.workers(self._soon())
            except GONE as error:
                if self.client.status == "closed" or self.clock.tick() - begun > self.patience.silence:
                    raise self._gone() from error
                time.sleep(0.1)  # a closed connection answers at once
                continue
            if there:
                return
            empty = self.clock.tick() if empty is None else empty
            self.once("empty", begun, f"no worker at {self.address}; waiting for one")
            if self.clock.tick() - empty > self.patience.unknown:
                raise self._nobody()
            time.sleep(0.2)

    def _nobody(self) -> StoreError:
        return StoreError(
            f"the Dask scheduler {self.address} has had no worker for {self.patience.unknown:.0f} s; "
            "start some and go on with --resume"
        )

    def _submit(self, function: Function, index: int, item: Any, name: str) -> Any:
        label = "".join(filter(str.isalpha, name)) or "tasks"  # of the bar on Dask's dashboard
        key = f"gammastar-{label}-{uuid.uuid4().hex}-{index}"
        try:
            return self.client.submit(timed, function, item, pure=False, retries=3, key=key)
        except GONE as error:
            raise Lost from error

    def _result(self, future: Any) -> tuple[float, Any]:
        if future.status not in {"finished", "error"}:
            raise Lost
        try:
            found: tuple[float, Any] = future.result(timeout=self.patience.silence)
        except GONE as error:
            if future.status == "error":
                raise  # what the function raised
            raise Lost from error
        return found

    def _drop(self, running: Mapping[int, Any]) -> None:
        """Let go of futures: the scheduler forgets their tasks. Cancelling them would wait for it."""

    def _look(self, running: Mapping[int, str], times: Times) -> None:
        now = self.clock.now
        if now - self._looked < min(SOON, self._soon()) / 2:
            return
        self._looked = now
        try:
            there = self.workers(self._soon())
            processing = self._asked(self._processing, self._soon())
        except GONE as error:
            if self._idle.seconds("scheduler", "silent", self.clock.tick()) >= self.patience.silence:
                raise self._gone() from error
            return
        self._idle.seconds("scheduler", None, now)
        if there:
            self._idle.seconds("workers", None, now)
        else:
            self.once("empty", now // self.patience.unknown, f"no worker at {self.address}; waiting for one")
            if self._idle.seconds("workers", "none", now) >= self.patience.unknown:
                raise self._nobody()
        for address, known in there.items():
            held = [_number(key) for key in processing.get(address, ())]
            names = tuple(running[number] for number in held if number in running)
            if names:
                self._judge(address, known, names, times)

    async def _processing(self) -> dict[str, tuple[Any, ...]]:
        found: dict[str, tuple[Any, ...]] = await self._scheduler.processing(workers=None)
        return found

    def _judge(self, address: str, known: Mapping[str, Any], names: tuple[str, ...], times: Times) -> None:
        now = self.clock.now
        if now < self._pardon.get(address, 0.0):
            return
        silent = self._idle.seconds(("heart", address), known["last_seen"], now)
        computes = known["metrics"].get("cpu", 0.0) > COMPUTES
        rests = self._idle.seconds(address, None if computes else names, now)
        if silent >= self.patience.silence:
            what, limit = "has not answered", self.patience.silence
        elif rests >= (limit := self.patience.limit(times.seconds, times.attempt)):
            what = "did not go on"
        else:
            return
        self.say(
            f"worker {address} {what} for {limit:.0f} s at {', '.join(names[:3])}; it is restarted and its "
            "tasks done again"
        )
        self.restart([address])

    def restart(self, addresses: list[str]) -> None:
        """Have workers restarted by their nannies, or removed, without waiting for it."""
        for address in addresses:
            self._pardon[address] = self.clock.now + self.patience.silence + PARDON
            self._idle.seconds(("heart", address), None, self.clock.now)
            self._idle.seconds(address, None, self.clock.now)

        async def asking() -> None:
            with contextlib.suppress(*GONE):
                await self._scheduler.restart_workers(
                    workers=addresses,
                    timeout=self.patience.start,
                    wait_for_workers=False,
                    on_error="return",
                    stimulus_id=f"gammastar-{uuid.uuid4().hex}",
                )

        asyncio.run_coroutine_threadsafe(asking(), self.client.loop.asyncio_loop)

    def _known(self) -> dict[str, Any]:
        """Return what the scheduler knows of its workers, or say that it is gone."""
        try:
            return self.workers(self.patience.start)
        except GONE as error:
            raise self._gone() from error

    def everywhere(self, function: Callable[..., Any], *arguments: Any) -> dict[str, Any]:
        """Return what a short function returns on every worker; whoever does not answer is restarted."""
        there = list(self._known())

        async def one(address: str) -> Any:
            try:
                self._scheduler  # noqa: B018 - or nobody is there
                call = self.client._run(function, *arguments, workers=[address], on_error="return")
                return (await asyncio.wait_for(call, self.patience.start)).get(address)
            except GONE as error:
                return error

        async def asking() -> list[Any]:
            return list(await asyncio.gather(*map(one, there)))

        try:
            answers = self._asked(asking, self.patience.start + LEAVE)
        except GONE as error:
            raise self._gone() from error
        found = dict(zip(there, answers, strict=True))
        for address, value in found.items():
            if isinstance(value, ImportError | AttributeError):
                raise StoreError(
                    f"worker {address} cannot import gammastar ({value}); install the same version there"
                )
        silent = [address for address, value in found.items() if value is None or isinstance(value, GONE)]
        if silent:
            self.say(f"worker {', '.join(silent[:5])} does not answer; restarted or left out")
            self.restart(silent)
        good = {address: value for address, value in found.items() if address not in silent}
        if not good:
            raise StoreError(
                f"{self.address}: none of {len(there)} workers answers within {self.patience.start:.0f} s"
            )
        return good

    def check(self) -> Signature:
        """Refuse workers with other code or libraries, or too little memory; return what all have."""
        for address, known in self._known().items():
            limit = known["memory_limit"]
            if limit and limit < NEED:
                raise SteeringError(
                    f"worker {address} may use {limit / 2**20:.0f} MiB of memory, needed are "
                    f"{NEED / 2**20:.0f} MiB; start it with --memory-limit, or start fewer on a machine"
                )
        here = signature()
        for address, there in self.everywhere(signature).items():
            compare(there, here, address)
        return here

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers that see other files than this process, or not the folder of results."""
        temporary = folder / f"token-{uuid.uuid4().hex}"
        arguments = chosen(paths), str(temporary)
        write_text(temporary, uuid.uuid4().hex)
        try:
            end, here = self.clock.tick() + self.patience.silence / 4, fingerprint(*arguments)
            while True:
                try:
                    other_files(self.everywhere(fingerprint, *arguments), here, folder)
                except StoreError:
                    if self.clock.tick() > end:
                        raise
                    time.sleep(self.patience.silence / 20)  # network file systems show new files late
                else:
                    return
        finally:
            temporary.unlink(missing_ok=True)


def _number(key: Any) -> int:
    last = str(key).rpartition("-")[2]
    return int(last) if str(key).startswith("gammastar-") and last.isdecimal() else -1


@contextlib.contextmanager
def connected(address: str, workers: int | None, patience: Patience) -> Iterator[Any]:
    """Yield a client of a cluster with at least one worker."""
    with contextlib.ExitStack() as stack:
        text = f"--dask {address}: waiting up to {patience.start:.0f} s for the scheduler and a worker"
        hint = threading.Timer(SOON, logger.warning, [text])
        hint.daemon = True
        hint.start()
        try:
            client = _client(address, workers, patience, stack)
            client.wait_for_workers(1, timeout=patience.start)
        except (OSError, TimeoutError, ValueError) as error:
            within = f"within {patience.start:.0f} s"
            raise SteeringError(
                f"--dask {address}: no scheduler with a worker answers {within} ({error})"
            ) from error
        finally:
            hint.cancel()
        yield client


def _client(address: str, workers: int | None, patience: Patience, stack: contextlib.ExitStack) -> Any:
    if address == "local":
        cluster = LocalCluster(
            n_workers=workers, threads_per_worker=1, dashboard_address=None, processes=True
        )
        return stack.enter_context(Client(stack.enter_context(cluster)))
    if "://" not in address and (Path(address).exists() or ":" not in address):
        address = _address(Path(address))
    with ThreadPoolExecutor(1) as pool:  # a notebook has a running loop in this thread
        pool.submit(asyncio.run, _alive(address, patience.start)).result()
    client = Client(address, timeout=patience.start)
    stack.callback(_leave, client)
    return client


async def _alive(address: str, timeout: float) -> None:
    """Return when a scheduler has answered: a client waits for ever for one that is stopped."""
    arguments = Security().get_connection_args("client")
    async with rpc(address, timeout=timeout, connection_args=arguments) as scheduler:
        await asyncio.wait_for(scheduler.identity(n_workers=0), timeout)


def _address(path: Path) -> str:
    """Return the address in a scheduler file."""
    try:
        content = json.loads(text_of(path))
        return str(content["address"])
    except OSError as error:
        raise SteeringError(f"--dask {path}: the scheduler file cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SteeringError(
            f"--dask {path}: is no scheduler file ('dask scheduler --scheduler-file {path}' writes one)"
        ) from error


def _leave(client: Any) -> None:
    """Close a client without its tracebacks of a scheduler that is gone: the error has said it."""
    noisy = logging.getLogger("distributed.client")
    before = noisy.level
    noisy.setLevel(logging.CRITICAL)
    try:
        with contextlib.suppress(*GONE, *LOST):
            client.close(timeout=LEAVE)
    finally:
        noisy.setLevel(before)
