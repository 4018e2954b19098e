"""The quick validation rows of the yields: Eq. B1, quadrature, events in the NA62 dump."""

from builders import ROOT

from gammastar.core.resolve import resolve

FOLDER = ROOT / "analysis" / "validation"


def test_validation_rows_hold():
    rows = list(resolve("accept.py:rows", FOLDER)(quick=True))
    failed = [row for row in rows if not abs(row["ours"] - row["expected"]) <= row["tolerance"]]
    assert not failed
    assert sum("NA62" in row["quantity"] for row in rows) > 5
