"""Values that nobody means, at any key of a file that a user may write: refused at once and by name."""

import os
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from builders import ROOT, first_entries
from injection import steerings

from gammastar import config, flow, infer
from gammastar.config.checks import examine_file
from gammastar.core.errors import GammastarError, InputFileError, SteeringError, UserError
from gammastar.core.files import from_json, from_toml
from gammastar.flow import LocalStatistics
from gammastar.mock import load_card
from gammastar.physics.detector import load_detector
from gammastar.physics.mesons import MesonTable
from gammastar.physics.millicharge import load_millicharge_detector
from gammastar.read import load_schema
from gammastar.read.files import kept_open
from gammastar.report.figures.limits import read_limit
from gammastar.semivisible.babar import load_babar
from gammastar.store.filesets import read_fileset
from gammastar.store.manifest import read_json, read_spectrum, write_json

sys.path.extend(str(ROOT / "analysis" / name) for name in ("na62_dump", "semivisible"))
from darknews_events import load_schema as load_darknews
from tracking import load_spectrometer

DIGITS = "1" * 6000
BINS = "{ bins = %s, low = %s, high = %s }"


@pytest.fixture(scope="module")
def mock(tmp_path_factory):
    """Return where in a steering the first entries of the shipped MOCK files are; they stay open."""
    folder = tmp_path_factory.mktemp("mock")
    names = {"files": "na60_data.root", "response": "na60_mc.root"}
    with kept_open():
        yield {key: [str(first_entries(folder / name, name, 2500))] for key, name in names.items()}


def refused(folder, mock, section, key, value):
    """Return the errors of a steering file in which one value is another."""
    content = steerings.plain()
    content["read"] |= mock
    content[section][key] = steerings.Raw(value)
    path = folder / "steering.toml"
    path.write_text(steerings.text(content))
    start = time.perf_counter()
    _, found = examine_file(path)
    assert time.perf_counter() - start < 10
    return [str(one) for one in found if one.level == "error"]


@pytest.mark.long
@pytest.mark.parametrize(
    ("section", "key", "value", "says"),
    [
        ("select", "mass", '[0, "a"]', "numbers"),
        ("select", "mass", BINS % ("1e9", "0.2", "1.2"), "100000 bins"),
        ("select", "mass", BINS % (10**400, "0.2", "1.2"), "100000 bins"),
        ("select", "mass", BINS % (3, 0, 10**400), "finite"),
        ("select", "mass", BINS % (50_000, "0.2", "1.2"), "400000 cells"),
        ("select", "mass", "[]", "at least 2"),
        ("select", "mass", "1979-05-27", "list"),
        ("unfold", "pt", BINS % (5_000, "0.0", "6.0"), "cells"),
        ("flow", "mass", BINS % (90_000, "0.2", "1.2"), ""),
        ("read", "step", '"0 MB"', "at least 10 kB"),
        ("read", "step", '"0.000 kB"', "at least 10 kB"),
        ("read", "step", '"-3 MB"', "pattern"),
        ("read", "step", '"99999999999 GB"', "pattern"),
        ("read", "step", "0", "greater"),
        ("analysis", "mock", "1", "boolean"),
        ("analysis", "seed", "true", "integer"),
        ("analysis", "seed", '"1"', "integer"),
        ("analysis", "seed", str(2**70), "less"),
        ("analysis", "title", '"\\u001b[31m"', "control"),
        ("analysis", "title", '"' + "x" * 3000 + '"', "300"),
        ("subtract", "r_factor", '"1e-6"', "number"),
        ("subtract", "r_factor", "true", "number"),
        ("subtract", "r_factor", "1e308", "1e+100"),
        ("spectrum", "pot", "1e-320", "1e-100"),
        ("unfold", "n_replicas", "1_000_000_000", "less"),
        ("predict", "n_sample", "10_000_000_000", "less"),
        ("infer", "n_couplings", "1_000_000", "less"),
        ("infer", "background", "1e9", "less"),
        ("predict", "bremsstrahlung", '"/dev/zero"', "not known"),
        ("predict", "mesons", '"nowhere"', "no such file"),
        ("accept", "final_states", "[]", "at least 1"),
        ("accept", "detectors", '["' + "x" * 3000 + '"]', "no such file"),
    ],
)
def test_values_are_refused_with_their_key(tmp_path, mock, section, key, value, says):
    if (section, key) == ("flow", "mass"):
        value, says = BINS % (90_000, "0.2", "1.2") + "\npt = " + BINS % (90_000, 0, 6), "cells"
    found = refused(tmp_path, mock, section, key, value)
    assert any(key in line and says in line for line in found), found
    assert max(map(len, found)) < 1500


@pytest.mark.long
def test_values_that_may_be_written_in_another_way(tmp_path, mock):
    assert refused(tmp_path, mock, "predict", "n_sample", "4e3") == []
    assert refused(tmp_path, mock, "spectrum", "beam_energy", "400") == []
    assert refused(tmp_path, mock, "select", "mass", BINS % ("18.0", "0.2125", "1.1125")) == []


