"""Modules and scripts run as ``python`` does, in processes of their own that need not import anything again.

A copy of the process that runs the tests is made before the first of them. Every command is a fork of this
copy: what tests do in their own process never reaches it, and what a command does reaches no test. The
processes that share the tests among them are forks as well, of one that has done nothing but import.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import gc
import importlib
import io
import logging
import os
import pkgutil
import resource
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import warnings
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from multiprocessing import forkserver, process, reduction, resource_tracker
from multiprocessing.connection import Connection, Pipe, arbitrary_address
from pathlib import Path
from typing import Any, NoReturn

from execnet import gateway_io
from execnet.gateway_base import Popen2IO
from loky.backend.context import set_start_method

QUIET = (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning)
POLL = 0.01  # s between two looks at a command
LATE = (  # what the package and its libraries import only where they use it
    "coffea.processor",
    "hepdata_validator.full_submission_validator",
    "matplotlib.backends.backend_pdf",
    "pyarrow.parquet",
    "sklearn.ensemble",
    "torch._dynamo",
    "zuko",
)


@dataclass(frozen=True)
class Command:
    """What a child does: words after ``python``, folder, changed environment, files of its output, limits."""

    words: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    out: str
    err: str
    limits: Mapping[int, int] = field(default_factory=dict)  # of `resource`; memory: beyond the copy
    pipes: int = 0  # file descriptors that follow, instead of the files: input and output


class Child:
    """A command that was started."""

    def __init__(self, server: Server, pid: int) -> None:
        self.server, self.pid, self.returncode = server, pid, None

    def poll(self) -> int | None:
        """Return the exit status, None while it runs; as `subprocess.Popen.poll`."""
        if self.returncode is None:
            self.returncode = self.server.ask("status", self.pid)
        return self.returncode

    def wait(self, timeout: float = 600.0) -> int:
        """Wait for the end and return the exit status."""
        end = time.monotonic() + timeout
        while self.poll() is None:
            if time.monotonic() > end:
                os.kill(self.pid, 9)
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(POLL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it is still there."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask the process to end."""
        self.send_signal(15)


@dataclass
class Server:
    """The copy, and the end of the pipe at which it is asked."""

    pid: int = 0
    pipe: Connection | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def begin(self) -> None:
        """Begin with a new process that imports everything, instead of a copy of this one."""
        self.pipe, there = Pipe()
        code = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r}); import forks; forks.serve()"
        begun = subprocess.Popen([sys.executable, "-c", code, str(there.fileno())], pass_fds=[there.fileno()])
        self.pid, begun.returncode = begun.pid, 0  # `close` waits for it
        there.close()

    def open(self) -> None:
        """Make the copy."""
        self.pipe, there = Pipe()
        self.pid = _forked()
        if not self.pid:
            self.pipe.close()
            _forget_pools()
            _serve(there)
        there.close()

    def close(self) -> None:
        """End the copy."""
        if self.pipe is not None:
            self.pipe.close()
            os.waitpid(self.pid, 0)
            self.pipe = None

    def ask(self, what: str, about: Any) -> Any:
        """Return the answer of the copy; it is made now if nobody has."""
        if self.pipe is None:
            self.open()
        with self.lock:
            self.pipe.send((what, about))
            return self.pipe.recv()

    def start(self, *words: Any, cwd: Any = None, env: Mapping[str, str] | None = None, **more: Any) -> Child:
        """Start ``python words``: ``-m`` and a module, ``-c`` and code, or a script."""
        files = dict.fromkeys(("out", "err"), os.devnull) | more
        given = tuple(str(word) for word in words)
        return Child(self, self.ask("start", Command(given, str(cwd or Path.cwd()), env or {}, **files)))

    def run(
        self, *words: Any, check: bool = False, timeout: float = 600.0, **more: Any
    ) -> subprocess.CompletedProcess[str]:
        """Run ``python words`` to its end; return status and output as `subprocess.run` does."""
        with tempfile.TemporaryDirectory() as folder:
            files = {name: str(Path(folder, name)) for name in ("out", "err")}
            status = self.start(*words, **files, **more).wait(timeout)
            said = [Path(path).read_text(encoding="utf-8") for path in files.values()]
        done = subprocess.CompletedProcess([str(word) for word in words], status, *said)
        assert not check or status == 0, f"{done.args}: {done.stderr[-2000:]}"
        return done


