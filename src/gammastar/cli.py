"""The command line: ``gammastar run | check | inspect | simulate | sample | reinterpret | export | …``.

The only module that prints.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import click

from gammastar.cli_record import FILE, RECORD, plain_logs, plain_warnings, say
from gammastar.core.errors import GammastarError
from gammastar.core.machine import full, keep_heap, told
from gammastar.core.resolve import guarded

__all__ = ["app", "main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gammastar")
@click.option("-v", "--verbose", is_flag=True, help="Show what the library logs.")
def app(verbose: bool) -> None:
    """From measured dilepton pairs to dark-sector reach."""
    if verbose:
        import logging

        logging.basicConfig(level=logging.INFO)
        plain_logs("%(name)s: %(message)s")


@app.command()
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
    from gammastar import pipeline
    from gammastar.core.data import analysis_path
    from gammastar.pipeline.progress import shown

    elsewhere = {name: options.pop(name) for name in ("workers", "dask", "skip_bad")}
    with contextlib.ExitStack() as stack:
        farm = None
        if any(elsewhere.values()):
            from gammastar.facility import open_farm

            farm = stack.enter_context(open_farm(**elsewhere))
        folder = pipeline.run(
            steering if steering.is_file() or steering.suffix else analysis_path(str(steering)),
            only=only,
            tell=stack.enter_context(shown()),
            farm=farm,
            allow_partial=allow_partial,
            **options,
        )
    report = folder / "report.html"
    say(f"results in {folder}" + (f"; open {report}" if report.is_file() and only is None else ""))


@app.command()
@click.argument("steering", type=FILE)
def check(steering: Path) -> None:
    """Look at STEERING and every file that it names before any work starts.

    One line per finding; exit code 2 if one of them is an error.
    """
    from gammastar import config
    from gammastar.core.data import analysis_path
    from gammastar.pipeline.checks import examine_file

    found = steering if steering.is_file() or steering.suffix else analysis_path(str(steering))
    result, findings = examine_file(found)
    for finding in findings:
        say(str(finding), err=True)
    wrong = sum(finding.level == "error" for finding in findings)
    if wrong or result is None:
        say(f"{steering}: {wrong} to repair, {len(findings) - wrong} to look at", err=True)
        sys.exit(2)
    stages = [name for name in config.STAGES if getattr(result, name) is not None]
    ok = f"{len(findings)} to look at" if findings else "ok"
    say(f"{steering}: {ok} ({result.analysis.name}: {', '.join(stages) or 'no stage'})")


@app.command()
@click.argument("file", type=FILE)
@click.option("--lepton", type=click.Choice(["mu", "e"]), help="Only this flavour [all that are seen].")
@click.option("--filter", "pattern", default="*", help="List branches of these names only, e.g. 'Muon*'.")
@click.option("--schema-only", is_flag=True, help="Give the proposed schema, and no list of branches.")
@click.option("-o", "--output", type=FILE, help="Write the proposed schema to this TOML file.")
def inspect(file: Path, lepton: Any, pattern: str, schema_only: bool, output: Path | None) -> None:
    """Propose a schema for FILE, tried on its first rows, and list its trees and branches.

    Exit code 1 if there is nothing to propose.
    """
    from gammastar import read

    found = read.describe(file, lepton=lepton, pattern=pattern)
    if output is not None and found.schemas:
        read.write_schema(output, found)
        say(f"proposed schema in {output}", err=True)
    elif found.schemas:
        say(found.proposal)
    if not schema_only:
        say(found.listing)
    if not found.schemas:
        say(f"error: {found.proposal}", err=True)
        sys.exit(1)


@app.command(context_settings={"show_default": True})
@click.argument("card")
@click.option("-n", "n_events", type=click.IntRange(min=1), required=True, help="Pairs, or rows of mc.")
@click.option("-o", "--output", type=FILE, required=True, help="ROOT file to write.")
@click.option("--kind", type=click.Choice(["data", "mc", "background", "charm"]), default="data")
@click.option("--prior", default="nominal", help="Prior of the card.")
@click.option("--pairing", type=click.Choice(["same-event", "mixed"]), default="same-event")
@click.option("--engine", type=click.Choice(["toy", "pythia"]), default="toy")
@click.option("--workers", type=click.IntRange(min=1), default=1, help="Of Pythia.")
@click.option("--format", "layout", type=click.Choice(["ttree", "rntuple"]), default="ttree")
@click.option("--compression", type=click.Choice(["zstd", "zlib", "lz4", "lzma", "none"]), default="zstd")
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run left in OUTPUT.parts.")
@click.option("--cache", type=FILE, help="Keep finished parts in this folder, and take them from it.")
@click.option("--seed", type=click.IntRange(min=0), default=1)
def simulate(card: str, n_events: int, output: Path, seed: int, **options: Any) -> None:
    """Write MOCK events of CARD (a file, or the name of a shipped card)."""
    from gammastar.pipeline.commands.show import simulate_file
    from gammastar.pipeline.progress import shown

    with shown() as tell:
        lines = simulate_file(card, n_events, output, seed=seed, tell=tell, **options)
    for line in lines:
        say(line)


@app.command()
@click.argument("flow", type=FILE)
@click.option("--mass", type=float, help="Mass of the virtual photon [GeV].")
@click.option("--spectrum", type=FILE, help="spectrum.json whose masses are drawn instead.")
@click.option(
    "--above", type=click.FloatRange(min=0), default=0.0, help="Of the spectrum: lowest mass [GeV]."
)
@click.option("--masses", type=FILE, help="Text file with one mass [GeV] per event instead.")
@click.option("-n", "n_events", type=click.IntRange(min=1), help="Events; that of --masses if it is given.")
@click.option("-o", "--output", type=FILE, required=True, help=".root, .parquet, .lhe, .lhe.gz or .hepmc")
@click.option("--decay", type=click.Choice(["ee", "mumu"]), help="Decay to these leptons.")
@click.option("--ctau", type=click.FloatRange(min=0), default=0.0, help="Proper decay length [m].")
@click.option("--first", type=click.IntRange(min=0), default=0, help="Number of the first event.")
@click.option("--seed", type=click.IntRange(min=0), default=1, show_default=True)
def sample(flow: Path, n_events: int | None, output: Path, **options: Any) -> None:
    """Draw events of one mass, of a list, or of a spectrum from a trained FLOW: a generator made of data.

    An event depends on seed and number alone, so that jobs with other --first make parts of one sample.
    """
    from gammastar.pipeline.commands.sample import sample_file

    say(sample_file(flow, n_events, output, **options))


@app.command("flow-scan")
@click.argument("steering", type=FILE)
@click.option("--output", type=FILE, help="Folder of the scan [results/<analysis>_scan].")
@click.option("--preset", type=click.Choice(["paper", "default"]), default="paper", show_default=True)
@click.option("--epochs", type=click.IntRange(min=1), help="Of every training [the preset's].")
@click.option("--seeds", type=click.IntRange(min=1), default=2, show_default=True)
@click.option("--grid", multiple=True, metavar="OPTION=A,B", help="Vary this [Appendix A's grid]; repeat it.")
def flow_scan(steering: Path, **options: Any) -> None:
    """Train flows of many architectures on the pairs of STEERING; an interrupted scan goes on.

    Writes flow_scan.jsonl, one line per training.
    """
    from gammastar.core.data import analysis_path
    from gammastar.pipeline.commands.flow_scan import scan_flows
    from gammastar.pipeline.progress import shown

    with shown() as tell:
        found = steering if steering.is_file() or steering.suffix else analysis_path(str(steering))
        lines = list(scan_flows(found, tell=tell, **options))
    for line in lines:
        say(line)


@app.command()
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
    from gammastar.pipeline.commands.scan import scan_lines

    for line in scan_lines(path, **options):
        say(line)


@app.command()
@click.argument("results", type=FILE)
def show(results: Path) -> None:
    """Print the numbers of a RESULTS folder as a table."""
    from gammastar.pipeline.commands.show import show_results

    say(show_results(results))


@app.command()
@click.argument("results", type=FILE)
def verify(results: Path) -> None:
    """Check digests and provenance of a RESULTS folder."""
    from gammastar.pipeline.commands.show import verify_results

    for line in verify_results(results):
        say(line)


@app.command()
def env() -> None:
    """Print the versions that a bug report needs."""
    from gammastar.store.manifest import versions

    for name, value in versions().items():
        say(f"{name:16s} {value}")


for command in RECORD:
    app.add_command(command)


def main() -> None:
    """Run the command line; 2 for the user's mistakes, 1 for failures, 130 when interrupted."""
    from gammastar.cli_files import millicharge

    keep_heap()
    plain_logs()
    plain_warnings()
    app.add_command(millicharge)
    try:
        with guarded():
            app(standalone_mode=False)
    except GammastarError as error:
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        said = told(error) if full(error) else f"{error.filename or ''}: {error.strerror or error}"
        say(f"error: {said}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of a file for the user's ^D
            say(f"error: a file ends too early ({error.__cause__}); copy it again", err=True)
            sys.exit(2)
        say("interrupted; `--resume` goes on from the last finished stage", err=True)
        sys.exit(130)
