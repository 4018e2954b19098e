"""The whole chain on the shipped MOCK files, through the command line, on coarser grids than shipped."""

import csv
import hashlib
import inspect
import json
import re
import shutil
import signal
import sys
import time
from dataclasses import replace

import forks
import numpy as np
import pytest
import uproot
from builders import ROOT
from injection import foreign_code

from gammastar import predict
from gammastar.core.errors import SteeringError, UserError
from gammastar.core.files import data_path
from gammastar.core.signal import SignalPlanes
from gammastar.physics.qed import RTable
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.record import read_record
from gammastar.pipeline.run import run
from gammastar.pipeline.stages import report
from gammastar.report import dark
from gammastar.report import style as drawing
from gammastar.report.figures import kinematics, limits, measured
from gammastar.report.figures import signal as signals
from gammastar.report.style import styled
from gammastar.results.export import efficiency_table
from gammastar.results.start import reinterpret
from gammastar.store.manifest import read_json, read_spectrum

STEERING = ROOT / "analysis" / "na60_dimuon" / "small.toml"
COARSE = {
    "n_masses = 20": "n_masses = 14",
    "n_couplings = 61": "n_couplings = 41",
    "n_draws = 20": "n_draws = 10",
    "flow_masses = [0.3, 0.77]": "flow_masses = [0.77]",
    'schema = "schema.toml"': f'schema = "{STEERING.parent}/schema.toml"',
}

pytestmark = pytest.mark.flow


def gammastar(*arguments, check=True):
    return forks.gammastar(*arguments, check=check, cwd=ROOT)


def coarse():
    """Return the text of the steering with fewer masses, couplings and replicas."""
    text = STEERING.read_text()
    for shipped, fewer in COARSE.items():
        assert shipped in text
        text = text.replace(shipped, fewer)
    return text


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    base = tmp_path_factory.mktemp("run")
    (base / "steering.toml").write_text(coarse())
    gammastar("run", base / "steering.toml", "--output", base / "na60_small")
    return base / "na60_small"


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """The same steering without its report."""
    path = tmp_path_factory.mktemp("bare") / "steering.toml"
    path.write_text(coarse().split("[report]")[0])
    return path


def stages(folder):
    return read_json(folder / "manifest.json")["stages"]


def test_files_of_a_run(results):
    expected = {
        *("manifest.json", "spectrum.json", "spectrum.root", "pairs.root", "flow.safetensors", "flow.json"),
        *("workspace.json", "patchset.json", "reach.csv", "reach.json", "report.html"),
    }
    assert expected <= {path.name for path in results.iterdir()}
    manifest = read_json(results / "manifest.json")
    assert manifest["finished"]
    assert manifest["mock"]
    assert all(len(sha) == 64 for sha in manifest["inputs"].values())
    page = (results / "report.html").read_text()
    assert "MOCK" in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    figures = {path.stem for path in (results / "figures").glob("*.png")}
    assert {"mass_spectra", "unfolded_spectrum", "flow_projections", "rate", "reach_na62_dump"} <= figures
    assert gammastar("verify", results).stdout.count("ok") > 10
    assert "MOCK" in gammastar("show", results).stdout


def test_reach_has_two_edges_and_a_tip(results):
    content = read_json(results / "reach.json")
    rows = [row for row in content["rows"] if row["part"] == "all" and row["coupling_low"] is not None]
    assert len(rows) >= 4
    assert all(row["coupling_low"] < row["coupling_high"] for row in rows)
    assert all(row["cl"] == 0.9 for row in rows)
    mass, coupling = content["tip"]
    assert 0.4 < mass < 0.8
    assert 1e-7 < coupling < 1e-6
    assert content["label"].startswith("MOCK expected reach")


def test_histograms_are_read_back_identically(results):
    spectrum = read_spectrum(results / "spectrum.json")
    axes = {axis.name: i for i, axis in enumerate(spectrum.hist.axes)}
    pairs = spectrum.hist.project("mass", "pt")
    with uproot.open(results / "spectrum.root") as file:
        stored = file["mass_pt_per_pot"]
        assert np.array_equal(stored.values(), pairs.values())
        assert np.array_equal(stored.variances(), pairs.variances())
        total = file["mass_per_pot"]
        others = tuple(i for name, i in axes.items() if name != "mass")
        assert np.allclose(total.values(), spectrum.values.sum(axis=others), rtol=1e-12)
        n = spectrum.values.shape
        cov = spectrum.cov.reshape(*n, *n).sum(axis=(1, 2, 4, 5))
        assert np.allclose(total.variances(), np.diag(cov), rtol=1e-9)


