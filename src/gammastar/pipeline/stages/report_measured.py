"""Sections of the report on the measured half."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar import mock, report
from gammastar import spectrum as normalised
from gammastar.core.axes import ENERGY, MASS, effective_size, filled
from gammastar.core.files import shipped
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.sampling import stream
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context, Products
from gammastar.pipeline.stages.flow import flow_variations
from gammastar.pipeline.stages.stored import limit_of
from gammastar.pipeline.stages.unfold import simulation_of
from gammastar.report import titled
from gammastar.report.figures.kinematics import (
    Kinematics,
    flow_plane,
    flow_vs_data,
    kl_figure,
    training_figure,
)
from gammastar.report.figures.measured import (
    RegularisationPoint,
    correlation_matrix,
    domain_map,
    efficiency_figure,
    migration_matrix,
    refolded_spectrum,
    scan_figure,
    sources_table,
    subtraction_figure,
    unfolded_spectrum,
)

if TYPE_CHECKING:
    from gammastar.flow import FlowVariations

__all__ = [
    "flow_section",
    "pairs_section",
    "spectrum_section",
    "true_mass_spectrum",
    "uncertainties",
]

N_DRAWN = 40_000  # photons drawn per mass for the figures of the flow


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
        tables.append(sources_table(rows, data, simulation))
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
        RegularisationPoint(float(s), *(float(x) for x in row))
        for s, row in zip(arrays["scan_strength"], arrays["scan"], strict=True)
    ]
    label = "iterations" if method == "iterative" else r"$\tau$"
    chosen = float(arrays["strength"]) if method == "iterative" else None
    return [
        titled(
            "regularisation",
            "Scan of the regularisation on the mass spectrum alone; bias for truths of another slope.",
            scan_figure(points, mock=mock, chosen=chosen, label=label),
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
            refolded_spectrum(subtracted, unfolded, response, chi2, mock=mock),
        )
    ]
    sizes = {axis.name: len(axis) for axis in response.true}
    if sizes.get(ENERGY, 0) > 1 and sizes.get(MASS, 0) > 1:
        found.append(
            titled(
                "domain",
                "Acceptance times efficiency over mass and energy, and where nothing is measured.",
                domain_map(response, floor, mock=mock),
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
            efficiency_figure(response, mock=mock),
        ),
        titled("migration", "Migration in mass.", migration_matrix(response, mock=mock)),
    ]
    figures += _scan(kept, section.method, mock=mock)
    figures.append(
        titled(
            "unfolded_spectrum",
            "Unfolded spectrum with the error of its covariance, which knows nothing of how wrong the shape "
            "of the simulation may be outside the measured domain.",
            unfolded_spectrum(
                edges, density * width, np.sqrt(np.diag(cov)) * width, mock=mock, references=references
            ),
        )
    )
    if subtracted is not None and unfolded is not None:
        axes, true = tuple(subtracted.hist.axes), tuple(unfolded.hist.axes)
        full = known.response(axes, true)
        figures += _checks(subtracted, unfolded, full, kept["refolding"], section.efficiency_floor, mock=mock)
    correlations = correlation_matrix(cov, edges, mock=mock)
    figures.append(titled("correlations", "Correlations of the mass bins.", correlations))
    return report.Section("Virtual photons, unfolded", [text], figures=figures, tables=uncertainties(kept))


def _cutflow(flow: Arrays) -> report.Table:
    headings = {"name": "step", "n": "left", "weight": "sum of weights", "os": "+-", "pp": "++", "mm": "--"}
    columns = {heading: flow[f"cutflow_{key}"].tolist() for key, heading in headings.items()}
    return report.Table(columns, caption="Cutflow: events, then leptons, then pairs.")


def pairs_section(ctx: Context, made: Products) -> report.Section:
    """Return mass spectra before and after the subtraction, and the cutflow."""
    mock = ctx.book.mock
    hists, subtracted, kept, flow = made.hists, made.subtracted, made.subtraction, made.cutflow
    if hists is None or subtracted is None or kept is None or flow is None:
        return report.Section("Pairs", ["No pairs were selected."])
    signs = (("+-", hists.os), ("++", hists.pp), ("--", hists.mm))
    counts = {name: float(h.values().sum()) for name, h in signs}
    r_factor, sigma = kept["r_factor"]
    left = np.asarray(hists.os.values(), dtype=np.float64) - kept["like_sign"]
    like = replace(subtracted, hist=filled(tuple(hists.os.axes), left, np.diag(subtracted.cov)))
    background = float(kept["like_sign"].sum())
    share = background / counts["+-"] if counts["+-"] > 0 else float("nan")
    ctx.book.numbers |= {f"pairs {name}": f"{n:.0f}" for name, n in counts.items()}
    ctx.book.numbers["combinatorial background"] = f"{background:.0f} ({100 * share:.1f} % of +-)"
    first = (
        f"Inside the axes: {counts['+-']:.0f} opposite-sign, {counts['++']:.0f} ++ and {counts['--']:.0f} "
        f"-- pairs. Background with R = {r_factor:.3f} ± {sigma:.3f}: {background:.0f} combinatorial "
        f"pairs. Cells more than three standard deviations below zero after the subtraction: "
        f"{int(kept['n_negative'])}."
    )
    text = [first]
    ratio, error = kept["control"]
    if np.isfinite(ratio):
        away = abs(ratio - 1) > 3 * error
        ctx.book.numbers["control region, +- over background"] = f"{ratio:.3f} ± {error:.3f}"
        text.append(
            f"Control region without signal: opposite-sign pairs over background {ratio:.3f} ± {error:.3f}."
            + (" It departs from one: R lacks its multiplicity part, or there is signal." if away else "")
        )
    charm = None
    if "charm_fit" in kept:
        found, error, chi2, ndf = kept["charm_fit"]
        charm = (kept["charm_mass"], kept["charm_mass_sigma"])
        ctx.book.numbers["open charm, fitted"] = f"{found:.0f} ± {error:.0f} pairs"
        text.append(
            f"Open charm is opposite-sign only: {found:.0f} ± {error:.0f} pairs of the simulated template, "
            f"fitted in mass and vertex offset (chi2 = {chi2:.0f} for {ndf:.0f} degrees of freedom)."
        )
    return report.Section(
        "Pairs and what is subtracted",
        [*_lost(flow), *text, *_samples(ctx, made, kept)],
        figures=[
            titled(
                "mass_spectra",
                "Pair mass: opposite sign, like sign, estimated background with the band of R, the difference"
                + (", and open charm." if charm else "."),
                subtraction_figure(hists, like, mock=mock, r_factor_sigma=sigma / r_factor, charm=charm),
            )
        ],
        tables=[_cutflow(flow), *_removed(kept)],
    )


def _lost(flow: Arrays) -> list[str]:
    """Return the alarm of the selection, if there is one."""
    text = str(flow.get("cutflow_lost", ""))
    return [f"Alarm: {text}."] if text else []


def _samples(ctx: Context, made: Products, kept: Arrays) -> list[str]:
    """Return which stages worked with a sample because there was more than the memory was to hold."""
    text, flow, truth = [], made.cutflow, made.truth
    limit = f"select.max_in_memory = {limit_of(ctx)}"
    chosen = "% of the events, chosen by their hash and weighted to the sum of all."
    if flow is not None and "stored_pairs" in flow and made.pairs is not None:
        share, size = 100 * float(flow["stored_share"]), effective_size(kept["posterior"])
        text.append(
            f"There are more pairs than {limit}: spectra and background are of all "
            f"{int(flow['stored_pairs'])} pairs; the classifier of the weights, OmniFold and the flow worked "
            f"with a sample of {len(made.pairs)} pairs (effective {size:.0f}), {share:.3g} {chosen}"
        )
    if "mixed_leptons" in kept:
        text.append(
            f"There are more leptons than {limit}: mixed events are made of {int(kept['mixed_leptons'])} of "
            f"them, in events chosen by their hash, each class weighted to all its events."
        )
    if truth is not None and truth.stored is not None:
        share = 100 * truth.stored.rows.share
        text.append(
            f"There are more simulated photons than {limit}: response and efficiency are of all "
            f"{truth.size} of them; OmniFold, line shapes and the extrapolation worked with a sample of "
            f"{len(truth.sample)}, {share:.3g} {chosen}"
        )
    return text


def _removed(kept: Arrays) -> list[report.Table]:
    """Return the table of what was taken out besides the combinatorial background."""
    if not len(kept["removed_names"]):
        return []
    amount, sigma, fraction = kept["removed"].T
    columns = {
        "source": kept["removed_names"].tolist(),
        "pairs": [f"{a:.1f} ± {e:.1f}" for a, e in zip(amount, sigma, strict=True)],
        "of the yield [%]": [f"{100 * f:.2f}" for f in fraction],
        "reference": kept["removed_sources"].tolist(),
    }
    return [report.Table(columns, caption="Removed pairs that are no single virtual photon.")]


def _drawn(sampler: Any, mass: float, rng: np.random.Generator) -> Kinematics:
    pt, energy = sampler.sample(np.full(N_DRAWN, mass), rng)
    return pt, energy, np.ones(N_DRAWN)


def _members(
    found: FlowVariations | None, masses: list[float], drawn: list[Kinematics]
) -> list[FloatArray] | None:
    """Return the weights of the replicas alone on what was drawn: a bin shows its own statistics anyway."""
    if found is None:
        return None
    alone = replace(found, near=None)
    return [
        alone.weights(np.full(len(pt), mass), pt, energy)
        for mass, (pt, energy, _) in zip(masses, drawn, strict=True)
    ]


def _losses(found: FlowVariations | None) -> list[tuple[tuple[float, ...], tuple[float, ...]]]:
    """Return training and validation losses of the replicas."""
    members = () if found is None else found.ensemble.members
    return [(one.report.train_loss, one.report.validation_loss) for one in members]


def _density(ctx: Context, kept: Arrays) -> list[str]:
    """Return p-value and power of the test of the density, and the shifts that it sees."""
    if "density_p" not in kept:
        return ["The density was not tested against the measured pairs: there are too few."]
    p, within = kept["density_p"]
    size, (significance, power) = kept["density_size"][1], kept["density_level"]
    shifts, found = [], []
    rows = zip(("energies", "q_T"), kept["density_shift"], kept["density_smallest"], strict=True)
    for name, (shift, error, band), smallest in rows:
        of_band = "" if np.isnan(band) else f", band {100 * band:.2g}"
        shifts.append(f"{name} {100 * shift:+.2f} ± {100 * error:.2f} %{of_band}")
        found.append(f"{100 * smallest:.2g} % in all {name}")
    in_band = "" if np.isnan(within) else f", {within:.2g} within the band of its replicas"
    ctx.book.numbers["flow against its pairs, p-value"] = f"{p:.2g}{in_band}"
    ctx.book.numbers[f"shifts of the flow found with {100 * power:.0f} %"] = ", ".join(found)
    text = (
        f"Energy distance of the flow and the measured pairs (effective {size:.0f}), inside the measured "
        f"domain: p = {p:.2g}{in_band}. Mean logarithm of the pairs over the flow's: {'; '.join(shifts)}. "
        f"The test finds a shift of {' or of '.join(found)} with {100 * power:.0f} % probability at a "
        f"significance of {100 * significance:g} %. The pairs have trained the flow, so that p is rather too "
        "large; a small p with many pairs may be a small bias: the shifts say how small."
    )
    return [text]


def flow_section(ctx: Context, made: Products) -> report.Section:
    """Return the flow against its training pairs, the divergence per window, the losses."""
    mock, section, training, kept = ctx.book.mock, ctx.steering.report, made.training, made.learning
    if made.flow is None or kept is None or section is None:
        return report.Section("Kinematics", ["No flow was trained."])
    low, high = made.flow.mass_range
    half = 0.015 if ctx.steering.flow is None else 0.5 * ctx.steering.flow.window
    masses = [m for m in section.flow_masses if low + half <= m <= high - half]
    data, drawn = [], []
    for mass in masses:
        near = np.abs(training.mass - mass) < half
        data.append((training.pt[near], training.energy[near], training.reference[near]))
        drawn.append(_drawn(made.flow, mass, stream(ctx.seed, "figures", f"{mass!r}")))
    variations = flow_variations(ctx.folder)
    members = _members(variations, masses, drawn)
    bands = None if members is None else {"flow": members}
    band = "" if members is None else f" Band: spread of {len(members[0])} bootstrap replicas."
    among = "" if members is None else " and of replicas"
    tested, inside = kept["kl_tested"], kept["kl_inside"]
    n_inside, n_tested = int(inside[tested].sum()), int(tested.sum())
    ctx.book.methods["flow check"] = (
        "energy distance of measured pairs and flow in (m, ln q_T, ln E), p-value from random signs of events"
    )
    ctx.book.methods["flow figure"] = (
        "kNN divergence, k = 2, against the single-draw 95 % band of the data with themselves"
    )
    text = (
        f"Trained on {int(kept['n_pairs'])} weighted pairs (effective size "
        f"{float(kept['effective_size']):.0f}): subtraction weights over the efficiency where "
        f"dileptons were measured, simulation elsewhere."
    )
    windows = (
        f"The mean divergence of flow and pairs lies inside the band in {n_inside} of {n_tested} windows of "
        "mass. A window sees gross errors alone: the test above judges."
    )
    return report.Section(
        "Kinematics: the flow",
        [text, *_density(ctx, kept), windows],
        figures=[
            titled(
                "flow_projections",
                "Transverse momentum and energy at fixed mass: pairs before acceptance, and the flow." + band,
                flow_vs_data(masses, data, {"flow": drawn}, mock=mock, window=half, members=bands),
            ),
            titled(
                "flow_plane",
                "The same in the plane, with pulls from statistical errors alone"
                + ("." if members is None else " and the spread of the replicas."),
                flow_plane(masses, data, drawn, mock=mock, window=half, members=members),
            ),
            titled(
                "flow_divergence",
                "Divergence of flow and pairs in windows of mass, over that of the pairs with themselves. "
                f"Dotted: 95 % band of draws of the flow{among}.",
                kl_figure(
                    *(kept[name][tested] for name in ("kl_mass", "kl_model", "kl_data")),
                    mock=mock,
                    model_error=kept["kl_error"][tested],
                ),
            ),
            titled(
                "flow_training",
                "Loss per epoch." + (band and f"{band} Each replica is moved to the same lowest value."),
                training_figure(
                    kept["train_loss"].tolist(),
                    kept["validation_loss"].tolist(),
                    mock=mock,
                    best_epoch=int(np.argmin(kept["validation_loss"])),
                    members=_losses(variations),
                ),
            ),
        ],
    )
