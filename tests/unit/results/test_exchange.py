"""Files for other tools, read back by plain numpy as those tools read them."""

from __future__ import annotations

import re

import foresee_recipe
import numpy as np
import pytest
import uproot
from builders import box_detector
from scipy.constants import c
from scipy.integrate import trapezoid

from gammastar import predict
from gammastar.core.errors import PhysicsError, UserError
from gammastar.core.sampling import stream
from gammastar.physics.bremsstrahlung import preset
from gammastar.predict.models import r_table
from gammastar.predict.theory import ForeseeSpectra
from gammastar.results.exchange import (
    Point,
    Produced,
    Stand,
    write_decays,
    write_eventcalc,
    write_foresee,
)

BEAM = 400.0
MASSES = [0.25, 0.3, 0.40000001]
INTERACTION = 0.4  # of a thin target


@pytest.fixture(scope="module")
def produced():
    kernel = predict.Bremsstrahlung(preset("na62"), BEAM, INTERACTION)
    return Produced(kernel, BEAM, INTERACTION, n=20_000, note="MOCK dark photons of a test")


@pytest.fixture(scope="module")
def truth():
    """Return rate per interacting proton, mean log10 of angle and momentum, and mean energy at 0.3 GeV."""
    rate = preset("na62").rate(0.3, BEAM)
    energy, pt, weight = preset("na62").sample(0.3, BEAM, 200_000, np.random.default_rng(5))
    p = np.sqrt(energy**2 - 0.09)
    logs = np.log10(np.arcsin(pt / p)), np.log10(p)
    return float(rate), [np.average(x, weights=weight) for x in (*logs, energy)]


def test_foresee_reads_cross_sections_and_a_luminosity(produced, truth, tmp_path):
    write_foresee(produced, MASSES, tmp_path, protons={"dump": 2e20}, sigma_inelastic=40.0)
    # as `convert_list_to_momenta` of FORESEE: three rows, cells 0.05 wide, named by the mass
    found = np.load(tmp_path / "model" / "LLP_spectra" / "0.4TeV_gammastar_True_m_0.3.npy")
    angle, momentum, weight = found
    assert found.shape[0] == 3
    assert np.diff(np.unique(angle.round(9))) == pytest.approx(0.05)
    assert np.diff(np.unique(momentum.round(9))) == pytest.approx(0.05)
    rate, means = truth
    assert weight.sum() == pytest.approx(rate * 40e9, rel=1e-3)  # a thousandth lies below 1e-5 rad
    assert np.average(angle, weights=weight) == pytest.approx(means[0], abs=0.02)
    assert np.average(momentum, weights=weight) == pytest.approx(means[1], abs=0.02)
    text = (tmp_path / "README.txt").read_text()
    luminosity = float(re.search(r"dump: luminosity = (\S+)", text)[1])
    assert weight.sum() * luminosity * 1000 == pytest.approx(rate * 2e20, rel=2e-3)
    direct = tmp_path / "model" / "direct" / "0.4TeV" / "gammastar_0.4TeV_0.3.txt"
    assert direct.read_text().startswith("# MOCK")
    np.testing.assert_allclose(np.loadtxt(direct).T[2], weight, rtol=1e-4)
    masses = eval(re.search(r"masses=(\[.*\])\)", text)[1])  # noqa: S307 - as the user pastes it
    for mass in masses:
        assert (tmp_path / f"model/direct/0.4TeV/gammastar_0.4TeV_{mass}.txt").is_file()
    sums = [
        foresee_recipe.decays_in_flight(
            *(tmp_path, mass),
            energy="0.4",
            label="gammastar",
            rng=np.random.default_rng(1),
            ctau=1e-6,
            front=0.0,
            length=100.0,
            radius=1e-9,
            luminosity=luminosity,
            n=1,
            cut=2.0,
        )
        for mass in (0.3, 0.301)
    ]  # all decay at once; FORESEE counts nothing at a mass without file
    assert sums == [pytest.approx(rate * 2e20, rel=2e-3), 0.0]
    assert "preselectioncuts" in text
    again = ForeseeSpectra.read(tmp_path / "model" / "LLP_spectra", sigma_inelastic=40.0)
    assert again.rate([0.3])[0][0] == pytest.approx(rate, rel=1e-3)


