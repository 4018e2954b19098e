"""Spin densities: axes against boosts, fermion masses against traces, physical region, weights and errors."""

import numpy as np
import pytest

from gammastar import accept, predict
from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError
from gammastar.mock.card import Polarisation
from gammastar.mock.cocktail import polarised_decay
from gammastar.physics.polarisation import (
    NO_SPIN,
    SpinDensities,
    SpinState,
    axis_cosine,
    azimuth,
    daughter,
    harmonics,
    lambda_theta,
    lambdas_of,
    lorentz,
    mass_factor,
    moments_of,
    physical,
)
from gammastar.predict.millicharge import VirtualPhotons

BEAM = 400.0
# means of g_k² over the sphere
SIZES = np.array([4 / 45, 4 / 15, 4 / 15])


def photons(mass, n, seed):
    rng = np.random.default_rng(seed)
    p = np.stack([*rng.normal(0, 0.4, (2, n)), rng.exponential(15.0, n)])
    return np.concatenate([p, [np.sqrt(np.sum(p**2, axis=0) + mass**2)]])


def isotropic(photon, mass, m_fermion, seed):
    rng, n = np.random.default_rng(seed), photon.shape[1]
    return daughter(photon, mass, m_fermion, m_fermion, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))


def test_azimuth_is_that_of_the_rest_frame():
    mass, n = 0.6, 2000
    photon = photons(mass, n, 1)
    lepton = isotropic(photon, mass, M_MU, 2)
    back = photon * np.array([[-1.0], [-1.0], [-1.0], [1.0]])
    beam = np.broadcast_to(np.array([[0.0], [0.0], [BEAM], [BEAM]]), photon.shape)
    n_star, beam_star = (lorentz(p, back, np.full(n, mass))[:3] for p in (lepton, beam))
    z = photon[:3] / np.linalg.norm(photon[:3], axis=0)
    y = np.cross(z, beam_star, axis=0)
    y /= np.linalg.norm(y, axis=0)
    x = np.cross(y, z, axis=0)
    phi = np.arctan2(np.sum(n_star * y, axis=0), np.sum(n_star * x, axis=0))
    found = azimuth(photon, lepton)
    np.testing.assert_allclose(np.exp(1j * found), np.exp(1j * phi), atol=1e-6)
    assert (azimuth(np.array([[0.0], [0.0], [5.0]]), np.array([[0.1], [0.2], [3.0]])) == 0).all()


def test_coefficients_of_the_generator_are_found_back():
    """The mock generator has axes of its own code, made by boosts of beam and target."""
    mass, truth = 0.6, (0.3, 0.2, -0.15)
    photon = photons(mass, 200_000, 3)
    state = Polarisation(theta=truth[0], phi=truth[1], theta_phi=truth[2], frame="laboratory")
    args = (np.full(photon.shape[1], mass), M_MU, state, BEAM, np.random.default_rng(4))
    plus = polarised_decay(photon, *args)
    g = harmonics(axis_cosine(photon, mass, plus, "laboratory", BEAM), azimuth(photon, plus))
    found = lambdas_of(g.mean(axis=1) / SIZES)
    error = g.std(axis=1) / SIZES / np.sqrt(g.shape[1])
    assert np.abs((found - truth) / error).max() < 4


def test_the_two_fermions_may_change_places():
    photon = photons(0.5, 500, 5)
    one = isotropic(photon, 0.5, M_MU, 6)
    here, there = (
        harmonics(axis_cosine(photon, 0.5, p, "laboratory", BEAM), azimuth(photon, p))
        for p in (one, photon - one)
    )
    np.testing.assert_allclose(here, there, atol=1e-6)


def gammas():
    s = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]], dtype=complex)
    zero, one = np.zeros((2, 2)), np.eye(2)
    time = np.block([[one, zero], [zero, -one]])
    return time, [np.block([[zero, x], [-x, zero]]) for x in s]


@pytest.mark.parametrize(("mass", "m_fermion"), [(0.5, M_MU), (0.22, M_MU), (1.0, 0.45), (0.3, M_E)])
def test_mass_factor_follows_from_the_trace_over_spinors(mass, m_fermion):
    """Σ over spins of |ū γ·ε v|² with Dirac matrices and any density: anisotropies scale by the factor."""
    rng = np.random.default_rng(7)
    a = rng.normal(size=(3, 3))
    rho = a @ a.T / np.trace(a @ a.T)
    time, space = gammas()
    directions = rng.normal(size=(5, 3))
    directions /= np.linalg.norm(directions, axis=1)[:, None]

    def density(m_f):
        energy = mass / 2
        size = np.sqrt(energy**2 - m_f**2)
        found = []
        for n in np.vstack([directions, np.eye(3)]):
            p_slash = energy * time - sum(size * x * g for x, g in zip(n, space, strict=True))
            k_slash = energy * time + sum(size * x * g for x, g in zip(n, space, strict=True))
            tensor = np.array(
                [
                    [
                        np.trace((p_slash + m_f * np.eye(4)) @ i @ (k_slash - m_f * np.eye(4)) @ j)
                        for j in space
                    ]
                    for i in space
                ]
            )
            found.append(np.real(np.sum(rho * tensor)))
        found = np.array(found)
        return found[:5] / found[5:].mean()  # three orthogonal directions give the mean of a quadratic form

    factor = float(mass_factor(mass, m_fermion))
    np.testing.assert_allclose(density(m_fermion) - 1, factor * (density(0.0) - 1), atol=1e-12)


