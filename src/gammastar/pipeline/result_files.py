"""The files of a result folder (histograms, spectra, tables)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from hist import Hist

from gammastar import spectrum as normalised
from gammastar.core.axes import MASS, filled, variable
from gammastar.core.records import PairHists, Spectrum
from gammastar.pipeline.context import Context
from gammastar.store.records import write_histograms, write_spectrum, write_table

__all__ = [
    "mass_histogram",
    "titled",
    "write_mass_histograms",
    "write_reach",
    "write_spectrum_files",
]


def mass_histogram(spectrum: Spectrum, part: Any = "all") -> Hist[Any]:
    """Return the contents of a spectrum per mass bin, with the variances of its covariance."""
    edges = np.asarray(spectrum.hist.axes[MASS].edges)
    _, density, cov = normalised.mass_density(spectrum, part)
    width = np.diff(edges)
    return filled((variable(MASS, edges.tolist()),), density * width, np.diag(cov) * width**2)


def write_mass_histograms(ctx: Context, hists: PairHists, subtracted: Spectrum) -> None:
    """Write ``pairs.root``: opposite-sign, like-sign and subtracted mass spectra."""
    named = {
        "opposite_sign": hists.os.project(MASS),
        "plus_plus": hists.pp.project(MASS),
        "minus_minus": hists.mm.project(MASS),
        "subtracted": mass_histogram(subtracted),
    }
    write_histograms(ctx.folder / "pairs.root", named)


def write_spectrum_files(ctx: Context, spectrum: Spectrum, unfolded: Spectrum) -> None:
    """Write ``spectrum.json`` (all axes, covariance, domain) and ``spectrum.root`` (projections)."""
    write_spectrum(ctx.folder / "spectrum.json", spectrum)
    axes = [axis.name for axis in spectrum.hist.axes]
    named = {
        "mass_per_pot": mass_histogram(spectrum),
        "mass_per_pot_measured": mass_histogram(spectrum, "measured"),
        "mass_counts": mass_histogram(unfolded),
    }
    projections = {
        f"{MASS}_{name}_per_pot": spectrum.hist.project(MASS, name) for name in axes if name != MASS
    }
    write_histograms(ctx.folder / "spectrum.root", named | projections)


def titled(name: str, caption: str, figure: Any) -> tuple[str, Any]:
    """Return caption and figure of a report section; `name` becomes the name of the file."""
    figure.set_label(name)
    return caption, figure


def write_reach(path: Path, columns: dict[str, Any]) -> None:
    """Write the rows of a reach as CSV."""
    write_table(path, {name: [_plain(value) for value in values] for name, values in columns.items()})


def _plain(value: Any) -> Any:
    if isinstance(value, float | np.floating):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
