"""Figures of semi-visible dark photons: what searches exclude on a plane, lifetimes of the dark states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gammastar.core.records import BoolArray, FloatArray
from gammastar.report.style import COLOURS, LINES, MASS_DARK, log_mass_axis, new_figure, styled

EPSILON = "kinetic mixing $ε$"
MOST = 1e3


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Couplings that a search excludes."""

    label: str
    excess: FloatArray  # Above zero where it excludes; −inf where it says nothing, shape (m, k)
    # Two others, the ends of what the search may have seen, drawn as two shades; else one shade
    band: tuple[FloatArray, FloatArray] | None = None
    filled: bool = True  # False draws the edge alone, as a projection or an alternative


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A line or band of couplings against mass."""

    label: str
    # shape (n,)
    mass: FloatArray
    epsilon: FloatArray
    upper: FloatArray | None = None  # Fills a band from `epsilon` on, shape (n,)
    points: bool = False  # Mark the points: nothing is known between them


def _shown(excess: FloatArray) -> np.ma.MaskedArray:
    """Return what a contour is drawn of, shape (couplings, masses); masses without any are masked."""
    nothing = ~np.isfinite(excess).any(axis=1)
    return np.ma.masked_array(np.clip(excess, -MOST, MOST).T, np.broadcast_to(nothing, excess.T.shape))


def _region(ax: Axes, plane: tuple[FloatArray, FloatArray], region: Region, k: int) -> Line2D | Patch:
    colour = COLOURS[k % len(COLOURS)]
    if region.filled:
        shades = (region.excess,) if region.band is None else region.band
        for excess, alpha in zip(shades, (0.32, 0.18), strict=False):
            ax.contourf(*plane, _shown(excess), levels=[0.0, MOST], colors=[colour], alpha=alpha, zorder=2)
    line = LINES[0] if region.filled else LINES[1 + k % (len(LINES) - 1)]
    ax.contour(*plane, _shown(region.excess), levels=[0.0], colors=[colour], linestyles=[line], zorder=5)
    if region.filled:
        return Patch(facecolor=colour, edgecolor=colour, alpha=0.5, label=region.label)
    return Line2D([], [], color=colour, linestyle=line, label=region.label)


def _curve(ax: Axes, curve: Curve, k: int) -> Line2D | Patch:
    if curve.upper is not None:
        ax.fill_between(curve.mass, curve.epsilon, curve.upper, color="#4daf4a", alpha=0.3, lw=0, zorder=1)
        return Patch(color="#4daf4a", alpha=0.3, label=curve.label)
    look = {"color": str(0.15 + 0.25 * (k % 3)), "linestyle": LINES[(3 + k) % len(LINES)], "linewidth": 1.2}
    if curve.points:
        look |= {"marker": "o", "markersize": 4.0}
    ax.plot(curve.mass, curve.epsilon, zorder=4, **look)
    return Line2D([], [], label=curve.label, **look)


@styled
def exclusion_figure(
    plane: tuple[FloatArray, FloatArray],
    regions: Sequence[Region],
    curves: Sequence[Curve] = (),
    *,
    closed: BoolArray | None = None,
    title: str = "",
) -> Figure:
    """Draw what searches exclude of a model on the plane of mass and kinetic mixing."""
    mass, epsilon = plane
    figure, axes = new_figure(size=(10.8, 6.2))
    ax = axes[0, 0]
    handles = [_region(ax, plane, region, k) for k, region in enumerate(regions)]
    handles += [_curve(ax, curve, k) for k, curve in enumerate(curves)]
    if closed is not None and closed.any():
        ax.fill_between(
            mass,
            0,
            1,
            where=closed,
            transform=ax.get_xaxis_transform(),
            fc="none",
            ec="0.7",
            hatch="//",
            lw=0,
        )
        handles.append(Patch(fc="none", ec="0.6", hatch="//", label="$A′$ has no open dark decay"))
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel=EPSILON, ylim=(epsilon[0], epsilon[-1]))
    ax.set_xlim(mass[0], mass[-1])
    log_mass_axis(ax)
    ax.set_title(title, fontsize=12)
    ax.legend(handles=handles, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


@styled
def lifetime_figure(mass: FloatArray, ctau: FloatArray, epsilon: float, *, title: str = "") -> Figure:
    """Draw the proper decay lengths of the dark states against the mass of the dark photon."""
    figure, axes = new_figure(size=(7.2, 5.4))
    ax = axes[0, 0]
    for k, column in enumerate(ctau.T):
        known = np.isfinite(column) & (column > 0)
        look = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)]}
        if known.any():
            ax.plot(mass, np.where(known, column, np.nan), label=f"$ψ_{{{k + 1}}}$", **look)
        else:
            never = "does not decay" if np.isinf(column).all() else "decays at once"
            ax.plot([], [], label=f"$ψ_{{{k + 1}}}$: {never}", **look)
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel="$cτ$ [m]")
    ax.set_xlim(mass[0], mass[-1])
    log_mass_axis(ax)
    ax.set_title(f"{title}, $ε$ = {epsilon:g}" if title else f"$ε$ = {epsilon:g}", fontsize=12)
    ax.legend(fontsize=11)
    return figure
