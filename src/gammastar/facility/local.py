"""Worker processes of this machine, and what becomes of one that is stopped or hangs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil
from loky import get_reusable_executor

from gammastar.core.errors import GammastarError, StoreError
from gammastar.core.machine import told
from gammastar.facility.crew import Crew, Function, Idle, Patience, Times, timed
from gammastar.facility.processor import warm

__all__ = ["LocalCrew"]

SLOWLY = 10  # times the patience with a scheduler have workers to start: libraries may come over a network
REST = 600  # s after which idle workers end
COMPUTES = 0.03  # of one core: less is waiting
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

    def _submit(self, function: Function, index: int, item: Any) -> Any:
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
            msg = f"none of {self.workers} worker processes began a task {within}; go on with --resume"
            raise StoreError(msg)

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
        msg = f"workers need a folder for temporary files: {told(error, Path(_temporary()))}"
        raise StoreError(msg) from error


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
            mark.parent.rmdir()  # by the last worker
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        _Worker.mark = os.open(mark, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        _note(-1)  # takes its block now: later there may be none
        warm()
    except (GammastarError, OSError) as error:
        why = told(error, Path(_temporary())) if isinstance(error, OSError) else error
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
