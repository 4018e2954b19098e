"""The quick validation rows of the yields: closed forms, importance sampling, events in the NA62 dump."""

import importlib

import pytest
from builders import ROOT


@pytest.mark.slow
def test_validation_rows_hold(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "analysis")
    rows = list(importlib.import_module("validation.accept").rows(quick=True))
    computed = [row for row in rows if "skipped" not in row]  # some need the results of the main job
    failed = [row for row in computed if not abs(row["ours"] - row["expected"]) <= row["tolerance"]]
    assert not failed
    assert sum("NA62" in row["quantity"] for row in rows) > 5
