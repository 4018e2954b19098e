"""Inference per detector: limit, reach in all and in the measured domain, workspace, patch set, tables."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import infer
from gammastar.config import Infer
from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure, FloatArray, Limit, Reach
from gammastar.physics.detector import Detector
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.results import write_reach
from gammastar.pipeline.searching import detectors
from gammastar.store.manifest import digest, write_json

__all__ = ["Search", "infer_stage", "limits_of"]

PATCHED = (0.1, 1e4)  # expected events of the grid points that go into the patch set
COLUMNS = ("part", "mass", "coupling_low", "coupling_high", "closed", "clipped_side")
BANDS = ("m2", "m1", "median", "p1", "p2")


@dataclass(frozen=True, slots=True, eq=False)
class Search:
    """The result of one detector.

    `reach` uses every signal event, `measured` only those from where dileptons were measured; `fraction`
    (n, 2) is the measured part of the signal on the lower and the upper edge of `reach`.
    """

    detector: Detector
    background: float
    background_sigma: float
    signal_sigma: float
    assumption: str
    limit: Limit
    reach: Reach
    measured: Reach
    fraction: FloatArray


def infer_stage(
    ctx: Context, predicted: Arrays, accepted: dict[str, Arrays], exposure: Exposure
) -> dict[str, Search]:
    """Return limit and reach of every detector and write their files; the first one is the main one."""
    section = ctx.steering.infer
    if section is None:
        msg = "[infer] is needed for a reach"
        raise SteeringError(msg)
    found = {}
    for i, (name, detector) in enumerate(detectors(ctx).items()):
        ctx.tell("infer", None, detector.name)
        search = _search(ctx, section, detector, predicted, accepted[name], exposure, main=i == 0)
        _write(ctx, search, predicted, accepted[name], exposure, suffix="" if i == 0 else f"_{name}")
        found[name] = search
        ctx.book.methods[f"limit, {detector.name}"] = f"{search.limit.method}; {search.assumption}"
    content = digest({name: [s.reach.edges, s.measured.edges, s.limit.expected] for name, s in found.items()})
    ctx.book.done("infer", ctx.book.key(section, ctx.book.key_of("accept")), content)
    return found


def _background(section: Infer, detector: Detector, main: bool) -> tuple[float, float, str]:
    if main and section.background is not None:
        b, sigma = section.background, section.background_sigma
        source = "steering"
    elif detector.background is not None:
        b, sigma = detector.background, detector.background_sigma or 0.0
        source = f"file of {detector.name}"
    else:
        return 0.0, 0.0, "b = 0 assumed"
    if b == 0:
        return 0.0, 0.0, "b = 0 assumed"
    return b, sigma, f"b = {b:g}, ln kappa = {sigma:g} ({source})"


def _search(
    ctx: Context,
    section: Infer,
    detector: Detector,
    predicted: Arrays,
    accepted: Arrays,
    exposure: Exposure,
    *,
    main: bool,
) -> Search:
    b, sigma, assumption = _background(section, detector, main)
    observed: Any = section.observed if isinstance(section.observed, str) or not main else section.observed[0]
    scaling = float(accepted.get("signal_sigma", 0.0))
    signal_sigma = float(np.linalg.norm([exposure.pot_sigma, detector.pot_sigma, scaling]))
    limit = infer.upper_limit(
        b, sigma, observed if main else "masked", signal_sigma=signal_sigma, cl=section.cl
    )
    scan: dict[str, Any] = {
        "reliable": accepted["n_effective"] >= section.min_effective,
        "threshold": float(predicted["threshold"]),
    }
    couplings = accepted["couplings"]
    if ctx.steering.spectrum is not None and not ctx.steering.spectrum.extrapolate:
        accepted = {**accepted, "signal": accepted["in_domain_signal"]}  # nothing from where nobody measured
    reach = infer.reach(predicted["mass"], couplings, accepted["signal"], limit, **scan)
    measured = infer.reach(predicted["mass"], couplings, accepted["in_domain_signal"], limit, **scan)
    fraction = _fraction(reach, predicted["mass"], accepted)
    return Search(detector, b, sigma, signal_sigma, assumption, limit, reach, measured, fraction)


def limits_of(search: Search, cl: float) -> float:
    """Return the median expected limit of a search at another confidence level."""
    limit = infer.upper_limit(
        search.background, search.background_sigma, "masked", signal_sigma=search.signal_sigma, cl=cl
    )
    return float(limit.expected[2])


def _fraction(reach: Reach, mass: FloatArray, accepted: Arrays) -> FloatArray:
    """Return the measured part of the signal on both edges of every entry, shape (n, 2)."""
    total = accepted["signal"]
    part = np.divide(accepted["in_domain_signal"], total, out=np.zeros_like(total), where=total > 0)
    row = np.searchsorted(mass, reach.mass)
    known = np.isfinite(reach.edges)
    log_edges = np.log(np.where(known, reach.edges, accepted["couplings"][0]))
    grid = np.log(accepted["couplings"])
    index = np.clip(np.searchsorted(grid, log_edges), 1, len(grid) - 1)
    share = (log_edges - grid[index - 1]) / (grid[index] - grid[index - 1])
    low, high = part[row[:, None], index - 1], part[row[:, None], index]
    return np.where(known, low + share * (high - low), np.nan)


def _write(
    ctx: Context, search: Search, predicted: Arrays, accepted: Arrays, exposure: Exposure, *, suffix: str
) -> None:
    section = ctx.steering.infer
    if section is None:
        return
    spec = infer.workspace(
        "counting",
        search.background,
        search.background_sigma,
        "masked" if isinstance(section.observed, str) or suffix else list(section.observed),
        pot_calibration_sigma=exposure.pot_sigma,
        pot_search_sigma=search.detector.pot_sigma,
    )
    signal, couplings = accepted["signal"], accepted["couplings"]
    row, column = np.nonzero((signal >= PATCHED[0]) & (signal <= PATCHED[1]))
    every = slice(None, None, max(1, int(np.ceil(len(row) / section.max_patches))))
    row, column = row[every], column[every]
    write_json(ctx.folder / f"workspace{suffix}.json", spec)
    if len(row):
        chosen = signal[row, column]
        patches = infer.patchset(
            spec,
            predicted["mass"][row],
            couplings[column],
            chosen,
            signal_mc_sigma=accepted["mc_error"][row, column] / chosen,
            hepdata=section.hepdata,
        )
        write_json(ctx.folder / f"patchset{suffix}.json", patches)
    else:
        ctx.book.notes.append(
            f"{search.detector.name}: no grid point reaches {PATCHED[0]} events; no patch set"
        )
    _write_reach(ctx.folder / f"reach{suffix}", ctx, search)


def _rows(reach: Reach, limit: Limit, fraction: FloatArray | None, part: str) -> list[dict[str, Any]]:
    rows = []
    for i, mass in enumerate(reach.mass):
        entry: dict[str, Any] = {
            "part": part,
            "mass": float(mass),
            "coupling_low": float(reach.edges[i, 0]),
            "coupling_high": float(reach.edges[i, 1]),
            "closed": bool(reach.closed[i]),
            "clipped_side": reach.clipped_side[i],
            "signal": float(reach.signal[i]),
            "limit": float(reach.limit[i]),
        }
        if reach.bands is not None:
            for j, band in enumerate(BANDS):
                entry[f"low_{band}"], entry[f"high_{band}"] = (float(x) for x in reach.bands[i, j])
        entry |= {"cl": limit.cl, "method": limit.method, "mc_error": float(limit.mc_error)}
        both = (1.0, 1.0) if fraction is None else fraction[i]
        entry["fraction_in_domain_low"], entry["fraction_in_domain_high"] = (float(x) for x in both)
        rows.append(entry)
    return rows


def _write_reach(stem: Path, ctx: Context, search: Search) -> None:
    rows = _rows(search.reach, search.limit, search.fraction, "all")
    rows += _rows(search.measured, search.limit, None, "measured domain")
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    write_reach(stem.with_suffix(".csv"), columns)
    plain = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "label": f"{'MOCK ' if ctx.book.mock else ''}expected reach, {search.detector.name}",
        "mock": ctx.book.mock,
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "tip": search.reach.tip,
        "columns": list(COLUMNS),
        "rows": plain,
    }
    write_json(stem.with_suffix(".json"), content)
