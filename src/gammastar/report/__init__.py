"""Figures, tables and the one-page report: pure functions from arrays and histograms."""

from __future__ import annotations

from gammastar.report.contours import Contour, islands, outline
from gammastar.report.flow_figures import Kinematics, flow_vs_data, kl_figure
from gammastar.report.mass_figures import (
    correlation_matrix,
    mass_projection,
    mass_spectra,
    unfolded_spectrum,
)
from gammastar.report.page import Provenance, Section, page
from gammastar.report.reach_figures import Plane, reach_figure
from gammastar.report.signal_figures import acceptance_figure, cone_outline, detector_figure, rate_figure
from gammastar.report.style import house_style, png_bytes, save_figure
from gammastar.report.tables import Table, cutflow_table, html_table, text_table

__all__ = [
    "Contour",
    "Kinematics",
    "Plane",
    "Provenance",
    "Section",
    "Table",
    "acceptance_figure",
    "cone_outline",
    "correlation_matrix",
    "cutflow_table",
    "detector_figure",
    "flow_vs_data",
    "house_style",
    "html_table",
    "islands",
    "kl_figure",
    "mass_projection",
    "mass_spectra",
    "outline",
    "page",
    "png_bytes",
    "rate_figure",
    "reach_figure",
    "save_figure",
    "text_table",
    "unfolded_spectrum",
]
