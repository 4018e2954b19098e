"""Workers that are watched: a pool of local processes, and a Dask cluster; what one loses is done again."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import hashlib
import json
import logging
import os
import queue
import shutil
import tempfile
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, CancelledError, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import distributed
import psutil
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker
from loky import get_reusable_executor

from gammastar.core.errors import GammastarError, SteeringError, StoreError
from gammastar.core.files import disk_full_message, text_of, write_whole
from gammastar.facility import processor
from gammastar.store.manifest import write_text

POLL = 0.5  # s between two looks at the workers
LONGEST_STEP = 5.0  # s between two looks; more means that this process was stopped itself
COMPUTES, COMPUTES_DASK = 0.03, 10.0  # of one core, and in % of it as Dask tells it: less is waiting
LARGE = 1_000_000  # bytes of a function beyond which local workers read it from a file
REST = 600  # s after which idle local workers end
NEED = 800 << 20  # bytes of memory of a Dask worker
SOON = 5.0  # s without an answer after which the user is told what is waited for
PARDON = 10.0  # s that a nanny takes to end a process that does not listen
LEAVE = 5.0  # s to say goodbye
GONE = (OSError, TimeoutError, asyncio.CancelledError, CancelledError, RuntimeError, ValueError)
Function: TypeAlias = Callable[[Any], Any]
Client: Any = distributed.Client  # without types
LocalCluster: Any = distributed.LocalCluster
Security: Any = distributed.Security
rpc: Any = distributed.rpc
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Patience:
    """Limits in seconds. Whoever computes is never stuck, however long its task takes.

    Attributes
    ----------
    start : float
        For a scheduler and its first worker to answer when a run begins.
    silence : float
        For a scheduler that does not answer within a run.
    idle : float
        A task is given to somebody else when its worker has not computed for so long, twice as long at every
        further attempt.
    nobody : float
        For a Dask scheduler without any worker.
    """

    start: float = 60.0
    silence: float = 60.0
    idle: float = 120.0
    nobody: float = 600.0


class Lost(Exception):
    """What a worker had is not there any more; it is done again."""


LOST = (BrokenExecutor, CancelledError, FutureCancelledError, KilledWorker, Lost)


class Crew(ABC):
    """Workers behind an interface of futures."""

    window = 1000  # tasks that are given out at the same time

    def __init__(self, patience: Patience) -> None:
        self.patience = patience
        self.events: list[str] = []
        self.now = 0.0  # s during which this process was awake: one that is stopped itself suspects nobody

    def say(self, text: str) -> None:
        """Tell the user, and note it for the manifest."""
        self.events.append(text)
        logger.warning("%s", text)

    def shared(self, content: bytes) -> bytes | Path:
        """Return what stands in each task for what all of them need: a file that workers see, or itself."""
        return content

    def gather(
        self,
        function: Function,
        items: Mapping[int, Any],
        label: Callable[[Any], str],
        *,
        name: str = "",
        attempt: int = 0,
    ) -> Iterator[tuple[int, Any]]:
        """Yield number and ``function(item)`` as they come; what was lost is left out."""
        self._begin()
        waiting, running = deque(items), dict[int, Any]()
        done: queue.SimpleQueue[int] = queue.SimpleQueue()
        last = looked = time.monotonic()
        try:
            while waiting or running:
                while waiting and len(running) < self.window:
                    index = waiting.popleft()
                    try:
                        running[index] = self._submit(function, index, items[index], name)
                    except LOST:
                        return
                    running[index].add_done_callback(lambda _, index=index: done.put(index))
                with contextlib.suppress(queue.Empty):
                    index = done.get(timeout=POLL)
                    while True:
                        with contextlib.suppress(*LOST):
                            yield index, self._result(running.pop(index))
                        index = done.get_nowait()
                now = time.monotonic()
                self.now, last = self.now + min(now - last, LONGEST_STEP), now
                if now - looked >= POLL:
                    looked = now
                    held = {index: label(items[index]) for index, f in running.items() if not f.done()}
                    self._look(held, self.patience.idle * 2**attempt)
        finally:
            self._drop(running)

    @abstractmethod
    def _begin(self) -> None:
        """Wait until there are workers, or raise; forget what was seen of them."""

    @abstractmethod
    def _submit(self, function: Function, index: int, item: Any, name: str) -> Any:
        """Hand one item to a worker; `name` says what it is."""

    @abstractmethod
    def _result(self, future: Any) -> Any:
        """Return the value of a finished future."""

    @abstractmethod
    def _look(self, running: Mapping[int, str], limit: float) -> None:
        """Look whether the running items, by index, are worked on; `limit` [s] for who computes nothing."""

    @abstractmethod
    def _drop(self, running: Mapping[int, Any]) -> None:
        """Give up what still runs."""


class LocalCrew(Crew):
    """A pool of processes; one that is stuck ends with the pool, and what that had in hand is done again."""

    def __init__(self, workers: int, patience: Patience) -> None:
        super().__init__(patience)
        self.workers, self.window = workers, 4 * workers
        self._used: dict[int, tuple[float, float]] = {}  # s of CPU of a process, and when it had used them
        self._left: list[Any] = []  # what was running when its run ended with an error
        self.pool().submit(os.getpid)  # workers start and compile while this process goes on

    def pool(self) -> Any:
        """Return the pool; a new one if a worker of the old one died."""
        return get_reusable_executor(
            max_workers=self.workers, timeout=REST, initializer=_begin_worker, initargs=(_folder().name,)
        )

    def shared(self, content: bytes) -> bytes | Path:
        """Return a file of the folder of this process' workers, each of which reads it once."""
        if len(content) < LARGE:
            return content
        path = Path(_folder().name, hashlib.sha256(content).hexdigest())
        try:
            write_whole(path, content)
        except (OSError, StoreError):  # no space is left: then by the pipe, task by task
            return content
        return path

    def _begin(self) -> None:
        self._used.clear()

    def _submit(self, function: Function, index: int, item: Any, name: str) -> Any:  # noqa: ARG002
        return self.pool().submit(_worked, function, item)

    def _result(self, future: Any) -> Any:
        return future.result()

    def _drop(self, running: Mapping[int, Any]) -> None:
        self._left = [future for future in running.values() if not future.cancel()]

    def _look(self, running: Mapping[int, str], limit: float) -> None:
        processes = self._processes()
        quiet = [process for process in processes if self._idle(process) >= limit]
        if quiet and len(running) > len(processes) - len(quiet):  # somebody holds a task and does nothing
            names = ", ".join(list(running.values())[:3])
            pids = ", ".join(str(process.pid) for process in quiet)
            self.say(
                f"worker process {pids} did not go on for {limit:.0f} s; the workers are ended and their "
                f"tasks done again: {names}"
            )
            for process in quiet:
                with contextlib.suppress(psutil.Error):
                    process.kill()

    def _idle(self, process: psutil.Process) -> float:
        """Return for how long a process has not computed; a stopped one does not, nor one that is gone."""
        before, since = self._used.get(process.pid, (-1.0, self.now))
        with contextlib.suppress(psutil.Error):
            used = sum(process.cpu_times()[:2])
            if used - before > COMPUTES * (self.now - since):
                self._used[process.pid] = used, self.now
                return 0.0
        return self.now - since

    def _processes(self) -> list[psutil.Process]:
        found = []
        for pid in list(getattr(self.pool(), "_processes", None) or ()):
            with contextlib.suppress(psutil.Error):
                found.append(psutil.Process(pid))
        return found

    def close(self) -> None:
        """End workers that are stopped or still at work: the end of this process would wait for them."""
        stopped = [psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP]
        with contextlib.suppress(psutil.Error):
            if all(future.done() for future in self._left) and not any(
                process.status() in stopped for process in self._processes()
            ):
                return
        self.pool().shutdown(wait=True, kill_workers=True)


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Return the folder of files for the workers of this process."""
    try:
        return tempfile.TemporaryDirectory(prefix="gammastar-workers-")  # goes with this process
    except OSError as error:
        raise StoreError(
            f"workers need a folder for temporary files: {disk_full_message(error, _temporary())}"
        ) from error


def _temporary() -> Path:
    return Path(tempfile.tempdir or os.environ.get("TMPDIR", "/tmp"))  # noqa: S108 - named in a message


_trouble: list[str] = []  # why this worker cannot start


def _begin_worker(folder: str) -> None:
    """Warm a process of the pool, and end it when the run that started it is gone.

    A run that is killed cannot end its workers; idle ones would wait ten minutes for another chunk. What
    goes wrong here is told by the first task: the pool would only say that a process died.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        processor.warm()
    except (GammastarError, OSError) as error:
        why = disk_full_message(error, _temporary()) if isinstance(error, OSError) else error
        _trouble.append(f"worker process {os.getpid()} cannot start: {why}")


