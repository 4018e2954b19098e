"""Importance sampling: the same yields from fewer particles, and the pairs that stand behind them."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from builders import ROOT, particles
from hypothesis import given, settings
from hypothesis import strategies as st

from gammastar.accept.decay import decay_probability, forced_decay, inverse_decay_length
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import Flight, importance_of, turned, watched
from gammastar.core.records import Sample
from gammastar.core.signal import Rate, SignalPlane
from gammastar.core.sources import Sources
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.geometry import Box, Cylinder, Frustum
from gammastar.predict import VirtualPhoton

MASS = 0.5
COUPLINGS = np.geomspace(1e-8, 1e-4, 61)
OFF_AXIS = load_detector(ROOT / "data" / "detectors" / "shadows_like.toml")


class Model:
    """cτ = 1e-14 m/ε², a tenth to muons."""

    def ctau(self, _mass, coupling):
        return 1e-14 / np.asarray(coupling) ** 2

    def branching(self, _mass):
        return {"ee": 0.0, "mumu": 0.1}


class Falling:
    """ln pt and ln pz normal: the map of a flow without a network."""

    mass_range = (0.2, 1.0)

    def transform(self, mass, normal):
        pt = np.minimum(0.4 * np.exp(0.5 * normal[:, 0]), 20.0)
        pz = np.minimum(12.0 * np.exp(0.45 * normal[:, 1]), 390.0)
        return pt, np.sqrt(mass**2 + pt**2 + pz**2)

    def sample(self, mass, rng):
        return self.transform(mass, rng.standard_normal((len(mass), 2)))


def photon(sampler=None) -> VirtualPhoton:
    mass = np.array([0.2, 1.0])
    rates, everywhere = np.full(2, 1e-3), lambda m, pt, e: np.ones(len(m), dtype=bool)  # noqa: ARG005
    return VirtualPhoton(mass, rates, np.zeros((2, 2)), sampler or Falling(), everywhere)


def sight(detector: Detector = OFF_AXIS) -> Sight:
    return Sight.of(MASS, COUPLINGS, Model(), detector, ["mumu"], None)


def brute_force(n: int, detector: Detector, ctau: np.ndarray, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Seen pairs per particle by plain loops over planes: every particle decays where its lifetime says."""
    rng = np.random.default_rng(seed)
    pt, energy = Falling().sample(np.full(n, MASS), rng)
    phi = rng.uniform(-np.pi, np.pi, n)
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), np.sqrt(energy**2 - pt**2 - MASS**2)])
    size = np.linalg.norm(p, axis=0)
    unit, box = p / size, detector.volume
    m_mu, cosine, azimuth = 0.1056583755, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n)
    star = np.sqrt(MASS**2 / 4 - m_mu**2)
    first = np.cross(unit.T, [0.0, 1.0, 0.0]).T
    first /= np.linalg.norm(first, axis=0)
    second = np.cross(unit.T, first.T).T
    across = star * np.sqrt(1 - cosine**2) * (np.cos(azimuth) * first + np.sin(azimuth) * second)
    gamma, beta = energy / MASS, size / energy
    leptons = [across * s + unit * gamma * (star * cosine * s + beta * MASS / 2) for s in (1.0, -1.0)]
    energies = [np.sqrt(m_mu**2 + (q**2).sum(axis=0)) for q in leptons]
    good = (np.linalg.norm(leptons[0], axis=0) > 1) & (np.linalg.norm(leptons[1], axis=0) > 1)
    good &= energies[0] + energies[1] > 3
    mean, error = [], []
    for c in ctau:
        x = unit * rng.exponential(c * size / MASS)
        keep = good & (x[2] > box.z0) & (x[2] < box.z1)
        keep &= (np.abs(x[0] - box.x) < box.half_x) & (np.abs(x[1]) < box.half_y)
        x, parts = x[:, keep], [q[:, keep] for q in leptons]
        ok = np.ones(x.shape[1], dtype=bool)
        for plane in detector.planes:
            spots = []
            for q, sign in zip(parts, (1, -1), strict=True):
                spot = x[:2] + q[:2] / q[2] * (plane.z - x[2])
                if plane.z > detector.magnet.z:
                    spot[0] += sign * detector.magnet.kick / q[2] * (plane.z - detector.magnet.z)
                ok &= (q[2] > 0) & (np.abs(spot[0] - plane.x) < plane.half_x)
                ok &= np.abs(spot[1] - plane.y) < plane.half_y
                spots.append(spot)
            ok &= np.linalg.norm(spots[0] - spots[1], axis=0) > plane.min_separation
        mean.append(ok.sum() / n)
        error.append(np.sqrt(max(ok.sum(), 1)) / n)
    return np.array(mean), np.array(error)


