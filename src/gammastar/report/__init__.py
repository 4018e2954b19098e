"""Figures, tables and the one-page report: pure functions from arrays and histograms."""

from __future__ import annotations

from gammastar.report.check_figures import kl_figure, training_figure
from gammastar.report.compare_figures import RateTable, compare_figure
from gammastar.report.contours import Contour, islands, outline, region
from gammastar.report.coverage_figures import pull_figure
from gammastar.report.detector_figures import cone_outline, detector_figure
from gammastar.report.domain_map import DomainMap, domain_figure
from gammastar.report.existing import ExistingLimit, citations, existing_limits, read_limit
from gammastar.report.explorer import Plane2D, explorer
from gammastar.report.flow_contours import flow_contours
from gammastar.report.flow_figures import Kinematics, flow_plane, flow_vs_data
from gammastar.report.hepdata import Submission, check_submission, write_submission
from gammastar.report.inference_figures import impact_figure, limit_figure
from gammastar.report.mass_figures import mass_projection, mass_spectra, unfolded_spectrum
from gammastar.report.measured_figures import (
    ScanPoint,
    domain_map,
    refolded_spectrum,
    scan_figure,
    sources_table,
    subtraction_figure,
)
from gammastar.report.page import Provenance, Section, page, save_page
from gammastar.report.reach_figures import Plane, Yields, reach_figure
from gammastar.report.response_figures import (
    correlation_matrix,
    efficiency_figure,
    mass_migration,
    migration_matrix,
)
from gammastar.report.saving import png_bytes, save_figure
from gammastar.report.signal_figures import acceptance_figure, acceptance_vs_mass, rate_figure, yield_map
from gammastar.report.style import header, house_style
from gammastar.report.tables import Number, Table, cutflow_table, html_table, numbers_table, text_table

__all__ = [
    "Contour",
    "DomainMap",
    "ExistingLimit",
    "Kinematics",
    "Number",
    "Plane",
    "Plane2D",
    "Provenance",
    "RateTable",
    "ScanPoint",
    "Section",
    "Submission",
    "Table",
    "Yields",
    "acceptance_figure",
    "acceptance_vs_mass",
    "check_submission",
    "citations",
    "compare_figure",
    "cone_outline",
    "correlation_matrix",
    "cutflow_table",
    "detector_figure",
    "domain_figure",
    "domain_map",
    "efficiency_figure",
    "existing_limits",
    "explorer",
    "flow_contours",
    "flow_plane",
    "flow_vs_data",
    "header",
    "house_style",
    "html_table",
    "impact_figure",
    "islands",
    "kl_figure",
    "limit_figure",
    "mass_migration",
    "mass_projection",
    "mass_spectra",
    "migration_matrix",
    "numbers_table",
    "outline",
    "page",
    "png_bytes",
    "pull_figure",
    "rate_figure",
    "reach_figure",
    "read_limit",
    "refolded_spectrum",
    "region",
    "save_figure",
    "save_page",
    "scan_figure",
    "sources_table",
    "subtraction_figure",
    "text_table",
    "training_figure",
    "unfolded_spectrum",
    "write_submission",
    "yield_map",
]
