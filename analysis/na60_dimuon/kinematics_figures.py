"""Figures of the study of learnt kinematics: regions of probability, sizes of samples, lifetimes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any, Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import NullFormatter
from scipy.ndimage import gaussian_filter, zoom

from gammastar.core.errors import PhysicsError
from gammastar.core.records import ENERGY, LABELS, MASS, PT, FloatArray
from gammastar.report.figures.kinematics import Kinematics
from gammastar.report.style import BAND68, BAND95, COLOURS, LINES, checked, mark_mock, new_figure, styled

__all__ = ["acceptance_curves", "difference_map", "flow_contours", "kl_size_figure", "phase_space_figure"]

_INKS = ("black", COLOURS[2], COLOURS[0], COLOURS[1])
_LINES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
_SMOOTH = 1.5  # bins
_FINER = 8  # a band may be narrower than a bin


@styled
def flow_contours(
    mass: float,
    samples: Mapping[str, Kinematics],
    *,
    mock: bool,
    levels: Sequence[float] = (0.683, 0.954),
    n_bins: int = 70,
    members: Mapping[str, FloatArray] | None = None,
) -> Figure:
    """Draw regions of given probability content in the plane of energy and q_T at one mass.

    Parameters
    ----------
    mass : float [GeV]
    samples : mapping of label to Kinematics
        For example a flow, the pairs, a theory; one colour each.
    mock : bool
    levels : sequence of float
        Probability contents, the inner region first.
    n_bins : int
        Bins along each axis (equal in ln E); the density d²N/(dE dq_T) is smoothed by one and a half of them.
    members : mapping of label to NDArray, shape (n_members, n), optional
        Weights of an ensemble's members on a sample; a band covers the contours of all of them.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PhysicsError
        If a sample is empty or its weights sum to nothing.

    Notes
    -----
    The form of Fig. 6 of Allison and Blinov (2025).
    """
    figure, axes = new_figure(size=(7.2, 5.6))
    ax = axes[0, 0]
    upper = [max(_reach(s[i], s[2]) for s in samples.values()) for i in (1, 0)]
    lowest = min(_reach(s[1], s[2], 0.002) for s in samples.values())
    # theory reaches to energies of the beam, where pairs are few: equal steps of ln E show both
    edges = [np.geomspace(0.9 * lowest, upper[0], n_bins + 1), np.linspace(0.0, upper[1], n_bins + 1)]
    centres = [np.sqrt(edges[0][1:] * edges[0][:-1]), 0.5 * (edges[1][1:] + edges[1][:-1])]
    handles: list[Artist] = []
    for (label, (pt, energy, weight)), colour in zip(samples.items(), _INKS, strict=False):
        content = _content(energy, pt, weight, edges)
        lines = {"linestyles": list(_LINES[: len(levels)]), "linewidths": 1.6}
        ax.contour(*centres, content.T, levels=levels, colors=colour, **lines)
        if members is not None and label in members:
            rows = np.array([_content(energy, pt, own * weight, edges) for own in members[label]])
            low, high = (zoom(part, _FINER, order=1) for part in (rows.min(axis=0), rows.max(axis=0)))
            fine = [np.interp(np.linspace(0, n_bins - 1, len(low)), np.arange(n_bins), x) for x in centres]
            for level in levels:  # inside for some members, outside for others
                beyond = np.maximum(low - level, level - high)
                ax.contourf(*fine, beyond.T, levels=[-2.0, 0.0], colors=[colour], alpha=0.25)
        handles.append(Line2D([], [], color=colour, label=label))
    for level, line in zip(levels, _LINES, strict=False):
        handles.append(Line2D([], [], color="0.4", linestyle=line, label=f"{100 * level:.3g} % of all"))
    if members:
        handles.append(Patch(facecolor="0.5", alpha=0.35, label="spread of the members"))
    ax.set(xscale="log", xlim=edges[0][[0, -1]], ylim=(0.0, 1.6 * upper[1]))
    ax.set(xlabel=LABELS[ENERGY], ylabel=LABELS[PT])
    ax.legend(handles=handles, title=f"$m$ = {mass:.3g} GeV", loc="upper right", fontsize=11)
    mark_mock(ax, mock)
    return figure


def _reach(values: FloatArray, weight: FloatArray, part: float = 0.985) -> float:
    order = np.argsort(values)
    running = np.cumsum(np.abs(weight[order]))
    if not running.size or not running[-1] > 0:
        msg = f"report: a sample of {running.size} particles has no weight; nothing can be drawn"
        raise PhysicsError(msg)
    return 1.02 * float(values[order][np.searchsorted(running, part * running[-1])])


def _content(
    energy: FloatArray, pt: FloatArray, weight: FloatArray, edges: Sequence[FloatArray]
) -> FloatArray:
    """Return for each cell the probability of the region where the density is higher."""
    counts, _, _ = np.histogram2d(energy, pt, bins=list(edges), weights=weight)
    counts = np.maximum(gaussian_filter(counts, _SMOOTH, mode="nearest"), 0.0)
    order = np.argsort(-counts / np.diff(edges[0])[:, None], axis=None)
    content = np.empty(counts.size)
    content[order] = np.cumsum(counts.ravel()[order]) / float(weight.sum())  # of all, also beyond the frame
    result: FloatArray = content.reshape(counts.shape)
    return result


@styled
def kl_size_figure(
    masses: Sequence[float],
    n_pairs: FloatArray,
    model: FloatArray,
    spread: FloatArray,
    data_quantiles: FloatArray,
    *,
    mock: bool,
) -> Figure:
    """Draw the divergence against the number of training pairs, one panel per mass.

    Parameters
    ----------
    masses : sequence of float, length n_masses [GeV]
    n_pairs : NDArray, shape (n_sizes,)
    model, spread : NDArray, shape (n_masses, n_sizes)
        Mean divergence over trainings [nat], and its standard deviation between trainings.
    data_quantiles : NDArray, shape (n_masses, 5)
        Divergence between draws of the data: 2.5, 16, 50, 84 and 97.5 per cent quantiles.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 8 of Allison and Blinov (2025).
    """
    shape = (len(masses), len(n_pairs))
    model, spread = checked("model", model, shape), checked("spread", spread, shape)
    bands = checked("data_quantiles", data_quantiles, (len(masses), 5))
    figure, axes = new_figure(1, len(masses), size=(4.4 * len(masses) + 0.8, 4.4))
    for column, mass in enumerate(masses):
        ax, band = axes[0, column], bands[column]
        ax.axhspan(band[0], band[4], color=BAND95, linewidth=0, label="data vs data, 95 %")
        ax.axhspan(band[1], band[3], color=BAND68, linewidth=0, label="data vs data, 68 %")
        ax.axhline(band[2], color="#1a7a1a", linestyle="--")
        ax.plot(n_pairs, model[column], "o-", color="black", markersize=4, label="flow vs data")
        for sign in (-1.0, 1.0):
            label = "one standard deviation of trainings" if sign < 0 else None
            ax.plot(n_pairs, model[column] + sign * spread[column], color="black", linestyle=":", label=label)
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
        ax.set(xlabel="training pairs")
        ax.text(0.95, 0.95, f"$m$ = {mass:.3g} GeV", transform=ax.transAxes, ha="right", va="top")
        mark_mock(ax, mock, position=(0.05, 0.1))
    axes[0, 0].set_ylabel("KL divergence [nat]")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=4)
    return figure


_SURE = "darkgreen"


@styled
def acceptance_curves(
    masses: Sequence[float],
    ctau: FloatArray,
    curves: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    mock: bool,
    reference: str | None = None,
    lowest: float = 1e-4,
) -> Figure:
    """Draw the acceptance of a long-lived particle against its decay length, with bands, one panel per mass.

    Parameters
    ----------
    masses : sequence of float, length n_masses [GeV]
    ctau : NDArray, shape (n_ctau,) [m]
    curves : mapping of label to (mean, sigma), each of shape (n_masses, n_ctau)
        Acceptance and standard deviation between the members of an ensemble.
    mock : bool
    reference : str, optional
        Label of the curve that the lower panels divide by; the first one by default.
    lowest : float
        Acceptance below which ratios are not drawn.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 9 of Allison and Blinov (2025): Eq. B1, with bands.
    """
    shape = (len(masses), len(ctau))
    base = next(iter(curves)) if reference is None else reference
    below = checked(base, curves[base][0], shape)
    figure, axes = new_figure(2, len(masses), size=(4.4 * len(masses) + 0.8, 6.2), heights=(2.0, 1.0))
    lines = ("-", "--", "-.", ":", (0, (5, 1, 1, 1)), (0, (1, 1)))
    for column, mass in enumerate(masses):
        ax, low = axes[0, column], axes[1, column]
        used = below[column] > lowest
        for (label, (mean, sigma)), colour, line in zip(
            curves.items(), cycle(("black", *COLOURS)), cycle(lines), strict=False
        ):
            m, s = checked(label, mean, shape)[column], checked(label, sigma, shape)[column]
            ax.plot(ctau, m, color=colour, linestyle=line, label=label)
            ax.fill_between(ctau, np.maximum(m - s, 1e-12), m + s, color=colour, alpha=0.2, linewidth=0)
            ratio, width = m[used] / below[column][used], s[used] / below[column][used]
            low.plot(ctau[used], ratio, color=colour, linestyle=line)
            low.fill_between(ctau[used], ratio - width, ratio + width, color=colour, alpha=0.2, linewidth=0)
        ax.set(xscale="log", yscale="log", ylim=(0.1 * lowest, 2.0))
        ax.tick_params(labelbottom=False)
        low.set(xscale="log", xlim=ax.get_xlim(), ylim=(0.7, 1.3), xlabel=r"$c\tau$ [m]")
        ax.text(0.95, 0.05, f"$m$ = {mass:.3g} GeV", transform=ax.transAxes, ha="right")
        mark_mock(ax, mock)
    axes[0, 0].set_ylabel("acceptance")
    axes[1, 0].set_ylabel(f"over {base}", loc="center", fontsize=11)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper center", ncols=len(labels) if len(labels) < 6 else 4)
    return figure


@styled
def difference_map(
    mass: FloatArray,
    ctau: FloatArray,
    differences: Mapping[str, FloatArray],
    *,
    mock: bool,
    pulls: Mapping[str, FloatArray] | None = None,
    limit: float = 0.3,
    empty: str = "not known",
) -> Figure:
    """Draw relative differences of the acceptance in the plane of mass and decay length.

    Parameters
    ----------
    mass : NDArray, shape (n_mass,) [GeV]
    ctau : NDArray, shape (n_ctau,) [m]
    differences : mapping of title to NDArray of shape (n_mass, n_ctau)
        2 (E₁ − E₂)/(E₁ + E₂); nan where it is not known. One panel each.
    mock : bool
    limit : float
        End of the colour scale.
    empty : str
        Legend of the plane without colour.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 10 of Allison and Blinov (2025).
    """
    n = len(differences)
    figure, axes = new_figure(1, n, size=(4.9 * n + 1.2, 5.0))
    for ax, (title, values) in zip(axes[0], differences.items(), strict=True):
        shown = np.asarray(values, dtype=np.float64)
        mesh = ax.pcolormesh(
            mass, ctau, shown.T, cmap="RdBu_r", vmin=-limit, vmax=limit, shading="nearest", rasterized=True
        )
        finite = np.ma.masked_invalid(np.abs(shown.T))
        if finite.count() and float(finite.min()) < 0.1 < float(finite.max()):
            ax.contour(mass, ctau, finite, levels=[0.1], colors="black", linewidths=1.0)
        pull = None if pulls is None else checked(title, pulls[title], shown.shape)
        if pull is not None and (pull > 2.0).any() and (pull < 2.0).any():
            ax.contour(mass, ctau, pull.T, levels=[2.0], colors=_SURE, linestyles="--", linewidths=1.6)
        ax.set(yscale="log", xlabel=LABELS[MASS], ylabel=r"$c\tau$ [m]")
        ax.set_title(title, loc="left")
        mark_mock(ax, mock, position=(0.03, 0.08))
    figure.colorbar(mesh, ax=list(axes[0]), pad=0.01).set_label("relative difference of acceptance")
    handles: list[Artist] = [Line2D([], [], color="black", linewidth=1.0, label="difference of 10 %")]
    if pulls is not None:
        name = "two standard deviations of the members"
        handles.append(Line2D([], [], color=_SURE, linestyle="--", linewidth=1.6, label=name))
    if not all(np.isfinite(values).all() for values in differences.values()):
        handles.append(Patch(facecolor="white", edgecolor="0.4", label=empty))
    figure.legend(handles=handles, loc="outside upper center", ncols=len(handles))
    return figure


def _containment(hist: FloatArray, shares: Sequence[float]) -> list[float]:
    """Return the densities above which the given shares of the content lie, increasing."""
    flat = np.sort(hist.ravel())[::-1]
    cumulative = np.cumsum(flat) / flat.sum()
    return sorted({float(flat[min(int(np.searchsorted(cumulative, s)), flat.size - 1)]) for s in shares})


@styled
def phase_space_figure(
    samples: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]],
    *,
    title: str,
    mock: bool,
    energy_range: tuple[float, float] = (1.0, 400.0),
    pt_range: tuple[float, float] = (0.02, 4.0),
) -> Figure:
    """Draw where samples lie in energy and transverse momentum: contours that hold 39 and 86 %.

    Parameters
    ----------
    samples : mapping of label to (energy, pt, weight), each of shape (n,) [GeV]
    title : str
    mock : bool
    energy_range, pt_range : tuple of float [GeV]

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 6 of Allison and Blinov (2025): one and two standard deviations of a plane.
    """
    figure, axes = new_figure(size=(7.6, 5.8))
    ax = axes[0, 0]
    x_edges, y_edges = np.geomspace(*energy_range, 71), np.geomspace(*pt_range, 71)
    x, y = np.sqrt(x_edges[1:] * x_edges[:-1]), np.sqrt(y_edges[1:] * y_edges[:-1])
    handles: list[Any] = []
    for index, (energy, pt, weight) in enumerate(samples.values()):
        hist, _, _ = np.histogram2d(energy, pt, bins=[x_edges, y_edges], weights=weight)
        smooth = gaussian_filter(hist, 2.0)
        colour = "black" if index == 0 else COLOURS[(index + 1) % len(COLOURS)]
        levels = _containment(smooth, (0.393, 0.865))
        drawn = ax.contour(
            x,
            y,
            smooth.T,
            levels=levels,
            colors=[colour],
            linestyles=[LINES[1], LINES[0]][-len(levels) :],
        )
        handles.append(drawn.legend_elements()[0][-1])
    ax.set(
        xscale="log",
        yscale="log",
        xlim=energy_range,
        ylim=pt_range,
        xlabel=r"$E_{A′}$ [GeV]",
        ylabel=r"$q_T$ [GeV]",
    )
    text = f"{title}; 39 % (solid), 86 %"
    ax.legend(handles, list(samples), loc="lower left", title=text, alignment="left")
    mark_mock(ax, mock, position=(0.97, 0.96))
    return figure
