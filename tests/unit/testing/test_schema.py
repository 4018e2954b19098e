"""The contract test of schemas: the schemas of the package pass, each fault is named."""

from __future__ import annotations

import awkward as ak
import numpy as np
import pytest
import uproot

from gammastar.read import builtin_names
from gammastar.testing import ContractError, check_schema


def faults(*args, **options) -> str:
    with pytest.raises(ContractError) as caught:
        check_schema(*args, **options)
    return str(caught.value)


JAGGED = {"tree": "t", "layout": "jagged", "lepton": "mu", "charge": "q", "event": "event", "weight": "w"}
JAGGED |= {"kinematics": {key: key for key in ("px", "py", "pz")}}


@pytest.fixture
def write(tmp_path):
    def make(**changes):
        rng, counts = np.random.default_rng(1), np.full(200, 2)
        columns = {k: rng.normal(0, 10, 400) for k in ("px", "py", "pz")}
        columns |= {"q": np.tile([-1.0, 1.0], 200)} | {k: v for k, v in changes.items() if len(v) == 400}
        branches = {k: ak.unflatten(v, changes.get("counts", counts)) for k, v in columns.items()}
        n = len(next(iter(branches.values())))
        flat_names = {"event", "w", "true_mass", "true_pt", "true_energy"}
        flat = {"event": np.arange(n), "w": np.ones(n)} | {
            k: v for k, v in changes.items() if k in flat_names
        }
        with uproot.recreate(tmp_path / "f.root") as file:
            file.mktree("t", dict.fromkeys(branches, "var * float64") | {k: v.dtype for k, v in flat.items()})
            file["t"].extend(branches | flat)
        return tmp_path / "f.root"

    return make


def test_schemas_pass(write) -> None:
    for name in builtin_names():
        check_schema(name)
    check_schema(JAGGED, write())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"px": np.full(400, 3e4)}, "unit: the median momentum is 3e+04 GeV"),
        ({"q": np.ones(400)}, "charge: no opposite-sign pair among 200 pairs (charges: +1)"),
        (
            {"q": np.tile([-2.0, 2.0], 200)},
            "charge: 100 % of the 400 values of 'q' are not ±1: -2 (200), 2 (200)",
        ),
        ({"px": np.full(400, np.nan)}, "px: 100 % of 400 leptons have a value of 'px' that is not finite"),
        ({"counts": np.ones(400, int)}, "no event of 400 has two leptons"),
        ({"event": np.zeros(200, int)}, "event: ['event'] is the same for all 200 entries"),
        ({"w": np.zeros(200)}, "weight: all 200 entries have weight zero"),
    ],
)
def test_each_fault_of_a_schema_is_named(write, changes, message) -> None:
    assert message in faults(JAGGED, write(**changes))


def test_missing_branches_and_wrong_keys_are_named(write) -> None:
    wrong = JAGGED | {"weight": "ww"}
    assert "no branch 'ww' (near: w)" in faults(wrong, write())
    assert "did you mean 'layout'" in faults(JAGGED | {"layuot": "pair"})
    assert "has no [truth] table" in faults(JAGGED, write(), truth=True)


def test_truth_must_be_physical(write) -> None:
    truth = {key: f"true_{key}" for key in ("mass", "pt", "energy")}
    extra = {"true_mass": np.full(200, 0.1), "true_pt": np.full(200, 5.0), "true_energy": np.ones(200)}
    found = faults(JAGGED | {"truth": truth}, write(**extra), truth=True)
    assert "below the threshold 0.2113 GeV" in found
    assert "100 % of 200 energies below √(mass² + pt²)" in found
    good = {"true_mass": np.full(200, 20.0), "true_pt": np.ones(200), "true_energy": np.full(200, 50.0)}
    check_schema(JAGGED | {"truth": truth}, write(**good), truth=True)
    assert "no entry of 200 has a virtual photon" in faults(
        JAGGED | {"truth": truth}, write(**good | {"true_mass": np.full(200, np.nan)}), truth=True
    )


def test_a_warning_can_be_accepted_and_an_error_cannot(write) -> None:
    file = write(px=np.full(400, 3e4))
    check_schema(JAGGED, file, accept=("unit", "px"))
    assert "unit" in faults(JAGGED, file, accept=("px",))
    assert "weight" in faults(JAGGED, write(w=np.zeros(200)), accept=("weight",))
