"""Progress on the terminal: one line per stage, with a bar where the end is known."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn

from gammastar.core.documents import plain
from gammastar.pipeline.context import Tell

__all__ = ["shown"]


@contextlib.contextmanager
def shown() -> Iterator[Tell]:
    """Yield a function ``tell(stage, fraction, text)`` that draws on standard error."""
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
