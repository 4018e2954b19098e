"""What can be known of a run before any work starts: from the steering, the small files, the first entries.

The checks of the dark half, and all of them in the order of the stages.
"""

from __future__ import annotations

import difflib
import functools
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from gammastar.config.checks_measured import CHECKS as MEASURED
from gammastar.config.checks_measured import LONGEST, Findings, Look, hinted, raised, tried, wrong
from gammastar.config.dark import Accept, InSitu, Predict, mesons_of
from gammastar.config.steering import STAGES, Steering, examine
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.documents import Finding
from gammastar.core.errors import BranchError, GammastarError, InputFileError
from gammastar.core.files import is_folder, shipped
from gammastar.core.resolve import resolve
from gammastar.core.sources import KINDS, RESERVED, THEORY_OF, OwnSource

NOMINAL_BEAM = 400.0  # GeV; only whether the channels can be made is looked at
ALIKE = 3  # findings of one kind in many files that are shown


def examine_file(path: Path) -> tuple[Steering | None, tuple[Finding, ...]]:
    """Check a steering file and every file that it names."""
    steering, found = examine(path)
    if steering is None:
        return None, found
    wrong = [finding.where for finding in found]
    further = check_steering(steering, path.resolve().parent)
    # a key that was left out is not missing
    known = [f for f in further if not any(f.where == w or f.where.startswith(f"{w}.") for w in wrong)]
    return steering, _sorted([*found, *known])


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

    look = Look(steering, base, stages, open_files, skip_bad)
    found: list[Finding] = []
    with kept_open():
        for stage, checks in CHECKS.items():
            if look.has(stage):
                for check in checks:
                    found += _guarded(stage, check, look)
    return _sorted(found)


def listing(findings: Iterable[Finding]) -> str:
    """Return the errors among findings, one line each, as the text of one error."""
    lines = [f"{finding.where}: {finding.message}" for finding in findings if finding.level == "error"]
    shown: list[str] = []
    for line in lines:
        if shown and sum(map(len, shown)) + len(line) > LONGEST:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    more = [f"… and {left} more; `gammastar check` lists them"] if left else []
    return "\n".join([*shown, *more])


def _sorted(found: Iterable[Finding]) -> tuple[Finding, ...]:
    """Return findings without repeats, errors first; of one kind in many files the first few."""
    unique = sorted(dict.fromkeys(found), key=lambda finding: finding.level)
    kept: list[Finding] = []
    alike: dict[tuple[str, str], int] = {}
    for finding in unique:
        kind = (finding.level, finding.key) if ": " in finding.where else (finding.where, finding.message)
        alike[kind] = alike.get(kind, 0) + 1
        if alike[kind] <= ALIKE:
            kept.append(finding)
    for (level, key), n in alike.items():
        if n > ALIKE:
            last = next(i for i, f in reversed(list(enumerate(kept))) if (f.level, f.key) == (level, key))
            kept[last] = replace(kept[last], message=f"{kept[last].message} … and {n - ALIKE} more files")
    return tuple(kept)


def _guarded(where: str, check: Callable[[Look], Findings], look: Look) -> list[Finding]:
    """Collect the findings of one check; a mistake that it raises ends it, and nothing else."""
    found: list[Finding] = []
    try:
        found.extend(check(look))
    except GammastarError as error:
        finding = raised(where, error)
        left_out = look.skip_bad and isinstance(error, InputFileError | BranchError)
        found.append(replace(finding, level="warning") if left_out else finding)
    return found


# The dark half


def _beam(look: Look) -> float | None:
    """Return the beam energy of the production [GeV]."""
    predict, spectrum = look.steering.predict, look.steering.spectrum
    if predict is not None and predict.source == "theory":
        return predict.beam_energy
    return None if spectrum is None else spectrum.beam_energy


