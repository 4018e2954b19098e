"""Figures of the inference: impacts, limits against mass, likelihoods, searches in situ, recasts."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Polygon

from gammastar.core.errors import InputFileError, require
from gammastar.core.files import Pathlike, data_path, folder_names, from_toml, text_of
from gammastar.core.records import COUPLING, LABELS, MASS, BoolArray, FloatArray, Reach
from gammastar.report import style
from gammastar.report.figures.reach import LIMIT, existing, meets, region
from gammastar.report.style import (
    BAND68,
    BAND95,
    COLOURS,
    LINES,
    MASS_DARK,
    checked,
    mark_mock,
    steps,
    styled,
)

PUBLISHED = ("observed", "recast", "astrophysical")  # drawn in grey
KINDS = (*PUBLISHED, "recomputed")  # drawn unless something else is asked for
LENGTHS = {  # from the target to the decay volume and its length [m]
    "FASER": (476.0, 1.5),  # arXiv:2308.05587
    "NA62": (81.6, 77.9),  # arXiv:2312.12055
    "CHARM (recomputed)": (480.0, 35.0),  # Phys. Lett. B 157 (1985) 458
    "NuCal (recomputed)": (64.0, 23.0),  # Z. Phys. C 51 (1991) 341
}
TEXTS = ("name", "plane", "kind", "citation", "reference", "source", "licence")
# a file of the user may leave these out
MORE = ("bibtex", "attribution", "digitised", "changes", "assumption")
RECAST = "recast here by ratios of rate, ee and lifetime"


@dataclass(frozen=True, slots=True, eq=False)
class ExistingLimit:
    """A published limit."""

    name: str  # As written into the figure
    plane: str  # Model whose plane it belongs to: ``"dark_photon"``, ``"millicharge"``, …
    kind: str  # One of `KINDS`, or ``"projection"``
    # Publication, and its arXiv number or DOI
    citation: str
    reference: str
    # Where the numbers were taken from, and under which licence
    source: str
    licence: str
    # Mass [GeV] and coupling; open curves are closed towards large couplings, shape (n, 2)
    polygon: FloatArray
    bibtex: str = ""
    assumption: str = ""  # Of what was recomputed, for the legend

    @property
    def curve(self) -> tuple[str, FloatArray, str, str]:
        """Label, polygon, kind and assumption, as `reach_figure` takes them."""
        return self.name, self.polygon, self.kind, self.assumption


def citations(limits: Iterable[ExistingLimit]) -> str:
    """Return one line with the references of limits, for captions.

    Examples
    --------
    >>> citations(existing_limits(kinds=["recomputed"]))
    'CHARM (recomputed) [Phys. Lett. B 157 (1985) 458]; NuCal (recomputed) [Z. Phys. C 51 (1991) 341]'
    """
    return "; ".join(dict.fromkeys(f"{limit.name} [{limit.reference}]" for limit in limits))


def told(figure: Figure, limits: Iterable[ExistingLimit], plane: str) -> str:
    """Return, for a caption, which limits a figure shows and which known ones of its frame it does not."""
    ax = figure.axes[0]
    if ax.get_yscale() != "log":
        return ""  # a figure that failed
    seen = {artist.get_gid() for artist in (*ax.patches, *ax.lines)}
    drawn = [limit for limit in limits if LIMIT + limit.name in seen]
    done = {text for limit in drawn for text in (limit.name, limit.reference)}
    rest = [x for x in known_limits().values() if x.plane == plane and not done & {x.name, x.reference}]
    groups = {
        "Grey": [limit for limit in drawn if limit.kind in PUBLISHED],
        "Dashed, recomputed here": [limit for limit in drawn if limit.kind == "recomputed"],
        "Dash-dotted, projections": [limit for limit in drawn if limit.kind == "projection"],
        "Known here and not drawn": [limit for limit in rest if meets(ax, limit.polygon)],
    }
    return " ".join(f"{text}: {citations(group)}." for text, group in groups.items() if group)


def read_limit(path: Path) -> ExistingLimit:
    """Read a limit from a TOML file."""
    try:
        content = from_toml(path)
    except (OSError, ValueError) as error:
        raise InputFileError(f"{path}: cannot be read as TOML ({error})") from error
    unknown = set(content) - {*TEXTS, *MORE, "closed", "mass", "coupling"}
    missing = {*TEXTS, "closed", "mass", "coupling"} - set(content)
    if unknown or missing:
        raise InputFileError(f"{path}: missing keys {sorted(missing)}, unknown keys {sorted(unknown)}")
    if not all(isinstance(content.get(key, "-"), str) and content.get(key, "-") for key in (*TEXTS, *MORE)):
        raise InputFileError(f"{path}: each of {', '.join(TEXTS)} must be a text: a limit needs its source")
    if content["kind"] not in (*KINDS, "projection"):
        raise InputFileError(f"{path}: kind = {content['kind']!r} is none of {', '.join(KINDS)}, projection")
    try:
        points = np.array([content["mass"], content["coupling"]], dtype=np.float64).T
    except (TypeError, ValueError, OverflowError) as error:
        raise InputFileError(f"{path}: mass and coupling must be equal lists of numbers ({error})") from error
    if points.ndim != 2 or len(points) < 2 or not np.all(np.isfinite(points) & (points > 0)):
        raise InputFileError(f"{path}: mass and coupling must be at least two positive, finite numbers each")
    if content["kind"] == "projection":  # a line, whose end is not tied to its beginning
        points = np.vstack([points, points[: 1 if content["closed"] else 0]])
    elif not content["closed"]:
        above = np.array([[points[-1, 0], 1.0], [points[0, 0], 1.0]])
        points = np.vstack([points, above])
    texts = {key: content.get(key, "") for key in (*TEXTS, "bibtex", "assumption")}
    return ExistingLimit(**texts, polygon=points)


@cache
def known_limits() -> dict[str, ExistingLimit]:
    """Return the limits on record, by their files in Darkcast or their names; polygons are frames of them."""
    lines = text_of(data_path("bounds/known.csv")).splitlines()
    found = {}
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        low, high, least, most = (float(row[x]) for x in list(row)[-4:])
        end = most if most == 1.0 else max(least, most * low / high)
        corners = np.array([[low, least], [high, least], [high, end], [low, most]])
        texts = {"citation": row["reference"], "source": "data/bounds/known.csv", "licence": "BSD-3-Clause"}
        texts |= {key: row[key] for key in ("name", "plane", "kind", "reference")}
        found[row["file"] or row["name"]] = ExistingLimit(**texts, polygon=corners)
    return found


def _darkcast(path: Path) -> FloatArray:
    """Return the polygon of a file of masses [GeV], lower and perhaps upper couplings; 1e5 is no limit."""
    lines = (line.replace(",", " ").split() for line in text_of(path).splitlines())
    try:
        table = np.array([line for line in lines if line and line[0][0] in "0123456789."], dtype=np.float64)
    except ValueError:
        table = np.empty(0)
    if table.ndim != 2 or table.shape[1] not in (2, 3) or not np.all(np.isfinite(table) & (table > 0)):
        raise InputFileError(f"{path}: give positive numbers, mass, lower and perhaps upper coupling a line")
    mass, lower, upper = table[:, 0], np.minimum(table[:, 1], 1.0), np.minimum(table[:, -1], 1.0)
    upper[(lower == 1.0) | (table.shape[1] == 2)] = 1.0
    return np.concatenate([np.column_stack([mass, lower]), np.column_stack([mass, upper])[::-1]])


def existing_limits(
    plane: str = "dark_photon", *, directory: Pathlike | None = None, kinds: Iterable[str] = KINDS
) -> list[ExistingLimit]:
    """Return the shipped limits of a plane and those of a user's directory.

    Parameters
    ----------
    directory : path, optional
        Further files, one limit each: TOML as in ``data/bounds``, or those of Darkcast (``NAME.lmt``, also as
        ``darkcast_NAME.csv``) that ``data/bounds/known.csv`` names, for what its licence keeps out of here.

    Examples
    --------
    >>> [limit.name for limit in existing_limits(kinds=["observed"])]
    ['FASER', 'NA62', 'NA62 (muons)', 'PHENIX']
    """
    directory = None if directory is None else Path(directory)
    if directory is not None and not directory.is_dir():
        raise InputFileError(f"{directory}: no such directory of limits")
    files = [data_path(f"bounds/{name}.toml") for name in folder_names("bounds")]
    own = [] if directory is None else sorted(directory.iterdir())
    found = [read_limit(path) for path in (*files, *(path for path in own if path.suffix == ".toml"))]
    for path in own:
        about = known_limits().get(path.stem.removeprefix("darkcast_"))
        if about is not None and path.suffix in (".lmt", ".csv"):
            here = {"source": str(path), "licence": "that of its folder"}
            found.append(replace(about, polygon=_darkcast(path), **here))
    wanted = set(kinds)
    return [limit for limit in found if limit.plane == plane and limit.kind in wanted]


def edges_of(polygon: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the lowest and highest coupling of a closed polygon at masses, shape (n, 2); nan outside it."""
    low, high = np.full(len(mass), np.inf), np.full(len(mass), -np.inf)
    x, y = polygon[:, 0], np.log(polygon[:, 1])
    for (x0, y0), (x1, y1) in pairwise(zip([*x, x[0]], [*y, y[0]], strict=True)):
        if x0 != x1:
            part = (mass - x0) / (x1 - x0)
            at = np.where((part >= 0) & (part <= 1), y0 + part * (y1 - y0), np.nan)
            low, high = np.fmin(low, at), np.fmax(high, at)
    edges = np.exp(np.stack([low, high], axis=1))
    edges[~(low < high - 1e-6)] = np.nan
    return np.asarray(edges, dtype=np.float64)


