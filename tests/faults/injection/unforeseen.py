"""Errors that nobody foresaw, raised in every command and in every figure of a run."""

from __future__ import annotations

import io
import json
import os
import shutil
import struct
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gammastar import cli
from gammastar.core.files import CRASH
from gammastar.pipeline.run import run
from injection import whole
from injection.adversarial import Tried, quiet
from injection.steerings import text

ERRORS: tuple[Callable[[], BaseException], ...] = (
    *(lambda kind=kind: kind("no such \x1b[31m thing") for kind in (KeyError, AttributeError, TypeError)),
    *(lambda kind=kind: kind("over\nseveral\nlines") for kind in (ValueError, IndexError, RuntimeError)),
    *(lambda kind=kind: kind("x" * 5000) for kind in (AssertionError, NotImplementedError, struct.error)),
    *(lambda kind=kind: kind() for kind in (ZeroDivisionError, RecursionError, MemoryError, StopIteration)),
    lambda: UnicodeDecodeError("ascii", b"\xff", 0, 1, "ordinal not in range"),
    lambda: OSError("cut"),
    lambda: ExceptionGroup("several", [KeyError("a"), ValueError("b")]),
)


def _raising(error: Callable[[], BaseException]) -> Callable[..., Any]:
    def broken(*_: Any, **__: Any) -> None:
        raise error()

    return broken


def commands(folder: Path) -> Tried:
    """Raise every error in every command; whatever is no single line, file and exit code 70 is wrong."""
    found, before = Tried(), (Path.cwd(), sys.argv, sys.stderr)
    os.chdir(folder)
    try:
        for name, command in cli.app.commands.items():
            kept = command.callback, command.params
            for error in ERRORS:
                command.callback, command.params = _raising(error), []
                sys.argv, sys.stderr = ["gammastar", name], io.StringIO()
                (folder / CRASH).unlink(missing_ok=True)
                code: Any = 0
                try:
                    cli.main()
                except SystemExit as end:
                    code = end.code
                finally:
                    command.callback, command.params = kept
                said = sys.stderr.getvalue()
                sys.stderr = before[2]
                good = code == 70 and len(said.splitlines()) == 1 and said.rstrip("\n").isprintable()
                good = good and len(said) < 1000 and "Traceback" in (folder / CRASH).read_text("utf-8")
                found.n += 1
                found.wrong += [] if good else [f"{name}, {error()!r:.60}: exit {code}: {said[:200]}"]
    finally:
        sys.argv, sys.stderr = before[1:]
        os.chdir(before[0])
    return found


def figures(folder: Path, every: int = 1) -> Tried:
    """Let each function that makes a figure of a run fail; the run finishes, and says where and why."""
    found, path, out = Tried(), folder / "steering.toml", folder / "out"
    path.write_text(text(whole.tiny(folder)), encoding="utf-8")
    with quiet(), whole.in_one_process(makes=True, draws=False):
        run(path, output=out)
        for cell in whole.figure_functions()[::every]:
            called: list[str] = []
            function = cell.cell_contents

            def broken(*_: Any, called: list[str] = called, name: str = function.__name__, **__: Any) -> None:
                called.append(name)
                raise KeyError(f"planted in {name}")

            cell.cell_contents = broken
            try:
                run(path, output=out, resume=True)
            finally:
                cell.cell_contents = function
            if called:
                found.n += 1
                found.wrong += [f"{called[0]}: {what}" for what in _lacks(out, f"planted in {called[0]}")]
    shutil.rmtree(out)
    return found


def _lacks(out: Path, reason: str) -> list[str]:
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    page = out / "report.html"
    wrong = {
        "not finished": not manifest.get("finished"),
        "no note": not any(reason in note for note in manifest["notes"]),
        "not in the page": not page.is_file() or reason not in page.read_text(encoding="utf-8"),
    }
    return [what for what, so in wrong.items() if so]
