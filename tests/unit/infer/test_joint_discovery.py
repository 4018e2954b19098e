"""Discoveries and projections of the joint likelihood: pyhf, counting searches, closed forms, toys."""

from dataclasses import replace

import numpy as np
import pyhf
import pytest
from joint_models import MODELS, as_pyhf, model, peer, slopes_of
from scipy.optimize import brentq, minimize_scalar
from scipy.stats import norm, poisson

from gammastar.core.errors import PhysicsError
from gammastar.infer import discovery_yield, observed_significance, projected_yields
from gammastar.infer.joint.discovery import discovery_strengths, joint_significance, q_zero
from gammastar.infer.joint.expectation import Point, arrays_of, fit, signal_of
from gammastar.infer.joint.limits import JointLimits, draw_joint, joint_asymptotic, joint_limit
from gammastar.infer.joint.model import JointEffect, JointModel

ASYMPTOTIC = JointLimits(method="asymptotic")


def exact_pairs(**changes):
    """Return a model whose pairs are so many that they fix the signal, three events of it."""
    return model(4e6, named=False, variance=np.zeros((8, 6)), **changes)


@pytest.mark.long
@pytest.mark.parametrize("name", ["window", "two bins of the search"])
def test_q_zero_and_p_value_are_those_of_pyhf(name):
    built, data = peer(MODELS[name])
    found = joint_significance(MODELS[name])
    config = built.config
    settings = config.suggested_init(), config.suggested_bounds(), config.suggested_fixed()
    with slopes_of(MODELS[name]):
        theirs = float(pyhf.infer.test_statistics.q0(0.0, data, built, *settings))
    assert found.q == pytest.approx(theirs, abs=5e-6)
    assert found.p_value == pytest.approx(norm.sf(np.sqrt(found.q)))


@pytest.mark.long
def test_q_zero_in_situ_is_that_of_pyhf_from_our_minimum():
    """From its own start pyhf ends in a second minimum, without signal."""
    one = MODELS["in situ"].scaled(10.0)  # its strength is 105, beyond the bound of pyhf
    built, data = peer(one)
    found = fit(arrays_of(one), one.data, most=100.0).point
    at = as_pyhf(one, built, found.core[0], found.like[0], found.gamma[0]).tolist()
    free = pyhf.infer.mle.fit(data, built, init_pars=at, return_fitted_val=True)[1]
    fixed = pyhf.infer.mle.fixed_poi_fit(0.0, data, built, init_pars=at, return_fitted_val=True)[1]
    assert joint_significance(one).q == pytest.approx(float(fixed - free), abs=5e-6)
    assert joint_significance(one).q > 0.5


@pytest.mark.long
@pytest.mark.parametrize("size", [0.0, 30.0, 3000.0])
def test_pairs_say_nothing_about_the_background_of_a_search(size):
    counts = {"counts": np.zeros((3, 8))} if size == 0 else {}
    one = model(max(size, 1.0), named=False, observed=np.array([4.0]), **counts)
    assert joint_significance(one).q == pytest.approx(2 * (4 * np.log(4 / 0.5) - 3.5), abs=2e-3)
    few = replace(one, observed=np.array([0.0]))
    assert joint_significance(few).p_value == pytest.approx(0.5, abs=2e-3)


def test_p_values_of_many_pairs_without_signal_are_uniform():
    """In situ, 600 pseudo-experiments: half of them have no excess, the others p₀ as the formula says."""
    peak = np.exp(-0.5 * ((np.arange(8) - 3.5) / 0.8) ** 2)[:, None]
    plain = model(4000.0, named=False)
    nothing = {"signal": np.zeros((3, 0)), "background": np.zeros(0), "observed": np.zeros(0)}
    # cells that are wider than the peak cannot imitate it
    wide = np.exp(-0.5 * ((np.linspace(0, 1, 8)[:, None] - np.linspace(0.1, 0.9, 3)) / 0.35) ** 2)
    wide *= 0.4 / wide.sum(axis=0)
    one = replace(
        plain,
        **nothing,
        pairs=np.full(3, 4000 / 0.4 / 3),
        response=wide,
        variance=np.zeros((8, 3)),
        in_situ=0.05 * peak * wide,
    )
    arrays, n = arrays_of(one), 600
    truth = Point(np.r_[0.0, np.ones(3), 0.0][None], np.ones((1, 8)), np.ones((1, 8)))
    toys = draw_joint(arrays, truth, n, np.random.default_rng(3))
    p = norm.sf(np.sqrt(q_zero(arrays, toys)))
    for level in (0.05, 0.1, 0.3):
        assert np.mean(p < level) == pytest.approx(level, abs=4 * np.sqrt(level * (1 - level) / n))
    assert np.mean(p > 0.49) == pytest.approx(0.5, abs=4 * 0.5 / np.sqrt(n))


@pytest.mark.long
def test_pseudo_experiments_give_the_poisson_tail():
    """A known background of half an event, and three are seen."""
    found = joint_significance(model(30.0, named=False), "exact", n_toys=1300, seed=1)
    assert found.p_value == pytest.approx(poisson.sf(2, 0.5), abs=4 * found.error)
    assert found.significance == pytest.approx(norm.isf(found.p_value))
    none = joint_significance(model(30.0, named=False, observed=np.array([40.0])), "exact", n_toys=99)
    assert none.p_value == 0.01  # as far as so many pseudo-experiments can see


