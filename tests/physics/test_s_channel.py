"""e+e− → A'* → ψ_i ψ_j through all pairs that are open at √s, against Dirac matrices and phase space."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT
from scipy.stats import chi2

from gammastar import semivisible
from gammastar.core.errors import PhysicsError
from gammastar.semivisible import babar, models
from gammastar.semivisible.decays import decay_table
from gammastar.semivisible.models import DarkSector, mediator_widths
from gammastar.semivisible.plane import dark_branching
from gammastar.semivisible.production import s_channel_cross_section

sys.path.insert(0, str(ROOT / "analysis"))
from validation import semivisible_direct as truth

sys.path.pop(0)

CARD = semivisible.load_babar()
SEESAW = semivisible.load_benchmark("AHP2020-B").sector


def several(name):
    """Return sectors that no benchmark resembles: many states, Dirac and Majorana, degenerate, uncoupled."""
    if name == "majorana":
        return truth.four_states()
    if name == "dirac":
        mass = [[0.1, 0.2, 0.0, 0.1], [0.2, 0.9, 0.3, 0.0], [0.0, 0.1, 2.5, 0.2], [0.3, 0.0, 0.1, 3.1]]
        return models.from_dirac("chiral", mass, [1.0, -2.0, 1.0, 0.5], mediator=4.0, alpha_d=0.1)
    vertex = np.array([[0.0, 0.7j, 0], [-0.7j, 0.0, 0], [0, 0, 0]])
    axial = np.diag([0.2, 0.0, 0.0])
    return DarkSector("degenerate", 0.9, 0.3, np.array([0.4, 0.4, 7.0]), vertex, axial, "majorana")


@pytest.mark.long
@pytest.mark.parametrize("name", ["majorana", "dirac", "degenerate"])
def test_cross_sections_of_all_pairs(name):
    sector = several(name)
    for energy in (0.75 * sector.masses[-1], 1.5 * sector.masses[-1], CARD.sqrt_s):
        width = float(mediator_widths(sector)[1].sum())
        pairs = [tuple(p) for p in mediator_widths(replace(sector, mediator=energy))[0].tolist()]
        ours = dict(zip(pairs, s_channel_cross_section(sector, energy), strict=True))
        i, j = np.triu_indices(len(sector.masses))
        for pair in zip(i.tolist(), j.tolist(), strict=True):
            expected = truth.cross_section(sector, pair, energy, width)
            assert ours.get(pair, 0.0) == pytest.approx(expected, rel=1e-7, abs=1e-12)


@pytest.mark.parametrize("mass", [1.25, 0.3, 0.2, 0.1])
def test_pairs_that_are_closed_on_the_shell(mass):
    """ψ₃ is in three quarters of the events whatever the mass of the dark photon."""
    sector = SEESAW(mass)
    events = babar.s_channel_cascades(sector, CARD, 20_000, np.random.default_rng(1))
    sigma = {p: truth.cross_section(sector, p, CARD.sqrt_s, 0.0) for p in ((0, 1), (1, 2))}
    share = sigma[1, 2] / sum(sigma.values())
    assert share == pytest.approx(0.748, abs=1e-3)
    found = (events.state == 2).any(axis=1).mean()
    assert found == pytest.approx(share, abs=4 * np.sqrt(share * (1 - share) / 20_000))
    rest = events.parent - events.daughter - events.particle - events.antiparticle
    assert np.abs(rest).max() < 1e-12


@pytest.mark.long
def test_angle_about_the_beams():
    """Light states have 1 + cos², heavy axial ones sin² … as the traces say."""
    vertex = np.array([[0.0, 1.0], [1.0, 0.0]])
    sector = DarkSector("slow", 9.0, 0.3, np.array([4.0, 4.5]), 0 * vertex, vertex, "majorana")
    events = babar.s_channel_cascades(sector, CARD, 40_000, np.random.default_rng(2))
    psi = events.parent[:, 0]
    star = np.hypot(1.0, CARD.boost) * psi[:, 2] - CARD.boost * psi[:, 3]
    p = np.sqrt(psi[:, 0] ** 2 + psi[:, 1] ** 2 + star**2)
    edges = np.linspace(-1.0, 1.0, 11)
    counts = np.histogram(star / p, edges)[0]
    fine = np.linspace(-1.0, 1.0, 401)
    density = np.array([truth.squared(sector, (0, 1), CARD.sqrt_s, -c) for c in fine])
    expected = np.array([np.trapezoid(density[40 * k : 40 * k + 41]) for k in range(10)])
    expected *= len(psi) / expected.sum()
    assert chi2.sf(((counts - expected) ** 2 / expected).sum(), 9) > 1e-4
    assert expected.max() / expected.min() > 1.05


def test_rounding_opens_no_channel():
    """ψ₁ψ₁ has phase space at 0.2 GeV, but charge conjugation forbids it: nothing is open there."""
    assert not len(mediator_widths(SEESAW(0.2))[0])
    with pytest.raises(PhysicsError, match="no open decay"):
        decay_table(SEESAW(0.2))
    assert dark_branching(SEESAW(0.2), [1e-3]) == pytest.approx([0.0])


@pytest.mark.long
def test_a_closed_mass_aborts_no_scan():
    mass, epsilon = np.array([0.1, 0.2, 0.3, 11.0]), np.array([1e-3, 1e-2])
    plane = semivisible.scan(SEESAW, mass, epsilon, options=semivisible.Options(n=4_000))
    assert (plane.babar[:2] == 0).all()
    assert (plane.strict[:2] == 0).all()
    assert (plane.babar[2] > 0).all()
    assert np.isnan(plane.babar[3]).all()
    assert not semivisible.excluded_plane(epsilon, plane.babar, np.full(4, 1e-9))[[0, 1, 3]].any()
    assert sum("decays visibly" in text for text in plane.warnings) >= 2
    assert any("11 GeV: it cannot be made" in text for text in plane.warnings)
    more = semivisible.scan(SEESAW, mass[:2], epsilon, options=semivisible.Options(n=4_000, s_channel=0.5))
    card = replace(CARD, radius=np.inf)
    prompt = babar.missing(
        babar.s_channel_cascades(SEESAW(0.2), card, 20_000, np.random.default_rng(3)),
        card,
        [1.0],
        np.random.default_rng(4),
    )
    expected = 0.5 * babar.s_channel_ratio(SEESAW(0.2), card) * prompt.value[0]
    assert more.babar[1, 1] == pytest.approx(expected, rel=0.1)


@pytest.mark.long
def test_visible_decays_take_their_part():
    """Γ_SM from the integral over R of muons and electrons; at M = 0.3 GeV by hand."""
    model = semivisible.load_benchmark("iDM-040").sector
    weak = model(0.15, alpha_d=1e-6)  # electrons alone are open
    epsilon = np.array([1e-3, 1e-2, 1e-1])
    dark = float(mediator_widths(weak)[1].sum())
    visible = epsilon**2 * 0.15 / 3 / 137.035999
    assert dark_branching(weak, epsilon) == pytest.approx(dark / (dark + visible), rel=1e-6)
    one, two = (
        semivisible.scan(m, np.array([0.15]), epsilon, options=semivisible.Options(n=4_000))
        for m in (lambda m: model(m, alpha_d=1e-6), lambda m: model(m, alpha_d=1.0))
    )
    assert any("decays visibly in" in text for text in one.warnings)
    assert not any("decays visibly" in text for text in two.warnings)
