"""Spin density of a virtual photon as its decays to two fermions show it, for fermions of any mass.

Axes in the rest frame of the vector, frame "laboratory": z along its flight in the laboratory, y along flight
times beam, x = y × z, in the production plane on the side of the beam. Four-momenta are px, py, pz, E [GeV],
shape (4, n), in the laboratory, with the beam along z.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = [
    "COEFFICIENTS",
    "ISOTROPIC",
    "SpinDensities",
    "azimuth",
    "harmonics",
    "lambdas_of",
    "mass_factor",
    "moments_of",
    "physical",
]

COEFFICIENTS = ("λθ", "λφ", "λθφ")
ISOTROPIC = (0.0, 0.0, 0.0)


def azimuth(vector: FloatArray, fermion: FloatArray) -> FloatArray:
    """Return φ of a fermion about the flight of its vector, from the production plane, shape (n,) [rad].

    Parameters
    ----------
    vector, fermion : NDArray, shape (3 or 4, n)
        px, py, pz [GeV] in the laboratory; what follows is not looked at.

    Notes
    -----
    x and y stand across the flight, so that a boost along it leaves the components of a momentum there as
    they are: φ = atan2(p·y, p·x) in the laboratory. 0 for a vector along the beam, which has no such plane.
    """
    (x, y, z), (a, b, c) = vector[:3], fermion[:3]
    square = x**2 + y**2
    across = (a * y - b * x) * np.sqrt(square + z**2)
    return np.asarray(np.where(square > 0, np.arctan2(across, c * square - z * (a * x + b * y)), 0.0))


def harmonics(cos_theta: npt.ArrayLike, phi: npt.ArrayLike) -> FloatArray:
    """Return cos²θ − 1/3, sin²θ cos 2φ and sin 2θ cos φ, shape (3, n).

    Their means over isotropic decays are zero, and none changes if the two fermions change places.

    Examples
    --------
    >>> harmonics([1.0, 0.0], [0.0, 0.0]).round(3).tolist()
    [[0.667, -0.333], [0.0, 1.0], [0.0, 0.0]]
    """
    c, f = np.asarray(cos_theta, dtype=np.float64), np.asarray(phi, dtype=np.float64)
    square = np.clip(1.0 - c**2, 0.0, None)
    return np.stack([c**2 - 1.0 / 3.0, square * np.cos(2 * f), 2 * c * np.sqrt(square) * np.cos(f)])


def mass_factor(mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return by how much the anisotropy of a decay is smaller than that of massless fermions.

    Parameters
    ----------
    mass : array_like
        Of the vector [GeV].
    m_fermion : float
        [GeV]

    Notes
    -----
    2(1 − r)/(2 + r), r = 4 m_f²/m²; 0 at and below threshold. The sum of the current over the fermions' spins
    is ∝ δ_ij − (1 − r) n_i n_j in the rest frame: a vector with density matrix ρ (of trace one) decays as
    1 − (1 − r) nρn, whose mean is (2 + r)/3.

    Examples
    --------
    >>> mass_factor([1.0, 2.0], 0.5).round(4).tolist()
    [0.0, 0.6667]
    """
    r = np.square(2 * m_fermion / np.asarray(mass, dtype=np.float64))
    return np.asarray(np.clip(2 * (1 - r) / (2 + r), 0.0, None), dtype=np.float64)


def lambdas_of(moments: npt.ArrayLike) -> FloatArray:
    """Return λθ, λφ, λθφ of a density 1 + Σ a_k g_k, g of `harmonics`, shape (3,).

    Notes
    -----
    λ_k = a_k/(1 − a₁/3): the same density as 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ over its mean.
    """
    a = np.asarray(moments, dtype=np.float64)
    return np.asarray(a / (1.0 - a[0] / 3.0), dtype=np.float64)


def moments_of(lambdas: npt.ArrayLike) -> FloatArray:
    """Return a_k of 1 + Σ a_k g_k from λθ, λφ, λθφ, shape (3,); the inverse of `lambdas_of`."""
    found = np.asarray(lambdas, dtype=np.float64)
    return np.asarray(found / (1.0 + found[0] / 3.0), dtype=np.float64)


def physical(moments: npt.ArrayLike) -> FloatArray:
    """Return the moments, for massless fermions, of the nearest spin density that can be, shape (3,).

    Notes
    -----
    ρ = 1/3 − (2/3) Q with nQn = Σ a_k g_k must have no negative eigenvalue; if it has, its eigenvalues are
    moved to the nearest ones that are not negative and of sum one.

    Examples
    --------
    >>> physical([0.3, 0.1, 0.0]).round(6).tolist(), lambdas_of(physical([2.0, 0.0, 0.0])).round(6).tolist()
    ([0.3, 0.1, 0.0], [1.0, 0.0, 0.0])
    """
    a, b, c = np.asarray(moments, dtype=np.float64)
    form = np.array([[b - a / 3, 0.0, c], [0.0, -b - a / 3, 0.0], [c, 0.0, 2 * a / 3]])
    values, vectors = np.linalg.eigh(np.eye(3) / 3 - 2 / 3 * form)
    if values[0] >= 0:
        return np.array([a, b, c])
    falling = values[::-1]
    shift = (np.cumsum(falling) - 1) / np.arange(1, 4)
    values = np.clip(values - shift[np.flatnonzero(falling > shift)[-1]], 0.0, None)
    form = 1.5 * (np.eye(3) / 3 - (vectors * values) @ vectors.T)
    return np.array([1.5 * form[2, 2], 0.5 * (form[0, 0] - form[1, 1]), form[0, 2]])


