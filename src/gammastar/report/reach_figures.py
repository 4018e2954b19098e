"""The reach in mass and coupling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Polygon

from gammastar.core.axes import COUPLING, LABELS
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.contours import Contour, islands, outline
from gammastar.report.style import (
    BAND68,
    BAND95,
    COLOURS,
    GREY,
    checked,
    mark_mock,
    new_figure,
    power_of_ten,
    styled,
)

__all__ = ["Plane", "reach_figure"]

_LINES: dict[str, Any] = {"measured": "-", "extrapolated": "--", "expected": "-"}


@dataclass(frozen=True, slots=True)
class Plane:
    r"""The plane of mass and coupling: ranges, labels and the line at threshold.

    Attributes
    ----------
    mass_range, coupling_range : tuple of float, optional
        Shown ranges; by default around the contours.
    log_mass : bool
        Logarithmic mass axis.
    threshold : float or None
        Mass below which the search has no final state or no measured spectrum [GeV]; a dotted line.
    threshold_label, mass_label, coupling_label : str
    """

    mass_range: tuple[float, float] | None = None
    coupling_range: tuple[float, float] | None = None
    log_mass: bool = True
    threshold: float | None = 2 * M_MU
    threshold_label: str = r"$2m_\mu$"
    mass_label: str = r"$m_{A'}$ [GeV]"
    coupling_label: str = LABELS[COUPLING]


@styled
def reach_figure(
    contours: Sequence[Contour],
    *,
    mock: bool,
    pot: float,
    cl: float = 0.90,
    limits: Sequence[tuple[str, FloatArray]] = (),
    plane: Plane | None = None,
) -> Figure:
    """Draw the expected reach in the plane of mass and coupling.

    Parameters
    ----------
    contours : sequence of Contour
        Drawn in order; measured ones solid and filled, extrapolated ones dashed and hatched.
    mock : bool
        From mock data; the word stands in the title and in the axes.
    pot : float
        Protons on target.
    cl : float
        Confidence level.
    limits : sequence of (label, NDArray of shape (n, 2))
        Polygons (mass [GeV], coupling) of existing limits, grey.
    plane : Plane, optional
        Ranges, labels and the threshold line; by default those of a dark photon to dimuons.

    Returns
    -------
    matplotlib.figure.Figure

    Notes
    -----
    A contour is an expected reach; an exclusion needs real data with an observation.
    """
    plane = Plane() if plane is None else plane
    figure, axes = new_figure(size=(7.6, 6.2))
    ax = axes[0, 0]
    ax.set(xscale="log" if plane.log_mass else "linear", yscale="log")
    ax.set(xlabel=plane.mass_label, ylabel=plane.coupling_label)
    x_range, y_range = _ranges(contours, plane)
    ax.set(xlim=x_range, ylim=y_range)
    for label, vertices in limits:
        _existing(ax, label, vertices)
    handles: list[Patch] = []
    main = [contour for contour in contours if contour.kind != "extrapolated"]
    for index, contour in enumerate(contours):
        colour = COLOURS[(main.index(contour) if contour in main else index) % len(COLOURS)]
        handles += _draw(ax, contour, colour)
    _threshold(ax, plane)
    parts = [
        "expected reach",
        f"{100 * cl:.3g} % CL",
        f"{power_of_ten(pot)} POT",
        *(["MOCK"] if mock else []),
    ]
    ax.set_title(", ".join(parts))
    if handles:
        ax.legend(handles=handles, loc="upper right")
    mark_mock(ax, mock)
    return figure


def _ranges(contours: Sequence[Contour], plane: Plane) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the shown ranges: those asked for, else around all contours and bands."""
    pooled = [c.reach.edges for c in contours] + [c.bands for c in contours if c.bands is not None]
    couplings = np.concatenate([array[np.isfinite(array)] for array in pooled] or [np.empty(0)])
    masses = np.concatenate([c.reach.mass for c in contours] or [np.empty(0)])
    if (plane.coupling_range is None and not couplings.size) or (
        plane.mass_range is None and not masses.size
    ):
        msg = "reach_figure: no contour reaches anything; give the ranges of `plane` to draw it empty"
        raise PhysicsError(msg)
    mass_range, coupling_range = plane.mass_range, plane.coupling_range
    if mass_range is None:
        low, high = float(masses.min()), float(masses.max())
        mass_range = (low / 1.25, high * 1.25) if plane.log_mass else (max(0.0, low - 0.05), high + 0.05)
    if coupling_range is None:
        coupling_range = (float(couplings.min()) / 3, float(couplings.max()) * 30)
    return mass_range, coupling_range


