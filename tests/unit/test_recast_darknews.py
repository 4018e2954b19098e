"""DarkNews events through the schema; the events here are MOCK, from our own cascade generator."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar import infer, recast, select
from gammastar.core.errors import BranchError, InputFileError, PhysicsError
from gammastar.core.rng import stream
from gammastar.physics.cascade import decay
from gammastar.physics.decay_table import NeutrinoMixing, decay_table
from gammastar.physics.geometry import Cylinder
from gammastar.recast.darknews import DarkEvents, decay_probability, load_schema
from gammastar.store.darknews import read_darknews

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COMPONENTS = (3, 0, 1, 2)  # E, px, py, pz


def mock(n=500):
    """MOCK decays ψ → ν e e of a dark photon's daughters that fly forward."""
    rng = stream(7, "darknews")
    sector = recast.load_benchmark("iDM-040").sector(0.3)
    table = decay_table(sector, neutrino=NeutrinoMixing(0, 1e-6))
    photons = np.zeros((n, 4))
    photons[:, 2] = rng.uniform(0.5, 2.0, n)
    photons[:, 3] = np.hypot(photons[:, 2], 0.3)
    events = decay(table, photons, rng)
    last = events.state == 0
    first = last.argmax(axis=1)
    row = np.arange(n)
    pick = {
        name: getattr(events, name)[row, first] for name in ("parent", "daughter", "particle", "antiparticle")
    }
    origin = rng.uniform(-1.0, 1.0, (n, 3))
    return DarkEvents(**pick, origin=origin, weight=rng.uniform(0.0, 2.0, n))


def write_parquet(path, events, leave_out=()):
    names = {
        "P_decay_N_parent": events.parent,
        "P_decay_N_daughter": events.daughter,
        "P_decay_ell_minus": events.particle,
        "P_decay_ell_plus": events.antiparticle,
    }
    columns = {f"('{key}', '{k}')": p[:, c] for key, p in names.items() for k, c in enumerate(COMPONENTS)}
    columns["('pos_scatt', '0')"] = np.full(len(events), 1.8e-6)  # a time in seconds
    columns |= {f"('pos_scatt', '{k + 1}')": 100.0 * events.origin[:, k] for k in range(3)}
    columns["('w_event_rate', '')"] = events.weight
    pq.write_table(pa.table({key: columns[key] for key in columns if key not in leave_out}), path)


def write_hepmc(path, events, weighted=True):
    hep = pytest.importorskip("pyhepmc")
    run = hep.GenRunInfo()
    if weighted:
        run.weight_names = ["w_decay_rate_0", "w_event_rate"]
    with hep.open(str(path), "w") as file:
        for k in range(len(events)):
            event = hep.GenEvent(hep.Units.GEV, hep.Units.CM)
            event.event_number = k
            event.run_info = run
            x, y, z = 100.0 * events.origin[k]
            made, gone = hep.GenVertex((x, y, z, 1e-6)), hep.GenVertex((x, y, z + 1e7, 2e-3))
            particles = [
                hep.GenParticle(tuple(p[k]), pid, status)
                for p, pid, status in (
                    (events.parent, 5915, 2),
                    (events.daughter, 5914, 1),
                    (events.particle, 11, 1),
                    (events.antiparticle, -11, 1),
                )
            ]
            made.add_particle_in(hep.GenParticle((0, 0, 1, 1), 14, 4))
            made.add_particle_out(particles[0])
            gone.add_particle_in(particles[0])
            for p in particles[1:]:
                gone.add_particle_out(p)
            event.add_vertex(made)
            event.add_vertex(gone)
            if weighted:
                event.weights = [1e-25, events.weight[k]]
            file.write(event)


