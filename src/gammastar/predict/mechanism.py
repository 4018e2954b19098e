"""Bremsstrahlung or hadronisation: what the (E, qT) distribution of virtual photons says."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["FractionFit", "fit_fraction", "pairs_to_exclude", "template"]


def template(
    energy: npt.ArrayLike,
    pt: npt.ArrayLike,
    weight: npt.ArrayLike,
    *,
    energy_edges: npt.ArrayLike,
    pt_edges: npt.ArrayLike,
    floor: float = 1e-3,
) -> FloatArray:
    """Return the probabilities of the cells in (energy, pt), flattened in C order.

    Parameters
    ----------
    energy, pt, weight : array_like, shape (n,)
        Particles with weights, the acceptance of the measurement included [GeV].
    energy_edges, pt_edges : array_like [GeV]
    floor : float
        Share that is spread evenly over all cells: no cell is empty, and a cell that a finite sample of one
        mechanism missed does not decide alone.

    Raises
    ------
    PhysicsError
        If nothing falls into the cells.
    """
    x, y, w, edges_x, edges_y = (
        np.asarray(values, dtype=np.float64) for values in (energy, pt, weight, energy_edges, pt_edges)
    )
    hist, _, _ = np.histogram2d(x, y, bins=[edges_x, edges_y], weights=w)
    flat = np.clip(hist, 0.0, None).ravel()
    if not flat.sum() > 0:
        msg = "template: no particle falls into the cells of energy and pt"
        raise PhysicsError(msg)
    return np.asarray((1 - floor) * flat / flat.sum() + floor / flat.size, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class FractionFit:
    """Fitted share of bremsstrahlung.

    Attributes
    ----------
    fraction, error : NDArray, shape (t,)
        Between 0 and 1; standard deviation from the curvature.
    q : NDArray, shape (t,)
        −2 ln[L(tested)/L(fitted)] of the tested fraction; 0 if the fit lies above it.
    """

    fraction: FloatArray
    error: FloatArray
    q: FloatArray


def fit_fraction(
    counts: npt.ArrayLike, hadrons: FloatArray, brem: FloatArray, *, tested: float = 1.0
) -> FractionFit:
    """Fit f in f·brem + (1 − f)·hadrons to the shape of the measured cells.

    Parameters
    ----------
    counts : array_like, shape (t, cells) or (cells,)
        One row per data set or toy.
    hadrons, brem : NDArray, shape (cells,)
        Templates, all cells positive.
    tested : float
        Fraction to be excluded from above.

    Raises
    ------
    PhysicsError
        If a template has empty cells or counts are negative.

    Notes
    -----
    Maximum of Σ n ln(f b + (1 − f) h): concave, found by bisection on its derivative for all rows at once.
    The normalisation is left free, so that no rate enters.
    """
    n = np.atleast_2d(np.asarray(counts, dtype=np.float64))
    if n.shape[1] != hadrons.size or hadrons.shape != brem.shape or (n < 0).any():
        msg = f"fit_fraction: counts {n.shape} and templates {hadrons.shape}, {brem.shape} do not fit"
        raise PhysicsError(msg)
    if not ((hadrons > 0).all() and (brem > 0).all()):
        msg = "fit_fraction: a template has an empty cell; give it a floor"
        raise PhysicsError(msg)
    gap = brem - hadrons

    def slope(f: FloatArray) -> FloatArray:
        return np.asarray((n * gap / (hadrons + f[:, None] * gap)).sum(axis=1), dtype=np.float64)

    low, high = np.zeros(len(n)), np.ones(len(n))
    for _ in range(50):
        middle = 0.5 * (low + high)
        rising = slope(middle) > 0
        low, high = np.where(rising, middle, low), np.where(rising, high, middle)
    f = 0.5 * (low + high)
    density = hadrons + f[:, None] * gap
    curvature = (n * (gap / density) ** 2).sum(axis=1)
    error = np.divide(1.0, np.sqrt(curvature), out=np.full(len(n), np.inf), where=curvature > 0)
    excess = 2 * (n * np.log(density / (hadrons + tested * gap))).sum(axis=1)
    return FractionFit(f, error, np.where(f < tested, np.clip(excess, 0.0, None), 0.0))


def pairs_to_exclude(
    hadrons: FloatArray, brem: FloatArray, fraction: npt.ArrayLike, *, cl: float = 0.90
) -> FloatArray:
    """Return the pairs needed to exclude a share of bremsstrahlung if there is none.

    Parameters
    ----------
    hadrons, brem : NDArray, shape (cells,)
        Templates.
    fraction : array_like, shape (k,)
        Shares that a calculation predicts, e.g. one per Λ.
    cl : float

    Returns
    -------
    NDArray, shape (k,)
        Accepted pairs for a median exclusion.

    Notes
    -----
    On Asimov data q = N × 2 Σ h ln[h/(f b + (1 − f) h)], and the median CLs limit asks
    √q = Φ⁻¹(1 − (1 − CL)/2).
    """
    f = np.atleast_1d(np.asarray(fraction, dtype=np.float64))
    if not ((f > 0) & (f <= 1)).all():
        msg = f"pairs_to_exclude: fractions {f!r} must lie above 0 and up to 1"
        raise PhysicsError(msg)
    mixed = hadrons + f[:, None] * (brem - hadrons)
    per_pair = 2 * (hadrons * np.log(hadrons / mixed)).sum(axis=1)
    return np.asarray(float(ndtri(1 - (1 - cl) / 2)) ** 2 / per_pair, dtype=np.float64)
