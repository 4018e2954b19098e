"""Checks of numbers that no file shows: errors that vanish, a result that folded again is not the data."""

import numpy as np
import pytest
from builders import counted

from gammastar.core.records import regular
from gammastar.spectrum.checks import Check, of_unfolding

AXES = (regular("mass", 4, 0.2, 1.0), regular("energy", 3, 0.0, 90.0))
CONTENT = np.outer([400.0, 300.0, 200.0, 100.0], [3.0, 2.0, 1.0])


def failed(values, cov, p_value=0.5):
    """Return the names of what fails; the efficiency is one half."""
    unfolded, measured = counted(values, AXES, cov=cov), counted(0.5 * CONTENT, AXES)
    found = of_unfolding(unfolded, measured, np.full(12, 0.5), CONTENT.ravel(), p_value)
    return [one.name for one in found if one.verdict != "ok"]


def test_poisson_errors_pass():
    assert failed(CONTENT, np.diag(2 * CONTENT.ravel())) == []


def test_a_cell_that_died_is_counted():
    values, variance = CONTENT.copy(), 2 * CONTENT
    values[2, 1], variance[2, 1] = 1e-30, 1e-60
    assert failed(values, np.diag(variance.ravel())) == ["unfold: cells near zero with errors far below √N"]


def test_a_cell_at_zero_with_the_error_of_its_expectation_is_none():
    values = CONTENT.copy()
    values[2, 1] = 0.0
    assert failed(values, np.diag(2 * CONTENT.ravel())) == []


def test_errors_that_counts_do_not_allow():
    assert failed(CONTENT, np.diag(0.02 * CONTENT.ravel())) == [
        "unfold: least relative error of a mass bin over that of its pairs"
    ]


def test_a_result_that_folded_again_is_not_the_data():
    assert failed(CONTENT, np.diag(2 * CONTENT.ravel()), 1e-6) == ["unfold: p-value of the refolding"]


@pytest.mark.parametrize(
    ("number", "verdict"), [(0.5, "ok"), (2.0, "alarm"), (9.0, "error"), (np.nan, "error")]
)
def test_what_a_number_means(number, verdict):
    assert Check("x", number, 0.0, 1.0, "", (0.0, 5.0)).verdict == verdict
