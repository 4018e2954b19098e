"""Smooth expectations of counts: pulls, few pairs, errors that do not vanish, finite simulation."""

import numpy as np
import pytest
from scipy import sparse

from gammastar.core.sampling import stream
from gammastar.physics.pair_counts import Counts, Prior, fit, mean_weights, seen_directly

N = 24


def smeared(n, width):
    """Return P(reconstructed | true) of bins with a resolution of so many bins."""
    x = np.arange(n)
    matrix = np.exp(-0.5 * ((x[:, None] - x) / width) ** 2)
    return 0.6 * matrix / matrix.sum(axis=0)


def truth(total):
    shape = np.exp(-np.arange(N) / 6.0)
    return total * shape / shape.sum()


@pytest.mark.long
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


@pytest.mark.long
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


@pytest.mark.long
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
            response = sparse.csr_array(exact) if known else matrix
            data = Counts(seen, response, np.zeros(N), np.zeros((N, N)), 1.0, entries)
            found = fit(data, Prior(np.full(N, true.mean()), (N,), np.arange(N)))
            errors[known].append(np.sqrt(np.diag(found.cov)))
            if not known:
                pulls.append((found.content - true) / errors[known][-1])
    assert 0.6 < np.std(pulls) < 1.2
    assert (np.mean(errors[False], axis=0)[:5] > 1.2 * np.mean(errors[True], axis=0)[:5]).all()


@pytest.mark.long
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


def test_thinned_photons_count_by_their_squares():
    """Lost photons are kept one in five and stand for five: what is seen fluctuates as if all were there."""
    rng, seen, n, content = np.random.default_rng(8), np.array([0.05, 0.03]), 4000, 1000.0
    found = rng.poisson(n * seen, (20_000, 2))
    lost = 5.0 * rng.poisson(n * (1 - seen.sum()) / 5, 20_000)
    total = found.sum(axis=1) + lost
    wanted = np.cov(content * found / total[:, None], rowvar=False)
    mean, squares = n * 1.0, n * (seen.sum() + 5 * (1 - seen.sum()))
    matrix, own = sparse.csr_array(seen[:, None]), sparse.csr_array((seen / n)[:, None])
    entries = np.array([mean**2 / squares])
    counts = Counts(np.zeros(2), matrix, np.zeros(2), np.zeros((2, 2)), 0.0, entries, own)
    np.testing.assert_allclose(counts.covariance(np.array([content])), wanted, rtol=0.05)


HYPER = np.log([0.3, 0.25, 0.3, 0.05, 0.05])  # of one axis


def test_prescaled_pairs_weigh_where_they_are():
    """Half of the bins hold pairs of weight ten; truths drawn from the prior: pulls and χ² are unit."""
    weight = np.where(np.arange(N) < N // 2, 10.0, 1.0)
    matrix, rng, pulls, distance = sparse.csr_array(sparse.eye_array(N)), stream(13, "prescaled"), [], []
    prior = Prior(np.full(N, 900.0), (N,), np.arange(N))
    basis = prior.basis(HYPER)[:, 1:]  # without the overall scale
    for _ in range(60):
        field = basis @ rng.normal(size=basis.shape[1]) + 0.05 * rng.normal(size=N)
        true = 900 * np.exp(field)
        pairs = rng.poisson(true / weight)
        own = mean_weights(pairs * weight, pairs * weight**2, (N,))
        found = fit(Counts(pairs * weight, matrix, np.zeros(N), np.zeros((N, N)), own), prior, HYPER)
        pulls.append((found.content - true) / np.sqrt(np.diag(found.cov)))
        distance.append((found.goodness.chi2 - found.goodness.mean) / found.goodness.spread)
    np.testing.assert_allclose(own[[0, -1]], [10.0, 1.0])
    heavy, light = np.array(pulls)[:, : N // 2], np.array(pulls)[:, N // 2 :]
    # neighbours share their errors: a quarter of the pulls counts
    np.testing.assert_allclose([heavy.std(), light.std()], 1.0, atol=3 / np.sqrt(2 * heavy.size / 4))
    assert abs(np.mean(distance)) < 4 / np.sqrt(60)


def test_cells_that_expect_nothing_do_not_make_a_bad_fit():
    """Many cells of 0.02 pairs: one pair in some of them is as it should be; pairs in forty are not."""
    true = np.concatenate([np.full(24, 40.0), np.full(126, 0.02)])
    rng, matrix = stream(15, "sparse"), sparse.csr_array(np.diag(np.where(true > 1, 1.0, 0.0)))
    prior, nothing = Prior(true, (150,), np.arange(150)), np.zeros((150, 150))
    seen, base = rng.poisson(true, (20, 150)).astype(float), np.where(true > 1, 0.0, true)

    def far(one):
        goodness = fit(Counts(one, matrix, base, nothing), prior, HYPER).goodness
        return (goodness.chi2 - goodness.mean) / goodness.spread

    distance = np.array([far(one) for one in seen])
    assert abs(distance.mean()) < 4 / np.sqrt(20) + 0.5  # 0.5: the truth is smoother than the prior
    assert np.abs(distance).max() < 4
    seen[0, 50:90] += 1.0
    assert far(seen[0]) > 5
