"""Figures of the measured half: pairs, response, unfolding, spectrum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from gammastar.core.errors import require
from gammastar.core.records import (
    ENERGY,
    LABELS,
    MASS,
    BoolArray,
    FloatArray,
    PairHists,
    Response,
    Spectrum,
    filled,
)
from gammastar.report import style
from gammastar.report.pages import Table
from gammastar.report.style import COLOURS, GREY, LINES, checked, divided, points, steps, styled

BIAS = 0.25  # σ that a regularisation may cost


def mass_migration(response: Response, migration: FloatArray | None = None) -> FloatArray:
    """Project a response on the mass: P(reconstructed mass bin | true mass bin)."""
    matrix = response.migration if migration is None else migration
    reco, true = _mass_bins(response.reco), _mass_bins(response.true) * response.prior[:, None]
    return divided(reco.T @ matrix @ true, true.sum(axis=0))


def _mass_bins(axes: tuple[Any, ...]) -> FloatArray:
    """Return one where a cell, in C order, belongs to a mass bin, shape (cells, bins)."""
    names, shape = [axis.name for axis in axes], tuple(len(axis) for axis in axes)
    require(MASS in names, f"report: the response has the axes {names}, one named {MASS!r} is needed")
    k = names.index(MASS)
    return np.asarray(np.eye(shape[k])[np.indices(shape)[k].ravel()])


def _mass_edges(axes: tuple[Any, ...]) -> FloatArray:
    return np.asarray(next(axis.edges for axis in axes if axis.name == MASS), dtype=np.float64)


def _two_panels(ratio: bool, size: tuple[float, float], heights: tuple[float, float]) -> tuple[Figure, Any]:
    """Return a figure and its axes, the second panel below for a ratio."""
    shown = heights[: 1 + ratio]
    figure, axes = style.new_figure(len(shown), size=size, heights=shown, share_x=True)
    return figure, axes[:, 0]


@styled
def efficiency_figure(response: Response, *, mock: bool) -> Figure:
    """Draw acceptance times efficiency, and what stays in its bin, against the mass."""
    matrix = mass_migration(response)
    edges = _mass_edges(response.true)
    efficiency = matrix.sum(axis=0)
    replicas = response.cov_replicas
    spread = np.zeros_like(efficiency)
    if len(replicas) > 1:
        spread = mass_migration(response, replicas).sum(axis=-2).std(axis=0, ddof=1)
    same = np.array_equal(edges, _mass_edges(response.reco))
    figure, axes = _two_panels(same, (7.2, 5.8), (2.2, 1.0))
    ax = axes[0]
    points(ax, edges, efficiency, spread, color=COLOURS[0], label="simulation, averaged with its spectrum")
    top = float(np.nanmax(efficiency)) if np.isfinite(efficiency).any() else 1.0
    ax.set_ylim(0.0, 1.35 * top if top > 0 else 1.0)
    ax.set_ylabel(r"acceptance $\times$ efficiency")
    ax.legend(loc="upper right")
    if same:
        stays = divided(np.diagonal(matrix), efficiency)
        steps(axes[1], edges, np.nan_to_num(stays), color=COLOURS[3], linewidth=1.6)
        axes[1].set_ylim(0.0, 1.05)
        axes[1].set_ylabel("stays in bin", loc="center")
    axes[-1].set(xlabel="true " + LABELS[MASS], xlim=edges[[0, -1]])
    return figure


@styled
def migration_matrix(response: Response, *, mock: bool) -> Figure:
    """Draw the probability of a reconstructed mass given the true mass, for reconstructed pairs."""
    matrix = mass_migration(response)
    shape = divided(matrix, np.broadcast_to(matrix.sum(axis=0), matrix.shape))
    figure, ax = style.single(size=(6.9, 5.6))
    reco, true = _mass_edges(response.reco), _mass_edges(response.true)
    shown = np.ma.masked_less(np.nan_to_num(shape), 1e-4)
    mesh = ax.pcolormesh(true, reco, shown, cmap="cividis_r", norm=LogNorm(1e-4, 1.0), rasterized=True)
    figure.colorbar(mesh, ax=ax, pad=0.02).set_label("P(reconstructed bin | true bin, reconstructed)")
    ax.set(xlabel="true " + LABELS[MASS], ylabel="reconstructed " + LABELS[MASS])
    ax.set(xlim=true[[0, -1]], ylim=reco[[0, -1]])
    return figure


@styled
def correlation_matrix(cov: FloatArray, edges: FloatArray | None = None, *, mock: bool) -> Figure:
    """Draw the correlations of a covariance matrix."""
    n = len(cov)
    cov = checked("cov", cov, (n, n))
    sigma = np.sqrt(np.clip(np.diag(cov), 0.0, None))
    correlation = divided(cov, np.outer(sigma, sigma))
    ticks = np.arange(n + 1, dtype=np.float64) if edges is None else checked("edges", edges, (n + 1,))
    figure, ax = style.single(size=(6.6, 5.6))
    ax.set_facecolor("0.85")
    mesh = ax.pcolormesh(ticks, ticks, correlation, cmap="RdBu_r", vmin=-1.0, vmax=1.0, rasterized=True)
    figure.colorbar(mesh, ax=ax, pad=0.02).set_label("correlation coefficient")
    label, ends = "cell" if edges is None else LABELS[MASS], ticks[[0, -1]]
    ax.set(xlabel=label, ylabel=label, aspect="equal", xlim=ends, ylim=ends)
    ax.set_yticks([tick for tick in ax.get_xticks() if ends[0] <= tick <= ends[1]])
    return figure


def mass_projection(spectrum: Spectrum) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Sum a spectrum over all axes but the mass, with its full covariance."""
    names = [axis.name for axis in spectrum.hist.axes]
    require(MASS in names, f"report: the spectrum has the axes {names}, one named {MASS!r} is needed")
    projected = spectrum.project(MASS)
    return _mass_edges(tuple(projected.hist.axes)), projected.values, projected.cov


