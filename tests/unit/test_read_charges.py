"""A charge without a sign is never read as one: refused, mapped by its key, or counted as lost."""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read, select
from gammastar.core.errors import BranchError, SteeringError

N = 80
XYZ = ("px", "py", "pz")
UNSIGNED = (np.bool_, np.uint8, np.uint16, np.uint32, np.uint64)


@pytest.fixture(scope="module")
def muons():
    rng = np.random.default_rng(5)
    counts = rng.integers(0, 5, N)
    n = int(counts.sum())
    lists = {key: ak.unflatten(rng.normal(size=n), counts) for key in XYZ}
    return lists | {"charge": ak.unflatten(rng.choice(np.array([-1, 1]), n), counts)}


def by_charge(charges):
    """Numbers of +-, ++ and -- pairs, by hand."""
    found = np.zeros(3, int)
    for event in ak.to_list(charges):
        plus, minus = sum(q > 0 for q in event), sum(q < 0 for q in event)
        found += [plus * minus, plus * (plus - 1) // 2, minus * (minus - 1) // 2]
    return found.tolist()


def write(path, branches, kind="TTree"):
    with uproot.recreate(path) as file:
        if kind == "TTree":
            types = {key: f"var * {ak.type(array).content.content}" for key, array in branches.items()}
            file.mktree("events", types, counter_name=lambda _: "n")
            file["events"].extend(branches)
        else:
            file.mkrntuple("events", branches)
    return path


def schema(**changes):
    base = {"tree": "events", "layout": "jagged", "lepton": "mu", "kinematics": {key: key for key in XYZ}}
    return read.load_schema(base | ({} if "pdg_id" in changes else {"charge": "charge"}) | changes)


def counted(path, mapping, **options):
    found, _ = select.collect(read.open_events(path, mapping, **options))
    return [int(mask.sum()) for mask in (found.os, found.pp, found.mm)]


@pytest.mark.parametrize("kind", ["TTree", "RNTuple"])
@pytest.mark.parametrize("dtype", UNSIGNED)
def test_a_charge_without_a_sign_is_refused_or_mapped(muons, tmp_path, dtype, kind):
    for negative in (0, 255) if dtype != np.bool_ else (0,):
        values = ak.values_astype(ak.where(muons["charge"] > 0, 1, negative), dtype)
        path = write(tmp_path / f"{negative}.root", muons | {"charge": values}, kind)
        for reader in (read.open_events, read.open_flat):
            with pytest.raises(BranchError, match=r"charge = 'charge' of type .* positive = 1"):
                next(reader(path, schema()))
        for positive in (1, True, 1.0):
            assert counted(path, schema(positive=positive), step=7) == by_charge(muons["charge"])
        assert counted(path, schema(positive=negative)) == by_charge(-muons["charge"])
        flat = next(read.open_flat(path, schema(positive=1)))
        assert np.array_equal(flat["charge"], ak.to_numpy(ak.flatten(muons["charge"])))


@pytest.mark.parametrize("dtype", UNSIGNED)
def test_legs_without_a_sign(tmp_path, dtype):
    rng = np.random.default_rng(2)
    q = rng.choice([-1, 1], (N, 2))
    legs = {f"{key}{leg}": rng.normal(size=N) for key in XYZ for leg in (1, 2)}
    legs |= {f"q{leg}": (q[:, leg - 1] > 0).astype(dtype) for leg in (1, 2)}
    with uproot.recreate(tmp_path / "f.root") as file:
        file["events"] = legs
    pair = {"layout": "pair", "charge": ["q1", "q2"], "kinematics": {k: [k + "1", k + "2"] for k in XYZ}}
    with pytest.raises(BranchError, match=r"charge = 'q1' of type (bool|uint\d+) holds no negative number"):
        next(read.open_events(tmp_path / "f.root", schema(**pair)))
    assert counted(tmp_path / "f.root", schema(positive=1, **pair)) == by_charge(q)


@pytest.mark.parametrize("step", ["100 MB", 5])
def test_more_values_than_two_are_no_charge(muons, tmp_path, step):
    values = ak.where(muons["charge"] > 0, 1, ak.local_index(muons["px"]))
    path = write(tmp_path / "f.root", muons | {"charge": values})
    with pytest.raises(BranchError, match=r"takes the values 0, .* besides positive = 1; only one other"):
        list(read.open_events(path, schema(positive=1), step=step))


def test_the_two_values_are_the_same_in_all_chunks(muons, tmp_path):
    """Three values, of which no chunk holds more than two."""
    low = ak.Array(np.arange(N) < N // 2)
    values = ak.where(muons["charge"] > 0, 1, ak.where(low, 0, 2))
    path = write(tmp_path / "f.root", muons | {"charge": values})
    with pytest.raises(BranchError, match="takes the values 0, 2 besides"):
        list(read.open_events(path, schema(positive=1), step=N // 2))


def test_a_mapped_charge_that_is_not_a_number_is_lost_and_counted(muons, tmp_path):
    broken = ak.where(ak.local_index(muons["px"]) == 3, np.nan, ak.where(muons["charge"] > 0, 7.5, -2.5))
    path = write(tmp_path / "f.root", muons | {"charge": broken})
    found, flow = select.collect(read.open_events(path, schema(positive=7.5)))
    assert flow.not_finite == ak.sum(ak.num(muons["px"]) == 4) > 0
    kept = muons["charge"][ak.local_index(muons["px"]) != 3]
    assert [int(mask.sum()) for mask in (found.os, found.pp, found.mm)] == by_charge(kept)


def test_codes_of_the_flavour_only(muons, tmp_path):
    """Electrons, photons and neutrinos among the codes are no muons."""
    place = ak.local_index(muons["px"])
    other = ak.where(place % 2 == 0, 22, 11 * muons["charge"])
    codes = ak.where(place < 3, -13 * muons["charge"], other)
    path = write(tmp_path / "f.root", muons | {"pdg": codes})
    found, flow = select.collect(read.open_events(path, schema(pdg_id="pdg")))
    assert flow.not_finite == ak.sum(place >= 3) > 0
    assert [int(mask.sum()) for mask in (found.os, found.pp, found.mm)] == by_charge(
        muons["charge"][place < 3]
    )
    unsigned = ak.values_astype(codes, np.uint32)
    with pytest.raises(BranchError, match=r"pdg_id = 'pdg' of type .* signed PDG codes"):
        next(read.open_events(write(tmp_path / "u.root", muons | {"pdg": unsigned}), schema(pdg_id="pdg")))


@pytest.mark.parametrize(
    "changes", [{"positive": "1"}, {"positive": [1]}, {"positive": 1, "pdg_id": "pdg", "charge": ""}]
)
def test_the_key_is_a_number_and_goes_with_a_charge(changes):
    with pytest.raises(SteeringError, match=r"schema.positive = .* must be a number"):
        schema(**changes)


def test_values_that_a_file_leaves_out_are_lost_and_counted(muons, tmp_path):
    """An optional number of an RNTuple that is not there is not zero."""
    place = ak.local_index(muons["px"])
    px = ak.mask(muons["px"], place != 1)
    path = write(tmp_path / "f.root", muons | {"px": px}, "RNTuple")
    for reader in (read.open_events, read.open_flat):
        total, flow = select.histograms(reader(path, schema()), (select_axis(),))
        assert flow.not_finite == ak.sum(place == 1) > 0
        kept = by_charge(muons["charge"][place != 1])
        assert [int(h.sum(flow=True).value) for h in (total.os, total.pp, total.mm)] == kept


def select_axis():
    from gammastar.core.axes import regular

    return regular("mass", 4, 0.0, 10.0)


def test_messages_fit_a_screen(muons, tmp_path):
    """A record of many members as a charge: its type alone would fill pages."""
    wide = ak.zip({f"member_{i}": muons["px"] for i in range(400)})
    path = write(tmp_path / "f.root", muons | {"wide": wide}, "RNTuple")
    for changes in ({"charge": "wide"}, {"charge": "n" * 90}, {"weight": "wide"}, {"event": "wide"}):
        for reader in (read.open_events, read.open_flat)[: 1 if "event" in changes else 2]:
            with pytest.raises(BranchError) as caught:
                next(reader(path, schema(**changes)))
            assert len(str(caught.value)) < 1000
