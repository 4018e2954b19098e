"""Displaced decays at a collider, against sampled decay positions and in their limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar import semivisible
from gammastar.core.errors import SteeringError
from gammastar.core.sampling import stream
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.displaced import displaced_probability
from gammastar.semivisible.production import monophoton_cross_section, sample_photons

N = 40_000


@pytest.fixture(scope="module")
def search():
    return semivisible.load_displaced()


@pytest.fixture(scope="module")
def events(search):
    rng = stream(1, "displaced")
    photons = sample_photons(1.0, search.sqrt_s, search.cos_max, N, rng)[1]
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(1.0))
    return decay(table, photons, rng, boost=search.boost)


def test_against_sampled_positions(search, events):
    epsilon = 3e-3
    rng = np.random.default_rng(2)
    length = rng.exponential(1.0, events.state.shape) * events.flight(epsilon)
    momentum = np.sqrt((events.parent[..., :3] ** 2).sum(axis=-1))
    filled = events.filled
    radius = np.zeros(events.state.shape)
    transverse = np.hypot(events.parent[..., 0], events.parent[..., 1])
    radius[filled] = length[filled] * transverse[filled] / momentum[filled]
    counted = filled & (radius > search.radius_min) & (radius < search.radius_max)
    for p in (events.particle, events.antiparticle):
        theta = np.degrees(np.arctan2(np.hypot(p[..., 0], p[..., 1]), p[..., 2]))
        counted &= (p[..., 3] > search.threshold) & (theta > search.theta_min) & (theta < search.theta_max)
    expected = counted.any(axis=1).mean()
    found = displaced_probability(events, search, [epsilon])[0]
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / N))


def test_prompt_and_stable_are_not_displaced(search, events):
    p = displaced_probability(events, search, [1e-7, 3e-3, 1.0])
    assert p[1] > 10 * p[0]
    assert p[1] > 10 * p[2]


def test_few_events_at_small_couplings(search):
    """P is proportional to ε² there, and the events to ε⁴."""
    model = semivisible.load_benchmark("iDM-040").sector
    found = semivisible.displaced_plane(model, np.array([0.5, 20.0]), np.array([1e-6, 2e-6]), n=5_000)
    assert found[0, 1] / found[0, 0] == pytest.approx(16.0, rel=0.02)
    assert (found[1] == 0).all()  # heavier than the collision
    assert (
        found[0, 0] < search.luminosity * monophoton_cross_section(0.5, search.sqrt_s, search.cos_max) * 1e-12
    )


def test_more_luminosity_more_events(search):
    model, mass, epsilon = semivisible.load_benchmark("iDM-040").sector, np.array([1.0]), np.array([1e-4])
    one, two = (
        semivisible.displaced_plane(model, mass, epsilon, card=replace(search, luminosity=x), n=5_000)
        for x in (1.0, 2.0)
    )
    assert two == pytest.approx(2 * one)


def test_the_card_names_its_sources(tmp_path):
    assert any("luminosity" in text for text in semivisible.load_displaced().unverified)
    file = tmp_path / "card.toml"
    file.write_text("luminosity = 1.0\n[sources]\n")
    with pytest.raises(SteeringError, match="no source is given for luminosity"):
        semivisible.load_displaced(file)
