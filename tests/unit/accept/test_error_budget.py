"""Errors of rates and yields by source: nothing counts twice, and masses stay correlated."""

import numpy as np
import pytest

from gammastar.accept import measured_only
from gammastar.accept.plane import with_extrapolation
from gammastar.core.errors import PhysicsError
from gammastar.core.signal import Effect, Rate, SignalPlane, SignalPlanes
from gammastar.predict.production import sources_of
from gammastar.report.dark import relative_errors

MASS = np.array([0.3, 0.5, 0.7])
RATE = np.array([4.0, 2.0, 1.0])
SHIFT = np.array([0.4, 0.2, -0.1])
COV = np.diag([0.1, 0.05, 0.02]) + np.outer(SHIFT, SHIFT)
SIGNAL = np.outer(RATE, [1.0, 3.0, 2.0])


def rate(shifts=None, pot=0.1, cov=COV, **more):
    return Rate(MASS, RATE, cov, sources_of("measurement", RATE, cov, pot, shifts or {}), **more)


def test_a_named_source_is_taken_out_of_the_measurement():
    sources = rate({"charm": SHIFT}).sources
    assert sources.names == ("measurement", "protons on target", "charm")
    assert sources.named("charm").cov == pytest.approx(np.outer(SHIFT, SHIFT))
    assert sources.named("measurement").cov == pytest.approx(np.diag([0.1, 0.05, 0.02]), abs=1e-15)
    assert sources.total() == pytest.approx(COV + 0.01 * np.outer(RATE, RATE))


@pytest.mark.parametrize("name", ["measurement", "protons on target"])
def test_a_source_of_the_unfolding_overwrites_no_other(name):
    with pytest.raises(PhysicsError, match="two sources"):
        rate({name: SHIFT})


def test_error_of_a_rate_has_the_extrapolation():
    plain = np.sqrt(np.diag(COV) + (0.1 * RATE) ** 2)
    np.testing.assert_allclose(rate().error(), plain)
    beyond = rate(extrapolation=np.full(len(RATE), 0.4)).error()
    np.testing.assert_allclose(beyond, np.hypot(plain, 0.4 * RATE))


def plane(*effects, of=None, error=0.01):
    return SignalPlane(
        of or rate(),
        np.array([1e-7, 1e-6, 1e-5]),
        SIGNAL,
        0.25 * SIGNAL,
        error * SIGNAL,
        np.full(SIGNAL.shape, 100.0),
        effects,
        width_sigma=np.zeros(3),
    )


SCALING = Effect("scaling with A", "scaling", "relative", np.array([[0.2]]))
FLOW = Effect("flow", "kinematics", "replicas", SIGNAL * np.array([0.9, 1.0, 1.1])[:, None, None])


def spin(relative):
    ends = np.stack([(1.0 - relative) * SIGNAL, (1.0 + relative) * SIGNAL])
    return Effect("spin state of the decays", "polarisation", "ends", ends)


def test_the_yield_carries_all_sources():
    """Sources of the rate scale with the acceptance; flow and spin state come from their own templates."""
    own = plane(SCALING, FLOW, spin(0.2))
    best, coupling, sources = own.budget()
    value = 3.0 * RATE
    assert best == pytest.approx(value)
    assert coupling == pytest.approx([1e-6] * 3)
    assert sources.named("measurement").cov == pytest.approx(9 * COV)
    for name, relative in {
        "protons on target": 0.1,
        "scaling with A": 0.2,
        "flow": 0.1,
        "spin state of the decays": 0.2,
    }.items():
        assert sources.named(name).cov == pytest.approx(relative**2 * np.outer(value, value))
    assert sources.named("finite sample").cov == pytest.approx(np.diag((0.01 * value) ** 2))
    table = relative_errors(own, np.array([0.3, 0.7]), ())
    assert table["mass"] == [0.3, 0.7]
    squares = [np.square(table[name]) for name in table if name not in ("mass", "total", "in the limit")]
    assert np.square(table["total"]) == pytest.approx(np.sum(squares, axis=0))
    assert table["in the limit"] == [0.0, 0.0]


def test_polarisation_in_the_unfolding_and_spin_of_the_decay_both_count():
    """8 % of the response and 0.1 % of the decay: two sources of uncertainty, neither hides the other."""
    name = "polarisation of virtual photons"
    measured = rate({name: 0.08 * RATE}, 0.0, np.outer(0.08 * RATE, 0.08 * RATE))
    table = relative_errors(plane(spin(0.001), of=measured, error=0.0), MASS, ())
    assert table[name] == pytest.approx([0.08] * 3)
    assert table["spin state of the decays"] == pytest.approx([0.001] * 3)
    assert table["total"] == pytest.approx([np.hypot(0.08, 0.001)] * 3)