def _worked(function: Function, item: Any) -> Any:
    if _trouble:
        raise StoreError(_trouble[0])
    return function(item)


class DaskCrew(Crew):
    """Workers of a Dask scheduler.

    One that does not go on with a task is restarted by its nanny, or removed from the scheduler if it has
    none: what Dask itself does after five minutes without heartbeat.
    """

    def __init__(self, client: Any, patience: Patience) -> None:
        super().__init__(patience)
        self.client, self.address = client, str(client.scheduler.address)
        self._signs: dict[str, tuple[Any, float]] = {}  # what a worker showed last, and since when
        self._answered = self._manned = 0.0

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

    def _gone(self) -> StoreError:
        why = "has closed the connection" if self.client.status == "closed" else "does not answer"
        return StoreError(
            f"the Dask scheduler {self.address} {why}, waited for {self.patience.silence:.0f} s; "
            "when it is back, go on with --resume"
        )

    def _nobody(self) -> StoreError:
        return StoreError(
            f"the Dask scheduler {self.address} has had no worker for {self.patience.nobody:.0f} s; "
            "start some and go on with --resume"
        )

    def _begin(self) -> None:
        begun, empty = time.monotonic(), 0.0
        while True:
            try:
                there = self.workers(self.patience.silence / 2)
            except GONE as error:
                if self.client.status == "closed" or time.monotonic() - begun > self.patience.silence:
                    raise self._gone() from error
                time.sleep(0.1)  # a closed connection answers at once
                continue
            if there:
                break
            if not empty:
                empty = time.monotonic()
                logger.warning("no worker at %s; waiting for one", self.address)
            if time.monotonic() - empty > self.patience.nobody:
                raise self._nobody()
            time.sleep(0.2)
        self._signs.clear()
        self._answered = self._manned = self.now

    def _submit(self, function: Function, index: int, item: Any, name: str) -> Any:
        label = "".join(filter(str.isalpha, name)) or "tasks"  # of the bar on Dask's dashboard
        key = f"gammastar-{label}-{uuid.uuid4().hex}-{index}"
        try:
            return self.client.submit(function, item, pure=False, retries=3, key=key)
        except GONE as error:
            raise Lost from error

    def _result(self, future: Any) -> Any:
        if future.status not in {"finished", "error"}:
            raise Lost
        try:
            return future.result(timeout=self.patience.silence)
        except GONE as error:
            if future.status == "error":
                raise  # what the function raised
            raise Lost from error

    def _drop(self, running: Mapping[int, Any]) -> None:
        """Let go of futures: the scheduler forgets their tasks. Cancelling them would wait for it."""

    def _look(self, running: Mapping[int, str], limit: float) -> None:
        async def processing() -> Any:
            return await self._scheduler.processing(workers=None)

        try:
            there = self.workers(self.patience.silence / 2)
            held = self._asked(processing, self.patience.silence / 2)
        except GONE as error:
            if self.client.status == "closed" or self.now - self._answered >= self.patience.silence:
                raise self._gone() from error
            return
        self._answered = self.now
        self._manned = self.now if there else self._manned
        if self.now - self._manned >= self.patience.nobody:
            raise self._nobody()
        for address, known in there.items():
            names = tuple(running[n] for n in map(_number, held.get(address, ())) if n in running)
            computes = known["metrics"].get("cpu", 0.0) > COMPUTES_DASK or not names
            sign = known["last_seen"] if computes else names  # one that is stopped shows nothing new
            before, since = self._signs.get(address, (None, 0.0))
            if sign != before and since <= self.now:
                self._signs[address] = sign, self.now
            elif names and self.now - since >= limit:
                self.say(
                    f"worker {address} has not answered, or did not go on, for {limit:.0f} s at "
                    f"{', '.join(names[:3])}; it is restarted and its tasks done again"
                )
                self.restart([address])

    def restart(self, addresses: list[str]) -> None:
        """Have workers restarted by their nannies, or removed, without waiting for it."""
        later = self.now + self.patience.silence + PARDON
        self._signs |= dict.fromkeys(addresses, (None, later))

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
        good = {}
        for address, value in zip(there, answers, strict=True):
            if isinstance(value, ImportError | AttributeError):
                raise StoreError(
                    f"worker {address} cannot import gammastar ({value}); install the same version there"
                )
            if value is not None and not isinstance(value, GONE):
                good[address] = value
        silent = [address for address in there if address not in good]
        if silent:
            self.say(f"worker {', '.join(silent[:5])} does not answer; restarted or left out")
            self.restart(silent)
        if not good:
            raise StoreError(
                f"{self.address}: none of {len(there)} workers answers within {self.patience.start:.0f} s"
            )
        return good

    def check(self) -> processor.Signature:
        """Refuse workers with other code or libraries, or too little memory; return what all have."""
        for address, known in self._known().items():
            limit = known["memory_limit"]
            if limit and limit < NEED:
                raise SteeringError(
                    f"worker {address} may use {limit / 2**20:.0f} MiB of memory, needed are "
                    f"{NEED / 2**20:.0f} MiB; start it with --memory-limit, or start fewer on a machine"
                )
        here = processor.signature()
        for address, there in self.everywhere(processor.signature).items():
            processor.compare(there, here, address)
        return here

    def same_files(self, paths: Sequence[str], folder: Path) -> None:
        """Refuse workers that see other files than this process, or not the folder of results."""
        temporary = folder / f"token-{uuid.uuid4().hex}"
        arguments = processor.chosen(paths), str(temporary)
        write_text(temporary, uuid.uuid4().hex)
        try:
            end, here = time.monotonic() + self.patience.silence / 4, processor.fingerprint(*arguments)
            while True:
                try:
                    return processor.other_files(
                        self.everywhere(processor.fingerprint, *arguments), here, folder
                    )
                except StoreError:
                    if time.monotonic() > end:
                        raise
                    time.sleep(self.patience.silence / 20)  # network file systems show new files late
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
        return str(json.loads(text_of(path))["address"])
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