@dataclass(frozen=True, slots=True, eq=False)
class SpinDensities:
    """Spin densities of virtual photons in regions of mass, about the axes of the frame "laboratory".

    Attributes
    ----------
    edges : NDArray, shape (n + 1,) [GeV]
        Of the regions. Masses beside them follow the nearest region.
    moments : NDArray, shape (n, 3)
        a_k of 1 + Σ a_k g_k with g of `harmonics`, for massless fermions.
    cov : NDArray, shape (n, 3, 3)
        Their covariance; regions are independent.
    pairs : NDArray, shape (n,)
        Subtracted number of pairs behind each region.

    Raises
    ------
    PhysicsError
        If shapes do not fit, edges do not increase, or a value is not finite.
    """

    edges: FloatArray
    moments: FloatArray
    cov: FloatArray
    pairs: FloatArray

    def __post_init__(self) -> None:
        n = len(self.pairs)
        shapes = {"edges": (n + 1,), "moments": (n, 3), "cov": (n, 3, 3), "pairs": (n,)}
        for name, shape in shapes.items():
            found = np.asarray(getattr(self, name))
            if found.shape != shape or not np.isfinite(found).all() or not n:
                msg = (
                    f"SpinDensities.{name}: {found.shape} must be {shape} finite numbers, one or more regions"
                )
                raise PhysicsError(msg)
        if not (np.diff(self.edges) > 0).all():
            msg = f"SpinDensities.edges = {np.asarray(self.edges).tolist()} must increase"
            raise PhysicsError(msg)

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> SpinDensities:
        """Return the densities of a record, as `arrays` gives them."""
        return cls(
            *(np.asarray(arrays[key], dtype=np.float64) for key in ("edges", "moments", "cov", "pairs"))
        )

    @classmethod
    def known(cls, lambdas: npt.ArrayLike) -> SpinDensities:
        """Return one density for all masses, without error, from λθ, λφ, λθφ of massless fermions."""
        edges = np.array([0.0, np.finfo(float).max])
        return cls(edges, moments_of(lambdas)[np.newaxis], np.zeros((1, 3, 3)), np.zeros(1))

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        return {key: np.asarray(getattr(self, key)) for key in ("edges", "moments", "cov", "pairs")}

    def coefficients(self, m_fermion: float) -> tuple[FloatArray, FloatArray]:
        """Return λθ, λφ, λθφ of fermions of a mass in the middle of each region, and their errors, (n, 3)."""
        scale = mass_factor(0.5 * (self.edges[1:] + self.edges[:-1]), m_fermion)
        seen = self.moments * scale[:, np.newaxis]
        below = 1.0 - seen[:, :1] / 3.0
        slope = np.eye(3) / below[:, :, np.newaxis]
        slope[:, :, 0] += seen / (3.0 * below**2)
        cov = slope @ (self.cov * scale[:, np.newaxis, np.newaxis] ** 2) @ slope.transpose(0, 2, 1)
        return seen / below, np.sqrt(np.clip(np.einsum("nii->ni", cov), 0.0, None))

    def weight(
        self,
        photon: FloatArray,
        mass: npt.ArrayLike,
        fermion: FloatArray,
        m_fermion: float,
        beam_energy: float,  # noqa: ARG002 - the axes need the direction of the beam alone
    ) -> FloatArray:
        """Return the angular density of decays over that of isotropic ones, shape (n,).

        Parameters
        ----------
        photon, fermion : NDArray, shape (4, n)
            The vector and one of its two fermions [GeV].
        mass : float or array_like, shape (n,)
            Of the vector [GeV].
        m_fermion : float [GeV]
        beam_energy : float [GeV]

        Notes
        -----
        1 + 2(1 − r)/(2 + r) Σ a_k g_k with the nearest `physical` moments: never negative, of mean one.
        """
        m = np.broadcast_to(np.asarray(mass, dtype=np.float64), photon.shape[1:])
        own = np.stack([physical(row) for row in self.moments])
        region = np.clip(np.searchsorted(self.edges, m, "right") - 1, 0, len(own) - 1)
        square = np.sum(photon[:3] ** 2, axis=0)
        size = np.sqrt(np.clip(0.25 * m**2 - m_fermion**2, 0.0, None)) * np.sqrt(square)
        above = m * fermion[3] - 0.5 * m * photon[3]  # E = (E_γ + 2 |P| p* cos θ/m)/2
        cosine = np.clip(np.divide(above, size, out=np.zeros_like(size), where=size > 0), -1.0, 1.0)
        seen = np.einsum("nk,kn->n", own[region], harmonics(cosine, azimuth(photon, fermion)))
        return np.asarray(np.clip(1.0 + mass_factor(m, m_fermion) * seen, 0.0, None))

    def shifted(self) -> tuple[SpinDensities, ...]:
        """Return the densities one standard deviation up and down along each eigenvector of the covariance.

        Six of them, up and down in turn; in all regions at once.
        """
        values, vectors = np.linalg.eigh(self.cov)
        steps = vectors * np.sqrt(np.clip(values, 0.0, None))[:, np.newaxis, :]
        return tuple(
            replace(self, moments=self.moments + sign * steps[:, :, k])
            for k in range(3)
            for sign in (1.0, -1.0)
        )
