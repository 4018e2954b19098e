"""The spectrum per proton on target, and the domain in which dileptons were measured."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from hist import Hist
from scipy.ndimage import gaussian_filter, map_coordinates

from gammastar.core.errors import PhysicsError, UserError, require
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import (
    ENERGY,
    KINEMATICS,
    MASS,
    PT,
    BoolArray,
    Exposure,
    FloatArray,
    Spectrum,
    cell_of,
    divided,
    effective_size,
    filled,
    variable,
)

log = logging.getLogger(__name__)


def per_pot(spectrum: Spectrum, exposure: Exposure, domain: BoolArray | None = None) -> Spectrum:
    """Return the spectrum per proton on target.

    Parameters
    ----------
    spectrum : Spectrum
        Quantity "counts", corrected for acceptance and efficiency.
    exposure : Exposure
        Its uncertainty `pot_sigma` stays there: it is one normalisation common to every cell, which cancels
        in situ and is a nuisance of its own elsewhere.
    domain : NDArray of bool, shape of the cells, optional
        Narrows the domain of the spectrum.

    Returns
    -------
    Spectrum
        Quantity "per_pot".

    Raises
    ------
    PhysicsError
        If the spectrum is no longer counts.
    UserError
        If `domain` does not have the shape of the cells.
    """
    if spectrum.quantity != "counts":
        raise PhysicsError(f"per_pot: the spectrum is already {spectrum.quantity!r}; give counts")
    inside = spectrum.domain
    if domain is not None:
        if domain.shape != inside.shape:
            raise UserError(f"per_pot: domain has shape {domain.shape}, the cells have {inside.shape}")
        inside = inside & domain
    cov = spectrum.cov / exposure.pot**2
    hist = filled(tuple(spectrum.hist.axes), spectrum.values / exposure.pot, np.diag(cov))
    shifts = {name: shift / exposure.pot for name, shift in spectrum.shifts.items()}
    return Spectrum(hist, cov, "per_pot", exposure, inside, shifts=shifts)


def _mass_axis(spectrum: Spectrum) -> int:
    names = [axis.name for axis in spectrum.hist.axes]
    require(MASS in names, f"the spectrum has no mass axis; it has {names}")
    return names.index(MASS)


def _mass_label(spectrum: Spectrum) -> tuple[Any, FloatArray]:
    """Return the mass axis and the matrix (n_mass, n_cells) that sums over everything else."""
    position = _mass_axis(spectrum)
    label = np.indices(spectrum.domain.shape)[position].ravel()
    axis = spectrum.hist.axes[position]
    return axis, (np.arange(len(axis))[:, None] == label).astype(np.float64)


def mass_density(
    spectrum: Spectrum, part: Literal["all", "measured", "extrapolated"] = "all"
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return dN/dm, summed over every other axis.

    Parameters
    ----------
    part : {"all", "measured", "extrapolated"}
        All cells, those in the domain, or those outside.

    Returns
    -------
    mass : NDArray, shape (n,) [GeV]
        Centres of the mass bins.
    density : NDArray, shape (n,) [1/GeV]
    cov : NDArray, shape (n, n) [1/GeV²]

    Raises
    ------
    PhysicsError
        If the spectrum has no mass axis.
    UserError
        If `part` is unknown.

    Examples
    --------
    >>> from gammastar.core import axes
    >>> axis = (axes.regular("mass", 2, 0.2, 1.2),)
    >>> hist = filled(axis, np.array([3.0, 4.0]), np.array([3.0, 4.0]))
    >>> spectrum = Spectrum(hist, np.diag([3.0, 4.0]), "counts", None, np.ones(2, bool))
    >>> mass_density(spectrum)[1]
    array([6., 8.])
    """
    inside = spectrum.domain.ravel()
    masks = {"all": np.ones_like(inside), "measured": inside, "extrapolated": ~inside}
    if part not in masks:
        raise UserError(f"mass_density: part {part!r} is unknown; choose one of {', '.join(masks)}")
    axis, total = _mass_label(spectrum)
    edges = np.asarray(axis.edges, dtype=np.float64)
    operator = total * masks[part] / np.diff(edges)[:, None]
    cov = operator @ spectrum.cov @ operator.T
    return (edges[1:] + edges[:-1]) / 2, operator @ spectrum.values.ravel(), (cov + cov.T) / 2


def mass_shifts(spectrum: Spectrum) -> dict[str, FloatArray]:
    """Return what one standard deviation of each named source adds to the mass bins, (n,)."""
    _, total = _mass_label(spectrum)
    return {name: total @ shift for name, shift in spectrum.shifts.items()}


def relative_shifts(spectrum: Spectrum) -> dict[str, FloatArray]:
    """Return the relative shifts of the mass bins by each named source, (n,), zero where a bin holds nothing.

    Notes
    -----
    Cells outside the measured domain follow those inside, so that the relative shift per mass is the same.
    """
    _, total = _mass_label(spectrum)
    contents = total @ spectrum.values.ravel()

    def relative(shift: FloatArray) -> FloatArray:
        return divided(shift, contents)

    return {name: relative(shift) for name, shift in mass_shifts(spectrum).items()}


