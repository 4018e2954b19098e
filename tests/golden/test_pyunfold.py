"""Iterative unfolding against PyUnfold 0.5: the same iterations, values and errors."""

import numpy as np
import pytest
from builders import counted
from hist import axis

from gammastar import unfold
from gammastar.core.records import Response
from gammastar.core.sampling import stream

pyunfold = pytest.importorskip("pyunfold")
N_ITERATIONS = 4


@pytest.fixture(scope="module")
def both():
    """Return both results for a steep spectrum with a peak, efficiency of 0.3 to 0.8, 24 cells."""
    rng = stream(1, "pyunfold")
    x = (np.arange(24) + 0.5) / 24
    true = 4000 * np.exp(-3 * x) + 1500 * np.exp(-0.5 * ((x - 0.6) / 0.05) ** 2)
    smear = np.exp(-0.5 * ((x[:, None] - x) / 0.05) ** 2)
    migration = smear / smear.sum(axis=0) * (0.3 + 0.5 * x)
    y = rng.poisson(migration @ true).astype(float)
    axes = (axis.Regular(24, 0, 1, name="x"),)
    prior = np.full(24, true.sum() / 24)
    response = Response(
        migration, migration.sum(axis=0), np.zeros(24), axes, axes, prior, np.zeros((0, 24, 24))
    )
    measured = counted(y, axes)
    ours = unfold.iterative(measured, response, n_iterations=N_ITERATIONS)
    theirs = pyunfold.iterative_unfold(
        data=y,
        data_err=np.sqrt(y),
        response=migration,
        response_err=np.zeros_like(migration),
        efficiencies=migration.sum(axis=0),
        efficiencies_err=np.zeros(24),
        prior=prior / prior.sum(),
        ts_stopping=1e-30,
        max_iter=N_ITERATIONS,
        cov_type="poisson",
    )
    return ours, theirs


def test_values(both):
    ours, theirs = both
    assert theirs["num_iterations"] == N_ITERATIONS
    np.testing.assert_allclose(ours.values, theirs["unfolded"], rtol=1e-10)


def test_statistical_errors(both):
    ours, theirs = both
    ratio = np.sqrt(np.diag(ours.cov)) / theirs["stat_err"]
    assert abs(np.median(ratio) - 1) < 2e-3
