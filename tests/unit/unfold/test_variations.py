"""Variations of the simulation: angles, polarisation, radiation, momenta."""

import numpy as np
import pytest
import vector
from builders import matched_pairs

from gammastar import select, unfold
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError, UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, filled, regular, variable

N = 60_000
TRUE = (variable("mass", [0.4, 0.6, 0.8, 1.0]),)


@pytest.fixture(scope="module")
def decays():
    """Isotropic decays of photons along and across z, with the angle in the helicity frame."""
    rng = np.random.default_rng(4)
    mass, pt, pz = rng.uniform(0.4, 1.0, N), rng.gamma(2, 0.3, N), rng.uniform(5, 60, N)
    cosine, phi = rng.uniform(-1, 1, N), rng.uniform(0, 2 * np.pi, N)
    p = np.sqrt(mass**2 / 4 - M_MU**2)
    photon = np.stack([pt, np.zeros(N), pz])
    z = photon / np.linalg.norm(photon, axis=0)
    x = np.stack([z[2], np.zeros(N), -z[0]])
    y = np.cross(z.T, x.T).T
    sine = np.sqrt(1 - cosine**2)
    rest = p * (x * (sine * np.cos(phi)) + y * (sine * np.sin(phi)) + z * cosine)
    boost = vector.array(
        {"px": pt, "py": np.zeros(N), "pz": pz, "E": np.sqrt(mass**2 + pt**2 + pz**2)}
    ).to_beta3()
    legs = []
    for sign in (1, -1):
        one = vector.array(
            {
                "px": sign * rest[0],
                "py": sign * rest[1],
                "pz": sign * rest[2],
                "E": np.full(N, 1.0) * mass / 2,
            }
        ).boost_beta3(boost)
        legs.append(np.stack([one.px, one.py, one.pz, np.full(N, M_MU)], axis=1))
    return mass, pt, np.sqrt(mass**2 + pt**2 + pz**2), cosine, legs


@pytest.fixture(scope="module")
def matched(decays):
    mass, pt, energy, cosine, legs = decays
    kinematics = np.stack([mass, pt, energy], axis=1)
    seen = (legs[0][:, 2] > 4) & (legs[1][:, 2] > 4)  # both leptons forward: prefers cos θ near 0
    reco = np.where(seen[:, None], kinematics, np.nan)
    columns = {"cos_theta": np.where(seen, cosine, np.nan)}
    return matched_pairs(kinematics, reco, columns=columns)


def test_the_cosine_is_that_of_the_decay(decays):
    mass, _, _, cosine, (plus, minus) = decays
    np.testing.assert_allclose(select.helicity_cosine(plus, minus, mass), cosine, atol=1e-6)
    np.testing.assert_allclose(select.helicity_cosine(minus, plus, mass), -cosine, atol=1e-6)
    at_rest = np.array([[0.1, 0, 0, M_MU]]), np.array([[-0.1, 0, 0, M_MU]])
    assert select.helicity_cosine(*at_rest, np.array([0.3])) == 0


def test_polarisation_changes_the_efficiency_as_polarised_events_would(matched, decays):
    cosine = decays[3]
    for value in (-0.5, 1.0):
        found = unfold.response_matrix.polarised_response(matched, TRUE, TRUE, value)
        accepted = np.random.default_rng(1).random(N) < (1 + value * cosine**2) / (1 + max(value, 0))
        direct = unfold.response(matched.select(accepted), TRUE, TRUE, n_replicas=0)
        np.testing.assert_allclose(found.efficiency, direct.efficiency, rtol=0.03)
        nominal = unfold.response(matched, TRUE, TRUE, n_replicas=0)
        assert np.all((found.efficiency > nominal.efficiency) == (value < 0))
    none = unfold.response_matrix.polarised_response(matched, TRUE, TRUE, 0.0)
    np.testing.assert_allclose(none.migration, nominal.migration)


def test_radiation_is_that_of_the_four_vectors(matched, decays):
    kept = np.random.default_rng(2).uniform(0.6, 1, (2, N))
    plus, minus = (leg[:, :3] * z[:, None] for leg, z in zip(decays[4], kept, strict=True))
    e = [np.sqrt((leg**2).sum(axis=1) + M_MU**2) for leg in (plus, minus)]
    mass = np.sqrt((e[0] + e[1]) ** 2 - ((plus + minus) ** 2).sum(axis=1))
    found = unfold.simulation.scaled_momenta(matched, kept)
    seen = matched.reconstructed
    np.testing.assert_allclose(found.reco[seen, 0], mass[seen], rtol=1e-5)
    np.testing.assert_allclose(found.reco[seen, 2], (e[0] + e[1])[seen], rtol=1e-6)
    unchanged = unfold.simulation.scaled_momenta(matched, np.ones((2, N)))
    np.testing.assert_allclose(unchanged.reco[seen], matched.reco[seen], rtol=1e-9)
    assert np.isnan(found.reco[~seen]).all()


