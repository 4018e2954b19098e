"""What the branches of a file mean, judged by masses and momenta: MOCK files with one mistake each."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar.core.constants import M_E, M_MU
from gammastar.read import examine, load_schema

DATA = ROOT / "tests" / "data"
MOCK = ROOT / "data" / "mock"
OPEN = ROOT / "analysis" / "open_dimuon"
REAL = {
    "uproot-HZZ.root": OPEN / "hzz.toml",
    "uproot-HZZ-objects.root": OPEN / "hzz_objects.toml",
    "uproot-Zmumu.root": OPEN / "zmumu.toml",
    "Run2012BC_DoubleMuParked_Muons_1000evts_rntuple_v1-0-0-0.root": OPEN / "doublemuparked.toml",
    "nano_dy.root": "nanoaod_electron",
}
PAIRS = {key: [key + "1", key + "2"] for key in ("px", "py", "pz")}


def decays(mass, boost, m_lepton, n=600, seed=1):
    """Two legs of n decays of a mass, isotropic, boosted along z; written out by hand."""
    rng = np.random.default_rng(seed)
    mass, energy = np.broadcast_to(mass, n), np.broadcast_to(boost, n) * np.broadcast_to(mass, n)
    momentum = np.sqrt(mass**2 / 4 - m_lepton**2)
    cos, phi = rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    gamma, beta = energy / mass, np.sqrt(1 - (mass / energy) ** 2)
    found = {}
    for leg, sign in (("1", 1), ("2", -1)):
        along = sign * momentum * cos
        found |= {
            "px" + leg: sign * momentum * np.sqrt(1 - cos**2) * np.cos(phi),
            "py" + leg: sign * momentum * np.sqrt(1 - cos**2) * np.sin(phi),
            "pz" + leg: gamma * (along + beta * mass / 2),
            "E" + leg: gamma * (mass / 2 + beta * along),
        }
    flip = rng.choice(np.array([-1, 1]), n)
    return found | {"q1": flip, "q2": -flip, "id1": -13 * flip, "id2": 13 * flip, "ones": np.ones(n, int)}


def write(path, branches):
    with uproot.recreate(path) as file:
        file.mktree("t", {k: np.asarray(v).dtype for k, v in branches.items()}).extend(branches)
    return path


def pairs(**changes):
    mapping = {"tree": "t", "layout": "pair", "lepton": "mu", "charge": ["q1", "q2"], "kinematics": PAIRS}
    return {k: v for k, v in (mapping | changes).items() if v is not None}


def keys(findings):
    return {(finding.level, finding.key) for finding in findings}


@pytest.mark.long
@pytest.mark.parametrize("name", list(REAL))
def test_real_files_raise_no_alarm_and_a_wrong_unit_does(name) -> None:
    schema = load_schema(REAL[name])
    assert examine(DATA / name, schema) == ()
    if name.startswith("nano"):
        return  # opening it takes longest
    values = {field: getattr(schema, field) for field in schema.__dataclass_fields__}
    for unit in (1e-3, 1e3):
        found = examine(DATA / name, type(schema)(**values | {"unit": unit}))
        assert [finding.key for finding in found] == ["unit"]
        assert "unit = 1" in found[0].message


def test_the_mock_files_raise_no_alarm() -> None:
    assert examine(MOCK / "na60_data.root", "na60_muon", entries=4000) == ()
    schema = MOCK.parents[1] / "analysis" / "na60_dimuon" / "schema.toml"
    assert examine(MOCK / "na60_mc.root", schema, truth=True, entries=4000) == ()
    wrong = {**vars_of(schema), "unit": 1e-3}
    found = examine(MOCK / "na60_mc.root", load_schema(schema).__class__(**wrong), truth=True, entries=4000)
    assert {("error", "truth"), ("warning", "unit")} == keys(found)


def vars_of(path):
    schema = load_schema(path)
    return {field: getattr(schema, field) for field in schema.__dataclass_fields__}


@pytest.mark.long
@pytest.mark.parametrize(
    ("lepton", "mass", "boost", "unit"),
    [
        ("e", 0.12, 9.0, 1e-3),  # electrons of 0.5 GeV from Dalitz pairs
        ("e", 0.775, 2.0, 1e-3),
        ("mu", 0.775, 2.0, 1e-3),  # muons of 0.8 GeV
        ("mu", 0.5, 6.0, 1e-3),
        ("mu", 3.0969, 10.0, 1e-3),
        ("mu", 91.19, 1.2, 1e-3),
        ("e", 91.19, 9.0, 1e-3),  # forward: momenta of 400 GeV
    ],
)
def test_units_are_judged_by_momenta_and_pairs_alone(tmp_path, lepton, mass, boost, unit) -> None:
    legs = decays(mass, boost, {"e": M_E, "mu": M_MU}[lepton])
    file = write(tmp_path / "gev.root", legs)
    assert examine(file, pairs(lepton=lepton)) == ()
    assert keys(examine(file, pairs(lepton=lepton, unit=unit))) == {("warning", "unit")}
    in_mev = {k: v if k[0] in "qio" else v * 1e3 for k, v in legs.items()}
    file = write(tmp_path / "mev.root", in_mev)
    assert examine(file, pairs(lepton=lepton, unit=1e-3)) == ()
    (found,) = examine(file, pairs(lepton=lepton))
    assert (found.level, found.key) == ("warning", "unit")
    p = np.sqrt(sum(legs[f"{axis}{leg}"] ** 2 for axis in ("px", "py", "pz") for leg in "1"))
    both = np.concatenate([p, np.sqrt(sum(legs[f"{axis}2"] ** 2 for axis in ("px", "py", "pz")))])
    assert f"unit = 0.001 they are {np.median(both):.3g} GeV and {mass:.3g} GeV" in found.message


def test_a_stored_energy_tells_the_unit_and_the_flavour(tmp_path) -> None:
    legs = decays(0.5, 6.0, M_MU)
    kinematics = PAIRS | {"E": ["E1", "E2"]}
    file = write(tmp_path / "gev.root", legs)
    assert examine(file, pairs(kinematics=kinematics)) == ()
    (found,) = examine(file, pairs(kinematics=kinematics, unit=1e-3))
    assert (found.level, found.key) == ("error", "unit")
    assert "set unit = 1," in found.message
    (found,) = examine(file, pairs(kinematics=kinematics, lepton="e"))
    assert (found.level, found.key) == ("error", "lepton")
    assert "0.1057 GeV, the mass of 'mu'" in found.message


MISTAKES = [
    ({"charge": ["q1", "q1"]}, ("error", "charge"), "both legs read 'q1'"),
    ({"kinematics": {k: [v[0], v[0]] for k, v in PAIRS.items()}}, ("error", "px"), "both legs read 'px1'"),
    ({"kinematics": PAIRS | {"py": ["px1", "py2"]}}, ("error", "py"), "'px1' is read as px and as py"),
    ({"kinematics": PAIRS | {"E": ["px1", "py1"]}}, ("error", "E"), "'px1' is read as px and as E"),
    ({"kinematics": PAIRS | {"E": ["pz2", "pz1"]}}, ("error", "E"), "is read as"),
    ({"kinematics": PAIRS | {"E": ["E2", "E1"]}}, ("error", "E"), "of another lepton"),
    ({"kinematics": PAIRS | {"mass": ["zero", "zero"]}}, ("error", "mass"), "leave kinematics.mass out"),
    ({"kinematics": PAIRS | {"mass": ["minus", "minus"]}}, ("error", "mass"), "-1 to -1 GeV"),
    ({"kinematics": PAIRS | {"mass": ["electron", "electron"]}}, ("error", "lepton"), "the mass of 'e'"),
    ({"kinematics": PAIRS | {"px": ["holes", "px2"]}}, ("warning", "px"), "20 % of 1200 leptons"),
    ({"kinematics": PAIRS | {"px": ["copy1", "copy2"]}}, None, ""),
    ({"charge": ["id1", "id2"]}, ("error", "charge"), "name the branch as pdg_id"),
    ({"charge": ["q1", "copy2"]}, ("error", "charge"), "600 values of 'copy2' are not ±1"),
    ({"charge": ["same", "ones"]}, ("warning", "charge"), "no opposite-sign pair among 600 pairs"),
    ({"charge": None, "pdg_id": ["q1", "q2"]}, ("error", "pdg_id"), "name the branch as charge"),
    ({"charge": None, "pdg_id": ["e1", "e2"]}, ("error", "pdg_id"), "of the other flavour"),
    ({"charge": None, "pdg_id": ["id1", "id2"]}, None, ""),
    ({"event": ["ones"]}, ("error", "event"), "['ones'] is the same for all 600 entries"),
    ({"event": ["tens"]}, ("warning", "event"), "60 different values in 600 entries"),
    ({"weight": "zero"}, ("error", "weight"), "all 600 entries have weight zero"),
    ({"charge": ["q1", "missing"]}, ("error", "schema"), "no branch 'missing'"),
    ({"layuot": "x"}, ("error", "schema"), "did you mean 'layout'"),
    ({"row_filter": {"branch": "ones", "equals": 7}}, ("warning", "row_filter"), "none of the first entries"),
    ({}, None, ""),
]


@pytest.mark.long
@pytest.mark.parametrize(("changes", "expected", "words"), MISTAKES)
def test_each_mistake_is_named_with_its_key(tmp_path, changes, expected, words) -> None:
    legs = decays(0.5, 6.0, M_MU)
    n = 600
    legs |= {"zero": np.zeros(n), "minus": -np.ones(n), "electron": np.full(n, M_E), "same": np.ones(n, int)}
    legs |= {"holes": np.where(np.arange(n) % 5 < 2, np.nan, legs["px1"]), "tens": np.arange(n) // 10}
    legs |= {"copy1": legs["px1"].copy(), "copy2": legs["px2"].copy()}
    legs |= {"e1": legs["q1"] * 11, "e2": legs["q2"] * 11}
    found = examine(write(tmp_path / "f.root", legs), pairs(**changes))
    if expected is None:
        assert found == ()
        return
    assert expected in keys(found)
    assert words in next(finding.message for finding in found if (finding.level, finding.key) == expected)
    assert all(len(finding.message) < 1000 and finding.where.startswith("f.root: ") for finding in found)


def collider():
    rng, n = np.random.default_rng(3), 400
    columns = {"pt": rng.exponential(20, 2 * n) + 5, "eta": rng.normal(0, 1.2, 2 * n)}
    columns |= {"phi": rng.uniform(-np.pi, np.pi, 2 * n), "q": np.tile([1, -1], n)}
    columns["E"] = np.sqrt((columns["pt"] * np.cosh(columns["eta"])) ** 2 + M_MU**2)
    columns["p"] = columns["pt"] * np.cosh(columns["eta"])
    columns["theta"] = 2 * np.arctan(np.exp(-columns["eta"]))
    columns["degrees"] = np.degrees(columns["phi"])
    return columns


@pytest.mark.parametrize(
    ("changes", "expected", "words"),
    [
        ({}, set(), ""),
        ({"phi": "degrees"}, {("error", "phi")}, "must be in rad"),
        ({"eta": "theta"}, {("warning", "eta")}, "polar angle"),
        ({"eta": "theta", "E": "E"}, {("warning", "eta"), ("error", "E")}, "eta holds the polar angle"),
        ({"pt": "p", "E": "E"}, {("error", "E")}, "pt holds the momentum p"),
        ({"eta": "p"}, {("error", "eta")}, "is it the right branch"),
        ({"E": "E"}, set(), ""),
    ],
)
def test_angles_and_momenta_of_another_kind(tmp_path, changes, expected, words) -> None:
    columns = {k: ak.unflatten(v, np.full(400, 2)) for k, v in collider().items()}
    path = tmp_path / "f.root"
    with uproot.recreate(path) as file:
        file.mktree("t", {k: v.type.content for k, v in columns.items()}).extend(columns)
    mapping = {"tree": "t", "layout": "jagged", "lepton": "mu", "charge": "q"}
    found = examine(path, mapping | {"kinematics": {k: k for k in ("pt", "eta", "phi")} | changes})
    assert expected <= keys(found)
    assert {key for _, key in keys(found)} <= {key for _, key in expected} | {"unit"}
    assert words in " ".join(finding.message for finding in found)


def test_repeated_rows_are_named_with_the_filter_that_keeps_one(tmp_path) -> None:
    legs = decays(0.5, 6.0, M_MU, n=200)
    four = {k: np.repeat(v, 4) for k, v in legs.items()}
    rng = np.random.default_rng(2)
    for key in ("px1", "px2", "pz1", "pz2"):  # reconstructed in four ways
        four[key] = four[key] * rng.normal(1, 0.002, 800)
    four |= {"event": np.repeat(np.arange(200), 4), "kind": np.tile([3, 1, 2, 0], 200)}
    file = write(tmp_path / "f.root", four)
    (found,) = examine(file, pairs(event="event"))
    assert (found.level, found.key) == ("warning", "row_filter")
    assert "75 % of 800 rows" in found.message
    assert '{ branch = "kind", equals = 0 } (200 rows)' in found.message
    rule = {"branch": "kind", "equals": 2}
    assert examine(file, pairs(event="event", row_filter=rule)) == ()
    (found,) = examine(DATA / "uproot-Zmumu.root", {**as_mapping("zmumu"), "row_filter": []})
    assert '{ branch = "Type", equals = "GG" } (516 rows)' in found.message


def test_events_of_a_file_that_was_merged_twice_are_named(tmp_path) -> None:
    columns = {k: ak.unflatten(1e3 * v if k == "pt" else v, np.full(400, 2)) for k, v in collider().items()}
    with uproot.recreate(tmp_path / "f.root") as file:
        file.mktree("t", {k: v.type.content for k, v in columns.items()}).extend(columns)
        file["t"].extend({k: v[:100] for k, v in columns.items()})
    polar = {key: key for key in ("pt", "eta", "phi")}
    mapping = {
        "tree": "t",
        "layout": "jagged",
        "lepton": "mu",
        "charge": "q",
        "unit": 1e-3,
        "kinematics": polar,
    }
    (found,) = examine(tmp_path / "f.root", mapping)
    assert (found.level, found.key) == ("warning", "row_filter")
    assert "20 % of 500 rows" in found.message
    assert "merged twice" in found.message


def as_mapping(name):
    import tomllib

    return tomllib.loads((OPEN / f"{name}.toml").read_text())


def test_whatever_the_user_gives_becomes_a_finding(tmp_path) -> None:
    (tmp_path / "bad.root").write_bytes(b"root" + bytes(5000))
    for file, schema in (
        (tmp_path / "none.root", "na60_muon"),
        (tmp_path / "bad.root", "na60_muon"),
        (DATA / "uproot-HZZ.root", "no_such_schema"),
        (DATA / "uproot-HZZ.root", tmp_path / "none.toml"),
        (DATA / "uproot-HZZ.root", pairs(unit="MeV")),
        (DATA / "uproot-HZZ.root", {}),
    ):
        (found,) = examine(file, schema)
        assert (found.level, found.key) == ("error", "schema")
    with uproot.recreate(tmp_path / "empty.root") as file:
        file.mktree("t", {k: np.float64 for pair in PAIRS.values() for k in pair} | {"q1": int, "q2": int})
    assert keys(examine(tmp_path / "empty.root", pairs())) == {("warning", "tree")}


def _pair_file(path, **changes):
    rng = np.random.default_rng(5)
    n = 400
    columns = {f"{key}{leg}": rng.normal(0, 0.4, n) for key in ("px", "py") for leg in (1, 2)}
    columns |= {f"pz{leg}": rng.uniform(5, 60, n) for leg in (1, 2)}
    columns |= {f"q{leg}": rng.choice(np.array([-1, 1], np.int32), n) for leg in (1, 2)}
    with uproot.recreate(path) as file:
        file["events"] = columns | changes
    kinematics = {key: [f"{key}1", f"{key}2"] for key in ("px", "py", "pz")}
    plain = {"tree": "events", "layout": "pair", "lepton": "mu", "charge": ["q1", "q2"]}
    return examine(path, plain | {"kinematics": kinematics})


def test_one_component_in_another_unit_is_told(tmp_path):
    assert _pair_file(tmp_path / "good.root") == ()
    (found,) = _pair_file(tmp_path / "f.root", px2=np.random.default_rng(6).normal(0, 400.0, 400))
    assert found.key == "unit"
    assert "'px2' is" in found.message
    assert "same unit" in found.message


def test_a_leg_of_one_sign_beside_a_leg_of_both_is_told(tmp_path):
    (found,) = _pair_file(tmp_path / "f.root", q2=np.ones(400, np.int32))
    assert (found.level, found.key) == ("warning", "charge")
    assert "'q2' gives +1 in all 400 rows" in found.message


def test_charges_that_are_no_number_are_told(tmp_path):
    charge = np.where(np.arange(400) % 5 == 0, np.nan, 1.0 - 2.0 * (np.arange(400) % 2))
    found = {finding.key: finding.message for finding in _pair_file(tmp_path / "f.root", q2=charge)}
    assert "not finite" in found["charge"]