def recast(
    limits: Iterable[ExistingLimit],
    plane: str,
    carry: Callable[[FloatArray, FloatArray, float], FloatArray],
    *,
    highest: float,
    points: int = 60,
) -> list[ExistingLimit]:
    """Return limits of dumps carried over to another model, of kind "recomputed", one for each island."""
    found = []
    for limit in (one for one in limits if one.name in LENGTHS):
        near, length = LENGTHS[limit.name]
        low, high = limit.polygon[:, 0].min(), min(limit.polygon[:, 0].max(), highest)
        mass = np.geomspace(low * 1.001, high * 0.999, points)
        edges = edges_of(limit.polygon, mass)
        inside = np.isfinite(edges).all(axis=1)
        mass, edges = mass[inside], edges[inside]
        new = carry(mass, edges, (near + length) / near)
        name = f"{limit.name.removesuffix(' (recomputed)')} (recast)"
        about = {"name": name, "plane": plane, "kind": "recomputed", "assumption": RECAST}
        found += [replace(limit, polygon=polygon, **about) for polygon in _islands(mass, new)]
    return found


def _islands(mass: FloatArray, edges: FloatArray) -> list[FloatArray]:
    """Return closed polygons of runs of two masses or more with finite edges."""
    good = np.asarray(np.isfinite(edges).all(axis=1), dtype=np.bool_)
    runs = np.split(np.column_stack([mass, edges]), np.flatnonzero(np.diff(good)) + 1)
    runs = [run for run in runs if len(run) > 1 and np.isfinite(run).all()]
    return [np.concatenate([run[:, [0, 1]], run[::-1][:, [0, 2]]]) for run in runs]