def test_pyhf_reads_what_was_written(results, tmp_path):
    def pyhf(*arguments):
        return forks.server.run("-c", "from pyhf.cli import cli; cli()", *arguments, check=True).stdout

    workspace, patches = results / "workspace.json", results / "patchset.json"
    assert "signal" in pyhf("inspect", workspace)
    assert "All good" in pyhf("patchset", "verify", workspace, patches)
    name = read_json(patches)["patches"][0]["metadata"]["name"]
    patch = tmp_path / "patch.json"
    pyhf("patchset", "extract", patches, "--name", name, "--output-file", patch)
    found = json.loads(pyhf("cls", workspace, "-p", patch))
    assert 0 <= found["CLs_obs"] <= 1


def test_resume_takes_everything_and_changes_nothing(bare, resumed, tmp_path):
    shutil.copytree(resumed, tmp_path / "a")
    first = stages(tmp_path / "a")
    gammastar("run", bare, "--output", tmp_path / "a", "--resume")
    assert stages(tmp_path / "a") == first
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "a" / "stages").iterdir()}
    gammastar("run", bare, "--output", tmp_path / "a", "--only", "predict")
    changed = {path.stem for path, at in kept.items() if path.stat().st_mtime_ns != at}
    assert changed == {"predict"}


@pytest.fixture(scope="module")
def resumed(bare, tmp_path_factory):
    """A run that was killed after its unfolding and went on."""
    folder = tmp_path_factory.mktemp("killed") / "out"
    process = forks.server.start("-m", "gammastar", "run", bare, "--output", folder)
    manifest = folder / "manifest.json"
    while process.poll() is None:  # no clock: a busy machine takes a minute for the imports alone
        if manifest.is_file() and "unfold" in json.loads(manifest.read_text())["stages"]:
            break
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not read_json(manifest)["finished"]
    assert gammastar("verify", folder, check=False).returncode == 1
    gammastar("run", bare, "--output", folder, "--resume")
    return folder


def test_killed_run_resumes_to_identical_numbers(resumed, results):
    again, once = stages(resumed), stages(results)
    assert {name: entry["content"] for name, entry in again.items()} == {
        name: entry["content"] for name, entry in once.items()
    }


def test_verify_sees_a_changed_file(resumed, tmp_path):
    folder = tmp_path / "changed"
    shutil.copytree(resumed, folder)
    gammastar("verify", folder)
    with (folder / "pairs.root").open("ab") as stream:
        stream.write(b"x")
    run = gammastar("verify", folder, check=False)
    assert run.returncode == 1
    assert "pairs.root" in run.stderr


def page_of(folder):
    """Return the page with plain spaces: numbers and units are typeset so that no line ends between them."""
    return (folder / "report.html").read_text().replace("\u00a0", " ")


def test_the_page_is_folded(results):
    page = page_of(results)
    open_part = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert page.count('class="card"') == 4
    assert 'id="flagship"' in page.split("<nav")[0]
    assert 'href="explorer.html"' in page
    assert 'href="report.html"' in (results / "explorer.html").read_text()
    assert "Migration in mass" in page
    assert "Migration in mass" not in open_part
    assert page.count('class="enlarge"') == page.count('class="close"') == len(re.findall("<img", page))
    assert re.search(r"Toys give \d+ ± \d+ \(p = ", open_part)


def test_report_and_manifest_say_what_shifts_of_the_flow_are_found(results):
    numbers = read_json(results / "manifest.json")["numbers"]
    assert 0 < float(numbers["flow against its pairs, p-value"].split(",")[0]) <= 1
    found = re.findall(r"([\d.]+) % in all (\w+)", numbers["shifts of the flow found with 95 %"])
    assert [name for _, name in found] == ["energies", "q_T"]
    assert all(0.5 < float(size) < 100 for size, _ in found)  # some thousand pairs: per cents
    page = page_of(results)
    assert f"detects a shift of {found[0][0]} % in all energies" in " ".join(page.split())


