"""`gammastar check` finds what a run would stumble over; `run` stops before its first stage."""

import importlib.util
import json
import shutil
import time

import numpy as np
import pytest
import uproot
from builders import ROOT
from click.testing import CliRunner

from gammastar import cli, config
from gammastar.config.checks import check_steering, examine_file, listing
from gammastar.core.errors import SteeringError
from gammastar.pipeline.run import run
from gammastar.read.files import kept_open
from gammastar.store.filesets import find_file
from gammastar.store.manifest import read_json

SCHEMA = (ROOT / "analysis" / "na60_dimuon" / "schema.toml").read_text()
SMALL_FILE = ROOT / "analysis" / "na60_dimuon" / "small.toml"
SMALL = SMALL_FILE.read_text()
DETECTOR = (ROOT / "data" / "detectors" / "na62_dump.toml").read_text()


@pytest.fixture(scope="module")
def mock(first_mock):
    """Return a folder with the first entries of the shipped MOCK files, which stay open."""
    with kept_open():
        yield first_mock


@pytest.fixture
def written(tmp_path, mock):
    """Write the small analysis with replacements, and further files beside it."""
    (tmp_path / "mock").symlink_to(mock)

    def write(*replacements, **files):
        text = SMALL
        for old, new in replacements:
            assert old in text, old
            text = text.replace(old, new)
        (tmp_path / "schema.toml").write_text(SCHEMA)
        for name, content in files.items():
            stem, _, ending = name.rpartition("_")
            (tmp_path / f"{stem}.{ending}").write_text(content)
        path = tmp_path / "steering.toml"
        path.write_text(text)
        return path

    return write


def without(text, line):
    assert any(row.startswith(line) for row in text.splitlines()), line
    return "\n".join(row for row in text.splitlines() if not row.startswith(line)) + "\n"


