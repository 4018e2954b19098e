"""DarkNews events through the schema; the events here are MOCK, from our own cascade generator."""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np
import pytest
from builders import ROOT

from gammastar import infer, select, semivisible
from gammastar.core.errors import BranchError, InputFileError, PhysicsError
from gammastar.core.sampling import stream
from gammastar.physics.geometry import Cylinder
from gammastar.semivisible.cascade import decay
from gammastar.semivisible.decays import NeutrinoMixing, decay_table

sys.path.append(str(ROOT / "analysis" / "semivisible"))
from darknews_events import DarkEvents, decay_probability, load_schema
from darknews_files import read_darknews

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

COMPONENTS = (3, 0, 1, 2)  # E, px, py, pz


def mock(n=500):
    """MOCK decays ψ → ν e e of a dark photon's daughters that fly forward."""
    rng = stream(7, "darknews")
    sector = semivisible.load_benchmark("iDM-040").sector(0.3)
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


def write_hepmc(path, events, weighted=True, named=True):
    """Write events as DarkNews does; unweighted ones keep the names of the weights in the header."""
    hep = pytest.importorskip("pyhepmc")
    run = hep.GenRunInfo()
    if named:
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
    with pytest.raises(PhysicsError, match="weight -1"):
        replace(events, weight=-np.ones(len(events)))
    with pytest.raises(PhysicsError, match="not finite"):
        DarkEvents(
            events.parent,
            events.daughter,
            events.particle,
            events.antiparticle,
            events.origin * np.nan,
            events.weight,
        )


@pytest.mark.parametrize("named", [True, False])
def test_unweighted_files_are_refused_or_normalised(tmp_path, named):
    """DarkNews writes no weights with hep_unweight=True; the library reads ones under their names."""
    events, path = mock(50), tmp_path / "unweighted.hepmc3"
    write_hepmc(path, events, weighted=False, named=named)
    with pytest.raises(BranchError, match=r"no weights: each of the 50 events .* give expected="):
        read_darknews(path)
    found = read_darknews(path, expected=18364.0)
    assert found.weight.sum() == pytest.approx(18364.0)
    assert np.ptp(found.weight) == 0
    for bad in (0.0, -1.0, float("nan")):
        with pytest.raises(InputFileError, match="expected"):
            read_darknews(path, expected=bad)
    write_hepmc(tmp_path / "MOCK.hepmc3", events)
    write_parquet(tmp_path / "MOCK.parquet", events)
    for name in ("MOCK.hepmc3", "MOCK.parquet"):
        with pytest.raises(BranchError, match="leave expected= out"):
            read_darknews(tmp_path / name, expected=18364.0)


def mixed(n=400, boost=1.0):
    """MOCK decays of two states of different mass, one after the other, with different lifetimes."""
    parts = []
    for mass, seed in ((0.14, 1), (0.42, 2)):
        rng = stream(seed, "mixed")
        child, lepton = 0.3 * mass, 0.000511
        p = rng.uniform(1.0, 5.0, n) * boost
        parent = np.stack([0.05 * p, 0 * p, p, np.sqrt(1.0025 * p**2 + mass**2)], axis=1)
        # N → N' γ*(→ e e) along the line of flight, pair of the smallest mass: momenta add up exactly
        pair = 2 * lepton
        energy = (mass**2 + pair**2 - child**2) / (2 * mass)
        k = np.sqrt(energy**2 - pair**2)
        direction = parent[:, :3] / np.linalg.norm(parent[:, :3], axis=1)[:, None]
        gamma, beta_gamma = parent[:, 3] / mass, np.linalg.norm(parent[:, :3], axis=1) / mass
        both = np.column_stack(
            [direction * (beta_gamma * energy + gamma * k)[:, None], gamma * energy + beta_gamma * k]
        )
        parts.append((parent, parent - both, both / 2, both / 2, rng.uniform(-1, 1, (n, 3)), np.full(n, 2.0)))
    return DarkEvents(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def test_each_parent_has_its_own_lifetime():
    events, volume = mixed(), Cylinder(radius=3.0, z0=4.0, z1=9.0)
    assert events.parents == pytest.approx([0.14, 0.42], rel=1e-9)
    assert mixed(boost=2e3).parents == pytest.approx([0.14, 0.42], rel=1e-3)  # m² = E² − p² rounds at 10 TeV
    ctau = {0.14: 0.5, 0.42: 12.0}
    found = decay_probability(events, volume, events.per_parent(list(ctau.values())))
    assert found.shape == (1, 800)
    for n, mass in enumerate(ctau):
        alone = events.of_parent(mass)
        assert len(alone) == 400
        part = slice(400 * n, 400 * (n + 1))
        assert np.array_equal(alone.parent, events.parent[part])
        assert found[0, part] == pytest.approx(decay_probability(alone, volume, ctau[mass]), rel=1e-12)
        # by hand: a straight line from the origin, λ = p cτ/m
        p = np.linalg.norm(alone.parent[:, :3], axis=1)
        cosine = alone.parent[:, 2] / p
        first, last = ((z - alone.origin[:, 2]) / cosine for z in (4.0, 9.0))
        mean = p * ctau[mass] / mass
        central = np.hypot(alone.origin[:, 0] + last * np.sqrt(1 - cosine**2), alone.origin[:, 1]) < 2.9
        by_hand = np.exp(-first / mean) - np.exp(-last / mean)
        assert central.sum() > 300
        assert found[0, part][central] == pytest.approx(by_hand[central], rel=1e-9)
        assert alone.sample(1e20).weight.sum() == pytest.approx(800 / 1e20)
    both = events.per_parent([[0.5, 12.0], [1.0, 1.0]])
    assert decay_probability(events, volume, both).shape == (2, 800)


def test_one_lifetime_for_several_parents_is_refused():
    events, volume = mixed(), Cylinder(radius=3.0, z0=4.0, z1=9.0)
    for ctau in (1.0, [1.0, 2.0]):
        with pytest.raises(PhysicsError, match=r"2 parents of 0.14, 0.42 GeV, but one ctau"):
            decay_probability(events, volume, ctau)
    with pytest.raises(PhysicsError, match="a sample has one mass"):
        events.sample(1e20)
    with pytest.raises(PhysicsError, match=r"none of 0.3 GeV"):
        events.of_parent(0.3)
    for wrong in ([1.0], [1.0, 2.0, 3.0], 1.0):
        with pytest.raises(PhysicsError, match="must have one of each"):
            events.per_parent(wrong)
    alone = events.of_parent(0.42)
    for wrong, said in (
        (0.0, "must be positive"),
        (float("nan"), "must be positive"),
        (np.ones((1, 3)), "shape"),
    ):
        with pytest.raises(PhysicsError, match=said):
            decay_probability(alone, volume, wrong)
