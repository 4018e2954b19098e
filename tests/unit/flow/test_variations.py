"""The band that later stages get: members, their small number, and the pairs near the mass."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("zuko")

from scipy.stats import t as student

from gammastar.core.errors import InputFileError, PhysicsError
from gammastar.flow import FlowEnsemble, FlowOptions, FlowVariations, LocalStatistics, fit

pytestmark = pytest.mark.flow
RANGE = (0.3, 1.0)
MASSES = np.linspace(0.29, 1.01, 1001)
SMALL = FlowOptions(epochs=2, epoch_size=2048, hidden=8, bins=4, batch=512, octaves=2, mass_range=RANGE)


def flat(count):
    return LocalStatistics(np.array(RANGE), np.array([float(count)] * 2))


@pytest.fixture(scope="module")
def flow():
    rng = np.random.default_rng(1)
    mass = rng.uniform(*RANGE, 3000)
    pt = rng.gamma(2.0, 0.2, 3000)
    energy = np.hypot(mass, pt) * np.cosh(rng.uniform(2.5, 4.5, 3000))
    return fit(mass, pt, energy, beam_energy=400.0, options=SMALL, rng=rng)


@pytest.fixture(scope="module")
def sample(flow):
    mass = np.full(6_000, 0.6)
    return mass, *flow.sample(mass, np.random.default_rng(2))


@pytest.mark.parametrize("single", [False, True])
def test_density_at_one_mass_is_that_among_other_masses(flow, single):
    low, high = flow.mass_range
    middle = 0.5 * (low + high)
    pt, energy = flow.sample(np.full(9000, middle), np.random.default_rng(3))
    pt[5] = 500.0  # outside the limits
    alone = flow.log_prob(np.full(9000, middle), pt, energy, single=single)
    mixed = flow.log_prob(
        np.append(np.full(9000, middle), high), np.append(pt, 0.1), np.append(energy, 30.0), single=single
    )
    np.testing.assert_allclose(alone, mixed[:-1], atol=1e-3 if single else 1e-10)
    assert alone[5] == -np.inf
    assert flow.log_prob(middle, 500.0, 30.0) == -np.inf


@pytest.mark.long
def test_equal_members_leave_the_precision_of_the_pairs(flow, sample):
    # members that agree: the mean of a function moves by its standard deviation over √n of the near pairs
    members, count = 60, 400.0
    found = FlowVariations(flow, FlowEnsemble((flow,) * members), flat(count))
    rows = found.weights(*sample)
    assert rows.min() >= 0
    assert rows.mean(axis=1) == pytest.approx(np.ones(members), rel=1e-9)
    factor = student.ppf(0.975, members - 1) / student.ppf(0.975, np.inf)
    for function in (sample[2], np.log(sample[1]), (sample[2] > np.quantile(sample[2], 0.97)).astype(float)):
        spread = (rows @ function / len(function)).std(ddof=1)
        expected = factor * function.std() / np.sqrt(count)
        assert spread == pytest.approx(expected, rel=4.0 / np.sqrt(2 * (members - 1)))
    assert (found.weights(*sample) == rows).all()


@pytest.mark.long
def test_a_part_of_unequal_particles_keeps_the_precision_of_the_pairs(flow, sample):
    # what is left out counts as one number: a detector that sees a part knows it as well as all the pairs do
    members, count = 120, 400.0
    found = FlowVariations(flow, FlowEnsemble((flow,) * members), flat(count))
    mass, pt, energy = sample
    rng = np.random.default_rng(7)
    thinned = rng.uniform(size=len(pt)) < np.where(energy > np.median(energy), 1.0, 0.25)
    share = np.where(energy > np.median(energy), 1.0, 4.0) / len(pt)
    seen = np.flatnonzero(thinned & (energy > np.quantile(energy, 0.8)))
    rows = found.weights(mass[seen], pt[seen], energy[seen], share[seen])
    part = share[seen].sum()
    factor = student.ppf(0.975, members - 1) / student.ppf(0.975, np.inf)
    spread = (rows @ share[seen]).std(ddof=1)
    assert spread == pytest.approx(factor * np.sqrt(part * (1 - part) / count), rel=0.3)
    assert (rows @ share[seen]).mean() == pytest.approx(part, abs=4 * spread / np.sqrt(members))
    whole = found.weights(*sample, np.full(len(pt), 1.0 / len(pt)))
    assert whole.mean(axis=1) == pytest.approx(np.ones(members), rel=1e-9)


def test_many_pairs_leave_students_factor_on_the_members(flow, sample):
    other = fit(
        sample[0],
        1.03 * sample[1],
        sample[2] * 1.05,
        beam_energy=500.0,
        options=SMALL,
        rng=np.random.default_rng(3),
    )
    pair = FlowEnsemble((flow, other, flow))
    plain = FlowVariations(flow, pair).weights(*sample)
    found = FlowVariations(flow, pair, flat(1e16)).weights(*sample)
    factor = student.ppf(0.975, 2) / student.ppf(0.975, np.inf)
    wanted = np.maximum(plain.mean(axis=0) + factor * (plain - plain.mean(axis=0)), 0.0)
    assert found == pytest.approx(wanted / wanted.mean(axis=1, keepdims=True), rel=1e-4, abs=1e-4)


@pytest.mark.long
def test_windows_of_a_sample_over_all_masses(flow):
    mass = np.random.default_rng(4).uniform(*RANGE, 10_000)
    pt, energy = flow.sample(mass, np.random.default_rng(5))
    found = FlowVariations(flow, FlowEnsemble((flow,) * 40), flat(200.0)).weights(mass, pt, energy)
    window = np.abs(mass - 0.6) < 0.03
    log_pt = np.log(pt[window])
    spread = (found[:, window] * (log_pt - log_pt.mean())).mean(axis=1).std(ddof=1)
    expected = student.ppf(0.975, 39) / 1.96 * log_pt.std() / np.sqrt(200.0)
    assert spread == pytest.approx(expected, rel=0.4)


def test_near_pairs_of_a_table(tmp_path):
    weight = np.where(np.arange(1001) % 2, 2.0, 1.0)
    found = LocalStatistics.of(MASSES, weight, RANGE)
    density = 1001 / (MASSES[-1] - MASSES[0])
    assert found.at(np.array([0.65])) == pytest.approx(0.06 * density * 0.9, rel=0.03)  # 1.5² / 2.5
    signed = LocalStatistics.of(MASSES, np.where(np.arange(1001) % 4 == 0, -1.0, 1.0), RANGE)
    assert signed.at(np.array([0.65])) == pytest.approx(0.06 * density / 4.0, rel=0.05)
    assert LocalStatistics.of(MASSES + 5.0, weight, RANGE).at(np.array([0.6])) == 1.0
    found.save(tmp_path / "near.json")
    again = LocalStatistics.load(tmp_path / "near.json")
    assert (again.count == found.count).all()
    (tmp_path / "near.json").write_text('{"mass": [1, 0], "count": [1, 1], "half_width": 0.03}')
    with pytest.raises(InputFileError, match="train the flow again"):
        LocalStatistics.load(tmp_path / "near.json")
    with pytest.raises(PhysicsError, match="half_width"):
        LocalStatistics(np.array(RANGE), np.ones(2), 0.0)


def test_single_precision_is_enough_for_weights(flow, sample):
    double, single = (flow.log_prob(*sample, single=kind) for kind in (False, True))
    assert np.isfinite(double).all()
    assert np.abs(single - double).max() < 1e-4
    assert not np.array_equal(single, double)


def test_draws_at_one_mass_are_those_of_the_network(flow):
    normal = np.random.default_rng(8).normal(0, 2, (20_000, 2)).clip(-7, 7)
    exact, ours = flow.transform(np.full(len(normal), 0.6), normal), flow.at_mass(0.6)(normal)
    for one, other in zip(ours, exact, strict=True):
        assert np.quantile(np.abs(one / other - 1.0), 0.999) < 1e-4
