"""p(pt, energy | mass) learned from weighted pairs by a conditional spline flow (torch, zuko)."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from gammastar.flow.options import FlowOptions
from gammastar.flow.network import has_cuda
from gammastar.flow.model import KinematicFlow, digest, draw_events, load, save
from gammastar.flow.divergence import check_windows, kl_divergence, kl_scan
from gammastar.flow.ensembles import (
    FlowEnsemble,
    FlowVariations,
    LocalStatistics,
    fit_ensemble,
    load_variations,
    save_members,
    saved_digests,
)
from gammastar.flow.density_tests import density_test

if TYPE_CHECKING:
    from gammastar.flow.training import fit, fit_pairs

__all__ = [
    "FlowOptions",
    "fit",
    "fit_pairs",
    "has_cuda",
    "KinematicFlow",
    "save",
    "load",
    "digest",
    "fit_ensemble",
    "FlowEnsemble",
    "LocalStatistics",
    "FlowVariations",
    "save_members",
    "load_variations",
    "saved_digests",
    "density_test",
    "kl_divergence",
    "kl_scan",
    "check_windows",
    "draw_events",
]

# What trains needs torch, which takes longer to import than a reach to compute: only who asks for it waits.
_TRAINING = ("fit", "fit_pairs")


def __getattr__(name: str) -> Any:
    if name not in _TRAINING:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.training"), name)
