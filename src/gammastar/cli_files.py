"""Commands that write files of particles; thin as the others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from gammastar.cli_record import say

__all__ = ["millicharge"]

FILE = click.Path(path_type=Path)
MASS = click.FloatRange(min=0, min_open=True)
SHARE = click.FloatRange(0, 1)


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
    from gammastar.pipeline.commands.sample import chi_file

    say(chi_file(results, m_chi, n, output, **options))