def test_parquet_and_hepmc_hold_the_same_events(tmp_path):
    events = mock(60)
    write_parquet(tmp_path / "MOCK.parquet", events)
    write_hepmc(tmp_path / "MOCK.hepmc3", events)
    for name in ("MOCK.parquet", "MOCK.hepmc3"):
        found = read_darknews(tmp_path / name)
        assert found.weight.sum() == pytest.approx(events.weight.sum(), rel=1e-12)
        assert np.allclose(found.parent, events.parent, rtol=1e-9)
        assert np.allclose(found.antiparticle, events.antiparticle, rtol=1e-9)
        assert np.allclose(found.origin, events.origin, rtol=1e-9)  # metres, not centimetres
        assert found.relative_error == pytest.approx(np.sqrt((events.weight**2).sum()) / events.weight.sum())


def test_from_events_to_a_workspace(tmp_path):
    write_parquet(tmp_path / "MOCK.parquet", mock(400))
    events = read_darknews(tmp_path / "MOCK.parquet")
    volume = Cylinder(radius=3.0, z0=5.0, z1=10.0)
    inside = decay_probability(events, volume, 20.0)
    pairs, cutflow = select.pairs(events.leptons(events.weight * inside))
    assert pairs.os.all()
    assert cutflow.steps[0].weight == pytest.approx((events.weight * inside).sum())
    assert pairs.mass.max() < events.mass.max()
    workspace = infer.workspace("decays", 0.5, 0.2)
    patches = infer.patchset(workspace, [0.1], [1e-3], [pairs.weight.sum()])
    assert len(patches["patches"]) == 1
    sample = events.sample(pot=1e20)
    assert sample.weight.sum() == pytest.approx(events.weight.sum() / 1e20)
    assert not sample.in_domain.any()


def test_decay_weights_against_sampled_positions():
    events = mock(20_000)
    volume = Cylinder(radius=2.0, z0=3.0, z1=9.0)
    ctau = np.array([0.1, 5.0, 1e9])
    ours = decay_probability(events, volume, ctau)
    momentum = np.sqrt((events.parent[:, :3] ** 2).sum(axis=1))
    direction = events.parent[:, :3] / momentum[:, None]
    length = stream(1, "flight").exponential(1.0, len(events)) * 5.0 * momentum / events.mass
    point = events.origin + length[:, None] * direction
    inside = (point[:, 2] > 3) & (point[:, 2] < 9) & (np.hypot(point[:, 0], point[:, 1]) < 2)
    assert ours.shape == (3, 20_000)
    assert ours[1].mean() == pytest.approx(inside.mean(), abs=4 * inside.std() / len(inside) ** 0.5)
    assert ours[2].sum() < 1e-6 * len(events)


def test_bad_files(tmp_path):
    events = mock(20)
    with pytest.raises(InputFileError, match="no such file"):
        read_darknews(tmp_path / "none.parquet")
    (tmp_path / "pandas_df.pckl").write_bytes(b"cos\nsystem\n")
    with pytest.raises(InputFileError, match="pickles are not read"):
        read_darknews(tmp_path / "pandas_df.pckl")
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 nothing")
    with pytest.raises(InputFileError, match="no readable parquet"):
        read_darknews(tmp_path / "broken.parquet")
    write_parquet(tmp_path / "sparse.parquet", events, leave_out=("('pos_scatt', '2')",))
    with pytest.raises(BranchError, match="sparse"):
        read_darknews(tmp_path / "sparse.parquet")
    write_parquet(tmp_path / "MOCK.parquet", events)
    schema = load_schema()
    swapped = type(schema)(
        {**schema.parquet, "components": ["px", "py", "pz", "E"]}, schema.hepmc, schema.units
    )
    with pytest.raises(InputFileError, match="order of the components"):
        read_darknews(tmp_path / "MOCK.parquet", swapped)
    write_hepmc(tmp_path / "bare.hepmc3", events, weighted=False)
    with pytest.raises(BranchError, match="without weights"):
        read_darknews(tmp_path / "bare.hepmc3")
    with pytest.raises(PhysicsError, match="not finite"):
        DarkEvents(
            events.parent,
            events.daughter,
            events.particle,
            events.antiparticle,
            events.origin * np.nan,
            events.weight,
        )
