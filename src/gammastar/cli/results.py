"""Commands of finished runs and published likelihoods, ``show`` to ``scan``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gammastar.cli.terminal import FILE, say, shown

MASS = click.FloatRange(min=0, min_open=True)
TRUST = click.option(
    "--trust-code",
    is_flag=True,
    help="Run Python code that the record names, once its digests are told.",
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

    for line in verify_results(results):
        say(line)


@click.command()
@click.argument("results", type=FILE)
@click.option("--model", metavar="FILE.py:NAME", help="Another model [that of the run].")
@click.option("--detector", type=FILE, help="Another detector file [those of the run].")
@click.option("--output", type=FILE, required=True, help="Folder of the new results.")
@click.option("--allow-partial", is_flag=True, help="Set limits although the run left files out.")
@TRUST
def reinterpret(results: Path, output: Path, **options: Any) -> None:
    """Compute the reach of another model or detector from the record of RESULTS alone."""
    from gammastar.core.files import skip_numba_entrypoints
    from gammastar.results.reinterpret import reinterpret as again

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
    type=click.Choice(["foresee", "alpinist", "eventcalc", "darkcast", "geant"]),
    help="Only the files that this tool reads; geant: decays as events.",
)
@click.option("--mass", type=MASS, help="Of geant [GeV].")
@click.option("--coupling", type=MASS, help="Of geant: kinetic mixing.")
@click.option(
    "--state", type=click.Choice(["ee", "mumu"]), default="mumu", show_default=True, help="Of geant."
)
@click.option(
    "--format",
    "suffix",
    type=click.Choice(["hepmc", "lhe", "csv", "root", "parquet"]),
    default="hepmc",
    show_default=True,
    help="Of geant.",
)
def export(results: Path, *, hepdata: bool, events: int | None, tool: Any, **options: Any) -> None:
    """Write tables of RESULTS for other tools: rate, efficiency over mass and lifetime, Darkcast limits.

    With --for: the files of one tool alone, in its own format.
    """
    point = {key: options.pop(key) for key in ("mass", "coupling", "state", "suffix")}
    with shown() as tell:
        if tool is None:
            from gammastar.results.export import export as write

            files = write(results, tell=tell, events=(events or 100_000) if hepdata else 0, **options)
        else:
            from gammastar.results.exchange import Decays, ExportRequest, export_for

            given = point["mass"] and point["coupling"]
            decays = Decays(**point, events=events or 10_000) if given else None
            output = options.pop("output")
            files = export_for(
                results, tool, output=output, request=ExportRequest(decays=decays, **options), tell=tell
            )
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
@click.argument("runs", nargs=-1, required=True, metavar="RESULTS…")
@click.option("--output", type=FILE, default="overlay", show_default=True, help="Folder of the files.")
@click.option(
    "--detector", "detectors", multiple=True, metavar="NAME", help="Only this one; repeat it [all]."
)
@click.option("--part", default="all", show_default=True, help="Contour, e.g. 'measured domain'.")
@click.option("--limits/--no-limits", default=True, help="Published limits in grey.")
def overlay(runs: tuple[str, ...], output: Path, **options: Any) -> None:
    """Draw the reaches of several RESULTS in one figure, with a page to explore them."""
    from gammastar.results.compare import overlay_files

    for label in overlay_files(runs, output=output, **options):
        say(label)
    say(f"files in {output}")


@click.command()
@click.argument("path", type=FILE)
@click.option("--patches", type=FILE, help="Patch set or patch beside a workspace.")
@click.option("--region", default="", help="Folder inside an archive with several workspaces.")
@click.option("--patch", "names", multiple=True, help="Only these patches.")
@click.option(
    "--method",
    type=click.Choice(["auto", "exact", "marginalised", "mid-p", "asymptotic"]),
    help="[that of --steering, of the run that wrote PATH, or asymptotic]",
)
@click.option("--statistic", type=click.Choice(["ratio", "qtilde"]), help="Of exact CLs [ratio].")
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

    fits = {name: options.pop(name) for name in ("goodness", "interval")}
    for line in scan_lines(path, request=ScanRequest(strength, cl, limit, as_json, **fits), **options):
        say(line)
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
@click.option("--thickness", type=float, default=0.1, help="Of the target [interaction lengths].")
@click.option("--min-momentum", type=float, default=3.0, help="Of each lepton [GeV].")
@click.option("--background", type=float, default=0.0, help="Random pairs per pair of a virtual photon.")
@click.option("--angles", type=(float, float), help="Of a spectrometer that is there [mrad].")
@click.option("-n", "n", type=int, default=30_000, help="Sampled particles per mass.")
@TRUST
@click.option("--output", type=FILE, help="Folder of figure and JSON.", show_default="RESULTS_design")
def design(results: Path, detector: str, output: Path | None, trust_code: bool, **options: Any) -> None:
    """Say which dimuons --detector asks for, how many of them RESULTS measured, and propose the run for them.

    Equation 18 of docs/physics.md; statistics of the pairs alone.
    """
    from gammastar.results.design import design as propose
    from gammastar.results.design import wanted

    asked = wanted(**options)
    with shown() as tell:
        lines = propose(results, detector, asked, output=output, tell=tell, trust_code=trust_code)
    for line in lines:
        say(line)
