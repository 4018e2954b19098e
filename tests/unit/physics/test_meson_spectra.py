"""Spectra of mesons in cells of angle and momentum, in the form in which FORESEE ships them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from foresee_recipe import STEP, decays, forward, recoils, write

from gammastar import accept, predict
from gammastar.core.constants import ALPHA, BRANCHING, GEV2_MB, M_E, mass
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector
from gammastar.physics.geometry import Cylinder
from gammastar.physics.mesons import (
    Cells,
    MesonSpectrum,
    MesonTable,
    read_cells,
    read_meson_spectra,
    write_cells,
)
from gammastar.physics.millicharge import Front, MillichargeDetector, Recoil, vector_branching
from gammastar.predict.millicharge import chi_from_resonances
from gammastar.predict.models import r_table


def test_a_table_as_foresee_writes_it_is_read(tmp_path):
    columns = forward(1.5e11)
    cells = read_cells(write(tmp_path, 221, columns))
    assert cells.width == pytest.approx((STEP, STEP))
    assert cells.total == pytest.approx(1.5e11, rel=1e-5)
    p = cells.sample(0.5, 60_000, np.random.default_rng(1))
    momentum, theta = np.linalg.norm(p[:3], axis=0), np.arctan2(np.hypot(p[0], p[1]), p[2])
    np.testing.assert_allclose(p[3] ** 2 - momentum**2, 0.25, rtol=1e-3, atol=1e-3 * p[3].max() ** 2 * 1e-9)
    for values, column in ((theta, columns[0]), (momentum, columns[1])):
        wanted = np.average(column, weights=columns[2])
        spread = np.sqrt(np.average((column - wanted) ** 2, weights=columns[2]))
        assert np.log10(values).mean() == pytest.approx(wanted, abs=5 * spread / np.sqrt(60_000) + 1e-4)
    write_cells(tmp_path / "again.npy", cells)
    np.testing.assert_array_equal(np.load(tmp_path / "again.npy")[2], cells.weight)
    np.testing.assert_allclose(read_cells(tmp_path / "again.npy").weight, cells.weight)


def test_mesons_count_as_cross_sections_or_per_interaction(tmp_path):
    write(tmp_path, 221, forward(1.5e11))
    write(tmp_path, 211, forward(1.0))  # a hadron that makes no dark photons
    pb, per = (read_meson_spectra(tmp_path, sigma_inelastic=s)["eta"] for s in (None, 80.0))
    assert pb.per_interaction == pytest.approx(1.5e11, rel=1e-5)
    assert per.per_interaction == pytest.approx(1.5e11 / 80e9, rel=1e-5)
    table, other = (MesonTable.read(tmp_path, sigma_inelastic=s) for s in (None, 80.0))
    assert (table.unit, other.unit) == ("pb", "proton")
    assert {decay.parent for decay in table.decays} == {"eta"}
    channel = predict.PseudoscalarDalitz(table, 7000.0)
    assert channel.unit == "pb"
    m = 0.3
    decays = tuple(replace(decay, form_factor="pointlike") for decay in table.decays)
    plain = predict.PseudoscalarDalitz(replace(table, decays=decays), 7000.0)
    branching = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (m / mass(221)) ** 2) ** 3
    assert plain.rate([m])[0][0] == pytest.approx(1.5e11 * branching, rel=1e-5)


def test_faser2_by_foresees_own_recipe(tmp_path):
    """η → γA' → ee at 0.3 GeV and ε = 1e-6, as in a test of FORESEE, with a spectrum from a formula."""
    m, epsilon, columns = 0.3, 1e-6, forward(1.7e11)
    write(tmp_path, 221, columns)
    model = predict.DarkPhoton(r_table())
    ctau = float(np.ravel(model.ctau(m, [epsilon]))[0])
    factor = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (m / mass(221)) ** 2) ** 3
    factor *= epsilon**2 * model.branching(m)["ee"] * 3e6
    wanted, error = (factor * x for x in decays(columns, mass(221), m, ctau, np.random.default_rng(2)))

    table = MesonTable.read(tmp_path)
    plain = replace(table, decays=tuple(replace(d, form_factor="pointlike") for d in table.decays))
    sample = predict.PseudoscalarDalitz(plain, 7000.0).produce(m, n=150_000, rng=stream(1, "eta"))
    faser2 = Detector(
        name="FASER2",
        source="arXiv:2105.07077",
        beam_energy=7000.0,
        luminosity=3e6,
        volume=Cylinder(kind="cylinder", radius=1.0, z0=620.0, z1=630.0),
        accept_on="parent",
        efficiency={"ee": 1.0},
        sources={},
    )
    found = accept.yields(sample, m, [epsilon], model, faser2, final_states=("ee",), rng=stream(1, "decays"))
    spread = np.hypot(error, found.mc_error[0])
    assert spread < 0.02 * wanted
    assert found.signal[0] == pytest.approx(
        wanted, abs=4 * spread + 0.003 * wanted
    )  # planes at 620 and 630 m


