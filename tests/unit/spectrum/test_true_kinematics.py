"""Pairs that kinematics are learned from stand at true mass: a line beside a continuum, smeared."""

from __future__ import annotations

import numpy as np
import pytest
from builders import matched_pairs

from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.spectrum import Domain, efficiency_map, training_set
from gammastar.spectrum.training import TruePosterior

EDGES, BEAM, PHI, SIGMA = np.linspace(0.8, 1.2, 17), 400.0, 1.02, 0.03
CONTINUUM, LINE = (0.45, 60.0), (0.9, 25.0)  # mean of pt and energy [GeV]


def drawn(n, share, rng, *, pt=1.0):
    """True points and measured ones: a share of a line that is harder in pt and softer than the continuum."""
    line = rng.random(n) < share
    mass = np.where(line, PHI, rng.uniform(0.8, 1.2, n))
    mean = np.where(line[:, None], LINE, CONTINUUM) * [pt, 1.0]
    values = mean * np.exp(0.4 * rng.standard_normal((n, 2)) - 0.08)
    true = np.column_stack([mass, values[:, 0], values[:, 1] + 3.0])
    return true, true * np.exp(rng.standard_normal((n, 3)) * [SIGMA, 0.03, 0.01])


@pytest.fixture(scope="module")
def simulation():
    """Half as much of the line as the data have, and other kinematics of the continuum."""
    true, reco = drawn(120_000, 0.4, np.random.default_rng(1), pt=1.15)
    n = len(true)
    return MatchedPairs(true, reco, np.ones(n), np.arange(n), np.empty((0, 3)), np.empty(0))


@pytest.fixture(scope="module")
def found(simulation):
    true, reco = drawn(40_000, 0.6, np.random.default_rng(2))
    n = len(true)
    pairs = Pairs(*reco.T, np.zeros(n, np.int8), np.ones(n), np.arange(n))
    domain = Domain(efficiency_map(simulation), 0.01)
    weights = (np.ones(n), np.ones(n))
    made = training_set(pairs, weights, simulation, domain, beam_energy=BEAM, edges=EDGES, seed=3)
    return true, reco, made


def offsets(mass, points, weight, true):
    """Shift of mean ln pt and ln E from the truth in a window beside the line, and their errors."""
    near, there = ((np.abs(np.abs(m - PHI) - 0.05) < 0.015) for m in (mass, true[:, 0]))
    log, w = np.log(points[near, 1:]), weight[near, None]
    mean = (w * log).sum(axis=0) / w.sum()
    error = np.sqrt((w**2 * (log - mean) ** 2).sum(axis=0)) / w.sum()
    return mean - np.log(true[there, 1:]).mean(axis=0), error


@pytest.mark.long
def test_beside_a_line_kinematics_are_those_of_the_true_mass(found):
    true, reco, made = found
    before, _ = offsets(reco[:, 0], reco, np.ones(len(reco)), true)
    after, error = offsets(made.mass, made.points, made.weight, true)
    assert before[0] > 0.2  # what the reconstructed mass gives: the line's
    assert before[1] < -0.2
    # what is left: a simulation with half the line and 15 % more pt, corrected in few cells
    assert (np.abs(after) < 4 * error + 0.08 * np.abs(before)).all()
    on = np.abs(made.mass - PHI) < 0.012
    share = (np.abs(true[:, 0] - PHI) < 0.012).mean()
    assert made.weight[on].sum() / len(true) == pytest.approx(share, rel=0.05)
    assert made.coarse < 0.3


@pytest.mark.long
def test_replicas_are_drawn_anew_and_the_same_for_a_seed(found):
    _, _, made = found
    first, again, other = made.replica(0), made.replica(0), made.replica(1)
    np.testing.assert_array_equal(first.points, again.points)
    assert set(np.unique(first.weight)) >= {1.0, 2.0} or len(np.unique(first.weight)) > 100
    mine, others = (dict(zip(one.event, one.energy, strict=True)) for one in (first, other))
    both = [event for event in mine if event in others]
    assert np.mean([mine[event] == others[event] for event in both]) < 0.5
    assert first.replica is not None


@pytest.mark.long
def test_simulated_pairs_outside_the_domain_keep_the_measured_yield(simulation):
    rng = np.random.default_rng(5)
    seen = simulation.true[:, 2] > 20.0
    matched = MatchedPairs(
        simulation.true,
        np.where(seen[:, None], simulation.reco, np.nan),
        simulation.weight,
        simulation.event,
        simulation.fakes,
        simulation.fake_weight,
    )
    true, reco = drawn(20_000, 0.6, rng)
    reco = reco[true[:, 2] > 20.0]
    n = len(reco)
    pairs = Pairs(*reco.T, np.zeros(n, np.int8), np.ones(n), np.arange(n))
    domain = Domain(efficiency_map(matched), 0.01)
    where = {"beam_energy": BEAM, "edges": EDGES, "seed": 3, "outside": True}
    made = training_set(pairs, (np.ones(n), np.ones(n)), matched, domain, **where)
    assert not domain.in_domain(*made.points[~made.measured].T).any()
    share = made.weight[~made.measured].sum() / made.weight.sum()
    assert share == pytest.approx((~domain.in_domain(*true.T)).mean(), rel=0.2)


def test_what_the_detector_loses_is_given_back():
    """Everything is measured 10 % low in pt and 5 % low in energy: the pairs drawn have what they had."""
    true, reco = drawn(20_000, 0.3, np.random.default_rng(7))
    reco = reco * [1.0, 0.9, 0.95]
    posterior = TruePosterior.of(reco[10_000:], matched_pairs(true[:10_000], reco[:10_000]), EDGES)
    found = posterior.draw(np.ones(10_000), np.random.default_rng(8))
    shift = (np.log(found) - np.log(true[10_000:]))[:, 1:]
    np.testing.assert_allclose(shift.mean(axis=0), 0.0, atol=0.02)  # a fifth of the loss; half of the other
