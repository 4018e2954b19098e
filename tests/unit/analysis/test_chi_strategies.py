"""Three strategies for millicharged pairs agree; one flow of mass, pt and energy follows its pairs."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from builders import ROOT

from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.sampling import Sampler, stream
from gammastar.mock import generate_pairs, load_card
from gammastar.predict.millicharge import chi_rate, conditional

pytest.importorskip("torch")
sys.path.insert(0, str(ROOT / "analysis"))
try:
    from validation.chi_strategies import (
        JointOptions,
        PairCloud,
        Trained,
        by_rejection,
        fit_joint,
        from_generator,
    )
finally:
    sys.path.pop(0)

pytestmark = pytest.mark.flow
EDGES = np.linspace(2 * M_MU, 1.1, 60)
BEAM = 400.0


class Simple(Sampler):
    """pT grows with the mass; energies are exponential."""

    def sample(self, mass, rng):
        pt = rng.exponential(0.3 + 0.3 * mass)
        return pt, np.sqrt(mass**2 + pt**2) + rng.exponential(10 + 10 * mass)

    @property
    def mass_range(self):
        return 0.0, 2.0


def everywhere(mass, pt, energy):  # noqa: ARG001
    return energy < 20.0


def _spectrum() -> np.ndarray:
    centre = 0.5 * (EDGES[1:] + EDGES[:-1])
    return 1e-7 * np.exp(-centre / 0.2) + 3e-8 * np.exp(-(((centre - 0.78) / 0.03) ** 2))


def _cloud(n: int) -> PairCloud:
    rng = np.random.default_rng(3)
    pairs = _spectrum()
    index = rng.choice(len(pairs), size=n, p=pairs / pairs.sum())
    m = EDGES[index] + np.diff(EDGES)[index] * rng.uniform(1e-9, 1, n)
    pt, energy = Simple().sample(m, rng)
    return PairCloud(m, pt, energy, np.full(n, pairs.sum() / n))


@pytest.mark.long
@pytest.mark.parametrize("m_chi", [0.01, 0.2, 0.37])
def test_three_strategies_agree(m_chi: float) -> None:
    rng = np.random.default_rng(4)
    pairs = _spectrum()
    total = float(chi_rate(EDGES, pairs, np.zeros(2 * pairs.shape), [m_chi], M_MU)[0][0])
    cloud = _cloud(300_000)
    default = conditional(m_chi, (EDGES, pairs), M_MU, Simple(), everywhere, n=100_000, rng=rng)
    rejected = by_rejection(m_chi, total, M_MU, cloud, everywhere, n=300_000, rng=rng)
    own = from_generator(total, cloud.weighted_for(m_chi, M_MU), everywhere, n=100_000, rng=rng)
    for found in (rejected, own):
        assert found.weight.sum() == pytest.approx(default.weight.sum(), rel=1e-12)
        for name in ("mass", "pt", "energy"):
            a = np.average(getattr(default, name), weights=default.weight)
            b = np.average(getattr(found, name), weights=found.weight)
            assert b == pytest.approx(a, rel=0.02), name
        assert (found.mass > 2 * m_chi).all()
    inside = [np.average(x.in_domain, weights=x.weight) for x in (default, rejected, own)]
    assert np.ptp(inside) < 0.02


def test_no_pair_above_threshold_is_refused() -> None:
    with pytest.raises(PhysicsError, match="none of"):
        by_rejection(0.6, 1.0, M_MU, _cloud(100), everywhere, n=100, rng=np.random.default_rng(5))
    with pytest.raises(PhysicsError, match="no measured pair"):
        _cloud(100).weighted_for(0.6, M_MU)


@pytest.mark.slow
def test_a_flow_of_its_own_agrees_with_the_conditional_one() -> None:
    """Two flows, one for all masses, one trained on pairs weighted for m_χ: the same mean energies."""
    from gammastar.flow import FlowOptions, fit

    m_chi, rng = 0.25, np.random.default_rng(11)
    cloud = _cloud(60_000)
    own = cloud.weighted_for(m_chi, M_MU)
    options = FlowOptions(epochs=6, epoch_size=30_000)
    flows = [
        fit(c.mass, c.pt, c.energy, c.weight / c.weight.mean(), beam_energy=BEAM, options=options, rng=rng)
        for c in (cloud, own)
    ]
    pairs = _spectrum()
    default = conditional(m_chi, (EDGES, pairs), M_MU, flows[0], everywhere, n=50_000, rng=rng)
    total = float(default.weight.sum())
    single = from_generator(total, Trained(flows[1], own), everywhere, n=50_000, rng=rng)
    for name in ("mass", "pt", "energy"):
        a = np.average(getattr(default, name), weights=default.weight)
        assert np.average(getattr(single, name), weights=single.weight) == pytest.approx(a, rel=0.06), name


OPTIONS = JointOptions(transforms=2, hidden=32, epochs=3)


@pytest.fixture(scope="module")
def measured():
    pairs = generate_pairs(load_card(data_path("cards/na60_mock.toml")), 12_000, stream(1, "pairs"))
    keep = (pairs.mass > 0.2125) & (pairs.mass < 1.1125)
    return PairCloud(*(a[keep] for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)))


@pytest.fixture(scope="module")
def joint(measured):
    return fit_joint(measured, beam_energy=400.0, options=OPTIONS, rng=stream(1, "joint"))


@pytest.mark.long
def test_points_are_physical_and_follow_the_pairs(measured, joint):
    mass, pt, energy = joint(12_000, stream(2, "draw"))
    assert ((mass >= measured.mass.min()) & (mass <= measured.mass.max())).all()
    assert (energy > np.hypot(mass, pt)).all()
    assert (energy < 400.0).all()
    share = measured.weight / measured.weight.sum()
    for drawn, given in ((mass, measured.mass), (pt, measured.pt), (np.log(energy), np.log(measured.energy))):
        assert drawn.mean() == pytest.approx(float(share @ given), rel=0.06)
    heavy = float(share @ (measured.mass > 0.6))
    assert (mass > 0.6).mean() == pytest.approx(heavy, abs=0.04)


@pytest.mark.long
def test_rejection_gives_the_rate_and_forbids_light_photons(measured, joint):
    def inside(mass, *_):
        return np.ones(len(mass), dtype=bool)

    photons = by_rejection(0.3, 1e-6, M_MU, joint, inside, n=12_000, rng=stream(3, "chi"))
    assert photons.mass.min() > 0.6
    assert photons.weight.sum() == pytest.approx(1e-6)
    own = measured.weighted_for(0.3, M_MU)
    expected = float(own.weight @ own.mass / own.weight.sum())
    assert np.average(photons.mass, weights=photons.weight) == pytest.approx(expected, rel=0.05)


@pytest.mark.long
def test_the_same_generator_gives_the_same_flow(measured, joint):
    again = fit_joint(measured, beam_energy=400.0, options=OPTIONS, rng=stream(1, "joint"))
    assert again.loss == joint.loss
    assert again.loss[-1] < again.loss[0]


def test_too_few_pairs_are_refused(measured):
    few = PairCloud(measured.mass[:50], measured.pt[:50], measured.energy[:50], measured.weight[:50])
    with pytest.raises(PhysicsError, match="at least 100"):
        fit_joint(few, beam_energy=400.0, rng=stream(1, "few"))
