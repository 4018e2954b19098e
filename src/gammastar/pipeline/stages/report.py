"""The page of a run and its explorer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gammastar import mock, report
from gammastar.core.files import shipped
from gammastar.pipeline.context import Context, Products
from gammastar.pipeline.stages.infer import limits_of
from gammastar.pipeline.stages.predict import model_of
from gammastar.pipeline.stages.report_dark import (
    acceptance_section,
    millicharge_sections,
    rate_section,
    reach_sections,
)
from gammastar.pipeline.stages.report_measured import flow_section, pairs_section, spectrum_section
from gammastar.pipeline.stages.simulate import placeholders
from gammastar.store.manifest import versions, write_text

__all__ = [
    "write",
]

EXPLORED_CL = (0.90, 0.95)


def _placeholders(ctx: Context) -> list[str]:
    """Return the placeholders of the card."""
    section = ctx.steering.simulate
    if section is None:
        return []
    return placeholders(mock.load_card(shipped(section.card, ctx.base, "cards")))


def _sections(ctx: Context, made: Products) -> list[report.Section]:
    """Return the sections of the stages that ran."""
    found = []
    if made.subtracted is not None:
        found.append(pairs_section(ctx, made))
    if made.unfolded is not None:
        found.append(spectrum_section(ctx, made))
    if made.learning is not None:
        found.append(flow_section(ctx, made))
    if made.predicted is not None:
        found.append(rate_section(ctx, made))
    if made.accepted is not None:
        found.append(acceptance_section(ctx, made))
    return found + reach_sections(ctx, made) + millicharge_sections(ctx, made)


def write(ctx: Context, made: Products) -> None:
    """Write ``figures/`` and ``report.html``; the numbers go into the manifest."""
    ctx.tell("report", None, "figures")
    sections = _saved(ctx, _sections(ctx, made))
    numbers = report.Table(
        {"quantity": list(ctx.book.numbers), "value": list(ctx.book.numbers.values())}, caption="Numbers"
    )
    provenance = report.Provenance(
        versions=versions(),
        digests=_short(ctx.book.inputs) | {name: entry["content"] for name, entry in ctx.book.stages.items()},
        methods=ctx.book.methods,
        placeholders=_placeholders(ctx),
    )
    title = ctx.steering.analysis.title or ctx.steering.analysis.name
    told = [ctx.book.loss, *ctx.book.notes] if ctx.book.partial else ctx.book.notes
    tables = [numbers, *_skipped(ctx)]
    summary = report.Section("Summary", [f"{note}." for note in told], tables=tables)
    text = report.page(title, [summary, *sections], mock=ctx.book.mock, provenance=provenance)
    write_text(ctx.folder / "report.html", text)
    if made.inferred and made.accepted and made.predicted is not None:
        _write_explorer(ctx, made, title)


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


def _write_explorer(ctx: Context, made: Products, title: str) -> None:
    """Write ``explorer.html``, the plane of mass and coupling with events and limits at the pointer."""
    planes = {}
    theory = ctx.steering.predict is not None and ctx.steering.predict.source == "theory"
    for name, search in (made.inferred or {}).items():
        arrays = (made.accepted or {})[name]
        limits = [limits_of(search, cl) for cl in EXPLORED_CL]
        planes[search.detector.name] = report.Plane2D(
            (made.predicted or {})["mass"],
            arrays["couplings"],
            arrays["signal"],
            None if theory else arrays["in_domain_signal"],
            limits,
        )
    named = model_of(ctx).labels
    unit = f" [{named.unit}]" if named.unit else ""
    labels = (f"m({named.particle}) [GeV]", f"{named.coupling}{unit}")
    page = report.explorer(title, planes, cl=EXPLORED_CL, mock=ctx.book.mock, labels=labels)
    write_text(ctx.folder / "explorer.html", page)
