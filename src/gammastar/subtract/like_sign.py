"""Combinatorial background from same-sign pairs, with its full covariance."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, PairHists, Spectrum, filled, flow_free

Method: TypeAlias = Literal["B1", "B2", "B3", "B5"]
Coarse: TypeAlias = Mapping[str, Sequence[float]]
IntArray: TypeAlias = npt.NDArray[np.int64]

METHODS = ("B1", "B2", "B3", "B5")
LOW_COUNT = 5.0  # per charge; below it the mean of sqrt(N++ N--) is more than 5 % too small
LOW_FRACTION = 0.05


class LowCountWarning(UserWarning):
    """The same-sign background rests on cells with too few pairs to form their charge ratio."""


def regions(axes: Sequence[Any], coarse: Coarse | None = None) -> IntArray:
    """Return the coarse region of every cell, where B5 takes its charge ratio."""
    shape = tuple(len(axis) for axis in axes)
    label = np.zeros(shape, dtype=np.int64)
    coarse = coarse or {}
    names = [axis.name for axis in axes]
    for name, edges in coarse.items():
        if name not in names:
            msg = f"coarse: there is no axis {name!r}; the pair histograms have {names}"
            raise UserError(msg)
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
    pp: FloatArray, mm: FloatArray, method: Method, region: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the factors f of a background B = R (f₊₊ N₊₊ + f₋₋ N₋₋)."""
    if method == "B2":
        return np.ones_like(pp), np.ones_like(mm)
    if method == "B5":
        member = np.eye(int(region.max(initial=0)) + 1)[region]
        pp, mm = (pp @ member)[..., region], (mm @ member)[..., region]
    both = (pp > 0) & (mm > 0)
    ratio = np.sqrt(np.divide(mm, pp, out=np.ones_like(pp), where=both))
    if method == "B5":
        return ratio, 1 / ratio
    return np.where(both, ratio, 0.0), np.where(both, 1 / ratio, 0.0)


def background(
    hists: PairHists, *, method: Method, r_factor: FloatArray, region: IntArray
) -> tuple[FloatArray, FloatArray]:
    """Return the background and its statistical covariance.

    Notes
    -----
    With a = N₊₊, c = N₋₋, w = √(C/A) of the sums over a region and d = R (w a − c/w), linear propagation of
    B = R (w a + c/w) gives ∂B_i/∂a_j = R_i w δ_ij − d_i/2A and ∂B_i/∂c_j = R_i δ_ij/w + d_i/2C: besides the
    diagonal R² (w² a + c/w²) a term that is fully correlated within the region, from its charge ratio.
    Per cell (B1, B3) d is zero and Var B = R² (a + c).
    """
    (pp, var_pp), (mm, var_mm) = flow_free(hists.pp), flow_free(hists.mm)
    f_pp, f_mm = charge_factors(pp, mm, method, region)
    value = r_factor * (f_pp * pp + f_mm * mm)
    if method != "B5":
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


def low_count_fraction(hists: PairHists, *, method: Method = "B5", coarse: Coarse | None = None) -> float:
    """Return the fraction of the background that rests on fewer than 5 pairs of one charge.

    Counts are taken where the estimate forms its charge ratio: in the cell for B1 and B3, in the coarse
    region for B5; B2 forms none and is unbiased at any count. Weighted cells count (Σw)²/Σw².
    """
    (pp, var_pp), (mm, var_mm) = flow_free(hists.pp), flow_free(hists.mm)
    if method == "B2":
        return 0.0
    region = regions(hists.os.axes, coarse) if method == "B5" else np.arange(len(pp))
    n = int(region.max(initial=0)) + 1
    counts = []
    for value, variance in ((pp, var_pp), (mm, var_mm)):
        total, square = np.bincount(region, value, n), np.bincount(region, variance, n)
        counts.append(np.divide(total**2, square, out=np.zeros(n), where=square > 0))
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
        msg = f"{name} must be finite and not negative; its smallest value is {result.min()}"
        raise UserError(msg)
    return result


def checked_r_factor(method: Method, r_factor: float | FloatArray, shape: tuple[int, ...]) -> FloatArray:
    """Return R per cell, shape (n_cells,); refuse an unknown method, and R where the estimate has none."""
    if method not in METHODS:
        msg = f"subtract: method {method!r} is unknown; choose one of {', '.join(METHODS)}"
        raise UserError(msg)
    result = _per_cell("r_factor", r_factor, shape)
    if method in ("B1", "B2") and (result != 1).any():
        msg = f"subtract: method {method!r} takes no r_factor; use 'B3' (per cell) or 'B5'"
        raise UserError(msg)
    return result


def same_sign(
    hists: PairHists,
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    r_factor_sigma: float | FloatArray = 0.0,
    coarse: Coarse | None = None,
) -> Spectrum:
    """Subtract the combinatorial background from the opposite-sign pairs.

    Parameters
    ----------
    hists : PairHists
        Opposite-sign, ++ and -- pairs; like-sign pairs are unordered.
    method : {"B5", "B1", "B2", "B3"}
        B1: 2√(N₊₊N₋₋) per cell. B2: N₊₊ + N₋₋. B3: 2R√(N₊₊N₋₋) per cell.
        B5: R (w N₊₊ + N₋₋/w), w = √(ΣN₋₋/ΣN₊₊) over a coarse region; unbiased at any occupancy of the cells.
    r_factor : float or NDArray, shape of the cells
        R: ratio of the combinatorial opposite-sign pairs to 2√(N₊₊N₋₋), from acceptance (event mixing) times
        multiplicity. Mixing alone does not see the multiplicity part, which departs from 1 where leptons of
        one event do not follow a Poisson law.
    r_factor_sigma : float or NDArray, shape of the cells
        Absolute uncertainty of R, fully correlated between cells.
    coarse : mapping of axis name to edges, optional
        Coarse grid of the charge ratio of B5; see `regions`.

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
    >>> result = same_sign(PairHists(os, pp, mm), method="B1")
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
        where = "coarse regions" if method == "B5" else "cells"
        cure = "widen `coarse`" if method == "B5" else "use method 'B5' or wider cells"
        warnings.warn(
            f"{low:.0%} of the same-sign background lies in {where} with fewer than {LOW_COUNT:.0f} pairs of"
            f" one charge, where 2√(N++ N--) is biased low; {cure}",
            LowCountWarning,
            stacklevel=2,
        )
    hist = filled(tuple(hists.os.axes), os - size, np.diag(cov))
    return Spectrum(hist, cov, "counts", None, (os > 0).reshape(shape))
