"""Real public ntuples of tests/data through schemas alone: the pair counts are facts of the files."""

import hashlib

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar import read, select

SCHEMAS = ROOT / "analysis" / "open_dimuon"
DATA = ROOT / "tests" / "data"
PARKED = "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root"
FILES = {
    "doublemuparked": PARKED,
    "hzz": "uproot-HZZ.root",
    "hzz_objects": "uproot-HZZ-objects.root",
    "zmumu": "uproot-Zmumu.root",
}


def locate(name):
    return DATA / name


def read_pairs(schema, name, cuts=None, **options):
    return select.collect(read.open_events(locate(name), mapping(schema), **options), cuts)


def mapping(name):
    return read.load_schema(SCHEMAS / f"{name}.toml")


def counts(pairs, low=0.0, high=np.inf):
    window = (pairs.mass >= low) & (pairs.mass < high)
    return tuple(int(np.sum(window & mask)) for mask in (pairs.os, pairs.pp, pairs.mm))


def test_files_are_those_of_the_readme():
    table = (DATA / "README.md").read_text()
    for file in DATA.glob("*.root"):
        assert f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}" in table


@pytest.mark.parametrize(
    ("schema", "name", "expected"),
    [
        ("doublemuparked", PARKED, (1263, 559, 461)),
        ("hzz", "uproot-HZZ.root", (1464, 25, 32)),
        ("hzz_objects", "uproot-HZZ-objects.root", (1464, 25, 32)),
        ("nano", "nano_dimuon.root", (38, 15, 13)),
        ("nano", "nano_dy.root", (6, 0, 0)),
    ],
)
def test_pair_counts(schema, name, expected):
    pairs, flow = read_pairs(schema, name)
    assert counts(pairs) == expected
    assert flow.not_finite == 0
    in_chunks, _ = read_pairs(schema, name, step=101)
    assert np.array_equal(in_chunks.mass, pairs.mass)
    assert np.array_equal(in_chunks.event, pairs.event)


def test_zmumu_rows_are_filtered():
    pairs, flow = read_pairs("zmumu", FILES["zmumu"])
    assert counts(pairs)[0] == 508
    assert sum(counts(pairs)[1:]) == 8
    assert flow["events"].n == 516


def test_zmumu_without_the_filter_counts_every_muon_pair_several_times():
    schema = mapping("zmumu")
    plain = {f.name: getattr(schema, f.name) for f in schema.__dataclass_fields__.values()}
    everything = read.Schema(**{**plain, "row_filter": ()})
    pairs, _ = select.collect(read.open_events(locate(FILES["zmumu"]), everything))
    assert counts(pairs) == (2147, 91, 66)
    assert len(np.unique(pairs.event)) < len(pairs) / 3


def test_zmumu_recomputed_mass_is_the_stored_one():
    path = locate(FILES["zmumu"])
    pairs, _ = read_pairs("zmumu", FILES["zmumu"])
    with uproot.open(path) as file:
        stored = file["events"].arrays(["M", "Type"])
    mass = ak.to_numpy(stored.M[stored.Type == "GG"])
    np.testing.assert_allclose(pairs.mass, mass, rtol=5e-8)


def test_resonances_stand_where_they_should():
    pairs, _ = read_pairs("doublemuparked", PARKED)
    assert counts(pairs, 2.9, 3.3)[0] == 94
    assert sum(counts(pairs, 2.9, 3.3)[1:]) == 18
    assert counts(pairs, 81, 101)[0] == 101
    assert sum(counts(pairs, 81, 101)[1:]) == 10
    hzz, _ = read_pairs("hzz", FILES["hzz"])
    assert np.median(hzz.mass[hzz.os]) == pytest.approx(90.8, abs=0.05)
    assert counts(hzz, 81, 101)[0] == 1218


def test_objects_and_numbers_hold_the_same_muons():
    numbers, _ = read_pairs("hzz", FILES["hzz"])
    objects, _ = read_pairs("hzz_objects", FILES["hzz_objects"])
    np.testing.assert_allclose(objects.mass, numbers.mass, rtol=1e-6)
    np.testing.assert_allclose(
        objects.columns["isolation_1"], numbers.columns["isolation_1"], rtol=1e-6, atol=1e-6
    )


def test_ghosts_are_like_sign_and_the_veto_removes_them():
    pairs, _ = read_pairs("doublemuparked", PARKED)
    n_os, n_pp, n_mm = counts(pairs, 0.2, 0.6)
    assert (n_os, n_pp, n_mm) == (46, 58, 38)
    assert n_os - 2 * np.sqrt(n_pp * n_mm) < -3 * np.sqrt(n_os + n_pp + n_mm)  # the trap: a negative yield
    veto = select.Cuts(ghost=select.GhostVeto(angle=0.02))
    clean, flow = read_pairs("doublemuparked", PARKED, veto)
    after = counts(clean, 0.2, 0.6)
    assert after[1] + after[2] < 0.3 * (n_pp + n_mm)
    signal = after[0] - 2 * np.sqrt(after[1] * after[2])
    assert signal > -2 * np.sqrt(sum(after))
    assert counts(clean, 81, 101) == counts(pairs, 81, 101)
    assert flow["ghost veto"].n == len(clean)


@pytest.mark.parametrize("schema", list(FILES))
def test_inspect_proposes_what_the_schema_says(schema):
    proposal = read.load_schema(read.propose(locate(FILES[schema]))[0].schema)
    written = mapping(schema)
    assert (proposal.tree, proposal.layout) == (written.tree, written.layout)
    assert (proposal.charge, proposal.collection) == (written.charge, written.collection)
    momenta = {k: v for k, v in proposal.kinematics.items() if k not in ("E", "mass")}
    assert set(momenta.items()) <= set(written.kinematics.items())


def test_electrons_with_the_schema_of_the_package():
    pairs, _ = select.collect(read.open_events(locate("nano_dy.root"), read.builtin("nanoaod_electron")))
    assert counts(pairs) == (4, 1, 0)
