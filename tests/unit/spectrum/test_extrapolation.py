"""The trend of measured over simulated density, and what it says about the extrapolated part."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import mock
from gammastar.core.constants import M_PROTON
from gammastar.core.errors import UserError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.spectrum import Trend, fit_trend, forward_power
from gammastar.spectrum.extrapolation import highest_energies, radial

EDGES = np.array([0.25, 0.45, 0.65, 0.85, 1.05])


def points(card, n, seed):
    pairs = mock.generate_pairs(card, n, stream(seed, "trend"))
    return np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1), pairs.weight


def inside(x):
    """A domain of moderate rapidity, as that of a spectrometer."""
    pz = np.sqrt(x[:, 2] ** 2 - x[:, 0] ** 2 - x[:, 1] ** 2)
    rapidity = np.arctanh(pz / x[:, 2])
    return (rapidity > 3.2) & (rapidity < 4.4)


def cut(sample, mask):
    return sample[0][mask], sample[1][mask]


@pytest.fixture(scope="module")
def samples():
    card = mock.load_card(data_path("cards/na60_mock.toml"))
    prior = card.priors["varied"].model_copy(update={"yields": {}, "y_width": 1.3})
    other = card.model_copy(update={"priors": {"used": prior}}).with_prior("used")
    return points(card, 140_000, 1), points(other, 280_000, 2), card.beam.energy


def test_the_continued_trend_is_nearer_to_the_truth_than_the_simulation(samples):
    data, sim, beam = samples
    seen, known = inside(data[0]), inside(sim[0])
    trend = fit_trend(cut(data, seen), cut(sim, known), EDGES, beam)
    assert trend.slopes[0] < -3 * np.sqrt(trend.cov[0, 0])  # a softer mT spectrum than simulated
    assert trend.slopes[1] < -2 * np.sqrt(trend.cov[1, 1])  # a narrower rapidity distribution
    hard = (sim[0][:, 2] > 60) & ~known & (sim[0][:, 0] > EDGES[0]) & (sim[0][:, 0] < EDGES[-1])
    wanted = data[1][(data[0][:, 2] > 60) & ~seen & (data[0][:, 0] > EDGES[0]) & (data[0][:, 0] < EDGES[-1])]
    scale = data[1][seen].sum() / sim[1][known].sum()  # normalised inside, as the extrapolation is
    nominal = np.array([scale * sim[1][hard].sum()])
    factors = trend.factors(*sim[0][hard].T, np.zeros(hard.sum(), dtype=bool))
    alternatives = scale * (factors @ sim[1][hard])[:, None]
    truth = wanted.sum()
    assert abs(alternatives[0, 0] - truth) < 0.5 * abs(nominal[0] - truth)
    sigma = np.log1p(Trend.relative_error(nominal, alternatives))
    assert 0.5 * sigma[0] < abs(np.log(nominal[0] / truth)) < 2.0 * sigma[0]


def test_a_simulation_of_the_right_shape_has_no_trend(samples):
    data, _, beam = samples
    half = np.arange(len(data[1])) % 2 == 0
    mask = inside(data[0])
    trend = fit_trend(cut(data, mask & half), cut(data, mask & ~half), EDGES, beam)
    pull = trend.slopes @ np.linalg.solve(trend.cov, trend.slopes)
    assert pull < 14  # two degrees of freedom
    factors = trend.factors(*data[0].T, mask)
    assert (factors[:, mask] == 1).all()


def test_arrays_keep_the_trend(samples):
    data, sim, beam = samples
    trend = fit_trend(cut(data, inside(data[0])), cut(sim, inside(sim[0])), EDGES, beam)
    again = Trend.of(trend.arrays())
    mask = inside(sim[0])
    assert np.array_equal(again.factors(*sim[0].T, mask), trend.factors(*sim[0].T, mask))


def test_an_empty_domain_is_refused(samples):
    data, _, beam = samples
    nothing = (np.empty((0, 3)), np.empty(0))
    with pytest.raises(UserError, match=r"\[spectrum\].*inside the measured domain"):
        fit_trend(nothing, data, EDGES, beam)


def test_a_trend_that_scatters_is_as_uncertain_as_its_scatter(samples):
    """Every pair four times at a fourth of its weight: the same content, half of the errors, χ² fourfold.

    Taken four times as a pair of its own weight, nothing is known better: the error of the slopes is what
    it was, times χ²/ndf = 1 ± √(2/ndf) of the pairs as they are where that is below one.
    """
    data, _, beam = samples
    mask = inside(data[0])
    half = np.arange(len(data[1])) % 2 == 0

    def slopes(times):
        made = [cut(data, mask & part) for part in (half, ~half)]
        repeated = [(np.repeat(x, times, axis=0), np.repeat(w / times, times)) for x, w in made]
        return fit_trend(*repeated, EDGES, beam).cov

    ratio = np.diag(slopes(4)) / np.diag(slopes(1))
    ndf = 78
    assert (ratio > 1 - 3 * np.sqrt(2 / ndf)).all()
    assert (ratio < 1.1).all()  # a few more cells hold enough pairs


BEAM = 400.0


def flat(n, seed):
    """Photons of 0.5 GeV, even in rapidity up to the kinematic limit, where no x_R is forbidden."""
    rng = stream(seed, "flat")
    mass, pt = np.full(n, 0.5), np.full(n, 0.4)
    mt, root = np.hypot(0.5, 0.4), np.sqrt(2 * M_PROTON * (M_PROTON + BEAM))
    highest = (root**2 + 0.25 - 4 * M_PROTON**2) / (2 * root)
    y = rng.uniform(-1, 1, n) * np.arccosh(highest / mt)
    return np.stack([mass, pt, mt * np.cosh(y + np.arccosh((BEAM + M_PROTON) / root))], axis=1), y


def test_beyond_the_measured_the_density_falls_as_the_power_asks():
    points, y = flat(200_000, 4)
    weight, near = np.ones(len(points)), np.abs(y) < 0.6
    power = forward_power((points, weight), near, EDGES, BEAM, (4.0, 1.5))
    x = radial(*points.T, BEAM)
    assert x.max() == pytest.approx(1.0, abs=1e-3)
    factor, moved = power.factor(*points.T), power.moved(*points.T)
    before = (y < 0) | (x < 0.3)
    assert (factor[before] == 1).all()
    # a flat density is a polynomial of degree zero: the fit of 30 bins is off by their statistics alone
    some = ~before & (x < 0.9)
    np.testing.assert_allclose(factor[some], ((1 - x[some]) / 0.7) ** 4, rtol=0.15)
    np.testing.assert_allclose(moved[1] * moved[0], 1.0)
    end = power.measured[0]
    assert end == pytest.approx(x[near].max(), rel=0.02)
    np.testing.assert_allclose(moved[1][some], ((1 - x[some]) / (1 - end)) ** 1.5)
    assert (moved[:, (y < 0) | (x < end)] == 1).all()


def test_a_power_law_that_is_simulated_is_left_alone():
    points, y = flat(200_000, 5)
    x = radial(*points.T, BEAM)
    weight = (1 - np.clip(x, 0.0, 1.0)) ** 4
    power = forward_power((points, weight), np.abs(y) < 0.6, EDGES, BEAM, (4.0, 1.5))
    some = (y > 0) & (x < 0.8)
    np.testing.assert_allclose(power.factor(*points.T)[some], 1.0, atol=0.2)


def test_measured_pairs_move_the_start_of_the_power_law():
    points, _ = flat(50_000, 6)
    far = radial(*points.T, BEAM) < 0.6
    power = forward_power((points, np.ones(len(points))), far, EDGES, BEAM)
    assert (power.start > 0.5).all()


def test_the_error_of_a_signal_grows_with_its_energy():
    points, y = flat(100_000, 7)
    power = forward_power((points, np.ones(len(points))), np.abs(y) < 0.6, EDGES, BEAM)
    nothing = np.zeros(2), np.zeros((2, 2))
    trend = Trend(EDGES[[0, -1]], np.zeros(2), *nothing, BEAM, power, np.array([60.0, 60.0]))
    factors, energy = trend.factors(*points.T, np.zeros(len(y), bool)), points[:, 2]
    sums = [(energy > low) & (energy < low + 50) for low in (50, 150, 250, 350)]
    nominal = np.array([s.sum() for s in sums], dtype=float)
    rows = np.stack([factors[:, s].sum(axis=1) for s in sums], axis=1)
    spread = np.log1p(Trend.relative_error(nominal, rows))
    assert (np.diff(spread) > 0.2).all()
    assert spread[0] < 0.3
    assert spread[-1] > 1.5
    assert np.array_equal(trend.beyond(points[:, 0], energy), energy > 60)
    again = Trend.of(trend.arrays())
    assert np.array_equal(again.factors(*points.T, np.zeros(len(y), bool)), factors)


def test_the_tenth_hardest_pair_ends_the_measured_energies():
    energy = np.arange(1.0, 101.0)
    points = np.stack([np.full(100, 0.3), np.full(100, 0.1), energy], axis=1)
    assert highest_energies(points, np.array([0.3, 0.35, 0.8])).tolist() == [91.0, 91.0, 0.0]
