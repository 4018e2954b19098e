"""Figures of rates, acceptances and signals, measured or from theory, and where dileptons were measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from gammastar.core.records import COUPLING, LABELS, FloatArray
from gammastar.report import style
from gammastar.report.style import BAND68, BAND95, COLOURS, GREY, LINES, MASS_DARK, checked, mark_mock, styled

RATE_DARK = r"$N_{A′}$ / POT / $\varepsilon^2$"


def _positive(values: FloatArray) -> FloatArray:
    return np.where(values > 0, values, np.nan)


@styled
def rate_figure(
    mass: FloatArray,
    rate: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    comparisons: Mapping[str, FloatArray] | None = None,
    label: str = "from dileptons",
    axes_labels: tuple[str, str] = (MASS_DARK, RATE_DARK),
) -> Figure:
    """Draw the yield per proton on target and squared coupling against the mass."""
    n = len(mass)
    rate, errors = checked("rate", rate, (n,)), checked("errors", errors, (n,))
    figure, ax = style.single()
    shown = [rate]
    for index, (name, curve) in enumerate((comparisons or {}).items()):
        colour = (COLOURS[2:] + COLOURS[:2])[index % len(COLOURS)]
        band = np.asarray(curve, dtype=np.float64)
        central = band if band.ndim == 1 else band[:, 1]
        shown.append(checked(name, central, (n,)))
        if band.ndim == 2:
            ax.fill_between(mass, band[:, 0], band[:, 2], color=colour, alpha=0.22, linewidth=0, zorder=1.5)
        ax.plot(mass, central, color=colour, linestyle=LINES[2 + index % 3], label=name, zorder=3.5)
    style.log_range(ax, *shown, decades=7.0, rows=3)
    floor = ax.get_ylim()[0]  # a band that reaches zero ends at the frame of a logarithmic axis
    for k, shade, name in ((2, BAND95, r"$\pm2\sigma$"), (1, BAND68, r"$\pm1\sigma$")):
        low = np.maximum(rate - k * errors, 0.1 * floor)
        ax.fill_between(mass, low, rate + k * errors, color=shade, linewidth=0, label=name, zorder=2)
    ax.plot(mass, rate, color="black", label=label, zorder=3)
    ax.set(xlabel=axes_labels[0], ylabel=axes_labels[1], xlim=(mass[0], mass[-1]))
    beside = comparisons or {}  # the main line and its bands stand before them
    style.sorted_legend(ax, lambda name: (name != label, name in beside), loc="upper right", ncols=2)
    return figure


@styled
def acceptance_figure(
    ctau: FloatArray,
    acceptances: Mapping[float, FloatArray],
    *,
    mock: bool,
    errors: Mapping[float, FloatArray] | None = None,
) -> Figure:
    """Draw the acceptance against the proper decay length, as Fig. 9 of Allison and Blinov (2025)."""
    figure, ax = style.single()
    peak = 0.0
    for index, (mass, values) in enumerate(acceptances.items()):
        colour = COLOURS[index % len(COLOURS)]
        curve = checked(f"acceptance at {mass} GeV", values, ctau.shape)
        name = f"$m_{{A′}}$ = {mass:.3g} GeV"
        ax.plot(ctau, _positive(curve), color=colour, label=name)
        peak = max(peak, float(curve.max()))
        if errors is not None and mass in errors:
            half = checked(f"errors at {mass} GeV", errors[mass], ctau.shape)
            low = np.maximum(curve - half, 1e-12)
            ax.fill_between(ctau, low, curve + half, color=colour, alpha=0.25, linewidth=0)
    if peak <= 0:
        style.say(ax, "No particle is accepted at any decay length.")
        peak = 1.0
    ax.set(xscale="log", yscale="log", xlim=(ctau[0], ctau[-1]), ylim=(1e-5 * peak, 4.0 * peak))
    ax.set(xlabel=r"$c\tau$ [m]", ylabel="acceptance")
    ax.legend(loc="best")
    return figure


LEVELS = (0.05, 0.5)
HATCHES = ("xx", "//", None)
WORDS = ("less than 5 %", "5 to 50 %")
SHOWN = 1e-3  # events; below them a fraction means nothing


@dataclass(frozen=True, slots=True, eq=False)
class DomainMap:
    """Which part of the accepted signal comes from (mass, qT, E) where dileptons were measured."""

    mass: FloatArray  # [GeV], shape (n,)
    coupling: FloatArray  # shape (k,)
    # Expected events, and those from the measured domain, shape (n, k)
    signal: FloatArray
    measured: FloatArray
    # Relative standard deviation of the signal from its extrapolated part, shape (n, k)
    error: FloatArray | None = None

    def __post_init__(self) -> None:
        for name in ("signal", "measured", "error"):
            if (array := getattr(self, name)) is not None:
                checked(f"DomainMap.{name}", array, (len(self.mass), len(self.coupling)))

    @property
    def fraction(self) -> FloatArray:
        """Measured part of the signal, nan where fewer than 0.001 events are expected."""
        nothing = np.full_like(self.signal, np.nan)
        return np.divide(self.measured, self.signal, out=nothing, where=self.signal > SHOWN)


def hatch_domain(ax: Axes, domain: DomainMap, polygon: FloatArray | None, colour: str) -> list[Any]:
    """Hatch where the signal is extrapolated: crossed below 5 % measured, striped below 50 %."""
    if len(domain.mass) < 2 or len(domain.coupling) < 2:
        return []
    fraction = np.ma.masked_invalid(domain.fraction).T
    levels = [-1.0, *LEVELS, 2.0]
    look: dict[str, Any] = {"colors": "none", "hatches": list(HATCHES), "zorder": 3}
    hatched = ax.contourf(domain.mass, domain.coupling, fraction, levels=levels, **look)
    hatched.set_edgecolor(colour)
    hatched.set_linewidth(0.0)
    grid = np.stack(np.meshgrid(domain.mass, np.log(domain.coupling), indexing="ij"), axis=-1).reshape(-1, 2)
    inside = np.ones(domain.signal.shape, dtype=bool)
    if polygon is not None:
        bounds = Path(np.column_stack([polygon[:, 0], np.log(polygon[:, 1])]))
        inside = bounds.contains_points(grid).reshape(inside.shape)
        closed = Path(np.vstack([polygon, polygon[:1]]), closed=True)
        hatched.set_clip_path(PathPatch(closed, transform=ax.transData))
    part = domain.fraction[inside & np.isfinite(domain.fraction)]
    there = ((part < LEVELS[0]).any(), ((part >= LEVELS[0]) & (part < LEVELS[1])).any())
    return [
        Patch(facecolor="none", edgecolor=colour, linewidth=0.0, hatch=hatch, label=f"measured: {words}")
        for hatch, words, drawn in zip(HATCHES, WORDS, there, strict=False)
        if drawn
    ]


@styled
def domain_figure(
    domain: DomainMap,
    *,
    mock: bool,
    limit: float | None = None,
    title: str = "",
    axes_labels: tuple[str, str] = (MASS_DARK, LABELS[COUPLING]),
) -> Figure:
    """Draw the measured part of the signal over mass and coupling, hatched where most of it is extrapolated.

    A second panel shows the relative error from the extrapolated part, if `domain` has one.

    Parameters
    ----------
    limit : float, optional
        Draw where the expected events equal this limit.
    title : str
        E.g. the detector.
    axes_labels : tuple of str
        Of mass and coupling; by default those of a dark photon.
    """
    two = domain.error is not None
    figure, axes = style.new_figure(2 if two else 1, size=(7.6, 9.2 if two else 6.0), share_x=True)
    panels: list[tuple[FloatArray, str, float, str]] = [
        (domain.fraction, "measured part of the signal", 1.0, "YlGnBu")
    ]
    if domain.error is not None:
        error = np.where(domain.signal > SHOWN, domain.error, np.nan)
        top = float(np.clip(np.nanquantile(error, 0.98), 0.1, 2.0)) if np.isfinite(error).any() else 1.0
        panels.append((error, "relative error from extrapolation", top, "YlOrRd"))
    for ax, (values, label, top, colours) in zip(axes[:, 0], panels, strict=True):
        look: dict[str, Any] = {"vmin": 0.0, "vmax": top, "cmap": colours, "rasterized": True}
        mesh = ax.pcolormesh(domain.mass, domain.coupling, values.T, shading="nearest", **look)
        figure.colorbar(mesh, ax=ax, label=label, extend="max" if top != 1.0 else "neither")
        ax.set(yscale="log", ylabel=axes_labels[1])
        shown = np.flatnonzero((domain.signal > SHOWN).any(axis=0))
        if len(shown):
            ax.set_ylim(domain.coupling[shown[0]] / 1.5, domain.coupling[shown[-1]] * 6.0)  # MOCK above
        if limit is not None and (domain.signal >= limit).any():
            ax.contour(domain.mass, domain.coupling, domain.signal.T, levels=[limit], colors="#e42536")
        mark_mock(ax, mock)
    hatch_domain(axes[0, 0], domain, None, "0.55")
    style.log_mass_axis(axes[-1, 0])
    axes[-1, 0].set_xlabel(axes_labels[0])
    axes[0, 0].set_title(title, loc="left")
    if limit is not None:
        axes[0, 0].set_title(f"line: {limit:.3g} events", loc="right")
    return figure


@dataclass(frozen=True, slots=True, eq=False)
class Band:
    """A prediction with its theory band."""

    label: str
    # shape (n,)
    x: FloatArray
    central: FloatArray
    low: FloatArray
    high: FloatArray
    # Index of a colour; None draws grey bars at the tabulated points: a coarse table is no curve
    colour: int | None = 0


@dataclass(frozen=True, slots=True, eq=False)
class Points:
    """A measured rate with its standard deviation."""

    label: str
    # shape (n,)
    x: FloatArray
    value: FloatArray
    error: FloatArray  # Symmetric, or downwards and upwards, shape (n,)
    line: bool = False  # Draw a line with a band instead of points


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
    line = LINES[order % len(LINES)]
    ax.plot(band.x, _positive(central), color=colour, linestyle=line, label=band.label, zorder=3)


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
    bars = np.stack([np.minimum(error[0], 0.9 * value), error[1]])  # a bar to zero has no end on a log axis
    look: dict[str, Any] = {"fmt": "o", "color": "black", "markersize": 3.5, "linewidth": 1.2, "zorder": 6}
    ax.errorbar(points.x[shown], value[shown], yerr=bars[:, shown], label=points.label, **look)


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
) -> Figure:
    """Draw predictions with their bands and a measured rate on top, both axes logarithmic."""
    figure, ax = style.single(size=(8.0, 6.2))
    for index, band in enumerate(bands):
        _draw_band(ax, band, index)
    _draw_points(ax, points)
    ax.set(xlabel=x_label, ylabel=y_label, xlim=x_range, ylim=y_range, yscale="log")
    style.log_mass_axis(ax)
    style.sorted_legend(ax, lambda label: label != points.label, loc="upper right", fontsize=11)
    mark_mock(ax, mock, position=(0.03, 0.05))
    return figure
