"""Tables of a reach: every vertex with its limit, method and numerical errors, as CSV and JSON."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar.core.records import FloatArray, Reach
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import model_of
from gammastar.pipeline.results import write_reach
from gammastar.store.manifest import write_json

if TYPE_CHECKING:
    from gammastar.pipeline.search import Search

__all__ = ["parts_of", "write"]

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


def write(ctx: Context, search: Search, *, suffix: str) -> None:
    """Write ``reach.csv`` and ``reach.json``: one row per mass and island of every contour."""
    rows: list[dict[str, Any]] = []
    for name, reach in parts_of(search).items():
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
        "model": asdict(model_of(ctx).labels),
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "tip": search.reach.tip,
        "observed_significance": search.significance if np.isfinite(search.significance) else None,
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "columns": list(COLUMNS),
        "rows": plain,
    }
    write_json(stem.with_suffix(".json"), content)


def _rows(reach: Reach, search: Search, fraction: FloatArray | None, part: str) -> list[dict[str, Any]]:
    limit, rows = search.limit, []
    n = len(reach.mass)
    levels = np.broadcast_to(reach.limit, (n,))
    bands = np.full((n, 5, 2), np.nan) if reach.bands is None else reach.bands
    errors = np.full((n, 2, 3), np.nan) if reach.errors is None else reach.errors
    method = _method(part, limit.method, str(search.options.get("method", "auto")))
    for i, mass in enumerate(reach.mass):
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            "coupling_low": float(reach.edges[i, 0]),
            "coupling_high": float(reach.edges[i, 1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            "signal": float(reach.signal[i]),
            "limit": float(levels[i]),
        }
        for j, band in enumerate(BANDS):
            entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in bands[i, j])
        entry |= {"cl": limit.cl, "method": method, "mc_error": float(limit.mc_error)}
        for k, side in enumerate(("low", "high")):
            total = float(np.sqrt((errors[i, k] ** 2).sum()))
            entry[f"coupling_{side}_error"] = float(reach.edges[i, k] * np.log(10.0) * total)
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
