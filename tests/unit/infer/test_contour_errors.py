"""Errors of a contour's vertices, limits that change along the coupling, what a masked search may say."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm, poisson

from gammastar.core.errors import PhysicsError
from gammastar.infer import (
    combine,
    counting_channel,
    counting_limit,
    exact_cls,
    observed_significance,
    ranking,
    reach,
    read_likelihood,
    scan,
    workspace,
)
from gammastar.infer.contours import more_masses, with_errors
from gammastar.infer.counting import limits_at
from gammastar.infer.histfactory.workspaces import channels_of
from gammastar.store.manifest import write_json

MASS = np.linspace(0.25, 0.9, 12)
COUPLING = np.geomspace(1e-8, 1e-4, 81)
BANDS = np.array([1.4, 1.8, 2.4, 3.1, 4.0])


def plane(mass=MASS, coupling=COUPLING):
    m = np.asarray(mass)[:, None]
    return 2e28 * np.exp(-m / 0.12) * coupling**4 * np.exp(-(coupling**2) * m**2 / 1e-13)


@pytest.mark.long
def test_errors_of_the_sample_follow_the_spread_of_repeated_samples():
    """Yields fluctuated independently per mass by 8 %: the edges scatter as the error says."""
    signal, rng = plane(), np.random.default_rng(5)
    found = reach(MASS, COUPLING, signal, 2.4)
    done = with_errors(found, MASS, COUPLING, signal, 2.4, signal_error=0.08 * signal, method="exact")
    moved = []
    for _ in range(120):
        factor = np.exp(0.08 * rng.standard_normal((len(MASS), 1)))
        moved.append(np.log10(reach(MASS, COUPLING, signal * factor, 2.4).edges))
    inner = np.isfinite(found.edges[:, 0]) & (found.mass < 0.6)
    spread = np.std(np.array(moved)[:, inner], axis=0)
    np.testing.assert_allclose(done.errors[inner][:, :, 0], spread, rtol=0.23)
    assert done.method[0] == "exact"
    assert not done.errors[inner][:, :, 1].any()


def test_interpolation_error_covers_the_true_one():
    coarse = np.geomspace(1e-8, 1e-4, 33)
    found = reach(MASS, coarse, plane(coupling=coarse), 2.4)
    done = with_errors(found, MASS, coarse, plane(coupling=coarse), 2.4)
    exact = reach(MASS, coarse, lambda m, g: 2e28 * np.exp(-m / 0.12 - g**2 * m**2 / 1e-13) * g**4, 2.4)
    good = np.isfinite(found.edges[:, 0]) & np.isfinite(exact.edges[:, 0]) & (found.mass < 0.6)
    wrong = np.abs(np.log10(found.edges[good] / exact.edges[good]))
    assert (done.errors[good][:, :, 2] + 2e-4 > wrong).all()
    assert np.median(done.errors[good][:, :, 2]) < 0.01


def test_errors_are_refused_when_they_are_none():
    found = reach(MASS, COUPLING, plane(), 2.4)
    with pytest.raises(PhysicsError, match="not negative"):
        with_errors(found, MASS, COUPLING, plane(), 2.4, limit_error=-0.1)


def test_a_constant_limit_per_coupling_is_a_constant_limit():
    signal = plane()
    one = reach(MASS, COUPLING, signal, 2.4, expected=BANDS)
    shape = signal.shape
    two = reach(MASS, COUPLING, signal, np.full(shape, 2.4), expected=np.broadcast_to(BANDS, (*shape, 5)))
    for name in ("edges", "bands", "signal", "limit"):
        np.testing.assert_allclose(getattr(two, name), getattr(one, name), rtol=1e-9)
    with pytest.raises(PhysicsError, match="limit per coupling"):
        reach(MASS, COUPLING, signal, np.full((3, 4), 2.4))


def test_limits_follow_the_closed_form_of_no_event():
    """Without events s = ln 10 exp(σ² ln 10), between the knots as well."""
    sigma = np.linspace(0.05, 0.6, 23).reshape(1, 23)
    observed, expected, typical = limits_at(sigma, 0.01, 0.5, 0, method="exact")
    np.testing.assert_allclose(observed, np.log(10) * np.exp(sigma**2 * np.log(10)), rtol=2e-5)
    assert expected.shape == (1, 23, 5)
    assert "exact" in typical.method
    masked, _, _ = limits_at(sigma, 0.01, 0.5, "masked")
    assert np.isnan(masked).all()


def test_significance_of_counts():
    assert observed_significance("masked", 0.5) != observed_significance("masked", 0.5)  # nan
    assert observed_significance(0, 0.5) == -np.inf
    assert observed_significance(1, 0.0) == np.inf
    assert observed_significance(100, 64.0) == pytest.approx(norm.isf(poisson.sf(99, 64.0)), rel=1e-9)
    assert observed_significance(3, 0.01, 1.0) < observed_significance(3, 0.01)


def blind(counts="masked", name="c"):
    spec = workspace(name, [2.0, 1.0], 0.2, counts, pot_search_sigma=0.18)
    spec["channels"][0]["samples"][0]["data"] = [1.0, 2.0]
    return spec


def test_a_masked_workspace_gives_no_observed_result(tmp_path):
    """Its expected counts happen to be whole numbers: nothing takes them for data."""
    (channel,) = channels_of(blind())
    assert channel.observed is None
    with pytest.raises(PhysicsError, match="masked"):
        exact_cls([channel], rng=np.random.default_rng(1))
    write_json(tmp_path / "space.json", blind())
    (point,) = scan(read_likelihood(tmp_path / "space.json"))
    assert np.isnan(point.observed)
    assert np.isfinite(point.expected).all()
    (open_channel,) = channels_of(blind([2, 1]))
    assert len(open_channel.observed) == 3


def test_one_masked_search_masks_the_combination():
    both = combine([blind([2, 1]), blind(name="d")], prefixes=["a", "b"])
    assert all(channel.observed is None for channel in channels_of(both))
    assert all(c.observed is not None for c in channels_of(combine([blind([2, 1]), blind([0, 1], "d")])))


def test_impacts_of_a_masked_search_use_expected_data():
    options = {"signal": 1.0, "background": 0.3, "signal_sigma": {"pot": float(np.log(1.2))}}
    hidden = ranking([counting_channel("c", observed="masked", **options)])
    median = ranking([counting_channel("c", observed=0, **options)])  # the median count of b = 0.3
    np.testing.assert_allclose(hidden.impact, median.impact)
    assert counting_limit(0, 0.3) == pytest.approx(np.log(10), rel=1e-9)


def test_more_masses_close_the_contour():
    """Added masses bring the contour of a resonance within the tolerance, and find the tip."""

    def signal(mass):
        peak = 1 + 25 / (1 + ((mass - 0.4) / 0.01) ** 2)
        return plane(mass) * peak[:, None]

    mass = np.linspace(0.25, 0.9, 8)
    for _ in range(8):
        found = reach(mass, COUPLING, signal(mass), 2.4)
        new = more_masses(found, special=((0.4, 0.02),), most=10)
        if not len(new):
            break
        mass = np.unique(np.r_[mass, new])
    assert len(mass) < 60
    fine = np.linspace(0.25, 0.6, 300)
    truth = reach(fine, COUPLING, signal(fine), 2.4)
    for side in (0, 1):
        drawn = np.interp(np.log(fine), np.log(found.mass), np.log10(found.edges[:, side]))
        assert np.nanmax(np.abs(drawn - np.log10(truth.edges[:, side]))) < 0.01
    gap = np.diff(found.mass)[np.diff(np.isfinite(found.edges[:, 0]).astype(int)) == -1]
    assert gap.max() < 5e-3
    with pytest.raises(PhysicsError, match="tolerance"):
        more_masses(found, tolerance=0.0)