def test_another_momentum_scale_and_resolution_are_those_of_the_tracks(matched, decays):
    """Data whose tracks are off are unfolded right with the response of the same fault, and only with it."""
    rng = np.random.default_rng(3)
    pt, legs = decays[1], decays[4]
    fine, seen = (regular("mass", 60, 0.3, 1.1),), matched.reconstructed
    for size in (0.02, -0.02):
        e, p = 0.0, 0.0
        for leg in legs:
            scaled = (1 + size) * leg[:, :3]
            e, p = e + np.sqrt((scaled**2).sum(axis=1) + M_MU**2), p + scaled
        data = np.histogram(np.sqrt(e**2 - (p**2).sum(axis=1))[seen], fine[0].edges)[0]
        found = unfold.simulation.other_scale(size, M_MU)(matched)
        again = unfold.response(found, fine, TRUE, n_replicas=0)
        np.testing.assert_allclose(again.migration @ again.prior, data, atol=3)
        np.testing.assert_allclose(found.reco[seen, 2], e[seen], rtol=1e-6)
        np.testing.assert_allclose(found.reco[seen, 1], (1 + size) * pt[seen], rtol=2e-3)
    noise = rng.normal(0, [0.02, 0.05, 0.4], (N, 3))
    smeared = matched_pairs(matched.true, np.where(seen[:, None], matched.true + noise, np.nan))
    for size in (0.2, -0.2):
        wider = unfold.simulation.other_resolution(size, M_MU)(smeared)
        off = (wider.reco - matched.true)[seen & (pt > 0.5)]
        np.testing.assert_allclose(off.std(axis=0), (1 + size) * noise.std(axis=0), rtol=0.01)
    with pytest.raises(UserError, match="factors"):
        unfold.simulation.other_scale(1.5, M_MU)(matched)


def test_a_share_of_another_simulation_moves_the_response_in_proportion(matched):
    reco = (regular("mass", 8, 0.3, 1.0),)
    other = unfold.simulation.scaled_momenta(matched, np.full((2, N), 0.8))
    one, two, mixed = (
        unfold.response(part, reco, TRUE, n_replicas=0).migration
        for part in (matched, other, unfold.simulation.mixed_simulation(matched, other, 0.25))
    )
    np.testing.assert_allclose(mixed, 0.75 * one + 0.25 * two, atol=1e-12)


def test_wrong_variations_are_refused(matched):
    plain = MatchedPairs(*(getattr(matched, f) for f in ("true", "reco", "weight", "event", "fakes")), [])
    with pytest.raises(UserError, match="cos_theta"):
        unfold.response_matrix.polarised_response(plain, TRUE, TRUE, 0.1)
    with pytest.raises(UserError, match="lambda"):
        unfold.response_matrix.polarised_response(matched, TRUE, TRUE, 2.0)
    with pytest.raises(UserError, match="factors"):
        unfold.simulation.scaled_momenta(matched, np.zeros((2, N)))
    with pytest.raises(UserError, match="share"):
        unfold.simulation.mixed_simulation(matched, matched, 1.5)
    with pytest.raises(PhysicsError, match="columns"):
        MatchedPairs(
            *(getattr(matched, f) for f in ("true", "reco", "weight", "event", "fakes")), [], {"a": 1}
        )


def _sample(scale, n, seed):
    """Photons whose q_T the efficiency rises with, as it does inside wide cells."""
    rng = np.random.default_rng(seed)
    pt, energy = rng.gamma(2, scale, n), rng.uniform(10, 60, n)
    kinematics = np.stack([rng.uniform(0.4, 1.0, n), pt, np.hypot(energy, pt)], axis=1)
    seen = rng.uniform(size=n) < pt / (pt + 0.5)
    reco = np.where(seen[:, None], kinematics * rng.normal(1, 0.02, (n, 3)), np.nan)
    return matched_pairs(kinematics, reco)


