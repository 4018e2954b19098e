"""Yields for all couplings from one sample: Eq. B1, conservation, reweighting, faults."""

from __future__ import annotations

import dataclasses
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import vector
from builders import ROOT, particles

from gammastar import accept
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError, PortabilityError
from gammastar.core.records import Exposure, Sample
from gammastar.physics.detector import Detector, LeptonCuts, Plane, Target, load_detector
from gammastar.physics.geometry import Cone, Cylinder, Frustum

DETECTORS = ROOT / "data" / "detectors"
NA60 = Exposure(beam_energy=400.0, target_a=207.2, target_z=82, thickness=0.01, pot=1e13)
MASS = 0.3
BOX = Frustum(20.0, 60.0, 2.0, 2.0, 2.0, 2.0)


class Model:
    """cτ = 1e-12 m/ε², half to muons, thresholds as for a dark photon."""

    def ctau(self, _mass, coupling):
        return 1e-12 / np.asarray(coupling) ** 2

    def branching(self, _mass):
        return {"ee": 0.4, "mumu": 0.5, "hadrons": 0.1}


def sample(n: int, *, mass: float = MASS, seed: int = 1, width: float = 0.3) -> Sample:
    """Hard forward particles with weights that vary; the slow half counts as measured."""
    rng = np.random.default_rng(seed)
    px, py = rng.normal(0, width, (2, n))
    pz = 2.0 + rng.exponential(30.0, n)
    return particles(px, py, pz, mass, weight=rng.uniform(0.5, 1.5, n) / n, in_domain=pz < 20.0)


def monochromatic(n: int, momentum: float, *, cone: float, seed: int = 2) -> Sample:
    """One momentum, isotropic within a cone about the beam."""
    rng = np.random.default_rng(seed)
    cosine, phi = rng.uniform(np.cos(cone), 1, n), rng.uniform(-np.pi, np.pi, n)
    pt = momentum * np.sqrt(1 - cosine**2)
    energy = np.full(n, np.hypot(momentum, MASS))
    p4 = vector.array({"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": momentum * cosine, "E": energy})
    return Sample(p4, np.full(n, 1 / n), np.zeros((n, 3)), np.ones(n, dtype=bool))


def detector(accept_on: Any = "parent", **changes: Any) -> Detector:
    """A box behind a lead dump at 400 GeV."""
    values: dict[str, Any] = {
        "name": "box",
        "source": "test",
        "beam_energy": 400.0,
        "target": Target(207.2, 82, 0.01),
        "pot": 1e15,
        "volume": BOX,
        "accept_on": accept_on,
        "efficiency": {"ee": 0.8, "mumu": 0.9},
        "sources": {},
        "planes": (Plane("tracker", 65.0, half_x=2.5, half_y=2.5),) if accept_on == "daughters" else (),
    }
    return Detector(**{**values, **changes})


def rng(seed: int = 9) -> np.random.Generator:
    return np.random.default_rng(seed)


def acceptance(particles: Sample, ctau: np.ndarray, detector: Detector) -> tuple[np.ndarray, np.ndarray]:
    """Return Eq. B1 and its error: the weighted mean over the sample."""
    scan = accept.lifetime_scan(particles, MASS, ctau, detector, states={"mumu": 1.0}, rng=rng())
    return scan.accepted / particles.weight.sum(), scan.mc_error / particles.weight.sum()


def test_parent_mode_is_equation_b1() -> None:
    shield = load_detector(DETECTORS / "appendix_b.toml")
    particles = sample(5000, width=1.0)
    ctau = np.logspace(-6, 3, 19)
    got, _ = acceptance(particles, ctau, shield)
    p4, brute = particles.p4, []
    angle = np.arctan2(np.asarray(p4.pt), np.asarray(p4.pz))
    for value in ctau:
        gamma_v = np.asarray(p4.p) / MASS
        passed = (angle > 0.035) & (angle < 0.120)
        brute.append(np.average(passed * np.exp(-5.0 / (gamma_v * value)), weights=particles.weight))
    np.testing.assert_allclose(got, brute, rtol=1e-12)
    assert got[0] < 1e-3 * got[-1]


