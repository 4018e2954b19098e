"""Two-body decays: conservation, mass shells, angular distributions."""

from __future__ import annotations

import numpy as np
import pytest
import vector
from scipy import stats

from gammastar.core.constants import M_MU, M_PI0, mass
from gammastar.core.errors import PhysicsError
from gammastar.core.sampling import stream
from gammastar.physics.polarisation import daughter, lepton_cosine, momentum_in_rest_frame

OMEGA = 223


def omegas(n: int, rng: np.random.Generator, m: float = mass(OMEGA)):
    p = rng.normal(0, 1, (3, n)) * np.array([[0.5], [0.5], [30.0]])
    return vector.array({"px": p[0], "py": p[1], "pz": p[2], "E": np.sqrt(m**2 + np.sum(p**2, axis=0))})


def two_body(parent, m1, m2, cosine, phi):
    p = np.stack([parent.px, parent.py, parent.pz, parent.E])
    first = daughter(p, parent.mass, m1, m2, cosine, phi)
    return tuple(vector.array(dict(zip(("px", "py", "pz", "E"), x, strict=True))) for x in (first, p - first))


def isotropic(parent, m1, m2, rng):
    n = len(parent)
    return two_body(parent, m1, m2, rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n))


def test_momentum_is_conserved_and_daughters_are_on_shell() -> None:
    rng = stream(1, "decays")
    parent = omegas(5000, rng)
    first, second = isotropic(parent, 0.4, M_PI0, rng)
    total = first + second
    for name in ("px", "py", "pz", "E"):
        np.testing.assert_allclose(getattr(total, name), getattr(parent, name), atol=1e-10)
    np.testing.assert_allclose(first.mass, 0.4, atol=1e-6)
    np.testing.assert_allclose(second.mass, M_PI0, atol=1e-5)


def test_angles_come_back_in_the_rest_frame() -> None:
    rng = stream(2, "decays")
    parent = omegas(2000, rng)
    cosine, phi = rng.uniform(-1, 1, 2000), rng.uniform(-np.pi, np.pi, 2000)
    first, _ = two_body(parent, M_MU, M_MU, cosine, phi)
    rest = first.boostCM_of_p4(parent)
    flight = parent.to_Vector3D().unit()
    np.testing.assert_allclose(rest.to_Vector3D().unit().dot(flight), cosine, atol=1e-6)
    np.testing.assert_allclose(rest.mag, momentum_in_rest_frame(mass(OMEGA), M_MU, M_MU), rtol=1e-6)


def test_isotropic_decay_is_flat_in_the_laboratory_energy() -> None:
    rng = stream(3, "decays")
    n = 20_000
    parent = vector.array(
        {"px": np.zeros(n), "py": np.zeros(n), "pz": np.full(n, 20.0), "E": np.full(n, 25.0)}
    )
    first, _ = isotropic(parent, M_MU, M_MU, rng)
    p_star = momentum_in_rest_frame(15.0, M_MU, M_MU)
    low, high = (25 * 7.5 - 20 * p_star) / 15, (25 * 7.5 + 20 * p_star) / 15
    assert stats.kstest((first.E - low) / (high - low), "uniform").pvalue > 1e-3
    assert stats.kstest((first.phi + np.pi) / (2 * np.pi), "uniform").pvalue > 1e-3


def test_parent_at_rest_decays_along_z() -> None:
    parent = vector.array({"px": [0.0], "py": [0.0], "pz": [0.0], "E": [1.0]})
    first, second = two_body(parent, 0.0, 0.0, np.array([1.0]), np.array([0.3]))
    assert first.pz[0] == pytest.approx(0.5)
    assert second.pz[0] == pytest.approx(-0.5)


def test_narrow_masses_survive_a_high_boost() -> None:
    rng = stream(4, "decays")
    parent = np.array([[0.3], [0.1], [350.0], [0.0]]) * np.ones(1000)
    parent[3] = np.sqrt(np.sum(parent[:3] ** 2, axis=0) + mass(OMEGA) ** 2)
    first = daughter(
        parent, mass(OMEGA), M_MU, M_MU, rng.uniform(-1, 1, 1000), rng.uniform(-np.pi, np.pi, 1000)
    )
    second = parent - first
    energy = [np.sqrt(M_MU**2 + np.sum(p[:3] ** 2, axis=0)) for p in (first, second)]
    m2 = (energy[0] + energy[1]) ** 2 - np.sum(parent[:3] ** 2, axis=0)
    np.testing.assert_allclose(np.sqrt(m2), mass(OMEGA), atol=1e-7)


def test_parent_lighter_than_its_daughters_is_refused() -> None:
    with pytest.raises(PhysicsError, match="decay 1"):
        momentum_in_rest_frame(np.array([1.0, 0.2]), M_MU, M_MU)


@pytest.mark.parametrize("q", [2.0001 * M_MU, 0.25, 0.7])
def test_lepton_angle_follows_its_density(q: float) -> None:
    ratio = 4 * M_MU**2 / q**2
    cosine = lepton_cosine(np.full(40_000, q**2), M_MU, stream(5, "cosine").uniform(size=40_000))
    norm = (1 + ratio) + (1 - ratio) / 3

    def cdf(c):
        return ((1 + ratio) * c + (1 - ratio) * c**3 / 3 + norm) / (2 * norm)

    assert stats.kstest(cosine, cdf).pvalue > 1e-3
