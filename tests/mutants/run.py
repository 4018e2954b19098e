"""Errors planted one by one in a copy of the package: do the room's own tests see each of them?

``python tests/mutants/run.py [words]`` tries all of ``mutants.toml``, or those whose room or effect holds a
word, and prints which are found; the exit status is 1 where fewer than nine of ten are. Each has twenty
seconds of processor time for the tests of its room (``tests/unit/ROOM``), those of the changed file first,
until one fails; who runs out of time has found nothing. Stored results (``tests/golden``) take no part.
"""

from __future__ import annotations

import ast
import contextlib
import importlib
import io
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import tomllib
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "gammastar"
SECONDS = 20  # of processor time for one error
PATIENCE = 300  # s on the clock, of a busy machine
WANTED = 0.9
LIBRARIES = (  # imported once: every error is tried in a copy of the process
    "awkward",
    "hist",
    "hypothesis",
    "iminuit",
    "matplotlib.pyplot",
    "numba",
    "particle",
    "pyarrow.parquet",
    "pydantic",
    "pyhf",
    "scipy.interpolate",
    "scipy.optimize",
    "scipy.sparse",
    "scipy.stats",
    "sklearn.ensemble",
    "uproot",
    "vector",
    "zuko",
)


@dataclass(frozen=True, slots=True)
class Mutant:
    """One error."""

    room: str
    effect: str
    old: str
    new: str
    within: str = ""


def mutants() -> list[Mutant]:
    """Return all errors of ``mutants.toml``."""
    rooms = tomllib.loads((ROOT / "tests" / "mutants" / "mutants.toml").read_text(encoding="utf-8"))
    return [Mutant(room, **entry) for room, entries in rooms.items() for entry in entries]


def sources(room: str) -> dict[Path, str]:
    """Return the files of a room and their text."""
    return {path: path.read_text(encoding="utf-8") for path in sorted((SOURCE / room).rglob("*.py"))}


def planted(mutant: Mutant, files: Mapping[Path, str]) -> tuple[Path, str]:
    """Return the file of a room that an error changes, and its new text; the place must be the only one."""
    found = []
    for path, text in files.items():
        for first, last in _parts(text, mutant.within):
            found += [(path, m) for m in _pattern(mutant.old).finditer(text, first, last)]
    if len(found) != 1:
        where = f"{mutant.room}, {mutant.within}" if mutant.within else mutant.room
        msg = f"{where}: {len(found)} places hold {mutant.old!r} ({mutant.effect}); it must be one"
        raise LookupError(msg)
    path, match = found[0]
    text = files[path]
    return path, text[: match.start()] + mutant.new + text[match.end() :]


def _pattern(code: str) -> re.Pattern[str]:
    """Return code as an expression that takes any spaces, line breaks and trailing commas."""
    words = [re.escape(word) for word in re.findall(r"\w+|[^\w\s]", code)]
    words = [rf",?\s*{word}" if word in (r"\)", r"\]") else word for word in words]
    start, end = (r"(?<!\w)" if code[k].isalnum() else "" for k in (0, -1))
    return re.compile(start + r"\s*".join(words) + end.replace("<!", "!"))


def _parts(text: str, within: str) -> Iterator[tuple[int, int]]:
    """Yield the range of the text, or that of a function or method."""
    if not within:
        yield 0, len(text)
        return
    nodes: Sequence[ast.AST] = [ast.parse(text)]
    for name in within.split("."):
        nodes = [n for node in nodes for n in ast.iter_child_nodes(node) if getattr(n, "name", "") == name]
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))
    for node in nodes:
        yield starts[node.lineno - 1], starts[node.end_lineno]


def tried(mutant: Mutant, package: Path) -> tuple[str, float, str]:
    """Return what the tests of a room make of an error, the seconds they took, and what they said."""
    path, text = planted(mutant, sources(mutant.room))
    place = package / path.relative_to(ROOT)
    whole = place.read_bytes(), place.stat().st_mtime_ns
    place.write_text(text, encoding="utf-8")
    try:
        return asked(_ordered(mutant.room, path.stem), package)
    finally:
        place.write_bytes(whole[0])
        os.utime(place, ns=(whole[1], whole[1]))


