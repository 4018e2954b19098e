"""Errors of rates and yields by source: nothing counts twice, and masses stay correlated."""

from types import SimpleNamespace

import numpy as np
import pytest

from gammastar.core import axes
from gammastar.core.stats import filled
from gammastar.pipeline.yield_errors import rate_budget, relative_errors, source_shifts, yield_budget

RATE = np.array([4.0, 2.0, 1.0])
SHIFT = np.array([0.4, 0.2, -0.1])
COV = np.diag([0.1, 0.05, 0.02]) + np.outer(SHIFT, SHIFT)


def total(parts):
    return np.sum(list(parts.values()), axis=0)


def test_a_named_source_is_taken_out_of_the_measurement():
    parts = rate_budget(RATE, COV, 0.1, {"charm": SHIFT})
    assert set(parts) == {"budget|measurement", "budget|protons on target", "budget|charm"}
    assert parts["budget|charm"] == pytest.approx(np.outer(SHIFT, SHIFT))
    assert parts["budget|measurement"] == pytest.approx(np.diag([0.1, 0.05, 0.02]), abs=1e-15)
    assert total(parts) == pytest.approx(COV + 0.01 * np.outer(RATE, RATE))


def test_theory_is_called_theory():
    assert "budget|theory" in rate_budget(RATE, COV, 0.0, name="theory")


def test_shifts_of_cells_become_shifts_of_the_rate():
    """A source that moves every cell by 3 % moves every mass by 3 %; its sign may change with the mass."""
    both = (axes.regular("mass", 2, 0.2, 1.0), axes.regular("pt", 3, 0.0, 3.0))
    values = np.arange(1.0, 7.0).reshape(2, 3)
    unfolded = SimpleNamespace(values=values, hist=filled(both, values, values))
    odd = values * np.array([[0.1], [-0.2]])
    kept = {
        "source_names": np.array(["efficiency", "polarisation"]),
        "source_shifts": np.stack([0.03 * values.ravel(), odd.ravel()]),
    }
    made = SimpleNamespace(unfolding=kept, unfolded=unfolded)
    found = source_shifts(made, np.array([0.4, 0.8]), np.array([5.0, 7.0]))
    assert found["efficiency"] == pytest.approx([0.15, 0.21])
    assert found["polarisation"] == pytest.approx([0.5, -1.4])
    assert source_shifts(SimpleNamespace(unfolding=None, unfolded=None), RATE, RATE) == {}


def accepted(**more):
    signal = np.outer(RATE, [1.0, 3.0, 2.0])
    return {
        "signal": signal,
        "mc_error": 0.01 * signal,
        "signal_sigma": np.array(0.2),
        "couplings": np.array([1e-7, 1e-6, 1e-5]),
    } | more


def test_the_yield_carries_all_sources():
    """Sources of the rate scale with the acceptance; flow and spin state come from their own templates."""
    signal = accepted()["signal"]
    flow = signal * np.array([0.9, 1.0, 1.1])[:, None, None]
    spin = np.stack([0.8 * signal, 1.2 * signal])
    predicted = {"rate": RATE} | rate_budget(RATE, COV, 0.1)
    arrays = accepted(signal_variations=flow, polarisation_shifts=spin)
    found = yield_budget(predicted, arrays)
    value = 3.0 * RATE
    assert found["best_signal"] == pytest.approx(value)
    assert found["best_coupling"] == pytest.approx([1e-6] * 3)
    assert found["yield_budget|measurement"] == pytest.approx(9 * COV)
    assert found["yield_budget|protons on target"] == pytest.approx(0.01 * np.outer(value, value))
    assert found["yield_budget|scaling with A"] == pytest.approx(0.04 * np.outer(value, value))
    assert found["yield_budget|flow"] == pytest.approx(0.01 * np.outer(value, value))
    assert found["yield_budget|polarisation"] == pytest.approx(0.04 * np.outer(value, value))
    assert found["yield_budget|finite sample"] == pytest.approx(np.diag((0.01 * value) ** 2))
    table = relative_errors(arrays | found, np.array([0.3, 0.5, 0.7]), np.array([0.3, 0.7]))
    assert table["mass"] == [0.3, 0.7]
    squares = [np.square(table[name]) for name in table if name not in ("mass", "total")]
    assert np.square(table["total"]) == pytest.approx(np.sum(squares, axis=0))