Limits = Sequence[tuple[Any, ...]]


@styled
def impact_figure(ranking: Any, *, mock: bool, title: str = "", coupling: str = r"\varepsilon") -> Figure:
    r"""Draw the impacts of nuisances of an ``infer.ranking`` on log10 of the coupling, and their pulls."""
    names, prefit, n = ranking.names, ranking.prefit, len(ranking.names)
    require(n, "impact_figure: there is no nuisance to be drawn")
    pull, constraint = checked("pull", ranking.pull, (n,)), checked("constraint", ranking.constraint, (n,))
    impact = checked("impact", ranking.impact, (n, 2))
    figure, ax = style.single(size=(7.6, 1.9 + 0.46 * n))
    height = np.arange(n)[::-1]
    for side, colour in ((0, COLOURS[0]), (1, COLOURS[1])):
        ax.barh(height, impact[:, side], height=0.62, color=colour, alpha=0.55, linewidth=0, zorder=2)
        if prefit is not None:
            before = checked("prefit", prefit, (n, 2))[:, side]
            ax.barh(height, before, height=0.62, fill=False, edgecolor=colour, linewidth=1.2, zorder=3)
    both = impact if prefit is None else np.concatenate([impact, np.nan_to_num(prefit)])
    widest = max(1.25 * float(np.abs(both).max()), 1e-4)
    ax.set(xlim=(-widest, widest), ylim=(-0.7, n - 0.3), xlabel=rf"impact $\Delta\log_{{10}}{coupling}$")
    ax.axvline(0.0, color="0.4", linewidth=0.8, zorder=1)
    ax.set_yticks(height, [f" {name.replace('_', ' ')}" for name in names])
    ax.tick_params(axis="y", which="both", length=0, labelsize=12)
    ax.locator_params(axis="x", nbins=5)
    top = ax.twiny()
    look: dict[str, Any] = {"color": "black", "markersize": 4.5, "linewidth": 1.3}
    top.errorbar(pull, height, xerr=constraint, fmt="o", zorder=5, **look)
    largest = max(2.0, 1.1 * float(np.nan_to_num(np.abs(pull) + constraint).max()))
    top.set(xlim=(-largest, largest), xlabel=r"pull $(\hat\theta-\theta_0)/\Delta\theta$")
    for line in (-1.0, 1.0):
        top.axvline(line, color="0.6", linewidth=0.8, linestyle=":", zorder=1)
    handles = [
        Patch(facecolor=COLOURS[0], alpha=0.55, label=r"$\theta=-1\sigma$"),
        Patch(facecolor=COLOURS[1], alpha=0.55, label=r"$\theta=+1\sigma$"),
        Line2D([], [], marker="o", label="pull", **look),
    ]
    if prefit is not None:
        handles.append(Patch(fill=False, edgecolor="0.3", linewidth=1.2, label="before the fit"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles))
    if title:
        figure.suptitle(title, x=0.02, ha="left", fontsize=13)
    mark_mock(top, mock, position=(0.97, 0.05))
    return figure


