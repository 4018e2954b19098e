"""Like-sign estimates of the combinatorial background, and signed weights of single pairs."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import (
    BoolArray,
    FloatArray,
    IntArray,
    PairHists,
    Spectrum,
    cell_of,
    divided,
    filled,
    flow_free,
)
from gammastar.core.sampling import event_seeds, replica_weights
from gammastar.subtract.fields import disagreement, signal_shares

Formula: TypeAlias = Literal["regions", "geometric mean", "sum"]
Coarse: TypeAlias = Mapping[str, Sequence[float]]

FORMULAS = ("regions", "geometric mean", "sum")
LOW_COUNT = 5.0  # per charge; below it the mean of sqrt(N++ N--) is more than 5 % too small
LOW_FRACTION = 0.05


class LowCountWarning(UserWarning):
    """The same-sign background rests on cells with too few pairs to form their charge ratio."""


def regions(axes: Sequence[Any], coarse: Coarse | None = None) -> IntArray:
    """Return the coarse region of every cell, that has one charge ratio."""
    shape = tuple(len(axis) for axis in axes)
    label = np.zeros(shape, dtype=np.int64)
    coarse = coarse or {}
    names = [axis.name for axis in axes]
    for name, edges in coarse.items():
        if name not in names:
            raise UserError(f"coarse: there is no axis {name!r}; the pair histograms have {names}")
        position = names.index(name)
        fine = np.asarray(axes[position].edges, dtype=np.float64)
        inner = np.asarray(edges, dtype=np.float64)
        cut = inner[(inner > fine[0]) & (inner < fine[-1])]
        if cut.size and np.abs(fine[:, None] - cut).min(axis=0).max() > 1e-9 * np.ptp(fine):
            msg = f"coarse: edges {list(edges)} of {name!r} must be edges of the axis {fine.tolist()}"
            raise UserError(msg)
        centre = (fine[1:] + fine[:-1]) / 2
        index = np.searchsorted(inner[1:-1], centre)
        along = [1] * len(shape)
        along[position] = len(centre)
        label = label * max(len(inner) - 1, 1) + index.reshape(along)
    return np.unique(label.ravel(), return_inverse=True)[1].astype(np.int64)


def charge_factors(
    pp: FloatArray, mm: FloatArray, method: Formula, region: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the factors f of a background B = R (f₊₊ N₊₊ + f₋₋ N₋₋)."""
    if method == "sum":
        return np.ones_like(pp), np.ones_like(mm)
    if method == "regions":
        member = np.eye(int(region.max(initial=0)) + 1)[region]
        pp, mm = (pp @ member)[..., region], (mm @ member)[..., region]
    both = (pp > 0) & (mm > 0)
    ratio = np.sqrt(np.divide(mm, pp, out=np.ones_like(pp), where=both))
    if method == "regions":
        return ratio, 1 / ratio
    return np.where(both, ratio, 0.0), np.where(both, 1 / ratio, 0.0)


