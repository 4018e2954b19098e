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
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import forks
import psutil

from gammastar.core.errors import GammastarError, SteeringError, StoreError
from gammastar.core.sampling import stream
from gammastar.facility import Patience, open_executor
from gammastar.select import Cuts
from injection.workers import content, job, serial

SHORT = Patience(start=15.0, silence=4.0, idle=4.0, nobody=4.0)  # s; a run takes the defaults
LONGEST = 120.0  # s that a job may last here, starts of processes included
STEP = 200  # entries of a chunk


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
    file.unlink(missing_ok=True)
    running = [_started("scheduler", file, "--port", "0")]
    try:
        running += [worker(str(file), *options) for _ in range(workers)]
        end = time.monotonic() + LONGEST
        while not (file.is_file() and file.read_text().endswith("}")) and time.monotonic() < end:
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
    words = ["-m", "dask", what, "--no-dashboard", "--scheduler-file", str(file), *options]
    cwd = cwd or file.parent
    if path is None:
        return forks.server.start(*words, cwd=cwd)
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": cwd}
    places = os.pathsep.join(filter(None, [str(path), os.environ.get("PYTHONPATH", "")]))
    return subprocess.Popen([sys.executable, *words], env=os.environ | {"PYTHONPATH": places}, **quiet)


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


@dataclass
class Stuck:
    """What became of jobs whose workers or schedulers were stopped: how many, and which went wrong."""

    tried: int = 0
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def judge(self, what: str, good: bool, start: float, limit: float = LONGEST) -> None:
        """Count a try; it is wrong as well if it lasted too long."""
        self.tried += 1
        seconds = time.monotonic() - start
        self.slowest = max(self.slowest, seconds)
        if not good or seconds > limit:
            self.wrong.append(f"{what}: {'hung' if good else 'wrong'}, {seconds:.0f} s")


def stopped_workers(folder: Path, n: int, *, on: str, portion: int = 0) -> Stuck:
    """Stop a worker at a random time of each of `n` jobs; the pairs must be there, and the same."""
    found, rng, expected = Stuck(), stream(17, "hangs", on, portion), content(serial()[0])
    with contextlib.ExitStack() as stack:
        if on == "local":
            executor = stack.enter_context(open_executor(workers=2, patience=SHORT))
        else:
            address, running = stack.enter_context(dask(folder, options=("--nanny",)))
            executor = stack.enter_context(open_executor(dask=address, patience=SHORT))
        for i in range(n):
            target = job(folder / f"{on}{i}", step=STEP)
            chunks = int(rng.integers(1, 60))

            pool = executor.crew.pool() if on == "local" else None  # of this thread
            stops: list[float] = []

            def stop(number: int = int(rng.integers(2)), pool: Any = pool, stops: Any = stops) -> None:
                stops.append(time.monotonic())
                pids = list(pool._processes) if pool else _children(running[1:])
                with contextlib.suppress(ProcessLookupError):
                    os.kill(sorted(pids)[number % len(pids)], signal.SIGSTOP)

            start, why = time.monotonic(), ""
            with after(functools.partial(_has, target.folder, chunks), stop):
                try:
                    pairs, _ = executor.pairs(target)
                    good = content(pairs) == expected
                except GammastarError as error:
                    good, why = False, str(error)[:80]
            late = not stops or time.monotonic() - stops[0] < SHORT.silence  # too late to be missed
            what = f"{on} worker {i} {why}" + ("" if late or executor.events else "nobody noticed")
            found.judge(what, good and (late or bool(executor.events)), start)
            executor.events.clear()
    return found


def _has(folder: Path, chunks: int) -> bool:
    return len(list(folder.glob("*.parquet"))) >= chunks


def _children(processes: list[Any]) -> list[int]:
    """Return the worker processes below their nannies."""
    found = []
    for process in processes:
        below = psutil.Process(process.pid).children(recursive=True)
        found += [one.pid for one in below if "spawn_main" in " ".join(one.cmdline())]
    return found


def gone_schedulers(folder: Path, *, portion: int = 0) -> Stuck:
    """Kill or stop a scheduler within a job: an error in time, and the same pairs when it is done again."""
    found, rng, expected = Stuck(), stream(19, "schedulers", portion), content(serial()[0])
    for name, what in (("killed", signal.SIGKILL), ("stopped", signal.SIGSTOP)):
        target = job(folder / name, step=STEP)
        chunks, good = int(rng.integers(1, 60)), False
        with dask(folder) as (address, processes):
            act = functools.partial(processes[0].send_signal, what)
            with (
                open_executor(dask=address, patience=SHORT) as executor,
                after(functools.partial(_has, target.folder, chunks), act),
            ):
                start = time.monotonic()
                try:
                    executor.pairs(target)
                except StoreError as error:
                    good = "--resume" in str(error)
        with open_executor() as executor:
            good = good and content(executor.pairs(target)[0]) == expected
        found.judge(f"scheduler {name}", good, start)
    return found


def dead_addresses(folder: Path) -> Stuck:
    """Give schedulers that are not there: a refusal in time that names them."""
    found, patience = Stuck(), replace(SHORT, start=2.0)
    (folder / "nonsense.json").write_text("{")
    (folder / "dead.json").write_text('{"address": "tcp://127.0.0.1:1"}')
    with dask(folder, workers=0) as (address, processes):
        given = [
            "missing.json",
            str(folder / "nonsense.json"),
            str(folder / "dead.json"),
            "tcp://127.0.0.1:1",
        ]
        for name in [*given, "nowhere.invalid:8786", address, "stopped"]:
            if name == "stopped":
                processes[0].send_signal(signal.SIGSTOP)
                name = address  # noqa: PLW2901 - the same, stopped
            start, good = time.monotonic(), False
            try:
                with open_executor(dask=name, patience=patience):
                    pass
            except SteeringError as error:
                good = name in str(error)
            found.judge(name, good, start, limit=patience.start + 10.0)
    return found
