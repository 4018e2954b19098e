"""Reach in mass and charge of millicharged particles: limit, contour, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar.core.records import Exposure, FloatArray, Limit, Reach
from gammastar.physics.millicharge_detector import MillichargeDetector
from gammastar.pipeline import likelihood_files
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.millicharged import millicharge_detectors
from gammastar.pipeline.results import write_reach
from gammastar.pipeline.search import MEDIAN, Plane
from gammastar.store.manifest import write_json

__all__ = ["ChargeSearch", "infer_stage"]


@dataclass(frozen=True, slots=True, eq=False)
class ChargeSearch:
    """The result of one detector of millicharged particles.

    Attributes
    ----------
    detector : MillichargeDetector
    assumption : str
        Where the background comes from.
    limit : Limit
        At the median uncertainty of the signal.
    reach, measured : Reach
        With every signal event, and with those from where dileptons were measured.
    spreads : mapping of str to NDArray, shape (masses, charges)
        ln κ of the signal by source, protons on target excepted.
    """

    detector: MillichargeDetector
    assumption: str
    limit: Limit
    reach: Reach
    measured: Reach
    spreads: Mapping[str, FloatArray]


def infer_stage(ctx: Context, exposure: Exposure, made: Any) -> dict[str, ChargeSearch]:
    """Return limit and reach in (m_χ, Q) of every detector and write their files."""
    section, accepted = ctx.steering.infer, made.millicharge_accepted
    if section is None or not accepted:
        return {}
    found = {}
    for name, detector in millicharge_detectors(ctx).items():
        ctx.tell("infer", None, detector.name)
        plane = Plane(ctx, section, detector, made.millicharge, accepted[name], exposure, main=False)
        _, expected, limit = plane.limits()
        median = expected[..., MEDIAN]
        whole, inside = (plane.reach(median, signal) for signal in (plane.signal, plane.inside))
        found[name] = ChargeSearch(detector, plane.assumption, limit, whole, inside, plane.spreads)
        _write(ctx, name, found[name])
        likelihood_files.write_grid(ctx, plane, suffix=f"_{name}", coupling_name="charge")
        slope = _exponents(plane.accepted)
        ctx.book.methods[f"limit, {detector.name}"] = f"{limit.method}; {plane.assumption}"
        ctx.book.numbers[f"exponent of Q, {detector.name}"] = f"{detector.exponent} declared, {slope}"
    return found


def _exponents(planes: Arrays) -> str:
    """Return d ln s/d ln Q at the smallest and at the middle charge of the mass with the largest signal."""
    row = int(planes["signal"].max(axis=1).argmax())
    signal, charge = planes["signal"][row], planes["couplings"]
    if not (signal > 0).all():
        return "no signal at small charge"
    slope = np.diff(np.log(signal)) / np.diff(np.log(charge))
    middle = len(slope) // 2
    return f"{slope[0]:.3f} at Q = {charge[0]:.2g} and {slope[middle]:.3f} at Q = {charge[middle]:.2g}"


def _write(ctx: Context, name: str, search: ChargeSearch) -> None:
    """Write ``reach_<name>.csv`` and ``.json``: mass of χ [GeV] against Q."""
    rows: list[dict[str, Any]] = []
    for part, reach in (("all", search.reach), ("measured domain", search.measured)):
        rows += [
            {
                "part": part,
                "mass": float(mass),
                "charge_low": float(edges[0]),
                "charge_high": float(edges[1]),
                "closed": bool(closed),
                "clipped_side": side,
                "limit": float(level),
                "cl": search.limit.cl,
                "method": search.limit.method,
            }
            for mass, edges, closed, side, level in zip(
                reach.mass,
                reach.edges,
                reach.closed,
                reach.clipped_side,
                np.broadcast_to(reach.limit, (len(reach.mass),)),
                strict=True,
            )
        ]
    write_reach(ctx.folder / f"reach_{name}.csv", {key: [row[key] for row in rows] for key in rows[0]})
    plain = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "label": f"{'MOCK ' if ctx.book.mock else ''}expected reach, {search.detector.name}",
        "illustrative": search.detector.illustrative,
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "exponent": search.detector.exponent,
        "rows": plain,
    }
    write_json(ctx.folder / f"reach_{name}.json", content)
