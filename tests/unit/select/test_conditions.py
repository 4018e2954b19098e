"""Bits, lists and ranges of columns; runs with their blocks, protons and prescales, against hand counts."""

import awkward as ak
import numpy as np
import pytest

from gammastar import select
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.read.runs import good_runs
from gammastar.select import Condition, Cuts, Runs

TOP = 2**63


@pytest.fixture(scope="module")
def words():
    return np.random.default_rng(3).integers(0, 2**64, 5000, dtype=np.uint64)


@pytest.mark.parametrize("kind", [np.uint64, np.int64, np.uint32, np.int16])
def test_masks_are_those_of_python_integers(words, kind):
    column = words.astype(kind)
    size = 8 * column.dtype.itemsize
    asked = {"all": 1 << (size - 1) | 4, "any": 0b110000, "none": 2}
    plain = [int(word) % 2**size for word in column]
    wanted = [
        w & asked["all"] == asked["all"] and w & asked["any"] != 0 and w & asked["none"] == 0 for w in plain
    ]
    found = Condition(**asked).mask(column, "L0")
    assert found.tolist() == wanted
    assert 0 < sum(wanted) < len(wanted)


def test_values_and_ranges_of_large_integers_are_exact():
    column = np.array([TOP, TOP + 1, TOP + 2], np.uint64)
    assert Condition(values=(TOP + 1,)).mask(column, "L0").tolist() == [False, True, False]
    assert Condition(without=(TOP,)).mask(column, "L0").tolist() == [False, True, True]
    assert Condition(range=(float(TOP), TOP + 2)).mask(column, "L0").tolist() == [True, True, False]
    assert Condition(values=(True,)).mask(np.array([True, False]), "good").tolist() == [True, False]
    small = np.array([1, 2, 3], np.int8)
    assert Condition(range=(1.5, 1000), without=(3,)).mask(small, "n").tolist() == [False, True, False]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({}, "asks for nothing"),
        ({"all": 3, "none": 1}, "nothing can pass"),
        ({"any": 1, "none": 3}, "nothing can pass"),
        ({"values": (1,), "without": (1,)}, "nothing can pass"),
        ({"all": -1}, "mask of bits"),
        ({"range": (2, 1)}, "low < high"),
    ],
)
def test_conditions_that_cannot_be_meant(asked, message):
    with pytest.raises(SteeringError, match=message):
        Condition(**asked)


@pytest.mark.parametrize(
    ("asked", "column", "message"),
    [
        (
            {"all": 1 << 32},
            np.zeros(1, np.uint32),
            r"L0: mask 0x100000000 has 33 bits, a column of uint32 32",
        ),
        ({"any": 1}, np.zeros(1), "L0: all, any and none need integers, and the column is float64"),
        ({"none": 1}, np.zeros(1, bool), "need integers, and the column is bool"),
        ({"values": (300,)}, np.zeros(1, np.uint8), "a column of uint8 never holds 300"),
        ({"values": (1.5,)}, np.zeros(1, np.int32), "a column of int32 never holds 1.5"),
        ({"values": (2,)}, np.zeros(1, bool), "a column of bool never holds 2"),
    ],
)
def test_what_a_column_cannot_hold(asked, column, message):
    with pytest.raises(SteeringError, match=message):
        Condition(**asked).mask(column, "L0")


def events(run, block, **columns):
    n = len(run)
    lepton = ak.zip({k: np.ones((n, 2)) for k in ("px", "py", "pz", "mass")} | {"charge": [[1, -1]] * n})
    fields = {"lepton": ak.from_regular(lepton), "event": np.arange(n), "weight": np.full(n, 2.0)}
    fields |= {"run": np.asarray(run), "block": np.asarray(block)}
    return ak.zip(fields | ({"columns": ak.zip(columns)} if columns else {}), depth_limit=1)


