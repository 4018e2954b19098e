"""Select leptons and pairs, count what is left, and fill histograms by charge."""

from __future__ import annotations

from gammastar.select.cutflow import Cutflow, Step, lost_leptons
from gammastar.select.cuts import Cuts, GhostVeto
from gammastar.select.fill import fill
from gammastar.select.histogram import histograms
from gammastar.select.pairs import collect, counting, helicity_cosine, pairs, repeated_events
from gammastar.select.singles import apply, singles

__all__ = [
    "Cutflow",
    "Cuts",
    "GhostVeto",
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
