"""Workers and schedulers that are stopped, hang, or are not there: an end in time, with the same pairs."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil

from gammastar.facility import Patience
from gammastar.select import Cuts

SHORT = Patience(start=15.0, silence=2.0, factor=4.0, unknown=4.0)  # s; a run takes the defaults
AGAIN = 120.0  # s that anything here may last, starts of processes and of clusters included


def once(path: Path) -> bool:
    """Return True to the first who asks."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def stopping(path: Path, how: str) -> Callable[[], Cuts]:
    """Return cuts whose first reader is stopped, or waits for something that never comes."""

    def cuts(path: Path, how: str) -> Cuts:
        import os
        import time

        try:
            path.touch(exist_ok=False)
        except FileExistsError:
            return Cuts()
        if how == "stopped":
            os.kill(os.getpid(), signal.SIGSTOP)
        elif how == "waits":
            time.sleep(10_000)
        return Cuts()

    return functools.partial(cuts, path, how)


@contextlib.contextmanager
def dask(
    folder: Path, *, workers: int = 2, options: tuple[str, ...] = ("--nanny",)
) -> Iterator[tuple[str, list[Any]]]:
    """Yield the scheduler file of a cluster of processes, and these: the scheduler first."""
    file = folder / "scheduler.json"
    running = [_started("scheduler", file, "--port", "0")]
    try:
        running += [worker(str(file), *options) for _ in range(workers)]
        end = time.monotonic() + AGAIN
        while not file.is_file() and time.monotonic() < end:
            time.sleep(0.05)
        yield str(file), running
    finally:
        for process in running:
            end_tree(process.pid)
            process.wait()


def worker(file: str, *options: str, cwd: Path | None = None, path: Path | None = None) -> Any:
    """Start a worker of the scheduler that a file names, in a folder, with modules from another."""
    return _started("worker", Path(file), "--nthreads", "1", *options, cwd=cwd, path=path)


def _started(what: str, file: Path, *options: str, cwd: Path | None = None, path: Path | None = None) -> Any:
    command = [sys.executable, "-m", "dask", what, "--no-dashboard", "--scheduler-file", str(file)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": cwd or file.parent}
    places = [str(path)] if path else []
    places += [os.environ["PYTHONPATH"]] if "PYTHONPATH" in os.environ else []
    return subprocess.Popen(
        [*command, *options], env=os.environ | {"PYTHONPATH": os.pathsep.join(places)}, **quiet
    )


def end_tree(pid: int) -> None:
    """Kill a process of ours and its children, stopped ones too."""
    with contextlib.suppress(psutil.Error):
        here = psutil.Process(pid)
        for process in [*here.children(recursive=True), here]:
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def after(ready: Callable[[], bool], act: Callable[[], None]) -> Iterator[None]:
    """Do something as soon as something else is so, while the block runs."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            if ready():
                act()
                return

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
