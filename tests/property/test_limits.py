"""Upper limits of counting searches: the order that CLs keep for any counts, backgrounds and levels."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from joint_models import model

from gammastar.infer import counting_limit, upper_limit
from gammastar.infer.joint.limits import joint_asymptotic
from gammastar.infer.joint.model import JointEffect

COUNTS, BACKGROUNDS, LEVELS = st.integers(0, 12), st.floats(0, 10), st.floats(0.68, 0.99)
METHODS = st.sampled_from(["none", "marginalised", "exact"])
LOOSE = 1 + 1e-4  # what the search for the limit leaves open
STEEP = 3.0  # more than d ln(limit)/dσ anywhere below ln κ = 0.9: a jump would be steeper


def limit(count, background, method="none", *, cl=0.9, sigma=0.0):
    """Return the limit with the same uncertainty of signal and background."""
    if method == "none":
        return counting_limit(count, background, cl=cl, method="none")
    return counting_limit(count, background, cl=cl, method=method, signal_sigma=sigma, background_sigma=sigma)


@given(cl=LEVELS)
def test_nothing_seen_and_nothing_expected(cl):
    assert limit(0, 0.0, cl=cl) == pytest.approx(-math.log(1 - cl), rel=1e-4)
    assert upper_limit(0.0, 0.0, 0, cl=cl).observed == pytest.approx(-math.log(1 - cl), rel=1e-4)


@pytest.mark.long
@given(background=BACKGROUNDS, cl=LEVELS)
def test_nothing_seen_is_worth_the_same_at_any_background(background, cl):
    """CLs(s) = e^(−s−b)/e^(−b) without uncertainties."""
    assert limit(0, background, cl=cl) == pytest.approx(-math.log(1 - cl), rel=1e-4)


@given(count=COUNTS, background=BACKGROUNDS, cl=LEVELS)
def test_the_limit_is_where_cls_is_one_minus_the_level(count, background, cl):
    """Against the sum of Poisson probabilities, written out."""

    def at_most(mean):
        return math.fsum(math.exp(-mean + k * math.log(mean) - math.lgamma(k + 1)) for k in range(count + 1))

    s = limit(count, background, cl=cl)
    below = at_most(background) if background > 0 else 1.0
    assert at_most(s + background) / below == pytest.approx(1 - cl, rel=2e-3)


@settings(max_examples=30)
@given(count=COUNTS, background=BACKGROUNDS, method=METHODS, sigma=st.floats(0.05, 0.3))
@example(count=0, background=2.2e-309, method="marginalised", sigma=0.25)
def test_more_events_weaken_a_limit(count, background, method, sigma):
    fewer, more = (limit(n, background, method, sigma=sigma) for n in (count, count + 1))
    assert more >= fewer / LOOSE


@settings(max_examples=30)
@given(count=COUNTS, background=BACKGROUNDS, step=st.floats(0, 3), method=METHODS, sigma=st.floats(0.05, 0.3))
def test_more_background_strengthens_a_limit(count, background, step, method, sigma):
    assert limit(count, background + step, method, sigma=sigma) <= LOOSE * limit(
        count, background, method, sigma=sigma
    )


@settings(max_examples=30)
@given(count=COUNTS, background=BACKGROUNDS, levels=st.tuples(LEVELS, LEVELS), method=METHODS)
def test_a_higher_level_weakens_a_limit(count, background, levels, method):
    low, high = (limit(count, background, method, cl=cl, sigma=0.2) for cl in sorted(levels))
    assert high >= low / LOOSE


@settings(max_examples=15)
@given(background=BACKGROUNDS, cl=LEVELS)
def test_expected_bands_are_in_order(background, cl):
    found = upper_limit(background, 0.2, "masked", signal_sigma=0.1, cl=cl, method="none")
    assert np.isnan(found.observed)
    assert (np.diff(found.expected) >= -1e-9).all()
    assert found.expected[0] >= -math.log(1 - cl) / LOOSE


@settings(max_examples=20)
@given(
    count=COUNTS,
    background=BACKGROUNDS,
    errors=st.tuples(st.floats(0, 1.2), st.floats(0, 1.2)),
    background_sigma=st.floats(0, 1.0),
)
def test_a_less_certain_signal_weakens_a_limit(count, background, errors, background_sigma):
    certain, less = (
        counting_limit(count, background, signal_sigma=s, background_sigma=background_sigma)
        for s in sorted(errors)
    )
    assert less >= certain / LOOSE


@pytest.mark.long
@settings(max_examples=40)
@given(
    count=COUNTS,
    at=st.tuples(st.floats(0.01, 1.2), st.floats(0.01, 1.0), st.floats(0.01, 60.0)),
    which=st.sampled_from([0, 1, 2]),
)
@example(count=0, at=(math.log(1.25), 0.3, 3.0), which=0)
@example(count=3, at=(math.log(1.25), 0.3, 3.0), which=1)
@example(count=20, at=(0.2, 0.2, 20.0), which=2)
def test_limits_nowhere_jump(count, at, which):
    """One per mille more of κ or b: no limit has a logarithm that rises more than ten times as steeply."""
    more = [value * (1.001 if i == which else 1.0) for i, value in enumerate(at)]
    here, there = (upper_limit(b, t, count, signal_sigma=s).observed for s, t, b in (at, more))
    assert abs(math.log(there / here)) < 0.01


@pytest.mark.long
@settings(max_examples=12, deadline=None)
@given(
    where=st.sampled_from(["signal", "background"]),
    pairs=st.sampled_from([20.0, 60.0, 1000.0]),
    background=st.sampled_from([0.05, 0.5, 5.0]),
    sigma=st.floats(0.0, 0.8),
    step=st.floats(0.001, 0.1),
)
def test_joint_limits_rise_without_jumps_with_the_uncertainty(where, pairs, background, sigma, step):
    """The median limit of pairs and search, and for the signal's own error that of any count."""

    def found(size):
        effects = (JointEffect("size", **{where: size}),) if size > 0 else ()
        changes = {"templates": {}, "effects": effects, "background": np.array([background])}
        limit = joint_asymptotic(model(pairs, bins=4, cells=3, **changes))
        return np.array([limit.expected[2], limit.observed if where == "signal" else limit.expected[2]])

    less, more = found(sigma), found(sigma + step)
    assert (more >= less / LOOSE).all()
    assert (more <= less * LOOSE * np.exp(STEEP * step)).all()
