"""What the finite simulation does to an iterative unfolding: covariance of first order, bias of second."""

from dataclasses import replace

import numpy as np
import pytest
from builders import counted, matched_pairs

from gammastar import unfold
from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Response, regular
from gammastar.core.sampling import event_seeds, replica_weights, stream
from gammastar.unfold import response_matrix

AXIS = (regular("mass", 12, 0.2, 1.4),)
FEW = (regular("mass", 4, 0.2, 1.4),)
N = 12


def simulated(rng, n, *, prior=0.35, resolution=0.05):
    """A falling spectrum with 50 MeV resolution and an efficiency that rises with the mass."""
    mass = 0.2 + rng.exponential(prior, n)
    true = np.stack([mass, np.ones(n), np.full(n, 20.0)], axis=1)
    reco = true + rng.standard_normal((n, 1)) * np.array([resolution, 0.0, 0.0])
    reco[rng.random(n) > 0.2 + 0.5 * mass / (mass + 0.5)] = np.nan
    return matched_pairs(true, reco)


def seen(sample, axes=AXIS):
    return counted(np.histogram(sample.reco[sample.reconstructed, 0], axes[0].edges)[0].astype(float), axes)


@pytest.fixture(scope="module")
def made():
    rng = stream(1, "made")
    response = unfold.response(simulated(rng, 20_000), AXIS, AXIS, n_replicas=12, rng=rng)
    return response, seen(simulated(rng, 20_000, prior=0.4)).values


@pytest.mark.parametrize("n_iterations", [1, 2, 7])
@pytest.mark.parametrize("start", ["fluctuates", "exact"])
def test_covariance_is_the_derivative_by_the_response(made, n_iterations, start):
    """Oracle: unfolding with replicas that are drawn together to a thousandth of their deviation."""
    response, y = made
    if start == "exact":
        response = replace(response, prior_replicas=np.zeros((0, N)))
    tiny, results = 1e-3, []
    for k, migration in enumerate(response.cov_replicas):
        p = response.migration + tiny * (migration - response.migration)
        prior = response.prior
        if start == "fluctuates":
            prior = prior + tiny * (response.prior_replicas[k] - prior)
        near = Response(p, p.sum(axis=0), response.fakes, AXIS, AXIS, prior, np.zeros((0, N, N)))
        results.append(unfold.iterative_bayes.unfold_values(y, near, prior, n_iterations)[0])
    wanted = np.cov(results, rowvar=False) / tiny**2
    found = unfold.iterative_bayes.mc_statistics(y, response, response.prior, n_iterations)
    np.testing.assert_allclose(found, wanted, rtol=0.02, atol=2e-3 * wanted.max())


def test_a_start_that_is_given_is_exact(made):
    response, y = made
    given, default = (unfold.iterative(counted(y, AXIS), response, prior=p) for p in (response.prior, None))
    np.testing.assert_array_equal(given.values, default.values)
    exact = replace(response, prior_replicas=np.zeros((0, N)))
    np.testing.assert_array_equal(given.cov, unfold.iterative(counted(y, AXIS), exact).cov)
    assert not np.allclose(given.cov, default.cov, rtol=1e-3)


def test_replicas_in_single_precision_give_the_same(made):
    response, y = made
    single = replace(response, cov_replicas=response.cov_replicas.astype(np.float32))
    for which in (unfold.iterative_bayes.mc_statistics, unfold.iterative_bayes.simulation_bias):
        a, b = (which(y, r, response.prior, 4) for r in (response, single))
        np.testing.assert_allclose(b, a, rtol=2e-3, atol=2e-4 * np.abs(a).max())


@pytest.mark.long
def test_bias_without_migration_is_that_of_an_inverse_binomial():
    """n = y/ε with ε of T pairs: ⟨1/ε̂⟩ = (1 + (1 − ε)/(ε T))/ε to second order."""
    rng, replicas = stream(2, "diagonal"), 12_000
    sample = simulated(rng, 700, resolution=0.0)
    response = unfold.response(sample, FEW, FEW, n_replicas=replicas, rng=rng)
    y = np.full(4, 100.0)
    e, t = response.efficiency, response.prior
    for n_iterations in (1, 3):
        found = unfold.iterative_bayes.simulation_bias(y, response, response.prior, n_iterations)
        wanted = y / e * (1 - e) / (e * t)
        noise = y / e * np.sqrt((1 - e) / (e * t) / replicas)
        assert np.all(np.abs(found - wanted) < 4 * noise + 0.15 * wanted)
        assert np.all(wanted > 6 * noise)


