"""Unfolding, for any response: linear in the data, counts conserved without migration, sound covariances."""

import numpy as np
import pytest
from builders import counted
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar import unfold
from gammastar.core.records import Response, regular

SEEDS = st.integers(0, 2**32 - 1)
METHODS = {
    "iterative": unfold.iterative,
    "least squares": unfold.least_squares,
    "tikhonov": lambda measured, response: unfold.tikhonov(measured, response, tau=0.1),
}


def axes(n):
    return (regular("mass", n, 0.2, 1.2),)


def smearing(rng, n_true, n_reco, n_replicas=0):
    """Return a response that moves pairs to cells nearby, with efficiencies of 0.1 to 0.9 and some fakes."""
    at = (np.arange(n_reco)[:, None] + 0.5) / n_reco - (np.arange(n_true) + 0.5) / n_true
    shape = np.exp(-0.5 * (at * n_true / rng.uniform(0.4, 0.8)) ** 2)
    migration = shape / shape.sum(axis=0) * rng.uniform(0.1, 0.9, n_true)
    replicas = migration * rng.uniform(0.95, 1.0, (n_replicas, n_reco, n_true))
    prior, fakes = rng.uniform(50, 100, n_true), rng.uniform(0, 0.2, n_reco)
    return Response(migration, migration.sum(axis=0), fakes, axes(n_reco), axes(n_true), prior, replicas)


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(2, 6), a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_least_squares_are_linear_in_the_data(seed, n, a, b):
    rng = np.random.default_rng(seed)
    response = smearing(rng, n, 2 * n)
    one, two = rng.normal(100, 30, (2, 2 * n))
    cov = np.diag(rng.uniform(10, 100, 2 * n))

    def unfolded(y):
        return unfold.least_squares(counted(y, axes(2 * n), cov=cov), response)

    both = unfolded(a * one + b * two)
    expected = a * unfolded(one).values + b * unfolded(two).values
    scale = np.abs(unfolded(one).values).max() + np.abs(unfolded(two).values).max()
    np.testing.assert_allclose(both.values, expected, rtol=1e-8, atol=1e-9 * scale)
    np.testing.assert_allclose(both.cov, unfolded(one).cov, rtol=1e-9)  # of the data's errors alone


@settings(max_examples=40)
@given(seed=SEEDS, n=st.integers(2, 6), method=st.sampled_from(["iterative", "least squares"]))
def test_counts_are_conserved_where_nothing_migrates(seed, n, method):
    rng = np.random.default_rng(seed)
    efficiency, fakes = rng.uniform(0.1, 1, n), rng.uniform(0, 0.3, n)
    none = np.zeros((0, n, n))
    response = Response(np.diag(efficiency), efficiency, fakes, axes(n), axes(n), rng.uniform(1, 9, n), none)
    measured = counted(rng.poisson(200, n), axes(n))
    found = METHODS[method](measured, response)
    np.testing.assert_allclose(found.values, measured.values * (1 - fakes) / efficiency, rtol=1e-9)
    total = measured.values @ (1 - fakes)
    assert efficiency @ found.values == pytest.approx(total, rel=1e-12)
    variance = measured.values * ((1 - fakes) / efficiency) ** 2
    np.testing.assert_allclose(np.diag(found.cov), variance, rtol=1e-6)


@settings(max_examples=40)
@given(
    seed=SEEDS,
    n=st.integers(2, 6),
    method=st.sampled_from(sorted(METHODS)),
    n_replicas=st.sampled_from([0, 4]),
    correlated=st.booleans(),
)
def test_covariances_are_symmetric_and_positive(seed, n, method, n_replicas, correlated):
    rng = np.random.default_rng(seed)
    response = smearing(rng, n, 2 * n, n_replicas)
    y = rng.poisson(response.migration @ response.prior + 20).astype(float)
    root = rng.normal(0, 3, (2 * n, 2 * n)) * correlated
    measured = counted(y, axes(2 * n), cov=np.diag(y + 1) + root @ root.T)
    found = METHODS[method](measured, response)
    np.testing.assert_array_equal(found.cov, found.cov.T)
    eigenvalues = np.linalg.eigvalsh(found.cov)
    assert eigenvalues.min() >= -1e-9 * eigenvalues.max()
    assert eigenvalues.max() > 0


@settings(max_examples=30)
@given(seed=SEEDS, n=st.integers(2, 6), method=st.sampled_from(sorted(METHODS)), factor=st.floats(0.01, 100))
def test_the_unit_of_the_counts_does_not_matter(seed, n, method, factor):
    rng = np.random.default_rng(seed)
    response = smearing(rng, n, 2 * n)
    y = rng.poisson(response.migration @ response.prior + 20).astype(float)
    if method == "tikhonov":  # its strength has the unit of one over the counts
        scaled = lambda m, r: unfold.tikhonov(m, r, tau=0.1 / factor)  # noqa: E731
    else:
        scaled = METHODS[method]
    plain = METHODS[method](counted(y, axes(2 * n), cov=np.diag(y + 1)), response)
    other = scaled(counted(factor * y, axes(2 * n), cov=np.diag(y + 1) * factor**2), response)
    np.testing.assert_allclose(other.values, factor * plain.values, rtol=1e-6, atol=1e-6 * factor)
