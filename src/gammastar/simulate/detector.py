"""A muon spectrometer in four formulas: acceptance, efficiency, smearing."""

from __future__ import annotations

import numpy as np

from gammastar.core.records import BoolArray, FloatArray
from gammastar.simulate.card import DetectorCard, Efficiency

__all__ = ["accepted", "efficiency", "pair_kinematics", "smear"]


def accepted(muon: FloatArray, card: DetectorCard) -> BoolArray:
    """Return True where a muon reaches the spectrometer: energy above the absorber's, angle inside the cone.

    Parameters
    ----------
    muon : NDArray, shape (4, ...)
        px, py, pz, E [GeV].
    card : DetectorCard
    """
    px, py, pz, energy = muon
    slope2 = px**2 + py**2
    inside = (slope2 > (np.tan(card.theta_min) * pz) ** 2) & (slope2 < (np.tan(card.theta_max) * pz) ** 2)
    inside &= (pz > 0) & (energy > card.e_min)
    if card.pt_min > 0:
        inside &= slope2 > card.pt_min**2
    if card.coil > 0:
        sector = 2.0 * np.pi / card.sextants
        into = np.mod(np.arctan2(py, px), sector)
        inside &= np.minimum(into, sector - into) > card.coil
    return np.asarray(inside, dtype=np.bool_)


def pair_kinematics(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mass, pt and energy of pairs of four-momenta, shape (4, n) each [GeV]."""
    px, py, pz, energy = first + second
    pt2 = px**2 + py**2
    return np.sqrt(np.maximum(energy**2 - pz**2 - pt2, 0.0)), np.sqrt(pt2), energy


def efficiency(mass: FloatArray, pt: FloatArray, energy: FloatArray, card: Efficiency) -> FloatArray:
    """Return the trigger and reconstruction efficiency of a pair of accepted muons.

    Parameters
    ----------
    mass, pt, energy : NDArray, shape (n,)
        Of the pair [GeV].
    card : Efficiency

    Notes
    -----
    plateau × [1 − d exp(−(m² + pt²)/2s²)] × 1/(1 + exp(−(E − E½)/w)): soft pairs and low energies lose, and
    it does not depend on the charges, so that it cancels in the like-sign ratio R.
    """
    soft = 1.0 - card.soft_depth * np.exp(-(mass**2 + pt**2) / (2.0 * card.soft_scale**2))
    turn_on = 1.0 / (1.0 + np.exp(-(energy - card.energy_half) / card.energy_width))
    return np.asarray(card.plateau * soft * turn_on, dtype=np.float64)


def smear(momentum: FloatArray, card: DetectorCard, rng: np.random.Generator) -> FloatArray:
    """Return measured three-momenta.

    Parameters
    ----------
    momentum : NDArray, shape (3, ...)
        px, py, pz [GeV], pz > 0.
    card : DetectorCard
    rng : numpy.random.Generator

    Notes
    -----
    Gaussian relative error of the momentum and Gaussian errors of the two slopes.
    """
    px, py, pz = momentum
    p = np.sqrt(px**2 + py**2 + pz**2)
    measured = p * np.maximum(1.0 + card.sigma_p * rng.standard_normal(p.shape), 0.05)
    safe = np.where(pz > 0, pz, 1.0)
    slope_x = px / safe + card.sigma_theta * rng.standard_normal(p.shape)
    slope_y = py / safe + card.sigma_theta * rng.standard_normal(p.shape)
    z = measured / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    return np.stack([z * slope_x, z * slope_y, z])
