"""The polar angle of the leptons in the rest frame of the pair, against a boost."""

import awkward as ak
import numpy as np
import pytest
import vector

from gammastar.core.constants import M_E, M_MU
from gammastar.select.pairing import helicity_cosine, pairs


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


def test_the_column_of_the_azimuth_is_that_of_a_boost():
    """From the production plane, on the side of the beam; the positive lepton counts, wherever it stands."""
    first, second = _legs((M_MU, M_MU), 300, seed=9)
    fields = ("px", "py", "pz", "mass")
    legs = [dict(zip(fields, leg.T, strict=True)) for leg in (second, first)]  # the negative one first
    charge = np.tile([-1, 1], 300)
    lepton = {k: ak.unflatten(np.stack([leg[k] for leg in legs], axis=1).ravel(), 2) for k in fields}
    lepton["charge"] = ak.unflatten(charge, 2)
    events = {"lepton": ak.zip(lepton), "event": np.arange(300), "weight": np.ones(300)}
    found, _ = pairs(ak.zip(events, depth_limit=1))
    one, two = (
        vector.array({"px": leg[:, 0], "py": leg[:, 1], "pz": leg[:, 2], "mass": leg[:, 3]})
        for leg in (first, second)
    )
    pair = one.add(two)
    beam = vector.array({"px": np.zeros(300), "py": np.zeros(300), "pz": np.ones(300), "E": np.ones(300)})
    z = pair.to_Vector3D().unit()
    y = z.cross(beam.boostCM_of(pair).to_Vector3D()).unit()
    at_rest = one.boostCM_of(pair).to_Vector3D()
    phi = np.arctan2(at_rest.dot(y), at_rest.dot(y.cross(z)))
    np.testing.assert_allclose(np.exp(1j * found.columns["phi_star"]), np.exp(1j * phi), atol=1e-6)


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
