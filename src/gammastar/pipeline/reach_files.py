"""Tables of a reach: every vertex with its limit, method and numerical errors, as CSV and JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar.core.records import FloatArray, MassInterval, Reach
from gammastar.infer.limits import label_at
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import model_of
from gammastar.pipeline.results import write_reach
from gammastar.store.manifest import write_json

if TYPE_CHECKING:
    from gammastar.pipeline.search import Search

__all__ = ["intervals_of", "limits_of_edges", "masses_reached", "parts_of", "write"]

MOST = 8  # intervals of mass that a sentence names
COLUMNS = ("part", "mass", "coupling_low", "coupling_high", "closed", "clipped_side")
BANDS = ("m2", "m1", "median", "p1", "p2")
SOURCES = ("sample", "toys", "interpolation")  # of the numerical errors of an edge


def parts_of(search: Search) -> dict[str, Reach]:
    """Return every contour of a search by its name in the tables."""
    parts = {"all": search.reach, "measured domain": search.measured}
    if search.observed is not None:
        parts["observed"] = search.observed
    parts |= {f"discovery, {z:g} sigma": reach for z, reach in search.discovery.items()}
    return parts | {f"projection, {pot:.4g} POT": reach for pot, reach in search.projections.items()}


def intervals_of(reach: Reach) -> list[dict[str, Any]]:
    """Return the intervals of mass in which anything is reached, as the files hold them."""
    return [asdict(interval) for interval in reach.intervals]


def masses_reached(intervals: Sequence[MassInterval]) -> str:
    """Return every interval of masses in which anything is reached, with its ends, as words.

    Examples
    --------
    >>> masses_reached([MassInterval(0.211, 0.611, 2e-6, 4.8e-7, False, True)])
    'reached from 0.211 GeV (clipped, the scan ends) to 0.611 GeV (tip at coupling 4.8e-07)'
    """
    if not intervals:
        return "nothing is reached"
    found = [
        f"from {_end(i.low, i.low_coupling, i.low_closed)} to {_end(i.high, i.high_coupling, i.high_closed)}"
        for i in intervals[:MOST]
    ]
    more = len(intervals) - MOST
    return "reached " + "; ".join(found) + (f" … and {more} more intervals" if more > 0 else "")


def _end(mass: float, coupling: float, closed: bool) -> str:
    return f"{mass:.3f} GeV ({f'tip at coupling {coupling:.2g}' if closed else 'clipped, the scan ends'})"


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


def write(ctx: Context, search: Search, *, suffix: str) -> None:
    """Write ``reach.csv`` and ``reach.json``: one row per mass and island of every contour."""
    parts = parts_of(search)
    rows: list[dict[str, Any]] = []
    for name, reach in parts.items():
        rows += _rows(reach, search, search.fraction if name == "all" else None, name)
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    stem = ctx.folder / f"reach{suffix}"
    write_reach(stem.with_suffix(".csv"), columns)
    plain = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "label": f"{'MOCK ' if ctx.book.mock else ''}expected reach, {search.detector.name}",
        "mock": ctx.book.mock,
        "partial": ctx.book.partial,
        "model": asdict(model_of(ctx).labels),
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "tip": search.reach.tip,
        "mass_intervals": {name: intervals_of(reach) for name, reach in parts.items()},
        "observed_significance": search.significance if np.isfinite(search.significance) else None,
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "columns": list(COLUMNS),
        "rows": plain,
    }
    write_json(stem.with_suffix(".json"), content)


def _rows(reach: Reach, search: Search, fraction: FloatArray | None, part: str) -> list[dict[str, Any]]:
    limit, rows = search.limit, []
    n = len(reach.mass)
    bands = np.full((n, 5, 2), np.nan) if reach.bands is None else reach.bands
    errors = np.full((n, 2, 3), np.nan) if reach.errors is None else reach.errors
    method = _method(part, limit.method, str(search.options.get("method", "auto")))
    for i, mass in enumerate(reach.mass):
        edges = reach.edges[i]
        decided = limits_of_edges(reach, i)
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            "coupling_low": float(edges[0]),
            "coupling_high": float(edges[1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            "coupling_peak": decided.pop("peak"),
            "signal": float(reach.signal[i]),
            **decided,
        }
        for j, band in enumerate(BANDS):
            entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in bands[i, j])
        at = (entry["coupling_peak"], *edges.tolist())
        labels = [label_at(method, search.sigma_at(float(mass), g)) if g > 0 else "" for g in at]
        entry |= {"cl": limit.cl, "method": labels[0] or method}
        entry |= {"method_low": labels[1], "method_high": labels[2], "mc_error": float(limit.mc_error)}
        for k, side in enumerate(("low", "high")):
            total = float(np.sqrt((errors[i, k] ** 2).sum()))
            entry[f"coupling_{side}_error"] = float(edges[k] * np.log(10.0) * total)
            entry |= {f"{side}_error_{name}": float(errors[i, k, j]) for j, name in enumerate(SOURCES)}
        both = (1.0, 1.0) if fraction is None else fraction[i]
        if part not in {"all", "measured domain"}:
            both = (np.nan, np.nan)
        entry["fraction_in_domain_low"], entry["fraction_in_domain_high"] = (float(x) for x in both)
        rows.append(entry)
    return rows


def _method(part: str, limit: str, method: str) -> str:
    if part.startswith("discovery"):
        return f"exact p-value by enumeration, nuisances averaged, median {part.removeprefix('discovery, ')}"
    if part.startswith("projection"):
        # "auto" may choose another engine at another exposure
        how = {"auto": "exact or asymptotic CLs, as the events at this exposure ask"}.get(method, limit)
        return f"{how}, median expected, {part.removeprefix('projection, ')}"
    return limit
