"""Sections of the report on the measured half."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.records import ENERGY, MASS, FloatArray, PairHists, Response, Spectrum, filled
from gammastar.report.figures import kinematics
from gammastar.report.figures import measured as figures
from gammastar.report.figures.kinematics import Kinematics
from gammastar.report.pages import Section, Table, titled, words

Arrays = Mapping[str, npt.NDArray[Any]]
UNFOLDED = (
    "Unfolded spectrum with the error of its covariance, which knows nothing of how wrong the shape of the "
    "simulation may be outside the measured domain."
)
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
    kept: Arrays  # What the unfolding kept: sources, scan of the regularisation, refolding


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
    """Return the tables of uncertainties."""
    tables, names = [], [str(name) for name in arrays.get("source_names", ())]
    if "statistics" in arrays:
        rows = [(name, *sizes) for name, sizes in zip(names, arrays["source_sizes"].tolist(), strict=True)]
        tables.append(figures.sources_table(rows, *arrays["statistics"].tolist()))
    if "replica_error" in arrays:
        total, mean = 100 * arrays["source_sizes"].T
        columns = {
            "source": ["data and simulation statistics", *names],
            "sum of the spectrum [%]": [f"{x:+.1f}" for x in (100 * float(arrays["replica_error"]), *total)],
            "mean of a cell [%]": ["", *(f"{x:.1f}" for x in mean)],
        }
        caption = "Uncertainties of the OmniFold spectrum: replicas, and shifts of the iterative unfolding."
        tables.append(Table(columns, caption=caption))
    return tables


def spectrum_section(unfolding: Unfolding, *, method: str, floor: float, mock: bool) -> Section:
    """Return response, unfolded spectrum, checks, covariance and sources of uncertainty."""
    measured, arrays, (response, full) = unfolding.spectrum, unfolding.kept, unfolding.responses
    edges = np.asarray(measured.hist.axes[MASS].edges)
    width = np.diff(edges)
    values, inside = unfolding.density * width, unfolding.inside * width
    errors = np.sqrt(np.diag(unfolding.cov)) * width
    references = {} if unfolding.truth is None else {"truth of the MOCK": unfolding.truth}
    references |= {"measured domain only": inside}
    total = float(values.sum())
    share = float(inside.sum()) / total if total > 0 else float("nan")
    pot = None if measured.exposure is None else measured.exposure.pot
    text = words("spectrum", pot=pot, total=total, share=share, n_simulated=unfolding.n_simulated)
    judged, p_value = _refolding(arrays)
    chi2 = arrays.get("refolding_toys", arrays["refolding"])
    again = arrays["refolded"], (float(chi2[0]), int(chi2[1]))
    drawn = {
        ("unfolded_spectrum", UNFOLDED): figures.unfolded_spectrum(
            edges, values, errors, mock=mock, references=references
        ),
        ("refolded", "The unfolded spectrum folded again, against the measured pairs."): (
            figures.refolded_spectrum(unfolding.subtracted, *again, mock=mock, p_value=p_value)
        ),
    }
    sizes = {axis.name: len(axis) for axis in full.true}
    if sizes.get(ENERGY, 0) > 1 and sizes.get(MASS, 0) > 1:
        caption = "Acceptance times efficiency over mass and energy, and where nothing is measured."
        drawn["domain", caption] = figures.domain_map(full, floor, mock=mock)
    caption = "Acceptance times efficiency, and the fraction that stays in its mass bin."
    drawn["efficiency", caption] = figures.efficiency_figure(response, mock=mock)
    drawn["migration", "Migration in mass."] = figures.migration_matrix(response, mock=mock)
    if "scan" in arrays:
        rows = np.column_stack([arrays["scan_strength"], arrays["scan"]]).astype(float).tolist()
        iterative, points = method == "iterative", [figures.RegularisationPoint(*row) for row in rows]
        label, chosen = ("iterations", float(arrays["strength"])) if iterative else (r"$\tau$", None)
        caption = "Scan of the regularisation on the mass spectrum alone; bias for truths of another slope."
        drawn["regularisation", caption] = figures.scan_figure(points, mock=mock, chosen=chosen, label=label)
    correlations = figures.correlation_matrix(unfolding.cov, edges, mock=mock)
    drawn["correlations", "Correlations of the mass bins."] = correlations
    numbers = {
        "virtual photons per POT": f"{total:.4g}",
        "part of the spectrum in the measured domain": f"{share:.3f}",
    }
    bad = p_value is not None and p_value < SUSPICIOUS
    return Section(
        "Virtual photons, unfolded",
        [text] if bad else [text, judged],
        [titled(name, caption, figure) for (name, caption), figure in drawn.items()],
        uncertainties(arrays),
        numbers,
        warnings=[judged] if bad else [],
    )


def _refolding(arrays: Arrays) -> tuple[str, float | None]:
    """Return how well the unfolded spectrum, folded again, fits the data, and the p-value of toys."""
    above_floor, cells = arrays["refolding"]
    if "refolding_toys" not in arrays:
        return words("refolding_without_toys", chi2=above_floor, cells=cells), None
    names = ("chi2", "cells", "expected", "spread", "p")
    values = dict(zip(names, arrays["refolding_toys"].tolist(), strict=True))
    bad = values["p"] < SUSPICIOUS
    return words("refolding", bad=bad, above_floor=above_floor, **values), values["p"]


def pairs_section(
    hists: PairHists,
    subtracted: Spectrum,
    arrays: Arrays,
    cutflow: Arrays,
    *,
    mock: bool,
    notes: Sequence[str] = (),
) -> Section:
    """Return mass spectra before and after the subtraction, and the cutflow."""
    os, pp, mm = (float(h.values().sum()) for h in (hists.os, hists.pp, hists.mm))
    r_factor, sigma = arrays["r_factor"]
    left = np.asarray(hists.os.values(), dtype=np.float64) - arrays["like_sign"]
    like = replace(subtracted, hist=filled(tuple(hists.os.axes), left, np.diag(subtracted.cov)))
    background = float(arrays["like_sign"].sum())
    share = background / os if os > 0 else float("nan")
    numbers = {"pairs +-": f"{os:.0f}", "pairs ++": f"{pp:.0f}", "pairs --": f"{mm:.0f}"}
    numbers["combinatorial background"] = f"{background:.0f} ({100 * share:.1f} % of +-)"
    values = {"r": r_factor, "sigma": sigma, "background": background, "os": os, "pp": pp, "mm": mm}
    text = [words("pairs", n_negative=int(arrays["n_negative"]), **values)]
    ratio, error = arrays["control"]
    if np.isfinite(ratio):
        numbers["control region, +- over background"] = f"{ratio:.3f} ± {error:.3f}"
        text.append(words("control", ratio=ratio, error=error, departs=abs(ratio - 1) > 3 * error))
    charm = None
    if "charm_fit" in arrays:
        n, error, chi2, ndf = arrays["charm_fit"]
        charm = (arrays["charm_mass"], arrays["charm_mass_sigma"])
        numbers["open charm, fitted"] = f"{n:.0f} ± {error:.0f} pairs"
        text.append(words("charm", n=n, error=error, chi2=chi2, ndf=ndf))
    caption = "Pair mass: opposite sign, like sign, estimated background with the band of R, the difference"
    caption += ", and open charm." if charm else "."
    spectra = figures.subtraction_figure(hists, like, mock=mock, r_factor_sigma=sigma / r_factor, charm=charm)
    lost = str(cutflow.get("cutflow_lost", ""))
    headings = {"name": "step", "n": "left", "weight": "sum of weights", "os": "+−", "pp": "++", "mm": "−−"}
    steps = {heading: cutflow[f"cutflow_{key}"].tolist() for key, heading in headings.items()}
    flow = Table(steps, caption="Cutflow: events, then leptons, then pairs.")
    return Section(
        "Pairs and what is subtracted",
        [*text, *notes],
        figures=[titled("mass_spectra", caption, spectra)],
        tables=[flow, *_removed(arrays)],
        numbers=numbers,
        warnings=[f"Alarm: {lost}."] if lost else [],
    )


def sample_notes(
    limit: int | None,
    cutflow: Arrays,
    arrays: Arrays,
    *,
    pairs: tuple[int, float],
    photons: tuple[int, int, float] | None = None,
) -> list[str]:
    """Return which stages worked with a sample because there was more than the memory was to hold."""
    text = []
    if "stored_pairs" in cutflow:
        share = {"n_all": int(cutflow["stored_pairs"]), "share": float(cutflow["stored_share"])}
        text.append(words("pair_sample", limit=limit, n=pairs[0], effective=pairs[1], **share))
    if "mixed_leptons" in arrays:
        text.append(words("mixed_sample", limit=limit, n=int(arrays["mixed_leptons"])))
    if photons is not None:
        n_all, n, part = photons
        text.append(words("photon_sample", limit=limit, n_all=n_all, n=n, share=part))
    return text


def _removed(arrays: Arrays) -> list[Table]:
    """Return the table of what was taken out besides the combinatorial background."""
    if not len(arrays["removed_names"]):
        return []
    columns = {
        "source": arrays["removed_names"].tolist(),
        "pairs": [f"{amount:.1f} ± {sigma:.1f}" for amount, sigma, _ in arrays["removed"]],
        "of the yield [%]": [f"{100 * fraction:.2f}" for _, _, fraction in arrays["removed"]],
        "reference": arrays["removed_sources"].tolist(),
    }
    return [Table(columns, caption="Removed pairs that are no single virtual photon.")]


def _density(arrays: Arrays) -> tuple[list[str], dict[str, str]]:
    """Return what the test of the density says, p-value, power and shifts, and its numbers."""
    if "density_p" not in arrays:
        return ["The density was not tested against the measured pairs: there are too few."], {}
    p, within = arrays["density_p"]
    size, (significance, power) = arrays["density_size"][1], arrays["density_level"]
    shifts, least = [], []
    rows = zip(("energies", "q_T"), arrays["density_shift"], arrays["density_smallest"], strict=True)
    for name, (shift, error, band), smallest in rows:
        of_band = "" if np.isnan(band) else f", band {100 * band:.2g}"
        shifts.append(f"{name} {100 * shift:+.2f} ± {100 * error:.2f} %{of_band}")
        least.append(f"{100 * smallest:.2g} % in all {name}")
    in_band = "" if np.isnan(within) else f", {within:.2g} within the band of its replicas"
    numbers = {"flow against its pairs, p-value": f"{p:.2g}{in_band}"}
    numbers[f"shifts of the flow found with {100 * power:.0f} %"] = ", ".join(least)
    found = {"shifts": shifts, "smallest": least, "power": power, "significance": significance}
    return [words("density", size=size, p=p, in_band=in_band, **found)], numbers


def _slices(arrays: Arrays) -> list[Table]:
    """Return the table of the density in slices of mass: an average over masses hides what a slice shows."""
    if not len(arrays.get("slice_mass", ())):
        return []
    columns = {
        "mass [GeV]": [f"{low:.3f} to {high:.3f}" for low, high in arrays["slice_mass"]],
        "pairs (effective)": [f"{size:.0f}" for _, size in arrays["slice_p"]],
        "p-value": [f"{p:.2g}" for p, _ in arrays["slice_p"]],
    }
    for k, name in enumerate(("E", "q_T")):
        shift, error, band, smallest = 100.0 * arrays["slice_shift"][:, k].T
        total = np.hypot(error, np.nan_to_num(band))
        moved = zip(shift, total, strict=True)
        columns[f"{name} of pairs over flow [%]"] = [f"{s:+.1f} ± {e:.1f}" for s, e in moved]
        columns[f"{name} found from [%]"] = [f"{one:.2g}" for one in smallest]
    significance, power = arrays["density_level"]
    return [Table(columns, caption=words("slices", power=power, significance=significance))]


def _windows(arrays: Arrays, among: str, *, mock: bool) -> tuple[list[tuple[str, Any]], str]:
    """Return the figure of the divergence in windows of mass, if it was computed, and what it says."""
    if "kl_tested" not in arrays:
        return [], "The flow was not checked in windows of mass: none holds enough pairs ([flow] window)."
    tested, inside = arrays["kl_tested"], arrays["kl_inside"]
    caption = "Divergence of flow and pairs in windows of mass, over that of the pairs with themselves. "
    caption += f"Dotted: 95 % band of draws of the flow{among}."
    curves = (arrays[name][tested] for name in ("kl_mass", "kl_model", "kl_data"))
    figure = kinematics.kl_figure(*curves, mock=mock, model_error=arrays["kl_error"][tested])
    text = words("windows", inside=int(inside[tested].sum()), tested=int(tested.sum()))
    return [titled("flow_divergence", caption, figure)], text


def flow_section(check: FlowCheck, *, mock: bool) -> Section:
    """Return the flow against its training pairs, the divergence per window, the losses."""
    arrays, members = check.kept, check.members
    band = f" Band: spread of {len(check.losses)} bootstrap replicas." if check.losses else ""
    among = "" if members is None else " and of replicas"
    divergence, windows = _windows(arrays, among, mock=mock)
    tested_text, numbers = _density(arrays)
    poor = "density_p" in arrays and float(np.nanmax(arrays["density_p"])) < SUSPICIOUS
    text = words("trained", n=int(arrays["n_pairs"]), effective=float(arrays["effective_size"]))
    losses = arrays["train_loss"].tolist(), arrays["validation_loss"].tolist()
    best = int(arrays["best_epoch"])
    training = kinematics.training_figure(*losses, mock=mock, best_epoch=best, members=check.losses)
    caption = "Loss per epoch." + (band and f"{band} Each replica is moved to the same lowest value.")
    return Section(
        "Kinematics: the flow",
        [text] if poor else [text, *tested_text],
        figures=[
            *_at_masses(check, band, mock=mock),
            *divergence,
            titled("flow_training", caption, training),
        ],
        tables=_slices(arrays),
        numbers=numbers,
        methods=FLOW_METHODS,
        warnings=tested_text if poor else (),
        shown=1,
        notes=[windows],
    )


def _at_masses(check: FlowCheck, band: str, *, mock: bool) -> list[tuple[str, Any]]:
    """Return pairs and flow at fixed masses, projected and in the plane; nothing without masses."""
    masses, half, data, drawn, members = check.masses, check.half, check.data, check.drawn, check.members
    if not masses:
        return []
    bands = None if members is None else {"flow": members}
    options: Any = {"mock": mock, "window": half, "members": bands}
    projections = kinematics.flow_vs_data(masses, data, {"flow": drawn}, **options)
    plane = kinematics.flow_plane(masses, data, drawn, mock=mock, window=half, members=members)
    first = "Transverse momentum and energy at fixed mass: pairs before acceptance, and the flow." + band
    second = "The same in the plane, with pulls from statistical errors alone"
    second += "." if members is None else " and the spread of the replicas."
    return [titled("flow_projections", first, projections), titled("flow_plane", second, plane)]
