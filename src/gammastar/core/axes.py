"""Axis names and builders: one name per quantity everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias

import hist

__all__ = ["COUPLING", "ENERGY", "KINEMATICS", "LABELS", "MASS", "PT", "Axes", "edges", "regular", "variable"]

MASS = "mass"
PT = "pt"
ENERGY = "energy"
COUPLING = "coupling"
KINEMATICS = (MASS, PT, ENERGY)

LABELS = {
    MASS: r"$m$ [GeV]",
    PT: r"$q_T$ [GeV]",
    ENERGY: r"$E$ [GeV]",
    COUPLING: r"$\varepsilon$",
}

Axes: TypeAlias = tuple[hist.axis.AxesMixin, ...]


def regular(name: str, n_bins: int, low: float, high: float) -> hist.axis.Regular:
    """Return a regular axis of the quantity `name`, labelled with its unit."""
    return hist.axis.Regular(n_bins, low, high, name=name, label=LABELS.get(name, name))


def variable(name: str, bin_edges: Sequence[float]) -> hist.axis.Variable:
    """Return an axis of the quantity `name` with the given bin edges."""
    return hist.axis.Variable(bin_edges, name=name, label=LABELS.get(name, name))


def edges(name: str, binning: Sequence[float] | tuple[int, float, float]) -> hist.axis.Variable:
    """Return an axis from a list of edges (the form of the steering file)."""
    return variable(name, list(binning))
