"""Published tables that cannot be meant: each error names file, table and bin, and says what to do."""

import copy
import sys
import time

import hist
import numpy as np
import pytest
import uproot
import yaml
from builders import ROOT

from gammastar import read
from gammastar.core.errors import GammastarError, InputFileError
from gammastar.core.files import data_path
from gammastar.read.published import Conventions, describe_tables

sys.path.insert(0, str(ROOT / "analysis"))

from validation.published_forms import FORMS, write_record

GOOD = {
    "independent_variables": [
        {
            "header": {"name": "M(MUMU)", "units": "GEV"},
            "values": [{"low": 0.2 + 0.1 * k, "high": 0.3 + 0.1 * k} for k in range(4)],
        }
    ],
    "dependent_variables": [
        {
            "header": {"name": "D(N)/DM", "units": "1/GEV"},
            "values": [
                {"value": 3.0 - 0.5 * k, "errors": [{"symerror": 0.1, "label": "stat"}]} for k in range(4)
            ],
        }
    ],
}


def as_it_is(_):
    """Change nothing."""


def written(tmp_path, change=as_it_is):
    content = copy.deepcopy(GOOD)
    change(content)
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def axis(content):
    return content["independent_variables"][0]


def column(content):
    return content["dependent_variables"][0]


def put(where, key, value):
    def change(content):
        where(content)[key] = value

    return change


def at(where, row, **changes):
    def change(content):
        entry = where(content)["values"][row]
        entry |= changes
        for key in [key for key, value in entry.items() if value is None]:
            del entry[key]

    return change


def test_the_good_table_is_good(tmp_path):
    found = read.published_spectrum(read.hepdata(written(tmp_path)))
    assert found.spectrum.values == pytest.approx([0.3, 0.25, 0.2, 0.15])


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (at(column, 2, value="ten"), "bin 3: could not convert string to float: 'ten'"),
        (at(column, 1, value=float("nan")), None),
        (at(column, 1, value=float("inf")), "bin 2: .*not a|bin 2: '.inf'|bin 2: could not convert"),
        (at(column, 1, value="1e999"), "bin 2: '1e999' is not finite"),
        (at(column, 1, value="1_0"), "bin 2: '1_0' is no number"),
        (at(column, 1, value={"a": 1}), "bin 2: could not convert"),
        (at(column, 0, errors=[{"label": "stat"}]), "bin 1: error 'stat' has neither symerror nor asymerror"),
        (at(column, 0, errors=[{"symerror": "x", "label": "stat"}]), "bin 1, error 'stat': could not"),
        (put(axis, "values", []), "has 0 rows, the first column 4: is it cut off"),
        (put(axis, "header", {}), "a variable without header and name"),
        (put(column, "values", "none"), "values must be a list"),
        (lambda content: content.pop("dependent_variables"), "has no dependent_variables"),
    ],
)
def test_a_file_that_is_wrong_is_refused_when_it_is_read(tmp_path, change, text):
    path = written(tmp_path, change)
    if text is None:  # YAML's .nan
        text = "bin 2"
    with pytest.raises(InputFileError, match=text) as caught:
        read.hepdata(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    ("change", "told", "text"),
    [
        (put(axis, "header", {"name": "M", "units": "NB"}), {}, "axis 'M' has the unit 'NB'.*no energy"),
        (put(axis, "header", {"name": "M"}), {}, "axis 'M' gives no unit; say mass_unit"),
        (
            as_it_is,
            {"mass_unit": "MeV"},
            "mass_unit = 'MeV', but the header of 'M.MUMU.' says 'GEV'",
        ),
        (put(column, "header", {"name": "Y", "units": ""}), {}, "'Y' does not say what its numbers are"),
        (put(column, "header", {"name": "Y", "units": "1/GEV**2"}), {}, "unit '1/GEV..2': no spectrum"),
        (as_it_is, {"content": "counts"}, "content = 'counts', but.*it is a density"),
        (at(axis, 1, low=0.28), {}, r"bin 1 \(M.*0.2 to 0.3 GEV\) and bin 2 .*overlap"),
        (at(axis, 1, low=0.31), {}, "bin 1 .* and bin 2 .* leave a gap"),
        (at(axis, 3, high="inf"), {}, "bin 4 .* is open; leave it out with mass"),
        (at(axis, 3, high=None), {}, "bin 4 .* is open"),
        (at(axis, 0, low=None), {}, "bin 1 .* is open"),
        (at(axis, 2, low=0.5, high=0.4), {}, "bin 3"),
        (at(column, 2, value=-1.0), {}, "bin 3 .* is negative; negative = 'keep'"),
        (at(column, 2, value="<1.0"), {}, "bin 3 .* is an upper limit"),
        (at(column, 2, value="-"), {}, "bin 3 .* has no value"),
        (at(column, 2, errors=None), {}, "bin 3 .* has no error 'stat', as other bins do"),
        (as_it_is, {"correlated": ("sys",)}, "has no error 'sys'; it has stat"),
        (as_it_is, {"mass": (2.0, 3.0)}, "no bin lies inside 2 to 3 GeV; the table has 0.2"),
        (as_it_is, {"edges": (1.0, 2.0)}, "2 edges for 4 points"),
        (
            as_it_is,
            {"edges": (1.0, 2.0, 3.0, 4.0, 5.0)},
            "bin 1 .* does not lie between its edges",
        ),
    ],
)
def test_a_table_that_is_no_spectrum_is_refused(tmp_path, change, told, text):
    path = written(tmp_path, change)
    table = read.hepdata(path)
    with pytest.raises(InputFileError, match=text) as caught:
        read.published_spectrum(table, None, Conventions(**told))
    assert f"{path}, table 'bad'" in str(caught.value)


