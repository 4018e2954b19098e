"""Published tables: every form at hand comes back with the numbers that went in."""

import sys
from dataclasses import replace

import hist
import numpy as np
import pytest
import uproot
import yaml
from builders import ROOT

from gammastar import read
from gammastar.core.errors import InputFileError, PortabilityError
from gammastar.core.files import data_path
from gammastar.read.published import (
    Column,
    Conventions,
    beam_energies,
    check_beam,
    is_published,
    table_names,
)

sys.path.insert(0, str(ROOT / "analysis"))

from validation.published_forms import FORMS, contiguous, differences, write_record

SHIPPED = sorted([*ROOT.glob("data/published/*/*.csv"), *ROOT.glob("data/measurements/ee_to_hadrons/*.csv")])
STAR = data_path("published/star_2015/table1.csv")
PHENIX = data_path("published/phenix_2010/fig25.csv")


def plain_rows(path):
    """Return header and cells of a file, by nothing but splitting lines."""
    lines = [line for line in path.read_text().splitlines() if line and not line.startswith("#")]
    return lines[0].split(","), [line.split(",") for line in lines[1:]]


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_table_holds_the_numbers_of_its_lines(path):
    table = read.hepdata(path)
    header, cells = plain_rows(path)
    assert len(table) == len(cells)
    assert table.axes[0].low.tolist() == [float(row[0]) for row in cells]
    assert table.axes[0].high.tolist() == [float(row[1]) for row in cells]
    assert table.axes[0].unit in {"GeV", "MeV"}
    first = header[2].replace("_nb", "").split(" ($c^2$")[0]
    assert table.columns[0].name == first
    assert table.columns[0].values.tolist() == [float(row[2]) for row in cells]
    assert "arXiv" in table.origin.comment
    assert table.origin.doi
    n_given = sum(any(row[k] for row in cells) for k in range(2, len(header)))
    sides = 2 if any(cell.endswith(("-", "minus")) for cell in header) else 1
    assert sum(1 + sides * len(column.errors) for column in table.columns) == n_given


@pytest.mark.long
@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_shipped_table_comes_back_from_every_form(path, tmp_path):
    table = read.hepdata(path)
    again = read.hepdata(write_record(tmp_path / "record", [table]), "Table 1")
    assert not list(differences(table, again))
    for name, write, file in FORMS if contiguous(table) else ():
        written = write(tmp_path / file, table)
        assert not list(differences(table, read.hepdata(written), columns=1)), name


def test_a_record_gives_its_tables_by_name_and_number(tmp_path):
    tables = [read.hepdata(path) for path in SHIPPED[:3]]
    folder = write_record(tmp_path / "record", tables)
    assert table_names(folder) == ("Table 1", "Table 2", "Table 3")
    by_name, by_number = read.hepdata(folder, "table 2"), read.hepdata(folder / "submission.yaml", 2)
    assert not list(differences(by_name, by_number))
    assert by_name.origin.sha256 == by_number.origin.sha256 != read.hepdata(folder, 1).origin.sha256
    assert is_published(folder)


HEPDATA_CSV = """#: name: Table 9
#: description: The observed and expected distribution
#: data_file: data9.yaml
#: keyword energies: 8000
#: SQRT(S) [GeV],,,8000.0
'ETMISS [GEV]','ETMISS [GEV] LOW','ETMISS [GEV] HIGH','Data'
212.5,200.0,225.0,0.0
237.5,225.0,250.0,6.0

#: SQRT(S) [GeV],,,8000.0
'ETMISS [GEV]','ETMISS [GEV] LOW','ETMISS [GEV] HIGH','Expected Background','error +','error -'
212.5,200.0,225.0,0.0,0.0,-0.0
237.5,225.0,250.0,0.95,0.41,-0.51

"""


def test_csv_as_hepdata_writes_it(tmp_path):
    (tmp_path / "t.csv").write_text(HEPDATA_CSV)
    table = read.hepdata(tmp_path / "t.csv")
    assert (table.name, table.axes[0].name, table.axes[0].unit) == ("Table 9", "ETMISS", "GEV")
    assert [column.name for column in table.columns] == ["Data", "Expected Background"]
    error = table.columns[1].errors[0]
    assert (error.label, error.minus[1], error.plus[1]) == ("error", -0.51, 0.41)
    assert table.columns[0].qualifiers == {"SQRT(S) [GeV]": "8000.0"}
    semicolons = HEPDATA_CSV.replace(",", ";")
    (tmp_path / "s.csv").write_text(semicolons)
    assert not list(differences(table, read.hepdata(tmp_path / "s.csv")))