@pytest.mark.parametrize(
    "text", [f"a = {DIGITS}", "a = " + "[" * 900 + "]" * 900, "[" + ".".join("a" * 900) + "]"]
)
def test_what_is_no_steering_file(tmp_path, text):
    path = tmp_path / "steering.toml"
    path.write_text(text)
    for load in (config.load, config.read_toml):
        with pytest.raises(SteeringError, match=r"steering\.toml"):
            load(path)
    assert "steering.toml" in str(examine_file(path)[1][0])


def test_devices_and_pipes_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.toml")
    opened = os.open(tmp_path / "pipe.toml", os.O_RDWR)  # or its reader waits for a writer
    try:
        for path in (Path("/dev/zero"), tmp_path / "pipe.toml"):
            with pytest.raises(SteeringError, match="no regular file"):
                config.load(path)
    finally:
        os.close(opened)


READERS = {
    "detector.toml": load_detector,
    "mcp.toml": load_millicharge_detector,
    "card.toml": load_card,
    "schema.toml": load_schema,
    "spectrometer.toml": load_spectrometer,
    "mesons.toml": MesonTable.read,
    "limit.toml": read_limit,
    "babar.toml": load_babar,
    "darknews.toml": load_darknews,
    "spectrum.json": read_spectrum,
    "result.json": read_json,
    "fileset.json": read_fileset,
    "near.json": LocalStatistics.load,
    "flow.json": lambda path: flow.load(path.with_suffix("")),
    "workspace.json": infer.read_likelihood,
}
CONTENTS = {
    ".toml": (
        "",
        "a = ",
        f"a = {DIGITS}",
        "[" + ".".join("a" * 500) + "]",
        "a = " + "[" * 500 + "]" * 500,
        "sources = 7",
        "sources = [[1]]",
        "[sources]\na = 1",
        "name = 7",
        "name = [1]\n[sources]\nname = 'x'",
    ),
    ".json": (
        "",
        "[]",
        "{}",
        "7",
        "null",
        '"a"',
        "[" * 100_000,
        '{"a":' * 500 + "1" + "}" * 500,
        f"[{DIGITS}]",
        "NaN",
    ),
}


@pytest.mark.parametrize("name", READERS)
def test_every_reader_names_its_file(tmp_path, name):
    path = tmp_path / name
    (tmp_path / "flow.safetensors").write_bytes(b"")
    for text in CONTENTS[path.suffix]:
        path.write_text(text)
        if name == "result.json" and text in {"[]", "{}", "7", "null", '"a"', "NaN"}:
            read_json(path)
            continue
        with pytest.raises(GammastarError, match=path.stem):
            READERS[name](path)
    path.write_bytes(b"\xff\xfe\x00\x01")
    with pytest.raises(GammastarError, match=path.stem):
        READERS[name](path)


def test_documents_are_bounded():
    assert from_json("[" * 50 + "]" * 50)
    assert from_toml("a." * 50 + "a = 1")
    for text in ("[" * 70 + "]" * 70, "[" * 900 + "]" * 900):
        with pytest.raises(ValueError, match="deep"):
            from_json(text)
        with pytest.raises(ValueError, match="deep"):
            from_toml(f"a = {text}")


def test_a_likelihood_that_was_cut_off_is_named(tmp_path):
    """Archives that end too early: at every length an error that names the file, never an interruption."""
    import io
    import tarfile

    path = tmp_path / "likelihood.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, size in (("BkgOnly.json", 40_000), ("patchset.json", 3_000)):
            member = tarfile.TarInfo(name)
            member.size = size
            tar.addfile(member, io.BytesIO(os.urandom(size)))
    data = path.read_bytes()
    for length in (0, 1, 9, 10, 100, 511, 512, 5000, 40_000, len(data) - 20, len(data) - 1):
        path.write_bytes(data[:length])
        with pytest.raises(InputFileError, match=r"likelihood\.tar\.gz"):
            infer.read_likelihood(path)


def test_hostile_schemas_are_named(tmp_path):
    path = tmp_path / "mine.toml"
    for text in ("tree = 1", "kinematics = 3", "lepton = ['mu']", "tree = '\\u001b'", "= 1"):
        path.write_text(text)
        with pytest.raises(UserError, match=r"mine\.toml"):
            load_schema(path)


def test_patches_whose_place_is_none_are_named(tmp_path):
    space = infer.workspace("counting", 0.5, 0.3, [1], pot_search_sigma=0.2)
    patches = infer.patchset(space, np.array([0.3, 0.4]), np.full(2, 1e-6), np.full(2, 2.0))
    patches["patches"][0]["patch"][0]["path"] = "x"
    write_json(tmp_path / "workspace.json", space)
    write_json(tmp_path / "patchset.json", patches)
    with pytest.raises(InputFileError, match=r"patchset\.json: not a valid patch set"):
        infer.read_likelihood(tmp_path / "workspace.json", patches=tmp_path / "patchset.json")
