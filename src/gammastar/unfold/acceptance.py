"""The measured domain: a smooth map of the efficiency, and fiducial parts of a spectrum."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

from gammastar.core.axes import effective_size
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import BoolArray, FloatArray, Response, Spectrum
from gammastar.unfold.response_matrix import cells

__all__ = [
    "EfficiencyMap",
    "efficiency_map",
    "fiducial",
    "fiducial_fraction",
    "reweighted",
]

_LOG = logging.getLogger(__name__)
_CELLS = (50, 60, 160)  # in mass, √pt and rapidity, for 1e5 reconstructed pairs
_FEWEST = 200.0  # reconstructed pairs below which no map is made


def _coordinates(mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
    """Return mass, √pt and rapidity, shape (3, n): an acceptance cone has its edges along rapidity."""
    mt = np.hypot(mass, pt)
    rapidity = np.arccosh(np.maximum(energy / np.maximum(mt, 1e-12), 1.0))
    return np.stack([mass, np.sqrt(pt), rapidity])


@dataclass(frozen=True, slots=True, eq=False)
class EfficiencyMap:
    """ε on a fine grid in (mass, √pt, rapidity), interpolated linearly.

    Attributes
    ----------
    low, high : NDArray, shape (3,)
        Ends of the axes: mass [GeV], √pt [√GeV], rapidity in the laboratory.
    values : NDArray, shape (n1, n2, n3)
        Efficiencies at the centres of the cells.
    found : NDArray, shape (n1, n2, n3)
        Reconstructed simulated pairs (effective) that decide each value.
    """

    low: FloatArray
    high: FloatArray
    values: FloatArray
    found: FloatArray

    def _at(self, grid: FloatArray, points: FloatArray) -> tuple[FloatArray, BoolArray]:
        inside = np.asarray(((points >= self.low[:, None]) & (points <= self.high[:, None])).all(axis=0))
        cells = np.array(grid.shape)
        place = (points - self.low[:, None]) / (self.high - self.low)[:, None] * cells[:, None] - 0.5
        place = np.where(inside, place, 0.0)
        return np.asarray(map_coordinates(grid, place, order=1, mode="nearest")), inside

    def __call__(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ε of pairs, shape (n,); 0 outside the map.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        value, inside = self._at(self.values, _coordinates(mass, pt, energy))
        return np.where(inside, np.clip(value, 0.0, 1.0), 0.0)

    def relative_error(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return the statistical error of ε over ε, from the simulation's size; inf outside the map."""
        found, inside = self._at(self.found, _coordinates(mass, pt, energy))
        size = np.where(inside, found, 0.0)
        return np.divide(1.0, np.sqrt(size), out=np.full_like(size, np.inf), where=size > 0)

    def weights(
        self,
        mass: FloatArray,
        pt: FloatArray,
        energy: FloatArray,
        *,
        floor: float = 0.01,
        largest_error: float = 0.2,
    ) -> FloatArray:
        """Return 1/ε of pairs, and 0 outside the measured domain, shape (n,).

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        floor : float
            Lowest efficiency that is corrected for.
        largest_error : float
            Largest relative error of ε inside the domain.

        Raises
        ------
        UserError
            If `floor` is not in (0, 1].
        """
        if not 0 < floor <= 1:
            msg = f"EfficiencyMap.weights: floor = {floor} must lie in (0, 1]"
            raise UserError(msg)
        value = self(mass, pt, energy)
        error = self.relative_error(mass, pt, energy)
        good = (value >= floor) & (error <= largest_error)
        # the mean of 1/ε exceeds one over the mean of ε by the squared relative error
        raised = value * (1.0 + np.where(good, error, 0.0) ** 2)
        weight = np.divide(1.0, raised, out=np.zeros_like(value), where=good)
        _LOG.info(
            "efficiency map: %d pairs, %d inside the domain, effective sample size %.0f",
            *(len(weight), int(good.sum()), effective_size(weight)),
        )
        return weight


