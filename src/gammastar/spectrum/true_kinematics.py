"""Measured pairs at true kinematics, drawn from what the response leaves possible."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pykdtree.kdtree import KDTree
from scipy.ndimage import label, median_filter

from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray

IntArray = npt.NDArray[np.int64]
NEAR = 32  # simulated pairs around a measured one
ROUNDS = (20, 4)  # of iterations in mass alone, and then in mass, pt and energy
PARTS = 3  # of the measured pt and of the energy, in which the simulated density is corrected
STEPS = (0.1, 0.2, 0.1)  # distances: of the resolution in ln m, in ln pt, in ln E
STRIPS, LARGEST = 5, 20_000  # of true mass in a resolution, and at most
CHUNK = 50_000  # pairs at a time


@dataclass(frozen=True, slots=True, eq=False)
class TruePosterior:
    """P(true kinematics | measured pair): simulated pairs that were reconstructed like it.

    Attributes
    ----------
    points : NDArray, shape (n, 3) [GeV]
        Measured mass, pt and energy.
    near : NDArray of int, shape (n, k)
        Simulated pairs whose reconstructed kinematics are next to each.
    true : NDArray, shape (m, 3)
        True mass [GeV], ln(true/reconstructed pt), true less reconstructed rapidity of simulated pairs.
    weight : NDArray, shape (m,)
    cell : NDArray of int, shape (m,)
        True cell: bins of mass and its lines, and quantiles of pt and energy.
    measured : NDArray of int, shape (n,)
        Reconstructed cell of each measured pair.
    folded : NDArray, shape (n_measured, n_true)
        Simulated weight in each reconstructed and true cell.
    distance : float
        Median distance in mass of the farthest of the k, over the resolution.

    Notes
    -----
    The simulation gives the response and, within a cell, the density; the contents of the cells are those of
    the data, by D'Agostini's iteration (Nucl. Instrum. Meth. A362 (1995) 487). Pairs drawn with it are
    unfolded in mass, pt and energy at once.
    """

    points: FloatArray
    near: IntArray
    true: FloatArray
    weight: FloatArray
    cell: IntArray
    measured: IntArray
    folded: FloatArray
    distance: float

    @classmethod
    def of(cls, points: FloatArray, matched: MatchedPairs, mass_edges: FloatArray) -> TruePosterior:
        """Return the posterior of measured points, shape (n, 3) [GeV]."""
        seen = matched.reconstructed & (matched.weight > 0)
        true, reco, weight = matched.true[seen], matched.reco[seen], matched.weight[seen]
        shift = _variables(true) - _variables(reco)
        sigma = max(1.4826 * float(np.median(np.abs(shift[:, 0]))), 1e-4)
        scale = np.array([STEPS[0] * sigma, *STEPS[1:]])
        k = min(NEAR, len(true))
        near = KDTree(np.log(reco) / scale).query(np.log(points) / scale, k=k)[1]
        near = near.reshape(len(points), k).astype(np.int64)
        inner = np.arange(1, PARTS) / PARTS
        parts = [np.quantile(points[:, i], inner) for i in (1, 2)]
        measured, of_reco = (
            _cells(np.searchsorted(mass_edges[1:-1], values[:, 0], "right"), values, parts)
            for values in (points, reco)
        )
        of_true = _cells(_mass_cells(true[:, 0], weight, sigma), true, parts)
        rows, columns = len(mass_edges[1:]) * PARTS**2, (int(of_true.max()) // PARTS**2 + 1) * PARTS**2
        folded = np.bincount(of_reco * columns + of_true, weight, rows * columns).astype(np.float64)
        farthest = np.abs(np.log(reco[near[:, -1], 0] / points[:, 0])) / sigma
        distance = float(np.median(farthest)) if len(points) else 0.0
        return cls(
            points,
            near,
            np.column_stack([true[:, 0], shift[:, 1:]]),
            weight,
            of_true,
            measured,
            folded.reshape(rows, columns),
            distance,
        )

    def ratio(self, weight: FloatArray) -> FloatArray:
        """Return unfolded contents of the true cells over simulated ones, for weights of the pairs."""
        n = PARTS**2
        found = np.clip(np.bincount(self.measured, weight, len(self.folded)), 0.0, None).astype(np.float64)
        masses = self.folded.reshape(len(found) // n, n, -1, n).sum(axis=(1, 3))
        start = _unfolded(found.reshape(-1, n).sum(axis=1), masses, np.ones(masses.shape[1]), ROUNDS[0])
        return _unfolded(found, self.folded, np.repeat(start, n), ROUNDS[1])

    def draw(self, weight: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Return true mass, pt and energy of every pair, shape (n, 3) [GeV]; weights as for `ratio`."""
        possible = self.weight * np.maximum(self.ratio(weight)[self.cell], 1e-12)
        values = _variables(self.points)
        for start in range(0, len(values), CHUNK):
            part = slice(start, start + CHUNK)
            near = self.near[part]
            summed = np.cumsum(possible[near], axis=1)
            place = (summed < rng.random((len(near), 1)) * summed[:, -1:]).sum(axis=1)
            drawn = self.true[np.take_along_axis(near, place[:, None], axis=1)[:, 0]]
            values[part, 0], values[part, 1:] = drawn[:, 0], values[part, 1:] + drawn[:, 1:]
        mass, pt = values[:, 0], np.exp(values[:, 1])
        return np.stack([mass, pt, np.hypot(mass, pt) * np.cosh(values[:, 2])], axis=1)


def _unfolded(found: FloatArray, folded: FloatArray, ratio: FloatArray, rounds: int) -> FloatArray:
    """Return unfolded contents over simulated ones: D'Agostini's iteration."""
    total = folded.sum(axis=0)
    for _ in range(rounds):
        expected = folded @ ratio
        share = np.divide(found, expected, out=np.zeros_like(found), where=expected > 0)
        ratio = ratio * np.divide(folded.T @ share, total, out=np.zeros_like(total), where=total > 0)
    return ratio


def _variables(points: FloatArray) -> FloatArray:
    """Return ln m, ln pt and rapidity, in which every shift is physical."""
    mass, pt, energy = points.T
    rapidity = np.arccosh(np.maximum(energy / np.hypot(mass, pt), 1.0))
    return np.stack([np.log(mass), np.log(pt), rapidity], axis=1)


def _cells(mass: IntArray, points: FloatArray, parts: list[FloatArray]) -> IntArray:
    """Return the cell of each point: its bin of mass, its parts of pt and energy."""
    index = [np.searchsorted(inner, points[:, i], "right") for i, inner in enumerate(parts, start=1)]
    return np.asarray((mass * PARTS + index[0]) * PARTS + index[1])


def _mass_cells(mass: FloatArray, weight: FloatArray, sigma: float) -> IntArray:
    """Return bins of true mass that the resolution tells apart: two of it wide, and each narrow line alone.

    A line is where simulated pairs stand well above the median of their surroundings.
    """
    step = sigma / STRIPS
    place = ((np.log(mass) - np.log(mass.min())) / step).astype(np.int64)
    if place.max() > LARGEST:  # no resolution to speak of: nothing to tell apart
        place = place * LARGEST // place.max()
    content, square = np.bincount(place, weight), np.bincount(place, weight**2)
    around = median_filter(content, 6 * STRIPS + 1, mode="nearest")
    line, _ = label(content - around > np.maximum(1.5 * around, 5.0 * np.sqrt(square)))
    wide = np.arange(len(content)) // (2 * STRIPS)
    return np.asarray(np.unique(np.where(line > 0, -line, wide), return_inverse=True)[1][place])
