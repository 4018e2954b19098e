"""Damaged input ends in one error that names the file, never in a wrong number without a word."""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read
from gammastar.core.errors import GammastarError, InputFileError
from gammastar.core.sampling import stream
from gammastar.store.filesets import Listed, compare, identity

ROWS = 3000
SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "Muon_charge",
    "kinematics": {key: f"Muon_{key}" for key in ("px", "py", "pz")},
}


def content():
    rng = stream(1, "content")
    counts = rng.poisson(1.5, ROWS)
    total = int(counts.sum())
    branches = {
        f"Muon_{key}": ak.unflatten(rng.normal(0, s, total), counts)
        for key, s in (("px", 0.4), ("py", 0.4), ("pz", 20.0))
    }
    branches["Muon_charge"] = ak.unflatten(rng.choice(np.array([-1, 1], np.int8), total), counts)
    return branches


def write(path, *, kind, compression):
    with uproot.recreate(path, compression=compression) as file:
        branches = content()
        if kind == "rntuple":
            file.mkrntuple("events", branches)
        else:
            types = {k: "var * " + ("int8" if k.endswith("charge") else "float64") for k in branches}
            file.mktree("events", types).extend(branches)
    return path.read_bytes()


def read_all(path):
    return ak.concatenate(list(read.open_events(path, read.load_schema(SCHEMA), step=1000)))


@pytest.fixture(scope="module", params=["ttree", "rntuple"])
def sound(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("sound") / "sound.root"
    data = write(path, kind=request.param, compression=uproot.ZLIB(1))
    return data, read_all(path)


def outcome(path, data, expected):
    """Return "same" or "error"; anything else fails the test."""
    path.write_bytes(data)
    found, message = None, ""
    try:
        found = read_all(path)
    except GammastarError as error:  # the name of a tree or branch may be what was hit
        message = str(error)
    if found is None:
        assert path.name in message
        return "error"
    assert ak.array_equal(found, expected, equal_nan=True), "wrong values were read without an error"
    return "same"


def test_truncated_files(sound, tmp_path):
    data, expected = sound
    lengths = [0, 1, 4, 50, 300, *np.linspace(400, len(data) - 1, 20).astype(int)]
    results = [outcome(tmp_path / "bad.root", data[:n], expected) for n in lengths]
    assert results.count("error") >= len(lengths) - 2  # the last bytes may be free space


@pytest.mark.long
@pytest.mark.parametrize("n_bits", [1, 20])
def test_flipped_bits(sound, tmp_path, n_bits):
    data, expected = sound
    rng = stream(2, "bits", n_bits)
    results = []
    for _ in range(25):
        damaged = bytearray(data)
        for position in rng.integers(300, len(data), n_bits):
            damaged[position] ^= 1 << int(rng.integers(8))
        results.append(outcome(tmp_path / "bad.root", bytes(damaged), expected))
    assert "error" in results


def test_zeroed_blocks(sound, tmp_path):
    data, expected = sound
    results = []
    for start in stream(3, "zero").integers(300, len(data) - 4096, 20):
        damaged = data[:start] + bytes(4096) + data[start + 4096 :]
        results.append(outcome(tmp_path / "bad.root", damaged, expected))
    assert "error" in results


@pytest.mark.long
def test_damaged_headers(sound, tmp_path):
    data, expected = sound
    rng = stream(4, "header")
    for _ in range(20):
        damaged = bytearray(data)
        damaged[int(rng.integers(0, 300))] ^= 1 << int(rng.integers(8))
        assert outcome(tmp_path / "bad.root", bytes(damaged), expected) in {"same", "error"}


@pytest.mark.parametrize("data", [b"", b"no ROOT file", b"root", bytes(5000), b"root" + bytes(5000)])
def test_what_is_no_root_file(tmp_path, data):
    (tmp_path / "bad.root").write_bytes(data)
    for function in (read_all, read.inspect, read.propose):
        with pytest.raises(InputFileError, match=r"bad\.root"):
            function(tmp_path / "bad.root")


def test_missing_files_and_folders(tmp_path):
    for name in ("none.root", "*.root"):
        with pytest.raises(InputFileError, match="no such file"):
            read_all(tmp_path / name)
    with pytest.raises(InputFileError, match="no input file"):
        read_all([])
    with pytest.raises(InputFileError, match="no such file"):
        read.sha256(tmp_path / "none.root")
    with pytest.raises(InputFileError):
        read_all(tmp_path)


def test_file_without_tree_and_tree_without_entries(tmp_path):
    with uproot.recreate(tmp_path / "none.root"):
        pass
    with pytest.raises(InputFileError, match="holds no TTree or RNTuple"):
        read_all(tmp_path / "none.root")
    with uproot.recreate(tmp_path / "empty.root") as file:
        file.mktree("events", {f"Muon_{key}": "var * float64" for key in ("px", "py", "pz", "charge")})
    assert list(read.open_events(tmp_path / "empty.root", read.load_schema(SCHEMA))) == []


def test_only_a_digest_notices_damage_without_compression(tmp_path):
    path = tmp_path / "plain.root"
    data = write(path, kind="ttree", compression=None)
    known = Listed(str(path), "manifest", sha256=read.sha256(path))
    expected = read_all(path)
    needle = np.asarray(ak.flatten(content()["Muon_pz"]))[100:101].astype(">f8").tobytes()
    position = data.find(needle)
    assert position > 0
    damaged = bytearray(data)
    damaged[position] ^= 1 << 6
    path.write_bytes(bytes(damaged))
    assert not ak.array_equal(read_all(path), expected)  # read back wrong, without an error
    with pytest.raises(InputFileError, match="changed or damaged"):
        compare(path, known, "", identity(path))
