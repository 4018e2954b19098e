"""From coupling intervals per mass to outlines that can be drawn: islands, tips, clipped sides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Reach
from gammastar.report.domain_map import DomainMap

__all__ = ["Contour", "Kind", "islands", "outline", "region"]

Kind: TypeAlias = Literal["measured", "extrapolated", "expected", "observed"]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One contour of a reach figure.

    Attributes
    ----------
    label : str
        Text of the legend.
    reach : Reach
    kind : {"measured", "extrapolated", "expected", "observed"}
        Solid and filled: the signal lies where dileptons were measured. Dashed and hatched: it rests on an
        extrapolation. "expected" draws a thin line only. "observed" is an exclusion and needs real data.
    bands : NDArray, shape (n, 5, 2), optional
        Edges (lower, upper coupling) of the entries of `reach` for limits at −2 … +2 standard deviations;
        nan where nothing is reached. Usually ``reach.bands``; they are drawn for the contours that ask.
    fraction : NDArray, shape (n, 2), optional
        Part of the signal that stems from the measured domain, on the lower and on the upper edge.
    domain : DomainMap, optional
        That part over the whole plane: the hatching follows it instead of filling the contour.

    Raises
    ------
    PhysicsError
        If `bands` or `fraction` has another shape.
    """

    label: str
    reach: Reach
    kind: Kind = "measured"
    bands: FloatArray | None = None
    fraction: FloatArray | None = None
    domain: DomainMap | None = None

    def __post_init__(self) -> None:
        n = len(self.reach.mass)
        for name, array, shape in (("bands", self.bands, (n, 5, 2)), ("fraction", self.fraction, (n, 2))):
            if array is not None and array.shape != shape:
                msg = f"Contour.{name} of {self.label!r} has shape {array.shape}, expected {shape}"
                raise PhysicsError(msg)

    @property
    def empty(self) -> bool:
        """Whether no coupling is reached at any mass."""
        return not bool(np.isfinite(self.reach.edges).all(axis=1).any())


def islands(reach: Reach) -> list[npt.NDArray[np.int64]]:
    """Chain the entries of a reach into islands.

    An interval continues the island of the previous mass whose interval it overlaps; of several it continues
    the one with the largest overlap. A mass at which nothing is reached ends all islands.

    Parameters
    ----------
    reach : Reach

    Returns
    -------
    list of NDArray of int
        Indices of the entries of each island, in order of mass.
    """
    closed: list[list[int]] = []
    growing: list[list[int]] = []
    for mass in np.unique(reach.mass):
        here = np.flatnonzero((reach.mass == mass) & np.isfinite(reach.edges).all(axis=1))
        continued: list[list[int]] = []
        for index in here:
            overlaps = [_overlap(reach.edges[chain[-1]], reach.edges[index]) for chain in growing]
            best = int(np.argmax(overlaps)) if overlaps else -1
            if best >= 0 and overlaps[best] > 0:
                continued.append([*growing.pop(best), int(index)])
            else:
                continued.append([int(index)])
        closed += growing
        growing = continued
    return [np.array(chain, dtype=np.int64) for chain in closed + growing]


def _overlap(a: FloatArray, b: FloatArray) -> float:
    """Return the overlap of two coupling intervals in decades (negative: the gap)."""
    return float(np.log10(min(a[1], b[1]) / max(a[0], b[0])))