@pytest.mark.long
def test_debiased_result_is_nearer_to_the_truth():
    """Small simulations: the mean over them is too high, and the replicas show by how much."""
    rng = stream(3, "toys")
    pool = simulated(rng, 200_000)
    exact = unfold.response(pool, AXIS, AXIS, n_replicas=0)
    truth = exact.prior / 100
    data = counted(exact.migration @ truth / (1 - exact.fakes), AXIS)
    plain, better = [], []
    toys = 130
    for _ in range(toys):
        drawn = part(pool, rng.integers(0, 200_000, 800))
        response = unfold.response(drawn, AXIS, AXIS, n_replicas=40, rng=rng)
        found = [unfold.iterative(data, response, n_iterations=4, debias=d) for d in (False, True)]
        np.testing.assert_array_equal(found[0].cov, found[1].cov)
        plain.append(found[0].values - truth)
        better.append(found[1].values - truth)
    scatter = np.std(plain, axis=0, ddof=1)
    offset = np.array([(np.array(x) / scatter).mean(axis=1) for x in (plain, better)])
    (high, low), error = offset.mean(axis=1), offset.std(axis=1, ddof=1).max() / np.sqrt(toys)
    assert high > 3.5 * error
    assert abs(low) < min(3.5 * error, 0.5 * high)
    assert np.mean(np.std(better, axis=0, ddof=1) / scatter) < 1.15


def test_nothing_is_subtracted_without_replicas(made):
    response, y = made
    plain = response_matrix.without_replicas(response)
    both = [unfold.iterative(counted(y, AXIS), plain, debias=d) for d in (False, True)]
    np.testing.assert_array_equal(both[0].values, both[1].values)
    assert not unfold.iterative_bayes.simulation_bias(y, plain, plain.prior, 4).any()


def test_bias_is_no_systematic_shift(made):
    """Shifts are those of the plain unfolding: a one-sided source does not pick up what debias subtracts."""
    response, y = made
    varied = [unfold.Variation("efficiency", None, unfold.systematics.scaled_response(response, 1.02))]

    def shift(debias):
        unfolder = lambda m, r: unfold.iterative(m, r, debias=debias)  # noqa: E731
        return unfold.with_systematics(counted(y, AXIS), response, unfolder, varied)

    (first, a), (second, b) = shift(False), shift(True)
    np.testing.assert_allclose(b[0].shift, a[0].shift, rtol=1e-12)
    np.testing.assert_allclose(a[0].total, 1 / 1.02 - 1, rtol=1e-6)
    assert not np.allclose(first.values, second.values, rtol=1e-3)


def test_true_spectra_of_replicas_must_fit(made):
    response, _ = made
    with pytest.raises(PhysicsError, match="prior_replicas has shape"):
        replace(response, prior_replicas=np.ones((3, N)))


def test_streamed_and_binned_responses_carry_the_true_spectra():
    rng = stream(4, "parts")
    sample = simulated(rng, 3000)
    drawn = unfold.response(sample, AXIS, AXIS, n_replicas=30, rng=rng)
    spread = drawn.prior_replicas.std(axis=0, ddof=1) / np.sqrt(drawn.prior)
    assert drawn.prior_replicas.shape == (30, N)
    assert np.mean(spread) == pytest.approx(1, abs=0.15)

    def draw(event, numbers):
        return replica_weights(event_seeds(event, run=int(stream(5, "draw").integers(2**63))), numbers)

    halves = [part(sample, slice(0, 1500)), part(sample, slice(1500, 3000))]
    streamed = unfold.response(halves, AXIS, AXIS, n_replicas=6, rng=stream(5, "draw"))
    np.testing.assert_allclose(
        (streamed.cov_replicas * streamed.prior_replicas[:, None]).sum(axis=(1, 2)),
        [draw(sample.event[inside(sample)], range(k, k + 1)).sum() for k in range(6)],
    )


def part(sample, rows):
    arrays = (sample.true, sample.reco, sample.weight, sample.event)
    return MatchedPairs(*(a[rows] for a in arrays), np.empty((0, 3)), np.empty(0))


def inside(sample):
    low, high = AXIS[0].edges[[0, -1]]
    return np.all([(x >= low) & (x < high) for x in (sample.true[:, 0], sample.reco[:, 0])], axis=0)


@pytest.mark.parametrize("tau", [0.0, 0.02])
def test_least_squares_move_with_the_simulation_as_their_derivative_says(tau):
    """Oracle: fits with replicas that are drawn together to a thousandth of their deviation."""
    rng, wide = stream(6, "made"), (regular("mass", 24, 0.2, 1.4),)
    response = unfold.response(simulated(rng, 20_000), wide, FEW, n_replicas=12, rng=rng)
    data = counted(1.3 * response.migration @ response.prior**1.1, wide)
    tiny, found = 1e-3, []
    for migration in response.cov_replicas:
        p = response.migration + tiny * (migration - response.migration)
        near = replace(response_matrix.without_replicas(response), migration=p, efficiency=p.sum(axis=0))
        found.append(unfold.tikhonov(data, near, tau=tau).values)
    one, other = (unfold.tikhonov(data, r, tau=tau).cov for r in (response, near))
    wanted = np.cov(found, rowvar=False) / tiny**2
    np.testing.assert_allclose(one - other, wanted, rtol=0.02, atol=5e-3 * wanted.max())
