"""Mock files as TTrees and RNTuples, compressed, written in blocks, and read back through one schema."""

import tomllib

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import ROOT

from gammastar.core.errors import StoreError, UserError
from gammastar.core.files import data_path
from gammastar.mock import load_card, simulate_events
from gammastar.read import Schema, open_events
from gammastar.store.events import tree_writer, write_tree

CARD = load_card(data_path("cards/na60_mock.toml"))
SCHEMA = Schema.from_mapping(tomllib.loads(ROOT.joinpath("analysis/na60_dimuon/schema.toml").read_text()))


@pytest.fixture(scope="module")
def mc():
    return simulate_events(CARD, 3000, kind="mc", seed=1)


@pytest.mark.long
@pytest.mark.parametrize(
    ("layout", "compression"),
    [("ttree", "zstd"), ("ttree", "lzma"), ("rntuple", "zstd"), ("rntuple", "lz4"), ("rntuple", "none")],
)
def test_blocks_come_back_through_the_schema(tmp_path, mc, layout, compression):
    path = tmp_path / "mock.root"
    with tree_writer(path, compression=compression, layout=layout) as file:
        for start in range(0, len(mc), 1000):
            file.extend("events", {k: v[start : start + 1000] for k, v in mc.branches.items()})
        file.extend("meta", mc.meta_branches())
    with uproot.open(path) as file:
        names = file.classnames(cycle=False)
        assert names["events"] == {"ttree": "TTree", "rntuple": "ROOT::RNTuple"}[layout]
        assert file["meta"].arrays().card[0] == CARD.name
        raw = file["events"].arrays()
    assert ak.array_equal(raw.nMuon, ak.num(mc.branches["Muon"]), dtype_exact=False)
    for name in mc.branches["Muon"].fields:
        assert ak.array_equal(raw[f"Muon_{name}"], mc.branches["Muon"][name])
    events = ak.concatenate(list(open_events([str(path)], SCHEMA, truth=True)))
    assert len(events) == len(mc)
    np.testing.assert_array_equal(events.truth.mass, mc.branches["gen_mll"])
    np.testing.assert_array_equal(
        ak.flatten(events.lepton.px), ak.to_numpy(ak.flatten(mc.branches["Muon"].px)).astype(float)
    )


def test_compression_makes_files_smaller(tmp_path, mc):
    size = {}
    for compression in ("zstd", "none"):
        path = tmp_path / f"{compression}.root"
        write_tree(path, {"events": mc.branches}, compression=compression, layout="rntuple")
        size[compression] = path.stat().st_size
    assert size["zstd"] < 0.7 * size["none"]


def test_mistakes(tmp_path, mc):
    with pytest.raises(UserError, match="compression = 'zip' is not one of"):
        write_tree(tmp_path / "a.root", {"events": mc.branches}, compression="zip")
    with pytest.raises(UserError, match="layout = 'csv' is not one of"):
        write_tree(tmp_path / "a.root", {"events": mc.branches}, layout="csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write_tree(tmp_path / "file" / "a.root", {"events": mc.branches})
    assert not list(tmp_path.glob("*.root"))


def test_an_error_leaves_no_file(tmp_path, mc):
    def interrupted():
        with tree_writer(tmp_path / "a.root") as file:
            file.extend("events", mc.branches)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list(tmp_path.iterdir())
