"""What can be known of a run before any work starts: from the steering, the small files, the first entries.

The checks of the dark half, and all of them in the order of the stages.
"""

from __future__ import annotations

import functools
import importlib.util
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gammastar.config import checks_measured
from gammastar.config.checks_measured import (
    LONGEST,
    CheckContext,
    Findings,
    hinted,
    listed,
    near,
    raised,
    tried,
    wrong,
)
from gammastar.config.dark import Accept, Infer, InSitu, Predict, Report, mesons_of, theory_options
from gammastar.config.measured import FlowSection, Select
from gammastar.config.steering import STAGES, Steering, examine
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import BranchError, GammastarError, InputFileError
from gammastar.core.files import Finding, is_folder, shipped
from gammastar.core.resolve import resolve
from gammastar.core.sources import KINDS, RESERVED, THEORY_OF, OwnSource

NOMINAL_BEAM = 400.0  # GeV; only whether the channels can be made is looked at
SHOWN_ALIKE = 3  # findings of one kind in many files that are shown


def examine_file(path: Path) -> tuple[Steering | None, tuple[Finding, ...]]:
    """Check a steering file and every file that it names."""
    steering, findings = examine(path)
    if steering is None:
        return None, findings
    left_out = [finding.where for finding in findings]  # a key that was left out is not missing
    further = [
        finding
        for finding in check_steering(steering, path.resolve().parent)
        if not any(finding.where == key or finding.where.startswith(f"{key}.") for key in left_out)
    ]
    return steering, _sorted([*findings, *further])


def check_steering(
    steering: Steering,
    base: Path,
    *,
    stages: Sequence[str] = STAGES,
    open_files: bool = True,
    skip_bad: bool = False,
) -> tuple[Finding, ...]:
    """Return all that is wrong, or looks wrong, with a steering and the files that it names."""
    from gammastar.read.files import kept_open

    ctx = CheckContext(steering, base, stages, open_files, skip_bad)
    findings: list[Finding] = []
    with kept_open():
        for stage in filter(ctx.has, CHECKS):
            for check in CHECKS[stage]:
                try:
                    findings.extend(check(ctx, getattr(steering, stage)))
                except GammastarError as error:  # ends this check, and nothing else
                    unreadable = skip_bad and isinstance(error, InputFileError | BranchError)
                    findings.append(replace(raised(stage, error), level="warning" if unreadable else "error"))
    return _sorted(findings)


def listing(findings: Iterable[Finding]) -> str:
    """Return the errors among findings, one line each, as the text of one error."""
    lines = [f"{finding.where}: {finding.message}" for finding in findings if finding.level == "error"]
    lengths = itertools.accumulate(map(len, lines))
    shown = [line for line, length in zip(lines, lengths, strict=True) if length <= LONGEST]
    shown = shown or lines[:1]
    left = len(lines) - len(shown)
    more = [f"… and {left} more; `gammastar check` lists them"] if left else []
    return "\n".join([*shown, *more])