def _expected(ax: Axes, mass: FloatArray, bands: FloatArray) -> None:
    """Fill the bands of expected limits at −2 … +2 standard deviations, shape (n, 5)."""
    for low, high, colour, text in ((0, 4, BAND95, r"$\pm2\sigma$"), (1, 3, BAND68, r"$\pm1\sigma$")):
        edges = bands[:, low], bands[:, high]
        ax.fill_between(mass, *edges, color=colour, linewidth=0, label=f"expected {text}")


def _observed(ax: Axes, mass: FloatArray, observed: FloatArray | None, mock: bool) -> None:
    require(not mock or observed is None, "mock data have no observed limit")
    if observed is not None:
        values = checked("observed", observed, (len(mass),))
        ax.plot(mass, values, color="black", linewidth=2.2, label="observed")


@styled
def limit_figure(
    mass: FloatArray,
    expected: FloatArray,
    *,
    mock: bool,
    observed: FloatArray | None = None,
    cl: float = 0.90,
    title: str = "",
    mass_label: str = MASS_DARK,
) -> Figure:
    """Draw upper limits on the signal events against mass with the expected bands."""
    bands = checked("expected", expected, (len(mass), 5))
    figure, ax = style.single(size=(7.4, 5.4))
    _expected(ax, mass, bands)
    ax.plot(mass, bands[:, 2], color="black", linestyle="--", label="expected median")
    _observed(ax, mass, observed, mock)
    ax.set_xlim(float(mass[0]), float(mass[-1]))
    style.log_mass_axis(ax)
    drawn = bands if observed is None else np.column_stack([bands, observed])
    highest = 1.45 * float(np.nanmax(drawn))
    ax.set(xlabel=mass_label, ylabel="upper limit on signal events", ylim=(0.0, highest))
    ax.set_title(title, loc="left")
    ax.set_title(f"{100 * cl:.3g} % CL", loc="right")
    style.sorted_legend(ax, lambda label: (label != "observed", "median" not in label), loc="upper right")
    return figure


