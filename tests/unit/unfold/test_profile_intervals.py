"""Intervals of cells by profile likelihood hold the truth as often as they say, whatever the spectrum is."""

import numpy as np
import pytest
from scipy import optimize, sparse
from scipy.stats import norm

from gammastar.physics.pair_counts import Counts
from gammastar.unfold import profile_intervals as intervals
from gammastar.unfold.profile_intervals import profile_intervals

CL = 0.6827
N = 20


def likelihood_ratio(n):
    """Return where −2 ln L of one Poisson count rises by 1."""

    def rise(mean):
        return 2 * (mean - n + n * np.log(n / mean)) - 1

    return optimize.brentq(rise, 1e-6, n), optimize.brentq(rise, n, 10 * n + 10)


@pytest.mark.parametrize("n", [3, 10, 400])
def test_one_cell_has_the_interval_of_its_count(n):
    counts = Counts(np.array([n + 0.0]), sparse.csr_array([[0.5]]), np.zeros(1), np.zeros((1, 1)))
    (found,) = profile_intervals(counts, np.array([2.0 * n]), np.eye(1))
    np.testing.assert_allclose(0.5 * found, likelihood_ratio(n), rtol=2e-3)


def test_an_empty_cell_has_an_upper_end_and_a_background_widens_it():
    ends = []
    for base, error in ((0.0, 0.0), (20.0, 0.0), (20.0, 6.0)):
        counts = Counts(np.array([base]), sparse.csr_array([[1.0]]), np.array([base]), np.array([[error**2]]))
        ends.append(profile_intervals(counts, np.ones(1), np.eye(1))[0])
    low, high = np.array(ends).T
    assert (low == 0).all()
    assert 0 < high[0] < high[1] < high[2]


def smeared(sigma):
    """Return the response of bins for a resolution in units of a bin, half of the photons lost."""
    at = np.arange(N)[:, None] + (np.arange(10) + 0.5) / 10
    edges = np.arange(N + 1)
    return 0.5 * np.diff(norm.cdf((edges[:, None, None] - at) / sigma), axis=0).mean(axis=2)


@pytest.mark.long
@pytest.mark.parametrize(("bump", "purity"), [(0.0, 1.0), (400.0, 1.0), (0.0, 0.3)])
def test_intervals_hold_the_truth(bump, purity):
    """Of 600 cells from 3 to 300 seen pairs, within three standard deviations of the binomial number."""
    rng, matrix = np.random.default_rng(5), smeared(0.4)
    truth = 600 * np.exp(-np.arange(N) / 4.3) + bump * (np.arange(N) == 12)
    expected = matrix @ truth
    base = np.full(N, expected.mean()) * (1 / purity - 1)
    error = 0.02 * base
    held = []
    for _ in range(30):
        observed = rng.poisson(expected + base + rng.normal() * error).astype(float)
        counts = Counts(observed, sparse.csr_array(matrix), base, np.outer(error, error))
        ends = profile_intervals(counts, truth, np.eye(N))
        held.append((ends[:, 0] <= truth) & (truth <= ends[:, 1]))
    assert np.mean(held) == pytest.approx(CL, abs=3 * np.sqrt(CL * (1 - CL) / np.size(held)))


@pytest.mark.long
@pytest.mark.parametrize("pairs", [1.0, 30.0])
def test_pseudo_experiments_mend_the_coverage_beside_empty_cells(pairs, monkeypatch):
    """Every second cell is empty: bounds of the neighbours make plain intervals too long, scaled ones not."""
    monkeypatch.setattr(intervals, "VALUES", 250)  # fewer pseudo-experiments are as right on average
    rng, matrix = np.random.default_rng(7), smeared(0.6)
    truth = np.where(np.arange(N) % 2, 2 * pairs, 1e-3)
    full, held = np.eye(N)[1::2], {True: [], False: []}
    for _ in range(25):
        observed = rng.poisson(matrix @ truth).astype(float)
        counts = Counts(observed, sparse.csr_array(matrix), np.zeros(N), np.zeros((N, N)))
        for scaled, found in held.items():
            ends = profile_intervals(counts, truth, full, rng=rng if scaled else None)
            found.append((ends[:, 0] <= truth[1::2]) & (truth[1::2] <= ends[:, 1]))
    scaled, plain = np.mean(held[True]), np.mean(held[False])
    assert scaled == pytest.approx(CL, abs=4 * np.sqrt(CL * (1 - CL) / np.size(held[True])))
    assert abs(plain - CL) > abs(scaled - CL)


def test_a_sum_is_known_better_than_its_cells():
    matrix, truth = smeared(0.6), np.full(N, 100.0)
    counts = Counts(matrix @ truth, sparse.csr_array(matrix), np.zeros(N), np.zeros((N, N)))
    sums = np.zeros((2, N))
    sums[0, 10], sums[1, 9:12] = 1.0, 1.0
    one, three = np.diff(profile_intervals(counts, truth, sums), axis=1)[:, 0]
    assert three < one * 1.3  # migration between the three drops out
    assert three > 2 * np.sqrt(300 / 0.5) * 0.95


def test_a_sum_of_cells_that_nothing_sees_has_no_interval():
    counts = Counts(np.array([9.0]), sparse.csr_array([[1.0]]), np.zeros(1), np.zeros((1, 1)))
    seen, unseen = profile_intervals(counts, np.array([9.0]), np.array([[1.0], [0.0]]))
    assert seen[0] < 9 < seen[1]
    assert (unseen == 0).all()