def _threshold(ax: Axes, plane: Plane) -> None:
    low, high = ax.get_xlim()
    if plane.threshold is None or not low < plane.threshold < high:
        return
    ax.axvline(plane.threshold, color="0.3", linestyle=":", linewidth=1.4)
    ax.annotate(
        plane.threshold_label,
        (plane.threshold, 0.02),
        xycoords=ax.get_xaxis_transform(),
        xytext=(4, 0),
        textcoords="offset points",
        color="0.3",
        va="bottom",
    )


def _existing(ax: Axes, label: str, vertices: FloatArray) -> None:
    polygon = checked(f"limit {label!r}", vertices, (len(vertices), 2))
    ax.add_patch(Polygon(polygon, closed=True, facecolor=GREY, edgecolor="0.55", linewidth=0.8, zorder=1))
    seen = np.clip((ax.transScale + ax.transLimits).transform(polygon), 0.0, 1.0)  # inside the frame
    x, y = 0.5 * (seen.min(axis=0) + seen.max(axis=0))
    look: dict[str, Any] = {"color": "0.35", "fontsize": 10, "ha": "center", "va": "center", "zorder": 2}
    ax.text(float(x), float(y), label, transform=ax.transAxes, **look)


def _draw(ax: Axes, contour: Contour, colour: str) -> list[Patch]:
    """Draw a contour with its bands and return the entries of the legend."""
    line, measured = _LINES[contour.kind], contour.kind == "measured"
    hatch = "///" if contour.kind == "extrapolated" else None
    for island in islands(contour.reach):
        polygon, lines = outline(contour.reach, island)
        if contour.bands is not None:
            for outer, inner, shade, level in ((0, 4, BAND95, 3), (1, 3, BAND68, 4)):
                _ring(ax, contour, island, (outer, inner), (shade, level))
        if measured and contour.bands is None:
            ax.fill(*polygon.T, facecolor=colour, alpha=0.22, linewidth=0, zorder=3)
        if hatch:
            ax.fill(
                *polygon.T, facecolor="none", edgecolor=colour, alpha=0.5, hatch=hatch, linewidth=0, zorder=3
            )
        for part in lines:
            ax.plot(
                *part.T,
                color=colour,
                linestyle=line,
                linewidth=1.2 if contour.kind == "expected" else 2.0,
                zorder=6,
            )
    face = "none" if hatch or not measured or contour.bands is not None else colour + "38"
    entries = [
        Patch(
            facecolor=face, edgecolor=colour, linestyle=line, linewidth=1.6, hatch=hatch, label=contour.label
        )
    ]
    if contour.bands is not None:
        entries += [
            Patch(facecolor=BAND68, label="expected, 68 %"),
            Patch(facecolor=BAND95, label="expected, 95 %"),
        ]
    return entries


def _ring(
    ax: Axes, contour: Contour, island: npt.NDArray[np.int64], columns: tuple[int, int], look: tuple[str, int]
) -> None:
    """Fill between the contours of a stronger and a weaker limit (all of the first without the second)."""
    if contour.bands is None:
        return
    mass = contour.reach.mass[island]
    outer, inner = (contour.bands[island, column] for column in columns)
    middle = np.sqrt(outer[:, 0] * outer[:, 1])
    reached = np.isfinite(inner).all(axis=1)
    low, high = (np.where(reached, inner[:, side], middle) for side in (0, 1))
    ax.fill_between(mass, outer[:, 0], low, color=look[0], linewidth=0, zorder=look[1])
    ax.fill_between(mass, high, outer[:, 1], color=look[0], linewidth=0, zorder=look[1])