def frame(expected: FloatArray) -> tuple[float, float]:
    """Return the range of couplings that is drawn about limits; any range where none is finite."""
    finite = expected[np.isfinite(expected)]
    return (0.2 * float(finite.min()), 3.0 * float(finite.max())) if finite.size else (1e-4, 1.0)


def _plane(mass: FloatArray, couplings: tuple[float, float], limits: Limits) -> tuple[Figure, Axes]:
    """Return a plane of mass and coupling with published limits in grey."""
    figure, ax = style.single(size=(7.6, 6.2))
    ax.set(yscale="log", xlim=(float(mass[0]), float(mass[-1])), ylim=couplings)
    style.log_mass_axis(ax)
    for limit in limits:
        existing(ax, *limit)
    ax.set(xlabel=MASS_DARK, ylabel=LABELS[COUPLING])
    return figure, ax


@styled
def coupling_figure(
    mass: FloatArray,
    expected: FloatArray,
    *,
    mock: bool,
    cl: float = 0.90,
    observed: FloatArray | None = None,
    limits: Limits = (),
) -> Figure:
    """Draw limits on the coupling against mass with expected bands, for a signal that goes as ε²."""
    bands = checked("expected", expected, (len(mass), 5))
    figure, ax = _plane(mass, frame(bands), limits)
    _expected(ax, mass, bands)
    look: dict[str, Any] = {"color": "black", "linestyle": "--", "marker": ".", "markersize": 4}
    ax.plot(mass, bands[:, 2], label="expected median, 100 % measured", **look)  # points between gaps
    _observed(ax, mass, observed, mock)
    ax.set_title(f"{100 * cl:.3g} % CL, prompt decays in situ", loc="left")
    ax.legend(loc="lower right")
    return figure


@styled
def gap_figure(
    prompt: tuple[FloatArray, FloatArray],
    plane: tuple[FloatArray, FloatArray, FloatArray],
    reaches: Mapping[str, Reach],
    *,
    mock: bool,
    limits: Limits = (),
) -> Figure:
    """Draw the reach for prompt decays and for those behind the target, and what lies between them."""
    mass, coupling, ratio = plane
    top = float(coupling[-1])
    if np.isfinite(prompt[1]).any():
        top = 60.0 * max(top, float(np.nanmax(prompt[1])))
    figure, ax = _plane(mass, (float(coupling[0]), top), limits)
    ax.plot(*prompt, color="black", linestyle="--", label="prompt decays in situ, expected limit")
    shown = np.log10(np.maximum(ratio.T, 1e-30))
    power = int(np.floor(shown.max()))
    levels = [float(level) for level in range(power - 2, power + 1) if level != 0]
    if len(mass) > 1 and power > -20:
        look: dict[str, Any] = {"colors": COLOURS[0], "linewidths": 1.0, "linestyles": ":"}
        lines = ax.contour(mass, coupling, shown, levels=levels, **look)
        ax.clabel(lines, fmt=lambda level: rf"$10^{{{level:.0f}}}$", fontsize=10)
        ax.plot([], [], color=COLOURS[0], linestyle=":", label="displaced signal over its expected limit")
    for i, (name, reach) in enumerate(reaches.items(), 1):
        colour, whole = COLOURS[i % len(COLOURS)], name == "all"
        fill: dict[str, Any] = {"facecolor": colour, "alpha": 0.35} if whole else {"facecolor": "none"}
        for polygon in region(reach.mass, reach.edges):
            ax.add_patch(Polygon(polygon, edgecolor=colour, **fill))
        if np.isfinite(reach.edges).any():
            ax.plot([], [], color=colour, label=f"displaced, {'expected reach' if whole else name}")
    ax.set_title("between prompt searches and dumps", loc="left")
    ax.legend(loc="upper right")
    return figure


