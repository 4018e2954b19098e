"""Theory, other vectors and millicharged particles from small steering files, through all stages."""

import html
import json

import numpy as np
import pytest
from builders import csv_rows

from gammastar.core import records
from gammastar.core.constants import M_MU
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Spectrum, filled
from gammastar.core.sampling import stream
from gammastar.core.signal import Rate, SignalPlanes
from gammastar.mock import generate_pairs, load_card
from gammastar.physics.vectors import CHARGES
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.run import run
from gammastar.results.events import chi_file
from gammastar.store.manifest import read_json, write_spectrum

THEORY = """
[analysis]
name = "theory"

[predict]
source = "theory"
model = "{model}"
beam_energy = 400.0
channels = ["pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung"]
masses = [0.1, 0.25, 0.4, 0.6]
n_sample = 2000
{more}
[accept]
detectors = ["ship_ecn3"]
{accept}
[infer]
coupling = [1e-9, 1e-3]
n_couplings = 41
min_effective = 3.0
"""
CHARGED = """
[predict.millicharge]
masses = [0.02, 0.1, 0.3]
channels = ["pion_dalitz", "pseudoscalar_dalitz", "jpsi"]
n_sample = 2000
"""


def results(folder, text):
    steering = folder / "steering.toml"
    steering.write_text(text)
    return run(steering, output=folder / "out")


def stage(folder, name):
    return load_arrays(folder / "stages" / f"{name}.npz")


def plane_of(folder):
    return SignalPlanes.from_arrays(stage(folder, "accept")).by_detector["ship_ecn3"]


BARS = 'millicharge_detectors = ["mcp_bars"]\ninteraction_length = 0.15'
CHI = THEORY.format(model="dark_photon", more=CHARGED, accept=BARS) + "\n[systematics]\nspin = 0.2\n"


@pytest.fixture(scope="module")
def theory(tmp_path_factory):
    return results(tmp_path_factory.mktemp("theory"), CHI + "\n[report]\n")


@pytest.fixture(scope="module")
def photons(tmp_path_factory):
    text = THEORY.format(model="dark_photon", more="", accept="")
    return results(tmp_path_factory.mktemp("photons"), text)


def test_theory_needs_no_ntuples(theory):
    manifest = read_json(theory / "manifest.json")
    assert manifest["finished"]
    assert not manifest["inputs"]
    assert {"predict", "accept", "infer"} <= set(manifest["stages"])
    rows = [row for row in csv_rows(theory / "reach.csv") if row["part"] == "all" and row["coupling_low"]]
    assert {float(row["mass"]) for row in rows} == {0.1, 0.25, 0.4, 0.6}
    assert all(1e-9 < float(row["coupling_low"]) < 1e-6 for row in rows)


CONVENTIONS = ("qra_v2", "0.1 < z < 0.9", "pT < 3 GeV", "s' collinear", "form factor vmd")


def test_conventions_stand_in_the_manifest(theory):
    methods = " ".join(f"{k}: {v}" for k, v in read_json(theory / "manifest.json")["methods"].items())
    for text in (
        *CONVENTIONS,
        "secondary cascades",
        "unpolarised, assumed",
        "interaction length 0.15 m",
        "σ nsd over σ(s)",
    ):
        assert text in methods


@pytest.mark.slow
def test_conventions_and_figures_stand_in_the_report(tmp_path):
    folder = results(tmp_path, CHI + "[report]\n")
    page = (folder / "report.html").read_text()
    for text in CONVENTIONS:
        assert text in html.unescape(page).replace("\u00a0", " ")
    figures = {path.stem for path in (folder / "figures").glob("*.png")}
    assert {"rate", "millicharged_pairs", "reach_millicharge", "reach_ship_ecn3"} <= figures


def test_errors_by_source_add_up_with_correlation_between_masses(theory):
    _, _, sources = plane_of(theory).budget()
    search = "protons on target of the search"
    known = {"theory", "protons on target", "spin state of the decays", "hadronic width", "finite sample"}
    assert set(sources.names) - {search} == known
    theory_part = sources.named("theory").cov
    sigma = np.sqrt(np.diag(theory_part))
    assert theory_part[0, 1] / (sigma[0] * sigma[1]) > 0.9  # one multiplicity moves both
    finite = sources.named("finite sample").cov
    assert np.count_nonzero(finite - np.diag(np.diag(finite))) == 0


def test_the_measured_part_covers_the_whole_plane(theory):
    plane = plane_of(theory)
    fraction, signal = plane.in_domain_fraction, plane.signal
    assert fraction.shape == signal.shape == (4, 41)
    assert (fraction[signal > 0] == 0).all()  # theory was measured nowhere


