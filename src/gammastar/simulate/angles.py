"""Angles of leptons of a polarised virtual photon, and their radiation."""

from __future__ import annotations

import numpy as np

from gammastar.core.constants import ALPHA, M_PROTON
from gammastar.core.records import FloatArray
from gammastar.physics.decays import lorentz, momentum_in_rest_frame
from gammastar.simulate.card_parts import Polarisation

__all__ = ["polarised_decay", "radiated", "sample_angles"]


def sample_angles(
    polarisation: Polarisation, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw cos θ and φ of the positive lepton, by rejection.

    Notes
    -----
    dN/dΩ ∝ 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ.
    """
    cosine, phi = np.empty(n), np.empty(n)
    open_ = np.arange(n)
    while len(open_):
        c, f = rng.uniform(-1.0, 1.0, len(open_)), rng.uniform(-np.pi, np.pi, len(open_))
        sine2 = 1.0 - c**2
        density = (
            1.0
            + polarisation.theta * c**2
            + polarisation.phi * sine2 * np.cos(2.0 * f)
            + polarisation.theta_phi * 2.0 * c * np.sqrt(sine2) * np.cos(f)
        )
        good = rng.random(len(open_)) * polarisation.highest < density
        cosine[open_[good]], phi[open_[good]] = c[good], f[good]
        open_ = open_[~good]
    return cosine, phi


def _unit(v: FloatArray) -> FloatArray:
    size = np.sqrt(np.sum(v**2, axis=0))
    return np.asarray(v / np.where(size > 0, size, 1.0), dtype=np.float64)


def _axes(photon: FloatArray, mass: FloatArray, beam_energy: float, frame: str) -> FloatArray:
    """Return the x, y, z axes of the frame in the photon's rest frame, shape (3, 3, n)."""
    momentum = float(np.sqrt(beam_energy**2 - M_PROTON**2))
    beam = np.array([0.0, 0.0, momentum, beam_energy])[:, np.newaxis]
    target = np.array([0.0, 0.0, 0.0, M_PROTON])[:, np.newaxis]
    back = photon * np.array([-1.0, -1.0, -1.0, 1.0])[:, np.newaxis]
    first, second = (lorentz(np.broadcast_to(p, photon.shape), back, mass)[:3] for p in (beam, target))
    if frame == "collins_soper":
        z = _unit(_unit(first) - _unit(second))
    else:  # against the momentum of what stands still in this frame: the laboratory is the target's
        z = -_unit(first + second if frame == "helicity" else second)
    normal = np.cross(first, second, axis=0)
    flat = np.sum(normal**2, axis=0) <= 1e-24 * np.sum(first**2, axis=0) * np.sum(second**2, axis=0)
    normal[:, flat] = np.array([[0.0], [1.0], [0.0]])  # no transverse momentum: any plane
    y = _unit(normal)
    return np.stack([np.cross(y, z, axis=0), y, z])


def polarised_decay(
    photon: FloatArray,
    mass: FloatArray,
    lepton: float,
    polarisation: Polarisation,
    beam_energy: float,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the positive lepton, shape (4, n), of polarised virtual photons.

    Parameters
    ----------
    photon : NDArray, shape (4, n)
        In the laboratory [GeV].
    mass : NDArray, shape (n,)
    lepton : float
        Mass of the lepton.
    polarisation : Polarisation
        Coefficients and frame.
    beam_energy : float
        [GeV]; the target nucleon is at rest.
    rng : numpy.random.Generator

    Notes
    -----
    Collins-Soper: z bisects beam and reversed target direction in the photon's rest frame. Helicity: z is
    opposite to the nucleon-nucleon system, the photon's flight in the centre of mass. Laboratory: z is the
    photon's flight in the laboratory, opposite to the target at rest.
    """
    cosine, phi = sample_angles(polarisation, photon.shape[1], rng)
    x, y, z = _axes(photon, mass, beam_energy, polarisation.frame)
    sine = np.sqrt(1.0 - cosine**2)
    direction = x * (sine * np.cos(phi)) + y * (sine * np.sin(phi)) + z * cosine
    p = momentum_in_rest_frame(mass, lepton, lepton)
    rest = np.concatenate([direction * p, [np.sqrt(p**2 + lepton**2)]])
    return lorentz(rest, photon, mass)


def radiated(mass: FloatArray, lepton: float, rng: np.random.Generator) -> FloatArray:
    """Draw the fraction of its momentum that each lepton keeps after final-state radiation, shape (2, n).

    Parameters
    ----------
    mass : NDArray, shape (n,)
        Of the virtual photon [GeV].
    lepton : float
        Mass of the lepton [GeV].
    rng : numpy.random.Generator

    Notes
    -----
    Leading logarithms, all orders in soft photons: D(z) = (β/2)(1 − z)^{β/2 − 1}(1 + z²)/2, normalised, with
    β = (2α/π)[ln(m²/m_l²) − 1] (E. A. Kuraev and V. S. Fadin, Sov. J. Nucl. Phys. 41 (1985) 466). Photons
    go along the lepton; a photon added to its lepton gives the lepton before radiation.
    """
    beta = 2.0 * ALPHA / np.pi * np.maximum(2.0 * np.log(mass / lepton) - 1.0, 0.0)
    beta = np.broadcast_to(np.maximum(beta, 1e-12), (2, len(mass)))
    kept = np.ones((2, len(mass)))
    open_ = np.ones((2, len(mass)), dtype=np.bool_)
    while open_.any():
        count = int(open_.sum())
        z = 1.0 - rng.random(count) ** (2.0 / beta[open_])
        good = rng.random(count) < 0.5 * (1.0 + z**2)
        where = np.flatnonzero(open_)
        kept.flat[where[good]] = z[good]
        open_.flat[where[good]] = False
    return kept