MODEL = """
import numpy as np
from gammastar import predict
class Wrong(predict.Model):
    def ctau(self, mass, coupling):
        return -np.ones_like(np.asarray(coupling, float))
    def branching(self, mass):
        return {"mumu": 0.5}
class Silent(Wrong):
    def ctau(self, mass, coupling):
        return np.ones_like(np.asarray(coupling, float))
class Rated(Wrong):
    def rate_ratio(self, mass):
        return np.ones_like(mass)
wrong = Rated()
silent = Silent()
number = 3
def stops():
    raise SystemExit(0)
"""
CUTS = """
def fails(events):
    return events.no_such_field > 0
def none(events):
    return events.weight < 0
word = "cut"
"""
NO_EE = without(DETECTOR, "ee =")
OTHER_BEAM = DETECTOR.replace("beam_energy = 400", "beam_energy = 120")
OFF_AXIS = (ROOT / "data/detectors/shadows_like.toml").read_text()
AROUND = OFF_AXIS.replace("z0 = 10.0", "z0 = -1.0").replace("half_y = 1.25\nx = 2.25", "half_y = 1.25")
DUMP = '"na62_dump", "ship_ecn3"'
CASES = [
    # what, replacements, further files, level, where, what is said
    ("missing data", [("na60_data.root", "na60_dat.root")], {}, "error", "read.files", "na60_dat.root"),
    ("empty glob", [("mock/na60_data.root", "none/*.root")], {}, "error", "read.files", "none/*.root"),
    ("no response", [('response = ["mock/na60_mc.root"]\n', "")], {}, "error", "read.response", "[unfold]"),
    ("no truth in file", [("na60_mc.root", "na60_data.root")], {}, "error", "na60_data.root: ", "gen_mll"),
    ("near schema", [("schema.toml", "na60_muo")], {}, "error", "read.schema", "'na60_muon'"),
    (
        "no truth in schema",
        [("schema.toml", "s.toml")],
        {"s_toml": SCHEMA.split("[truth]")[0]},
        "error",
        "read.schema",
        "[truth]",
    ),
    (
        "electrons",
        [("schema.toml", "s.toml")],
        {"s_toml": SCHEMA.replace('"mu"', '"e"')},
        "error",
        "spectrum.lepton",
        "'e'",
    ),
    (
        "branch",
        [("schema.toml", "s.toml")],
        {"s_toml": SCHEMA.replace('"Muon_px"', '"Muon_p"')},
        "error",
        "na60_data.root: ",
        "Muon_p",
    ),
    (
        "fileset",
        [("mock/na60_data.root", "set.json")],
        {"set_json": json.dumps({"d": {"files": {"gone.root": "events"}}})},
        "error",
        "read.files",
        "gone.root",
    ),
    (
        "cut",
        [("[subtract]", "[select.lepton]\nchi = [0, 3]\n[subtract]")],
        {},
        "error",
        "select.lepton.chi",
        "no such column",
    ),
    (
        "cut keeps none",
        [("[subtract]", "[select.lepton]\npt = [500, 600]\n[subtract]")],
        {},
        "warning",
        "na60_data.root: select",
        "'lepton pt'",
    ),
    (
        "cut fails",
        [("mass = {", 'event_functions = ["c.py:fails"]\nmass = {')],
        {"c_py": CUTS},
        "error",
        "select",
        "c.py:fails",
    ),
    (
        "cut is text",
        [("mass = {", 'event_functions = ["c.py:word"]\nmass = {')],
        {"c_py": CUTS},
        "error",
        "select.event_functions",
        "not a function",
    ),
    (
        "mass window",
        [("low = 0.2125, high = 1.1125", "low = 20, high = 30")],
        {},
        "warning",
        "select.mass",
        "none of the",
    ),
    (
        "R",
        [("r_factor = 1.162", 'r_factor = "simulation"'), ("r_factor_sigma = 0.01\n", "")],
        {},
        "error",
        "subtract.r_factor",
        "[simulate]",
    ),
    (
        "widths of an electronvolt",
        [("[flow]", "[in_situ]\nresolution = 1e-9\n[flow]")],
        {},
        "error",
        "in_situ.resolution",
        "9e+08 widths",
    ),
    ("one mass bin", [("bins = 18", "bins = 1")], {}, "error", "predict.mass_range", "0.6625 GeV alone"),
    (
        "beside the centres of wide bins",
        [("bins = 18", "bins = 6"), ("n_masses = 20", "masses = [0.25]")],
        {},
        "error",
        "predict.masses",
        "from 0.2875 to",
    ),
    (
        "lines in wide bins",
        [("bins = 18", "bins = 6"), ("[predict]", '[predict]\nmass_dependence = "lines"')],
        {},
        "error",
        "predict.mass_dependence",
        "wider than 0.06 GeV",
    ),
    (
        "coarse",
        [("[unfold]", "method = 'regions'\n[subtract.coarse]\nmass = [0.2125, 0.5, 1.1125]\n[unfold]")],
        {},
        "error",
        "subtract.coarse.mass",
        "0.5",
    ),
    (
        "bootstrap",
        [("[unfold]", "method = 'regions'\nbootstrap = 10\n[unfold]")],
        {},
        "error",
        "subtract.bootstrap",
        "146",
    ),
    (
        "charm",
        [("[systematics]", "[systematics]\ncharm = true")],
        {},
        "error",
        "systematics.charm",
        "[subtract.charm]",
    ),
    ("pot", [("pot = 1.1988e11", 'pot = "simulation"')], {}, "error", "spectrum.pot", "[simulate]"),
    ("beam", [("beam_energy = 400.0", "beam_energy = 120.0")], {}, "error", "accept.detectors", "120 GeV"),
    (
        "beam of the detector",
        [(DUMP, '"d.toml"')],
        {"d_toml": OTHER_BEAM},
        "error",
        "accept.detectors",
        "120",
    ),
    ("120 GeV", [(DUMP, '"darkquest"')], {}, "error", "accept.detectors", "darkquest.toml stands at 120 GeV"),
    (
        "dump in its volume",
        [(DUMP, '"d.toml"')],
        {"d_toml": AROUND},
        "error",
        "accept.detectors",
        "holds the target",
    ),
    (
        "plane before the volume",
        [(DUMP, '"d.toml"')],
        {"d_toml": OFF_AXIS.replace("z = 36.0", "z = 8.0")},
        "error",
        "accept.detectors",
        "plane 'calorimeter': z = 8 m lies before",
    ),
    (
        "plane in the volume",
        [(DUMP, '"d.toml"')],
        {"d_toml": OFF_AXIS.replace("z = 33.0", "z = 29.0")},
        "warning",
        "accept.detectors",
        "'tracker first' at z = 29 m stands inside",
    ),
    (
        "magnet before the volume",
        [(DUMP, '"d.toml"')],
        {"d_toml": OFF_AXIS.replace("z = 34.25", "z = 7.0")},
        "warning",
        "accept.detectors",
        "magnet at z = 7 m stands before",
    ),
    ("no ee", [(DUMP, '"d.toml"')], {"d_toml": NO_EE}, "error", "accept.detectors", "no efficiency for ee"),
    ("near detector", [(DUMP, '"na62_dumb"')], {}, "error", "accept.detectors", "'na62_dump'"),
    ("same detector", [(DUMP, '"na62_dump", "na62_dump"')], {}, "error", "accept.detectors", "two detectors"),
    (
        "scaling",
        [('target_scaling = "per_interaction"\n', "")],
        {},
        "error",
        "accept.target_scaling",
        "207.2",
    ),
    (
        "no flow",
        [(SMALL[SMALL.index("[flow]") : SMALL.index("[predict]")], "")],
        {},
        "error",
        "predict.sampler",
        "[flow]",
    ),
    (
        "near model",
        [("n_masses = 20", 'model = "dark_foton"')],
        {},
        "error",
        "predict.model",
        "'dark_photon'",
    ),
    (
        "model number",
        [("n_masses = 20", 'model = "m.py:number"')],
        {"m_py": MODEL},
        "error",
        "predict.model",
        "",
    ),
    (
        "model without a rate",
        [("n_masses = 20", 'model = "m.py:silent"')],
        {"m_py": MODEL},
        "error",
        "predict.model",
        "rate_ratio",
    ),
    (
        "model contract",
        [("n_masses = 20", 'model = "m.py:wrong"')],
        {"m_py": MODEL},
        "error",
        "predict.model",
        "must be positive",
    ),
    (
        "model exits",
        [("n_masses = 20", 'model = "m.py:stops"')],
        {"m_py": MODEL},
        "error",
        "predict.model",
        "calls sys.exit(0)",
    ),
    (
        "syntax",
        [("n_masses = 20", 'model = "m.py:wrong"')],
        {"m_py": "def :"},
        "error",
        "predict.model",
        "m.py",
    ),
    (
        "overlap",
        [("n_masses = 20", 'channels = ["vector_dalitz"]')],
        {},
        "error",
        "predict.channels",
        "vector_dalitz",
    ),
    ("masses", [("n_masses = 20", "masses = [0.5, 2.0]")], {}, "error", "predict.masses", "2 GeV"),
    ("counts", [("coupling =", "observed = [0, 1]\ncoupling =")], {}, "error", "infer.observed", "2 counts"),
    (
        "limits",
        [("[report]", '[report]\nbounds = "no"')],
        {},
        "error",
        "report.bounds",
        "no folder",
    ),
    (
        "near key",
        [("efficiency_floor = 0.01", "efficiency_flor = 0.01")],
        {},
        "error",
        "unfold.efficiency_flor",
        "'efficiency_floor'",
    ),
    (
        "foreign key",
        [("[subtract]\n", "[subtract]\nn_masses = 3\n")],
        {},
        "error",
        "subtract.n_masses",
        "[predict]",
    ),
    ("near section", [("[report]", "[reports]")], {}, "error", "reports", "[report]"),
    ("words for edges", [("low = 0.2125", 'low = "a"')], {}, "error", "select.mass", "three numbers"),
]