@styled
def reach_lines_figure(
    curves: Mapping[str, tuple[FloatArray, FloatArray]],
    *,
    x_label: str = MASS_DARK,
    y_label: str,
    y_range: tuple[float, float],
    mock: bool,
    title: str = "",
    limits: Limits = (),
) -> Figure:
    """Draw one coupling against mass per curve, e.g. the reach of a peak search or of mCP detectors."""
    figure, ax = style.single(size=(7.6, 5.8))
    for index, (label, (mass, coupling)) in enumerate(curves.items()):
        colour, line = COLOURS[index % len(COLOURS)], LINES[index % len(LINES)]
        ax.plot(mass, coupling, color=colour, linestyle=line, label=label)
    ax.set(xlabel=x_label, ylabel=y_label, ylim=y_range, yscale="log")
    style.log_mass_axis(ax)
    ax.set_xlim(ax.get_xlim())
    for limit in limits:
        existing(ax, *limit)
    ax.legend(loc="upper right", title=title, alignment="left", fontsize=11)
    return figure


@styled
def peak_background_figure(
    edges: FloatArray,
    pairs: FloatArray,
    smooth: FloatArray | None,
    lines: Mapping[str, FloatArray],
    *,
    mock: bool,
) -> Figure:
    """Draw the pairs of a peak search per GeV with the templates of their background."""
    figure, ax = style.single(size=(7.4, 5.4))
    width = np.diff(edges)
    steps(ax, edges, pairs / width, color="black", label="opposite-sign pairs")
    if smooth is not None:
        look: dict[str, Any] = {"color": COLOURS[0], "linestyle": "--"}
        steps(ax, edges, smooth / width, label="continuum and subtracted pairs", **look)
        total = smooth + sum(lines.values(), np.zeros_like(smooth))
        steps(ax, edges, total / width, color=COLOURS[1], label="with lines")
    for i, (name, line) in enumerate(lines.items()):
        steps(ax, edges, line / width, color=COLOURS[2 + i], linestyle=":", label=rf"$\{name}$, free yield")
    style.log_range(ax, pairs / width, decades=3.0, rows=4)
    ax.set(xlabel=LABELS[MASS], ylabel="pairs / GeV", xlim=(float(edges[0]), float(edges[-1])))
    ax.legend(loc="upper right", ncols=2)
    mark_mock(ax, mock, position=(0.03, 0.05))
    return figure


MOST = 1e3  # excess that is drawn


@dataclass(frozen=True, slots=True, eq=False)
class Region:
    """Couplings that a recast search excludes."""

    label: str
    excess: FloatArray  # Above zero where it excludes; −inf where it says nothing, shape (m, k)
    # Two others, the ends of what the search may have seen, drawn as two shades; else one shade
    band: tuple[FloatArray, FloatArray] | None = None
    filled: bool = True  # False draws the edge alone, as a projection or an alternative


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """A line or band of couplings against mass."""

    label: str
    # shape (n,)
    mass: FloatArray
    epsilon: FloatArray
    upper: FloatArray | None = None  # Fills a band from `epsilon` on, shape (n,)
    points: bool = False  # Mark the points: nothing is known between them


def _shown(excess: FloatArray) -> np.ma.MaskedArray:
    """Return what a contour is drawn of, shape (couplings, masses); masses without any are masked."""
    nothing = ~np.isfinite(excess).any(axis=1)
    return np.ma.masked_array(np.clip(excess, -MOST, MOST).T, np.broadcast_to(nothing, excess.T.shape))


