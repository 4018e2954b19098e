"""Dark photons and millicharged pairs as files that other simulations read."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.errors import UserError
from gammastar.core.files import data_path
from gammastar.physics.bremsstrahlung import preset
from gammastar.physics.mesons import MesonTable
from gammastar.predict import Bremsstrahlung, PionDalitz, chi_pairs
from gammastar.predict.millicharge import chi_from_channel
from gammastar.store.events import unweighted, write_particle_list

BEAM = 400.0


def test_particle_list_of_dark_photons(tmp_path) -> None:
    rng = np.random.default_rng(1)
    sample = Bremsstrahlung(preset("na62"), BEAM).produce(0.3, n=50_000, rng=rng)
    path = tmp_path / "list.txt"
    write_particle_list(path, sample, 20_000, rng, note="dark photons of 0.3 GeV, bremsstrahlung")
    lines = path.read_text().splitlines()
    assert lines[0].startswith("# dark photons of 0.3 GeV")
    assert "0.00633" in lines[0]
    table = np.loadtxt(path)
    assert table.shape == (20_000, 8)
    mass2 = table[:, 3] ** 2 - (table[:, :3] ** 2).sum(axis=1)
    np.testing.assert_allclose(mass2, 0.09, atol=0.01)
    mean = np.average(sample.p4.E, weights=sample.weight)
    assert table[:, 3].mean() == pytest.approx(mean, rel=0.02)


def test_pairs_of_chi_are_lines_of_their_own(tmp_path) -> None:
    rng = np.random.default_rng(2)
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    photons = chi_from_channel(PionDalitz(table, BEAM), 0.02, mass_range=(0, 0.135), n=4000, rng=rng)
    sample = chi_pairs(photons, 0.02, rng=rng, longitudinal=0.0)
    drawn = unweighted(sample, 5000, rng)
    assert drawn.weight.sum() == pytest.approx(2 * photons.weight.sum())
    write_particle_list(tmp_path / "chi.txt", sample, 5000, rng, note="chi")
    assert len(np.loadtxt(tmp_path / "chi.txt")) == 5000


def test_negative_weights_are_refused() -> None:
    rng = np.random.default_rng(3)
    sample = Bremsstrahlung(preset("na62"), BEAM).produce(0.3, n=10, rng=rng)
    sample.weight[0] = -1.0
    with pytest.raises(UserError, match="negative"):
        unweighted(sample, 5, rng)


def test_pairs_of_chi_as_les_houches_events(tmp_path) -> None:
    pylhe = pytest.importorskip("pylhe")
    pytest.importorskip("pyhepmc")
    from gammastar.store.events import EventTable, write_events

    rng = np.random.default_rng(4)
    table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
    photons = chi_from_channel(PionDalitz(table, BEAM), 0.02, mass_range=(0, 0.135), n=40, rng=rng)
    sample = chi_pairs(photons, 0.02, rng=rng)
    n = len(photons.mass)
    p = np.stack([np.asarray(c) for c in (sample.p4.px, sample.p4.py, sample.p4.pz, sample.p4.E)])
    events = EventTable(
        number=np.arange(n),
        p4=p[:, :n] + p[:, n:],
        mass=photons.mass,
        weight=photons.weight,
        origin=sample.origin[:n].T,
        pdg=22,
        daughters=((9000008, p[:, :n]), (-9000008, p[:, n:])),
    )
    path = tmp_path / "chi.lhe"
    write_events(path, events, beam_energy=BEAM)
    found = list(pylhe.LHEFile.fromfile(str(path)).events)
    assert len(found) == n
    assert [particle.id for particle in found[0].particles] == [22, 9000008, -9000008]
    assert sum(event.eventinfo.weight for event in found) == pytest.approx(photons.weight.sum(), rel=1e-6)
