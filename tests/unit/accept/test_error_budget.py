"""Errors of rates and yields by source: nothing counts twice, and masses stay correlated."""

from types import SimpleNamespace

import numpy as np
import pytest
from gammastar.pipeline.stages.error_budget import (
    rate_budget,
    rate_error,
    source_shifts,
    spreads_of,
    yield_budget,
)

from gammastar.config import Infer
from gammastar.core import axes
from gammastar.core.axes import filled
from gammastar.core.errors import PhysicsError
from gammastar.pipeline.stages.infer import in_use
from gammastar.pipeline.stages.report_dark import relative_errors

MASS = np.array([0.3, 0.5, 0.7])
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


@pytest.mark.parametrize("name", ["measurement", "protons on target"])
def test_a_source_of_the_unfolding_overwrites_no_other(name):
    with pytest.raises(PhysicsError, match="two sources"):
        rate_budget(RATE, COV, 0.1, {name: SHIFT})


def test_theory_is_called_theory():
    assert "budget|theory" in rate_budget(RATE, COV, 0.0, name="theory")


def test_shifts_of_cells_become_shifts_of_the_bins():
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
    found = source_shifts(made, 2)
    assert found["efficiency"] == pytest.approx([0.03, 0.03])
    assert found["polarisation"] == pytest.approx([0.1, -0.2])
    assert source_shifts(made, 3) == {}  # bins of another axis
    assert source_shifts(SimpleNamespace(unfolding=None, unfolded=None), 2) == {}


def test_error_of_a_rate_has_the_extrapolation():
    budget = rate_budget(RATE, COV, 0.1)
    plain = np.sqrt(np.diag(COV) + (0.1 * RATE) ** 2)
    np.testing.assert_allclose(rate_error(budget | {"rate": RATE}), plain)
    beyond = rate_error(budget | {"rate": RATE, "extrapolation": np.full(len(RATE), 0.4)})
    np.testing.assert_allclose(beyond, np.hypot(plain, 0.4 * RATE))


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
    predicted = {"mass": MASS, "rate": RATE} | rate_budget(RATE, COV, 0.1)
    arrays = accepted(signal_variations=flow, polarisation_shifts=spin)
    found = yield_budget(predicted, arrays)
    value = 3.0 * RATE
    assert found["best_signal"] == pytest.approx(value)
    assert found["best_coupling"] == pytest.approx([1e-6] * 3)
    assert found["yield_budget|measurement"] == pytest.approx(9 * COV)
    assert found["yield_budget|protons on target"] == pytest.approx(0.01 * np.outer(value, value))
    assert found["yield_budget|scaling with A"] == pytest.approx(0.04 * np.outer(value, value))
    assert found["yield_budget|flow"] == pytest.approx(0.01 * np.outer(value, value))
    assert found["yield_budget|spin state of the decays"] == pytest.approx(0.04 * np.outer(value, value))
    assert found["yield_budget|finite sample"] == pytest.approx(np.diag((0.01 * value) ** 2))
    table = relative_errors(predicted, arrays, np.array([0.3, 0.7]))
    assert table["mass"] == [0.3, 0.7]
    squares = [np.square(table[name]) for name in table if name not in ("mass", "total", "in the limit")]
    assert np.square(table["total"]) == pytest.approx(np.sum(squares, axis=0))
    assert table["in the limit"] == [0.0, 0.0]


def test_polarisation_in_the_unfolding_and_spin_of_the_decay_both_count():
    """8 % of the response and 0.1 % of the decay: two sources of uncertainty, neither hides the other."""
    signal = accepted()["signal"]
    for name in ("polarisation of virtual photons", "polarisation"):  # the second as older records wrote it
        predicted = {"mass": MASS, "rate": RATE} | rate_budget(
            RATE, np.outer(0.08 * RATE, 0.08 * RATE), 0.0, {name: 0.08 * RATE}
        )
        spin = np.stack([0.999 * signal, 1.001 * signal])
        arrays = accepted(polarisation_shifts=spin, signal_sigma=np.array(0.0), mc_error=0 * signal)
        table = relative_errors(predicted, arrays, MASS)
        assert table[name] == pytest.approx([0.08] * 3)
        assert table["spin state of the decays"] == pytest.approx([0.001] * 3)
        assert table["total"] == pytest.approx([np.hypot(0.08, 0.001)] * 3)


EVERY = ("pot", "spectrum", "kinematics", "polarisation", "scaling", "extrapolation", "sample")


def every_source():
    signal = accepted()["signal"]
    predicted = {"mass": MASS, "rate": RATE} | rate_budget(RATE, COV, 0.1, {"charm": SHIFT})
    arrays = accepted(
        in_domain_signal=0.25 * signal,
        signal_variations=signal * np.array([0.9, 1.0, 1.1])[:, None, None],
        polarisation_shifts=np.stack([0.97 * signal, 1.03 * signal]),
        extrapolation=np.full(signal.shape, 0.6),
        pot_search_sigma=np.array(0.15),
    )
    return predicted, arrays


@pytest.mark.parametrize("extrapolate", [True, False])
@pytest.mark.parametrize("typed", [None, 0.4])
@pytest.mark.parametrize("wanted", [EVERY, ("pot",), ("spectrum", "extrapolation"), ()])
def test_the_total_is_what_the_limit_uses(wanted, typed, extrapolate):
    """Σ listed² = total², and the nuisances of the limit hold each listed source exactly once."""
    predicted, arrays = every_source()
    used = in_use(arrays, extrapolate=extrapolate, extrapolation_sigma=typed)
    table = relative_errors(predicted, used, MASS, wanted)
    listed = {k: np.square(v) for k, v in table.items() if k not in ("mass", "total", "in the limit")}
    assert np.square(table["total"]) == pytest.approx(sum(listed.values()))
    assert ("extrapolation" in listed) == extrapolate
    if extrapolate:
        assert table["extrapolation"] == pytest.approx([0.6 if typed is None else 0.75 * typed] * 3)
    spreads = spreads_of(Infer(nuisances=wanted), predicted, used)
    column = used["signal"].argmax(axis=1)
    limit = sum((np.expm1(spread[[0, 1, 2], column]) ** 2 for spread in spreads.values()), np.zeros(3))
    limit = limit + ((0.1**2 + 0.15**2) if "pot" in wanted else 0.0)
    assert np.square(table["in the limit"]) == pytest.approx(limit)
    assert set(spreads) == set(wanted) - {"pot"} - (set() if extrapolate else {"extrapolation"})
    by_hand = {
        "pot": 0.1**2 + 0.15**2,
        "spectrum": np.diag(COV) / RATE**2,
        "kinematics": 0.1**2,
        "polarisation": 0.03**2,
        "scaling": 0.2**2,
        "extrapolation": 0.0 if not extrapolate else 0.36 if typed is None else (0.75 * typed) ** 2,
        "sample": 0.01**2 * (1 if extrapolate else 16),
    }
    assert np.square(table["in the limit"]) == pytest.approx(sum((by_hand[k] for k in wanted), np.zeros(3)))


def test_measured_part_alone_keeps_the_relative_spread_of_its_replicas():
    predicted, arrays = every_source()
    used = in_use(arrays, extrapolate=False)
    np.testing.assert_allclose(used["signal"], 0.25 * arrays["signal"])
    spreads = spreads_of(Infer(nuisances=("kinematics", "polarisation")), predicted, used)
    np.testing.assert_allclose(np.expm1(spreads["kinematics"]), 0.1)
    np.testing.assert_allclose(np.expm1(spreads["polarisation"]), 0.03)
    assert "extrapolation" in arrays  # the arguments stay as they are
