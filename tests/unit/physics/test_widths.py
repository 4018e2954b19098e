"""Widths, branching ratios and decay length of the dark photon against published numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, M_E, M_MU, M_PI_CHARGED, branching
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.physics.qed import (
    RTable,
    dark_photon_branching,
    dark_photon_ctau,
    dark_photon_widths,
    lepton_width,
)
from gammastar.predict import DarkPhoton, VectorModel

DATA = ROOT / "data" / "measurements" / "r_ratio.csv"

# cτ at ε = 1 [m] as EventCalc-SHiP (BSD-3) tabulates it, with the spread of public codes as tolerance.
CTAU = [
    (0.05, 1.6226e-12, 1e-3),
    (0.10, 8.1131e-13, 1e-3),
    (0.20, 4.0566e-13, 1e-3),
    (0.30, 1.4188e-13, 5e-3),
    (0.50, 6.5102e-14, 1e-2),
    (0.60, 4.0577e-14, 1.5e-2),
    (0.70, 1.6739e-14, 3e-2),
    (0.90, 2.3720e-14, 6e-2),
    (1.20, 2.1978e-14, 6e-2),
    (1.50, 1.2758e-14, 6e-2),
]
# BR(ee): ALPINIST (BSD-3) at small masses, the calculation arXiv:2201.01788 on ρ, ω and φ.
BRANCHING = [
    (0.25, 0.57963, 5e-3),
    (0.30, 0.52572, 5e-3),
    (0.40, 0.46200, 5e-3),
    (0.50, 0.40209, 5e-3),
    (0.70, 0.147273, 0.02),
    (0.77, 0.0841483, 0.03),
    (0.78, 0.0511149, 0.03),
    (0.79, 0.0889977, 0.03),
    (1.02, 0.0218107, 0.03),
]


@pytest.fixture(scope="module")
def table() -> RTable:
    return RTable.read(DATA)


@pytest.mark.parametrize(("mass", "expected", "tolerance"), CTAU)
def test_ctau_against_published(table: RTable, mass: float, expected: float, tolerance: float) -> None:
    assert dark_photon_ctau(mass, 1.0, table) == pytest.approx(expected, rel=tolerance)


@pytest.mark.parametrize(("mass", "expected", "tolerance"), BRANCHING)
def test_branching_against_published(table: RTable, mass: float, expected: float, tolerance: float) -> None:
    assert dark_photon_branching(mass, table)["ee"] == pytest.approx(expected, rel=tolerance)


def test_peak_of_the_phi_is_that_of_its_branching_ratios(table: RTable) -> None:
    """R = 9/α² BR(ee) BR(h) on the peak; a bare line and intervals of 1 MeV lower it."""
    mass = np.linspace(1.0185, 1.0205, 81)
    x = (M_MU / mass) ** 2
    peak = (table.at(mass) * np.sqrt(1 - 4 * x) * (1 + 2 * x)).max()
    assert peak == pytest.approx(9 / ALPHA**2 * branching("phi -> e e"), rel=0.05)


def test_error_of_the_table_moves_width_and_branching(table: RTable) -> None:
    assert table.error is not None
    assert (table.error > 0).all()
    near = (table.mass > 0.4) & (table.mass < 0.9)
    assert np.median((table.error / table.ratio)[near]) == pytest.approx(0.014, abs=0.006)
    up = table.shifted(1.0)
    np.testing.assert_allclose(up.ratio - table.ratio, table.error)
    assert (table.shifted(-30.0).ratio >= 0).all()
    model = DarkPhoton(table)
    assert model.width_error(0.2) == 0.0
    share = dark_photon_branching(0.7, table)["hadrons"]
    relative = np.interp(0.7, table.mass, table.error) / table.at(0.7)
    assert model.width_error(0.7) == pytest.approx(share * relative, rel=1e-6)
    assert DarkPhoton(RTable(table.mass, table.ratio)).width_error(0.7) == 0.0
    vector = VectorModel.named("lmu_ltau", table)
    assert 0 < vector.width_error(0.7) < model.width_error(0.7)


def test_electron_only_closed_form(table: RTable) -> None:
    x = (M_E / 0.05) ** 2
    width = ALPHA * 0.05 / 3 * np.sqrt(1 - 4 * x) * (1 + 2 * x)
    assert dark_photon_ctau(0.05, 1.0, table) == pytest.approx(CTAU_PER_GEV / width, rel=1e-12)
    assert lepton_width(0.1, M_E) == pytest.approx(2.4331e-4, rel=1e-3)  # public codes with α = 1/137
    assert lepton_width(0.3, M_MU) == pytest.approx(6.4665e-4, rel=1e-3)


def test_ctau_scales_with_the_inverse_square_of_the_coupling(table: RTable) -> None:
    couplings = np.array([1e-7, 1e-5, 1.0])
    ratio = dark_photon_ctau(0.3, couplings, table) / dark_photon_ctau(0.3, 1.0, table)
    np.testing.assert_allclose(ratio, couplings**-2, rtol=1e-12)
    assert dark_photon_ctau(0.1, 1e-5, table) == pytest.approx(8.1123e-3, rel=1e-3)
    assert dark_photon_ctau(0.1, 0.0, table) == np.inf


def test_zero_at_and_below_every_threshold(table: RTable) -> None:
    branching = dark_photon_branching(np.array([0.211, 2 * M_MU, 0.2114]), table)
    assert list(branching["mumu"][:2]) == [0.0, 0.0]
    assert branching["mumu"][2] > 0
    hadrons = dark_photon_widths(np.array([0.2, 2 * M_PI_CHARGED, 0.2805]), table)["hadrons"]
    assert list(hadrons[:2]) == [0.0, 0.0]
    assert hadrons[2] > 0
    below = np.array([0.5e-3, 2 * M_E])
    assert (dark_photon_branching(below, table)["ee"] == 0).all()
    assert np.isinf(dark_photon_ctau(below, 1e-5, table)).all()


def test_branching_ratios_sum_to_one(table: RTable) -> None:
    mass = np.linspace(0.002, 1.99, 1001)
    total = np.sum(list(dark_photon_branching(mass, table).values()), axis=0)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)


def test_table_is_linear_and_continuous_at_threshold(table: RTable) -> None:
    digitised = RTable.read(DATA.with_name("r_ratio_alpinist.csv"))
    assert digitised.at(0.2814) == pytest.approx(0.000347)
    assert digitised.at((0.4494 + 0.4687) / 2) == pytest.approx((0.3234 + 0.391) / 2)
    assert digitised.at(1.007) == pytest.approx((2.324 + 1.58) / 2)  # a step of the digitised curve
    for found in (digitised, table):
        assert found.at(2 * M_PI_CHARGED + 1e-9) < 1e-6


def test_three_light_flavours_between_the_curve_and_charm(table: RTable) -> None:
    """Beside 2.2, what e⁺e⁻ experiments find on average from 2 to 3.7 GeV to a few per cent."""
    mass = np.array([2.2, 2.8, 3.4])
    x = (M_MU / mass) ** 2
    over_massless = table.at(mass) * np.sqrt(1 - 4 * x) * (1 + 2 * x)
    assert (np.abs(over_massless - 2.2) < 0.08).all()
    assert (np.diff(over_massless) < 0).all()  # the coupling runs


def test_outside_the_table_is_refused(table: RTable) -> None:
    with pytest.raises(PhysicsError, match=r"up to 3\.45 GeV"):
        table.at(3.6)
    with pytest.raises(PhysicsError, match="positive"):
        lepton_width([0.1, -0.2], M_E)
    with pytest.raises(PhysicsError, match="kinetic mixing"):
        dark_photon_ctau(0.3, -1e-6, table)
    with pytest.raises(PhysicsError, match=r"error \(1,\) must be a column like mass \(2,\)"):
        RTable(np.array([0.5, 0.6]), np.array([1.0, 1.0]), np.array([0.1]))
    with pytest.raises(PhysicsError, match="increase"):
        RTable(np.array([0.5, 0.4]), np.array([1.0, 1.0]))
    with pytest.raises(PhysicsError, match="negative"):
        RTable(np.array([0.5, 0.6]), np.array([1.0, -1.0]))


def test_damaged_tables_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputFileError, match=r"absent\.csv"):
        RTable.read(tmp_path / "absent.csv")
    for text, match in [
        ("a,b\n1,2\n", "columns"),
        ("mass_GeV,R\n0.3,x\n", "number"),
        ("mass_GeV,R\n", "empty"),
    ]:
        (tmp_path / "r.csv").write_text(text)
        with pytest.raises(InputFileError, match=match):
            RTable.read(tmp_path / "r.csv")
