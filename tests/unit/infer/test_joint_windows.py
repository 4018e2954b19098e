"""A window from histograms: prescaled pairs scatter more than their number, and the likelihood knows."""

from dataclasses import replace

import numpy as np
import pytest
from hist.axis import Regular

from gammastar.core.errors import EmptyWindowError, PhysicsError
from gammastar.core.records import PairHists, Response, filled
from gammastar.infer.joint.discovery import pairs_fit
from gammastar.infer.joint.expectation import arrays_of
from gammastar.infer.joint.model import Setting, window_model

BINS, PRESCALE, SHARE = 8, 10, 0.2  # one pair in five would be in the prescaled trigger
AXIS = (Regular(BINS, 0, 1, name="mass"),)
SHAPE = np.linspace(1.5, 0.5, BINS) / BINS
RESPONSE = Response(
    0.4 * SHAPE[:, None], np.array([0.4]), np.zeros(BINS), AXIS, (Regular(1, 0, 1, name="mass"),), np.ones(1),
    np.zeros((0, BINS, 1)),
)  # fmt: skip
SETTING = Setting(0.5, 0.0, charges=0.8)


def window(sums, squares):
    hists = PairHists(*(filled(AXIS, a, b) for a, b in zip(sums, squares, strict=True)))
    return window_model(hists, RESPONSE, (np.array([1000.0]), np.array([[0.01]])), SETTING).model


def recorded(rng, expected):
    """Return sums of weights and of their squares of recorded pairs."""
    full, scaled = rng.poisson((1 - SHARE) * expected), rng.poisson(SHARE / PRESCALE * expected)
    return full + PRESCALE * scaled, full + PRESCALE**2 * scaled


@pytest.mark.long
@pytest.mark.parametrize("like", [25.0])
def test_the_scatter_of_prescaled_pairs_is_known(like):
    """The statistic of the fit has its own distribution; sums taken for counts have another one."""
    rng = np.random.default_rng(1)
    root = np.sqrt(SETTING.charges)
    expected = np.stack([400 * SHAPE + 2 * like, np.full(BINS, like / root), np.full(BINS, like * root)])
    p = {"units": [], "sums": []}
    for _ in range(60):
        sums, squares = recorded(rng, expected)
        p["units"].append(pairs_fit(window(sums, squares), rng=rng, n_toys=40).p_value)
        p["sums"].append(pairs_fit(window(sums, sums), rng=rng, n_toys=40).p_value)
    found = {name: float(np.mean(np.array(values) < 0.1)) for name, values in p.items()}
    assert found["units"] == pytest.approx(0.1, abs=0.12)
    assert found["sums"] > 0.6


def test_pairs_of_one_prescale_are_their_number():
    counts = np.random.default_rng(2).poisson(30.0, (3, BINS))
    scaled, plain = window(5.0 * counts, 25.0 * counts), window(counts, counts)
    np.testing.assert_array_equal(scaled.counts, plain.counts)
    np.testing.assert_allclose(scaled.response, plain.response / 5.0, rtol=1e-12)
    np.testing.assert_allclose(scaled.r_factor, plain.r_factor)
    np.testing.assert_allclose(scaled.pairs @ scaled.signal, plain.pairs @ plain.signal)


def test_opposite_and_like_sign_of_different_prescales_share_their_background():
    """Like sign recorded one in ten: R over its pairs counts each of them ten times."""
    counts = np.full((3, BINS), 40.0)
    weights = np.array([1.0, 10.0, 10.0])[:, None]
    model = window(counts * weights, counts * weights**2)
    np.testing.assert_array_equal(model.counts, counts)
    np.testing.assert_allclose(model.r_factor, 10.0)


def test_weights_that_are_no_prescales_are_refused():
    counts = np.full((3, BINS), 10.0)
    with pytest.raises(PhysicsError, match="pairs carry weights"):
        window(0.77 * counts, 0.77**2 * counts)
    assert window(counts, counts).counts.sum() == 3 * BINS * 10.0


def test_a_window_that_no_pair_can_be_seen_in_has_its_own_error():
    """The run leaves such a mass out; every other refusal stops it."""
    counts, blind = np.full((3, BINS), 10.0), replace(SETTING, least=0.9)
    hists = PairHists(*(filled(AXIS, row, row) for row in counts))
    cells = (np.array([1000.0]), np.array([[0.01]]))
    with pytest.raises(EmptyWindowError, match=r"efficiency of 0\.9"):
        window_model(hists, RESPONSE, cells, blind)
    with pytest.raises(EmptyWindowError, match="no signal"):
        window_model(hists, RESPONSE, (cells[0], np.zeros((1, 1))), SETTING)
    weighted = PairHists(*(filled(AXIS, 0.25 * row, 0.1 * row) for row in counts))
    with pytest.raises(PhysicsError, match="weights") as refused:
        window_model(weighted, RESPONSE, cells, SETTING)
    assert not isinstance(refused.value, EmptyWindowError)


def test_simulated_pairs_are_as_uncertain_as_their_number():
    """Error of each measured bin of a window against the binomial one of the simulation, drawn anew."""
    rng, n, replicas = np.random.default_rng(3), 4000, 400
    drawn = rng.multinomial(n, np.r_[0.4 * SHAPE, 0.6], replicas)[:, :BINS] / n
    simulated = replace(RESPONSE, cov_replicas=drawn[:, :, None])
    hists = PairHists(*(filled(AXIS, np.full(BINS, x), np.full(BINS, x)) for x in (50.0, 10.0, 10.0)))
    model = window_model(hists, simulated, (np.array([1000.0]), np.array([[0.01]])), SETTING).model
    p = 0.4 * SHAPE
    wanted = np.sqrt((1 - p) / (n * p))
    np.testing.assert_allclose(arrays_of(model).sigma, wanted, rtol=4 / np.sqrt(2 * replicas))
