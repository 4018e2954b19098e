"""Limits as records: exact below twenty events, asymptotic only where it says so."""

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.infer import counting_limit, upper_limit
from gammastar.infer.counting import expected_limits_of, limits_at

POT = np.log(1.2)


def test_na62_electrons():
    limit = upper_limit(0.0094, np.log(4), 0, signal_sigma=POT)
    assert limit.observed == pytest.approx(2.4857, abs=1e-4)
    assert limit.mc_error == 0.0
    assert limit.cl == 0.9
    assert "κ 1.2" in limit.method
    assert (np.diff(limit.expected) > 0).all()
    fixed = upper_limit(0.0094, np.log(4), 0, signal_sigma=POT, randomise_pot=False)
    assert fixed.expected == pytest.approx(np.full(5, 2.4857), abs=1e-4)


def test_nuisances_are_averaged_where_the_signal_is_uncertain():
    """Beyond κ = 1.25, one treatment for a whole scan; 3.99 events at κ = 1.63 are 2.67 then."""
    for kappa, averaged in ((1.2, False), (1.3, True), (1.63, True)):
        limit = upper_limit(0.01, 0.0, 0, signal_sigma=np.log(kappa))
        assert ("nuisances averaged" in limit.method) == averaged
        assert f"{'beyond' if averaged else 'up to'} a signal κ of 1.25" in limit.method
    assert limit.observed == pytest.approx(2.67, abs=5e-3)
    plug_in = upper_limit(0.01, 0.0, 0, signal_sigma=np.log(1.63), averaged_from=2.0)
    assert plug_in.observed == pytest.approx(np.log(10) * 1.63 ** (np.log(1.63) * np.log(10)), rel=1e-6)
    sigma = np.log([[1.05, 1.2, 1.3, 1.6, 1.7]])
    observed, _, typical = limits_at(sigma, 0.01, 0.0, 0)
    wanted = [counting_limit(0, 0.01, signal_sigma=s, method="marginalised") for s in sigma[0]]
    np.testing.assert_allclose(observed[0], wanted, rtol=1e-4)
    assert "beyond" in typical.method


@pytest.mark.parametrize("observed", ["masked", "asimov"])
def test_masked(observed):
    limit = upper_limit(3.0, 0.0, observed)
    assert np.isnan(limit.observed)
    assert limit.expected[2] == pytest.approx(counting_limit(3, 3.0))


def test_no_background_is_said():
    assert "b = 0 assumed" in upper_limit(0.0, 0.0, 0).method
    assert "b = 0 assumed" not in upper_limit(0.1, 0.0, 0).method


@pytest.mark.parametrize(
    ("count", "background", "asymptotic"),
    [(0, 0.01, 1.372), (0, 3.0, 1.953), (1, 0.5, 2.825), (3, 3.0, 3.814), (10, 10.0, 6.140)],
)
def test_asymptotic_is_too_strong(count, background, asymptotic):
    limit = upper_limit(background, 0.0, count, method="asymptotic")
    assert limit.observed == pytest.approx(asymptotic, abs=1e-3)
    assert limit.observed < counting_limit(count, background)
    assert "too strong" in limit.method


def test_asymptotic_agrees_at_large_counts():
    limit = upper_limit(2000.0, 0.01, 2000, signal_sigma=0.05, method="asymptotic")
    exact = upper_limit(2000.0, 0.01, 2000, signal_sigma=0.05, method="marginalised", randomise_pot=False)
    assert "too strong" not in limit.method
    assert limit.observed == pytest.approx(exact.observed, rel=0.015)
    assert limit.expected[1:4] == pytest.approx(exact.expected[1:4], rel=0.03)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((-1.0, 0.0, 0), {}),
        ((np.nan, 0.0, 0), {}),
        ((np.nan, 0.0, "masked"), {}),
        ((1.0, -0.1, 0), {}),
        ((1.0, 0.0, -1), {}),
        ((1.0, 0.0, "open"), {}),
        ((1.0, 0.0, 0), {"cl": 1.0}),
        ((1.0, 0.0, 0), {"method": "toys"}),
        ((1.0, np.nan, "masked"), {"method": "asymptotic"}),
    ],
)
def test_refused(arguments, options):
    with pytest.raises(PhysicsError):
        upper_limit(*arguments, **options)


@pytest.mark.parametrize(("count", "background"), [(0, 0.01), (3, 0.5), (3, 3.0), (12, 10.0)])
def test_averaged_limits_rise_smoothly_with_the_error_of_the_signal(count, background):
    """No uncertainty of the signal makes a limit stronger, and small steps of it make small steps."""
    for background_sigma in (0.0, 0.4, 1.0):
        size = {"background_sigma": background_sigma, "method": "marginalised"}
        sigma = np.linspace(0.0, 1.2, 13)
        found = [float(counting_limit(count, background, signal_sigma=s, **size)) for s in sigma]
        step = np.diff(np.log(found))
        assert (step > 0).all()
        assert step.max() < 0.25


@pytest.mark.parametrize("sigma", [0.0, 0.02])
def test_many_events_have_the_error_of_their_expectation(sigma):
    """Beyond the counts that are enumerated: against the asymptotic limit of the likelihood."""
    background = 3e4
    found = expected_limits_of(background, background_sigma=sigma)
    wanted = upper_limit(background, sigma, "masked", method="asymptotic").expected
    np.testing.assert_allclose(found, wanted, rtol=0.01 + 2 * sigma)  # a log-normal is not symmetric
