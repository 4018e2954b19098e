"""Displaced decays at a collider, against sampled decay positions and in their limits."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT

from gammastar import semivisible
from gammastar.core.errors import SteeringError
from gammastar.core.sampling import stream
from gammastar.semivisible import babar
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.production import monophoton_cross_section, s_channel_cross_section, sample_photons

sys.path.append(str(ROOT / "analysis" / "semivisible"))
from belle2 import displaced_plane, displaced_probability, load_displaced

N = 20_000
FEW = semivisible.Options(n=5_000)


@pytest.fixture(scope="module")
def search():
    return load_displaced()


@pytest.fixture(scope="module")
def events(search):
    rng = stream(1, "displaced")
    photons = sample_photons(1.0, search.sqrt_s, search.cos_max, N, rng)[1]
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(1.0))
    return decay(table, photons, rng, boost=search.boost)


def sampled(events, search, epsilon, rng):
    """Return in which events a pair counts, with every decay placed in space."""
    place = np.zeros((*events.state.shape, 2))
    counted = np.zeros(len(events), dtype=bool)
    for slot in range(events.state.shape[1]):
        filled, parent = events.filled[:, slot], events.parent[:, slot]
        start = np.where((events.source[:, slot] >= 0)[:, None], place[:, slot - 1], 0.0)
        p = np.sqrt((parent[:, :3] ** 2).sum(axis=1))
        length = rng.exponential(1.0, len(events)) * events.flight(epsilon)[:, slot]
        way = np.where(filled, length / np.where(filled, p, 1.0), 0.0)
        place[:, slot] = start + way[:, None] * parent[:, :2]
        radius = np.hypot(*place[:, slot].T)
        good = filled & (radius > search.radius_min) & (radius < search.radius_max)
        for lepton in (events.particle[:, slot], events.antiparticle[:, slot]):
            theta = np.degrees(np.arctan2(np.hypot(lepton[:, 0], lepton[:, 1]), lepton[:, 2]))
            good &= (
                (lepton[:, 3] > search.threshold) & (search.theta_min < theta) & (theta < search.theta_max)
            )
        counted |= good
    return counted


def test_against_sampled_positions(search, events):
    epsilon, rng = 3e-3, np.random.default_rng(2)
    expected = sampled(events, search, epsilon, rng).mean()
    found = displaced_probability(events, search, [epsilon], rng)[0]
    assert found == pytest.approx(expected, abs=4 * np.sqrt(expected / N))


@pytest.mark.long
@pytest.mark.parametrize("epsilon", [3e-3, 1e-2, 3e-2])
def test_all_steps_of_a_cascade_and_of_the_s_channel(search, epsilon):
    """Three states, pairs that are not seen in front of pairs that are, positions of every decay sampled."""
    sector = semivisible.load_benchmark("AHP2020-B").sector()
    narrow = replace(search, threshold=0.3, radius_min=0.05)
    for name in ("photon", "direct"):
        rng = stream(4, name)
        if name == "direct":
            events = babar.s_channel_cascades(sector, search, N, rng)
        else:
            photons = sample_photons(1.25, search.sqrt_s, search.cos_max, N, rng)[1]
            events = decay(decay_table(sector), photons, rng, boost=search.boost)
        expected = np.mean([sampled(events, narrow, epsilon, rng).mean() for _ in range(4)])
        found = displaced_probability(events, narrow, [epsilon], rng)[0]
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected / N))
        first = replace_source(events)
        assert found > displaced_probability(first, narrow, [epsilon], rng)[0]  # later steps add


def replace_source(events):
    """Return the events without what follows the first decays."""
    return replace(events, state=np.where(events.source < 0, events.state, -1))


def test_the_s_channel_adds_its_cross_section(search):
    """Events with a photon, and those without, which only a trigger on the displaced pair takes."""
    model, mass, epsilon = semivisible.load_benchmark("AHP2020-B").sector, np.array([1.25]), np.array([1e-2])
    setting = semivisible.Options(n=20_000)
    photon, half, full = (
        displaced_plane(model, mass, epsilon, options=replace(setting, s_channel=x))[0, 0]
        for x in (0.0, 0.5, 1.0)
    )
    assert full - photon == pytest.approx(2 * (half - photon), rel=1e-9)
    rng = stream(5, "direct")
    events = babar.s_channel_cascades(model(1.25), search, N, rng)
    sigma = s_channel_cross_section(model(1.25), search.sqrt_s).sum()
    expected = search.luminosity * sigma * 1e-4 * sampled(events, search, 1e-2, rng).mean()
    assert full - photon == pytest.approx(expected, rel=0.05)
    assert full > 3 * photon


def test_closed_on_the_shell_the_s_channel_remains():
    model, mass, epsilon = semivisible.load_benchmark("AHP2020-B").sector, np.array([0.2]), np.array([1e-4])
    none, some = (
        displaced_plane(model, mass, epsilon, options=replace(FEW, s_channel=x))[0, 0] for x in (0.0, 1.0)
    )
    assert none == 0
    assert some > 0


def test_prompt_and_stable_are_not_displaced(search, events):
    p = displaced_probability(events, search, [1e-7, 3e-3, 1.0], np.random.default_rng(3))
    assert p[1] > 10 * p[0]
    assert p[1] > 10 * p[2]


def test_few_events_at_small_couplings(search):
    """P is proportional to ε² there, and the events to ε⁴."""
    model = semivisible.load_benchmark("iDM-040").sector
    found = displaced_plane(model, np.array([0.5, 20.0]), np.array([1e-6, 2e-6]), options=FEW)
    assert found[0, 1] / found[0, 0] == pytest.approx(16.0, rel=0.02)
    assert (found[1] == 0).all()  # heavier than the collision
    assert (
        found[0, 0] < search.luminosity * monophoton_cross_section(0.5, search.sqrt_s, search.cos_max) * 1e-12
    )


def test_more_luminosity_more_events(search):
    model, mass, epsilon = semivisible.load_benchmark("iDM-040").sector, np.array([1.0]), np.array([1e-4])
    one, two = (
        displaced_plane(model, mass, epsilon, card=replace(search, luminosity=x), options=FEW)
        for x in (1.0, 2.0)
    )
    assert two == pytest.approx(2 * one)


def test_the_card_names_its_sources(tmp_path):
    assert any("luminosity" in text for text in load_displaced().unverified)
    file = tmp_path / "card.toml"
    file.write_text("luminosity = 1.0\n[sources]\n")
    with pytest.raises(SteeringError, match="no source is given for luminosity"):
        load_displaced(file)
