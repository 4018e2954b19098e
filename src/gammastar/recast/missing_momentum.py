"""What every missing-momentum recast shares: probabilities with errors and bands, and excluded couplings.

A search for an invisible dark photon excludes ε > ε_lim(M). A semi-visible one fills it with probability
P(M, ε), so that ε² P(M, ε) > ε_lim(M)² is excluded. Long-lived states are invisible: P depends on ε, and the
excluded couplings may form several intervals.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Reach

__all__ = ["Missing", "allowed", "excluded_plane", "from_sums", "intervals"]


@dataclass(frozen=True, slots=True, eq=False)
class Missing:
    """Probability that a semi-visible dark photon counts as missing momentum.

    Attributes
    ----------
    epsilon : NDArray, shape (k,)
    value, error : NDArray, shape (k,)
        Probability and its Monte Carlo error.
    low, high : NDArray, shape (k,)
        Band of thresholds, acceptances and of the factor that the selection card gives.
    """

    epsilon: FloatArray
    value: FloatArray
    error: FloatArray
    low: FloatArray
    high: FloatArray

    def __post_init__(self) -> None:
        if (
            not (self.low <= self.value * (1 + 1e-9)).all()
            or not (self.value <= self.high * (1 + 1e-9)).all()
        ):
            msg = "the band of a missing-momentum probability must hold its central value"
            raise PhysicsError(msg)


def from_sums(sums: FloatArray, n: int) -> tuple[FloatArray, FloatArray]:
    """Return mean and its error from Σ P and Σ P² of n events, shape (2, k)."""
    mean = np.clip(sums[0] / n, 0.0, 1.0)  # sums of exponentials cancel up to rounding
    return mean, np.sqrt(np.clip(sums[1] / n - mean**2, 0.0, None) / n)


def excluded_plane(
    epsilon: FloatArray, probability: FloatArray, limit: npt.ArrayLike
) -> npt.NDArray[np.bool_]:
    """Return where ε² P > ε_lim², shape (masses, couplings); never where no limit is published.

    Parameters
    ----------
    epsilon : NDArray, shape (k,)
    probability : NDArray, shape (m, k)
    limit : array_like, shape (m,)
        Published limit on ε of the invisible dark photon; nan where there is none.
    """
    bound = np.asarray(limit, dtype=np.float64)[:, None]
    return np.asarray(epsilon**2 * probability > bound**2)


def intervals(mass: FloatArray, epsilon: FloatArray, probability: FloatArray, limit: npt.ArrayLike) -> Reach:
    """Return the excluded intervals of coupling at every mass.

    Parameters
    ----------
    mass : NDArray, shape (m,) [GeV]
    epsilon : NDArray, shape (k,)
        Increasing.
    probability : NDArray, shape (m, k)
    limit : array_like, shape (m,)

    Returns
    -------
    Reach
        One entry per mass and interval, nan edges where nothing is excluded; ``signal`` holds the largest
        ε² P/ε_lim², and edges are interpolated straight in the logarithms.
    """
    bound = np.asarray(limit, dtype=np.float64)[:, None]
    with np.errstate(divide="ignore"):
        height = np.log(np.maximum(epsilon**2 * probability / bound**2, 1e-300))
    height = np.where(np.isfinite(height), height, -690.0)
    x = np.log(epsilon)
    padded = np.pad(height > 0, ((0, 0), (1, 1))).astype(np.int8)
    row, begin = np.nonzero(np.diff(padded, axis=1) == 1)
    end = np.nonzero(np.diff(padded, axis=1) == -1)[1] - 1  # the last excluded point of each interval
    lower = _crossing(x, height, row, begin, np.maximum(begin - 1, 0))
    upper = _crossing(x, height, row, end, np.minimum(end + 1, len(x) - 1))
    rows = np.concatenate([row, np.setdiff1d(np.arange(len(mass)), row)])
    edges = np.full((len(rows), 2), np.nan)
    edges[: len(row)] = np.exp(np.column_stack([lower, upper]))
    cut_low, cut_high = (np.zeros(len(rows), dtype=bool) for _ in range(2))
    cut_low[: len(row)], cut_high[: len(row)] = begin == 0, end == len(x) - 1
    order = np.lexsort((np.nan_to_num(edges[:, 0]), rows))
    names = np.array(["", "lower", "upper", "lower, upper"])
    side = names[cut_low[order].astype(int) + 2 * cut_high[order].astype(int)]
    return Reach(
        mass=mass[rows[order]],
        edges=edges[order],
        signal=np.exp(height.max(axis=1))[rows[order]],
        limit=np.ones(len(rows)),
        closed=side == "",
        clipped_side=tuple(str(s) for s in side),
    )


def _crossing(
    x: FloatArray,
    height: FloatArray,
    row: npt.NDArray[np.int64],
    inside: npt.NDArray[np.int64],
    outside: npt.NDArray[np.int64],
) -> FloatArray:
    """Return where the height passes zero between two neighbours, or the inner one at an end."""
    high, low = height[row, inside], height[row, outside]
    step = np.where(inside == outside, 1.0, high - low)
    fraction = np.where(inside == outside, 0.0, high / step)
    return np.asarray(x[inside] + fraction * (x[outside] - x[inside]))


def allowed(band: FloatArray, epsilon: FloatArray, excluded: npt.NDArray[np.bool_]) -> FloatArray:
    """Return the fraction of a band of couplings, in ln ε, that no search excludes, shape (masses,).

    Parameters
    ----------
    band : NDArray, shape (2, m)
        Lower and upper coupling at each mass, as `gammastar.physics.gm2.Reference.band` gives them.
    epsilon : NDArray, shape (k,)
    excluded : NDArray of bool, shape (m, k)
    """
    inside = (epsilon >= band[0][:, None]) & (epsilon <= band[1][:, None])
    n = inside.sum(axis=1)
    free = (inside & ~excluded).sum(axis=1)
    return np.asarray(np.divide(free, n, out=np.full(len(n), np.nan), where=n > 0), dtype=np.float64)
