"""The polar angle of the leptons in the rest frame of the pair, against a boost."""

import numpy as np
import pytest
import vector

from gammastar.core.constants import M_E, M_MU
from gammastar.select.pairs import helicity_cosine


def _legs(masses, n, seed):
    rng = np.random.default_rng(seed)
    legs = []
    for mass in masses:
        momenta = np.column_stack([rng.normal(0, 0.5, (n, 2)), rng.exponential(15, n)])
        legs.append(np.column_stack([momenta, np.full(n, mass)]))
    return legs


@pytest.mark.parametrize("masses", [(M_MU, M_MU), (M_E, M_E), (M_MU, M_E)])
def test_it_is_the_angle_after_a_boost_to_the_rest_frame(masses):
    first, second = _legs(masses, 2000, seed=7)
    one, two = (
        vector.array({"px": leg[:, 0], "py": leg[:, 1], "pz": leg[:, 2], "mass": leg[:, 3]})
        for leg in (first, second)
    )
    pair = one.add(two)
    at_rest = one.boostCM_of(pair)
    axis = pair.to_Vector3D()
    expected = at_rest.to_Vector3D().dot(axis) / (at_rest.mag * axis.mag)
    assert helicity_cosine(first, second, pair.mass) == pytest.approx(expected, abs=2e-7)


def test_exchange_of_the_leptons_turns_the_axis():
    first, second = _legs((M_MU, M_MU), 500, seed=8)
    energy = sum(np.sqrt((leg**2).sum(axis=1)) for leg in (first, second))
    mass = np.sqrt(energy**2 - ((first + second)[:, :3] ** 2).sum(axis=1))
    there, back = helicity_cosine(first, second, mass), helicity_cosine(second, first, mass)
    assert there == pytest.approx(-back, abs=1e-12)


def test_a_pair_at_rest_has_no_axis():
    leg = np.array([[0.0, 0.0, 1.0, M_MU]])
    mass = 2 * np.sqrt(1 + M_MU**2)
    assert helicity_cosine(leg, leg * [1, 1, -1, 1], np.array([mass])) == pytest.approx(0.0)
