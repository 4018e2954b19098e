"""e+e− → γ A' and e+e− → A'* → ψ_i ψ_j: cross-sections and kinematics (centre of mass unless said)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, GEV2_MB
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.dark_sector import DarkSector, mediator_widths

__all__ = ["angular_density", "cross_section", "photon_cosine", "s_channel_cross_section", "sample_photons"]

FB_PER_GEV2 = GEV2_MB * 1e12
POINTS = 2048


def _shape(mass: npt.ArrayLike, s: float) -> FloatArray:
    m2 = np.square(np.asarray(mass, dtype=np.float64))
    if not (m2 < s).all():
        msg = f"dark photon of {float(np.sqrt(m2.max())):g} GeV cannot be made at {np.sqrt(s):g} GeV"
        raise PhysicsError(msg)
    return np.asarray(4.0 * m2 * s / (s - m2) ** 2)


def angular_density(mass: npt.ArrayLike, sqrt_s: float, cosine: npt.ArrayLike) -> FloatArray:
    """Return dσ/dcos θ* of the photon per ε² [fb].

    Parameters
    ----------
    mass, cosine : array_like, broadcast against each other
        Mass of the dark photon [GeV] and cos θ* of the photon, inside (−1, 1).
    sqrt_s : float
        [GeV]

    Notes
    -----
    dσ/dc = (2πα²ε²/s)(1 − M²/s)(1 + c² + k)/(1 − c²), k = 4M²s/(s − M²)²; electron mass neglected.
    """
    s = sqrt_s**2
    c2 = np.square(cosine)
    k = _shape(mass, s)
    factor = 2.0 * np.pi * ALPHA**2 / s * (1.0 - np.square(mass) / s) * FB_PER_GEV2
    return np.asarray(factor * (1.0 + c2 + k) / (1.0 - c2))


def cross_section(mass: npt.ArrayLike, sqrt_s: float, cos_max: float) -> FloatArray:
    """Return σ(e+e− → γ A') per ε² for |cos θ*| < cos_max [fb].

    Examples
    --------
    >>> round(1e-6 * float(cross_section(1.25, 10.564, 0.6)), 3)
    1.902
    """
    s = sqrt_s**2
    k = _shape(mass, s)
    factor = 2.0 * np.pi * ALPHA**2 / s * (1.0 - np.square(mass) / s) * FB_PER_GEV2
    return np.asarray(factor * 2.0 * ((2.0 + k) * np.arctanh(cos_max) - cos_max))


def photon_cosine(uniform: FloatArray, mass: float, sqrt_s: float, cos_max: float) -> FloatArray:
    """Return cos θ* of photons from uniform numbers, by inversion; arguments as in `sample_photons`."""
    k = float(_shape(mass, sqrt_s**2))
    # In x = atanh c the density is 1 + k + tanh² x: smooth, so a table of its integral is exact to 1e-6.
    x = np.linspace(-1.0, 1.0, POINTS) * np.arctanh(cos_max)
    cumulative = (2.0 + k) * x - np.tanh(x)
    at = cumulative[0] + (cumulative[-1] - cumulative[0]) * uniform
    return np.asarray(np.tanh(np.interp(at, cumulative, x)))


def sample_photons(
    mass: float, sqrt_s: float, cos_max: float, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Draw photons and the dark photons that recoil against them.

    Parameters
    ----------
    mass, sqrt_s : float [GeV]
    cos_max : float
        Photons have |cos θ*| below this.
    n : int
    rng : numpy.random.Generator

    Returns
    -------
    photon, dark : NDArray, shape (n, 4)
        px, py, pz, E [GeV]; z along the electron beam.
    """
    cosine = photon_cosine(rng.random(n), mass, sqrt_s, cos_max)
    phi = rng.uniform(-np.pi, np.pi, n)
    energy = (sqrt_s**2 - mass**2) / (2.0 * sqrt_s)
    sine = np.sqrt(1.0 - cosine**2)
    photon = energy * np.column_stack([sine * np.cos(phi), sine * np.sin(phi), cosine, np.ones(n)])
    dark = -photon
    dark[:, 3] = np.hypot(energy, mass)
    return photon, dark


def s_channel_cross_section(sector: DarkSector, sqrt_s: float) -> FloatArray:
    """Return σ(e+e− → A'* → ψ_i ψ_j) per ε² [fb], in the order of `mediator_widths` at √s.

    Notes
    -----
    σ = 4πα ε² √s Γ(√s)/((s − M²)² + M²Γ²), Γ(√s) being the partial width of a dark photon of mass √s; the
    total width in the propagator is the one at M.
    """
    s, m2 = sqrt_s**2, sector.mediator**2
    heavy = DarkSector(
        name=sector.name,
        mediator=sqrt_s,
        alpha_d=sector.alpha_d,
        masses=sector.masses,
        vector=sector.vector,
        axial=sector.axial,
        field=sector.field,
        squared_charges=sector.squared_charges,
    )
    partial = mediator_widths(heavy)[1]
    total = mediator_widths(sector)[1].sum()
    propagator = (s - m2) ** 2 + m2 * total**2
    return np.asarray(4.0 * np.pi * ALPHA * sqrt_s * partial / propagator * FB_PER_GEV2)
