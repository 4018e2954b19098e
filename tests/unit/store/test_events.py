"""Events written and read back: ROOT, Parquet, LHE, HepMC3."""

from __future__ import annotations

import numpy as np
import pytest
import uproot
from scipy.constants import c as SPEED_OF_LIGHT

from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError
from gammastar.store.events import EventTable, write_events

N = 40


@pytest.fixture(scope="module")
def table():
    rng = np.random.default_rng(1)
    mass = rng.uniform(0.3, 1.0, N)
    momentum = np.stack([rng.normal(0, 0.5, N), rng.normal(0, 0.5, N), rng.uniform(10, 100, N)])
    p4 = np.concatenate([momentum, np.sqrt((momentum**2).sum(axis=0) + mass**2)[None]])
    # daughters along the flight of the parent: a valid decay, simple to check
    p_star = np.sqrt(mass**2 / 4 - M_MU**2)
    beta, gamma = np.sqrt(1 - (mass / p4[3]) ** 2), p4[3] / mass
    along = gamma * (p_star + beta * mass / 2)
    unit = momentum / np.sqrt((momentum**2).sum(axis=0))
    minus = np.concatenate([along * unit, np.sqrt(along**2 + M_MU**2)[None]])
    origin = np.stack([np.zeros(N), np.zeros(N), rng.uniform(0, 0.01, N)])
    decay = origin + 3.0 * unit
    daughters = ((13, minus), (-13, p4 - minus))
    return EventTable(
        np.arange(100, 100 + N),
        p4,
        mass,
        rng.uniform(0.5, 1.5, N),
        origin,
        daughters=daughters,
        decay=decay,
    )


def test_root(table, tmp_path):
    write_events(tmp_path / "e.root", table, beam_energy=400.0)
    found = uproot.open(tmp_path / "e.root")["events"].arrays(library="np")
    for name, column in table.columns().items():
        np.testing.assert_array_equal(found[name], column)


def test_parquet(table, tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    write_events(tmp_path / "e.parquet", table, beam_energy=400.0)
    found = parquet.read_table(tmp_path / "e.parquet")
    for name, column in table.columns().items():
        np.testing.assert_array_equal(found[name].to_numpy(), column)
    assert found.schema.metadata[b"beam_energy_GeV"] == b"400.0"


@pytest.mark.parametrize("suffix", [".lhe", ".lhe.gz"])
def test_lhe(table, tmp_path, suffix):
    pylhe = pytest.importorskip("pylhe")
    path = tmp_path / f"e{suffix}"
    write_events(path, table, beam_energy=400.0)
    file = pylhe.LHEFile.fromfile(str(path))
    assert file.init.initInfo.energyA == 400.0
    events = list(file.events)
    assert len(events) == N
    for i, event in enumerate(events):
        dark, minus, plus = event.particles
        assert (dark.id, minus.id, plus.id) == (4900022, 13, -13)
        assert event.eventinfo.weight == pytest.approx(table.weight[i], rel=1e-9)
        for k, axis in enumerate(("px", "py", "pz", "e")):
            assert getattr(dark, axis) == pytest.approx(table.p4[k, i], rel=1e-8, abs=1e-9)
            total = getattr(minus, axis) + getattr(plus, axis)
            assert total == pytest.approx(table.p4[k, i], rel=1e-6, abs=1e-7)
        proper = 3000.0 * table.mass[i] / np.linalg.norm(table.p4[:3, i])
        assert dark.lifetime == pytest.approx(proper, rel=1e-3)  # the format prints few digits


def test_hepmc(table, tmp_path):
    pyhepmc = pytest.importorskip("pyhepmc")
    write_events(tmp_path / "e.hepmc3", table, beam_energy=400.0)
    with pyhepmc.open(str(tmp_path / "e.hepmc3")) as file:
        events = list(file)
    assert [event.event_number for event in events] == list(table.number)
    for i, event in enumerate(events):
        assert event.weights[0] == pytest.approx(table.weight[i], rel=1e-12)
        dark = next(p for p in event.particles if p.pid == 4900022)
        assert dark.generated_mass == pytest.approx(table.mass[i], rel=1e-9)
        assert dark.production_vertex.position.z == pytest.approx(1e3 * table.origin[2, i], abs=1e-9)
        end = dark.end_vertex
        flight = np.array([end.position.x, end.position.y, end.position.z]) - 1e3 * table.origin[:, i]
        assert np.linalg.norm(flight) == pytest.approx(3000.0, rel=1e-9)
        total = sum(p.momentum.e for p in end.particles_out)
        assert total == pytest.approx(table.p4[3, i], rel=1e-9)


def test_without_decay(table, tmp_path):
    pytest.importorskip("pyhepmc")
    stable = EventTable(table.number, table.p4, table.mass, table.weight, table.origin)
    for suffix in (".root", ".parquet", ".lhe", ".hepmc"):
        write_events(tmp_path / f"s{suffix}", stable, beam_energy=400.0)
    assert "d1_px" not in uproot.open(tmp_path / "s.root")["events"].keys()  # noqa: SIM118 (a tree, no dict)


def test_refused(table, tmp_path):
    with pytest.raises(UserError, match="suffix"):
        write_events(tmp_path / "e.txt", table, beam_energy=400.0)
    with pytest.raises(UserError, match="shape"):
        EventTable(table.number, table.p4[:3], table.mass, table.weight, table.origin)
    with pytest.raises(UserError, match="finite"):
        EventTable(table.number, table.p4 * np.nan, table.mass, table.weight, table.origin)
    assert not list(tmp_path.iterdir())


def test_decays_come_after_the_time_of_flight(table):
    """3 m at the velocity p/E."""
    velocity = SPEED_OF_LIGHT * np.linalg.norm(table.p4[:3], axis=0) / table.p4[3]
    np.testing.assert_allclose(table.decay_time, 3.0 / velocity, rtol=1e-12)