def test_two_sources_of_one_name_are_refused():
    with pytest.raises(PhysicsError, match="two sources of uncertainty are called"):
        plane(SCALING, SCALING)
    with pytest.raises(PhysicsError, match="two sources of uncertainty are called"):
        plane(Effect("Measurement", "scaling", "relative", np.array([[0.2]])))
    with pytest.raises(PhysicsError, match=r"kinematics|replicas"):
        Effect("flow", "kinematics", "replicas", SIGNAL)


EVERY = ("pot", "spectrum", "kinematics", "polarisation", "scaling", "extrapolation", "sample")
NAMES = {
    "spectrum": {"measurement", "charm"},
    "kinematics": {"flow"},
    "polarisation": {"spin state of the decays"},
    "scaling": {"scaling with A"},
    "extrapolation": {"extrapolation"},
    "sample": {"finite sample"},
}


def every_source():
    return plane(
        Effect("protons on target of the search", "pot", "relative", np.array([[0.15]])),
        SCALING,
        spin(0.03),
        FLOW,
        Effect("extrapolation", "extrapolation", "relative", np.full(SIGNAL.shape, 0.6)),
        of=rate({"charm": SHIFT}),
    )


@pytest.mark.parametrize("extrapolate", [True, False])
@pytest.mark.parametrize("typed", [None, 0.4])
@pytest.mark.parametrize("wanted", [EVERY, ("pot",), ("spectrum", "extrapolation"), ()])
def test_the_total_is_what_the_limit_uses(wanted, typed, extrapolate):
    """Σ listed² = total², and the nuisances of the limit hold each listed source exactly once."""
    used = every_source()
    if typed is not None:
        used = with_extrapolation(used, typed)
    if not extrapolate:
        used = measured_only(used)
    table = relative_errors(used, MASS, wanted)
    listed = {k: np.square(v) for k, v in table.items() if k not in ("mass", "total", "in the limit")}
    assert np.square(table["total"]) == pytest.approx(sum(listed.values()))
    assert ("extrapolation" in listed) == extrapolate
    if extrapolate:
        assert table["extrapolation"] == pytest.approx([0.6 if typed is None else 0.75 * typed] * 3)
    spreads = used.spreads(wanted)
    named = set().union(*(NAMES[kind] for kind in wanted if kind != "pot")) if wanted else set()
    assert set(spreads) == named - (set() if extrapolate else {"extrapolation"})
    by_hand = {
        "spectrum": np.diag(COV) / RATE**2,
        "kinematics": 0.1**2,
        "polarisation": 0.03**2,
        "scaling": 0.2**2,
        "extrapolation": 0.0 if not extrapolate else 0.36 if typed is None else (0.75 * typed) ** 2,
        "sample": 0.01**2 * (1 if extrapolate else 16),
    }
    column = used.signal.argmax(axis=1)
    for kind in set(wanted) - {"pot"}:
        own = [spreads[name][[0, 1, 2], column] for name in NAMES[kind] & set(spreads)]
        whole = np.expm1(np.sqrt(np.sum(np.square(own), axis=0))) if own else np.zeros(3)
        assert whole**2 == pytest.approx(by_hand[kind] * np.ones(3))  # κ of a kind is that of all its sources
    by_hand["pot"] = 0.1**2 + 0.15**2
    assert np.square(table["in the limit"]) == pytest.approx(sum((by_hand[k] for k in wanted), np.zeros(3)))


def test_a_source_can_be_asked_for_by_its_name():
    used = every_source()
    assert set(used.spreads(["charm", "flow"])) == {"charm", "flow"}
    alone = np.expm1(used.spreads(["charm"])["charm"])
    np.testing.assert_allclose(alone, np.repeat(np.abs(SHIFT / RATE)[:, None], 3, axis=1))


def test_measured_part_alone_keeps_the_relative_spread_of_its_replicas():
    own = every_source()
    used = measured_only(own)
    np.testing.assert_allclose(used.signal, 0.25 * own.signal)
    spreads = used.spreads(("kinematics", "polarisation"))
    np.testing.assert_allclose(np.expm1(spreads["flow"]), 0.1)
    np.testing.assert_allclose(np.expm1(spreads["spin state of the decays"]), 0.03)
    assert own.effect("extrapolation") is not None  # the argument stays as it is


def test_a_plane_survives_its_arrays():
    own = every_source()
    kept = SignalPlanes.from_arrays(SignalPlanes({"one": own, "two": measured_only(own)}).to_arrays())
    assert list(kept.by_detector) == ["one", "two"]
    back = kept.by_detector["one"]
    assert [(e.name, e.kind, e.form) for e in back.effects] == [(e.name, e.kind, e.form) for e in own.effects]
    for ours, theirs in zip(own.budget()[2].parts, back.budget()[2].parts, strict=True):
        assert (ours.name, ours.kind) == (theirs.name, theirs.kind)
        np.testing.assert_array_equal(ours.cov, theirs.cov)
    np.testing.assert_array_equal(back.signal, own.signal)
    np.testing.assert_array_equal(back.rate.cov, own.rate.cov)
