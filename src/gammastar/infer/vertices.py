"""Numerical errors of the edges of a reach: of the signal's sample, of the limit, of interpolation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Reach
from gammastar.infer.reach import reach

__all__ = ["with_errors"]

Grid: TypeAlias = tuple[Any, Any, FloatArray, Any]


def with_errors(
    found: Reach,
    mass: npt.ArrayLike,
    coupling: npt.ArrayLike,
    signal: npt.ArrayLike,
    limit: npt.ArrayLike,
    *,
    signal_error: npt.ArrayLike = 0.0,
    limit_error: float = 0.0,
    method: str = "",
    **scan: Any,
) -> Reach:
    """Return a reach with the numerical errors of its edges and the method of its limit.

    Parameters
    ----------
    found : Reach
        From `reach` with the arguments that follow.
    mass, coupling, signal, limit : array_like
        As given to `reach`; a grid of yields, shape (n, k).
    signal_error : array_like, shape (n, k) or ()
        Standard deviation of the yields from their finite sample [events].
    limit_error : float
        Monte Carlo error of the limit over the limit (0 for exact methods).
    method : str
        Of the limit.
    **scan
        ``reliable`` and ``threshold`` of `reach`.

    Returns
    -------
    Reach
        With `Reach.errors` (entries, 2, 3) in decades of the coupling and `Reach.method`; nan where the scan
        ends before the contour does.

    Raises
    ------
    PhysicsError
        For errors that are negative or not finite.

    Notes
    -----
    An error of the yield or of the limit moves the level; the edges are found anew one standard deviation up
    and down, so that the flattening towards the tip is in them. Where the weaker signal does not reach the
    limit at all, the edge may be anywhere up to the peak: the whole half-width counts. Interpolation: half
    the change when every other coupling of the scan is left out, the largest of an entry and its neighbours,
    because the change of a single one may vanish by chance. The interpolation is of third order, so that this
    is an upper estimate on average.

    Examples
    --------
    >>> g = np.geomspace(1e-8, 1e-6, 41)
    >>> found = reach([0.3, 0.4], g, [1e28 * g**4] * 2, 2.3)  # ln N rises by four per ln g
    >>> done = with_errors(found, [0.3, 0.4], g, [1e28 * g**4] * 2, 2.3, limit_error=0.04)
    >>> float(done.errors[0, 0, 1].round(5))  # 0.04 / (4 ln 10)
    0.00434
    """
    values = np.asarray(signal, dtype=np.float64)
    relative = np.divide(
        np.broadcast_to(np.asarray(signal_error, dtype=np.float64), values.shape),
        values,
        out=np.zeros_like(values),
        where=values > 0,
    )
    if not (
        np.all(np.isfinite(relative) & (relative >= 0)) and np.isfinite(limit_error) and limit_error >= 0
    ):
        msg = "with_errors: errors of yields and limits must be finite and not negative"
        raise PhysicsError(msg)
    errors = np.stack(
        [
            _moved(found, (mass, coupling, values, limit), np.minimum(relative, 1.0), scan),
            _moved(found, (mass, coupling, values, limit), np.full_like(values, limit_error), scan),
            _coarser(found, (mass, coupling, values, limit), scan),
        ],
        axis=2,
    )
    for k, side in enumerate(("lower", "upper")):  # the end of a scan is no edge of a contour
        errors[[side in entry.split(", ") for entry in found.clipped_side], k] = np.nan
    names = tuple(method if np.isfinite(edge[0]) else "" for edge in found.edges)
    return replace(found, errors=errors, method=names)


def _moved(found: Reach, grid: Grid, relative: FloatArray, scan: Mapping[str, Any]) -> FloatArray:
    """Return half the distance of the edges at a signal one standard deviation up and down [decades]."""
    if not relative.any():
        return np.where(np.isfinite(found.edges), 0.0, np.nan)
    mass, coupling, values, limit = grid
    up, down = (
        _edges_like(found, reach(mass, coupling, values * factor, limit, **scan))
        for factor in (np.exp(relative), np.exp(-relative))
    )
    middle = np.exp(np.log(found.edges).mean(axis=1))[:, None]
    down = np.where(np.isfinite(down), down, middle)
    up = np.where(np.isfinite(up), up, found.edges)
    shifts = np.abs(np.log10(np.stack([up, down]) / found.edges))
    lost = ~np.isfinite(found.edges)
    return np.where(lost, np.nan, np.maximum(0.5 * shifts.sum(axis=0), 0.0))


def _coarser(found: Reach, grid: Grid, scan: Mapping[str, Any]) -> FloatArray:
    """Return half the shift of the edges when every other coupling is left out [decades]."""
    mass, coupling, values, limit = grid
    points = np.asarray(coupling, dtype=np.float64)
    if len(points) < 8:
        return np.full(found.edges.shape, np.nan)
    kept = np.arange(len(points) % 2 == 0, len(points), 2)  # the last coupling stays
    options = dict(scan)
    if options.get("reliable") is not None:
        options["reliable"] = np.asarray(options["reliable"])[:, kept]
    levels = np.asarray(limit, dtype=np.float64)
    levels = levels[:, kept] if levels.ndim == 2 else levels
    other = _edges_like(found, reach(mass, points[kept], values[:, kept], levels, **options))
    shift = np.abs(np.log10(other / found.edges)) / 2.0
    spacing = float(np.log10(points[1] / points[0]))
    reached = np.isfinite(found.edges)
    for k, side in enumerate(("lower", "upper")):
        reached[[side in entry.split(", ") for entry in found.clipped_side], k] = False
    shift = np.where(reached, shift, 0.0)
    shift = np.where(np.isfinite(shift), np.minimum(shift, spacing), np.where(reached, spacing, 0.0))
    padded = np.pad(shift, ((1, 1), (0, 0)))
    shift = np.maximum.reduce([padded[:-2], padded[1:-1], padded[2:]])
    return np.where(np.isfinite(found.edges), shift, np.nan)


def _edges_like(found: Reach, other: Reach) -> FloatArray:
    """Return the edges of another reach for the entries of the first, by overlap; nan where there is none."""
    result = np.full(found.edges.shape, np.nan)
    for i, mass in enumerate(found.mass):
        rivals = other.edges[(other.mass == mass) & np.isfinite(other.edges[:, 0])]
        if not len(rivals) or not np.isfinite(found.edges[i, 0]):
            continue
        common = np.minimum(found.edges[i, 1], rivals[:, 1]) / np.maximum(found.edges[i, 0], rivals[:, 0])
        if common.max() > 1.0:
            result[i] = rivals[int(np.argmax(common))]
    return result
