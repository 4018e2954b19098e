"""The fit of spin densities to decay angles: toys behind a hard acceptance, like-sign weights, priors."""

from dataclasses import replace

import numpy as np
import pytest

from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Spectrum, filled, regular, variable
from gammastar.physics.polarisation import SpinDensities, azimuth, daughter
from gammastar.spectrum import DecayAngles, fit_spin_densities, prior_weights

BEAM = 400.0
EDGES = (0.3, 0.6, 0.9)


def decays(n, seed, density=None, slope=12.0):
    """Return photons whose two muons lie between 35 and 120 mrad and above 3 GeV, by their angles."""
    rng = np.random.default_rng(seed)
    mass = rng.uniform(*EDGES[::2], n)
    pt, energy = rng.exponential(0.4, n), 5.0 + rng.exponential(slope, n)
    pz = np.sqrt(np.clip(energy**2 - mass**2 - pt**2, 0.01, None))
    around = rng.uniform(-np.pi, np.pi, n)
    p = np.stack([pt * np.cos(around), pt * np.sin(around), pz, np.zeros(n)])
    p[3] = np.sqrt(np.sum(p[:3] ** 2, axis=0) + mass**2)
    one = daughter(p, mass, M_MU, M_MU, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))
    good = np.ones(n, dtype=bool)
    for q in (one, p - one):
        theta = np.arctan2(np.hypot(q[0], q[1]), q[2])
        good &= (theta > 0.035) & (theta < 0.120) & (q[3] > 3.0)
    if density is not None:
        good &= density.weight(p, mass, one, M_MU, BEAM) > 1.8 * rng.random(n)
    p, one, mass = p[:, good], one[:, good], mass[good]
    cosine = _cosine(p, mass, one)
    kinematics = np.stack([mass, np.hypot(p[0], p[1]), p[3]], axis=1)
    k = int(good.sum())
    return DecayAngles(kinematics, cosine, azimuth(p, one), np.ones(k), np.arange(k))


def _cosine(p, mass, one):
    """E = (E_γ + 2 |P| p* cos θ/m)/2."""
    size = np.sqrt(0.25 * mass**2 - M_MU**2) * np.linalg.norm(p[:3], axis=0)
    return np.clip(mass * (one[3] - 0.5 * p[3]) / size, -1.0, 1.0)


@pytest.fixture(scope="module")
def simulated():
    return decays(450_000, 1)


def test_angles_of_the_acceptance_are_far_from_isotropic(simulated):
    """Without the normalisation in cells the answer would be a strong polarisation."""
    mean = simulated.observables(M_MU).mean(axis=0)
    assert np.abs(mean).max() > 0.05


@pytest.mark.long
@pytest.mark.parametrize("truth", [(0.0, 0.0, 0.0), (0.5, 0.0, 0.0), (-0.4, 0.15, 0.1)])
def test_pulls_of_small_data_sets(simulated, truth):
    """14 sets of a thousand pairs with another energy spectrum than the simulation."""
    density = SpinDensities.known(truth)
    pulls = []
    for i in range(14):
        data = decays(20_000, 100 + i, density, slope=15.0)
        found = fit_spin_densities(data, simulated, EDGES, M_MU)
        values, errors = found.coefficients(0.0)
        pulls.append((values - truth) / errors)
    pulls = np.array(pulls).reshape(14, 6)
    assert np.abs(pulls.mean(axis=0)).max() < 4.2 / np.sqrt(14) + 0.25  # the simulation is common to all
    assert 0.75 < pulls.std(axis=0, ddof=1).mean() < 1.25


def test_like_sign_weights_take_the_background_away(simulated):
    """Pairs with angles of their own, once with each sign of the weight: unbiased, with a larger error."""
    truth = SpinDensities.known((0.5, 0.0, 0.0))
    clean = decays(120_000, 3, truth)
    other = SpinDensities.known((-1.0, 0.0, 0.0))
    parts = [clean, decays(120_000, 4, other), decays(120_000, 5, other)]
    parts[2] = replace(parts[2], weight=-parts[2].weight * len(parts[1].weight) / len(parts[2].weight))
    names = ("kinematics", "cos_theta", "phi", "weight")
    both = DecayAngles(
        *(np.concatenate([getattr(p, name) for p in parts]) for name in names),
        np.arange(sum(len(p.weight) for p in parts)),
    )
    plain, found = (fit_spin_densities(x, simulated, EDGES, M_MU).coefficients(0.0) for x in (clean, both))
    left = replace(both, weight=np.abs(both.weight))
    wrong, _ = fit_spin_densities(left, simulated, EDGES, M_MU).coefficients(0.0)
    assert (found[1] > 1.2 * plain[1]).all()
    assert (np.abs(found[0] - (0.5, 0.0, 0.0)) < 4 * found[1]).all()
    assert (wrong[:, 0] < -0.3).all()


