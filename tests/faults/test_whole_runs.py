"""Steering files from the schema: what `check` takes is run, to a page or an error that names a key."""

import datetime as dt
import itertools
import json
import time
from types import SimpleNamespace

import pytest
from injection import adversarial, whole
from injection.steerings import text

from gammastar.pipeline.context import axes_of
from gammastar.read.files import kept_open

pytestmark = pytest.mark.flow


def test_what_check_accepts_is_run(tmp_path):
    found = whole.campaign(tmp_path, 1, n=200, rare=32)
    assert found.wrong == []
    assert found.finished > 120


@pytest.mark.slow
@pytest.mark.parametrize("portion", range(10))
def test_two_thousand_runs(tmp_path, portion):
    found = whole.campaign(tmp_path, 100 + portion, n=200)
    assert found.wrong == []
    assert found.runs == 200


TIKHONOV = {"unfold.mass": [0.2125, 0.2138, 0.9081, 1.0857, 1.2149], "unfold.method": "tikhonov"}
EMPTY = {"unfold.mass": [0.2125, 0.5472, 0.6715, 1.1127], "subtract.r_mult": 5135.0}
EMPTY |= {"unfold.preset": "true mass"}
FOUND = (
    ({"select.ghost_excess": 1.0}, "lies within [select] mass, pt and energy", False),
    ({"unfold.mass": [0.2125, 0.5, 1.1125]}, "", False),
    ({"select.mass": {"bins": 12, "low": 0.1225, "high": 1.1125}}, "", False),
    ({"unfold.efficiency_floor": 0.95}, "of a cell is seen", False),
    ({"unfold.energy": [276.7, 357.5]}, "of a cell is seen", True),
    ({"select.pt": [0.0, 0.015]}, "is reconstructed inside the axes", True),
    (TIKHONOV, "[predict] channel", True),
    (EMPTY, "no cell has positive content", True),
)
"""Changes by which whole runs went wrong, what is said of them now ("": they finish), if fits are made."""


@pytest.mark.long
def test_what_once_went_wrong_ends_well(tmp_path):
    base = whole.without_flow(whole.tiny(tmp_path))
    with whole.in_one_process(makes=False, draws=False), kept_open():
        for what, said, fitted in FOUND:
            found, start = whole.Ran(), base if fitted else whole.without_fits(base)
            assert whole.attempt(tmp_path, whole.changed(start, what), found) == ""
            assert [said in message for message in found.said] == ([True] if said else [])


@pytest.mark.long
def test_clocks_that_jump_within_a_run_change_nothing(tmp_path, monkeypatch):
    """Back and forth by years at every look; a clock that stands in 1970 is told: ROOT files hold dates."""
    base = whole.without_fits(whole.without_flow(whole.tiny(tmp_path)))
    path, found = tmp_path / "steering.toml", []
    path.write_text(text(base), encoding="utf-8")
    with whole.in_one_process(makes=False, draws=False), whole.quiet(), kept_open():
        for year in (None, 2030, 1970):
            if year is not None:
                days = itertools.cycle([dt.datetime(year, 1, 2), dt.datetime(year + 5, 3, 1)])
                clock = type("Clock", (dt.datetime,), {"now": classmethod(lambda *_, d=days: next(d))})
                monkeypatch.setattr(dt, "datetime", clock)
                monkeypatch.setattr(time, "time", lambda d=days: next(d).timestamp())
            if year == 1970:
                with pytest.raises(whole.GammastarError, match=r"clock says 197\d-"):
                    whole.run(path, output=tmp_path / "out")
                return
            whole.run(path, output=tmp_path / f"out {year}")
            found.append(json.loads((tmp_path / f"out {year}" / "manifest.json").read_text())["stages"])
            assert found[0] == found[-1]


def test_axes_are_those_of_the_first_section_that_gives_them():
    """Found by the campaign: with [unfold] mass alone the histogram sampler had no axis of momentum."""
    unfold = SimpleNamespace(mass=[0.2, 0.5, 1.0], pt=None, energy=None)
    select = SimpleNamespace(mass=[0.2, 1.0], pt=[0.0, 6.0], energy=[0.2, 20.0, 400.0])
    assert [len(axis) for axis in axes_of(None, unfold, select)] == [2, 1, 2]


def test_every_key_is_drawn_or_left_out_on_purpose():
    left = {place for place in iter(adversarial.keys()) if len(place) == 2} - {
        tuple(p.split(".")) for p in whole.places()
    }
    assert {section for section, _ in left} <= {place.partition(".")[0] for place in whole.FIXED}
    assert len(whole.places()) > 130


@pytest.mark.long
def test_what_goes_wrong_is_seen(tmp_path, monkeypatch):
    """Runs that crash, say nothing or leave no page count as wrong; a refusal that names its key does not."""
    found, base = whole.Ran(), whole.tiny(tmp_path)
    monkeypatch.setattr(whole, "PATIENCE", 5.0)

    def ends(error):
        def run(*_, **__):
            raise error

        monkeypatch.setattr(whole.pipeline_run, "_run", run)
        return whole.attempt(tmp_path, base, found)

    assert ends(KeyError("a")).startswith("KeyError: 'a' (test_whole_runs.py:")
    assert ends(SystemExit(1)).startswith("SystemExit")
    assert ends(whole.GammastarError("nothing fits")) == "names no key: nothing fits"
    assert ends(whole.GammastarError("[predict]: masses")) == ""
    assert (found.checked, found.finished, found.refused) == (4, 0, 2)
    base["select"]["mass"] = [1.0, 0.5]
    assert whole.attempt(tmp_path, base, found) == ""
