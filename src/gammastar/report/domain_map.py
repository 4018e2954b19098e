"""The measured part of a signal over mass and coupling: a map, and its hatching on reach figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from gammastar.core.axes import COUPLING, LABELS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.style import MASS_DARK, log_mass_axis, mark_mock, new_figure, styled

__all__ = ["DomainMap", "domain_figure", "hatch_domain"]

LEVELS = (0.05, 0.5)
HATCHES = ("xxx", "///", None)
WORDS = ("less than 5 %", "5 to 50 %")
SHOWN = 1e-3  # events; below them a fraction means nothing


@dataclass(frozen=True, slots=True, eq=False)
class DomainMap:
    """Which part of the accepted signal comes from (mass, qT, E) where dileptons were measured.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
    coupling : NDArray, shape (k,)
    signal, measured : NDArray, shape (n, k)
        Expected events, and those from the measured domain.
    error : NDArray, shape (n, k), optional
        Relative standard deviation of the signal from its extrapolated part.

    Raises
    ------
    PhysicsError
        If a shape does not fit.
    """

    mass: FloatArray
    coupling: FloatArray
    signal: FloatArray
    measured: FloatArray
    error: FloatArray | None = None

    def __post_init__(self) -> None:
        shape = (len(self.mass), len(self.coupling))
        for name in ("signal", "measured", "error"):
            array = getattr(self, name)
            if array is not None and array.shape != shape:
                msg = f"DomainMap.{name} has shape {array.shape}, expected {shape}"
                raise PhysicsError(msg)

    @property
    def fraction(self) -> FloatArray:
        """Measured part of the signal, nan where fewer than 0.001 events are expected."""
        nothing = np.full_like(self.signal, np.nan)
        result: FloatArray = np.divide(self.measured, self.signal, out=nothing, where=self.signal > SHOWN)
        return result


def hatch_domain(ax: Axes, domain: DomainMap, polygon: FloatArray | None, colour: str) -> list[Any]:
    """Hatch where the signal is extrapolated: crossed below 5 % measured, striped below 50 %.

    Parameters
    ----------
    ax : Axes
        Mass and coupling.
    domain : DomainMap
    polygon : NDArray, shape (n, 2), or None
        Hatch inside this contour only.
    colour : str

    Returns
    -------
    list of Patch
        Entries of a legend.
    """
    if len(domain.mass) < 2 or len(domain.coupling) < 2:
        return []
    fraction = np.ma.masked_invalid(domain.fraction).T
    levels = [-1.0, *LEVELS, 2.0]
    found = ax.contourf(
        domain.mass, domain.coupling, fraction, levels=levels, colors="none", hatches=list(HATCHES), zorder=3
    )
    found.set_edgecolor(colour)
    found.set_linewidth(0.0)
    if polygon is not None:
        closed = Path(np.vstack([polygon, polygon[:1]]), closed=True)
        found.set_clip_path(PathPatch(closed, transform=ax.transData))
    return [
        Patch(facecolor="none", edgecolor=colour, linewidth=0.0, hatch=hatch, label=f"measured: {words}")
        for hatch, words in zip(HATCHES, WORDS, strict=False)
    ]


@styled
def domain_figure(
    domain: DomainMap,
    *,
    mock: bool,
    limit: float | None = None,
    title: str = "",
    log_mass: bool = True,
    axes_labels: tuple[str, str] = (MASS_DARK, LABELS[COUPLING]),
) -> Figure:
    """Draw the measured part of the signal over mass and coupling, hatched where most of it is extrapolated.

    Parameters
    ----------
    domain : DomainMap
    mock : bool
    limit : float, optional
        Draw where the expected events equal this limit.
    title : str
        E.g. the detector.
    log_mass : bool
    axes_labels : tuple of str
        Of mass and coupling; by default those of a dark photon.

    Returns
    -------
    matplotlib.figure.Figure
        With a second panel for the relative error from the extrapolated part, if `domain` has one.
    """
    two = domain.error is not None
    figure, axes = new_figure(2 if two else 1, size=(7.6, 9.2 if two else 6.0), share_x=True)
    panels: list[tuple[FloatArray, str, float, str]] = [
        (domain.fraction, "measured part of the signal", 1.0, "YlGnBu")
    ]
    if domain.error is not None:
        error = np.where(domain.signal > SHOWN, domain.error, np.nan)
        top = float(np.clip(np.nanquantile(error, 0.98), 0.1, 2.0)) if np.isfinite(error).any() else 1.0
        panels.append((error, "rel. error, extrapolation", top, "YlOrRd"))
    for ax, (values, label, top, colours) in zip(axes[:, 0], panels, strict=True):
        mesh = ax.pcolormesh(
            domain.mass, domain.coupling, values.T, vmin=0.0, vmax=top, cmap=colours, shading="nearest"
        )
        mesh.set_rasterized(True)
        figure.colorbar(mesh, ax=ax, label=label, extend="max" if top != 1.0 else "neither")
        ax.set(yscale="log", ylabel=axes_labels[1])
        shown = np.flatnonzero((domain.signal > SHOWN).any(axis=0))
        if len(shown):
            ax.set_ylim(domain.coupling[shown[0]] / 1.5, domain.coupling[shown[-1]] * 6.0)  # MOCK above
        if limit is not None and (domain.signal >= limit).any():
            ax.contour(domain.mass, domain.coupling, domain.signal.T, levels=[limit], colors="#e42536")
        mark_mock(ax, mock)
    hatch_domain(axes[0, 0], domain, None, "0.25")
    if log_mass:
        log_mass_axis(axes[-1, 0])
    axes[-1, 0].set_xlabel(axes_labels[0])
    axes[0, 0].set_title(title, loc="left")
    if limit is not None:
        axes[0, 0].set_title(f"line: {limit:.3g} events", loc="right")
    return figure
