"""The page of a run and its explorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from gammastar import mock, report, unfold
from gammastar import spectrum as normalised
from gammastar.core.axes import MASS, effective_size
from gammastar.core.files import shipped
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.pipeline.context import Context, Products
from gammastar.pipeline.stages.predict import model_of
from gammastar.pipeline.stages.read import limit_of
from gammastar.pipeline.stages.report_dark import (
    acceptance_section,
    millicharge_sections,
    rate_section,
    reach_sections,
)
from gammastar.pipeline.stages.unfold import simulation_of
from gammastar.report import Section
from gammastar.report.measured import (
    FlowCheck,
    Unfolding,
    flow_section,
    pairs_section,
    sample_notes,
    spectrum_section,
)
from gammastar.store.manifest import versions, write_text

__all__ = ["pairs_sections", "write"]

EXPLORED_CL = (0.90, 0.95)
N_DRAWN = 40_000  # photons drawn per mass for the figures of the flow


def _card(ctx: Context) -> mock.Card | None:
    """Return the card of the mock data, if there is one."""
    section = ctx.steering.simulate
    return None if section is None else mock.load_card(shipped(section.card, ctx.base, "cards"))


def pairs_sections(ctx: Context, state: Any) -> list[Section]:
    """Return the section on pairs and subtraction, with what was a sample."""
    subtraction, cutflow, truth = state.subtraction, state.cutflow, state.truth
    stored = None if truth is None else truth.stored
    notes = sample_notes(
        limit_of(ctx),
        cutflow,
        subtraction,
        pairs=(0 if state.pairs is None else len(state.pairs), effective_size(subtraction["posterior"])),
        photons=None if stored is None else (truth.size, len(truth.sample), stored.rows.share),
    )
    return [
        pairs_section(state.hists, state.subtracted, subtraction, cutflow, mock=ctx.book.mock, notes=notes)
    ]


def _spectrum(ctx: Context, state: Any) -> list[Section]:
    section, measured, unfolded = ctx.steering.unfold, state.spectrum, state.unfolded
    if section is None or measured is None:
        return [Section("Spectrum", ["The pairs were not unfolded."])]
    axis, card = measured.hist.axes[MASS], _card(ctx)
    simulation = simulation_of(section, state.truth)
    all_axes = tuple(state.subtracted.hist.axes), tuple(unfolded.hist.axes)
    _, density, cov = normalised.mass_density(measured)
    shown = Unfolding(
        measured,
        state.subtracted,
        unfolded,
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
    return [spectrum_section(shown, method=section.method, floor=floor, mock=ctx.book.mock)]


def _kinematics(ctx: Context, state: Any) -> list[Section]:
    section, found, training = ctx.steering.report, state.flow, state.training
    if section is None or found is None:
        return [Section("Kinematics", ["No flow was trained."])]
    low, high = found.mass_range
    half = 0.015 if ctx.steering.flow is None else 0.5 * ctx.steering.flow.window
    masses = [m for m in section.flow_masses if low + half <= m <= high - half]
    data, drawn = [], []
    for mass in masses:
        inside = np.abs(training.mass - mass) < half
        data.append((training.pt[inside], training.energy[inside], training.reference[inside]))
        pt, energy = found.sample(np.full(N_DRAWN, mass), stream(ctx.seed, "figures", f"{mass!r}"))
        drawn.append((pt, energy, np.ones(N_DRAWN)))
    from gammastar.flow import load_variations

    variations = load_variations(ctx.folder)
    trained = () if variations is None else variations.ensemble.members
    shown = FlowCheck(
        masses,
        half,
        data,
        drawn,
        members=None if variations is None else _members(variations, masses, drawn),
        losses=[(one.report.train_loss, one.report.validation_loss) for one in trained],
        kept=state.learning,
    )
    return [flow_section(shown, mock=ctx.book.mock)]


def _members(variations: Any, masses: list[float], drawn: list[Any]) -> list[FloatArray]:
    """Return the weights of the replicas alone on what was drawn: a bin shows its own statistics anyway."""
    alone = replace(variations, local=None)
    return [
        alone.weights(np.full(len(pt), mass), pt, energy)
        for mass, (pt, energy, _) in zip(masses, drawn, strict=True)
    ]


Entry = Callable[[Context, Any], Iterable[Section]]
SECTIONS: tuple[tuple[str, Entry], ...] = (
    ("subtracted", pairs_sections),
    ("unfolded", _spectrum),
    ("learning", _kinematics),
    ("rate", lambda ctx, state: [rate_section(ctx, state)]),
    ("planes", lambda ctx, state: [acceptance_section(ctx, state)]),
    ("searches", reach_sections),
    ("pair_rate", millicharge_sections),
)
"""What of the run state a section needs, and who makes it."""


def _sections(ctx: Context, state: Products) -> list[Section]:
    """Return the sections of the stages that ran; their numbers and methods go into the manifest."""
    found: list[Section] = []
    for needs, sections in SECTIONS:
        if getattr(state, needs) is not None:
            found += sections(ctx, state)
    for section in found:
        ctx.book.numbers |= section.numbers
        ctx.book.methods |= section.methods
    return found


def write(ctx: Context, state: Products) -> None:
    """Write ``figures/`` and ``report.html``; the numbers go into the manifest."""
    ctx.tell("report", None, "figures")
    card = _card(ctx)
    sections = _saved(ctx, _sections(ctx, state))
    numbers = report.Table(
        {"quantity": list(ctx.book.numbers), "value": list(ctx.book.numbers.values())}, caption="Numbers"
    )
    provenance = report.Provenance(
        versions=versions(),
        digests=_short(ctx.book.inputs) | {name: entry["content"] for name, entry in ctx.book.stages.items()},
        methods=ctx.book.methods,
        placeholders=[] if card is None else card.placeholders(),
    )
    title = ctx.steering.analysis.title or ctx.steering.analysis.name
    told = [ctx.book.loss, *ctx.book.notes] if ctx.book.partial else ctx.book.notes
    tables = [numbers, *_skipped(ctx)]
    summary = report.Section("Summary", [f"{note}." for note in told], tables=tables)
    text = report.page(title, [summary, *sections], mock=ctx.book.mock, provenance=provenance)
    write_text(ctx.folder / "report.html", text)
    if state.searches and state.planes:
        _write_explorer(ctx, state, title)


def _skipped(ctx: Context) -> list[report.Table]:
    """Return the table of what was left out of the input, if anything was."""
    rows = [entry for lost in ctx.book.partial.values() for entry in lost["skipped"]]
    if not rows:
        return []
    columns = {
        "file": [str(row.get("file", "")) for row in rows],
        "entries": [str(row.get("entries", "")) for row in rows],
        "why": [str(row.get("why", ""))[:300] for row in rows],
    }
    return [report.Table(columns, caption="Skipped input")]


def _short(inputs: Mapping[str, str]) -> dict[str, str]:
    """Return inputs under the last part of their names, those of one such part under their full names."""
    last = Counter(name.rpartition("/")[2] for name in inputs)
    short = {name: name.rpartition("/")[2] for name in inputs}
    return {short[name] if last[short[name]] == 1 else name: sha for name, sha in inputs.items()}


def _saved(ctx: Context, sections: list[report.Section]) -> list[report.Section]:
    """Write the figures of all sections; return the sections with the PNG files in their place."""
    total, done, found = sum(len(section.figures) for section in sections), 0, []
    for section in sections:
        drawn: list[tuple[str, Any]] = []
        for caption, figure in section.figures:
            done += 1
            if isinstance(figure, bytes):
                drawn.append((caption, figure))
                continue
            name = str(figure.get_label())
            ctx.tell("report", done / total, name)
            png, _ = report.save_figure(figure, ctx.folder / "figures" / name)
            drawn.append((caption, png.read_bytes()))
        found.append(replace(section, figures=drawn))
    return found


def _write_explorer(ctx: Context, state: Products, title: str) -> None:
    """Write ``explorer.html``, the plane of mass and coupling with events and limits at the pointer."""
    planes = {}
    theory = ctx.steering.predict is not None and ctx.steering.predict.source == "theory"
    for name, search in (state.searches or {}).items():
        plane = (state.planes or {})[name]
        limits = [search.median_limit(cl) for cl in EXPLORED_CL]
        inside = None if theory else plane.in_domain
        known = report.Plane2D(plane.mass, plane.coupling, plane.signal, inside, limits)
        planes[search.detector.name] = known
    named = model_of(ctx).labels
    unit = f" [{named.unit}]" if named.unit else ""
    labels = (f"m({named.particle}) [GeV]", f"{named.coupling}{unit}")
    page = report.explorer(title, planes, cl=EXPLORED_CL, mock=ctx.book.mock, labels=labels)
    write_text(ctx.folder / "explorer.html", page)
