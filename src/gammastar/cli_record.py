"""Commands that start from the record of a finished run: ``gammastar reinterpret | export | compare``."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from typing import Any

import click

from gammastar.core.documents import plain

__all__ = ["FILE", "RECORD", "plain_logs", "plain_warnings", "say"]

FILE = click.Path(path_type=Path)


def say(text: object, *, err: bool = False) -> None:
    """Print a text; names in it cannot steer the terminal."""
    click.echo(plain(str(text)), err=err)


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


@click.command()
@click.argument("results", type=FILE)
@click.option("--model", metavar="FILE.py:NAME", help="Another model [that of the run].")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option("--output", type=FILE, required=True, help="Folder of the new results.")
@click.option("--allow-partial", is_flag=True, help="Set limits although the run left files out.")
def reinterpret(results: Path, output: Path, **options: Any) -> None:
    """Compute the reach of another model or detector from the record of RESULTS alone."""
    from gammastar.pipeline.progress import shown
    from gammastar.pipeline.record import reinterpret as again

    with shown() as tell:
        again(results, output=output, tell=tell, **options)
    say(f"results in {output}")


@click.command()
@click.argument("results", type=FILE)
@click.option("--output", type=FILE, required=True, help="Folder of the tables.")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option("-n", "n", type=click.IntRange(min=100), default=20_000, show_default=True, help="Per mass.")
def export(results: Path, **options: Any) -> None:
    """Write tables of RESULTS for other tools: rate, efficiency over mass and lifetime, Darkcast limits."""
    from gammastar.pipeline.commands.export import export as write
    from gammastar.pipeline.progress import shown

    with shown() as tell:
        files = write(results, tell=tell, **options)
    for path in files:
        say(path)


@click.command()
@click.argument("results", type=FILE)
@click.option("--output", type=FILE, required=True, help="Folder of figure and table.")
@click.option("--table", "tables", multiple=True, metavar="NAME=FILE[:COLUMN]", help="Rates; repeat it.")
@click.option("--published/--no-published", default=True, help="EventCalc at 400 GeV and bremsstrahlung.")
def compare(results: Path, output: Path, **options: Any) -> None:
    """Draw the rate of RESULTS with those of other tools, per interacting proton."""
    from gammastar.pipeline.commands.compare import compare as draw

    for line in draw(results, output=output, **options):
        say(line)
    say(f"figure and table in {output}")


RECORD = (reinterpret, export, compare)