def _sorted(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings without repeats, errors first; of one kind in many files the first few."""
    kinds: dict[tuple[str, str], list[Finding]] = {}
    order: list[Finding] = []
    for finding in sorted(dict.fromkeys(findings), key=lambda finding: finding.level):
        kind = (finding.level, finding.key) if ": " in finding.where else (finding.where, finding.message)
        alike = kinds.setdefault(kind, [])
        alike.append(finding)
        if len(alike) <= SHOWN_ALIKE:
            order.append(finding)
    for alike in kinds.values():
        if len(alike) > SHOWN_ALIKE:
            last = alike[SHOWN_ALIKE - 1]
            more = f"{last.message} … and {len(alike) - SHOWN_ALIKE} more files"
            order[order.index(last)] = replace(last, message=more)
    return tuple(order)


def _production(ctx: CheckContext, section: Predict) -> Findings:
    spectrum = ctx.steering.spectrum
    published = spectrum is not None and spectrum.table is not None
    if not ctx.theory and section.sampler == "flow" and ctx.steering.flow is None and not published:
        yield wrong("predict.sampler", "'flow' needs the section [flow]; or set it to 'histogram'")
    if section.model != "dark_photon":
        yield from _model(ctx, section)
    yield from _tables(ctx, section)
    if section.channels or section.outside_domain or section.millicharge is not None:
        yield from _channels(ctx, section)
    yield from _masses(ctx, section)
    if section.mass_dependence == "lines" and not ctx.theory:
        yield from tried("predict.mass_dependence", _need_lines, ctx)[1]


def _need_lines(ctx: CheckContext) -> None:
    """Raise why the mass bins hold no lines, where the steering shows it."""
    unfold, select, spectrum = ctx.steering.unfold, ctx.steering.select, ctx.steering.spectrum
    if unfold is None or select is None or spectrum is None or unfold.preset != "true mass":
        return
    from gammastar.spectrum.mass_shape import usable_components

    usable_components(unfold.mass or select.mass, m_lepton=LEPTON_MASS[spectrum.lepton])


def _tables(ctx: CheckContext, section: Predict) -> Findings:
    """Look for the preset and the table that are named, whether a channel takes them or not."""
    from gammastar.physics import bremsstrahlung
    from gammastar.physics.mesons import MesonTable

    if "bremsstrahlung" in section.model_fields_set:
        yield from tried("predict.bremsstrahlung", bremsstrahlung.preset, section.bremsstrahlung)[1]
    if "mesons" in section.model_fields_set:
        read = functools.partial(MesonTable.read, sigma_inelastic=section.sigma_inelastic)
        yield from tried("predict.mesons", lambda: read(mesons_of(section, ctx.base)))[1]


def _model(ctx: CheckContext, section: Predict) -> Findings:
    """Make the model; one of a user must keep the contract of its kind."""
    from gammastar.physics.vectors import CHARGES
    from gammastar.predict import make_model

    name, key = section.model, "predict.model"
    if ":" not in name and name not in CHARGES:
        known = ("dark_photon", *CHARGES)
        hint = near(name, known, f"use one of {', '.join(known)}")
        yield wrong(key, f"{name!r} is neither shipped nor of the form 'file.py:name'; {hint}")
        return
    model, findings = tried(key, make_model, name, ctx.base)
    for finding in findings:
        named = finding.message if repr(name) in finding.message else f"{name!r}: {finding.message}"
        yield replace(finding, message=named)
    if not findings and name not in CHARGES:
        from gammastar.testing import check_model

        masses = section.masses[:3] or (0.3, 0.6)
        yield from _contract(key, name, functools.partial(check_model, model, masses=masses))


def _channels(ctx: CheckContext, section: Predict) -> Findings:
    """Make every theory channel, which reads its tables; none may hold a process of another."""
    from gammastar import predict
    from gammastar.testing import check_channel

    spectrum, infer = ctx.steering.spectrum, ctx.steering.infer
    beam = (section.beam_energy if ctx.theory else spectrum and spectrum.beam_energy) or NOMINAL_BEAM
    limits = _measured_masses(ctx) or (0.0, math.inf)
    beside: list[Any] = []  # channels and outside_domain together must leave no process twice
    for key, names in (
        ("predict.channels", section.channels),
        ("predict.outside_domain", section.outside_domain),
        ("predict.millicharge.channels", section.millicharge.channels if section.millicharge else ()),
    ):
        made: list[Any] = []
        for name in names:
            options = theory_options(section, ctx.base)
            channel, findings = tried(key, predict.theory_channel, name, options, beam)
            yield from findings
            made += [] if findings else [channel]
            if ":" in name and not findings:
                masses = _open_masses(section.masses, channel)
                check = functools.partial(check_channel, channel, masses=masses, n=500)
                yield from _contract(key, name, check)
        if not ctx.theory and key != "predict.millicharge.channels" and made:
            if key == "predict.outside_domain":
                made = [predict.Outside(channel, lambda *at: at[1] < 0, limits) for channel in made]
            beside += made
            made = [_Measured(limits), *beside]
        yield from tried(key, predict.check_exclusive, made)[1]
    if section.outside_domain and spectrum is not None and not spectrum.extrapolate:
        text = "counts nothing with spectrum.extrapolate = false: leave one of them out"
        yield wrong("predict.outside_domain", text)
    if section.outside_domain and infer is not None and "theory" not in ctx.steering.systematics.nuisances:
        text = "without 'theory' in systematics.nuisances the limits do not know the error of these channels"
        yield Finding("warning", "predict.outside_domain", text)


class _Measured:
    """Stands for the measured virtual photons where overlaps are looked for."""

    group = "virtual_photon"

    def __init__(self, mass_range: tuple[float, float]) -> None:
        from gammastar.predict.channel import held

        self.mass_range, self.processes = mass_range, held(mass_range)


def _open_masses(masses: tuple[float, ...], channel: Any) -> tuple[float, ...]:
    """Return two masses [GeV] at which a channel is tried, inside those that it says it covers."""
    low, high = getattr(channel, "mass_range", (0.0, math.inf))
    inside = [m for m in masses or (0.3, 0.5) if low <= m < high]
    if len(inside) < 2 and math.isfinite(high):
        inside = [low + share * (high - low) for share in (0.25, 0.75)]
    return tuple(inside[:2])


def _contract(key: str, name: str, check: Callable[[], Any]) -> Findings:
    """Look whether an object of the user keeps the contract of its kind."""
    for finding in tried(key, check)[1]:
        yield replace(finding, message=f"{name!r}: {finding.message.removeprefix('ContractError: ')}")


def _measured_masses(ctx: CheckContext) -> tuple[float, float] | None:
    """Return the first and the last mass at which the spectrum gives a rate [GeV]."""
    unfold, select, predict = ctx.steering.unfold, ctx.steering.select, ctx.steering.predict
    edges = getattr(unfold, "mass", None) or getattr(select, "mass", None)
    if edges is None:
        return None
    smeared = unfold is not None and unfold.preset.startswith("smeared")
    straight = smeared or (predict is not None and predict.mass_dependence == "bins")
    if straight or tried("predict", _need_lines, ctx)[1]:
        return 0.5 * (edges[0] + edges[1]), 0.5 * (edges[-2] + edges[-1])
    section = ctx.steering.spectrum
    return max(edges[0], 0.0 if section is None else 2 * LEPTON_MASS[section.lepton]), edges[-1]


def _masses(ctx: CheckContext, section: Predict) -> Findings:
    """Compare the masses of the scan with those at which a rate exists."""
    if ctx.theory:
        if not section.masses and section.mass_range is None:
            text = "source = 'theory' has no masses of its own: give masses or mass_range"
            yield wrong("predict.masses", text)
        return
    measured = _measured_masses(ctx)
    if section.channels or measured is None or ctx.steering.spectrum is None:
        return
    low, high = measured
    masses = section.masses or section.mass_range or measured
    if not masses[-1] > masses[0] and not section.masses:
        yield wrong("predict.mass_range", f"one mass bin gives a rate at {low:.4g} GeV alone: give masses")
        return
    key = "predict.masses" if section.masses else "predict.mass_range"
    outside = [m for m in masses if not low - 1e-9 <= m <= high + 1e-9]
    if outside:
        rates = f"from {low:.4g} to {high:.4g} GeV, between the centres of its first and last mass bin"
        text = f"{listed(outside)} GeV: the spectrum gives rates {rates}"
        yield wrong(key, text)
    threshold = 2 * LEPTON_MASS[ctx.steering.spectrum.lepton]
    below = [m for m in masses if m < threshold and m not in outside]
    if below:
        text = f"{below[0]:g} GeV lies below the threshold of the measured leptons, {threshold:.4g} GeV"
        yield wrong(key, text)


def _angles(ctx: CheckContext, section: FlowSection) -> Findings:
    """Compare the regions of the spin density with the pairs and with the masses of the scan."""
    select, measured, predict = ctx.steering.select, _measured_masses(ctx), ctx.steering.predict
    if section.angles is None or select is None or measured is None:
        return
    (low, high), (first, last) = (section.angles[0], section.angles[-1]), (select.mass[0], select.mass[-1])
    if low >= last or high <= first:
        text = f"{low:g} to {high:g} GeV: select.mass goes from {first:g} to {last:g} GeV"
        yield wrong("flow.angles", text)
    elif predict is not None and predict.source == "spectrum":
        masses = predict.masses or predict.mass_range or measured
        beside = [m for m in masses if not low - 1e-9 <= m <= high + 1e-9]
        if beside:
            text = f"{listed(beside)} GeV: beside the regions, follows the nearest one"
            yield Finding("warning", "flow.angles", text)


def _detectors(ctx: CheckContext, section: Accept) -> Findings:
    """Load every detector and compare it with beam, final states and target of the run."""
    from gammastar.physics.detector import load_detector
    from gammastar.physics.millicharge import load_millicharge_detector

    kinds: tuple[tuple[str, Callable[[Path], Any]], ...] = (
        ("detectors", load_detector),
        ("millicharge_detectors", load_millicharge_detector),
    )
    stems: list[str] = []  # of both kinds: the run keeps a copy of each file under its stem
    for key, load in kinds:
        for name in getattr(section, key):
            where = f"accept.{key}"
            try:
                path = shipped(name, ctx.base, "detectors")
                detector = load(path)
            except GammastarError as error:
                yield hinted(raised(where, error), name, "detectors")
                continue
            if path.stem in stems:
                yield wrong(where, f"two detectors are named {path.stem!r}; their results would be one")
            stems.append(path.stem)
            ctx.detectors[path.stem] = detector
            yield from _beam_and_target(ctx, where, path.name, detector)
            if key == "detectors":
                yield from _states(where, path.name, detector, section)
    if isinstance(section.interaction_length, dict) and ctx.detectors:
        unknown = [name for name in section.interaction_length if name not in ctx.detectors]
        if unknown:
            text = f"{', '.join(unknown)}: no detector of this name; they are {', '.join(ctx.detectors)}"
            yield wrong("accept.interaction_length", text)


def _beam_and_target(ctx: CheckContext, where: str, name: str, detector: Any) -> Findings:
    """Compare beam and target of a detector with those of the production."""
    section, predict, spectrum = ctx.steering.accept, ctx.steering.predict, ctx.steering.spectrum
    source: Any = predict if ctx.theory else spectrum
    beam = None if source is None else source.beam_energy
    if beam is not None and not math.isclose(beam, detector.beam_energy, rel_tol=1e-3):
        text = (
            f"{name} stands at {detector.beam_energy:g} GeV, {'predict' if ctx.theory else 'spectrum'}"
            f".beam_energy is {beam:g} GeV: no scaling carries a rate to another beam"
        )
        yield wrong(where, text)
    if section is None or predict is None or ctx.theory:
        return
    if section.target_scaling is None and spectrum is not None:
        text = (
            f"is needed to carry the rate of the measured target (A = {spectrum.target_a:g}) to that of "
            f"{name} (A = {detector.target.a:g}): 'per_interaction' or 'power'"
        )
        yield wrong("accept.target_scaling", text)


def _states(where: str, name: str, detector: Any, section: Accept) -> Findings:
    """Compare the final states and planes of a detector with what is asked of it."""
    unknown = [state for state in section.final_states if state not in detector.efficiency]
    if unknown:
        has = ", ".join(detector.efficiency) or "none"
        text = f"{name} has no efficiency for {' and '.join(unknown)} of accept.final_states; it has {has}"
        yield wrong(where, text)
    z0, z1 = detector.volume.z_range
    if detector.magnet is not None and detector.magnet.z <= z0:
        text = f"the magnet at z = {detector.magnet.z:g} m stands before the decay volume ({z0:g} m)"
        yield Finding("warning", where, f"{name}: {text}: it bends nothing")
    for plane in detector.planes:
        if z0 < plane.z < z1:
            text = (
                f"{name}: the plane {plane.name!r} at z = {plane.z:g} m stands inside the decay volume "
                f"({z0:g} to {z1:g} m): decays behind it are not seen"
            )
            yield Finding("warning", where, text)


def _in_situ(ctx: CheckContext, section: InSitu) -> Findings:
    """Compare masses and windows of the search in situ with what is measured."""
    select, spectrum = ctx.steering.select, ctx.steering.spectrum
    if select is None or spectrum is None:
        return
    low, high = select.mass[0], select.mass[-1]
    threshold = 2 * LEPTON_MASS[spectrum.lepton]
    key = "in_situ.masses" if section.masses else "in_situ.mass_range"
    masses = section.masses or section.mass_range or ()
    below = [m for m in masses if m <= threshold]
    outside = [m for m in masses if not low <= m <= high and m not in below]
    if below:
        text = f"{listed(below)} GeV: not above the threshold of the measured leptons, {threshold:.4g} GeV"
        yield wrong(key, text)
    if outside:
        yield wrong(key, f"{listed(outside)} GeV: select.mass goes from {low:g} to {high:g} GeV")
    if not isinstance(section.resolution, str):
        yield from _resolution(section, high - low)
    if (ctx.steering.analysis.mock or ctx.simulated) and section.observed == "data":
        yield wrong("in_situ.observed", "'data', but mock data exclude nothing: leave it 'masked'")
    if section.displaced is not None:
        yield from _displaced(ctx, section.displaced.telescope, select)
    predict = ctx.steering.predict
    if predict is not None and predict.model != "dark_photon":
        text = f"the search in situ is for dark photons, whatever predict.model = {predict.model!r} is"
        yield Finding("warning", "in_situ", text)


def _resolution(section: InSitu, span: float) -> Findings:
    from gammastar.physics.detector import MOST

    points: Any = section.resolution
    widest = max(width for _, width in points) if isinstance(points, tuple) else points
    if span > MOST * widest:
        text = f"select.mass holds {span / widest:.3g} widths of {widest:g} GeV"
        yield wrong("in_situ.resolution", f"{text}, at most {MOST} are searched: give the width in GeV")
    if 2 * section.half_window * widest > span:
        text = (
            f"{section.half_window:g} resolutions of {widest:g} GeV to either side are wider than the "
            f"{span:.4g} GeV of select.mass: take a smaller window, or give the width in GeV"
        )
        yield wrong("in_situ.half_window", text)


def _displaced(ctx: CheckContext, telescope: str, select: Select) -> Findings:
    """Look for the telescope of the displaced search and for the vertices that it needs."""
    from gammastar.physics.detector import load_telescope

    if not select.vertex:
        text = 'pairs have no vertex; name the two lepton columns of [select], as vertex = ["dx", "dy"]'
        yield wrong("in_situ.displaced", text)
    load = functools.partial(shipped, telescope, ctx.base, "cards")
    yield from tried("in_situ.displaced.telescope", lambda: load_telescope(load()))[1]


def _bounds(ctx: CheckContext, section: Report) -> Findings:
    if section.bounds is not None and not is_folder(ctx.base / section.bounds):
        yield wrong("report.bounds", f"{ctx.base / section.bounds} is no folder of files of limits")


def _shown_masses(ctx: CheckContext, _: object) -> Findings:
    """Find masses that a figure is asked for and that nothing is known of."""
    measured, steering = _measured_masses(ctx), ctx.steering
    if measured is None or ctx.theory:
        return
    shown = []
    if steering.accept is not None and "acceptance_masses" in steering.accept.model_fields_set:
        outside = [m for m in steering.accept.acceptance_masses if not measured[0] <= m <= measured[1]]
        shown.append(("accept.acceptance_masses", outside, "the spectrum", measured))
    edges = getattr(steering.unfold, "mass", None) or getattr(steering.select, "mass", None)
    if steering.report is not None:
        half = 0.5 * steering.flow.window if steering.flow is not None else 0.0
        edges = measured if steering.flow is None or edges is None else edges
        outside = steering.report.outside(edges[0], edges[-1], half)
        every = len(outside) == len(steering.report.flow_masses)
        if every or "flow_masses" in steering.report.model_fields_set:  # those by default may be elsewhere
            inner = edges[0] + half, edges[-1] - half
            shown.append(("report.flow_masses", outside, "what the flow learns", inner))
    for where, outside, what, (low, high) in shown:
        if outside:
            masses = ", ".join(f"{m:g}" for m in outside)
            text = f"{masses} GeV: outside {what} ({low:.4g} to {high:.4g} GeV), so nothing is shown there"
            yield Finding("warning", where, text)


def _joint_likelihood(ctx: CheckContext, section: Infer) -> Findings:
    """Name what keeps the joint likelihood from its pairs, its response or its one source of signal."""
    if section.likelihood != "joint":
        return
    steering, key = ctx.steering, "infer.likelihood"
    for name in ("select", "subtract", "unfold", "spectrum", "predict", "accept"):
        if getattr(steering, name) is None:
            yield wrong(key, f"'joint' fits measured pairs, and the section [{name}] is missing")
    spectrum, select, predict = steering.spectrum, steering.select, steering.predict
    subtract, unfold = steering.subtract, steering.unfold
    published = spectrum is not None and spectrum.table is not None
    beside = predict is not None and (ctx.theory or predict.channels or predict.outside_domain)
    kept = select is None or select.keep_pairs
    everywhere = spectrum is None or published or spectrum.extrapolate
    broken = {
        "fits measured pairs; a published spectrum has none": published,
        "gives all pairs of a cell to its signal, also those from where nothing was measured: set "
        "spectrum.extrapolate = true": not everywhere,
        "fits pairs in bins of its own; select.keep_pairs = false leaves none": not kept,
        "takes the signal from measured pairs alone; "
        f"predict.{'source' if ctx.theory else 'channels and outside_domain'} is theory": beside,
    }
    if subtract is not None:
        text = f"takes like-sign pairs and R; subtract.method = {subtract.method!r} is another"
        broken[text] = not subtract.way.signed
    if unfold is not None:
        text = f"folds with the resolution; unfold.preset = {unfold.preset!r} leaves it in"
        broken[text] = unfold.preset.startswith("smeared")
    for text, is_broken in broken.items():
        if is_broken:
            yield wrong(key, f"'joint' {text}")


def _inference(_: CheckContext, section: Infer) -> Findings:
    if not isinstance(section.observed, str) and len(section.observed) != 1:
        yield wrong("infer.observed", f"{len(section.observed)} counts; give one, that of the first detector")


def _systematics(ctx: CheckContext, _: Accept) -> Findings:
    """Look at the sources of the user, and at the names of those that limits take."""
    section, subtract = ctx.steering.systematics, ctx.steering.subtract
    names = [*RESERVED, *(() if subtract is None else (c.name for c in subtract.corrections))]
    names += [] if ctx.steering.select is None else ctx.steering.select.sources
    for name in section.own:
        source, findings = tried("systematics.own", resolve, name, ctx.base)
        yield from findings
        if isinstance(source, OwnSource):
            names.append(source.name)
        elif not findings:
            text = f"{name!r} is {type(source).__name__}, not core.sources.OwnSource"
            yield wrong("systematics.own", text)
    for name in section.unknown(tuple(names)):
        if not name.startswith(THEORY_OF):
            yield wrong("systematics.nuisances", f"{name!r} is no source; kinds are {', '.join(KINDS)}")


def _installed(section: str, extra: str, *packages: str) -> checks_measured.Check:
    """Return a check that what a section needs is installed, before any work."""

    def check(_: CheckContext, __: Any) -> Findings:
        for name in (name for name in packages if importlib.util.find_spec(name) is None):
            yield wrong(section, f"{name} is missing: pip install 'gammastar[{extra}]'")

    return check


CHECKS: dict[str, tuple[checks_measured.Check, ...]] = checks_measured.CHECKS | {
    "in_situ": (_in_situ,),
    "flow": (_installed("flow", "flow", "torch", "zuko"), _angles),
    "predict": (_production,),
    "accept": (_detectors, _systematics, _shown_masses),
    "infer": (_inference, _joint_likelihood),
    "report": (_installed("report", "plot", "jinja2", "matplotlib", "mplhep"), _shown_masses, _bounds),
}
