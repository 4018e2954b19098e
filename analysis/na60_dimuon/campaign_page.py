"""The page of the pseudo-experiments in the documentation, written from the kept campaigns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import campaign_report as found
import numpy as np
from campaign_sets import finite, hotelling, mean_of, over_scatter, sets, table
from campaign_truth import LIMIT, PAIRS, Truth
from matplotlib.figure import Figure

from gammastar import report
from gammastar.core.records import FloatArray
from gammastar.report.style import COLOURS, MASS_DARK, mark_mock, new_figure, styled

__all__ = ["write_page"]

ROOT = Path(__file__).resolve().parents[2]
LABELS = {
    "coverage_lower_measured": "lower edge, measured domain",
    "coverage_upper_measured": "upper edge, measured domain",
    "coverage_lower_all": "lower edge, all signal",
    "coverage_upper_all": "upper edge, all signal",
}
MEANINGS = {
    "no background": "no combinatorial pairs in the data",
    "R = 1": "R taken as one instead of that of the simulation",
    "charm left in": "open charm in the data, not subtracted",
    "charm subtracted": "open charm in the data, subtracted with an error of 20 %",
    "resolution +10 %": "momentum resolution of the simulation 10 % too wide",
    "polarisation 0.3": "λθ = 0.3 of the vector mesons in the data, simulation unpolarised",
    "same prior": "the simulation has the prior of the data",
    "not tuned": "the simulation is not reweighted to the data",
    "more simulation": "four times the simulated events",
    "not debiased": "the bias of the finite simulation stays in",
}
BAND = 0.05  # of the width of the pulls around one
TEXT = """# Pseudo-experiments

Written by `python3 analysis/na60_dimuon/campaigns.py`; everything is MOCK.

A campaign writes {pairs:,} muon pairs and a simulation as ntuples, reads them, subtracts, unfolds and
predicts dark photons in a SHiP-like detector. The simulation of every campaign has a prior of its own:
slopes of p_T, widths of rapidity and yields of the sources are thrown around those of the data, with the
card's prior "varied" as one standard deviation each. Before it makes the response it is tuned to the
data: yields by a fit of the measured mass spectrum, then p_T and energy. The error of the rate holds the
statistics of data and simulation and half the shift that the tuning made. The bias of the finite simulation
is subtracted as its bootstraps show it, unless the set is called "not debiased".

A cell counts as measured with an efficiency of at least 2 % and {fewest:.0f} expected pairs: with fewer, an
error that is estimated from the same few pairs covers too little, and that is what the upper edge rides on.

An interval of an edge goes from s − σ to s + σ = limit ({limit:.3f} events). σ is the error of the
expected events s at the same coupling: the covariance of the cells with the acceptance of each cell, so
rate and kinematics together. With all signal it also holds the shift of what lies outside the measured
domain under each parameter of the simulation, moved by one standard deviation down and up. Both count by
themselves: below 0.4 GeV nearly all of the signal is outside, and a slope of p_T that is 12 % smaller
adds more to it than one that is 12 % larger takes away.

## Nominal campaigns

{table}

![Pulls of the rate, coverage of the edges, correlation between masses](figures/pseudo_experiments.png)

### Mass by mass

{verdict}

{masses}

### Biases and mean pulls

A mean pull is not a bias. An error that is estimated from the same pairs is small where the rate came out
low, so mean pulls lie below the bias, by cov(rate, σ)/⟨σ⟩² to first order: the column "of it by errors". The
bias itself is the mean of rate less truth over the scatter of the campaigns, without estimated errors.

{sets}

A simulation of eight times the pairs of the data moves the mean of the rate, since migration and efficiency
stand in denominators. {finite}

### Biases from statistics alone

Toys in which nothing but statistics can move the rate: data are drawn from simulated pairs, whose prior so
is the truth, R is exact, and the response is that of all of them, three million generated. A campaign has
six iterations, and so have toys that do not say otherwise. Bias over scatter:

