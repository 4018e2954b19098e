"""The reach in mass and coupling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from gammastar.core.axes import COUPLING, LABELS
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.contours import Contour, islands, outline
from gammastar.report.domain_map import hatch_domain
from gammastar.report.reach_layers import Yields, bands, existing, fractions, isolines
from gammastar.report.style import (
    BAND68,
    BAND95,
    COLOURS,
    MASS_DARK,
    log_mass_axis,
    mark_mock,
    new_figure,
    power_of_ten,
    say,
    styled,
)

__all__ = ["Plane", "Yields", "reach_figure"]

_LINES: dict[str, Any] = {"measured": "-", "extrapolated": "--", "expected": "-", "observed": "-"}
_WIDTHS = {"measured": 2.0, "extrapolated": 2.0, "expected": 1.2, "observed": 2.6}
_EMPTY_RANGE = (1e-9, 1e-2)  # couplings shown when nothing is reached and no range is asked for


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
    mass_label: str = MASS_DARK
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
    yields: Yields | None = None,
) -> Figure:
    """Draw the expected reach in the plane of mass and coupling.

    Parameters
    ----------
    contours : sequence of Contour
        Drawn in order; measured ones solid and filled, extrapolated ones dashed and hatched, where their
        `domain` says how much of the signal was measured.
    mock : bool
        From mock data: the word stands in the axes, and observed contours are refused.
    pot : float
        Protons on target.
    cl : float
        Confidence level.
    limits : sequence of (label, NDArray of shape (n, 2))
        Polygons (mass [GeV], coupling) of existing limits, grey.
    plane : Plane, optional
        Ranges, labels and the threshold line; by default those of a dark photon to dimuons.
    yields : Yields, optional
        Expected events, drawn as lines of 1, 10, 100 … events.

    Returns
    -------
    matplotlib.figure.Figure
        With a panel below if a contour carries the fraction of its signal in the measured domain. Where no
        contour reaches anything the figure says so and names the largest signal.

    Raises
    ------
    PhysicsError
        If an observed contour is asked for on mock data.

    Notes
    -----
    A contour is an expected reach; an exclusion needs real data with an observation.
    """
    observed = [contour.label for contour in contours if contour.kind == "observed"]
    if mock and observed:
        msg = f"reach_figure: the contours {observed} are observed, but mock data exclude nothing"
        raise PhysicsError(msg)
    plane = Plane() if plane is None else plane
    panel = any(contour.fraction is not None for contour in contours)
    heights = (3.4, 1.0) if panel else None
    figure, axes = new_figure(
        2 if panel else 1, size=(7.6, 7.4 if panel else 6.2), heights=heights, share_x=True
    )
    ax = axes[0, 0]
    x_range, y_range = _ranges(contours, plane)
    ax.set(yscale="log", xlim=x_range, ylim=y_range, ylabel=plane.coupling_label)
    if plane.log_mass:
        log_mass_axis(ax)
    axes[-1, 0].set_xlabel(plane.mass_label)
    for label, vertices in limits:
        existing(ax, label, vertices)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(contours))]
    handles: list[Any] = []
    for contour, colour in zip(contours, colours, strict=True):
        handles += [] if contour.empty else _draw(ax, contour, colour)
    line = None if yields is None else isolines(ax, yields)
    handles += [] if line is None else [line]
    _threshold(ax, plane)
    kind = "expected reach" if not observed else "observed and expected"
    ax.set_title(f"{kind}, {100 * cl:.3g} % CL", loc="left")
    ax.set_title(f"{power_of_ten(pot)} POT", loc="right")
    if handles:
        ax.legend(handles=handles, loc="upper right")
    if all(contour.empty for contour in contours):
        _say_empty(ax, contours)
    mark_mock(ax, mock)
    if panel:
        fractions(axes[1, 0], contours, colours)
    figure.align_ylabels(axes[:, 0])
    return figure


def _ranges(contours: Sequence[Contour], plane: Plane) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the shown ranges: those asked for, else around all contours and bands."""
    pooled = [c.reach.edges for c in contours] + [c.bands for c in contours if c.bands is not None]
    couplings = np.concatenate([array[np.isfinite(array)] for array in pooled] or [np.empty(0)])
    masses = np.concatenate([c.reach.mass for c in contours] or [np.empty(0)])
    mass_range, coupling_range = plane.mass_range, plane.coupling_range
    if mass_range is None:
        low, high = (float(masses.min()), float(masses.max())) if masses.size else (0.2, 1.0)
        reached = [c.reach.mass[np.isfinite(c.reach.edges).all(axis=1)] for c in contours if not c.empty]
        if reached:  # a scan may go on far beyond what it reaches
            high = min(high, 1.6 * float(np.concatenate(reached).max()))
        mass_range = (low / 1.15, high * 1.15) if plane.log_mass else (max(0.0, low - 0.05), high + 0.05)
    if coupling_range is None and couplings.size:
        # room for the legend above; a decade or so at least
        coupling_range = (float(couplings.min()) / 3, float(couplings.max()) * 20)
    return mass_range, coupling_range or _EMPTY_RANGE