def test_sample_of_the_flow(results, tmp_path):
    output = tmp_path / "sample.root"
    gammastar("sample", results / "flow", "--mass", "0.5", "-n", "1000", "-o", output, "--decay", "mumu")
    with uproot.open(output) as file:
        columns = file["events"].arrays(library="np")
    px, py, pz, energy = (columns[name] for name in ("px", "py", "pz", "E"))
    assert np.allclose(np.sqrt(energy**2 - px**2 - py**2 - pz**2), 0.5, rtol=1e-3)
    assert (energy < 400).all()
    assert np.allclose(columns["d1_E"] + columns["d2_E"], energy)
    run = gammastar("sample", results / "flow", "--mass", "5", "-n", "10", "-o", output, check=False)
    assert run.returncode == 2
    assert "[0.2125, 1.1125]" in run.stderr


@pytest.mark.parametrize("suffix", ["parquet", "lhe", "hepmc"])
def test_sample_formats(results, tmp_path, suffix):
    output = tmp_path / f"sample.{suffix}"
    spectrum = results / "spectrum.json"
    gammastar("sample", results / "flow", "--spectrum", spectrum, "-n", "50", "-o", output)
    assert output.stat().st_size > 1000
    run = gammastar("sample", results / "flow", "-n", "5", "-o", output, check=False)
    assert run.returncode == 2
    assert "--mass or --spectrum" in run.stderr


def test_reinterpretation_of_the_record_is_the_run_itself(results, resumed, tmp_path):
    gammastar("reinterpret", resumed, "--output", tmp_path / "again")
    for name in ("reach.json", "workspace.json", "patchset.json"):
        assert read_json(tmp_path / "again" / name) == read_json(results / name)


def test_reinterpretation_for_another_detector(results, resumed, tmp_path):
    detector = tmp_path / "shorter.toml"
    shipped = (ROOT / "data" / "detectors" / "na62_dump.toml").read_text()
    detector.write_text(shipped.replace("pot = 1.4e17", "pot = 1.4e18"))
    gammastar("reinterpret", resumed, "--detector", detector, "--output", tmp_path / "more")
    more, once = (read_json(path / "reach.json") for path in (tmp_path / "more", results))
    lower = [{r["mass"]: r["coupling_low"] for r in x["rows"] if r["coupling_low"]} for x in (more, once)]
    assert set(lower[0]) >= set(lower[1]) > set()
    assert all(lower[0][mass] < edge for mass, edge in lower[1].items())
    run = gammastar("reinterpret", tmp_path, "--output", tmp_path / "none", check=False)
    assert run.returncode == 2
    assert "steering.json" in run.stderr


def test_a_detector_that_sees_muons_alone(resumed, tmp_path):
    """The run asks for e⁺e⁻ too: left out, and said so; without a shared state nothing begins."""
    card = ROOT / "data" / "detectors" / "vertex_telescope.toml"
    gammastar("reinterpret", resumed, "--detector", card, "--output", tmp_path / "muons")
    notes = read_json(tmp_path / "muons" / "manifest.json")["notes"]
    assert any("sees mumu alone" in note for note in notes)
    blind = tmp_path / "pions.toml"
    blind.write_text(card.read_text().replace("mumu = 1.0", "pipi = 1.0"))
    run = gammastar("reinterpret", resumed, "--detector", blind, "--output", tmp_path / "none", check=False)
    assert run.returncode == 2
    assert "pions.toml" in run.stderr
    assert not (tmp_path / "none").exists()


def plane_of(results):
    return SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector["ship_ecn3"]


def test_exported_tables_give_the_expected_events(results, tmp_path):
    gammastar("export", results, "--output", tmp_path / "tables", "-n", "4000")
    said = read_json(tmp_path / "tables" / "export.json")["detectors"]["ship_ecn3"]
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    rate = np.genfromtxt(tmp_path / "tables" / "rate.csv", delimiter=",", names=True)
    plane = plane_of(results)
    i, epsilon = 5, plane.coupling
    mass = rate["mass_GeV"][i]
    accepted, variance = np.zeros((2, len(epsilon)))
    for state in ("ee", "mumu"):
        path = tmp_path / "tables" / f"efficiency_ship_ecn3_{state}.csv"
        table = np.genfromtxt(path, delimiter=",", names=True)
        mine = table["mass_GeV"] == table["mass_GeV"][np.argmin(abs(table["mass_GeV"] - mass))]
        log_ctau, wanted = np.log(table["ctau_m"][mine]), np.log(model.ctau(mass, epsilon))
        branching = model.branching(mass)[state]
        found = np.interp(wanted, log_ctau, np.log(np.maximum(table["efficiency"][mine], 1e-300)))
        accepted += branching * np.exp(found)
        variance += (branching * np.interp(wanted, log_ctau, table["mc_error"][mine])) ** 2
    per_particle = said["pot"] * said["target_factor"] * rate["rate_per_pot_per_eps2"][i] * epsilon**2
    signal = plane.signal[i]
    some = (signal > 1e-4 * signal.max()) & (wanted > log_ctau[0])  # long and short lives
    assert some.sum() > 10
    error = np.hypot(plane.mc_error[i], per_particle * np.sqrt(variance))[some]
    assert (abs(per_particle * accepted - signal)[some] < 4.0 * error + 0.01 * signal[some]).all()
    labels = (tmp_path / "tables" / "darkcast" / "ship_ecn3.lmt").read_text().splitlines()
    assert labels[0] == "# mass lower upper"
    low, high = map(float, labels[1].split()[1:])
    assert 1e-9 < low < high < 1e-3