server = Server()
template = Server()  # of the processes that share the tests


class Worker(Popen2IO):
    """One of them and the pipes to it, where execnet begins a new process and imports everything again."""

    def __init__(self, args: list[str], execmodel: Any) -> None:
        if template.pipe is None:
            template.begin()
        (inside, to), (back, outside) = os.pipe(), os.pipe()
        command = Command(tuple(args[args.index("-c") :]), str(Path.cwd()), {}, "", "", pipes=2)
        with template.lock:
            template.pipe.send(("start", command))
            for end in (inside, outside):
                reduction.send_handle(template.pipe, end, template.pid)
                os.close(end)
            self.child = Child(template, template.pipe.recv())
        super().__init__(os.fdopen(to, "wb"), os.fdopen(back, "rb"), execmodel)

    def wait(self) -> int | None:
        """Wait for its end."""
        return self.child.wait()

    def kill(self) -> None:
        """End it."""
        self.child.send_signal(signal.SIGKILL)


def share_imports() -> None:
    """Let the processes that share the tests be forks of one that imported everything once."""
    gateway_io.Popen2IOMaster = Worker


@dataclass
class Pools:
    """The process of which workers of pools are forks: a copy as well, where multiprocessing imports anew."""

    pid: int = 0

    def open(self) -> None:
        """Make the copy, as `multiprocessing.forkserver.ForkServer.ensure_running` makes a new process."""
        resource_tracker.ensure_running()
        known = forkserver._forkserver
        with socket.socket(socket.AF_UNIX) as listener:
            known._forkserver_address = arbitrary_address("AF_UNIX")
            listener.bind(known._forkserver_address)
            listener.listen()
            alive, known._forkserver_alive_fd = os.pipe()
            self.pid = known._forkserver_pid = _forked()
            if not self.pid:
                os.close(known._forkserver_alive_fd)
                try:
                    if select.select([listener, alive], [], [])[0] == [listener]:
                        _imported()
                    forkserver.main(listener.fileno(), alive, [])
                finally:
                    os._exit(0)
            os.close(alive)
        set_start_method("forkserver", force=True)  # of loky

    def close(self) -> None:
        """End it if it is still that one; idle workers end by themselves."""
        known = forkserver._forkserver
        if self.pid and known._forkserver_pid == self.pid:
            os.kill(self.pid, signal.SIGTERM)
            known._stop()
        self.pid = 0


def _forget_pools() -> None:
    """Let pools of a copy of this process start as they do elsewhere."""
    known = forkserver._forkserver
    if known._forkserver_pid is not None:
        os.close(known._forkserver_alive_fd)
        known.__init__()
        set_start_method(None, force=True)


pools = Pools()


