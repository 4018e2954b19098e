"""Signed event weights: the same-sign subtraction without bins, in any dimension."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import sparse

from gammastar.core.axes import flow_free
from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import FloatArray, PairHists
from gammastar.subtract.replicas import event_seeds, replica_weights
from gammastar.subtract.same_sign import Coarse, Method, charge_factors, checked_r_factor, regions

__all__ = ["bootstrap_covariance", "chunk_weights", "chunked_bootstrap", "event_weights", "pair_cells"]

BLOCK = 2**24  # Poisson numbers held at once by the bootstrap (128 MB)


def _column(pairs: Pairs, name: str) -> FloatArray:
    if name in ("mass", "pt", "energy"):
        return np.asarray(getattr(pairs, name), dtype=np.float64)
    if name not in pairs.columns:
        msg = f"the pairs have no column {name!r}; they have mass, pt, energy, {', '.join(pairs.columns)}"
        raise UserError(msg)
    return np.asarray(pairs.columns[name], dtype=np.float64)


def pair_cells(pairs: Pairs, axes: Sequence[Any]) -> npt.NDArray[np.int64]:
    """Return the cell of every pair.

    Parameters
    ----------
    pairs : Pairs
    axes : sequence of hist axes
        Named as the columns of `pairs`.

    Returns
    -------
    NDArray of int, shape (n_pairs,)
        Cell number in C order, -1 outside the axes.

    Raises
    ------
    UserError
        If `pairs` has no column of an axis' name.
    """
    cell = np.zeros(len(pairs), dtype=np.int64)
    inside = np.ones(len(pairs), dtype=np.bool_)
    for axis in axes:
        index = np.asarray(axis.index(_column(pairs, axis.name)), dtype=np.int64)
        inside &= (index >= 0) & (index < len(axis))
        cell = cell * len(axis) + index
    return np.where(inside, cell, -1)


def event_weights(
    pairs: Pairs,
    axes: Sequence[Any],
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> FloatArray:
    """Return one signed weight per pair whose histogram is the subtracted spectrum.

    Opposite-sign pairs carry their own weight, like-sign pairs minus R times the charge factor of their cell
    or region times their own weight.

    Parameters
    ----------
    pairs : Pairs
    axes : sequence of hist axes
        Cells of R and, for B1 and B3, of the charge ratio.
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
    n = int(np.prod([len(axis) for axis in axes]))

    def content(mask: npt.NDArray[np.bool_]) -> FloatArray:
        chosen = mask & (cell >= 0)
        return np.bincount(cell[chosen], pairs.weight[chosen], n).astype(np.float64)

    return _weighted(pairs, axes, cell, (content(pairs.pp), content(pairs.mm)), method, r_factor, coarse)


