"""The same-sign background: published biases, pulls of toys, the covariance and the alarms."""

import warnings

import numpy as np
import pytest
from builders import pair_hists

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.subtract import (
    LowCountWarning,
    bootstrap_covariance,
    control_ratio,
    event_weights,
    negative_yields,
    same_sign,
)
from gammastar.subtract.weights import charge_factors

ONE_REGION = np.zeros(500, dtype=np.int64)


def cocktail(n_cells=48, asymmetry=1.6):
    """Expectations (signal, ++, --) with b/s from about 0.1 to 2 and at least 10 same-sign pairs a cell."""
    x = (np.arange(n_cells) + 0.5) / n_cells
    combinatorial = 30 + 250 * x * np.exp(-3 * x)
    signal = combinatorial / (0.1 + 1.9 * x)
    ratio = np.sqrt(asymmetry)
    return signal, combinatorial / 2 * ratio, combinatorial / 2 / ratio


@pytest.mark.long
@pytest.mark.parametrize("method", ["regions", "geometric mean"])
def test_toys_have_unit_pulls_and_coverage(method):
    signal, pp, mm = cocktail()
    r = np.linspace(0.9, 1.2, len(signal))
    rng = stream(11, "pulls", method)
    pulls = []
    for _ in range(200):
        os = rng.poisson(signal + 2 * r * np.sqrt(pp * mm))
        result = same_sign(pair_hists(os, rng.poisson(pp), rng.poisson(mm)), method=method, r_factor=r)
        pulls.append((result.values - signal) / np.sqrt(np.diag(result.cov)))
    pulls = np.concatenate(pulls)
    assert abs(pulls.mean()) < 0.1
    assert 0.95 < pulls.std() < 1.05
    assert np.mean(np.abs(pulls) < 1) == pytest.approx(0.683, abs=0.03)


def test_covariance_is_that_of_the_derivatives():
    """Of few cells whose charge ratios differ, in two regions: numbers moved one by one."""
    n = np.array([[400.0, 90.0, 10.0], [300.0, 40.0, 30.0], [200.0, 25.0, 60.0], [100.0, 16.0, 9.0]])

    def found(cells):
        return same_sign(pair_hists(*cells.T), r_factor=1.1, coarse={"mass": [0.2, 0.95, 1.2]})

    slopes = np.zeros((4, n.size))
    for k in range(n.size):
        step = np.zeros(n.size)
        step[k] = 1e-3
        up, down = (found(n + sign * step.reshape(n.shape)).values for sign in (1, -1))
        slopes[:, k] = (up - down) / 2e-3
    np.testing.assert_allclose(found(n).cov, slopes @ np.diag(n.ravel()) @ slopes.T, rtol=1e-5, atol=1e-6)


@pytest.mark.long
def test_full_covariance_matches_the_scatter_of_toys():
    """A steep charge ratio inside the region makes the coarse term large: total and χ² must still fit."""
    pp, mm = np.linspace(200, 40, 8), np.linspace(20, 120, 8)
    rng = stream(12, "cov")
    toys = [same_sign(pair_hists(pp * 4, rng.poisson(pp), rng.poisson(mm))).values for _ in range(600)]
    seen = np.cov(np.array(toys), rowvar=False)
    expected = same_sign(pair_hists(pp * 4, pp, mm)).cov - np.diag(pp * 4)
    assert seen.sum() / expected.sum() == pytest.approx(1, abs=3.5 * np.sqrt(2 / len(toys)))
    scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
    assert np.abs((seen - expected) / scale).max() < 0.18


@pytest.mark.parametrize(("mean", "bias"), [(0.25, -0.78), (0.5, -0.62), (1, -0.40), (2, -0.20), (5, -0.057)])
def test_low_counts_bias_b1_as_poisson_sums_say_and_leave_b5(mean, bias):
    rng = stream(13, "low", mean)
    pp, mm = (rng.poisson(mean, (400, 500)).astype(float) for _ in range(2))
    truth = 2 * mean * 500
    for method, expected, tolerance in (
        ("geometric mean", bias, 0.01),
        ("sum", 0, 0.01),
        ("regions", 0, 0.01),
    ):
        f_pp, f_mm = charge_factors(pp, mm, method, ONE_REGION)
        found = (f_pp * pp + f_mm * mm).sum(axis=1).mean() / truth - 1
        assert found == pytest.approx(expected, abs=tolerance), method


@pytest.mark.parametrize(("ratio", "bias"), [(1.5, 0.021), (2.5, 0.107)])
def test_arithmetic_mean_overestimates_an_asymmetric_background(ratio, bias):
    pp, mm = np.array([1e6 * ratio]), np.array([1e6])
    exact = same_sign(pair_hists([1e7], pp, mm), method="geometric mean").values
    plain = same_sign(pair_hists([1e7], pp, mm), method="sum").values
    assert (1e7 - plain) / (1e7 - exact) - 1 == pytest.approx(bias, abs=5e-4)


def test_r_error_is_fully_correlated():
    _, pp, mm = cocktail(6)
    data = pair_hists(pp * 3, pp, mm)
    exact, loose = same_sign(data), same_sign(data, r_factor_sigma=0.05)
    added = loose.cov - exact.cov
    size = 2 * np.sqrt(pp * mm)
    np.testing.assert_allclose(added, 0.05**2 * np.outer(size, size), rtol=1e-10)


