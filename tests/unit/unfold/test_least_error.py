"""The least error of an unfolded cell."""

from __future__ import annotations

import numpy as np
import pytest
from builders import counted

from gammastar.core.records import Response, regular
from gammastar.unfold.iterative_bayes import with_least_error


def test_no_error_is_below_that_of_the_mean_of_the_measured_cells() -> None:
    """A content seen to 50 and 20 % in two cells is known as the mean of y₁/0.5 and y₂/0.2 is."""
    true, reco = (regular("mass", 1, 0.2, 1.2),), (regular("mass", 2, 0.2, 1.2),)
    share = np.array([[0.5], [0.2]])
    prior = np.array([1000.0])
    response = Response(share, share.sum(axis=0), np.zeros(2), reco, true, prior, np.zeros((0, 2, 1)))
    data = counted([500.0, 200.0], reco)
    known = counted([1000.0], true, cov=np.zeros((1, 1)))
    wanted = 1 / (0.5**2 / 500 + 0.2**2 / 200)
    assert with_least_error(known, data, response).cov[0, 0] == pytest.approx(wanted)