def _ordered(room: str, module: str) -> list[Path]:
    """Return the files of a room's tests, those first that name a module."""
    files = sorted((ROOT / "tests" / "unit" / room).glob("test_*.py"))
    word = re.compile(rf"\b{module}\b")
    return sorted(files, key=lambda path: not word.search(path.read_text(encoding="utf-8")))


def asked(tests: Sequence[Path], package: Path) -> tuple[str, float, str]:
    """Return the verdict of tests on a package, the seconds, and the first failure."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder, "output")
        pid = os.fork()
        if not pid:
            os.setpgid(0, 0)
            _test(tests, package, output)
        status = _ended(pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)  # what tests left running
        text = output.read_text(encoding="utf-8", errors="replace") if output.exists() else ""
    said = re.search(r"^SECONDS ([\d.]+)$", text, re.MULTILINE)
    used = float(said[1]) if said else float(SECONDS)
    lines = [line for line in text.splitlines() if line.startswith(("FAILED", "ERROR"))]
    verdict = {0: "missed", 1: "found"}.get(status, "no time" if status < 0 else "broken")
    if status == 2 and lines:  # pytest could not collect: the package does not import
        verdict = "found"
    return verdict, used, lines[0] if lines else text[-300:].strip() if verdict == "broken" else ""


def _ended(pid: int) -> int:
    """Return the exit status of a process, minus the number of a signal; after a while it is ended."""
    end = time.monotonic() + PATIENCE
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > end:
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return -signal.SIGKILL
        time.sleep(0.02)


def _stream(number: int) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.FileIO(number, "w", closefd=False), encoding="utf-8", write_through=True)


def _test(tests: Sequence[Path], package: Path, output: Path) -> None:
    """Be the process that runs tests; nothing comes back from here."""
    status = 4
    try:
        stream = os.open(output, os.O_WRONLY | os.O_CREAT)
        for number in (1, 2):
            os.dup2(stream, number)
        sys.stdout = sys.__stdout__ = _stream(1)
        sys.stderr = sys.__stderr__ = _stream(2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        os.chdir(ROOT)
        sys.path.insert(0, str(package / "src"))
        os.environ["PYTHONPATH"] = str(package / "src")
        sys.dont_write_bytecode = True
        start = time.process_time()
        pytest = importlib.import_module("pytest")
        options = ["-x", "-q", "--no-header", "--tb=line", "-p", "no:cacheprovider", "-m", "not slow"]
        options += ["-W", "ignore:Module already imported so cannot be rewritten"]
        status = int(pytest.main([*options, *map(str, tests)]))
        print(f"SECONDS {time.process_time() - start:.1f}")  # noqa: T201
    except BaseException:  # noqa: BLE001 - the process ends here, whatever it is
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(status)


@contextlib.contextmanager
def copied() -> Iterator[Path]:
    """Give a copy of the package, with what was compiled of it; the checkout stays as it is."""
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder)
        shutil.copytree(SOURCE, package / "src" / "gammastar")
        for name in ("data", "analysis", "docs"):
            (package / name).symlink_to(ROOT / name)
        yield package


def warm() -> None:
    """Import the libraries, so that no copy of the process has to."""
    os.environ.update({"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in LIBRARIES:
            with contextlib.suppress(ModuleNotFoundError):
                importlib.import_module(name)


def main(words: Sequence[str]) -> int:
    """Try the errors and print a table; return the exit status."""
    chosen = [m for m in mutants() if not words or any(w in (m.room, "") or w in m.effect for w in words)]
    for mutant in chosen:
        planted(mutant, sources(mutant.room))  # all places are there before the first is tried
    warm()
    found = 0
    with copied() as package:
        for room in dict.fromkeys(m.room for m in chosen):
            verdict, seconds, line = asked(_ordered(room, room), package)
            print(f"{room:12} tests as they are: {verdict} in {seconds:.1f} s {line}", flush=True)  # noqa: T201
        for mutant in chosen:
            verdict, seconds, line = tried(mutant, package)
            found += verdict == "found"
            print(f"{mutant.room:12} {verdict:8} {seconds:5.1f} s  {mutant.effect}", flush=True)  # noqa: T201
            if line:
                print(f"{'':30}{line[:150]}", flush=True)  # noqa: T201
    print(f"{found} of {len(chosen)} found")  # noqa: T201
    return 0 if found >= WANTED * len(chosen) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