def test_the_report_of_theory_shows_no_measured_part(theory):
    page = (theory / "report.html").read_text()
    assert "no lepton pair was measured" in page
    assert "measured domain only" not in page
    assert "split into measured" not in page
    assert "measured part of the signal on the edges" not in page
    assert "<td>measured domain</td>" not in page


def test_the_explorer_of_theory_has_no_measured_part(theory):
    text = (theory / "explorer.html").read_text()
    planes = json.loads(text.split('id="data">')[1].split("</script>")[0])["detectors"]
    assert planes
    assert all(plane["fraction"] is None for plane in planes.values())


def test_millicharge_reach_and_its_exponent(theory):
    rows = [row for row in csv_rows(theory / "reach_mcp_bars.csv") if row["part"] == "all"]
    assert [float(row["mass"]) for row in rows] == [0.02, 0.1, 0.3]
    assert all(1e-5 < float(row["charge_low"]) < 1e-2 for row in rows)
    text = read_json(theory / "manifest.json")["numbers"]["exponent of Q, four layers of bars (illustrative)"]
    assert text.startswith("10 declared, 10.0")
    pairs = Rate.from_arrays(stage(theory, "millicharge"))
    assert pairs.value == pytest.approx(np.sum(list(pairs.channels.values()), axis=0))
    assert pairs.channels["pion_dalitz"][0] > 0.8 * pairs.value[0]
    assert pairs.channels["pion_dalitz"][1] == 0


@pytest.mark.parametrize("model", ["lmu_ltau", "b_minus_l", "protophobic"])
def test_other_vectors(model, photons, tmp_path):
    folder = results(tmp_path, THEORY.format(model=model, more="", accept=""))
    manifest = read_json(folder / "manifest.json")
    assert CHARGES[model].condition in manifest["methods"]["model"]
    made = stage(folder, "predict")
    assert (made["value"] > 0).all()
    ratio = made["value"] / stage(photons, "predict")["value"]
    if model == "lmu_ltau":
        assert ratio == pytest.approx(CHARGES[model].production_ratio("bremsstrahlung", made["mass"]))
    else:  # couples with strength g, not ε e
        assert (ratio > 0.05).all()
        assert (ratio < 50).all()


AXION = """
import numpy as np
from gammastar import predict


class Axion(predict.Model):
    labels = predict.Labels("axions", "a", "g_aγγ", "coupling to photons", "1/GeV")

    def ctau(self, mass, coupling):
        return np.asarray(1e-14 / (mass**3 * np.asarray(coupling) ** 2))

    def branching(self, mass):
        return {"ee": 1.0, "mumu": 0.0}

    def rate_ratio(self, mass):
        return 0.5 * np.ones_like(mass)
"""


def test_a_model_of_a_user_is_drawn_as_itself(photons, tmp_path):
    (tmp_path / "axion.py").write_text(AXION)
    more = '[report]\nbounds = "mine"\n'
    (tmp_path / "mine").mkdir()
    text = data_path("bounds/dark_photon_faser_2023.toml").read_text().replace('"FASER"', '"of photons"')
    (tmp_path / "mine" / "photons.toml").write_text(text)
    folder = results(tmp_path, THEORY.format(model="axion.py:Axion", more="", accept="") + more)
    made, plain = stage(folder, "predict"), stage(photons, "predict")
    assert made["value"] == pytest.approx(0.5 * plain["value"], rel=1e-12)
    model = read_json(folder / "reach.json")["model"]
    assert (model["particle"], model["coupling"], model["unit"]) == ("a", "g_aγγ", "1/GeV")
    data = json.loads((folder / "explorer.html").read_text().split('id="data">')[1].split("</script>")[0])
    assert (data["mass_label"], data["coupling_label"]) == ("m(a) [GeV]", "g_aγγ [1/GeV]")
    page = html.unescape((folder / "report.html").read_text())
    assert "No published limit is drawn: those on dark photons were not recast to this model." in page
    assert "Rate of axions" in page
    assert not any(word in page for word in ("FASER", "of photons", "A′", "ε"))


def test_a_model_without_a_rate_is_refused_before_work(tmp_path):
    (tmp_path / "axion.py").write_text(AXION.replace("rate_ratio", "some_rate"))
    with pytest.raises(UserError, match=r"axion\.py:Axion.*define rate_ratio"):
        results(tmp_path, THEORY.format(model="axion.py:Axion", more="", accept=""))
    assert not (tmp_path / "out" / "stages").exists()


