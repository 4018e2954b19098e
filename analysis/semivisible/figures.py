"""Figures of the semi-visible dark photon; every function takes arrays and returns a figure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gammastar.report.style import COLOURS, LINES, MASS_DARK, log_mass_axis, new_figure, styled
from gammastar.semivisible import Plane, Published, gm2, intervals

EPSILON = "kinetic mixing $ε$"
BABAR, NA64, GREEN = COLOURS[0], COLOURS[2], "#4daf4a"
RELIC, CMB, BELLE = "#8c564b", "#7f7f00", "#c2185b"
OVERFLOW = 1e3


def _g2_bands(ax, mass) -> list:
    """Draw the 2020 band (2σ) and the 2025 upper limit; return their entries of the legend."""
    old, new = gm2.reference("wp20"), gm2.reference()
    low, high = old.band(mass)
    ax.fill_between(mass, low, high, color=GREEN, alpha=0.35, linewidth=0, zorder=1)
    ax.plot(mass, gm2.epsilon_for(mass, old.difference), color=GREEN, linewidth=1.0, zorder=1)
    ax.plot(mass, new.band(mass)[1], color="black", linestyle=LINES[3], linewidth=1.6, zorder=6)
    return [
        Patch(color=GREEN, alpha=0.35, label=r"$(g-2)_\mu$ 2020, $\pm 2\sigma$"),
        Line2D([], [], color="black", linestyle=LINES[3], label=r"$(g-2)_\mu$ 2025, upper limit"),
    ]


def _excess(plane: Plane, probability, limit) -> np.ma.MaskedArray:
    """Return log10 ε²P/ε_lim², masked where nothing is published, shape (couplings, masses)."""
    with np.errstate(divide="ignore", invalid="ignore"):
        z = np.log10(plane.epsilon**2 * np.maximum(probability, 1e-300) / limit[:, None] ** 2)
    return np.ma.masked_invalid(z.T)


def _shown(plane: Plane, limit: Published) -> np.ndarray:
    """Return the limit at the masses of the plane, nan where shipped points do not say what was published."""
    return np.where(limit.known(plane.mass), limit.at(plane.mass), np.nan)


def _bars(
    ax, plane: Plane, limit: Published, rows: Sequence[tuple[np.ndarray, float, float]], look: dict
) -> None:
    """Draw what is excluded at the masses of shipped points alone: rows of probability, width and opacity."""
    at = np.flatnonzero(np.isclose(plane.mass[:, None], limit.mass, rtol=1e-9).any(axis=1))
    bound = limit.at(plane.mass[at])
    for probability, width, alpha in rows:
        reach = intervals(plane.mass[at], plane.epsilon, probability[at], bound)
        low, high = reach.edges.T
        ax.vlines(reach.mass, low, high, linewidth=width, alpha=alpha, **look)
        if alpha == 1.0:
            ax.plot(reach.mass, low, "_", markersize=9, markeredgewidth=2.0, **look)
            ends = np.array(["upper" not in side for side in reach.clipped_side])
            ax.plot(reach.mass[ends], high[ends], "_", markersize=9, markeredgewidth=2.0, **look)


def _frame(ax, title: str) -> None:
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel=EPSILON)
    log_mass_axis(ax)
    ax.set_title(title, fontsize=12)


@dataclass(frozen=True)
class More:
    """Lines of cosmology and of projections in one plane, on the masses of the plane; None is not drawn.

    Attributes
    ----------
    relic, cmb : NDArray or None, shape (m,)
        Kinetic mixing of the relic density, and the largest that the CMB allows.
    displaced : NDArray or None, shape (m, k)
        Events with a displaced pair at Belle II over those that are excluded.
    """

    relic: np.ndarray | None = None
    cmb: np.ndarray | None = None
    displaced: np.ndarray | None = None


def _more(ax, plane: Plane, more: More) -> list:
    """Draw lines of cosmology and Belle II; return their entries of the legend."""
    handles = []
    for curve, colour, label in (
        (more.relic, RELIC, r"relic density of $ψ_1$ (below: too much)"),
        (more.cmb, CMB, r"CMB, if $ψ_1$ is dark matter (above: excluded)"),
    ):
        if curve is not None and np.isfinite(curve).any():
            ax.plot(plane.mass, curve, color=colour, linewidth=2.2, linestyle="-.", zorder=7)
            handles.append(Line2D([], [], color=colour, linewidth=2.2, linestyle="-.", label=label))
    if more.displaced is not None:
        with np.errstate(divide="ignore"):
            z = np.log10(np.maximum(more.displaced, 1e-30)).T
        ax.contour(
            plane.mass, plane.epsilon, z, levels=[0.0], colors=[BELLE], linestyles=[(0, (6, 1.5))], zorder=5
        )
        look = {"color": BELLE, "linestyle": (0, (6, 1.5))}
        handles.append(Line2D([], [], label="Belle II displaced, 50/ab (projection)", **look))
    return handles


@styled
def exclusion_plane(
    plane: Plane,
    title: str,
    limits: Mapping[str, Published],
    annihilation: tuple[float, float],
    more: More | None = None,
    eot: float = 1e13,
) -> Figure:
    """Draw what BaBar and NA64 exclude, with the band of the visible definition, and (g−2)μ."""
    figure, axes = new_figure(size=(10.5, 6.6))
    ax = axes[0, 0]
    ax.set_xlim(plane.mass[0], plane.mass[-1])
    ax.set_ylim(1e-5, 1e-1)
    babar, na64 = (_shown(plane, limits[name]) for name in ("babar", "na64_2016_18"))
    every, filled = [0.0, OVERFLOW], limits["babar"].full
    for probability, alpha in ((plane.babar_high, 0.18), (plane.babar_low, 0.32)):
        z = _excess(plane, probability, babar)
        if filled:
            ax.contourf(plane.mass, plane.epsilon, z, levels=every, colors=[BABAR], alpha=alpha, zorder=2)
        else:
            look = {"levels": [0.0], "colors": [BABAR], "linewidths": 0.8, "linestyles": "--", "zorder": 4}
            ax.contour(plane.mass, plane.epsilon, z, **look)
    if not filled:
        rows = ((plane.babar_high, 9.0, 0.18), (plane.babar_low, 9.0, 0.32), (plane.babar, 1.5, 1.0))
        _bars(ax, plane, limits["babar"], rows, {"color": BABAR, "zorder": 3})
    ax.contour(
        plane.mass, plane.epsilon, _excess(plane, plane.babar, babar), levels=[0.0], colors=[BABAR], zorder=5
    )
    strict = _excess(plane, plane.strict, na64)
    if limits["na64_2016_18"].full:
        ax.contourf(plane.mass, plane.epsilon, strict, levels=every, colors=[NA64], alpha=0.28, zorder=2)
    else:
        rows = ((plane.strict, 9.0, 0.28), (plane.strict, 1.5, 1.0))
        _bars(ax, plane, limits["na64_2016_18"], rows, {"color": NA64, "zorder": 3})
    ax.contour(plane.mass, plane.epsilon, strict, levels=[0.0], colors=[NA64], zorder=5)
    inside = _excess(plane, plane.inclusive, na64)
    look = {"levels": [0.0], "colors": [NA64], "zorder": 5}
    ax.contour(plane.mass, plane.epsilon, inside, linestyles="--", **look)
    future = _excess(plane, plane.inclusive, na64 * np.sqrt(2.84e11 / eot))
    ax.contour(plane.mass, plane.epsilon, future, linestyles=":", **look)
    for name, colour, curve in (("babar", BABAR, babar), ("na64_2016_18", NA64, na64)):
        ax.plot(plane.mass, curve, color=colour, linewidth=1.0, linestyle=LINES[4], zorder=4)
        if not limits[name].full:
            ax.plot(limits[name].mass, limits[name].epsilon, "o", color=colour, markersize=4, zorder=6)
    ax.axvspan(*annihilation, ymax=0.03, color="black", alpha=0.6, linewidth=0)
    handles = [
        Patch(color=BABAR, alpha=0.5, label=r"BaBar $\gamma$ + missing; band: visible definition"),
        Patch(color=NA64, alpha=0.3, label="NA64 2016–18, no decay inside"),
        Line2D([], [], color=NA64, linestyle="--", label="NA64 2016–18, decays inside count"),
        Line2D([], [], color=NA64, linestyle=":", label=r"the same, $10^{13}$ electrons (projection)"),
        Line2D([], [], color="0.4", linestyle=LINES[4], linewidth=1.0, label="invisible dark photon"),
        *_g2_bands(ax, plane.mass),
        *_more(ax, plane, more or More()),
        Patch(color="black", alpha=0.6, label=r"NA64: $e^+$ annihilation, not modelled"),
    ]
    if not filled:
        text = "dots, bars: published limit at shipped\npoints; lines where it is straight (to 2 GeV)"
        handles.append(Line2D([], [], color="0.3", marker="o", linestyle="none", markersize=4, label=text))
    ax.legend(handles=handles, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    _frame(ax, title)
    return figure


@styled
def muon_panels(
    mass, invisible: Mapping[str, Published], visible: Sequence[tuple[str, np.ndarray]]
) -> Figure:
    """Draw the explanations of (g−2)μ by a visible and by an invisible dark photon."""
    figure, axes = new_figure(1, 2, size=(12.5, 5.6))
    for ax, name in zip(axes[0], ("visible", "invisible"), strict=True):
        handles = _g2_bands(ax, mass)
        ax.set_xlim(mass[0], mass[-1])
        ax.set_ylim(1e-5, 1e-1)
        if name == "invisible":
            for key, colour, label in (
                ("babar", BABAR, "BaBar 2017"),
                ("na64_2016_18", NA64, "NA64 2016–18"),
                ("na64_2016_22", COLOURS[3], "NA64 2016–22"),
            ):
                limit = invisible[key]
                if limit.full:
                    ax.fill_between(limit.mass, limit.epsilon, 1.0, color=colour, alpha=0.25, linewidth=0)
                else:
                    ax.vlines(limit.mass, limit.epsilon, 1.0, color=colour, alpha=0.25, linewidth=7.0)
                look = {"color": colour, "linestyle": "-" if limit.full else "none"}
                look |= {"marker": "" if limit.full else "o", "markersize": 4}
                ax.plot(limit.mass, limit.epsilon, **look)
                handles.append(
                    Line2D([], [], label=label if limit.full else f"{label}, shipped points", **look)
                )
        for k, (label, curve) in enumerate(visible if name == "visible" else ()):
            colour = COLOURS[k % len(COLOURS)]
            ax.fill_between(curve[:, 0], curve[:, 1], 1.0, color=colour, alpha=0.2, linewidth=0)
            ax.plot(curve[:, 0], curve[:, 1], color=colour, linewidth=1.0)
            handles.append(Line2D([], [], color=colour, label=label))
        if name == "visible" and not visible:
            ax.text(0.5, 0.3, "limits: name a folder\nwith --curves", transform=ax.transAxes, ha="center")
        ax.legend(handles=handles, fontsize=10, loc="lower right")
        _frame(ax, f"$A′$ decays {'to leptons and hadrons' if name == 'visible' else 'invisibly'}")
    return figure


@styled
def missing_against_threshold(
    thresholds, curves: Mapping[str, tuple[np.ndarray, np.ndarray]], needed: float, mass: float
) -> Figure:
    """Draw P_miss of prompt decays at one mass against the energy threshold of BaBar."""
    figure, axes = new_figure(size=(7.4, 5.6))
    ax = axes[0, 0]
    for k, (label, (value, error)) in enumerate(curves.items()):
        ax.plot(1e3 * thresholds, value, linestyle=LINES[k % len(LINES)], color=COLOURS[k], label=label)
        low, high = np.maximum(value - error, 1e-6), value + error
        ax.fill_between(1e3 * thresholds, low, high, color=COLOURS[k], alpha=0.3, linewidth=0)
    ax.axhline(needed, color="black", linewidth=1.0)
    ax.text(247, 0.85 * needed, r"allowed at $ε = 2.1\times10^{-2}$", fontsize=10, ha="right", va="top")
    ax.axvspan(50, 150, color="0.9", zorder=0)
    ax.text(100, 1.3, "band of the recast", ha="center", fontsize=10)
    ax.set(yscale="log", ylim=(1e-6, 3), xlim=(0, 1e3 * thresholds[-1]))
    ax.set(xlabel="threshold on the energy of a visible particle [MeV]", ylabel=r"$P_\mathrm{miss}$")
    ax.set_title(f"BaBar, prompt decays, $m_{{A′}}$ = {mass:g} GeV", fontsize=12)
    ax.legend(fontsize=10, loc="lower right")
    return figure


@styled
def missing_against_mass(mass, curves: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]]) -> Figure:
    """Draw P_miss of prompt decays against the mass, with its band."""
    figure, axes = new_figure(size=(7.4, 5.6))
    ax = axes[0, 0]
    for k, (label, (value, low, high)) in enumerate(curves.items()):
        ax.plot(mass, value, linestyle=LINES[k], color=COLOURS[k], label=label)
        ax.fill_between(mass, low, high, color=COLOURS[k], alpha=0.18, linewidth=0)
    ax.set(yscale="log", xlim=(mass[0], mass[-1]), ylim=(1e-5, 2), xlabel=MASS_DARK)
    ax.set_ylabel(r"$P_\mathrm{miss}$")
    log_mass_axis(ax)
    ax.set_title("BaBar, prompt decays; bands: thresholds, angles, factor 2", fontsize=12)
    ax.legend(fontsize=10, loc="lower left")
    return figure


@styled
def na64_scale(mass, ours, curves: Mapping[str, Published], annihilation: tuple[float, float]) -> Figure:
    """Draw published limits of NA64 against dark bremsstrahlung with efficiency one, and their ratio."""
    figure, axes = new_figure(2, 1, size=(7.4, 7.0), heights=(2.4, 1.0), share_x=True)
    top, bottom = axes[:, 0]
    for (name, eot), colour in zip(ours, (NA64, COLOURS[3]), strict=True):
        limit, line = curves[name], ours[name, eot]
        at = np.flatnonzero(limit.full | np.isclose(mass[:, None], limit.mass, rtol=1e-9).any(axis=1))
        points = limit.at(mass[at])
        text = f"{eot:.3g}".replace("e+", r"\times10^{") + "}"
        mark = {"linestyle": "-"} if limit.full else {"linestyle": "none", "marker": "o", "markersize": 5}
        top.plot(mass[at], points, color=colour, label=f"published, ${text}$ electrons", **mark)
        top.plot(mass, line, "--", color=colour, label="bremsstrahlung, efficiency one")
        bottom.plot(mass[at], (line[at] / points) ** 2, color=colour, **mark)
    for ax in (top, bottom):
        ax.axvspan(*annihilation, color="0.88", zorder=0)
    bottom.axhspan(0.25, 0.8, color=GREEN, alpha=0.2, zorder=0)
    top.text(np.sqrt(np.prod(annihilation)), 2e-5, "$e^+$", ha="center")
    top.set(yscale="log", ylabel=r"$ε$, 90% CL", xlim=(mass[0], mass[-1]))
    bottom.set(ylabel="implied\nefficiency", ylim=(0, 1.05), xlabel=MASS_DARK)
    log_mass_axis(bottom)
    top.legend(fontsize=10)
    top.set_title("NA64: check of scale, invisible dark photon", fontsize=12)
    return figure


@styled
def lepton_energies(edges, curves: Mapping[str, np.ndarray], mass: float) -> Figure:
    """Draw the energy of the harder lepton of each decay in the laboratory of BaBar."""
    figure, axes = new_figure(size=(7.4, 5.4))
    ax = axes[0, 0]
    for k, (label, counts) in enumerate(curves.items()):
        density = counts / counts.sum() / np.diff(np.log10(edges))
        ax.stairs(density, edges, color=COLOURS[k], linestyle=LINES[k], linewidth=1.8, label=label)
    ax.axvspan(0.05, 0.15, color="0.9", zorder=0)
    ax.set(xscale="log", xlim=(edges[0], edges[-1]), ylim=(0, None))
    ax.set(xlabel="energy of the harder lepton [GeV]", ylabel="decays per decade, normalised")
    ax.set_title(f"laboratory of BaBar, $m_{{A′}}$ = {mass:g} GeV; grey: thresholds", fontsize=12)
    ax.legend(fontsize=10, loc="upper left")
    return figure
