"""Replicas of OmniFold after a same-sign subtraction carry the fluctuations of the background."""

import numpy as np
import pytest
from builders import matched_pairs

from gammastar import unfold
from gammastar.core.errors import UserError
from gammastar.core.records import regular
from gammastar.core.sampling import stream

EDGES = np.linspace(0.2, 1.0, 5)
AXES = (regular("mass", 4, 0.2, 1.0),)


def measured(signal, background, rng):
    """Return pairs with posterior weights and signs of N++ + N--; two cells have no background."""
    shares = np.array([[1, 1, 1, 1], [2, 2, 0, 0], [2, 2, 0, 0]]) * np.array(
        [[signal], [background], [background]]
    )
    number = rng.poisson(shares)
    center = (EDGES[1:] + EDGES[:-1]) / 2
    mass = np.concatenate([np.repeat(center, row) for row in number])
    sign = np.repeat([1, 1, -1], number.sum(axis=1))
    values = np.stack([mass, np.ones(len(mass)), np.ones(len(mass))], axis=1)
    cell = np.digitize(mass, EDGES) - 1
    share = shares[0] / shares[:2].sum(axis=0)
    return values, sign.astype(float), np.where(sign > 0, share[cell], 0.0), shares


def sums(values, weight):
    return np.histogram(values[:, 0], EDGES, weights=weight)[0]


@pytest.mark.long
@pytest.mark.parametrize("ratio", [0.1, 0.5, 2.0])
def test_cells_fluctuate_like_the_subtracted_yield(ratio):
    values, signed, posterior, shares = measured(1000, 500 * ratio, stream(1, int(10 * ratio)))
    event = np.arange(len(values))
    copies = unfold.subtracted_replicas(
        values, signed=signed, posterior=posterior, event=event, axes=AXES, rng=stream(2), n_replicas=400
    )
    assert (copies >= 0).all()
    assert not copies[:, signed < 0].any()
    found = np.array([sums(values, copy) for copy in copies])
    assert found.mean(axis=0) == pytest.approx(sums(values, posterior), rel=0.02)
    assert found.std(axis=0, ddof=1) == pytest.approx(np.sqrt(shares.sum(axis=0)), rel=0.15)
    plain = np.sqrt(sums(values, posterior**2))  # what a bootstrap of the posterior weights would give
    assert plain[0] < found.std(axis=0, ddof=1)[0] / np.sqrt(1 + ratio)
    assert plain[3] == pytest.approx(found.std(axis=0, ddof=1)[3], rel=0.15)


def test_events_share_draws_and_cells_are_correlated_through_them():
    values, signed, posterior, _ = measured(400, 0, stream(3))
    order = stream(4).permutation(len(values))
    event = np.empty(len(values), dtype=int)
    event[order] = np.arange(len(values)) // 2
    copies = unfold.subtracted_replicas(
        values, signed=signed, posterior=posterior, event=event, axes=AXES, rng=stream(5), n_replicas=400
    )
    assert copies.sum(axis=1).std(ddof=1) == pytest.approx(np.sqrt(2 * len(values)), rel=0.12)


def test_omnifold_takes_the_weights_of_every_replica():
    values, signed, posterior, _ = measured(500, 250, stream(6))
    use = posterior > 0
    copies = unfold.subtracted_replicas(
        values,
        signed=signed,
        posterior=posterior,
        event=np.arange(len(use)),
        axes=AXES,
        rng=stream(7),
        n_replicas=60,
    )[:, use]
    n = 8000
    true = values[stream(8).integers(0, len(values), n)]
    simulated = matched_pairs(true, true)

    def total(above, below, rng):
        assert rng is not None
        return lambda x: np.full(len(x), above[1].sum() / below[1].sum())

    options = {"classifier": total, "n_iterations": 1, "n_replicas": 60}
    found = unfold.omnifold_replicas(values[use], simulated, rng=stream(9), data_weight=copies, **options)
    assert found.sum(axis=1) == pytest.approx(copies.sum(axis=1))
    with pytest.raises(UserError, match=r"data_weight of shape \(60, 5\)"):
        unfold.omnifold_replicas(
            values[use], simulated, rng=stream(9), data_weight=np.ones((60, 5)), **options
        )


def test_refuses_what_does_not_fit():
    values, signed, posterior, _ = measured(50, 10, stream(10))
    options = {"signed": signed, "event": np.arange(len(values)), "axes": AXES, "rng": stream(11)}
    with pytest.raises(UserError, match="three times"):
        unfold.subtracted_replicas(values[:-1], posterior=posterior, **options)
    with pytest.raises(UserError, match="below zero"):
        unfold.subtracted_replicas(values, posterior=-posterior, **options)
