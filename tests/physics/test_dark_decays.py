"""Decays into three dark states, or with a dark photon on its shell: widths by Dirac matrices, flights."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT
from scipy.integrate import quad

from gammastar import semivisible
from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import stream
from gammastar.semivisible import babar, na64
from gammastar.semivisible.cascade import decay, decay_states
from gammastar.semivisible.decays import NeutrinoMixing, dark_widths, decay_table, lifetimes
from gammastar.semivisible.models import DarkSector, from_couplings, mediator_widths
from gammastar.semivisible.plane import Options

sys.path.insert(0, str(ROOT / "analysis"))
from validation import semivisible_direct as truth

sys.path.pop(0)


def tree(mediator=1.25, field="majorana", **changes):
    """ψ₃ → ψ₂ ψ₁ ψ₂ at once, then each ψ₂ → ψ₁ ee in flight."""
    pairs = [((1, 2), 0.8, 0.3), ((2, 3), 0.4, 0.6)]
    given = {"masses": [0.02, 0.10, 0.5], "couplings": pairs, "alpha_d": 0.2} | changes
    return from_couplings("tree", **given, field=field, mediator=mediator)


@pytest.mark.parametrize("field", ["majorana", "dirac"])
def test_widths_by_dirac_matrices(field):
    sector = tree(field=field)
    assert dark_widths(sector)[2] == pytest.approx(truth.dark_width(sector, 2, 1, (0, 1)), rel=2e-4)
    assert (dark_widths(sector)[:2] == 0).all()
    assert lifetimes(sector)[2] == 0
    assert lifetimes(sector)[1] > 0


def test_on_its_shell_a_resonance_becomes_two_bodies():
    """α_D → 0: Γ(ψ₃ → ψ₂ A'), the polarisations of A' summed, whatever A' decays to."""
    for alpha, tolerance in ((1e-2, 5e-3), (1e-3, 1e-3), (1e-5, 1e-2)):
        sector = tree(0.2, alpha_d=alpha)
        m_j, m_i, m = 0.5, 0.10, 0.2
        v2, a2 = 0.4**2, 0.6**2
        p = np.sqrt((m_j**2 - (m_i + m) ** 2) * (m_j**2 - (m_i - m) ** 2)) / (2 * m_j)
        # ½ Σ |M|² of ψ_j → ψ_i V by hand, vector and axial.
        both = m_j**2 + m_i**2 - 2 * m**2 + (m_j**2 - m_i**2) ** 2 / m**2
        squared = 4 * np.pi * alpha * ((v2 + a2) * both - 6 * m_j * m_i * (v2 - a2))
        expected = p / (8 * np.pi * m_j**2) * squared
        assert dark_widths(sector)[2] == pytest.approx(expected, rel=tolerance)


@pytest.mark.long
def test_without_a_dark_decay_the_dark_photon_is_seen_at_once():
    """The cascade of AHP2020-B below 72 MeV: ψ₃ → ψ₂ A', ψ₂ → ψ₁ A', and A' → e+e− of one mass."""
    sector = semivisible.load_benchmark("AHP2020-B").sector(0.06)
    assert not len(mediator_widths(sector)[0])
    assert np.isinf(lifetimes(sector)[0])
    assert (lifetimes(sector)[1:] == 0).all()
    events = babar.s_channel_cascades(sector, semivisible.load_babar(), 4_000, stream(1))
    pair = (events.particle + events.antiparticle)[events.filled]
    mass = np.sqrt(pair[:, 3] ** 2 - (pair[:, :3] ** 2).sum(axis=1))
    assert mass == pytest.approx(0.06, rel=1e-4)
    assert events.filled.sum(axis=1).min() >= 1
    card = semivisible.load_babar()
    found, same = (
        babar.missing(events, c, [1e-4, 1e-2], stream(2), band=False).value
        for c in (card, replace(card, radius=np.inf))
    )
    assert found == pytest.approx(same, abs=1e-9)  # nothing flies
    plane = semivisible.scan(
        lambda _: sector, np.array([0.06]), np.array([1e-3, 1e-2]), options=Options(n=500, s_channel=1.0)
    )
    assert np.isfinite(plane.babar).all()
    events = truth.belle2.displaced_plane(
        lambda _: sector, np.array([0.06]), np.array([1e-3]), options=Options(n=500, s_channel=1.0)
    )
    assert events[0, 0] == pytest.approx(0.0, abs=1e-9)
    mixed = decay_table(sector, at=3.0, neutrino=NeutrinoMixing(0, 1e-6))
    assert mixed.ctau[0] == 0  # ψ₁ of 74 MeV → ν A'


@pytest.mark.long
def test_energies_of_a_decay_to_three_dark_states():
    """Mean energies of both ψ₂, one beside the pair and one of it, from the spectrum by quadrature."""
    sector = tree()
    table = decay_table(sector)
    assert table.depth.tolist() == [0, 1, 2]
    assert table.lines.tolist() == [0, 1, 2]
    rest = np.tile([0.0, 0.0, 0.0, 0.5], (60_000, 1))
    events = decay_states(table, 2, rest, stream(2))
    assert events.filled.all()
    assert (events.state == 1).all()
    assert (events.source == -1).all()
    m_j, m_i, m_k, m_l = 0.5, 0.10, 0.02, 0.10

    def weight(s):
        by = replace(sector, mediator=np.sqrt(s))
        pair = np.sqrt(s) * mediator_widths(by)[1][0]
        lam = (m_j**2 - m_i**2) ** 2 + s**2 - 2 * s * (m_j**2 + m_i**2)
        g, d = (x[1, 2] for x in sector.strengths())
        h = g * ((m_j**2 + m_i**2) / 2 - s + (m_j**2 - m_i**2) ** 2 / (2 * s)) - 3 * m_j * m_i * d
        return pair * np.sqrt(lam) * h / (s - 1.25**2) ** 2

    def beside(s):
        return (m_j**2 + m_i**2 - s) / (2 * m_j)

    def inside(s):
        return (m_j - beside(s)) * (s + m_l**2 - m_k**2) / (2 * s)

    span = (m_k + m_l) ** 2 * (1 + 1e-9), (m_j - m_i) ** 2 * (1 - 1e-9)
    norm = quad(weight, *span)[0]
    mean = quad(lambda s: weight(s) * (beside(s) + inside(s)), *span)[0] / norm
    energy = events.parent[..., 3].sum(axis=1)
    assert energy.mean() == pytest.approx(mean, abs=4 * energy.std() / np.sqrt(len(energy)))
    assert (energy < 0.5 - 0.02 + 1e-9).all()


def sampled(events, epsilon, rng):
    """Return the place of every decay along its flight, shape (n, slots): lengths [m] from the beginning."""
    flight = rng.exponential(1.0, events.state.shape) * events.flight(epsilon)
    for slot in range(1, events.state.shape[1]):
        flight[:, slot] += np.where(events.source[:, slot] >= 0, flight[:, slot - 1], 0.0)
    return np.where(events.filled, flight, np.inf)


@pytest.mark.long
@pytest.mark.parametrize("epsilon", [3e-5, 1e-3])
def test_many_lines_at_both_searches(epsilon):
    """Three and four lines of flight per event, against sampled positions."""
    sector = tree()
    table, n, rng = decay_table(sector, at=3.0), 30_000, stream(3)
    hidden = replace(table, mediator=sector.mediator)  # only its kinematics: pairs of ψ₂ψ₃ and ψ₁ψ₂
    card = semivisible.load_na64()
    target = na64.production(1.25, card)
    photons = target.sample(n, rng)
    events = decay(hidden, photons, rng)
    assert (events.source[events.filled] == -1).all()
    assert events.filled.sum(axis=1).max() == 3
    z, energy = sampled(events, epsilon, rng), (events.particle + events.antiparticle)[..., 3]
    first = np.where(z < card.ecal_end, energy, 0.0).sum(axis=1)
    behind = np.where((z >= card.ecal_end) & (z < card.hcal_end), energy, 0.0).sum(axis=1)
    passes = (photons[:, 3] - first > card.missing_energy) & (behind < card.hcal_energy)
    strict = (z >= card.hcal_end).all(axis=1)
    for mode, expected in (("inclusive", passes.mean()), ("strict", strict.mean())):
        found = na64.missing(photons[:, 3], events, card, [epsilon], rng, mode=mode).value[0]
        assert found == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / n) + 3 / n)
    search = semivisible.load_babar()
    direct = babar.s_channel_cascades(sector, search, n, rng)
    slope = np.hypot(direct.parent[..., 0], direct.parent[..., 1]) / np.maximum(
        np.sqrt((direct.parent[..., :3] ** 2).sum(axis=-1)), 1e-300
    )
    radius = np.where(direct.filled, sampled(direct, epsilon, rng), 1e300) * slope
    found = babar.seen(direct, search) & (radius < search.radius)
    expected = (~found).all(axis=1).mean()
    found = babar.missing(direct, search, [epsilon], rng, band=False).value[0]
    assert found == pytest.approx(expected, abs=5 * np.sqrt(expected * (1 - expected) / n) + 3 / n)