def test_exchanged_leptons_and_scaled_weights_change_nothing(simulated):
    data = decays(100_000, 6)
    first = fit_spin_densities(data, simulated, EDGES, M_MU)
    other = replace(data, cos_theta=-data.cos_theta, phi=data.phi + np.pi, weight=3.0 * data.weight)
    again = fit_spin_densities(other, replace(simulated, weight=0.1 * simulated.weight), EDGES, M_MU)
    np.testing.assert_allclose(again.moments, first.moments, atol=1e-9)
    np.testing.assert_allclose(again.cov, first.cov, rtol=1e-6)


def test_pairs_of_one_event_count_as_one(simulated):
    data = decays(100_000, 7)
    twice = DecayAngles(
        *(np.concatenate([x, x]) for x in (data.kinematics, data.cos_theta, data.phi, data.weight)),
        np.concatenate([data.event, data.event]),
    )
    one, two = (fit_spin_densities(x, simulated, EDGES, M_MU) for x in (data, twice))
    np.testing.assert_allclose(two.moments, one.moments, atol=1e-9)
    np.testing.assert_allclose(two.cov, one.cov, rtol=1e-6)


def test_a_small_simulation_adds_to_the_error(simulated):
    data = decays(200_000, 8)
    rng = np.random.default_rng(9)
    found = []
    for _ in range(12):
        part = simulated.select(rng.random(len(simulated.weight)) < 0.05)
        found.append(fit_spin_densities(data, part, EDGES, M_MU))
    whole = fit_spin_densities(data, simulated, EDGES, M_MU)
    assert (found[0].cov[:, 0, 0] > 2 * whole.cov[:, 0, 0]).all()
    spread = np.var([f.moments for f in found], axis=0, ddof=1)  # of the simulation alone
    added = np.mean([np.diagonal(f.cov - whole.cov, axis1=1, axis2=2) for f in found], axis=0)
    assert 0.5 < (spread / added).mean() < 1.7


def test_regions_without_pairs_are_refused_by_name(simulated):
    data = decays(20_000, 10)
    with pytest.raises(PhysicsError, match=r"from 1 to 1\.2 GeV: 0 subtracted pairs"):
        fit_spin_densities(data, simulated, (0.3, 1.0, 1.2), M_MU)
    with pytest.raises(PhysicsError, match="widen the region"):
        fit_spin_densities(replace(data, weight=-data.weight), simulated, EDGES, M_MU)
    few = simulated.select(np.arange(len(simulated.weight)) < 300)
    with pytest.raises(PhysicsError, match="simulated ones"):
        fit_spin_densities(data, few, EDGES, M_MU)
    with pytest.raises(PhysicsError, match=r"DecayAngles\.phi"):
        replace(data, phi=np.full(len(data.phi), np.nan))


def test_factors_give_a_simulation_the_unfolded_spectrum():
    axes = (regular("mass", 4, 0.2, 1.0), variable("pt", [0, 0.5, 6]), variable("energy", [0, 10, 400]))
    rng = np.random.default_rng(11)
    true = np.stack(
        [rng.uniform(0.2, 1.0, 50_000), rng.exponential(0.5, 50_000), rng.exponential(9, 50_000)], 1
    )
    weight = rng.uniform(0.5, 1.5, 50_000)
    prior, _ = np.histogramdd(true, [a.edges for a in axes], weights=weight)
    wanted = prior * rng.uniform(0.5, 2.0, prior.shape)
    wanted[0, 0, 0] = 0.0
    size = wanted.size
    spectrum = Spectrum(
        filled(axes, wanted, wanted), np.zeros((size, size)), "counts", None, np.ones(wanted.shape, bool)
    )
    factor = prior_weights(true, weight, spectrum)
    after, _ = np.histogramdd(true, [a.edges for a in axes], weights=weight * factor)
    known = wanted > 0
    ratio = after[known] / wanted[known]
    np.testing.assert_allclose(ratio, ratio.mean(), rtol=1e-9)
    outside = np.array([[2.0, 0.1, 5.0]])
    assert prior_weights(np.concatenate([true, outside]), np.r_[weight, 1.0], spectrum)[-1] == 1.0
