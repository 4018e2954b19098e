"""Theory beside a measured spectrum: what it holds, and what may be added outside the measured domain."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pytest

from gammastar import predict
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Momenta, Sample
from gammastar.core.sources import EXTRAPOLATION
from gammastar.physics.bremsstrahlung import band, preset
from gammastar.physics.mesons import MesonTable
from gammastar.physics.qed import RTable
from gammastar.predict.production import Production, measured_production, rate_of, variations_of
from gammastar.spectrum import Trend
from gammastar.testing import check_channel

BEAM = 400.0
TABLE = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
CHANNELS = {
    "pion_dalitz": predict.PionDalitz(TABLE, BEAM),
    "pseudoscalar_dalitz": predict.PseudoscalarDalitz(TABLE, BEAM),
    "vector_dalitz": predict.VectorDalitz(TABLE, BEAM),
    "vector_mesons": predict.VectorMixing(TABLE, BEAM),
    "jpsi": predict.JPsi(TABLE, BEAM),
    "bremsstrahlung": predict.Bremsstrahlung(preset("qra_v2"), BEAM),
}


def soft(_mass, pt, energy):
    """A domain as that of a spectrometer beside the beam."""
    return (energy < 50.0) & (pt > 0.2)


@dataclass
class Cold:
    """A sampler that nobody asks."""

    mass_range: tuple[float, float]

    def sample(self, mass, _rng):
        return 0.3 * np.ones_like(mass), 20.0 + mass


def photons(lepton: float, low: float, high: float) -> predict.VirtualPhoton:
    centres = np.linspace(low, high, 5)
    return predict.VirtualPhoton(centres, np.ones(5), np.eye(5), Cold((low, high)), soft, None, None, lepton)


@pytest.mark.parametrize(
    ("lepton", "low", "high", "held"),
    [
        (M_MU, 0.2125, 1.1, {"pseudoscalar_dalitz", "vector_dalitz", "vector_mesons", "bremsstrahlung"}),
        (M_MU, 0.2125, 4.0, set(CHANNELS) - {"pion_dalitz"}),
        (M_MU, 1.2, 2.9, {"vector_mesons", "bremsstrahlung"}),
        (M_MU, 2.9, 3.3, {"vector_mesons", "bremsstrahlung", "jpsi"}),
        (M_E, 0.002, 1.0, set(CHANNELS) - {"jpsi"}),
        (M_E, 0.2, 1.0, set(CHANNELS) - {"jpsi", "pion_dalitz"}),
        (M_E, 0.002, 0.1, set(CHANNELS) - {"jpsi"}),
        (M_E, 0.96, 4.0, {"vector_mesons", "bremsstrahlung", "jpsi"}),
    ],
)
def test_what_a_spectrum_holds_follows_from_its_masses(lepton, low, high, held) -> None:
    measured = photons(lepton, low, high)
    for name, channel in CHANNELS.items():
        if name in held:
            with pytest.raises(PhysicsError, match="both contain"):
                predict.check_exclusive([measured, channel])
        else:
            predict.check_exclusive([measured, channel])


@pytest.mark.parametrize("name", ["pseudoscalar_dalitz", "vector_mesons"])
def test_hadrons_outside_the_domain_are_in_the_extrapolation(name) -> None:
    measured = photons(M_MU, 0.2125, 1.1)
    part = predict.Outside(CHANNELS[name], soft, measured.mass_range)
    with pytest.raises(PhysicsError, match=f"{name} outside the measured domain"):
        predict.check_exclusive([measured, part])


def test_bremsstrahlung_counts_outside_and_only_there() -> None:
    measured, whole = photons(M_MU, 0.2125, 1.1), CHANNELS["bremsstrahlung"]
    part = predict.Outside(whole, soft, measured.mass_range)
    predict.check_exclusive([measured, part])
    with pytest.raises(PhysicsError, match=r"\[predict\] outside"):
        predict.check_exclusive([measured, whole])
    with pytest.raises(PhysicsError, match="bremsstrahlung"):
        predict.check_exclusive([part, whole])
    check_channel(part, masses=(0.3, 0.8), n=2000)
    sample = part.produce(0.3, n=20_000, rng=np.random.default_rng(1))
    seen = sample.weight > 0
    assert not soft(0.3, np.asarray(sample.p4.pt), np.asarray(sample.p4.E))[seen].any()
    assert not sample.in_domain.any()


def test_the_share_outside_is_that_of_the_integral_over_the_kernel() -> None:
    """Gauss-Legendre over z and pT² where the domain is a step, against the rule of the channel."""
    kernel = preset("qra_v2")

    def beyond(_mass, pt, energy):
        return (pt > 0.5) & (energy < 100.0)

    part = predict.Outside(CHANNELS["bremsstrahlung"], beyond, (0.2, 1.1))
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def integral(z_range, pt2_range, mass):
        z = np.mean(z_range) + 0.5 * np.diff(z_range) * nodes
        low, high = np.log(np.asarray(pt2_range) + 1e-4)
        t = 0.5 * (low + high) + 0.5 * (high - low) * nodes
        pt2 = np.exp(t) - 1e-4
        grid = kernel.differential(z[:, None], pt2[None, :], mass, BEAM) * (pt2 + 1e-4)
        return 0.25 * float(np.diff(z_range)[0]) * (high - low) * float(weights @ grid @ weights)

    for mass in (0.3, 0.9):
        total = integral((0.1, 0.9), (0.0, 9.0), mass)
        inside = integral((0.1, 0.25), (0.25, 9.0), mass)  # E = 100 GeV is z = 0.25 to 0.1 %
        assert total == pytest.approx(float(kernel.rate(mass, BEAM)), rel=1e-3)
        assert 1 - part.share(mass)[0] == pytest.approx(inside / total, abs=0.004)


def test_the_band_of_the_forward_part_is_that_of_lambda() -> None:
    kernel = preset("qra_v2")
    channel = CHANNELS["bremsstrahlung"]
    sample = channel.produce(0.8, n=50_000, rng=np.random.default_rng(2))
    ends = channel.band(0.8, sample)
    for row, edge in zip(ends, band(kernel), strict=True):
        assert (row @ sample.weight) == pytest.approx(float(edge.rate(0.8, BEAM)), rel=0.01)
    assert ends[0].std() > 0.01  # Λ moves the kinematics too
    mesons = CHANNELS["pseudoscalar_dalitz"]
    low, high = mesons.band(0.3, mesons.produce(0.3, n=10, rng=np.random.default_rng(3)))[:, 0]
    assert (low + high) / 2 == pytest.approx(1.0)
    sigma = TABLE.mesons["eta"].sigma
    assert high - 1 == pytest.approx(sigma, rel=0.1)


def test_a_mixture_says_who_made_each_particle_and_deals_evenly() -> None:
    measured, forward = photons(M_MU, 0.2125, 1.1), CHANNELS["bremsstrahlung"]
    part = predict.Outside(forward, soft, measured.mass_range)
    both = predict.Mixture((measured, part), even=0.5)
    sample = both.produce(0.5, n=8000, rng=np.random.default_rng(4))
    members = both.members(0.5, 8000)
    assert min(np.bincount(members)) >= 1999
    for i, channel in enumerate((measured, part)):
        assert sample.weight[members == i].sum() == pytest.approx(float(channel.rate([0.5])[0][0]))


@dataclass
class Spread(Cold):
    """Energies from 5 to 95 GeV: half of the photons are measured."""

    def sample(self, mass, rng):
        return 0.3 * np.ones_like(mass), rng.uniform(5.0, 95.0, len(mass))


@dataclass
class Forward(predict.Channel):
    """Twice as many dark photons as were measured, harder than all of these."""

    group = "forward"
    processes = frozenset({"forward"})
    mass_range = (0.0, 2.0)

    def rate(self, mass):
        n = len(np.atleast_1d(mass))
        return np.full(n, 2.0), np.zeros((n, n))

    def produce(self, mass, *, n, rng):
        pz = rng.uniform(100.0, 300.0, n)
        p4 = Momenta(np.zeros(n), np.zeros(n), pz, np.hypot(pz, mass))
        return Sample(p4, np.full(n, 2.0 / n), np.zeros((n, 3)), np.zeros(n, dtype=bool))


def beside(factor: float) -> Production:
    """Return measured photons and theory, with a trend that moves what was not measured by a factor."""
    measured = replace(photons(M_MU, 0.3, 1.0), sampler=Spread((0.3, 1.0)))
    dark = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    found = measured_production(
        measured, [Forward()], dark, Exposure(BEAM, 12.0, 6.0, 1.0, 1e10), lambda _: {}
    )
    trend = Trend(np.array([0.2, 1.0]), np.full(2, np.log(factor)), np.zeros(2), np.zeros((2, 2)), BEAM)
    return replace(found, trend=trend)


def test_measured_part_and_extrapolation_are_those_of_particles_beside_theory() -> None:
    """Counted in a sample of the whole production, of which the measured photons are a third."""
    production, mass = beside(1.5), 0.5
    found = rate_of(production, np.array([mass]), {}, seed=3)
    n = 16_000
    sample = production.channel.produce(mass, n=n, rng=np.random.default_rng(6))
    members = production.members(mass, n)
    noise = 4 * np.sqrt(0.25 / 4000 + 0.25 / np.bincount(members)[0]) / 3
    part = sample.weight[sample.in_domain].sum() / sample.weight.sum()
    assert part == pytest.approx(1 / 6, abs=noise)
    assert found.measured_part[0] == pytest.approx(part, abs=noise)
    assert found.extrapolation[0] == pytest.approx(0.5 * (1 / 3 - part), abs=noise)
    (own,) = (v for v in variations_of(production, mass, sample, members=members) if v.name == EXTRAPOLATION)
    moved = own.factors @ sample.weight / sample.weight.sum()
    np.testing.assert_allclose(moved[:3], 1 + 0.5 * (1 / 3 - part), rtol=1e-9)  # theory stays where it is
    np.testing.assert_allclose(moved[3:], 1.0)  # this trend has no power towards the kinematic limit
