"""Importance sampling of small probabilities, against plain events."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar import semivisible
from gammastar.core.errors import PhysicsError
from gammastar.semivisible import babar
from gammastar.semivisible.decays import decay_table

M = 1.25
RNG = np.random.default_rng


@pytest.fixture(scope="module")
def card():
    return replace(semivisible.load_babar(), radius=np.inf)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "threshold", "n"),
    [("i2DM-talk", 0.15, 40_000), ("iDM-040", 0.1, 40_000), ("AHP2020-B", 0.1, 40_000)],
)
def test_same_as_plain_events(card, name, threshold, n):
    point = semivisible.load_benchmark(name)
    table = decay_table(point.sector(point.mediator or M))
    chosen = replace(card, threshold=threshold)
    plain = babar.missing(babar.cascades(table, chosen, n, RNG(1)), chosen, [1.0], RNG(2), band=False)
    found = semivisible.prompt_missing(table, chosen, 3_000, RNG(3), copies=32)
    assert found.value[0] == pytest.approx(plain.value[0], abs=4 * np.hypot(plain.error[0], found.error[0]))
    assert found.low[0] <= 0.5 * found.value[0]
    assert found.high[0] >= 2.0 * found.value[0]


@pytest.mark.long
def test_one_in_ten_thousand(card):
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(M))
    hermetic = replace(card, threshold=0.0, thresholds=(), angles=())
    found = [semivisible.prompt_missing(table, hermetic, 3_000, RNG(seed), copies=32) for seed in range(4)]
    value, error = (np.array([getattr(p, key)[0] for p in found]) for key in ("value", "error"))
    assert value.mean() == pytest.approx(6.4e-5, rel=0.2)  # only particles beside the acceptance
    assert (error < 0.1 * value).all()  # 16 000 events in all; plain ones would leave 100 %
    assert value.std(ddof=1) < 3.0 * error.mean()


@pytest.mark.long
@pytest.mark.parametrize("name", ["AHP2020-B", "i2DM-talk"])
def test_planes_take_rare_events_from_importance_sampling(name):
    """The same at any coupling as many plain events, with a tenth of their error where decays are prompt."""
    point, card = semivisible.load_benchmark(name), semivisible.load_babar()
    table = decay_table(point.sector(point.mediator or M))
    epsilon = np.geomspace(1e-3, 0.3, 12)
    many = babar.missing(babar.cascades(table, card, 60_000, RNG(1)), card, epsilon, RNG(2))
    few = babar.cascades(table, card, 10_000, RNG(3))
    plain, ours = (babar.missing(few, card, epsilon, RNG(4), prompt=k) for k in (0, 3_000))
    for key in ("value", "low", "high"):
        difference = getattr(ours, key) - getattr(many, key)
        scale = {"value": 1.0, "low": 1.0, "high": 3.0}[key]  # the ends of the band are larger
        assert (np.abs(difference) < 4.5 * scale * np.hypot(ours.error, many.error)).all()
    assert ours.error[-1] < 0.4 * plain.error[-1]
    assert ours.value[-1] == pytest.approx(ours.value[-2], rel=1e-3)


def test_what_it_refuses(card):
    table = decay_table(semivisible.load_benchmark("iDM-040").sector(M))
    with pytest.raises(PhysicsError, match="at least 2 and 1"):
        semivisible.prompt_missing(table, card, 1, RNG(1))
