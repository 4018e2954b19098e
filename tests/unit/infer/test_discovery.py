"""Discovery and projections, against closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.special import ndtr
from scipy.stats import norm, poisson

from gammastar.infer import discovery_yield, expected_limits, projected_yields, upper_limit
from gammastar.infer.discovery import needed_count, observed_significance
from gammastar.physics.averaged_counts import at_least


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
    ],
)
def test_projection_to_the_present_exposure_is_the_present_limit(method, observed, background):
    """Median expected limit of the same search, and of one with three times the background."""
    options = {"signal_sigma": 0.6, "cl": 0.9, "method": method}
    own = upper_limit(background, 0.3, observed, **options)
    found = projected_yields(background, [1.0, 3.0], background_sigma=0.3, observed=observed, **options)
    assert found[0] == pytest.approx(own.expected[2], rel=1e-12)
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
    assert projected_yields(0.0, [4.0], signal_sigma=0.6)[0] == found[0]  # κ = 1.8: the default averages
    assert projected_yields(0.0, [4.0], signal_sigma=0.6, method="exact")[0] == pytest.approx(
        np.log(10) * np.exp(0.36 * np.log(10)) / 4, rel=1e-6
    )


@pytest.mark.parametrize("background", [1e-9, 1.0, 1630.0])
@pytest.mark.parametrize("sigma", [0.0, 0.3, 3.0])
@pytest.mark.parametrize("significance", [0.1, 5.0, 8.0])
def test_the_needed_count_is_the_first_so_significant(background, sigma, significance):
    """For uncertain backgrounds too, where it lies beyond e¹² of them: counts are searched, not listed."""
    needed = needed_count(background, sigma, significance)
    assert observed_significance(int(needed), background, sigma) >= significance
    step = max(1.0, 1e-9 * needed)
    assert needed == 1.0 or at_least(needed - step, background, sigma) > ndtr(-significance)
