"""The compiled loop from leptons to histograms against pairs that are made and filled one step at a time."""

import hist
import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.pairs import Pairs
from gammastar.core.records import regular, variable
from gammastar.select import fill
from gammastar.select.pairing import BLOCK, combine, fill_pairs, fillable


def leptons(counts, *, dtype=np.float32, seed=3):
    rng = np.random.default_rng(seed)
    t = int(np.sum(counts))
    columns = {
        "px": rng.normal(0, 0.5, t).astype(dtype),
        "py": rng.normal(0, 0.5, t).astype(dtype),
        "pz": rng.uniform(3, 60, t).astype(dtype),
        "mass": np.broadcast_to(M_MU, t),
        "charge": rng.choice(np.array([-1, 1], np.int32), t),
    }
    offsets = np.concatenate([[0], np.cumsum(counts)])
    return columns | {"offsets": offsets, "weight": rng.uniform(0.5, 2, len(counts))}


def table(columns):
    four = tuple(columns[k].astype(np.float64) for k in ("px", "py", "pz", "mass"))
    charge = columns["charge"].astype(np.int8)
    values, index = combine(columns["offsets"], four, charge)
    row, first, second = index.T
    return Pairs(*values[:, :3].T, charge[first] + charge[second], columns["weight"][row], row)


AXES = (
    regular("mass", 37, 0.2, 1.9),
    variable("pt", [0, 0.1, 0.35, 1.1, 2.0]),
    variable("energy", [5, 20, 40, 90]),
)


@pytest.mark.long
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_filled_pairs_are_those_of_the_table(dtype):
    columns = leptons(np.random.default_rng(1).poisson(1.7, 20_000), dtype=dtype)
    filled, passed = fill_pairs(columns, AXES, {})
    reference = fill(table(columns), AXES)
    for found, expected in zip(filled, (reference.os, reference.pp, reference.mm), strict=True):
        view = expected.view(flow=True)
        assert found[0] == pytest.approx(view["value"], rel=1e-12)
        assert found[1] == pytest.approx(view["variance"], rel=1e-12)
    assert passed[0, :, 1].sum() == pytest.approx(table(columns).weight.sum())


@pytest.mark.long
def test_an_event_with_more_pairs_than_the_block_holds():
    n = 90
    assert n * (n - 1) // 2 > BLOCK
    columns = leptons([2, n, 0, 3])
    filled, _ = fill_pairs(columns, AXES, {})
    reference = fill(table(columns), AXES)
    assert filled[0, 0] == pytest.approx(reference.os.view(flow=True)["value"], rel=1e-12)
    counts = columns | {"weight": np.broadcast_to(1.0, 4)}
    assert fill_pairs(counts, AXES, {})[0][:, 0].sum() == 1 + n * (n - 1) // 2 + 3


@pytest.mark.long
def test_ranges_are_counted_one_after_the_other():
    columns = leptons(np.random.default_rng(5).poisson(1.5, 5_000))
    pairs = table(columns)
    filled, passed = fill_pairs(columns, AXES, {"energy": (20, 90), "pt": (0.2, 5)})
    first = (pairs.energy >= 20) & (pairs.energy < 90)
    both = first & (pairs.pt >= 0.2) & (pairs.pt < 5)
    assert passed[1, :, 0].sum() == first.sum()
    assert passed[2, 0, 0] == (both & pairs.os).sum()
    assert filled[1, 0].sum() == pytest.approx(pairs.weight[both & pairs.pp].sum())


@pytest.mark.parametrize(("name", "value"), [("px", np.nan), ("charge", 2)])
def test_a_lepton_of_no_use_is_reported(name, value):
    columns = leptons([2, 2])
    columns[name][1] = value
    assert fill_pairs(columns, AXES, {}) is None


def test_only_plain_axes_are_filled_this_way():
    assert fillable(AXES, {"pt"})
    assert not fillable(AXES, {"angle"})
    assert not fillable((regular("angle", 3, 0, 1),), ())
    assert not fillable((hist.axis.Regular(3, 0, 1, name="mass", overflow=False),), ())
    logarithmic = hist.axis.Regular(3, 0.1, 1, name="mass", transform=hist.axis.transform.log)
    assert not fillable((logarithmic,), ())
