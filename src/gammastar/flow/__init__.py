"""p(pt, energy | mass) learned from weighted pairs by a conditional spline flow (torch, zuko)."""

from __future__ import annotations

from gammastar.flow.options import FlowOptions
from gammastar.flow.training import fit, fit_pairs, fit_paper, has_cuda
from gammastar.flow.model import KinematicFlow
from gammastar.flow.paper import PaperFlow
from gammastar.flow.model import digest, load, save
from gammastar.flow.divergence import LocalStatistics, check_windows, kl_divergence, kl_scan
from gammastar.flow.ensembles import (
    FlowEnsemble,
    FlowVariations,
    fit_ensemble,
    laplace,
    load_variations,
    save_members,
    saved_digests,
)
from gammastar.flow.density_tests import density_test, quality
from gammastar.flow.event_generator import draw_events
from gammastar.flow.architecture_scan import scan

__all__ = [
    "FlowOptions",
    "fit",
    "fit_pairs",
    "fit_paper",
    "has_cuda",
    "KinematicFlow",
    "PaperFlow",
    "save",
    "load",
    "digest",
    "fit_ensemble",
    "FlowEnsemble",
    "laplace",
    "LocalStatistics",
    "FlowVariations",
    "save_members",
    "load_variations",
    "saved_digests",
    "density_test",
    "quality",
    "kl_divergence",
    "kl_scan",
    "check_windows",
    "draw_events",
    "scan",
]
