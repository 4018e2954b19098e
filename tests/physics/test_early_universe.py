"""Freeze-out against known numbers and closed forms."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar import semivisible
from gammastar.core.constants import ALPHA, M_E
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.physics.qed import RTable
from gammastar.semivisible import models

sys.path.append(str(ROOT / "analysis" / "semivisible"))
import cosmology
from cosmology import degrees, relic_density, thermal_average

CM3_PER_S = 1.16733e-17


@pytest.fixture(scope="module")
def r_table():
    return RTable.read(data_path("measurements/r_ratio.csv"))


def test_degrees_of_freedom():
    h, root = degrees([5e-3, 10.0])
    assert h[0] == pytest.approx(10.75, rel=0.01)  # photons, electrons, neutrinos
    assert h[1] == pytest.approx(86.25, rel=0.03)  # five quarks, gluons, leptons
    assert root == pytest.approx(np.sqrt(h), rel=0.03)


@pytest.mark.parametrize(("mass", "expected"), [(0.3, 5.2e-26), (100.0, 2.2e-26)])
def test_cross_section_of_thermal_dark_matter(mass, expected):
    """Self-conjugate, constant ⟨σv⟩, Ωh² = 0.11: arXiv:1204.3622."""
    found = relic_density(np.array([mass]), np.array([2.0]), lambda x: np.full_like(x, expected / CM3_PER_S))
    assert found == pytest.approx(0.11, rel=0.05)


def test_slow_coannihilation_of_a_pseudo_dirac_pair():
    m, mediator, alpha_d = 0.01, 1.0, 1e-3
    sector = models.idm(mediator, ratio=m, splitting=1e-7, alpha_d=alpha_d)
    threshold, rate = cosmology._rate(sector, None)
    x = np.array([1e4])
    found = thermal_average(sector.masses, np.full(2, 2.0), rate, threshold, x)[0]
    electron = np.sqrt(1 - (M_E / m) ** 2) * (1 + 0.5 * (M_E / m) ** 2)
    exact = 0.5 * 16 * np.pi * ALPHA * alpha_d * m**2 / (mediator**2 - 4 * m**2) ** 2 * electron
    assert found == pytest.approx(exact, rel=2e-3)


@pytest.mark.slow  # of an analysis, not of the package
def test_relic_target_of_idm(r_table):
    mass = np.array([0.1, 1.0])
    narrow, wide = (
        cosmology.relic_target(semivisible.load_benchmark(name).sector, mass, r_table=r_table)
        for name in ("iDM-010", "iDM-040")
    )
    assert (wide > 5 * narrow).all()  # few heavy partners are left to annihilate with
    sector = semivisible.load_benchmark("iDM-040").sector(1.0)
    assert cosmology.omega(sector, float(wide[1]), r_table=r_table) == pytest.approx(0.12, rel=0.01)
    more = cosmology.omega(sector, 0.5 * float(wide[1]), r_table=r_table)
    assert 2.0 < more / 0.12 < 4.0  # earlier freeze-out finds more heavy partners


def test_verdicts_of_the_talk_on_dark_matter(r_table):
    """In i2DM that explains the 2020 muon moment, ψ₁ is too abundant, and excluded by the CMB."""
    model = semivisible.load_benchmark("i2DM-talk").sector
    assert cosmology.omega(model(1.25), 2.2e-2, r_table=r_table) > 0.12
    assert cosmology.cmb_limit(model(1.25)) < 0.5 * 2.2e-2
    assert np.isinf(cosmology.cmb_limit(semivisible.load_benchmark("iDM-040").sector(1.25)))


def test_the_card_names_its_sources(tmp_path):
    assert any("efficiency" in text for text in cosmology.load_cosmology().unverified)
    file = tmp_path / "card.toml"
    file.write_text("omega = 0.12\n")
    with pytest.raises(SteeringError, match="no source is given for omega"):
        cosmology.load_cosmology(file)
