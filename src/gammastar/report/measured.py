"""Sections of the report on the measured half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.axes import ENERGY, MASS, filled
from gammastar.core.records import FloatArray, PairHists, Response, Spectrum
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
from gammastar.report.pages import Section, titled
from gammastar.report.tables import Table

Arrays = Mapping[str, npt.NDArray[Any]]
SUSPICIOUS = 0.05  # p-value below which a test is a warning
FLOW_METHODS = {
    "flow check": (
        "energy distance of measured pairs and flow in (m, ln q_T, ln E), p-value from random signs of events"
    ),
    "flow figure": "kNN divergence, k = 2, against the single-draw 95 % band of the data with themselves",
}


@dataclass(frozen=True, slots=True, eq=False)
class Unfolding:
    """What the section on the unfolded spectrum shows."""

    spectrum: Spectrum  # Per proton on target
    # Counts
    subtracted: Spectrum
    responses: tuple[Response, Response]  # In mass alone, and in all axes
    n_simulated: int  # Dileptons behind them
    # Photons per proton on target and GeV, of all cells and of the measured ones, shape (n,)
    density: FloatArray
    inside: FloatArray
    cov: FloatArray  # Of the density, shape (n, n)
    truth: FloatArray | None  # Of mock data: photons per proton on target and bin, shape (n,)
    kept: Arrays  # What the unfolding kept: sources, scan of the regularisation, refolding, line shapes


@dataclass(frozen=True, slots=True, eq=False)
class FlowCheck:
    """What the section on the flow shows."""

    masses: Sequence[float]  # Centres of the windows that are drawn [GeV]
    half: float  # Half the width of a window [GeV]
    # Pairs in each window, and what the flow gives at its centre
    data: list[Kinematics]
    drawn: list[Kinematics]
    # Weights of each replica on what was drawn, (replicas, n) in each window
    members: list[FloatArray] | None
    losses: Sequence[tuple[tuple[float, ...], tuple[float, ...]]]  # Of the replicas
    kept: Arrays  # What the flow kept: losses, divergences, the test of its density


def uncertainties(arrays: Arrays) -> list[Table]:
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
        tables.append(Table(columns, caption=caption))
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
        tables.append(Table(columns, caption=caption))
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
    subtracted: Spectrum, response: Response, kept: Arrays, floor: float, *, mock: bool
) -> list[tuple[str, Any]]:
    """Return refolding and domain of all axes."""
    toys = kept.get("refolding_toys")
    chi2 = kept["refolding"] if toys is None else toys
    p_value = None if toys is None else float(toys[-1])
    found = [
        titled(
            "refolded",
            "The unfolded spectrum folded again, against the measured pairs.",
            refolded_spectrum(
                subtracted, kept["refolded"], (float(chi2[0]), int(chi2[1])), mock=mock, p_value=p_value
            ),
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


def spectrum_section(found: Unfolding, *, method: str, floor: float, mock: bool) -> Section:
    """Return response, unfolded spectrum, checks, covariance and sources of uncertainty."""
    measured, kept = found.spectrum, found.kept
    edges = np.asarray(measured.hist.axes[MASS].edges)
    width, (response, full) = np.diff(edges), found.responses
    density, inside, cov = found.density, found.inside, found.cov
    references = {"measured domain only": inside * width}
    if found.truth is not None:
        references = {"truth of the MOCK": found.truth, **references}
    total = float((density * width).sum())
    share = float((inside * width).sum()) / total if total > 0 else float("nan")
    exposure = measured.exposure
    pot = "" if exposure is None else f" per proton on target ({exposure.pot:.3g} protons)"
    text = (
        f"The spectrum of virtual photons{pot} holds {total:.4g} photons, {100 * share:.0f} % of them in "
        f"cells where dileptons were measured. The others follow the shape of the simulation, scaled in each "
        f"mass bin to the measured yield; from here on they count as extrapolated. "
        f"{found.n_simulated} simulated dileptons give the response."
    )
    judged, suspicious = _refolding(kept)
    figures = [
        titled(
            "unfolded_spectrum",
            "Unfolded spectrum with the error of its covariance, which knows nothing of how wrong the shape "
            "of the simulation may be outside the measured domain.",
            unfolded_spectrum(
                edges, density * width, np.sqrt(np.diag(cov)) * width, mock=mock, references=references
            ),
        ),
        *_checks(found.subtracted, full, kept, floor, mock=mock),
        titled(
            "efficiency",
            "Acceptance times efficiency, and the fraction that stays in its mass bin.",
            efficiency_figure(response, mock=mock),
        ),
        titled("migration", "Migration in mass.", migration_matrix(response, mock=mock)),
        *_scan(kept, method, mock=mock),
    ]
    correlations = correlation_matrix(cov, edges, mock=mock)
    figures.append(titled("correlations", "Correlations of the mass bins.", correlations))
    numbers = {
        "virtual photons per POT": f"{total:.4g}",
        "part of the spectrum in the measured domain": f"{share:.3f}",
    }
    tables, warnings = uncertainties(kept), [judged] if suspicious else []
    calm = [] if suspicious else [judged]
    return Section("Virtual photons, unfolded", [text, *calm], figures, tables, numbers, warnings=warnings)


def _refolding(kept: Arrays) -> tuple[str, bool]:
    """Return how well the unfolded spectrum, folded again, fits the data, and whether it does not."""
    if "refolding_toys" not in kept:
        chi2, ndf = kept["refolding"]
        text = f"Folded again, the spectrum is compared to the data with chi2 = {chi2:.0f} in {ndf:.0f} cells"
        return f"{text}; no toys tell how much it should be, and the number of cells does not.", False
    chi2, cells, expected, spread, p = (float(x) for x in kept["refolding_toys"])
    bad = p < SUSPICIOUS
    verdict = "the spectrum describes the data poorly" if bad else "the spectrum describes the data"
    text = (
        f"Folded again, {verdict}: chi2 = {chi2:.0f} in {cells:.0f} cells, and {expected:.0f} ± {spread:.0f} "
        f"are expected if nothing is wrong (p = {p:.2g}), less than the cells: the spectrum follows "
        "the data in part. Cells below the efficiency floor "
        f"count here; without the pairs from there chi2 is {kept['refolding'][0]:.0f}."
    )
    return text, bad


def _cutflow(flow: Arrays) -> Table:
    headings = {"name": "step", "n": "left", "weight": "sum of weights", "os": "+−", "pp": "++", "mm": "−−"}
    columns = {heading: flow[f"cutflow_{key}"].tolist() for key, heading in headings.items()}
    return Table(columns, caption="Cutflow: events, then leptons, then pairs.")


def pairs_section(
    hists: PairHists,
    subtracted: Spectrum,
    kept: Arrays,
    cutflow: Arrays,
    *,
    mock: bool,
    notes: Sequence[str] = (),
) -> Section:
    """Return mass spectra before and after the subtraction, and the cutflow."""
    signs = (("+-", hists.os), ("++", hists.pp), ("--", hists.mm))
    counts = {name: float(h.values().sum()) for name, h in signs}
    r_factor, sigma = kept["r_factor"]
    left = np.asarray(hists.os.values(), dtype=np.float64) - kept["like_sign"]
    like = replace(subtracted, hist=filled(tuple(hists.os.axes), left, np.diag(subtracted.cov)))
    background = float(kept["like_sign"].sum())
    share = background / counts["+-"] if counts["+-"] > 0 else float("nan")
    numbers = {f"pairs {name}": f"{n:.0f}" for name, n in counts.items()}
    numbers["combinatorial background"] = f"{background:.0f} ({100 * share:.1f} % of +-)"
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
        numbers["control region, +- over background"] = f"{ratio:.3f} ± {error:.3f}"
        text.append(
            f"Control region without signal: opposite-sign pairs over background {ratio:.3f} ± {error:.3f}."
            + (" It departs from one: R lacks its multiplicity part, or there is signal." if away else "")
        )
    charm = None
    if "charm_fit" in kept:
        found, error, chi2, ndf = kept["charm_fit"]
        charm = (kept["charm_mass"], kept["charm_mass_sigma"])
        numbers["open charm, fitted"] = f"{found:.0f} ± {error:.0f} pairs"
        text.append(
            f"Open charm is opposite-sign only: {found:.0f} ± {error:.0f} pairs of the simulated template, "
            f"fitted in mass and vertex offset (chi2 = {chi2:.0f} for {ndf:.0f} degrees of freedom)."
        )
    return Section(
        "Pairs and what is subtracted",
        [*text, *notes],
        figures=[
            titled(
                "mass_spectra",
                "Pair mass: opposite sign, like sign, estimated background with the band of R, the difference"
                + (", and open charm." if charm else "."),
                subtraction_figure(hists, like, mock=mock, r_factor_sigma=sigma / r_factor, charm=charm),
            )
        ],
        tables=[_cutflow(cutflow), *_removed(kept)],
        numbers=numbers,
        warnings=_lost(cutflow),
    )


def _lost(flow: Arrays) -> list[str]:
    """Return the alarm of the selection, if there is one."""
    text = str(flow.get("cutflow_lost", ""))
    return [f"Alarm: {text}."] if text else []


def sample_notes(
    limit: int | None,
    cutflow: Arrays,
    kept: Arrays,
    *,
    pairs: tuple[int, float],
    photons: tuple[int, int, float] | None = None,
) -> list[str]:
    """Return which stages worked with a sample because there was more than the memory was to hold."""
    text, said = [], f"select.max_in_memory = {limit}"
    chosen = "% of the events, chosen by their hash and weighted to the sum of all."
    if "stored_pairs" in cutflow:
        text.append(
            f"There are more pairs than {said}: spectra and background are of all "
            f"{int(cutflow['stored_pairs'])} pairs; the classifier of the weights, OmniFold and the flow "
            f"worked with a sample of {pairs[0]} pairs (effective {pairs[1]:.0f}), "
            f"{100 * float(cutflow['stored_share']):.3g} {chosen}"
        )
    if "mixed_leptons" in kept:
        text.append(
            f"There are more leptons than {said}: mixed events are made of {int(kept['mixed_leptons'])} of "
            f"them, in events chosen by their hash, each class weighted to all its events."
        )
    if photons is not None:
        text.append(
            f"There are more simulated photons than {said}: response and efficiency are of all "
            f"{photons[0]} of them; OmniFold, line shapes and the extrapolation worked with a sample of "
            f"{photons[1]}, {100 * photons[2]:.3g} {chosen}"
        )
    return text


def _removed(kept: Arrays) -> list[Table]:
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
    return [Table(columns, caption="Removed pairs that are no single virtual photon.")]


def _density(kept: Arrays) -> tuple[list[str], dict[str, str]]:
    """Return what the test of the density says, p-value, power and shifts, and its numbers."""
    if "density_p" not in kept:
        return ["The density was not tested against the measured pairs: there are too few."], {}
    p, within = kept["density_p"]
    size, (significance, power) = kept["density_size"][1], kept["density_level"]
    shifts, found = [], []
    rows = zip(("energies", "q_T"), kept["density_shift"], kept["density_smallest"], strict=True)
    for name, (shift, error, band), smallest in rows:
        of_band = "" if np.isnan(band) else f", band {100 * band:.2g}"
        shifts.append(f"{name} {100 * shift:+.2f} ± {100 * error:.2f} %{of_band}")
        found.append(f"{100 * smallest:.2g} % in all {name}")
    in_band = "" if np.isnan(within) else f", {within:.2g} within the band of its replicas"
    numbers = {
        "flow against its pairs, p-value": f"{p:.2g}{in_band}",
        f"shifts of the flow found with {100 * power:.0f} %": ", ".join(found),
    }
    text = (
        f"Energy distance of the flow and the measured pairs (effective {size:.0f}), inside the measured "
        f"domain: p = {p:.2g}{in_band}. Mean logarithm of the pairs over the flow's: {'; '.join(shifts)}. "
        f"The test finds a shift of {' or of '.join(found)} with {100 * power:.0f} % probability at a "
        f"significance of {100 * significance:g} %. The pairs have trained the flow, so that p is rather too "
        "large; a small p with many pairs may be a small bias: the shifts say how small."
    )
    return [text], numbers


def _slices(kept: Arrays) -> list[Table]:
    """Return the table of the density in slices of mass: an average over masses hides what a slice shows."""
    if not len(kept.get("slice_mass", ())):
        return []
    columns = {
        "mass [GeV]": [f"{low:.3f} to {high:.3f}" for low, high in kept["slice_mass"]],
        "pairs (effective)": [f"{size:.0f}" for _, size in kept["slice_p"]],
        "p-value": [f"{p:.2g}" for p, _ in kept["slice_p"]],
    }
    for k, name in enumerate(("E", "q_T")):
        shift, error, band, smallest = 100.0 * kept["slice_shift"][:, k].T
        total = np.hypot(error, np.nan_to_num(band))
        columns[f"{name} of pairs over flow [%]"] = [
            f"{s:+.1f} ± {e:.1f}" for s, e in zip(shift, total, strict=True)
        ]
        columns[f"{name} found from [%]"] = [f"{one:.2g}" for one in smallest]
    power, significance = 100 * kept["density_level"][::-1]
    caption = (
        "The flow against its measured pairs at true mass, inside the domain: mean logarithms with errors of "
        "statistics and replicas, and the smallest shift that is found with "
        f"{power:.0f} % at a significance of {significance:g} %. The pairs of neighbouring slices fluctuate "
        "against each other by the unfolding, which these errors leave out."
    )
    return [Table(columns, caption=caption)]


def _windows(kept: Arrays, among: str, *, mock: bool) -> tuple[list[tuple[str, Any]], str]:
    """Return the figure of the divergence in windows of mass, if it was computed, and what it says."""
    if "kl_tested" not in kept:
        return [], "The flow was not checked in windows of mass: none holds enough pairs ([flow] window)."
    tested, inside = kept["kl_tested"], kept["kl_inside"]
    caption = (
        "Divergence of flow and pairs in windows of mass, over that of the pairs with themselves. "
        f"Dotted: 95 % band of draws of the flow{among}."
    )
    figure = kl_figure(
        *(kept[name][tested] for name in ("kl_mass", "kl_model", "kl_data")),
        mock=mock,
        model_error=kept["kl_error"][tested],
    )
    words = (
        f"The mean divergence of flow and pairs lies inside the band in {int(inside[tested].sum())} of "
        f"{int(tested.sum())} windows of mass. A window sees gross errors alone: the test above judges."
    )
    return [titled("flow_divergence", caption, figure)], words


def flow_section(found: FlowCheck, *, mock: bool) -> Section:
    """Return the flow against its training pairs, the divergence per window, the losses."""
    kept, members = found.kept, found.members
    band = f" Band: spread of {len(found.losses)} bootstrap replicas." if found.losses else ""
    among = "" if members is None else " and of replicas"
    divergence, windows = _windows(kept, among, mock=mock)
    tested_text, numbers = _density(kept)
    poor = "density_p" in kept and float(np.nanmax(kept["density_p"])) < SUSPICIOUS
    text = (
        f"Trained on {int(kept['n_pairs'])} weighted pairs (effective size "
        f"{float(kept['effective_size']):.0f}): subtraction weights over the efficiency where "
        f"dileptons were measured, simulation elsewhere."
    )
    return Section(
        "Kinematics: the flow",
        [text] if poor else [text, *tested_text],
        figures=[
            *_at_masses(found, band, mock=mock),
            *divergence,
            titled(
                "flow_training",
                "Loss per epoch." + (band and f"{band} Each replica is moved to the same lowest value."),
                training_figure(
                    kept["train_loss"].tolist(),
                    kept["validation_loss"].tolist(),
                    mock=mock,
                    best_epoch=int(kept["best_epoch"]),
                    members=found.losses,
                ),
            ),
        ],
        tables=_slices(kept),
        numbers=numbers,
        methods=FLOW_METHODS,
        warnings=tested_text if poor else (),
        shown=1,
        notes=[windows],
    )


def _at_masses(found: FlowCheck, band: str, *, mock: bool) -> list[tuple[str, Any]]:
    """Return pairs and flow at fixed masses, projected and in the plane; nothing without masses."""
    masses, half, data, drawn, members = found.masses, found.half, found.data, found.drawn, found.members
    if not masses:
        return []
    bands = None if members is None else {"flow": members}
    return [
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
    ]
