"""Proposals of schemas: names of branches as experiments write them; MOCK leptons."""

from __future__ import annotations

import time

import awkward as ak
import numpy as np
import pytest
import uproot
from click.testing import CliRunner

from gammastar import cli, read
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import BranchError

N = 120


def leptons(mass=M_MU, scale=1.0):
    rng = np.random.default_rng(4)
    p = {"px": rng.normal(0, 4, (N, 2)), "py": rng.normal(0, 4, (N, 2)), "pz": rng.uniform(3, 60, (N, 2))}
    size = np.sqrt(sum(v**2 for v in p.values()))
    p |= {
        "pt": np.hypot(p["px"], p["py"]),
        "phi": np.arctan2(p["py"], p["px"]),
        "eta": np.arctanh(p["pz"] / size),
    }
    p |= {"E": np.sqrt(size**2 + mass**2), "mass": np.full((N, 2), mass)}
    p = {k: v if k in ("eta", "phi") else scale * v for k, v in p.items()}
    return p | {"charge": np.tile([1, -1], (N, 1))}


def tree(path, branches, name="t"):
    with uproot.recreate(path) as file:
        types = {k: v.dtype if isinstance(v, np.ndarray) else v.type.content for k, v in branches.items()}
        file.mktree(name, types).extend(branches)
    return path


def lists(pattern, keys, **options):
    found = leptons(**options)
    return {pattern.format(key): ak.from_regular(ak.Array(found[key])) for key in keys}


def legs(names, keys, **options):
    found = leptons(**options)
    return {name.format(key): found[key][:, leg].copy() for leg, name in enumerate(names) for key in keys}


POLAR, CARTESIAN = ("pt", "eta", "phi", "charge"), ("px", "py", "pz", "charge")


@pytest.mark.long
@pytest.mark.parametrize(
    ("branches", "flavour", "asked", "unit"),
    [
        (lists("ScoutingMuon_{}", POLAR), "mu", None, None),
        (lists("AnalysisMuonsAuxDyn.{}", POLAR, scale=1e3), "mu", None, 1e-3),
        (lists("AnalysisElectronsAuxDyn.{}", POLAR), "e", None, None),
        (lists("trk_{}", (*POLAR, "E")), "mu", None, None),
        (lists("trk_{}", (*CARTESIAN, "mass"), mass=M_E), "e", None, None),
        (lists("lep_{}", CARTESIAN), "e", "e", None),
        (legs(("m1_{}", "m2_{}"), (*CARTESIAN, "E")), "mu", None, None),
        (legs(("mu1_{}", "mu2_{}"), CARTESIAN), "mu", None, None),
        (legs(("lep1_{}", "lep2_{}"), POLAR), "mu", "mu", None),
        (legs(("{}1", "{}2"), (*CARTESIAN, "E"), scale=1e3), "mu", None, 1e-3),
        (legs(("muplus_{}", "muminus_{}"), CARTESIAN), "mu", None, None),
    ],
)
def test_names_as_experiments_write_them(tmp_path, branches, flavour, asked, unit) -> None:
    (found,) = read.propose(tree(tmp_path / "f.root", branches), lepton=asked)
    assert found.schema["lepton"] == flavour
    assert found.schema.get("unit") == unit
    assert found.findings == ()
    events = ak.concatenate(list(read.open_events(tmp_path / "f.root", read.load_schema(found.schema))))
    expected = leptons()
    for key in ("px", "py", "pz", "charge"):
        np.testing.assert_allclose(ak.to_numpy(events.lepton[key]), expected[key], rtol=1e-9, atol=1e-9)


def test_no_flavour_that_was_not_seen(tmp_path) -> None:
    path = tree(tmp_path / "f.root", lists("trk_{}", CARTESIAN))
    with pytest.raises(BranchError, match="give --lepton mu or --lepton e"):
        read.propose(path)
    muons = tree(tmp_path / "mu.root", lists("Muon_{}", CARTESIAN))
    with pytest.raises(BranchError, match="leptons 'e'"):
        read.propose(muons, lepton="e")
    nameless = tree(tmp_path / "q.root", lists("Muon_{}", ("px", "py", "pz")))
    with pytest.raises(BranchError, match="has momenta, but no charge"):
        read.propose(nameless)


def test_the_command_writes_lists_and_fails(tmp_path) -> None:
    path = str(tree(tmp_path / "f.root", lists("Muon_{}", CARTESIAN) | lists("Electron_{}", CARTESIAN)))
    found = CliRunner().invoke(cli.app, ["inspect", path, "--filter", "electron_p*"])
    assert found.exit_code == 0
    assert found.output.index("[kinematics]") < found.output.index("(TTree, 120 entries")
    assert "the only tree with momenta and charges" in found.output
    assert "  Electron_px" in found.output
    assert "  Muon_px" not in found.output
    out = tmp_path / "s.toml"
    args = ["inspect", path, "--schema-only", "--lepton", "e", "-o", str(out)]
    assert CliRunner().invoke(cli.app, args).exit_code == 0
    assert read.load_schema(out).charge == "Electron_charge"
    assert sorted(item.name for item in tmp_path.iterdir()) == ["f.root", "s.toml"]
    none = str(tree(tmp_path / "none.root", {"x": np.ones(3)}))
    failed = CliRunner().invoke(cli.app, ["inspect", none, "-o", str(tmp_path / "no.toml")])
    assert failed.exit_code == 1
    assert "no tree ('t') has branches that look like momentum" in failed.output
    assert not (tmp_path / "no.toml").exists()


@pytest.mark.long
def test_an_rntuple_of_many_branches_is_opened_in_linear_time(tmp_path) -> None:
    columns = lists("Muon_{}", POLAR)
    columns |= {f"Jet_{i}": columns["Muon_pt"] for i in range(300)} | {"event": np.arange(N)}
    with uproot.recreate(tmp_path / "f.root") as file:
        file.mkrntuple("t", columns)
    start = time.process_time()
    (found,) = read.propose(tmp_path / "f.root")
    assert time.process_time() - start < 2
    assert found.schema["event"] == ["event"]
    with uproot.open(tmp_path / "f.root") as file:  # the same names and types as uproot's own
        assert dict(read.inspect(tmp_path / "f.root")[0].branches) == file["t"].typenames()
