"""Errors met in other codes, each a regression test; T1 to T14 in the order of the list of peers."""

import logging
from dataclasses import replace

import numpy as np
import pytest
import vector
from scipy.integrate import quad

from gammastar import accept, predict
from gammastar.core import constants
from gammastar.core.constants import M_E, M_MU, M_PI0, M_PROTON
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.files import data_path
from gammastar.core.records import Sample
from gammastar.physics import bremsstrahlung, hadrons, qed
from gammastar.physics.bremsstrahlung import PRESETS, preset
from gammastar.physics.detector import load_detector
from gammastar.physics.geometry import Cylinder
from gammastar.physics.hadrons import FORM_FACTORS
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import pseudoscalar_branching
from gammastar.physics.qed import (
    RTable,
    dark_photon_branching,
    dark_photon_ctau,
    dark_photon_widths,
    lepton_width,
)
from gammastar.physics.vectors import CHARGES
from gammastar.report import existing_limits

R_TABLE = RTable.read(data_path("measurements/r_ratio.csv"))
MESONS = data_path("measurements/mesons_400gev.toml")


@pytest.mark.parametrize(("mass", "ratio"), [(0.05, 2.83), (0.3, 1.45)])
def test_t1_the_proton_keeps_its_mass(mass, ratio):
    """With m_p set to the mass of the dark photon the splitting function would grow by this factor."""

    def weight(m_p):
        low, high = 0.1, 0.9

        def over_pt(z):
            def integrand(pt2):
                h = pt2 + z**2 * m_p**2 + (1 - z) * mass**2
                both = 1 + (1 - z) ** 2
                inner = (2 * m_p**2 + mass**2) / h - 2 * z**2 * m_p**4 / h**2
                more = 2 * z * (1 - z) * mass**2 * (both * m_p**2 + (1 - z) * mass**2) / h**2
                return (both / z - 2 * z * (1 - z) * inner + more) / h

            return quad(integrand, 0, 1, epsrel=1e-5)[0]

        return quad(over_pt, low, high, epsrel=1e-4)[0]

    assert weight(mass) / weight(M_PROTON) == pytest.approx(ratio, rel=0.01)
    z, pt2 = 0.4, 0.2
    h = bremsstrahlung.virtuality(z, pt2, mass)
    assert h == pytest.approx(pt2 + z**2 * M_PROTON**2 + (1 - z) * mass**2, rel=1e-12)


@pytest.mark.parametrize(("mass", "expected"), [(0.1, 7.66e-3), (0.5, 4.945e-3), (1.0, 2.747e-3)])
def test_t2_the_definition_of_s_prime_is_named_and_right(mass, expected):
    """s' = (M + E)² (1 − z) would give 1.44 times as many."""
    kernel = preset("na62")
    assert float(kernel.rate(mass, 400.0)) == pytest.approx(expected, rel=3e-3)
    assert "s' energy" in kernel.describe()
    assert all("s' " in each.describe() for each in PRESETS.values())


def test_t3_isovector_and_isoscalar_parts_are_added_with_their_phase():
    """Moduli added instead exceed the coherent sum at every mass, 4.5-fold at 1.5 GeV."""
    form, mass = FORM_FACTORS["vmd"], np.array([0.5, 0.7, 0.77, 0.9, 1.5])
    halves = [
        replace(form, couplings=form.couplings[s], masses=form.masses[s], widths=form.widths[s])
        for s in (slice(0, 3), slice(3, 6))
    ]
    coherent = np.abs(form(mass)[0])
    assert coherent == pytest.approx(np.abs(halves[0](mass)[0] + halves[1](mass)[0]))
    moduli = np.abs(halves[0](mass)[0]) + np.abs(halves[1](mass)[0])
    assert (moduli >= coherent * (1 - 1e-12)).all()
    assert ((moduli / coherent) ** 2)[[1, 4]] == pytest.approx([1.17, 4.5], rel=0.02)


