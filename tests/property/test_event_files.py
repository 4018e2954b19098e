"""Event files of generators hold what was written, whatever the numbers are."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar.core.errors import UserError
from gammastar.store.events import EventTable, write_events

sizes = st.floats(1e-9, 1e6)


@st.composite
def tables(draw):
    """Draw events of odd size: none, at rest, heavy, light, far away, of negative weight, decayed or not."""
    n = draw(st.integers(0, 3))
    momentum = np.array(draw(st.lists(st.one_of(st.just(0.0), sizes), min_size=3 * n, max_size=3 * n)))
    mass, place = (np.array(draw(st.lists(sizes, min_size=n, max_size=n))) for _ in range(2))
    p4 = np.vstack([momentum.reshape(3, n), np.sqrt(mass**2 + (momentum.reshape(3, n) ** 2).sum(axis=0))])
    number = np.array(draw(st.lists(st.integers(0, 2**31 - 1), min_size=n, max_size=n)), dtype=np.int64)
    weight = np.array(draw(st.lists(st.floats(-1e30, 1e30), min_size=n, max_size=n)))
    origin = np.zeros((3, n))
    gone = draw(st.booleans())
    daughters = ((11, p4 / 2), (-11, p4 / 2)) if gone else ()
    return EventTable(
        number,
        p4,
        mass,
        weight,
        origin,
        daughters=daughters,
        decay=np.vstack([origin[:2], place]) if gone else None,
    )


@pytest.mark.long
@settings(max_examples=40)
@given(table=tables())
def test_hepmc_and_lhe_hold_what_was_written(table, tmp_path_factory):
    pyhepmc, pylhe = pytest.importorskip("pyhepmc"), pytest.importorskip("pylhe")
    folder = tmp_path_factory.getbasetemp()
    write_events(folder / "e.hepmc3", table, beam_energy=400.0)
    with pyhepmc.open(str(folder / "e.hepmc3")) as file:
        found = [(e.event_number, e.weights[0], e.particles[1].momentum.e, len(e.particles)) for e in file]
    leptons = len(table.daughters)
    expected = list(zip(table.number, table.weight, table.p4[3], [2 + leptons] * len(table), strict=True))
    assert len(found) == len(expected)
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    write_events(folder / "e.lhe", table, beam_energy=400.0)
    read = [
        (e.eventinfo.weight, e.particles[0].e, len(e.particles))
        for e in pylhe.LHEFile.fromfile(str(folder / "e.lhe")).events
    ]
    assert len(read) == len(expected)
    np.testing.assert_allclose(read, [(w, e, n - 1) for _, w, e, n in expected], rtol=1e-6)


@pytest.mark.parametrize("where", ["decay", "daughters"])
def test_decays_that_are_not_finite_are_refused(where):
    p4, point = np.array([[0.0], [0.0], [1.0], [2.0]]), np.zeros((3, 1))
    given_ = {"decay": point + np.nan} if where == "decay" else {"daughters": ((11, p4 + np.inf),)}
    with pytest.raises(UserError, match="finite"):
        EventTable(np.zeros(1, np.int64), p4, np.ones(1), np.ones(1), point, **given_)
