"""[infer]: limits and reach of every detector, masses that a contour still needs, and the files of both."""

from __future__ import annotations

import importlib.util
import re
from dataclasses import asdict
from typing import Any

import jsonpatch
import numpy as np

from gammastar import infer, predict
from gammastar.accept import measured_only
from gammastar.accept.plane import with_extrapolation
from gammastar.config import Infer
from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import Exposure, FloatArray
from gammastar.core.signal import SignalPlane
from gammastar.core.sources import SAMPLE
from gammastar.infer import CountingSearch, Search
from gammastar.infer.contours import more_masses
from gammastar.infer.counting_search import (
    SearchOptions,
    background_of,
    contours,
    exponent_of,
    intervals_of,
    modifiers_at,
    plain,
    reach_rows,
)
from gammastar.infer.histfactory.likelihoods import CONVENTION
from gammastar.infer.histfactory.patchsets import PATCHED, Documents, patched_points
from gammastar.infer.histfactory.workspaces import pot_names
from gammastar.physics.detector import Detector
from gammastar.physics.millicharge import MillichargeDetector
from gammastar.pipeline.context import Context
from gammastar.pipeline.stages.accept import detectors, millicharge_detectors
from gammastar.pipeline.stages.predict import model_of
from gammastar.store.manifest import digest, write_json, write_reach

KEYS = ("method", "cl")  # of [infer], which a patch set carries with it
EXPLORED_CL = (0.90, 0.95)  # of the explorer, besides that of [infer]
MASS_NUCLEON = 0.9389
FULL_TOYS = {"statistic": "qtilde", "auxiliary": "randomised"}  # of a joint likelihood
JOINT_FIT = (
    "The calibrating lepton pairs and the search are fitted together (joint likelihood), with free contents "
    "of the true cells; the archive holds a likelihood per mass"
)
CHARGED = predict.Labels("millicharged particles", "χ", "Q", "charge over that of the electron")
COLUMNS = ("part", "mass", "coupling_low", "coupling_high", "closed", "clipped_side")


def section_of(ctx: Context) -> Infer:
    """Return [infer]; refuse its absence."""
    section = ctx.steering.infer
    if section is None:
        raise SteeringError("[infer] is needed for a reach")
    return section


def in_use(ctx: Context, plane: SignalPlane) -> SignalPlane:
    """Return the signal that limits take: without [spectrum] extrapolate its measured part alone."""
    spectrum, sigma = ctx.steering.spectrum, ctx.steering.systematics.extrapolation
    if spectrum is not None and not spectrum.extrapolate:
        return measured_only(plane)
    return plane if sigma is None else with_extrapolation(plane, sigma)


def counting_search(
    ctx: Context,
    detector: Detector | MillichargeDetector,
    plane: SignalPlane,
    exposure: Exposure,
    *,
    main: bool,
) -> CountingSearch:
    """Return the search of one detector; background and observation of the steering are the main one's."""
    section = section_of(ctx)
    asked = ctx.steering.systematics
    same = set(SearchOptions.__dataclass_fields__) - {"nuisances"}
    given = {name: getattr(section, name) for name in same}
    options = SearchOptions(nuisances=asked.nuisances, **given)
    known = (*(part.name for part in plane.rate.sources.parts), *(e.name for e in plane.effects), SAMPLE)
    if unknown := asked.unknown(known):
        msg = f"systematics.nuisances: there is no source {unknown[0]!r} here; there are {', '.join(known)}"
        raise SteeringError(msg)
    background = (section.background, section.background_sigma) if main else (None, 0.0)
    count = section.observed if isinstance(section.observed, str) else section.observed[0]
    counts = background_of(detector, background), count if main else "masked", exposure.pot_sigma
    return CountingSearch(detector, in_use(ctx, plane), options, *counts, ctx.cache.mock)


