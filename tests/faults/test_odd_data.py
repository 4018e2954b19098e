"""Data that are odd but not damaged: kept and counted, or refused with file and branch."""

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar import read, select, subtract
from gammastar.core.constants import M_MU
from gammastar.core.errors import BranchError, InputFileError
from gammastar.core.records import variable
from gammastar.core.sampling import stream
from gammastar.subtract import LowCountWarning

SCHEMA = {
    "tree": "events",
    "layout": "jagged",
    "lepton": "mu",
    "charge": "charge",
    "weight": "w",
    "event": ["number"],
    "kinematics": {key: key for key in ("px", "py", "pz")},
}
AXES = (variable("mass", [0.2, 0.5, 3.0]), variable("pt", [0.0, 100.0]), variable("energy", [0.0, 1e6]))


def muons(n=400):
    rng = stream(1, "odd")
    counts = np.full(n, 2)
    columns = {key: rng.normal(0, 0.4, 2 * n) for key in ("px", "py")} | {
        "pz": 5 + rng.exponential(20, 2 * n)
    }
    columns["charge"] = rng.choice(np.array([-1, 1]), 2 * n)
    jagged = {key: ak.unflatten(values, counts) for key, values in columns.items()}
    return jagged | {"w": np.ones(n), "number": np.arange(n)}


def collected(path, branches):
    kinds = {key: getattr(b, "type", None) or b.dtype for key, b in branches.items()}
    kinds = {key: getattr(kind, "content", kind) for key, kind in kinds.items()}
    with uproot.recreate(path) as file:
        file.mktree("events", kinds).extend(branches)
    return select.collect(read.open_events(path, read.load_schema(SCHEMA)))


def spectrum(pairs):
    return subtract.same_sign(select.fill(pairs, AXES))


@pytest.mark.long
@pytest.mark.parametrize("weight", ["negative", "huge", "zero", "one negative"])
def test_sums_of_weights_are_conserved(tmp_path, weight):
    branches = muons()
    n = len(branches["w"])
    branches["w"] = {
        "negative": -np.ones(n),
        "huge": np.full(n, 1e100),
        "zero": np.zeros(n),
        "one negative": np.r_[-1.0, np.ones(n - 1)],
    }[weight]
    pairs, flow = collected(tmp_path / "odd.root", branches)
    assert len(pairs) == n == flow["events"].n
    assert pairs.weight.sum() == pytest.approx(branches["w"].sum(), rel=1e-12)


def test_kinematics_that_are_not_finite_are_masked_and_counted(tmp_path):
    branches = muons()
    px = np.asarray(ak.flatten(branches["px"])).copy()
    px[[10, 11, 100]] = np.nan, np.inf, -np.inf
    branches["px"] = ak.unflatten(px, 2)
    pairs, flow = collected(tmp_path / "odd.root", branches)
    assert len(pairs) == 400 - 2
    assert np.isfinite(pairs.mass).all()
    assert flow["events"].n == 400


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_refused(tmp_path, value):
    branches = muons()
    branches["w"] = np.r_[value, np.ones(399)]
    with pytest.raises(InputFileError, match=r"odd\.root: 1 weights of 'w'"):
        collected(tmp_path / "odd.root", branches)


def test_branches_of_another_type_are_refused(tmp_path):
    for name, values in (("w", ak.Array([[1.0, 2.0]] * 400)), ("number", np.ones(400)), ("px", np.ones(400))):
        with pytest.raises(BranchError, match=f"odd.root.*{name}"):
            collected(tmp_path / "odd.root", muons() | {name: values})


def test_masses_below_two_muons_do_not_exist_in_what_is_read(tmp_path):
    """The mass is made from momenta and the lepton's mass: equal momenta are at threshold."""
    branches = muons()
    for key in ("px", "py", "pz"):
        first = np.asarray(branches[key][:, 0])
        branches[key] = ak.from_regular(ak.from_numpy(np.stack([first, first], axis=1)))
    pairs, _ = collected(tmp_path / "odd.root", branches)
    assert pairs.mass == pytest.approx(2 * M_MU, rel=1e-6)
    assert (pairs.mass >= 2 * M_MU * (1 - 1e-12)).all()


def test_events_with_the_same_number_keep_all_their_pairs(tmp_path):
    branches = muons() | {"number": np.arange(400) // 2}
    pairs, _ = collected(tmp_path / "odd.root", branches)
    assert len(pairs) == 400
    assert len(np.unique(pairs.event)) == 200


def test_one_event_and_no_like_sign_pair(tmp_path):
    branches = {key: values[:1] for key, values in muons().items()}
    branches["charge"] = ak.Array([[1, -1]])
    pairs, flow = collected(tmp_path / "odd.root", branches)
    assert (len(pairs), flow["events"].n) == (1, 1)
    found = spectrum(pairs)
    assert found.values.sum() == (1.0 if 0.2 <= pairs.mass[0] < 3.0 else 0.0)
    assert np.isfinite(found.cov).all()


@pytest.mark.filterwarnings("ignore::gammastar.subtract.LowCountWarning")
def test_negative_yields_stay(tmp_path):
    """More like-sign than opposite-sign pairs: the yield is negative, and an alarm may say so."""
    branches = muons()
    branches["charge"] = ak.Array([[1, 1], [-1, -1]] * 200)
    pairs, _ = collected(tmp_path / "odd.root", branches)
    found = spectrum(pairs)
    assert found.values.sum() < 0
    assert np.isfinite(found.values).all()
    assert issubclass(LowCountWarning, Warning)


def test_a_tree_without_entries_has_no_pairs(tmp_path):
    branches = muons()
    with uproot.recreate(tmp_path / "none.root") as file:
        kinds = dict.fromkeys(("px", "py", "pz", "charge"), "var * float64") | {"w": "f8", "number": "i8"}
        file.mktree("events", kinds)
    assert list(read.open_events(tmp_path / "none.root", read.load_schema(SCHEMA))) == []
    assert len(branches["w"]) == 400
