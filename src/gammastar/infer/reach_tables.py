"""Contours of a search as rows and words, for files, tables and reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from gammastar.core.records import FloatArray, MassInterval, Reach
from gammastar.infer.counting_search import Search
from gammastar.infer.limits import label_at, one_treatment

BANDS = ("m2", "m1", "median", "p1", "p2")
SOURCES = ("sample", "toys", "interpolation")  # of the numerical errors of an edge


def contours(search: Search) -> dict[str, Reach]:
    """Return every contour of a search by its name in the tables."""
    parts = {"all": search.reach, "measured domain": search.measured}
    if search.observed is not None:
        parts["observed"] = search.observed
    parts |= {f"discovery, {z:g} sigma": reach for z, reach in search.discovery.items()}
    return parts | {f"projection, {pot:.4g} POT": reach for pot, reach in search.projections.items()}


def intervals_of(reach: Reach) -> list[dict[str, Any]]:
    """Return the intervals of mass in which anything is reached, as the files hold them."""
    return [asdict(interval) for interval in reach.intervals]


def limits_of_edges(reach: Reach, i: int) -> dict[str, float]:
    """Return the coupling of the largest signal of an entry, its limit there, and those of both edges."""
    n = len(reach.mass)
    peak = np.full(n, np.nan) if reach.peak is None else reach.peak
    edges = np.full((n, 2), np.nan) if reach.edge_limits is None else reach.edge_limits
    return {
        "peak": float(peak[i]),
        "limit": float(np.broadcast_to(reach.limit, (n,))[i]),
        "limit_low": float(edges[i, 0]),
        "limit_high": float(edges[i, 1]),
    }


def reach_rows(search: Search, coupling: str = "coupling") -> list[dict[str, Any]]:
    """Return one row per mass and island of every contour; `coupling` begins the names of its columns."""
    rows = []
    for part, reach in contours(search).items():
        rows += _rows(reach, search, part, coupling)
    return rows


def _rows(reach: Reach, search: Search, part: str, name: str) -> list[dict[str, Any]]:
    limit, rows = search.limit, []
    n = len(reach.mass)
    bands = np.full((n, 5, 2), np.nan) if reach.bands is None else reach.bands
    errors = np.full((n, 2, 3), np.nan) if reach.errors is None else reach.errors
    method = _method(part, search)
    for i, mass in enumerate(reach.mass):
        edges = reach.edges[i]
        decided = limits_of_edges(reach, i)
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            f"{name}_low": float(edges[0]),
            f"{name}_high": float(edges[1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            f"{name}_peak": decided.pop("peak"),
            "signal": float(reach.signal[i]),
            **decided,
        }
        for j, band in enumerate(BANDS):
            entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in bands[i, j])
        at = (entry[f"{name}_peak"], *edges.tolist())
        labels = [label_at(method, search.sigma_at(float(mass), g)) if g > 0 else "" for g in at]
        entry |= {"cl": limit.cl, "method": labels[0] or method}
        entry |= {"method_low": labels[1], "method_high": labels[2], "mc_error": float(limit.mc_error)}
        for k, side in enumerate(("low", "high")):
            total = float(np.sqrt((errors[i, k] ** 2).sum()))
            entry[f"{name}_{side}_error"] = float(edges[k] * np.log(10.0) * total)
            entry |= {f"{side}_error_{s}": float(errors[i, k, j]) for j, s in enumerate(SOURCES)}
        entry["fraction_in_domain_low"], entry["fraction_in_domain_high"] = _fraction(search, part, i)
        rows.append(entry)
    return rows


def reach_of_rows(
    rows: Sequence[Mapping[str, Any]],
    intervals: Sequence[Mapping[str, Any]] = (),
    coupling: str = "coupling",
) -> Reach:
    """Return the contour that the rows of one part hold: what `reach_rows` wrote."""

    def column(name: str) -> FloatArray:
        return np.array([np.nan if row.get(name) is None else row[name] for row in rows], dtype=np.float64)

    edges = np.column_stack([column(f"{coupling}_low"), column(f"{coupling}_high")])
    bands = np.array([[column(f"{side}_{band}") for side in ("low", "high")] for band in BANDS])
    errors = np.array([[column(f"{side}_error_{s}") for s in SOURCES] for side in ("low", "high")])
    found = tuple(MassInterval(**interval) for interval in intervals)
    mass = column("mass")
    return Reach(
        mass,
        edges,
        column("signal"),
        column("limit"),
        np.array([bool(row["closed"]) for row in rows]),
        tuple(str(row["clipped_side"]) for row in rows),
        found,
        _tips(mass, edges, found),
        np.moveaxis(bands, 2, 0),
        np.moveaxis(errors, 2, 0),
        tuple(str(row["method"]) for row in rows),
        column(f"{coupling}_peak"),
        np.column_stack([column("limit_low"), column("limit_high")]),
    )


def _tips(mass: FloatArray, edges: FloatArray, intervals: Sequence[MassInterval]) -> FloatArray:
    """Return where the islands at the closed ends of intervals end, as `Reach.ends`."""
    ends = np.full((len(mass), 2, 2), np.nan)
    reached = np.isfinite(edges).all(axis=1)
    for found in intervals:
        own = np.flatnonzero(reached & (mass >= found.low) & (mass <= found.high))
        sides = (
            (found.low_closed, found.low, found.low_coupling, np.min),
            (found.high_closed, found.high, found.high_coupling, np.max),
        )
        for side, (closed, at, tip, outermost) in enumerate(sides):
            if not closed or not len(own):
                continue
            last = own[mass[own] == outermost(mass[own])]
            away = np.abs(np.log(edges[last] / tip)).min(axis=1)
            ends[last[np.argmin(away)], side] = at, tip
    return ends


def _fraction(search: Search, part: str, i: int) -> tuple[float, float]:
    """Return the measured part of the signal on both edges of an entry, nan where it is not known."""
    if part == "measured domain":
        return 1.0, 1.0
    if part != "all":
        return np.nan, np.nan
    low, high = search.fraction[i]
    return float(low), float(high)


def _method(part: str, search: Search) -> str:
    limit, options = search.limit.method, search.options
    joint = {} if search.joint is None else search.joint.methods
    kind, _, which = part.partition(", ")
    if kind in joint:
        return f"joint: {joint[kind]}, median {'' if kind == 'discovery' else 'expected, '}{which}"
    if part.startswith("discovery"):
        return f"exact p-value by enumeration, nuisances averaged, median {part.removeprefix('discovery, ')}"
    if part.startswith("projection"):
        if options.method == "auto":  # it may choose another engine at another exposure
            averaged = one_treatment(float(np.median(search.sigma)), options.averaged_from) < 1.0
            how = "nuisances averaged" if averaged else "nuisances at fitted values"
            limit = f"exact CLs, {how}, or asymptotic CLs, as the events at this exposure ask"
        return f"{limit}, median expected, {part.removeprefix('projection, ')}"
    return limit


def plain(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows for JSON, which has no number that is not finite."""
    return [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]


def exponent_of(signal: FloatArray, coupling: FloatArray) -> str:
    """Return d ln s/d ln g at the smallest and at the middle coupling of the mass with the largest signal."""
    row = signal[int(signal.max(axis=1).argmax())]
    if not (row > 0).all():
        return "no signal at small charge"
    slope = np.diff(np.log(row)) / np.diff(np.log(coupling))
    middle = len(slope) // 2
    return f"{slope[0]:.3f} at Q = {coupling[0]:.2g} and {slope[middle]:.3f} at Q = {coupling[middle]:.2g}"
