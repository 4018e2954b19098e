"""A name means one branch: equal leaf names of split objects, equal paths, records of RNTuples."""

import sys
from types import SimpleNamespace

import awkward as ak
import numpy as np
import pytest
import uproot
import uproot.models.TLeaf
from builders import ROOT, jagged_schema

from gammastar import read
from gammastar.core.errors import BranchError
from gammastar.read import proposal

sys.path.insert(0, str(ROOT / "analysis"))

from validation.split_trees import write_split

N = 50
XYZ = ("px", "py", "pz")


def lists(rng, counts, scale=1.0):
    def numbers(values):
        return ak.unflatten(values, counts)

    n = int(counts.sum())
    momenta = {key: numbers(scale * rng.normal(size=n)) for key in XYZ}
    return momenta | {"charge": numbers(rng.choice(np.array([-1, 1], np.int32), n))}


@pytest.fixture(scope="module")
def objects():
    """Electrons and muons of the same member names, different in number and momentum."""
    rng = np.random.default_rng(11)
    return {
        "Electron": lists(rng, rng.integers(0, 4, N), 1.0),
        "Muon": lists(rng, rng.integers(0, 5, N), 10.0),
    }


def of(objects):
    return {f"{name}/{key}": array for name, members in objects.items() for key, array in members.items()}


def schema(name="Muon", separator="/", **changes):
    return read.load_schema(jagged_schema(f"{name}{separator}", **changes))


def same(events, wanted):
    for key in (*XYZ, "charge"):
        assert ak.to_list(events.lepton[key]) == ak.to_list(ak.values_astype(wanted[key], np.float64))


@pytest.mark.parametrize("name", ["Electron", "Muon"])
@pytest.mark.parametrize("reversed_order", [False, True])
def test_members_of_split_objects_with_equal_names(objects, tmp_path, name, reversed_order):
    order = reversed(objects) if reversed_order else objects
    path = write_split(tmp_path / "f.root", of({key: objects[key] for key in order}))
    with uproot.open(path) as file:  # the file is what it claims to be
        branches = {branch.name: branch for branch in file["events"].branches}
        assert set(branches) == {"nElectron", "nMuon", "Electron", "Muon"}
        for key, branch in branches.items():
            if key in objects:
                assert [leaf.name for leaf in branch.branches] == list(objects[key])
                assert ak.to_list(branch.branches[0].array()) == ak.to_list(objects[key]["px"])
    same(ak.concatenate(list(read.open_events(path, schema(name), step=7))), objects[name])
    flat = next(read.open_flat(path, schema(name)))
    assert np.array_equal(flat["px"], ak.to_numpy(ak.flatten(objects[name]["px"])))
    assert np.array_equal(flat["charge"], ak.to_numpy(ak.flatten(objects[name]["charge"])))


def test_legs_of_split_objects(tmp_path):
    rng = np.random.default_rng(3)
    legs = {f"{leg}/{key}": rng.normal(size=N) for leg in ("m1", "m2") for key in XYZ}
    legs |= {"m1/q": np.ones(N, np.int32), "m2/q": np.full(N, -1, np.int32)}
    path = write_split(tmp_path / "f.root", legs)
    kinematics = {key: [f"m1/{key}", f"m2/{key}"] for key in XYZ}
    mapping = schema(layout="pair", charge=["m1/q", "m2/q"], kinematics=kinematics)
    events = next(read.open_events(path, mapping))
    for key in XYZ:
        wanted = np.stack([legs[f"m1/{key}"], legs[f"m2/{key}"]], axis=1)
        assert np.array_equal(ak.to_numpy(events.lepton[key]), wanted)
    assert ak.to_list(events.lepton.charge) == [[1.0, -1.0]] * N


def test_a_name_at_the_top_is_not_that_of_a_member(objects, tmp_path):
    members = of({"Muon": objects["Muon"]})
    path = write_split(tmp_path / "f.root", members | {"px": np.arange(float(N)), "w": np.full(N, 2.0)})
    mapping = schema(weight="w", event_columns={"other": "px"})
    events = next(read.open_events(path, mapping))
    same(events, objects["Muon"])
    assert np.array_equal(ak.to_numpy(events.columns.other), np.arange(N))


