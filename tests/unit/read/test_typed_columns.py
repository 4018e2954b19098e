"""Integers and booleans of a file stay what they are, bit by bit; what no type can keep is refused."""

import awkward as ak
import numpy as np
import pytest
import uproot
from builders import jagged_schema

from gammastar import read, select
from gammastar.core.errors import GammastarError
from gammastar.core.pairs import MatchedPairs, Pairs
from gammastar.read.branches import typed
from gammastar.store.pairs import collect_truth, read_pairs, write_pairs

WORD = 2**60 + 1  # double precision holds 53 bits
N = 6
EVENT = {
    "L0": np.array([WORD + k for k in range(N)], np.uint64),
    "run": np.arange(2**31 - 10, 2**31 - 10 + N, dtype=np.int32),
    "bits": np.array([0, 2**32 - 1, 2**32 - 9, 8, 12, 3], np.uint32),
    "good": np.array([True, False, True, True, False, True]),
    "small": np.arange(N, dtype=np.int8) - 3,
    "z": np.linspace(0, 1, N).astype(np.float32),
}
LEPTON = {"id": np.array([[WORD, -WORD]] * N, np.int64), "flag": np.array([[True, False]] * N)}


def momenta(rng):
    return {key: rng.uniform(1, 5, (N, 2)) for key in ("px", "py", "pz")} | {
        "charge": np.tile([1, -1], (N, 1))
    }


def schema(**changes):
    columns = {"event_columns": {k: k for k in EVENT}, "lepton_columns": {k: k for k in LEPTON}}
    return read.load_schema(jagged_schema(**columns, **changes))


@pytest.fixture(params=["TTree", "RNTuple"])
def file(request, tmp_path):
    lists = {key: ak.from_regular(ak.from_numpy(v)) for key, v in momenta(np.random.default_rng(1)).items()}
    lists |= {key: ak.from_regular(ak.from_numpy(v)) for key, v in LEPTON.items()}
    path = tmp_path / "typed.root"
    with uproot.recreate(path) as out:
        if request.param == "RNTuple":
            out.mkrntuple("events", lists | EVENT)
        else:
            kinds = {key: f"var * {value.type.content.content}" for key, value in lists.items()}
            tree = out.mktree("events", kinds | {key: value.dtype for key, value in EVENT.items()})
            tree.extend(lists | EVENT)
    return path


def test_columns_keep_bits_and_types_through_selection_and_parquet(file, tmp_path):
    plain = uproot.open(file)["events"].arrays(library="ak")

    def bit(events):
        return events.columns.L0 & 1 == 1

    def low(events):
        return events.columns.bits & 8 == 0

    pairs, flow = select.collect(
        read.open_events(file, schema(), step=2), select.Cuts(event_functions=(bit, low))
    )
    kept = [k for k in range(N) if EVENT["L0"][k] % 2 and not int(EVENT["bits"][k]) & 8]
    assert flow["low"].n == len(kept) == 2
    write_pairs(tmp_path / "parts", [pairs])
    (again,) = [chunk.pairs for chunk in read_pairs(tmp_path / "parts")]
    for found in (pairs, again):
        for name, values in EVENT.items():
            wanted = np.float64 if name == "z" else values.dtype
            assert found.columns[name].dtype == wanted
            assert found.columns[name].tolist() == plain[name][kept].tolist()
        for name, values in LEPTON.items():  # the positive lepton is the first
            assert [found.columns[f"{name}_{leg}"].dtype for leg in (1, 2)] == [values.dtype] * 2
            assert found.columns[f"{name}_1"].tolist() == plain[name][kept][:, 0].tolist()
            assert found.columns[f"{name}_2"].tolist() == plain[name][kept][:, 1].tolist()


def test_two_branches_per_pair_keep_bits_or_are_refused(tmp_path):
    p = momenta(np.random.default_rng(2))
    legs = {f"{key}{leg + 1}": value[:, leg] for key, value in p.items() for leg in (0, 1)}
    words = {"a1": np.full(N, WORD), "a2": np.full(N, -WORD), "b1": np.full(N, WORD, np.uint64)}
    with uproot.recreate(tmp_path / "legs.root") as out:
        tree = out.mktree("events", {k: v.dtype for k, v in (legs | words).items()})
        tree.extend(legs | words)
    names = {key: [f"{key}1", f"{key}2"] for key in ("px", "py", "pz")}
    pair = jagged_schema(layout="pair", kinematics=names, charge=["charge1", "charge2"])
    (events,) = read.open_events(
        tmp_path / "legs.root", read.load_schema(pair | {"lepton_columns": {"a": ["a1", "a2"]}})
    )
    assert events.lepton.a.tolist() == [[WORD, -WORD]] * N
    mixed = read.load_schema(pair | {"lepton_columns": {"b": ["b1", "a2"]}})
    with pytest.raises(GammastarError, match=r"'b' joins 'b1' and 'a2' of types uint64 and int64"):
        list(read.open_events(tmp_path / "legs.root", mixed))


def test_what_a_file_leaves_out():
    words = ak.Array(
        ak.contents.IndexedOptionArray(ak.index.Index64([0, -1]), ak.contents.NumpyArray([WORD]))
    )
    with pytest.raises(GammastarError, match=r"here: branch 'L0' of type \?int64 leaves out 1 values"):
        typed(words, "L0", "here")
    whole = typed(words[:1], "L0", "here")
    assert str(whole.type.content) == "int64"
    assert whole.tolist() == [WORD]
    small = typed(ak.values_astype(words, np.int32), "run", "here")
    assert str(small.type.content) == "float64"
    assert np.isnan(small[1])
    with pytest.raises(GammastarError, match="does not hold real numbers"):
        typed(ak.Array(np.ones(2, complex)), "z", "here")


def pairs_with(column):
    one = np.ones(len(column))
    return Pairs(one, one, 2 * one, np.zeros(len(one), np.int8), one, np.arange(len(one)), {"L0": column})


def test_files_of_unlike_integers_are_joined_only_where_bits_stay():
    signed, unsigned = (pairs_with(np.array([WORD], kind)) for kind in (np.int64, np.uint64))
    with pytest.raises(GammastarError, match=r"'L0' is of types int64, uint64, and no type holds"):
        Pairs.concatenate([signed, unsigned])
    joined = Pairs.concatenate([signed, pairs_with(np.array([7], np.uint32)), Pairs.empty(["L0"])])
    assert joined.columns["L0"].dtype == np.int64
    assert joined.columns["L0"].tolist() == [WORD, 7]


def test_simulated_photons_without_pair_have_zero_in_integer_columns(tmp_path):
    words = np.array([WORD, 0], np.uint64)
    reco = np.array([[1.0, 1, 2], [np.nan] * 3])
    part = MatchedPairs(
        np.ones((2, 3)), reco, np.ones(2), np.arange(2), np.ones((1, 3)), np.ones(1), {"L0": words}
    )
    truth = collect_truth([part] * 600, 1000, tmp_path / "truth", "test")
    assert truth.stored is not None
    rows = MatchedPairs.concatenate(list(truth.parts))
    assert rows.columns["L0"].dtype == np.uint64
    assert rows.columns["L0"].tolist() == words.tolist() * 600