def test_cone_acceptance_and_its_error_are_analytic() -> None:
    """Isotropic within 0.3 rad: the share between 35 and 120 mrad is a ratio of solid angles."""
    shield = load_detector(DETECTORS / "appendix_b.toml")
    ctau = np.array([0.01, 1.0, 1e9])
    got, error = acceptance(monochromatic(40000, 20.0, cone=0.3), ctau, shield)
    share = (np.cos(0.035) - np.cos(0.120)) / (1 - np.cos(0.3))
    expected = share * np.exp(-5.0 * MASS / (20.0 * ctau))
    assert (np.abs(got - expected) < 4 * error).all()
    np.testing.assert_allclose(
        error, np.exp(-5.0 * MASS / (20.0 * ctau)) * np.sqrt(share * (1 - share) / 40000), rtol=0.02
    )


@pytest.mark.parametrize("accept_on", ["parent", "daughters"])
def test_long_and_short_lifetimes(accept_on: str) -> None:
    """Linear in 1/cτ when long, without cancellation down to 1e-12; exponential when short."""
    ctau = np.logspace(4, 12, 9)
    scan = accept.lifetime_scan(sample(2000), MASS, ctau, detector(accept_on), states={"ee": 1.0}, rng=rng())
    linear = scan.accepted * ctau
    np.testing.assert_allclose(linear[1:] / linear[-1], 1.0, rtol=1e-3)
    np.testing.assert_allclose(linear[4:] / linear[-1], 1.0, rtol=1e-7)
    short = np.array([0.01, 0.005, 1e-3, 1e-30, 5e-324])
    one = monochromatic(20000, 100.0, cone=0.01)
    scan = accept.lifetime_scan(one, MASS, short, detector(accept_on), states={"ee": 1.0}, rng=rng())
    if accept_on == "parent":
        entry = 20.0 / np.asarray(one.p4.costheta)
        expected = np.exp(-np.multiply.outer(MASS / (100.0 * short[:3]), entry)).mean(axis=1)
        np.testing.assert_allclose(scan.accepted[:3], expected, rtol=1e-4)
    assert (scan.accepted[3:] == 0).all()
    stable = accept.lifetime_scan(one, MASS, np.inf, detector(accept_on), states={"ee": 1.0}, rng=rng())
    assert stable.accepted[0] == 0


def test_decays_of_adjacent_volumes_add_up() -> None:
    """Slabs without gaps hold, together, every decay behind the first plane, at any lifetime."""
    particles, ctau = sample(3000), np.logspace(-5, 5, 21)
    edges = [0.0, 0.5, 3.0, 20.0, 400.0]

    def accepted(volume: Any) -> np.ndarray:
        box = detector(volume=volume)
        return accept.lifetime_scan(particles, MASS, ctau, box, states={"ee": 1.0}, rng=rng()).accepted

    slabs = [accepted(Cylinder(np.inf, low, high)) for low, high in pairwise(edges)]
    beyond = accepted(Cone(0.0, 1.5, 400.0))
    np.testing.assert_allclose(sum(slabs) + beyond, particles.weight.sum(), rtol=1e-12)


def test_forced_decays_have_the_exact_mean_at_all_lifetimes() -> None:
    chord = np.tile([5.0, 45.0], (40000, 1))
    distance, density = accept.forced_decay(chord, rng())
    assert ((distance >= 5) & (distance <= 45)).all()
    assert (1 / density).mean() == pytest.approx(40.0, rel=0.02)
    ctau = np.logspace(-1.4, 6, 16)  # decay lengths from 1/1000 of the chord
    weight = accept.decay_weight(distance, density, np.ones(40000), 1.0, ctau)
    exact = accept.decay_probability(chord[:1], [1.0], 1.0, ctau)[:, 0]
    error = weight.std(axis=1) / np.sqrt(40000)
    assert (np.abs(weight.mean(axis=1) - exact) < 4 * error).all()
    assert (error / exact < 0.02).all()


