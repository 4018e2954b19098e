"""Signed event weights are the subtraction, for any pairs, weights, grid and estimate."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar.core.pairs import Pairs
from gammastar.core.records import PairHists, filled, regular
from gammastar.subtract import event_weights, same_sign

AXES = (regular("mass", 4, 0.2, 1.0), regular("pt", 3, 0.0, 1.5))


def make_pairs(seed, n, share):
    rng = np.random.default_rng(seed)
    charge = rng.choice(np.array([0, 2, -2], np.int8), size=n, p=[0.5, 0.5 * share, 0.5 * (1 - share)])
    weight = rng.uniform(0.5, 2, n)
    return Pairs(
        rng.uniform(0.1, 1.1, n), rng.uniform(0, 1.7, n), np.full(n, 30.0), charge, weight, np.arange(n)
    )


def histogram(pairs, mask, power=1, weight=None):
    w = pairs.weight if weight is None else weight
    edges = [axis.edges for axis in AXES]
    return np.histogram2d(pairs.mass[mask], pairs.pt[mask], edges, weights=w[mask] ** power)[0]


def fill(pairs):
    sets = (histogram(pairs, mask) for mask in (pairs.os, pairs.pp, pairs.mm))
    squares = (histogram(pairs, mask, 2) for mask in (pairs.os, pairs.pp, pairs.mm))
    return PairHists(*(filled(AXES, v, s) for v, s in zip(sets, squares, strict=True)))


@settings(max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 400),
    share=st.floats(0.05, 0.95),
    method=st.sampled_from(["geometric mean", "sum", "regions"]),
    coarse=st.sampled_from([None, {"mass": [0.2, 0.6, 1.0]}, {"mass": [0.2, 0.4, 1.0], "pt": [0, 0.5, 1.5]}]),
    r=st.floats(0.5, 2),
)
def test_weights_sum_to_the_formula(seed, n, share, method, coarse, r):
    pairs = make_pairs(seed, n, share)
    r_factor = np.linspace(r, 1.1 * r, 12).reshape(4, 3) if method in ("geometric mean", "regions") else 1.0
    weight = event_weights(pairs, AXES, method=method, r_factor=r_factor, coarse=coarse)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        spectrum = same_sign(fill(pairs), method=method, r_factor=r_factor, coarse=coarse)
    everything = np.ones(len(pairs), bool)
    found = histogram(pairs, everything, weight=weight)
    np.testing.assert_allclose(found, spectrum.values, rtol=1e-12, atol=1e-12 * max(pairs.weight.sum(), 1))
    eigenvalues = np.linalg.eigvalsh(spectrum.cov)
    assert eigenvalues.min() >= -1e-9 * max(eigenvalues.max(), 1)


@settings(max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.integers(0, 400),
    method=st.sampled_from(["geometric mean", "regions"]),
    r=st.floats(0.0, 3.0),
    sigma=st.floats(0.0, 0.5),
)
def test_r_scales_what_is_subtracted_and_its_errors(seed, n, method, r, sigma):
    hists = fill(make_pairs(seed, n, 0.6))
    os, var_os = hists.os.values(), hists.os.variances().ravel()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        unit = same_sign(hists, method=method, r_factor=1.0)
        found = same_sign(hists, method=method, r_factor=r, r_factor_sigma=sigma)
    size = os - unit.values
    np.testing.assert_allclose(found.values, os - r * size, rtol=1e-12, atol=1e-9)
    own, shift = unit.cov - np.diag(var_os), sigma * size.ravel()
    expected = np.diag(var_os) + r**2 * own + np.outer(shift, shift)
    np.testing.assert_allclose(found.cov, expected, rtol=1e-9, atol=1e-9 * max(var_os.max(), 1))


@pytest.mark.parametrize("r", [1.0, 1.3])
def test_squared_weights_are_the_variance(r):
    pairs, method = make_pairs(5, 4000, 0.6), "geometric mean"
    weight = event_weights(pairs, AXES, method=method, r_factor=r)
    everything = np.ones(len(pairs), bool)
    spectrum = same_sign(fill(pairs), method=method, r_factor=r)
    found = histogram(pairs, everything, 2, weight).ravel()
    np.testing.assert_allclose(found, np.diag(spectrum.cov), rtol=1e-12)


def test_squared_weights_of_regions_miss_only_the_charge_ratio():
    pairs = make_pairs(6, 4000, 0.6)
    weight = event_weights(pairs, AXES)
    found = histogram(pairs, np.ones(len(pairs), bool), 2, weight).ravel()
    assert np.diag(same_sign(fill(pairs)).cov) == pytest.approx(found, rel=0.02)


def test_pairs_outside_the_axes_weigh_nothing():
    pairs = make_pairs(7, 300, 0.5)
    outside = (pairs.mass < 0.2) | (pairs.mass >= 1.0) | (pairs.pt >= 1.5)
    assert outside.any()
    assert not event_weights(pairs, AXES)[outside].any()