def test_yields_beside_the_beam_are_those_of_brute_force() -> None:
    at = [10, 14, 17, 19, 21]
    view = sight()
    channel = photon()
    importance = importance_of([view], np.random.default_rng(1))
    sample = channel.focused(MASS, n=20_000, rng=np.random.default_rng(2), importance=importance)
    found, _ = watched(view, sample, np.random.default_rng(3))
    ours = view.expected(found)
    wanted, error = brute_force(400_000, OFF_AXIS, view.ctau[at], 4)
    scale = 1e-3 * 0.1 * OFF_AXIS.pot * COUPLINGS[at] ** 2
    pull = (ours.signal[at] - scale * wanted) / np.hypot(ours.mc_error[at], scale * error)
    assert np.abs(pull).max() < 3.5, pull
    assert ours.n_effective[at].min() > 1000  # of 20 000 plain ones a few per thousand would count
    plain, _ = watched(
        view, channel.produce(MASS, n=20_000, rng=np.random.default_rng(5)), np.random.default_rng(6)
    )
    assert view.expected(plain).n_effective[21] < 0.2 * ours.n_effective[21]


@pytest.mark.long
def test_errors_of_importance_sampling_cover() -> None:
    view, channel = sight(), photon()
    rows = []
    for seed in range(30):
        rngs = [np.random.default_rng([seed, k]) for k in range(3)]
        sample = channel.focused(MASS, n=8000, rng=rngs[0], importance=importance_of([view], rngs[1]))
        rows.append(view.expected(watched(view, sample, rngs[2])[0]))
    signal, error = (np.array([getattr(r, name)[[10, 21]] for r in rows]) for name in ("signal", "mc_error"))
    ratio = signal.std(axis=0, ddof=1) / error.mean(axis=0)
    assert ((ratio > 0.6) & (ratio < 1.5)).all(), ratio


