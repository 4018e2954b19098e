"""Commands of a steering file: ``run``, ``check`` and ``keys``."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from gammastar.cli.terminal import FILE, say, show_checks, shown


def analysis_file(steering: Path) -> Path:
    """Return a steering file, or that of a shipped analysis such as na60_dimuon/small."""
    from gammastar.core.files import analysis_path

    return steering if steering.is_file() or steering.suffix else analysis_path(str(steering))


@click.command()
@click.argument("steering", type=FILE)
@click.option("--output", type=FILE, help="Folder of the results [results/<analysis>].")
@click.option("--resume", is_flag=True, help="Take finished stages whose digests match.")
@click.option(
    "--only", metavar="STAGE", help="Compute this stage again, from kept results, and stop after it."
)
@click.option("--workers", type=click.IntRange(min=1), help="Read and scan with this many local processes.")
@click.option(
    "--dask", metavar="ADDRESS", help="Read and scan on the workers of this Dask scheduler, or 'local'."
)
@click.option(
    "--skip-bad",
    is_flag=True,
    help="Leave out files that are missing, cannot be read or lack a branch, and report them.",
)
@click.option("--allow-partial", is_flag=True, help="Set limits although files were left out.")
def run(steering: Path, only: str | None, allow_partial: bool, **options: Any) -> None:
    """Run all stages of STEERING (a file, or a shipped analysis such as na60_dimuon/small).

    Writes results/<analysis>/.
    """
    from gammastar.core.files import skip_numba_entrypoints
    from gammastar.pipeline.run import run

    steering = analysis_file(steering)
    elsewhere = {name: options.pop(name) for name in ("workers", "dask", "skip_bad")}
    with contextlib.ExitStack() as stack:
        executor = None
        if any(elsewhere.values()):
            from gammastar.facility import open_executor

            executor = stack.enter_context(open_executor(**elsewhere))
        else:
            skip_numba_entrypoints(steering)
        folder = run(
            steering,
            only=only,
            tell=stack.enter_context(shown()),
            executor=executor,
            allow_partial=allow_partial,
            **options,
        )
    show_checks(folder)
    report = folder / "report.html"
    say(f"results in {folder}" + (f"; open {report}" if report.is_file() and only is None else ""))


@click.command()
@click.argument("steering", type=FILE)
def check(steering: Path) -> None:
    """Look at STEERING and every file that it names before any work starts.

    One line per finding; exit code 2 if one of them is an error.
    """
    from gammastar import config
    from gammastar.config.checks import examine_file
    from gammastar.config.checks_measured import protection

    result, findings = examine_file(analysis_file(steering))
    for finding in findings:
        say(str(finding), err=True)
    wrong = sum(finding.level == "error" for finding in findings)
    if wrong or result is None:
        say(f"{steering}: {wrong} to repair, {len(findings) - wrong} to look at", err=True)
        sys.exit(2)
    stages = [name for name in config.STAGES if getattr(result, name) is not None]
    ok = f"{len(findings)} to look at" if findings else "ok"
    lack = protection(result, analysis_file(steering).parent)
    if lack:
        say(f"inputs: {lack}", err=True)
    say(f"{steering}: {ok} ({result.analysis.name}: {', '.join(stages) or 'no stage'})")


@click.command()
@click.argument("name", metavar="[SECTION|KEY]", default="")
@click.option("--markdown", is_flag=True, help="All keys as a page of the documentation.")
def keys(name: str, markdown: bool) -> None:
    """Print every key of the steering file, of a SECTION, or one KEY: type, unit, default and meaning."""
    from gammastar.config import reference

    say(reference.markdown() if markdown else reference.text(name), end=not markdown)


@click.command()
@click.argument("model")
@click.option("--output", type=FILE, help="Folder of figures and tables.", show_default="semivisible_MODEL")
@click.option("--curves", type=FILE, multiple=True, help="Folder of full published curves; repeat it.")
@click.option("-n", "--events", type=click.IntRange(min=100), help="Per mass [as MODEL says, or 20000].")
@click.option("--seed", type=click.IntRange(min=0), help="[as MODEL says, or 1]")
def semivisible(model: str, output: Path | None, **options: Any) -> None:
    """Recast BaBar, NA64 and Belle II to the dark sector of MODEL.

    MODEL is a TOML file, or a shipped benchmark such as i2DM-talk. Writes the plane of mass and kinetic
    mixing, excluded and allowed intervals, lifetimes of the dark states, and which assumptions fail.
    """
    from gammastar.results.recast import recast_file

    folder = Path(f"semivisible_{Path(model).stem}") if output is None else output
    with shown() as tell:
        lines = recast_file(model, output=folder, tell=tell, **options)
    for line in lines:
        say(line)
    say(f"results in {folder}")
