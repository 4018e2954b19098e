"""Reach in mass and charge of millicharged particles: limit, contour, files."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar import infer
from gammastar.core.records import Exposure, Limit, Reach
from gammastar.physics.millicharge_detector import MillichargeDetector
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.millicharged import millicharge_detectors
from gammastar.pipeline.results import write_reach
from gammastar.store.manifest import write_json

__all__ = ["ChargeSearch", "infer_stage"]


PATCHED = (0.1, 1e4)  # expected events of the grid points that go into the patch set


@dataclass(frozen=True, slots=True, eq=False)
class ChargeSearch:
    """The result of one detector of millicharged particles."""

    detector: MillichargeDetector
    assumption: str
    limit: Limit
    reach: Reach
    measured: Reach


def infer_stage(ctx: Context, exposure: Exposure, made: Any) -> dict[str, ChargeSearch]:
    """Return limit and reach in (m_χ, Q) of every detector and write their files."""
    section, accepted = ctx.steering.infer, made.millicharge_accepted
    if section is None or not accepted:
        return {}
    found = {}
    for name, detector in millicharge_detectors(ctx).items():
        ctx.tell("infer", None, detector.name)
        b, error = detector.background or 0.0, detector.background_sigma or 0.0
        kappa = float(np.log1p(error / b)) if b > 0 else 0.0
        planes = accepted[name]
        sigma = float(np.hypot(exposure.pot_sigma, planes["signal_sigma"]))
        limit = infer.upper_limit(b, kappa, "masked", signal_sigma=sigma, cl=section.cl)
        options = {"reliable": planes["n_effective"] >= section.min_effective}
        args = (made.millicharge["mass"], planes["couplings"])
        whole = infer.reach(*args, planes["signal"], limit, **options)
        inside = infer.reach(*args, planes["in_domain_signal"], limit, **options)
        assumption = f"b = {b:g} ± {error:g} (file of {detector.name})" if b else "b = 0 assumed"
        found[name] = ChargeSearch(detector, assumption, limit, whole, inside)
        _write(ctx, name, found[name])
        _write_likelihood(ctx, name, kappa, exposure, found[name], made)
        slope = _exponents(planes)
        ctx.book.methods[f"limit, {detector.name}"] = f"{limit.method}; {assumption}"
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
                "cl": search.limit.cl,
                "method": search.limit.method,
            }
            for mass, edges, closed, side in zip(
                reach.mass, reach.edges, reach.closed, reach.clipped_side, strict=True
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
        "exponent": search.detector.exponent,
        "rows": plain,
    }
    write_json(ctx.folder / f"reach_{name}.json", content)


def _write_likelihood(
    ctx: Context, name: str, kappa: float, exposure: Exposure, search: ChargeSearch, made: Any
) -> None:
    """Write ``workspace_<name>.json`` and ``patchset_<name>.json``, one patch per mass and charge."""
    section, planes = ctx.steering.infer, made.millicharge_accepted[name]
    if section is None:
        return
    spec = infer.workspace(
        "counting",
        search.detector.background or 0.0,
        kappa,
        "masked",
        pot_calibration_sigma=exposure.pot_sigma,
    )
    write_json(ctx.folder / f"workspace_{name}.json", spec)
    signal = planes["signal"]
    row, column = np.nonzero((signal >= PATCHED[0]) & (signal <= PATCHED[1]))
    every = slice(None, None, max(1, int(np.ceil(len(row) / section.max_patches))))
    row, column = row[every], column[every]
    if len(row):
        chosen = signal[row, column]
        patches = infer.patchset(
            spec,
            made.millicharge["mass"][row],
            planes["couplings"][column],
            chosen,
            signal_mc_sigma=planes["mc_error"][row, column] / chosen,
            coupling_name="charge",
            hepdata=section.hepdata,
        )
        write_json(ctx.folder / f"patchset_{name}.json", patches)