def missing_masses(ctx: Context, planes: dict[str, SignalPlane], exposure: Exposure, room: int) -> FloatArray:
    """Return at most `room` masses [GeV] that the contour of any detector still needs."""
    if room <= 0:
        return np.empty(0)
    wanted: list[float] = []
    for i, (name, detector) in enumerate(detectors(ctx).items()):
        search = counting_search(ctx, detector, planes[name], exposure, main=i == 0)
        wanted += more_masses(search.contour(), most=room).tolist()
        known = planes[name].mass
    fresh = [m for m in dict.fromkeys(wanted) if np.abs(known / m - 1.0).min() > 1e-6]
    return np.array(fresh[:room])


QUALIFIER = {"pot": "POT", "luminosity": "LUMINOSITY [1/pb]"}


def exposure_of(detector: Any) -> dict[str, float]:
    """Return the exposure of a detector by its name: ``pot``, or ``luminosity`` [1/pb]."""
    return {"pot" if detector.luminosity is None else "luminosity": detector.exposure}


def infer_stage(
    ctx: Context, planes: dict[str, SignalPlane], exposure: Exposure, state: Any = None
) -> dict[str, Search]:
    """Return limit and reach of every detector, the main one first, and write their files."""
    section, searches = section_of(ctx), {}
    every = {
        name: counting_search(ctx, detector, planes[name], exposure, main=i == 0)
        for i, (name, detector) in enumerate(detectors(ctx).items())
    }
    joint: dict[str, Documents] = {}
    if section.likelihood == "joint" and every:
        from gammastar.pipeline.stages.joint import with_joint_likelihood

        both = with_joint_likelihood(ctx, state, every)
        every = {name: asked for name, (asked, _) in both.items()}
        joint = {name: found for name, (_, found) in both.items()}
        state.planes = {name: asked.plane for name, asked in every.items()}
    for i, (name, asked) in enumerate(every.items()):
        detector = asked.detector
        ctx.tell("infer", None, detector.name)
        if not joint:
            how = "two-step: a count whose signal comes from the unfolded spectrum with log-normal errors"
            ctx.cache.methods[f"likelihood, {detector.name}"] = how
        search, suffix = asked.search(), "" if i == 0 else f"_{name}"
        if joint:
            documents = _write_joint(ctx, f"joint_{name}", joint[name])
        else:
            documents = _write_grid(ctx, asked, suffix=suffix, masked=bool(suffix))
        if documents and section.exports:
            _export(ctx, search, documents, suffix)
        if documents and section.submission and np.isfinite(search.reach.edges).any():
            _submit(ctx, search, exposure, documents, suffix)
        shown = explored(ctx, search)
        if state is not None:
            state.explored[name] = shown
        extra = {
            "detector": {"name": name} | exposure_of(detector),
            "model": asdict(model_of(ctx).labels),
            "tip": search.reach.tip,
            "explored": shown,
            "observed_significance": search.significance if np.isfinite(search.significance) else None,
        }
        _write_search(ctx, search, f"reach{suffix}", extra)
        searches[name] = search
    content = digest({n: [s.reach.edges, s.measured.edges, s.limit.expected] for n, s in searches.items()})
    sources = digest(ctx.steering.systematics.model_dump(mode="json"))
    ctx.cache.done("infer", ctx.cache.key(section, ctx.cache.key_of("accept"), sources), content)
    return searches


def explored(ctx: Context, search: Search) -> dict[str, Any]:
    """Return median limits at several CLs for the explorer, each a number or rows where errors change."""
    others = () if search.joint is not None else EXPLORED_CL  # a joint likelihood is solved at one level
    predicting, levels = ctx.steering.predict, dict.fromkeys((search.options.cl, *others))
    limits = [search.median_limit(cl) for cl in levels]
    return {
        "cl": list(levels),
        "limit": [x if isinstance(x, float) else np.round(x, 4).tolist() for x in limits],
        "measured": predicting is None or predicting.source != "theory",
    }


