"""The record that a run publishes, and what somebody else makes of it: OmniFold and flow on MOCK files."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import uproot
from builders import ROOT
from click.testing import CliRunner
from scipy.integrate import quad

from gammastar import read, report
from gammastar.cli import app
from gammastar.core.constants import ALPHA, M_MU
from gammastar.core.errors import InputFileError
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.record import read_record
from gammastar.pipeline.run import run
from gammastar.predict import rate as rate_of
from gammastar.read.published import Conventions
from gammastar.results.export import mass_spectrum, write_published
from gammastar.store.manifest import digest, read_manifest, write_manifest

pytestmark = [pytest.mark.flow, pytest.mark.usefixtures("untested_flow")]
SMALL = ROOT / "analysis" / "na60_dimuon"
MASSES = ["0.22", "0.3", "0.5", "0.7", "0.7827", "0.79", "1.0", "1.05"]
SHORT = {
    "[subtract]": '[subtract]\nweights = "signed"',
    "epoch_size = 20_000": "epoch_size = 2_000",
    "n_draws = 20": "n_draws = 10",
    "epochs = 4": "epochs = 1\nmembers = 2",
}


@pytest.fixture(scope="module")
def record(tmp_path_factory):
    text = (SMALL / "small.toml").read_text().split("[accept]")[
        0
    ] + "\n[systematics]\nbackground = true\nefficiency = 0.02\n"
    text = text.replace('"schema.toml"', f'"{SMALL / "schema.toml"}"')
    for old, new in SHORT.items():
        assert old in text
        text = text.replace(old, new)
    path = tmp_path_factory.mktemp("publishing") / "steering.toml"
    path.write_text(text)
    results = run(path, output=tmp_path_factory.mktemp("run") / "results")
    # weights as OmniFold leaves them, in a tenth of the time: the simulated ones times a smooth function
    truth, kept = (load_arrays(results / "stages" / f"{name}.npz") for name in ("match", "unfold"))
    weight = truth["weight"] * np.exp(-truth["true"][:, 0])
    kept["omnifold_weight"] = weight
    np.savez(results / "stages" / "unfold.npz", **kept)
    manifest = read_manifest(results)
    manifest["stages"]["unfold"]["content"] = digest(kept)
    write_manifest(results, manifest)
    return read_record(results)


@pytest.fixture(scope="module")
def folder(record, tmp_path_factory):
    folder = tmp_path_factory.mktemp("record")
    write_published(record, folder, events=20_000)
    return folder


def stranger(folder, name):
    """Return masses, rates and errors of the script of the record: isolated, without this package."""
    command = [sys.executable, "-I", str(folder / "dark_photon_rate.py"), str(folder / name), *MASSES]
    text = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder).stdout
    return np.array([line.split() for line in text.splitlines()], dtype=float).T


def test_a_stranger_gets_the_rate_from_the_events(record, folder):
    mass, rate, error = stranger(folder, "events.json")
    own, cov = record.channel().rate(mass)
    np.testing.assert_allclose(rate, own, rtol=0.01)
    np.testing.assert_allclose(error, np.sqrt(np.diag(cov)), rtol=0.5)  # 50 replicas, and flows of one epoch


def test_a_stranger_gets_the_rate_of_a_bin_from_omnifold(record, folder):
    """Against the spectrum itself: contents of the bin over the integral of 2κ/m."""
    mass, rate, _ = stranger(folder, "omnifold.json")
    measured = mass_spectrum(record.spectrum)
    edges = measured.hist.axes[0].edges

    def per_rate(m):
        return 2 * ALPHA / (3 * np.pi) * (1 + 2 * (M_MU / m) ** 2) * np.sqrt(1 - 4 * (M_MU / m) ** 2) / m

    for m, found in zip(mass, rate, strict=True):
        k = np.searchsorted(edges, m, "right") - 1
        expected = measured.values[k] / quad(per_rate, edges[k], edges[k + 1])[0]
        assert found == pytest.approx(expected, rel=0.01)


def test_events_carry_what_their_description_says(record, folder):
    for name in ("events", "omnifold"):
        about = json.loads((folder / f"{name}.json").read_text())
        events = np.load(folder / f"{name}.npz", allow_pickle=False)
        assert about["mock"]
        assert set(events.files) <= set(about["columns"])
        assert (
            len(about["sources"]) == len(events["sources"]) if "sources" in events else not about["sources"]
        )
        assert (events["energy"] ** 2 >= events["mass"] ** 2 + events["pt"] ** 2 - 1e-9).all()
        assert 0 < events["measured"].mean() < 1
        total = record.spectrum.values.sum()
        assert events["weight"].sum() == pytest.approx(total, rel=0.02)
        inside = events["weight"][events["measured"] == 1].sum()
        share = record.spectrum.values[record.spectrum.domain].sum()
        if name == "omnifold":  # a flow of one epoch has not learned the kinematics
            assert inside == pytest.approx(share, rel=0.05)


def test_the_spectrum_comes_back_from_its_record(record, folder):
    report.check_submission(folder)
    table = read.hepdata(folder, "Mass spectrum")
    found, wanted = read.published_spectrum(table, quantity="per_pot"), mass_spectrum(record.spectrum)
    np.testing.assert_allclose(found.spectrum.values, wanted.values, rtol=1e-12)
    np.testing.assert_allclose(found.spectrum.cov, wanted.cov, rtol=1e-9, atol=1e-12 * wanted.cov.max())
    assert found.sources.names == ("table, stat", *(f"table, {name}" for name in wanted.shifts))
    for name, shift in wanted.shifts.items():
        np.testing.assert_allclose(found.spectrum.shifts[f"table, {name}"], shift, rtol=1e-9, atol=1e-22)
    edges = wanted.hist.axes[0].edges
    width = np.diff(edges)
    both = [
        rate_of(
            0.5 * (edges[1:] + edges[:-1]),
            one.values / width,
            one.cov / np.outer(width, width),
            M_MU,
            edges=edges,
        )
        for one in (found.spectrum, wanted)
    ]
    np.testing.assert_allclose(both[0][0], both[1][0], rtol=1e-12)
    assert "covariance is that of the record" in " ".join(found.notes)
    assert "MOCK" in table.origin.comment


def test_bins_that_are_left_out_leave_the_covariance_too(record, folder):
    table, wanted = read.hepdata(folder, 1), mass_spectrum(record.spectrum)
    edges = wanted.hist.axes[0].edges
    told = Conventions(mass=(float(edges[3]), float(edges[9])), scale=2.0, scale_sigma=0.1)
    found = read.published_spectrum(table, conventions=told).spectrum
    inner = np.s_[3:9]
    values = 2 * wanted.values[inner]
    expected = 4 * wanted.cov[inner, inner] + 0.01 * np.outer(values, values)
    np.testing.assert_allclose(found.cov, expected, rtol=1e-9, atol=1e-12 * expected.max())
    # labels that are named by hand count instead of the covariance
    asked = Conventions(uncorrelated=("stat",))
    notes = read.published_spectrum(table, conventions=asked).notes
    assert "no covariance is given" in " ".join(notes)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t["dependent_variables"][0]["header"].update(units="GeV"), "is not the square of"),
        (lambda t: t["dependent_variables"][0]["values"][1].update(value=1.0), "is no covariance"),
        (lambda t: t["dependent_variables"][0]["values"][1].update(value="-"), "nothing stands for bin 1"),
        (lambda t: t["independent_variables"][1]["values"][2].update(low=0.1), "no bin of table"),
        (lambda t: t["independent_variables"].pop(), "needs 2 axes"),
        (
            lambda t: [v.update(value=1e-9 * v["value"]) for v in t["dependent_variables"][0]["values"]],
            "larger than the covariance",
        ),
    ],
)
def test_a_covariance_that_does_not_fit_is_refused(folder, tmp_path, change, message):
    shutil.copytree(folder, tmp_path / "record")
    path = tmp_path / "record" / "covariance.yaml"
    table = json.loads(path.read_text())
    change(table)
    path.write_text(json.dumps(table))
    with pytest.raises(InputFileError, match=message):
        read.published_spectrum(read.hepdata(tmp_path / "record", 1))


def test_the_command_writes_the_record(record, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    command = ["export", str(record.folder), "--output", str(tmp_path), "--hepdata", "--events", "2000"]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert "submission.yaml" in done.output
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "thesis.tex"]
    said = [word for word in done.output.split() if word.startswith(str(tmp_path))]
    assert sorted(said) == sorted(map(str, written))  # and nothing else of the folder
    assert len(np.load(tmp_path / "hepdata" / "events.npz", allow_pickle=False)["mass"]) == 2000


@pytest.mark.parametrize("layout", ["ttree", "rntuple"])
def test_pairs_with_weights_are_read_by_others(record, tmp_path, layout):
    """Weighted histograms of the tree are the subtracted spectrum; the example of the page reads it."""
    command = ["export", str(record.folder), "--output", str(tmp_path), "--for", "root", "--layout", layout]
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    with uproot.open(tmp_path / f"{record.folder.name}.root") as file:
        pairs, spectrum = file["pairs"].arrays(), file["spectrum"].values()
    np.testing.assert_array_equal(spectrum, record.spectrum.values)
    with uproot.open(record.folder / "pairs.root") as file:
        expected, edges = file["subtracted"].to_numpy()
        opposite = file["opposite_sign"].values()
    inside = np.asarray((pairs.pt < 6) & (pairs.energy < 400))
    mass, weight = (np.asarray(pairs[name])[inside] for name in ("mass", "signed_weight"))
    found, square = (np.histogram(mass, edges, weights=weight**k)[0] for k in (1, 2))
    assert np.all(np.abs(found - expected) < np.sqrt(square))  # the background of cells is a smooth fit
    assert abs(found.sum() - expected.sum()) < 0.2 * np.sqrt(square.sum())
    count = np.histogram(mass[np.asarray(pairs.charge)[inside] == 0], edges)[0]
    np.testing.assert_array_equal(count, opposite)


def test_the_command_writes_for_other_tools(record, tmp_path):
    """All of them hold the rate of the record per interacting proton, and the decays of their point."""
    exposure = record.spectrum.exposure
    text = (ROOT / "data" / "detectors" / "ship_ecn3.toml").read_text()
    for old, new in (
        ("a = 95.95", "a = 207.2"),
        ("z = 42", "z = 82"),
        ("thickness = inf", "thickness = 0.01"),
    ):
        assert old in text  # the run asks for no scaling to other targets
        text = text.replace(old, new)
    ship = str(tmp_path / "ship_ecn3.toml")
    Path(ship).write_text(text, encoding="utf-8")

    def export(tool, *more):
        command = ["export", str(record.folder), "--output", str(tmp_path / tool), "--for", tool, *more]
        done = CliRunner().invoke(app, command)
        assert done.exit_code == 0, done.output
        return tmp_path / tool

    folder = export("foresee", "-n", "2000")
    lost = dict(re.findall(r"^  ([\d.]+): (\S+)$", (folder / "README.txt").read_text(), re.MULTILINE))
    masses = np.array(list(lost), dtype=float)
    rate = record.channel().rate(masses)[0] / -np.expm1(-exposure.thickness)
    cells = [folder / "model" / "LLP_spectra" / f"0.4TeV_gammastar_gammastar_m_{mass}.npy" for mass in lost]
    found = np.array([np.load(path)[2].sum() for path in cells]) / 32.3e9
    outside = np.array(list(lost.values()), dtype=float)
    assert (outside < 0.2).all()  # a flow of one epoch
    np.testing.assert_allclose(found, rate * (1 - outside), rtol=2e-3)
    folder = export("eventcalc", "-n", "2000")
    mass, found = np.loadtxt(folder / "Total-yield-DP-central.txt").T
    expected = record.channel().rate(mass)[0] / -np.expm1(-exposure.thickness)
    np.testing.assert_allclose(found, expected, rtol=0.02)
    assert "MOCK" in (folder / "README.txt").read_text()
    point = ("--mass", "0.4", "--coupling", "1e-7", "--events", "100", "--format", "root")
    folder = export("geant", "--detector", ship, *point)
    about = json.loads((folder / "decays.json").read_text())["decays_ship_ecn3_mumu.root"]
    weights = uproot.open(folder / "decays_ship_ecn3_mumu.root")["events"]["weight"].array(library="np")
    assert about["mock"]
    assert weights.sum() == pytest.approx(about["expected_decays_in_the_volume"], rel=1e-6)
    done = CliRunner().invoke(
        app, ["export", str(record.folder), "--output", str(tmp_path), "--for", "geant"]
    )
    assert done.exit_code == 1
    assert "--mass and --coupling" in str(done.exception)


def test_equal_runs_give_equal_records(record, folder, tmp_path):
    write_published(record, tmp_path, events=20_000)
    for path in folder.iterdir():
        assert path.read_bytes() == (tmp_path / path.name).read_bytes(), path.name
