"""The command line: ``gammastar run | check | inspect | simulate | sample | reinterpret | export | …``.

The only package that prints.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import os
import shlex
import sys
import tempfile
import traceback
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from gammastar.core.errors import GammastarError
from gammastar.core.files import disk_full_message, is_disk_full, plain, shortened, tune_malloc
from gammastar.core.resolve import user_code_errors

if TYPE_CHECKING:
    from gammastar.pipeline.context import Tell

__all__ = ["app", "main"]


FILE = click.Path(path_type=Path)


def say(text: object, *, err: bool = False, end: bool = True) -> None:
    """Print a text, with the end of a line or without; names in it cannot steer the terminal."""
    click.echo(plain(str(text)), err=err, nl=end)


def say_all(lines: Iterable[object]) -> None:
    """Print lines as they come."""
    for line in lines:
        say(line)


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
            shown = plain(text, keep="")
            progress.update(tasks[stage], total=total, completed=fraction or 0.0, description=shown)

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
@click.option("--allow-partial", is_flag=True, help="Compute limits even if input files were skipped.")
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
        tell = stack.enter_context(shown())
        options |= {"executor": executor, "allow_partial": allow_partial}
        folder = run(steering, only=only, tell=tell, **options)
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
    from gammastar.config import steering

    say(steering.markdown() if markdown else steering.text(name), end=not markdown)


@click.command()
@click.argument("model")
@click.option("--output", type=FILE, help="Folder of figures and tables.", show_default="semivisible_MODEL")
@click.option("--curves", type=FILE, multiple=True, help="Folder of full published curves; repeat it.")
@click.option("-n", "--events", type=click.IntRange(min=100), help="Per mass [as MODEL says, or 20000].")
@click.option("--seed", type=click.IntRange(min=0), help="[as MODEL says, or 1]")
def semivisible(model: str, output: Path | None, **options: Any) -> None:
    """Recast BaBar and NA64 to the dark sector of MODEL.

    MODEL is a TOML file, or a shipped benchmark such as i2DM-talk. Writes the plane of mass and kinetic
    mixing, excluded and allowed intervals, lifetimes of the dark states, and which assumptions fail.
    """
    from gammastar.results.recast import recast_file

    folder = Path(f"semivisible_{Path(model).stem}") if output is None else output
    with shown() as tell:
        lines = recast_file(model, output=folder, tell=tell, **options)
    say_all([*lines, f"results in {folder}"])


MASS = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(0, 1)


@click.command()
@click.argument("file", type=FILE)
@click.option("--lepton", type=click.Choice(["mu", "e"]), help="Only this flavour [all that are seen].")
@click.option("--filter", "pattern", default="*", help="List branches of these names only, e.g. 'Muon*'.")
@click.option("--schema-only", is_flag=True, help="Give the proposed schema, and no list of branches.")
@click.option("-o", "--output", type=FILE, help="Write the proposed schema to this TOML file.")
def inspect(file: Path, lepton: Any, pattern: str, schema_only: bool, output: Path | None) -> None:
    """Propose a schema for FILE, tried on its first rows, and list its trees and branches.

    For published tables (a HEPData record, YAML, CSV, histograms): list them, and propose the lines
    of a steering file. Exit code 1 if there is nothing to propose.
    """
    from gammastar import read
    from gammastar.core.files import write_whole
    from gammastar.read.published import describe_tables, is_published

    if is_published(file):
        tables = describe_tables(file)
        proposal, listing, lines = tables.proposal, tables.listing, "lines"
        wrong = f"no table makes a mass spectrum: {'; '.join(tables.reasons[:3])}"
    else:
        found = read.describe(file, lepton=lepton, pattern=pattern)
        proposal, listing, lines = found.proposal if found.schemas else "", found.listing, "schema"
        wrong = found.proposal
    if output is not None and proposal:
        write_whole(output, f"{proposal}\n".encode())
        say(f"proposed {lines} in {output}", err=True)
    elif proposal:
        say(proposal)
    if not schema_only:
        say(listing)
    if not proposal:
        say(f"error: {wrong}", err=True)
        sys.exit(1)


@click.command("init")
@click.argument("folder", type=FILE, default=".")
@click.option("--from", "source", metavar="FILE", help="ROOT file of your data, or a published table.")
@click.option("--simulation", metavar="FILE", help="ROOT file of the simulation for the response.")
@click.option("--lepton", type=click.Choice(["mu", "e"]), help="Flavour, if FILE does not tell.")
@click.option("--force", "replace", is_flag=True, help="Replace files that are there.")
def start(folder: Path, **options: Any) -> None:
    """Write a commented steering, schema and detector to start from into FOLDER [.].

    What cannot be known is marked with "?"; `gammastar check` names what is left.
    """
    from gammastar.results.start import begin

    say_all(begin(folder, **options))


@click.command(context_settings={"show_default": True})
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
@click.option("--seed", type=click.IntRange(min=0), default=1)
def simulate(card: str, n_events: int, output: Path, seed: int, **options: Any) -> None:
    """Write MOCK events of CARD (a file, or the name of a shipped card)."""
    from gammastar.results.events import simulate_file

    with shown() as tell:
        lines = simulate_file(card, n_events, output, seed=seed, tell=tell, **options)
    say_all(lines)


@click.command()
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
    from gammastar.results.events import sample_file

    say(sample_file(flow, n_events, output, **options))


@click.command()
@click.argument("results", type=FILE)
@click.option("--mass", "m_chi", type=MASS, required=True, help="Particle mass [GeV].")
@click.option("-n", "n", type=click.IntRange(min=1), required=True, help="Pairs.")
@click.option("-o", "--output", type=FILE, required=True, help=".txt, .lhe, .hepmc, .root or .parquet.")
@click.option("--seed", type=int, default=1, show_default=True)
@click.option("--longitudinal", type=SHARE, default=1 / 3, help="Share of helicity zero [1/3].")
def millicharge(results: Path, m_chi: float, n: int, output: Path, **options: Any) -> None:
    """Write pairs of millicharged particles from the virtual photons that the run in RESULTS measured.

    A .txt file lists single particles as "px py pz E x y z t", for a detector simulation.
    """
    from gammastar.results.events import chi_file

    say(chi_file(results, m_chi, n, output, **options))


TRUST = click.option(
    "--trust-code", is_flag=True, help="Run Python code that the record names, once its digests are told."
)


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

    say_all(verify_results(results))


@click.command()
@click.argument("results", type=FILE)
@click.option("--model", metavar="FILE.py:NAME", help="Another model [that of the run].")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option("--output", type=FILE, required=True, help="Folder of the new results.")
@click.option("--allow-partial", is_flag=True, help="Compute limits even if the run skipped input files.")
@TRUST
def reinterpret(results: Path, output: Path, **options: Any) -> None:
    """Compute the reach of another model or detector from the record of RESULTS alone."""
    from gammastar.core.files import skip_numba_entrypoints
    from gammastar.results.start import reinterpret as again

    if not options["model"]:
        skip_numba_entrypoints(results / "steering.json")
    with shown() as tell:
        again(results, output=output, tell=tell, **options)
    say(f"results in {output}")


@click.command()
@click.argument("results", type=FILE)
@click.option("--output", type=FILE, required=True, help="Folder of the tables.")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option(
    "-n",
    "n",
    type=click.IntRange(min=100),
    default=20_000,
    show_default=True,
    help="Dark particles drawn at each mass, for the efficiencies.",
)
@click.option("--hepdata", is_flag=True, help="Also a record for HEPData: spectrum, covariance, events.")
@click.option(
    "--events",
    type=click.IntRange(min=100),
    help="Virtual photons in the table of --hepdata [100000], or decays of --for geant [10000].",
)
@click.option(
    "--for",
    "tool",
    type=click.Choice(["foresee", "eventcalc", "darkcast", "geant", "root"]),
    help="Only the files that this tool reads; geant: decays as events, root: pairs with their weights.",
)
@click.option("--mass", type=MASS, help="Mass of the decays for geant [GeV].")
@click.option("--coupling", type=MASS, help="Kinetic mixing of the decays for geant.")
@click.option(
    "--state",
    type=click.Choice(["ee", "mumu"]),
    default="mumu",
    show_default=True,
    help="Final state for geant.",
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["hepmc", "lhe", "root", "parquet"]),
    default="hepmc",
    show_default=True,
    help="File format for geant.",
)
@click.option(
    "--layout", type=click.Choice(["ttree", "rntuple"]), default="ttree", help="Layout of the pairs for root."
)
def export(results: Path, *, hepdata: bool, events: int | None, tool: Any, **options: Any) -> None:
    """Write tables of RESULTS for other tools: rate, efficiency over mass and lifetime, Darkcast limits.

    With --for: the files of one tool alone, in its own format.
    """
    point = {key: options.pop(key) for key in ("mass", "coupling", "state", "suffix")}
    with shown() as tell:
        if tool is None:
            from gammastar.results.export import export as write

            del options["layout"]
            files = write(results, tell=tell, events=(events or 100_000) if hepdata else 0, **options)
        else:
            from gammastar.results.exchange import Decays, ExportRequest, export_for

            given = point["mass"] and point["coupling"]
            decays = Decays(**point, events=events or 10_000) if given else None
            output = options.pop("output")
            request = ExportRequest(decays=decays, **options)
            files = export_for(results, tool, output=output, request=request, tell=tell)
    say_all(files)


@click.command()
@click.argument("runs", nargs=-1, required=True, metavar="RESULTS…")
@click.option("--output", type=FILE, default="overlay", show_default=True, help="Folder of the files.")
@click.option(
    "--detector", "detectors", multiple=True, metavar="NAME", help="Only this one; repeat it [all]."
)
@click.option("--part", default="all", show_default=True, help="Contour, e.g. 'measured domain'.")
@click.option("--limits/--no-limits", default=True, help="Published limits in grey.")
def overlay(runs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Draw the reaches of several RESULTS in one figure, with a page to explore them."""
    from gammastar.results.show import overlay_files

    say_all(overlay_files(runs, output=output, **options))
    say(f"files in {output}")


