"""The joint likelihood: against pyhf in value, fit and limit; slopes; exact sums where they exist; faults."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pyhf
import pytest
from data_sets import joint_nll
from iminuit import Minuit
from joint_models import MODELS, as_pyhf, drawn, model, peer, slope_of, slopes_of
from scipy.optimize import brentq
from scipy.stats import norm, poisson

from gammastar.core.errors import PhysicsError
from gammastar.infer import asymptotic_limit, counting_channel, counting_limit, to_hs3
from gammastar.infer.binned import fits
from gammastar.infer.binned.model import binned_model
from gammastar.infer.joint import expectation, limits
from gammastar.infer.joint.expectation import (
    GridPoint,
    Point,
    arrays_of,
    curvature,
    expected,
    fit,
    joint_patchset,
    joint_workspace,
)
from gammastar.infer.joint.limits import (
    JointLimits,
    draw_joint,
    joint_asymptotic,
    joint_cls,
    joint_limit,
    q_tilde,
    tail_probabilities,
    unit_of,
)
from gammastar.infer.joint.model import JointEffect


@pytest.mark.parametrize("name", MODELS)
def test_likelihood_is_that_of_pyhf(name):
    one = MODELS[name]
    built, data = peer(one)
    arrays = arrays_of(one)
    for seed in range(5):
        core, like, gamma = drawn(one, seed)
        point = Point(core[None], like[None], gamma[None])
        ours = joint_nll(arrays, point, one.data)[0]
        theirs = -float(built.logpdf(as_pyhf(one, built, core, like, gamma), data)[0])
        assert ours == pytest.approx(theirs, abs=1e-10)


def test_the_charge_ratio_is_that_of_minus_to_plus_pairs():
    """One standard deviation up: −− pairs times e, ++ pairs over e, in the fits as in the workspace."""
    one = MODELS["no effects"]
    core, like, gamma = (np.stack([x, x]) for x in drawn(one))
    core[:, -1] = 0.0, 1.0
    found = expected(arrays_of(one), Point(core, like, gamma)).pairs
    np.testing.assert_allclose(found[1, 1:] / found[0, 1:], np.exp([[-1.0], [1.0]]) + np.zeros((2, 8)))
    kinds = {
        c["name"]: c["samples"][0]["modifiers"][1]["data"]["hi"]
        for c in joint_workspace(one)["channels"][1:3]
    }
    assert kinds == pytest.approx({"plus_plus": np.exp(-1.0), "minus_minus": np.e})


def test_patched_workspace_has_the_likelihood_of_its_grid_point():
    """Two couplings of one window: pyhf with the patch set against the model of each."""
    plain = MODELS["window"]
    signals = np.stack([plain.signal[:, 0], 3.0 * np.where(np.arange(6) < 2, 0.0, plain.signal[::-1, 0])])
    of_point = ({"signal_mc": 0.1, "widths": 0.05}, {"signal_mc": 0.3, "widths": 0.02})
    largest = replace(plain, signal=signals.max(axis=0)[:, None])
    points = [GridPoint(0.3, 10.0**-k, signals[k], of_point[k]) for k in (0, 1)]
    space, patches = joint_patchset(largest, points)
    known = pyhf.PatchSet(patches)
    known.verify(space)
    assert known.metadata["labels"] == ["mass_GeV", "eps"]
    for k, signal in enumerate(signals):
        own = tuple(JointEffect(name, signal=sigma) for name, sigma in of_point[k].items())
        one = replace(plain, signal=signal[:, None], effects=(*plain.effects, *own))
        patched = pyhf.Workspace(known.apply(space, (0.3, 10.0**-k)))
        built = patched.model()
        core, like, gamma = drawn(one, k)
        ours = joint_nll(arrays_of(one), Point(core[None], like[None], gamma[None]), one.data)
        theirs = -float(built.logpdf(as_pyhf(one, built, core, like, gamma), patched.data(built))[0])
        assert ours[0] == pytest.approx(theirs, abs=1e-10)
    space["observations"][3]["data"] = [4.0]
    with pytest.raises(pyhf.exceptions.PatchSetVerificationError):
        known.verify(space)


def test_signal_where_the_window_has_none_is_no_patch():
    plain = MODELS["window"]
    bare = replace(plain, signal=np.where(np.arange(6) > 0, 1.0, 0.0)[:, None])
    with pytest.raises(PhysicsError, match=r"the point at 0\.3 GeV and 1e-07 has signal in a cell"):
        joint_patchset(bare, [GridPoint(0.3, 1e-7, np.ones(6), {})])
    with pytest.raises(PhysicsError, match="the search has 2 bins"):
        joint_patchset(MODELS["two bins of the search"], [GridPoint(0.3, 1e-7, np.ones(6), {})])


@pytest.mark.parametrize("name", MODELS)
def test_arrays_are_those_of_the_workspace(name):
    """Gradient and Hessian (`test_binned` takes differences of them) of the model made from the workspace."""
    one, i = MODELS[name], MODELS[name].counts.shape[1]
    arrays, peer_model, x = arrays_of(one), binned_model(joint_workspace(one)), np.concatenate(drawn(one))
    places = [
        peer_model.names.index(re.sub(r"^(like_sign|simulation)_(\d+)$", r"\1[\2]", name))
        for name in arrays.binned.names
    ]
    own = np.empty(len(x))
    own[places] = x
    counts, _ = arrays.data(one.data)
    found = curvature(arrays, Point.of(x[None], i), one.data)
    wanted = fits.derivatives(peer_model, own[None], counts, peer_model.aux)
    np.testing.assert_allclose(found[0][0], wanted[0][0][places], atol=1e-9)
    np.testing.assert_allclose(found[1][0], wanted[1][0][np.ix_(places, places)], atol=1e-8)


@pytest.mark.parametrize("name", ["window", "in situ"])
@pytest.mark.parametrize("strength", [None, 2.0])
def test_fit_is_that_of_pyhf(name, strength):
    one = MODELS[name]
    built, data = peer(one)
    arrays = arrays_of(one)
    found = fit(arrays, one.data, strength, most=100.0)
    ours = joint_nll(arrays, found.point, one.data)[0]
    # pyhf begins at our minimum: from its own start the free fit in situ ends in a second one, 0.44 higher
    at = as_pyhf(one, built, found.point.core[0], found.point.like[0], found.point.gamma[0])
    options = {"init_pars": at.tolist(), "return_fitted_val": True}
    if strength is None:
        _, value = pyhf.infer.mle.fit(data, built, **options)
    else:
        _, value = pyhf.infer.mle.fixed_poi_fit(strength, data, built, **options)
    assert found.done.all()
    assert ours == pytest.approx(float(value) / 2, abs=2e-6)
    assert ours < float(value) / 2 + 1e-8  # never above the other minimum


def nearly_empty(pairs, seed):
    """Return a window with so few pairs of any sign, and up to three events of the search."""
    rng, counts = np.random.default_rng([seed, pairs]), np.zeros((3, 8))
    for _ in range(pairs):
        counts[0 if rng.random() < 0.7 else rng.integers(1, 3), rng.integers(0, 8)] += 1
    one = model(
        max(pairs, 1.0),
        seed=seed,
        counts=counts,
        observed=np.array([float(rng.integers(0, 4))]),
        named=bool(seed % 2),
    )
    return one.scaled(unit_of(one))


def minimum(one, built, data, start, bounds, strength):
    """Return where Minuit ends with the likelihood of pyhf, which it gets from ours and its slopes."""
    arrays, n, i = arrays_of(one), built.config.npars, one.counts.shape[1]
    m = n - 2 * i
    ours = as_pyhf(one, built, *np.split(np.arange(n), [m, m + i])).astype(int)  # the place in our order

    def point(x):
        own = np.empty(n)
        own[ours] = x
        return Point.of(own[None], i)

    def nll(x):
        return float(np.nan_to_num(joint_nll(arrays, point(x), one.data)[0], nan=1e10, posinf=1e10))

    held = np.array(built.config.suggested_fixed())
    if strength is not None:
        start[built.config.poi_index], held[built.config.poi_index] = strength, True
    minuit = Minuit(nll, start, grad=slope_of(one, built, data))
    minuit.limits, minuit.errordef, minuit.fixed, minuit.strategy = bounds, 0.5, held, 0
    with np.errstate(all="ignore"):
        minuit.migrad()
    end = np.clip(minuit.values, *np.transpose(bounds))
    assert joint_nll(arrays, point(end), one.data)[0] == pytest.approx(
        -float(built.logpdf(end, data)[0]), abs=1e-9
    )
    return -float(built.logpdf(end, data)[0])


@pytest.mark.long
@pytest.mark.parametrize("pairs", range(6))
def test_nearly_empty_windows_are_fitted_to_the_minimum_of_minuit(pairs):
    """Minuit (pyhf's likelihood) begins where pyhf does, and at our minimum: neither ends lower."""
    for strength in (1.0, None):
        one = nearly_empty(pairs, pairs)
        arrays, (built, data) = arrays_of(one), peer(one)
        found = fit(arrays, one.data, strength, most=1.0 if strength is None else np.inf)
        assert found.done.all()
        ours = joint_nll(arrays, found.point, one.data)[0]
        poi, bounds = built.config.poi_index, list(built.config.suggested_bounds())
        bounds[poi] = (0.0, 1.0)
        mine = as_pyhf(one, built, found.point.core[0], found.point.like[0], found.point.gamma[0])
        for begin in (np.array(built.config.suggested_init()), mine):
            start = np.clip(begin, *np.transpose(bounds))
            assert ours < minimum(one, built, data, start, bounds, strength) + 1e-5


@pytest.mark.long
def test_all_pseudo_experiments_of_nearly_empty_windows_are_fitted():
    """Before steps had a damping of their own one in forty stopped short; every one must end now."""
    for pairs in range(6):
        one = nearly_empty(pairs, 7 + pairs)
        arrays = arrays_of(one)
        toys = draw_joint(arrays, fit(arrays, one.data, 1.0).point, 16, np.random.default_rng(pairs))
        for strength in (1.0, None):
            assert fit(arrays, toys, strength, most=1.0 if strength is None else np.inf).done.all()


@pytest.mark.long
def test_all_pseudo_experiments_of_a_small_simulation_are_fitted():
    """One simulated pair per bin: steps that are cut must still lead down, or one in eighty stops short."""
    one = model(60.0, cells=12)
    one = replace(one, variance=one.response**2)
    arrays = arrays_of(one)
    toys = draw_joint(arrays, fit(arrays, one.data, 0.0).point, 200, np.random.default_rng(5))
    for start in (None, fit(arrays, one.data, 0.0).point.part(np.zeros(200, dtype=np.intp))):
        assert fit(arrays, toys, 0.0, start).done.all()


def test_scale_of_a_window_without_pairs_is_that_of_a_part_of_a_pair():
    """Contents are fitted to nothing there: the scale of the signal must not follow them."""
    empty = model(counts=np.zeros((3, 8)))
    per_pair = float(empty.pairs @ empty.signal[:, 0]) / float((empty.response @ empty.pairs).sum())
    assert unit_of(empty) * 0.1 * per_pair == pytest.approx(3.0, rel=0.01)


@pytest.mark.long
def test_limits_are_those_of_pyhf():
    """CLs of pyhf at our limits is the level, within the tolerance of its optimiser."""
    one = MODELS["window"]
    built, data = peer(one)
    limit = joint_asymptotic(one)
    with slopes_of(one):
        seen = pyhf.infer.hypotest(limit.observed, data, built, test_stat="qtilde")
    assert float(seen) == pytest.approx(0.1, rel=1e-4)


def exact_pairs(**changes):
    """Return a model whose pairs are so many that they fix the signal."""
    return model(4e6, named=False, variance=np.zeros((8, 6)), **changes)


def test_many_pairs_give_the_limit_of_a_counting_search():
    """1e6 pairs know the signal to a part in a thousand; then only the counts of the search are left."""
    one = exact_pairs(observed=np.array([30.0]), background=np.array([25.0]))
    counting = counting_channel("search", signal=3.0, background=25.0, observed=30)
    ours, theirs = joint_asymptotic(one), asymptotic_limit([counting])
    assert 3.0 * ours.observed == pytest.approx(theirs.observed, rel=0.01)
    assert 3.0 * ours.expected == pytest.approx(theirs.expected, rel=0.01)


def mid(events, mean):
    """Return P(N < n) + ½ P(N = n)."""
    return poisson.cdf(events, mean) - 0.5 * poisson.pmf(events, mean)


@pytest.mark.long
def test_pseudo_experiments_give_poisson_sums_where_pairs_are_many():
    """With the signal fixed q̃ orders data sets as their counts do; the pairs split each count in halves."""
    one = exact_pairs()
    for events, strength in ((0.0, 0.7), (3.0, 1.9)):
        rng = np.random.default_rng(2)
        found = joint_cls(arrays_of(one), one.with_search([events]), strength, 300, rng)
        exact = mid(events, 0.5 + 3.0 * strength) / mid(events, 0.5)
        assert found.cls == pytest.approx(exact, abs=4 * found.error)
    limit = joint_limit(one, JointLimits(method="exact", n_toys=150), seed=1)
    exact = brentq(lambda m: mid(3, 0.5 + 3 * m) / mid(3, 0.5) - 0.1, 0.1, 10)
    assert limit.observed == pytest.approx(exact, abs=4 * limit.mc_error)
    assert limit.expected[:3] == pytest.approx(counting_limit(0, 0.5) / 3.0, rel=0.3)


@pytest.mark.long
def test_few_pairs_leave_the_signal_open():
    """What the pairs do not know makes limits weaker; more pairs of the same content never do."""
    few, many = model(20.0, named=False), model(2e5, named=False)
    weak, strong = (joint_asymptotic(replace(m, observed=None)).expected[2] for m in (few, many))
    assert weak > 1.02 * strong


@pytest.mark.parametrize("free", [False, True])
def test_fits_that_do_not_end_are_refused(free, monkeypatch):
    """A statistic of infinity less infinity would count as small, and the limit come out too strong."""
    one = model(30.0, seed=4)
    arrays, whole = arrays_of(one), limits.fit

    def cut(a, data, strength=None, *more, **options):
        found = whole(a, data, strength, *more, **options)
        ended = np.full(len(data), (strength is None) != free)
        return replace(found, value=np.where(ended, found.value, np.inf), done=ended)

    monkeypatch.setattr(limits, "fit", cut)
    with pytest.raises(PhysicsError, match="did not converge"):
        q_tilde(arrays, one.data, 2.0)


@pytest.mark.long
def test_statistic_is_that_of_pyhf_for_pseudo_experiments():
    one = model(30.0, seed=4)
    arrays = arrays_of(one)
    at = fit(arrays, one.data, 1.0)
    toys = draw_joint(arrays, at.point, 2, np.random.default_rng(3))
    q = q_tilde(arrays, toys, 2.0)
    built, _ = peer(one)
    auxiliary = built.config.auxdata_order
    for t in range(len(toys)):
        names = [effect.name for effect in one.effects]
        own = {name: toys.auxiliary[t, k : k + 1] for k, name in enumerate([*names, "charge_ratio"])}
        own["simulation"] = toys.simulated[t]
        main = {"opposite_sign": 0, "plus_plus": 1, "minus_minus": 2}
        pairs = {name: toys.pairs[t, c] for name, c in main.items()} | {"search": toys.search[t]}
        data = np.concatenate([pairs[c] for c in built.config.channels] + [own[name] for name in auxiliary])
        settings = (getattr(built.config, f"suggested_{kind}")() for kind in ("init", "bounds", "fixed"))
        with slopes_of(one):
            theirs = pyhf.infer.test_statistics.qmu_tilde(2.0, data, built, *settings)
        assert q[t] == pytest.approx(float(theirs), abs=2e-5)


def test_pseudo_experiments_have_the_moments_of_the_model():
    one = model(30.0)
    arrays = arrays_of(one)
    point = fit(arrays, one.data, 1.0).point
    n = 20_000
    toys, means = draw_joint(arrays, point, n, np.random.default_rng(1)), expected(arrays, point)
    for counts, mean in ((toys.pairs, means.pairs), (toys.search, means.search)):
        assert counts.mean(axis=0) == pytest.approx(mean[0], abs=5 * np.sqrt(mean.max() / n))
        assert counts.var(axis=0) == pytest.approx(mean[0], abs=0.06 * max(mean.max(), 1))
    assert toys.auxiliary.std(axis=0) == pytest.approx(1.0, abs=0.03)
    assert toys.simulated.std(axis=0) == pytest.approx(arrays.sigma, rel=0.03)


@pytest.mark.long
def test_the_truth_is_excluded_no_more_often_than_the_level():
    """30 pairs, 40 full pseudo-experiments: the tolerance is that of their number, one in 2000 fails."""
    one, n = model(30.0, named=False), 40
    arrays, rng = arrays_of(one), np.random.default_rng(5)
    like = 0.1 * 30.0 / 8 / (arrays.like[1] * np.sqrt(0.9))
    truth = Point(np.r_[1.0, np.full(6, 1 / 1.3), 0.0][None], like[None], np.ones((1, 8)))
    toys = draw_joint(arrays, truth, n, rng)
    clsb, clb, _ = tail_probabilities(arrays, toys, 1.0, 60, rng)
    assert np.mean(clsb < 0.1 * clb) <= 0.1 + norm.isf(5e-4) * 0.3 / np.sqrt(n)


def test_masked_searches_have_no_observed_limit():
    hidden = replace(MODELS["window"], observed=None)
    assert np.isnan(joint_asymptotic(hidden).observed)
    with pytest.raises(PhysicsError, match="masked"):
        _ = hidden.data
    assert joint_workspace(hidden)["measurements"][0]["name"] == "limit_masked"


def test_workspace_is_written_as_hs3():
    assert "distributions" in to_hs3(joint_workspace(MODELS["window"]))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"counts": np.full((3, 8), 0.5)}, "whole numbers"),
        ({"counts": np.ones((3, 7))}, r"counts has shape \(3, 7\)"),
        ({"response": np.zeros((8, 6))}, "no bin sees cell 0"),
        ({"signal": np.zeros((6, 1))}, "no signal"),
        ({"signal": np.full((6, 1), np.nan)}, "signal must be finite"),
        ({"pairs": np.zeros(6)}, "must be positive"),
        ({"effects": (JointEffect("pot", 0.1 * np.ones((8, 6))), JointEffect("pot"))}, "two nuisances"),
        ({"effects": (JointEffect("charge_ratio"),)}, "two nuisances are called 'charge_ratio'"),
        ({"effects": (JointEffect("pot"), JointEffect("POT"))}, "spelling"),
        ({"effects": (JointEffect("pot", signal=2.5),)}, "more than 2"),
        ({"effects": (JointEffect("x", templates={"nothing": 0.1}),)}, "no template 'nothing'"),
        ({"effects": (JointEffect("x", response=np.ones(8)),)}, "does not fit"),
    ],
)
def test_wrong_models_are_refused(change, words):
    with pytest.raises(PhysicsError, match=words):
        model(**change)


