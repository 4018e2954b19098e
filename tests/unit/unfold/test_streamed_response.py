"""The response of a simulation that comes part by part is that of all of it."""

from dataclasses import replace

import numpy as np
import pytest
from builders import counted

from gammastar.core.axes import regular
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.replicas import event_seeds, replica_weights
from gammastar.core.sampling import stream
from gammastar.unfold import iterative, response
from gammastar.unfold.iterative_bayes import mc_statistics
from gammastar.unfold.response_matrix import polarised_response, streamed_polarised, streamed_response

RECO = (regular("mass", 8, 0.2, 1.2), regular("pt", 2, 0.0, 2.0))
TRUE = (regular("mass", 5, 0.2, 1.2),)


def simulation(n=6000, seed=1):
    """Pairs with an efficiency, a resolution, two photons per event and some fakes."""
    rng = stream(seed, "parts")
    true = np.stack([rng.uniform(0.1, 1.4, n), rng.gamma(2, 0.3, n), rng.uniform(5, 90, n)], axis=1)
    reco = np.where(rng.random((n, 1)) < 0.4, true * rng.normal(1, 0.06, (n, 3)), np.nan)
    fakes = true[:300] * rng.normal(1, 0.3, (300, 3))
    cosine = {"cos_theta": np.where(np.isfinite(reco[:, 0]), rng.uniform(-1, 1, n), np.nan)}
    return MatchedPairs(
        true, reco, rng.uniform(0.5, 2, n), np.arange(n) // 2, fakes, rng.uniform(0, 2, 300), cosine
    )


def cut(matched, size):
    """Return parts; events are cut in two."""
    n = len(matched)
    for start in range(0, n, size):
        part = matched.select(np.arange(start, min(start + size, n)))
        own = slice(start * 300 // n, min(start + size, n) * 300 // n)
        yield replace(part, fakes=matched.fakes[own], fake_weight=matched.fake_weight[own])


def draw(event, replicas):
    return replica_weights(event_seeds(event, dataset="MOCK"), replicas)


def test_sums_of_parts_are_the_response():
    matched = simulation()
    whole, parts = response(matched, RECO, TRUE, n_replicas=0), cut(matched, 701)
    found = streamed_response(parts, RECO, TRUE)
    for name in ("migration", "efficiency", "fakes", "prior"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-15)
    assert whole.fakes.max() > 0.05
    assert found.cov_replicas.shape == (0, 16, 5)


def test_bootstraps_know_nothing_of_the_parts_and_are_those_of_whole_events():
    matched = simulation()
    found = streamed_response(cut(matched, 701), RECO, TRUE, n_replicas=7, draw=draw).cov_replicas
    other = streamed_response(cut(matched, 6000), RECO, TRUE, n_replicas=7, draw=draw).cov_replicas
    np.testing.assert_allclose(found, other, rtol=1e-10, atol=1e-14)
    for k in (0, 6):
        weight = matched.weight * draw(matched.event, range(k, k + 1))[0]
        by_hand = response(replace(matched, weight=weight), RECO, TRUE, n_replicas=0).migration
        np.testing.assert_allclose(found[k], by_hand, rtol=1e-10, atol=1e-14)


def test_statistics_of_the_simulation_are_those_of_drawn_bootstraps():
    matched = simulation(3000)
    drawn = response(matched, RECO, TRUE, n_replicas=400, rng=stream(2, "boot"))
    hashed = streamed_response(cut(matched, 500), RECO, TRUE, n_replicas=400, draw=draw)
    y = drawn.migration @ drawn.prior
    covs = [mc_statistics(y, r, r.prior, 3) for r in (drawn, hashed)]
    ratio = np.sqrt(np.diag(covs[1]) / np.diag(covs[0]))
    np.testing.assert_allclose(ratio, 1, atol=0.2)  # each error of 400 replicas is good to 3.5 %
    counts = counted(y.reshape(8, 2), RECO)
    one, two = (iterative(counts, r, n_iterations=3) for r in (drawn, hashed))
    np.testing.assert_allclose(two.values, one.values, rtol=1e-9)


def test_polarisation_of_parts_is_that_of_all():
    matched = simulation()
    whole = polarised_response(matched, RECO, TRUE, 0.6)
    found = streamed_polarised(cut(matched, 1300), RECO, TRUE, 0.6)
    for name in ("migration", "efficiency", "fakes", "prior"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-15)
    assert abs(found.migration - response(matched, RECO, TRUE, n_replicas=0).migration).max() > 1e-3


def test_refuses_what_has_no_meaning():
    matched = simulation(400)
    with pytest.raises(UserError, match="draw"):
        streamed_response(iter((matched,)), RECO, TRUE, n_replicas=3)
    with pytest.raises(UserError, match="none of 400 true pairs"):
        streamed_response(cut(matched, 130), RECO, (regular("mass", 2, 5.0, 6.0),))
    with pytest.raises(UserError, match="none of 0 true pairs"):
        streamed_response(iter(()), RECO, TRUE)
