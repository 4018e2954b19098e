"""Any layout read through a schema gives the same leptons; wrong schemas and files say what is wrong."""

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import jagged_schema

from gammastar import read
from gammastar.core.constants import M_MU
from gammastar.core.errors import BranchError, InputFileError, SteeringError
from gammastar.core.pairs import Pairs

N = 60


@pytest.fixture(scope="module")
def muons():
    """Two muons of opposite charge per event, E = 5 to 50 GeV, forward."""
    rng = np.random.default_rng(7)
    p = rng.uniform(5, 50, (N, 2))
    theta, phi = rng.uniform(0.01, 0.1, (N, 2)), rng.uniform(-np.pi, np.pi, (N, 2))
    return {
        "px": p * np.sin(theta) * np.cos(phi),
        "py": p * np.sin(theta) * np.sin(phi),
        "pz": p * np.cos(theta),
        "pt": p * np.sin(theta),
        "eta": -np.log(np.tan(theta / 2)),
        "phi": phi,
        "E": np.sqrt(p**2 + M_MU**2),
        "charge": np.tile([1, -1], (N, 1)),
    }


def jagged(array, dtype=np.float64):
    return ak.from_regular(ak.from_numpy(np.asarray(array, dtype)))


def write_tree(path, branches, name="events"):
    with uproot.recreate(path) as file:
        types = {key: ak.type(ak.Array(value)).content for key, value in branches.items()}
        tree = file.mktree(
            name, {k: ("var * " + str(t.content)) if "*" in str(t) else str(t) for k, t in types.items()}
        )
        tree.extend(branches)
    return path


def schema(**changes):
    return read.load_schema(jagged_schema("Muon_", **changes))


def as_pairs(muons, path):
    legs = {f"{key}{leg + 1}": muons[key][:, leg] for key in ("px", "py", "pz", "charge") for leg in (0, 1)}
    kinematics = {key: [f"{key}1", f"{key}2"] for key in ("px", "py", "pz")}
    return write_tree(path, legs), schema(layout="pair", charge=["charge1", "charge2"], kinematics=kinematics)


def as_mev(muons, path):
    branches = {f"lep.{k}": jagged(1e3 * muons[k]) for k in ("px", "py", "pz", "E")}
    branches["lep.pdg"] = jagged(-13 * muons["charge"], np.int32)
    kinematics = {k: f"lep.{k}" for k in ("px", "py", "pz", "E")}
    return write_tree(path, branches), schema(unit=1e-3, charge=None, pdg_id="lep.pdg", kinematics=kinematics)


def as_collider(muons, path):
    branches = {f"MuonsAuxDyn.{k}": jagged(muons[k]) for k in ("pt", "eta", "phi")}
    branches["MuonsAuxDyn.charge"] = jagged(muons["charge"], np.float32)
    kinematics = {k: f"MuonsAuxDyn.{k}" for k in ("pt", "eta", "phi")}
    return write_tree(path, branches), schema(charge="MuonsAuxDyn.charge", kinematics=kinematics)


def as_objects(muons, path):
    record = ak.zip({k: jagged(muons[k]) for k in ("px", "py", "pz")})
    with uproot.recreate(path) as file:
        file.mkrntuple("events", {"mu": record, "q": jagged(muons["charge"], np.int32)})
    members = {k: k for k in ("px", "py", "pz")}
    return path, schema(layout="object", collection="mu", charge="q", kinematics=members)


def as_rntuple(muons, path):
    branches = {f"Muon_{k}": jagged(muons[k]) for k in ("px", "py", "pz")}
    branches["Muon_charge"] = jagged(muons["charge"], np.int8)
    with uproot.recreate(path) as file:
        file.mkrntuple("events", branches)
    return path, schema()


def as_tree(muons, path, **more):
    branches = {f"Muon_{k}": jagged(muons[k]) for k in ("px", "py", "pz")}
    branches["Muon_charge"] = jagged(muons["charge"], np.int32)
    return write_tree(path, {**branches, **more}), schema()


