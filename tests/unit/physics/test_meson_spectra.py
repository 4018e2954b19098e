"""Spectra of mesons in cells of angle and momentum, in the form in which FORESEE ships them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from gammastar import accept, predict
from gammastar.core.constants import ALPHA, BRANCHING, GEV2_MB, M_E, mass
from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector
from gammastar.physics.geometry import Cylinder
from gammastar.physics.meson_spectra import Cells, MesonSpectrum, read_cells, read_meson_spectra, write_cells
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import Front, MillichargeDetector, Recoil, vector_branching
from gammastar.predict.millicharge import chi_from_resonances
from gammastar.predict.names import r_table

STEP = 0.05
HEAD = """# This file contains the cross section for particles into the FORWARD hemisphere only
# Normalization:     1.68626e+11 pb
# pid: 221
#  log10(theta)    log10(p/GeV)     cross-section[pb/bin]
"""


def forward(pdg, total, *, pt=0.3, slope=1200.0):
    """Return cells with transverse momenta of some 0.3 GeV and falling momenta: a formula, no generator."""
    axes = np.arange(-5 + STEP / 2, -2.2, STEP), np.arange(1.8 + STEP / 2, 3.9, STEP)
    theta, p = np.meshgrid(*axes, indexing="ij")
    q = 10 ** (theta + p)
    density = q**2 * np.exp(-((q / pt) ** 2)) * 10**p * np.exp(-(10**p) / slope)
    cells = density.ravel() * (mass(pdg) > 0)
    return theta.ravel(), p.ravel(), total * cells / cells.sum()


def write_foresee(folder, pdg, columns, *, generator="FORMULA", energy="14"):
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{generator}_{energy}TeV_{pdg}.txt"
    np.savetxt(path, np.stack(columns, axis=1), fmt="%15.5e", header=HEAD, comments="")
    return path


def test_a_table_as_foresee_writes_it_is_read(tmp_path):
    columns = forward(221, 1.5e11)
    cells = read_cells(write_foresee(tmp_path, 221, columns))
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
    write_foresee(tmp_path, 221, forward(221, 1.5e11))
    write_foresee(tmp_path, 211, forward(211, 1.0))  # a hadron that makes no dark photons
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


def recipe(columns, m0, m, rng, each=25):
    """Return angles and momenta of A' and their weights by FORESEE's recipe: every cell, `each` times."""
    theta, p, weight = (np.repeat(c, each) for c in columns)
    n = len(theta)
    theta, p = (10 ** (c + rng.uniform(-STEP / 2, STEP / 2, n)) for c in (theta, p))
    cosine, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    energy, own = np.hypot(p, m0), (m0**2 - m**2) / (2 * m0)
    own_energy, sine = np.hypot(own, m), np.sqrt(1 - cosine**2)
    along = energy / m0 * (own * cosine + p / energy * own_energy)
    across = np.stack([own * sine * np.cos(phi), own * sine * np.sin(phi)])
    x = along * np.sin(theta) + across[0] * np.cos(theta)
    z = along * np.cos(theta) - across[0] * np.sin(theta)
    return np.stack([x, across[1], z]), weight / each


def test_faser2_by_foresees_own_recipe(tmp_path):
    """η → γA' → ee at 0.3 GeV and ε = 1e-6, as in a test of FORESEE, with a spectrum from a formula."""
    m, epsilon, columns = 0.3, 1e-6, forward(221, 1.7e11)
    write_foresee(tmp_path, 221, columns)
    p, weight = recipe(columns, mass(221), m, np.random.default_rng(2))
    model = predict.DarkPhoton(r_table())
    length = float(np.ravel(model.ctau(m, [epsilon]))[0]) * p[2] / m
    inside = (np.hypot(p[0], p[1]) / np.abs(p[2]) * 620.0 < 1.0) & (p[2] > 0)
    decays = np.where(inside, np.exp(-620.0 / np.abs(length)) - np.exp(-630.0 / np.abs(length)), 0.0)
    factor = 2 * BRANCHING["eta -> gamma gamma"].value * (1 - (m / mass(221)) ** 2) ** 3
    factor *= epsilon**2 * model.branching(m)["ee"] * 3e6
    wanted, error = factor * (weight @ decays), factor * np.sqrt(np.sum((weight * decays) ** 2))

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


def test_millicharge_from_jpsi_by_foresees_own_recipe(tmp_path):
    """J/ψ → χχ̄ at 1 GeV and Q = 0.01 with recoils between 30 MeV and 1 GeV, as in a test of FORESEE."""
    m, charge, columns = 1.0, 0.01, forward(443, 1.4e6, pt=1.5, slope=800.0)
    write_foresee(tmp_path, 443, columns)
    p, weight = recipe_pairs(columns, mass(443), m, np.random.default_rng(3))
    inside = (np.abs(p[:2]) / np.abs(p[2]) * 620.0 < 0.5).all(axis=0) & (p[2] > 0)
    energy, weight = np.sqrt((p[:, inside] ** 2).sum(axis=0) + m**2), weight[inside]
    low, high, electrons = 0.03, 1.0, 3.754e29 * 7.0 * 1e-4  # GeV, GeV, per cm2
    recoil = np.geomspace(low, high, 200)[:, None]
    top = 2 * M_E * (energy**2 - m**2) / (m**2 + 2 * energy * M_E + M_E**2)
    density = 1 / recoil**2 - m**2 / (2 * M_E * recoil * energy**2)  # FORESEE's, for E much larger than T
    sigma = np.trapezoid(np.where(recoil < top, density, 0.0), recoil, axis=0) * 2 * np.pi * ALPHA**2 / M_E
    events = electrons * sigma * charge**2 * GEV2_MB * 1e-27
    ratio = float(vector_branching([m], mass(443), BRANCHING["jpsi -> e e"].value)[0])
    factor = 2 * ratio * charge**2 * 3e6  # both particles of a pair
    wanted, error = factor * (weight @ events), factor * np.sqrt(np.sum((weight * events) ** 2))

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


def recipe_pairs(columns, m0, m, rng):
    """Return momenta of one χ of each pair: the daughters of V → χχ̄ weigh alike."""
    both = m0 / 2
    theta, p, weight = (np.repeat(c, 60) for c in columns)
    n = len(theta)
    theta, p = (10 ** (c + rng.uniform(-STEP / 2, STEP / 2, n)) for c in (theta, p))
    own, energy = np.sqrt(both**2 - m**2), np.hypot(p, m0)
    cosine, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    along = energy / m0 * (own * cosine + p / energy * both)
    across = own * np.sqrt(1 - cosine**2)
    x = along * np.sin(theta) + across * np.cos(phi) * np.cos(theta)
    z = along * np.cos(theta) - across * np.cos(phi) * np.sin(theta)
    return np.stack([x, across * np.sin(phi), z]), weight / 60


def test_cells_of_a_region_keep_their_content():
    cells = Cells(*forward(221, 1.0), width=(STEP, STEP))
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
    write_foresee(tmp_path, 221, forward(221, 1.0))
    write_foresee(tmp_path, 221, forward(221, 1.0), generator="OTHER")
    with pytest.raises(InputFileError, match="both of the eta"):
        read_meson_spectra(tmp_path)
    with pytest.raises(PhysicsError, match="sigma_inelastic"):
        read_meson_spectra(tmp_path, sigma_inelastic=-1.0)
    (tmp_path / "b.npy").write_bytes(b"no array")
    with pytest.raises(InputFileError, match="is no table"):
        read_cells(tmp_path / "b.npy")
