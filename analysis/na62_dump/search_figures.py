"""Figures of the beam-dump search: detector, vertices, regions, background, planes, calibration run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon, Rectangle

from gammastar.core.records import COUPLING, LABELS, BoolArray, FloatArray
from gammastar.report.style import (
    COLOURS,
    GREY,
    LINES,
    MASS_DARK,
    checked,
    log_mass_axis,
    mark_mock,
    new_figure,
    power_of_ten,
    say,
    styled,
)

__all__ = [
    "alp_figure",
    "background_figure",
    "calibration_figure",
    "detector_figure",
    "domain_figure",
    "mesons_figure",
    "plane_maps",
    "region_figure",
    "vertex_figure",
]


@styled
def detector_figure(
    volumes: Mapping[str, Sequence[FloatArray]],
    *,
    mock: bool,
    planes: Mapping[str, tuple[float, float, float]] | None = None,
    rays: Sequence[float] = (),
    title: str = "",
) -> Figure:
    """Draw the detector in the plane of z (along the beam) and x.

    Parameters
    ----------
    volumes : mapping of label to sequence of NDArray, shape (n, 2) [m]
        Outlines (z, x) of the target, the shield, the decay volume.
    mock : bool
    planes : mapping of label to (z, x_low, x_high) [m], optional
        Tracking planes and calorimeters.
    rays : sequence of float [rad], optional
        Angles to the beam drawn as lines from the origin.
    title : str

    Returns
    -------
    matplotlib.figure.Figure
        The two axes have different scales: detectors are long and thin.
    """
    figure, axes = new_figure(size=(8.6, 4.4))
    ax = axes[0, 0]
    for index, (label, outlines) in enumerate(volumes.items()):
        colour = COLOURS[index % len(COLOURS)]
        for k, vertices in enumerate(outlines):
            polygon = checked(f"outline of {label!r}", vertices, (len(vertices), 2))
            ax.fill(
                *polygon.T,
                facecolor=colour,
                alpha=0.35,
                edgecolor=colour,
                linewidth=1.2,
                label=label if k == 0 else None,
            )
    for (label, (z, low, high)), line in zip((planes or {}).items(), LINES * 8, strict=False):
        ax.plot([z, z], [low, high], color="black", linewidth=2.2, linestyle=line, label=label)
    ax.margins(x=0.04, y=0.12)
    ax.autoscale_view()
    frame = (ax.get_xlim(), ax.get_ylim())
    for theta in rays:
        ax.plot([0, frame[0][1]], [0, frame[0][1] * np.tan(theta)], color="0.4", linestyle=":", linewidth=1.0)
    ax.axhline(0.0, color="0.4", linestyle=(0, (8, 4, 1, 4)), linewidth=0.9, zorder=0)
    ax.set(xlim=frame[0], ylim=frame[1], xlabel=r"$z$ [m]", ylabel=r"$x$ [m]", title=title)
    figure.legend(loc="outside right upper")
    mark_mock(ax, mock)
    return figure


@styled
def vertex_figure(
    z: FloatArray, rho: FloatArray, *, fiducial: Sequence[tuple[float, float]], mock: bool, title: str = ""
) -> Figure:
    """Draw where pairs of tracks meet, and the fiducial volume.

    Parameters
    ----------
    z, rho : NDArray, shape (n,) [m]
        Along the beam, and distance from the axis.
    fiducial : sequence of (z, rho)
        Corners of the polygon [m].
    mock : bool
    title : str
    """
    z, rho = checked("z", z), checked("rho", rho, np.shape(z))
    figure, axes = new_figure(size=(8.2, 4.8))
    ax = axes[0, 0]
    ax.set(xlim=(90, 185), ylim=(0, 1.1), xlabel=r"$Z_{vtx}$ [m]", ylabel=r"$\rho_{vtx}$ [m]")
    if len(z):
        counts, x_edges, y_edges = np.histogram2d(z, rho, bins=(95, 44), range=((90, 185), (0, 1.1)))
        shown = np.ma.masked_equal(counts.T, 0)
        top = max(float(counts.max()), 2.0)
        norm = LogNorm(1, top) if top > 30 else Normalize(0, top)
        mesh = ax.pcolormesh(x_edges, y_edges, shown, cmap="cividis_r", norm=norm, rasterized=True)
        figure.colorbar(mesh, ax=ax, pad=0.02).set_label("pairs")
    else:
        say(ax, "no pair")
    ax.add_patch(
        Polygon(np.asarray(fiducial), fill=False, edgecolor=COLOURS[2], linewidth=2, label="fiducial volume")
    )
    ax.legend(loc="upper left")
    ax.set_title(title)
    mark_mock(ax, mock, position=(0.97, 0.96))
    return figure


@styled
def region_figure(
    z: FloatArray,
    cda: FloatArray,
    *,
    ellipse: tuple[float, float, float],
    control: tuple[float, float, float],
    masked: bool,
    mock: bool,
    signal: tuple[FloatArray, FloatArray] | None = None,
    title: str = "",
) -> Figure:
    """Draw pairs in the plane of Z_TAX and CDA_TAX with signal and control region.

    Parameters
    ----------
    z, cda : NDArray, shape (n,) [m]
        Those of masked regions must have been removed by the selection; the regions are then hatched.
    ellipse : (centre, half-axis in z, half-axis in cda) [m]
    control : (z low, z high, largest cda) [m]
    masked, mock : bool
    signal : (z, cda), optional
        Simulated signal, drawn as contours that hold 68 and 95 %.
    title : str
    """
    z, cda = checked("z", z), checked("cda", cda, np.shape(z))
    figure, axes = new_figure(size=(8.2, 5.0))
    ax = axes[0, 0]
    ax.set(xlim=(-60, 130), ylim=(0, 0.5), xlabel=r"$Z_{TAX}$ [m]", ylabel=r"$CDA_{TAX}$ [m]")
    low, high, top = control
    centre, half_z, half_cda = ellipse
    look: dict[str, Any] = {"hatch": "///", "facecolor": GREY} if masked else {"facecolor": "none"}
    ax.add_patch(
        Rectangle(
            (low, 0),
            high - low,
            top,
            edgecolor=COLOURS[0],
            linewidth=1.6,
            label="control region" + (", masked" if masked else ""),
            **look,
        )
    )
    ax.plot(z, cda, "o", color="black", markersize=3.5, label="pairs", zorder=4)
    if signal is not None and len(signal[0]):
        _holding(ax, *signal)
    ax.add_patch(
        Ellipse(
            (centre, 0),
            2 * half_z,
            2 * half_cda,
            facecolor="none",
            edgecolor=COLOURS[2],
            linewidth=2.2,
            label="signal region",
            zorder=5,
        )
    )
    ax.legend(loc="upper right")
    ax.set_title(title)
    mark_mock(ax, mock)
    return figure


def _holding(ax: Axes, z: FloatArray, cda: FloatArray) -> None:
    """Draw the contours that hold 68 and 95 % of a sample."""
    counts, x, y = np.histogram2d(z, cda, bins=(80, 60), range=((-10, 60), (0, 0.06)))
    ordered = np.sort(counts.ravel())[::-1]
    cumulative = np.cumsum(ordered) / max(counts.sum(), 1)
    levels = sorted({float(ordered[np.searchsorted(cumulative, share)]) for share in (0.68, 0.95)})
    centres = 0.5 * (x[1:] + x[:-1]), 0.5 * (y[1:] + y[:-1])
    if len(levels) == 2 and levels[0] > 0:
        ax.contour(*centres, counts.T, levels=levels, colors=[COLOURS[1]], linewidths=1.4)
        ax.plot([], [], color=COLOURS[1], label="signal, 68 and 95 %")


@styled
def background_figure(
    draws: Mapping[str, FloatArray], *, published: tuple[float, float, float] | None = None, mock: bool
) -> Figure:
    """Draw posteriors of an expected number of background events.

    Parameters
    ----------
    draws : mapping of label to NDArray, shape (n,)
        Expected events of pseudo-experiments.
    published : (low, median, high), optional
        Drawn as a point with its 68 % interval.
    mock : bool
    """
    figure, axes = new_figure(size=(7.2, 5.0))
    ax = axes[0, 0]
    edges = np.geomspace(1e-5, 3, 90)
    top = 0.0
    for (name, values), colour, line in zip(draws.items(), cycle(COLOURS), cycle(LINES), strict=False):
        counts = np.histogram(values, edges)[0] / len(values) / np.diff(np.log10(edges))
        top = max(top, float(counts.max()))
        p_zero = float(np.mean(np.exp(-values)))
        label = f"{name}: {np.median(values):.2g}, P(0) = {100 * p_zero:.1f} %"
        ax.stairs(counts, edges, color=colour, linestyle=line, linewidth=1.8, label=label)
    if published is not None:
        low, median, high = published
        error = [[median - low], [high - median]]
        ax.errorbar(
            [median], [1.08 * top], xerr=error, fmt="s", color="black", capsize=3, label="published, 68 %"
        )
    ax.set(xscale="log", xlim=(1e-5, 3), ylim=(0, 1.65 * max(top, 1e-3)), xlabel="expected background events")
    ax.set_ylabel("density per decade")
    ax.legend(loc="upper left")
    mark_mock(ax, mock, position=(0.97, 0.96))
    return figure


@styled
def plane_maps(
    mass: FloatArray,
    coupling: FloatArray,
    maps: Mapping[str, FloatArray],
    *,
    label: str,
    log: bool = False,
    limits: tuple[float, float] | None = None,
    mock: bool = False,
) -> Figure:
    """Draw quantities over mass and coupling, one panel below the other on one colour scale.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    coupling : NDArray, shape (k,)
    maps : mapping of title to NDArray of shape (n, k)
        nan and, on a logarithmic scale, values below the range stay white.
    label : str
        Of the colour scale.
    log : bool
    limits : (float, float), optional
        Range of the colours; by default that of the values.
    mock : bool
    """
    figure, axes = new_figure(len(maps), size=(7.6, 4.1 * len(maps)), share_x=True)
    pooled = np.concatenate([np.ravel(values) for values in maps.values()])
    pooled = pooled[np.isfinite(pooled) & ((pooled > 0) | (not log))]
    if limits is None:
        limits = (float(pooled.min()), float(pooled.max())) if pooled.size else (0.1, 1.0)
    norm = LogNorm(*limits) if log else Normalize(*limits)
    mesh = None
    for ax, (title, values) in zip(axes[:, 0], maps.items(), strict=True):
        shown = checked(title, values, (len(mass), len(coupling)))
        hidden = ~np.isfinite(shown) | (shown < limits[0] if log else False)
        mesh = ax.pcolormesh(
            mass,
            coupling,
            np.ma.masked_where(hidden, shown).T,
            norm=norm,
            cmap="cividis_r",
            shading="nearest",
            rasterized=True,
        )
        ax.set(yscale="log", ylabel=LABELS[COUPLING], xlim=(mass[0], mass[-1]))
        log_mass_axis(ax)
        ax.set_title(title)
        mark_mock(ax, mock)
    axes[-1, 0].set_xlabel(MASS_DARK)
    if mesh is not None:
        figure.colorbar(mesh, ax=list(axes[:, 0]), pad=0.02).set_label(label)
    return figure


@styled
def alp_figure(
    lifetime: FloatArray,
    limits: Mapping[str, FloatArray],
    *,
    others: Mapping[str, tuple[FloatArray, FloatArray]] | None = None,
    pot: float,
) -> Figure:
    """Draw limits on a product of branching ratios against the lifetime.

    Parameters
    ----------
    lifetime : NDArray, shape (n,) [ps]
    limits : mapping of label to NDArray, shape (n,)
    others : mapping of label to (lifetime [ps], limit), optional
        Filled above, grey.
    pot : float
    """
    figure, axes = new_figure(size=(7.4, 5.8))
    ax = axes[0, 0]
    for name, (x, y) in (others or {}).items():
        ax.fill_between(x, y, 1.0, color=GREY, label=name, linewidth=0)
    for (name, values), colour, line in zip(limits.items(), cycle(COLOURS), cycle(LINES), strict=False):
        ax.plot(lifetime, checked(name, values, lifetime.shape), color=colour, linestyle=line, label=name)
    ax.set(xscale="log", yscale="log", xlim=(lifetime[0], lifetime[-1]), ylim=(1e-9, 1e-2))
    ax.set_xlabel(r"$\tau_a$ [ps]")
    ax.set_ylabel(r"BR$(B\to K^{(*)}a)\times$BR$(a\to e^+e^-)$")
    ax.set_title("excluded above the lines, 90 % CL")
    ax.set_title(f"{power_of_ten(pot)} POT", loc="right")
    ax.legend(loc="lower right")
    return figure


@styled
def calibration_figure(
    curves: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]], *, share: float, precision: float
) -> Figure:
    """Draw what a dimuon run needs so that it measures what a dump detector accepts.

    Parameters
    ----------
    curves : mapping of label to (smallest angle [rad], fraction in the domain, protons on target)
    share : float
        Wanted fraction; a dotted line.
    precision : float
        Wanted relative error, for the label.
    """
    figure, axes = new_figure(2, size=(7.4, 7.6), share_x=True)
    for (name, (angle, fraction, pot)), colour, line in zip(
        curves.items(), cycle(COLOURS), cycle(LINES), strict=False
    ):
        axes[0, 0].plot(1e3 * angle, fraction, color=colour, linestyle=line, label=name)
        good = np.isfinite(pot) & (fraction > 0.05)
        axes[1, 0].plot(1e3 * angle[good], pot[good], color=colour, linestyle=line)
    axes[0, 0].axhline(share, color="black", linestyle=":", linewidth=1.2)
    axes[0, 0].set(xscale="log", ylim=(0, 1.05), ylabel="signal inside the measured domain")
    axes[0, 0].legend(loc="lower left", fontsize=11)
    axes[1, 0].set(yscale="log", xlabel=r"smallest muon angle [mrad]")
    axes[1, 0].set_ylabel(f"protons for {100 * precision:.0f} % on its signal")
    return figure


@styled
def domain_figure(
    accepted: Mapping[str, tuple[FloatArray, FloatArray, FloatArray]],
    *,
    energy_edges: FloatArray,
    pt_edges: FloatArray,
    domain: BoolArray,
    mock: bool,
) -> Figure:
    """Draw the kinematics of accepted dark photons and the cells in which lepton pairs were measured.

    Parameters
    ----------
    accepted : mapping of title to (energy, pt, weight), each shape (n,)
        [GeV]; one panel each.
    energy_edges, pt_edges : NDArray, shapes (k + 1,), (l + 1,) [GeV]
    domain : NDArray of bool, shape (l, k)
        True where pairs were measured.
    mock : bool
    """
    figure, axes = new_figure(len(accepted), size=(7.6, 3.9 * len(accepted)), share_x=True)
    bins = (np.geomspace(2.0, 400.0, 50), np.linspace(0.0, 1.5, 40))
    mesh = None
    for ax, (title, (energy, pt, weight)) in zip(axes[:, 0], accepted.items(), strict=True):
        counts, x, y = np.histogram2d(energy, pt, bins=bins, weights=weight)
        shown = counts.T / max(float(counts.max()), 1e-300)
        norm = LogNorm(1e-3, 1.0)
        mesh = ax.pcolormesh(
            x, y, np.ma.masked_less(shown, 1e-3), norm=norm, cmap="cividis_r", rasterized=True
        )
        for j, i in np.argwhere(domain):
            corner = (energy_edges[i], pt_edges[j])
            size = np.diff(energy_edges)[i], np.diff(pt_edges)[j]
            look: dict[str, Any] = {"fill": False, "edgecolor": COLOURS[0], "hatch": "//", "linewidth": 0.8}
            ax.add_patch(Rectangle(corner, *size, **look))
        ax.plot([], [], color=COLOURS[0], label="dimuons measured")
        ax.set(xscale="log", xlim=(2, 400), ylim=(0, 1.5), ylabel=r"$q_T$ [GeV]")
        ax.set_title(title)
        ax.legend(loc="upper right")
        mark_mock(ax, mock)
    axes[-1, 0].set_xlabel("$E$ [GeV]")
    if mesh is not None:
        figure.colorbar(mesh, ax=list(axes[:, 0]), pad=0.02).set_label("accepted signal, largest cell one")
    return figure


@styled
def mesons_figure(
    shares: Mapping[str, FloatArray],
    residuals: Mapping[str, FloatArray],
    *,
    points: tuple[FloatArray, BoolArray],
    digitised: float,
) -> Figure:
    """Draw the part of some mesons that a published edge holds, and residuals of readings of the publication.

    Parameters
    ----------
    shares : mapping of label to NDArray, shape (3, n)
        Mass [GeV], part, error.
    residuals : mapping of label to NDArray, shape (k,)
        log10 of the published over our lower edge.
    points : (mass [GeV], True for dimuons), shapes (k,)
        Of the residuals; one panel per channel.
    digitised : float
        Error of the published edge, a grey band.
    """
    figure, axes = new_figure(3, size=(8.6, 11.0))
    for (name, (x, y, error)), colour, marker in zip(
        shares.items(), cycle(COLOURS), cycle("osD^"), strict=False
    ):
        axes[0, 0].errorbar(
            1e3 * x, y, error, fmt=marker, color=colour, label=name, capsize=2.5, markersize=5
        )
    for level in (0.0, 1.0):
        axes[0, 0].axhline(level, color="black", linestyle=":", linewidth=1.0)
    axes[0, 0].set(ylim=(-0.6, 1.5), ylabel="part of our mesons\nthat the edge holds")
    axes[0, 0].legend(loc="upper right", ncols=3, fontsize=10)
    mass, dimuon = points
    for ax, chosen, title in ((axes[1, 0], ~dimuon, "$e^+e^-$"), (axes[2, 0], dimuon, r"$\mu^+\mu^-$")):
        ax.axhspan(-digitised, digitised, color=GREY, label="digitisation")
        looks = zip(cycle(COLOURS), cycle("osD^vP*Xd<>"), ["-"] * 6 + ["--"] * 9, strict=False)
        for (name, values), (colour, marker, line) in zip(residuals.items(), looks, strict=False):
            look: dict[str, Any] = {"marker": marker, "color": colour, "linestyle": line, "label": name}
            ax.plot(1e3 * mass[chosen], values[chosen], linewidth=1.0, markersize=4.5, **look)
        ax.set(ylim=(-0.32, 0.42), ylabel=r"$\log_{10}$ published/ours")
        ax.set_title(f"lower edge, {title}", loc="left")
    for ax in axes[:, 0]:
        ax.set(xlim=(20, 560))
    axes[2, 0].set_xlabel("mass [MeV]")
    handles, labels = axes[1, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, fontsize=10)
    return figure
