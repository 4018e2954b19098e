"""The smooth background of like-sign pairs and its error."""

import numpy as np
import pytest

from gammastar.core.records import PairHists, filled, regular
from gammastar.subtract.fields import smooth_background


def hists(counts, weight=1.0):
    axis = (regular("mass", len(counts), 0.2, 1.2),)
    return PairHists(*(filled(axis, weight * n, weight**2 * n) for n in counts.T))


def test_the_error_of_a_smooth_background_is_that_of_a_geometric_mean():
    """2R√(N₊₊N₋₋) of 400 and 100 pairs in all: ½ √(1/400 + 1/100) of it, and the common error of R."""
    counts = np.stack([np.full(8, 200.0), np.full(8, 50.0), np.full(8, 12.5)], axis=1)
    found = smooth_background(hists(counts), 1.1, 0.0)
    assert found.value.sum() == pytest.approx(2 * 1.1 * 200, rel=0.01)
    assert np.sqrt(found.cov.sum()) / found.value.sum() == pytest.approx(0.5 * np.sqrt(0.0125), rel=0.1)
    fixed, moved = (found.subtracted(hists(counts), common).cov.sum() for common in (0.0, 0.3))
    assert moved - fixed == pytest.approx((0.3 * found.value.sum()) ** 2)
