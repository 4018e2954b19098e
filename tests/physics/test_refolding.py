"""Law of the refolding χ²: degrees of freedom, simulation, iterations; p-values that mean something."""

from functools import partial

import numpy as np
import pytest
from builders import counted
from hist import axis
from scipy import stats

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.records import Response
from gammastar.core.sampling import stream

N_TRUE, N_RECO = 6, 15
TRUE, RECO = (axis.Regular(N_TRUE, 0, 1, name="mass"),), (axis.Regular(N_RECO, 0, 1, name="mass"),)
SHAPE = 20_000.0 * np.array([1.0, 2.0, 3.0, 2.5, 1.5, 1.0]) / 11


def matrix():
    """Return P(j|i) of cells smeared by 0.8 of their width, efficiency a half."""
    edges, centers = RECO[0].edges, TRUE[0].centers
    below = stats.norm.cdf(edges[:, None], centers[None, :], 0.8 / N_TRUE)
    return 0.5 * np.diff(below, axis=0)


def response(rng=None, n_replicas=0, size=1.0):
    """Return the exact response, or one of a simulation of `size` times the data with bootstraps."""
    p, prior = matrix(), SHAPE * size
    if rng is not None:
        counts, missed = rng.poisson(p * prior), rng.poisson((1 - p.sum(axis=0)) * prior)
        prior = (counts.sum(axis=0) + missed).astype(float)
        copies = rng.poisson(counts, (n_replicas, *p.shape))
        total = copies.sum(axis=1) + rng.poisson(missed, (n_replicas, N_TRUE))
        return Response(
            *(counts / prior, (counts / prior).sum(axis=0), np.zeros(N_RECO), RECO, TRUE, prior),
            copies / total[:, None, :],
        )
    return Response(p, p.sum(axis=0), np.zeros(N_RECO), RECO, TRUE, prior, np.zeros((0, *p.shape)))


def data(rng, truth=SHAPE):
    y = rng.poisson(matrix() @ truth).astype(float)
    return counted(y, RECO)


def theory(n_iterations, ratio=0.0):
    """Return the expectation from the derivative of the unfolding, see `refolding_test`."""
    p, y = matrix(), matrix() @ SHAPE
    _, slope = unfold.iterative_bayes.unfold_values(y, response(), SHAPE, n_iterations)
    a = p @ slope - np.eye(N_RECO)
    v = np.diag(y)
    c = v - p @ np.diag(SHAPE) @ p.T
    return np.trace(a @ (v + ratio * c) @ a.T / y[:, None])


@pytest.mark.long
def test_least_squares_has_cells_less_true_cells():
    found = unfold.refolding_test(
        data(stream(1)), response(), unfold.least_squares, rng=stream(2), n_toys=400
    )
    assert found.cells == N_RECO
    assert found.expected == pytest.approx(N_RECO - N_TRUE, rel=0.08)
    assert found.ndf == pytest.approx(N_RECO - N_TRUE, rel=0.3)
    assert "expected" in str(found)


@pytest.mark.long
@pytest.mark.parametrize("n_iterations", [2, 4, 20])
def test_few_iterations_fit_fewer_numbers(n_iterations):
    method = partial(unfold.iterative, n_iterations=n_iterations)
    found = unfold.refolding_test(data(stream(3)), response(), method, rng=stream(4), n_toys=200)
    assert found.expected == pytest.approx(theory(n_iterations), rel=0.12)
    assert N_RECO - N_TRUE < theory(n_iterations) < N_RECO


def test_the_simulation_fluctuates_as_well():
    simulated = response(stream(5), n_replicas=100)
    method = partial(unfold.iterative, n_iterations=10)
    found = unfold.refolding_test(data(stream(6)), simulated, method, rng=stream(7), n_toys=200)
    assert found.expected == pytest.approx(theory(10, 1.0), rel=0.15)
    assert theory(10, 1.0) == pytest.approx(2 * theory(10), rel=0.02)


@pytest.mark.long
def test_p_values_are_uniform_and_see_a_wrong_response():
    method = partial(unfold.iterative, n_iterations=6)
    p = np.array(
        [
            unfold.refolding_test(data(stream(8, i)), response(), method, rng=stream(9, i), n_toys=30).p_value
            for i in range(28)
        ]
    )
    assert stats.kstest(p, "uniform").pvalue > 0.001
    bad = data(stream(10))
    y = bad.values * (1 + 0.15 * (-1.0) ** np.arange(N_RECO))  # finer than the resolution
    bad = counted(y, RECO, domain=bad.domain)
    assert unfold.refolding_test(bad, response(), method, rng=stream(11), n_toys=100).p_value < 1e-4
    with pytest.raises(UserError, match="n_toys = 5"):
        unfold.refolding_test(bad, response(), method, rng=stream(12), n_toys=5)


def test_replicas_in_single_precision_where_everything_is_recorded():
    """Columns of a replica that sum to one may do so to 1e-7 only."""
    p = matrix() / matrix().sum(axis=0)
    copies = np.random.default_rng(12).dirichlet(np.ones(N_RECO), (20, N_TRUE)).transpose(0, 2, 1)
    copies = (0.9 * p + 0.1 * copies).astype(np.float32)
    assert copies.astype(np.float64).sum(axis=1).max() > 1.0 + 1e-9
    simulated = Response(p, p.sum(axis=0), np.zeros(N_RECO), RECO, TRUE, SHAPE, copies)
    method = partial(unfold.iterative, n_iterations=4)
    assert np.isfinite(unfold.refolding_test(data(stream(13)), simulated, method, rng=stream(14)).toys).all()