@pytest.mark.long
def test_millicharge_from_jpsi_by_foresees_own_recipe(tmp_path):
    """J/ψ → χχ̄ at 1 GeV and Q = 0.01 with recoils between 30 MeV and 1 GeV, as in a test of FORESEE."""
    m, charge, columns = 1.0, 0.01, forward(1.4e6, pt=1.5, slope=800.0)
    write(tmp_path, 443, columns)
    low, high, electrons = 0.03, 1.0, 3.754e29 * 7.0 * 1e-4  # GeV, GeV, per cm2
    ratio = float(vector_branching([m], mass(443), BRANCHING["jpsi -> e e"].value)[0])
    factor = 2 * ratio * charge**4 * 3e6 * electrons * GEV2_MB * 1e-27 * 2 * np.pi * ALPHA**2 / M_E
    found = recoils(columns, mass(443), m, (low, high), np.random.default_rng(3))
    wanted, error = (factor * x for x in found)  # both particles of a pair

    channel = predict.JPsi(MesonTable.read(tmp_path), 7000.0)
    photons = chi_from_resonances(channel, m, n=400_000, rng=stream(1, "jpsi"))
    sample = predict.chi_pairs(photons, m, rng=stream(1, "chi"))
    detector = MillichargeDetector(
        name="FLArE",
        source="a test of FORESEE",
        illustrative=False,
        beam_energy=7000.0,
        luminosity=3e6,
        front=Front(z=620.0, half_x=0.5, half_y=0.5),
        detection=Recoil(kind="recoil", electrons=electrons, t_min=low, t_max=high),
        sources={},
    )
    found = accept.millicharge_yields(sample, m, [charge], detector)
    spread = np.hypot(error, found.mc_error[0])
    assert spread < 0.02 * wanted
    assert found.signal[0] == pytest.approx(wanted, abs=4 * spread + 0.01 * wanted)  # T²/2E² is not in theirs
    open_end = replace(detector, detection=replace(detector.detection, t_max=None))
    assert accept.millicharge_yields(sample, m, [charge], open_end).signal[0] > found.signal[0]


def test_cells_of_a_region_keep_their_content():
    cells = Cells(*forward(1.0), width=(STEP, STEP))
    far = cells.within(max_angle=1e-3, min_momentum=100.0)
    keep = (10 ** (cells.log_angle - STEP / 2) < 1e-3) & (10 ** (cells.log_momentum + STEP / 2) > 100.0)
    assert far.total == pytest.approx(cells.weight[keep].sum())
    assert 0 < far.total < cells.total
    meson = MesonSpectrum(221, far)
    assert meson.per_interaction == pytest.approx(far.total)


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ("-3 2 1 4\n-2.9 2 1 4\n", "expected log10 angle"),
        ("-3 2\n", "expected log10 angle"),
        ("-3 2 one\n-2.9 2 1\n", "is no table"),
        ("-3 2 -1\n-2.9 2.1 1\n", "not negative"),
        ("-3 2 nan\n-2.9 2.1 1\n", "not negative"),
        ("0.001 100 5\n0.002 200 5\n", "log10 momentum = 100"),
        ("30 2 5\n40 2.1 5\n", "log10 angle = 30"),
        ("-3 2 1\n-2.9 2.1 1\n-2.77 2.3 1\n", "even steps"),
        ("", "expected log10 angle"),
    ],
)
@pytest.mark.filterwarnings("ignore:loadtxt")
def test_what_is_no_table_is_refused(tmp_path, rows, why):
    path = tmp_path / "X_14TeV_221.txt"
    path.write_text(rows)
    with pytest.raises(InputFileError, match=why):
        read_cells(path)


def test_folders_that_cannot_be_used_are_refused(tmp_path):
    with pytest.raises(InputFileError, match="no spectra"):
        read_meson_spectra(tmp_path)
    write(tmp_path, 221, forward(1.0))
    write(tmp_path, 221, forward(1.0), generator="OTHER")
    with pytest.raises(InputFileError, match="both of the eta"):
        read_meson_spectra(tmp_path)
    with pytest.raises(PhysicsError, match="sigma_inelastic"):
        read_meson_spectra(tmp_path, sigma_inelastic=-1.0)
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(InputFileError, match="is no table"):
        read_cells(tmp_path / "b.npy")