@pytest.mark.parametrize("layout", [as_pairs, as_mev, as_collider, as_objects, as_rntuple, as_tree])
def test_every_layout_gives_the_same_leptons(muons, tmp_path, layout):
    path, mapping = layout(muons, tmp_path / "f.root")
    events = ak.concatenate(list(read.open_events(path, mapping)))
    assert len(events) == N
    for key in ("px", "py", "pz", "charge"):
        np.testing.assert_allclose(ak.to_numpy(events.lepton[key]), muons[key], rtol=1e-12)
    assert np.all(ak.to_numpy(events.lepton.mass) == pytest.approx(M_MU))
    assert ak.type(events.lepton.px).content.content.primitive == "float64"


def test_chunks_and_files_do_not_matter(muons, tmp_path):
    event, run = np.arange(N, dtype=np.int64), np.full(N, 3, np.int32)
    weight, prescale = np.linspace(0.5, 1.5, N), np.full(N, 4, np.int32)
    for name in ("a", "b"):
        more = {"run": run, "event": event, "w": weight, "prescale": prescale}
        as_tree(muons, tmp_path / f"{name}.root", **more)
        run = run + 1
    mapping = schema(event=["run", "event"], weight="w", prescale="prescale")
    pattern = str(tmp_path / "*.root")
    whole = ak.concatenate(list(read.open_events(pattern, mapping)))
    parts = list(read.open_events([tmp_path / "a.root", tmp_path / "b.root"], mapping, step=7))
    assert len(parts) == 18
    parts = ak.concatenate(parts)
    assert ak.array_equal(whole, parts)
    assert len(np.unique(ak.to_numpy(whole.event))) == 2 * N
    np.testing.assert_allclose(ak.to_numpy(whole.weight), np.tile(4 * weight, 2))
    numbered = ak.concatenate(list(read.open_events(pattern, schema(), step=7)))
    assert np.array_equal(ak.to_numpy(numbered.event), np.arange(2 * N))


def test_row_filter_columns_and_truth(muons, tmp_path):
    kind = np.arange(N, dtype=np.int32) % 3
    chi2 = jagged(np.arange(2 * N).reshape(N, 2))
    path, _ = as_tree(muons, tmp_path / "f.root", kind=kind, Muon_chi2=chi2, gen=np.full(N, 2.0), code=kind)
    mapping = schema(
        row_filter={"branch": "kind", "equals": 2},
        lepton_columns={"chi2": "Muon_chi2"},
        event_columns={"kind": "kind"},
        truth={"mass": "gen", "pt": "gen", "energy": "gen", "process": "code"},
        unit=0.5,
    )
    events = ak.concatenate(list(read.open_events(path, mapping, truth=True, step=11)))
    assert np.array_equal(ak.to_numpy(events.event), np.arange(2, N, 3))
    assert np.array_equal(ak.to_numpy(events.lepton.chi2)[:, 0], 2 * np.arange(2, N, 3))
    assert set(ak.to_list(events.columns["kind"])) == {2.0}
    assert set(ak.to_list(events.truth.mass)) == {1.0}
    assert "truth" not in next(read.open_events(path, mapping)).fields