def _production(look: Look) -> Findings:
    section = look.steering.predict
    if section is None:
        return
    spectrum = look.steering.spectrum
    modelled = spectrum is not None and spectrum.table is not None
    if (
        section.source == "spectrum"
        and section.sampler == "flow"
        and look.steering.flow is None
        and not modelled
    ):
        yield wrong("predict.sampler", "'flow' needs the section [flow]; or set it to 'histogram'")
    if section.model != "dark_photon":
        yield from _model(look, section)
    yield from _tables(look, section)
    if section.channels or section.outside or section.millicharge is not None:
        yield from _channels(look, section)
    yield from _masses(look, section)
    yield from _lines(look, section)


def _lines(look: Look, section: Predict) -> Findings:
    """Ask whether lines can be fitted where they are asked for."""
    if section.mass_dependence == "lines" and section.source == "spectrum":
        yield from tried("predict.mass_dependence", lambda: _need_lines(look))[1]


def _need_lines(look: Look) -> None:
    """Raise why the mass bins hold no lines, where the steering shows it."""
    unfold, select, spectrum = look.steering.unfold, look.steering.select, look.steering.spectrum
    if unfold is None or select is None or spectrum is None or unfold.preset != "true mass":
        return
    from gammastar.spectrum.mass_shape import usable_components

    usable_components(unfold.mass or select.mass, m_lepton=LEPTON_MASS[spectrum.lepton])


def _tables(look: Look, section: Predict) -> Findings:
    """Look for the preset and the table that are named, whether a channel takes them or not."""
    from gammastar.physics import bremsstrahlung
    from gammastar.physics.mesons import MesonTable

    if "bremsstrahlung" in section.model_fields_set:
        yield from tried("predict.bremsstrahlung", lambda: bremsstrahlung.preset(section.bremsstrahlung))[1]
    if "mesons" in section.model_fields_set:
        sigma = section.sigma_inelastic
        read = functools.partial(MesonTable.read, sigma_inelastic=sigma)
        yield from tried("predict.mesons", lambda: read(mesons_of(section, look.base)))[1]


def _model(look: Look, section: Predict) -> Findings:
    """Make the model; one of a user must keep the contract of its kind."""
    from gammastar.physics.vectors import CHARGES
    from gammastar.predict import make_model

    name = section.model
    if ":" not in name and name not in CHARGES:
        known = ("dark_photon", *CHARGES)
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"use one of {', '.join(known)}"
        yield wrong("predict.model", f"{name!r} is neither shipped nor of the form 'file.py:name'; {hint}")
        return
    model, found = tried("predict.model", lambda: make_model(name, look.base))
    yield from (f if repr(name) in f.message else replace(f, message=f"{name!r}: {f.message}") for f in found)
    if found or name in CHARGES:
        return
    from gammastar.testing import check_model

    check = functools.partial(check_model, model, masses=section.masses[:3] or (0.3, 0.6))
    yield from _contract("predict.model", name, check)


def _channels(look: Look, section: Predict) -> Findings:
    """Make every theory channel, which reads its tables; none may hold a process of another."""
    from gammastar import predict
    from gammastar.config.dark import theory_options
    from gammastar.predict import theory_channel
    from gammastar.testing import check_channel

    beam = _beam(look) or NOMINAL_BEAM
    charged = () if section.millicharge is None else section.millicharge.channels
    axis = _measured_masses(look)
    beside: list[Any] = []  # channels and outside together must leave no process twice
    for key, names in (
        ("predict.channels", section.channels),
        ("predict.outside", section.outside),
        ("predict.millicharge.channels", charged),
    ):
        made: list[Any] = []
        for name in names:
            make = functools.partial(theory_channel, name, theory_options(section, look.base), beam)
            channel, found = tried(key, make)
            made += [] if found else [channel]
            yield from found
            if ":" in name and not found:
                masses = _open_masses(section.masses, channel)
                yield from _contract(
                    key, name, functools.partial(check_channel, channel, masses=masses, n=500)
                )
        if section.source == "spectrum" and key != "predict.millicharge.channels" and made:
            limits = axis or (0.0, math.inf)
            if key == "predict.outside":
                made = [predict.Outside(channel, lambda *at: at[1] < 0, limits) for channel in made]
            beside += made
            made = [_Measured(limits), *beside]
        _, found = tried(key, functools.partial(predict.check_exclusive, made))
        yield from found
    if section.outside and look.steering.spectrum is not None and not look.steering.spectrum.extrapolate:
        yield wrong(
            "predict.outside", "counts nothing with spectrum.extrapolate = false: leave one of them out"
        )
    inferring = look.steering.infer
    if section.outside and inferring is not None and "theory" not in look.steering.systematics.in_limit:
        text = "without 'theory' in systematics.in_limit the limits do not know the error of these channels"
        yield Finding("warning", "predict.outside", text)