def test_a_column_without_errors_says_what_is_assumed(tmp_path):
    def bare(content):
        for entry in column(content)["values"]:
            del entry["errors"]

    table = read.hepdata(written(tmp_path, bare))
    with pytest.raises(InputFileError, match=r"gives no errors; say error = 0\.1"):
        read.published_spectrum(table)
    found = read.published_spectrum(table, None, Conventions(error=0.1))
    assert np.sqrt(np.diag(found.spectrum.cov)) == pytest.approx(0.1 * found.spectrum.values)
    assert any("gives no errors; taken: 0.1, bin by bin" in note for note in found.notes)


def test_one_sided_errors_are_completed_and_said(tmp_path):
    def one(content):
        for entry in column(content)["values"]:
            entry["errors"] = [{"asymerror": {"plus": 0.2}, "label": "stat"}]

    found = read.published_spectrum(read.hepdata(written(tmp_path, one)))
    assert np.sqrt(np.diag(found.spectrum.cov)) == pytest.approx(np.full(4, 0.02))
    assert any("only one side of 'stat'" in note for note in found.notes)


def bomb(levels):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 10)}]" for k in range(1, levels)]
    return "\n".join([*lines, f"dependent_variables: *a{levels - 1}"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (bomb(9), "once its aliases are written out"),
        (
            "\n".join(
                [
                    "a0: &a0 {x: 1}",
                    *(f"a{k}: &a{k} {{<<: [{', '.join([f'*a{k - 1}'] * 10)}]}}" for k in range(1, 10)),
                ]
            ),
            "once its aliases",
        ),
        ("dependent_variables: &a [*a]", "an alias holds itself"),
        ("[" * 5000, "nested more than 40 deep"),
        ("a: " * 5000, "is not YAML"),
        ("dependent_variables: !!python/object/apply:os.system ['true']", "must be a list of tables of keys"),
        ("dependent_variables: [", "is not YAML, or is cut off"),
        ("- 1\n- 2", "has no dependent_variables"),
        ("", "holds 0 documents"),
    ],
)
def test_bombs_and_objects_do_nothing(tmp_path, text, said):
    path = tmp_path / "bomb.yaml"
    path.write_text(text)
    begin = time.perf_counter()
    with pytest.raises(InputFileError, match=said):
        read.hepdata(path)
    assert time.perf_counter() - begin < 5


def test_aliases_as_hepdata_lib_writes_them_are_read(tmp_path):
    shared = [{"name": "SQRT(S)", "units": "GEV", "value": 200}]

    def share(content):
        column(content)["qualifiers"] = shared
        content["dependent_variables"].append({**copy.deepcopy(column(content)), "qualifiers": shared})

    path = written(tmp_path, share)
    assert "&id" in path.read_text()
    assert [c.qualifiers for c in read.hepdata(path).columns] == [{"SQRT(S) [GEV]": "200"}] * 2


def test_large_files_are_refused(tmp_path):
    path = tmp_path / "large.csv"
    with path.open("wb") as stream:
        stream.truncate((64 << 20) + 1)
    with pytest.raises(InputFileError, match="at most 67108864 are read"):
        read.hepdata(path)


