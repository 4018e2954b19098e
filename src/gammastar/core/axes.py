"""Axis names and builders, one name per quantity everywhere; histograms on them and small statistics."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import hist
import numpy as np
from hist.storage import Weight

from gammastar.core.records import FloatArray

MASS = "mass"
PT = "pt"
ENERGY = "energy"
COUPLING = "coupling"
KINEMATICS = (MASS, PT, ENERGY)

LABELS = {MASS: r"$m$ [GeV]", PT: r"$q_T$ [GeV]", ENERGY: r"$E$ [GeV]", COUPLING: r"$\varepsilon$"}

Axes: TypeAlias = tuple[hist.axis.AxesMixin, ...]


def regular(name: str, n_bins: int, low: float, high: float) -> hist.axis.Regular:
    """Return a regular axis of the quantity `name`, labelled with its unit."""
    return hist.axis.Regular(n_bins, low, high, name=name, label=LABELS.get(name, name))


def variable(name: str, bin_edges: Sequence[float]) -> hist.axis.Variable:
    """Return an axis of the quantity `name` with the given bin edges."""
    return hist.axis.Variable(bin_edges, name=name, label=LABELS.get(name, name))


def effective_size(weight: FloatArray) -> float:
    """Return the effective sample size (Σw)²/Σw² (Kish); 0 for an empty sample."""
    square = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / square if square > 0 else 0.0


def rescaled(weight: FloatArray, total: float) -> FloatArray:
    """Return weights with this sum; as they are, where either sum is not positive."""
    now = float(weight.sum())
    return weight * (total / now) if now > 0 and total > 0 else weight


def filled(axes: tuple[Any, ...], values: FloatArray, variances: FloatArray) -> hist.Hist[Any]:
    """Return a Weight histogram with the given cell contents (no flow)."""
    result: hist.Hist[Any] = hist.Hist(*axes, storage=Weight())
    view: Any = result.view(flow=False)
    view["value"] = np.reshape(values, view.shape)
    view["variance"] = np.reshape(variances, view.shape)
    return result


def flow_free(histogram: hist.Hist[Any]) -> tuple[FloatArray, FloatArray]:
    """Return values and variances of a histogram in C order, without flow bins."""
    values = np.asarray(histogram.values(), dtype=np.float64).ravel()
    variances = histogram.variances()
    return values, (values if variances is None else np.asarray(variances, dtype=np.float64).ravel())