def test_t4_the_window_of_the_integral_is_printed_and_matters():
    narrow = preset("na62")
    wide = replace(preset("fairship"), form_factor=FORM_FACTORS["pointlike"])
    for kernel, m, expected in ((narrow, 0.1, 7.655e-3), (wide, 0.1, 1.310e-2), (wide, 1.0, 8.82e-3)):
        assert float(kernel.rate(m, 400.0)) == pytest.approx(expected, rel=3e-3)
    assert "0.1 < z < 0.9, pT < 1 GeV" in narrow.describe()
    assert "0.14 < z < 0.99, pT < 4 GeV" in wide.describe()
    assert "0.1 < z < 0.9" in predict.Bremsstrahlung(narrow, 400.0).describe()


@pytest.mark.parametrize("mass", [0.2, 0.211, 2 * M_MU])
def test_t5_nothing_decays_below_threshold(mass):
    widths = dark_photon_widths(mass, R_TABLE)
    assert widths["mumu"] == 0.0
    assert widths["hadrons"] == 0.0
    assert dark_photon_branching(mass, R_TABLE)["ee"] == 1.0
    for name in ("lmu_ltau", "b_minus_l", "protophobic"):
        assert CHARGES[name].lepton_widths(mass)["mumu"] == 0.0
    assert qed.lepton_factor(np.array([mass**2]), M_MU)[0] == 0.0


def test_t6_a_species_that_a_generator_lacks_is_reported(caplog):
    table = MesonTable.read(MESONS)
    absent = table.mesons | {"phi": replace(table.mesons["phi"], multiplicity=0.0)}
    with caplog.at_level(logging.WARNING, logger="gammastar"):
        replace(table, mesons=absent)
    assert "phi" in caplog.text
    assert "zero multiplicity" in caplog.text


