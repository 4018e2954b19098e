from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

pytest.importorskip("torch")
pytest.importorskip("zuko")

from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import Sampler
from gammastar.flow import check_windows, kl_divergence, kl_scan

pytestmark = pytest.mark.flow


class Toy(Sampler):
    """The truth of the tests below, or (shift != 0) a wrong model."""

    def __init__(self, shift=0.0):
        self.shift = shift

    @property
    def mass_range(self):
        return (0.2, 1.1)

    def sample(self, mass, rng):
        pt = rng.gamma(2.2, (0.15 + 0.15 * mass) * (1.0 + self.shift))
        return pt, np.hypot(mass, pt) * np.cosh(rng.normal(4.0, 0.4, mass.size))


def truth(n, rng):
    mass = rng.uniform(0.2, 1.1, n)
    return np.column_stack([mass, *Toy().sample(mass, rng)])


def test_kl_of_normals_is_analytic_and_has_the_usual_sign():
    rng = np.random.default_rng(1)
    wide = rng.normal(size=(20_000, 2)) * [2.0, 1.0]
    narrow, moved = rng.normal(size=(20_000, 2)), rng.normal(loc=[1.0, 0.0], size=(20_000, 2))
    assert kl_divergence(moved, narrow) == pytest.approx(0.5, abs=0.04)
    assert kl_divergence(narrow, wide) == pytest.approx(np.log(2.0) - 0.375, abs=0.04)


def test_kl_of_equal_distributions_is_unbiased():
    rng = np.random.default_rng(2)
    draws = [kl_divergence(rng.normal(size=(1000, 2)), rng.normal(size=(1500, 2))) for _ in range(40)]
    error = np.std(draws, ddof=1) / np.sqrt(len(draws))
    assert abs(np.mean(draws)) < 4.0 * error
    assert error < 0.01


def test_kl_does_not_depend_on_units_or_order():
    rng = np.random.default_rng(3)
    x, y = rng.normal(size=(500, 2)), rng.normal(size=(700, 2))
    value = kl_divergence(x, y)
    assert kl_divergence(x * [1e3, 1e-3], y * [1e3, 1e-3]) == pytest.approx(value, rel=1e-9)
    assert kl_divergence(x[::-1], y[::-1]) == pytest.approx(value, rel=1e-12)


def test_kl_has_the_distances_of_scipy_whatever_the_memory_order():
    rng = np.random.default_rng(4)
    x, y = rng.normal(loc=50.0, size=(800, 3)), rng.normal(loc=50.0, size=(900, 3))
    scale = y.std(axis=0)
    for k in (1, 3):
        own = cKDTree(x / scale).query(x / scale, k=[k + 1])[0]
        other = cKDTree(y / scale).query(x / scale, k=[k])[0]
        expected = 3.0 * np.mean(np.log(other / own)) + np.log(900 / 799)
        assert kl_divergence(x, y, k=k) == pytest.approx(expected, rel=1e-10)
        assert kl_divergence(np.asfortranarray(x), np.asfortranarray(y), k=k) == pytest.approx(
            expected, rel=1e-10
        )


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_kl_of_points_that_are_not_finite(bad):
    points = np.random.default_rng(5).normal(size=(100, 2))
    broken = points.copy()
    broken[7, 1] = bad
    with pytest.raises(PhysicsError, match="1 points of model and 0 of data are not finite"):
        kl_divergence(broken, points)


def test_kl_equals_the_estimator_written_out():
    rng = np.random.default_rng(4)
    x, y = rng.normal(size=(60, 2)), rng.normal(size=(80, 2))
    scaled_x, scaled_y = x / y.std(axis=0), y / y.std(axis=0)
    own = np.sort(np.linalg.norm(scaled_x[:, None] - scaled_x[None], axis=-1), axis=1)[:, 2]
    other = np.sort(np.linalg.norm(scaled_x[:, None] - scaled_y[None], axis=-1), axis=1)[:, 1]
    expected = 2.0 * np.mean(np.log(other / own)) + np.log(80 / 59)
    assert kl_divergence(x, y) == pytest.approx(expected, rel=1e-12)


def test_kl_refuses_what_it_cannot_use():
    rng = np.random.default_rng(6)
    x = rng.normal(size=(100, 2))
    with pytest.raises(PhysicsError, match="repeated points"):
        kl_divergence(x, rng.choice(x, 300))
    with pytest.raises(PhysicsError, match="kl_divergence"):
        kl_divergence(x, rng.normal(size=(50, 3)))