def millicharge_stage(
    ctx: Context, planes: dict[str, SignalPlane] | None, exposure: Exposure
) -> dict[str, Search]:
    """Return limit and reach in (m_χ, Q) of every detector, and write their files."""
    searches: dict[str, Search] = {}
    for name, detector in (millicharge_detectors(ctx) if planes and ctx.steering.infer else {}).items():
        ctx.tell("infer", None, detector.name)
        asked = counting_search(ctx, detector, (planes or {})[name], exposure, main=False)
        search = asked.search()
        _write_grid(ctx, asked, suffix=f"_{name}", coupling="charge")
        extra: dict[str, Any] = {"illustrative": detector.illustrative, "exponent": detector.exponent}
        extra |= {"detector": {"name": name} | exposure_of(detector), "model": asdict(CHARGED)}
        _write_search(ctx, search, f"reach_{name}", extra, coupling="charge")
        slope = exponent_of(asked.plane.signal, asked.plane.coupling)
        ctx.cache.numbers[f"exponent of Q, {detector.name}"] = f"{detector.exponent} declared, {slope}"
        searches[name] = search
    return searches


def _write_search(
    ctx: Context, search: Search, stem: str, extra: dict[str, Any], coupling: str = "coupling"
) -> None:
    """Write the contours of a detector with what they rest on."""
    content = {
        "assumption": search.assumption,
        "expected_limit": search.limit.expected,
        "mass_intervals": {name: intervals_of(r) for name, r in contours(search).items()},
        "signal_uncertainties": {name: float(np.median(s)) for name, s in search.spreads.items()},
        "columns": [name.replace("coupling", coupling) for name in COLUMNS],
    }
    write_contours(ctx, stem, f", {search.detector.name}", reach_rows(search, coupling), content | extra)
    ctx.cache.methods[f"limit, {search.detector.name}"] = f"{search.limit.method}; {search.assumption}"


def write_contours(
    ctx: Context, stem: str, what: str, rows: list[dict[str, Any]], content: dict[str, Any]
) -> None:
    """Write ``<stem>.csv`` and ``<stem>.json``: one row per mass and island of every contour."""
    write_reach(ctx.folder / f"{stem}.csv", {key: [row[key] for row in rows] for key in rows[0]})
    label = f"{'MOCK ' if ctx.cache.mock else ''}expected reach{what}"
    common = {"label": label, "mock": ctx.cache.mock, "partial": ctx.cache.partial}
    write_json(ctx.folder / f"{stem}.json", common | content | {"rows": plain(rows)})


def _write_grid(
    ctx: Context, search: CountingSearch, *, suffix: str, masked: bool = True, coupling: str = "eps"
) -> Documents:
    """Write ``workspace<suffix>.json`` and ``patchset<suffix>.json``, one patch per mass and coupling.

    Both together hold every nuisance of the limit under its name. The finite sample, ``signal_mc``, is in the
    patches even if [infer] nuisances leaves it out of the limit.
    """
    section, plane = section_of(ctx), search.plane
    observed = "masked" if masked or isinstance(section.observed, str) else list(section.observed)
    b, b_sigma, _ = search.background
    calibration, own = search.pot
    # likelihoods of several detectors can be combined: each has its own channel
    channel = re.sub(r"\W+", "_", search.detector.name).strip("_") or "counting"
    sigma: Any = {"pot_calibration_sigma": calibration}
    sigma["pot_search_sigma"] = {pot_names(search.detector.name)[1]: own}
    spec = infer.workspace(channel, b, b_sigma, observed, **sigma)
    write_json(ctx.folder / f"workspace{suffix}.json", spec)
    row, column = patched_points(plane.signal, section.max_patches)
    if not len(row):
        note = f"{search.detector.name}: no grid point reaches {PATCHED[0]} events; no patch set"
        ctx.cache.notes.append(note)
        return {}
    patches = infer.patchset(
        spec,
        plane.mass[row],
        plane.coupling[column],
        plane.signal[row, column],
        signal_mc_sigma=modifiers_at(search, row, column),
        coupling_name=coupling,
        hepdata=section.hepdata,
    )
    _say_how(section, patches)
    write_json(ctx.folder / f"patchset{suffix}.json", patches, indent=None)
    return {"": (spec, patches)}