def test_two_bins_need_asymptotics():
    with pytest.raises(PhysicsError, match="search of one bin"):
        joint_limit(MODELS["two bins of the search"], JointLimits(method="exact"))


@pytest.mark.long
def test_few_pairs_have_several_minima_of_which_the_lowest_counts(monkeypatch):
    """In the pairs and without them: of sixty pseudo-experiments one start misses the lower one in one."""
    one = model(6.0)
    arrays = arrays_of(one)
    toys = draw_joint(arrays, fit(arrays, one.data, 1.0).point, 60, np.random.default_rng(3))
    several = [fit(arrays, toys, mu).value for mu in (0.0, 0.2)]
    monkeypatch.setattr(expectation, "FEWEST", 0)
    gained = np.array([fit(arrays, toys, mu).value for mu in (0.0, 0.2)]) - several
    assert gained.min() > -1e-6
    assert gained.max() > 0.3


def test_no_experiment_as_extreme_excludes_nothing(monkeypatch):
    """With none of n below the data without signal CLs is 0/0: it was zero, and so was the limit."""
    tails = np.array([0.06]), np.array([0.0]), np.array([0.1])
    monkeypatch.setattr(limits, "tail_probabilities", lambda *_: tails)
    assert joint_cls(None, None, 1e-6, 50, None).cls == 1.0


