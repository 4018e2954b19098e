"""The response of a simulation that comes part by part is that of all of it."""

from dataclasses import replace

import numpy as np
import pytest
from builders import counted

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import regular
from gammastar.core.sampling import event_seeds, replica_weights, stream
from gammastar.unfold import iterative, response
from gammastar.unfold.iterative_bayes import mc_statistics
from gammastar.unfold.response_matrix import polarised_response
from gammastar.unfold.simulation import more_radiation

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


def boot(seed=2):
    return stream(seed, "boot")


def draw(event, replicas):
    """Return the weights that `response` draws with `boot`."""
    return replica_weights(event_seeds(event, run=int(boot().integers(2**63))), replicas)


def test_sums_of_parts_are_the_response():
    matched = simulation()
    whole, parts = response(matched, RECO, TRUE, n_replicas=0), cut(matched, 701)
    found = response(parts, RECO, TRUE, n_replicas=0)
    for name in ("migration", "efficiency", "fakes", "prior"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-15)
    assert whole.fakes.max() > 0.05
    assert found.cov_replicas.shape == (0, 16, 5)


def test_bootstraps_know_nothing_of_the_parts_and_are_those_of_whole_events():
    matched = simulation()
    found = response(cut(matched, 701), RECO, TRUE, n_replicas=7, rng=boot()).cov_replicas
    other = response(matched, RECO, TRUE, n_replicas=7, rng=boot()).cov_replicas
    np.testing.assert_allclose(found, other, rtol=1e-10, atol=1e-14)
    for k in (0, 6):
        weight = matched.weight * draw(matched.event, range(k, k + 1))[0]
        by_hand = response(replace(matched, weight=weight), RECO, TRUE, n_replicas=0).migration
        np.testing.assert_allclose(found[k], by_hand, rtol=1e-10, atol=1e-14)


@pytest.mark.long
def test_statistics_of_the_simulation_are_those_of_drawn_bootstraps():
    """The covariance of responses whose events get numbers of a generator is that of the hashed ones."""
    matched, rng = simulation(3000), stream(2, "drawn")
    hashed = response(cut(matched, 500), RECO, TRUE, n_replicas=400, rng=boot())
    copies = []
    for _ in range(400):
        weight = matched.weight * rng.poisson(1.0, 1500)[matched.event]
        copies.append(response(replace(matched, weight=weight), RECO, TRUE, n_replicas=0))
    drawn = replace(
        hashed,
        cov_replicas=np.array([copy.migration for copy in copies]),
        prior_replicas=np.array([copy.prior for copy in copies]),
    )
    y = drawn.migration @ drawn.prior
    covs = [mc_statistics(y, r, r.prior, 3) for r in (drawn, hashed)]
    ratio = np.sqrt(np.diag(covs[1]) / np.diag(covs[0]))
    np.testing.assert_allclose(ratio, 1, atol=0.2)  # each error of 400 replicas is good to 3.5 %


def test_spectrum_and_covariance_do_not_depend_on_the_parts():
    matched = simulation(3000)
    responses = [
        response(parts, RECO, TRUE, n_replicas=20, rng=boot())
        for parts in (matched, cut(matched, 500), cut(matched, 77))
    ]
    counts = counted((responses[0].migration @ responses[0].prior).reshape(8, 2), RECO)
    whole, *others = (iterative(counts, r, n_iterations=3) for r in responses)
    for other in others:
        np.testing.assert_allclose(other.values, whole.values, rtol=1e-10)
        np.testing.assert_allclose(other.cov, whole.cov, rtol=1e-8, atol=1e-10 * whole.cov.max())


def test_radiation_does_not_depend_on_the_parts():
    matched = simulation(3000)
    whole, *parts = (
        [more_radiation(0.3, 0.105, boot())(part) for part in many]
        for many in ((matched,), cut(matched, 500), cut(matched, 77))
    )
    for many in parts:
        joined = MatchedPairs.concatenate(many)
        order, own = (np.lexsort((one.weight, one.true[:, 0])) for one in (joined, whole[0]))
        np.testing.assert_array_equal(joined.reco[order], whole[0].reco[own])


def test_polarisation_of_parts_is_that_of_all():
    matched = simulation()
    whole = polarised_response(matched, RECO, TRUE, 0.6)
    found = polarised_response(cut(matched, 1300), RECO, TRUE, 0.6)
    for name in ("migration", "efficiency", "fakes", "prior"):
        np.testing.assert_allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-15)
    assert abs(found.migration - response(matched, RECO, TRUE, n_replicas=0).migration).max() > 1e-3


def test_refuses_what_has_no_meaning():
    matched = simulation(400)
    with pytest.raises(UserError, match="rng"):
        response(iter((matched,)), RECO, TRUE, n_replicas=3)
    with pytest.raises(UserError, match="none of 400 true pairs"):
        response(cut(matched, 130), RECO, (regular("mass", 2, 5.0, 6.0),), n_replicas=0)
    with pytest.raises(UserError, match="none of 0 true pairs"):
        response(iter(()), RECO, TRUE, n_replicas=0)
