"""Total of OmniFold: a window of the data, ratios of classifiers that are not normalised."""

from dataclasses import replace

import numpy as np
import pytest
from builders import exact_ratio

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import regular
from gammastar.core.sampling import stream

EDGES = np.linspace(0, 1, 6)
CENTERS = (EDGES[1:] + EDGES[:-1]) / 2
WINDOW = (regular("mass", 4, 0, 0.8),)
table = exact_ratio(EDGES)
SHARES, TRUTH = np.array([0.3, 0.25, 0.2, 0.15, 0.1]), np.array([0.1, 0.15, 0.2, 0.25, 0.3])


def shrunk(above, below, rng):
    """Half of the logarithm of the exact ratio: trees that grow too little."""
    exact, total = table(above, below, rng), above[1].sum() / below[1].sum()
    return lambda x: total * np.sqrt(exact(x) / total)


def smeared(shares, n):
    """Return pairs of which every tenth moves one cell up; those of the last cell leave it to above 1."""
    counts = np.rint(n * shares).astype(int)
    mass = np.repeat(CENTERS, counts)
    true = np.stack([mass, np.ones(n), np.ones(n)], axis=1)
    place = np.concatenate([np.arange(c) for c in counts])
    reco = true.copy()
    reco[:, 0] += np.where(place % 10 == 0, 0.2, 0.0)
    fake = np.stack([np.full(n // 20, 0.9), np.ones(n // 20), np.ones(n // 20)], axis=1)
    return MatchedPairs(true, reco, np.ones(n), np.arange(n), fake, np.ones(n // 20))


def counts(sample, weight):
    return np.histogram(sample.true[:, 0], EDGES, weights=weight)[0]


def test_data_cut_to_a_window_are_unfolded_with_a_simulation_cut_to_it():
    """Cells that the window sees are the truth; the pairs beyond it are no part of the normalisation."""
    data, simulated = smeared(TRUTH, 10_000), smeared(SHARES, 20_000)
    kept = data.reco[unfold.response_matrix.cells(data.reco, WINDOW) >= 0]
    options = {"rng": stream(1), "classifier": table, "n_iterations": 30}
    found = unfold.omnifold(kept, unfold.simulation.in_window(simulated, WINDOW), **options)
    assert counts(simulated, found.weight)[:4] == pytest.approx(10_000 * TRUTH[:4], rel=0.002)
    plain = unfold.omnifold(kept, simulated, **options)  # the cut taken for an absence of pairs
    assert counts(simulated, plain.weight)[3] < 0.95 * 10_000 * TRUTH[3]


def test_the_window_makes_misses_and_keeps_the_truth():
    simulated = smeared(SHARES, 1000)
    cut = unfold.simulation.in_window(simulated, WINDOW)
    np.testing.assert_array_equal(cut.true, simulated.true)
    assert np.nanmax(cut.reco[:, 0]) < 0.8
    assert cut.reconstructed.sum() == np.sum(simulated.reco[:, 0] < 0.8)
    assert not len(cut.fakes)
    response = unfold.response(cut, WINDOW, WINDOW, n_replicas=0)
    np.testing.assert_allclose(
        response.migration, unfold.response(simulated, WINDOW, WINDOW, n_replicas=0).migration
    )


@pytest.mark.parametrize("n_iterations", [1, 3])
def test_the_total_of_the_reconstructed_pairs_is_that_of_the_data(n_iterations):
    """The mean of a shrunk ratio lies below one: without the scale the total would too."""
    data, simulated = smeared(TRUTH, 10_000), smeared(SHARES, 20_000)
    simulated = replace(simulated, fakes=np.empty((0, 3)), fake_weight=np.empty(0))
    options = {"rng": stream(2), "classifier": shrunk, "n_iterations": n_iterations}
    found = unfold.omnifold(data.reco, simulated, **options)
    assert found.weight.sum() == pytest.approx(len(data), rel=1e-9)
    exact = counts(simulated, found.weight)
    assert np.abs(exact - 10_000 * TRUTH).max() > 100  # the shape is the classifier's, and not yet right