class _Measured:
    """Stands for the measured virtual photons where overlaps are looked for."""

    group = "virtual_photon"

    def __init__(self, mass_range: tuple[float, float]) -> None:
        from gammastar.predict.channel import held

        self.mass_range, self.processes = mass_range, held(mass_range)


def _open_masses(asked: tuple[float, ...], channel: Any) -> tuple[float, ...]:
    """Return two masses [GeV] at which a channel is tried, inside those that it says it covers."""
    low, high = getattr(channel, "mass_range", (0.0, math.inf))
    inside = [m for m in asked or (0.3, 0.5) if low <= m < high]
    if len(inside) < 2 and math.isfinite(high):
        inside = [low + share * (high - low) for share in (0.25, 0.75)]
    return tuple(inside[:2])


def _contract(key: str, name: str, check: Callable[[], Any]) -> Findings:
    """Look whether an object of the user keeps the contract of its kind."""
    _, found = tried(key, check)
    for finding in found:
        yield replace(finding, message=f"{name!r}: {finding.message.removeprefix('ContractError: ')}")


def _measured_masses(look: Look) -> tuple[float, float] | None:
    """Return the first and the last mass at which the spectrum gives a rate [GeV]."""
    unfold, select = look.steering.unfold, look.steering.select
    edges = getattr(unfold, "mass", None) or getattr(select, "mass", None)
    if edges is None:
        return None
    predicting = look.steering.predict
    smeared = unfold is not None and unfold.preset.startswith("smeared")
    straight = smeared or (predicting is not None and predicting.mass_dependence == "bins")
    if straight or tried("predict", lambda: _need_lines(look))[1]:
        return 0.5 * (edges[0] + edges[1]), 0.5 * (edges[-2] + edges[-1])
    section = look.steering.spectrum
    threshold = 0.0 if section is None else 2 * LEPTON_MASS[section.lepton]
    return max(edges[0], threshold), edges[-1]


def _masses(look: Look, section: Predict) -> Findings:
    """Compare the masses of the scan with those at which a rate exists."""
    if section.source == "theory":
        if not section.masses and section.mass_range is None:
            yield wrong(
                "predict.masses", "source = 'theory' has no masses of its own: give masses or mass_range"
            )
        return
    known = _measured_masses(look)
    if section.channels or known is None or look.steering.spectrum is None:
        return
    low, high = known
    asked = section.masses or section.mass_range or known
    if not asked[-1] > asked[0] and not section.masses:
        yield wrong("predict.mass_range", f"one mass bin gives a rate at {low:.4g} GeV alone: give masses")
        return
    key = "predict.masses" if section.masses else "predict.mass_range"
    outside = [m for m in asked if not low - 1e-9 <= m <= high + 1e-9]
    if outside:
        text = (
            f"{', '.join(f'{m:g}' for m in outside[:5])} GeV: the spectrum gives rates from {low:.4g} to "
            f"{high:.4g} GeV, between the centres of its first and last mass bin"
        )
        yield wrong(key, text)
    threshold = 2 * LEPTON_MASS[look.steering.spectrum.lepton]
    below = [m for m in asked if m < threshold and m not in outside]
    if below:
        text = f"{below[0]:g} GeV lies below the threshold of the measured leptons, {threshold:.4g} GeV"
        yield wrong(key, text)