def test_daughters_are_a_part_of_the_parents() -> None:
    """Open apertures give the parent's yield within its error; planes and cuts only take away."""
    particles, epsilon = sample(20000), np.logspace(-7, -5, 9)
    parent = accept.yields(particles, MASS, epsilon, Model(), detector(), rng=rng())
    free = accept.yields(particles, MASS, epsilon, Model(), detector("daughters", planes=()), rng=rng())
    assert (np.abs(free.signal - parent.signal) < 4 * free.mc_error).all()
    last = free.signal
    for cuts in (
        LeptonCuts(),
        LeptonCuts(min_momentum=3.0),
        LeptonCuts(min_momentum=3.0, min_energy_sum=30.0),
    ):
        box = detector("daughters", cuts=cuts)
        found = accept.yields(particles, MASS, epsilon, Model(), box, rng=rng())
        assert (found.signal < last).all()
        last = found.signal


def test_one_sample_for_all_couplings_is_each_coupling_simulated() -> None:
    """Throw exponential decay lengths at each coupling and count, with the same apertures."""
    box, epsilon, n = detector("daughters"), np.array([3e-7, 1e-6, 3e-6, 6e-6]), 200_000
    scan = accept.yields(sample(40000), MASS, epsilon, Model(), box, final_states=["mumu"], rng=rng())
    particles, generator = sample(n, seed=5), rng(6)
    p = np.stack([np.asarray(c) for c in (particles.p4.px, particles.p4.py, particles.p4.pz, particles.p4.E)])
    momentum = np.linalg.norm(p[:3], axis=0)
    for k, value in enumerate(epsilon):
        path = generator.exponential(momentum / MASS * Model().ctau(MASS, value))
        vertex = (path * p[:3] / momentum).T
        inside = (vertex[:, 2] > 20) & (vertex[:, 2] < 60) & (np.abs(vertex[:, :2]) < 2).all(axis=1)
        leptons = accept.lepton_pair(p, MASS, M_MU, generator)
        w = particles.weight * (inside & accept.seen(vertex, leptons, box))
        scale = box.pot * value**2 * 0.5 * 0.9
        error = scale * np.sqrt((w**2).sum())
        assert abs(scan.signal[k] - scale * w.sum()) < 4 * np.hypot(error, scan.mc_error[k])
        assert error < 0.2 * scan.signal[k]


@pytest.mark.long
@pytest.mark.parametrize("accept_on", ["parent", "daughters"])
def test_error_is_the_spread_of_repeated_samples(accept_on: str) -> None:
    epsilon = np.array([1e-7, 1e-6, 4e-6])
    runs = [
        accept.yields(sample(400, seed=s), MASS, epsilon, Model(), detector(accept_on), rng=rng(s))
        for s in range(160)
    ]
    spread = np.std([run.signal for run in runs], axis=0, ddof=1)
    np.testing.assert_allclose(spread, np.mean([run.mc_error for run in runs], axis=0), rtol=0.15)


def test_measured_part_adds_up() -> None:
    """The yield of the particles in the domain alone is the in-domain yield of the whole sample."""
    particles, epsilon = sample(4000), np.logspace(-7, -5, 5)
    found = accept.yields(particles, MASS, epsilon, Model(), detector(), rng=rng())
    inside = Sample(
        particles.p4, particles.weight * particles.in_domain, particles.origin, particles.in_domain
    )
    alone = accept.yields(inside, MASS, epsilon, Model(), detector(), rng=rng())
    np.testing.assert_allclose(alone.signal, found.in_domain_signal, rtol=1e-12)
    np.testing.assert_allclose(found.in_domain_fraction, alone.signal / found.signal, rtol=1e-12)
    assert (np.diff(found.in_domain_fraction) < 0).all()  # large couplings live on the hard, unmeasured tail


