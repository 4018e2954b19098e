"""Limits and reach of every detector, the mass grid refined where a contour ends, and the files of both."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import jsonpatch
import numpy as np

from gammastar import infer, predict
from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure, FloatArray, MassInterval, Reach
from gammastar.infer.histfactory.likelihoods import CONVENTION
from gammastar.infer.limits import label_at, limits_at
from gammastar.infer.refinement import more_masses
from gammastar.pipeline.cache import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.accept import accept_stage, detectors, predict_stage
from gammastar.pipeline.stages.counting_search import MEDIAN, Plane, Search
from gammastar.pipeline.stages.predict import Production, model_of
from gammastar.store.manifest import digest, write_json
from gammastar.store.records import write_reach

if TYPE_CHECKING:
    from gammastar.config import Infer
    from gammastar.pipeline.stages.counting_search import Plane, Search

__all__ = [
    "KEYS",
    "Search",
    "infer_stage",
    "intervals_of",
    "limits_of",
    "limits_of_edges",
    "masses_reached",
    "parts_of",
    "refined",
    "write_grid",
    "write_likelihood_files",
    "write_reach_files",
]

KEYS = ("method", "asymptotic_from", "cl")  # of [infer], which a patch set carries with it
PATCHED = (0.1, 1e4)  # expected events of the grid points that go into the patch set
MASS_NUCLEON = 0.9389
ROUNDS = 4
Planes = tuple[Arrays, dict[str, Arrays]]


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


def write_reach_files(ctx: Context, search: Search, *, suffix: str) -> None:
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


def write_likelihood_files(
    ctx: Context, search: Search, plane: Plane, exposure: Exposure, *, suffix: str
) -> None:
    """Write ``workspace.json``, ``patchset.json`` and what else the steering asks for."""
    section = ctx.steering.infer
    if section is None:
        return
    counts = section.observed
    observed = "masked" if isinstance(counts, str) or suffix else list(counts)
    found = write_grid(ctx, plane, observed=observed, suffix=suffix)
    if found is None:
        return
    spec, patches = found
    if section.exports:
        _export(ctx, section, search, (spec, patches), suffix)
    if section.submission and np.isfinite(search.reach.edges).any():
        _submit(ctx, section, search, exposure, (spec, patches), suffix=suffix)


def write_grid(
    ctx: Context, plane: Plane, *, observed: Any = "masked", suffix: str = "", coupling_name: str = "eps"
) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """Write ``workspace<suffix>.json`` and ``patchset<suffix>.json``, one patch per mass and coupling.

    Both together hold every nuisance of the limit under its name. The finite sample, ``signal_mc``, is in the
    patches even if [infer] nuisances leaves it out of the limit.

    Returns
    -------
    tuple of dict, or None
        Workspace and patch set; None if no grid point has enough events.
    """
    calibration, search = plane.pot
    spec = infer.workspace(
        "counting",
        plane.b,
        plane.b_sigma,
        observed,
        pot_calibration_sigma=calibration,
        pot_search_sigma=search,
    )
    write_json(ctx.folder / f"workspace{suffix}.json", spec)
    section, signal = plane.section, plane.signal
    row, column = np.nonzero((signal >= PATCHED[0]) & (signal <= PATCHED[1]))
    every = slice(None, None, max(1, int(np.ceil(len(row) / section.max_patches))))
    row, column = row[every], column[every]
    if not len(row):
        ctx.book.notes.append(
            f"{plane.detector.name}: no grid point reaches {PATCHED[0]} events; no patch set"
        )
        return None
    chosen = signal[row, column]
    sigmas = {name: spread[row, column] for name, spread in plane.spreads.items() if name != "sample"}
    sigmas["signal_mc"] = np.log1p(np.clip(plane.error[row, column] / chosen, 0.0, 3.0))
    patches = infer.patchset(
        spec,
        plane.mass[row],
        plane.couplings[column],
        chosen,
        signal_mc_sigma=sigmas,
        coupling_name=coupling_name,
        hepdata=section.hepdata,
    )
    patches["metadata"][CONVENTION] = {key: getattr(section, key) for key in KEYS}  # for `gammastar scan`
    write_json(ctx.folder / f"patchset{suffix}.json", patches)
    return spec, patches


def _export(ctx: Context, section: Infer, search: Search, documents: tuple[Any, Any], suffix: str) -> None:
    """Write the likelihood of the grid point whose signal is nearest to the limit in other formats."""
    spec, patches = documents
    at = [patch["patch"][1]["value"] for patch in patches["patches"]]
    nearest = int(np.argmin(np.abs(np.log(np.sum(at, axis=1) / search.limit.expected[2]))))
    patch = patches["patches"][nearest]
    point = jsonpatch.apply_patch(spec, patch["patch"])
    name = patch["metadata"]["name"]
    if "hs3" in section.exports:
        write_json(ctx.folder / f"hs3{suffix}.json", infer.to_hs3(point))
    if "xml" in section.exports:
        infer.write_xml(point, ctx.folder / f"histfactory{suffix}")
    ctx.book.methods[f"exported likelihood, {search.detector.name}"] = (
        f"{' and '.join(section.exports)} of the point {name}, whose signal is nearest to the limit"
    )


def _submit(
    ctx: Context,
    section: Infer,
    search: Search,
    exposure: Exposure,
    documents: tuple[Any, Any],
    *,
    suffix: str,
) -> None:
    from gammastar import report

    mock = "MOCK: " if ctx.book.mock else ""
    labels = model_of(ctx).labels
    photon = labels.plane == "dark_photon"
    loss = ctx.book.loss
    says = report.Submission(
        title=f"{mock}Expected reach of {search.detector.name}",
        abstract=f"{mock}Signal from measured dileptons. {search.assumption}."
        + (f" {loss}." if loss else ""),
        coupling="kinetic mixing epsilon" if photon else _with_unit(labels),
        qualifiers={
            "CL": section.cl,
            "POT": search.detector.pot,
            "SQRT(S) [GeV]": round(float(np.sqrt(2.0 * exposure.beam_energy * MASS_NUCLEON)), 2),
        },
        reaction=f"P NUCLEUS --> {'DARKPHOTON' if photon else 'NEWPARTICLE'} X",
        method=search.limit.method,
        phrases=("Dark Photon",) if photon else (),
    )
    folder = ctx.folder / f"hepdata{suffix}"
    folder.mkdir(exist_ok=True)
    others = {name: reach for name, reach in parts_of(search).items() if name != "all"}
    report.write_submission(
        folder, search.reach, says, workspace=documents[0], patchset=documents[1], others=others
    )
    checked = "not checked (hepdata-validator is not installed)"
    if importlib.util.find_spec("hepdata_validator") is not None:
        report.check_submission(folder)
        checked = "valid to hepdata-validator, offline"
    ctx.book.methods[f"HEPData submission, {search.detector.name}"] = checked


def _with_unit(labels: predict.Labels) -> str:
    """Return the heading of a column of couplings."""
    return labels.coupling_name + (f" [{labels.unit}]" if labels.unit else "")


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
        arrays = accepted[name]
        plane = Plane(ctx, section, detector, predicted, arrays, exposure, main=i == 0)
        search = plane.search()
        suffix = "" if i == 0 else f"_{name}"
        write_likelihood_files(ctx, search, plane, exposure, suffix=suffix)
        write_reach_files(ctx, search, suffix=suffix)
        found[name] = search
        ctx.book.methods[f"limit, {detector.name}"] = f"{search.limit.method}; {search.assumption}"
    content = digest({name: [s.reach.edges, s.measured.edges, s.limit.expected] for name, s in found.items()})
    ctx.book.done("infer", ctx.book.key(section, ctx.book.key_of("accept")), content)
    return found


def limits_of(search: Search, cl: float) -> float | FloatArray:
    """Return the median expected limit of a search at another confidence level.

    A number if the uncertainty of the signal is the same everywhere, else an array over masses and couplings.
    """
    total = np.full((1, 1), search.signal_sigma**2)
    for spread in search.spreads.values():
        total = total + spread**2
    _, expected, _ = limits_at(
        np.sqrt(total), search.background, search.background_sigma, "masked", cl=cl, **search.options
    )
    median: FloatArray = expected[..., MEDIAN]
    return float(median[0, 0]) if median.size == 1 else median


def refined(ctx: Context, made: Any, production: Production) -> Planes:
    """Return rates and yields, with masses added where the contour of any detector bends or ends.

    Parameters
    ----------
    ctx : Context
        ``[infer] refine`` bounds the number of added masses; 0 adds none.
    made : Products
        Its rates and yields are replaced if masses are added.
    production : Production

    Raises
    ------
    SteeringError
        Without rates or yields.
    """
    section, predicting = ctx.steering.infer, ctx.steering.predict
    if made.predicted is None or made.accepted is None:
        msg = "the sections [predict] and [accept] are missing: limits need their results"
        raise SteeringError(msg)
    planes: Planes = (made.predicted, made.accepted)
    if section is None or predicting is None or section.refine == 0:
        return planes
    first = len(planes[0]["mass"])
    for _ in range(ROUNDS):
        room = first + section.refine - len(planes[0]["mass"])
        new = _wanted(ctx, planes, production.exposure, room)
        if not len(new):
            break
        masses = np.unique(np.r_[planes[0]["mass"], new])
        ctx.tell("accept", None, f"{len(masses)} masses, {len(new)} of them new")
        denser = predicting.model_copy(update={"masses": tuple(masses.tolist())})
        run = replace(ctx, steering=ctx.steering.model_copy(update={"predict": denser}))
        predicted = predict_stage(run, production, made)
        planes = (predicted, accept_stage(run, production, predicted))
    made.predicted, made.accepted = planes
    added = len(planes[0]["mass"]) - first
    ctx.book.methods["masses of the reach"] = f"{first} of the grid, {added} where the contour bends or ends"
    return planes


def _wanted(ctx: Context, planes: Planes, exposure: Exposure, room: int) -> FloatArray:
    section, (predicted, accepted) = ctx.steering.infer, planes
    found: list[float] = []
    if section is None or room <= 0:
        return np.empty(0)
    for i, (name, detector) in enumerate(detectors(ctx).items()):
        plane = Plane(ctx, section, detector, predicted, accepted[name], exposure, main=i == 0)
        found += more_masses(plane.contour(), most=room).tolist()
    known = predicted["mass"]
    fresh = [m for m in dict.fromkeys(found) if np.abs(known / m - 1.0).min() > 1e-6]
    return np.array(fresh[:room])
