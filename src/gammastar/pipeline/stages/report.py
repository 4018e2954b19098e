"""The page of a run and its explorer."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gammastar import predict, report
from gammastar.config import Predict
from gammastar.config.dark import theory_options
from gammastar.core.files import shipped, write_whole
from gammastar.core.records import MASS, FloatArray, effective_size
from gammastar.core.resolve import UserCode
from gammastar.core.sampling import stream
from gammastar.core.signal import SignalPlane
from gammastar.physics.vectors import SPLIT_MAX
from gammastar.pipeline.context import Context, RunState
from gammastar.pipeline.stages.infer import explored, in_use
from gammastar.pipeline.stages.predict import model_of, pair_unit, theory_channels
from gammastar.predict.mixture import beside_data, displaced, shares_of
from gammastar.predict.models import make_model, r_table, theory_channel
from gammastar.predict.production import needs_shares
from gammastar.report import Section, dark
from gammastar.report import measured as measured_half
from gammastar.report.figures.limits import KINDS, PUBLISHED, recast
from gammastar.report.pages import Lead, short_names, skipped_input, table_of_checks
from gammastar.report.style import FailedFigure, files_of, png_bytes, reason_of, spared
from gammastar.store.manifest import versions, write_text

if TYPE_CHECKING:
    from gammastar.mock import Card


SHOWN = ("png", "svg")  # formats that a page holds
PRODUCTION = ("production,", "model", "target")
ACCEPTANCE = ("spin state", "production vertex", "scaling with A")
COMPARED = ("bremsstrahlung", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons")
CHANNELS = ("pion_dalitz", "pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung")
BEAM = 400.0  # GeV, for the shares of the processes
N_DRAWN = 40_000  # photons drawn per mass for the figures of the flow


def pairs_sections(ctx: Context, state: Any) -> list[Section]:
    """Return the section on pairs and subtraction, with what was a sample."""
    subtraction, cutflow, truth = state.subtraction, state.cutflow, state.truth
    stored = None if truth is None else truth.stored
    notes = measured_half.sample_notes(
        ctx.max_in_memory,
        cutflow,
        subtraction,
        pairs=(0 if state.pairs is None else len(state.pairs), effective_size(subtraction["posterior"])),
        photons=None if stored is None else (truth.size, len(truth.sample), stored.rows.share),
    )
    pairs = state.hists, state.subtracted, subtraction, cutflow
    return [measured_half.pairs_section(*pairs, mock=ctx.cache.mock, notes=notes)]


def _card(ctx: Context) -> Card | None:
    """Return the card of the mock data, if there is one."""
    section = ctx.steering.simulate
    if section is None:
        return None
    from gammastar import mock

    return mock.load_card(shipped(section.card, ctx.base, "cards"))


def _spectrum(ctx: Context, state: Any) -> list[Section]:
    from gammastar import mock, unfold  # a reinterpretation needs none of these
    from gammastar import spectrum as normalised
    from gammastar.pipeline.context import simulation_of

    section, measured, unfolded = ctx.steering.unfold, state.spectrum, state.unfolded
    if section is None or measured is None:
        return [Section("Spectrum", ["The pairs were not unfolded."])]
    axis, card = measured.hist.axes[MASS], _card(ctx)
    simulation = simulation_of(section, state.truth)
    all_axes = tuple(state.subtracted.hist.axes), tuple(unfolded.hist.axes)
    _, density, cov = normalised.mass_density(measured)
    shown = measured_half.Unfolding(
        measured,
        state.subtracted,
        responses=(
            unfold.response(simulation.parts, (axis,), (axis,), n_replicas=0),
            unfold.response(simulation.parts, *all_axes, n_replicas=0),
        ),
        n_simulated=state.truth.size,
        density=density,
        inside=normalised.mass_density(measured, "measured")[1],
        cov=cov,
        truth=None if card is None else mock.binned_mass_spectrum(card, np.asarray(axis.edges)),
        kept=state.unfolding,
    )
    floor = section.efficiency_floor
    return [measured_half.spectrum_section(shown, method=section.method, floor=floor, mock=ctx.cache.mock)]


def _kinematics(ctx: Context, state: Any) -> list[Section]:
    section, found, training = ctx.steering.report, state.flow, state.training
    if section is None or found is None:
        return [Section("Kinematics", ["No flow was trained."])]
    low, high = found.mass_range
    half = 0.015 if ctx.steering.flow is None else 0.5 * ctx.steering.flow.window
    out, masses, data, drawn = section.outside(low, high, half), [], [], []
    for mass in (m for m in section.flow_masses if m not in out):
        inside = np.abs(training.mass - mass) < half
        if not training.reference[inside].sum() > 0:
            _tell_failed(ctx, f"flow_masses, {mass:g} GeV", f"no weight of pairs within {half:g} GeV")
            continue
        masses.append(mass)
        data.append((training.pt[inside], training.energy[inside], training.reference[inside]))
        pt, energy = found.sample(np.full(N_DRAWN, mass), stream(ctx.seed, "figures", f"{mass!r}"))
        drawn.append((pt, energy, np.ones(N_DRAWN)))
    from gammastar.flow import load_variations

    variations = load_variations(ctx.folder)
    trained = () if variations is None else variations.ensemble.members
    shown = measured_half.FlowCheck(
        masses,
        half,
        data,
        drawn,
        members=None if variations is None else _members(variations, masses, drawn),
        losses=[(one.report.train_loss, one.report.validation_loss) for one in trained],
        kept=state.learning,
    )
    return [measured_half.flow_section(shown, mock=ctx.cache.mock)]


def _members(variations: Any, masses: list[float], drawn: list[Any]) -> list[FloatArray]:
    """Return the weights of the replicas alone on what was drawn: a bin shows its own statistics anyway."""
    alone = replace(variations, local=None)
    windows = zip(masses, drawn, strict=True)
    return [alone.weights(np.full(len(pt), mass), pt, energy) for mass, (pt, energy, _) in windows]


def conditions(ctx: Context, keys: tuple[str, ...]) -> list[str]:
    """Return the conventions and assumptions whose names begin so, one line each."""
    found = {key: text for key, text in ctx.cache.methods.items() if key.startswith(keys)}
    return [f"{key[0].upper()}{key[1:]}: {text}." for key, text in found.items()]


def _view(ctx: Context, known: Sequence[report.ExistingLimit] = (), unit: str = "proton") -> dark.View:
    """Return how sections on dark particles are shown."""
    section, predicting = ctx.steering.infer, ctx.steering.predict
    return dark.View(
        model_of(ctx).labels,
        theory=predicting is not None and predicting.source == "theory",
        mock=ctx.cache.mock,
        known=known,
        coupling=None if section is None else section.coupling,
        min_effective=0.0 if section is None else section.min_effective,
        unit=unit,
    )


def _rate(ctx: Context, state: Any) -> list[Section]:
    section, beside = ctx.steering.predict, {}
    view = _view(ctx, unit=state.production.unit)
    if section is not None and not view.theory and isinstance(model_of(ctx), predict.DarkPhoton):
        exposure = state.production.exposure
        channels = theory_channels(ctx, COMPARED, exposure.beam_energy, exposure.thickness)
        beside = beside_data(channels, state.rate.mass)
    return [dark.rate_section(state.rate, view, comparisons=beside, conditions=conditions(ctx, PRODUCTION))]


def _names(state: Any) -> dict[str, str]:
    """Return what the detectors are called, by the stems of their files."""
    searches = (state.searches or {}) | (state.charge_searches or {})
    return {stem: search.detector.name for stem, search in searches.items()}


def _errors(ctx: Context, state: Any, planes: Mapping[str, SignalPlane]) -> list[report.Table]:
    """Return the errors of the yields by source, as limits take them."""
    section = ctx.steering.infer
    used = {name: in_use(ctx, plane) for name, plane in planes.items()}
    used = {_names(state).get(stem, stem): plane for stem, plane in used.items()}
    searches = (state.searches or {}) | (state.charge_searches or {})
    luminous = {s.detector.name for s in searches.values() if s.detector.luminosity is not None}
    return dark.error_tables(used, None if section is None else ctx.steering.systematics.nuisances, luminous)


def _acceptance(ctx: Context, state: Any) -> list[Section]:
    return [
        dark.acceptance_section(
            state.planes,
            _errors(ctx, state, state.planes),
            names=_names(state),
            conditions=conditions(ctx, ACCEPTANCE),
            measured=ctx.steering.spectrum is not None,
            mock=ctx.cache.mock,
        )
    ]


def recast_limits(section: Predict, where: Path | UserCode) -> list[report.ExistingLimit]:
    """Return the shipped limits on dark photons, recast to the model by their decays to e⁺e⁻."""
    model, photon = make_model(section.model, where), predict.DarkPhoton(r_table())
    options, names = theory_options(section, where), CHANNELS if needs_shares(model) else ()
    channels = [theory_channel(name, options, BEAM) for name in names]

    def carry(mass: FloatArray, edges: FloatArray, length_ratio: float) -> FloatArray:
        if needs_shares(model):
            ratio = model.rate_ratio(mass, shares_of(channels, mass))
        else:
            ratio = model.rate_ratio(mass)
        return displaced(mass, edges, photon, model, state="ee", ratio=ratio, length_ratio=length_ratio)

    return recast(report.existing_limits(), section.model, carry, highest=SPLIT_MAX)


def _bounds(ctx: Context) -> dict[str, Any]:
    """Return which limits of others are drawn: the folder of the user, and their kinds."""
    section = ctx.steering.report
    if section is None:
        return {}
    kinds = (*KINDS, "projection") if section.projected else KINDS
    return {"directory": None if section.bounds is None else ctx.base / section.bounds, "kinds": kinds}


def known_limits(ctx: Context, named: predict.Labels) -> list[report.ExistingLimit]:
    """Return published limits for the plane of the model, and those of the user that name this plane."""
    predicting, asked = ctx.steering.predict, _bounds(ctx)
    found = [] if named.limits != "published" else report.existing_limits(**asked)
    if named.limits == "recast" and predicting is not None:
        found = recast_limits(predicting, ctx.code)
    planes = dict.fromkeys(name for name in (named.plane, predicting and predicting.model) if name)
    every = [limit for plane in planes for limit in report.existing_limits(plane, **asked)]
    shipped = {limit.name for limit in (*found, *report.existing_limits())}
    return found + [limit for limit in every if limit.name not in shipped]


def _known(ctx: Context, state: Any) -> list[report.ExistingLimit]:
    """Return what others exclude in the plane of this run, computed once."""
    if state.known_limits is None:
        state.known_limits = known_limits(ctx, model_of(ctx).labels)
    found: list[report.ExistingLimit] = state.known_limits
    return found


def reach_sections(ctx: Context, state: Any) -> list[Section]:
    """Return one section per detector."""
    view = _view(ctx, _known(ctx, state))

    def section(name: str) -> list[Section]:
        return [dark.reach_section(name, state.searches[name], state.planes[name], view)]

    return [one for name in state.searches for one in _spared(ctx, f"reach_{name}", partial(section, name))]


def _in_situ(ctx: Context, state: Any) -> list[Section]:
    """Return the search in situ, with the limits on dark photons whatever [predict] model names."""
    section, asked, found = ctx.steering.in_situ, ctx.steering.systematics.nuisances, state.in_situ
    if section is None:
        return []
    seen = np.sqrt(found.observed(asked, section.cl)) if section.observed == "data" else None
    known = report.existing_limits(**_bounds(ctx))
    labels = make_model("dark_photon", ctx.code).labels
    view = dark.View(labels, theory=False, mock=ctx.cache.mock, known=known)
    expected = np.sqrt(found.expected(asked, section.cl))
    expected[found.blind(section.max_line_correlation)] = np.nan
    method = ctx.cache.methods["search in situ"]
    sections = [dark.in_situ_section(found, expected, view, cl=section.cl, observed=seen, method=method)]
    if state.displaced is not None:
        behind, prompt = ctx.cache.methods["displaced search"], (found.mass, expected[:, 2])
        sections.append(dark.displaced_section(state.displaced, prompt, view, method=behind))
    return sections


def _millicharge(ctx: Context, state: Any) -> list[Section]:
    pairs = [f"{k}: {v}." for k, v in ctx.cache.methods.items() if k.startswith("millicharged pairs")]
    about: Any = {"unit": pair_unit(ctx, state.production), "conditions": pairs}
    found = [dark.pair_rate_section(state.pair_rate, mock=ctx.cache.mock, **about)]
    if state.charge_searches:
        tables = _errors(ctx, state, state.charge_planes or {})
        known = report.existing_limits("millicharge", **_bounds(ctx))
        found.append(dark.charge_section(state.charge_searches, tables, known, mock=ctx.cache.mock))
    return found


Entry = Callable[[Context, Any], Iterable[Section]]
SECTIONS: tuple[tuple[str, Entry], ...] = (
    ("subtracted", pairs_sections),
    ("unfolded", _spectrum),
    ("learning", _kinematics),
    ("rate", _rate),
    ("planes", _acceptance),
    ("searches", reach_sections),
    ("pair_rate", _millicharge),
    ("in_situ", _in_situ),
)
"""The product of a run that a section shows, and the function that makes the section."""


def _sections(ctx: Context, state: RunState) -> list[Section]:
    """Return the sections of the stages that ran; their numbers and methods go into the manifest."""
    found: list[Section] = []
    for needs, sections in SECTIONS:
        if getattr(state, needs) is not None:
            found += _spared(ctx, needs, partial(sections, ctx, state))
    for section in found:
        ctx.cache.numbers |= section.numbers
        ctx.cache.methods |= section.methods
        for _, figure in section.figures:
            if isinstance(figure, FailedFigure):
                _tell_failed(ctx, str(figure.get_label()), figure.reason)
    return found


def _spared(ctx: Context, name: str, work: Callable[[], Iterable[Section]]) -> list[Section]:
    """Return sections; one that says why where they, or figures in them, fail: the page does without."""
    try:
        with spared():
            return list(work())
    except Exception as error:  # noqa: BLE001 - whatever it is
        return [Section(f"Not shown: {name}", warnings=[_tell_failed(ctx, name, reason_of(error))])]


def _tell_failed(ctx: Context, name: str, reason: str) -> str:
    text = f"report: {name}: {reason}"
    ctx.cache.alarm(text)
    return text


def write(ctx: Context, state: RunState) -> None:
    """Write ``figures/``, ``explorer.html`` and ``report.html``; numbers go to the manifest."""
    ctx.tell("report", None, "figures")
    sections, done = _sections(ctx, state), itertools.count(1)
    total = sum(len(section.figures) for section in sections)

    def image(figure: Any) -> bytes:
        found = _image(ctx, figure)
        ctx.tell("report", next(done) / total, str(figure.get_label()))
        return found

    drawn = [
        replace(section, figures=[(caption, image(figure)) for caption, figure in section.figures])
        for section in sections
    ]
    shown = bool(state.searches and state.planes)
    _page(ctx, state, drawn, explorer=shown and not _spared(ctx, "explorer", partial(_explorer, ctx, state)))


def _image(ctx: Context, figure: Any) -> bytes:
    """Write the files of a figure; return what the page holds of it, the smaller one of PNG and SVG."""
    name, asked = str(figure.get_label()), ctx.steering.report
    files, reason = files_of(figure, ("png",) if asked is None else asked.formats)
    if reason:
        _tell_failed(ctx, name, reason)
    for kind, content in files.items():
        write_whole(ctx.folder / "figures" / f"{name}.{kind}", content)
    seen = [content for kind, content in files.items() if kind in SHOWN]
    return min(seen, key=len) if seen else png_bytes(FailedFigure(reason) if reason else figure)


def _page(ctx: Context, state: RunState, sections: Sequence[Section], *, explorer: bool) -> None:
    """Write ``report.html``, with a link to the explorer where there is one."""
    card, numbers = _card(ctx), ctx.cache.numbers
    provenance = report.Provenance(
        versions=versions(),
        digests=short_names(ctx.cache.inputs)
        | {name: entry["content"] for name, entry in ctx.cache.stages.items()},
        methods=ctx.cache.methods,
        placeholders=[] if card is None else card.placeholders(),
    )
    title = ctx.steering.analysis.title or ctx.steering.analysis.name
    first = [name for name in numbers if name.startswith(("reach,", "expected limit,"))]
    order = sorted(first, key=lambda name: name.partition(",")[2]) + [n for n in numbers if n not in first]
    every = report.Table({"quantity": order, "value": [numbers[n] for n in order]}, caption="All numbers")
    searches = list((state.searches or {}).values())
    notes = [f"{note[0].upper()}{note[1:]}." for note in ctx.cache.notes]
    summary = report.Section(
        "Summary",
        [*(dark.reach_sentence(search) for search in searches), *notes],
        tables=[
            *([every] if numbers else []),
            *table_of_checks(ctx.cache.checks),
            *skipped_input(ctx.cache.partial),
        ],
        warnings=[f"{ctx.cache.loss}."] if ctx.cache.loss else [],
    )
    place = [i for i, section in enumerate(sections, 1) if section.heading.startswith("Expected reach")]
    links = {"Explore the plane of mass and coupling": "explorer.html"} if explorer else {}
    data = None if state.spectrum is None or state.spectrum.exposure is None else state.spectrum.exposure.pot
    pairs = numbers.get("pairs +-")
    cards = () if not searches else dark.cards_of(searches[0], model_of(ctx).labels.coupling, pairs, data)
    lead = Lead(place[0] if place else None, cards, links)
    text = report.page(title, [summary, *sections], mock=ctx.cache.mock, provenance=provenance, lead=lead)
    write_text(ctx.folder / "report.html", text)


def _explorer(ctx: Context, state: RunState) -> tuple[()]:
    """Write ``explorer.html``, the plane of mass and coupling with events and limits at the pointer."""
    planes, levels = {}, ()
    excluded = [(x.name, x.polygon) for x in _known(ctx, state) if x.kind in PUBLISHED]
    for name, search in (state.searches or {}).items():
        shown = state.explored.get(name) or explored(ctx, search)
        planes[search.detector.name] = report.Plane2D.of((state.planes or {})[name], shown, excluded)
        levels = shown["cl"]
    labels = model_of(ctx).labels.plain_axes
    options: dict[str, Any] = {"mock": ctx.cache.mock, "labels": labels, "back": "report.html"}
    title = ctx.steering.analysis.title or ctx.steering.analysis.name
    page = report.explorer(title, planes, cl=levels, **options)
    write_text(ctx.folder / "explorer.html", page)
    return ()
