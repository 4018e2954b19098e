"""Small statistics that several rooms share."""

from __future__ import annotations

from typing import Any

import numpy as np
from hist import Hist
from hist.storage import Weight

from gammastar.core.records import FloatArray

__all__ = ["effective_size", "filled", "flow_free", "pulls_summary"]


def effective_size(weight: FloatArray) -> float:
    """Return the effective sample size (Σw)²/Σw² (Kish); 0 for an empty sample.

    Examples
    --------
    >>> effective_size(np.ones(4))
    4.0
    """
    square = float(np.sum(weight**2))
    return float(np.sum(weight)) ** 2 / square if square > 0 else 0.0


def filled(axes: tuple[Any, ...], values: FloatArray, variances: FloatArray) -> Hist[Any]:
    """Return a Weight histogram with the given cell contents (no flow).

    Parameters
    ----------
    axes : tuple of hist axes
    values, variances : NDArray, any shape that reshapes to the axes
    """
    result: Hist[Any] = Hist(*axes, storage=Weight())
    view: Any = result.view(flow=False)
    view["value"] = np.reshape(values, view.shape)
    view["variance"] = np.reshape(variances, view.shape)
    return result


def flow_free(hist: Hist[Any]) -> tuple[FloatArray, FloatArray]:
    """Return values and variances of a histogram in C order, without flow bins."""
    values = np.asarray(hist.values(), dtype=np.float64).ravel()
    variances = hist.variances()
    return values, (values if variances is None else np.asarray(variances, dtype=np.float64).ravel())


def pulls_summary(pulls: FloatArray) -> tuple[float, float]:
    """Return mean and standard deviation of pulls."""
    return float(np.mean(pulls)), float(np.std(pulls, ddof=1))
