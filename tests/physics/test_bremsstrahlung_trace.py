"""Splitting functions against helicity amplitudes in the infinite-momentum frame, and their limits."""

from __future__ import annotations

import numpy as np
import pytest

from gammastar.core.constants import ALPHA, M_PROTON
from gammastar.physics import bremsstrahlung

P_BEAM = 1000.0  # GeV
METRIC = np.diag([1.0, -1.0, -1.0, -1.0])


def _gamma() -> np.ndarray:
    """Dirac matrices, Dirac representation."""
    zero, one = np.zeros((2, 2)), np.eye(2)
    pauli = np.array([[[0, 1], [1, 0]], [[0, -1j], [1j, 0]], [[1, 0], [0, -1]]])
    spatial = [np.block([[zero, s], [-s, zero]]) for s in pauli]
    return np.array([np.block([[one, zero], [zero, -one]]), *spatial])


GAMMA = _gamma()


def _slash(v: np.ndarray) -> np.ndarray:
    return np.einsum("mij,m->ij", GAMMA, METRIC @ v)


def _trace(z: float, pt: float, mass: float, f1: complex, f2: complex, *, subtract: bool) -> float:
    """Splitting function of the old-fashioned vertex p → p' A' with three-momentum conserved."""

    def on_shell(three: np.ndarray, m: float) -> np.ndarray:
        return np.concatenate([[np.sqrt(three @ three + m * m)], three])

    p = on_shell(np.array([0, 0, P_BEAM]), M_PROTON)
    q = on_shell(np.array([pt, 0, z * P_BEAM]), mass)
    out = on_shell(p[1:] - q[1:], M_PROTON)
    k = METRIC @ (out - p)
    sigma = 0.5j * np.einsum("mij,njk->mnik", GAMMA, GAMMA)
    sigma = sigma - sigma.transpose(1, 0, 2, 3)
    vertex = f1 * GAMMA + f2 * 1j * np.einsum("mnij,n->mij", sigma, k) / (2 * M_PROTON)
    length = np.linalg.norm(q[1:])
    direction = q[1:] / length
    longitudinal = np.concatenate([[length], q[0] * direction]) / mass
    if subtract:
        longitudinal = longitudinal - q / mass
    polarisations = [
        np.array([0, 0, 1, 0]),
        np.concatenate([[0], np.cross(direction, [0, 1, 0])]),
        longitudinal,
    ]
    total = 0.0
    for e in polarisations:
        m = np.einsum("mij,m->ij", vertex, METRIC @ e)
        bar = GAMMA[0] @ m.conj().T @ GAMMA[0]
        total += np.trace(
            (_slash(out) + M_PROTON * np.eye(4)) @ m @ (_slash(p) + M_PROTON * np.eye(4)) @ bar
        ).real
    gap = p[0] - q[0] - out[0]
    spin_mean = 0.5 * total
    return (
        4
        * np.pi
        * ALPHA
        * spin_mean
        * np.pi
        * P_BEAM
        / ((2 * np.pi) ** 3 * 8 * p[0] * q[0] * out[0] * gap**2)
    )


def _points(n: int) -> np.ndarray:
    rng = np.random.default_rng(5)
    return np.stack([rng.uniform(0.1, 0.9, n), rng.uniform(0.05, 2.0, n), rng.uniform(0.1, 1.5, n)], axis=1)


@pytest.mark.parametrize(("z", "pt", "mass"), _points(30))
def test_splitting_functions_are_the_helicity_traces(z: float, pt: float, mass: float) -> None:
    pt2 = pt**2
    tolerance = 2e-4 if z < 0.2 else 1e-4
    w11 = _trace(z, pt, mass, 1, 0, subtract=True)
    w22 = _trace(z, pt, mass, 0, 1, subtract=True)
    both = _trace(z, pt, mass, 1, 1, subtract=True)
    scale = w11 + w22  # the interference may vanish
    assert bremsstrahlung.dirac_splitting(z, pt2, mass) == pytest.approx(w11, rel=tolerance)
    assert bremsstrahlung.pauli_splitting(z, pt2, mass) == pytest.approx(w22, rel=tolerance)
    assert bremsstrahlung.interference_splitting(z, pt2, mass) == pytest.approx(
        both - w11 - w22, abs=tolerance * scale
    )
    v1 = _trace(z, pt, mass, 1, 0, subtract=False)
    assert bremsstrahlung.polarisation_sum_splitting(z, pt2, mass) == pytest.approx(v1, rel=tolerance)


def test_interference_of_complex_form_factors_is_the_real_part_of_f1_times_conjugate_f2() -> None:
    z, pt, mass, f1, f2 = 0.4, 0.3, 0.8, 1.3 + 0.7j, -0.4 + 1.9j
    full = _trace(z, pt, mass, f1, f2, subtract=True)
    ours = abs(f1) ** 2 * bremsstrahlung.dirac_splitting(z, pt**2, mass) + abs(
        f2
    ) ** 2 * bremsstrahlung.pauli_splitting(z, pt**2, mass)
    ours = ours + (f1 * np.conj(f2)).real * bremsstrahlung.interference_splitting(z, pt**2, mass)
    assert ours == pytest.approx(full, rel=1e-4)


def test_dirac_part_is_the_light_front_wave_function_squared() -> None:
    z, pt, mass = _points(200).T
    x, h = 1 - z, bremsstrahlung.virtuality(z, pt**2, mass)
    transverse = ((1 + x**2) / z - 2 * M_PROTON**2 * z * x / h - mass**2 * x * (1 + x**2) / (z * h)) / h
    longitudinal = 2 * mass**2 * x**2 / (z * h**2)
    np.testing.assert_allclose(
        bremsstrahlung.dirac_splitting(z, pt**2, mass),
        ALPHA / (2 * np.pi) * (transverse + longitudinal),
        rtol=1e-12,
    )


def test_massless_limit_is_the_photon_splitting_function() -> None:
    z, pt, _ = _points(50).T
    h = pt**2 + z**2 * M_PROTON**2
    photon = (1 + (1 - z) ** 2) / (z * h) - 2 * z * (1 - z) * M_PROTON**2 / h**2
    np.testing.assert_allclose(
        bremsstrahlung.dirac_splitting(z, pt**2, 1e-7), ALPHA / (2 * np.pi) * photon, rtol=1e-10
    )
    # Far from the mass shell FWW and the quasi-real approximation agree.
    hard = bremsstrahlung.fww_splitting(z, 1e6, 0.1) / bremsstrahlung.dirac_splitting(z, 1e6, 0.1)
    np.testing.assert_allclose(hard, 1.0, rtol=1e-4)
