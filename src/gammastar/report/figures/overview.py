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
    steps,
    styled,
)

__all__ = ["channels_figure", "densities_figure", "points_figure"]

BINS, MOST = 40, 0.995  # of the densities, and the part of a sample that they show


@styled
def densities_figure(samples: Mapping[float, tuple[FloatArray, FloatArray]], *, mock: bool) -> Figure:
    """Draw the densities of q_T and of the energy at some masses, each with unit area.

    Parameters
    ----------
    samples : mapping of mass [GeV] to (q_T, energy), each of shape (n,) [GeV]
    mock : bool
    """
    figure, axes = new_figure(1, 2, size=(10.5, 4.6))
    for column, quantity in enumerate((PT, ENERGY)):
        ax = axes[0, column]
        high = max(float(np.quantile(sample[column], MOST)) for sample in samples.values())
        edges = np.linspace(0.0, high, BINS + 1)
        for (mass, sample), colour, line in zip(samples.items(), cycle(COLOURS), cycle(LINES), strict=False):
            density = np.histogram(sample[column], edges)[0] / (len(sample[column]) * np.diff(edges))
            steps(ax, edges, density, color=colour, linestyle=line, label=f"{mass:g} GeV")
        ax.set(xlabel=LABELS[quantity], ylabel="density [1/GeV]", xlim=(0.0, high))
        if quantity == ENERGY:
            ax.set_yscale("log")
        ax.legend(loc="upper right", title="mass")
        mark_mock(ax, mock)
    return figure


@styled
def channels_figure(names: Sequence[str], counts: Mapping[str, FloatArray], *, mock: bool) -> Figure:
    """Draw the expected events of samples, stacked, in the bins of a likelihood.

    Parameters
    ----------
    names : sequence of str, length n
        Of the bins: the channel, with a number where it has several.
    counts : mapping of sample to NDArray, shape (n,)
    mock : bool
    """
    figure, axes = new_figure(size=(7.2, 4.8))
    ax, edges = axes[0, 0], np.arange(len(names) + 1.0)
    below = np.zeros(len(names))
    for (label, values), colour in zip(counts.items(), cycle(COLOURS), strict=False):
        ax.bar(edges[:-1] + 0.5, values, bottom=below, width=0.9, color=colour, label=f"{label}")
        below = below + values
    few = [name if len(names) <= 12 else "" for name in names]
    ax.set(xticks=edges[:-1] + 0.5, xticklabels=few, xlim=edges[[0, -1]], ylabel="expected events")
    ax.set_ylim(0.0, 1.3 * float(below.max()) or 1.0)
    ax.legend(loc="upper right")
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
