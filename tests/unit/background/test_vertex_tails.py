"""Vertex tails: what pairs before the target predict of those behind it, over and over again."""

import numpy as np
import pytest
from scipy import stats

from gammastar.background import selected_vertices, tails_found, vertex_tails
from gammastar.core.errors import PhysicsError
from gammastar.core.pairs import VertexPairs

CUTS = np.array([3.0, 4.0, 6.0, 10.0])
FIDUCIAL = (1e-3, 0.06)
WINDOW = (0.45, 0.55)
R, SHARE, WIDE = 1.2, 0.03, 4.0
N = {"photon": 40_000, "random": 6_000, "charm": 1_500}
SIGMA = 1e-3


def pull(rng, kind, n):
    """Return pulls: photons with a tail of Student's t, random pairs twice as wide, charm that flies."""
    if kind == "random":
        return 2.0 * rng.standard_normal(n)
    if kind == "charm":
        return rng.standard_normal(n) + rng.exponential(2.0, n)
    tail = rng.random(n) < SHARE
    return np.where(tail, WIDE * rng.standard_t(3, n), rng.standard_normal(n))


def drawn(rng, kind, n, weight, like=False):
    mass = rng.uniform(0.2, 1.0, n)
    sigma = SIGMA * np.exp(rng.normal(0, 0.3, n))
    z = sigma * pull(rng, kind, n)
    return VertexPairs(
        mass, np.full(n, 20.0), z, sigma, np.full(n, weight), np.full(n, like), np.ones(n, bool)
    )


def data(rng):
    parts = [drawn(rng, kind, rng.poisson(N[kind]), 1.0) for kind in N]
    parts.append(drawn(rng, "random", rng.poisson(N["random"] / R), -R, like=True))
    return VertexPairs.concatenate(parts)


def expected():
    """Return the pairs that the populations put behind each cut, by integration."""
    near = (WINDOW[1] - WINDOW[0]) / 0.8
    log = np.linspace(-4, 4, 801) * 0.3
    weight = stats.norm.pdf(log, scale=0.3)
    weight /= weight.sum()
    sigma = SIGMA * np.exp(log)

    def beyond(x):
        photon = (1 - SHARE) * stats.norm.sf(x) + SHARE * stats.t.sf(x / WIDE, 3)
        charm = stats.exponnorm.sf(x, 2.0)
        return N["photon"] * photon + N["random"] * stats.norm.sf(x / 2) + N["charm"] * charm

    low = [np.maximum(cut, FIDUCIAL[0] / sigma) for cut in CUTS]
    return near * np.array([weight @ (beyond(x) - beyond(np.maximum(FIDUCIAL[1] / sigma, x))) for x in low])


@pytest.fixture(scope="module")
def closure():
    rng, rows = np.random.default_rng(11), []
    charm = drawn(rng, "charm", 20_000, N["charm"] / 20_000)
    for _ in range(50):
        pairs = data(rng)
        found = vertex_tails(pairs, CUTS, FIDUCIAL, window=WINDOW, charm=charm)
        own = pairs.select(~pairs.like)
        count = [selected_vertices(own, cut, FIDUCIAL, WINDOW).sum() for cut in CUTS]
        rows.append([found.value, found.sigma, count])
    return np.array(rows).transpose(1, 2, 0)


@pytest.mark.long
def test_prediction_is_unbiased_with_honest_errors(closure):
    value, sigma, _ = closure
    truth = expected()
    assert (truth > [60, 20, 3, 0.9]).all()
    measured = slice(0, 3)  # beyond the last supported cut the power law is on the safe side
    pulls = ((value - truth[:, None]) / sigma)[measured]
    assert np.abs(pulls.mean(axis=1)).max() < 0.6
    assert pulls.std(axis=1) == pytest.approx(np.ones(3), abs=0.3)
    assert value[3].mean() == pytest.approx(truth[3], rel=0.4)


@pytest.mark.long
def test_thrown_counts_scatter_as_predicted(closure):
    value, sigma, count = closure
    pulls = (count - value) / np.sqrt(value + sigma**2)
    assert np.abs(pulls[:3].mean(axis=1)).max() < 0.4
    assert pulls[:3].std(axis=1) == pytest.approx(np.ones(3), abs=0.25)


def test_each_population_is_named_and_needed():
    rng = np.random.default_rng(12)
    pairs = data(rng)
    charm = drawn(rng, "charm", 20_000, N["charm"] / 20_000)
    found = vertex_tails(pairs, CUTS, FIDUCIAL, window=WINDOW, charm=charm)
    assert list(found.parts) == [
        "vertex tails of measured pairs",
        "vertex tails of random pairs",
        "open charm",
    ]
    assert sum(found.parts.values()) == pytest.approx(found.value)
    assert (found.value > vertex_tails(pairs, CUTS, FIDUCIAL, window=WINDOW).value).all()
    assert found.supported in CUTS
    assert found.control[0] > found.control[-1] > 0


def test_both_sides_agree_below_the_cuts():
    rng = np.random.default_rng(13)
    pairs = data(rng)
    charm = drawn(rng, "charm", 50_000, N["charm"] / 50_000)
    ratio, sigma = tails_found(pairs, (2.0, 3.0), FIDUCIAL, charm=charm)
    assert abs(ratio - 1) < 3 * sigma < 0.15
    without, error = tails_found(pairs, (2.0, 3.0), FIDUCIAL)
    assert without > 1 + 2 * error


def test_the_window_does_not_predict_itself():
    """A signal behind the target moves nothing; nor does one before it, of its own mass."""
    rng = np.random.default_rng(14)
    pairs = data(rng)
    extra = drawn(rng, "photon", 500, 1e-9)
    for z in (0.02, -0.02):
        here = VertexPairs(
            np.full(500, 0.5), extra.pz, np.full(500, z), extra.sigma, extra.weight, extra.like, extra.good
        )
        both = VertexPairs.concatenate([pairs, here])
        values = [vertex_tails(p, CUTS, FIDUCIAL, window=WINDOW).value for p in (pairs, both)]
        np.testing.assert_allclose(*values, rtol=1e-9)


def test_faults():
    rng = np.random.default_rng(15)
    few = drawn(rng, "photon", 60, 1.0)
    with pytest.raises(PhysicsError, match=r"vertex tails of measured pairs: .* fewer than 10"):
        vertex_tails(few, CUTS, FIDUCIAL, window=WINDOW)
    with pytest.raises(PhysicsError, match="not increasing"):
        vertex_tails(few, CUTS[::-1], FIDUCIAL, window=WINDOW)
    with pytest.raises(PhysicsError, match=r"no pair is left in 1\.2 to 1\.4 GeV"):
        vertex_tails(few, CUTS, FIDUCIAL, window=(1.2, 1.4))
