"""Does a joint likelihood describe its pairs? Against the engine of workspaces, chance, and a wrong bin."""

import logging
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from joint_models import model

from gammastar.infer.binned.toys import goodness_of_fit
from gammastar.infer.joint.discovery import PairsFit, pairs_fit
from gammastar.infer.joint.expectation import joint_workspace
from gammastar.pipeline.cache import StageCache
from gammastar.pipeline.stages import joint as stage


@pytest.mark.long
def test_the_statistic_is_that_of_the_workspace():
    """The other engine finds the same where the search sees just its background."""
    window = model(300.0, seed=5, background=np.array([2.0]), observed=np.array([2.0]))
    found = pairs_fit(window, rng=np.random.default_rng(1), n_toys=700)
    peer = goodness_of_fit(joint_workspace(window), rng=np.random.default_rng(2), n_toys=700, strength=0.0)
    assert found.statistic == pytest.approx(peer.statistic, abs=1e-6)
    assert found.p_value == pytest.approx(peer.p_value, abs=0.07)  # there the search fluctuates as well
    masked = replace(window, observed=None)
    assert pairs_fit(masked, rng=np.random.default_rng(1), n_toys=700) == found


@pytest.mark.long
def test_p_values_of_described_pairs_are_those_of_chance():
    """The simulation is exact and nothing is uncertain but the contents, which are those fitted."""
    rng = np.random.default_rng(4)
    windows = (model(60.0, seed=s, named=False, variance=np.zeros((8, 6))) for s in range(44))
    p = np.array([pairs_fit(window, rng=rng, n_toys=50).p_value for window in windows])
    assert np.mean(p < 0.1) == pytest.approx(0.1, abs=0.136)  # three standard deviations
    assert np.mean(p < 0.5) == pytest.approx(0.6, abs=0.222)


def test_a_bin_narrower_than_the_response_is_noticed():
    window = model(2000.0, seed=3)
    counts = window.counts.copy()
    counts[0, 4] += 400  # of 278: the response spreads a cell over two bins and more
    assert pairs_fit(window, rng=np.random.default_rng(1)).p_value > 0.1
    assert pairs_fit(replace(window, counts=counts), rng=np.random.default_rng(1)).p_value < 0.002


@pytest.mark.parametrize(("p", "warned"), [(1e-5, True), (1e-2, False)])
def test_a_run_says_where_pairs_are_not_described(tmp_path, caplog, p, warned):
    ctx = SimpleNamespace(
        folder=tmp_path, cache=StageCache(tmp_path, resume=False, seed=1, mock=True, previous={})
    )
    with caplog.at_level(logging.WARNING):
        stage._tell_fits(
            ctx, {0.3: PairsFit(9.0, 9.0, 3.0, 0.4, 50.0), 0.6: PairsFit(40.0, 9.0, 3.0, p, 70.0)}
        )
    assert ("0.6 GeV does not describe its pairs" in caplog.text) == warned
    assert bool(ctx.cache.notes) == warned
    table = np.genfromtxt(tmp_path / "joint_pairs.csv", delimiter=",", names=True)
    np.testing.assert_allclose(table["p_value"], [0.4, p])
    np.testing.assert_allclose(table["mass"], [0.3, 0.6])
