"""Report sections of the dark half: rate, acceptance, reach."""

from __future__ import annotations

import numpy as np

from gammastar import report
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.order import Products
from gammastar.pipeline.results import titled
from gammastar.pipeline.search import Search
from gammastar.pipeline.sections_theory import conditions, error_tables

__all__ = ["acceptance_section", "reach_sections"]

ACCEPTANCE = ("spin state", "production vertex", "scaling with A")


def acceptance_section(ctx: Context, made: Products) -> report.Section:
    """Return acceptance against lifetime, one figure per detector."""
    figures = []
    for name, arrays in (made.accepted or {}).items():
        curves = {
            float(m): a[0] for m, a in zip(arrays["acceptance_mass"], arrays["acceptance"], strict=True)
        }
        errors = {
            float(m): a[1] for m, a in zip(arrays["acceptance_mass"], arrays["acceptance"], strict=True)
        }
        part = _measured_part(arrays)
        if part is not None and ctx.steering.spectrum is not None:
            ctx.book.numbers[f"measured part of the largest signal per mass, {name}"] = part
        if any((curve > 0).any() for curve in curves.values()):
            figure = report.acceptance_figure(arrays["ctau"], curves, mock=ctx.book.mock, errors=errors)
            caption = f"Acceptance of {name} against the decay length, per produced particle."
            figures.append(titled(f"acceptance_{name}", caption, figure))
    text = ["Decays in flight, per produced particle.", *conditions(ctx, ACCEPTANCE)]
    mass = np.array([]) if made.predicted is None else made.predicted["mass"]
    tables = error_tables(made.accepted or {}, mass)
    return report.Section("Acceptance of long-lived particles", text, figures, tables)


def _measured_part(arrays: Arrays) -> str | None:
    """Return the range over masses of the measured part, each at the coupling of its largest signal."""
    signal, inside = arrays["signal"], arrays["in_domain_signal"]
    rows, best = np.arange(len(signal)), signal.argmax(axis=1)
    total = signal[rows, best]
    part = inside[rows, best][total > 0] / total[total > 0]
    return f"{part.min():.2g} to {part.max():.2g}" if len(part) else None


def _tip(search: Search) -> str:
    if search.reach.tip is None:
        return "the contour does not close inside the measured masses"
    mass, coupling = search.reach.tip
    return f"its tip lies at {mass:.3f} GeV and coupling {coupling:.2g}"


def _reach_section(ctx: Context, name: str, search: Search, couplings: tuple[float, float]) -> report.Section:
    section = ctx.steering.infer
    cl = 0.9 if section is None else section.cl
    contours = [
        report.Contour(
            "extrapolated: all signal",
            search.reach,
            "extrapolated",
            bands=search.reach.bands,
            fraction=search.fraction,
        ),
        report.Contour("measured domain only", search.measured, "measured"),
    ]
    reached = np.isfinite(search.reach.edges).all(axis=1)
    plane = None if reached.any() else report.Plane(coupling_range=couplings)
    own = None if section is None or section.existing_limits is None else ctx.base / section.existing_limits
    known = report.existing_limits(directory=own)
    figure = report.reach_figure(
        contours,
        mock=ctx.book.mock,
        pot=search.detector.pot,
        cl=cl,
        limits=[limit.curve for limit in known],
        plane=plane,
    )
    label = f"Expected reach, {search.detector.name}"
    median = search.limit.expected[2]
    first = (
        f"{search.detector.pot:.3g} protons on target, {search.assumption}; expected limit {median:.3f} "
        f"events at {100 * cl:.0f} % CL ({search.limit.method})."
    )
    text = [first]
    if reached.any():
        text.append(
            f"Of {len(np.unique(search.reach.mass))} masses {len(np.unique(search.reach.mass[reached]))} are "
            f"reached; {_tip(search)}. The measured part of the signal on the edges is between "
            f"{np.nanmin(search.fraction):.2g} and {np.nanmax(search.fraction):.2g}. The low-mass side is "
            f"clipped at 2 m_mu, where the spectrum begins; the upper edge ends where too few sampled "
            f"particles populate it."
        )
    else:
        text.append(f"Nothing is reached: at most {np.nanmax(search.reach.signal):.2g} events are expected.")
    ctx.book.numbers[f"expected limit, {search.detector.name}"] = f"{median:.3f} events"
    ctx.book.numbers[f"reach, {search.detector.name}"] = (
        _tip(search) if reached.any() else "nothing is reached"
    )
    caption = f"{label}, split into measured and extrapolated. Grey: {report.citations(known)}."
    return report.Section(label, text, [titled(f"reach_{name}", caption, figure)])


def reach_sections(ctx: Context, made: Products) -> list[report.Section]:
    """Return one section per detector."""
    couplings = (1e-9, 1e-2) if ctx.steering.infer is None else ctx.steering.infer.coupling
    return [_reach_section(ctx, n, search, couplings) for n, search in (made.inferred or {}).items()]