def test_histograms_of_root(tmp_path):
    """Errors are those of the bins, the last axis runs fastest, other objects are no tables."""
    edges, profile = np.array([0.2, 0.3, 0.5]), hist.Hist.new.Reg(2, 0, 1, name="mass").WeightedMean()
    mass = hist.Hist(hist.axis.Variable(edges, name="mass", label="m [GeV]"), hist.storage.Weight())
    mass.fill([0.25, 0.25, 0.4], weight=[2.0, 3.0, 4.0])
    with uproot.recreate(tmp_path / "h.root") as file:
        file["mass"], file["profile"] = mass, profile
        file["plane"] = (np.arange(6.0).reshape(2, 3), edges, np.arange(4.0))
    assert table_names(tmp_path / "h.root") == ("mass", "plane")
    table = read.hepdata(tmp_path / "h.root", "mass")
    (error,) = table.columns[0].errors
    assert (table.axes[0].name, table.axes[0].unit) == ("m", "GeV")
    assert (table.columns[0].values.tolist(), error.label) == ([5.0, 4.0], "stat")
    assert error.plus == pytest.approx(np.sqrt([13.0, 16.0]))
    flat = read.hepdata(tmp_path / "h.root", 2)
    assert [axis.low.tolist()[:4] for axis in flat.axes] == [[0.2, 0.2, 0.2, 0.3], [0.0, 1.0, 2.0, 0.0]]
    assert flat.columns[0].values.tolist() == list(range(6))
    with uproot.recreate(tmp_path / "p.root") as file:
        file["profile"] = profile
    with pytest.raises(InputFileError, match=r"no TH1 and no TH2 \(but TProfile\)"):
        read.hepdata(tmp_path / "p.root")


def hepdata(tmp_path, values, *, bins=((0.2, 0.3), (0.3, 0.5)), units=("GeV", "1/GeV"), **more):
    axis = {
        "header": {"name": "M(EE)", "units": units[0]},
        "values": [{"low": a, "high": b} for a, b in bins],
    }
    column = {"header": {"name": "D(N)/DM", "units": units[1]}, "values": values} | more
    path = tmp_path / "data.yaml"
    path.write_text(yaml.safe_dump({"independent_variables": [axis], "dependent_variables": [column]}))
    return path


def test_density_in_mev_becomes_contents_in_gev(tmp_path):
    """3 pairs per MeV in a bin of 100 MeV are 300 pairs; a relative error of 5 per cent is 15."""
    values = [{"value": 3.0, "errors": [{"symerror": "5%", "label": "stat"}]}] * 2
    path = hepdata(tmp_path, values, bins=((200, 300), (300, 500)), units=("MeV", "MeV**-1"))
    found = read.published_spectrum(read.hepdata(path))
    assert found.spectrum.values == pytest.approx([300.0, 600.0])
    assert found.spectrum.hist.axes[0].edges == pytest.approx([0.2, 0.3, 0.5])
    assert np.sqrt(np.diag(found.spectrum.cov)) == pytest.approx([15.0, 30.0])
    mixed = hepdata(tmp_path, values, bins=((200, 300), (300, 500)), units=("MeV", "c^2/GeV"))
    assert read.published_spectrum(read.hepdata(mixed)).spectrum.values == pytest.approx([0.3, 0.6])


def test_a_density_without_a_unit_is_per_unit_of_its_axis(tmp_path):
    """Told to be a density: 3 in a bin of 100 MeV, on an axis in MeV, are 300 pairs."""
    path = hepdata(tmp_path, [{"value": 3.0}] * 2, bins=((200, 300), (300, 500)), units=("MeV", ""))
    found = read.published_spectrum(read.hepdata(path), None, Conventions(content="density", error=0.1))
    assert found.spectrum.values == pytest.approx([300.0, 600.0])


def test_a_published_covariance_in_another_unit(tmp_path):
    """3 per MeV ± 0.2 are 3000 per GeV ± 200, written as a variance of 40 000 per GeV²."""
    numbers = np.array([[40_000.0, 10_000.0], [10_000.0, 90_000.0]])
    table = read.hepdata(hepdata(tmp_path, [{"value": 3.0}] * 2, units=("GeV", "1/MeV")))
    (axis,), (column,) = table.axes, table.columns
    rows = [
        replace(axis, low=axis.low[i], high=axis.high[i], value=axis.value[i]) for i in np.indices((2, 2))
    ]
    rows = [replace(one, **{k: np.ravel(getattr(one, k)) for k in ("low", "high", "value")}) for one in rows]
    square = Column(f"Covariance of {column.name}", "1/GeV^2", numbers.ravel())
    whole = replace(table, covariance=replace(table, axes=tuple(rows), columns=(square,)))
    found = read.published_spectrum(whole).spectrum
    width = np.array([0.1, 0.2])
    assert found.values == pytest.approx(3000 * width)
    assert found.cov == pytest.approx(numbers * np.outer(width, width))