def _say_empty(ax: Axes, contours: Sequence[Contour]) -> None:
    """Say in words why there is no contour."""
    lines = ["No coupling is reached at any mass."]
    for contour in contours:
        signal = np.atleast_1d(np.asarray(contour.reach.signal, dtype=np.float64))
        if signal.size and np.isfinite(signal).any():
            best = int(np.nanargmax(signal))
            limit = float(np.broadcast_to(contour.reach.limit, signal.shape)[best])
            lines.append(
                f"{contour.label}: at most {signal[best]:.3g} events, at {contour.reach.mass[best]:.3g} GeV;"
                f" {limit:.3g} are needed"
            )
    say(ax, "\n".join(lines))


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


def _draw(ax: Axes, contour: Contour, colour: str) -> list[Any]:
    """Draw a contour with its bands and return the entries of the legend."""
    line, width = _LINES[contour.kind], _WIDTHS[contour.kind]
    hatch = "///" if contour.kind == "extrapolated" and contour.domain is None else None
    domain: list[Any] = []
    filled = contour.kind in ("measured", "observed") and contour.bands is None
    if contour.bands is not None:
        bands(ax, contour.reach.mass, contour.bands)
    for island in islands(contour.reach):
        polygon, lines = outline(contour.reach, island)
        if filled:
            ax.fill(*polygon.T, facecolor=colour, alpha=0.22, linewidth=0, zorder=3)
        if contour.domain is not None:
            domain = hatch_domain(ax, contour.domain, polygon, "0.35")
        if hatch:
            look: dict[str, Any] = {
                "facecolor": "none",
                "edgecolor": colour,
                "alpha": 0.5,
                "linewidth": 0,
                "zorder": 3,
            }
            ax.fill(*polygon.T, hatch=hatch, **look)
        for part in lines:
            ax.plot(*part.T, color=colour, linestyle=line, linewidth=width, zorder=6)
    if contour.bands is not None:
        return [
            Line2D([], [], color=colour, linestyle=line, linewidth=width, label=contour.label),
            Patch(facecolor=BAND68, label=r"expected $\pm1\sigma$"),
            Patch(facecolor=BAND95, label=r"expected $\pm2\sigma$"),
            *domain,
        ]
    if contour.kind == "expected":
        return [Line2D([], [], color=colour, linestyle=line, linewidth=1.8, label=contour.label), *domain]
    face = colour + "38" if filled else "none"
    patch: dict[str, Any] = {
        "facecolor": face,
        "edgecolor": colour,
        "linestyle": line,
        "linewidth": 1.6,
        "hatch": hatch,
    }
    return [Patch(label=contour.label, **patch), *domain]
