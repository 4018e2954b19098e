"""Decays of given dark states, against quadrature and against the cascades of dark photons."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad

from gammastar import semivisible
from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import stream
from gammastar.semivisible.cascade import decay, decay_states
from gammastar.semivisible.decays import Transition, decay_table, spectrum, width

N = 100_000


@pytest.fixture(scope="module")
def table():
    return decay_table(semivisible.load_benchmark("iDM-040").sector(1.0))


def moving(mass, n, rng):
    momentum = rng.normal(0.0, 0.5, (n, 3))
    return np.column_stack([momentum, np.sqrt((momentum**2).sum(axis=1) + mass**2)])


@pytest.mark.long
def test_mass_of_the_pair_in_flight(table):
    heavy, light = table.masses[1], table.masses[0]
    found = decay_states(table, 1, moving(heavy, N, stream(1)), stream(2))
    pair = found.particle + found.antiparticle
    mass = np.sqrt(pair[..., 3] ** 2 - (pair[..., :3] ** 2).sum(axis=-1)).ravel()
    t = Transition(heavy, light, 1.0, 1.0, 1.0)
    mean = quad(lambda x: np.exp(1.5 * x) * spectrum(t, np.exp(x)), *np.log(t.range), limit=200)[0] / width(t)
    electrons = found.kind.ravel() == 0
    assert electrons.all()
    assert mass.mean() == pytest.approx(mean, abs=4 * mass.std() / np.sqrt(N))
    rest = found.parent - found.daughter - found.particle - found.antiparticle
    assert np.abs(rest).max() < 1e-14 * found.parent[..., 3].max() * 10
    shell = found.daughter[..., 3] ** 2 - (found.daughter[..., :3] ** 2).sum(axis=-1)
    assert np.abs(shell - light**2).max() < 1e-13 * found.parent[..., 3].max() ** 2


@pytest.mark.long
def test_isotropic_in_the_rest_frame(table):
    rest = np.tile([0.0, 0.0, 0.0, table.masses[1]], (N, 1))
    found = decay_states(table, 1, rest, stream(3))
    for p in (found.daughter, found.particle):
        unit = p[:, 0, :3] / np.sqrt((p[:, 0, :3] ** 2).sum(axis=1))[:, None]
        assert np.abs(unit.mean(axis=0)).max() < 4.5 / np.sqrt(3 * N)
        assert np.cov(unit.T) == pytest.approx(np.eye(3) / 3, abs=0.01)


@pytest.mark.long
def test_same_decays_as_in_the_cascade(table):
    photons = np.tile([0.0, 0.0, 0.0, 1.0], (N, 1))
    chain = decay(table, photons, stream(4))
    alone = decay_states(table, 1, chain.parent[:, 0], stream(5))
    first, second = (np.sort(c.particle[:, 0, 3]) for c in (chain, alone))
    grid = np.linspace(first[0], first[-1], 500)
    gap = np.abs(np.searchsorted(first, grid) - np.searchsorted(second, grid)).max() / N
    assert gap < 1.95 * np.sqrt(2 / N)  # Kolmogorov-Smirnov, 0.1 %


def test_states_of_a_three_step_cascade():
    table = decay_table(semivisible.load_benchmark("AHP2020-B").sector())
    found = decay_states(table, 2, moving(table.masses[2], 1000, stream(6)), stream(7))
    assert found.state.shape == (1000, 2)
    assert (found.source[:, 0] == -1).all()
    assert (found.source[found.filled[:, 1], 1] == 0).all()


def test_what_cannot_decay(table):
    rest = np.tile([0.0, 0.0, 0.0, 1.0], (3, 1))
    with pytest.raises(PhysicsError, match="stable"):
        decay_states(table, 0, rest, stream(8))
    with pytest.raises(PhysicsError, match="off their mass"):
        decay_states(table, 1, rest, stream(8))
    with pytest.raises(PhysicsError, match="shape"):
        decay_states(table, 1, rest[0], stream(8))