def _extent(parts: Iterable[MatchedPairs]) -> tuple[int, float, FloatArray, FloatArray]:
    """Return number and effective number of the reconstructed pairs, and the range of their coordinates."""
    n, sums = 0, np.zeros(2)
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for part in parts:
        seen = part.reconstructed
        weight, points = part.weight[seen], _coordinates(*part.true[seen].T)
        n += len(weight)
        sums += weight.sum(), (weight**2).sum()
        low = np.minimum(low, points.min(axis=1, initial=np.inf))
        high = np.maximum(high, points.max(axis=1, initial=-np.inf))
    return n, float(sums[0]) ** 2 / float(sums[1]) if sums[1] > 0 else 0.0, low, high


def _contents(
    parts: Iterable[MatchedPairs], cells: tuple[int, int, int], ranges: list[tuple[float, float]]
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return sums of weights of all pairs and of reconstructed ones, and of the squares of the latter."""
    total, found, squares = np.zeros(cells), np.zeros(cells), np.zeros(cells)
    for part in parts:
        seen, points = part.reconstructed, _coordinates(*part.true.T)
        weight = part.weight
        total += np.histogramdd(points.T, cells, ranges, weights=weight)[0]
        found += np.histogramdd(points[:, seen].T, cells, ranges, weights=weight[seen])[0]
        squares += np.histogramdd(points[:, seen].T, cells, ranges, weights=weight[seen] ** 2)[0]
    return total, found, squares


def efficiency_map(
    matched: MatchedPairs | Iterable[MatchedPairs],
    *,
    cells: tuple[int, int, int] | None = None,
    smoothing: float = 1.5,
    corrections: int = 2,
) -> EfficiencyMap:
    """Return the efficiency of pairs as a smooth function of their true kinematics.

    Parameters
    ----------
    matched : MatchedPairs, or parts of it that can be iterated over twice
        True (mass, pt, energy) of simulated pairs; `reco` is nan where a pair was not reconstructed. Of parts
        one at a time is in memory.
    cells : (int, int, int), optional
        Cells in mass, √pt and rapidity; by default so that they follow the size of the simulation.
    smoothing : float
        Width of the Gaussian kernel in cells.
    corrections : int
        Rounds of ε ← ε · K(found) / K(ε · all), with K the smoothing: each removes most of the bias that the
        kernel has left where ε is curved.

    Returns
    -------
    EfficiencyMap

    Raises
    ------
    UserError
        If the simulation is too small, or an option is out of range.

    Notes
    -----
    Ratio of kernel sums (Nadaraya and Watson 1964) with multiplicative bias correction (Jones, Linton and
    Nielsen, Biometrika 82 (1995) 327). The result depends on the simulated prior only inside one kernel; with
    cells of an analysis' histogram it would inside the cells, whose size is the larger bias.
    """
    if smoothing <= 0 or corrections < 0:
        msg = f"efficiency_map: smoothing = {smoothing} must be positive, corrections = {corrections} not < 0"
        raise UserError(msg)
    parts = (matched,) if isinstance(matched, MatchedPairs) else matched
    n_seen, size, low, high = _extent(parts)
    if size < _FEWEST:
        msg = (
            f"efficiency_map: {n_seen} reconstructed pairs (effective {size:.0f}); at least "
            f"{_FEWEST:.0f} are needed: simulate more"
        )
        raise UserError(msg)
    if cells is None:
        factor = float(np.clip((size / 1e5) ** (1.0 / 7.0), 0.3, 1.3))
        cells = (max(int(_CELLS[0] * factor), 8), max(int(_CELLS[1] * factor), 8), int(_CELLS[2] * factor))
    pad = 0.02 * (high - low) + 1e-9
    low, high = low - pad, high + pad
    low[1] = max(low[1], 0.0)
    ranges = list(zip(low, high, strict=True))
    total, found, squares = _contents(parts, cells, ranges)

    def smooth(grid: FloatArray) -> FloatArray:
        return np.asarray(gaussian_filter(grid, smoothing, mode="nearest", truncate=3.0))

    smooth_found, smooth_total = smooth(found), smooth(total)
    values = np.divide(smooth_found, smooth_total, out=np.zeros(cells), where=smooth_total > 0)
    for _ in range(corrections):
        expected = smooth(values * total)
        ratio = np.divide(smooth_found, expected, out=np.ones(cells), where=expected > 0)
        values = np.clip(values * ratio, 0.0, 1.0)
    # a Gaussian kernel averages over (2 √π σ)³ cells
    volume = (2.0 * np.sqrt(np.pi) * smoothing) ** 3
    spread = smooth(squares)
    effective = np.divide(smooth_found**2, spread, out=np.zeros(cells), where=spread > 0) * volume
    return EfficiencyMap(low, high, values, effective)


def reweighted(
    matched: MatchedPairs,
    unfolded: Spectrum | None = None,
    *,
    weight: FloatArray | None = None,
    most: float = 10,
) -> MatchedPairs:
    """Return simulated pairs whose true distribution is the unfolded one, cell by cell.

    A response in the mass alone averages the efficiency over pt and energy; with these weights it averages
    over those of the data.

    Parameters
    ----------
    matched : MatchedPairs
    unfolded : Spectrum, optional
        Counts on any of mass, pt and energy.
    weight : NDArray, shape (n,), optional
        Ready weights instead, those of `omnifold`.
    most : float
        Ratios to the simulation, scaled to one on average, are clipped to [1/most, most].

    Raises
    ------
    UserError
        If neither or both of `unfolded` and `weight` are given.
    """
    if (unfolded is None) == (weight is None):
        msg = "reweighted: give either an unfolded spectrum or ready weights"
        raise UserError(msg)
    if unfolded is not None:
        axes = tuple(unfolded.hist.axes)
        cell = cells(matched.true, axes)
        n = int(np.prod([len(a) for a in axes]))
        prior = np.bincount(cell[cell >= 0], matched.weight[cell >= 0], n)
        use = unfolded.domain.ravel() & (prior > 0) & (unfolded.values.ravel() > 0)
        scale = unfolded.values.ravel()[use].sum() / max(float(prior[use].sum()), 1e-300)
        ratio = np.ones(n)
        ratio[use] = np.clip(unfolded.values.ravel()[use] / prior[use] / scale, 1 / most, most)
        weight = matched.weight * np.where(cell >= 0, ratio[cell], 1.0)
    final = matched.weight if weight is None else np.asarray(weight, dtype=np.float64)
    return replace(matched, weight=final)


def fiducial(matched: MatchedPairs, domain: Spectrum | Response) -> MatchedPairs:
    """Return the simulated pairs inside the measured domain; reconstructed pairs from outside become fakes.

    Parameters
    ----------
    matched : MatchedPairs
    domain : Spectrum or Response
        Its domain, or its cells of non-zero efficiency.
    """
    axes, inside = _domain(domain)
    cell = cells(matched.true, axes)
    kept = (cell >= 0) & inside[cell]
    if not kept.any():
        msg = "fiducial: no simulated pair lies inside the domain"
        raise UserError(msg)
    spill = ~kept & matched.reconstructed
    return replace(
        matched.select(kept),
        fakes=np.concatenate([matched.fakes, matched.reco[spill]]),
        fake_weight=np.concatenate([matched.fake_weight, matched.weight[spill]]),
    )


def fiducial_fraction(matched: MatchedPairs, domain: Spectrum | Response, mass_axis: Any) -> FloatArray:
    """Return the part of simulated true pairs inside the domain, per cell of a mass axis; 0 without pairs."""
    axes, inside = _domain(domain)
    cell, place = cells(matched.true, axes), cells(matched.true, (mass_axis,))
    kept = (cell >= 0) & inside[cell] & (place >= 0)
    total = np.bincount(place[place >= 0], matched.weight[place >= 0], len(mass_axis))
    part = np.bincount(place[kept], matched.weight[kept], len(mass_axis))
    return np.asarray(np.divide(part, total, out=np.zeros(len(mass_axis)), where=total > 0))


def _domain(domain: Spectrum | Response) -> tuple[Sequence[Any], BoolArray]:
    if isinstance(domain, Response):
        return domain.true, np.asarray(domain.efficiency > 0)
    return tuple(domain.hist.axes), domain.domain.ravel()
