"""Report section of the unfolding: response, spectrum, its checks and its uncertainties."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import mock, report
from gammastar import spectrum as normalised
from gammastar.core.axes import ENERGY, MASS
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, shipped
from gammastar.pipeline.products import Products
from gammastar.pipeline.results import titled
from gammastar.pipeline.unfolding import simulation_of

__all__ = ["spectrum_section", "true_mass_spectrum", "uncertainties"]


def true_mass_spectrum(ctx: Context, edges: FloatArray) -> FloatArray | None:
    """Return the truth of the mock, photons per proton on target and bin; None without [simulate]."""
    section = ctx.steering.simulate
    if section is None:
        return None
    card = mock.load_card(shipped(section.card, ctx.base, "cards"))
    fine = np.linspace(edges[:-1], edges[1:], 401, axis=1)
    return np.asarray(np.trapezoid(mock.mass_spectrum(card, fine), fine, axis=1), dtype=np.float64)


def uncertainties(arrays: Arrays) -> list[report.Table]:
    """Return the tables of uncertainties and of fitted line shapes."""
    tables = []
    if "statistics" in arrays:
        rows = [
            (str(name), float(total), float(mean))
            for name, (total, mean) in zip(arrays["source_names"], arrays["source_sizes"], strict=True)
        ]
        data, simulation = (float(x) for x in arrays["statistics"])
        tables.append(report.sources_table(rows, data, simulation))
    if "replica_error" in arrays:
        total, mean = 100 * arrays["source_sizes"].T
        columns = {
            "source": ["data and simulation statistics", *map(str, arrays["source_names"])],
            "sum of the spectrum [%]": [f"{x:+.1f}" for x in (100 * float(arrays["replica_error"]), *total)],
            "mean of a cell [%]": ["", *(f"{x:.1f}" for x in mean)],
        }
        caption = "Uncertainties of the OmniFold spectrum: replicas, and shifts of the iterative unfolding."
        tables.append(report.Table(columns, caption=caption))
    if "shape_names" in arrays:
        value, sigma = arrays["shape_yields"].T
        columns = {
            "line shape": arrays["shape_names"].tolist(),
            "photons in the domain, before the cut on mass": [
                f"{v:.4g} ± {s:.2g}" for v, s in zip(value, sigma, strict=True)
            ],
        }
        chi2, ndf = arrays["shape_chi2"]
        caption = f"Forward-folded line shapes: chi2 = {chi2:.1f} for {ndf:.0f} degrees of freedom."
        tables.append(report.Table(columns, caption=caption))
    return tables


def _scan(arrays: Arrays, method: str, *, mock: bool) -> list[tuple[str, Any]]:
    if "scan" not in arrays:
        return []
    points = [
        report.ScanPoint(float(s), *(float(x) for x in row))
        for s, row in zip(arrays["scan_strength"], arrays["scan"], strict=True)
    ]
    label = "iterations" if method == "iterative" else r"$\tau$"
    chosen = float(arrays["strength"]) if method == "iterative" else None
    return [
        titled(
            "regularisation",
            "Scan of the regularisation on the mass spectrum alone; bias for truths of another slope.",
            report.scan_figure(points, mock=mock, chosen=chosen, label=label),
        )
    ]


def _checks(
    subtracted: Spectrum, unfolded: Spectrum, response: Response, refolding: Any, floor: float, *, mock: bool
) -> list[tuple[str, Any]]:
    """Return refolding and domain of all axes."""
    chi2 = (float(refolding[0]), int(refolding[1]))
    found = [
        titled(
            "refolded",
            "The unfolded spectrum folded again, against the measured pairs.",
            report.refolded_spectrum(subtracted, unfolded, response, chi2, mock=mock),
        )
    ]
    sizes = {axis.name: len(axis) for axis in response.true}
    if sizes.get(ENERGY, 0) > 1 and sizes.get(MASS, 0) > 1:
        found.append(
            titled(
                "domain",
                "Acceptance times efficiency over mass and energy, and where nothing is measured.",
                report.domain_map(response, floor, mock=mock),
            )
        )
    return found


def spectrum_section(ctx: Context, made: Products) -> report.Section:
    """Return response, unfolded spectrum, checks, covariance and sources of uncertainty."""
    mock, section = ctx.book.mock, ctx.steering.unfold
    simulation, measured, kept = made.truth, made.spectrum, made.unfolding
    subtracted, unfolded = made.subtracted, made.unfolded
    if simulation is None or measured is None or kept is None or section is None:
        return report.Section("Spectrum", ["The pairs were not unfolded."])
    axis = measured.hist.axes[MASS]
    edges = np.asarray(axis.edges)
    known = simulation_of(section, simulation)
    response = known.response((axis,), (axis,))
    width = np.diff(edges)
    _, density, cov = normalised.mass_density(measured)
    _, inside, _ = normalised.mass_density(measured, "measured")
    references = {"measured domain only": inside * width}
    truth = true_mass_spectrum(ctx, edges)
    if truth is not None:
        references = {"truth of the MOCK": truth, **references}
    total = float((density * width).sum())
    share = float((inside * width).sum()) / total if total > 0 else float("nan")
    chi2, ndf = kept["refolding"]
    exposure = measured.exposure
    pot = "" if exposure is None else f" per proton on target ({exposure.pot:.3g} POT)"
    ctx.book.numbers["virtual photons per POT"] = f"{total:.4g}"
    ctx.book.numbers["part of the spectrum in the measured domain"] = f"{share:.3f}"
    text = (
        f"{simulation.size} simulated dileptons give the response. The spectrum{pot} holds {total:.4g} "
        f"photons, {100 * share:.0f} % of them in cells where dileptons were measured. The others follow "
        f"the shape of the simulation, scaled in each mass bin to the measured yield; from here on they "
        f"count as extrapolated. Refolding: chi2 = {chi2:.0f} for {ndf:.0f} cells; few counts per cell, few "
        f"iterations and pairs from cells below the efficiency floor, not folded again, all raise it."
    )
    figures = [
        titled(
            "efficiency",
            "Acceptance times efficiency, and the fraction that stays in its mass bin.",
            report.efficiency_figure(response, mock=mock),
        ),
        titled("migration", "Migration in mass.", report.migration_matrix(response, mock=mock)),
    ]
    figures += _scan(kept, section.method, mock=mock)
    figures.append(
        titled(
            "unfolded_spectrum",
            "Unfolded spectrum with the error of its covariance, which knows nothing of how wrong the shape "
            "of the simulation may be outside the measured domain.",
            report.unfolded_spectrum(
                edges, density * width, np.sqrt(np.diag(cov)) * width, mock=mock, references=references
            ),
        )
    )
    if subtracted is not None and unfolded is not None:
        axes, true = tuple(subtracted.hist.axes), tuple(unfolded.hist.axes)
        full = known.response(axes, true)
        figures += _checks(subtracted, unfolded, full, kept["refolding"], section.efficiency_floor, mock=mock)
    correlations = report.correlation_matrix(cov, edges, mock=mock)
    figures.append(titled("correlations", "Correlations of the mass bins.", correlations))
    return report.Section("Virtual photons, unfolded", [text], figures=figures, tables=uncertainties(kept))
