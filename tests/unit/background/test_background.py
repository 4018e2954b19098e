"""Rejection factors, random pairs, vertices and closest approach."""

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.constants import M_E
from gammastar.core.errors import PhysicsError
from gammastar.physics.polarisation import two_track_vertex

sys.path.append(str(ROOT / "analysis" / "na62_dump"))
from beam_line import BeamLine, approach, invariant_mass
from random_pairs import accidental_rate, random_pairs
from rejection import PassFraction, expectation

NO_SURVIVOR = PassFraction("vetoes", 0, 100)


@pytest.mark.parametrize("shape", ["gamma", "gaussian"])
def test_published_interval_and_probability_of_nothing(shape):
    found = expectation(100.0, [NO_SURVIVOR], shape=shape, n=400_000, rng=np.random.default_rng(1))
    found = found.scaled(9.4e-3 / found.median)
    assert found.p_zero == pytest.approx(0.984, abs=1e-3)
    assert found.interval[0] == pytest.approx(2.2e-3, rel=0.20)
    assert found.interval[1] == pytest.approx(30.0e-3, rel=0.05)
    observed = found.counts(np.random.default_rng(2))
    assert (observed == 0).mean() == pytest.approx(found.p_zero, abs=5e-4)


def test_pass_fraction_is_its_beta_posterior():
    draws = PassFraction("LAV", 3, 20).draw(200_000, np.random.default_rng(3))
    assert draws.mean() == pytest.approx(4 / 22, abs=1e-3)
    assert draws.var() == pytest.approx(4 * 18 / (22**2 * 23), rel=0.02)


def test_a_second_factor_without_survivors_is_much_wider():
    rng = np.random.default_rng(4)
    one = expectation(9.0, [NO_SURVIVOR], n=200_000, rng=rng)
    other = PassFraction("region", 0, 30)
    two = expectation(9.0, [NO_SURVIVOR, other], n=200_000, rng=rng)
    assert two.kappa() > 1.5 * one.kappa()
    assert two.scaled(9.4e-3 / two.median).p_zero == pytest.approx(0.974, abs=2e-3)


@pytest.mark.parametrize("bad", [(-1.0, "gamma"), (1.0, "flat")])
def test_expectation_refuses(bad):
    with pytest.raises(PhysicsError):
        expectation(bad[0], [NO_SURVIVOR], shape=bad[1], rng=np.random.default_rng(1))


def test_random_pairs_predict_coincidences_of_a_poisson_process():
    """Prediction from a downscaled sample against the coincidences counted in the whole process."""
    rng = np.random.default_rng(5)
    live, window, downscaling = 50.0, 1e-5, 20
    times = [np.sort(rng.uniform(0, live, 20_000)) for _ in range(2)]
    near = np.searchsorted(times[1], times[0] + window) - np.searchsorted(times[1], times[0] - window)
    kept = [rng.uniform(size=20_000) < 1 / downscaling for _ in range(2)]
    charge = np.concatenate([np.ones(kept[0].sum()), -np.ones(kept[1].sum())]).astype(np.int8)
    pairs = random_pairs(charge, window=window, live_time=live, downscaling=downscaling, n_max=10**7, rng=rng)
    total, error = pairs.expected(np.ones(len(pairs.weight), dtype=bool))
    assert near.sum() == pytest.approx(20_000**2 * 2 * window / live, rel=0.1)
    assert abs(total - near.sum()) < 4 * np.hypot(error, np.sqrt(near.sum()))
    fewer = random_pairs(charge, window=window, live_time=live, downscaling=downscaling, n_max=1000, rng=rng)
    assert fewer.weight.sum() == pytest.approx(total)


def test_random_pairs_of_one_charge_and_bad_numbers():
    none = random_pairs(
        np.ones(5, dtype=np.int8),
        window=1e-8,
        live_time=1.0,
        downscaling=1.0,
        n_max=10,
        rng=np.random.default_rng(1),
    )
    assert none.expected(np.zeros(0, dtype=bool)) == (0.0, 0.0)
    with pytest.raises(PhysicsError, match="downscaling"):
        accidental_rate(1, 1, window=1.0, live_time=1.0, downscaling=0.5)


def test_vertex_and_approach_return_where_the_tracks_were_made():
    rng = np.random.default_rng(6)
    n = 1000
    vertex = np.column_stack([rng.normal(0, 0.1, (n, 2)), rng.uniform(105, 180, n)])
    p1, p2 = (np.column_stack([rng.normal(0, 0.1, (n, 2)), rng.uniform(10, 200, n)]) for _ in range(2))
    at1, at2 = (vertex + p / p[:, 2:] * (183.5 - vertex[:, 2:]) for p in (p1, p2))
    found = two_track_vertex(at1, p1, at2, p2)
    assert np.nanmax(found.distance) < 1e-8
    good = np.linalg.norm(p1 / p1[:, 2:] - p2 / p2[:, 2:], axis=1) > 1e-4
    assert np.allclose(found.position[good], vertex[good], atol=1e-6)
    beam = BeamLine(0.0, -0.022, 23.0)
    source = np.column_stack([np.full(n, beam.x), np.full(n, beam.y), rng.uniform(20, 30, n)])
    z, cda = approach(vertex, vertex - source, beam)
    assert np.allclose(z, source[:, 2], atol=1e-8)
    assert cda.max() < 1e-9


def test_approach_is_the_distance_of_two_lines():
    z, cda = approach(np.array([[0.3, 1.0, 5.0]]), np.array([[0.1, 0.0, 1.0]]), BeamLine())
    assert (z[0], cda[0]) == (pytest.approx(2.0), pytest.approx(1.0))


def test_invariant_mass_keeps_its_digits():
    """Electrons of 100 GeV: the mass from E² − p² in double precision would be off in the fourth digit."""
    half = 2.5e-5
    p1 = np.array([[100 * np.sin(half), 0.0, 100 * np.cos(half)]])
    p2 = p1 * [-1, 1, 1]
    m = M_E
    exact = 2 * np.sqrt(m**2 + (100 * np.sin(half)) ** 2)
    assert invariant_mass(p1, p2, m, m)[0] == pytest.approx(exact, rel=1e-12)
