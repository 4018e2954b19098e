"""The exact engine: fits against a general minimiser, published CLs, closed forms, weights, bad input."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from data_sets import one_of
from scipy.optimize import minimize
from scipy.special import gammaln
from scipy.stats import norm, poisson, uniform

from gammastar.core.errors import PhysicsError
from gammastar.infer import (
    Convention,
    binned_channel,
    counting_channel,
    counting_limit,
    exact_cls,
    exact_limit,
    profile,
    unbinned_channel,
)
from gammastar.infer.channel_limits import zero_event_cls
from gammastar.infer.toys import KINDS, draw, draw_weighted_toys, lint_names, statistics, toy_model

POT = float(np.log(1.2))


def dimuon(mass, signal, events=(0.411,), **sigmas):
    return unbinned_channel(
        "mumu",
        signal=signal,
        background=0.016,
        densities=(norm(mass, 0.0025).pdf, uniform(0.2, 0.6).pdf),
        bounds=(0.2, 0.8),
        events=events,
        **sigmas,
    )


def two_channels():
    first = binned_channel(
        "one",
        signal=[1.0, 2.0, 0.5],
        background=[3.0, 1.0, 0.7],
        observed=[3, 1, 1],
        signal_sigma={"pot": 0.2, "efficiency": 0.1},
        background_sigma={"b_one": 0.5},
    )
    second = dimuon(
        0.4, 1.5, [0.41, 0.3], signal_sigma={"pot": 0.2}, background_sigma={"b_two": 0.3, "pot": 0.2}
    )
    return [first, second]


def nll_at(theta, mu, model, toys, index):
    """The likelihood written anew, with numpy."""
    one = one_of(toys, index, len(model.channels))
    s, b = model.rates(theta, 1.0) * np.array([[mu], [1.0]])
    value = s.sum() + b.sum() + 0.5 * ((theta - one.aux[0]) ** 2).sum()
    for c in range(len(s)):
        value -= np.log(s[c] * one.ratio[one.offsets[c] : one.offsets[c + 1]] + b[c]).sum()
    return value


@pytest.mark.long
def test_statistics_against_a_general_minimiser():
    model = toy_model(two_channels())
    toys = draw(model, np.zeros(4), 1.0, 14, np.random.default_rng(3), randomise=True)
    ratio, qtilde, q0 = (statistics(model, toys, 1.0, kind) for kind in ("ratio", "qtilde", "q0"))
    for i in range(14):
        best = []
        for mu in (0.0, 1.0):
            found = minimize(
                lambda t, mu=mu, i=i: nll_at(t, mu, model, toys, i), np.zeros(4), method="BFGS", tol=1e-9
            )
            best.append(found.fun)
        free = minimize(
            lambda x, i=i: nll_at(x[:-1], np.exp(x[-1]), model, toys, i),
            np.r_[np.zeros(4), -0.5],
            method="BFGS",
            tol=1e-9,
        )
        assert ratio[i] == pytest.approx(2 * (best[1] - best[0]), abs=2e-6)
        lowest = min(free.fun, best[0])
        below_one = free.x[-1] < 0 or free.fun > best[0]
        assert qtilde[i] == pytest.approx(2 * (best[1] - lowest) if below_one else 0.0, abs=1e-5)
        assert q0[i] == pytest.approx(max(2 * (best[0] - lowest), 0.0), abs=1e-5)


def test_sets_in_one_call_are_those_of_a_call_each():
    """Some are without events, which are fitted once."""
    model = toy_model(
        [
            dimuon(0.4, 0.3, signal_sigma={"pot": 0.2}),
            replace(dimuon(0.41, 0.4, background_sigma={"b": 1.4}), name="other"),
        ]
    )
    toys = draw(model, np.full(2, 0.1), 1.0, 30, np.random.default_rng(4), randomise=False)
    each = [one_of(toys, i, 2) for i in range(30)]
    assert 5 < sum(not one.ratio.size for one in each) < 25
    for kind in ("ratio", "qtilde", "q0"):
        alone = [statistics(model, one, 1.0, kind)[0] for one in each]
        assert np.array_equal(statistics(model, toys, 1.0, kind), alone)


@pytest.mark.parametrize(
    ("constraint", "sigma", "expected"),
    [("auxiliary", POT, 2.4857), ("auxiliary", 0.20, 2.5247), ("posterior", POT, 2.5698)],
)
def test_no_event(constraint, sigma, expected):
    channel = counting_channel("ee", signal=1.0, background=0.0094, observed=0, signal_sigma={"pot": sigma})
    found = exact_limit([channel], rng=np.random.default_rng(1), convention=Convention(constraint=constraint))
    assert found.events == pytest.approx(expected, abs=3e-4)
    assert found.error == 0.0
    assert "closed form" in found.method


@pytest.mark.parametrize(
    ("mass", "signal", "expected"), [(0.411, 3.0, 0.1971), (0.411, 4.0, 0.0916), (0.405, 2.303, 0.1037)]
)
def test_one_event_near_the_mass(mass, signal, expected):
    """Published compound-Poisson values for one event at 411 MeV, fixed nuisances."""
    found = exact_cls([dimuon(mass, signal)], rng=np.random.default_rng(5), n_toys=20_000)
    assert abs(found.cls - expected) < 3 * found.error + 1e-4


@pytest.mark.parametrize(("count", "background"), [(1, 0.5), (3, 3.0), (10, 10.0)])
def test_counting_limits(count, background):
    channel = counting_channel("c", signal=1.0, background=background, observed=count)
    found = exact_limit([channel], rng=np.random.default_rng(2), precision=0.01)
    assert abs(found.events - counting_limit(count, background)) < 3.5 * found.error


def test_weighted_toys_agree_with_plain_ones():
    """CLs+b and CLb of weighted toys against fractions of plain toys, with randomised auxiliaries."""
    convention = Convention("qtilde", "randomised")
    channels = two_channels()
    found = exact_cls(channels, rng=np.random.default_rng(7), convention=convention, n_toys=10_000)
    model = toy_model(channels)
    data = model.data()
    q = statistics(model, data, 1.0, "qtilde")[0]
    for strength, value in ((1.0, found.clsb), (0.0, found.clb)):
        theta = model.fitted(data, strength)
        plain = draw(model, theta, strength, 12_000, np.random.default_rng(8), randomise=True)
        fraction = np.mean(statistics(model, plain, 1.0, "qtilde") >= q - 1e-7)
        assert abs(fraction - value) < 4 * np.sqrt(0.25 / 10_000)


def test_the_density_of_weighted_toys_is_that_of_their_mixture():
    """Half of them have no signal, a quarter each of two strengths: a sum of Poisson probabilities."""
    model, strengths = toy_model([counting_channel("c", signal=2.0, background=1.0, observed=1)]), (0.5, 2.0)
    convention = Convention("ratio", "fixed")
    found = draw_weighted_toys(model, convention, model.data(), strengths, 40, np.random.default_rng(1))
    n = np.diff(found.toys.offsets)
    assert len(n) == 80
    shares = ((0.5, 1.0), (0.25, 2.0), (0.25, 5.0))
    wanted = np.log(sum(share * poisson.pmf(n, mean) for share, mean in shares)) + gammaln(n + 1.0)
    np.testing.assert_allclose(found.log_mixture, wanted, rtol=1e-12)


def test_a_shared_nuisance_moves_both_channels():
    """Two channels with half the signal and one POT equal one channel with all of it (no events)."""
    halves = [
        counting_channel(name, signal=1.2, background=0.01, observed=0, signal_sigma={"pot": POT})
        for name in ("ee", "mumu")
    ]
    whole = counting_channel("both", signal=2.4, background=0.02, observed=0, signal_sigma={"pot": POT})
    assert zero_event_cls(halves).cls == pytest.approx(zero_event_cls([whole]).cls, rel=1e-9)


def test_bad_input():
    with pytest.raises(PhysicsError, match="masked"):
        exact_cls([dimuon(0.4, 2.0, "masked")], rng=np.random.default_rng(1))
    with pytest.raises(PhysicsError, match="spelling"):
        lint_names(["pot", "POT"])
    with pytest.raises(PhysicsError, match="inside"):
        dimuon(0.4, 2.0, [0.9])
    with pytest.raises(PhysicsError, match="different names"):
        exact_cls([dimuon(0.4, 2.0), dimuon(0.5, 2.0)], rng=np.random.default_rng(1))
    with pytest.raises(PhysicsError, match="statistic"):
        Convention("t")
    with pytest.raises(PhysicsError, match="whole"):
        counting_channel("c", signal=1.0, background=1.0, observed=0.5)


@pytest.mark.parametrize("kind", ["ratio", "qtilde", "q0"])
@pytest.mark.parametrize("groups", [1, 20, 400])
def test_equal_data_sets_have_the_statistic_of_each(kind, groups):
    """To the last bit: one bin, two of them, and cells, of which none is left out."""
    options = {"observed": 1, "signal_sigma": {"pot": 0.2}, "background_sigma": {"b": 0.3}}
    one = counting_channel("a", signal=1.2, background=0.3, **options)
    two = counting_channel("b", signal=2.2, background=1.3, **options)
    cells = binned_channel("c", signal=[1.0, 1.5], background=[1.0, 0.5], **options | {"observed": [1, 0]})
    for channels in ([one], [one, two], [cells], [one, cells]):
        model = toy_model(channels)
        rng = np.random.default_rng(1)
        toys = draw(model, np.zeros(2), 1.0, 400, rng, randomise=False)
        aux = np.repeat(rng.normal(size=(groups, 2)), 400 // groups, axis=0)
        toys = replace(toys, aux=aux if groups > 1 else aux[:1])
        each = profile.statistic(
            KINDS[kind], model.arrays(0.7), toys.aux, toys.ratio, np.ones(len(toys.ratio)), toys.offsets
        )
        assert np.array_equal(statistics(model, toys, 0.7, kind), each)


@pytest.mark.long
def test_none_as_extreme_excludes_nothing_and_sets_no_limit():
    """Five events where seventy are expected: CLs of toys was 0/0 = 0, and the limit zero."""
    far = binned_channel("a", signal=[1.0, 2.0], background=[30.0, 40.0], observed=[2, 3])
    assert exact_cls([far], rng=np.random.default_rng(1), n_toys=500).cls == 1.0
    with pytest.raises(PhysicsError, match="none is as extreme as the data"):
        exact_limit([far], rng=np.random.default_rng(1))