def test_a_fixed_lifetime_grid_serves_the_plane() -> None:
    box, epsilon = detector("daughters"), np.geomspace(1e-7, 5e-6, 40)
    ctau = np.geomspace(1e-3, 1e3, 61)
    weights = {"ee": 0.4 * 0.8, "mumu": 0.5 * 0.9}
    scan = accept.lifetime_scan(sample(5000), MASS, ctau, box, states=weights, rng=rng())
    read = scan.at(Model().ctau(MASS, epsilon))
    direct = accept.yields(sample(5000), MASS, epsilon, Model(), box, rng=rng())
    np.testing.assert_allclose(box.pot * epsilon**2 * read.accepted, direct.signal, rtol=2e-3)
    np.testing.assert_allclose(box.pot * epsilon**2 * read.in_domain, direct.in_domain_signal, rtol=5e-3)
    with pytest.raises(PhysicsError, match="outside the scan"):
        scan.at(1e4)
    with pytest.raises(PhysicsError, match="increasing"):
        read.at(1.0)


def test_exposure_and_threshold() -> None:
    particles, epsilon = sample(1000), np.array([1e-6])
    once = accept.yields(particles, MASS, epsilon, Model(), detector(), rng=rng())
    twice = accept.yields(particles, MASS, epsilon, Model(), detector(pot=2e15), rng=rng())
    assert twice.signal[0] == pytest.approx(2 * once.signal[0])
    light = sample(1000, mass=0.2)
    both = accept.yields(light, 0.2, epsilon, Model(), detector(), rng=rng())
    electrons = accept.yields(light, 0.2, epsilon, Model(), detector(), final_states=["ee"], rng=rng())
    closed = accept.yields(light, 0.2, epsilon, Model(), detector(), final_states=["mumu"], rng=rng())
    assert both.signal[0] == electrons.signal[0] > 0
    assert closed.signal[0] == 0
    assert np.isnan(closed.in_domain_fraction[0])


def test_target_moves_with_the_detector() -> None:
    """Production at z = 10 m before a volume from 30 to 70 m is the box of the other tests."""
    shifted = detector(target=Target(207.2, 82, 0.01, (0.0, 0.0, 10.0)), volume=Frustum(30, 70, 2, 2, 2, 2))
    here = accept.yields(sample(1000), MASS, [1e-6], Model(), detector(), rng=rng())
    there = accept.yields(sample(1000), MASS, [1e-6], Model(), shifted, rng=rng())
    assert there.signal[0] == pytest.approx(here.signal[0], rel=1e-12)


def test_portability() -> None:
    particles = sample(500)

    def signal(box: Detector, measured: accept.Measured | None) -> float:
        return accept.yields(particles, MASS, 1e-6, Model(), box, measured=measured, rng=rng()).signal[0]

    same = signal(detector(), None)
    assert signal(detector(), accept.Measured(NA60)) == same
    quest = detector(beam_energy=120.0, name="DarkQuest")
    for measured in (accept.Measured(NA60), accept.Measured(NA60, "per_interaction")):
        with pytest.raises(PortabilityError, match=r"400 GeV, detector 'DarkQuest' stands at 120 GeV"):
            signal(quest, measured)
    dump = detector(target=Target(63.55, 29, np.inf))
    with pytest.raises(PortabilityError, match=r"A = 207\.2 of 0\.01 .* A = 63\.55 of inf: name a scaling"):
        signal(dump, accept.Measured(NA60))
    per_interaction = signal(dump, accept.Measured(NA60, "per_interaction"))
    assert per_interaction == pytest.approx(same / -np.expm1(-0.01))
    power = signal(dump, accept.Measured(NA60, "power", alpha=0.8, alpha_inelastic=0.71))
    assert power == pytest.approx(per_interaction * (63.55 / 207.2) ** 0.09)
    thick = dataclasses.replace(detector(), target=Target(207.2, 82, np.inf))
    with pytest.raises(PortabilityError, match="name a scaling"):
        signal(thick, accept.Measured(NA60))
