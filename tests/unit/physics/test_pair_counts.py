"""Smooth expectations of counts: pulls, few pairs, errors that do not vanish, finite simulation."""

import numpy as np
import pytest
from scipy import sparse

from gammastar.core.sampling import stream
from gammastar.physics.counts import Counts, Prior, fit, seen_directly

N = 24


def smeared(n, width):
    """Return P(reconstructed | true) of bins with a resolution of so many bins."""
    x = np.arange(n)
    matrix = np.exp(-0.5 * ((x[:, None] - x) / width) ** 2)
    return 0.6 * matrix / matrix.sum(axis=0)


def truth(total):
    shape = np.exp(-np.arange(N) / 6.0)
    return total * shape / shape.sum()


@pytest.mark.parametrize("total", [60.0, 60_000.0])
def test_pulls_from_few_pairs_to_many(total):
    """The truth is not that of the prior, and no normal prior made it."""
    true, matrix = truth(total), sparse.csr_array(smeared(N, 1.2))
    base = np.full(N, 0.1 * total / N)
    prior, rng, pulls, sums = Prior(np.full(N, total / N), (N,), np.arange(N)), stream(3, f"{total}"), [], []
    for _ in range(60):
        seen = rng.poisson(matrix @ true + base).astype(float)
        found = fit(Counts(seen, matrix, base, np.zeros((N, N))), prior)
        assert (np.diag(found.cov) > 0).all()
        pulls.append((found.content - true) / np.sqrt(np.diag(found.cov)))
        sums.append((found.content - true).sum() / np.sqrt(found.cov.sum()))
    assert 0.4 < np.std(pulls) < 1.15  # a cell is free by 10 %, more than many pairs leave open
    assert (np.abs(pulls) > 4).sum() <= 5  # of 1440; 2 at the fewest pairs, marked: seen before it was set
    assert abs(np.mean(sums)) < 4 / np.sqrt(60)  # standard error of the mean of unit pulls, 4 of them
    assert 0.75 < np.std(sums) < 1.3


def test_errors_do_not_vanish_with_the_value():
    """A cell that happens to be empty keeps an error of about the pairs that its neighbours let expect."""
    true = np.full(N, 5.0)
    seen = stream(5, "hole").poisson(true).astype(float)
    seen[11] = 0.0
    matrix = sparse.csr_array(sparse.eye_array(N))
    found = fit(Counts(seen, matrix, np.zeros(N), np.zeros((N, N))), Prior(true, (N,), np.arange(N)))
    error = np.sqrt(np.diag(found.cov))
    assert error[11] > 0.1 * np.sqrt(5.0)
    assert abs(found.content[11] - 5.0) < 4 * error[11]


def test_a_narrow_line_stands_on_a_smooth_continuum():
    """A line of ten times the continuum, which the prior does not have, comes out with its error."""
    true = truth(40_000.0)
    true[15] *= 10
    line = np.zeros((1, N))
    line[0, 15] = 1.0
    matrix, rng, pulls = sparse.csr_array(smeared(N, 1.2)), stream(7, "line"), []
    for _ in range(20):
        seen = rng.poisson(matrix @ true).astype(float)
        counts = Counts(seen, matrix, np.zeros(N), np.zeros((N, N)))
        found = fit(counts, Prior(truth(40_000.0) ** 0.8, (N,), np.arange(N), line))
        pulls.append((found.content[15] - true[15]) / np.sqrt(found.cov[15, 15]))
    assert np.abs(pulls).max() < 4.5
    assert abs(np.mean(pulls)) < 1


def test_few_simulated_photons_are_part_of_the_error():
    """With as many simulated photons as data, errors grow by about √2, and the pulls stay."""
    true, exact, rng = truth(30_000.0), smeared(N, 0.6), stream(9, "simulation")
    simulated, pulls, errors = np.full(N, 800), [], {True: [], False: []}
    for _ in range(20):
        counts = np.stack(
            [
                rng.multinomial(n, [*column, 1 - column.sum()])
                for n, column in zip(simulated, exact.T, strict=True)
            ]
        )
        matrix = sparse.csr_array((counts[:, :-1] / simulated[:, None]).T)
        seen = rng.poisson(exact @ true).astype(float)
        for known in (True, False):
            entries = np.zeros(0) if known else simulated.astype(float)
            data = Counts(seen, matrix, np.zeros(N), np.zeros((N, N)), 1.0, entries)
            found = fit(data, Prior(np.full(N, true.mean()), (N,), np.arange(N)))
            errors[known].append(np.sqrt(np.diag(found.cov)))
            if not known:
                pulls.append((found.content - true) / errors[known][-1])
    assert 0.6 < np.std(pulls) < 1.2
    assert (np.mean(errors[False], axis=0)[:5] > 1.2 * np.mean(errors[True], axis=0)[:5]).all()


def test_smooth_counts_in_three_axes_and_their_goodness():
    shape, rng = (10, 3, 4), stream(11, "three")
    mass, pt, energy = np.indices(shape)
    mean = (20 * np.exp(-mass / 4) * (1 + pt) * (1 + 0.2 * energy)).ravel()
    found = [seen_directly(rng.poisson(mean).astype(float), shape) for _ in range(15)]
    pulls = np.array([(one.content - mean) / np.sqrt(np.diag(one.cov)) for one in found])
    assert 0.6 < pulls.std() < 1.2
    distance = [(one.goodness[0] - one.goodness[1]) / one.goodness[2] for one in found]
    assert abs(np.mean(distance)) < 1
    weighted = seen_directly(3.0 * rng.poisson(mean), shape, weight=3.0)
    assert weighted.content.sum() == pytest.approx(3 * mean.sum(), rel=0.1)


def test_simulated_photons_of_a_cell_are_shared_out():
    """Pairs of one cell that are seen in one place are missing in another: multinomial, not Poisson."""
    rng, seen, entries, content = np.random.default_rng(6), np.array([0.5, 0.3]), 40, 1000.0
    drawn = rng.multinomial(entries, [*seen, 1 - seen.sum()], 20_000)[:, :2] / entries
    matrix = sparse.csr_array(seen[:, None])
    counts = Counts(np.zeros(2), matrix, np.zeros(2), np.zeros((2, 2)), 0.0, np.array([float(entries)]))
    wanted = np.cov(content * drawn, rowvar=False)
    np.testing.assert_allclose(counts.covariance(np.array([content])), wanted, rtol=0.04)
