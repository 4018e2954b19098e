"""Recasts of missing-momentum searches."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT

from gammastar import semivisible
from gammastar.core.errors import InputFileError, PhysicsError, SteeringError
from gammastar.semivisible import babar, na64
from gammastar.semivisible.benchmarks import correction
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.missing_momentum import missing_energy, no_visible_decay
from gammastar.semivisible.production import LEAD, Correction, track_length, ww_spectrum

sys.path.append(str(ROOT / "analysis" / "semivisible"))
from exact_brem import implied_efficiency, ww_cross_section

RNG = np.random.default_rng
M = 1.25


@pytest.fixture(scope="module")
def card():
    return semivisible.load_babar()


def prompt(card, **changes):
    return replace(card, radius=np.inf, **changes)


@pytest.fixture(scope="module")
def iball(card):
    table = decay_table(semivisible.load_benchmark("iDM-040").sector(M))
    return babar.cascades(table, card, 60_000, RNG(5))


def test_every_benchmark_builds():
    for name in semivisible.benchmark_names():
        point = semivisible.load_benchmark(name)
        sector = point.sector(point.mediator or 1.0)
        assert decay_table(sector).slots >= 1
    assert semivisible.load_benchmark("AHP2020-B").sector().masses == pytest.approx(
        [0.074, 0.146, 0.22], abs=1e-4
    )
    assert semivisible.load_benchmark("AHP2020-A").sector().masses == pytest.approx(
        [0.035, 0.12, 0.185], abs=1e-4
    )
    with pytest.raises(PhysicsError, match="choose one of"):
        semivisible.load_benchmark("nothing")
    with pytest.raises(PhysicsError, match="give the mass"):
        semivisible.load_benchmark("iDM-040").sector()


def test_prompt_probabilities_of_idm(card, iball):
    for changes, expected in (
        ({"threshold": 0.05}, 8.0e-3),
        ({}, 3.1e-2),
        ({"threshold": 0.15}, 6.7e-2),
        ({"theta_min": 0.0, "theta_max": 180.0}, 3.0e-2),
        ({"transverse": True}, 4.8e-2),
        ({"theta_min": 15.8, "theta_max": 141.8}, 3.0e-2),
    ):
        p = babar.missing(iball, prompt(card, **changes), [1e-3], RNG(1), band=False)
        assert p.value[0] == pytest.approx(expected, abs=4 * p.error[0] + 0.02 * expected)


def test_the_band_is_always_there(card, iball):
    p = babar.missing(iball, prompt(card), [1e-3], RNG(1))
    assert p.low[0] <= 0.5 * p.value[0]
    assert p.high[0] >= 2.0 * p.value[0]


def test_long_lived_states_are_invisible(card, iball):
    epsilon = np.geomspace(1e-6, 1.0, 25)
    p = babar.missing(iball, card, epsilon, RNG(1), band=False).value
    assert p[0] == pytest.approx(1.0, abs=1e-4)
    assert p[-1] == pytest.approx(babar.missing(iball, prompt(card), [1.0], RNG(1)).value[0], rel=1e-6)
    assert (np.diff(p) <= 1e-12).all()


@pytest.mark.long
def test_survival_of_a_cascade_against_sampled_positions(card):
    table = decay_table(semivisible.load_benchmark("AHP2020-B").sector())
    events = babar.cascades(table, card, 40_000, RNG(2))
    epsilon = 1.5e-3
    ours = babar.missing(events, card, [epsilon], RNG(3), band=False)
    seen = babar.seen(events, card)
    momentum = np.sqrt((events.parent[..., :3] ** 2).sum(axis=-1))
    slope = np.hypot(events.parent[..., 0], events.parent[..., 1]) / np.where(events.filled, momentum, 1)
    mean = np.where(events.filled, events.flight(epsilon), 0.0)
    distance = RNG(4).exponential(1.0, mean.shape) * mean * slope
    for slot in range(1, mean.shape[1]):
        follows = events.source[:, slot] >= 0
        distance[follows, slot] += distance[follows, events.source[follows, slot]]
    missed = ~(seen & (distance < card.radius)).any(axis=1)
    sigma = np.hypot(ours.error[0], (missed.mean() * (1 - missed.mean()) / len(missed)) ** 0.5)
    assert 0.05 < missed.mean() < 0.95
    assert ours.value[0] == pytest.approx(missed.mean(), abs=4 * sigma)


def test_na64_modes_against_sampled_positions():
    selection = semivisible.load_na64()
    table = decay_table(semivisible.load_benchmark("AHP2020-B").sector(0.5))
    target = na64.production(0.5, selection)
    energy, events = na64.cascades(table, target, 30_000, RNG(2))
    assert energy.min() > 50.0
    epsilon = 6e-3
    rng = RNG(7)
    mean = np.where(events.filled, events.flight(epsilon), 1.0)
    z = rng.exponential(1.0, mean.shape) * mean
    z[~events.filled] = np.inf
    for slot in range(1, z.shape[1]):
        follows = events.source[:, slot] >= 0
        z[follows, slot] += z[follows, events.source[follows, slot]]
    visible = (events.particle + events.antiparticle)[..., 3]
    in_ecal = np.where(z < selection.ecal_end, visible, 0.0).sum(axis=1)
    in_hcal = np.where((z >= selection.ecal_end) & (z < selection.hcal_end), visible, 0.0).sum(axis=1)
    inclusive = (energy - in_ecal > selection.missing_energy) & (in_hcal < selection.hcal_energy)
    for mode, sampled in (("inclusive", inclusive), ("strict", (z > selection.hcal_end).all(axis=1))):
        p = na64.missing(energy, events, selection, [epsilon], RNG(3), mode=mode)
        sigma = (sampled.mean() * (1 - sampled.mean()) / len(sampled)) ** 0.5
        assert p.value[0] == pytest.approx(sampled.mean(), abs=4 * sigma + 4 * p.error[0])
    with pytest.raises(PhysicsError, match="strict"):
        na64.missing(energy, events, selection, [epsilon], RNG(3), mode="visible")


@pytest.mark.long
def test_sums_of_exponentials_are_the_compiled_sums(card):
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(0.5))
    epsilon = np.geomspace(1e-5, 1e-1, 17)
    events = babar.cascades(table, card, 5000, RNG(1))
    fast = babar.missing(events, card, epsilon, RNG(1), band=False)
    seen = np.stack([babar.seen(events, card)], axis=-1)
    momentum = np.sqrt((events.parent[..., :3] ** 2).sum(axis=-1))
    slope = np.hypot(events.parent[..., 0], events.parent[..., 1]) / np.where(events.filled, momentum, 1.0)
    source = np.where(events.filled, events.source, -2)
    flight, uniform = events.flight(1.0), np.zeros(source.shape)
    sums = no_visible_decay(seen, source, flight, slope, uniform, card.radius, epsilon)[:, 0]
    assert np.allclose(fast.value, sums[0] / 5000, atol=1e-7)
    selection = semivisible.load_na64()
    energy, events = na64.cascades(table, na64.production(0.5, selection), 5000, RNG(1))
    strict = na64.missing(energy, events, selection, np.geomspace(1e-6, 10.0, 40), RNG(1)).value
    assert 0.0 <= strict.min() < 1e-3  # A′ → ψ₁ψ₁ is never seen
    assert strict.max() == pytest.approx(1.0, abs=1e-4)
    fast = na64.missing(energy, events, selection, epsilon, RNG(1), mode="inclusive")
    source = np.where(events.filled, events.source, -2)
    visible = (events.particle + events.antiparticle)[..., 3]
    slots = (source, visible, events.kind > 0, events.flight(1.0), np.zeros(source.shape))
    ends = (selection.ecal_end, selection.hcal_end)
    cuts = (selection.missing_energy, selection.hcal_energy)
    assert np.allclose(fast.value, missing_energy(energy, slots, ends, cuts, epsilon)[0] / 5000, atol=1e-6)


def test_nothing_is_seen_of_stable_states(card):
    sector = semivisible.load_benchmark("iDM-040").sector(0.002)  # splitting below 2 m_e
    table = decay_table(sector)
    assert np.isinf(table.ctau).all()
    events = babar.cascades(table, card, 100, RNG(1))
    assert babar.missing(events, card, [1e-3], RNG(1)).value[0] == 1.0


def test_weizsaecker_williams_against_the_converged_requadrature():
    exact = {0.01: 8486.0, 0.05: 467.0, 0.1: 106.0, 0.3: 7.37, 0.5: 1.80, 1.0: 0.192}
    for m, expected in zip(exact, (1.106, 1.274, 1.325, 1.388, 1.416, 1.475), strict=True):
        assert 1e-8 * ww_cross_section(m, 100.0) / exact[m] == pytest.approx(expected, rel=3e-3)
    assert float(track_length(50.0, 100.0)) == pytest.approx(0.870, abs=1e-3)
    assert ww_spectrum([0.05, 1.0], 10.0, 100.0, LEAD).tolist() == [0.0, 0.0]


def test_correction_from_exact_cross_sections():
    mass, exact = np.array([0.01, 0.1, 1.0]), np.array([[8486e8], [106e8], [0.192e8]])
    ww = np.array([[ww_cross_section(float(m), 100.0)] for m in mass])
    ours = Correction(mass, np.array([100.0]), ww / exact, "arXiv:1712.05706")
    shipped = correction()
    for m in (0.01, 0.1, 1.0):
        assert float(ours.at(m, 80.0)) == pytest.approx(float(shipped.at(m, 100.0)), rel=0.012)
    assert ww_cross_section(0.1, 100.0, correction=ours) == pytest.approx(106e8, rel=1e-9)
    with pytest.raises(PhysicsError, match="increasing"):
        Correction(mass[::-1], np.array([100.0]), exact, "x")


@pytest.mark.parametrize(
    ("mass", "published", "efficiency"),
    [(0.01, 3.30e-5, 0.63), (0.1, 3.46e-4, 0.45), (0.5, 3.36e-3, 0.30), (0.9, 9.06e-3, 0.28)],
)
def test_scale_of_na64(mass, published, efficiency):
    ours = implied_efficiency(mass, published, semivisible.load_na64())
    assert ours == pytest.approx(efficiency, rel=0.03)


def test_energies_of_dark_bremsstrahlung():
    target = na64.production(0.1, semivisible.load_na64())
    photons = target.sample(20_000, RNG(1))
    assert np.allclose(photons[:, 3] ** 2 - photons[:, 2] ** 2, 0.01)
    assert photons[:, 3].mean() == pytest.approx(79.2, abs=0.3)  # electrons of all depths, slice by slice
    assert photons[:, 3].max() < 100.0
    with pytest.raises(PhysicsError, match="not possible"):
        na64.production(200.0, semivisible.load_na64())
    table = decay_table(semivisible.load_benchmark("iDM-040").sector(0.2))
    with pytest.raises(PhysicsError, match="belong"):
        na64.cascades(table, target, 10, RNG(1))


def test_excluded_intervals():
    epsilon = np.geomspace(1e-4, 1e-1, 301)
    p = np.array([np.ones(301), np.where((epsilon > 2e-3) & (epsilon < 2e-2), 1e-9, 1.0), np.zeros(301)])
    reach = semivisible.intervals(np.array([1.0, 2.0, 3.0]), epsilon, p, [1e-3, 1e-3, 1e-3])
    assert reach.mass.tolist() == [1.0, 2.0, 2.0, 3.0]
    assert reach.edges[0] == pytest.approx([1e-3, 1e-1], rel=1e-6)
    assert reach.edges[1] == pytest.approx([1e-3, 2e-3], rel=3e-2)
    assert reach.clipped_side == ("upper", "", "upper", "")
    assert np.isnan(reach.edges[3]).all()
    plane = semivisible.excluded_plane(epsilon, p, [1e-3, np.nan, 1e-3])
    assert not plane[1].any()
    band = np.array([[1e-2] * 3, [3e-2] * 3])
    height = semivisible.excess(epsilon, p, [1e-3] * 3)
    free = semivisible.allowed(band, epsilon, height)
    assert free[0] == 0.0
    assert free[1] == pytest.approx(np.log(2) / np.log(3), abs=0.02)
    assert free[2] == 1.0
    everything = semivisible.excess(epsilon, np.ones_like(p), [1e-3] * 3)
    assert (semivisible.allowed(band, epsilon, height, everything) == 0.0).all()
    assert np.isnan(semivisible.allowed(10 * band, epsilon, height)).all()
    with pytest.raises(PhysicsError, match="at least two"):
        semivisible.allowed(band, epsilon[:1], height[:, :1])


def test_shipped_points_speak_for_themselves_alone():
    points = semivisible.published("babar")
    assert points.known(points.mass).all()
    assert points.known([0.5, 1.7]).all()
    assert not points.known([0.05, 2.5, 4.0, 9.0]).any()
    full = type(points)(points.mass, points.epsilon, full=True)
    assert full.known([2.5, 4.0]).all()
    assert not full.known([0.05, 9.0]).any()


@pytest.mark.parametrize("n", [9, 33])
def test_free_part_does_not_count_couplings_of_the_grid(n):
    """A band narrower than the grid's steps: excluded is ε² P > ε_lim² with P = 1e-3/ε, ε > 1e-3 exactly."""
    epsilon = np.geomspace(1e-5, 0.1, n)
    height = semivisible.excess(epsilon, (1e-3 / epsilon)[None], [1e-3])
    for low, high in ((8e-4, 1.1e-3), (9e-4, 2e-3), (1.2e-3, 1.3e-3)):
        expected = np.log(np.clip(1e-3, low, high) / low) / np.log(high / low)
        assert semivisible.allowed(np.array([[low], [high]]), epsilon, height)[0] == pytest.approx(
            expected, abs=1e-3
        )
    assert semivisible.allowed(np.array([[0.0], [2e-3]]), epsilon, height)[0] == pytest.approx(
        np.log(100) / np.log(200), abs=1e-3
    )


