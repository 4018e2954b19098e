"""Templates that a shape pulls to zero: there the likelihood has a kink, at which a minimum may lie.

Beyond the kink the events of a cell are zero, so that a step that was promised a gain across it fails. A step
that failed tells how far: over that distance the slope of the events changes by one, and this secant is the
curvature of the next step. Across the kink steps then shrink by a factor, along it they stay those of Newton.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray
from gammastar.infer.binned.expectation import Expectation

SHARE = 0.05  # of a bin, which a template must have to be missed there
CLOSEST = 1e-9  # events between both sides of a kink, of which no more is asked


def crossings(events: Expectation, before: FloatArray, after: FloatArray) -> FloatArray:
    """Return one over the change of each template that passes zero between parameters, else zero."""
    first, last = events.shape(before), events.shape(after)
    passed = (first > 0.0) != (last > 0.0)
    return np.where(passed, 1.0 / np.maximum(np.abs(last - first), CLOSEST), 0.0)


def stiffened(
    events: Expectation,
    curvature: FloatArray,
    x: FloatArray,
    excess: FloatArray,
    stiffness: FloatArray,
    free: npt.NDArray[np.int64],
) -> FloatArray:
    """Return curvatures with those of the kinks that steps have met."""
    weight = stiffness * excess[:, events.bin_of]
    of_set, cell = np.nonzero(weight)
    if not of_set.size:
        return curvature
    sets, rank = np.unique(of_set, return_inverse=True)
    slot = np.arange(of_set.size) - np.searchsorted(of_set, of_set)
    moved, weights = events.shape_slopes(x[of_set], cell), weight[of_set, cell]
    factor = events.factor(x[sets])[rank, cell]
    rows = np.zeros((sets.size, int(slot.max()) + 1, free.size))
    rows[rank, slot] = moved[:, free] * np.sqrt(weights * np.maximum(factor, 0.0))[:, None]
    stiff = curvature.copy()
    stiff[sets] += np.matmul(rows.transpose(0, 2, 1), rows)
    return stiff


def vanished(events: Expectation, x: FloatArray) -> npt.NDArray[np.bool_]:
    """Return whether a template that matters is zero at parameters (sets, parameters), shape (sets,).

    It matters where its nominal yield is more than 5 % of that of its bin.
    """
    matters = events.nominal > SHARE * (events.gather @ events.nominal)[events.bin_of]
    return np.asarray(((events.shape(x) <= 0.0) & matters & (events.nominal > 0.0)).any(axis=1))
