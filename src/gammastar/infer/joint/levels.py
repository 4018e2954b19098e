"""Limits of the joint likelihood in events of the search, over masses and couplings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray, Limit

__all__ = ["LARGEST", "JointLevels", "couplings_of", "levels_over"]

LARGEST = 1e12
"""Events that stand for no limit at all."""
LEAST = 0.3  # events below which a coupling is of no interest


@dataclass(frozen=True, slots=True, eq=False)
class JointLevels:
    """Limits over a plane of n masses and k couplings.

    Attributes
    ----------
    observed : NDArray, shape (n, k)
        Events; nan while masked.
    expected : NDArray, shape (n, k, 5)
    typical : Limit
        In the middle of the plane, with the method.
    """

    observed: FloatArray
    expected: FloatArray
    typical: Limit


def couplings_of(signal: FloatArray, n: int) -> npt.NDArray[np.intp]:
    """Return the places of at most n couplings at which a limit is worth its time.

    Parameters
    ----------
    signal : NDArray, shape (k,)
        Expected events over the couplings.
    n : int

    Examples
    --------
    >>> couplings_of(np.array([0.0, 0.1, 1.0, 10.0, 3.0, 0.1]), 2)
    array([2, 4])
    """
    if not signal.any():
        return np.zeros(0, dtype=np.intp)
    here = np.flatnonzero(signal >= LEAST)
    if not here.size:
        return np.array([signal.argmax()])
    return np.unique(np.rint(np.linspace(here[0], here[-1], n)).astype(np.intp))


def levels_over(
    signal: FloatArray, places: Sequence[npt.NDArray[np.intp]], limit: Callable[[int, int], Limit]
) -> JointLevels:
    """Return limits over a plane from those on μ at some couplings of each mass.

    Parameters
    ----------
    signal : NDArray, shape (n, k)
        Expected events at μ = 1.
    places : sequence of NDArray of int
        Of couplings, for each mass.
    limit : callable
        (mass, coupling) -> limit on μ there.

    Notes
    -----
    A limit on μ times the signal is one in events. It changes with the coupling as the cells of the search
    do; its logarithm is straight between the couplings, constant beyond, in the number of the coupling.
    """
    n, k = signal.shape
    values = np.full((n, k, 6), LARGEST)
    found: list[Limit] = []
    for row, columns in enumerate(places):
        if not len(columns):
            continue
        limits = [limit(row, int(column)) for column in columns]
        found += limits
        events = np.array([[x.observed, *x.expected] for x in limits]) * signal[row, columns, None]
        logs = np.log(np.clip(np.nan_to_num(events, nan=LARGEST, posinf=LARGEST), 1e-12, LARGEST))
        for j in range(6):
            values[row, :, j] = np.exp(np.interp(np.arange(k), columns, logs[:, j]))
    masked = not found or not np.isfinite([x.observed for x in found]).any()
    observed = np.full((n, k), np.nan) if masked else values[..., 0]
    return JointLevels(observed, values[..., 1:], _typical(found, values, signal))


def _typical(found: Sequence[Limit], values: FloatArray, signal: FloatArray) -> Limit:
    """Return the limit in events where the signal is farthest above it."""
    row, column = np.unravel_index(int(np.argmax(signal / values[..., 3])), signal.shape)
    seen, expected = values[row, column, 0], values[row, column, 1:]
    if not found:
        return Limit(np.nan, np.full(5, LARGEST), 0.9, "no signal in any cell", 0.0)
    methods = list(dict.fromkeys(x.method for x in found))
    relative = [x.mc_error / x.expected[2] for x in found if np.isfinite(x.expected[2]) and x.expected[2] > 0]
    error = float(np.median(relative or [0.0]) * expected[2])
    masked = not np.isfinite([x.observed for x in found]).any()
    return Limit(
        np.nan if masked else float(seen), expected, found[0].cl, f"joint: {' or '.join(methods)}", error
    )