@click.command()
@click.argument("path", type=FILE)
@click.option("--patches", type=FILE, help="Patch set or patch beside a workspace.")
@click.option("--region", default="", help="Folder inside an archive with several workspaces.")
@click.option("--patch", "names", multiple=True, help="Only these patches.")
@click.option(
    "--method",
    type=click.Choice(["auto", "exact", "marginalised", "mid-p", "asymptotic"]),
    help="Default: from --steering, else from the run, else asymptotic.",
)
@click.option(
    "--statistic", type=click.Choice(["ratio", "qtilde"]), help="Test statistic of exact CLs [ratio]."
)
@click.option(
    "--auxiliary", type=click.Choice(["fixed", "randomised", "averaged"]), help="Toys of exact CLs [fixed]."
)
@click.option(
    "--strength", type=click.FloatRange(min=0, min_open=True), default=1.0, help="Of the signal [1]."
)
@click.option(
    "--cl", type=click.FloatRange(0.5, 1, min_open=True, max_open=True), help="[the run's, or 0.95]"
)
@click.option(
    "--limit",
    is_flag=True,
    help="Also the upper limit on the strength mu of each signal, by about ten tests of a second with toys.",
)
@click.option("--goodness", is_flag=True, help="Also how well each fits its data (saturated model, toys).")
@click.option("--interval", is_flag=True, help="Also the Feldman-Cousins interval of the strength mu (toys).")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
@click.option("--steering", type=FILE, help="Test as the [infer] of this file says.")
@click.option("--hs3", type=FILE, help="Also write each tested signal as HS3 into this folder.")
@click.option("--combine", type=FILE, help="Also write each tested signal as a datacard of CMS Combine.")
def scan(
    path: Path,
    *,
    strength: float,
    cl: float | None,
    limit: bool,
    as_json: bool,
    combine: Path | None,
    **options: Any,
) -> None:
    """Test every signal of a published likelihood: pyhf workspace, HS3, card, folder or archive at PATH.

    The methods `auto` and `marginalised` are exact and averaged over the nuisances; where that needs fitted
    toys, `auto` is asymptotic at many events. `mid-p` takes half of what is as likely as the data.
    A likelihood from a run of gammastar is tested as that run says. Toys are drawn anew at every strength:
    with --limit choose signals by --patch, or take --method asymptotic.
    """
    from gammastar.results.scan import ScanRequest, scan_lines, write_cards

    fits = {name: options.pop(name) for name in ("goodness", "interval", "hs3")}
    say_all(scan_lines(path, request=ScanRequest(strength, cl, limit, as_json, **fits), **options))
    if combine is not None:
        where = {key: options[key] for key in ("names", "patches", "region")}
        for written in write_cards(path, combine, **where):
            say(f"wrote {written}", err=as_json)


