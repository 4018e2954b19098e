"""The reach in mass and coupling: outlines of its contours, layers below them, the figure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch, Polygon
from matplotlib.path import Path
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox
from scipy.ndimage import distance_transform_edt

from gammastar.core.constants import M_MU
from gammastar.core.errors import require
from gammastar.core.records import COUPLING, LABELS, FloatArray, IntArray, Reach
from gammastar.report import style
from gammastar.report.figures.signal import DomainMap, hatch_domain
from gammastar.report.style import BAND68, BAND95, COLOURS, GREY, MASS_DARK, checked, styled

Kind: TypeAlias = Literal["measured", "extrapolated", "expected", "observed"]


@dataclass(frozen=True, slots=True, eq=False)
class Contour:
    """One contour of a reach figure."""

    label: str  # Text of the legend
    reach: Reach
    # Filled: the signal lies where dileptons were measured. Hatched: it rests on an extrapolation. Edges
    # are solid, and dashed where most of the signal has energies beyond all measured ones, or where the data
    # or the scan end before the contour does. "expected" draws a thin line only. "observed" is an exclusion
    # and needs real data.
    kind: Kind = "measured"
    # Edges (lower, upper coupling) of the entries of `reach` for limits at −2 … +2 standard deviations; nan
    # where nothing is reached. Usually ``reach.bands``; they are drawn for the contours that ask, shape (n,
    # 5, 2)
    bands: FloatArray | None = None
    # Part of the signal that stems from the measured domain, on the lower and on the upper edge, shape (n,
    # 2)
    fraction: FloatArray | None = None
    # That part over the whole plane: the hatching follows it instead of filling the contour
    domain: DomainMap | None = None

    def __post_init__(self) -> None:
        n = len(self.reach.mass)
        for name, array, shape in (("bands", self.bands, (n, 5, 2)), ("fraction", self.fraction, (n, 2))):
            if array is not None:
                checked(f"Contour.{name} of {self.label!r}", array, shape)

    @property
    def empty(self) -> bool:
        """Whether no coupling is reached at any mass."""
        return not bool(np.isfinite(self.reach.edges).all(axis=1).any())


def islands(reach: Reach) -> list[IntArray]:
    """Chain the entries of a reach into islands: an interval goes on with what it overlaps most."""
    closed: list[list[int]] = []
    growing: list[list[int]] = []
    for mass in np.unique(reach.mass):
        here = np.flatnonzero((reach.mass == mass) & np.isfinite(reach.edges).all(axis=1))
        continued: list[list[int]] = []
        for index in here:
            both = [(reach.edges[chain[-1]], reach.edges[index]) for chain in growing]
            overlaps = [float(np.log10(min(a[1], b[1]) / max(a[0], b[0]))) for a, b in both]  # decades
            best = int(np.argmax(overlaps)) if overlaps else -1
            start = growing.pop(best) if best >= 0 and overlaps[best] > 0 else []
            continued.append([*start, int(index)])
        closed += growing
        growing = continued
    return [np.array(chain, dtype=np.int64) for chain in closed + growing]


def outline(reach: Reach, island: IntArray) -> tuple[FloatArray, list[FloatArray], list[FloatArray]]:
    """Return the outline of an island."""
    mass, edges = reach.mass[island], reach.edges[island]
    sides = [reach.clipped_side[i] for i in island]
    lower, upper = np.column_stack([mass, edges[:, 0]]), np.column_stack([mass, edges[:, 1]])
    left, right = _ends(reach, island)
    lower, upper = (
        np.vstack([_fold(edge[0], left)[::-1], edge, _fold(edge[-1], right)]) for edge in (lower, upper)
    )
    polygon = np.vstack([lower, upper[::-1]])
    lines, ends = [], []
    beyond = np.zeros((len(island), 2)) if reach.beyond is None else np.nan_to_num(reach.beyond[island])
    for k, (name, edge) in enumerate((("lower", lower), ("upper", upper))):
        hidden = np.array([name in side.split(", ") for side in sides], dtype=bool) | (beyond[:, k] > 0.5)
        added = [len(_fold(edge[0], end)) for end in (left, right)]
        hidden = np.r_[np.zeros(added[0], bool), hidden, np.zeros(added[1], bool)]
        lines.append(np.where(hidden[:, None], np.nan, edge))
        near = hidden | np.r_[False, hidden[:-1]] | np.r_[hidden[1:], False]  # up to the resolved parts
        ends += [np.where(near[:, None], edge, np.nan)] if hidden.any() else []
    if not right.size and sides[-1] != "upper mass" and mass[-1] < reach.mass.max():
        lines.append(np.vstack([lower[-1], upper[-1]]))
    if not left.size and sides[0] != "lower mass" and mass[0] > reach.mass.min():
        lines.append(np.vstack([lower[0], upper[0]]))
    return polygon, lines, ends


def _fold(edge: FloatArray, tip: FloatArray) -> FloatArray:
    """Return points from an edge to the tip, shape (12, 2) or none: edges close like a square root there."""
    if not tip.size:
        return np.empty((0, 2))
    t = np.linspace(1.0, 0.0, 13)[1:]
    mass = tip[0, 0] + (edge[0] - tip[0, 0]) * t**2
    coupling = tip[0, 1] * (edge[1] / tip[0, 1]) ** t
    return np.column_stack([mass, coupling])


def _ends(reach: Reach, island: IntArray) -> tuple[FloatArray, FloatArray]:
    """Return where an island ends at lower and at higher mass, shape (1, 2) each, (0, 2) if it is clipped."""
    if reach.ends is None:
        return np.empty((0, 2)), np.empty((0, 2))
    both = reach.ends[island[0], 0], reach.ends[island[-1], 1]
    left, right = (end[None, :] if np.isfinite(end).all() else np.empty((0, 2)) for end in both)
    return left, right


def region(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of the area between the coupling edges, for bands."""
    scan = np.unique(mass)
    none = np.zeros(len(mass))
    reach = Reach(mass, edges, none, none, none == 0, ("",) * len(mass))
    polygons = []
    for island in islands(reach):
        x, inner = mass[island], edges[island]
        before, after = scan[scan < x[0]], scan[scan > x[-1]]
        left = _meeting(x[:2], np.log(inner[:2]), before[-1]) if before.size else np.empty((0, 2))
        right = _meeting(x[:-3:-1], np.log(inner[:-3:-1]), after[0]) if after.size else np.empty((0, 2))
        borders = (np.c_[x, inner[:, 0]], np.c_[x, inner[:, 1]])
        sides = [np.vstack([_fold(edge[0], left)[::-1], edge, _fold(edge[-1], right)]) for edge in borders]
        polygons.append(np.vstack([sides[0], sides[1][::-1]]))
    return polygons


