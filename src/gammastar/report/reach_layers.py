"""Layers of a reach figure: limits of others, expected bands, lines of equal yield, measured fractions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from scipy.ndimage import distance_transform_edt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.report.contours import Contour, islands, region
from gammastar.report.style import BAND68, BAND95, GREY, checked, say

__all__ = ["Yields", "bands", "existing", "fractions", "isolines"]

_NAME = "name of a limit"


@dataclass(frozen=True, slots=True, eq=False)
class Yields:
    """Expected signal events over the plane, for lines of equal yield.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
    coupling : NDArray, shape (k,)
    signal : NDArray, shape (n, k)
        nan where it is not known well enough.

    Raises
    ------
    PhysicsError
        If shapes do not fit.
    """

    mass: FloatArray
    coupling: FloatArray
    signal: FloatArray

    def __post_init__(self) -> None:
        if self.signal.shape != (len(self.mass), len(self.coupling)):
            msg = f"Yields: signal {self.signal.shape}, expected {(len(self.mass), len(self.coupling))}"
            raise PhysicsError(msg)


def isolines(ax: Axes, yields: Yields) -> Line2D | None:
    """Draw lines of 1, 10, 100 … events and return the entry of the legend (None if there is no line)."""
    known = np.where(np.isfinite(yields.signal) & (yields.signal > 0), yields.signal, np.nan)
    if min(known.shape) < 2 or not np.nanmax(known, initial=0.0) >= 1.0:
        return None
    powers = np.arange(0, int(np.floor(np.log10(np.nanmax(known)))) + 1)
    height = np.log10(np.where(np.isnan(known), 1e-30, known))
    height = np.ma.masked_where(np.isnan(known), np.maximum(height, -3.0))
    look: dict[str, Any] = {"colors": "0.35", "linewidths": 0.9, "linestyles": ":", "zorder": 5}
    lines = ax.contour(yields.mass, yields.coupling, height.T, levels=powers, **look)
    texts = ax.clabel(lines, fmt={float(k): f"$10^{{{k}}}$" if k else "1" for k in powers}, fontsize=10)
    for text in texts:
        text.set_clip_on(True)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0})
    return Line2D([], [], color="0.35", linewidth=0.9, linestyle=":", label="expected signal events")


def existing(ax: Axes, label: str, vertices: FloatArray) -> None:
    """Draw a published limit in grey with its name where there is most room."""
    polygon = checked(f"limit {label!r}", vertices, (len(vertices), 2))
    ax.add_patch(Polygon(polygon, closed=True, facecolor=GREY, edgecolor="0.55", linewidth=0.8, zorder=1))
    taken = [text.get_position() for text in ax.texts if text.get_gid() == _NAME]
    inside = (ax.transScale + ax.transLimits).transform(polygon)
    place = _roomiest(inside, taken) or _roomiest(inside)
    if place is not None:
        side = "left" if place[0] < 0.2 else "right" if place[0] > 0.8 else "center"
        look: dict[str, Any] = {"color": "0.2", "fontsize": 11, "ha": side, "va": "center", "zorder": 7}
        look["path_effects"] = [withStroke(linewidth=3.0, foreground=GREY)]  # over hatches and lines
        ax.text(*place, label, transform=ax.transAxes, clip_on=True, gid=_NAME, **look)


def _roomiest(
    polygon: FloatArray, taken: Sequence[tuple[float, float]] = (), n: int = 60
) -> tuple[float, float] | None:
    """Return the point inside a polygon and inside the frame that is farthest from both, in axes units.

    Names at the places `taken` are kept free.
    """
    ticks = (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = Path(polygon, closed=False).contains_points(grid).reshape(n, n)
    inside[: n // 4, -n // 7 :] = False  # the corner of the word MOCK
    inside[:, : n // 10] = False  # the name of the threshold
    for place in taken:
        near = (np.abs(ticks - place[0]) < 0.35)[:, None] & (np.abs(ticks - place[1]) < 0.045)[None, :]
        inside[near] = False
    if not inside.any():
        return None
    # names are wide: a step along x counts less than one along y
    depth = distance_transform_edt(np.pad(inside, 1), sampling=(0.4, 1.0))
    x, y = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float((x - 0.5) / n), float((y - 0.5) / n)


def bands(ax: Axes, mass: FloatArray, bands: FloatArray) -> None:
    """Fill between the contours of weaker and stronger limits; what all of them reach stays free.

    Each colour is the area inside the outer contour without the area inside the inner one, as one path, so
    that limits of others drawn underneath remain visible.
    """
    for outer, inner, shade in ((0, 1, BAND95), (1, 3, BAND68), (3, 4, BAND95)):
        parts = [_turned(p, 1.0) for p in region(mass, bands[:, outer])]
        parts += [_turned(p, -1.0) for p in region(mass, bands[:, inner])]
        if parts:
            path = Path.make_compound_path(*[Path(np.vstack([p, p[:1]]), closed=True) for p in parts])
            ax.add_patch(PathPatch(path, facecolor=shade, linewidth=0, zorder=2))


def _turned(polygon: FloatArray, sign: float) -> FloatArray:
    """Return a polygon with the given sense of rotation: holes run against their outlines."""
    x, y = polygon[:, 0], np.log(polygon[:, 1])
    area = float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y))
    return polygon if area * sign > 0 else polygon[::-1]


def fractions(ax: Axes, contours: Sequence[Contour], colours: Sequence[str]) -> None:
    """Draw the part of the signal that was measured, along both edges of each contour.

    The scale is logarithmic where less than 5 % were measured; nothing measured at all is said in words.
    """
    ax.set_ylabel("in domain [%]", loc="center", fontsize=12)
    shown = [100 * c.fraction[np.isfinite(c.fraction)] for c in contours if c.fraction is not None]
    pooled = np.concatenate([np.zeros(1), *shown])
    largest = float(pooled.max())
    ax.set_ylim(0.0, 145.0)
    if largest == 0:
        ax.set_yticks([0.0, 50.0, 100.0])
        if any(len(part) for part in shown):  # else nothing is reached
            say(ax, "no sampled particle of the signal comes from where dileptons were measured")
        return
    for contour, colour in zip(contours, colours, strict=True):
        if contour.fraction is None:
            continue
        for island in islands(contour.reach):
            for side, line in ((0, "-"), (1, ":")):
                part = 100 * contour.fraction[island, side]
                ax.plot(contour.reach.mass[island], np.where(part > 0, part, np.nan), color=colour, ls=line)
    styles: dict[Any, str] = {"-": "lower edge", ":": "upper edge"}
    sides = [Line2D([], [], color="black", linestyle=line, label=label) for line, label in styles.items()]
    ax.legend(handles=sides, loc="upper right", ncols=2, fontsize=11)
    if largest >= 5.0:
        ax.set_yticks([0.0, 50.0, 100.0])
        return
    ax.set_yscale("log")
    ax.set_ylim(max(0.5 * float(pooled[pooled > 0].min()), 1e-4 * largest), 20.0 * largest)