def _region(ax: Axes, plane: tuple[FloatArray, FloatArray], region: Region, k: int) -> Line2D | Patch:
    colour = COLOURS[k % len(COLOURS)]
    if region.filled:
        shades = (region.excess,) if region.band is None else region.band
        for excess, alpha in zip(shades, (0.32, 0.18), strict=False):
            ax.contourf(*plane, _shown(excess), levels=[0.0, MOST], colors=[colour], alpha=alpha, zorder=2)
    line = LINES[0] if region.filled else LINES[1 + k % (len(LINES) - 1)]
    ax.contour(*plane, _shown(region.excess), levels=[0.0], colors=[colour], linestyles=[line], zorder=5)
    if region.filled:
        return Patch(facecolor=colour, edgecolor=colour, alpha=0.5, label=region.label)
    return Line2D([], [], color=colour, linestyle=line, label=region.label)


def _curve(ax: Axes, curve: Curve, k: int) -> Line2D | Patch:
    if curve.upper is not None:
        ax.fill_between(curve.mass, curve.epsilon, curve.upper, color="#4daf4a", alpha=0.3, lw=0, zorder=1)
        return Patch(color="#4daf4a", alpha=0.3, label=curve.label)
    look = {"color": str(0.15 + 0.25 * (k % 3)), "linestyle": LINES[(3 + k) % len(LINES)], "linewidth": 1.2}
    look |= {"marker": "o", "markersize": 4.0} if curve.points else {}
    ax.plot(curve.mass, curve.epsilon, zorder=4, **look)
    return Line2D([], [], label=curve.label, **look)


@styled
def exclusion_figure(
    plane: tuple[FloatArray, FloatArray],
    regions: Sequence[Region],
    curves: Sequence[Curve] = (),
    *,
    closed: BoolArray | None = None,
    title: str = "",
) -> Figure:
    """Draw what searches exclude of a model on the plane of mass and kinetic mixing."""
    mass, epsilon = plane
    figure, ax = style.single(size=(10.8, 6.2))
    handles = [_region(ax, plane, region, k) for k, region in enumerate(regions)]
    handles += [_curve(ax, curve, k) for k, curve in enumerate(curves)]
    if closed is not None and closed.any():
        look: dict[str, Any] = {"fc": "none", "hatch": "//"}
        ax.fill_between(mass, 0, 1, where=closed, transform=ax.get_xaxis_transform(), ec="0.7", lw=0, **look)
        handles.append(Patch(ec="0.6", label="$A′$ has no open dark decay", **look))
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel="kinetic mixing $ε$", ylim=(epsilon[0], epsilon[-1]))
    ax.set_xlim(mass[0], mass[-1])
    style.log_mass_axis(ax)
    ax.set_title(title, fontsize=12)
    ax.legend(handles=handles, fontsize=9.5, loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
    return figure


@styled
def lifetime_figure(mass: FloatArray, ctau: FloatArray, epsilon: float, *, title: str = "") -> Figure:
    """Draw the proper decay lengths of the dark states against the mass of the dark photon."""
    figure, ax = style.single(size=(7.2, 5.4))
    for k, column in enumerate(ctau.T):
        decays = np.isfinite(column) & (column > 0)
        look = {"color": COLOURS[k % len(COLOURS)], "linestyle": LINES[k % len(LINES)]}
        if decays.any():
            ax.plot(mass, np.where(decays, column, np.nan), label=f"$ψ_{{{k + 1}}}$", **look)
        else:
            never = "does not decay" if np.isinf(column).all() else "decays at once"
            ax.plot([], [], label=f"$ψ_{{{k + 1}}}$: {never}", **look)
    ax.set(yscale="log", xlabel=MASS_DARK, ylabel="$cτ$ [m]", xlim=(mass[0], mass[-1]))
    style.log_mass_axis(ax)
    ax.set_title(", ".join(text for text in (title, f"$ε$ = {epsilon:g}") if text), fontsize=12)
    ax.legend(fontsize=11)
    return figure
