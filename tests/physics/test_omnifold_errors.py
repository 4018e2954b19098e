"""OmniFold: fakes at any size of the simulation, acceptance, early stopping, replicas, the closure's bias."""

from dataclasses import replace

import numpy as np
import pytest
from builders import exact_ratio

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.sampling import stream

EDGES = np.linspace(0, 1, 5)
table = exact_ratio(EDGES)


def pairs(shares, n, efficiency, fakes=(), weight=1.0):
    """Return simulated pairs at the centres of the cells, with exact shares and efficiencies."""
    centers = (EDGES[1:] + EDGES[:-1]) / 2
    counts = np.asarray(n * np.asarray(shares), dtype=int)
    mass = np.repeat(centers, counts)
    true = np.stack([mass, np.ones(len(mass)), np.ones(len(mass))], axis=1)
    lost = np.concatenate([np.arange(c) >= e * c for c, e in zip(counts, efficiency, strict=True)])
    extra = np.repeat(centers, np.asarray(fakes, dtype=int)) if len(fakes) else np.empty(0)
    fake = np.stack([extra, np.ones(len(extra)), np.ones(len(extra))], axis=1)
    reco = np.where(lost[:, None], np.nan, true)
    total, number = np.full(len(mass), weight), np.arange(len(mass))
    return MatchedPairs(true, reco, total, number, fake, np.full(len(extra), weight))


def counts(x, weight):
    return np.histogram(x.true[:, 0], EDGES, weights=weight)[0]


@pytest.mark.parametrize("times", [1, 4, 10])
@pytest.mark.parametrize("weight", [1.0, 0.02])
def test_fakes_of_a_larger_simulation_keep_their_share(times, weight):
    shares, efficiency, fakes = [0.4, 0.3, 0.2, 0.1], [0.5] * 4, np.array([100, 100, 200, 100])
    data = pairs(shares, 2000, efficiency, fakes)
    measured = np.concatenate([data.reco[data.reconstructed], data.fakes])
    simulated = pairs(shares, 2000 * times, efficiency, fakes * times, weight)
    found = unfold.omnifold(measured, simulated, rng=stream(1), classifier=table, n_iterations=2)
    assert counts(simulated, found.weight) == pytest.approx(2000 * np.array(shares))


def test_acceptance_that_depends_on_the_truth_is_undone():
    """Without smearing one iteration is the truth, lost pairs included, whatever the prior."""
    truth, efficiency = np.array([0.1, 0.2, 0.3, 0.4]), [0.1, 0.2, 0.5, 0.8]
    data = pairs(truth, 10_000, efficiency)
    simulated = pairs([0.4, 0.3, 0.2, 0.1], 10_000, efficiency)
    measured = data.reco[data.reconstructed]
    found = unfold.omnifold(measured, simulated, rng=stream(2), classifier=table, n_iterations=1)
    assert counts(simulated, found.weight) == pytest.approx(10_000 * truth)
    inside = counts(simulated, found.weight * simulated.reconstructed)
    assert inside == pytest.approx(10_000 * truth * efficiency)  # lost and seen pairs have the same weight


def test_stopping_ends_when_the_weights_rest():
    """Smearing to the next cell makes the iterations converge slowly: the change decides when to stop."""
    rng = stream(3)
    simulated = pairs([0.4, 0.3, 0.2, 0.1], 8000, [1.0] * 4)
    reco = simulated.reco.copy()
    reco[rng.random(len(reco)) < 0.3, 0] += 0.25
    simulated = replace(simulated, reco=np.where(reco[:, :1] > 1, np.nan, reco))
    data = simulated.reco[
        simulated.reconstructed & (rng.random(len(reco)) < 0.2 + 0.8 * simulated.true[:, 0])
    ]
    options = {"classifier": table, "n_iterations": 60}
    everything = unfold.omnifold(data, simulated, rng=rng, **options)
    assert len(everything.history) == 60
    early = unfold.omnifold(data, simulated, rng=rng, tolerance=1e-3, **options)
    n = len(early.history)
    assert 1 < n < 60
    assert early.change[-1] < 1e-3 <= early.change[-2]
    assert early.history == pytest.approx(everything.history[:n])


@pytest.mark.long
def test_replicas_have_the_statistics_of_data_and_simulation():
    """Without smearing and with an exact ratio: Var = N_data/ε² (1 + share of the simulation)."""
    truth, n, n_mc, efficiency = np.array([0.1, 0.2, 0.3, 0.4]), 4000, 8000, 0.5
    data, simulated = pairs(truth, n, [efficiency] * 4), pairs([0.25] * 4, n_mc, [efficiency] * 4)
    measured = data.reco[data.reconstructed]
    options = {"classifier": table, "n_iterations": 1, "n_replicas": 200}
    copies = unfold.omnifold_replicas(measured, simulated, rng=stream(4), **options)
    found = np.array([counts(simulated, copy) for copy in copies])
    seen = n * truth * efficiency
    # y/ε: Poisson of the measured pairs, and the binomial efficiency of the simulation
    expected = (1 / seen + (1 - efficiency) / (n_mc / 4 * efficiency)) ** 0.5
    assert found.mean(axis=0) == pytest.approx(n * truth, rel=0.02)
    assert found.std(axis=0, ddof=1) / (n * truth) == pytest.approx(expected, rel=0.12)


