"""A first look at a finished run: kinematics at a mass, channels of a likelihood, points of a patch set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.axes import COUPLING, ENERGY, LABELS, PT
from gammastar.core.records import FloatArray
from gammastar.report.style import (
    COLOURS,
    LINES,
    MASS_DARK,
    log_mass_axis,
    mark_mock,
    new_figure,
    say,
    steps,
    styled,
)

BINS, MOST = 40, 0.995  # of the densities, and the part of a sample that they show
SIGNAL, FEW = "signal", 12  # sample of a likelihood; bins that have room for their names
STACKED = ("#3f90da", "#ffa90e", "#94a4a2", "#832db6", "#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd")
"""More colours of arXiv:2107.02270, for many samples, without the red of a signal."""


@styled
def densities_figure(
    samples: Mapping[float, tuple[FloatArray, FloatArray]],
    *,
    mock: bool,
    quantities: Sequence[str] = (PT, ENERGY),
) -> Figure:
    """Draw the densities of q_T and of the energy at some masses, each with unit area."""
    size = (10.5, 4.6) if len(quantities) > 1 else (6.2, 4.8)
    figure, axes = new_figure(1, len(quantities), size=size)
    for ax, quantity in zip(axes[0], quantities, strict=True):
        column = (PT, ENERGY).index(quantity)
        high = max(float(np.quantile(sample[column], MOST)) for sample in samples.values())
        edges = np.linspace(0.0, high, BINS + 1)
        top = 0.0
        for (mass, sample), colour, line in zip(samples.items(), cycle(COLOURS), cycle(LINES), strict=False):
            density = np.histogram(sample[column], edges)[0] / (len(sample[column]) * np.diff(edges))
            steps(ax, edges, density, color=colour, linestyle=line, label=f"{mass:g} GeV")
            top = max(top, float(density.max()))
        ax.set(xlabel=LABELS[quantity], ylabel="density [1/GeV]", xlim=(0.0, high))
        if quantity == ENERGY:
            ax.set_yscale("log")
        else:
            ax.set_ylim(0.0, 1.15 * top)  # room for the word MOCK
        ax.legend(loc="upper right", title="mass")
        mark_mock(ax, mock)
    return figure


@styled
def channels_figure(names: Sequence[str], counts: Mapping[str, FloatArray], *, mock: bool) -> Figure:
    """Draw the expected events of samples, stacked, in the bins of a likelihood."""
    figure, axes = new_figure(size=(7.2, 4.8))
    ax, edges = axes[0, 0], np.arange(len(names) + 1.0)
    below = np.zeros(len(names))
    there = {name: values for name, values in counts.items() if np.any(values)}
    order = sorted(there, key=lambda name: name == SIGNAL)
    backgrounds = cycle(STACKED if len(order) > len(COLOURS) else [c for c in COLOURS if c != COLOURS[2]])
    for name in order:
        colour, label = COLOURS[2] if name == SIGNAL else next(backgrounds), name.replace("_", " ")
        look = {"facecolor": colour, "label": label}
        if name == SIGNAL:
            look |= {"edgecolor": "white", "hatch": "//"}
        ax.stairs(below + there[name], edges, baseline=below, fill=True, linewidth=0, **look)
        below = below + there[name]
    rows = (len(order) + 1) // 2
    top = float(below.max(initial=0.0)) or 1.0
    ax.set(xlim=edges[[0, -1]], ylabel="expected events", ylim=(0.0, top / (0.86 - 0.06 * min(rows, 8))))
    if len(names) <= FEW:
        ax.set_xticks(edges[:-1] + 0.5, [name.replace("_", " ") for name in names])
        ax.tick_params(axis="x", which="both", length=0)
    else:
        ax.set_xlabel("bin of the likelihood")
    if order:
        ax.legend(loc="upper right", ncols=2)
    else:
        say(ax, "no events are expected in any bin")
    mark_mock(ax, mock)
    return figure


@styled
def points_figure(points: FloatArray, *, mock: bool, labels: tuple[str, str] | None = None) -> Figure:
    """Draw the points of mass [GeV] and coupling, shape (n, 2), for which a patch set has a signal."""
    figure, axes = new_figure(size=(7.2, 5.2))
    ax = axes[0, 0]
    ax.plot(points[:, 0], points[:, 1], ".", color=COLOURS[0], markersize=5)
    mass, coupling = labels or (MASS_DARK, LABELS[COUPLING])
    ax.set(yscale="log", xlabel=mass, ylabel=coupling)
    log_mass_axis(ax)
    ax.set_title(f"{len(points)} signals", loc="left")
    mark_mock(ax, mock)
    return figure
