"""The numbers of the small jobs are those that are stored; what moves them is announced in the changelog."""

import importlib.util
import json
from pathlib import Path

import pytest

RTOL = 1e-6  # processors add in another order, and fits end somewhere else in their tolerance

_spec = importlib.util.spec_from_file_location("golden_runs", Path(__file__).with_name("runs.py"))
runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(runs)


@pytest.mark.parametrize("name", runs.PINNED)
def test_numbers_are_the_stored_ones(name, tmp_path):
    stored = json.loads(runs.NUMBERS.read_text())[name]
    found = runs.sums(runs.made(name, tmp_path))
    assert set(found) == set(stored)
    moved = [
        f"{item}: {values} for {stored[item]}"
        for item, values in found.items()
        if values != pytest.approx(stored[item], rel=RTOL, abs=RTOL * stored[item][2])
    ]
    assert not moved, (
        "python3 tests/golden/runs.py --pin, and the changelog, if these should move:\n" + "\n".join(moved)
    )
