"""Cells with few pairs: the variance of the three-Poisson profile in the spectrum."""

import numpy as np
import pytest

from gammastar import subtract
from gammastar.config import Subtract
from gammastar.core.axes import filled, regular
from gammastar.core.records import PairHists
from gammastar.subtract.smooth_background import smooth_background

COUNTS = np.array(
    [[400.0, 64.0, 36.0], [6.0, 1.0, 1.0], [0.0, 0.0, 0.0], [50.0, 20.0, 18.0], [3.0, 2.0, 0.0]]
)


def hists(counts, weight=1.0):
    axis = (regular("mass", len(counts), 0.2, 1.2),)
    return PairHists(*(filled(axis, weight * n, weight**2 * n) for n in counts.T))


def spectrum(found, sigma=0.0, **options):
    return subtract.same_sign(found, method="B3", r_factor=1.1, r_factor_sigma=sigma, **options)


@pytest.mark.filterwarnings("ignore::gammastar.subtract.LowCountWarning")
def test_only_cells_with_few_pairs_change():
    data = hists(COUNTS)
    plain = spectrum(data)
    found, interval = subtract.with_profile(plain, data, r_factor=1.1)
    low = np.array([False, True, True, False, True])
    np.testing.assert_array_equal(found.values, plain.values)
    np.testing.assert_array_equal(np.diag(found.cov)[~low], np.diag(plain.cov)[~low])
    half = (interval.high - interval.low) / 2
    np.testing.assert_allclose(np.diag(found.cov)[low], half[low] ** 2)
    assert plain.cov[2, 2] == 0 < found.cov[2, 2]  # an empty cell is not known to be empty
    # −ln L = s without a pair: it rises by one half at s = 0.5
    assert interval.high[2] == pytest.approx(0.5, abs=1e-4)


@pytest.mark.filterwarnings("ignore::gammastar.subtract.LowCountWarning")
def test_error_of_r_and_correlations_stay():
    data = hists(COUNTS)
    plain, fixed = spectrum(data, 0.05), spectrum(data)
    background = COUNTS[:, 0] - plain.values
    shift = -background * 0.05 / 1.1
    found, _ = subtract.with_profile(plain, data, r_factor=1.1, by_r=shift)
    alone, _ = subtract.with_profile(fixed, data, r_factor=1.1)
    np.testing.assert_allclose(found.cov, alone.cov + np.outer(shift, shift), atol=1e-9)
    coarse = subtract.same_sign(data, method="B5")
    found, _ = subtract.with_profile(coarse, data)
    assert np.linalg.eigvalsh(found.cov).min() > 0
    seen = np.ix_([0, 1, 3, 4], [0, 1, 3, 4])

    def correlation(cov):
        return cov[seen] / np.sqrt(np.outer(np.diag(cov[seen]), np.diag(cov[seen])))

    np.testing.assert_allclose(correlation(found.cov), correlation(coarse.cov), atol=1e-12)


@pytest.mark.filterwarnings("ignore::gammastar.subtract.LowCountWarning")
def test_a_prescale_scales_the_interval():
    one, three = hists(COUNTS), hists(COUNTS, 3.0)
    a, low = subtract.with_profile(spectrum(one), one, r_factor=1.1)
    b, scaled = subtract.with_profile(spectrum(three), three, r_factor=1.1)
    np.testing.assert_allclose(b.cov, 9 * a.cov)
    np.testing.assert_allclose(scaled.low, 3 * low.low)


@pytest.mark.filterwarnings("ignore::gammastar.subtract.LowCountWarning")
def test_cells_without_a_pair_are_covered():
    """Signal 0.4 over b₊ = b₋ = 0.05: most cells are empty; linear errors of zero never hold the truth."""
    rng = np.random.default_rng(5)
    counts = np.stack([rng.poisson(m, 1500) for m in (0.4 + 2 * 0.05, 0.05, 0.05)], axis=1).astype(float)
    data = hists(counts)
    plain = subtract.same_sign(data, method="B3")
    found, interval = subtract.with_profile(plain, data)
    linear = np.mean(np.abs(plain.values - 0.4) <= np.sqrt(np.diag(plain.cov)))
    covered = np.mean((interval.low <= 0.4) & (interval.high >= 0.4))
    symmetric = np.mean(np.abs(found.values - 0.4) <= np.sqrt(np.diag(found.cov)))
    assert linear < 0.5
    assert min(covered, symmetric) > 0.68


def test_steering_refuses_methods_without_the_root():
    with pytest.raises(ValueError, match="low_counts"):
        Subtract(method="B2", low_counts="poisson")
    assert Subtract().low_counts == "linear"


def test_the_error_of_a_smooth_background_is_that_of_a_geometric_mean():
    """2R√(N₊₊N₋₋) of 400 and 100 pairs in all: ½ √(1/400 + 1/100) of it, and the common error of R."""
    counts = np.stack([np.full(8, 200.0), np.full(8, 50.0), np.full(8, 12.5)], axis=1)
    found = smooth_background(hists(counts), 1.1, 0.0)
    assert found.value.sum() == pytest.approx(2 * 1.1 * 200, rel=0.01)
    assert np.sqrt(found.cov.sum()) / found.value.sum() == pytest.approx(0.5 * np.sqrt(0.0125), rel=0.1)
    fixed, moved = (found.subtracted(hists(counts), common).cov.sum() for common in (0.0, 0.3))
    assert moved - fixed == pytest.approx((0.3 * found.value.sum()) ** 2)