def outline(reach: Reach, island: npt.NDArray[np.int64]) -> tuple[FloatArray, list[FloatArray]]:
    """Return the outline of an island.

    Parameters
    ----------
    reach : Reach
    island : NDArray of int
        Indices from `islands`.

    Returns
    -------
    polygon : NDArray, shape (n, 2)
        Mass [GeV] and coupling of the closed area.
    lines : list of NDArray, shape (k, 2)
        The parts of its edge that the scan resolved: not where an edge lies outside the scan, nor along a
        side in mass at which the scan ends.
    """
    mass, edges = reach.mass[island], reach.edges[island]
    sides = [reach.clipped_side[i] for i in island]
    lower, upper = np.column_stack([mass, edges[:, 0]]), np.column_stack([mass, edges[:, 1]])
    left, right = _ends(reach, island)
    lower, upper = (
        np.vstack([_fold(edge[0], left)[::-1], edge, _fold(edge[-1], right)]) for edge in (lower, upper)
    )
    polygon = np.vstack([lower, upper[::-1]])
    lines = []
    for name, edge in (("lower", lower), ("upper", upper)):
        hidden = np.array([name in side.split(", ") for side in sides], dtype=bool)
        added = [len(_fold(edge[0], end)) for end in (left, right)]
        hidden = np.r_[np.zeros(added[0], bool), hidden, np.zeros(added[1], bool)]
        lines.append(np.where(hidden[:, None], np.nan, edge))
    if not right.size and sides[-1] != "upper mass" and mass[-1] < reach.mass.max():
        lines.append(np.vstack([lower[-1], upper[-1]]))
    if not left.size and sides[0] != "lower mass" and mass[0] > reach.mass.min():
        lines.append(np.vstack([lower[0], upper[0]]))
    return polygon, lines


def _fold(edge: FloatArray, tip: FloatArray, n: int = 12) -> FloatArray:
    """Return the points from an edge (excluded) to the tip, shape (n, 2), none without a tip.

    Where the largest signal falls below its limit the two edges run together like a square root: the
    signal is a parabola in the logarithm of the coupling around its maximum.
    """
    if not tip.size:
        return np.empty((0, 2))
    t = np.linspace(1.0, 0.0, n + 1)[1:]
    mass = tip[0, 0] + (edge[0] - tip[0, 0]) * t**2
    coupling = tip[0, 1] * (edge[1] / tip[0, 1]) ** t
    return np.column_stack([mass, coupling])


def _ends(reach: Reach, island: npt.NDArray[np.int64]) -> tuple[FloatArray, FloatArray]:
    """Return where an island ends at lower and at higher mass, shape (1, 2) each, (0, 2) if it is clipped."""
    if reach.ends is None:
        return np.empty((0, 2)), np.empty((0, 2))
    both = reach.ends[island[0], 0], reach.ends[island[-1], 1]
    left, right = (end[None, :] if np.isfinite(end).all() else np.empty((0, 2)) for end in both)
    return left, right


def region(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of the area between the coupling edges, for bands.

    Parameters
    ----------
    mass : NDArray, shape (n,) [GeV]
        One entry per mass and island.
    edges : NDArray, shape (n, 2)
        nan where nothing is reached.

    Returns
    -------
    list of NDArray, shape (k, 2)
        One polygon per island. Where an island ends inside the scan its edges are continued until they meet,
        at most to the next mass of the scan.
    """
    scan = np.unique(mass)
    none = np.zeros(len(mass))
    reach = Reach(mass, edges, none, none, none == 0, ("",) * len(mass))
    polygons = []
    for island in islands(reach):
        x, inner = mass[island], edges[island]
        before, after = scan[scan < x[0]], scan[scan > x[-1]]
        left = _meeting(x[:2], np.log(inner[:2]), before[-1]) if before.size else np.empty((0, 2))
        right = _meeting(x[:-3:-1], np.log(inner[:-3:-1]), after[0]) if after.size else np.empty((0, 2))
        sides = [
            np.vstack([_fold(edge[0], left)[::-1], edge, _fold(edge[-1], right)])
            for edge in (np.c_[x, inner[:, 0]], np.c_[x, inner[:, 1]])
        ]
        polygons.append(np.vstack([sides[0], sides[1][::-1]]))
    return polygons


def _meeting(x: FloatArray, y: FloatArray, bound: float) -> FloatArray:
    """Return where two edges meet beyond the first of two points, shape (1, 2), no farther than `bound`.

    `y` holds logarithms of the couplings; the square of their distance is continued in a straight line.
    """
    square, centre = (y[:, 1] - y[:, 0]) ** 2, y.mean(axis=1)
    if len(x) < 2 or square[1] <= square[0]:
        return np.array([[0.5 * (x[0] + bound), np.exp(centre[0])]])
    step = abs(x[0] - x[1]) * square[0] / (square[1] - square[0])
    tip = x[0] + np.sign(bound - x[0]) * min(step, abs(bound - x[0]))
    return np.array([[tip, np.exp(centre[0])]])