def extrapolate(spectrum: Spectrum, prior_hist: Hist[Any]) -> Spectrum:
    """Fill the cells outside the domain with a simulated shape, scaled per mass bin to the measured yield.

    Parameters
    ----------
    prior_hist : Hist
        Simulated spectrum before acceptance, on the same axes.

    Returns
    -------
    Spectrum
        The domain stays as it was: filled cells remain outside it.

    Raises
    ------
    UserError
        If the axes differ or the prior holds negative cells.

    Notes
    -----
    The result is A s with A the identity inside the domain and A_oi = p_o / Σ_i p_i for an outer cell o and
    the measured cells i of its mass bin; its covariance A V Aᵀ is fully correlated with the measured part and
    knows nothing of a wrong shape of the simulation. Mass bins without any measured cell stay empty.
    """
    if tuple(prior_hist.axes) != tuple(spectrum.hist.axes):
        names = [[f"{a.name}({len(a)})" for a in h.axes] for h in (prior_hist, spectrum.hist)]
        msg = f"extrapolate: the prior has the axes {names[0]}, the spectrum {names[1]}; they must agree"
        raise UserError(msg)
    prior = np.asarray(prior_hist.values(), dtype=np.float64).ravel()
    if not np.isfinite(prior).all() or (prior < 0).any():
        msg = f"extrapolate: the prior must be finite and not negative; its smallest cell is {prior.min()}"
        raise UserError(msg)
    axis, total = _mass_label(spectrum)
    inside = spectrum.domain.ravel()
    measured = total @ (prior * inside)
    lost = np.flatnonzero((measured <= 0) & (total @ (prior * ~inside) > 0))
    if lost.size:
        log.warning("extrapolate: %d of %d mass bins have no measured cell: empty", lost.size, len(axis))
    share = divided(1.0, measured)
    # the rows of outer cells repeat per mass bin: keep (n_mass) sums instead of an (n, n) operator
    spread = (total.T * share) * (prior * ~inside)[:, None]
    sums = total * inside
    inner = np.where(np.outer(inside, inside), spectrum.cov, 0.0)
    cross = spread @ (sums @ inner)
    cov = inner + cross + cross.T + spread @ (sums @ inner @ sums.T) @ spread.T

    def whole(cells: FloatArray) -> FloatArray:
        return np.where(inside, cells, spread @ (sums @ cells))

    hist = filled(tuple(spectrum.hist.axes), whole(spectrum.values.ravel()), np.diag(cov))
    shifts = {name: whole(shift) for name, shift in spectrum.shifts.items()}
    kept = spectrum.quantity, spectrum.exposure, spectrum.domain
    return Spectrum(hist, (cov + cov.T) / 2, *kept, shifts=shifts)


def mass_histogram(spectrum: Spectrum, part: Any = "all") -> Hist[Any]:
    """Return the contents of a spectrum per mass bin, with the variances of its covariance.

    Parameters
    ----------
    part : str
        "all" or "measured".
    """
    edges = np.asarray(spectrum.hist.axes[MASS].edges)
    _, density, cov = mass_density(spectrum, part)
    width = np.diff(edges)
    return filled((variable(MASS, edges.tolist()),), density * width, np.diag(cov) * width**2)


InDomain: TypeAlias = Callable[[FloatArray, FloatArray, FloatArray], BoolArray]
"""Mass, pt and energy [GeV] → where dileptons of these kinematics were measured."""

_LOG = logging.getLogger(__name__)
_CELLS = (50, 90, 160)  # in mass, √pt and rapidity, for 1e5 reconstructed pairs
_FEWEST = 200.0  # reconstructed pairs below which no map is made


