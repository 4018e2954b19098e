"""The trend of measured over simulated density, and what it says about the extrapolated part."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import mock
from gammastar.core.errors import UserError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.spectrum import Trend, fit_trend

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
    sigma = nominal * Trend.relative_error(nominal, alternatives)
    assert 0.5 * sigma[0] < abs(nominal[0] - truth) < 2.0 * sigma[0]


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
    with pytest.raises(UserError, match="inside the measured domain"):
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