@pytest.mark.long
def test_scan_passes_the_truth_and_fails_a_wrong_model():
    rng = np.random.default_rng(7)
    data = truth(30_000, rng)
    options = {"masses": np.linspace(0.25, 1.05, 5), "n_draws": 30, "max_points": 800}
    good = kl_scan(Toy(), data, rng=rng, **options)
    wrong = kl_scan(Toy(shift=0.5), data, rng=rng, **options)
    assert good.tested.all()
    assert good.fraction_inside >= 4 / 5
    assert wrong.fraction_inside == 0.0
    low68, high68 = good.band(0.68).T
    low95, high95 = good.band(0.95).T
    assert ((low95 < low68) & (high68 < high95)).all()
    assert (np.abs(good.data_mean) < high95 - low95).all()
    assert (wrong.model_mean > good.band(0.95, of="model")[:, 1]).all()


def test_scan_unweights_weighted_truth():
    rng = np.random.default_rng(8)
    data = truth(40_000, rng)
    efficiency = 0.1 + 0.9 * (1.0 - np.exp(-data[:, 1] / 0.6))
    seen = rng.random(len(data)) < efficiency
    options = {"masses": [0.65], "half_width": 0.4, "n_draws": 20, "max_points": 4000}
    weighted = kl_scan(Toy(), data[seen], weight=1.0 / efficiency[seen], rng=rng, **options)
    ignored = kl_scan(Toy(), data[seen], rng=rng, **options)
    assert weighted.fraction_inside == 1.0
    assert ignored.fraction_inside == 0.0


def test_scan_marks_empty_windows_and_refuses_signed_weights():
    rng = np.random.default_rng(9)
    data = truth(5000, rng)
    scan = kl_scan(Toy(), data, masses=[0.6, 3.0], rng=rng, n_draws=5)
    np.testing.assert_array_equal(scan.tested, [True, False])
    assert np.isnan(scan.model_mean[1])
    assert np.isnan(scan.band(0.95)[1]).all()
    with pytest.raises(PhysicsError, match="signed"):
        kl_scan(Toy(), data, weight=-np.ones(len(data)), masses=[0.6], rng=rng)
    with pytest.raises(PhysicsError, match="no window"):
        kl_scan(Toy(), data, masses=[3.0], rng=rng)


@pytest.mark.long
def test_replicas_are_compared_with_the_same_draws_as_alone():
    """Halves and search trees are shared between replicas; each on its own gives the same divergences."""
    rng = np.random.default_rng(7)
    data, ones = truth(6_000, rng), np.ones(6_000)
    models = [Toy(shift) for shift in (0.0, 0.02, 0.3)]
    arguments = {"mass_range": (0.3, 1.0), "window": 0.1, "n_draws": 30}
    found = check_windows(
        models[0], data, ones, rng=lambda: np.random.default_rng(8), members=models[1:], **arguments
    )
    alone = [
        kl_scan(one, data, masses=found.mass, half_width=0.05, n_draws=n, rng=np.random.default_rng(8))
        for one, n in zip(models, (30, 5, 5), strict=True)
    ]
    np.testing.assert_allclose(found.model, alone[0].model_mean, rtol=1e-12)
    spread = np.std([one.model_mean for one in alone[1:]], axis=0, ddof=1)
    error = 1.96 * np.hypot(alone[0].model_draws.std(axis=1), spread)
    np.testing.assert_allclose(found.error, error, rtol=1e-12)


def test_a_window_whose_weight_lies_on_a_pair_or_two_is_refused():
    """All weight goes to one half or the other: nothing is left to compare with."""
    rng = np.random.default_rng(3)
    data = np.stack(
        [rng.uniform(0.48, 0.52, 300), rng.exponential(0.5, 300), rng.uniform(5, 50, 300)], axis=1
    )
    weight = np.full(300, 1e-9)
    weight[0] = 1.0

    class Uniform:
        mass_range = (0.2, 1.0)

        def sample(self, mass, rng):
            return rng.exponential(0.5, len(mass)), rng.uniform(5, 50, len(mass))

    with pytest.raises(PhysicsError, match="window"):
        kl_scan(Uniform(), data, masses=[0.5], weight=weight, half_width=0.05, n_draws=3, rng=rng)