@pytest.mark.parametrize("case", CASES, ids=[case[0] for case in CASES])
def test_what_is_found(written, case):
    _, replacements, files, level, where, says = case
    _, found = examine_file(written(*replacements, **files))
    hits = [f for f in found if f.level == level and f.where.startswith(where) and says in f.message]
    assert len(hits) >= 1, "\n".join(map(str, found))
    assert sum(f.level == "error" for f in found) <= 2  # one mistake is not many
    assert all("\n" not in str(f) and len(str(f)) < 1100 for f in found)


def test_nothing_is_wrong_with_what_is_shipped(monkeypatch):
    monkeypatch.setenv("GAMMASTAR_TESTDATA", str(ROOT / "tests" / "data"))
    for path in (SMALL_FILE, *sorted((ROOT / "analysis").glob("*/run_*.toml"))):
        steering, found = examine_file(path)
        assert steering is not None
        assert not found, path


def test_what_is_not_installed_is_told_before_any_work(monkeypatch):
    there = importlib.util.find_spec
    absent = {"torch", "matplotlib"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in absent else there(name))
    found = [str(finding) for finding in examine_file(SMALL_FILE)[1] if finding.level == "error"]
    for package, section, extra in (("torch", "flow", "flow"), ("matplotlib", "report", "plot")):
        (text,) = (text for text in found if section in text)
        assert f"{package} is missing" in text
        assert f"gammastar[{extra}]" in text


