"""Refined masses, discovery, projections and expected bands, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
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