def test_eventcalc_reads_a_density_whose_integral_is_one(produced, truth, tmp_path):
    write_eventcalc(produced, MASSES, tmp_path, fine=np.linspace(0.25, 0.4, 7))
    # as `pd.read_csv(…, header=None, sep="\t")` and the trilinear interpolation of EventCalc
    mass, angle, energy, density = np.loadtxt(tmp_path / "DoubleDistr-DP-central.txt", delimiter="\t").T
    one = mass == 0.3
    axes = np.unique(angle[one]), np.unique(energy[one])
    plane = density[one].reshape(len(axes[0]), len(axes[1]))
    assert trapezoid(trapezoid(plane, axes[1]), axes[0]) == pytest.approx(1.0, rel=1e-6)
    rate, means = truth
    mean = trapezoid(trapezoid(plane * axes[1], axes[1]), axes[0])
    assert mean == pytest.approx(means[2], rel=0.02)
    limit = np.loadtxt(tmp_path / "Emax-DP-central.txt")
    tops = limit[limit[:, 0] == 0.3][:, 2]
    assert (plane[axes[1][None, :] > tops[:, None]] == 0).all()  # beyond it EventCalc counts nothing
    yields = np.loadtxt(tmp_path / "Total-yield-DP-central.txt")
    assert np.interp(0.3, *yields.T) == pytest.approx(rate, rel=1e-6)
    upper = np.loadtxt(tmp_path / "Total-yield-DP-upper.txt")
    sigma = np.sqrt(produced.channel.rate([0.3])[1][0, 0]) / INTERACTION
    assert np.interp(0.3, *upper.T) == pytest.approx(rate + sigma, rel=1e-6)
    with pytest.raises(UserError, match="two or more"):
        write_eventcalc(produced, [0.3], tmp_path)


@pytest.fixture(scope="module")
def stand():
    detector = box_detector(beam_energy=BEAM, pot=1e18)
    return Stand(predict.DarkPhoton(r_table()), detector)


POINT = Point(0.3, 2e-7, "mumu")


def expected(channel, stand):
    """Return the expected decays with their error: exponentials over the chords of a box, by numpy."""
    sample = channel.produce(POINT.mass, n=200_000, rng=stream(9, "other"))
    p = np.stack([np.asarray(component) for component in (sample.p4.px, sample.p4.py, sample.p4.pz)])
    first, last, half = *stand.detector.volume.z_range, 2.0  # a box with sides along the beam
    slope = np.maximum(np.abs(p[0]), np.abs(p[1])) / p[2]
    end = np.minimum(last, half / np.maximum(slope, 1e-12))
    length = float(np.ravel(stand.model.ctau(POINT.mass, [POINT.coupling]))[0]) * p[2] / POINT.mass
    decays = np.where(end > first, np.exp(-first / length) - np.exp(-end / length), 0.0)
    scale = POINT.coupling**2 * stand.model.branching(POINT.mass)["mumu"] * stand.detector.pot
    return scale * sample.weight @ decays, scale * np.sqrt(np.sum((sample.weight * decays) ** 2))


