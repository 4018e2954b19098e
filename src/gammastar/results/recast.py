"""A model of semi-visible dark photons to what BaBar, NA64 and Belle II say of it: tables and figures."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import TypeAdapter

from gammastar import report, semivisible
from gammastar.core.errors import PhysicsError, SteeringError, require
from gammastar.core.files import Pathlike, plain, validated, write_whole, writes_folder
from gammastar.core.records import BoolArray, FloatArray, Reach
from gammastar.report.figures.limits import Curve, Region, exclusion_figure, lifetime_figure
from gammastar.semivisible import gm2
from gammastar.semivisible.benchmarks import Benchmark, Published
from gammastar.semivisible.decays import lifetimes
from gammastar.semivisible.missing_momentum import free_intervals
from gammastar.semivisible.models import mediator_widths
from gammastar.semivisible.plane import hadrons
from gammastar.store.manifest import versions, write_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from gammastar.pipeline.context import Tell


LIMITS = {"BaBar": "babar", "NA64": "na64_2016_18"}
LIFETIMES_AT = 1e-3  # kinetic mixing of the figure of lifetimes


@dataclass(frozen=True, slots=True)
class PlaneRequest:
    """The plane of a model, ``[plane]`` of its file."""

    # Ends of the masses of the dark photon [GeV] and of its kinetic mixing, both even in the logarithm
    mass: tuple[float, float] = (0.02, 7.9)
    epsilon: tuple[float, float] = (1e-5, 0.1)
    n_mass: int = 24
    n_epsilon: int = 61
    # Events per mass
    events: int = 20_000
    seed: int = 1
    polarised: bool = False  # Dark photons are transverse
    hadrons: bool = False  # Dark states decay to hadrons too; R stays at its value of 2 GeV above
    # Probability that an event of e+e− → A'* → ψψ in which nothing is seen passes BaBar's selection
    s_channel: float = 0.0

    def __post_init__(self) -> None:
        for name in ("mass", "epsilon"):
            low, high = getattr(self, name)
            if not 0 < low < high < np.inf:
                raise PhysicsError(f"{name} = [{low:g}, {high:g}]: positive numbers, the smaller one first")
        for name, least in (("n_mass", 2), ("n_epsilon", 2), ("events", 100), ("seed", 0)):
            if getattr(self, name) < least:
                raise PhysicsError(f"{name} = {getattr(self, name)}: at least {least}")
        require(0 <= self.s_channel <= 1, f"s_channel = {self.s_channel:g}: a probability")


@dataclass(frozen=True, slots=True, eq=False)
class Recast:
    """What searches say of a model."""

    model: Benchmark
    plane: semivisible.Plane
    limits: dict[str, Published]  # Of "BaBar" and "NA64", for an invisible dark photon
    ctau: FloatArray  # Of the dark states at ε = 1 [m], shape (masses, states)
    masses: FloatArray  # Of the dark states [GeV], shape (masses, states)
    closed: BoolArray  # Where the dark photon has no open dark decay, shape (masses,)

    def excess(self, search: str, probability: FloatArray) -> FloatArray:
        """Return ln(ε² P/ε_lim²), shape (masses, couplings)."""
        limit = self.limits[search].at(self.plane.mass)
        return semivisible.excess(self.plane.epsilon, probability, limit)

    @property
    def free(self) -> Reach:
        """Couplings that neither BaBar nor NA64 (no decay inside) excludes."""
        p = self.plane
        excesses = self.excess("BaBar", p.babar), self.excess("NA64", p.strict)
        return free_intervals(p.mass, p.epsilon, *excesses)

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the result has to say of itself, once for all masses of which it holds."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for text in self.plane.warnings:
            where, _, said = text.partition(" GeV: ")
            without_numbers = re.sub(r"(?<!state )(?<![\d.])\d[-+.\de]*", "#", said)
            groups.setdefault(without_numbers, []).append((where.rpartition(" at ")[2], said))
        lines = []
        for (first, said), *more in groups.values():
            several = f" to {more[-1][0]} GeV, {len(more) + 1} masses, the first" if more else " GeV"
            lines.append(f"{first}{several}: {said}")
        return tuple(lines)


def wanted(model: Benchmark, path: Path, **changes: int | None) -> PlaneRequest:
    """Return the plane that a model asks for, with some of it changed."""
    content = dict(model.plane) | {key: value for key, value in changes.items() if value is not None}
    unknown = sorted(set(content) - {field.name for field in fields(PlaneRequest)})
    if unknown:
        known = ", ".join(field.name for field in fields(PlaneRequest))
        raise SteeringError(f"{path}: [plane] {', '.join(unknown)}: unknown; known are {known}")
    return validated(TypeAdapter(PlaneRequest), content, path)


def recast(
    model: Benchmark, request: PlaneRequest, *, curves: Sequence[Pathlike] = (), tell: Tell | None = None
) -> Recast:
    """Return what BaBar and NA64 say of a model, with full published curves of folders `curves`."""
    mass = np.geomspace(*request.mass, request.n_mass)
    epsilon = np.geomspace(*request.epsilon, request.n_epsilon)
    r_table = hadrons() if request.hadrons else None
    asked = {name: getattr(request, name) for name in ("seed", "polarised", "s_channel")}
    options = semivisible.Options(request.events, r_table=r_table, neutrino=model.neutrino, **asked)
    say: Tell = tell or (lambda *_: None)
    say("plane", 0.0, f"{model.name}: {request.n_mass} masses")
    plane = semivisible.scan(
        model.sector, mass, epsilon, options=options, progress=lambda part: say("plane", part, model.name)
    )
    sectors = [model.sector(float(m)) for m in mass]
    pairs = [mediator_widths(sector)[0] for sector in sectors]
    ctau = [lifetimes(sector, r_table=r_table, neutrino=model.neutrino) for sector in sectors]
    published = {}  # the first full curve that a folder holds, else the shipped points
    for name in LIMITS.values():
        own = [semivisible.published(name, folder) for folder in curves]
        published[name] = next((limit for limit in own if limit.full), semivisible.published(name))
    return Recast(
        model=model,
        plane=plane,
        limits={search: published[name] for search, name in LIMITS.items()},
        ctau=np.array(ctau),
        masses=np.array([sector.masses for sector in sectors]),
        closed=np.array([not len(states) for states in pairs]),
    )


def regions(result: Recast) -> list[Region]:
    """Return what is drawn of every search."""
    plane = result.plane
    return [
        Region(
            "BaBar: photon and missing mass; shades: visible definition",
            result.excess("BaBar", plane.babar),
            (result.excess("BaBar", plane.babar_low), result.excess("BaBar", plane.babar_high)),
        ),
        Region("NA64 2016–18: no decay inside", result.excess("NA64", plane.strict)),
        Region("NA64 2016–18: decays inside count", result.excess("NA64", plane.inclusive), filled=False),
    ]


def _figure(result: Recast) -> Figure:
    plane = result.plane
    low, high = gm2.reference("wp20").band(plane.mass)
    curves = [
        Curve(r"$(g-2)_\mu$ 2020, ± 2σ", plane.mass, low, high),
        Curve(r"$(g-2)_\mu$ 2025, upper limit", plane.mass, gm2.reference().band(plane.mass)[1]),
    ]
    for search, limit in result.limits.items():
        inside = (limit.mass >= plane.mass[0]) & (limit.mass <= plane.mass[-1])
        text = f"{search}, invisible dark photon" + ("" if limit.full else ": points, straight between")
        curves.append(Curve(text, limit.mass[inside], limit.epsilon[inside], points=not limit.full))
    return exclusion_figure(
        (plane.mass, plane.epsilon), regions(result), curves, closed=result.closed, title=result.model.name
    )


def _excluded(result: Recast) -> dict[str, list[object]]:
    """Return the excluded intervals of every search as columns."""
    plane, rows = result.plane, []
    for search, label, probability in (
        ("BaBar", "BaBar", plane.babar),
        ("BaBar", "BaBar, low end of the band", plane.babar_low),
        ("BaBar", "BaBar, high end of the band", plane.babar_high),
        ("NA64", "NA64, no decay inside", plane.strict),
        ("NA64", "NA64, decays inside count", plane.inclusive),
    ):
        bound = result.limits[search].at(plane.mass)
        reach = semivisible.intervals(plane.mass, plane.epsilon, probability, bound)
        rows += [(label, *row) for row in _intervals(reach)]
    return _columns(("search", "mass_GeV", "epsilon_low", "epsilon_high", "clipped_side"), rows)


def _intervals(reach: Reach) -> list[tuple[object, ...]]:
    rows = zip(reach.mass, reach.edges, reach.clipped_side, strict=True)
    reached = ((m, *ends, side) for m, ends, side in rows if np.isfinite(ends[0]))
    return [(f"{m:.6g}", f"{low:.6g}", f"{high:.6g}", side) for m, low, high, side in reached]


def _columns(names: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> dict[str, list[object]]:
    return {name: [row[k] for row in rows] for k, name in enumerate(names)}


def _tables(result: Recast) -> dict[str, dict[str, list[object]]]:
    """Return the tables by the names of their files."""
    plane = result.plane
    names = ("babar", "babar_low", "babar_high", "babar_error", "strict", "inclusive")
    where = np.array(np.meshgrid(plane.mass, plane.epsilon, indexing="ij")).reshape(2, -1)
    values = [getattr(plane, name).ravel() for name in names]
    rows = np.column_stack([*where, *values]).tolist()
    grid = _columns(("mass_GeV", "epsilon", *names), [tuple(f"{x:.6g}" for x in row) for row in rows])
    states = [
        (f"{m:.6g}", k + 1, f"{result.masses[i, k]:.6g}", f"{result.ctau[i, k]:.6g}")
        for i, m in enumerate(plane.mass)
        for k in range(result.masses.shape[1])
    ]
    free = ("mass_GeV", "epsilon_low", "epsilon_high", "clipped_side")
    return {
        "excluded.csv": _excluded(result),
        "allowed.csv": _columns(free, _intervals(result.free)),
        "probabilities.csv": grid,
        "states.csv": _columns(("mass_GeV", "state", "state_mass_GeV", "ctau_at_epsilon_1_m"), states),
    }


@writes_folder
def recast_file(
    model: str,
    *,
    output: Pathlike,
    curves: Sequence[Pathlike] = (),
    tell: Tell | None = None,
    **changes: int | None,
) -> list[str]:
    """Write figures, tables and ``recast.json`` of a model; `changes`: ``events`` and ``seed``. Summarise."""
    point = semivisible.load_benchmark(model)
    request = wanted(point, Path(model), **changes)
    result = recast(point, request, curves=curves, tell=tell)
    folder = Path(output)
    report.save_figure(_figure(result), folder / "plane")
    ctau = result.ctau / LIFETIMES_AT**2
    drawn = lifetime_figure(result.plane.mass, ctau, LIFETIMES_AT, title=point.name)
    report.save_figure(drawn, folder / "lifetimes")
    for name, columns in _tables(result).items():
        write_table(folder / name, columns)
    cards = (semivisible.load_babar(), semivisible.load_na64())
    about = {
        "model": point.name,
        "kind": point.kind,
        "source": point.source,
        "plane": {field.name: getattr(request, field.name) for field in fields(PlaneRequest)},
        "full published curves": {search: limit.full for search, limit in result.limits.items()},
        "warnings": list(result.warnings),
        "unverified inputs": [text for card in cards for text in card.unverified],
        "versions": dict(versions()),
    }
    write_whole(folder / "recast.json", (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())
    return _said(result)


def _said(result: Recast) -> list[str]:
    """Return the summary: states, what is free of the (g−2)μ band, warnings."""
    plane = result.plane
    point = result.model
    at = point.mediator or float(np.sqrt(plane.mass[0] * plane.mass[-1]))
    masses = ", ".join(f"{1e3 * m:.4g}" for m in point.sector(at).masses)
    lines = [f"{point.name}: states of {masses} MeV at m_A' = {at:.3g} GeV"]
    band = gm2.reference("wp20").band(plane.mass)
    both = result.excess("BaBar", plane.babar), result.excess("NA64", plane.strict)
    free = semivisible.allowed(band, plane.epsilon, *both)
    whole = plane.mass[np.nan_to_num(free) >= 1]
    if np.isfinite(free).any():
        said = f"(g-2)mu band of 2020: {100 * np.nanmean(free):.0f} % free over the masses of the plane"
        if len(whole):
            said += f", all of it at {len(whole)} masses from {whole[0]:.3g} to {whole[-1]:.3g} GeV"
        lines.append(said)
    lines += [f"warning: {plain(text, keep='')}" for text in result.warnings]
    few = [search for search, limit in result.limits.items() if not limit.full]
    if few:
        lines.append(f"warning: {' and '.join(few)} from a few shipped points; --curves names a folder")
    return lines
