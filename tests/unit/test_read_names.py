"""A name means one branch: equal leaf names of split objects, equal paths, records of RNTuples."""

import struct

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read
from gammastar.core.errors import BranchError

N = 50
MASK = 0x40000000
EMPTY = bytes.fromhex("40000015 0003 0001 00000000 03000000 00 00000000 00000000")  # a TObjArray
XYZ = ("px", "py", "pz")


def counted(content):
    """A byte count and what it counts."""
    return struct.pack(">I", len(content) | MASK) + content


def tobjarray(items):
    head = bytes.fromhex("0003 0001 00000000 03000000 00") + struct.pack(">ii", len(items), 0)
    return counted(head + b"".join(items))


def key_size(name, title):
    """Bytes of the key of a TTree, from which references count."""
    return uproot.reading._key_format_big.size + 6 + 1 + len(name) + 1 + len(title)


def size_at(blob, at):
    return (struct.unpack_from(">I", blob, at)[0] & ~MASK) + 4


def tbranch(title, body):
    """A TBranch of a name; `body` is all that follows the name and title."""
    named = b"\x00\x01" + b"\x00\x01" + bytes(4) + struct.pack(">I", 0x03400000)
    name = title.encode()
    named += bytes([len(name)]) + name + bytes([len(name)]) + name
    return counted(b"\xff\xff\xff\xffTBranch\x00" + counted(b"\x00\x0d" + counted(named) + body))


def body_of(blob):
    """What follows name and title in a streamed TBranch."""
    at = 8 + len("TBranch") + 1 + 6
    return blob[at + size_at(blob, at) :]


def parent(name, children, entries):
    """A TBranch without leaves that holds other ones, as ROOT writes an object split into its members."""
    body = bytes.fromhex("40000006 0002 0000 03e9")  # TAttFill
    body += struct.pack(">iiiiq", 0, 32000, 0, 0, entries) + bytes.fromhex("40000007 0000 1aa12f10 00")
    body += struct.pack(">iIiqqqq", 0, 1, 1, entries, 0, 0, 0)
    body += tobjarray(children) + EMPTY + EMPTY
    return tbranch(name, body + b"\x01" + bytes(4) + b"\x01" + bytes(8) + b"\x01" + bytes(8) + b"\x00")


def write_split(path, branches, name="events"):
    """Write a tree whose branches ``object/member`` are split objects: uproot itself writes flat trees only.

    Counters of lists stay beside the objects. Of ``object#2`` and ``member#2`` the end is left out, so that
    several branches have the very same path. The baskets are those of a flat tree; the tree is streamed anew.
    """
    kinds = {k: ak.type(ak.Array(v)).content for k, v in branches.items()}
    types = {k: f"var * {t.content}" if "*" in str(t) else str(t) for k, t in kinds.items()}
    with uproot.recreate(path, compression=None) as file:
        tree = file.mktree("flat", types, counter_name=lambda key: "n" + key.partition("/")[0])
        tree.extend(branches)
        flat = tree._cascading
        raw = b"".join(flat._build_out())
        at = raw.index(b"TBranch\x00") - 8
        head, parts, groups = raw[6 : at - 25], [], {}
        for k, datum in enumerate(flat._branch_data):
            blob = raw[at : at + size_at(raw, at)]
            body = body_of(blob)
            leaf = datum["tleaf_reference_number"] - 2 - key_size(flat._name, flat._title) - at
            parts.append((datum, body, leaf - len(blob) + len(body)))
            group, _, member = datum["fName"].rpartition("/")
            groups.setdefault(group or k, []).append(tbranch(member.partition("#")[0], body))
            at += len(blob)
        top = [b[0] if isinstance(g, int) else parent(g.partition("#")[0], b, N) for g, b in groups.items()]
        array = tobjarray(top)
        start = len(head) + len(array) + 6
        links = tobjarray([bytes(4)] * len(parts))
        whole = bytearray(counted(b"\x00\x14" + head + array + links + raw[at + size_at(raw, at) :]))
        new = {}
        for k, (datum, body, leaf) in enumerate(parts):
            reference = struct.pack(">I", whole.index(body) + leaf + 2 + key_size(name, ""))
            new[datum["fName"]] = reference
            whole[start + 25 + 4 * k : start + 29 + 4 * k] = reference
        for datum, body, leaf in parts:
            if datum["counter"] is not None:
                old = struct.pack(">I", datum["counter"]["tleaf_reference_number"])
                place = whole.index(body) + body.index(old, leaf)
                whole[place : place + 4] = new[datum["counter"]["fName"]]
        file._cascading.add_object(file._file.sink, "TTree", name, "", bytes(whole), len(whole), big=True)
    return path


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
    base = {
        "tree": "events",
        "layout": "jagged",
        "lepton": "mu",
        "charge": f"{name}{separator}charge",
        "kinematics": {key: f"{name}{separator}{key}" for key in XYZ},
    }
    return read.load_schema(base | changes)


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
