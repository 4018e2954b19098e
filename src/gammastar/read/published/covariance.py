"""The covariance that a record holds for one of its tables."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray
from gammastar.read.published.table import Column, PublishedTable, TableAxis, energy_power, refused

SAME = 1e-9  # relative: edges and elements that differ by less are equal


def record_covariance(table: PublishedTable, column: Column) -> FloatArray | None:
    """Return the covariance of a column in its own unit, shape (n, n); None if the record holds none.

    It stands in the table of this name with ", covariance" behind it: two axes with the bins of this one, a
    row for every pair of bins, and a column called "Covariance of" and the name of the column.
    """
    other = table.covariance
    wanted = f"covariance of {column.name}".casefold()
    found = [] if other is None else [one for one in other.columns if one.name.casefold() == wanted]
    if other is None or not found:
        return None
    n = len(table)
    if len(table.axes) != 1 or len(other.axes) != 2 or len(other) != n * n:
        text = (
            f"{len(other.axes)} axes and {len(other)} rows; a table of {n} bins needs 2 axes and {n * n} rows"
        )
        raise refused(other, text)
    (size, power), (squared, twice) = energy_power(column.unit), energy_power(found[0].unit)
    if twice != 2 * power:
        text = f"unit {found[0].unit!r} is not the square of {column.unit!r}"
        raise refused(other, text)
    row, at = (_places(table, other, axis) for axis in other.axes)
    cov = np.full((n, n), np.nan)
    cov[row, at] = found[0].values * squared / size**2
    if not np.isfinite(cov).all():
        i, k = np.argwhere(~np.isfinite(cov))[0]
        raise refused(other, f"nothing stands for {table.bin_name(int(i))} with {table.bin_name(int(k))}")
    scale = np.sqrt(np.clip(np.outer(np.diag(cov), np.diag(cov)), 0.0, None))
    if (np.abs(cov - cov.T) > SAME * scale).any() or (np.abs(cov) > (1 + SAME) * scale).any():
        raise refused(other, "is no covariance: not symmetric, or larger off its diagonal than on it")
    return np.asarray((cov + cov.T) / 2)


def _places(table: PublishedTable, other: PublishedTable, axis: TableAxis) -> npt.NDArray[np.int64]:
    """Return the bin of the table in which each row of an axis of its covariance lies."""
    own = table.axes[0]
    factor = energy_power(axis.unit)[0] / energy_power(own.unit)[0]
    low, high = axis.low[:, None] * factor, axis.high[:, None] * factor
    same = np.isclose(low, own.low, rtol=SAME, atol=0.0) & np.isclose(high, own.high, rtol=SAME, atol=0.0)
    for row in np.flatnonzero(same.sum(axis=1) != 1):
        raise refused(other, f"{other.bin_name(int(row))}: no bin of table {table.name!r} has these edges")
    return np.asarray(same.argmax(axis=1))
