"""Figures of the signal: rate of dark photons, acceptance, and expected events."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.records import BoolArray, FloatArray
from gammastar.report.style import (
    BAND68,
    BAND95,
    COLOURS,
    LINES,
    MASS_DARK,
    checked,
    log_mass_axis,
    log_range,
    mark_mock,
    new_figure,
    say,
    styled,
)

__all__ = ["acceptance_figure", "acceptance_vs_mass", "rate_figure", "yield_map"]

RATE_DARK = r"$N_{A′}$ / POT / $\varepsilon^2$"


@styled
def rate_figure(
    mass: FloatArray,
    rate: FloatArray,
    errors: FloatArray,
    *,
    mock: bool,
    comparisons: Mapping[str, FloatArray] | None = None,
    measured: BoolArray | None = None,
    label: str = "from dileptons",
    axes_labels: tuple[str, str] = (MASS_DARK, RATE_DARK),
) -> Figure:
    """Draw the yield per proton on target and squared coupling against the mass.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    rate, errors : NDArray, shape (n,)
        Particles per POT per squared coupling and the standard deviation; bands of one and two are drawn.
    mock : bool
    comparisons : mapping of label to NDArray, shape (n,) or (n, 3), optional
        Other predictions; three columns are low, central and high.
    measured : NDArray of bool, shape (n,), optional
        False where the spectrum behind the rate is extrapolated (dashed).
    label : str
        Legend of the main line.
    axes_labels : tuple of str
        Of mass and rate; by default those of a dark photon.

    Returns
    -------
    matplotlib.figure.Figure
    """
    n = len(mass)
    rate, errors = checked("rate", rate, (n,)), checked("errors", errors, (n,))
    inside = np.ones(n, dtype=bool) if measured is None else np.asarray(measured, dtype=bool)
    figure, axes = new_figure()
    ax = axes[0, 0]
    shown = [rate]
    for index, (name, curve) in enumerate((comparisons or {}).items()):
        colour = (COLOURS[2:] + COLOURS[:2])[index % len(COLOURS)]
        band = np.asarray(curve, dtype=np.float64)
        central = band if band.ndim == 1 else band[:, 1]
        shown.append(checked(name, central, (n,)))
        if band.ndim == 2:
            ax.fill_between(mass, band[:, 0], band[:, 2], color=colour, alpha=0.22, linewidth=0, zorder=1)
        ax.plot(mass, central, color=colour, linestyle=LINES[2 + index % 3], label=name, zorder=2)
    log_range(ax, *shown, decades=7.0, rows=3)
    floor = ax.get_ylim()[0]  # a band that reaches zero ends at the frame of a logarithmic axis
    for k, shade, name in ((2, BAND95, r"$\pm2\sigma$"), (1, BAND68, r"$\pm1\sigma$")):
        low = np.maximum(rate - k * errors, 0.1 * floor)
        ax.fill_between(mass, low, rate + k * errors, color=shade, linewidth=0, label=name, zorder=3)
    ax.plot(mass, np.where(inside, rate, np.nan), color="black", label=label, zorder=4)
    if not inside.all():
        # one point of overlap on either side, so that the line does not break
        outside = ~inside | np.r_[~inside[1:], False] | np.r_[False, ~inside[:-1]]
        beyond = np.where(outside, rate, np.nan)
        ax.plot(mass, beyond, color="black", linestyle="--", label="extrapolated", zorder=4)
    ax.set(xlabel=axes_labels[0], xlim=(mass[0], mass[-1]))
    ax.set_ylabel(axes_labels[1])
    handles, names = ax.get_legend_handles_labels()
    first = len(comparisons or {})  # the main line and its bands stand before the comparisons
    order = [*range(first, len(names)), *range(first)]
    order.sort(key=lambda i: names[i] not in (label, "extrapolated"))
    ax.legend([handles[i] for i in order], [names[i] for i in order], loc="upper right", ncols=2)
    mark_mock(ax, mock)
    return figure


@styled
def acceptance_figure(
    ctau: FloatArray,
    acceptances: Mapping[float, FloatArray],
    *,
    mock: bool,
    errors: Mapping[float, FloatArray] | None = None,
    comparison: Mapping[float, FloatArray] | None = None,
    labels: tuple[str, str] = ("nominal", "comparison"),
) -> Figure:
    """Draw the acceptance for a long-lived particle against its proper decay length.

    Parameters
    ----------
    ctau : NDArray, shape (n,) [m]
    acceptances : mapping of mass [GeV] to NDArray, shape (n,)
        Accepted fraction of the produced particles.
    mock : bool
    errors : mapping of mass to NDArray, shape (n,), optional
        Standard deviations, drawn as bands.
    comparison : mapping of mass to NDArray, shape (n,), optional
        Drawn dashed in the colour of the same mass.
    labels : tuple of str
        What the solid and the dashed lines are.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    The form of Fig. 9 of Allison and Blinov (2025).
    """
    figure, axes = new_figure()
    ax = axes[0, 0]
    peak = 0.0
    for index, (mass, values) in enumerate(acceptances.items()):
        colour = COLOURS[index % len(COLOURS)]
        curve = checked(f"acceptance at {mass} GeV", values, ctau.shape)
        name = f"$m_{{A′}}$ = {mass:.3g} GeV"
        ax.plot(ctau, np.where(curve > 0, curve, np.nan), color=colour, label=name)
        peak = max(peak, float(curve.max()))
        if errors is not None and mass in errors:
            half = checked(f"errors at {mass} GeV", errors[mass], ctau.shape)
            low = np.maximum(curve - half, 1e-12)
            ax.fill_between(ctau, low, curve + half, color=colour, alpha=0.25, linewidth=0)
        if comparison is not None and mass in comparison:
            other = checked(f"comparison at {mass} GeV", comparison[mass], ctau.shape)
            ax.plot(ctau, np.where(other > 0, other, np.nan), color=colour, linestyle="--")
    if comparison is not None:
        for label, line in zip(labels, ("-", "--"), strict=True):
            ax.plot([], [], color="black", linestyle=line, label=label)
    if peak <= 0:
        say(ax, "No particle is accepted at any decay length.")
        peak = 1.0
    ax.set(xscale="log", yscale="log", xlim=(ctau[0], ctau[-1]), ylim=(1e-5 * peak, 4.0 * peak))
    ax.set(xlabel=r"$c\tau$ [m]", ylabel="acceptance")
    ax.legend(loc="best")
    mark_mock(ax, mock)
    return figure


@styled
def acceptance_vs_mass(
    mass: FloatArray,
    acceptances: Mapping[str, FloatArray],
    *,
    mock: bool,
    errors: Mapping[str, FloatArray] | None = None,
) -> Figure:
    """Draw acceptances against the mass.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    acceptances : mapping of label to NDArray, shape (n,)
        E.g. per detector, or the largest over the decay length.
    mock : bool
    errors : mapping of label to NDArray, shape (n,), optional
        Standard deviations, drawn as bands.

    Returns
    -------
    matplotlib.figure.Figure
    """
    figure, axes = new_figure(size=(7.2, 5.0))
    ax = axes[0, 0]
    curves = {label: checked(label, values, mass.shape) for label, values in acceptances.items()}
    if not any((curve > 0).any() for curve in curves.values()):
        say(ax, "No particle is accepted at any mass.")
    for index, (label, curve) in enumerate(curves.items()):
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        ax.plot(mass, np.where(curve > 0, curve, np.nan), color=colour, linestyle=line, label=label)
        if errors is not None and label in errors:
            half = checked(f"errors of {label!r}", errors[label], mass.shape)
            low = np.maximum(curve - half, 1e-12)
            ax.fill_between(mass, low, curve + half, color=colour, alpha=0.25, linewidth=0)
    log_range(ax, *curves.values(), decades=8.0, rows=len(curves))
    ax.set(xlabel=MASS_DARK, ylabel="acceptance", xlim=(mass[0], mass[-1]))
    ax.legend(loc="upper right")
    mark_mock(ax, mock)
    return figure


@styled
def yield_map(
    mass: FloatArray,
    coupling: FloatArray,
    signal: FloatArray,
    *,
    mock: bool,
    limit: float | None = None,
    log_mass: bool = True,
) -> Figure:
    """Draw the expected signal events over mass and coupling.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    coupling : NDArray, shape (k,)
    signal : NDArray, shape (n, k)
        Expected events.
    mock : bool
    limit : float, optional
        Upper limit on the signal, drawn as a contour.
    log_mass : bool
        Logarithmic mass axis.

    Returns
    -------
    matplotlib.figure.Figure
        The colours span from 10⁻³ events to the largest yield, at most 10⁶.
    """
    events = checked("signal", signal, (len(mass), len(coupling)))
    figure, axes = new_figure(size=(7.8, 5.8))
    ax = axes[0, 0]
    top = float(np.clip(np.nanmax(events, initial=0.0), 1.0, 1e6))
    # the floor lies below the lowest level: beyond its contour the plane stays white
    shown = np.log10(np.clip(np.nan_to_num(events), 1e-4, top)).T
    levels = np.arange(-3.0, np.ceil(np.log10(top)) + 0.51, 0.5)
    filled = ax.contourf(mass, coupling, shown, levels=levels, cmap="cividis_r")
    figure.colorbar(filled, ax=ax, pad=0.02).set_label(r"$\log_{10}$ expected events")
    if limit is not None and limit > 0 and (events > limit).any() and (events < limit).any():
        ax.contour(mass, coupling, np.nan_to_num(events).T, levels=[limit], colors=COLOURS[2], linewidths=2.0)
        ax.plot([], [], color=COLOURS[2], linewidth=2.0, label=f"{limit:.3g} events")
        ax.legend(loc="upper right")
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel=r"$\varepsilon$", xlim=(mass[0], mass[-1]))
    ax.set_ylim(coupling[0], coupling[-1])
    if log_mass:
        log_mass_axis(ax)
    mark_mock(ax, mock)
    return figure