@pytest.mark.long
def test_a_limit_that_pseudo_experiments_do_not_tell_is_an_error_or_named(monkeypatch):
    """None without signal is as extreme: CLs is 0/0 at every strength, and the limit was inf, unsaid."""
    nothing, some = (np.array([x]) for x in (0.0, 0.3))
    monkeypatch.setattr(limits, "tail_probabilities", lambda *_: (nothing, nothing, some))
    one = model(60.0)
    with pytest.raises(PhysicsError, match="as extreme as the 3 observed events"):
        joint_limit(one, JointLimits(n_toys=50, bands=False))
    hidden = joint_limit(replace(one, observed=None), JointLimits(n_toys=50, bands=False))
    assert "too few for limits at 0 events: raise n_toys" in hidden.method


def test_a_valley_that_ends_at_infinity_is_followed_in_few_steps(monkeypatch):
    """An efficiency of 100 % error, measured below −1: contents grow without end as it nears −1.

    There −ln L is that without the efficiency, plus its pull. Straight steps took 2000 for 1e-3 more.
    """
    own = model(400.0, variance=np.zeros((8, 6)))
    kept = [e for e in own.effects if e.response is None]
    whole = replace(own, effects=(*kept, JointEffect("efficiency", (1.0 - 1e-9) * own.response)))
    data = whole.with_search([[0.0], [2.0], [5.0]])
    data.auxiliary[:, len(kept)] = measured = np.array([-1.4, -2.0, -1.1])
    without = replace(own, effects=tuple(kept))
    least = fit(arrays_of(without), without.with_search([[0.0], [2.0], [5.0]])).value
    monkeypatch.setattr(fits, "STEPS", 120)
    found = fit(arrays_of(whole), data)
    assert found.done.all()
    assert np.abs(found.value - least - 0.5 * (measured + 1.0) ** 2).max() < 1e-6
