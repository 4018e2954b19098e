"""Select leptons and pairs, count what is left, and fill histograms by charge."""

from __future__ import annotations

from gammastar.select.cutflow import Cutflow, Step
from gammastar.select.cuts import Cuts, GhostVeto
from gammastar.select.fill import fill
from gammastar.select.pairs import collect, pairs

__all__ = ["Cutflow", "Cuts", "GhostVeto", "Step", "collect", "fill", "pairs"]