def test_coarse_grid_follows_a_changing_charge_ratio():
    axes = (regular("mass", 4, 0.2, 1.0), regular("pt", 2, 0, 2))
    pp = np.array([[400, 400]] * 2 + [[100, 100]] * 2)
    mm = np.array([[100, 100]] * 2 + [[400, 400]] * 2)
    data = pair_hists(np.full((4, 2), 1000), pp, mm, axes)
    fine = same_sign(data, coarse={"mass": [0.2, 0.6, 1.0]})
    np.testing.assert_allclose(fine.values, 1000 - 2 * np.sqrt(pp * mm))
    assert not np.allclose(same_sign(data).values, fine.values)
    assert fine.cov[0, 7] == 0
    assert fine.domain.shape == (4, 2)
    with pytest.raises(UserError, match="must be edges"):
        same_sign(data, coarse={"mass": [0.2, 0.55, 1.0]})
    with pytest.raises(UserError, match="no axis 'y'"):
        same_sign(data, coarse={"y": [0, 1]})


def test_low_counts_warn_where_the_ratio_is_formed():
    data = pair_hists([10, 10], [20, 1], [20, 1])
    with pytest.warns(LowCountWarning, match="regions"):
        same_sign(pair_hists([10, 10], [20, 3], [20, 3]), method="geometric mean")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        same_sign(data, method="geometric mean")  # under 5 % of the background
        same_sign(pair_hists([1] * 9, [2] * 9, [2] * 9))  # 18 pairs of each charge in the one region


def test_refuses_what_has_no_meaning():
    data = pair_hists([10], [20], [20])
    for options, words in (
        ({"method": "B9"}, "unknown"),
        ({"method": "sum", "r_factor": 1.1}, "takes no r_factor"),
        ({"r_factor": np.ones(3)}, "shape"),
        ({"r_factor_sigma": -1.0}, "not negative"),
    ):
        with pytest.raises(UserError, match=words):
            same_sign(data, **options)


def test_sub_poisson_singles_fire_the_control_ratio():
    """Bernoulli(0.35) + Bernoulli(0.175) per charge, no signal: the background is 2.25 times 2√(N++ N--)."""
    rng = stream(14, "bernoulli")
    plus, minus = ((rng.random((2, 300_000)) < [[0.35], [0.175]]).sum(axis=0) for _ in range(2))
    data = pair_hists(*([np.sum(n)] for n in (plus * minus, plus * (plus - 1) / 2, minus * (minus - 1) / 2)))
    ratio, sigma = control_ratio(data, np.array([True]))
    assert ratio == pytest.approx(2.25, abs=4 * sigma)
    assert (ratio - 1) / sigma > 5
    corrected, _ = control_ratio(data, np.array([True]), r_factor=2.25)
    assert corrected == pytest.approx(1, abs=4 * sigma / 2.25)


def test_negative_yield_alarm_names_the_cell():
    """Split tracks: 46 opposite-sign, 58 ++ and 38 -- pairs gave −4 standard deviations."""
    data = pair_hists([46, 300], [58, 40], [38, 26])
    result = same_sign(data, method="geometric mean")
    (alarm,) = negative_yields(result)
    assert alarm.index == (0,)
    assert alarm.value / alarm.sigma == pytest.approx(-4.0, abs=0.15)
    assert "mass 0.2-0.7" in str(alarm)


def test_no_pairs_give_an_empty_spectrum():
    result = same_sign(pair_hists([0, 0], [0, 0], [0, 0]))
    assert result.values.tolist() == [0, 0]
    assert not result.domain.any()


def toy_pairs(rng, n_events=10_000):
    """Singles of both charges in every event, all pairs kept, as columns."""
    plus, minus = rng.poisson(0.7, n_events), rng.poisson(0.5, n_events)
    common = rng.gamma(2, 0.2, n_events)  # pairs of one event lie near each other
    parts = []
    for charge, number in ((0, plus * minus), (2, plus * (plus - 1) // 2), (-2, minus * (minus - 1) // 2)):
        event = np.repeat(np.arange(n_events), number)
        n = len(event)
        mass, pt = 0.2 + common[event] + rng.gamma(2, 0.05, n), rng.gamma(2, 0.3, n)
        parts.append(Pairs(mass, pt, 20 + mass, np.full(n, charge, np.int8), np.ones(n), event))
    return Pairs.concatenate(parts)


@pytest.mark.long
def test_event_bootstrap_matches_the_scatter_of_samples():
    rng = stream(15, "events")
    axes = (regular("mass", 3, 0.2, 2.2),)
    found = np.mean([bootstrap_covariance([toy_pairs(rng)], axes) for _ in range(4)], axis=0)
    toys = []
    for _ in range(100):
        pairs = toy_pairs(rng)
        toys.append(np.histogram(pairs.mass, axes[0].edges, weights=event_weights(pairs, axes))[0])
    seen = np.cov(np.array(toys), rowvar=False)
    np.testing.assert_allclose(np.diag(found) / np.diag(seen), 1, atol=0.5)  # 14 % and 14 % noise
    assert found.sum() / seen.sum() == pytest.approx(1, abs=0.5)


def test_event_bootstrap_keeps_the_pairs_of_an_event_together():
    """Every pair twice in its event: twice the yield with the same relative error, not 1/√2 of it."""
    axes = (regular("mass", 3, 0.2, 2.2),)
    pairs = toy_pairs(stream(17, "twice"), 4000)
    once, twice = (bootstrap_covariance(parts, axes, n_replicas=50) for parts in ([pairs], [pairs, pairs]))
    np.testing.assert_allclose(twice, 4 * once, rtol=1e-9, atol=1e-9 * once.max())


def test_pairs_without_the_column_are_refused():
    pairs = toy_pairs(stream(16, "column"), 100)
    with pytest.raises(UserError, match="no column 'angle'"):
        event_weights(pairs, (regular("angle", 2, 0, 1),))
    assert event_weights(Pairs.empty(), (regular("mass", 2, 0.2, 1),)).shape == (0,)
