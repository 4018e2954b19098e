"""Reach in mass and charge of millicharged particles: limit, contour, files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar.core.records import Exposure, FloatArray, Limit, Reach
from gammastar.infer.limits import label_at
from gammastar.physics.millicharge_detector import MillichargeDetector
from gammastar.pipeline import likelihood_files
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.millicharged import millicharge_detectors
from gammastar.pipeline.reach_files import intervals_of, limits_of_edges
from gammastar.pipeline.results import write_reach
from gammastar.pipeline.search import MEDIAN, Plane, sigma_between
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
        _write(ctx, name, found[name], plane)
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


def _write(ctx: Context, name: str, search: ChargeSearch, plane: Plane) -> None:
    """Write ``reach_<name>.csv`` and ``.json``: mass of χ [GeV] against Q."""
    rows: list[dict[str, Any]] = []
    parts = {"all": search.reach, "measured domain": search.measured}
    for part, reach in parts.items():
        for i, mass in enumerate(reach.mass):
            decided = limits_of_edges(reach, i)
            at = (decided["peak"], *reach.edges[i].tolist())
            axes = (plane.mass, plane.couplings)
            labels = [
                label_at(search.limit.method, sigma_between(plane.sigma, axes, float(mass), q))
                if q > 0
                else ""
                for q in at
            ]
            rows.append(
                {
                    "part": part,
                    "mass": float(mass),
                    "charge_low": float(reach.edges[i, 0]),
                    "charge_high": float(reach.edges[i, 1]),
                    "closed": bool(reach.closed[i]),
                    "clipped_side": reach.clipped_side[i],
                    "charge_peak": decided.pop("peak"),
                    "signal": float(reach.signal[i]),
                    **decided,
                    "cl": search.limit.cl,
                    "method": labels[0] or search.limit.method,
                    "method_low": labels[1],
                    "method_high": labels[2],
                }
            )
    write_reach(ctx.folder / f"reach_{name}.csv", {key: [row[key] for row in rows] for key in rows[0]})
    plain = [
        {k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in row.items()}
        for row in rows
    ]
    content = {
        "label": f"{'MOCK ' if ctx.book.mock else ''}expected reach, {search.detector.name}",
        "mock": ctx.book.mock,
        "partial": ctx.book.partial,
        "illustrative": search.detector.illustrative,
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "exponent": search.detector.exponent,
        "mass_intervals": {part: intervals_of(reach) for part, reach in parts.items()},
        "columns": ["part", "mass", "charge_low", "charge_high", "closed", "clipped_side"],
        "rows": plain,
    }
    write_json(ctx.folder / f"reach_{name}.json", content)
