"""Weights of pairs: the same-sign subtraction without bins, in any dimension, and its bootstrap."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, PairHists, Spectrum, flow_free
from gammastar.core.sampling import event_seeds, replica_weights
from gammastar.subtract.like_sign import Coarse, Method, charge_factors, checked_r_factor, regions
from gammastar.subtract.posterior import disagreement, signal_shares

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


def pair_cells(pairs: Pairs, axes: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return the cell of every pair."""
    cell = np.zeros(len(pairs), dtype=np.int64)
    inside = np.ones(len(pairs), dtype=np.bool_)
    for axis in axes:
        index = np.asarray(axis.index(_column(pairs, axis.name)), dtype=np.int64)
        inside &= (index >= 0) & (index < len(axis))
        cell = cell * len(axis) + index
    return np.where(inside, cell, -1)


def cell_values(pairs: Pairs, axes: Sequence[Any], values: FloatArray) -> FloatArray:
    """Return the value of the cell of each pair, 0 outside the axes."""
    cell = pair_cells(pairs, axes)
    return np.where(cell >= 0, np.ravel(values)[cell], 0.0)


def event_weights(
    pairs: Pairs,
    axes: Sequence[Any],
    *,
    hists: PairHists | None = None,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> FloatArray:
    """Return one signed weight per pair whose histogram is the subtracted spectrum.

    Opposite-sign pairs carry their own weight, like-sign pairs minus R times the charge factor of their cell
    or region times their own weight.

    Parameters
    ----------
    axes : sequence of hist axes
        Cells of R and, for B1 and B3, of the charge ratio.
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

    def content(mask: npt.NDArray[np.bool_]) -> FloatArray:
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
    method: Method = "B5",
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
        msg = f"bootstrap_covariance: n_replicas = {n_replicas}; a covariance needs at least 2"
        raise UserError(msg)
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
    shares = np.divide(left, before, out=np.zeros_like(left), where=before > 0)
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
