"""Physics of semi-visible dark photons: sampled kinematics, prompt probabilities, verdicts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import chi2

from gammastar import semivisible
from gammastar.core.constants import ALPHA, M_E
from gammastar.semivisible import babar, gm2
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import Transition, angular, decay_table, spectrum, squared_amplitude, width
from gammastar.semivisible.models import DarkSector

VERTEX = {"vector": (1j, 0.0), "axial": (0.0, 1.0), "chiral": (0.5, 0.5)}


def two_states(vector, axial, field="dirac"):
    v, a = (np.array([[0, x], [np.conj(x), 0]], dtype=complex) for x in (vector, axial))
    return DarkSector("two", 1.0, 0.5, np.array([0.33, 0.462]), v, a, field)


@pytest.mark.parametrize("kind", [*VERTEX, "scalar"])
def test_sampled_mass_and_angle(kind):
    """Two-dimensional distribution of the pair's mass and angle against the formula."""
    sector = two_states(1.0, 0.0, "scalar") if kind == "scalar" else two_states(*VERTEX[kind])
    rng = np.random.default_rng(11)
    events = decay(decay_table(sector), np.tile([0.0, 0.0, 2.0, 5**0.5], (60_000, 1)), rng)
    parent, daughter, lepton, other = (
        getattr(events, name)[events.filled] for name in ("parent", "daughter", "particle", "antiparticle")
    )
    pair = lepton + other
    s = pair[:, 3] ** 2 - (pair[:, :3] ** 2).sum(axis=1)
    metric = np.array([-1.0, -1.0, -1.0, 1.0])
    e_i = (pair * daughter * metric).sum(axis=1) / np.sqrt(s)
    p, k = np.sqrt(e_i**2 - 0.33**2), np.sqrt(s / 4 - M_E**2)
    cosine = (np.sqrt(s) / 2 * e_i - (lepton * daughter * metric).sum(axis=1)) / (p * k)
    assert np.abs(cosine).max() < 1 + 1e-5
    assert np.allclose((parent**2 * metric).sum(axis=1), 0.462**2, rtol=1e-9)
    g, d = (x[0, 1] for x in sector.strengths())
    t = Transition(0.462, 0.33, 1.0, g, d, "e", kind == "scalar")
    edges, sides = np.linspace(*np.log(t.range), 31), np.linspace(-1, 1, 11)
    counts = np.histogram2d(np.log(s), np.clip(cosine, -1, 1), (edges, sides))[0]
    fine = np.linspace(*np.log(t.range), 30 * 64 + 1)
    middle = 0.5 * (fine[1:] + fine[:-1])
    density = spectrum(t, np.exp(middle)) * np.exp(middle) * np.diff(fine)
    a, b = angular(t, np.exp(middle))
    primitive = a[:, None] * sides - b[:, None] * sides**3 / 3
    share = np.diff(primitive, axis=1) / (2 * (a - b / 3))[:, None]
    expected = (density[:, None] * share).reshape(30, 64, 10).sum(axis=1)
    expected *= len(s) / expected.sum()
    use = expected > 10
    value = ((counts - expected)[use] ** 2 / expected[use]).sum()
    assert 1e-4 < chi2.sf(value, use.sum() - 1) < 1 - 1e-4


def test_transverse_dark_photons_decay_as_their_current_says():
    sector = semivisible.load_benchmark("i2DM-talk").sector(1.25)
    table = decay_table(sector)
    only = replace(table, pair_fraction=(table.pairs == [1, 1]).all(axis=1).astype(float))
    photons = np.tile([0.0, 0.0, 3.0, np.hypot(3.0, 1.25)], (60_000, 1))
    events = decay(only, photons, np.random.default_rng(1), polarised=True)
    pz, energy = events.parent[:, 0, 2], events.parent[:, 0, 3]
    gamma, beta = photons[0, 3] / 1.25, 3.0 / photons[0, 3]
    star = gamma * (pz - beta * energy)
    cosine = star / np.sqrt((1.25 / 2) ** 2 - sector.masses[1] ** 2)
    a, b = table.pair_angle[(table.pairs == [1, 1]).all(axis=1)][0]
    mean = (a / 3 + b / 5) / (a + b / 3)
    assert (cosine**2).mean() == pytest.approx(mean, abs=4e-3)
    assert mean > 1 / 3


@pytest.mark.long
def test_prompt_probability_of_i2dm():
    card = replace(semivisible.load_babar(), radius=np.inf)
    table = decay_table(semivisible.load_benchmark("i2DM-talk").sector(1.25))
    events = babar.cascades(table, card, 200_000, np.random.default_rng(8))
    for threshold, expected in ((0.05, 2.5e-4), (0.1, 1.55e-3), (0.15, 5.6e-3)):
        p = babar.missing(events, replace(card, threshold=threshold), [1.0], np.random.default_rng(1))
        assert p.value[0] == pytest.approx(expected, abs=4 * p.error[0] + 0.1 * expected)


@pytest.mark.long
def test_verdicts_at_the_point_of_the_talk():
    centre = np.array([float(gm2.epsilon_for(1.25, gm2.reference("wp20").difference))])
    limit = semivisible.published("babar").at([1.25])
    for name, excluded in (("iDM-040", True), ("i2DM-talk", False)):
        model = semivisible.load_benchmark(name).sector
        plane = semivisible.scan(model, np.array([1.25]), centre, options=semivisible.Options(n=40_000))
        assert semivisible.excluded_plane(centre, plane.babar, limit)[0, 0] == excluded


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "nature", "sign"), [("axial", "majorana", 1), ("chiral", "dirac", 1), ("vector", "majorana", -1)]
)
def test_amplitudes_of_darknews(kind, nature, sign):
    pytest.importorskip("DarkNews")
    from DarkNews import decay_rates, model, pdg, processes

    v, a = VERTEX[kind]
    heavy, light = 0.462, 0.33
    t = Transition(heavy, light, 1.0, abs(v) ** 2 + abs(a) ** 2, abs(v) ** 2 - abs(a) ** 2)
    theory = model.GenericHNLModel(
        m4=light,
        m5=heavy,
        mzprime=1.0,
        HNLtype=nature,
        d_45=np.sqrt(2 * np.pi),
        deV=np.sqrt(4 * np.pi * ALPHA),
    )
    rng = np.random.default_rng(3)
    s, c = rng.uniform(*t.range, 500), rng.uniform(-1, 1, 500)
    e_i = (heavy**2 - light**2 + s) / (2 * np.sqrt(s)) - np.sqrt(s)
    u = M_E**2 + light**2 + np.sqrt(s) * e_i - 2 * np.sqrt((s / 4 - M_E**2) * (e_i**2 - light**2)) * c
    rest = heavy**2 + light**2 + 2 * M_E**2 - s - u
    rate = 0.0
    for helicity in (-1, 1):
        case = processes.FermionDileptonDecay(
            pdg.neutrino5, pdg.neutrino4, pdg.electron, pdg.positron, theory, h_parent=helicity
        )
        if sign > 0:
            assert 0.5 * case.total_width() == pytest.approx(0.5 * 0.5 * width(t), rel=3e-3)
        case.m_daughter = sign * light
        flat = np.zeros_like(s)
        rate = rate + 0.5 * decay_rates.diff_gamma_Ni_to_Nj_ell_ell([s, u, rest, flat, flat], case)
    ours = 0.5 * squared_amplitude(t, s, c) / (64 * heavy**3 * (2 * np.pi) ** 4)
    assert np.allclose(rate / ours, 1.0, rtol=1e-9)