@pytest.mark.long
def test_pairs_of_an_event_share_their_draw():
    truth, n = np.array([0.1, 0.2, 0.3, 0.4]), 1000
    data, simulated = pairs(truth, n, [1.0] * 4), pairs([0.25] * 4, 4000, [1.0] * 4)
    options = {"classifier": table, "n_iterations": 1, "n_replicas": 200}
    spread = [
        unfold.omnifold_replicas(data.reco, simulated, rng=stream(5), data_event=event, **options)
        .sum(axis=1)
        .std(ddof=1)
        for event in (np.arange(n), np.arange(n) // 4)
    ]
    assert spread[0] == pytest.approx(np.sqrt(n), rel=0.2)
    assert spread[1] == pytest.approx(np.sqrt(4 * n), rel=0.2)


def test_closure_estimates_the_bias_of_a_stiff_classifier():
    """A classifier that recovers a share s of the change: true bias (s − 1)·change, estimate s times that."""
    share = 0.6
    tilt = np.array([-0.3, -0.1, 0.1, 0.3])

    def stiff(above, below, rng):
        exact, scale = table(above, below, rng), above[1].sum() / below[1].sum()
        return lambda x: scale * (1 + np.sqrt(share) * (exact(x) / scale - 1))  # two steps: √s each

    data = pairs(0.25 * (1 + tilt), 40_000, [1.0] * 4)
    simulated = pairs([0.25] * 4, 40_000, [1.0] * 4)
    options = {"rng": stream(6), "classifier": stiff, "n_iterations": 1}
    found = unfold.omnifold(data.reco, simulated, **options)
    true = counts(simulated, found.weight) - 10_000 * (1 + tilt)
    assert true == pytest.approx(-(1 - share) * 10_000 * tilt, rel=1e-6)
    estimate = counts(simulated, unfold.omnifold_bias(found.weight, simulated, **options))
    assert estimate == pytest.approx(share * true, rel=1e-6)
    exact = unfold.omnifold(data.reco, simulated, rng=stream(6), classifier=table, n_iterations=1)
    rest = unfold.omnifold_bias(exact.weight, simulated, rng=stream(6), classifier=table, n_iterations=1)
    assert np.abs(rest).max() < 1e-9


def test_only_a_truth_from_elsewhere_shows_what_the_classifier_cannot_represent():
    """Steps twice as wide as the bins: the difference of neighbours is lost, and the result does not know."""

    def wide(above, below, rng):
        coarse = table(*(((x > 0.5) * 0.5, w) for x, w in (above, below)), rng)
        return lambda x: coarse((x > 0.5) * 0.5)

    shares = np.array([0.1, 0.2, 0.3, 0.4])
    data, simulated = pairs(shares, 4000, [1.0] * 4), pairs([0.25] * 4, 4000, [1.0] * 4)
    options = {"rng": stream(9), "classifier": wide, "n_iterations": 3}
    found = unfold.omnifold(data.reco, simulated, **options)
    lost = counts(simulated, found.weight) - 4000 * shares
    assert lost == pytest.approx([200, -200, 200, -200])
    itself = counts(simulated, unfold.omnifold_bias(found.weight, simulated, **options))
    assert itself == pytest.approx(np.zeros(4), abs=1e-6)
    model = np.repeat(4 * shares, 1000)
    assert counts(simulated, unfold.omnifold_bias(model, simulated, **options)) == pytest.approx(lost)


def test_closure_keeps_fakes_apart():
    shares, efficiency, fakes = [0.4, 0.3, 0.2, 0.1], [0.5] * 4, np.array([100, 100, 200, 100])
    data = pairs([0.25] * 4, 2000, efficiency, fakes)
    measured = np.concatenate([data.reco[data.reconstructed], data.fakes])
    simulated = pairs(shares, 8000, efficiency, 4 * fakes)
    options = {"rng": stream(7), "classifier": table, "n_iterations": 8}
    found = unfold.omnifold(measured, simulated, **options)
    assert counts(simulated, found.weight) == pytest.approx(np.full(4, 500), rel=0.02)
    rest = counts(simulated, unfold.omnifold_bias(found.weight, simulated, **options))
    assert np.abs(rest).max() < 0.02 * 500


def test_bias_refuses_another_simulation():
    simulated = pairs([0.25] * 4, 400, [1.0] * 4)
    options = {"rng": stream(8), "classifier": table, "n_iterations": 1}
    found = unfold.omnifold(simulated.reco, simulated, **options)
    with pytest.raises(UserError, match="200 simulated pairs"):
        unfold.omnifold_bias(found.weight, simulated.select(np.arange(200)), **options)
    with pytest.raises(UserError, match="n_repeats = 0"):
        unfold.omnifold_bias(found.weight, simulated, n_repeats=0, **options)