def in_domain(spectrum: Spectrum, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
    """Return where dileptons of these kinematics were measured.

    Parameters
    ----------
    spectrum : Spectrum
        Its axes are any choice of mass, pt and energy.
    mass, pt, energy : NDArray, shape (n,) [GeV]

    Returns
    -------
    NDArray of bool, shape (n,)
        False outside the axes.

    Raises
    ------
    PhysicsError
        If an axis is none of mass, pt and energy.
    """
    columns = {MASS: mass, PT: pt, ENERGY: energy}
    for axis in spectrum.hist.axes:
        if axis.name not in columns:
            raise PhysicsError(f"in_domain: axis {axis.name!r} is none of {', '.join(KINEMATICS)}")
    cell = cell_of(spectrum.hist.axes, columns.__getitem__)
    return np.asarray((cell >= 0) & spectrum.domain.ravel()[cell])


def _coordinates(mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
    """Return mass, √pt and rapidity, shape (3, n): an acceptance cone has its edges along rapidity."""
    mt = np.hypot(mass, pt)
    rapidity = np.arccosh(np.maximum(energy / np.maximum(mt, 1e-12), 1.0))
    return np.stack([mass, np.sqrt(pt), rapidity])


@dataclass(frozen=True, slots=True, eq=False)
class EfficiencyMap:
    """ε on a fine grid in (mass, √pt, rapidity), interpolated linearly."""

    # Ends of the axes: mass [GeV], √pt [√GeV], rapidity in the laboratory
    low: FloatArray
    high: FloatArray
    values: FloatArray  # At the centres of the cells
    found: FloatArray  # Reconstructed simulated pairs (effective) that decide each value

    def _at(self, grid: FloatArray, points: FloatArray) -> tuple[FloatArray, BoolArray]:
        inside = np.asarray(((points >= self.low[:, None]) & (points <= self.high[:, None])).all(axis=0))
        cells = np.array(grid.shape)
        place = (points - self.low[:, None]) / (self.high - self.low)[:, None] * cells[:, None] - 0.5
        place = np.where(inside, place, 0.0)
        return np.asarray(map_coordinates(grid, place, order=1, mode="nearest")), inside

    def __call__(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ε of pairs, shape (n,); 0 outside the map."""
        value, inside = self._at(self.values, _coordinates(mass, pt, energy))
        return np.where(inside, np.clip(value, 0.0, 1.0), 0.0)

    def relative_error(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return the relative statistical error of ε, from the simulation's size; inf outside the map."""
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
        """Return 1/ε of pairs [GeV], 0 where ε is below `floor` or less known than `largest_error`."""
        require(0 < floor <= 1, f"EfficiencyMap.weights: floor = {floor} must lie in (0, 1]", UserError)
        value = self(mass, pt, energy)
        error = self.relative_error(mass, pt, energy)
        good = (value >= floor) & (error <= largest_error)
        # the mean of 1/ε exceeds one over the mean of ε by the squared relative error
        raised = value * (1.0 + np.where(good, error, 0.0) ** 2)
        weight = np.divide(1.0, raised, out=np.zeros_like(value), where=good)
        sizes = len(weight), int(good.sum()), effective_size(weight)
        _LOG.info("efficiency map: %d pairs, %d inside the domain, effective sample size %.0f", *sizes)
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
        raise UserError(
            f"efficiency of [unfold]: {n_seen} reconstructed pairs (effective {size:.0f}); at least "
            f"{_FEWEST:.0f} are needed: simulate more, or unfold more masses"
        )
    if cells is None:
        factor = float(np.clip((size / 1e5) ** (1.0 / 7.0), 0.3, 1.3))
        cells = (
            max(int(_CELLS[0] * factor), 8),
            max(int(_CELLS[1] * factor * min(factor, 1.0)), 8),
            int(_CELLS[2] * factor),
        )
    pad = 0.02 * (high - low) + 1e-9
    low, high = low - pad, high + pad
    low[1] = max(low[1], 0.0)
    ranges = list(zip(low, high, strict=True))
    total, found, squares = _contents(parts, cells, ranges)

    def smooth(grid: FloatArray) -> FloatArray:
        return np.asarray(gaussian_filter(grid, smoothing, mode="nearest", truncate=3.0))

    smooth_found, smooth_total = smooth(found), smooth(total)
    values = divided(smooth_found, smooth_total)
    for _ in range(corrections):
        expected = smooth(values * total)
        ratio = divided(smooth_found, expected, 1.0)
        values = np.clip(values * ratio, 0.0, 1.0)
    # a Gaussian kernel averages over (2 √π σ)³ cells
    volume = (2.0 * np.sqrt(np.pi) * smoothing) ** 3
    spread = smooth(squares)
    effective = divided(smooth_found**2, spread) * volume
    return EfficiencyMap(low, high, values, effective)


@dataclass(frozen=True)
class Domain:
    """Where dileptons were measured: a smooth efficiency map above its floor.

    Attributes
    ----------
    floor : float
        Smallest efficiency that counts as measured.
    """

    map: EfficiencyMap
    floor: float

    def weights(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return one over the efficiency, 0 outside the domain.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        return self.map.weights(mass, pt, energy, floor=self.floor)

    def in_domain(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where dileptons of these kinematics were measured.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        return np.asarray(self.weights(mass, pt, energy) > 0, dtype=np.bool_)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        kept = {name: getattr(self.map, name) for name in ("low", "high", "values", "found")}
        return kept | {"floor": np.array([self.floor])}

    @staticmethod
    def of(arrays: Mapping[str, FloatArray]) -> Domain:
        """Return the domain of a record.

        Parameters
        ----------
        arrays : mapping of str to NDArray
            Named arrays, as the record gives them.
        """
        found = EfficiencyMap(*(arrays[name] for name in ("low", "high", "values", "found")))
        return Domain(found, float(arrays["floor"][0]))
