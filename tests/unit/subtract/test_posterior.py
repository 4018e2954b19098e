"""Posterior weights: sums and projections against the signed weights, and the mean pt of the signal."""

import numpy as np
import pytest

from gammastar.core.axes import regular
from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.sampling import stream
from gammastar.subtract import event_weights, posterior_weights
from gammastar.subtract.moment_weights import moment_weights
from gammastar.subtract.posterior import fit_posterior

AXES = (regular("mass", 12, 0.2, 1.4), regular("pt", 10, 0.0, 2.5), regular("energy", 8, 5, 85))


def mock(rng, n_signal, b_over_s, asymmetry=1.4):
    """Signal with <pt> = 0.75 GeV at every mass, soft background, like-sign pairs of the same shape."""

    def signal(n):
        mass = np.where(rng.random(n) < 0.5, 0.22 + rng.exponential(0.2, n), rng.normal(0.776, 0.05, n))
        return mass, rng.gamma(2.5, 0.3, n)

    def background(n):
        return 0.22 + rng.gamma(2, 0.18, n), rng.gamma(2, 0.18, n)

    n_b = int(b_over_s * n_signal)
    counts = [rng.poisson(n) for n in (n_signal, n_b, n_b / 2 * asymmetry**0.5, n_b / 2 / asymmetry**0.5)]
    parts = [signal(counts[0])] + [background(n) for n in counts[1:]]
    charge = np.repeat(np.array([0, 0, 2, -2], np.int8), counts)
    mass, pt = (np.concatenate([part[k] for part in parts]) for k in range(2))
    n = len(mass)
    return Pairs(mass, pt, 5 + rng.exponential(20, n), charge, np.ones(n), np.arange(n))


@pytest.mark.parametrize(
    "b_over_s", [pytest.param(0.1, marks=pytest.mark.slow), 0.5, pytest.param(2.0, marks=pytest.mark.slow)]
)
def test_sum_and_projections(b_over_s):
    rng = stream(1, "posterior", str(b_over_s))
    pairs = mock(rng, 10_000, b_over_s)
    signed = event_weights(pairs, AXES)
    weight = posterior_weights(pairs, signed, rng=rng)
    assert (weight >= 0).all()
    assert not weight[~pairs.os].any()
    assert weight.sum() == pytest.approx(signed.sum(), rel=1e-9)
    assert signed.sum() == pytest.approx(10_000, abs=4 * np.sqrt(np.sum(signed**2)) + 100)
    for pick in ((0,), (1,), (2,), (0, 1), (0, 2), (1, 2)):
        columns = [getattr(pairs, AXES[i].name) for i in pick]
        a, b, v = (
            np.histogramdd(columns, [AXES[i].edges for i in pick], weights=w)[0]
            for w in (signed, weight, signed**2)
        )
        assert np.mean((a - b)[v > 0] ** 2 / v[v > 0]) < 1.5
    for low, high in ((0.3, 0.5), (0.7, 0.85)):
        window = (pairs.mass > low) & (pairs.mass < high)
        plain = np.average(pairs.pt[window & pairs.os])
        cured = np.average(pairs.pt[window], weights=weight[window])
        assert abs(cured - 0.75) < 0.06
        if b_over_s > 1:
            assert plain < 0.7


def test_without_background_the_weights_are_the_pairs():
    rng = stream(2, "pure")
    pairs = mock(rng, 1000, 0.0)
    signed = event_weights(pairs, AXES)
    np.testing.assert_array_equal(posterior_weights(pairs, signed, rng=rng), signed)


def test_a_model_of_the_pairs_gives_their_weights():
    rng = stream(4, "model")
    pairs = mock(rng, 1500, 0.5)
    signed = event_weights(pairs, AXES)
    model = fit_posterior(pairs, signed, rng=stream(5, "fit"))
    weight = model.weights(pairs, signed)
    together = posterior_weights(pairs, signed, rng=stream(5, "fit"))
    np.testing.assert_allclose(together, weight * (signed.sum() / weight.sum()), rtol=1e-12)
    part = np.arange(0, len(pairs), 3)
    np.testing.assert_array_equal(model.weights(pairs.select(part), signed[part]), weight[part])


def moments(x, weight):
    terms = [np.ones(len(x)), *x.T, *(x**2).T, x[:, 0] * x[:, 1]]
    return np.array([np.sum(term * weight) for term in terms])