def test_good_blocks_and_prescales_weigh_events():
    runs = Runs({7: ((1, 2), (9, 9)), 8: ()}, {7: 10.0, 8: 0.5})
    pairs, flow = select.pairs(events([7, 7, 7, 8, 6], [1, 3, 9, 5, 1]), Cuts(runs=runs))
    assert pairs.event.tolist() == [0, 2, 3]
    assert pairs.weight.tolist() == [20.0, 20.0, 1.0]
    assert (flow + flow).runs == {7: 4, 8: 2}


def test_cuts_of_events_by_name():
    chunk = events([1, 2, 3, 4], [1, 1, 1, 1], L0=np.array([8, 9, 1, 12], np.uint64), q=np.arange(4.0))
    cuts = Cuts(event={"L0": Condition(all=8), "q": (0, 3), "run": Condition(without=(1,))})
    pairs, flow = select.pairs(chunk, cuts)
    assert pairs.event.tolist() == [1]
    assert [flow[f"event {name}"].n for name in ("L0", "q", "run")] == [3, 2, 1]
    with pytest.raises(
        SteeringError, match=r"select.event.l0: unknown column; the events have run, block, L0, q"
    ):
        select.pairs(chunk, Cuts(event={"l0": (0, 1)}))

    def own(some):
        return some.columns.missing > 0

    with pytest.raises(SteeringError, match=r"own\(\): no field .*'missing'.*; events.columns have L0, q"):
        select.pairs(chunk, Cuts(event_functions=(own,)))


def test_protons_are_summed_over_runs_that_are_kept():
    good = Runs(dict.fromkeys((1, 2, 3, 5), ()))
    runs = good.with_table(np.arange(1.0, 7), pot=np.array([1.0, 2, 4, 8, 1e-3, 32]) * 1e10)
    pot, notes = runs.exposure({1: 100, 2: 190})  # run 5 may well have none, run 3 cannot
    assert pot == pytest.approx(3.001e10, rel=1e-15)
    assert len(notes) == 1
    assert "1 runs with 4e+10 protons on target have no event (3)" in notes[0]
    with pytest.raises(SteeringError, match=r"1 runs of the data have no pot in the table: 7"):
        runs.exposure({1: 100, 7: 1})


def test_protons_of_blocks():
    good = Runs({1: ((2, 3),), 2: ((1, 1),)})
    table = {"run": np.array([1, 1, 1, 2, 3]), "block": np.array([1, 2, 3, 1, 1])}
    runs = good.with_table(**table, pot=np.array([1.0, 2, 4, 8, 16]), prescale=np.array([9.0, 5, 5, 1, 1]))
    assert runs.pot == {1: 6.0, 2: 8.0}
    assert runs.prescale == {1: 5.0, 2: 1.0}
    with pytest.raises(SteeringError, match="its protons are of the whole run"):
        good.with_table(np.array([1, 2]), pot=np.ones(2))
    with pytest.raises(SteeringError, match="run 1 has 2 rows"):
        Runs().with_table(np.array([1, 1, 2]), pot=np.ones(3))
    with pytest.raises(SteeringError, match="several prescales"):
        Runs().with_table(**table, prescale=np.arange(5.0))


def test_lists_of_runs(tmp_path):
    (tmp_path / "cms.json").write_text('{"273158": [[1, 1279], [1300, 1301]], "273302": [[1, 459]]}')
    (tmp_path / "plain.txt").write_text("# good\n4010-4012, 4020\n4031 - 4032 # late\n")
    assert good_runs(tmp_path / "cms.json") == {273158: ((1, 1279), (1300, 1301)), 273302: ((1, 459),)}
    assert list(good_runs(tmp_path / "plain.txt")) == [4010, 4011, 4012, 4020, 4031, 4032]
    for name, text in (("a.txt", "4010 x"), ("b.txt", ""), ("c.json", '{"1": [1, 2]}'), ("d.txt", "9-3")):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputFileError, match=name):
            good_runs(tmp_path / name)
    with pytest.raises(InputFileError, match=r"none.txt: cannot be read"):
        good_runs(tmp_path / "none.txt")
