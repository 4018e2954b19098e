"""Pulls, coverage and correlation of pseudo-experiments with a known truth."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.figure import Figure

from gammastar.core.records import FloatArray
from gammastar.report.style import COLOURS, MASS_DARK, mark_mock, new_figure, styled

__all__ = ["pull_figure"]

ONE_SIGMA = 0.6827


@styled
def pull_figure(
    mass: FloatArray,
    pulls: FloatArray,
    coverage: Mapping[str, FloatArray],
    estimated: FloatArray,
    *,
    mock: bool,
) -> Figure:
    """Draw mean and width of pulls and the coverage per mass, and their correlation between masses.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
    pulls : NDArray, shape (k, n)
        One row per experiment.
    coverage : mapping of label to NDArray, shape (n,)
        Part of the experiments whose ±1σ interval holds the truth.
    estimated : NDArray, shape (n, n)
        Correlation that the experiments themselves give, in their mean.
    mock : bool

    Returns
    -------
    matplotlib.figure.Figure
        Panels: pulls; coverage, with the binomial error of one mass as a band; correlation found below the
        diagonal and estimated above it.
    """
    k = len(pulls)
    figure, axes = new_figure(3, size=(7.6, 11.0), heights=(1.0, 1.0, 1.7))
    ax = axes[0, 0]
    mean, width = pulls.mean(axis=0), pulls.std(axis=0, ddof=1)
    for value, error, level, name, colour in (
        (mean, 1 / np.sqrt(k), 0.0, "mean", COLOURS[0]),
        (width, 1 / np.sqrt(2 * (k - 1)), 1.0, "width", COLOURS[2]),
    ):
        ax.axhspan(level - error, level + error, color=colour, alpha=0.2, linewidth=0)
        ax.plot(mass, value, "o", color=colour, label=name)
    ax.set(ylim=(-1.0, 2.2), ylabel="pull of the rate")
    ax.legend(ncols=2, loc="upper right")
    mark_mock(ax, mock)
    ax = axes[1, 0]
    error = np.sqrt(ONE_SIGMA * (1 - ONE_SIGMA) / k)
    ax.axhspan(ONE_SIGMA - error, ONE_SIGMA + error, color="0.85", linewidth=0)
    ax.axhline(ONE_SIGMA, color="0.4", linewidth=1)
    for i, (name, values) in enumerate(coverage.items()):
        ax.plot(mass, values, "os^v"[i % 4], color=COLOURS[i % len(COLOURS)], label=name, markersize=5)
    ax.set(ylim=(0.3, 1.25), ylabel=r"coverage of $\pm1\sigma$", xlabel=MASS_DARK)
    ax.legend(ncols=2, loc="upper right", fontsize=11)
    ax = axes[2, 0]
    found = np.corrcoef(pulls.T)
    both = np.where(np.triu(np.ones_like(found), 1) > 0, found, estimated)
    edge = [mass[0], mass[-1]]
    mesh = ax.pcolormesh(mass, mass, both, vmin=-1, vmax=1, cmap="RdBu_r", shading="nearest")
    ax.plot(edge, edge, color="0.3", linewidth=0.8)
    figure.colorbar(mesh, ax=ax, label="correlation of the pulls")
    ax.set(xlabel=MASS_DARK, ylabel=MASS_DARK, aspect="equal")
    ax.set_title("below the diagonal: found; above: estimated", loc="left", fontsize=12)
    return figure
