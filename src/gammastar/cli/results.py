"""Commands of finished runs and published likelihoods, ``show`` to ``scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gammastar.cli.terminal import FILE, say, shown

__all__ = ["compare", "export", "reinterpret", "scan", "show", "verify"]


@click.command()
@click.argument("results", type=FILE)
def show(results: Path) -> None:
    """Print the numbers of a RESULTS folder as a table."""
    from gammastar.results.show import show_results

    say(show_results(results))


@click.command()
@click.argument("results", type=FILE)
def verify(results: Path) -> None:
    """Check digests and provenance of a RESULTS folder."""
    from gammastar.results.show import verify_results

    for line in verify_results(results):
        say(line)


@click.command()
@click.argument("results", type=FILE)
@click.option("--model", metavar="FILE.py:NAME", help="Another model [that of the run].")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option("--output", type=FILE, required=True, help="Folder of the new results.")
@click.option("--allow-partial", is_flag=True, help="Set limits although the run left files out.")
def reinterpret(results: Path, output: Path, **options: Any) -> None:
    """Compute the reach of another model or detector from the record of RESULTS alone."""
    from gammastar.results.reinterpret import reinterpret as again

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
    from gammastar.results.export import export as write

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
    from gammastar.results.compare import compare as draw

    for line in draw(results, output=output, **options):
        say(line)
    say(f"figure and table in {output}")


@click.command()
@click.argument("path", type=FILE)
@click.option("--patches", type=FILE, help="Patch set or patch beside a workspace.")
@click.option("--region", default="", help="Folder inside an archive with several workspaces.")
@click.option("--patch", "names", multiple=True, help="Only these patches.")
@click.option(
    "--method",
    type=click.Choice(["auto", "exact", "marginalised", "asymptotic"]),
    help="[that of --steering, of the run that wrote PATH, or asymptotic]",
)
@click.option("--statistic", type=click.Choice(["ratio", "qtilde"]), help="Of exact CLs [ratio].")
@click.option(
    "--auxiliary", type=click.Choice(["fixed", "randomised", "averaged"]), help="Toys of exact CLs [fixed]."
)
@click.option("--steering", type=FILE, help="Test as the [infer] of this file says.")
@click.option("--hs3", type=FILE, help="Also write each tested signal as HS3 into this folder.")
def scan(path: Path, **options: Any) -> None:
    """Test every signal of a published likelihood: pyhf workspace, HS3, folder or archive at PATH.

    The method `auto` is exact at few events, where the nuisances allow it; `marginalised` is exact with toys
    averaged over the nuisances. A likelihood from a run of gammastar is tested as that run says.
    """
    from gammastar.results.scan import scan_lines

    for line in scan_lines(path, **options):
        say(line)