def test_a_short_name_fits_one_branch_or_is_refused(objects, tmp_path):
    one = write_split(tmp_path / "one.root", of({"Muon": objects["Muon"]}))
    short = {"charge": "charge", "kinematics": {key: key for key in XYZ}}
    same(next(read.open_events(one, schema(**short))), objects["Muon"])
    two = write_split(tmp_path / "two.root", of(objects))
    for reader in (read.open_events, read.open_flat):
        with pytest.raises(
            BranchError, match=r"2 branches 'px': 'Electron/px', 'Muon/px'; give the full path"
        ):
            next(reader(two, schema(**short)))
    with pytest.raises(BranchError, match=r"no branch 'Tau/px' \(near: "):
        next(read.open_events(two, schema("Tau")))


def test_branches_of_the_very_same_path_are_refused(objects, tmp_path):
    twice = of(objects) | {"Muon/px#2": objects["Muon"]["py"]}
    path = write_split(tmp_path / "f.root", twice)
    same(next(read.open_events(path, schema("Electron"))), objects["Electron"])
    with pytest.raises(BranchError, match="2 branches of the very same path 'Muon/px'"):
        next(read.open_events(path, schema("Muon")))


@pytest.mark.parametrize("name", ["Electron", "Muon"])
def test_a_split_collection_of_the_object_layout(objects, tmp_path, name):
    path = write_split(tmp_path / "f.root", of(objects))
    mapping = schema(name, layout="object", collection=name, kinematics={key: key for key in XYZ})
    same(next(read.open_events(path, mapping)), objects[name])
    with pytest.raises(BranchError, match=r"'Muon' has no member 'fP.fX'; its branches are 'Muon/px'"):
        next(
            read.open_events(
                path, schema(layout="object", collection="Muon", kinematics=dict.fromkeys(XYZ, "fP.fX"))
            )
        )
    with pytest.raises(BranchError, match="'Muon' holds no numbers itself; name one below it: 'Muon/px'"):
        next(read.open_events(path, schema(charge="Muon")))


@pytest.mark.parametrize("name", ["Electron", "Muon"])
@pytest.mark.parametrize("separator", [".", "/"])
def test_fields_of_records_of_an_rntuple(objects, tmp_path, name, separator):
    with uproot.recreate(tmp_path / "f.root") as file:
        file.mkrntuple("events", {key: ak.zip(members) for key, members in objects.items()})
    same(
        next(read.open_events(tmp_path / "f.root", schema(name, separator), step=9)),
        {key: array[:9] for key, array in objects[name].items()},
    )
    flat = next(read.open_flat(tmp_path / "f.root", schema(name, separator)))
    assert np.array_equal(flat["px"], ak.to_numpy(ak.flatten(objects[name]["px"])))
    with pytest.raises(BranchError, match=r"2 branches 'px': 'Electron.px', 'Muon.px'"):
        next(read.open_events(tmp_path / "f.root", schema(name, separator, weight="px")))


def test_names_with_slashes_and_dots_in_flat_trees(objects, tmp_path):
    muon = objects["Muon"]
    with uproot.recreate(tmp_path / "f.root") as file:
        branches = {f"Muon/{key}": array for key, array in muon.items()}
        branches |= {f"Muon.{key}": array + 1 for key, array in muon.items()}
        types = {key: f"var * {ak.type(array).content.content}" for key, array in branches.items()}
        file.mktree("events", types, counter_name=lambda key: "n" + key.replace("/", "_").replace(".", "__"))
        file["events"].extend(branches)
    same(next(read.open_events(tmp_path / "f.root", schema())), muon)
    same(
        next(read.open_events(tmp_path / "f.root", schema(separator="."))),
        {k: v + 1 for k, v in muon.items()},
    )


