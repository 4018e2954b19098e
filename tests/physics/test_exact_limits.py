"""Exact counting limits against published and closed-form values, coverage, limiting cases."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import gammaincc
from scipy.stats import chi2, norm, poisson

from gammastar.core.errors import PhysicsError
from gammastar.infer import counting_limit, expected_limits
from gammastar.infer.counting import count_probabilities, counting_cls

POT = np.log(1.2)


@pytest.mark.parametrize(
    ("count", "background", "limit"),
    [(0, 0.01, 2.303), (0, 0.5, 2.303), (0, 3, 2.303), (1, 0.5, 3.508), (3, 3, 4.362), (10, 10, 6.630)],
)
def test_no_nuisance(count, background, limit):
    assert counting_limit(count, background) == pytest.approx(limit, abs=6e-4)


@pytest.mark.parametrize(
    ("sigma", "method", "limit"),
    [
        (POT, "exact", 2.4857),
        (0.20, "exact", 2.5247),
        (POT, "marginalised", 2.3527),
        (0.20, "marginalised", 2.3630),
        (POT, "none", 2.3026),
    ],
)
def test_na62_readings(sigma, method, limit):
    ours = counting_limit(0, 0.0094, signal_sigma=sigma, background_sigma=np.log(4), method=method)
    assert ours == pytest.approx(limit, abs=6e-5)


@pytest.mark.long
def test_na62_cls_of_signals():
    ours = counting_cls([2.0, np.log(10), 2.4857, 3.0], 0, 0.0094, signal_sigma=POT, method="exact")
    assert ours == pytest.approx([0.1528, 0.1172, 0.1000, 0.0646], abs=6e-5)


def test_no_background_is_classical():
    counts = np.arange(30)
    classical = 0.5 * chi2.ppf(0.95, 2 * (counts + 1))
    assert counting_limit(counts, 0.0, cl=0.95) == pytest.approx(classical, rel=1e-9)


def test_large_counts_are_gaussian():
    n = 1_000_000
    assert counting_limit(n, float(n)) == pytest.approx(1.64485 * np.sqrt(n), rel=2e-3)  # CLs: 1 − Φ = 0.1/2


def test_small_nuisances_vanish():
    for method in ("exact", "marginalised"):
        ours = counting_limit(4, 2.0, signal_sigma=1e-6, background_sigma=1e-6, method=method)
        assert ours == pytest.approx(counting_limit(4, 2.0), rel=1e-5)


@pytest.mark.parametrize("method", ["exact", "marginalised", "none"])
@pytest.mark.parametrize(("background", "sigma"), [(0.0094, np.log(4)), (3.0, 0.3), (0.0, 0.0), (15.0, 0.1)])
def test_cls_at_the_limit(method, background, sigma):
    counts = np.arange(8)
    nuisances = {"signal_sigma": POT, "background_sigma": sigma, "method": method}
    limits = counting_limit(counts, background, **nuisances)
    assert counting_cls(limits, counts, background, **nuisances) == pytest.approx(np.full(8, 0.1), rel=1e-6)


@pytest.mark.long
@pytest.mark.parametrize(
    ("signal", "count", "background", "sigmas"),
    [
        (300.0, 300, 100.0, (0.2, np.log(3.0))),
        (20.0, 40, 30.0, (0.05, 1.4)),
        (500.0, 1000, 500.0, (1.0, 0.1)),
        (3.0, 1, 0.01, (0.5, np.log(4.0))),
    ],
)
def test_averages_against_a_fine_grid(signal, count, background, sigmas):
    """The trapezoidal rule with a step far below the widths; 61 Gauss-Hermite nodes miss it by 1.6 %."""
    theta = np.linspace(-8.5, 8.5, 1501)
    weight = np.exp(-0.5 * theta**2) / np.exp(-0.5 * theta**2).sum()
    s, b = signal * np.exp(sigmas[0] * theta), background * np.exp(sigmas[1] * theta)
    wanted = (weight @ (gammaincc(count + 1.0, s[:, None] + b) @ weight)) / (
        gammaincc(count + 1.0, b) @ weight
    )
    options = {"signal_sigma": sigmas[0], "background_sigma": sigmas[1], "method": "marginalised"}
    assert counting_cls(signal, count, background, **options) == pytest.approx(wanted, rel=1e-6)
    limit = counting_limit(count, background, **options)
    assert counting_cls(limit, count, background, **options) == pytest.approx(0.1, rel=1e-6)


def test_averaged_limits_of_many_counts_are_those_of_each():
    counts = np.arange(5, 300, 10)
    options = {"signal_sigma": 0.3, "background_sigma": 0.5, "method": "marginalised"}
    some = counting_limit(counts[::6], 40.0, **options)
    np.testing.assert_allclose(counting_limit(counts, 40.0, **options)[::6], some, rtol=1e-6)


@pytest.mark.parametrize("kappa", [1.25, 1.63, 3.0])
@pytest.mark.parametrize("background", [0.01, 3.0])
def test_coverage_with_an_uncertain_signal(kappa, background):
    """Sums over counts and the measurement of the signal: averaged limits keep the level."""
    sigma, signal = np.log(kappa), np.array([3.0, 8.0, 20.0])
    n = np.arange(120)
    fractions = {}
    for method in ("exact", "marginalised"):
        limits = counting_limit(n, background, signal_sigma=sigma, method=method)
        seen = poisson.pmf(n[:, None], signal + background)
        fractions[method] = (seen * norm.cdf(np.log(signal / limits[:, None]) / sigma)).sum(axis=0)
    assert (fractions["exact"] < 0.053).all()
    assert (fractions["marginalised"] < 0.105).all()
    assert fractions["marginalised"][-1] > 0.085


@pytest.mark.long
@pytest.mark.parametrize("method", ["none", "marginalised"])
@pytest.mark.parametrize("background", [0.05, 1.0, 6.0])
def test_coverage(method, background):
    """A true signal is excluded in at most 10 % of pseudo-experiments (CLs: less where it is small)."""
    sigma = 0.0 if method == "none" else 0.2
    rng = np.random.default_rng(5)
    limits = counting_limit(
        np.arange(50), background, signal_sigma=sigma, background_sigma=sigma, method=method
    )
    signal = np.array([0.5, 2.0, 5.0, 12.0, 25.0])
    assert limits[-1] > signal[-1]  # more events exclude none of them
    theta = sigma * rng.normal(size=(2, 50_000, 1))
    counts = rng.poisson(signal * np.exp(theta[0]) + background * np.exp(theta[1]))
    excluded = np.mean(limits[np.minimum(counts, 49)] < signal, axis=0)
    error = np.sqrt(0.1 * 0.9 / 50_000)
    assert np.all(excluded < 0.1 + 3 * error)
    assert excluded[0] < 0.02  # no exclusion without sensitivity


@pytest.mark.parametrize("shift", [-1.0, 0.0, 1.0])
def test_plug_in_coverage_at_shifted_exposure(shift):
    """With the exposure one standard deviation low or high the plug-in limit keeps to 10 % but for 1 %."""
    signal, background = np.array([2.0, 5.0, 12.0]), 1.0
    limits = counting_limit(np.arange(100), background, signal_sigma=0.03)
    probability = poisson.pmf(np.arange(100)[:, None], signal * np.exp(0.03 * shift) + background)
    excluded = np.sum(probability * (limits[:, None] < signal), axis=0)
    assert np.all(excluded < 0.11)


def test_expected_bands():
    assert expected_limits(0.0094, signal_sigma=POT, method="exact") == pytest.approx(
        np.full(5, 2.4857), abs=1e-4
    )
    spread = expected_limits(1e-9, signal_sigma=POT, method="exact", randomise_pot=True)
    assert spread == pytest.approx(2.48575 * 1.2 ** np.arange(-2, 3), rel=1e-4)
    for method in ("exact", "marginalised", "none"):
        bands = expected_limits(8.0, signal_sigma=0.1, background_sigma=0.1, method=method)
        assert np.all(np.diff(bands) > 0)


def test_count_probabilities():
    counts, probability = count_probabilities(4.0)
    assert probability == pytest.approx(poisson.pmf(counts, 4.0), abs=1e-6)
    assert probability.sum() == pytest.approx(1.0)
    counts, probability = count_probabilities(0.0)
    assert counts.tolist() == [0.0]


NUISANCE = st.sampled_from(["none", "exact"])
SIGMA = st.floats(0.0, 0.8)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.0, 40.0), SIGMA, SIGMA, NUISANCE)
@example(5e-324, 0.0, 0.5, "exact")  # found by chance: the product with a square is zero
def test_more_events_weaker_limit(background, signal_sigma, background_sigma, method):
    nuisances = {"signal_sigma": signal_sigma, "background_sigma": background_sigma, "method": method}
    limits = counting_limit(np.arange(40), background, **nuisances)
    assert np.all(np.isfinite(limits))
    assert np.all(np.diff(limits) > 0)


@pytest.mark.long
@settings(max_examples=60, deadline=None)
@given(st.integers(0, 30), st.floats(0.0, 20.0), st.floats(0.01, 5.0), SIGMA)
def test_more_background_stronger_limit(count, background, more, signal_sigma):
    low = counting_limit(count, background + more, signal_sigma=signal_sigma)
    high = counting_limit(count, background, signal_sigma=signal_sigma)
    assert low <= high * (1 + 1e-12)
    assert low >= -np.log(0.1) * (1 - 1e-12)  # never below zero events


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((0, -1.0), {}),
        ((0, np.nan), {}),
        ((-1, 1.0), {}),
        ((0.5, 1.0), {}),
        ((np.nan, 1.0), {}),
        ((0, 1.0), {"cl": 0.0}),
        ((0, 1.0), {"cl": 1.0}),
        ((0, 1.0), {"cl": 1.7}),
        ((0, 1.0), {"cl": np.nan}),
        ((0, 1.0), {"signal_sigma": -0.1}),
        ((0, 1.0), {"background_sigma": np.inf}),
        ((0, 1.0), {"method": "profile"}),
    ],
)
def test_refused(arguments, options):
    with pytest.raises(PhysicsError, match=r"counting limit"):
        counting_limit(*arguments, **options)


def test_negative_signal_refused():
    with pytest.raises(PhysicsError, match="signal yield"):
        counting_cls(-1.0, 0, 1.0)