def _angles(look: Look) -> Findings:
    """Compare the regions of the spin density with the pairs and with the masses of the scan."""
    section, select, known = look.steering.flow, look.steering.select, _measured_masses(look)
    if section is None or section.angles is None or select is None or known is None:
        return
    low, high = section.angles[0], section.angles[-1]
    if low >= select.mass[-1] or high <= select.mass[0]:
        first, last = select.mass[0], select.mass[-1]
        yield wrong(
            "flow.angles", f"{low:g} to {high:g} GeV: select.mass goes from {first:g} to {last:g} GeV"
        )
        return
    predict = look.steering.predict
    asked = known if predict is None else predict.masses or predict.mass_range or known
    beside = [m for m in asked if not low - 1e-9 <= m <= high + 1e-9]
    if beside and predict is not None and predict.source == "spectrum":
        masses = ", ".join(f"{m:g}" for m in beside[:5])
        yield Finding("warning", "flow.angles", f"{masses} GeV: beside the regions, follows the nearest one")


def _detectors(look: Look) -> Findings:
    """Load every detector and compare it with beam, final states and target of the run."""
    section = look.steering.accept
    if section is None:
        return
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
                path = shipped(name, look.base, "detectors")
                found = load(path)
            except GammastarError as error:
                yield hinted(raised(where, error), name, "detectors")
                continue
            if path.stem in stems:
                yield wrong(where, f"two detectors are named {path.stem!r}; their results would be one")
            stems.append(path.stem)
            look.stands[path.stem] = found
            yield from _beside(look, where, path.name, found)
            if key == "detectors":
                yield from _states(where, path.name, found, section)


def _beside(look: Look, where: str, name: str, found: Any) -> Findings:
    """Compare beam and target of a detector with those of the production."""
    beam, section, predict = _beam(look), look.steering.accept, look.steering.predict
    if beam is not None and not math.isclose(beam, found.beam_energy, rel_tol=1e-3):
        theory = predict is not None and predict.source == "theory"
        own = "predict.beam_energy" if theory else "spectrum.beam_energy"
        yield wrong(
            where,
            f"{name} stands at {found.beam_energy:g} GeV, {own} is {beam:g} GeV: no scaling carries a rate "
            "to another beam",
        )
    if section is None or predict is None or predict.source == "theory":
        return
    if section.target_scaling is None and look.steering.spectrum is not None:
        yield wrong(
            "accept.target_scaling",
            f"is needed to carry the rate of the measured target (A = {look.steering.spectrum.target_a:g}) "
            f"to that of {name} (A = {found.target.a:g}): 'per_interaction' or 'power'",
        )


def _states(where: str, name: str, found: Any, section: Accept) -> Findings:
    """Compare the final states and planes of a detector with what is asked of it."""
    unknown = [state for state in section.final_states if state not in found.efficiency]
    if unknown:
        yield wrong(
            where,
            f"{name} has no efficiency for {' and '.join(unknown)} of accept.final_states; it has "
            f"{', '.join(found.efficiency) or 'none'}",
        )
    z0, z1 = found.volume.z_range
    if found.magnet is not None and found.magnet.z <= z0:
        text = f"the magnet at z = {found.magnet.z:g} m stands before the decay volume ({z0:g} m)"
        yield Finding("warning", where, f"{name}: {text}: it bends nothing")
    for plane in found.planes:
        if z0 < plane.z < z1:
            yield Finding(
                "warning",
                where,
                f"{name}: the plane {plane.name!r} at z = {plane.z:g} m stands inside the decay volume "
                f"({z0:g} to {z1:g} m): decays behind it are not seen",
            )


