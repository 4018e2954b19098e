"""A run whose spectrum is a published table: no line of Python, rates as the formula says, errors named."""

import json
import re
import sys
import tomllib

import numpy as np
import pytest
from builders import ROOT, csv_rows
from click.testing import CliRunner
from scipy.integrate import quad

from gammastar import cli, read
from gammastar.config.checks import examine_file
from gammastar.core.errors import GammastarError, SteeringError
from gammastar.core.files import data_path
from gammastar.pipeline.run import run
from gammastar.store.manifest import read_spectrum

sys.path.insert(0, str(ROOT / "analysis"))

from validation.published_tables import table_rows

EDGES = np.linspace(0.25, 0.55, 13)
STEERING = """
[analysis]
name = "published"

[spectrum]
beam_energy = 400.0
target_a = 9.0
target_z = 4
thickness = 0.05
pot = 1e10

[spectrum.table]
file = "mass.csv"
quantity = "counts"
{table}

[predict]
mass_dependence = "bins"
n_masses = 7
n_sample = 1000
{rest}
"""


@pytest.fixture
def folder(tmp_path):
    """A table of dN/dm in MeV with a statistical and a common error, MOCK."""
    rows = [
        "# MOCK table of a test",
        "mass_MeV_low,mass_MeV_high,dN/dm (1/MeV),dN/dm (1/MeV) stat,dN/dm (1/MeV) syst",
    ]
    for low, high in zip(1e3 * EDGES[:-1], 1e3 * EDGES[1:], strict=True):
        value = float(1e6 * np.exp(-(low + high) / 200))
        rows.append(f"{low:.6f},{high:.6f},{value!r},{0.02 * value!r},{0.05 * value!r}")
    (tmp_path / "mass.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def steering(folder, table="", rest=""):
    path = folder / "steering.toml"
    path.write_text(STEERING.format(table=table, rest=rest))
    return path


def kappa(m, lepton=0.1056583755):
    """α/(3π) √(1 − 4x)(1 + 2x), x = (m_l/m)²: dileptons per real photon and dm²/m²."""
    x = (lepton / m) ** 2
    return 1 / 137.035999 / (3 * np.pi) * np.sqrt(1 - 4 * x) * (1 + 2 * x)


def test_the_rate_of_a_published_table_is_that_of_the_formula(folder):
    """dN/dm over the mean of 2 κ/m in its bin (Eq. 6), per proton; errors stay what the table says."""
    out = run(steering(folder, rest="masses = [0.2625, 0.4125, 0.5375]"), output=folder / "out")
    spectrum = read_spectrum(out / "spectrum.json")
    centre = 0.5 * (EDGES[1:] + EDGES[:-1])
    per_gev = 1e6 * np.exp(-centre * 1e3 / 100) * 1e3
    assert spectrum.values == pytest.approx(per_gev * 0.025 / 1e10, rel=1e-6)
    assert spectrum.exposure.beam_energy == 400.0
    relative = np.sqrt(np.diag(spectrum.cov)) / spectrum.values
    assert relative == pytest.approx(np.full(12, np.hypot(0.02, 0.05)), rel=1e-9)
    assert list(spectrum.shifts) == ["table, syst"]
    rate = np.load(out / "stages" / "predict.npz")
    for i, k in enumerate((0, 6, 11)):
        mean = quad(lambda m: 2 * kappa(m) / m, EDGES[k], EDGES[k + 1])[0] / 0.025
        assert rate["value"][i] == pytest.approx(per_gev[k] / 1e10 / mean, rel=1e-5)
    manifest = json.loads((out / "manifest.json").read_text())
    assert "published table 'mass'" in manifest["methods"]["measured spectrum"]
    said = " ".join(manifest["notes"])
    assert "'syst' fully correlated between bins" in said
    assert "does not state its energy" in said
    assert any("mass.csv" in name for name in manifest["inputs"])


def test_with_a_card_the_whole_dark_half_runs(folder):
    rest = '[accept]\ndetectors = ["ship_ecn3"]\ntarget_scaling = "per_interaction"\n[infer]\n'
    path = steering(folder, 'kinematics = "na60_mock"', f"masses = [0.3, 0.4, 0.5]\n{rest}")
    out = run(path, output=folder / "out")
    rows = csv_rows(out / "reach.csv")
    assert sum(row["part"] == "all" for row in rows) == 3
    notes = " ".join(json.loads((out / "manifest.json").read_text())["notes"])
    assert "modelled by the MOCK card" in notes
    assert {row["fraction_in_domain_low"] for row in rows if row["part"] == "all"} == {"0"}


@pytest.mark.parametrize(
    ("table", "rest", "text"),
    [
        ('column = "dN/dn"', "", r"spectrum.table: .*column 'dN/dn' is not there; did you mean 'dN/dm'"),
        ("table = 3", "", "table 3: there are 1 'mass'"),
        ("mass = [0.9, 1.2]", "", "no bin lies inside 0.9 to 1.2 GeV"),
        ('content = "counts"', "", "it is a density"),
        ('correlated = ["lumi"]', "", "has no error 'lumi'; it has stat, syst"),
        ('kinematics = "na60_moc"', "", "spectrum.table.kinematics: .*did you mean 'na60_mock'"),
        ('kinematics = "na45_mock"', "", "is of .* and 'e' pairs, .spectrum. of 400 GeV and 'mu' pairs"),
        ("scale = -1", "", "spectrum.table.scale: .*greater than 0"),
        ("colum = 1", "", "spectrum.table.colum: unknown key; did you mean 'column'"),
        ("", '[accept]\ndetectors = ["ship_ecn3"]', "give .spectrum.table. kinematics"),
        ("", "[in_situ]", ".in_situ. searches among measured pairs; a published table has none"),
        (
            "",
            'outside_domain = ["bremsstrahlung"]',
            ".predict. outside_domain: a published table has no measured domain",
        ),
        ("", '[select]\nmass = [0.2, 1.0]\n[read]\nschema = "x"', "stands for .read., .select.: drop one"),
    ],
)
def test_the_check_finds_mistakes_before_the_run(folder, table, rest, text):
    _, findings = examine_file(steering(folder, table, rest))
    found = "\n".join(f"{f.where}: {f.message}" for f in findings if f.level == "error")
    assert re.search(text, found), found
    with pytest.raises(SteeringError):
        run(folder / "steering.toml", output=folder / "out")


def test_a_table_of_another_energy_stops_the_check(folder):
    text = STEERING.format(table="", rest="").replace('"mass.csv"', '"star_2015/table2"')
    (folder / "steering.toml").write_text(text)
    _, findings = examine_file(folder / "steering.toml")
    errors = [f.message for f in findings if f.level == "error"]
    assert any("19.6 GeV" in message and "give beam_energy = 203.8" in message for message in errors)


def test_the_unit_of_the_axis_is_doubted_where_masses_are_too_large(folder):
    text = (folder / "mass.csv").read_text().replace("mass_MeV", "mass_GeV")
    (folder / "mass.csv").write_text(text)
    _, findings = examine_file(steering(folder))
    errors = " ".join(f.message for f in findings if f.level == "error")
    assert "is 'GeV' the unit of its axis?" in errors


SHIPPED = sorted((ROOT / "data" / "published").glob("*/*.csv"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_inspect_shows_what_is_in_a_table(path, tmp_path):
    """What it proposes is a table of the steering file that makes the same spectrum."""
    result = CliRunner().invoke(cli.app, ["inspect", str(path), "-o", str(tmp_path / "lines.toml")])
    table = read.hepdata(path)
    for column in table.columns:
        assert repr(column.name) in result.output
    if path.stem == "fg20A":  # bins of 10 MeV, and from 1.0095 GeV on those of the phi
        assert "bin 27 (mass 1 to 1.01 GeV) and bin 28 (mass 1.0095 to 1.0145 GeV) overlap" in result.output
    elif any(column.errors for column in table.columns):
        assert result.exit_code == 0, result.output
        lines = tomllib.loads((tmp_path / "lines.toml").read_text())["spectrum"]["table"]
        assert lines["file"] == path.name
        assert table.column(lines["column"]).errors
    else:
        assert result.exit_code == 1
        assert "gives no errors" in result.output


def test_inspect_refuses_what_it_cannot_read(tmp_path):
    (tmp_path / "bad.yaml").write_text("dependent_variables: [")
    result = CliRunner().invoke(cli.app, ["inspect", str(tmp_path / "bad.yaml")])
    assert isinstance(result.exception, GammastarError)
    assert "bad.yaml: is not YAML, or is cut off" in str(result.exception)
    listing = CliRunner().invoke(cli.app, ["inspect", str(data_path("mock/na60_data.root"))])
    assert "[kinematics]" in listing.output  # files of events as ever


def test_tables_at_hand_and_our_own_come_back():
    """Shipped tables by the command line and in other forms, our limits and spectra, PHENIX' rate."""
    rows = list(table_rows())
    wrong = [row for row in rows if not abs(row["ours"] - row["expected"]) <= row["tolerance"]]
    assert not wrong
    assert len(rows) == 7
    assert rows[0]["ours"] + rows[3]["ours"] + rows[5]["ours"] >= 40