def chunk_weights(
    pairs: Pairs,
    hists: PairHists,
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> FloatArray:
    """Return the signed weights of one chunk of pairs, with the charge ratio of all of them.

    Parameters
    ----------
    pairs : Pairs
        A part of the pairs.
    hists : PairHists
        Filled with all pairs, chunk after chunk.
    method, r_factor, coarse
        As for `same_sign`.

    Returns
    -------
    NDArray, shape (n_pairs,)
        The weights that `event_weights` gives for all pairs at once.
    """
    axes = tuple(hists.os.axes)
    like = (flow_free(hists.pp)[0], flow_free(hists.mm)[0])
    return _weighted(pairs, axes, pair_cells(pairs, axes), like, method, r_factor, coarse)


def _weighted(
    pairs: Pairs,
    axes: tuple[Any, ...],
    cell: npt.NDArray[np.int64],
    like: tuple[FloatArray, FloatArray],
    method: Method,
    r_factor: float | FloatArray,
    coarse: Coarse | None,
) -> FloatArray:
    r_cell = checked_r_factor(method, r_factor, tuple(len(axis) for axis in axes))
    f_pp, f_mm = charge_factors(*like, method, regions(axes, coarse))
    factor = np.where(pairs.pp, -(r_cell * f_pp)[cell], np.where(pairs.mm, -(r_cell * f_mm)[cell], 1.0))
    return np.where(cell >= 0, factor * pairs.weight, 0.0)


def _check_replicas(caller: str, n_replicas: int) -> None:
    if n_replicas < 2:
        msg = f"{caller}: n_replicas = {n_replicas}; a covariance needs at least 2"
        raise UserError(msg)


def bootstrap_covariance(
    pairs: Pairs,
    axes: Sequence[Any],
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
    n_replicas: int = 200,
    rng: np.random.Generator,
) -> FloatArray:
    """Return the covariance of the subtracted spectrum from a bootstrap of events.

    Each replica gives every event one Poisson(1) weight for all its pairs, so that cells which share singles
    come out correlated.

    Parameters
    ----------
    pairs : Pairs
    axes : sequence of hist axes
    method, r_factor, coarse
        As for `same_sign`.
    n_replicas : int
    rng : numpy.random.Generator

    Returns
    -------
    NDArray, shape (n_cells, n_cells)

    Raises
    ------
    UserError
        If fewer than two replicas are asked for.
    """
    _check_replicas("bootstrap_covariance", n_replicas)
    axes = tuple(axes)
    shape = tuple(len(axis) for axis in axes)
    r_cell = checked_r_factor(method, r_factor, shape)
    region = regions(axes, coarse)
    cell = pair_cells(pairs, axes)
    _, event = np.unique(pairs.event, return_inverse=True)
    n_events = int(event.max(initial=-1)) + 1
    n_cells = int(np.prod(shape))
    filling = []
    for charge in (pairs.os, pairs.pp, pairs.mm):
        chosen = charge & (cell >= 0)
        place = (event[chosen], cell[chosen])
        filling.append(sparse.csr_array((pairs.weight[chosen], place), shape=(n_events, n_cells)))
    block = max(1, BLOCK // max(n_events, 1))
    replicas = []
    for start in range(0, n_replicas, block):
        draw = rng.poisson(1.0, (min(block, n_replicas - start), n_events)).astype(np.float64)
        os, pp, mm = (np.asarray(draw @ matrix) for matrix in filling)
        f_pp, f_mm = charge_factors(pp, mm, method, region)
        replicas.append(os - r_cell * (f_pp * pp + f_mm * mm))
    return np.atleast_2d(np.cov(np.concatenate(replicas), rowvar=False)).astype(np.float64)


def chunked_bootstrap(
    chunks: Iterable[Pairs],
    axes: Sequence[Any],
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
    n_replicas: int = 200,
    dataset: str = "",
) -> FloatArray:
    """Return the covariance of `bootstrap_covariance` with one chunk of pairs in memory at a time.

    Parameters
    ----------
    chunks : iterable of Pairs
    axes, method, r_factor, coarse, n_replicas
        As for `bootstrap_covariance`.
    dataset : str
        Of the hash (dataset, event) that gives an event its Poisson(1) weights, wherever its pairs are.

    Returns
    -------
    NDArray, shape (n_cells, n_cells)

    Raises
    ------
    UserError
        If fewer than two replicas are asked for.
    """
    _check_replicas("chunked_bootstrap", n_replicas)
    axes = tuple(axes)
    shape = tuple(len(axis) for axis in axes)
    r_cell, region = checked_r_factor(method, r_factor, shape), regions(axes, coarse)
    n_cells = int(np.prod(shape))
    total = np.zeros((3, n_replicas, n_cells))
    for pairs in chunks:
        cell, seeds = pair_cells(pairs, axes), event_seeds(pairs.event, dataset=dataset)
        for sums, charge in zip(total, (pairs.os, pairs.pp, pairs.mm), strict=True):
            chosen = np.flatnonzero(charge & (cell >= 0))
            place = (np.arange(len(chosen)), cell[chosen])
            matrix = sparse.csr_array((pairs.weight[chosen], place), shape=(len(chosen), n_cells))
            block = max(1, BLOCK // max(len(chosen), 1))
            for start in range(0, n_replicas, block):
                numbers = range(start, min(start + block, n_replicas))
                sums[start : numbers.stop] += replica_weights(seeds[chosen], numbers) @ matrix
    os, pp, mm = total
    f_pp, f_mm = charge_factors(pp, mm, method, region)
    found = os - r_cell * (f_pp * pp + f_mm * mm)
    return np.atleast_2d(np.cov(found, rowvar=False)).astype(np.float64)