def test_exported_efficiencies_hold_the_power_of_a(results):
    record, table = read_record(results), {}
    detector, section = record.detectors()["ship_ecn3"], record.steering.accept
    power = {"target_scaling": "power", "alpha": 0.9, "alpha_inelastic": 0.7}
    for scaling, changed in (("per_interaction", {}), ("power", power)):
        steering = record.steering.model_copy(update={"accept": section.model_copy(update=changed)})
        one = replace(record, steering=steering)
        table[scaling] = efficiency_table(one, "ship_ecn3", detector, [0.6], final_state="mumu", n=500)
    ratio = detector.target.a / record.spectrum.exposure.target_a
    assert ratio != 1.0
    found = [table[scaling]["efficiency"] for scaling in ("power", "per_interaction")]
    np.testing.assert_allclose(found[0], ratio**0.2 * found[1])


def test_extrapolated_part_has_an_error_that_grows_with_it(results):
    plane = plane_of(results)
    signal, error = plane.signal, plane.effect("extrapolation").values
    part = plane.in_domain / np.where(signal > 0, signal, 1.0)
    assert (error[signal == 0] == 0).all()
    assert (error[signal > 1] > 0.05).all()  # hardly anything was measured
    assert (np.log1p(error[signal > 1]) < 5 * (1 - part[signal > 1])).all()


@pytest.mark.slow
def test_a_run_that_refuses_to_extrapolate_has_no_signal_but_the_measured(bare, tmp_path):
    text = bare.read_text()
    assert "[spectrum]\n" in text
    bare = tmp_path / "steering.toml"
    bare.write_text(text.replace("[spectrum]\n", "[spectrum]\nextrapolate = false\n"))
    gammastar("run", bare, "--output", tmp_path / "out")
    rows = read_json(tmp_path / "out" / "reach_ship_ecn3.json")["rows"]
    edges = {
        part: [
            (row["mass"], row["coupling_low"]) for row in rows if row["part"] == part and row["coupling_low"]
        ]
        for part in ("all", "measured domain")
    }
    assert len(edges["all"]) > 5
    assert edges["all"] == edges["measured domain"]


@pytest.fixture(scope="module")
def designed(results, tmp_path_factory):
    """What `gammastar design` says of the off-axis detector, and the folder where it wrote."""
    folder = tmp_path_factory.mktemp("design")
    asked = ("--masses", "0.3,0.6", "-n", "4000", "--output", folder)
    said = gammastar("design", results, "--detector", "shadows_like", *asked).stdout
    return said, folder


def test_design_proposes_a_run_that_covers_the_signal(designed):
    said, folder = designed
    content = read_json(folder / "design_shadows_like.json")
    assert content["mock"]
    assert "MOCK" in said
    assert (folder / "design_shadows_like.png").stat().st_size > 10_000
    points, proposal = content["points"], content["proposal"]
    assert [p["mass_GeV"] for p in points] == [0.3] * 3 + [0.6] * 3
    for low, top, high in (points[:3], points[3:]):
        assert low["coupling"] < top["coupling"] < high["coupling"]
        assert low["energy_90_GeV"][1] < high["energy_90_GeV"][1]  # hard ones live longest
        assert low["events"] == pytest.approx(2.3, rel=0.5)  # the edges are where the limit is
        assert top["events"] > 10 * low["events"]
    for point in points:
        # half-widths 1.25 m about 2.25 m at 10 to 36 m from the target: 28 to 380 mrad
        assert 28 < point["theta_90_mrad"][0] < point["theta_68_mrad"][0]
        assert point["theta_68_mrad"][1] < point["theta_90_mrad"][1] < 380
        assert 0 <= point["measured"] <= 1
    assert points[1]["measured"] > 0.3
    assert proposal["theta_min_mrad"] < min(p["theta_68_mrad"][0] for p in points)
    assert proposal["covers"] == min(p["covered"] for p in points)
    known = [p["protons"] for p in points if p["protons"] is not None]
    assert proposal["protons"] == {"least": min(known), "most": max(known)}
    assert "random pairs multiply them" in said


