"""Records refuse inconsistent input; random streams are named and independent."""

import numpy as np
import pytest

from gammastar.core import axes, errors, records
from gammastar.core import sampling as rng


def test_spectrum_refuses_wrong_covariance():
    axis = axes.regular("mass", 3, 0.2, 0.5)
    hist = axes.filled((axis,), np.ones(3), np.ones(3))
    with pytest.raises(errors.PhysicsError, match=r"cov has shape \(2, 2\)"):
        records.Spectrum(hist, np.eye(2), "counts", None, np.ones(3, bool))


def test_response_columns_sum_to_efficiency():
    axis = axes.regular("mass", 2, 0.2, 0.4)
    with pytest.raises(errors.PhysicsError, match="sum to"):
        records.Response(
            np.eye(2), np.full(2, 0.5), np.zeros(2), (axis,), (axis,), np.ones(2), np.zeros((0, 2, 2))
        )


def test_streams_are_reproducible_and_independent():
    assert rng.stream(1, "a").random() == rng.stream(1, "a").random()
    assert rng.stream(1, "a").random() != rng.stream(1, "b").random()
    assert rng.stream(1, "a").random() != rng.stream(2, "a").random()


def test_effective_size():
    assert axes.effective_size(np.ones(10)) == pytest.approx(10)
    assert axes.effective_size(np.zeros(0)) == 0