def test_row_filter_on_text(muons, tmp_path):
    with uproot.recreate(tmp_path / "f.root") as file:
        branches = {f"Muon_{k}": jagged(muons[k]) for k in ("px", "py", "pz", "charge")}
        file.mkrntuple("events", {**branches, "Type": ak.Array(["GG", "GT"] * (N // 2))})
    mapping = schema(row_filter=[{"branch": "Type", "equals": "GG"}])
    events = ak.concatenate(list(read.open_events(tmp_path / "f.root", mapping)))
    assert len(events) == N // 2
    wrong = schema(row_filter=[{"branch": "Type", "equals": 1}])
    with pytest.raises(BranchError, match="row_filter on branch 'Type'"):
        list(read.open_events(tmp_path / "f.root", wrong))


def test_missing_branch_lists_near_names(muons, tmp_path):
    path, _ = as_tree(muons, tmp_path / "f.root")
    wrong = schema(kinematics={"px": "muon_Px", "py": "Muon_py", "pz": "Muon_pz"})
    with pytest.raises(BranchError, match=r"no branch 'muon_Px' \(near: .*Muon_px"):
        list(read.open_events(path, wrong))
    with pytest.raises(BranchError, match=r"no tree 'Event'; it has 'events'"):
        list(read.open_events(path, schema(tree="Event")))
    flat = write_tree(tmp_path / "flat.root", {f"Muon_{k}": np.ones(3) for k in ("px", "py", "pz", "charge")})
    with pytest.raises(BranchError, match="must hold a list of numbers"):
        list(read.open_events(flat, schema()))
    with pytest.raises(BranchError, match=r"no \[truth\] table"):
        list(read.open_events(path, schema(), truth=True))


def test_lists_of_different_length_are_refused(muons, tmp_path):
    path, _ = as_tree(muons, tmp_path / "f.root", other=jagged(np.ones((N, 3))))
    with pytest.raises(BranchError, match="lists of different length"):
        list(read.open_events(path, schema(lepton_columns={"x": "other"})))


def test_weights_must_be_finite(muons, tmp_path):
    weight = np.ones(N)
    weight[[3, 5]] = np.nan
    path, _ = as_tree(muons, tmp_path / "f.root", w=weight)
    with pytest.raises(InputFileError, match=r"f\.root: 2 weights of 'w'"):
        list(read.open_events(path, schema(weight="w")))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layout": "flat"}, "layout = 'flat'; use one of pair, jagged, object"),
        ({"lepton": "tau"}, "lepton = 'tau'; use one of e, mu"),
        ({"kinematic": {}}, "did you mean 'kinematics'"),
        ({"kinematics": {"px": "a", "py": "b"}}, "give px, py, pz, or pt or p with eta"),
        ({"kinematics": {"px": "a", "py": "b", "pz": 3}}, r"kinematics\.pz = 3 must be a branch name"),
        ({"charge": None}, "exactly one of charge and pdg_id"),
        ({"pdg_id": "p"}, "exactly one of charge and pdg_id"),
        ({"layout": "pair"}, "a pair layout names two branches"),
        ({"layout": "object"}, "collection is needed by the object layout"),
        ({"unit": 0.0}, "unit = 0.0 must be positive"),
        ({"tree": None}, "tree is missing"),
        ({"row_filter": {"branch": "x"}}, "needs the keys branch and equals"),
        ({"truth": {"mass": "gen"}}, "truth.pt is missing"),
    ],
)
def test_wrong_schemas_are_refused(changes, message):
    with pytest.raises(SteeringError, match=message):
        schema(**changes)


def test_builtin_schemas_and_files(tmp_path):
    assert "nanoaod_muon" in read.builtin_names()
    for name in read.builtin_names():
        assert read.load_schema(name).branches()
    with pytest.raises(SteeringError, match="use one of"):
        read.builtin("nothing")
    with pytest.raises(SteeringError, match="cannot be read"):
        read.load_schema(tmp_path / "no.toml")
    (tmp_path / "bad.toml").write_text("tree = [")
    with pytest.raises(SteeringError, match="not a TOML file"):
        read.load_schema(tmp_path / "bad.toml")


@pytest.mark.parametrize("layout", [as_pairs, as_rntuple, as_tree])
def test_inspect_proposes_a_schema_that_reads_the_file(muons, tmp_path, layout):
    path, mapping = layout(muons, tmp_path / "f.root")
    (tree,) = read.inspect(path)
    assert (tree.name, tree.entries) == ("events", N)
    assert set(mapping.branches()) <= set(tree.branches)
    proposal = read.propose(path, lepton="mu")[0].schema
    (tmp_path / "schema.toml").write_text(read.to_toml(proposal))
    assert read.load_schema(tmp_path / "schema.toml") == mapping
    write_tree(tmp_path / "none.root", {"x": np.ones(2)})
    with pytest.raises(BranchError, match="no tree"):
        read.propose(tmp_path / "none.root")


def test_digest_of_known_bytes(tmp_path):
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # FIPS 180-2, appendix B.1
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert read.sha256(path) == digest


def opposite_sign(events):
    """The first two leptons of each event with E > 10 GeV each, as a selection would hand them over."""
    lepton = events.lepton
    energy = np.sqrt(lepton.px**2 + lepton.py**2 + lepton.pz**2 + lepton.mass**2)
    both = ak.combinations(ak.with_field(lepton, energy, "E")[energy > 10], 2, fields=["a", "b"])
    event = ak.flatten(ak.broadcast_arrays(events.event, both.a.px)[0])
    both, total = ak.flatten(both), {}
    for key in ("px", "py", "pz", "E", "charge"):
        total[key] = np.asarray(both.a[key] + both.b[key], dtype=float)
    square = total["E"] ** 2 - total["px"] ** 2 - total["py"] ** 2 - total["pz"] ** 2
    columns = {}
    if "from_photon" in lepton.fields:
        columns = {
            f"from_photon_{i}": np.asarray(leg.from_photon, float) for i, leg in ((1, both.a), (2, both.b))
        }
    return Pairs(
        np.sqrt(square),
        np.hypot(total["px"], total["py"]),
        total["E"],
        total["charge"].astype(np.int8),
        np.ones(len(square)),
        np.asarray(event),
        columns,
    )


def matched_file(muons, path, *, third):
    """Write photons with their two muons, in every fourth event of another process, and an extra muon."""
    total = {k: muons[k].sum(axis=1) for k in ("px", "py", "pz", "E")}
    pt = np.hypot(total["px"], total["py"])
    mass = np.sqrt(total["E"] ** 2 - pt**2 - total["pz"] ** 2)
    code = np.where(np.arange(N) % 4 == 0, 9, 1).astype(np.int32)
    legs = {k: muons[k] for k in ("px", "py", "pz", "charge")}
    link = np.ones((N, 2))
    if third:
        legs = {k: np.hstack([v, v[::-1, :1]]) for k, v in legs.items()}
        link = np.hstack([link, np.zeros((N, 1))])
    branches = {f"Muon_{k}": jagged(v) for k, v in legs.items()}
    truth = {"gen_mll": np.where(code == 9, np.nan, mass), "gen_qT": pt, "gen_E": total["E"]}
    write_tree(path, {**branches, **truth, "gen_process": code, "Muon_link": jagged(link)})
    return np.stack([mass, pt, total["E"]], axis=1), code, muons["E"].min(axis=1) > 10


@pytest.mark.long
@pytest.mark.parametrize("link", ["", "Muon_link"])
@pytest.mark.parametrize("third", [False, True])
def test_matched_closes_on_perfect_reconstruction(muons, tmp_path, third, link):
    true, code, visible = matched_file(muons, tmp_path / "mc.root", third=third)
    truth = {"mass": "gen_mll", "pt": "gen_qT", "energy": "gen_E", "process": "gen_process", "signal": [1]}
    mapping = schema(truth={**truth, "fakes": [9], "lepton": link})
    found = read.matched(tmp_path / "mc.root", mapping, opposite_sign, step=13)
    signal = code == 1
    np.testing.assert_allclose(found.true, true[signal])
    if link or not third:  # without link a random third muon may complete a pair when a true one is lost
        assert np.array_equal(found.reconstructed, visible[signal])
    seen = visible[signal]
    np.testing.assert_allclose(found.reco[seen], true[signal & visible], rtol=1e-6)
    if not third:
        np.testing.assert_allclose(found.fakes, true[~signal & visible], rtol=1e-6)
    assert len(np.unique(found.event)) == signal.sum()


def test_matched_needs_truth_and_photons(muons, tmp_path):
    matched_file(muons, tmp_path / "mc.root", third=False)
    with pytest.raises(BranchError, match="simulated events need one"):
        read.matched(tmp_path / "mc.root", schema(), opposite_sign)
    truth = {"mass": "gen_mll", "pt": "gen_qT", "energy": "gen_E", "process": "gen_process", "signal": [77]}
    with pytest.raises(InputFileError, match=r"truth.signal = \[77\] never occurs"):
        read.matched(tmp_path / "mc.root", schema(truth=truth), opposite_sign)