@click.command(context_settings={"show_default": True})
@click.argument("results", type=FILE)
@click.option("--detector", required=True, metavar="NAME|FILE", help="A shipped detector or a TOML file.")
@click.option(
    "--masses", default="", metavar="M,M,…", help="Masses [GeV].", show_default="8 of the run's range"
)
@click.option("--precision", type=float, default=0.1, help="Wanted relative error from the number of pairs.")
@click.option("--share", type=float, default=0.9, help="Part of the signal that must be covered.")
@click.option("--thickness", type=float, default=0.1, help="Target thickness [interaction lengths].")
@click.option("--min-momentum", type=float, default=3.0, help="Minimum momentum of each lepton [GeV].")
@click.option("--background", type=float, default=0.0, help="Random pairs per pair of a virtual photon.")
@click.option("--angles", type=(float, float), help="Angular acceptance of an existing spectrometer [mrad].")
@click.option("-n", "n", type=int, default=30_000, help="Sampled particles per mass.")
@TRUST
@click.option("--output", type=FILE, help="Folder of figure and JSON.", show_default="RESULTS_design")
def design(results: Path, detector: str, output: Path | None, trust_code: bool, **options: Any) -> None:
    """Show which dimuons --detector needs, how many of them RESULTS covers, and propose a calibration run.

    Equation 18 of docs/physics.md; statistics of the pairs alone.
    """
    from gammastar.results.design import design as propose
    from gammastar.results.design import wanted

    asked = wanted(**options)
    with shown() as tell:
        lines = propose(results, detector, asked, output=output, tell=tell, trust_code=trust_code)
    say_all(lines)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="gammastar")