def test_t7_a_missing_table_is_an_error_that_names_it(tmp_path):
    with pytest.raises(InputFileError, match=r"absent\.toml"):
        MesonTable.read(tmp_path / "absent.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text(MESONS.read_text().replace('parent = "phi"', 'parent = "chi"'))
    with pytest.raises(SteeringError, match="chi"):
        MesonTable.read(broken)


@pytest.mark.parametrize("name", ["na62_dump", "ship_ecn3", "charm", "nucal"])
def test_t8_decays_lie_inside_the_volume_in_metres_from_one_target(name):
    detector = load_detector(data_path(f"detectors/{name}.toml"))
    target = np.asarray(detector.target.position)
    origin = np.broadcast_to(target, (400, 3))
    rng = np.random.default_rng(1)
    direction = np.stack([*rng.normal(0, 5e-4, (2, 400)), np.ones(400)], axis=1)
    chord = detector.volume.chord(origin, direction)
    hit = np.isfinite(chord).all(axis=1)
    assert hit.any()
    distance, _ = accept.forced_decay(chord[hit], rng)
    unit = direction[hit] / np.linalg.norm(direction[hit], axis=1, keepdims=True)
    z = (origin[hit] + distance[:, None] * unit)[:, 2]
    assert (distance >= chord[hit, 0]).all()
    assert (distance <= chord[hit, 1]).all()
    assert (z > target[2]).all()
    assert 1.0 < z.max() - target[2] < 1000.0  # metres, neither millimetres nor centimetres


def test_t8_a_millimetre_is_not_a_metre():
    volume = Cylinder(radius=1.0, z0=620.0, z1=630.0)
    chord = volume.chord(np.zeros((1, 3)), np.array([[0.0, 0.0, 1.0]]))
    assert chord[0] == pytest.approx([620.0, 630.0])
    assert np.isnan(volume.chord(np.zeros((1, 3)), np.array([[2.0 / 620.0, 0.0, 1.0]]))[0, 0])


def test_t9_a_limit_is_on_epsilon_not_on_its_square():
    """One known point: FASER excludes ε from 4e-6 to 3e-5 at 50 MeV, where 1 TeV flies 480 m."""
    faser = next(limit for limit in existing_limits() if limit.name == "FASER").polygon
    near = faser[np.abs(faser[:, 0] - 0.05) < 2e-3]
    assert near[:, 1].min() == pytest.approx(4.0e-6, rel=0.1)
    assert near[:, 1].max() == pytest.approx(3.1e-5, rel=0.1)
    length = 1e3 / 0.05 * float(dark_photon_ctau(0.05, near[:, 1].max(), R_TABLE))
    assert 5 < length < 100  # a short decay length ends the contour; with ε² for ε it would be 1e6 m
    for limit in existing_limits():
        assert limit.polygon[:, 1].max() > (1e-6 if limit.kind != "astrophysical" else 1e-7), limit.name


def test_t10_pairs_are_counted_and_two_particles_leave_each():
    branching = pseudoscalar_branching(
        0.010, M_PI0, constants.branching("pi0 -> gamma gamma"), hadrons.pointlike
    )
    assert branching == pytest.approx(2.7553e-3, rel=2e-3)  # not 5.5e-3, which counts both
    photons = predict.VirtualPhotons(
        np.full(4, 0.5), np.full(4, 0.2), np.full(4, 20.0), np.full(4, 0.25), np.ones(4, dtype=bool)
    )
    sample = predict.chi_pairs(photons, 0.1, rng=np.random.default_rng(1))
    assert len(sample.weight) == 8
    assert sample.weight.sum() == pytest.approx(2.0)


def test_t11_the_fine_structure_constant_is_not_one_over_137():
    width = float(lepton_width(0.1, M_E))
    assert width == pytest.approx(2.4331e-4, rel=1e-3)
    r = (M_E / 0.1) ** 2
    closed = 0.1 / 3 / 137.035999177 * np.sqrt(1 - 4 * r) * (1 + 2 * r)
    assert width == pytest.approx(closed, rel=1e-8)
    assert abs(width / (closed * 137.035999177 / 137) - 1) > 2e-4


def test_t12_hadronic_widths_agree_within_the_spread_of_the_mass():
    """No number is asked on the omega, where tables differ by a quarter."""
    for m, value, tolerance in (
        (0.3, 0.5255, 1e-3),
        (0.5, 0.4023, 6e-3),
        (0.7, 0.1454, 2.6e-2),
        (1.0, 0.314, 3.4e-2),
    ):
        assert float(dark_photon_branching(m, R_TABLE)["ee"]) == pytest.approx(value, rel=tolerance)


def test_t13_the_dilepton_route_recovers_the_form_factor_of_the_eta():
    """Eq. 6 on η → γμμ returns 2 BR(γγ)(1 − m²/M²)³ F², not its pointlike part."""
    m_eta = constants.mass(221)

    def ratio(form):
        return quad(
            lambda m: 2 * m * float(qed.pseudoscalar_dalitz(m * m, m_eta, M_MU, form)), 2 * M_MU, m_eta
        )[0]

    assert ratio(hadrons.pointlike) == pytest.approx(5.514e-4, rel=2e-3)
    assert ratio(hadrons.eta2) / ratio(hadrons.pointlike) == pytest.approx(1.49, abs=0.01)
    m = 0.4
    density = 2 * m * float(qed.pseudoscalar_dalitz(m * m, m_eta, M_MU, hadrons.eta2))
    rate = float(qed.dark_photon_rate(density, m, M_MU))
    expected = 2 * (1 - (m / m_eta) ** 2) ** 3 * float(hadrons.eta2(m * m))
    assert rate == pytest.approx(expected, rel=1e-6)


def test_t14_masses_and_charges_do_not_hang_on_a_library_version():
    """Physical tolerances: the mass of the rho moved by 0.001 GeV between versions of a table."""
    assert constants.mass(113) == pytest.approx(0.7753, abs=2e-3)
    assert constants.mass(221) == pytest.approx(0.54786, abs=1e-4)
    assert constants.mass(443) == pytest.approx(3.0969, abs=1e-3)
    assert isinstance(constants.mass(113), float)
    p4 = vector.array({"px": [0.0], "py": [0.0], "pz": [1.0], "E": [1.1]})
    sample = Sample(p4, np.ones(1), np.zeros((1, 3)), np.zeros(1, dtype=bool))
    assert sample.weight.dtype == np.float64
