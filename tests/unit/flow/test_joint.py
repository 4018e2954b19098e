"""One flow of mass, pt and energy: physical points, the sample's moments, the same seed the same flow."""

import numpy as np
import pytest

from gammastar import predict
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.flow.event_generator import JointOptions, fit_joint
from gammastar.mock import generate_pairs, load_card
from gammastar.predict.millicharge import by_rejection

pytestmark = pytest.mark.flow
OPTIONS = JointOptions(transforms=2, hidden=32, epochs=3)


@pytest.fixture(scope="module")
def cloud():
    pairs = generate_pairs(load_card(data_path("cards/na60_mock.toml")), 12_000, stream(1, "pairs"))
    keep = (pairs.mass > 0.2125) & (pairs.mass < 1.1125)
    return predict.PairCloud(*(a[keep] for a in (pairs.mass, pairs.pt, pairs.energy, pairs.weight)))


@pytest.fixture(scope="module")
def joint(cloud):
    return fit_joint(cloud, beam_energy=400.0, options=OPTIONS, rng=stream(1, "joint"))


def test_points_are_physical_and_follow_the_pairs(cloud, joint):
    mass, pt, energy = joint(12_000, stream(2, "draw"))
    assert ((mass >= cloud.mass.min()) & (mass <= cloud.mass.max())).all()
    assert (energy > np.hypot(mass, pt)).all()
    assert (energy < 400.0).all()
    share = cloud.weight / cloud.weight.sum()
    for drawn, given in ((mass, cloud.mass), (pt, cloud.pt), (np.log(energy), np.log(cloud.energy))):
        assert drawn.mean() == pytest.approx(float(share @ given), rel=0.06)
    heavy = float(share @ (cloud.mass > 0.6))
    assert (mass > 0.6).mean() == pytest.approx(heavy, abs=0.04)


def test_rejection_gives_the_rate_and_forbids_light_photons(cloud, joint):
    def inside(mass, *_):
        return np.ones(len(mass), dtype=bool)

    photons = by_rejection(0.3, 1e-6, M_MU, joint, inside, n=12_000, rng=stream(3, "chi"))
    assert photons.mass.min() > 0.6
    assert photons.weight.sum() == pytest.approx(1e-6)
    own = cloud.weighted_for(0.3, M_MU)
    expected = float(own.weight @ own.mass / own.weight.sum())
    assert np.average(photons.mass, weights=photons.weight) == pytest.approx(expected, rel=0.05)


def test_the_same_generator_gives_the_same_flow(cloud, joint):
    again = fit_joint(cloud, beam_energy=400.0, options=OPTIONS, rng=stream(1, "joint"))
    assert again.loss == joint.loss
    assert again.loss[-1] < again.loss[0]


def test_too_few_pairs_are_refused(cloud):
    few = predict.PairCloud(cloud.mass[:50], cloud.pt[:50], cloud.energy[:50], cloud.weight[:50])
    with pytest.raises(PhysicsError, match="at least 100"):
        fit_joint(few, beam_energy=400.0, rng=stream(1, "few"))