def gammastar(*arguments: Any, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run the command line to its end; options as in `Server.run`."""
    return server.run("-m", "gammastar", *arguments, **options)


def _forked() -> int:
    """Return what `os.fork` does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which do no work
        return os.fork()


def serve() -> NoReturn:
    """Be the process that `Server.begin` began."""
    _serve(Connection(int(sys.argv[1])))


def _serve(pipe: Connection) -> NoReturn:
    """Start commands and say what became of them, until nobody is there to ask."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: who asks ends, and so does this
    ended: dict[int, int] = {}
    ready = False
    with contextlib.suppress(EOFError, OSError):
        while True:
            what, about = pipe.recv()
            if what == "start":
                given = [reduction.recv_handle(pipe) for _ in range(about.pipes)]
                ready = ready or _imported()
                pid = os.fork()
                if not pid:
                    pipe.close()
                    _work(about, given)
                for end in given:
                    os.close(end)
                pipe.send(pid)
                continue
            if about not in ended:
                pid, status = os.waitpid(about, os.WNOHANG)
                if pid:
                    ended[pid] = os.waitstatus_to_exitcode(status)
            pipe.send(ended.get(about))
    os._exit(0)


def _imported() -> bool:
    """Import all of the package, as most tests have done."""
    imported()
    _as_new()
    return True


def _as_new() -> None:
    """Make warnings and logs those of a new process."""
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)
    warnings.resetwarnings()
    for kind in QUIET:
        warnings.simplefilter("ignore", kind)


@functools.cache
def imported() -> None:
    """Import all of the package, and what it imports late; nobody looks for garbage in all this again."""
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages: a test that imports them ignores them as well
        for name in LATE:
            with contextlib.suppress(ModuleNotFoundError):  # of an extra that is not installed
                importlib.import_module(name)
        package = importlib.import_module("gammastar")
        for found in pkgutil.walk_packages(package.__path__, "gammastar."):
            if not found.name.endswith("__main__"):
                importlib.import_module(found.name)
        _draw()
    for end in list(weakref.finalize._registry):
        known = end.peek()
        if known and str(getattr(known[1], "__module__", "")).startswith("torch"):
            end.atexit = False  # it takes its operators apart one by one, in every command
    gc.enable()
    gc.collect()
    gc.freeze()


def _draw() -> None:
    """Draw a small figure: fonts and the grammar of formulae are read with the first one."""
    from gammastar.report.style import drawn, new_figure

    figure, axes = new_figure()
    axes[0, 0].set(xlabel="$m_{\\mu\\mu}$ [GeV]", ylabel="$N/10^{-3}$", yscale="log")
    for kind in ("png", "pdf"):
        drawn(figure, kind)


def _work(command: Command, pipes: Sequence[int] = ()) -> NoReturn:
    """Be the command: nothing comes back from here."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _output(command, pipes)
        os.chdir(command.cwd)
        process.ORIGINAL_DIR = command.cwd  # where new processes look for the script
        os.environ.update(command.env)
        for kind, most in command.limits.items():
            there = _memory() if kind == resource.RLIMIT_AS else 0
            resource.setrlimit(kind, (there + most, there + most))
        status = _status(command.words)
        threading._shutdown()  # as the interpreter ends: first what threads hold, then the rest
        atexit._run_exitfuncs()
        sys.stdout.flush()
    finally:
        os._exit(status)


def _memory() -> int:
    """Return the address space of this process in bytes."""
    return int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()


def _output(command: Command, pipes: Sequence[int]) -> None:
    if pipes:
        for number, end in enumerate(pipes):
            os.dup2(end, number)
            os.close(end)
    else:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for number, name in ((1, command.out), (2, command.err)):
            os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), number)
    sys.stdin = sys.__stdin__ = io.TextIOWrapper(io.FileIO(0, closefd=False), encoding="utf-8")
    sys.stdout = sys.__stdout__ = io.TextIOWrapper(io.FileIO(1, "w", closefd=False), encoding="utf-8")
    sys.stderr = sys.__stderr__ = io.TextIOWrapper(
        io.FileIO(2, "w", closefd=False), encoding="utf-8", errors="backslashreplace", write_through=True
    )


def _status(words: tuple[str, ...]) -> int:
    try:
        _run(words)
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)  # noqa: T201 - as Python does
        return 1
    except BaseException:  # noqa: BLE001 - as Python does
        traceback.print_exc()
        return 1
    return 0


def _run(words: tuple[str, ...]) -> None:
    """Do what ``python words`` does."""
    what, *rest = words
    sys.path.insert(0, str(Path(what).parent.resolve()) if what.endswith(".py") else str(Path.cwd()))
    if what == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    elif what == "-c":
        sys.argv = ["-c", *rest[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)  # noqa: S102 - code of a test
    else:
        sys.argv = [what, *rest]
        runpy.run_path(what, run_name="__main__")