@pytest.mark.long
def test_measured_kinematics_remove_what_wrong_ones_do_in_wide_cells():
    axes = (
        variable("mass", [0.4, 0.7, 1.0]),
        variable("pt", [0.0, 0.6, 1.4, 6.0]),
        variable("energy", [5.0, 35.0, 80.0]),
    )
    data, simulated = _sample(0.45, 400_000, 1), _sample(0.30, 400_000, 2)
    reco = data.reco[data.reconstructed]
    counts = np.histogramdd(reco, bins=[a.edges for a in axes])[0]
    measured = Spectrum(
        filled(axes, counts, counts),
        np.diag(counts.ravel()),
        "counts",
        None,
        np.ones_like(counts, dtype=bool),
    )
    plain = unfold.response(simulated, axes, axes, n_replicas=0)
    nominal = unfold.iterative(measured, plain, n_iterations=6)
    truth, found, known = np.histogramdd(data.true, bins=[a.edges for a in axes])[0].sum(), [], simulated
    for _ in range(3):
        found.append(unfold.iterative(measured, plain, n_iterations=6).values.sum() / truth - 1)
        curves = unfold.simulation.kinematic_factors(
            unfold.iterative(measured, plain, n_iterations=6), plain, [known]
        )
        known = unfold.simulation.with_kinematics(curves)(known)
        plain = unfold.response(known, axes, axes, n_replicas=0)
    left = unfold.iterative(measured, plain, n_iterations=6).values.sum() / truth - 1
    assert abs(nominal.values.sum() / truth - 1) > 0.01
    assert abs(found[1]) < 0.6 * abs(found[0])
    assert abs(left) < 0.3 * abs(found[0])


def test_factors_of_kinematics_do_not_stand_for_another_mass_spectrum():
    """Transverse momenta rise with the mass, and yet a flat simulation of a steep spectrum has them right."""
    rng = np.random.default_rng(5)
    axes = (variable("mass", [0.4, 0.6, 0.8, 1.0]), variable("pt", [0.0, 0.6, 1.4, 6.0]))
    axes = (*axes, variable("energy", [5.0, 35.0, 80.0]))
    mass = rng.uniform(0.4, 1.0, 300_000)
    pt, energy = rng.gamma(2, 0.5 * mass), rng.uniform(10, 60, len(mass))
    true = np.stack([mass, pt, np.sqrt(energy**2 + pt**2 + mass**2)], axis=1)
    simulated = matched_pairs(true, true)
    plain = unfold.response(simulated, axes, axes, n_replicas=0)
    steep = np.histogramdd(true, [a.edges for a in axes], weights=np.exp(-mass / 0.1))[0]
    nominal = Spectrum(filled(axes, steep, steep), np.diag(steep.ravel()), "counts", None, steep > 0)
    summed = steep.sum(axis=(0, 2)) / plain.prior.reshape(steep.shape).sum(axis=(0, 2))
    curves = unfold.simulation.kinematic_factors(nominal, plain, [simulated])
    assert np.ptp(curves["pt"][1][1:-1]) < 0.3 * np.ptp(np.log(summed))  # the rest is of masses within a bin
    assert all((np.diff(x) > 0).all() for x, _ in curves.values())


def test_a_spectrum_in_mass_alone_says_nothing_of_kinematics(matched):
    plain = unfold.response(matched, TRUE, TRUE, n_replicas=0)
    counts = np.ones(3)
    flat = Spectrum(filled(TRUE, counts, counts), np.eye(3), "counts", None, np.ones(3, dtype=bool))
    assert unfold.simulation.kinematic_factors(flat, plain, [matched]) == {}
    assert (unfold.simulation.with_kinematics({})(matched).weight == matched.weight).all()


@pytest.mark.parametrize(("sigma", "taken"), [(0.1, 0.0), (0.01, 1.0)])
def test_factors_that_errors_explain_are_not_taken(sigma, taken):
    """By hand: slopes of ±10 % in bins with errors of 10 % and of 1 %."""
    axes = (variable("mass", [0.4, 1.0]), variable("pt", [0.0, 1.0, 2.0, 3.0]))
    values = np.array([[1.1, 1.0, 0.9]])
    cov = np.diag((sigma * values.ravel()) ** 2)
    nominal = Spectrum(filled(axes, values, np.diag(cov)), cov, "counts", None, values > 0)
    y = np.log([1.15, 1.1, 1.0, 0.9, 0.85])
    (curve,) = unfold.simulation.significant({"pt": np.array([[0, 0.5, 1.5, 2.5, 3], y])}, nominal).values()
    assert curve[1] == pytest.approx(taken * y)
