"""Mixing pools of leptons that come in chunks: the same for every chunking, unbiased in R and shape."""

import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError
from gammastar.core.records import regular
from gammastar.core.sampling import stream
from gammastar.subtract import mixed_pairs, mixing_pool, r_factor

AXES = (regular("mass", 6, 0.2, 2.0),)
REGIONS = {"mass": [0.2, 0.5, 2.0]}


def leptons(n_events, seed=1):
    """Leptons of two classes: few hard events whose acceptance tells charges apart, and many soft ones."""
    rng = stream(seed, "pool")
    group = np.where(np.arange(n_events) % 4 == 0, 3, 2)
    counts = rng.poisson(np.where(group == 3, 3.0, 1.5))
    event = np.repeat(np.arange(n_events), counts)
    group, n = np.repeat(group, counts), int(counts.sum())
    charge = rng.choice(np.array([-1, 1], np.int8), n)
    slope = np.where(group == 3, 0.6, 0.25)
    pt, phi = rng.gamma(2, slope, n), rng.uniform(0, 2 * np.pi, n)
    keep = (group == 2) | (rng.random(n) < 0.5 * (1 + 0.9 * charge * np.cos(phi)))
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pt * np.sinh(3.2), np.full(n, M_MU)], axis=1)
    return p[keep], charge[keep], event[keep], group[keep]


def chunks(made, n_events, size):
    """Cut at events."""
    for start in range(0, n_events, size):
        inside = (made[2] >= start) & (made[2] < start + size)
        yield tuple(column[inside] for column in made)


def shape(pairs):
    return np.histogram(pairs.mass[pairs.os], AXES[0].edges, weights=pairs.weight[pairs.os])[0]


def test_pool_does_not_depend_on_the_chunks_and_holds_whole_events():
    n = 6000
    made = leptons(n)
    one, other = (mixing_pool(chunks(made, n, size), dataset="a", most=700) for size in (6000, 83))
    for name in ("momentum", "charge", "event", "group"):
        np.testing.assert_array_equal(*(np.sort(getattr(p, name), axis=0) for p in (one, other)))
    assert one.share == other.share
    for label in (2, 3):
        assert 690 < (one.group == label).sum() <= 700
        own = made[3] == label
        events = np.unique(one.event[one.group == label])
        assert np.isin(made[2][own], events).sum() == (one.group == label).sum()
        assert one.share[label] == len(events) / len(np.unique(made[2][own]))
    elsewhere = mixing_pool(chunks(made, n, 500), dataset="b", most=700)
    assert not np.array_equal(np.unique(elsewhere.event), np.unique(one.event))


def test_whole_pool_gives_the_same_leptons_and_no_share():
    n = 500
    made = leptons(n)
    pool = mixing_pool(chunks(made, n, 90), most=10**6)
    assert set(pool.share.values()) == {1.0}
    assert pool.complete
    np.testing.assert_array_equal(np.sort(pool.momentum[:, 2]), np.sort(made[0][:, 2]))
    assert len(mixing_pool(iter(())).charge) == 0
    with pytest.raises(UserError, match="most = 0"):
        mixing_pool(iter(()), most=0)


def test_classes_keep_their_share_of_the_pairs_when_one_is_thinned():
    n = 32_000
    made = leptons(n)
    whole = mixed_pairs(mixing_pool([made]), 100_000, rng=stream(1, "w"))
    pool = mixing_pool(chunks(made, n, 7000), dataset="MOCK", most=7000)
    assert len(pool.charge) < 0.35 * len(made[1])
    few = mixed_pairs(pool, 100_000, rng=stream(3, "w"))
    (r, sigma), (expected, error) = (r_factor(m, AXES, coarse=REGIONS) for m in (few, whole))
    assert (abs(expected - 1) > 5 * error).any()  # the hard class tells charges apart: its share matters
    assert (abs(r - expected) < 4 * np.hypot(sigma, error)).all()
    np.testing.assert_allclose(shape(few) / shape(few).sum(), shape(whole) / shape(whole).sum(), atol=0.012)
    assert few.weight.sum() == pytest.approx(whole.weight.sum(), rel=0.03)


@pytest.mark.long
def test_r_of_many_hashes_scatters_about_that_of_all_leptons():
    n = 12_000
    made = leptons(n, seed=5)
    rng = stream(6, "scatter")

    def found(pool):
        mixed = mixed_pairs(pool, 30_000, rng=rng)
        return r_factor(mixed, AXES, coarse=REGIONS)[0][[0, -1]], shape(mixed) / shape(mixed).sum()

    whole = [found(mixing_pool([made])) for _ in range(5)]
    drawn = [found(mixing_pool([made], dataset=f"{k}", most=2500)) for k in range(20)]
    for position in (0, 1):
        expected = np.mean([w[position] for w in whole], axis=0)
        values = np.array([d[position] for d in drawn])
        pull = (values.mean(axis=0) - expected) / (values.std(axis=0, ddof=1) / np.sqrt(len(values) / 1.25))
        assert np.abs(pull).max() < 3.5
