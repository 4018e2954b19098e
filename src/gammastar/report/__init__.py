"""Figures, tables and the one-page report: pure functions from arrays and histograms, in the order of use."""

from __future__ import annotations

from gammastar.report.style import png_bytes, save_figure
from gammastar.report.style import house_style
from gammastar.report.figures.reach import Contour, Plane, Yields, reach_figure
from gammastar.report.figures.limits import ExistingLimit, citations, existing_limits
from gammastar.report.figures.signal import DomainMap, domain_figure
from gammastar.report.pages import Table, text_table
from gammastar.report.pages import Plane2D, Provenance, Section, explorer, page
from gammastar.report.hepdata import Submission, check_submission, write_submission

__all__ = [
    "house_style",
    "save_figure",
    "png_bytes",
    "Contour",
    "Plane",
    "Yields",
    "reach_figure",
    "ExistingLimit",
    "existing_limits",
    "citations",
    "DomainMap",
    "domain_figure",
    "Table",
    "text_table",
    "Section",
    "Provenance",
    "page",
    "Plane2D",
    "explorer",
    "Submission",
    "write_submission",
    "check_submission",
]
