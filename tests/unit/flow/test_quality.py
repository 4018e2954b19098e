"""Classifier, marginals and the Laplace posterior on flows whose truth is known."""

from __future__ import annotations

import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

from builders import ROOT

from gammastar.core.sampling import Sampler
from gammastar.flow import FlowOptions, fit
from gammastar.flow.options import Table

sys.path.insert(0, str(ROOT / "analysis"))
from validation._laplace import laplace
from validation._quality import quality

pytestmark = pytest.mark.flow
BEAM = 400.0


def draw(mass, rng):
    pt = rng.gamma(2.2, 0.15 + 0.15 * mass)
    energy = np.hypot(mass, pt) * np.cosh(np.abs(rng.normal(4.0, 0.4, len(mass))))
    return pt, np.minimum(energy, 399.0)


class Truth(Sampler):
    """The truth itself, with another energy if asked for."""

    def __init__(self, shift=0.0):
        self.shift = shift

    @property
    def mass_range(self):
        return (0.2, 1.2)

    def sample(self, mass, rng):
        pt, energy = draw(mass, rng)
        return pt, np.minimum(energy * (1 + self.shift), 399.5)


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(1)
    mass = rng.uniform(0.25, 1.1, 10_000)
    return np.column_stack([mass, *draw(mass, rng)])


@pytest.fixture(scope="module")
def flow(data):
    options = FlowOptions(epochs=6, epoch_size=8192, hidden=16, bins=8)
    return fit(*data.T, beam_energy=BEAM, options=options, rng=np.random.default_rng(2))


def test_quality_accepts_the_truth_and_refuses_another(data):
    rng = np.random.default_rng(3)
    same = quality(Truth(), data, beam_energy=BEAM, rng=rng)
    other = quality(Truth(0.1), data, beam_energy=BEAM, rng=rng)
    assert abs(same.auc - 0.5) < 4 * same.auc_error
    assert other.auc > 0.5 + 5 * other.auc_error
    assert min(p for _, p in same.marginals.values()) > 1e-3
    assert other.marginals["energy"][1] < 1e-6
    assert other.marginals["pt"][1] > 1e-3
    assert same.unphysical == 0
    assert same.beyond < 0.01


@pytest.mark.long
def test_laplace_posterior(flow, data):
    n = len(data)
    table = Table(*data.T.copy(), np.ones(n), np.arange(n))
    rng = np.random.default_rng(5)
    many = laplace(flow, table, rng=rng, members=6, n_pairs=3000)
    few = laplace(
        flow,
        Table(*data[:500].T.copy(), np.ones(500), np.arange(500)),
        rng=rng,
        members=6,
        n_pairs=3000,
    )
    mass = np.full(6_000, 0.6)  # the same numbers for all members
    normal = rng.standard_normal((6_000, 2))

    def spread(ensemble):
        return np.std([member.transform(mass, normal)[1].mean() for member in ensemble.members])

    mean = flow.transform(mass, normal)[1].mean()
    # the statistical error of a mean of n pairs, shared between masses, is its scale
    assert 0 < spread(many) / mean < 0.05
    assert spread(few) > 1.5 * spread(many)
    losses = [-member.log_prob(*data.T).mean() for member in many.members]
    assert max(losses) + flow.log_prob(*data.T).mean() < 0.15
