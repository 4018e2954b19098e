"""Sums of Poisson probabilities are the incomplete gamma function, as far as counts are whole and few."""

import numpy as np
import pytest
from scipy.special import gammaincc

from gammastar.physics.averaged_counts import SUMMED, at_most


@pytest.mark.parametrize("counts", [np.arange(30.0)[::-1], np.arange(SUMMED + 1.0), np.arange(0.0, 400.0, 7)])
def test_sums_are_the_incomplete_gamma_function(counts):
    n, rate = (x.ravel() for x in np.meshgrid(counts, np.r_[0.0, np.geomspace(1e-3, 1e5, 60)]))
    found, wanted = at_most(rate, n, 0.0, (0.0, 0.0)), gammaincc(n + 1.0, rate)
    np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-100)


def test_counts_between_whole_numbers_and_below_zero():
    n = np.array([-1.0, 0.5, 2.0])
    assert at_most(np.full(3, 2.0), n, 0.5, (0.0, 0.0)) == pytest.approx([0.0, *gammaincc(n[1:] + 1, 2.5)])
    assert at_most(np.empty(0), np.empty(0), 0.5, (0.1, 0.2)).shape == (0,)