def _say_how(section: Infer, patches: dict[str, Any], **more: str) -> None:
    """Put into a patch set how this run sets limits and treats nuisances: `gammastar scan` reads it."""
    convention = {key: getattr(section, key) for key in KEYS}
    patches["metadata"][CONVENTION] = convention | more | patches["metadata"].get(CONVENTION, {})


def _write_joint(ctx: Context, name: str, documents: Documents) -> Documents:
    """Write and return ``workspace.json`` and ``patchset.json`` of each mass, in a folder of its own."""
    for label, (spec, patches) in documents.items():
        folder = ctx.folder / name / label
        _say_how(section_of(ctx), patches, **FULL_TOYS)
        write_json(folder / "workspace.json", spec)
        write_json(folder / "patchset.json", patches, indent=None)
    return documents


def _export(ctx: Context, search: Search, documents: Documents, suffix: str) -> None:
    """Write the likelihood of the grid point whose signal is nearest to the limit in other formats."""
    formats, distance = section_of(ctx).exports, {}
    for label, (_, patches) in documents.items():
        for i, patch in enumerate(patches["patches"]):
            events = sum(sum(step["value"]) for step in patch["patch"] if step["op"] == "replace")
            distance[label, i] = abs(float(np.log(events / search.limit.expected[2])))
    label, nearest = min(distance, key=lambda place: distance[place])
    spec, patches = documents[label]
    patch = patches["patches"][nearest]
    point = jsonpatch.apply_patch(spec, patch["patch"])
    if "hs3" in formats:
        try:
            write_json(ctx.folder / f"hs3{suffix}.json", infer.to_hs3(point))
        except PhysicsError as error:  # the results stand; only this format cannot hold them
            ctx.cache.alarm(f"hs3{suffix}.json was not written: {error}")
            formats = tuple(name for name in formats if name != "hs3")
    if "xml" in formats:
        infer.write_xml(point, ctx.folder / f"histfactory{suffix}")
    if not formats:
        return
    ctx.cache.methods[f"exported likelihood, {search.detector.name}"] = (
        f"{' and '.join(formats)} of the point {patch['metadata']['name']}, whose signal is "
        "nearest to the limit"
    )


def _submit(ctx: Context, search: Search, exposure: Exposure, documents: Documents, suffix: str) -> None:
    """Write the tables and the likelihood for HEPData."""
    from gammastar import report

    mock = "MOCK: " if ctx.cache.mock else ""
    labels, loss = model_of(ctx).labels, ctx.cache.loss
    photon, joint = labels.plane == "dark_photon", search.joint is not None
    named = labels.coupling_name + (f" [{labels.unit}]" if labels.unit else "")
    says = report.Submission(
        title=f"{mock}Expected reach of {search.detector.name}",
        abstract=f"{mock}Signal from measured dileptons. {search.assumption}."
        + (f" {JOINT_FIT}." if joint else "")
        + (f" {loss}." if loss else ""),
        coupling="kinetic mixing epsilon" if photon else named,
        qualifiers={
            "CL": search.options.cl,
            **{QUALIFIER[name]: value for name, value in exposure_of(search.detector).items()},
            "SQRT(S) [GeV]": round(float(np.sqrt(2.0 * exposure.beam_energy * MASS_NUCLEON)), 2),
            **({"LIKELIHOOD": "joint fit of pairs and search"} if joint else {}),
        },
        reaction=f"P NUCLEUS --> {'DARKPHOTON' if photon else 'NEWPARTICLE'} X",
        method=search.limit.method,
        phrases=("Dark Photon",) if photon else (),
    )
    folder = ctx.folder / f"hepdata{suffix}"
    others = {name: reach for name, reach in contours(search).items() if name != "all"}
    report.write_submission(folder, search.reach, says, likelihoods=documents, others=others)
    checked = "not checked (hepdata-validator is not installed)"
    if importlib.util.find_spec("hepdata_validator") is not None:
        report.check_submission(folder)
        checked = "valid to hepdata-validator, offline"
    ctx.cache.methods[f"HEPData submission, {search.detector.name}"] = checked
