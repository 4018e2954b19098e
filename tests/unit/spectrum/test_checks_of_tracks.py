"""Checks of single leptons and of events with one pair: each fires on its mistake and not on right files."""

import numpy as np
import pytest

from gammastar.core.pairs import Pairs
from gammastar.spectrum.checks import of_pairs, of_tracks

N = 4000


def alarms(checks):
    return [check.name for check in checks if check.verdict != "ok"]


def pairs(charge, event=None, weight=1.0):
    """Return pairs of different kinematics."""
    rng, n = np.random.default_rng(1), len(charge)
    mass, pt, energy = rng.uniform(0.3, 1, n), rng.uniform(0, 1, n), rng.uniform(20, 60, n)
    number = np.arange(n) if event is None else event
    return Pairs(mass, pt, energy, np.asarray(charge, np.int8), np.full(n, weight), number, {})


def found(sample):
    return alarms(of_pairs(sample, "mu", 400.0, weighted=False))


def test_like_signs_of_events_with_one_pair():
    rng = np.random.default_rng(2)
    right = rng.choice([0, 2, -2], N, p=[0.5, 0.3, 0.2])
    assert not found(pairs(right))
    several = np.tile([2, -2, 0], 100)  # of events with three pairs, which no skim of single pairs touches
    event = np.concatenate([np.arange(N), N + np.repeat(np.arange(100), 3)])
    skimmed = pairs(np.concatenate([np.zeros(N), several]), event)
    assert found(skimmed) == [
        "subtract: like-sign over +− pairs, events with one pair",
        "subtract: share of like-sign pairs that are beside a +− pair",
    ]
    prescaled = pairs(right[(right != 2) | (rng.random(N) < 0.05)])
    assert found(prescaled) == ["subtract: ++ over −− pairs, events with one pair"]


@pytest.mark.parametrize(("weight", "n"), [(1.0, 0), (2.0, 0), (0.3, 0), (2.5, 1)])
def test_weights_that_correct_for_the_efficiency(weight, n):
    sample = pairs(np.random.default_rng(3).choice([0, 2, -2], N), weight=weight)
    assert len([name for name in found(sample) if "whole numbers" in name]) == n


def tracks(angle=0.0, bend=0.0):
    """Return momenta and charges of leptons about an axis at an angle; a magnet favours charge × angle."""
    rng = np.random.default_rng(4)
    p, charge = (
        np.column_stack([rng.normal(0, 0.5, (N, 2)), rng.uniform(5, 30, (N, 2))]),
        rng.choice([-1, 1], N),
    )
    p[:, 0] += p[:, 2] * (angle + bend * charge)
    return p, charge


def test_direction_of_the_beam_and_skims_of_the_simulation():
    counts = np.random.default_rng(5).integers(0, 3, N)
    assert not alarms(of_tracks(tracks(), tracks(), counts))
    assert not alarms(of_tracks(tracks(bend=0.02), tracks(), counts))
    assert alarms(of_tracks(tracks(angle=0.02), tracks(), counts)) == [
        "unfold: mean p_x/p_z, data less simulation [widths]"
    ]
    assert alarms(of_tracks(tracks(), tracks(), counts[counts > 0])) == [
        "unfold: share of simulated rows without a lepton"
    ]
    assert not alarms(of_tracks(tracks(), tracks(), np.full(N, 2)))  # rows of pairs
