"""The measured rate beside theory: envelope of dark photons, millicharged pairs, search in situ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from gammastar.core.records import FloatArray
from gammastar.report.style import (
    BAND68,
    COLOURS,
    GREY,
    LINES,
    MASS_DARK,
    checked,
    log_mass_axis,
    mark_mock,
    new_figure,
    styled,
)

__all__ = ["Band", "Points", "band_figure", "reach_lines_figure"]


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A prediction with its theory band.

    Attributes
    ----------
    label : str
    x, central, low, high : NDArray, shape (n,)
    colour : int or None
        Index of a colour; None draws grey bars at the tabulated points: a coarse table is no curve.
    """

    label: str
    x: FloatArray
    central: FloatArray
    low: FloatArray
    high: FloatArray
    colour: int | None = 0


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A measured rate with its standard deviation.

    Attributes
    ----------
    label : str
    x, value : NDArray, shape (n,)
    error : NDArray, shape (n,) or (2, n)
        Symmetric, or downwards and upwards.
    line : bool
        Draw a line with a band instead of points.
    """

    label: str
    x: FloatArray
    value: FloatArray
    error: FloatArray
    line: bool = False


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, np.nan)


def _draw_band(ax: Axes, band: Band, order: int) -> None:
    n = (len(band.x),)
    central, low, high = (checked(band.label, v, n) for v in (band.central, band.low, band.high))
    if band.colour is None:
        ax.vlines(band.x, low, high, color=GREY, linewidth=7, label=band.label, zorder=1)
        ax.plot(band.x, central, color="0.35", marker="_", markersize=9, linestyle="none", zorder=1.5)
        return
    colour = COLOURS[band.colour % len(COLOURS)]
    if (high > low).any():
        ax.fill_between(band.x, low, high, color=colour, alpha=0.25, linewidth=0, zorder=2)
    style = LINES[order % len(LINES)]
    ax.plot(band.x, _positive(central), color=colour, linestyle=style, label=band.label, zorder=3)


def _draw_points(ax: Axes, points: Points) -> None:
    n = (len(points.x),)
    value = checked(points.label, points.value, n)
    error = checked(points.label, np.broadcast_to(points.error, (2, *n)), (2, *n))
    if points.line:
        low = np.maximum(value - error[0], 1e-3 * np.abs(value))
        ax.fill_between(points.x, low, value + error[1], color=BAND68, linewidth=0, zorder=1.2)
        ax.plot(points.x, _positive(value), color="black", label=points.label, zorder=5)
        return
    shown = value > 0
    down, up = np.minimum(error[0], 0.9 * value), error[1]  # a bar to zero has no end on a logarithmic axis
    ax.errorbar(
        points.x[shown],
        value[shown],
        yerr=[down[shown], up[shown]],
        fmt="o",
        color="black",
        markersize=3.5,
        linewidth=1.2,
        label=points.label,
        zorder=6,
    )


@styled
def band_figure(
    points: Points,
    bands: Sequence[Band],
    *,
    x_label: str,
    y_label: str,
    y_range: tuple[float, float],
    mock: bool,
    x_range: tuple[float, float],
    note: str = "",
) -> Figure:
    """Draw predictions with their bands and a measured rate on top, both axes logarithmic.

    Parameters
    ----------
    points : Points
    bands : sequence of Band
    x_label, y_label : str
    y_range, x_range : tuple of float
    mock : bool
    note : str
        Below the legend, e.g. the conventions of a calculation.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = new_figure(size=(8.0, 6.2))
    ax = axes[0, 0]
    for index, band in enumerate(bands):
        _draw_band(ax, band, index)
    _draw_points(ax, points)
    ax.set(xlabel=x_label, ylabel=y_label, xlim=x_range, ylim=y_range, yscale="log")
    log_mass_axis(ax)
    handles, labels = ax.get_legend_handles_labels()
    first = labels.index(points.label)
    order = [first, *(i for i in range(len(labels)) if i != first)]
    ax.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="upper right",
        fontsize=11,
        title=note,
        title_fontsize=10,
        alignment="left",
    )
    mark_mock(ax, mock, position=(0.03, 0.05))
    return figure


@styled
def reach_lines_figure(
    curves: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    x_label: str = MASS_DARK,
    y_label: str,
    y_range: tuple[float, float],
    mock: bool,
    title: str = "",
    log_x: bool = True,
) -> Figure:
    """Draw one coupling against mass per curve, e.g. the reach of a peak search or of mCP detectors.

    Parameters
    ----------
    curves : mapping of label to (mass, coupling), each of shape (n,)
    x_label, y_label, title : str
    y_range : tuple of float
    mock, log_x : bool

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = new_figure(size=(7.6, 5.8))
    ax = axes[0, 0]
    for index, (label, (mass, coupling)) in enumerate(curves.items()):
        colour, style = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        ax.plot(mass, coupling, color=colour, linestyle=style, label=label)
    ax.set(xlabel=x_label, ylabel=y_label, ylim=y_range, yscale="log")
    if log_x:
        log_mass_axis(ax)
    ax.legend(loc="upper right", title=title, alignment="left", fontsize=11)
    mark_mock(ax, mock, position=(0.03, 0.96))
    return figure
