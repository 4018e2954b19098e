"""The test of a density: uniform p-values under the truth, the power that it states, weights, replicas."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from scipy.spatial.distance import cdist
from scipy.stats import binom, kstest

pytest.importorskip("torch")
pytest.importorskip("zuko")

from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import Sampler
from gammastar.flow import density_test
from gammastar.flow.density_tests import DensityOptions, DensityTest, density_slices
from gammastar.pipeline.stages import flow as flow_stage

pytestmark = pytest.mark.flow
PLAIN = DensityOptions(power=0.0)  # no search for the smallest shift
FEW = DensityOptions(n_flips=399, power=0.0)


class Toy(Sampler):
    """The truth, or one whose energies or transverse momenta are off by a factor."""

    def __init__(self, energy=1.0, pt=1.0, slope=0.0):
        self.factor = (pt, energy)
        self.slope = slope

    @property
    def mass_range(self):
        return (0.2, 1.1)

    def sample(self, mass, rng):
        pt = rng.gamma(2.2, 0.15 + 0.15 * mass)
        energy = np.hypot(mass, pt) * np.cosh(rng.normal(4.0, 0.4, mass.size))
        return pt * self.factor[0], energy * self.factor[1] * (mass / 0.65) ** self.slope


def pairs(n, rng):
    mass = rng.uniform(0.2, 1.1, n)
    return np.column_stack([mass, *Toy().sample(mass, rng)])


def efficiency(data):
    return 0.02 + 0.9 * (1.0 - np.exp(-data[:, 1] / 0.6))


def recorded(n, rng):
    """Return pairs that a detector kept, and one over its efficiency."""
    data = pairs(n, rng)
    seen = data[rng.random(n) < efficiency(data)]
    return seen, 1.0 / efficiency(seen)


def uniform(p_values):
    """Return the probability of so uneven a set of p-values."""
    return kstest(p_values, "uniform").pvalue


@pytest.mark.long
def test_p_values_of_the_truth_are_uniform():
    rng = np.random.default_rng(1)
    found = [density_test(Toy(), pairs(300, rng), rng=rng, options=FEW).p_value for _ in range(120)]
    assert uniform(found) > 1e-3
    assert uniform(0.8 * np.array(found)) < 1e-3  # it would see p-values that are too small


@pytest.mark.long
def test_p_values_are_uniform_with_weights_that_depend_on_the_kinematics():
    rng = np.random.default_rng(2)
    found, plain = [], []
    for _ in range(44):
        data, weight = recorded(1000, rng)
        found.append(density_test(Toy(), data, weight=weight, rng=rng, options=FEW).p_value)
        plain.append(density_test(Toy(), data, rng=rng, options=FEW).p_value)
    assert uniform(found) > 1e-3
    assert np.mean(np.array(plain) < 0.01) > 0.9  # the same pairs without their weights


def test_p_values_are_uniform_with_signed_weights():
    rng = np.random.default_rng(3)
    found = []
    for _ in range(44):
        background = pairs(400, rng) * [1.0, 2.0, 1.5]  # half opposite sign, half like sign
        data = np.concatenate([pairs(600, rng), background])
        weight = np.concatenate([np.ones(800), -np.ones(200)])
        found.append(density_test(Toy(), data, weight=weight, rng=rng, options=FEW).p_value)
    assert uniform(found) > 1e-3


@pytest.mark.long
def test_pairs_of_one_event_are_not_counted_twice():
    rng = np.random.default_rng(4)
    found, wrong = [], []
    for _ in range(44):
        data, event = np.repeat(pairs(200, rng), 4, axis=0), np.repeat(np.arange(200), 4)
        found.append(density_test(Toy(), data, event=event, rng=rng, options=FEW).p_value)
        wrong.append(density_test(Toy(), data, rng=rng, options=FEW).p_value)
    # the twins are four draws, the pair is one: a wild bootstrap is right up to its few events
    assert uniform(found) > 1e-3
    assert uniform(wrong) < 1e-6


@pytest.mark.long
@pytest.mark.parametrize("name", ["energy", "pt"])
def test_a_shift_is_found_as_often_as_stated(name):
    rng = np.random.default_rng(5)
    data, weight = recorded(2000, rng)
    stated = density_test(Toy(), data, weight=weight, rng=rng)
    n, found = 30, {0.5: 0, 1.0: 0}
    for share in found:
        off = Toy(**{name: 1.0 + share * stated.smallest[name]})
        for _ in range(n):
            data, weight = recorded(2000, rng)
            p = density_test(off, data, weight=weight, rng=rng, options=FEW).p_value
            found[share] += p <= stated.options.significance
    low, high = binom.ppf([0.001, 0.999], n, 0.95)
    assert low <= found[1.0] <= high
    assert found[0.5] < 0.8 * n  # smaller ones are found less often: it is the smallest


def test_energies_a_fifth_or_momenta_a_tenth_up_fail():
    rng = np.random.default_rng(6)
    data, shifts = pairs(5_000, rng), {"energy": 1.2, "pt": 1.1}
    found = {key: density_test(Toy(**{key: shifts[key]}), data, rng=rng, options=PLAIN) for key in shifts}
    for key, value in shifts.items():
        assert found[key].p_value == pytest.approx(1 / 5000)
        shift, error = found[key].shift[key]
        assert shift == pytest.approx(-np.log(value), abs=4 * error)
        assert 0 < error < 0.02
    shift, error = found["energy"].shift["pt"]
    assert abs(shift) < 4 * error


def test_a_shift_that_turns_over_with_the_mass_is_found():
    rng = np.random.default_rng(7)
    data = pairs(14_000, rng)
    found = density_test(Toy(slope=0.15), data, rng=rng, options=PLAIN)
    assert abs(found.shift["energy"][0]) < 0.03
    assert found.p_value < 1e-3


def test_distance_is_the_energy_distance():
    rng = np.random.default_rng(8)
    data = pairs(2000, rng)
    state = np.random.default_rng(9)
    found = density_test(Toy(energy=1.5), data, rng=state, options=FEW)
    twins = np.column_stack([data[:, 0], *Toy(energy=1.5).sample(data[:, 0], np.random.default_rng(9))])
    points = [np.column_stack([x[:, 0], np.log(x[:, 1:])]) for x in (data, twins)]
    scale = points[0].std(axis=0, ddof=1)
    a, b = (x / scale for x in points)
    expected = 2 * cdist(a, b).mean() - cdist(a, a).mean() - cdist(b, b).mean()
    assert found.distance == pytest.approx(expected, rel=0.03)  # of 100 landmarks


def test_only_what_is_inside_is_compared():
    rng = np.random.default_rng(10)
    data = pairs(4000, rng)
    seen = data[data[:, 1] > 0.3]

    def inside(mass, pt, energy):
        return (pt > 0.3) & (energy > 0) & (mass > 0)

    assert density_test(Toy(), seen, rng=rng, options=PLAIN).p_value < 1e-3
    options = {"inside": inside, "options": FEW}
    found = [density_test(Toy(), seen, rng=np.random.default_rng(i), **options).p_value for i in range(9)]
    assert np.median(found) > 0.02
    assert density_test(Toy(), data, rng=rng, **options).n_pairs == len(seen)


@pytest.mark.long
def test_replicas_widen_the_null_by_their_spread():
    """Samplers off by a random factor whose size the replicas know: p in the band is uniform, p is not."""
    rng = np.random.default_rng(11)
    sigma, alone, within = 0.06, [], []
    for _ in range(44):
        data = pairs(2000, rng)
        nominal, *factors = np.exp(sigma * rng.normal(size=9))

        def weights(mass, pt, energy, nominal=nominal, factors=factors):
            # ln E is normal at fixed mass and pt up to the tail of cosh: y = arccosh(E/(factor m_T))
            def density(factor):
                y = np.arccosh(np.maximum(energy / (factor * np.hypot(mass, pt)), 1.0))
                return np.exp(-0.5 * ((y - 4.0) / 0.4) ** 2) / np.sinh(y)  # dE = m_T sinh y dy

            return np.stack([density(f) * nominal / (density(nominal) * f) for f in factors])

        found = density_test(Toy(energy=nominal), data, replicas=weights, rng=rng, options=FEW)
        alone.append(found.p_value)
        within.append(found.band_p_value)
        assert found.verdict == found.band_p_value
    assert uniform(alone) < 1e-6
    assert uniform(within) > 1e-3
    assert found.band["energy"] == pytest.approx(sigma, rel=0.7)
    assert np.isnan(density_test(Toy(), data, rng=rng, options=FEW).band["energy"])


def test_same_generator_same_numbers():
    data = pairs(500, np.random.default_rng(12))
    first, second = (density_test(Toy(), data, rng=np.random.default_rng(1), options=FEW) for _ in range(2))
    assert (first.p_value, first.distance, first.smallest) == (
        second.p_value,
        second.distance,
        second.smallest,
    )


def test_what_cannot_be_tested_is_refused():
    rng = np.random.default_rng(13)
    data = pairs(500, rng)
    with pytest.raises(PhysicsError, match="at least 50 are needed"):
        density_test(Toy(), data[:40], rng=rng)
    with pytest.raises(PhysicsError, match=r"effective \d+\) between 0.2 and 1.1 GeV"):
        density_test(Toy(), data, weight=np.where(np.arange(500) < 5, 1e6, 1.0), rng=rng)
    with pytest.raises(PhysicsError, match="3 pairs are not finite and positive"):
        density_test(Toy(), np.where(np.arange(500)[:, None] < 3, np.nan, data), rng=rng)
    with pytest.raises(PhysicsError, match=r"must be \(n, 3\)"):
        density_test(Toy(), data[:, :2], rng=rng)


@pytest.mark.parametrize(
    ("energy", "p", "band_p", "told"),
    [
        (0.2, 2e-4, np.nan, True),  # without replicas: by size
        (0.01, 2e-4, np.nan, False),
        (0.01, 2e-4, 0.4, False),  # with them: by the band
        (0.2, 2e-4, 2e-4, True),
        (0.2, 0.3, np.nan, False),
    ],
)
def test_alarm_where_the_flow_is_off_by_more_than_matters(energy, p, band_p, told):
    alarms = []
    found = DensityTest(
        distance=0.1,
        p_value=p,
        band_p_value=band_p,
        n_pairs=1000,
        effective_size=900.0,
        options=DensityOptions(),
        smallest={"pt": 0.05, "energy": 0.05},
        shift={"pt": (0.0, 0.01), "energy": (energy, 0.01)},
        band={"pt": band_p, "energy": band_p},
    )
    flow_stage._judge(SimpleNamespace(cache=SimpleNamespace(alarm=alarms.append)), found)
    assert len(alarms) == told
    assert all("not the density of its measured pairs" in alarm for alarm in alarms)


def test_a_slice_that_is_wrong_is_seen_where_the_mean_over_all_masses_is_right():
    rng = np.random.default_rng(11)
    data = pairs(8000, rng)

    class Turned(Toy):
        """Energies 15 % up above 0.65 GeV and as much down below."""

        def sample(self, mass, rng):
            pt, energy = super().sample(mass, rng)
            return pt, energy * np.where(mass > 0.65, 1.15, 1.0 / 1.15)

    found = density_slices(Turned(), data, weight=np.ones(8000), rng=rng, options=FEW)
    assert [low for low, _, _ in found] == pytest.approx(np.arange(0.2, 1.1, 0.05))
    spread = np.log(data[:, 2]).std()
    for _, high, one in found:
        shift, error = one.shift["energy"]
        assert shift == pytest.approx(np.log(1.15) * (1 if high <= 0.66 else -1), abs=4 * error)
        assert error == pytest.approx(spread * np.sqrt(2 / one.n_pairs), rel=0.35)  # it varies with the mass
        assert abs(one.shift["pt"][0]) < 4 * one.shift["pt"][1]
    few = data[data[:, 0] < 0.3]
    asked = density_slices(Toy(), few, weight=np.ones(len(few)), rng=rng)
    assert len(asked) == 2
    assert 0.05 < asked[0][2].smallest["energy"] < 0.3  # of 440 pairs