def _in_situ(look: Look) -> Findings:
    """Compare masses and windows of the search in situ with what is measured."""
    section, select, exposed = look.steering.in_situ, look.steering.select, look.steering.spectrum
    if section is None or select is None or exposed is None:
        return
    from gammastar.physics.resolution import MOST

    low, high = select.mass[0], select.mass[-1]
    threshold = 2 * LEPTON_MASS[exposed.lepton]
    key = "in_situ.masses" if section.masses else "in_situ.mass_range"
    asked = section.masses or section.mass_range or ()
    below = [f"{m:g}" for m in asked if m <= threshold]
    outside = [f"{m:g}" for m in asked if not low <= m <= high and f"{m:g}" not in below]
    if below:
        text = f"{', '.join(below[:5])} GeV: not above the threshold of the measured leptons"
        yield wrong(key, f"{text}, {threshold:.4g} GeV")
    if outside:
        yield wrong(key, f"{', '.join(outside[:5])} GeV: select.mass goes from {low:g} to {high:g} GeV")
    if not isinstance(section.resolution, str):
        points = section.resolution if isinstance(section.resolution, tuple) else ((low, section.resolution),)
        widest = max(width for _, width in points)
        if high - low > MOST * widest:
            text = f"select.mass holds {(high - low) / widest:.3g} widths of {widest:g} GeV"
            yield wrong("in_situ.resolution", f"{text}, at most {MOST} are searched: give the width in GeV")
        if 2 * section.half_window * widest > high - low:
            text = (
                f"{section.half_window:g} resolutions of {widest:g} GeV to either side are wider than the "
                f"{high - low:.4g} GeV of select.mass: take a smaller window, or give the width in GeV"
            )
            yield wrong("in_situ.half_window", text)
    mock = look.steering.analysis.mock or look.steering.simulate is not None
    if mock and section.observed == "data":
        yield wrong("in_situ.observed", "'data', but mock data exclude nothing: leave it 'masked'")
    yield from _displaced(look, section)
    predicting = look.steering.predict
    if predicting is not None and predicting.model != "dark_photon":
        text = f"the search in situ is for dark photons, whatever predict.model = {predicting.model!r} is"
        yield Finding("warning", "in_situ", text)


def _displaced(look: Look, section: InSitu) -> Findings:
    """Look for the telescope of the displaced search and for the vertices that it needs."""
    asked, select = section.displaced, look.steering.select
    if asked is None or select is None:
        return
    if not select.vertex:
        yield wrong(
            "in_situ.displaced",
            'pairs have no vertex; name the two lepton columns of [select] vertex, as vertex = ["dx", "dy"]',
        )

    def card() -> Any:
        from gammastar.physics.detector import load_telescope

        return load_telescope(shipped(asked.telescope, look.base, "cards"))

    _, found = tried("in_situ.displaced.telescope", card)
    yield from found


def _shown_masses(look: Look) -> Findings:
    """Find masses that a figure is asked for and that nothing is known of."""
    known = _measured_masses(look)
    if known is None or (look.steering.predict is not None and look.steering.predict.source == "theory"):
        return
    steering, shown = look.steering, []
    if steering.accept is not None and "acceptance_masses" in steering.accept.model_fields_set:
        outside = [m for m in steering.accept.acceptance_masses if not known[0] <= m <= known[1]]
        shown.append(("accept.acceptance_masses", outside, "the spectrum", known))
    edges = getattr(steering.unfold, "mass", None) or getattr(steering.select, "mass", None)
    if steering.report is not None:
        half = 0.5 * steering.flow.window if steering.flow is not None else 0.0
        edges = known if steering.flow is None or edges is None else edges
        outside = steering.report.outside(edges[0], edges[-1], half)
        every = len(outside) == len(steering.report.flow_masses)
        if every or "flow_masses" in steering.report.model_fields_set:  # those by default may be elsewhere
            inner = edges[0] + half, edges[-1] - half
            shown.append(("report.flow_masses", outside, "what the flow learns", inner))
    for where, outside, what, (low, high) in shown:
        if outside:
            text = f"{', '.join(f'{m:g}' for m in outside)} GeV: outside {what} ({low:.4g} to {high:.4g} GeV)"
            yield Finding("warning", where, f"{text}, so nothing is shown there")