def test_overlapping_channels_are_refused(tmp_path):
    text = THEORY.format(model="dark_photon", more="", accept="").replace(
        '"bremsstrahlung"]', '"bremsstrahlung", "bremsstrahlung"]'
    )
    with pytest.raises(SteeringError, match=r"predict.channels: .* remove one"):
        results(tmp_path, text)


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ('"bremsstrahlung"]', '"synchrotron"]', "predict.channels: 'synchrotron'"),
        ("n_sample", 'mesons = "absent"\nn_sample', "absent"),
        ("n_sample", 'bremsstrahlung = "qra_v9"\nn_sample', "qra_v9"),
        ("beam_energy = 400.0", "", "needs channels"),
        ("[accept]", '[accept]\nmillicharge_detectors = ["mcp_bars"]', "predict.millicharge"),
        ('["ship_ecn3"]', '["ship_ecn3"]\nalpha = 0.9', "belong to target_scaling"),
        ('["ship_ecn3"]', "[]", "name at least one"),
        ("beam_energy = 400.0", "beam_energy = 120.0", "120"),
    ],
)
def test_bad_steering_names_its_key(old, new, match, tmp_path):
    text = THEORY.format(model="dark_photon", more="", accept="").replace(old, new)
    with pytest.raises(UserError, match=match):
        results(tmp_path, text)


def test_scaling_with_a_depends_on_pt_and_has_an_error(photons, tmp_path):
    """α rising with pt weighs hard particles down on a lighter nucleus; its error is common."""
    power = 'target_scaling = "power"\nalpha = [[0.0, 0.7], [1.0, 0.9]]\n'
    power += "alpha_inelastic = 0.7"
    text = THEORY.format(model="dark_photon", more="", accept=power)
    scaled = results(tmp_path, f"{text}\n[systematics]\nscaling = 0.05\n")
    (a, b), (error, other) = (
        [getattr(plane_of(folder), name) for folder in (scaled, photons)] for name in ("signal", "mc_error")
    )
    seen = 10 * other < b  # decays are placed where each of them needs them
    ratio, error = a[seen] / b[seen], np.hypot(error[seen], other[seen]) / b[seen]
    assert ((ratio < 1.0 + 4 * error) & (ratio > (95.95 / 207.2) ** 0.2 - 4 * error - 1e-6)).all()
    assert 0.86 < np.median(ratio) < 0.995
    effect = plane_of(scaled).effect("scaling with A")
    assert effect.form == "relative"
    assert effect.values == pytest.approx(0.05 * np.log(207.2 / 95.95))
    assert "alpha" in read_json(scaled / "manifest.json")["methods"]["scaling with A"]


def test_pairs_of_a_run_become_files(tmp_path):
    """Without a flow the histogram gives the kinematics; both formats hold the same rate."""
    card = load_card(data_path("cards/na60_mock.toml"))
    pairs = generate_pairs(card, 20_000, stream(1, "pairs"))
    edges = (
        records.regular("mass", 18, 0.2125, 1.1125),
        records.variable("pt", [0.0, 0.5, 6.0]),
        records.variable("energy", [0.2, 20.0, 60.0, 400.0]),
    )
    points = np.stack([pairs.mass, pairs.pt, pairs.energy], axis=1)
    values, _ = np.histogramdd(points, [axis.edges for axis in edges], weights=pairs.weight)
    exposure = Exposure(400.0, 207.2, 82.0, 0.01, 1e13)
    hist = filled(edges, values.ravel(), values.ravel())
    inside = np.ones(values.shape, dtype=np.bool_)
    write_spectrum(
        tmp_path / "spectrum.json", Spectrum(hist, np.diag(values.ravel()), "per_pot", exposure, inside)
    )
    line = chi_file(tmp_path, M_MU, 500, tmp_path / "chi.txt")
    rows = np.loadtxt(tmp_path / "chi.txt")
    assert rows.shape == (1000, 8)
    mass2 = rows[:, 3] ** 2 - np.sum(rows[:, :3] ** 2, axis=1)
    assert np.sqrt(np.clip(mass2, 0, None)) == pytest.approx(M_MU, abs=0.03)  # of six digits and 100 GeV
    assert f"{values.sum():.6g} pairs" in line  # Eq. 8 with the mass of the muon
    chi_file(tmp_path, 0.2, 50, tmp_path / "chi.lhe")
    assert (tmp_path / "chi.lhe").read_text().count("<event>") == 50
    with pytest.raises(UserError, match="suffix"):
        chi_file(tmp_path, 0.2, 50, tmp_path / "chi.xyz")
