"""Figures of the beam-dump search: vertices, signal and control region, background."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Polygon, Rectangle

from gammastar.core.records import FloatArray
from gammastar.report.style import (
    COLOURS,
    GREY,
    LINES,
    checked,
    mark_mock,
    new_figure,
    say,
    styled,
)

__all__ = [
    "background_figure",
    "region_figure",
    "vertex_figure",
]


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