def test_hepmc_has_decays_in_the_volume_with_their_times(produced, stand, tmp_path):
    pyhepmc = pytest.importorskip("pyhepmc")
    path = tmp_path / "decays.hepmc"
    total, effective = write_decays(path, produced.channel, stand, POINT, n=500)
    with pyhepmc.open(str(path)) as file:
        events = list(file)
    weights = [event.weights[0] for event in events]
    assert len(events) == 500
    assert np.ptp(weights) == pytest.approx(0.0, abs=1e-9 * total)
    assert sum(weights) == pytest.approx(total, rel=1e-6)
    wanted, error = expected(produced.channel, stand)
    assert total == pytest.approx(wanted, abs=5 * error + 5 * total / np.sqrt(effective))
    first, last = stand.detector.volume.z_range
    for event in events[:50]:
        dark = next(p for p in event.particles if p.pid == 4900022)
        start, end = dark.production_vertex.position, dark.end_vertex.position
        assert 1e3 * first <= end.z <= 1e3 * last
        distance = np.sqrt((end.x - start.x) ** 2 + (end.y - start.y) ** 2 + (end.z - start.z) ** 2)
        momentum = dark.momentum
        assert end.t - start.t == pytest.approx(distance * momentum.e / momentum.p3mod(), rel=1e-9)
        assert sorted(p.pid for p in dark.end_vertex.particles_out) == [-13, 13]
        total_e = sum(p.momentum.e for p in dark.end_vertex.particles_out)
        assert total_e == pytest.approx(momentum.e, rel=1e-6)


def test_root_and_les_houches_say_the_same(produced, stand, tmp_path):
    pylhe = pytest.importorskip("pylhe")
    for suffix in ("root", "lhe"):
        write_decays(tmp_path / f"d.{suffix}", produced.channel, stand, POINT, n=200, seed=3)
    table = uproot.open(tmp_path / "d.root")["events"].arrays(library="np")
    assert tuple(table)[:7] == ("event", "px", "py", "pz", "E", "mass", "weight")
    distance = np.sqrt(sum((table[f"decay_{x}"] - table[f"v{x}"]) ** 2 for x in "xyz"))
    p = np.sqrt(table["px"] ** 2 + table["py"] ** 2 + table["pz"] ** 2)
    np.testing.assert_allclose(table["decay_t"], distance * table["E"] / p / c, rtol=1e-9)
    for x in ("px", "py", "pz", "E"):
        np.testing.assert_allclose(table[f"d1_{x}"] + table[f"d2_{x}"], table[x], rtol=1e-6, atol=1e-9)
    events = list(pylhe.LHEFile.fromfile(str(tmp_path / "d.lhe")).events)
    energy = [event.particles[0].e for event in events]
    np.testing.assert_allclose(energy, table["E"], rtol=1e-7)
    proper = [event.particles[0].lifetime for event in events]  # c tau in mm
    np.testing.assert_allclose(proper, 1e3 * distance * 0.3 / p, rtol=1e-3)


def test_decays_follow_the_exponential_law(produced, stand, tmp_path):
    """At a short lifetime most decays lie at the entry: the mean depth is that of the exponential."""
    point = Point(0.3, 3e-6, "mumu")
    write_decays(tmp_path / "d.root", produced.channel, stand, point, n=4000)
    table = uproot.open(tmp_path / "d.root")["events"].arrays(library="np")
    first, last = stand.detector.volume.z_range
    ctau = float(np.ravel(stand.model.ctau(0.3, [3e-6]))[0])
    length = ctau * table["pz"] / 0.3
    width = last - first
    inside = (first <= table["decay_z"]) & (table["decay_z"] <= last)
    assert inside.all()
    mean = length - width / np.expm1(width / length)  # of each particle's own exponential, cut at the exit
    depth = table["decay_z"] - first
    assert (depth - mean).mean() == pytest.approx(0.0, abs=5 * depth.std() / np.sqrt(1500))


def test_closed_states_and_far_volumes_are_refused(produced, stand, tmp_path):
    with pytest.raises(PhysicsError, match="open"):
        write_decays(tmp_path / "a.root", produced.channel, stand, Point(0.2, 1e-6, "mumu"), n=10)
    with pytest.raises(PhysicsError, match="give one of"):
        write_decays(tmp_path / "a.root", produced.channel, stand, Point(0.3, 1e-6, "pipi"), n=10)
    assert not (tmp_path / "a.root").exists()
