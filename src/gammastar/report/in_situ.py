"""Section of the report on the search in situ: reach, pairs with their background, table of masses."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar.core.records import BoolArray, FloatArray
from gammastar.report.dark import View
from gammastar.report.figures import limits as figures
from gammastar.report.pages import Section, titled, words
from gammastar.report.published_limits import citations, edges_of
from gammastar.report.tables import Table

ROWS = 12  # masses of the table


def in_situ_section(
    scan: Any, expected: FloatArray, view: View, *, cl: float, observed: FloatArray | None, method: str
) -> Section:
    """Return the reach of the search for prompt decays in the measured pairs."""
    mass, shown = scan.mass, figures.frame(expected)
    missing: BoolArray = np.isnan(expected.sum(axis=1)) | np.isinf(expected.sum(axis=1))
    levels = np.where(missing[:, None], np.nan, expected)
    seen = None if observed is None else np.where(missing, np.nan, observed)
    drawn = [limit for limit in view.known if _inside(limit.polygon, mass, shown)]
    curves = [limit.curve for limit in drawn]
    figure = figures.coupling_figure(mass, levels, mock=view.mock, cl=cl, observed=seen, limits=curves)
    none = "None of the published limits at hand lies in this frame."
    grey = f"Grey: {citations(drawn)}." if drawn else none
    gaps = _gaps(mass, missing)
    without = f" Gaps, {gaps}: a line of free yield looks like the peak there." if gaps else ""
    measured = "Reach of the search in situ, 100 % measured: the signal is that of the pairs themselves."
    caption = f"{measured}{without} {grey}"
    templates, smooth = scan.templates, scan.templates.background.smooth
    if smooth is not None and smooth.sum() < 0.01 * templates.pairs.sum():
        smooth = None  # the shape that a polynomial multiplies, no pairs
    lines = dict(zip(templates.background.names, templates.background.lines, strict=True))
    spectrum = figures.peak_background_figure(templates.edges, templates.pairs, smooth, lines, mock=view.mock)
    outcome = words("no_observation")
    if seen is not None:
        z = np.where(missing, -np.inf, scan.significance)
        best = int(np.argmax(z))
        at = f"{z[best]:.2f} standard deviations at {mass[best]:.3f} GeV"
        outcome = f"Largest local significance of a peak: {at}."
    text = [words("prompt"), f"{method[0].upper()}{method[1:]}.", outcome]
    templates_caption = "Opposite-sign pairs of the search with the templates of its background."
    return Section(
        "Search in situ: prompt decays to the measured pairs",
        text,
        [titled("reach_in_situ", caption, figure), titled("in_situ_pairs", templates_caption, spectrum)],
        [_table(scan, levels)],
    )


def _inside(polygon: FloatArray, mass: FloatArray, shown: tuple[float, float]) -> bool:
    """Return whether a limit covers any part of the frame."""
    edges = edges_of(polygon, np.geomspace(mass[0], mass[-1], 200))
    return bool(((edges[:, 0] < shown[1]) & (edges[:, 1] > shown[0])).any())


def _gaps(mass: FloatArray, missing: BoolArray) -> str:
    """Return the intervals of masses without a limit."""
    runs = np.split(np.arange(len(mass)), np.flatnonzero(np.diff(missing.astype(int))) + 1)
    return ", ".join(
        f"{mass[run[0]]:.3f} to {mass[run[-1]]:.3f} GeV" if len(run) > 1 else f"{mass[run[0]]:.3f} GeV"
        for run in runs
        if missing[run[0]]
    )


def _table(scan: Any, levels: FloatArray) -> Table:
    rows = np.unique(np.linspace(0, len(scan.mass) - 1, ROWS).astype(int))
    resolution = scan.templates.resolution.sigma(scan.mass)
    columns = {
        "mass [GeV]": scan.mass,
        "resolution [GeV]": resolution,
        "pairs in ±1.4 resolutions": scan.fits.background,
        "error of the peak": scan.fits.sigma,
        "of the model": scan.spurious,
        "signal per squared coupling": scan.signal,
        "expected limit on the coupling": levels[:, 2],
    }
    columns |= {
        f"relative error, {part.name}": np.sqrt(np.clip(np.diag(part.cov), 0.0, None)) / scan.signal
        for part in scan.sources.parts
    }
    plain = {
        name: [float(x) if np.isfinite(x) else "-" for x in values[rows]] for name, values in columns.items()
    }
    return Table(plain, caption="Search in situ: pairs, errors [pairs] and limits")


def displaced_section(
    search: Any, prompt: tuple[FloatArray, FloatArray], view: View, *, method: str
) -> Section:
    """Return the reach of the search for decays behind the target."""
    scan, best, limits = search.found, search.best, search.limits[:, 2]
    rows, couplings = np.arange(len(best)), (float(scan.coupling[0]), float(scan.coupling[-1]))
    ratio = scan.signal[rows, best] / limits[:, None]
    drawn = [limit for limit in view.known if _inside(limit.polygon, scan.mass, couplings)]
    plane, curves = (scan.mass, scan.coupling, ratio), [limit.curve for limit in drawn]
    figure = figures.gap_figure(prompt, plane, search.reaches, mock=view.mock, limits=curves)
    grey = f"Grey: {citations(drawn)}." if drawn else ""
    outcome = "The filled area is reached."
    if not np.isfinite(search.reaches["all"].edges).any():
        i, k = np.unravel_index(int(ratio.argmax()), ratio.shape)
        largest = {"mass": scan.mass[i], "coupling": scan.coupling[k]}
        outcome = words("not_displaced", most=ratio[i, k], **largest)
    some = np.unique(np.linspace(0, len(best) - 1, ROWS).astype(int))
    columns = {
        "mass [GeV]": scan.mass,
        "cut [standard deviations]": scan.cuts[best],
        **{name: scan.parts[rows, k, best] for k, name in enumerate(scan.names.tolist())},
        "relative error of the background": scan.log_sigma[rows, best],
        "expected limit": limits,
        "largest signal": scan.signal[rows, best].max(axis=1),
    }
    table = Table(
        {name: [float(x) for x in values[some]] for name, values in columns.items()},
        caption="Search behind the target: cut, background and limits [pairs]",
    )
    text = [words("displaced"), f"{method[0].upper()}{method[1:]}.", outcome]
    caption = f"Prompt decays, decays behind the target, and published limits: the gap between them. {grey}"
    gap = titled("reach_displaced", caption, figure)
    return Section("Search in situ: decays behind the target", text, [gap], [table])
