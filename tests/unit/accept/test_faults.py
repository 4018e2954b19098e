"""What the room refuses, and the leptons' way through magnet and planes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import vector
from builders import box_detector

from gammastar import accept
from gammastar.accept.decay import inverse_decay_length, position_at
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import Sample
from gammastar.physics.detector import Magnet, Plane
from gammastar.physics.geometry import Frustum

MASS = 0.3


class Model:
    def ctau(self, _mass, coupling):
        return 1e-12 / np.asarray(coupling) ** 2

    def branching(self, _mass):
        return {"ee": 0.4, "mumu": 0.5, "hadrons": 0.1}


def sample(n: int, *, mass: float = MASS, **changes: Any) -> Sample:
    pz = np.linspace(5.0, 50.0, n)
    p4 = vector.array({"px": 0.1 * np.ones(n), "py": 0 * pz, "pz": pz, "E": np.sqrt(0.01 + pz**2 + mass**2)})
    values = {"p4": p4, "weight": np.full(n, 1 / max(n, 1)), "origin": np.zeros((n, 3))}
    return Sample(**{**values, "in_domain": pz < 20.0, **changes})


def run(particles: Sample, mass: float = MASS, couplings: Any = 1e-6, **options: Any) -> accept.AcceptedYield:
    box = box_detector(options.pop("accept_on", "parent"))
    return accept.yields(particles, mass, couplings, Model(), box, rng=np.random.default_rng(1), **options)


@pytest.mark.parametrize("couplings", [0.0, -1e-6, [1e-6, np.nan], [1e-6, np.inf], [], [[1e-6, 1e-5]]])
def test_couplings_must_be_positive(couplings: Any) -> None:
    with pytest.raises(PhysicsError, match="couplings must be a list of positive numbers"):
        run(sample(10), couplings=couplings)


def test_samples_must_be_sound() -> None:
    nan = np.full(10, np.nan)
    with pytest.raises(PhysicsError, match="holds no particle"):
        run(sample(0))
    with pytest.raises(PhysicsError, match=r"Sample\.weight holds values that are not finite"):
        run(sample(10, weight=nan))
    with pytest.raises(PhysicsError, match=r"Sample\.origin"):
        run(sample(10, origin=np.full((10, 3), np.inf)))
    broken = vector.array({"px": nan, "py": nan, "pz": nan, "E": nan})
    with pytest.raises(PhysicsError, match=r"Sample\.p4"):
        run(sample(10, p4=broken))
    with pytest.raises(PhysicsError, match=r"another mass than 0\.5 GeV"):
        run(sample(10), mass=0.5)


@pytest.mark.parametrize(
    ("states", "accept_on"),
    [(["tautau"], "parent"), (["ee", "ee"], "parent"), ([], "parent"), (["hadrons"], "daughters")],
)
def test_final_states_must_be_shared(states: list[str], accept_on: str) -> None:
    with pytest.raises(PhysicsError, match="detector 'box' and model share"):
        run(sample(10), final_states=states, accept_on=accept_on)


def test_scan_refuses_wrong_lifetimes_and_weights() -> None:
    rng = np.random.default_rng(1)
    for ctau in (0.0, -1.0, np.nan):
        with pytest.raises(PhysicsError, match=r"cτ = .* must be positive"):
            accept.lifetime_scan(sample(10), MASS, ctau, box_detector("parent"), states={"ee": 1.0}, rng=rng)
    for states in ({"ee": -0.1}, {"ee": np.nan}, {"pipi": 0.5}):
        with pytest.raises(PhysicsError, match="final state"):
            accept.lifetime_scan(sample(10), MASS, 1.0, box_detector("daughters"), states=states, rng=rng)
    with pytest.raises(PhysicsError, match=r"momentum = .* must be positive"):
        inverse_decay_length([1.0, 0.0], MASS, 1.0)
    with pytest.raises(PhysicsError, match="bound the volume"):
        accept.forced_decay(np.array([[1.0, np.inf]]), rng)


def test_a_sample_that_misses_gives_zero() -> None:
    away = sample(10, origin=np.tile([50.0, 0.0, 0.0], (10, 1)))
    for accept_on in ("parent", "daughters"):
        found = run(away, accept_on=accept_on)
        assert found.signal[0] == found.mc_error[0] == found.n_effective[0] == 0
        assert np.isnan(found.in_domain_fraction[0])


def test_leptons_conserve_momentum_and_are_isotropic() -> None:
    parent = np.tile([[0.3], [0.1], [20.0], [np.sqrt(0.1 + 400.0 + MASS**2)]], 50000)
    plus, minus = accept.lepton_pair(parent, MASS, M_MU, np.random.default_rng(3))
    np.testing.assert_allclose(plus + minus, parent, rtol=1e-12)
    energy = plus[3]
    gamma, beta = parent[3, 0] / MASS, np.sqrt(400.1) / parent[3, 0]
    p_star = np.sqrt(MASS**2 / 4 - M_MU**2)
    cosine = (energy / gamma - MASS / 2) / (beta * p_star)
    assert np.abs(cosine).max() <= 1 + 1e-6
    assert abs(cosine.mean()) < 4 / np.sqrt(3 * 50000)
    assert abs((cosine**2).mean() - 1 / 3) < 4 * 0.3 / np.sqrt(50000)


def test_magnet_bends_by_its_kick_behind_it_only() -> None:
    p = np.tile([[0.5], [0.2], [10.0], [10.1]], 3)
    vertex = np.array([[0.0, 0, 0.0], [0.0, 0, 6.0], [0.0, 0, 30.0]])
    magnet = Magnet(5.0, 0.4)
    x, y = position_at(25.0, vertex, p, -1, magnet)
    np.testing.assert_allclose(x[:2], [0.05 * 25 - 0.04 * 20, 0.05 * 19])
    np.testing.assert_allclose(y[:2], [0.02 * 25, 0.02 * 19])
    assert np.isnan(x[2])
    before, _ = position_at(4.0, vertex, p, -1, magnet)
    assert before[0] == pytest.approx(0.2)
    backward, _ = position_at(25.0, vertex, -p, -1, magnet)
    assert np.isnan(backward).all()


def test_planes_cut_on_every_aperture() -> None:
    def through(x: float, y: float) -> tuple[np.ndarray, np.ndarray]:
        one = np.array([[x], [y], [1.0], [2.0]])
        return one, one * np.array([[-1], [-1], [1], [1]])

    def sees(plane: Plane, x: float, y: float) -> bool:
        around = Frustum(-2.0, 0.5, 2.0, 2.0, 2.0, 2.0)
        detector = box_detector("daughters", planes=(plane,), volume=around)
        return bool(accept.seen(np.zeros((1, 3)), through(x, y), detector)[0])

    ring = Plane("ring", 1.0, r_min=0.1, r_max=1.0)
    assert [sees(ring, x, 0.0) for x in (0.05, 0.5, 1.05)] == [False, True, False]
    octagon = Plane("octagon", 1.0, half_x=1.0, half_y=1.0, octagon=1.4)
    assert [sees(octagon, 0.9, y) for y in (0.4, 0.6, 1.1)] == [True, False, False]
    shifted = Plane("shifted", 1.0, half_x=0.3, x=0.5)
    assert not sees(shifted, 0.5, 0.0)  # the other lepton goes to x = −0.5
    apart = Plane("apart", 1.0, min_separation=0.5)
    assert [sees(apart, x, 0.0) for x in (0.2, 0.3)] == [False, True]
    behind = Plane("behind", -1.0)
    assert not sees(behind, 0.5, 0.0)