def test_mass_factor_gives_lambda_of_both_helicities():
    for share in (0.0, 0.2, 0.7, 1.0):
        massless = moments_of([float(lambda_theta(share, 0.4, 0.0)), 0.0, 0.0])
        ours = lambdas_of(float(mass_factor(0.4, M_MU)) * massless)[0]
        assert ours == pytest.approx(float(lambda_theta(share, 0.4, M_MU)), abs=1e-12)
    assert mass_factor(2 * M_MU, M_MU) == 0
    assert mass_factor(0.1, M_MU) == 0


def rho_of(moments):
    a, b, c = moments
    return np.eye(3) / 3 - 2 / 3 * np.array([[b - a / 3, 0, c], [0, -b - a / 3, 0], [c, 0, 2 * a / 3]])


def test_the_physical_point_is_the_nearest_one():
    rng = np.random.default_rng(8)
    for _ in range(20):
        moments = rng.normal(0, 1.0, 3)
        found = physical(moments)
        assert np.linalg.eigvalsh(rho_of(found)).min() > -1e-12
        np.testing.assert_allclose(physical(found), found, atol=1e-12)
        distance = np.linalg.norm(rho_of(found) - rho_of(moments))
        others = found + rng.normal(0, 0.05, (300, 3))
        good = [x for x in others if np.linalg.eigvalsh(rho_of(x)).min() >= 0]
        assert all(np.linalg.norm(rho_of(x) - rho_of(moments)) >= distance - 1e-9 for x in good)


@pytest.mark.parametrize("m_fermion", [M_E, M_MU])
def test_weights_are_those_of_the_spin_state_and_never_negative(m_fermion):
    mass = 0.4
    photon = photons(mass, 5000, 9)
    one = isotropic(photon, mass, m_fermion, 10)
    state = SpinState(0.1)
    same = SpinDensities.known([float(lambda_theta(0.1, mass, 0.0)), 0.0, 0.0])
    args = (photon, mass, one, m_fermion, BEAM)
    np.testing.assert_allclose(same.weight(*args), state.weight(*args), atol=1e-6)
    far = SpinDensities.known([-1.0, 0.9, 0.9])
    assert far.weight(*args).min() >= 0
    assert far.weight(*args).mean() == pytest.approx(1.0, abs=0.05)


def regions(cov=None):
    cov = np.zeros((2, 3, 3)) if cov is None else cov
    moments = np.array([[0.4, 0.0, 0.0], [-0.3, 0.1, 0.05]])
    return SpinDensities(np.array([0.2, 0.6, 1.0]), moments, cov, np.array([100.0, 50.0]))


def test_each_mass_follows_its_region_and_the_nearest_one_beside_them():
    photon, found = photons(0.5, 400, 11), regions()
    one = isotropic(photon, 0.5, 0.0, 12)
    for mass, row in ((0.1, 0), (0.3, 0), (0.6, 1), (1.5, 1)):
        alone = SpinDensities.known(lambdas_of(found.moments[row]))
        args = (photon, mass, one, 0.0, BEAM)
        np.testing.assert_allclose(found.weight(*args), alone.weight(*args), rtol=1e-12)
    masses = np.where(np.arange(400) < 200, 0.3, 0.7)
    mixed = found.weight(photon, masses, one, 0.0, BEAM)
    np.testing.assert_array_equal(mixed[:200], found.weight(photon, 0.3, one, 0.0, BEAM)[:200])


def test_errors_of_the_coefficients_are_those_of_random_moments():
    rng = np.random.default_rng(13)
    a = rng.normal(0, 0.02, (2, 3, 3))
    found = regions(a @ a.transpose(0, 2, 1))
    values, errors = found.coefficients(M_MU)
    for i in range(2):
        drawn = rng.multivariate_normal(found.moments[i], found.cov[i], 20_000)
        scale = float(mass_factor((0.4, 0.8)[i], M_MU))
        spread = np.array([lambdas_of(scale * row) for row in drawn]).std(axis=0)
        np.testing.assert_allclose(errors[i], spread, rtol=0.05)
        np.testing.assert_allclose(values[i], lambdas_of(scale * found.moments[i]))