def test_a_tree_of_flights_is_refused():
    """ψ₄ → ψ₃ ee in flight, and ψ₃ splits into two states that are seen later."""
    pairs = [((1, 2), 0.8, 0.3), ((2, 3), 0.4, 0.6), ((3, 4), 0.5, 0.0)]
    sector = tree(masses=[0.02, 0.10, 0.5, 0.55], couplings=pairs)
    with pytest.raises(PhysicsError, match="tree of flights"):
        decay_table(sector)
    one = tree(masses=[0.02, 0.10, 0.5, 0.55], couplings=[*pairs[:2], ((1, 4), 0.5, 0.0)])
    assert decay_table(one).lines.max() == 2


@pytest.mark.long
def test_what_the_plane_says_of_slow_dark_decays():
    """Weak dark couplings: the decay is no longer at once, and visible decays take part."""
    weak = [((1, 2), 0.8, 0.3), ((2, 3), 1e-4, 0.0)]
    for couplings, said in ((weak, "taken as at once"), ([weak[0], ((2, 3), 0.4, 0.6)], None)):
        plane = semivisible.scan(
            lambda m, c=couplings: tree(m, couplings=c),
            np.array([1.25]),
            np.array([1e-3, 0.1]),
            options=Options(n=500, prompt=0),
        )
        assert any("taken as at once" in text for text in plane.warnings) == (said is not None)
    scalar = DarkSector(
        "scalar", 1.0, 0.3, np.array([0.05, 0.4]), np.array([[0, 1.0], [1.0, 0]]), np.zeros((2, 2)), "scalar"
    )
    assert (dark_widths(scalar) == 0).all()