def test_moment_weights_give_slices_the_signed_moments_and_grow_with_the_sample():
    rng = stream(6, "tilts")
    sizes = []
    for n in (2000, 32_000):
        along, x = rng.exponential(size=n), np.clip(rng.normal(size=(n, 2)), -2.0, 2.0)
        signed = np.where(rng.random(n) < 0.1, -1.0, 1.0)
        positive = np.where(signed > 0, np.exp(0.3 * x[:, 0]), 0.0)  # far from the signed ones
        made = moment_weights(along, x, signed, positive, error=0.1)
        weight = positive * made.factors(along, x)
        place = np.searchsorted(made.cuts, along)
        for number in range(len(made.centre)):
            inside = place == number
            assert np.sqrt(inside.sum()) <= 0.1 * signed[inside].sum()
            expected = moments(x[inside], signed[inside])
            np.testing.assert_allclose(moments(x[inside], weight[inside]), expected, atol=1e-5 * expected[0])
        sizes.append(len(made.centre))
    assert sizes[0] > 4
    assert 8 <= sizes[1] / sizes[0] <= 32


def test_moment_weights_undo_a_distortion_of_their_own_form():
    rng, n = stream(8, "undo"), 20_000
    along, x = rng.random(n), np.clip(rng.normal([2.0, -1.0], [1.0, 0.6], (n, 2)), [0.0, -2.2], [4.0, 0.2])
    signed = rng.uniform(0.5, 1.5, n)
    a, b = x.T
    wrong = signed * np.exp(0.3 - 0.2 * a + 0.1 * b**2 - 0.1 * a * b)
    made = moment_weights(along, x, signed, wrong, error=0.1)
    np.testing.assert_allclose(wrong * made.factors(along, x), signed, rtol=1e-5)


def test_moments_that_no_density_has_leave_fewer():
    x = np.array([[-1.0, 0.0], [0.0, 0.1], [1.0, -0.1], [0.0, 0.0], [0.1, 0.1], [1.0, 0.0], [-1.0, 0.0]])
    signed = np.array([1.0, 4.0, 1.0, 4.0, 4.0, -3.0, -3.0])  # of negative variance
    positive = np.maximum(signed, 0.0)
    made = moment_weights(np.zeros(7), x, signed, positive, error=1.0)
    weight = positive * made.factors(np.zeros(7), x)
    assert not made.coefficients[0, 3:].any()
    np.testing.assert_allclose(moments(x, weight)[:3], moments(x, signed)[:3], atol=1e-6)


def test_moment_weights_of_too_few_pairs_are_one():
    x = np.array([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    signed = np.array([1.0, -2.0, 0.5])
    made = moment_weights(np.zeros(3), x, signed, np.array([1.0, 0.0, 1.0]), error=0.1)
    np.testing.assert_array_equal(made.factors(np.array([-9.0, 9.0]), np.zeros((2, 2))), [1.0, 1.0])
    with pytest.raises(UserError, match="error"):
        moment_weights(np.zeros(3), x, np.ones(3), np.ones(3), error=0.0)


def test_slices_without_a_positive_weight_stay_and_leave_the_others_alone():
    rng = stream(9, "empty")
    along, x = rng.random(2000), rng.normal(size=(2000, 2))
    signed, positive = np.ones(2000), np.where(along < 0.5, 0.7, 0.0)
    made = moment_weights(along, x, signed, positive, error=0.1)
    factors = made.factors(along, x)
    place = np.searchsorted(made.cuts, along)
    empty = np.bincount(place, positive)[place] == 0
    assert 500 < empty.sum() < 1500
    np.testing.assert_array_equal(factors[empty], 1.0)
    whole = np.bincount(place, positive == 0)[place] == 0
    np.testing.assert_allclose(factors[whole], 1 / 0.7, rtol=1e-6)


def test_refuses():
    rng = stream(3, "refuse")
    pairs = mock(rng, 100, 0.5)
    signed = event_weights(pairs, AXES)
    with pytest.raises(UserError, match="theta"):
        posterior_weights(pairs, signed, rng=rng, features=("theta",))
    with pytest.raises(UserError, match="folds"):
        posterior_weights(pairs, signed, rng=rng, n_folds=1)
    with pytest.raises(UserError, match="signed weights"):
        posterior_weights(pairs, signed[:5], rng=rng)