def test_shifts_hold_the_whole_covariance():
    a = np.random.default_rng(14).normal(0, 0.1, (2, 3, 3))
    found = regions(a @ a.transpose(0, 2, 1))
    moved = found.shifted()
    assert len(moved) == 6
    half = [0.5 * (up.moments - down.moments) for up, down in zip(moved[::2], moved[1::2], strict=True)]
    np.testing.assert_allclose(sum(np.einsum("ni,nj->nij", h, h) for h in half), found.cov, atol=1e-14)


def test_a_record_is_read_back_and_a_broken_one_refused():
    found = regions()
    again = SpinDensities.of(found.arrays())
    np.testing.assert_array_equal(again.moments, found.moments)
    with pytest.raises(PhysicsError, match="must increase"):
        SpinDensities.of(found.arrays() | {"edges": np.array([0.2, 0.2, 1.0])})
    with pytest.raises(PhysicsError, match=r"SpinDensities\.cov"):
        SpinDensities.of(found.arrays() | {"cov": np.zeros((3, 3))})


def test_leptons_of_a_sample_take_the_density():
    mass = 0.5
    photon, spins = photons(mass, 1000, 15), (NO_SPIN, SpinDensities.known([0.5, 0.1, 0.0]))
    one = isotropic(photon, mass, M_E, 16)
    found = accept.angular_weights(photon, mass, one, M_E, spins, beam_energy=BEAM)
    np.testing.assert_array_equal(found[0], 1.0)
    np.testing.assert_array_equal(found[1], spins[1].weight(photon, mass, one, M_E, BEAM))


def test_millicharged_pairs_take_the_density_at_their_own_mass():
    n, m_chi, mass = 100_000, 0.1, 0.5
    photon = photons(mass, n, 17)
    made = VirtualPhotons(
        np.full(n, mass), np.hypot(photon[0], photon[1]), photon[3], np.full(n, 1 / n), np.ones(n, dtype=bool)
    )
    density = SpinDensities.known([0.8, 0.05, 0.1])
    sample = predict.chi_pairs(made, m_chi, rng=np.random.default_rng(18), spin=density)
    assert sample.weight.sum() == pytest.approx(2.0)
    p = np.stack([np.asarray(c) for c in (sample.p4.px, sample.p4.py, sample.p4.pz, sample.p4.E)])
    one, whole = p[:, :n], p[:, :n] + p[:, n:]
    g = harmonics(axis_cosine(whole, mass, one, "laboratory", BEAM), azimuth(whole, one))
    found = np.average(g, axis=1, weights=sample.weight[:n]) / SIZES
    truth = float(mass_factor(mass, m_chi)) * moments_of([0.8, 0.05, 0.1])
    np.testing.assert_allclose(found, truth, atol=5 / np.sqrt(SIZES.min() * n))


def test_cosines_of_vectors_that_outrun_the_beam_stay_cosines():
    """Along the beam and faster than its protons, a vector sees beam and target fly the same way."""
    rng, mass, n = np.random.default_rng(8), 0.3, 200
    energy = np.full(n, 390.0)  # γ = 1300, that of the proton is 426
    across = np.where(np.arange(n) % 2, 1e-9, 0.0)
    photon = np.stack([across, np.zeros(n), np.sqrt(energy**2 - mass**2 - across**2), energy])
    lepton = daughter(photon, mass, M_MU, M_MU, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))
    for frame in ("laboratory", "helicity", "collins_soper"):
        found = axis_cosine(photon, mass, lepton, frame, 400.0)
        assert (np.abs(found) <= 1).all()


def test_the_collins_soper_axis_is_that_of_the_textbooks():
    """cos θ = 2 (ℓ⁺ℓ̄⁻ − ℓ⁻ℓ̄⁺)/(m √(m² + pt²)) with ℓ± = (E ± pz)/√2 where the protons have no mass."""
    rng, mass, n = np.random.default_rng(9), 3.0, 50
    pt, pz = rng.uniform(0, 2, n), rng.uniform(20, 120, n)
    photon = np.stack([pt, np.zeros(n), pz, np.sqrt(mass**2 + pt**2 + pz**2)])
    one = daughter(photon, mass, M_MU, M_MU, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))
    two = photon - one
    product = (one[3] + one[2]) * (two[3] - two[2]) - (one[3] - one[2]) * (two[3] + two[2])
    wanted = product / (mass * np.sqrt(mass**2 + pt**2))
    np.testing.assert_allclose(axis_cosine(photon, mass, one, "collins_soper", BEAM), wanted, atol=0.01)