def test_a_tree_may_be_named_with_its_cycle(tmp_path):
    with uproot.recreate(tmp_path / "f.root") as file:
        for sign in (1, -1):
            file["events"] = {"q1": np.full(3, sign), "q2": np.full(3, -sign)} | {
                f"{key}{leg}": np.full(3, 2.0 + sign) for key in XYZ for leg in (1, 2)
            }
    pair = {"layout": "pair", "charge": ["q1", "q2"], "kinematics": {k: [k + "1", k + "2"] for k in XYZ}}
    for tree, px in (("events", 1.0), ("events;2", 1.0), ("events;1", 3.0)):
        events = next(read.open_events(tmp_path / "f.root", schema(tree=tree, **pair)))
        assert ak.to_list(events.lepton.px[0]) == [px, px]
    with pytest.raises(BranchError, match="'events' has the cycles 1, 2"):
        next(read.open_events(tmp_path / "f.root", schema(tree="events;3", **pair)))


def test_lists_of_leaves(tmp_path):
    """Branches like lep1("px/D:py/D:pz/D"): ROOT names their leaves lep1.px."""
    rng = np.random.default_rng(4)
    momenta = {leg: rng.normal(size=(N, 3)) for leg in ("lep1", "lep2")}
    charges = {"q1": np.ones(N, np.int32), "q2": np.full(N, -1, np.int32)}
    path = write_split(tmp_path / "f.root", momenta | charges, leaves=XYZ)
    with uproot.open(path) as file:
        assert file["events"]["lep2"].array(library="np").dtype.names == XYZ
    for mark in "./":
        kinematics = {key: [f"{leg}{mark}{key}" for leg in momenta] for key in XYZ}
        mapping = schema(layout="pair", charge=["q1", "q2"], kinematics=kinematics)
        events = ak.concatenate(list(read.open_events(path, mapping, step=9)))
        for k, key in enumerate(XYZ):
            wanted = np.stack([momenta["lep1"][:, k], momenta["lep2"][:, k]], axis=1)
            assert np.array_equal(ak.to_numpy(events.lepton[key]), wanted)
    kinematics["px"] = ["lep1.energy", "lep2.energy"]
    with pytest.raises(BranchError, match=r"no branch 'lep1\.energy'"):
        next(read.open_events(path, schema(layout="pair", charge=["q1", "q2"], kinematics=kinematics)))
    kinematics["px"] = ["lep1", "lep2"]
    with pytest.raises(BranchError, match=r"branch 'lep1' of type .* must hold one number per row"):
        next(read.open_events(path, schema(layout="pair", charge=["q1", "q2"], kinematics=kinematics)))


def test_members_of_split_vectors(objects, tmp_path):
    """Lists of ROOT::Math::LorentzVector split by ROOT: Muons/Muons.fCoordinates.fPt."""
    muon = objects["Muon"]
    cylindrical = dict(zip(("pt", "eta", "phi"), ("fPt", "fEta", "fPhi"), strict=True))
    branches = {
        f"{name}/{name}.fCoordinates.{member}": scale * np.abs(muon[key])
        for scale, name in ((1.0, "Muons"), (3.0, "Electrons"))
        for member, key in zip(cylindrical.values(), XYZ, strict=True)
    }
    path = write_split(tmp_path / "f.root", branches | {"Muons_charge": muon["charge"]})
    kinematics = {key: f"fCoordinates.{member}" for key, member in cylindrical.items()}
    mapping = schema(layout="object", collection="Muons", charge="Muons_charge", kinematics=kinematics)
    events = next(read.open_events(path, mapping))
    pt, eta, phi = (ak.to_numpy(ak.flatten(np.abs(muon[key]))) for key in XYZ)
    np.testing.assert_allclose(ak.to_numpy(ak.flatten(events.lepton.px)), pt * np.cos(phi), rtol=1e-12)
    np.testing.assert_allclose(ak.to_numpy(ak.flatten(events.lepton.pz)), pt * np.sinh(eta), rtol=1e-12)