NARROW = """
from gammastar.predict import PseudoscalarDalitz
from gammastar.core.files import data_path
from gammastar.physics.mesons import MesonTable


def narrow():
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    return PseudoscalarDalitz(table, 400.0, mass_range=(0.22, 0.28))
"""


def test_a_channel_is_tried_where_it_is_open(tmp_path):
    (tmp_path / "narrow.py").write_text(NARROW)
    path = tmp_path / "steering.toml"
    path.write_text(
        '[analysis]\nname = "narrow"\n[predict]\nsource = "theory"\nchannels = ["narrow.py:narrow"]\n'
        "beam_energy = 400.0\nmass_range = [0.22, 0.28]\n"
    )
    assert not examine_file(path)[1]


def test_all_at_once_and_exit_codes(written):
    path = written(
        ("efficiency_floor = 0.01", "efficiency_flor = 0.01"),
        ("na60_data.root", "na60_dat.root"),
        (DUMP, '"na62_dumb", "d.toml"'),
        ('target_scaling = "per_interaction"\n', ""),
        d_toml=NO_EE,
    )
    result = CliRunner().invoke(cli.app, ["check", str(path)])
    assert result.exit_code == 2
    for word in ("efficiency_floor", "na60_dat.root", "na62_dump", "no efficiency for ee", "target_scaling"):
        assert word in result.output
    lines = [line for line in result.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 5
    path = written(("low = 0.2125, high = 1.1125", "low = 20, high = 30"))
    result = CliRunner().invoke(cli.app, ["check", str(path)])
    assert result.exit_code == 0
    assert "warning: select.mass: none of the" in result.output


def test_run_stops_before_its_first_stage(written, tmp_path):
    path = written((DUMP, '"d.toml"'), ("na60_mc.root", "na60_data.root"), d_toml=NO_EE)
    stages = []
    with pytest.raises(SteeringError, match=r"(?s)no efficiency for ee"):
        run(path, output=tmp_path / "out", tell=lambda stage, *_: stages.append(stage))
    assert stages == []
    assert not (tmp_path / "out" / "stages").exists()
    with pytest.raises(SteeringError, match="gen_mll"):
        run(path, output=tmp_path / "out")


def test_only_looks_at_what_it_runs(written, tmp_path):
    path = written((DUMP, '"na62_dumb"'))
    run(path, output=tmp_path / "out", only="select")
    with pytest.raises(SteeringError, match="na62_dump"):
        run(path, output=tmp_path / "out", only="accept")
    steering, _ = examine_file(written())
    assert check_steering(steering, path.parent, stages=("accept",), open_files=False) == ()


def pairs_file(path, n, scale=1.0):
    rng = np.random.default_rng(5)
    momenta = {f"{k}{leg}": scale * rng.normal(0, 1, n) for k in ("px", "py") for leg in (1, 2)}
    momenta |= {f"pz{leg}": scale * rng.uniform(5, 20, n) for leg in (1, 2)}
    charge = rng.choice([-1, 1], (2, n)).astype(np.int32)
    branches = momenta | {"q1": charge[0], "q2": charge[1]}
    with uproot.recreate(path) as file:
        file.mktree("t", {name: column.dtype for name, column in branches.items()})
        file["t"].extend(branches)


LEGS = """
tree = "t"
layout = "pair"
lepton = "mu"
kinematics = { px = ["px1", "px2"], py = ["py1", "py2"], pz = ["pz1", "pz2"] }
charge = ["q1", "q2"]
"""


def test_warnings_go_on_and_are_noted(tmp_path, caplog):
    pairs_file(tmp_path / "mev.root", 400, scale=1000.0)
    (tmp_path / "schema.toml").write_text(LEGS)
    (tmp_path / "s.toml").write_text(
        '[analysis]\nname = "mev"\n[read]\nfiles = ["mev.root"]\nschema = "schema.toml"\n'
        "[select]\nmass = [0, 1e4]\nenergy = [0, 1e6]\npt = [0, 1e6]\n[report]\n"
    )
    run(tmp_path / "s.toml", output=tmp_path / "out")
    warned = [record.getMessage() for record in caplog.records if "warning: " in record.getMessage()]
    assert any("unit" in text for text in warned)
    assert set(warned) <= set(read_json(tmp_path / "out" / "manifest.json")["notes"])
    assert "unit" in (tmp_path / "out" / "report.html").read_text()


def test_ten_files_take_little_time(tmp_path):
    pairs_file(tmp_path / "part0.root", 30_000)
    for i in range(1, 10):
        shutil.copy(tmp_path / "part0.root", tmp_path / f"part{i}.root")
    (tmp_path / "schema.toml").write_text(LEGS)
    content = {
        "analysis": {"name": "ten"},
        "read": {"files": ["part*.root"], "schema": "schema.toml"},
        "select": {"mass": [0.2, 30.0]},
    }
    steering = config.parse(content)
    check_steering(steering, tmp_path)  # imports
    start = time.process_time()
    found = check_steering(steering, tmp_path)
    assert time.process_time() - start < 2.0
    assert listing(found) == ""


def test_the_error_of_a_run_is_cut(written, tmp_path):
    names = ", ".join(f'"missing_{i}_{"x" * 60}.root"' for i in range(40))
    path = written(("files = [", f"files = [{names}, "))
    with pytest.raises(SteeringError, match=r"and \d+ more") as error:
        run(path, output=tmp_path / "out")
    assert len(str(error.value)) < 1100


def test_remote_files_are_not_opened(written):
    path = written(("mock/na60_data.root", "https://localhost:1/never.root"))
    steering, found = examine_file(path)
    assert [f.level for f in found] == ["warning"]
    assert "not opened" in found[0].message
    assert not check_steering(steering, path.parent, open_files=False)


@pytest.mark.parametrize(
    ("old", "new", "where", "said"),
    [
        ('files = ["mock/na60_data.root"]', 'files = ["."]', "read.files", "is a folder; name its files"),
        ("coupling = [1e-9, 1e-3]", "coupling = [0.0, 1e-3]", "infer.coupling", "0 < low"),
        ("min_effective = 3.0", "background_sigma = 1.0", "infer", "background_sigma belongs to background"),
        ("n_masses = 20", "masses = [0.5, 0.3]", "predict.masses", "must increase"),
        ("target_z = 82.0", "target_z = 300.0", "spectrum", "target_z = 300 is more than target_a"),
        ('name = "na60_small"', f'name = "{400 * "a"}"', "analysis.name", "at most 100"),
        (
            'target_scaling = "per_interaction"',
            'target_scaling = "power"\nalpha = [[1.0, 0.9], [0.0, 0.8]]\nalpha_inelastic = 0.7',
            "accept",
            "must increase in pT",
        ),
        (
            "acceptance_masses = [0.3, 0.77]",
            "acceptance_masses = [5.0]",
            "accept.acceptance_masses",
            "nothing is shown",
        ),
    ],
)
def test_values_that_a_grid_or_figure_cannot_take(written, old, new, where, said):
    _, found = examine_file(written((old, new)))
    assert [finding.where for finding in found] == [where]
    assert said in found[0].message


def test_patterns_may_be_absolute(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.root", "b.root"):
        (tmp_path / "more" / name).write_bytes((ROOT / "data" / "mock" / "na60_data.root").read_bytes())
    found = find_file(f"{tmp_path}/more/*.root", tmp_path / "elsewhere")
    assert [path.name for path in found] == ["a.root", "b.root"]
