"""Figures of the inference: pulls and impacts of nuisances, and limits with bands against mass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon

from gammastar.core.axes import COUPLING, LABELS, MASS
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Reach
from gammastar.report.figures.reach import existing, region
from gammastar.report.style import (
    BAND68,
    BAND95,
    COLOURS,
    MASS_DARK,
    checked,
    log_mass_axis,
    log_range,
    mark_mock,
    new_figure,
    steps,
    styled,
)


@styled
def impact_figure(
    names: Sequence[str],
    pull: FloatArray,
    constraint: FloatArray,
    impact: FloatArray,
    *,
    mock: bool,
    title: str = "",
    coupling: str = r"\varepsilon",
    prefit: FloatArray | None = None,
) -> Figure:
    r"""Draw the impacts of nuisances on the logarithm of the coupling as bars and their pulls as points."""
    n = len(names)
    require(n, "impact_figure: there is no nuisance to be drawn")
    pull, constraint = checked("pull", pull, (n,)), checked("constraint", constraint, (n,))
    impact = checked("impact", impact, (n, 2))
    figure, axes = new_figure(1, 1, size=(7.6, 1.9 + 0.46 * n))
    ax = axes[0, 0]
    place = np.arange(n)[::-1]
    for side, colour in ((0, COLOURS[0]), (1, COLOURS[1])):
        ax.barh(place, impact[:, side], height=0.62, color=colour, alpha=0.55, linewidth=0, zorder=2)
        if prefit is not None:
            before = checked("prefit", prefit, (n, 2))[:, side]
            ax.barh(place, before, height=0.62, fill=False, edgecolor=colour, linewidth=1.2, zorder=3)
    both = impact if prefit is None else np.concatenate([impact, np.nan_to_num(prefit)])
    widest = max(1.25 * float(np.abs(both).max()), 1e-4)
    ax.set(xlim=(-widest, widest), ylim=(-0.7, n - 0.3), xlabel=rf"impact $\Delta\log_{{10}}{coupling}$")
    ax.axvline(0.0, color="0.4", linewidth=0.8, zorder=1)
    ax.set_yticks(place, [f" {name.replace('_', ' ')}" for name in names])
    ax.tick_params(axis="y", which="both", length=0, labelsize=12)
    ax.locator_params(axis="x", nbins=5)
    top = ax.twiny()
    top.errorbar(
        pull, place, xerr=constraint, fmt="o", color="black", markersize=4.5, linewidth=1.3, zorder=5
    )
    reach = max(2.0, 1.1 * float(np.nan_to_num(np.abs(pull) + constraint).max()))
    top.set(xlim=(-reach, reach), xlabel=r"pull $(\hat\theta-\theta_0)/\Delta\theta$")
    for line in (-1.0, 1.0):
        top.axvline(line, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    handles = [
        Patch(facecolor=COLOURS[0], alpha=0.55, label=r"$\theta=-1\sigma$"),
        Patch(facecolor=COLOURS[1], alpha=0.55, label=r"$\theta=+1\sigma$"),
        Line2D([], [], color="black", marker="o", markersize=4.5, linewidth=1.3, label="pull"),
    ]
    if prefit is not None:
        handles.append(Patch(fill=False, edgecolor="0.3", linewidth=1.2, label="before the fit"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=13)
    mark_mock(top, mock, position=(0.97, 0.05))
    return figure


@styled
def limit_figure(
    mass: FloatArray,
    expected: FloatArray,
    *,
    mock: bool,
    observed: FloatArray | None = None,
    cl: float = 0.90,
    title: str = "",
    mass_label: str = MASS_DARK,
) -> Figure:
    """Draw upper limits on the signal events against mass with the expected bands."""
    n = len(mass)
    bands = checked("expected", expected, (n, 5))
    if mock and observed is not None:
        raise PhysicsError("limit_figure: mock data have no observed limit")
    figure, axes = new_figure(1, 1, size=(7.4, 5.4))
    ax = axes[0, 0]
    ax.fill_between(mass, bands[:, 0], bands[:, 4], color=BAND95, linewidth=0, label=r"expected $\pm2\sigma$")
    ax.fill_between(mass, bands[:, 1], bands[:, 3], color=BAND68, linewidth=0, label=r"expected $\pm1\sigma$")
    ax.plot(mass, bands[:, 2], color="black", linestyle="--", label="expected median")
    if observed is not None:
        ax.plot(mass, checked("observed", observed, (n,)), color="black", linewidth=2.2, label="observed")
    ax.set_xlim(float(mass[0]), float(mass[-1]))
    log_mass_axis(ax)
    drawn = bands if observed is None else np.column_stack([bands, observed])
    ax.set_ylim(0.0, 1.45 * float(np.nanmax(drawn)))
    ax.set(xlabel=mass_label, ylabel="upper limit on signal events")
    ax.set_title(title, loc="left")
    ax.set_title(f"{100 * cl:.3g} % CL", loc="right")
    handles, labels = ax.get_legend_handles_labels()
    order = sorted(
        range(len(labels)), key=lambda k: ("observed" not in labels[k], "median" not in labels[k], k)
    )
    ax.legend([handles[k] for k in order], [labels[k] for k in order], loc="upper right")
    mark_mock(ax, mock)
    return figure


def frame(expected: FloatArray) -> tuple[float, float]:
    """Return the range of couplings that is drawn about limits; any range where none is finite."""
    finite = expected[np.isfinite(expected)]
    return (0.2 * float(finite.min()), 3.0 * float(finite.max())) if finite.size else (1e-4, 1.0)


@styled
def coupling_figure(
    mass: FloatArray,
    expected: FloatArray,
    *,
    mock: bool,
    cl: float = 0.90,
    observed: FloatArray | None = None,
    limits: Sequence[tuple[str, FloatArray]] = (),
) -> Figure:
    """Draw limits on the coupling against mass with expected bands, for a signal that goes as ε²."""
    n = len(mass)
    bands = checked("expected", expected, (n, 5))
    if mock and observed is not None:
        raise PhysicsError("coupling_figure: mock data have no observed limit")
    figure, axes = new_figure(1, 1, size=(7.6, 6.2))
    ax = axes[0, 0]
    ax.set(yscale="log", xlim=(float(mass[0]), float(mass[-1])), ylim=frame(bands))
    for label, vertices in limits:
        existing(ax, label, vertices)
    for low, high, colour, text in ((0, 4, BAND95, r"$\pm2\sigma$"), (1, 3, BAND68, r"$\pm1\sigma$")):
        edges = bands[:, low], bands[:, high]
        ax.fill_between(mass, *edges, color=colour, linewidth=0, label=f"expected {text}")
    look = {
        "color": "black",
        "linestyle": "--",
        "marker": ".",
        "markersize": 4,
    }  # a mass between gaps is a point
    ax.plot(mass, bands[:, 2], label="expected median, 100 % measured", **look)
    if observed is not None:
        ax.plot(mass, checked("observed", observed, (n,)), color="black", linewidth=2.2, label="observed")
    log_mass_axis(ax)
    ax.set(xlabel=MASS_DARK, ylabel=LABELS[COUPLING])
    ax.set_title(f"{100 * cl:.3g} % CL, prompt decays in situ", loc="left")
    ax.legend(loc="lower right")
    mark_mock(ax, mock)
    return figure


@styled
def gap_figure(
    prompt: tuple[FloatArray, FloatArray],
    plane: tuple[FloatArray, FloatArray, FloatArray],
    reaches: Mapping[str, Reach],
    *,
    mock: bool,
    limits: Sequence[tuple[str, FloatArray]] = (),
) -> Figure:
    """Draw the reach for prompt decays and for those behind the target, and what lies between them."""
    mass, coupling, ratio = plane
    figure, axes = new_figure(1, 1, size=(7.6, 6.2))
    ax = axes[0, 0]
    ax.set(
        yscale="log", xlim=(float(mass[0]), float(mass[-1])), ylim=(float(coupling[0]), float(coupling[-1]))
    )
    for label, vertices in limits:
        existing(ax, label, vertices)
    ax.plot(*prompt, color="black", linestyle="--", label="prompt decays in situ, expected limit")
    if np.isfinite(prompt[1]).any():
        ax.set_ylim(top=60.0 * max(float(coupling[-1]), float(np.nanmax(prompt[1]))))
    shown = np.log10(np.maximum(ratio.T, 1e-30))
    top = int(np.floor(shown.max()))
    levels = [float(level) for level in range(top - 2, top + 1) if level != 0]
    if len(mass) > 1 and top > -20:
        look: dict[str, Any] = {"colors": COLOURS[0], "linewidths": 1.0, "linestyles": ":"}
        lines = ax.contour(mass, coupling, shown, levels=levels, **look)
        ax.clabel(lines, fmt=lambda level: rf"$10^{{{level:.0f}}}$", fontsize=10)
        ax.plot([], [], color=COLOURS[0], linestyle=":", label="displaced signal over its expected limit")
    for i, (name, reach) in enumerate(reaches.items(), 1):
        colour = COLOURS[i % len(COLOURS)]
        filled = name == "all"
        for polygon in region(reach.mass, reach.edges):
            ax.add_patch(
                Polygon(
                    polygon,
                    facecolor=colour if filled else "none",
                    alpha=0.35 if filled else 1.0,
                    edgecolor=colour,
                )
            )
        if np.isfinite(reach.edges).any():
            ax.plot(
                [], [], color=colour, label="displaced, expected reach" if filled else f"displaced, {name}"
            )
    log_mass_axis(ax)
    ax.set(xlabel=MASS_DARK, ylabel=LABELS[COUPLING])
    ax.set_title("between prompt searches and dumps", loc="left")
    ax.legend(loc="upper right")
    mark_mock(ax, mock)
    return figure


@styled
def peak_background_figure(
    edges: FloatArray,
    pairs: FloatArray,
    smooth: FloatArray | None,
    lines: Mapping[str, FloatArray],
    *,
    mock: bool,
) -> Figure:
    """Draw the pairs of a peak search per GeV with the templates of their background."""
    figure, axes = new_figure(1, 1, size=(7.4, 5.4))
    ax, width = axes[0, 0], np.diff(edges)
    steps(ax, edges, pairs / width, color="black", label="opposite-sign pairs")
    if smooth is not None:
        steps(
            ax,
            edges,
            smooth / width,
            color=COLOURS[0],
            linestyle="--",
            label="continuum and subtracted pairs",
        )
        total = smooth + sum(lines.values(), np.zeros_like(smooth))
        steps(ax, edges, total / width, color=COLOURS[1], label="with lines")
    for i, (name, line) in enumerate(lines.items()):
        steps(ax, edges, line / width, color=COLOURS[2 + i], linestyle=":", label=rf"$\{name}$, free yield")
    log_range(ax, pairs / width, decades=3.0, rows=4)
    ax.set(xlabel=LABELS[MASS], ylabel="pairs / GeV", xlim=(float(edges[0]), float(edges[-1])))
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock, position=(0.03, 0.05))
    return figure
