"""Report sections of the measured half: pairs, unfolding, flow."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import report, simulate, unfold
from gammastar import spectrum as normalised
from gammastar.core.axes import MASS
from gammastar.core.records import FloatArray
from gammastar.core.rng import stream
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, shipped
from gammastar.pipeline.order import Products
from gammastar.pipeline.results import titled

__all__ = ["flow_section", "pairs_section", "spectrum_section", "true_mass_spectrum"]

N_DRAWN = 40_000  # photons drawn per mass for the figures of the flow


def true_mass_spectrum(ctx: Context, edges: FloatArray) -> FloatArray | None:
    """Return the truth of the mock, photons per proton on target and bin; None without [simulate]."""
    section = ctx.steering.simulate
    if section is None:
        return None
    card = simulate.load_card(shipped(section.card, ctx.base, "cards"))
    fine = np.linspace(edges[:-1], edges[1:], 401, axis=1)
    return np.asarray(np.trapezoid(simulate.mass_spectrum(card, fine), fine, axis=1), dtype=np.float64)


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
    background = counts["+-"] - float(subtracted.values.sum())
    share = background / counts["+-"] if counts["+-"] > 0 else float("nan")
    ctx.book.numbers |= {f"pairs {name}": f"{n:.0f}" for name, n in counts.items()}
    ctx.book.numbers["combinatorial background"] = f"{background:.0f} ({100 * share:.1f} % of +-)"
    text = (
        f"Inside the axes: {counts['+-']:.0f} opposite-sign, {counts['++']:.0f} ++ and {counts['--']:.0f} "
        f"-- pairs. Like-sign estimate with R = {r_factor:.3f} ± {sigma:.3f}: {background:.0f} background "
        f"pairs. Cells more than three standard deviations below zero after the subtraction: "
        f"{int(kept['n_negative'])}."
    )
    return report.Section(
        "Pairs and combinatorial background",
        [text],
        figures=[
            titled(
                "mass_spectra",
                "Pair mass: opposite sign, like sign, estimated background, and the difference.",
                report.mass_spectra(hists, subtracted, mock=mock),
            )
        ],
        tables=[_cutflow(flow)],
    )


def spectrum_section(ctx: Context, made: Products) -> report.Section:
    """Return response, unfolded spectrum and covariance."""
    mock = ctx.book.mock
    matched, measured, kept = made.matched, made.spectrum, made.unfolding
    if matched is None or measured is None or kept is None:
        return report.Section("Spectrum", ["The pairs were not unfolded."])
    axis = measured.hist.axes[MASS]
    edges = np.asarray(axis.edges)
    response = unfold.response(matched, (axis,), (axis,), n_replicas=0)
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
        f"{len(matched)} simulated dileptons give the response. The spectrum{pot} holds {total:.4g} photons, "
        f"{100 * share:.0f} % of them in cells where dileptons were measured. The others follow the shape "
        f"of the simulation, scaled in each mass bin to the measured yield; from here on they count as "
        f"extrapolated. Refolding: chi2 = {chi2:.0f} for {ndf:.0f} cells; few counts per cell and few "
        f"iterations both raise it."
    )
    return report.Section(
        "Virtual photons, unfolded",
        [text],
        figures=[
            titled(
                "efficiency",
                "Acceptance times efficiency, and the fraction that stays in its mass bin.",
                report.efficiency_figure(response, mock=mock),
            ),
            titled("migration", "Migration in mass.", report.migration_matrix(response, mock=mock)),
            titled(
                "unfolded_spectrum",
                "Unfolded spectrum with the error of its covariance.",
                report.unfolded_spectrum(
                    edges, density * width, np.sqrt(np.diag(cov)) * width, mock=mock, references=references
                ),
            ),
            titled(
                "correlations",
                "Correlations of the mass bins.",
                report.correlation_matrix(cov, edges, mock=mock),
            ),
        ],
    )


def _drawn(sampler: Any, mass: float, rng: np.random.Generator) -> report.Kinematics:
    pt, energy = sampler.sample(np.full(N_DRAWN, mass), rng)
    return pt, energy, np.ones(N_DRAWN)


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
    tested, inside = kept["kl_tested"], kept["kl_inside"]
    n_inside, n_tested = int(inside[tested].sum()), int(tested.sum())
    ctx.book.numbers["windows of mass in which the flow agrees"] = f"{n_inside} of {n_tested}"
    ctx.book.methods["flow check"] = (
        "kNN divergence, k = 2, against the single-draw 95 % band of the data with themselves"
    )
    text = (
        f"Trained on {int(kept['n_pairs'])} weighted pairs (effective size "
        f"{float(kept['effective_size']):.0f}): subtraction weights over the efficiency where "
        f"dileptons were measured, simulation elsewhere. The mean divergence of flow and pairs lies inside "
        f"the band in {n_inside} of {n_tested} windows of mass."
    )
    return report.Section(
        "Kinematics: the flow",
        [text],
        figures=[
            titled(
                "flow_projections",
                "Transverse momentum and energy at fixed mass: pairs before acceptance, and the flow.",
                report.flow_vs_data(masses, data, {"flow": drawn}, mock=mock, window=half),
            ),
            titled(
                "flow_plane",
                "The same in the plane.",
                report.flow_plane(masses, data, drawn, mock=mock, window=half),
            ),
            titled(
                "flow_divergence",
                "Divergence of flow and pairs in windows of mass, over that of the pairs with themselves.",
                report.kl_figure(
                    kept["kl_mass"][tested], kept["kl_model"][tested], kept["kl_data"][tested], mock=mock
                ),
            ),
            titled(
                "flow_training",
                "Loss per epoch.",
                report.training_figure(
                    kept["train_loss"].tolist(), kept["validation_loss"].tolist(), mock=mock
                ),
            ),
        ],
    )
