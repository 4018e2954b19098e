"""Limits as records: averaged over the nuisances at any count, asymptotic only where it says so."""

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.infer import counting, counting_limit, upper_limit
from gammastar.infer.counting import expected_limits_of, limits_at

POT = np.log(1.2)


def test_na62_electrons():
    limit = upper_limit(0.0094, np.log(4), 0, signal_sigma=POT, method="exact")
    assert limit.observed == pytest.approx(2.4857, abs=1e-4)
    assert limit.mc_error == 0.0
    assert limit.cl == 0.9
    assert "κ 1.2" in limit.method
    assert (np.diff(limit.expected) > 0).all()
    fixed = upper_limit(0.0094, np.log(4), 0, signal_sigma=POT, randomise_pot=False, method="exact")
    assert fixed.expected == pytest.approx(np.full(5, 2.4857), abs=1e-4)


def test_nuisances_are_averaged_at_any_error_of_the_signal():
    """3.99 events at κ = 1.63 with nuisances at their fit are 2.67 then."""
    limit = upper_limit(0.01, 0.0, 0, signal_sigma=np.log(1.63))
    assert "nuisances averaged" in limit.method
    assert limit.observed == pytest.approx(2.67, abs=5e-3)
    plug_in = upper_limit(0.01, 0.0, 0, signal_sigma=np.log(1.63), method="exact")
    assert plug_in.observed == pytest.approx(np.log(10) * 1.63 ** (np.log(1.63) * np.log(10)), rel=1e-6)
    sigma = np.log([[1.05, 1.2, 1.3, 1.6, 1.7]])
    observed, _, _ = limits_at(sigma, 0.01, 0.0, 0)
    wanted = [counting_limit(0, 0.01, signal_sigma=s) for s in sigma[0]]
    np.testing.assert_allclose(observed[0], wanted, rtol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize("background", [0.3, 19.0, 21.0, 900.0])
def test_limits_know_no_step(background):
    """A small step of κ or b moves a limit by as little, and in one direction, at few counts as at many."""
    n, step = round(background), 1e-3
    limit = {
        (s, b): float(counting_limit(n, background + b, signal_sigma=s, background_sigma=0.2))
        for s in (0.0, 0.2, 0.2231 - step, 0.2231 + step, 0.5)
        for b in (0.0, step * background)
    }
    for b in (0.0, step * background):
        row = [limit[s, b] for s in (0.0, 0.2, 0.2231 - step, 0.2231 + step, 0.5)]
        assert (np.diff(row) > 0).all()
        assert row[3] / row[2] - 1 < 4 * step  # d ln s/dσ is below two there
    for s in (0.0, 0.2, 0.5):  # a per mille of b is less than a hundredth of the limit
        assert -1e-6 < 1 - limit[s, step * background] / limit[s, 0.0] < 0.01


@pytest.mark.parametrize("sigma", [0.0, 0.2, 0.5])
def test_limits_rise_evenly_with_the_count(sigma):
    """From few to many events, past twenty: one event more raises a limit, and by no jump."""
    counts = np.arange(8, 33)
    limit = counting_limit(counts, 20.0, signal_sigma=sigma, background_sigma=0.1)
    step = np.diff(limit)
    assert (step > 0).all()
    assert np.abs(np.diff(step)).max() < 0.1 * step.max()


def test_half_of_the_observed_count_lowers_a_limit():
    """CLs = [P(< n) + ½ P(n)] with signal over that without; nothing changes where no event is seen."""
    found = float(counting_limit(2, 0.8, method="mid-p"))
    weight = np.array([1.0, 1.0, 0.5]) / [1, 1, 2]
    tails = [np.exp(-m) * (weight * np.power(m, [0, 1, 2])).sum() for m in (found + 0.8, 0.8)]
    assert tails[0] / tails[1] == pytest.approx(0.1, rel=1e-6)
    assert found < counting_limit(2, 0.8, method="none")
    none = counting_limit(0, 0.8, signal_sigma=0.3, method="mid-p")
    assert none == pytest.approx(counting_limit(0, 0.8, signal_sigma=0.3), rel=1e-7)


def test_many_events_are_enumerated_like_few():
    """Of 1e5 ± 300 events every median is that of a Gaussian: σ Φ⁻¹(1 − 0.1/2), and its error is averaged."""
    limit = upper_limit(1e5, 0.0, "masked")
    assert limit.expected[2] == pytest.approx(1.64485 * np.sqrt(1e5), rel=5e-3)
    wide = upper_limit(1e5, 0.02, "masked")
    assert wide.expected[2] == pytest.approx(1.64485 * np.sqrt(1e5 + 2000.0**2), rel=0.03)


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


@pytest.mark.long
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


@pytest.mark.parametrize("probability", [1e-8, 0.16, 0.5, 1 - 1e-8])
def test_quantiles_of_the_largest_poisson_numbers(monkeypatch, probability):
    """Beyond 2e10 scipy has none: a background of a million known to a factor e³ ended in a traceback."""
    exact = counting.poisson_quantile(probability, 3e9)
    monkeypatch.setattr(counting, "LARGEST_MEAN", 1e9)
    assert counting.poisson_quantile(probability, 3e9) == pytest.approx(exact, abs=2)
    monkeypatch.undo()
    counts, weights = counting.count_probabilities(1e6, 3.0)
    assert counts[-1] > 1e10
    assert weights.sum() == pytest.approx(1.0)
