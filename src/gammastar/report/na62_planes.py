"""Planes of the beam-dump search: maps over mass and coupling, axion-like particles, calibration run."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any

import numpy as np
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from gammastar.core.axes import COUPLING, LABELS
from gammastar.core.records import BoolArray, FloatArray
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

__all__ = ["alp_figure", "calibration_figure", "domain_figure", "plane_maps"]


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