{toys}

{compared}

One iteration is linear in the data, more are not: with the exact response toys have no bias that is seen
after two iterations and some after six, the largest just above the φ.

## Systematic impacts

Mean shift of log₁₀ ε of both edges (signal of the measured domain) and of the rate against nominal
campaigns of the same seeds, with its standard error, and the largest mean shift of a mass.{other}

{impacts}
"""


def write_page(
    known: Truth,
    base: list[dict[str, Any]],
    results: dict[str, list[dict[str, Any]]],
    toys: dict[str, Any],
    n_pairs: int,
) -> None:
    """Write ``docs/pseudo_experiments.md`` and its figure.

    `base` are the nominal campaigns; those of `results` are compared with each other, and may be older.
    `toys` are rate less truth and its error with nothing but statistics, shape (2, n, n_measured) each.
    """
    row, columns = found.summary("nominal", base, known), found.per_mass(base, known)
    offsets, errors = found.rates(base, known)
    pulls, estimated = offsets / errors, found.correlation(base, known)[1]
    mass, follows = np.array(columns["mass"]), np.mean(columns["follows"])
    coverage = {label: np.array(columns[key]) for key, label in LABELS.items()}
    figure = pull_figure(mass, pulls, coverage, estimated, mock=True)
    (ROOT / "docs" / "figures" / "pseudo_experiments.png").write_bytes(report.png_bytes(figure, dpi=110))
    rows = [
        ("campaigns × masses", f"{row['n']} × {len(mass)}", ""),
        ("bias of the rate over its scatter", mean_of(offsets / offsets.std(axis=0, ddof=1)), "0"),
        ("mean pull of the rate", mean_of(pulls), f"{follows:+.3f} without a bias, see below"),
        ("width of the pulls", f"{row['pull width']:.3f} ± {row['pull width error']:.3f}", "1"),
    ]
    for key, label in LABELS.items():
        name = key.replace("coverage_", "coverage ").replace("_", ", ")
        rows.append((f"coverage of ±1σ, {label}", f"{row[name]:.3f} ± {row[f'{name}, error']:.3f}", "0.683"))
    for part in ("measured", "all"):
        shift = " / ".join(f"{row[f'shift log10 {side}, {part}']:+.4f}" for side in found.SIDES)
        rows.append((f"mean shift of log₁₀ ε, lower / upper, {part}", shift, "0"))
    page = TEXT.format(
        pairs=n_pairs,
        fewest=PAIRS,
        limit=LIMIT,
        table=table(("", "found", "expected"), rows),
        verdict=_verdict(columns, row["n"]) + _together(pulls, "mean pulls") + _together(offsets, "biases"),
        masses=_masses(columns, row["n"]),
        sets=sets({"nominal": base} | results, known),
        finite=finite(base, results, known),
        toys=_toys(columns["mass"], offsets, toys),
        compared=_compared(offsets, toys),
        other=_other(base, results["nominal"], known),
        impacts=_impacts(results["nominal"], results, known),
    )
    (ROOT / "docs" / "pseudo_experiments.md").write_text(page, encoding="utf-8")


def _other(base: list[dict[str, Any]], compared: list[dict[str, Any]], known: Truth) -> str:
    """Return where the compared campaigns come from, if they are others."""
    if compared is base:
        return ""
    old = found.summary("nominal", compared, known)
    return (
        "\nThey come from an earlier set with other random numbers of the mock, whose "
        f"{old['n']} nominal campaigns gave a width\n"
        f"of {old['pull width']:.3f} ± {old['pull width error']:.3f} "
        f"and a mean pull of {old['pull mean']:+.3f} ± {old['pull mean error']:.3f}."
    )


def _masses(columns: dict[str, Any], n: int) -> str:
    rows = []
    for i, mass in enumerate(columns["mass"]):
        cells = [
            f"{mass:.4f}",
            f"{columns['bias'][i]:+.2f} ± {1 / np.sqrt(n):.2f}",
            f"{columns['pull_mean'][i]:+.2f} ± {columns['pull_width'][i] / np.sqrt(n):.2f}",
            f"{columns['follows'][i]:+.2f}",
            f"{columns['pull_width'][i]:.2f} ± {columns['pull_width_error'][i]:.2f}",
        ]
        rows.append((*cells, *(f"{columns[key][i]:.2f}" for key in LABELS)))
    names = (
        "mass [GeV]",
        "bias / scatter",
        "mean pull",
        "of it by errors",
        "width of the pulls",
        *(f"covered: {v}" for v in LABELS.values()),
    )
    return table(names, rows)


def _verdict(columns: dict[str, Any], n: int) -> str:
    """Return how widths and means of the masses compare with one and zero, and χ² of both."""
    width, error = np.array(columns["pull_width"]), np.array(columns["pull_width_error"])
    mean, mean_error = np.array(columns["pull_mean"]), width / np.sqrt(n)
    beyond = np.maximum(np.abs(width - 1.0) - BAND, 0.0) / error
    text = (
        f"The width lies within {1 - BAND} to {1 + BAND} and one standard error at {np.sum(beyond <= 1)} of "
        f"{len(width)} masses, and\nwithin two at {np.sum(beyond <= 2)}. χ² of the widths about one is "
        f"{np.sum(((width - 1.0) / error) ** 2):.1f}, of the mean pulls about zero\n"
        f"{np.sum((mean / mean_error) ** 2):.1f}, for {len(width)} masses."
    )
    for what, far, value, sigma in (
        ("Widths farther off", beyond > 2, width, error),
        ("Mean pulls of more than three standard errors", np.abs(mean) > 3 * mean_error, mean, mean_error),
    ):
        names = [
            f"{columns['mass'][i]:.4f} GeV ({value[i]:.2f} ± {sigma[i]:.2f}; bias {columns['bias'][i]:+.2f})"
            for i in np.flatnonzero(far)
        ]
        text += f"\n{what}:\n{', '.join(names)}." if names else ""
    return text


def _together(values: Any, name: str) -> str:
    n, k = values.shape
    if n <= k + 1:
        return ""
    squared, chance = hotelling(values)
    return (
        f"\nWith the correlation between masses χ² of the {name} is {squared:.1f}: "
        f"a larger one has a probability of {chance:.1g} (Hotelling)."
    )


def _toys(masses: list[float], offsets: Any, toys: dict[str, Any]) -> str:
    """Return biases of campaigns and toys, mass by mass."""
    columns = {"campaigns": offsets} | {name: rows[0] for name, rows in toys.items()}
    rows = []
    for i, mass in enumerate(masses):
        cells = [f"{found.bias(x)[i]:+.2f} ± {1 / np.sqrt(len(x)):.2f}" for x in columns.values()]
        rows.append((f"{mass:.4f}", *cells))
    return table(("mass [GeV]", *(f"{name} ({len(values)})" for name, values in columns.items())), rows)


def _compared(offsets: Any, toys: dict[str, Any]) -> str:
    """Return χ² of the biases and mean pulls of toys, and of the campaigns' biases less those of the toys."""
    n, k = offsets.shape
    lines = []
    for name, (rows, errors) in toys.items():
        alone = (hotelling(rows)[0], hotelling(rows / errors)[0])
        ours, theirs = (values / values.std(axis=0) for values in (offsets, rows))
        rest = ours.mean(axis=0) - theirs.mean(axis=0)
        left = rest @ np.linalg.solve(np.cov(theirs.T) / len(rows) + np.cov(ours.T) / n, rest)
        tests = (f"{value:.1f}" for value in (*alone, left))
        lines.append((name, *tests, over_scatter(rows, errors)))
    names = (
        "toys",
        f"χ² of their biases ({k} masses)",
        "of their mean pulls",
        "of the campaigns less the toys",
        "mean error / scatter",
    )
    return table(names, lines)


