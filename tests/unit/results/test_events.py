"""Samples of a flow as files: parts of one sample, masses from a list and a spectrum, every format."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import uproot

pytest.importorskip("torch")
pytest.importorskip("zuko")

from gammastar import flow
from gammastar.core.errors import PhysicsError, UserError
from gammastar.results import events
from gammastar.store.events import write_events

pytestmark = pytest.mark.flow


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    rng = np.random.default_rng(1)
    mass = rng.uniform(0.3, 1.0, 3000)
    pt = rng.gamma(2.0, 0.2, 3000)
    energy = np.hypot(mass, pt) * np.cosh(rng.uniform(2.5, 4.5, 3000))
    options = flow.FlowOptions(epochs=1, epoch_size=1024, hidden=8, bins=4, mass_range=(0.3, 1.0))
    path = tmp_path_factory.mktemp("flow") / "flow"
    flow.save(flow.fit(mass, pt, energy, beam_energy=400.0, options=options, rng=rng), path)
    return path


def columns(path):
    with uproot.open(path) as file:
        return file["events"].arrays(library="np")


def test_parts_are_the_whole(saved, tmp_path, monkeypatch):
    more = {"mass": 0.6, "decay": "mumu", "ctau": 2.0, "seed": 4}
    events.sample_file(saved, 900, tmp_path / "whole.root", **more)
    monkeypatch.setattr(events, "CHUNK", 250)
    events.sample_file(saved, 900, tmp_path / "chunks.root", **more)
    events.sample_file(saved, 300, tmp_path / "part.root", first=600, **more)
    whole, chunks, part = (columns(tmp_path / f"{name}.root") for name in ("whole", "chunks", "part"))
    for name, values in whole.items():
        np.testing.assert_array_equal(values, chunks[name])
        np.testing.assert_array_equal(values[600:], part[name])
    assert (whole["event"] == np.arange(900)).all()


@pytest.mark.long
@pytest.mark.parametrize("suffix", [".parquet", ".lhe.gz", ".hepmc3"])
def test_formats_do_not_depend_on_the_chunks(saved, tmp_path, monkeypatch, suffix):
    pytest.importorskip({".parquet": "pyarrow", ".lhe.gz": "pylhe", ".hepmc3": "pyhepmc"}[suffix])
    found = []
    for chunk in (1000, 7):
        monkeypatch.setattr(events, "CHUNK", chunk)
        path = tmp_path / f"{chunk}{suffix}"
        events.sample_file(saved, 20, path, mass=0.5, decay="ee")
        found.append(read(path, suffix))
    assert found[0] == found[1]
    assert len(found[0]) == 20


def read(path, suffix):
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        return pq.read_table(path).to_pylist()
    if suffix == ".lhe.gz":
        import pylhe

        file = pylhe.LHEFile.fromfile(str(path))
        assert file.init.procInfo[0].xSection == 20.0
        return [[(p.id, p.px, p.e) for p in event.particles] for event in file.events]
    import pyhepmc

    with pyhepmc.open(str(path)) as file:
        return [[(p.pid, p.momentum.e) for p in event.particles] for event in file]


def test_masses_of_a_list_and_of_a_spectrum(saved, tmp_path):
    (tmp_path / "m.txt").write_text("0.4\n0.9\n0.5\n")
    assert events.sample_file(saved, None, tmp_path / "m.root", masses=tmp_path / "m.txt").startswith("3 ")
    np.testing.assert_array_equal(columns(tmp_path / "m.root")["mass"], [0.4, 0.9, 0.5])
    edges, contents = np.array([0.3, 0.5, 0.7]), np.array([4.0, 2.0])
    drawn = flow.draw_events(flow.load(saved), 4000, seed=1, mass=(edges, contents))
    assert (drawn.mass < 0.5).mean() == pytest.approx(2 / 3, abs=0.04)


def test_spectrum_above_a_mass(saved, tmp_path, monkeypatch):
    axes = [SimpleNamespace(name="pt", edges=[0.0, 9.0]), SimpleNamespace(name="mass", edges=[0.3, 0.5, 0.7])]
    spectrum = SimpleNamespace(hist=SimpleNamespace(axes=axes, ndim=2), values=np.array([[4.0, 2.0]]))
    monkeypatch.setattr(events, "read_spectrum", lambda _: spectrum)
    events.sample_file(saved, 4000, tmp_path / "s.root", spectrum=tmp_path / "s.json", above=0.4)
    mass = columns(tmp_path / "s.root")["mass"]
    assert mass.min() >= 0.4
    # half of the first bin is left
    assert (mass < 0.5).mean() == pytest.approx(0.5, abs=0.04)
    with pytest.raises(UserError, match=r"end at 0\.7"):
        events.sample_file(saved, 5, tmp_path / "s.root", spectrum=tmp_path / "s.json", above=0.8)


def test_refused_samples(saved, tmp_path):
    output = tmp_path / "x.root"
    (tmp_path / "bad.txt").write_text("0.4\nabc\n")
    with pytest.raises(UserError, match="list of masses"):
        events.sample_file(saved, None, output, masses=tmp_path / "bad.txt")
    with pytest.raises(UserError, match="either --mass or --spectrum"):
        events.sample_file(saved, 5, output)
    with pytest.raises(UserError, match="-n"):
        events.sample_file(saved, None, output, mass=0.5)
    with pytest.raises(PhysicsError, match="outside the range"):
        events.sample_file(saved, 5, output, mass=2.0)
    assert not output.exists()
    with pytest.raises(UserError, match="total of the weights"):
        write_events(tmp_path / "x.lhe", iter([]), beam_energy=400.0)
