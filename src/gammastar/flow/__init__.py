"""Room flow: p(pt, energy | mass) learned from weighted pairs by a conditional spline flow (torch, zuko)."""

from __future__ import annotations

from gammastar.flow.architecture_scan import PAPER_GRID, ScanPoint, scan
from gammastar.flow.density import DensityOptions, DensityTest, density_test
from gammastar.flow.divergence import KLScan, LocalStatistics, check_windows, kl_divergence, kl_scan
from gammastar.flow.ensembles import (
    FlowEnsemble,
    FlowVariations,
    Variations,
    fit_ensemble,
    laplace,
    load_ensemble,
    load_variations,
    principal_components,
    save_ensemble,
    save_members,
    saved_digests,
)
from gammastar.flow.event_generator import KeyedEvents, MassSource, decay_vertices, draw_events, two_leptons
from gammastar.flow.model import KinematicFlow
from gammastar.flow.network import Bijection, inside_limits
from gammastar.flow.options import FlowOptions, PairTable, TrainingReport
from gammastar.flow.paper import PaperFlow, PaperNetwork
from gammastar.flow.quality import Calibration, Quality, calibration, classifier_test, quality
from gammastar.flow.saving import digest, load, save
from gammastar.flow.table import MassTable, tabulate
from gammastar.flow.training import fit, fit_pairs, fit_paper, has_cuda

__all__ = [
    "PAPER_GRID",
    "Bijection",
    "Calibration",
    "DensityOptions",
    "DensityTest",
    "FlowEnsemble",
    "FlowOptions",
    "FlowVariations",
    "KLScan",
    "KeyedEvents",
    "KinematicFlow",
    "MassSource",
    "MassTable",
    "LocalStatistics",
    "PairTable",
    "PaperFlow",
    "PaperNetwork",
    "Quality",
    "ScanPoint",
    "TrainingReport",
    "Variations",
    "calibration",
    "check_windows",
    "classifier_test",
    "decay_vertices",
    "density_test",
    "digest",
    "draw_events",
    "fit",
    "fit_ensemble",
    "fit_pairs",
    "fit_paper",
    "has_cuda",
    "inside_limits",
    "kl_divergence",
    "kl_scan",
    "laplace",
    "load",
    "load_ensemble",
    "load_variations",
    "principal_components",
    "quality",
    "save",
    "save_ensemble",
    "save_members",
    "saved_digests",
    "scan",
    "tabulate",
    "two_leptons",
]
