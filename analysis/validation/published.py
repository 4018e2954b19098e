"""Rows of the topic `published`: what others measured and printed, read and used."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from validation.published_analyses import analysis_rows
from validation.published_records import record_rows
from validation.published_tables import table_rows

from gammastar.core.constants import mass, width
from gammastar.core.files import data_path
from gammastar.physics.qed import RTable
from gammastar.predict import DarkPhoton


def rows(*, quick: bool) -> Iterator[dict]:  # noqa: ARG001
    yield from table_rows()
    yield from analysis_rows()
    yield from record_rows()
    yield from _hadronic_ratio()


def _hadronic_ratio() -> Iterator[dict]:
    """Errors of BR(A' → ee) from R(s) of published cross-sections."""
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    for low, high, wanted in ((0.3, 1.05, 0.03), (1.05, 2.0, None)):
        masses = np.arange(low, high, 0.005)
        lines = [(mass(code), width(code)) for code in (223, 333)]
        off = masses[[all(abs(m - centre) > 3 * gamma for centre, gamma in lines) for m in masses]]
        errors = [model.width_error(float(m)) for m in off]
        row = {
            "quantity": f"BR(A′ → ee) from R(s), {low} to {high} GeV off ω and φ: largest relative error",
            "ours": float(max(errors)),
            "expected": 0.0,
            "tolerance": wanted or 0.0,
            "source": "BaBar, KLOE, SND, CMD-2, CMD-3; π⁺π⁻2π⁰ has no table here: an estimate with 50 %",
        }
        yield row if wanted else row | {"measured": True}