@pytest.mark.usefixtures("undrawn")
def test_design_halves_the_error_with_four_times_the_protons(results, designed, tmp_path):
    from gammastar.results.design import DesignRequest, design

    before = read_json(designed[1] / "design_shadows_like.json")
    low, high = (1e-3 * before["proposal"][f"theta_{end}_mrad"] for end in ("min", "max"))
    asked = DesignRequest((0.3,), precision=0.05, thickness=0.2, angles=(low, high), n=4000)
    design(results, "shadows_like", asked, output=tmp_path, tell=lambda *_: None)
    after = read_json(tmp_path / "design_shadows_like.json")["points"][1]["protons"]
    fewer = np.expm1(-0.1) / np.expm1(-0.2)  # of a target in which more protons interact
    expected = 4 * fewer * before["points"][1]["protons"]
    assert after == pytest.approx(expected, rel=2e-3)  # through mrad: a particle on an edge may fall out


@pytest.mark.usefixtures("undrawn")
def test_design_without_a_measured_pair_or_behind_another_beam(results, tmp_path):
    from gammastar.results.design import DesignRequest, design

    few = {"output": tmp_path, "tell": lambda *_: None}
    said = "\n".join(design(results, "na62_dump", DesignRequest((0.3,), n=4000), **few))
    assert "no measured pair lies in the region of NA62 dump" in said
    assert "proposed: both leptons between" in said
    card = data_path("detectors/shadows_like.toml").read_text()
    (tmp_path / "at120.toml").write_text(card.replace("beam_energy = 400.0", "beam_energy = 120.0"))
    said = "\n".join(design(results, str(tmp_path / "at120.toml"), DesignRequest(), **few))
    assert "needed: a spectrum of lepton pairs at 120 GeV" in said
    needed = read_json(tmp_path / "design_at120.json")["needed"]
    assert (needed["spectrum_at_GeV"], needed["target_a"]) == (120.0, 63.55)
    said = "\n".join(design(results, "mcp_bars", DesignRequest((0.1,), n=4000), **few))
    assert "  Q  " in said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--detector", "no_such"), "--detector no_such: no such file, and none of appendix_b"),
        (("--detector", "ship_ecn3", "--precision", "0"), "--precision 0: must be positive"),
        (("--detector", "ship_ecn3", "--masses", "3"), "--masses 3: lies outside what the run measured"),
        (("--detector", "ship_ecn3", "--masses", "0.3;0.5"), "give numbers with commas between them"),
        (("--detector", "ship_ecn3", "--share", "1.5"), "--share 1.5: must lie between 0 and 1"),
        (("--detector", "ship_ecn3", "--angles", "60", "5"), "--angles 60 5: the smallest and the largest"),
        (("--detector", "ship_ecn3", "-n", "10"), "at least 1000 particles"),
    ],
)
def test_design_names_what_cannot_be(results, arguments, words, tmp_path):
    from click.testing import CliRunner

    from gammastar.cli import app

    asked = ["design", str(results), *arguments, "--output", str(tmp_path)]
    found = CliRunner().invoke(app, asked).exception
    assert isinstance(found, UserError)
    assert words in str(found)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_yields_beside_other_conventions(results, tmp_path, monkeypatch):
    from gammastar.physics.bremsstrahlung import preset
    from gammastar.physics.mesons import MesonTable
    from gammastar.predict.theory import PseudoscalarDalitz, VectorDalitz, VectorMixing

    monkeypatch.setattr(sys, "path", [str(STEERING.parent), *sys.path])
    import conventions_parts

    found = conventions_parts.compare(results, ("shadows_like", "na62_dump"), 3000, n_masses=2)
    assert found.mock
    assert all(row.measured == 0 for row in found.rows if row.detector == "na62_dump")
    known = [row for row in found.rows if row.known and np.isfinite(row.eventcalc[1])]
    assert len(known) > 5
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    for row in known:
        assert row.detector == "shadows_like"
        assert row.foresee[0] < row.foresee[1] < row.foresee[2]
        # both conventions share their kinematics: their ratio is that of the rates, 1 / proton
        rate = float(preset("qra_v1").rate(row.mass, 400.0))
        rate += sum(float(c(table, 400.0).rate([row.mass])[0][0]) for c in (PseudoscalarDalitz, VectorDalitz))
        rate += float(VectorMixing(table, 400.0).rate([row.mass])[0][0])
        wanted = conventions_parts.eventcalc()[row.mass][1] / rate
        assert row.eventcalc[1] / row.foresee[1] == pytest.approx(wanted, rel=1e-9)
    conventions_parts.draw(found, tmp_path / "conventions")
    lines = conventions_parts.write(found, tmp_path / "conventions.csv")
    assert all(line.startswith("MOCK: ") for line in lines)
    with (tmp_path / "conventions.csv").open() as stream:
        assert {row["data"] for row in csv.DictReader(stream)} == {"MOCK"}