def test_limits_from_files(tmp_path, caplog):
    points = semivisible.published("babar")
    assert not points.full
    assert float(points.at(1.25)) == pytest.approx(9.69e-4)
    assert np.isnan(points.at(20.0))
    file = tmp_path / "babar_1702.03327_epsilon_limit.csv"
    file.write_text("# a curve\nm_Aprime_GeV,epsilon_90CL\n1,1e-3\n2,2e-3\n")
    assert semivisible.published("babar", tmp_path).full
    assert not semivisible.published("na64_2016_18", tmp_path).full
    assert "the few shipped points" in caplog.text
    file.write_text("m,e\n1,2\n")
    with pytest.raises(InputFileError, match="columns"):
        semivisible.published("babar", tmp_path)
    with pytest.raises(PhysicsError, match="choose one of"):
        semivisible.published("belle")


def test_cards_need_sources(tmp_path, card):
    assert card.sqrt_s == pytest.approx(10.564, abs=1e-3)
    assert card.boost == pytest.approx(0.558, abs=1e-3)
    assert any("recalled" in text for text in (*card.unverified, *semivisible.load_na64().unverified))
    file = tmp_path / "card.toml"
    file.write_text("beam_minus = 9.0\n")
    with pytest.raises(SteeringError, match="no source"):
        semivisible.load_babar(file)
    file.write_text('beams = 9.0\n[sources]\nbeams = "x"\n')
    with pytest.raises(SteeringError, match="beams"):
        semivisible.load_na64(file)


@pytest.mark.long
def test_a_plane_of_both_searches():
    mass, epsilon = np.array([0.3, 1.25]), np.geomspace(1e-4, 5e-2, 9)
    options = semivisible.Options(n=4000, s_channel=1e-3)
    plane = semivisible.scan(semivisible.load_benchmark("i2DM-talk").sector, mass, epsilon, options=options)
    assert plane.babar.shape == plane.strict.shape == (2, 9)
    assert (plane.babar_low <= plane.babar).all()
    assert (plane.strict <= plane.inclusive + 1e-12).all()
    assert any("broad" in text for text in plane.warnings)


def test_photons_must_have_the_mass_of_the_table():
    table = decay_table(semivisible.load_benchmark("iDM-040").sector(1.0))
    with pytest.raises(PhysicsError, match="off their mass"):
        decay(table, np.array([[0.0, 0.0, 1.0, 3.0]]), RNG(1))