def _depths(look: Look) -> Findings:
    section = look.steering.accept
    if section is None or not isinstance(section.interaction_length, dict):
        return
    unknown = [name for name in section.interaction_length if name not in look.stands]
    if unknown and look.stands:
        known = ", ".join(look.stands)
        yield wrong(
            "accept.interaction_length", f"{', '.join(unknown)}: no detector of this name; they are {known}"
        )


def _joint_likelihood(look: Look) -> Findings:
    """Name what keeps the joint likelihood from its pairs, its response or its one source of signal."""
    steering = look.steering
    if steering.infer is None or steering.infer.likelihood != "joint":
        return
    key, predicting, background = "infer.likelihood", steering.predict, steering.subtract
    for name in ("select", "subtract", "unfold", "spectrum", "predict", "accept"):
        if getattr(steering, name) is None:
            yield wrong(key, f"'joint' fits measured pairs, and the section [{name}] is missing")
    if steering.spectrum is not None and steering.spectrum.table is not None:
        yield wrong(key, "'joint' fits measured pairs; a published spectrum has none")
    elif steering.spectrum is not None and not steering.spectrum.extrapolate:
        yield wrong(
            key,
            "'joint' gives all pairs of a cell to its signal, also those from where nothing was measured: "
            "set spectrum.extrapolate = true",
        )
    if steering.select is not None and not steering.select.keep_pairs:
        yield wrong(key, "'joint' fits pairs in bins of its own; select.keep_pairs = false leaves none")
    if predicting is not None and (
        predicting.source == "theory" or predicting.channels or predicting.outside
    ):
        where = "source" if predicting.source == "theory" else "channels and outside"
        yield wrong(key, f"'joint' takes the signal from measured pairs alone; predict.{where} is theory")
    if background is not None and (background.own or background.method == "B4"):
        yield wrong(
            key, f"'joint' takes like-sign pairs and R; subtract.method = {background.method!r} is another"
        )
    if steering.unfold is not None and steering.unfold.preset.startswith("smeared"):
        yield wrong(
            key, f"'joint' folds with the resolution; unfold.preset = {steering.unfold.preset!r} leaves it in"
        )


def _inference(look: Look) -> Findings:
    section = look.steering.infer
    if section is None:
        return
    if not isinstance(section.observed, str) and len(section.observed) != 1:
        n = len(section.observed)
        yield wrong("infer.observed", f"{n} counts; give one, that of the first detector")
    if section.existing_limits is not None and not is_folder(look.base / section.existing_limits):
        folder = look.base / section.existing_limits
        yield wrong("infer.existing_limits", f"{folder} is no folder of files of limits")


def _systematics(look: Look) -> Findings:
    """Look at the sources of the user, and at the names of those that limits take."""
    asked, subtracting = look.steering.systematics, look.steering.subtract
    names = [*RESERVED, *(() if subtracting is None else (c.name for c in subtracting.corrections))]
    for name in asked.own:
        source, found = tried("systematics.own", functools.partial(resolve, name, look.base))
        yield from found
        if isinstance(source, OwnSource):
            names.append(source.name)
        elif not found:
            kind = type(source).__name__
            yield wrong("systematics.own", f"{name!r} is {kind}, not core.sources.OwnSource")
    for name in asked.unknown(tuple(names)):
        if not name.startswith(THEORY_OF):
            yield wrong("systematics.in_limit", f"{name!r} is no source; kinds are {', '.join(KINDS)}")


CHECKS: dict[str, tuple[Callable[[Look], Findings], ...]] = MEASURED | {
    "in_situ": (_in_situ,),
    "flow": (_angles,),
    "predict": (_production,),
    "accept": (_detectors, _depths, _systematics, _shown_masses),
    "infer": (_inference, _joint_likelihood),
    "report": (_shown_masses,),
}