def test_errors_of_a_schema_name_its_file(tmp_path):
    from gammastar import config
    from gammastar.config.measured import load_schema
    from gammastar.core.errors import SteeringError

    (tmp_path / "mine.toml").write_text('tree = "events"\nlayout = "jaged"\nlepton = "mu"\n[kinematics]\n')
    (tmp_path / "deep.toml").write_text("tree = " + 5000 * "[")
    (tmp_path / "mine.py").write_text(
        "from gammastar.read import Schema\nTABLE = {'tree': 'events'}\ndef late(): pass\n"
    )
    (tmp_path / "now.py").write_text(
        "from gammastar.read import Schema\nMINE = Schema('events', 'pair', 'tau', {})\n"
    )
    for name, said in (
        ("mine.toml", "layout|lepton"),
        ("deep.toml", "not a TOML file"),
        ("none.toml", "cannot be read"),
        ("mine.py:TABLE", "schema.layout is missing"),
        ("mine.py:late", "must be a table"),
        ("now.py:MINE", "schema.lepton = 'tau'"),
        ("nanoaod_muonn", "nanoaod_muon"),
    ):
        with pytest.raises(SteeringError, match=said) as caught:
            load_schema(config.Read.model_validate({"schema": name, "files": ["x.root"]}), tmp_path)
        assert name in str(caught.value)
        assert len(str(caught.value)) < 1000


@pytest.mark.long
def test_workers_find_the_same_branches(objects, tmp_path):
    """coffea opens the tree by itself, by its cycle and with one branch, before a chunk is read."""
    from gammastar import facility, select
    from gammastar.store.pairs import Job, Source

    rng = np.random.default_rng(6)
    momenta = {leg: rng.normal(size=(N, 3)) for leg in ("lep1", "lep2")}
    charges = {"q1": np.ones(N, np.int32), "q2": np.full(N, -1, np.int32)}
    split = write_split(tmp_path / "split.root", of(objects))
    leaves = write_split(tmp_path / "leaves.root", momenta | charges, leaves=XYZ)
    legs = {key: [f"{leg}.{key}" for leg in momenta] for key in XYZ}
    cases = (
        (split, schema("Muon", tree="events;1"), objects["Muon"]["charge"]),
        (split, schema("Electron"), objects["Electron"]["charge"]),
        (leaves, schema(layout="pair", charge=["q1", "q2"], kinematics=legs), np.tile([1, -1], (N, 1))),
    )
    for k, (path, mapping, charge) in enumerate(cases):
        job = Job("pairs", (Source(str(path)),), mapping, select.Cuts, "500 B", "k", tmp_path / str(k))
        with facility.open_executor(retries=0) as executor:
            found = list(executor.pairs(job)[0])
        expected, _ = select.collect(read.open_events(path, mapping))
        assert np.array_equal(np.concatenate([part.mass for part in found]), expected.mass)
        plus, minus = (ak.sum(sign * charge > 0, axis=1) for sign in (1, -1))
        assert sum(int(part.os.sum()) for part in found) == ak.sum(plus * minus) > 0


def test_leaves_of_a_leaf_list_have_names_and_types():
    """Leaves have a title and a name of their own, no attribute: `inspect` ended in an AttributeError."""
    leaves = [uproot.models.TLeaf.Model_TLeafF_v1.empty(), uproot.models.TLeaf.Model_TLeafI_v1.empty()]
    for leaf, name in zip(leaves, ("px", "n"), strict=True):
        leaf._members = {"fName": name, "fIsUnsigned": False}
    branch = SimpleNamespace(member=lambda *_, **__: leaves, branches=[], typename="struct")
    odd = type(
        "Odd", (), {"member": lambda *_, **__: (), "branches": [], "typename": property(lambda _: {}["V"])}
    )()
    found = dict(proposal._types(SimpleNamespace(iteritems={"mu": branch, "odd": odd}.items)))
    assert found == {"mu.px": "float", "mu.n": "int32_t", "odd": "unreadable (KeyError)"}
