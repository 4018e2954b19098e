"""Cells of equal significance: where positive weights are brought to the sums of signed ones."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray

__all__ = ["Cells", "make_cells"]

IntArray = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """A binary tree of cuts, node 0 at its root; its leaves are the cells.

    Attributes
    ----------
    axis : NDArray of int, shape (n_nodes,)
        Which variable is cut; −1 at a leaf.
    cut : NDArray, shape (n_nodes,)
        Values up to the cut go to the first child.
    child : NDArray of int, shape (n_nodes, 2)
    factor : NDArray, shape (n_nodes,)
        Sum of the signed weights over that of the positive ones; 1 where it is of no use.
    """

    axis: IntArray
    cut: FloatArray
    child: IntArray
    factor: FloatArray

    @property
    def leaves(self) -> BoolArray:
        """Which nodes are cells."""
        return np.asarray(self.axis < 0)

    def place(self, x: FloatArray) -> IntArray:
        """Return the leaf of every point, shape (n,), of `x`, shape (n, n_variables)."""
        node = np.zeros(len(x), dtype=np.int64)
        moving = np.arange(len(x)) if len(self.axis) > 1 else np.arange(0)
        while moving.size:
            at = node[moving]
            above = x[moving, self.axis[at]] > self.cut[at]
            node[moving] = self.child[at, above.astype(np.int64)]
            moving = moving[self.axis[node[moving]] >= 0]
        return node


def make_cells(x: FloatArray, signed: FloatArray, positive: FloatArray, *, error: float) -> Cells:
    """Return cells in which the sum of signed weights is known to a relative error, and their factors.

    Parameters
    ----------
    x : NDArray, shape (n, n_variables)
    signed, positive : NDArray, shape (n,)
        Weights whose sums are wanted, and those that are to have them.
    error : float
        Largest √Σw² / Σw of the signed weights of a cell.

    Returns
    -------
    Cells
        Cut at medians, the variables by turns, while both halves keep to `error`.

    Raises
    ------
    UserError
        If `error` is not positive.

    Notes
    -----
    A k-d tree (Bentley, Comm. ACM 18 (1975) 509) that stops at a significance. Conditional on the cells each
    sum is unbiased, whatever the positive weights are.
    """
    if not error > 0:
        msg = f"make_cells: error = {error!r} of the sum of a cell must be positive"
        raise UserError(msg)
    axis, cut, child, factor = [-1], [0.0], [(0, 0)], [1.0]
    waiting = [(0, np.arange(len(x)), 0)]
    while waiting:
        node, inside, turn = waiting.pop()
        factor[node] = _ratio(signed[inside], positive[inside])
        for step in range(x.shape[1]):
            k = (turn + step) % x.shape[1]
            middle = float(np.median(x[inside, k])) if len(inside) else 0.0
            low = x[inside, k] <= middle
            halves = inside[low], inside[~low]
            if all(_known(signed[half], error) for half in halves):
                axis[node], cut[node], child[node] = k, middle, (len(axis), len(axis) + 1)
                for half in halves:
                    waiting.append((len(axis), half, k + 1))
                    axis.append(-1)
                    cut.append(0.0)
                    child.append((0, 0))
                    factor.append(1.0)
                break
    return Cells(np.array(axis), np.array(cut), np.array(child), np.array(factor))


def _known(weight: FloatArray, error: float) -> bool:
    total = float(weight.sum())
    return total > 0 and float(np.sqrt(np.sum(weight**2))) <= error * total


def _ratio(signed: FloatArray, positive: FloatArray) -> float:
    wanted, found = float(signed.sum()), float(positive.sum())
    return wanted / found if wanted > 0 and found > 0 else 1.0