def _impacts(base: list[dict[str, Any]], results: dict[str, list[dict[str, Any]]], known: Truth) -> str:
    rows = []
    for name, others in results.items():
        if name == "nominal" or len(others) < 2:
            continue
        row = found.impacts(base, others, known)
        cells = [name, MEANINGS[name], f"{row['n']:.0f}"]
        cells += [
            f"{row[side]:+.4f} ± {row[f'{side} error']:.4f} ({row[f'{side} largest']:.3f})"
            for side in found.SIDES
        ]
        rows.append((*cells, f"{100 * row['rate']:+.1f} %"))
    names = ("variant", "what changes", "n", "lower edge (largest)", "upper edge (largest)", "rate")
    return table(names, rows)


ONE_SIGMA = 0.6827


@styled
def pull_figure(
    mass: FloatArray,
    pulls: FloatArray,
    coverage: Mapping[str, FloatArray],
    estimated: FloatArray,
    *,
    mock: bool,
) -> Figure:
    """Draw mean and width of pulls and the coverage per mass, and their correlation between masses.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    pulls : NDArray, shape (k, n)
        One row per experiment.
    coverage : mapping of label to NDArray, shape (n,)
        Part of the experiments whose ±1σ interval holds the truth.
    estimated : NDArray, shape (n, n)
        Correlation that the experiments themselves give, in their mean.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure
        Panels: pulls; coverage, with the binomial error of one mass as a band; correlation found below the
        diagonal and estimated above it.
    """
    k = len(pulls)
    figure, axes = new_figure(3, size=(7.6, 11.0), heights=(1.0, 1.0, 1.7))
    ax = axes[0, 0]
    mean, width = pulls.mean(axis=0), pulls.std(axis=0, ddof=1)
    for value, error, level, name, colour in (
        (mean, 1 / np.sqrt(k), 0.0, "mean", COLOURS[0]),
        (width, 1 / np.sqrt(2 * (k - 1)), 1.0, "width", COLOURS[2]),
    ):
        ax.axhspan(level - error, level + error, color=colour, alpha=0.2, linewidth=0)
        ax.plot(mass, value, "o", color=colour, label=name)
    ax.set(ylim=(-1.0, 2.2), ylabel="pull of the rate")
    ax.legend(ncols=2, loc="upper right")
    mark_mock(ax, mock)
    ax = axes[1, 0]
    error = np.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / k)
    ax.axhspan(ONE_SIGMA - error, ONE_SIGMA + error, color="0.85", linewidth=0)
    ax.axhline(ONE_SIGMA, color="0.4", linewidth=1)
    for i, (name, values) in enumerate(coverage.items()):
        ax.plot(mass, values, "os^v"[i % 4], color=COLOURS[i % len(COLOURS)], label=name, markersize=5)
    ax.set(ylim=(0.3, 1.25), ylabel=r"coverage of $\pm1\sigma$", xlabel=MASS_DARK)
    ax.legend(ncols=2, loc="upper right", fontsize=11)
    ax = axes[2, 0]
    found = np.corrcoef(pulls.T)
    both = np.where(np.triu(np.ones_like(found), 1) > 0, found, estimated)
    edge = [mass[0], mass[-1]]
    mesh = ax.pcolormesh(mass, mass, both, vmin=-1, vmax=1, cmap="RdBu_r", shading="nearest")
    ax.plot(edge, edge, color="0.3", linewidth=0.8)
    figure.colorbar(mesh, ax=ax, label="correlation of the pulls")
    ax.set(xlabel=MASS_DARK, ylabel=MASS_DARK, aspect="equal")
    ax.set_title("below the diagonal: found; above: estimated", loc="left", fontsize=12)
    return figure