def test_a_record_cannot_leave_its_folder(tmp_path):
    (tmp_path / "record").mkdir()
    (tmp_path / "secret.yaml").write_text(yaml.safe_dump(GOOD))
    submission = tmp_path / "record" / "submission.yaml"
    for place in ("../secret.yaml", str(tmp_path / "secret.yaml")):
        submission.write_text(yaml.safe_dump({"name": "Table 1", "data_file": place}))
        with pytest.raises(InputFileError, match="lies outside the record"):
            read.hepdata(submission)
    submission.write_text(yaml.safe_dump({"name": "Table 1", "data_file": "gone.yaml"}))
    with pytest.raises(InputFileError, match=r"table 'Table 1': its data_file gone\.yaml is missing"):
        read.hepdata(submission)


def test_names_that_are_not_there_get_near_ones():
    table = read.hepdata(data_path("published/star_2015/table1.csv"))
    with pytest.raises(InputFileError, match="column 'unlike sign' is not there; did you mean 'Unlike-sign'"):
        table.column("unlike sign")
    with pytest.raises(InputFileError, match="say which by name or number; there are 1 'Unlike-sign', 2 "):
        table.column()
    with pytest.raises(InputFileError, match=r"column 9: there are 1 'Unlike-sign'"):
        table.column(9)
    limits = read.hepdata(data_path("published/phenix_2015/fig5.csv"))
    with pytest.raises(InputFileError, match="3 have this name; give the number"):
        limits.column(r"$\epsilon^2$")
    with pytest.raises(InputFileError, match="cannot be read"):
        read.hepdata("nowhere.yaml")


@pytest.mark.parametrize("keep", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("form", ["yaml", "csv", "root"])
def test_a_file_that_is_cut_off_is_refused(tmp_path, form, keep):
    """Cut before its last row, a file gives an error; CSV, whose lines stand alone, rows that were there."""
    path = tmp_path / f"t.{form}"
    h = hist.Hist(hist.axis.Regular(30, 0.2, 0.8, name="mass", label="m [GeV]"), hist.storage.Weight())
    h.fill(np.linspace(0.2, 0.79, 400))
    if form == "yaml":
        path.write_text(yaml.safe_dump(GOOD, sort_keys=False))
    elif form == "csv":
        path.write_bytes(data_path("published/star_2015/table1.csv").read_bytes())
    else:
        with uproot.recreate(path) as file:
            file["h"] = h
    whole = read.hepdata(path)
    path.write_bytes(path.read_bytes()[: int(keep * path.stat().st_size)])
    try:
        part = read.hepdata(path)
    except InputFileError as error:
        part, said = None, str(error)
    if part is None:
        assert str(path) in said
        return
    assert form == "csv"
    n = len(part)
    assert part.axes[0].low[: n - 1].tolist() == whole.axes[0].low[: n - 1].tolist()


def test_a_cell_too_many_names_its_line(tmp_path):
    text = data_path("published/phenix_2010/fig25.csv").read_text().splitlines()
    (tmp_path / "t.csv").write_text("\n".join([*text[:6], text[6] + ",7", *text[7:]]))
    with pytest.raises(InputFileError, match="line 7 has 8 cells, the header 7"):
        read.hepdata(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("\n".join([*text[:6], text[6].replace("e-06", "e-06x"), *text[7:]]))
    with pytest.raises(InputFileError, match=r"line 7, column 'dN/d.*stat. .': could not convert"):
        read.hepdata(tmp_path / "t.csv")
    (tmp_path / "t.csv").write_text("# only notes\n")
    with pytest.raises(InputFileError, match="holds no table, only 1 lines of notes"):
        read.hepdata(tmp_path / "t.csv")


@pytest.mark.parametrize("form", ["csv", "yaml", *(name for name, _, _ in FORMS)])
def test_damaged_bytes_give_an_error_that_names_the_file(tmp_path, form):
    """Bytes that were changed, lost or doubled: an error of ours, or a table; no warning, nothing else."""
    table = read.hepdata(data_path("published/star_2015/table2.csv"))
    written = {name: write(tmp_path / file, table) for name, write, file in FORMS}
    written["yaml"] = write_record(tmp_path / "record", [table]) / "data0.yaml"
    written["csv"] = data_path("published/star_2015/table2.csv")
    content = written[form].read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / f"damaged{written[form].suffix}"
    for _ in range(40):
        bytes_ = bytearray(content)
        for _ in range(rng.integers(1, 10)):
            i, n = rng.integers(len(bytes_)), rng.integers(1, 20)
            if rng.random() < 0.5:
                bytes_[i] = rng.integers(256)
            else:
                bytes_[i : i + n] = bytes_[i : i + n] * rng.integers(0, 3)
        path.write_bytes(bytes(bytes_))
        try:
            describe_tables(path)
        except GammastarError as error:
            said = str(error)
        else:
            said = str(path)
        assert str(path) in said