@styled
def unfolded_spectrum(
    edges: FloatArray,
    values: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    references: Mapping[str, FloatArray] | None = None,
    measured: BoolArray | None = None,
) -> Figure:
    """Draw an unfolded mass spectrum, divided by the bin width."""
    n = len(edges) - 1
    values, errors = checked("values", values, (n,)), checked("errors", errors, (n,))
    inside = np.ones(n, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
    width = np.diff(edges)
    curves = {label: checked(label, array, (n,)) for label, array in (references or {}).items()}
    figure, axes = _two_panels(bool(curves), (7.2, 6.6 if curves else 5.6), (3.2, 1.0))
    ax = axes[0]
    style.band(ax, edges, values / width, errors / width, label="uncertainty")
    for (label, array), colour, line in zip(
        curves.items(), cycle(COLOURS[2:] + COLOURS[:2]), cycle(LINES), strict=False
    ):
        steps(ax, edges, array / width, color=colour, linestyle=line, label=label)
    none, shown = np.zeros(n), values / width
    points(ax, edges, np.where(inside, shown, np.nan), none, label="unfolded", markersize=3.5)
    if not inside.all():
        look: dict[str, Any] = {"mfc": "white", "color": "0.45", "label": "extrapolated", "markersize": 3.5}
        points(ax, edges, np.where(inside, np.nan, shown), none, **look)
        _hatch_outside(ax, edges, inside)
    style.log_range(ax, shown, *(array / width for array in curves.values()), rows=3)
    ax.set_ylabel(r"$dN_{\gamma^\ast}/dm$ per POT [GeV$^{-1}$]")
    ax.legend(loc="upper right")
    if curves:
        label, reference = next(iter(curves.items()))
        _ratio_panel(axes[1], edges, divided(values, reference), divided(errors, reference), inside)
        axes[1].set_ylabel(f"unf. / {label}", loc="center", fontsize=12)
    axes[-1].set(xlabel=LABELS[MASS], xlim=edges[[0, -1]])
    return figure


def _hatch_outside(ax: Axes, edges: FloatArray, inside: BoolArray) -> None:
    for low, high in zip(edges[:-1][~inside], edges[1:][~inside], strict=True):
        ax.axvspan(low, high, facecolor="none", edgecolor=GREY, hatch="///", linewidth=0, zorder=0)


def _ratio_panel(
    ax: Axes, edges: FloatArray, ratio: FloatArray, error: FloatArray, inside: BoolArray
) -> None:
    style.band(ax, edges, ratio, error)
    points(ax, edges, ratio, np.zeros_like(ratio), markersize=3)
    ax.axhline(1.0, color=COLOURS[2], linewidth=1.2)
    _hatch_outside(ax, edges, inside)
    spread = float(np.nanquantile(np.abs(ratio - 1) + error, 0.9)) if np.isfinite(ratio).any() else 0.5
    half = min(max(1.3 * spread, 0.1), 1.0)
    ax.set_ylim(1 - half, 1 + half)


@styled
def subtraction_figure(
    hists: PairHists,
    subtracted: Spectrum,
    *,
    mock: bool,
    r_factor_sigma: float | FloatArray = 0.0,
    charm: tuple[FloatArray, FloatArray] | None = None,
) -> Figure:
    """Draw opposite-sign, like-sign and subtracted pairs with the band of R and open charm."""
    edges, signal, cov = mass_projection(subtracted)
    total, pp, mm = (np.asarray(h.project(MASS).values(), np.float64) for h in (hists.os, hists.pp, hists.mm))
    background = checked("background", total - signal, signal.shape)
    error = np.abs(background) * np.broadcast_to(np.asarray(r_factor_sigma, dtype=np.float64), signal.shape)
    figure, (ax, low) = _two_panels(True, (7.2, 6.4), (3.0, 1.0))
    steps(ax, edges, total, color="black", label="$N_{+-}$")
    for name, like, line in (("$N_{++}$", pp, "--"), ("$N_{--}$", mm, ":")):
        steps(ax, edges, like, color=COLOURS[4], linestyle=line, linewidth=1.4, label=name)
    steps(ax, edges, background, color=COLOURS[0], label="like-sign background")
    style.band(ax, edges, background, error, label=r"$\pm\sigma(R)$")
    points(ax, edges, signal, np.sqrt(np.diag(cov)), color=COLOURS[2], label="subtracted")
    shown = [total, background, signal]
    style.band(low, edges, divided(background, total), divided(error, total))
    steps(low, edges, np.nan_to_num(divided(background, total)), color=COLOURS[0])
    if charm is not None:
        value, sigma = (checked("charm", part, signal.shape) for part in charm)
        look = {"color": COLOURS[3], "linestyle": "-."}
        steps(ax, edges, value, label="open charm (fit)", **look)
        style.band(ax, edges, value, sigma, color=COLOURS[3])
        style.band(low, edges, divided(value, total), divided(sigma, total), color=COLOURS[3])
        steps(low, edges, np.nan_to_num(divided(value, total)), **look)
        shown.append(value)
    style.log_range(ax, *shown, decades=4.0, rows=4)
    ax.set_ylabel("pairs per bin")
    ax.legend(loc="upper right", ncols=2)
    low.set(ylabel="over $N_{+-}$", xlabel=LABELS[MASS], xlim=edges[[0, -1]], ylim=(0, None))
    return figure


@dataclass(frozen=True, slots=True)
class RegularisationPoint:
    """One strength of the regularisation, e.g. from ``unfold.scan``."""

    strength: float  # Number of iterations or τ
    # Refolding χ² per cell, mean global correlation, mean relative error, largest stress bias in σ
    chi2_ndf: float
    correlation: float
    error: float
    bias: float


@styled
def scan_figure(
    scan: Sequence[RegularisationPoint], *, mock: bool, chosen: float | None = None, label: str = "iterations"
) -> Figure:
    """Draw what a scan of the regularisation found."""
    x, chi2, correlation, error, bias = np.array([astuple(point) for point in scan]).T
    figure, axes = _two_panels(True, (7.2, 6.4), (1.0, 1.0))
    panels = (
        {r"refolding $\chi^2$ / cells": chi2, r"stress bias [$\sigma$]": bias},
        {"mean global correlation": correlation, "mean relative error": error},
    )
    for ax, curves, least in zip(axes, panels, (BIAS, 1e-3), strict=True):  # without smearing all are zero
        for (name, y), colour, line, marker in zip(curves.items(), COLOURS[::2], LINES, "os", strict=False):
            ax.plot(x, y, color=colour, linestyle=line, marker=marker, markersize=5, label=name)
        pooled = np.concatenate(list(curves.values()))
        ax.set_ylim(0, 1.45 * float(pooled[np.isfinite(pooled)].max(initial=least)))
        if chosen is not None:
            ax.axvline(chosen, color="0.35", linewidth=1.2, linestyle=":", label=f"chosen: {chosen:g}")
        ax.set_xscale("log")
        ax.legend(loc="upper right", ncols=3, fontsize=11)
    axes[0].axhline(BIAS, color=COLOURS[2], linewidth=0.9, linestyle=":")
    axes[0].text(x[0], 1.08 * BIAS, rf"limit of the bias, {BIAS:g} $\sigma$", color=COLOURS[2], fontsize=10)
    axes[1].set_xlabel(label)
    axes[1].set_xticks(x, [f"{value:g}" for value in x])
    axes[1].minorticks_off()
    return figure


@styled
def refolded_spectrum(
    measured: Spectrum,
    folded: FloatArray,
    chi2: tuple[float, int],
    *,
    mock: bool,
    p_value: float | None = None,
) -> Figure:
    """Draw the measured spectrum and the unfolded one folded again, without cells that are nan there."""
    use = np.isfinite(folded)
    cells = np.where(use, measured.values.ravel(), 0.0).reshape(measured.values.shape)
    cov = np.where(np.outer(use, use), measured.cov, 0.0)
    counted = replace(measured, hist=filled(tuple(measured.hist.axes), cells, np.diag(cov)), cov=cov)
    edges, values, cov = mass_projection(counted)
    again = np.where(use, folded, 0.0) @ _mass_bins(tuple(measured.hist.axes))
    sigma = np.sqrt(np.diag(cov))
    figure, (ax, low) = _two_panels(True, (7.2, 6.0), (3.0, 1.0))
    steps(ax, edges, again, color=COLOURS[0], label="unfolded, folded again")
    points(ax, edges, values, sigma, label="measured, background subtracted")
    style.log_range(ax, values, again, decades=4.0, rows=3)
    title = rf"refolding: $\chi^2$ = {chi2[0]:.0f} for {chi2[1]} cells"
    title += "" if p_value is None else f"\nfrom toys: p = {p_value:.2g}"
    ax.legend(loc="upper right", title=title)
    ax.set_ylabel("pairs per bin")
    points(low, edges, divided(values - again, sigma), np.ones_like(sigma), markersize=3)
    low.axhline(0, color=COLOURS[0])
    low.set(ylabel=r"pull [$\sigma$]", xlabel="reconstructed " + LABELS[MASS])
    low.set(xlim=edges[[0, -1]], ylim=(-4.5, 4.5))
    return figure


@styled
def domain_map(response: Response, floor: float, *, mock: bool) -> Figure:
    """Draw the efficiency over mass and energy; cells below the floor are grey."""
    names = [axis.name for axis in response.true]
    keep = [names.index(name) for name in (ENERGY, MASS)]
    prior, seen = (
        np.moveaxis(cells.reshape([len(axis) for axis in response.true]), keep, (0, 1))
        for cells in (response.prior, response.prior * response.efficiency)
    )
    others = tuple(range(2, len(names)))
    content = divided(seen.sum(axis=others), prior.sum(axis=others))
    y, x = (np.asarray(response.true[i].edges) for i in keep)
    figure, ax = style.single(size=(7.0, 5.6))
    shown = np.ma.masked_where(np.nan_to_num(content) < floor, content)
    ax.set_facecolor(GREY)
    mesh = ax.pcolormesh(x, y, shown, cmap="cividis_r", vmin=0, rasterized=True)
    figure.colorbar(mesh, ax=ax, pad=0.02).set_label(r"acceptance $\times$ efficiency")
    ax.set(xlabel="true " + LABELS[MASS], ylabel="true " + LABELS[ENERGY], xlim=x[[0, -1]])
    if y[0] > 0 and y[-1] / y[0] > 20:
        ax.set_yscale("log")
    ax.set_title(f"grey: efficiency below {100 * floor:g} %, not measured", fontsize=12)
    return figure


def sources_table(rows: Sequence[tuple[str, float, float]], statistical: float, simulation: float) -> Table:
    """Return the table of systematic sources."""
    names = ["data statistics", "simulation statistics", *(name for name, _, _ in rows)]
    totals = [statistical, simulation, *(total for _, total, _ in rows)]
    cells = ["", "", *(f"{100 * mean:.1f}" for _, _, mean in rows)]
    everything = float(np.sqrt(np.sum(np.square(totals))))
    columns = {
        "source": [*names, "all, in quadrature"],
        "sum of the spectrum [%]": [*(f"{100 * x:+.1f}" for x in totals), f"{100 * everything:.1f}"],
        "mean of a cell [%]": [*cells, ""],
    }
    caption = "Uncertainties of the unfolded spectrum; the protons on target are one more, common to all."
    return Table(columns, caption=caption)
