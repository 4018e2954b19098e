"""Vacuum polarisation at one loop: what turns a dressed cross-section into a bare one."""

from __future__ import annotations

import numpy as np

from gammastar.core.constants import ALPHA, M_E, M_MU
from gammastar.core.constants import mass as mass_of
from gammastar.core.records import FloatArray

TAU = 15


def leptons(m: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the real and the imaginary part of Δα from leptons at time-like momentum.

    Parameters
    ----------
    m : NDArray, shape (n,) [GeV]

    Notes
    -----
    One loop: Δα = (α/3π)[−5/3 − z + (1 + z/2) f(z)], z = 4 m_l²/s, with f = v ln((1 + v)/|1 − v|) and
    v = √(1 − z) above threshold, f = 2v' arctan(1/v') and v' = √(z − 1) below; the imaginary part is
    −(α/3) v (1 + z/2).
    """
    s = m**2
    real, imaginary = np.zeros_like(m), np.zeros_like(m)
    for lepton in (M_E, M_MU, mass_of(TAU)):
        z = 4 * lepton**2 / s
        v = np.sqrt(np.abs(1 - z))
        above = v * np.log((1 + v) / np.abs(1 - v))
        below = 2 * v * np.arctan2(1.0, v)
        real += ALPHA / (3 * np.pi) * (-5 / 3 - z + (1 + z / 2) * np.where(z < 1, above, below))
        imaginary -= np.where(z < 1, ALPHA / 3 * v * (1 + z / 2), 0.0)
    return real, imaginary


def hadrons(m: FloatArray, mass: FloatArray, ratio: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return the real and the imaginary part of Δα from hadrons.

    Parameters
    ----------
    m : NDArray, shape (n,) [GeV]
        Between the first and the last mass, on none of them.
    mass, ratio : NDArray, shape (k,)
        Masses [GeV] and R over massless muons there.

    Notes
    -----
    Δα = −(α s/3π) P∫ R(s')/[s'(s' − s)] ds', R/s' linear in s' between the points, where the principal value
    has a closed form.
    """
    x, y = mass**2, ratio / mass**2
    slope = np.diff(y) / np.diff(x)
    start = y[:-1] - slope * x[:-1]
    real = np.empty_like(m)
    for i, s in enumerate(m**2):
        logs = np.log(np.abs((x[1:] - s) / (x[:-1] - s)))
        real[i] = np.sum(slope * np.diff(x) + (slope * s + start) * logs)
    return -ALPHA * m**2 / (3 * np.pi) * real, -ALPHA / 3 * np.interp(m, mass, ratio)


def bare_over_dressed(m: FloatArray, mass: FloatArray, ratio: FloatArray) -> FloatArray:
    """Return |1 − Δα|², by which a dressed cross-section is multiplied; arguments as in `hadrons`."""
    parts = [leptons(m), hadrons(m, mass, ratio)]
    real, imaginary = (sum(part[i] for part in parts) for i in (0, 1))
    return np.asarray((1 - real) ** 2 + imaginary**2)