def background(
    hists: PairHists, *, method: Formula, r_factor: FloatArray, region: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the background and its statistical covariance.

    Notes
    -----
    With a = N₊₊, c = N₋₋, w = √(C/A) of the sums over a region and d = R (w a − c/w), linear propagation of
    B = R (w a + c/w) gives ∂B_i/∂a_j = R_i w δ_ij − d_i/2A and ∂B_i/∂c_j = R_i δ_ij/w + d_i/2C: besides the
    diagonal R² (w² a + c/w²) a term that is fully correlated within the region, from its charge ratio.
    Per cell ("geometric mean") d is zero and Var B = R² (a + c).
    """
    (pp, var_pp), (mm, var_mm) = flow_free(hists.pp), flow_free(hists.mm)
    f_pp, f_mm = charge_factors(pp, mm, method, region)
    value = r_factor * (f_pp * pp + f_mm * mm)
    if method != "regions":
        variance = r_factor**2 * (f_pp**2 * var_pp + f_mm**2 * var_mm)
        # one charge empty: the derivative of the root does not exist; take the variance of the plain sum
        empty = (f_pp == 0) & (pp + mm > 0)
        return value, np.diag(np.where(empty, r_factor**2 * (var_pp + var_mm), variance))
    member = np.eye(int(region.max(initial=0)) + 1)[region]
    sum_pp, sum_mm = (pp @ member)[region], (mm @ member)[region]
    both = (sum_pp > 0) & (sum_mm > 0)
    slope = np.where(both, r_factor * (f_pp * pp - f_mm * mm) / 2, 0.0)
    diagonal = np.zeros(len(pp))
    shared = np.zeros((len(pp), len(pp)))
    for direct, common, variance in (
        (r_factor * f_pp, -slope / np.where(both, sum_pp, 1.0), var_pp),
        (r_factor * f_mm, slope / np.where(both, sum_mm, 1.0), var_mm),
    ):
        diagonal += direct**2 * variance
        cross = np.outer(direct * variance, common)
        shared += cross + cross.T + (variance @ member)[region] * np.outer(common, common)
    return value, np.diag(diagonal) + shared * (region[:, None] == region)


def low_count_fraction(
    hists: PairHists, *, method: Formula = "regions", coarse: Coarse | None = None
) -> float:
    """Return the fraction of the background that rests on fewer than 5 pairs of one charge.

    Counts are taken where the estimate forms its charge ratio: the cell for "geometric mean", the region for
    "regions"; "sum" forms none and is unbiased at any count. Weighted cells count (Σw)²/Σw².
    """
    (pp, var_pp), (mm, var_mm) = flow_free(hists.pp), flow_free(hists.mm)
    if method == "sum":
        return 0.0
    region = regions(hists.os.axes, coarse) if method == "regions" else np.arange(len(pp))
    n = int(region.max(initial=0)) + 1
    counts = []
    for value, variance in ((pp, var_pp), (mm, var_mm)):
        total, square = np.bincount(region, value, n), np.bincount(region, variance, n)
        counts.append(divided(total**2, square))
    size = np.bincount(region, np.abs(pp) + np.abs(mm), n)
    low = np.minimum(*counts) < LOW_COUNT
    return float(size[low].sum() / size.sum()) if size.sum() > 0 else 0.0


def _per_cell(name: str, value: float | FloatArray, shape: tuple[int, ...]) -> FloatArray:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim and array.shape != shape:
        msg = f"{name} has shape {array.shape}; give one number or an array of the cells' shape {shape}"
        raise UserError(msg)
    result: FloatArray = np.broadcast_to(array, shape).ravel()
    if not np.isfinite(result).all() or (result < 0).any():
        raise UserError(f"{name} must be finite and not negative; its smallest value is {result.min()}")
    return result


def checked_r_factor(method: Formula, r_factor: float | FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return R per cell, shape (n_cells,); refuse an unknown method, and R where the estimate has none."""
    if method not in FORMULAS:
        msg = f"subtract: method {method!r} is unknown; choose one of {', '.join(map(repr, FORMULAS))}"
        raise UserError(msg)
    result = _per_cell("r_factor", r_factor, shape)
    if method == "sum" and (result != 1).any():
        raise UserError("subtract: method 'sum' takes no r_factor; use 'geometric mean' or 'regions'")
    return result


def same_sign(
    hists: PairHists,
    *,
    method: Formula = "regions",
    r_factor: float | FloatArray = 1.0,
    r_factor_sigma: float | FloatArray = 0.0,
    coarse: Coarse | None = None,
) -> Spectrum:
    """Subtract the combinatorial background from the opposite-sign pairs.

    Parameters
    ----------
    hists : PairHists
        Opposite-sign, ++ and -- pairs; like-sign pairs are unordered.
    method : {"regions", "geometric mean", "sum"}
        "regions": R (w N₊₊ + N₋₋/w), w = √(ΣN₋₋/ΣN₊₊) over a coarse region; unbiased at any occupancy of the
        cells. "geometric mean": 2R√(N₊₊N₋₋) per cell. "sum": N₊₊ + N₋₋.
    r_factor : float or NDArray, shape of the cells
        R: ratio of the combinatorial opposite-sign pairs to 2√(N₊₊N₋₋), from acceptance (event mixing) times
        multiplicity. Mixing alone does not see the multiplicity part, which departs from 1 where leptons of
        one event do not follow a Poisson law.
    r_factor_sigma : float or NDArray, shape of the cells
        Absolute uncertainty of R, fully correlated between cells.
    coarse : mapping of axis name to edges, optional
        Coarse grid of the charge ratio of "regions"; one region by default.

    Returns
    -------
    Spectrum
        Quantity "counts"; its domain is where opposite-sign pairs were seen.

    Raises
    ------
    UserError
        If the method, the shape of R or the coarse grid is wrong.

    Warns
    -----
    LowCountWarning
        If more than 5 % of the background rests on fewer than 5 pairs of one charge.

    Notes
    -----
    2√(N₊₊N₋₋) is exact for any charge asymmetry: PHENIX, arXiv:0912.0244, appendix. Cells that share singles
    are correlated beyond this covariance; `bootstrap_covariance` contains that part.

    Examples
    --------
    >>> from gammastar.core import axes
    >>> axis = (axes.regular("mass", 1, 0.2, 1.2),)
    >>> os, pp, mm = (axes.filled(axis, np.array([n]), np.array([n])) for n in (100.0, 16.0, 9.0))
    >>> result = same_sign(PairHists(os, pp, mm), method="geometric mean")
    >>> result.values, result.cov
    (array([76.]), array([[125.]]))
    """
    shape = tuple(len(axis) for axis in hists.os.axes)
    r_cell = checked_r_factor(method, r_factor, shape)
    sigma = _per_cell("r_factor_sigma", r_factor_sigma, shape)
    region = regions(hists.os.axes, coarse)
    size, cov = background(hists, method=method, r_factor=r_cell, region=region)
    os, var_os = flow_free(hists.os)
    by_r, _ = background(hists, method=method, r_factor=np.ones_like(size), region=region)
    shift = by_r * sigma
    cov = cov + np.diag(var_os) + np.outer(shift, shift)
    low = low_count_fraction(hists, method=method, coarse=coarse)
    if low > LOW_FRACTION:
        where = "coarse regions" if method == "regions" else "cells"
        cure = "widen `coarse`" if method == "regions" else "use method 'regions' or wider cells"
        warnings.warn(
            f"{low:.0%} of the same-sign background lies in {where} with fewer than {LOW_COUNT:.0f} pairs of"
            f" one charge, where 2√(N++ N--) is biased low; {cure}",
            LowCountWarning,
            stacklevel=2,
        )
    hist = filled(tuple(hists.os.axes), os - size, np.diag(cov))
    return Spectrum(hist, cov, "counts", None, (os > 0).reshape(shape))


BLOCK = 2**24  # Poisson numbers held at once by the bootstrap (128 MB)
Removed: TypeAlias = tuple[Pairs, FloatArray]
"""Pairs to remove that are not in the data, with their weights."""


def _column(pairs: Pairs, name: str) -> FloatArray:
    if name in ("mass", "pt", "energy"):
        return np.asarray(getattr(pairs, name), dtype=np.float64)
    if name not in pairs.columns:
        msg = f"the pairs have no column {name!r}; they have mass, pt, energy, {', '.join(pairs.columns)}"
        raise UserError(msg)
    return np.asarray(pairs.columns[name], dtype=np.float64)


def pair_cells(pairs: Pairs, axes: Sequence[Any]) -> IntArray:
    """Return the cell of every pair."""
    return cell_of(axes, lambda name: _column(pairs, name))


def cell_values(pairs: Pairs, axes: Sequence[Any], values: FloatArray) -> FloatArray:
    """Return the value of the cell of each pair, 0 outside the axes."""
    cell = pair_cells(pairs, axes)
    return np.where(cell >= 0, np.ravel(values)[cell], 0.0)


def event_weights(
    pairs: Pairs,
    axes: Sequence[Any],
    *,
    hists: PairHists | None = None,
    method: Formula = "regions",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> FloatArray:
    """Return one signed weight per pair whose histogram is the subtracted spectrum.

    Opposite-sign pairs carry their own weight, like-sign pairs minus R times the charge factor of their cell
    or region times their own weight.

    Parameters
    ----------
    axes : sequence of hist axes
        Cells of R and, for "geometric mean", of the charge ratio.
    hists : PairHists, optional
        Of all pairs on these axes, where `pairs` are a part of them: their charge ratio is taken.
    method, r_factor, coarse
        As for `same_sign`.

    Returns
    -------
    NDArray, shape (n_pairs,)
        0 for pairs outside the axes.

    Notes
    -----
    A Weight histogram of these weights on any axes holds Σw = S and Σw² = N₊₋ + R² (w² N₊₊ + N₋₋/w²): the
    variance of S but for the errors of R and of the coarse charge ratio.
    """
    axes = tuple(axes)
    cell = pair_cells(pairs, axes)
    shape = tuple(len(axis) for axis in axes)

    def content(mask: BoolArray) -> FloatArray:
        chosen = mask & (cell >= 0)
        return np.bincount(cell[chosen], pairs.weight[chosen], int(np.prod(shape))).astype(np.float64)

    if hists is None:
        pp, mm = content(pairs.pp), content(pairs.mm)
    else:
        pp, mm = flow_free(hists.pp)[0], flow_free(hists.mm)[0]
    r_cell = checked_r_factor(method, r_factor, shape)
    f_pp, f_mm = charge_factors(pp, mm, method, regions(axes, coarse))
    factor = np.where(pairs.pp, -(r_cell * f_pp)[cell], np.where(pairs.mm, -(r_cell * f_mm)[cell], 1.0))
    return np.where(cell >= 0, factor * pairs.weight, 0.0)


def bootstrap_covariance(
    parts: Iterable[Pairs],
    axes: Sequence[Any],
    *,
    method: Formula = "regions",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
    n_replicas: int = 200,
    dataset: str = "",
) -> FloatArray:
    """Return the covariance of the subtracted spectrum from a bootstrap of events.

    Each replica gives every event one Poisson(1) weight for all its pairs, so that cells which share singles
    come out correlated. The hash of (dataset, event) gives the weight, so that neither the number of parts
    nor their order matters.

    Parameters
    ----------
    parts : iterable of Pairs
        All pairs; one part is in memory at a time.
    method, r_factor, coarse
        As for `same_sign`.

    Returns
    -------
    NDArray, shape (n_cells, n_cells)

    Raises
    ------
    UserError
        If fewer than two replicas are asked for.
    """
    if n_replicas < 2:
        raise UserError(f"bootstrap_covariance: n_replicas = {n_replicas}; a covariance needs at least 2")
    axes = tuple(axes)
    shape = tuple(len(axis) for axis in axes)
    r_cell, region = checked_r_factor(method, r_factor, shape), regions(axes, coarse)
    n_cells = int(np.prod(shape))
    total = np.zeros((3, n_replicas, n_cells))
    for pairs in parts:
        cell, seeds = pair_cells(pairs, axes), event_seeds(pairs.event, dataset=dataset)
        for sums, charge in zip(total, (pairs.os, pairs.pp, pairs.mm), strict=True):
            chosen = np.flatnonzero(charge & (cell >= 0))
            place = (np.arange(len(chosen)), cell[chosen])
            matrix = sparse.csr_array((pairs.weight[chosen], place), shape=(len(chosen), n_cells))
            block = max(1, BLOCK // max(len(chosen), 1))
            for start in range(0, n_replicas, block):
                numbers = range(start, min(start + block, n_replicas))
                sums[start : numbers.stop] += replica_weights(seeds[chosen], numbers) @ matrix
    step = max(1, BLOCK // n_cells)
    for start in range(0, n_replicas, step):  # no copies of all of them
        os, pp, mm = total[:, start : start + step]
        f_pp, f_mm = charge_factors(pp, mm, method, region)
        os -= r_cell * (f_pp * pp + f_mm * mm)
    return np.atleast_2d(np.cov(total[0], rowvar=False)).astype(np.float64)


@dataclass(frozen=True, eq=False)
class PairWeights:
    """How pairs are weighted, part by part."""

    # Returns the signed weights of pairs: like-sign pairs count against opposite-sign ones
    sign: Callable[[Pairs], FloatArray]
    axes: tuple[Any, ...]
    shares: FloatArray  # Of signal in the opposite-sign pairs of each cell
    trained: str  # What a density learns from: posterior weights, signed ones, or those of the cells
    why: str = ""  # Why it does not learn from posterior weights; "" if it does

    def of(self, part: Pairs) -> tuple[FloatArray, FloatArray]:
        """Return signed weights, and opposite-sign pairs times the share of signal."""
        share = np.where(part.os, cell_values(part, self.axes, self.shares), 0.0)
        return self.sign(part), part.weight * share


def pair_weights(
    sign: Callable[[Pairs], FloatArray],
    hists: PairHists,
    subtracted: Spectrum,
    *,
    foreign: bool = False,
    signed_only: bool = False,
) -> PairWeights:
    """Return how pairs are to be weighted: with posterior weights where these agree with the subtraction.

    Where they do not, or where signed weights are asked for, signed weights take over, unless something is
    removed that is not in the data, which they cannot hold: then 1 − B/N₊₋ of the cells.

    Parameters
    ----------
    sign : callable
        Returns the signed weights of pairs.
    hists, subtracted : PairHists, Spectrum
        All pairs, and what is left of the opposite-sign ones.
    foreign : bool
        Whether something was removed that is not in the data.
    """
    axes = tuple(hists.os.axes)
    why = "weights = 'signed'"
    if not signed_only:
        shares = signal_shares(hists, subtracted)
        why = disagreement(hists, subtracted, shares)
        if not why:
            return PairWeights(sign, axes, shares, "posterior")
    before, left = flow_free(hists.os)[0], np.clip(subtracted.values.ravel(), 0.0, None)
    shares = divided(left, before)
    total, found = float(subtracted.values.sum()), float(shares @ before)
    shares = shares * (total / found) if total > 0 and found > 0 else shares
    return PairWeights(sign, axes, shares, "cells" if foreign else "signed", why)


def posterior_weights(pairs: Pairs, hists: PairHists, subtracted: Spectrum) -> FloatArray:
    """Return weights of the opposite-sign pairs that are not negative, for training a density.

    Parameters
    ----------
    pairs : Pairs
    hists : PairHists
        Of all pairs, on the axes of `subtracted`.
    subtracted : Spectrum
        What is left of the opposite-sign pairs.

    Returns
    -------
    NDArray, shape (n,)
        Opposite-sign pairs: own weight × share of signal in their cell (`signal_shares`); like-sign pairs,
        and pairs outside the axes: 0.
    """
    share = cell_values(pairs, tuple(hists.os.axes), signal_shares(hists, subtracted))
    return np.where(pairs.os, pairs.weight * share, 0.0)
