"""Commands that read or write files of events: ``inspect``, ``init``, ``simulate``, ``sample``, …."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from gammastar.cli.terminal import FILE, say, shown

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

    For published tables (a HEPData record, YAML, CSV, YODA, histograms): list them, and propose the lines
    of a steering file. Exit code 1 if there is nothing to propose.
    """
    from gammastar import read
    from gammastar.read.published import is_published

    if is_published(file):
        _tables(file, output, brief=schema_only)
        return
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

    for line in begin(folder, **options):
        say(line)


def _tables(file: Path, output: Path | None, *, brief: bool) -> None:
    """Show what is in a file of published tables."""
    from gammastar.core.files import write_whole
    from gammastar.read.published import describe_tables

    found = describe_tables(file)
    if output is not None and found.proposal:
        write_whole(output, f"{found.proposal}\n".encode())
        say(f"proposed lines in {output}", err=True)
    elif found.proposal:
        say(found.proposal)
    if not brief:
        say(found.listing)
    if not found.proposal:
        say(f"error: no table makes a mass spectrum: {'; '.join(found.reasons[:3])}", err=True)
        sys.exit(1)


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
@click.option("--resume", is_flag=True, help="Go on from what an interrupted run left in OUTPUT.parts.")
@click.option("--cache", type=FILE, help="Keep finished parts in this folder, and take them from it.")
@click.option("--seed", type=click.IntRange(min=0), default=1)
def simulate(card: str, n_events: int, output: Path, seed: int, **options: Any) -> None:
    """Write MOCK events of CARD (a file, or the name of a shipped card)."""
    from gammastar.results.events import simulate_file

    with shown() as tell:
        lines = simulate_file(card, n_events, output, seed=seed, tell=tell, **options)
    for line in lines:
        say(line)


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
@click.option("--mass", "m_chi", type=MASS, required=True, help="Of the particle [GeV].")
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
