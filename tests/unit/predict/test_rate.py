"""Eq. 6 against closed forms, covariance, sampling at one mass, and exclusive channels."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import pytest
from builders import ROOT
from scipy import stats

from gammastar import predict
from gammastar.core import constants
from gammastar.core.constants import ALPHA, M_E, M_MU, M_PI0
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Sample
from gammastar.core.sampling import Sampler
from gammastar.physics.hadrons import eta2
from gammastar.physics.qed import RTable, kappa, pseudoscalar_dalitz
from gammastar.predict.channel import interpolate_rate, produce
from gammastar.predict.production import sources_of

M_ETA = constants.mass(221)
ETA_PHOTONS = constants.branching("eta -> gamma gamma")
PI0_PHOTONS = constants.branching("pi0 -> gamma gamma")
R_TABLE = ROOT / "data" / "measurements" / "r_ratio.csv"


class Exponential(Sampler):
    """pt of mean 0.4 GeV and excess energy of mean 20 GeV."""

    def sample(self, mass, rng):
        pt = rng.exponential(0.4, len(mass))
        return pt, np.sqrt(mass**2 + pt**2) + rng.exponential(20.0, len(mass))

    @property
    def mass_range(self):
        return 0.22, 1.1


def below_fifty(mass, pt, energy):  # noqa: ARG001
    return energy < 50.0


@pytest.mark.parametrize(
    ("mass", "branching"), [(0.25, 0.5056), (0.3, 0.3961), (0.4, 0.1681), (0.5, 0.01377)]
)
def test_eta_dalitz_returns_its_dark_photon_branching_ratio(mass: float, branching: float) -> None:
    """Eq. 6 on dΓ(η → γμμ) is 2 ε² BR(γγ) (1 − m²/M²)³ |F|², with no free parameter."""
    dn_dm = ETA_PHOTONS * 2 * mass * pseudoscalar_dalitz(mass**2, M_ETA, M_MU, eta2)
    value, _ = predict.rate([mass], [dn_dm], np.zeros((1, 1)), M_MU)
    assert value[0] == pytest.approx(branching, rel=5e-4)
    exact = 2 * ETA_PHOTONS * (1 - (mass / M_ETA) ** 2) ** 3 * eta2(np.array(mass**2))
    assert value[0] == pytest.approx(exact, rel=1e-12)


def test_pi0_dalitz_with_electrons() -> None:
    mass = np.array([0.05, 0.10, 0.13])
    dn_dm = PI0_PHOTONS * 2 * mass * pseudoscalar_dalitz(mass**2, M_PI0, M_E, np.ones_like)
    value, _ = predict.rate(mass, dn_dm, np.zeros((3, 3)), M_E)
    np.testing.assert_allclose(value, [1.2694, 0.18145, 7.496e-4], rtol=5e-4)


def test_narrow_vector_at_its_pole() -> None:
    """A Breit-Wigner of ω → ee at the pole gives (3/α)(M/Γ) BR, but for the threshold factor."""
    m, gamma, electrons = constants.mass(223), constants.width(223), constants.branching("omega -> e e")
    dn_dm = electrons * 2 / (np.pi * gamma)  # at the pole
    value, _ = predict.rate([m], [dn_dm], np.zeros((1, 1)), M_E)
    assert value[0] == pytest.approx(3 / ALPHA * m / gamma * electrons, rel=1e-4)
    assert value[0] == pytest.approx(2.747, rel=1e-3)


def test_covariance_follows_the_rate() -> None:
    rng = np.random.default_rng(3)
    mass = np.linspace(0.3, 1.0, 8)
    root = rng.normal(size=(8, 8))
    density, cov = rng.uniform(1, 2, 8), root @ root.T
    value, propagated = predict.rate(mass, density, cov, M_MU)
    factor = mass / (2 * kappa(mass, M_MU))
    np.testing.assert_allclose(value, factor * density)
    np.testing.assert_allclose(propagated, np.diag(factor) @ cov @ np.diag(factor))
    toys = rng.multivariate_normal(density, cov, 20000) * factor
    np.testing.assert_allclose(np.cov(toys.T), propagated, atol=0.06 * np.abs(propagated).max())


def test_bins_below_the_threshold_take_no_part() -> None:
    """A whole run found it: one bin of no muon pairs made all rates nan."""
    edges, density = np.array([0.12, 0.2, 0.3, 0.5, 0.8]), np.array([0.0, 2.0, 3.0, 1.0])
    photons = []
    for first in (0, 1):
        bins, centres = edges[first:], 0.5 * (edges[first + 1 :] + edges[first:-1])
        found = predict.rate(centres, density[first:], np.eye(4 - first), M_MU, edges=bins)
        photons.append(predict.VirtualPhoton(centres, *found, Exponential(), below_fifty))
    one, other = photons
    assert one.mass_range == other.mass_range
    for ours, theirs in zip(one.rate([0.25, 0.3, 0.6]), other.rate([0.25, 0.3, 0.6]), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-14)
    shift = np.array([0.0, 0.1, 0.2, 0.3])
    np.testing.assert_array_equal(one.moved([0.3, 0.6], shift), other.moved([0.3, 0.6], shift[1:]))


def test_interpolation_is_linear_with_its_error() -> None:
    centres, rates = np.array([0.3, 0.4, 0.6]), np.array([1.0, 3.0, 2.0])
    cov = np.diag([0.04, 0.09, 0.01])
    value, propagated = interpolate_rate([0.3, 0.35, 0.5, 0.6], centres, rates, cov)
    np.testing.assert_allclose(value, [1.0, 2.0, 2.5, 2.0])
    np.testing.assert_allclose(np.diag(propagated), [0.04, 0.0325, 0.025, 0.01])
    assert propagated[1, 2] == pytest.approx(0.25 * 0.09)  # both lean on the middle bin
    with pytest.raises(
        PhysicsError, match=r"0\.65 GeV lies outside the measured centres 0\.3 to 0\.6 GeV.*\[predict\]"
    ):
        interpolate_rate(0.65, centres, rates, cov)


def test_rate_refuses_threshold_and_bad_shapes() -> None:
    with pytest.raises(PhysicsError, match="threshold"):
        predict.rate([0.2, 0.3], [1.0, 1.0], np.eye(2), M_MU)
    with pytest.raises(PhysicsError, match="do not fit"):
        predict.rate([0.3, 0.4], [1.0, 1.0], np.eye(3), M_MU)


@pytest.fixture(scope="module")
def channel() -> predict.VirtualPhoton:
    centres = np.array([0.25, 0.45, 1.05])
    return predict.VirtualPhoton(
        centres, np.array([3e-3, 1e-3, 1e-4]), np.zeros((3, 3)), Exponential(), below_fifty
    )


def test_sample_is_on_shell_and_symmetric(channel: predict.VirtualPhoton) -> None:
    sample = channel.produce(0.35, n=40000, rng=np.random.default_rng(4))
    assert sample.weight.sum() == pytest.approx(2e-3)
    np.testing.assert_allclose(sample.p4.mass, 0.35, rtol=1e-6)
    assert stats.kstest(sample.p4.phi, stats.uniform(-np.pi, 2 * np.pi).cdf).pvalue > 1e-3
    assert stats.kstest(sample.p4.pt, stats.expon(0, 0.4).cdf).pvalue > 1e-3
    np.testing.assert_array_equal(sample.in_domain, sample.p4.E < 50.0)
    assert (sample.p4.pz >= 0).all()
    assert not sample.origin.any()


def test_produce_refuses_what_is_not_physical(channel: predict.VirtualPhoton) -> None:
    rng = np.random.default_rng(5)
    with pytest.raises(PhysicsError, match=r"known from 0\.22 to 1\.1"):
        produce(1.2, 1e-3, Exponential(), below_fifty, n=10, rng=rng)
    with pytest.raises(PhysicsError, match="merge mass bins"):
        produce(0.5, -1e-3, Exponential(), below_fifty, n=10, rng=rng)
    with pytest.raises(PhysicsError, match="outside the measured centres"):
        channel.produce(1.08, n=10, rng=rng)

    class Cold(Exponential):
        def sample(self, mass, rng):
            pt, _ = super().sample(mass, rng)
            return pt, 0.5 * mass

    with pytest.raises(PhysicsError, match="transverse mass"):
        produce(0.5, 1e-3, Cold(), below_fifty, n=10, rng=rng)


class Bremsstrahlung(predict.Channel):
    """A theory channel of which the data-driven one already holds the process."""

    group: ClassVar[str] = "bremsstrahlung"
    processes: ClassVar[frozenset[str]] = frozenset({"bremsstrahlung"})

    def rate(self, mass):
        return np.zeros_like(mass), np.zeros((len(mass), len(mass)))

    def produce(self, mass, *, n, rng) -> Sample:
        return produce(mass, 0.0, Exponential(), below_fifty, n=n, rng=rng)


class Charmonium(Bremsstrahlung):
    """Something that is in no other channel."""

    group: ClassVar[str] = "charmonium"
    processes: ClassVar[frozenset[str]] = frozenset({"charmonium"})


def test_no_process_is_counted_twice(channel: predict.VirtualPhoton) -> None:
    predict.check_exclusive([channel, Charmonium()])
    predict.check_exclusive([Bremsstrahlung(), Charmonium()])
    with pytest.raises(PhysicsError, match=r"'virtual_photon' and 'bremsstrahlung' both contain"):
        predict.check_exclusive([channel, Charmonium(), Bremsstrahlung()])
    with pytest.raises(PhysicsError, match="both contain"):
        predict.check_exclusive([channel, channel])


def test_dark_photon_state() -> None:
    model = predict.DarkPhoton(RTable.read(R_TABLE))
    state = model.at(0.3, 1e-6)
    assert state.ctau == pytest.approx(1.42e-13 * 1e12, rel=5e-3)
    assert sum(state.branching.values()) == pytest.approx(1.0)
    assert state.charge == 0
    assert model.at(2 * M_MU, 1e-6).branching["mumu"] == 0.0
    np.testing.assert_allclose(model.ctau(0.3, np.array([1e-6, 1e-5])), state.ctau * np.array([1, 1e-2]))


def test_sources_of_a_rate_add_up_to_its_errors() -> None:
    """Named ones are in the covariance, and the rest of it is what they leave; protons come beside."""
    rate, shift = np.array([4.0, 2.0]), np.array([0.4, -0.2])
    cov = np.diag([0.3, 0.1]) + np.outer(shift, shift)
    found = sources_of("measurement", rate, cov, 0.1, {"charm": shift})
    np.testing.assert_allclose(found.total(), cov + 0.01 * np.outer(rate, rate), atol=1e-12)