def _meeting(x: FloatArray, y: FloatArray, bound: float) -> FloatArray:
    """Return where two edges, y in the logarithm, meet beyond the first point: their distance², straight."""
    square, centre = (y[:, 1] - y[:, 0]) ** 2, y.mean(axis=1)
    if len(x) < 2 or square[1] <= square[0]:
        return np.array([[0.5 * (x[0] + bound), np.exp(centre[0])]])
    step = abs(x[0] - x[1]) * square[0] / (square[1] - square[0])
    tip = x[0] + np.sign(bound - x[0]) * min(step, abs(bound - x[0]))
    return np.array([[tip, np.exp(centre[0])]])


_NAME = "name of a limit"
_WIDE = 0.0065  # half the width of a letter of it, in parts of the frame


@dataclass(frozen=True, slots=True, eq=False)
class Yields:
    """Expected signal events over the plane, for lines of equal yield."""

    mass: FloatArray  # [GeV], shape (n,)
    coupling: FloatArray  # shape (k,)
    signal: FloatArray  # nan where it is not known well enough, shape (n, k)

    def __post_init__(self) -> None:
        checked("signal of the Yields", self.signal, (len(self.mass), len(self.coupling)))


def isolines(ax: Axes, yields: Yields) -> Line2D | None:
    """Draw lines of 1, 10, 100 … events and return the entry of the legend (None if there is no line)."""
    good = np.isfinite(yields.signal) & (yields.signal > 0)
    largest = float(yields.signal[good].max(initial=0.0))
    if min(good.shape) < 2 or largest < 1.0:
        return None
    powers = np.arange(0, int(np.floor(np.log10(largest))) + 1)
    height = np.log10(np.where(good, yields.signal, 1e-30))
    height = np.ma.masked_where(~good, np.maximum(height, -3.0))
    look: dict[str, Any] = {"colors": "0.35", "linewidths": 0.9, "linestyles": ":", "zorder": 5}
    lines = ax.contour(yields.mass, yields.coupling, height.T, levels=powers, **look)
    texts = ax.clabel(lines, fmt={float(k): f"$10^{{{k}}}$" if k else "1" for k in powers}, fontsize=10)
    frame = ax.transScale + ax.transLimits
    taken: list[FloatArray] = []
    for text in texts:
        point = frame.transform(text.get_position())
        if _on_a_name(ax, point) or any((np.abs(point - one) < (0.05, 0.06)).all() for one in taken):
            text.remove()
            continue
        taken.append(point)
        text.set_clip_on(True)
        text.set_bbox({"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 1.0})
    return Line2D([], [], color="0.35", linewidth=0.9, linestyle=":", label="expected signal events")


def _on_a_name(ax: Axes, point: FloatArray) -> bool:
    """Return whether a short label at a point of the frame would stand on the name of a limit."""
    for name in (text for text in ax.texts if text.get_gid() == _NAME):
        half = _WIDE * len(name.get_text())
        x, y = name.get_position()
        x += {"left": half, "right": -half}.get(name.get_horizontalalignment(), 0.0)
        if abs(point[0] - x) < half + 0.03 and abs(point[1] - y) < 0.05:
            return True
    return False


LIMIT = "limit of others: "  # begins the names of what is drawn of them
# not published as excluded: colour and line
_LINES = {"recomputed": ("#a96b59", "--"), "projection": ("#717581", "-.")}


def meets(ax: Axes, polygon: FloatArray, *, filled: bool = True) -> bool:
    """Return whether an area, or its outline, has a part in the frame."""
    path = Path((ax.transScale + ax.transLimits).transform(polygon))
    return bool(path.intersects_bbox(Bbox.unit(), filled=filled))


def existing(
    ax: Axes, label: str, vertices: FloatArray, kind: str = "observed", assumption: str = ""
) -> list[Line2D]:
    """Draw a limit with its name if it meets the frame; return new entries of the legend.

    What is published is grey, what is recomputed or projected a line.
    """
    polygon, entries = checked(f"limit {label!r}", vertices, (len(vertices), 2)), []
    if not meets(ax, polygon, filled=kind not in _LINES):
        return []
    colour, line = _LINES.get(kind, ("0.2", ""))
    if kind in _LINES:
        text = assumption or {"projection": "projections of others"}.get(kind, kind)
        new = text not in {other.get_label() for other in ax.lines}
        ends = polygon[:1] if kind == "recomputed" else polygon[:0]
        look: dict[str, Any] = {"color": colour, "linestyle": line, "linewidth": 1.4, "zorder": 4}
        look |= {"label": text if new else "_", "gid": LIMIT + label}
        entries = ax.plot(*np.vstack([polygon, ends]).T, **look)[: int(new)]
    else:
        look = {"facecolor": GREY, "edgecolor": "0.55", "linewidth": 0.8, "zorder": 1}
        ax.add_patch(Polygon(polygon, closed=True, gid=LIMIT + label, **look))
    taken = [text.get_position() for text in ax.texts if text.get_gid() == _NAME]
    inside = (ax.transScale + ax.transLimits).transform(polygon)
    point = _roomiest(inside, taken) or _roomiest(inside)
    if point is not None:
        side = "left" if point[0] < 0.2 else "right" if point[0] > 0.8 else "center"
        look = {"color": colour, "fontsize": 11, "ha": side, "va": "center", "zorder": 7}
        halo = "white" if kind in _LINES else GREY  # over hatches and lines
        look["path_effects"] = [withStroke(linewidth=3.0, foreground=halo)]
        ax.text(*point, label, transform=ax.transAxes, clip_on=True, gid=_NAME, **look)
    return entries


def _roomiest(
    polygon: FloatArray, taken: Sequence[tuple[float, float]] = (), n: int = 60
) -> tuple[float, float] | None:
    """Return the point in a polygon and the frame that is farthest from both and from names `taken`."""
    ticks = (np.arange(n) + 0.5) / n
    grid = np.stack(np.meshgrid(ticks, ticks, indexing="ij"), axis=-1).reshape(-1, 2)
    inside = Path(polygon, closed=False).contains_points(grid).reshape(n, n)
    inside[: n // 4, -n // 7 :] = False  # the corner of the word MOCK
    inside[:, : n // 10] = False  # the name of the threshold
    for point in taken:
        near = (np.abs(ticks - point[0]) < 0.35)[:, None] & (np.abs(ticks - point[1]) < 0.045)[None, :]
        inside[near] = False
    if not inside.any():
        return None
    # names are wide: a step along x counts less than one along y
    depth = distance_transform_edt(np.pad(inside, 1), sampling=(0.4, 1.0))
    x, y = np.unravel_index(int(np.argmax(depth)), depth.shape)
    return float((x - 0.5) / n), float((y - 0.5) / n)


def bands(ax: Axes, mass: FloatArray, bands: FloatArray) -> None:
    """Fill between the contours of weaker and stronger limits, as one path: what lies beneath is seen."""
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
    """Draw the measured part of the signal along both edges, below 5 % on a logarithmic scale."""
    ax.set_ylabel("measured [%]", loc="center", fontsize=12)
    shown = [100 * c.fraction[np.isfinite(c.fraction)] for c in contours if c.fraction is not None]
    pooled = np.concatenate([np.zeros(1), *shown])
    largest = float(pooled.max())
    ax.set_ylim(0.0, 145.0)
    if largest == 0:
        ax.set_yticks([0.0, 50.0, 100.0])
        if any(len(part) for part in shown):  # else nothing is reached
            style.say(ax, "no sampled particle of the signal comes from where dileptons were measured")
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


THINNEST = 0.01  # of the frame: what a line hides
ENDING: Final = "--"  # where the scan or the data end before an edge does
_WIDTHS = {"measured": 2.0, "extrapolated": 2.0, "expected": 1.2, "observed": 2.6}
_EMPTY_RANGE = (1e-9, 1e-2)  # couplings shown when nothing is reached and no range is asked for


@dataclass(frozen=True, slots=True)
class Plane:
    r"""The plane of mass and coupling: ranges, labels and the line at threshold."""

    # Shown ranges; by default around the contours
    mass_range: tuple[float, float] | None = None
    coupling_range: tuple[float, float] | None = None
    log_mass: bool = True  # Logarithmic mass axis
    # Mass below which the search has no final state or no measured spectrum [GeV]; a dotted line
    threshold: float | None = 2 * M_MU
    threshold_label: str = r"$2m_\mu$"
    mass_label: str = MASS_DARK
    coupling_label: str = LABELS[COUPLING]
    title: str = ""  # E.g. the detector; above the axes


@styled
def reach_figure(
    contours: Sequence[Contour],
    *,
    mock: bool,
    pot: float | str,
    cl: float = 0.90,
    limits: Sequence[tuple[Any, ...]] = (),
    plane: Plane | None = None,
    yields: Yields | None = None,
) -> Figure:
    """Draw the expected reach in the plane of mass and coupling.

    Parameters
    ----------
    contours : sequence of Contour
        Drawn in order; measured ones filled, extrapolated ones hatched, where their `domain` says how much of
        the signal was measured; dashed where the data or the scan end first.
    mock : bool
        From mock data: the word stands in the axes, and observed contours are refused.
    pot : float or str
        Protons on target; a text, such as a luminosity, stands as it is.
    cl : float
        Confidence level.
    limits : sequence of (label, NDArray of shape (n, 2), kind, assumption)
        Polygons (mass [GeV], coupling) of existing limits, as `ExistingLimit.curve` has them.
    plane : Plane, optional
        Ranges, labels and the threshold line; by default those of a dark photon to dimuons.
    yields : Yields, optional
        Expected events, drawn as lines of 1, 10, 100 … events.

    Raises
    ------
    PhysicsError
        If an observed contour is asked for on mock data.

    Notes
    -----
    A contour is an expected reach; an exclusion needs real data with an observation. A panel below shows the
    fraction of the signal in the measured domain where a contour carries it. Where no contour reaches
    anything the figure says so and names the largest signal.
    """
    observed = [contour.label for contour in contours if contour.kind == "observed"]
    refused = f"reach_figure: the contours {observed} are observed, but mock data exclude nothing"
    require(not (mock and observed), refused)
    plane = Plane() if plane is None else plane
    panel = any(contour.fraction is not None and not contour.empty for contour in contours)
    options: dict[str, Any] = {"size": (7.6, 7.4), "heights": (3.4, 1.0)} if panel else {"size": (7.6, 6.2)}
    figure, axes = style.new_figure(2 if panel else 1, share_x=True, **options)
    ax = axes[0, 0]
    x_range, y_range = _ranges(contours, plane, yields)
    ax.set(yscale="log", xlim=x_range, ylim=y_range, ylabel=plane.coupling_label)
    if plane.log_mass:
        style.log_mass_axis(ax)
    axes[-1, 0].set_xlabel(plane.mass_label)
    colours = [COLOURS[index % len(COLOURS)] for index in range(len(contours))]
    theirs, handles = [entry for limit in limits for entry in existing(ax, *limit)], list[Any]()
    for contour, colour in zip(contours, colours, strict=True):
        handles += [] if contour.empty else _draw(ax, contour, colour)
    line = None if yields is None else isolines(ax, yields)
    handles += theirs if line is None else [line, *theirs]
    _threshold(ax, plane)
    kind = "expected reach" if not observed else "observed and expected"
    above = f"{plane.title}\n" if plane.title else ""
    ax.set_title(f"{above}{kind}, {100 * cl:.3g} % CL", loc="left")
    ax.set_title(pot if isinstance(pot, str) else f"{style.power_of_ten(pot)} POT", loc="right")
    if handles:
        if any(ax.lines[k].get_gid() == ENDING for k in range(len(ax.lines))):
            handles.append(Line2D([], [], color="black", linestyle=ENDING, label="no data at these energies"))
        ax.legend(handles=handles, loc="upper right")
    if all(contour.empty for contour in contours):
        _say_empty(ax, contours)
    if panel:
        fractions(axes[1, 0], contours, colours)
    return figure


def _ranges(
    contours: Sequence[Contour], plane: Plane, yields: Yields | None
) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the shown ranges: those asked for, else around all contours and bands, below the legend."""
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
        low, high = float(couplings.min()) / 3, float(couplings.max()) * 2
        drawn = [contour for contour in contours if not contour.empty]
        rows = sum(1 + 2 * (c.bands is not None) + 2 * (c.domain is not None) for c in drawn)
        free = min(0.04 * (rows + (yields is not None)) + 0.05, 0.4)
        coupling_range = low, max(high * (high / low) ** (free / (1 - free)), 10 * high)
    return mass_range, coupling_range or _EMPTY_RANGE


def _say_empty(ax: Axes, contours: Sequence[Contour]) -> None:
    """Say in words why there is no contour."""
    lines = ["No coupling is reached at any mass."]
    for contour in contours:
        signal = np.atleast_1d(np.asarray(contour.reach.signal, dtype=np.float64))
        if signal.size and np.isfinite(signal).any():
            best = int(np.nanargmax(signal))
            limit = float(np.broadcast_to(contour.reach.limit, signal.shape)[best])
            most = f"at most {signal[best]:.3g} events, at {contour.reach.mass[best]:.3g} GeV"
            lines.append(f"{contour.label}: {most}; {limit:.3g} are needed")
    style.say(ax, "\n".join(lines), over=True)


def _threshold(ax: Axes, plane: Plane) -> None:
    low, high = ax.get_xlim()
    if plane.threshold is None or not low < plane.threshold < high:
        return
    ax.axvline(plane.threshold, color="0.3", linestyle=":", linewidth=1.4)
    look: dict[str, Any] = {"xycoords": ax.get_xaxis_transform(), "textcoords": "offset points"}
    look |= {"xytext": (4, 0), "color": "0.3", "va": "bottom"}
    ax.annotate(plane.threshold_label, (plane.threshold, 0.02), **look)


def _visible_bands(ax: Axes, bands: FloatArray) -> list[Patch]:
    """Return entries of the legend for bands that are wider than a line."""
    low, high = np.log(ax.get_ylim())
    entries = []
    for sigma, first, last, shade in ((1, 1, 3, BAND68), (2, 0, 4, BAND95)):
        part = np.abs(np.log(bands[:, first] / bands[:, last])) / (high - low)
        part = part[np.isfinite(part)]
        if part.size and part.max() > THINNEST:
            entries.append(Patch(facecolor=shade, label=rf"expected $\pm{sigma}\sigma$"))
    return entries


def _draw(ax: Axes, contour: Contour, colour: str) -> list[Any]:
    """Draw a contour with its bands and return the entries of the legend."""
    width = _WIDTHS[contour.kind]
    hatch = "///" if contour.kind == "extrapolated" and contour.domain is None else None
    domain: list[Any] = []
    filled = contour.kind in ("measured", "observed") and contour.bands is None
    if contour.bands is not None:
        bands(ax, contour.reach.mass, contour.bands)
    for island in islands(contour.reach):
        polygon, lines, ends = outline(contour.reach, island)
        if filled:
            ax.fill(*polygon.T, facecolor=colour, alpha=0.22, linewidth=0, zorder=3)
        if contour.domain is not None:
            labels = [patch.get_label() for patch in domain]
            patches = hatch_domain(ax, contour.domain, polygon, "0.6")
            domain += [patch for patch in patches if patch.get_label() not in labels]
        if hatch:
            look: dict[str, Any] = {"facecolor": "none", "edgecolor": colour, "alpha": 0.5, "linewidth": 0}
            ax.fill(*polygon.T, hatch=hatch, zorder=3, **look)
        for part in lines:
            ax.plot(*part.T, color=colour, linewidth=width, zorder=6)
        for part in ends:
            ax.plot(*part.T, color=colour, linestyle=ENDING, linewidth=width, zorder=6, gid=ENDING)
    if contour.bands is not None:
        line = Line2D([], [], color=colour, linewidth=width, label=contour.label)
        return [line, *_visible_bands(ax, contour.bands), *domain]
    if contour.kind == "expected":
        return [Line2D([], [], color=colour, linewidth=1.8, label=contour.label), *domain]
    face = colour + "38" if filled else "none"
    patch: dict[str, Any] = {"facecolor": face, "edgecolor": colour, "linewidth": 1.6, "hatch": hatch}
    return [Patch(label=contour.label, **patch), *domain]
