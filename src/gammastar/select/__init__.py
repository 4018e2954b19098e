"""Select leptons and pairs, count what is left, and fill histograms by charge."""

from __future__ import annotations

from gammastar.select.cuts import Condition, Cutflow, Cuts, GhostVeto, Runs, Step, lost_leptons
from gammastar.select.histogram import fill, histograms
from gammastar.select.pairing import (
    apply,
    collect,
    counting,
    helicity_cosine,
    pairs,
    repeated_events,
    singles,
)
from gammastar.select.scale_factors import ScaleFactor

__all__ = [
    "Condition",
    "Cutflow",
    "Cuts",
    "GhostVeto",
    "Runs",
    "ScaleFactor",
    "Step",
    "apply",
    "collect",
    "counting",
    "fill",
    "helicity_cosine",
    "histograms",
    "lost_leptons",
    "pairs",
    "repeated_events",
    "singles",
]
