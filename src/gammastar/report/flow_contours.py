"""Regions of given probability in the plane of energy and transverse momentum, with bands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np
from matplotlib.artist import Artist
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from scipy.ndimage import gaussian_filter, zoom

from gammastar.core.axes import ENERGY, LABELS, PT
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.flow_figures import Kinematics
from gammastar.report.style import COLOURS, mark_mock, new_figure, styled

__all__ = ["flow_contours"]

_INKS = ("black", COLOURS[2], COLOURS[0], COLOURS[1])
_LINES: tuple[Literal["-", "--", ":"], ...] = ("-", "--", ":")
_SMOOTH = 1.5  # bins
_FINER = 8  # a band may be narrower than a bin


@styled
def flow_contours(
    mass: float,
    samples: Mapping[str, Kinematics],
    *,
    mock: bool,
    levels: Sequence[float] = (0.683, 0.954),
    n_bins: int = 70,
    members: Mapping[str, FloatArray] | None = None,
) -> Figure:
    """Draw regions of given probability content in the plane of energy and q_T at one mass.

    Parameters
    ----------
    mass : float [GeV]
    samples : mapping of label to Kinematics
        For example a flow, the pairs, a theory; one colour each.
    mock : bool
    levels : sequence of float
        Probability contents, the inner region first.
    n_bins : int
        Bins along each axis (equal in ln E); the density d²N/(dE dq_T) is smoothed by one and a half of them.
    members : mapping of label to NDArray, shape (n_members, n), optional
        Weights of an ensemble's members on a sample; a band covers the contours of all of them.

    Returns
    -------
    matplotlib.figure.Figure

    Raises
    ------
    PhysicsError
        If a sample is empty or its weights sum to nothing.

    Notes
    -----
    The form of Fig. 6 of Allison and Blinov (2025).
    """
    figure, axes = new_figure(size=(7.2, 5.6))
    ax = axes[0, 0]
    upper = [max(_reach(s[i], s[2]) for s in samples.values()) for i in (1, 0)]
    lowest = min(_reach(s[1], s[2], 0.002) for s in samples.values())
    # theory reaches to energies of the beam, where pairs are few: equal steps of ln E show both
    edges = [np.geomspace(0.9 * lowest, upper[0], n_bins + 1), np.linspace(0.0, upper[1], n_bins + 1)]
    centres = [np.sqrt(edges[0][1:] * edges[0][:-1]), 0.5 * (edges[1][1:] + edges[1][:-1])]
    handles: list[Artist] = []
    for (label, (pt, energy, weight)), colour in zip(samples.items(), _INKS, strict=False):
        content = _content(energy, pt, weight, edges)
        lines = {"linestyles": list(_LINES[: len(levels)]), "linewidths": 1.6}
        ax.contour(*centres, content.T, levels=levels, colors=colour, **lines)
        if members is not None and label in members:
            rows = np.array([_content(energy, pt, own * weight, edges) for own in members[label]])
            low, high = (zoom(part, _FINER, order=1) for part in (rows.min(axis=0), rows.max(axis=0)))
            fine = [np.interp(np.linspace(0, n_bins - 1, len(low)), np.arange(n_bins), x) for x in centres]
            for level in levels:  # inside for some members, outside for others
                beyond = np.maximum(low - level, level - high)
                ax.contourf(*fine, beyond.T, levels=[-2.0, 0.0], colors=[colour], alpha=0.25)
        handles.append(Line2D([], [], color=colour, label=label))
    for level, line in zip(levels, _LINES, strict=False):
        handles.append(Line2D([], [], color="0.4", linestyle=line, label=f"{100 * level:.3g} % of all"))
    if members:
        handles.append(Patch(facecolor="0.5", alpha=0.35, label="spread of the members"))
    ax.set(xscale="log", xlim=edges[0][[0, -1]], ylim=(0.0, 1.6 * upper[1]))
    ax.set(xlabel=LABELS[ENERGY], ylabel=LABELS[PT])
    ax.legend(handles=handles, title=f"$m$ = {mass:.3g} GeV", loc="upper right", fontsize=11)
    mark_mock(ax, mock)
    return figure


def _reach(values: FloatArray, weight: FloatArray, part: float = 0.985) -> float:
    order = np.argsort(values)
    running = np.cumsum(np.abs(weight[order]))
    if not running.size or not running[-1] > 0:
        msg = f"report: a sample of {running.size} particles has no weight; nothing can be drawn"
        raise PhysicsError(msg)
    return 1.02 * float(values[order][np.searchsorted(running, part * running[-1])])


def _content(
    energy: FloatArray, pt: FloatArray, weight: FloatArray, edges: Sequence[FloatArray]
) -> FloatArray:
    """Return for each cell the probability of the region where the density is higher."""
    counts, _, _ = np.histogram2d(energy, pt, bins=list(edges), weights=weight)
    counts = np.maximum(gaussian_filter(counts, _SMOOTH, mode="nearest"), 0.0)
    order = np.argsort(-counts / np.diff(edges[0])[:, None], axis=None)
    content = np.empty(counts.size)
    content[order] = np.cumsum(counts.ravel()[order]) / float(weight.sum())  # of all, also beyond the frame
    result: FloatArray = content.reshape(counts.shape)
    return result