@click.option("-v", "--verbose", is_flag=True, help="Show what the library logs.")
def app(verbose: bool) -> None:
    """From measured dilepton pairs to dark-sector reach."""
    if verbose:
        logging.basicConfig(level=logging.INFO)
        plain_logs("%(name)s: %(message)s")


@app.command()
def env() -> None:
    """Print the versions that a bug report needs."""
    from gammastar.store.manifest import versions

    for name, value in versions().items():
        say(f"{name:16s} {value}")


for command in list(globals().values()):
    if isinstance(command, click.Command) and command is not app:
        app.add_command(command)


def main() -> None:
    """Run the command line; 2 for the user's mistakes, 1 for failures, 130 when interrupted, 70 for ours."""
    if sys.getfilesystemencoding() != "utf-8" and os.environ.get("PYTHONUTF8") != "1":
        os.environ["PYTHONUTF8"] = "1"  # names of files, texts and what libraries open: alike in every locale
        os.execv(sys.executable, sys.orig_argv)  # noqa: S606 - this very command
    tune_malloc()
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy: threads without a free core only wait
    gc.set_threshold(10_000, 10, 100)  # collections of everything are a fifth of the time of imports
    plain_logs()
    plain_warnings()
    try:
        with user_code_errors():
            app(standalone_mode=False)
    except GammastarError as error:
        say(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except OSError as error:
        if error.errno is None:  # of a library, not of the system
            _crash(error)
        plain_text = f"{error.filename or ''}: {error.strerror or error}"
        said = disk_full_message(error) if is_disk_full(error) else plain_text
        say(f"error: {said}", err=True)
        sys.exit(1)
    except (click.Abort, KeyboardInterrupt) as error:
        if isinstance(error.__cause__, EOFError):  # click takes the end of a file for the user's ^D
            say(f"error: a file ends too early ({error.__cause__}); copy it again", err=True)
            sys.exit(2)
        say("interrupted; `--resume` goes on from the last finished stage", err=True)
        sys.exit(130)
    except Exception as error:  # noqa: BLE001 - whatever nobody thought of: told, kept and not hidden
        _crash(error)


def _crash(error: Exception) -> NoReturn:
    """Say in one line what nobody foresaw, and leave the traceback beside the results."""
    from importlib.metadata import version

    from gammastar.core.files import CRASH, write_whole

    if is_disk_full(error):
        say(f"error: {disk_full_message(error)}", err=True)
        sys.exit(1)
    text = plain("".join(traceback.format_exception(error)))
    about = f"gammastar {version('gammastar')}, Python {sys.version.split()[0]}: {shlex.join(sys.argv[1:])}"
    kept = ""
    for folder in (getattr(error, "folder", None), Path.cwd(), Path(tempfile.gettempdir())):
        if folder is None:
            continue
        with contextlib.suppress(GammastarError):
            write_whole(folder / CRASH, f"{plain(about)}\n\n{text}".encode())
            kept = f" with {folder / CRASH}"
            break
    what = " ".join(f"{type(error).__name__}: {error}".split())
    say(f"error: {shortened(what)}; this is a fault of gammastar: please report it{kept}", err=True)
    sys.exit(70)
