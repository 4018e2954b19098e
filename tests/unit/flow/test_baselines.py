"""Kernel and mixture samplers recover a known conditional density."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.errors import PhysicsError
from gammastar.spectrum.baselines import KernelSampler, MixtureSampler

BEAM = 400.0


def made(mass, rng):
    pt = np.exp(rng.normal(np.log(0.3 + 0.5 * mass), 0.4))
    energy = np.exp(rng.normal(3.2 + 0.5 * mass, 0.4))
    good = (energy > np.hypot(mass, pt)) & (energy < BEAM)
    return np.column_stack([mass, pt, energy])[good]


@pytest.fixture(scope="module", params=["kernel", "mixture"])
def sampler(request):
    rng = np.random.default_rng(1)
    pairs = made(rng.uniform(0.3, 1.0, 30_000), rng)
    weight = np.where(rng.random(len(pairs)) < 0.5, 1.0, 2.0)
    if request.param == "kernel":
        return KernelSampler(pairs, weight, beam_energy=BEAM)
    return MixtureSampler(pairs, weight, beam_energy=BEAM, components=8, rng=rng)


def test_recovers_the_density(sampler):
    rng = np.random.default_rng(2)
    for mass in (0.4, 0.65, 0.9):
        expected = made(np.full(40_000, mass), rng)
        pt, energy = sampler.sample(np.full(40_000, mass), rng)
        assert np.log(pt).mean() == pytest.approx(np.log(expected[:, 1]).mean(), abs=0.03)
        assert np.log(energy).mean() == pytest.approx(np.log(expected[:, 2]).mean(), abs=0.03)
        # kernels widen the density by their own width
        assert np.log(pt).std() == pytest.approx(np.log(expected[:, 1]).std(), rel=0.1)
        assert ((energy > np.hypot(mass, pt)) & (energy < BEAM)).all()


def test_limits(sampler):
    with pytest.raises(PhysicsError, match="range"):
        sampler.sample(np.array([1.5]), np.random.default_rng(1))
    first = sampler.sample(np.full(100, 0.5), np.random.default_rng(1))
    np.testing.assert_array_equal(first, sampler.sample(np.full(100, 0.5), np.random.default_rng(1)))


def test_refused_pairs():
    pairs = made(np.full(1000, 0.5), np.random.default_rng(1))
    with pytest.raises(PhysicsError, match="not negative"):
        KernelSampler(pairs, -np.ones(len(pairs)), beam_energy=BEAM)
    with pytest.raises(PhysicsError, match="n ≥ 100"):
        MixtureSampler(pairs[:5], beam_energy=BEAM, rng=np.random.default_rng(1))
    with pytest.raises(PhysicsError, match="mass_width"):
        KernelSampler(pairs, beam_energy=BEAM, mass_width=0.0)
