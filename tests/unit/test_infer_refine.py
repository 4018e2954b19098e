"""Refined masses, discovery, projections and expected bands, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import lambertw
from scipy.stats import norm, poisson, uniform

from gammastar.core.errors import PhysicsError
from gammastar.infer import (
    counting_channel,
    discovery_yield,
    expected_limits,
    expected_strengths,
    projected_yields,
    refined_reach,
    unbinned_channel,
    upper_limit,
)

NORM, LIMIT, POT = 2e28, 2.4857, float(np.log(1.2))


def resonance(mass):
    return 1 + 30 / (1 + ((mass - 0.4) / 0.006) ** 2)


def yields(factor):
    def signal(mass, coupling):
        rate = NORM * factor(mass) * np.exp(-mass / 0.12) * coupling**4
        return rate * np.exp(-(coupling**2) * mass**2 / 1e-13)

    return signal


def exact(mass, factor):
    argument = -np.sqrt(LIMIT / NORM / factor(mass) * np.exp(mass / 0.12)) * mass**2 / 2e-13
    roots = np.array([lambertw(argument, 0).real, lambertw(argument, -1).real]).T
    return np.sqrt(-2e-13 * roots / mass[:, None] ** 2)


@pytest.mark.parametrize(("factor", "special"), [(np.ones_like, ()), (resonance, ((0.4, 0.006),))])
def test_contour_from_few_evaluations(factor, special):
    asked = []

    def counted(mass, coupling):
        asked.append(len(mass))
        return yields(factor)(mass, coupling)

    found = refined_reach(
        counted, LIMIT, mass_range=(0.21, 1.0), coupling_range=(1e-8, 1e-5), special=special, budget=1000
    )
    assert found.evaluations == sum(asked) < 1000
    reached = np.isfinite(found.reach.edges).all(axis=1)
    mass, edges = found.reach.mass[reached], found.reach.edges[reached]
    fine = np.geomspace(0.21, 0.64, 2000)
    for side in (0, 1):
        drawn = np.interp(np.log(fine), np.log(mass), np.log10(edges[:, side]))
        assert np.abs(drawn - np.log10(exact(fine, factor)[:, side])).max() < 0.01
    assert found.reach.tip == pytest.approx((0.655568, 6.8211e-7), rel=2e-3)


def test_refined_reach_refuses():
    with pytest.raises(PhysicsError, match="mass_range"):
        refined_reach(yields(np.ones_like), 2.3, mass_range=(1.0, 0.5), coupling_range=(1e-8, 1e-5))
    with pytest.raises(PhysicsError, match="not negative"):
        refined_reach(lambda m, g: -m * g, 2.3, mass_range=(0.5, 1.0), coupling_range=(1e-8, 1e-5))


def test_discovery_without_nuisances():
    for background in (0.01, 0.5, 10.0):
        s = discovery_yield(background)
        needed = int(poisson.isf(norm.sf(5.0), background)) + 1
        assert poisson.sf(needed - 1, background) <= norm.sf(5.0) < poisson.sf(needed - 2, background)
        assert poisson.sf(needed - 1, background + s) == pytest.approx(0.5)
    assert discovery_yield(100.0) == pytest.approx(5 * np.sqrt(100) + 25 / 6, rel=0.03)  # large counts
    assert discovery_yield(1.0, 0.5) > discovery_yield(1.0) > discovery_yield(1.0, significance=3.0)


def test_projection():
    found = projected_yields(0.5, [1.0, 4.0])
    assert found[0] == pytest.approx(expected_limits(0.5)[2])
    assert found[1] == pytest.approx(expected_limits(2.0)[2] / 4)
    three = projected_yields(0.5, [1.0], significance=3.0)
    assert three[0] == pytest.approx(discovery_yield(0.5, significance=3.0))


@pytest.mark.parametrize(
    ("method", "observed", "background"),
    [
        ("exact", "masked", 0.0),
        ("exact", 4, 1.7),
        ("marginalised", "masked", 0.3),
        ("marginalised", 1, 0.0),
        ("none", "masked", 1.7),
        ("asymptotic", "masked", 40.0),
        ("asymptotic", 31, 40.0),
        ("auto", 15, 40.0),
        ("auto", 31, 40.0),
    ],
)
def test_projection_to_the_present_exposure_is_the_present_limit(method, observed, background):
    """Median expected limit of the same search; above, the engine follows the events at each exposure."""
    options = {"signal_sigma": 0.6, "cl": 0.9, "method": method}
    own = upper_limit(background, 0.3, observed, **options)
    found = projected_yields(background, [1.0, 3.0], background_sigma=0.3, observed=observed, **options)
    assert found[0] == pytest.approx(own.expected[2], rel=1e-12)
    if method != "auto":
        more = upper_limit(3 * background, 0.3, "masked", **options).expected[2] / 3
        assert found[1] == pytest.approx(more, rel=1e-12)


def test_projection_of_averaged_limits_averages():
    """Without background CLs is E[e^(−s e^(σθ))]: plain quadrature; a quarter at four times more."""
    theta = np.linspace(-9, 9, 20_001)
    weight = norm.pdf(theta) * (theta[1] - theta[0])
    wanted = brentq(lambda s: np.exp(-s * np.exp(0.6 * theta)) @ weight - 0.1, 0.1, 50)
    found = projected_yields(0.0, [4.0], signal_sigma=0.6, method="marginalised")
    # the measurement of the signal varies in the bands, whose median is then that of the nominal one
    assert found[0] == pytest.approx(wanted / 4, rel=1e-5)
    assert projected_yields(0.0, [4.0], signal_sigma=0.6)[0] == pytest.approx(
        np.log(10) * np.exp(0.36 * np.log(10)) / 4, rel=1e-6
    )


def test_expected_strengths_without_background_are_the_spread_of_pot():
    channel = counting_channel("c", signal=1.0, background=1e-6, observed="masked", signal_sigma={"pot": POT})
    bands = expected_strengths([channel], rng=np.random.default_rng(1), experiments=400)
    expected = expected_limits(1e-6, signal_sigma=POT, randomise_pot=True)
    np.testing.assert_allclose(bands[1:4], expected[1:4], rtol=0.04)


def test_expected_strengths_of_an_unbinned_channel():
    channel = unbinned_channel(
        "u",
        signal=1.0,
        background=0.3,
        densities=(norm(0.4, 0.01).pdf, uniform(0.2, 0.6).pdf),
        bounds=(0.2, 0.8),
        events="masked",
    )
    bands = expected_strengths([channel], rng=np.random.default_rng(2), experiments=40)
    assert bands[2] == pytest.approx(2.303, abs=0.02)  # most experiments have no event near the mass
    assert np.all(np.diff(bands) >= 0)
