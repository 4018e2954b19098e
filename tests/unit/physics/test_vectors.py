"""Other vectors and recasts: Darkcast numbers, closed forms, identities."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from gammastar.core import constants
from gammastar.core.constants import ALPHA, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.physics import vectors
from gammastar.physics.qed import RTable
from gammastar.physics.vectors import (
    CHARGES,
    E_CHARGE,
    Charges,
    kinetic_mixing_loop,
    meson_parts,
    meson_ratio,
)
from gammastar.predict.mixture import displaced
from gammastar.predict.models import DarkPhoton, VectorModel, rate_ratio

R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
PHOTON = DarkPhoton(R_TABLE)
ELECTRIC = Charges("photon", (2 / 3, -1 / 3, -1 / 3), -1.0, -1.0, -1.0, (0.0, 0.0, 0.0), "none")


def _model(name: str) -> VectorModel:
    return VectorModel.named(name, R_TABLE)


def test_loop_mixing_against_quadrature_and_its_limits() -> None:
    assert kinetic_mixing_loop(0.0).real == pytest.approx(
        E_CHARGE / (12 * np.pi**2) * np.log(1.77693**2 / M_MU**2), rel=1e-9
    )
    q2 = -0.5
    by_hand = quad(
        lambda x: x * (1 - x) * np.log((1.77693**2 - x * (1 - x) * q2) / (M_MU**2 - x * (1 - x) * q2)), 0, 1
    )[0]
    assert kinetic_mixing_loop(q2) == pytest.approx(E_CHARGE / (2 * np.pi**2) * by_hand, rel=1e-9)
    assert kinetic_mixing_loop(0.9 * 4 * M_MU**2).imag == 0.0
    assert kinetic_mixing_loop(1.0).imag != 0.0
    # The imaginary part is that of the muon loop: its cut is the width into muons.
    s = 0.25
    r = M_MU**2 / s
    cut = E_CHARGE / (12 * np.pi) * np.sqrt(1 - 4 * r) * (1 + 2 * r)
    assert abs(kinetic_mixing_loop(s).imag) == pytest.approx(cut, rel=1e-3)


def test_branching_ratios_of_darkcast() -> None:
    b_minus_l, lmu = _model("b_minus_l"), _model("lmu_ltau")
    assert b_minus_l.branching(0.1)["ee"] == pytest.approx(0.4, rel=1e-4)
    assert b_minus_l.branching(0.3)["ee"] == pytest.approx(0.29534, rel=1e-2)
    assert b_minus_l.branching(0.3)["mumu"] == pytest.approx(0.26164, rel=1e-2)
    assert b_minus_l.ctau(0.1, 1.0) == pytest.approx(2.9756e-14, rel=5e-3)
    assert lmu.branching(0.3)["mumu"] == pytest.approx(0.46974, rel=5e-3)
    assert lmu.branching(0.3)["neutrinos"] == pytest.approx(0.53024, rel=5e-3)
    assert lmu.branching(0.1)["ee"] == pytest.approx(2e-5, rel=0.2)
    for model in (b_minus_l, lmu, _model("protophobic")):
        assert sum(model.branching(0.35).values()) == pytest.approx(1.0)
        assert model.branching(2 * M_MU)["mumu"] == 0.0


def test_vector_mesons_have_the_heights_and_areas_of_their_breit_wigners() -> None:
    """At the pole R = (9/α²) BR(ee) BR(h); ∫σ dm over a narrow meson is 6π² Γ_ee BR(h)/M²."""
    for name, pdg, hadrons in (("omega", 223, 0.9758), ("phi", 333, 0.9974)):
        pole, gamma = constants.mass(pdg), constants.width(pdg)
        electrons = constants.branching(f"{name} -> e e")
        peak = 9 / ALPHA**2 * electrons * hadrons
        assert float(meson_ratio(name, pole)) == pytest.approx(peak, rel=0.03)  # listed channels make Γ
        m = np.linspace(pole - 5 * gamma, pole + 5 * gamma, 4001)
        cross = meson_ratio(name, m) * 4 * np.pi * ALPHA**2 / (3 * m**2)
        closed = 6 * np.pi**2 * electrons * gamma * hadrons / pole**2
        assert np.trapezoid(cross, m) == pytest.approx(closed * 2 / np.pi * np.arctan(10), rel=0.03)
    assert float(meson_ratio("rho", 0.775)) == pytest.approx(
        9 / ALPHA**2 * constants.branching("rho -> e e"), rel=0.02
    )


def test_three_pions_follow_their_threshold_and_phase_space() -> None:
    """Near 3 m_π the P-wave widths of pairs make Γ ∝ (m − 3 m_π)⁴; nothing below."""
    low = 3 * M_PI_CHARGED
    widths = [vectors._three_pions(low + x) for x in (0.002, 0.004)]
    assert widths[1] / widths[0] == pytest.approx(2**4, rel=0.05)
    assert vectors._three_pions(low) == 0.0
    parts = meson_parts([0.3, 0.78], [0.02, 14.0])
    assert parts["rho"] + parts["omega"] + parts["phi"] == pytest.approx([0.02, 14.0])
    assert 0 < parts["omega"][0] < 1e-3 * parts["rho"][0]
    coarse = meson_parts(1.0194, 40.0)  # a table that misses the top of the φ
    assert coarse["rho"] == 0.0


@pytest.mark.parametrize(("mass", "peer"), [(0.8398, 0.1446), (0.9, 0.072), (0.952, 0.0554)])
def test_hadrons_of_b_minus_l_beside_the_narrow_mesons(mass: float, peer: float) -> None:
    assert _model("b_minus_l").branching(mass)["hadrons"] == pytest.approx(peer, abs=0.015)


def test_charges_weigh_the_vector_mesons() -> None:
    """B − L has four times the ω of the photon and no ρ; the protophobic vector four times the φ."""
    omega, phi = constants.mass(223), constants.mass(333)
    muons = ALPHA / 3
    b_minus_l = _model("b_minus_l").widths(omega)["hadrons"] * E_CHARGE**2
    assert b_minus_l == pytest.approx(4 * muons * omega * float(meson_ratio("omega", omega)), rel=1e-3)
    phobic = _model("protophobic").widths(phi)["hadrons"] * E_CHARGE**2
    assert phobic == pytest.approx(4 * muons * phi * float(meson_ratio("phi", phi)), rel=0.05)
    assert _model("b_minus_l").branching(0.6)["hadrons"] < 2e-3


def test_electric_charges_make_a_dark_photon() -> None:
    model = VectorModel(ELECTRIC, R_TABLE)
    epsilon = 1e-3
    assert model.ctau(0.4, epsilon * E_CHARGE) == pytest.approx(float(PHOTON.ctau(0.4, epsilon)), rel=1e-12)
    for process in ("pion_dalitz", "eta_dalitz", "rho", "omega", "phi", "bremsstrahlung", "omega_dalitz"):
        ratio = ELECTRIC.production_ratio(process, 0.4)
        assert ratio == pytest.approx(1 / E_CHARGE**2, rel=1e-12)


def test_production_of_other_vectors() -> None:
    baryon, phobic = CHARGES["b_minus_l"], CHARGES["protophobic"]
    e2 = E_CHARGE**2
    assert baryon.production_ratio("pion_dalitz", 0.1) * e2 == pytest.approx(1.0)
    assert baryon.production_ratio("rho", 0.7) == 0.0
    assert baryon.production_ratio("omega", 0.78) * e2 == pytest.approx(4.0)
    assert baryon.production_ratio("phi", 1.02) * e2 == pytest.approx(1.0)
    assert baryon.production_ratio("bremsstrahlung", 0.3) * e2 == pytest.approx(1.0)
    assert phobic.production_ratio("pion_dalitz", 0.1) == pytest.approx(0.0, abs=1e-25)
    assert phobic.production_ratio("bremsstrahlung", 0.3) == pytest.approx(0.0, abs=1e-25)
    with pytest.raises(PhysicsError, match="not known"):
        baryon.production_ratio("drell_yan", 1.0)


def test_rates_need_the_shares_of_the_processes() -> None:
    mass = np.array([0.3, 0.5])
    lmu = rate_ratio(CHARGES["lmu_ltau"], mass, {})
    np.testing.assert_allclose(lmu, np.abs(kinetic_mixing_loop(mass**2)) ** 2)
    half = rate_ratio(CHARGES["b_minus_l"], mass, {"eta_dalitz": 0.5, "rho": 0.5})
    np.testing.assert_allclose(half * E_CHARGE**2, 0.125)
    with pytest.raises(PhysicsError, match="share of each process"):
        rate_ratio(CHARGES["b_minus_l"], mass, {})
    with pytest.raises(PhysicsError, match="sum to"):
        rate_ratio(CHARGES["b_minus_l"], mass, {"rho": 0.5})


def test_models_refuse_what_they_cannot_say() -> None:
    with pytest.raises(PhysicsError, match="split into ρ, ω and φ between"):
        _model("b_minus_l").branching(1.1)
    with pytest.raises(PhysicsError, match="not known"):
        _model("le_lmu")
    with pytest.raises(PhysicsError, match="coupling"):
        _model("b_minus_l").ctau(0.1, -1.0)
    assert _model("protophobic").branching(0.5)["hadrons"] > 0
    assert "share of each process" in _model("b_minus_l").condition


def test_displaced_recast_keeps_the_same_model() -> None:
    mass, edges = np.array([0.05, 0.1]), np.array([[5.5e-7, 3.2e-5], [5.7e-7, 1.5e-5]])
    same = displaced(mass, edges, PHOTON, PHOTON, state="ee")
    np.testing.assert_allclose(same, edges, rtol=1e-6)


def test_displaced_recast_follows_rate_and_lifetime() -> None:
    """At long lifetimes N ∝ g⁴ rate × width; the upper edge follows the lifetime."""
    mass, edges = np.array([0.1]), np.array([[5.7e-7, 1.5e-5]])
    new = _model("b_minus_l")
    ratio = 1 / E_CHARGE**2
    found = displaced(mass, edges, PHOTON, new, state="ee", ratio=ratio)[0]
    assert found[0] == pytest.approx(5.7e-7 * E_CHARGE, rel=0.02)  # quarks and electrons as ε e
    tau = float(new.ctau(0.1, found[1])) / float(PHOTON.ctau(0.1, 1.5e-5))
    assert tau == pytest.approx(1.0, rel=0.3)
    none = displaced(mass, edges, PHOTON, new, state="ee", ratio=1e-12)
    assert np.isnan(none).all()
    with pytest.raises(PhysicsError, match="final state"):
        displaced(mass, edges, PHOTON, new, state="gamma")
    with pytest.raises(PhysicsError, match="increasing"):
        displaced(mass, edges[:, ::-1], PHOTON, new, state="ee")
