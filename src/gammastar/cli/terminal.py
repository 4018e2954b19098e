"""What the terminal shows: texts, logs, warnings, and progress with one line per stage.

Names in them cannot steer the terminal.
"""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gammastar.core.files import plain

if TYPE_CHECKING:
    from gammastar.pipeline.context import Tell


FILE = click.Path(path_type=Path)


def say(text: object, *, err: bool = False, end: bool = True) -> None:
    """Print a text, with the end of a line or without; names in it cannot steer the terminal."""
    click.echo(plain(str(text)), err=err, nl=end)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return plain(super().format(record))


def plain_logs(pattern: str = "%(message)s") -> None:
    """Let logs of this process spell out what would steer the terminal."""
    for handler in (logging.lastResort, *logging.root.handlers):
        if handler is not None:
            handler.setFormatter(_Plain(pattern))


def plain_warnings() -> None:
    """Let warnings of this process spell out what would steer the terminal."""
    write = warnings.formatwarning
    warnings.formatwarning = lambda *about, **more: plain(write(*about, **more))


@contextlib.contextmanager
def shown() -> Iterator[Tell]:
    """Yield a function ``tell(stage, fraction, text)`` that draws on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

    columns = (
        SpinnerColumn(),
        TextColumn("{task.fields[stage]:>9s}", markup=False),
        BarColumn(bar_width=24),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    tasks: dict[str, TaskID] = {}
    with Progress(*columns, console=Console(stderr=True)) as progress:

        def tell(stage: str, fraction: float | None, text: str) -> None:
            if stage not in tasks:
                for task in tasks.values():  # a new stage means that those before it are finished
                    progress.update(task, total=1.0, completed=1.0)
                    progress.stop_task(task)
                tasks[stage] = progress.add_task("", total=None, stage=stage)
            total = None if fraction is None else 1.0
            progress.update(
                tasks[stage], total=total, completed=fraction or 0.0, description=plain(text, keep="")
            )

        yield tell
        for task in tasks.values():
            progress.update(task, total=1.0, completed=1.0)


def show_checks(folder: Path) -> None:
    """Print the checks before the spectrum: what failed as a table, one line if nothing did."""
    from rich.console import Console
    from rich.table import Table

    from gammastar.store.manifest import read_manifest

    rows = read_manifest(folder)["checks"]
    failed = [row for row in rows if row["verdict"] != "ok"]
    if rows and not failed:
        say(f"{len(rows)} checks before the spectrum: all ok")
    if failed:
        names = ("verdict", "name", "number", "threshold", "cure")
        table = Table(*names, title=f"{len(failed)} of {len(rows)} checks before the spectrum failed")
        for row in failed:
            table.add_row(*(plain(row[name], keep="").replace("[", "\\[") for name in names))
        Console(stderr=True).print(table)