@pytest.mark.long
@pytest.mark.parametrize("background", [0.5, 25.0])
def test_many_pairs_give_the_discovery_yield_of_a_counting_search(background):
    effects = JointEffect("pot", signal=0.3), JointEffect("background_norm", background=0.2)
    one = exact_pairs(effects=effects, background=np.array([background]))
    found, method = discovery_strengths(one, (3.0, 5.0), JointLimits(method="exact", n_toys=2000))
    assert "enumeration" in method
    wanted = [discovery_yield(background, 0.2, significance=z, signal_sigma=0.3) / 3.0 for z in (3.0, 5.0)]
    assert found == pytest.approx(wanted, rel=0.03)  # 2000 signals of 30 %: their median to 1 %


@pytest.mark.long
def test_half_of_all_experiments_reach_the_significance_of_their_median():
    one, n = model(30.0), 1000
    (strength,), _ = discovery_strengths(one, (3.0,), JointLimits(method="exact", n_toys=700))
    arrays, rng = arrays_of(one), np.random.default_rng(8)
    plain = one.with_search([0.5])
    found = fit(arrays, draw_joint(arrays, fit(arrays, plain, 0.0).point, n, rng), 0.0).point
    signal = signal_of(arrays, found)[:, 0]
    counts = rng.poisson(strength * signal + 0.5 * np.exp(0.4 * rng.standard_normal(n)))
    reached = {count: observed_significance(count, 0.5, 0.4) >= 3.0 for count in np.unique(counts).tolist()}
    assert np.mean([reached[count] for count in counts.tolist()]) == pytest.approx(0.5, abs=2.5 / np.sqrt(n))


@pytest.mark.long
def test_asimov_data_of_a_discovery_have_its_significance_with_pyhf():
    one = replace(MODELS["window"], observed=None)
    strengths, method = discovery_strengths(one, (3.0, 5.0), ASYMPTOTIC)
    assert "Asimov" in method
    found = fit(arrays_of(one), one.with_search(one.background), 0.0).point
    built, _ = peer(one)
    config = built.config
    settings = config.suggested_init(), config.suggested_bounds(), config.suggested_fixed()
    for strength, z in zip(strengths, (3.0, 5.0), strict=True):
        at = as_pyhf(one, built, np.r_[strength, found.core[0, 1:]], found.like[0], found.gamma[0])
        data = np.array(built.expected_data(at))
        with slopes_of(one):
            q = pyhf.infer.test_statistics.q0(0.0, data, built, *settings)
        assert float(np.sqrt(q)) == pytest.approx(z, abs=2e-3)


def test_without_pairs_no_strength_promises_a_discovery():
    bare = model(1.0, named=False, counts=np.zeros((3, 8)), templates={})
    found, _ = discovery_strengths(bare, (3.0,), JointLimits(method="exact", n_toys=50))
    assert np.isinf(found).all()


def test_masked_searches_and_searches_without_background_have_no_significance():
    with pytest.raises(PhysicsError, match="masked"):
        joint_significance(replace(MODELS["window"], observed=None))
    with pytest.raises(PhysicsError, match="must be 'asymptotic' or 'exact'"):
        joint_significance(MODELS["window"], "marginalised")
    bare = replace(MODELS["no effects"], background=np.zeros(1))
    with pytest.raises(PhysicsError, match="with 0 events"):
        discovery_strengths(bare, (3.0,), JointLimits(method="exact"))


def test_the_present_exposure_is_its_own_projection():
    one = MODELS["window"]
    assert one.exposed(1.0) is one
    with pytest.raises(PhysicsError, match="no exposure of its own"):
        MODELS["in situ"].exposed(2.0)


@pytest.mark.long
def test_projections_are_those_of_a_counting_search_where_pairs_are_many():
    """The error of the background, 20 %, stays and bounds what more exposure gains."""
    one = exact_pairs(effects=(JointEffect("background_norm", background=0.2),), background=np.array([25.0]))
    factors = [4.0, 100.0, 1e4]
    ours = [3.0 * joint_asymptotic(one.exposed(f)).expected[2] for f in factors]
    theirs = projected_yields(25.0, factors, background_sigma=0.2, method="asymptotic")
    assert ours == pytest.approx(theirs, rel=0.01)
    assert ours[2] == pytest.approx(ours[1], rel=0.05)
    assert ours[1] > 0.5 * ours[0]


def test_the_calibration_dictates_limits_of_long_runs():
    """Forty pairs in one bin and a background that is known: the limit falls as 1/√exposure, times what the
    pairs leave open. min over n of y² n² + 2 (n − N + N ln N/n) is 1.645² there, y the strength per √b.
    """
    cell, n = np.ones((1, 1)), 40.0
    counts = np.array([[n], [0.0], [0.0]])
    one = JointModel(np.array([n]), cell, 0 * cell, counts, 0.1 * cell, np.array([4.0]))

    def excess(y):
        found = minimize_scalar(
            lambda m: (y * m) ** 2 + 2 * (m - n + n * np.log(n / m)), bounds=(1e-3, 2 * n), method="bounded"
        )
        return found.fun - norm.isf(0.05) ** 2

    open_pairs = brentq(excess, 1e-3, 1.0)
    assert n * open_pairs > 1.03 * norm.isf(0.05)
    limit = joint_asymptotic(one.exposed(1e6)).expected[2]
    assert limit * 0.1 * np.sqrt(1e6 / 4.0) == pytest.approx(open_pairs, rel=0.01)


@pytest.mark.long
def test_a_projection_needs_the_median_alone():
    asked, one = JointLimits(method="exact", n_toys=150, bands=False), MODELS["no effects"].exposed(4.0)
    median = joint_limit(one, asked, seed=2).expected
    assert np.isfinite(median).tolist() == [False, False, True, False, False]
    assert median[2] == pytest.approx(joint_asymptotic(one).expected[2], rel=0.4)
