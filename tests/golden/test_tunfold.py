"""Least squares and Tikhonov against the digits of TUnfold V17, on pairs of RooUnfold's example bins.

40 reconstructed and 20 true bins, V = diag(max(1, y)), no area constraint, reference 0.
"""

import csv
from pathlib import Path

import numpy as np
import pytest
from builders import counted
from hist import axis

from gammastar import unfold
from gammastar.core.records import Response

TABLE = Path(__file__).with_name("roounfold_example.csv")
PUBLISHED = (  # penalty, tau, chi2, mean global correlation
    ("size", 0.0, 46.219, 0.3636),
    ("curvature", 0.0, 46.219, 0.3636),
    ("size", 1e-3, 46.527, 0.2735),
    ("size", 3e-3, 49.246, 0.2449),
    ("size", 1e-2, 267.432, 0.2023),
    ("curvature", 1e-3, 46.515, 0.2507),
    ("curvature", 3e-3, 47.309, 0.2327),
    ("curvature", 1e-2, 55.259, 0.5757),
)


@pytest.fixture(scope="module")
def example():
    with TABLE.open() as file:
        rows = list(csv.DictReader(line for line in file if not line.startswith("#")))
    counts = np.zeros((40, 40))
    for row in rows:
        column = [float(n) for n in row["counts"].split()]
        first = int(row["first"] or 1) - 1
        counts[first : first + len(column), int(row["bin"]) - 1] = column
    true = np.array([float(row["train_true"]) for row in rows]).reshape(20, 2).sum(axis=1)
    y = np.array([float(row["test_measured"]) for row in rows])
    migration = counts.reshape(40, 20, 2).sum(axis=2) / true
    reco, truth = ((axis.Regular(n, -10, 10, name="x"),) for n in (40, 20))
    response = Response(
        migration, migration.sum(axis=0), np.zeros(40), reco, truth, true, np.zeros((0, 40, 20))
    )
    variance = np.maximum(y, 1.0)
    spectrum = counted(y, reco, cov=np.diag(variance))
    return spectrum, response


@pytest.mark.parametrize(("penalty", "tau", "chi2", "correlation"), PUBLISHED)
def test_chi2_and_correlation_to_the_printed_digits(example, penalty, tau, chi2, correlation):
    measured, response = example
    found = unfold.regularised.fit(measured.values, measured.cov, response, tau=tau, penalty=penalty)
    assert found.chi2 == pytest.approx(chi2, abs=5.01e-4)
    assert found.mean_correlation == pytest.approx(correlation, abs=5.01e-5)
    assert np.flatnonzero(~found.used).tolist() == [0]  # no simulated pair: TUnfold drops it too


@pytest.mark.parametrize(("penalty", "tau"), [("size", 1.78e-3), ("curvature", 7.8e-3)])
def test_corner_of_the_l_curve_within_a_factor_of_two(example, penalty, tau):
    measured, response = example
    scan = unfold.l_curve(measured, response, penalty=penalty, taus=np.geomspace(1e-4, 1e-1, 60))
    assert tau / 2 < scan.best < 2 * tau