def test_asymmetric_errors_and_correlations_are_stated(tmp_path):
    """Half the distance of the ends: 0.3 and 0.5 make 0.4; two of the same sign keep the larger."""
    values = [
        {
            "value": 2.0,
            "errors": [
                {"asymerror": {"plus": 0.3, "minus": -0.5}, "label": "stat"},
                {"asymerror": {"plus": sign * 0.2, "minus": 0.1}, "label": "sys,model"},
            ],
        }
        for sign in (1, -1)
    ]
    found = read.published_spectrum(read.hepdata(hepdata(tmp_path, values)))
    width = np.array([0.1, 0.2])
    stat, model = (found.sources.named(f"table, {name}").cov for name in ("stat", "sys,model"))
    assert stat == pytest.approx(np.diag((0.4 * width) ** 2))
    shift = np.array([0.2, -0.15]) * width  # the first moves up both ways, the second down and up
    assert model == pytest.approx(np.outer(shift, shift))
    assert found.spectrum.cov == pytest.approx(stat + model)
    assert list(found.spectrum.shifts) == ["table, sys,model"]
    said = "; ".join(found.notes)
    for text in (
        "asymmetric errors 'stat'",
        "move the same way",
        "no covariance is given",
        "fully correlated",
    ):
        assert text in said
    alone = Conventions(uncorrelated=("sys,model",))
    other = read.published_spectrum(read.hepdata(hepdata(tmp_path, values)), None, alone)
    assert other.spectrum.cov == pytest.approx(np.diag(np.diag(found.spectrum.cov)))


def test_the_spectrum_of_phenix_is_density_times_width():
    header, cells = plain_rows(PHENIX)
    rows = np.array(cells, dtype=float)
    found = read.published_spectrum(read.hepdata(PHENIX), None, Conventions(mass=(0.0, 1.2)))
    rows = rows[rows[:, 1] <= 1.2 + 1e-12]
    width = rows[:, 1] - rows[:, 0]
    assert header[2].startswith("dN/d")
    assert found.spectrum.values == pytest.approx(rows[:, 2] * width, rel=1e-12)
    variance = (rows[:, 3] * width) ** 2 + (rows[:, 5] * width) ** 2
    assert np.diag(found.spectrum.cov) == pytest.approx(variance, rel=1e-12)
    assert found.spectrum.cov[0, 1] == pytest.approx(rows[0, 5] * width[0] * rows[1, 5] * width[1], rel=1e-12)


def csv_rows_without_notes(path):
    copy = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    names = copy[0].split(",")
    return [dict(zip(names, line.split(","), strict=True)) for line in copy[1:]]


def test_a_table_of_another_beam_energy_is_refused(tmp_path):
    table = read.hepdata(STAR)  # its description says 19.6 GeV
    with pytest.raises(PortabilityError, match=r"19\.6 GeV; a beam of 400 GeV has 27\.43"):
        check_beam(table, 400.0)
    assert not check_beam(table, (19.6**2 / 2 - 0.938272**2) / 0.938272)
    values = [{"value": 1.0, "errors": [{"symerror": 0.1}]}] * 2
    qualifier = [{"name": "SQRT(S)", "units": "GEV", "value": 200}]
    stated = read.hepdata(hepdata(tmp_path, values, qualifiers=qualifier))
    with pytest.raises(PortabilityError, match=r"qualifier 'SQRT\(S\) \[GEV\]'.*200 GeV"):
        check_beam(stated, 400.0)
    assert "does not state its energy" in check_beam(read.hepdata(PHENIX), 400.0)[0]


@pytest.mark.parametrize(
    ("name", "value", "root_s"),
    [
        ("SQRT(S)", "200", 200.0),
        ("SQRT(S) [TEV]", "8", 8000.0),
        ("SQRT(S)/NUCLEON [GEV]", "5020.0", 5020.0),
        ("$\\sqrt{s_{NN}}$ [TeV]", "5.02", 5020.0),
        ("sqrt(s_NN)", "19.6 GEV", 19.6),
        ("SQRT(SHAT) [GEV]", "91", None),
        ("RE", "P P --> X", None),
    ],
)
def test_energies_are_found_in_qualifiers(tmp_path, name, value, root_s):
    values = [{"value": 1.0, "errors": [{"symerror": 0.1}]}] * 2
    table = read.hepdata(hepdata(tmp_path, values, qualifiers=[{"name": name, "value": value}]))
    assert list(beam_energies(table).values()) == ([] if root_s is None else [pytest.approx(root_s)])


def test_points_need_edges():
    kloe = data_path("measurements/ee_to_hadrons/3pi_babar_2004.csv")
    table = read.hepdata(kloe)
    with pytest.raises(InputFileError, match=r"bin 1 \(energy 1\.0625 GeV\) is a point.*79 of them"):
        read.published_spectrum(table, "sigma", Conventions(observable="N"))
    edges = tuple(np.append(table.axes[0].value - 0.0125, table.axes[0].value[-1] + 0.0125).tolist())
    found = read.published_spectrum(table, "sigma", Conventions(observable="N", edges=edges, negative="keep"))
    assert found.spectrum.values.tolist() == [float(row["sigma_nb"]) for row in csv_rows_without_notes(kloe)]