def test_a_record_runs_no_code(results, tmp_path, monkeypatch):
    """Every key that takes the name of Python code, by the commands that make anything of the steering."""
    monkeypatch.chdir(tmp_path)
    tried = list(foreign_code.tried(results, tmp_path, foreign_code.CHEAP))
    assert len(tried) >= 5 * len(foreign_code.CHEAP)  # model, channels, sources …
    assert [what for what, ran in tried if ran] == []


def test_trusted_code_is_told_before_it_runs(results, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    source = foreign_code.SOURCE.format(marker=str(tmp_path / "marker"))
    (tmp_path / foreign_code.FILE).write_text(source)
    shared = foreign_code.shared(results, tmp_path / "shared", [("predict", "model", foreign_code.NAME)])
    with pytest.raises(UserError, match=r"evil\.py \(\[predict\]\).*--trust-code"):
        reinterpret(shared, output=tmp_path / "out", tell=lambda *_: None)
    assert not (tmp_path / "out").exists()
    with pytest.raises(SteeringError, match="is no model"):
        reinterpret(shared, output=tmp_path / "out", tell=lambda *_: None, trust_code=True)
    assert (tmp_path / "marker").read_text() == "ran"
    assert hashlib.sha256(source.encode()).hexdigest() in caplog.text
    assert gammastar("design", shared, "--detector", "ship_ecn3", check=False).returncode == 2


def test_a_figure_that_fails_costs_no_page(results, tmp_path, monkeypatch):
    """Every drawing function fails once; a section, the explorer and masses outside the data as well."""
    text = coarse().replace("flow_masses = [0.77]", "flow_masses = [5.0]")
    shutil.copytree(results, tmp_path / "out")
    (tmp_path / "steering.toml").write_text(text)
    state = []
    monkeypatch.setattr(report, "write", lambda *given: state.extend(given))
    run(tmp_path / "steering.toml", output=tmp_path / "out", resume=True)
    monkeypatch.undo()
    monkeypatch.setattr(drawing, "drawn", lambda *_, **__: b"png")
    ctx, page = state[0], tmp_path / "out" / "report.html"
    (told,) = [note for note in ctx.cache.notes if "flow_masses" in note]
    assert "5 GeV: outside what the flow learns" in told

    def fails(*_, **__):
        raise ZeroDivisionError("on purpose")

    found = [
        (module, name)
        for module in (dark, kinematics, limits, measured, signals)
        for name, function in vars(module).items()
        if hasattr(function, "__wrapped__") and inspect.signature(function).return_annotation == "Figure"
    ]
    failed, notes = set(), list(ctx.cache.notes)
    for half in (0, 1):
        ctx.cache.notes[:] = notes
        page.unlink(missing_ok=True)
        with monkeypatch.context() as patch:
            for module, name in found[half::2]:
                patch.setattr(module, name, styled(fails))
            report.write(*state)
        drawn = {note.split(": ")[1] for note in ctx.cache.notes if note.startswith("report: ")}
        assert all("ZeroDivisionError: on purpose" in n for n in ctx.cache.notes if n.startswith("report: "))
        assert all(f"report: {name}: " in page.read_text().replace("Report: ", "report: ") for name in drawn)
        assert failed.isdisjoint(drawn)
        failed |= drawn
    drawn = {path.stem for path in (results / "figures").glob("*.png")}
    assert failed >= drawn - {"flow_projections", "flow_plane"}
    with monkeypatch.context() as patch:
        patch.setattr(report.dark, "acceptance_section", fails)
        patch.setattr(report, "_explorer", fails)
        report.write(*state)
    assert "Not shown: planes" in page.read_text()
    assert "explorer.html" not in page.read_text()
    ctx.cache.finish()
    assert read_json(tmp_path / "out" / "manifest.json")["finished"]
