"""Planes of the beam-dump search: maps over mass and coupling, axion-like particles, calibration run."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure

from gammastar.core.axes import COUPLING, LABELS
from gammastar.core.records import FloatArray
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
    styled,
)

__all__ = ["alp_figure", "calibration_figure", "plane_maps"]


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
    for (name, values), colour, line in zip(limits.items(), COLOURS, LINES, strict=False):
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
        curves.items(), COLOURS * 2, LINES * 2, strict=False
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
