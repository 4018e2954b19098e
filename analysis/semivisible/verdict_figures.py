"""Figures of what an inverse seesaw needs to explain (g−2)μ; every function takes results of `verdict`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from figures import BABAR, GREEN, NA64
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from verdict import ALPHA_D, POINTS, ByMass, Found, Map, couplings, needed

from gammastar.report.style import COLOURS, LINES, MASS_DARK, log_mass_axis, new_figure, styled
from gammastar.semivisible.missing_momentum import Missing

DARK = r"dark coupling $α_D$"
POLES = (10.0, 1e3)  # GeV


def _coupling_of(pole: float, mass: np.ndarray | float) -> np.ndarray:
    """Return the α_D whose Landau pole lies at an energy: three states, Σ Q² = 1."""
    return np.asarray(1.5 * np.pi / np.log(pole / np.asarray(mass)))


def _needed(ax, limit: float, x: float) -> None:
    """Draw what (g−2)μ allows: a band between the ends of 2020, and a line at its centre."""
    ends = {name: needed(epsilon, limit) for name, epsilon in couplings().items()}
    ax.axhspan(ends["upper end"], ends["lower end"], color=GREEN, alpha=0.3, linewidth=0, zorder=0)
    ax.axhline(ends["centre"], color=GREEN, linewidth=1.4, zorder=1)
    ax.text(
        x, 1.04 * ends["lower end"], r"allowed below, $(g-2)_\mu$ 2020 $\pm 2σ$", fontsize=9.5, va="bottom"
    )


@styled
def against_coupling(found: Sequence[Found], limit: float, mass: float) -> Figure:
    """Draw P_miss of named points against α_D; bands are statistical errors and, for two, BaBar's band."""
    figure, axes = new_figure(size=(9.6, 6.0))
    ax = axes[0, 0]
    _needed(ax, limit, 1.15e-3)
    for k, one in enumerate(found):
        p, colour = one.curve, COLOURS[k % len(COLOURS)]
        ax.plot(ALPHA_D, p.value, linestyle=LINES[k % len(LINES)], color=colour, label=one.point.label)
        low, high = np.maximum(p.value - p.error, 1e-7), p.value + p.error
        ax.fill_between(ALPHA_D, low, high, color=colour, alpha=0.35, linewidth=0)
        if k in (0, 4):
            ax.fill_between(ALPHA_D, p.low, p.high, color=colour, alpha=0.12, linewidth=0)
    for pole in POLES:
        x = float(_coupling_of(pole, mass))
        ax.axvline(x, color="0.5", linewidth=1.0, linestyle=":")
        text = f"Landau pole at {pole / 1e3:g} TeV" if pole >= 1e3 else f"at {pole:g} GeV"
        ax.text(1.05 * x, 5.6e-5, text, rotation=90, fontsize=9, va="bottom", color="0.35")
    ax.set(xscale="log", yscale="log", xlim=(1e-3, 10.0), ylim=(5e-5, 1.1))
    ax.set(xlabel=DARK, ylabel=r"$P_\mathrm{miss}$ at BaBar")
    ax.set_title(
        rf"$m_{{A′}}$ = {mass:g} GeV, $ε = 2.2\times10^{{-2}}$; pale: definition of visible", fontsize=12
    )
    ax.legend(fontsize=9.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


@styled
def over_masses(maps: Sequence[Map], limit: float, mass: float) -> Figure:
    """Draw the smallest α_D over splitting and mixing, one panel per mass of the second state."""
    figure, axes = new_figure(1, len(maps), size=(13.0, 5.0))
    norm, shown = LogNorm(1e-3, 10.0), None
    largest = needed(couplings()["centre"], limit)
    for ax, one in zip(axes[0], maps, strict=True):
        x, y = 1e3 * one.splitting, one.mixing
        z = np.ma.masked_invalid(one.alpha.T)
        never = np.ma.masked_where(~np.isinf(one.alpha.T), np.ones(one.alpha.T.shape))
        ax.pcolormesh(x, y, never, cmap="Greys", vmin=0.0, vmax=2.5, shading="nearest")
        shown = ax.pcolormesh(x, y, z, cmap="viridis", norm=norm, shading="nearest")
        ax.contour(x, y, np.ma.masked_invalid(one.prompt.T), levels=[largest], colors="red", linewidths=1.4)
        for point, mark in zip(POINTS, "o^sDP*", strict=True):
            light, middle, heavy = point.masses
            if np.isclose(middle, one.middle) and point.ratio == 1.0:
                square = (heavy - middle) / (heavy + light)
                ax.plot(1e3 * (middle - light), square, mark, color="red", markersize=9)
                ax.annotate(
                    point.label.split(":")[0],
                    (1e3 * (middle - light), square),
                    (-8, 10),
                    fontsize=9,
                    textcoords="offset points",
                    ha="right",
                    color="red",
                )
        ax.set(yscale="log", xlabel=r"$m_2 - m_1$ [MeV]", ylim=(y[0] / 1.2, y[-1] * 1.2))
        ax.set_title(f"$m_2$ = {1e3 * one.middle:g} MeV", fontsize=12)
    axes[0, 0].set_ylabel(r"mixing $|C_{12}|^2$")
    handles = [
        Patch(color="0.7", label=r"no $α_D$ is enough"),
        Line2D([], [], color="red", label=r"prompt $P_\mathrm{miss}$ as needed"),
    ]
    axes[0, 0].legend(handles=handles, fontsize=9.5, loc="lower left")
    axes[0, -1].text(
        0.97, 0.96, r"$m_2 + m_3 > m_{A′}$", transform=axes[0, -1].transAxes, ha="right", va="top"
    )
    figure.colorbar(
        shown, ax=axes[0].tolist(), label=rf"smallest $α_D$ at the centre of 2020, $m_{{A′}}$ = {mass:g} GeV"
    )
    return figure


@styled
def over_mediators(found: Sequence[ByMass]) -> Figure:
    """Draw where BaBar and NA64 leave the couplings of (g−2)μ, over the masses and α_D."""
    figure, axes = new_figure(1, len(found), size=(12.5, 5.6))
    looks = {
        "centre": ("-", 2.0),
        "centre, low end of the band": ("--", 1.5),
        "lower 2σ, low end of the band": (":", 1.8),
    }
    for ax, one in zip(axes[0], found, strict=True):
        for name, (style, width) in looks.items():
            z = np.log10(np.maximum(one.babar[name], 1e-9)).T
            if name == "centre":
                ax.contourf(one.mass, one.alpha, z, levels=[0.0, 20.0], colors=[BABAR], alpha=0.25)
            ax.contour(
                one.mass, one.alpha, z, levels=[0.0], colors=[BABAR], linestyles=[style], linewidths=width
            )
        for table, style in ((one.strict, "-"), (one.inclusive, "--")):
            z = np.ma.masked_invalid(np.log10(np.maximum(table, 1e-9)).T)
            if z.count() and z.max() > 0:
                if style == "-":
                    ax.contourf(one.mass, one.alpha, z, levels=[0.0, 20.0], colors=[NA64], alpha=0.25)
                ax.contour(one.mass, one.alpha, z, levels=[0.0], colors=[NA64], linestyles=[style])
        for pole in POLES:
            ax.plot(one.mass, _coupling_of(pole, one.mass), color="0.4", linewidth=1.0, linestyle=LINES[4])
            name = f"pole at {pole / 1e3:g} TeV" if pole >= 1e3 else f"pole at {pole:g} GeV"
            ax.text(
                1.02 * one.mass[0],
                1.06 * float(_coupling_of(pole, one.mass[0])),
                name,
                fontsize=9,
                va="bottom",
            )
        ax.set(yscale="log", ylim=(1e-3, 10.0), xlim=(one.mass[0], one.mass[-1]), xlabel=MASS_DARK)
        log_mass_axis(ax)
        ax.set_title(one.label, fontsize=12)
    axes[0, 0].set_ylabel(DARK)
    handles = [
        Patch(color=BABAR, alpha=0.4, label="excluded by BaBar, centre of 2020"),
        Line2D([], [], color=BABAR, linestyle="--", label="low end of BaBar's band"),
        Line2D([], [], color=BABAR, linestyle=":", label="and lower 2σ of the anomaly"),
        Patch(color=NA64, alpha=0.4, label="excluded by NA64, no decay inside"),
        Line2D(
            [],
            [],
            color=NA64,
            linestyle="--",
            label="NA64, decays inside count:\nexcluded to the right of it",
        ),
        Line2D([], [], color="0.4", linestyle=LINES[4], linewidth=1.0, label="Landau pole"),
        Patch(facecolor="white", edgecolor="0.5", label=r"white: explains $(g-2)_\mu$ of 2020"),
    ]
    axes[0, -1].legend(
        handles=handles, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0
    )
    return figure


@styled
def against_neutrinos(found: Mapping[float, Missing], label: str, limit: float, mass: float) -> Figure:
    """Draw P_miss against the mixing of ψ₁ with neutrinos."""
    figure, axes = new_figure(size=(7.6, 5.6))
    ax = axes[0, 0]
    _needed(ax, limit, 1.3e-8)
    for k, (alpha, p) in enumerate(found.items()):
        ax.plot(p.epsilon, p.value, linestyle=LINES[k], color=COLOURS[k], label=rf"$α_D$ = {alpha:g}")
        ax.fill_between(p.epsilon, np.maximum(p.low, 1e-9), p.high, color=COLOURS[k], alpha=0.15, linewidth=0)
        low = np.maximum(p.value - p.error, 1e-9)
        ax.fill_between(p.epsilon, low, p.value + p.error, color=COLOURS[k], alpha=0.35, linewidth=0)
    ax.axvline(3e-7, color="0.5", linewidth=1.0, linestyle=":")
    ax.text(
        4e-7, 1.2e-4, r"$|U_{\mu5}|^2$ of AHP2020-B", rotation=90, fontsize=9.5, va="bottom", color="0.35"
    )
    ax.set(xscale="log", yscale="log", xlim=(1e-8, 1.0), ylim=(1e-4, 0.1))
    ax.set(xlabel=r"$|V|^2$ of $\barν\,ψ_1$, in units of $g_D$", ylabel=r"$P_\mathrm{miss}$ at BaBar")
    ax.set_title(
        rf"{label.split(':', maxsplit=1)[0]}, $m_{{A′}}$ = {mass:g} GeV, $ψ_1 \to ν e^+ e^-$", fontsize=12
    )
    ax.legend(fontsize=10, loc="lower left")
    return figure
