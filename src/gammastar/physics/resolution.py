"""The mass resolution of measured pairs: width, shift and shape against the true mass; folding with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

GROUPS = 40  # of simulated pairs in order of true mass, at most
FINEST = 1 / 150  # of the range of masses: groups are no narrower
LEAST = 30  # reconstructed pairs of a group
LEVELS = np.concatenate([[0.0], ndtr(np.linspace(-4.0, 4.0, 321)), [1.0]])
STEP = 0.02  # of the masses of a folding, in resolutions
LOWEST = 1e-3  # GeV, of the true masses of a folding; 2 m_e
MOST = 2000  # resolutions of a search: its bins follow from them
FINE = 5e-4  # GeV: the φ is 4 MeV wide


@dataclass(frozen=True, slots=True, eq=False)
class MassResolution:
    """How pairs of one true mass are spread over reconstructed masses."""

    # True masses [GeV]; in between everything is interpolated, outside it stays as at the ends, shape (n,)
    mass: FloatArray
    width: FloatArray  # Half of the central 68 % [GeV], shape (n,)
    shift: FloatArray  # Median of reconstructed minus true mass [GeV], shape (n,)
    # Reconstructed and selected pairs per true one; only its dependence on the mass counts in situ, shape
    # (n,)
    efficiency: FloatArray
    # Distribution function of (reconstructed − true − shift)/width, the same at all masses, shape (k,)
    pull: FloatArray
    level: FloatArray
    efficiency_error: FloatArray  # Relative, of a finite simulation, shape (n,)

    def __post_init__(self) -> None:
        if not (np.diff(self.mass) > 0).all() or not (np.isfinite(self.width) & (self.width > 0)).all():
            raise PhysicsError(
                f"mass resolution: widths {self.width} must be positive, masses {self.mass} must increase"
            )

    @classmethod
    def gaussian(cls, mass: npt.ArrayLike, width: npt.ArrayLike) -> MassResolution:
        """Return normal distributions of given standard deviations [GeV], with a flat efficiency."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        sigma = np.broadcast_to(np.asarray(width, dtype=np.float64), m.shape)
        pull = np.linspace(-6.0, 6.0, 601)
        none = np.zeros(len(m))
        return cls(m, sigma, none, np.ones(len(m)), pull, ndtr(pull), none)

    def sigma(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the width at true masses [GeV]."""
        return np.asarray(np.interp(np.asarray(mass, dtype=np.float64), self.mass, self.width))

    def efficiency_at(self, mass: npt.ArrayLike) -> FloatArray:
        """Return the efficiency at true masses."""
        return np.asarray(np.interp(np.asarray(mass, dtype=np.float64), self.mass, self.efficiency))

    def cells(self, mass: npt.ArrayLike, edges: npt.ArrayLike) -> FloatArray:
        """Return the part of the selected pairs of a true mass in each bin of reconstructed mass."""
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))[:, None]
        centre = m + np.interp(m, self.mass, self.shift)
        pull = (np.asarray(edges, dtype=np.float64)[None, :] - centre) / self.sigma(m)
        return np.diff(np.interp(pull, self.pull, self.level, left=0.0, right=1.0), axis=1)

    def folded(self, density: Callable[[FloatArray], FloatArray], edges: npt.ArrayLike) -> FloatArray:
        """Return the selected pairs in bins of reconstructed mass of a density of true ones, shape (n,)."""
        e = np.asarray(edges, dtype=np.float64)
        reach = 6.0 * float(self.width.max())
        low, high = max(e[0] - reach, LOWEST), e[-1] + reach
        even = np.arange(low, high, min(FINE, STEP * float(self.width.max())))
        grid = np.unique(np.concatenate([even, np.geomspace(low, high, 400), [high]]))
        return np.asarray(
            np.trapezoid(
                (density(grid) * self.efficiency_at(grid))[:, None] * self.cells(grid, e), grid, axis=0
            )
        )

    def scaled(self, factor: float = 1.0, scale: float = 1.0) -> MassResolution:
        """Return the resolution with widths times `factor`, reconstructed masses times `scale`."""
        return replace(self, width=factor * self.width, shift=self.shift + (scale - 1.0) * self.mass)

    def steps(self, low: float, high: float, per_width: float) -> FloatArray:
        """Return edges from `low` to `high` [GeV] at equal parts of the resolution, about 1/`per_width`."""
        grid = np.linspace(low, high, 4001)
        passed = np.concatenate([[0.0], np.cumsum(np.diff(grid) / self.sigma(0.5 * (grid[1:] + grid[:-1])))])
        if passed[-1] > MOST:
            msg = (
                f"in_situ.resolution: {passed[-1]:.3g} widths lie between {low:g} and {high:g} GeV, at most "
                f"{MOST} are searched: give the width in GeV, or fewer masses"
            )
            raise PhysicsError(msg)
        n = max(int(np.ceil(per_width * passed[-1])), 1)
        return np.asarray(np.interp(np.linspace(0.0, passed[-1], n + 1), passed, grid))


def _quantile(values: FloatArray, weight: FloatArray, level: FloatArray) -> FloatArray:
    order = np.argsort(values)
    sums = np.cumsum(weight[order])
    return np.asarray(np.interp(level, (sums - 0.5 * weight[order]) / sums[-1], values[order]))


def measured_resolution(
    true: FloatArray, reco: FloatArray, weight: FloatArray, photons: FloatArray | None = None
) -> MassResolution:
    """Return the resolution of simulated pairs; the efficiency is per weight of `photons`, or of the same.

    Notes
    -----
    In groups of equally many reconstructed pairs in order of true mass: the median and half the central 68 %
    of reconstructed minus true mass, which tails do not move; the shape is that of all pairs together.
    """
    seen = np.isfinite(reco) & (weight > 0)
    if int(seen.sum()) < LEAST:
        raise PhysicsError(
            f"mass resolution: {int(seen.sum())} simulated pairs are reconstructed, at least {LEAST} are "
            "needed; simulate more, or give in_situ.resolution as numbers"
        )
    m, moved, w = true[seen], (reco - true)[seen], weight[seen]
    groups = min(GROUPS, max(int(len(m) / LEAST / 2), 1))
    cuts = np.quantile(m, np.linspace(0.0, 1.0, groups + 1))
    narrow = FINEST * (cuts[-1] - cuts[0])
    edges = [cuts[0]]
    for cut in cuts[1:-1]:
        if cut - edges[-1] >= narrow and cuts[-1] - cut >= narrow:
            edges.append(cut)
    rows = []
    for low, high in pairwise([*edges, np.nextafter(cuts[-1], np.inf)]):
        own = (m >= low) & (m < high)
        if own.sum() < LEAST:
            continue
        left, centre, right = _quantile(moved[own], w[own], ndtr([-1.0, 0.0, 1.0]))
        there = float((weight if photons is None else photons)[(true >= low) & (true < high)].sum())
        if not there > 0:
            continue
        found, error = w[own].sum(), np.sqrt(np.sum(w[own] ** 2))
        rows.append(
            (np.average(m[own], weights=w[own]), 0.5 * (right - left), centre, found / there, error / found)
        )
    mass, width, shift, efficiency, error = np.array(rows).T
    pull = (moved - np.interp(m, mass, shift)) / np.interp(m, mass, width)
    quantiles = np.maximum.accumulate(_quantile(pull, w, LEVELS) + 1e-9 * np.arange(len(LEVELS)))
    return MassResolution(mass, width, shift, efficiency, quantiles, LEVELS, error)
