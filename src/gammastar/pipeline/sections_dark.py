"""Report sections of the dark half: acceptance; those of the reach stand in `sections_reach`."""

from __future__ import annotations

import numpy as np

from gammastar import report
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.products import Products
from gammastar.pipeline.results import titled
from gammastar.pipeline.sections_reach import reach_sections
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
            with_members = " and spread of the bootstrap replicas" if "signal_variations" in arrays else ""
            caption = (
                f"Acceptance of {name} against the decay length, per produced particle. Band: error of the "
                f"finite sample{with_members}."
            )
            figures.append(titled(f"acceptance_{name}", caption, figure))
    text = ["Decays in flight, per produced particle.", *conditions(ctx, ACCEPTANCE)]
    tables = [] if made.predicted is None else error_tables(ctx, made.predicted, made.accepted or {})
    return report.Section("Acceptance of long-lived particles", text, figures, tables)


def _measured_part(arrays: Arrays) -> str | None:
    """Return the range over masses of the measured part, each at the coupling of its largest signal."""
    signal, inside = arrays["signal"], arrays["in_domain_signal"]
    rows, best = np.arange(len(signal)), signal.argmax(axis=1)
    total = signal[rows, best]
    part = inside[rows, best][total > 0] / total[total > 0]
    return f"{part.min():.2g} to {part.max():.2g}" if len(part) else None
