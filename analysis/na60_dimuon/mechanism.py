"""Which share of bremsstrahlung the kinematics of measured pairs would exclude."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from gammastar.core.errors import require
from gammastar.core.records import FloatArray


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
    require(flat.sum() > 0, "template: no particle falls into the cells of energy and pt")
    return np.asarray((1 - floor) * flat / flat.sum() + floor / flat.size, dtype=np.float64)


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
    require(((f > 0) & (f <= 1)).all(), f"pairs_to_exclude: fractions {f!r} must lie above 0 and up to 1")
    mixed = hadrons + f[:, None] * (brem - hadrons)
    per_pair = 2 * (hadrons * np.log(hadrons / mixed)).sum(axis=1)
    return np.asarray(float(ndtri(1 - (1 - cl) / 2)) ** 2 / per_pair, dtype=np.float64)