@given(
    x=st.floats(-5, 5),
    y=st.floats(-5, 5),
    half=st.floats(0.2, 2),
    tilt=st.floats(-0.2, 0.2),
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_no_line_from_the_beam_leaves_the_azimuths_of_a_volume(x, y, half, tilt, seed) -> None:
    rng = np.random.default_rng(seed)
    volumes = (
        Box(10.0, 30.0, half, 0.5, x=x, y=y, angle_x=tilt, angle_y=-tilt),
        Frustum(10.0, 30.0, half, 0.5, 2 * half, 1.0, x=x, y=y),
        Cylinder(half, 10.0, 30.0, x=x, y=y),
    )
    direction = np.column_stack([rng.normal(0, 0.2, (2000, 2)), np.ones(2000)])
    for volume in volumes:
        centre, width = volume.azimuths(0.0, 0.0)
        hit = ~np.isnan(volume.chord(np.zeros((2000, 3)), direction)[:, 0])
        phi = np.arctan2(direction[hit, 1], direction[hit, 0])
        away = np.abs((phi - centre + np.pi) % (2 * np.pi) - np.pi)
        assert (away <= width + 1e-9).all()


def test_turning_keeps_angles_to_the_parent_and_the_mean() -> None:
    rng = np.random.default_rng(1)
    px, py = rng.normal(0, 0.5, (2, 50_000))
    plain = particles(px, py, rng.exponential(20.0, 50_000) + 1, MASS)
    parent = np.stack([2 * px + 0.1, 2 * py, np.asarray(plain.p4.pz), 3 * np.asarray(plain.p4.E)], axis=1)
    sample = Sample(plain.p4, plain.weight, plain.origin, plain.in_domain, parent=parent)
    new = turned(sample, OFF_AXIS, rng)
    before = parent[:, 0] * px + parent[:, 1] * py
    after = new.parent[:, 0] * np.asarray(new.p4.px) + new.parent[:, 1] * np.asarray(new.p4.py)
    np.testing.assert_allclose(after, before, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(np.asarray(new.p4.pt), np.hypot(px, py))
    hit = []
    for s in (sample, new):
        p = np.stack([np.asarray(c) for c in (s.p4.px, s.p4.py, s.p4.pz)], axis=1)
        hit.append(s.weight * ~np.isnan(OFF_AXIS.volume.chord(s.origin, p)[:, 0]))
    error = np.sqrt(sum((h**2).sum() for h in hit))
    assert abs(hit[0].sum() - hit[1].sum()) < 4 * error
    on_axis = load_detector(ROOT / "data" / "detectors" / "ship_ecn3.toml")
    assert turned(sample, on_axis, rng) is sample


@pytest.mark.long
def test_pairs_behind_a_yield_do_not_depend_on_the_proposal() -> None:
    view, channel = sight(), photon()
    plain = channel.produce(MASS, n=250_000, rng=np.random.default_rng(1))
    focused = channel.focused(
        MASS,
        n=20_000,
        rng=np.random.default_rng(2),
        importance=importance_of([view], np.random.default_rng(3)),
    )
    shares = []
    for sample in (plain, focused):
        here = turned(sample, OFF_AXIS, np.random.default_rng(4))
        shares.append(Flight.of(view, here).effective_share(here.weight))
    at = int(Flight.of(view, here).at[16])
    # Kish by hand: each plain particle is one pair that may stand at any azimuth
    here = turned(plain, OFF_AXIS, np.random.default_rng(4))
    p = np.stack([np.asarray(c) for c in (here.p4.px, here.p4.py, here.p4.pz)], axis=1)
    chord = OFF_AXIS.volume.chord(here.origin, p)
    value = np.nan_to_num(decay_probability(chord, np.linalg.norm(p, axis=1), MASS, view.ctau[at]))
    value[np.isnan(chord[:, 0])] = 0.0
    assert shares[0][at] == pytest.approx(value.mean() ** 2 / (value**2).mean(), rel=0.05)
    np.testing.assert_allclose(shares[1][5:22], shares[0][5:22], rtol=0.15)
    assert np.isinf(Flight.of(view, here).effective_share(here.weight, np.zeros(250_000, dtype=bool))).all()


def test_decays_towards_some_lifetimes_keep_the_mean() -> None:
    rng = np.random.default_rng(1)
    chord = np.tile([[5.0, 25.0]], (200_000, 1))
    momentum = np.full(200_000, 10.0)
    ctau = np.array([1e-3, 1e-2, 1.0, 100.0])
    inverse = inverse_decay_length(momentum, MASS, np.array([2e-3, 5.0]))
    distance, density = forced_decay(chord, rng, inverse)
    assert ((distance >= 5.0) & (distance <= 25.0)).all()
    for c in ctau:
        length = c * 10.0 / MASS
        weight = np.exp(-distance / length) / (length * density)
        exact = np.exp(-5.0 / length) - np.exp(-25.0 / length)
        assert abs(weight.mean() - exact) < 5 * weight.std() / np.sqrt(len(weight))


def test_a_sampler_that_is_no_map_draws_as_before() -> None:
    class Plain:
        mass_range = (0.2, 1.0)
        sample = Falling.sample
        _map = Falling()

    sampler = Plain()
    Plain.sample = lambda self, mass, rng: self._map.sample(mass, rng)
    channel = photon(sampler)
    importance = importance_of([sight()], np.random.default_rng(1))
    one = channel.focused(MASS, n=100, rng=np.random.default_rng(2), importance=importance)
    two = channel.produce(MASS, n=100, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(one.weight, two.weight)
    np.testing.assert_array_equal(np.asarray(one.p4.E), np.asarray(two.p4.E))


def test_the_data_end_where_few_pairs_are_left() -> None:
    coupling = np.geomspace(1e-8, 1e-6, 5)
    pairs = np.array([[1e3, 1e3, 1e2, 1.0, 0.1], [1e3, 1e3, 1e3, 1e3, 1e3], [1.0, 1.0, 1.0, 1.0, 1.0]])
    many, mass = np.full(pairs.shape, 1e4), np.array([0.3, 0.4, 0.5])
    rate = Rate(mass, np.ones(3), np.zeros((3, 3)), Sources(()))
    plane = SignalPlane(rate, coupling, many, many, many, many, pairs=pairs)
    end = plane.data_end(10.0)
    assert end[0] == pytest.approx(10**-6.75)  # half-way in both logarithms between 1e-7 and 10^-6.5
    assert np.isinf(end[1])
    assert end[2] == 0.0


def test_theory_beside_the_data_adds_to_the_yield_and_no_pairs_behind_it() -> None:
    """Kish by drawing measured pairs anew: theory beside them stays, and makes the yield more certain."""
    rng, pairs, sets = np.random.default_rng(5), 400, 2000
    weight, probability = rng.gamma(2.0, 1.0, 2000), rng.beta(0.1, 5.0, 2000)
    own = np.arange(2000) < 1500
    view, lines = SimpleNamespace(couplings=np.ones(1)), SimpleNamespace(index=np.arange(2000))
    flight = Flight(view, np.zeros(1, dtype=np.intp), lines, probability[None])
    measured = weight[own].sum()
    drawn = rng.poisson(pairs * weight[own] / measured, (sets, 1500)) @ probability[own]
    total = measured / pairs * drawn + weight[~own] @ probability[~own]
    number = pairs * flight.effective_share(weight, own)[0]
    assert number * (total.std() / total.mean()) ** 2 == pytest.approx(1.0, abs=4 * np.sqrt(2 / sets))
