"""Limits of the joint likelihood in events of the search, over masses and couplings."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gammastar.core.records import FloatArray, Limit
from gammastar.infer.impacts import Ranking

LARGEST = 1e12
"""Events that stand for no limit at all."""
LEAST = 0.3  # events below which a coupling is of no interest


@dataclass(frozen=True, slots=True, eq=False)
class JointLevels:
    """Limits over a plane of n masses and k couplings."""

    observed: FloatArray  # Events; nan while masked, shape (n, k)
    expected: FloatArray  # shape (n, k, 5)
    typical: Limit  # In the middle of the plane, with the method
    # Events of a median discovery by its significance, shape (n, k)
    discovery: Mapping[float, FloatArray] = field(default_factory=dict)
    # Events at the present exposure that are the median limit of another one, by this exposure, shape (n, k)
    projections: Mapping[float, FloatArray] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)  # How "discovery" and "projection" were found
    # (mass, coupling, d ln N/d ln g) -> pulls and impacts there; None where there is no limit
    ranked: Callable[[int, int, float], Ranking | None] | None = None


def couplings_of(signal: FloatArray, n: int) -> npt.NDArray[np.intp]:
    """Return the places of at most n couplings at which a limit is worth its time."""
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

    Notes
    -----
    A limit on μ times the signal is one in events. It changes with the coupling as the cells of the search
    do; its logarithm is straight between the couplings, constant beyond, in the number of the coupling.
    """
    found: list[Limit] = []

    def both(row: int, column: int) -> list[float]:
        found.append(limit(row, column))
        return [found[-1].observed, *found[-1].expected.tolist()]

    values = events_over(signal, places, both)
    if not found:
        values = np.full((*signal.shape, 6), LARGEST)
    masked = not found or not np.isfinite([x.observed for x in found]).any()
    observed = np.full(signal.shape, np.nan) if masked else values[..., 0]
    return JointLevels(observed, values[..., 1:], _typical(found, values, signal))


def events_over(
    signal: FloatArray,
    places: Sequence[npt.NDArray[np.intp]],
    strengths: Callable[[int, int], Sequence[float]],
) -> FloatArray:
    """Return strengths at some couplings of each mass as events over a plane, shape (n, k, strengths)."""
    n, k = signal.shape
    known = {
        row: np.array([strengths(row, int(column)) for column in columns]) * signal[row, columns, None]
        for row, columns in enumerate(places)
        if len(columns)
    }
    values = np.full((n, k, next((x.shape[1] for x in known.values()), 1)), LARGEST)
    for row, events in known.items():
        logs = np.log(np.clip(np.nan_to_num(events, nan=LARGEST, posinf=LARGEST), 1e-12, LARGEST))
        for j in range(events.shape[1]):
            values[row, :, j] = np.exp(np.interp(np.arange(k), places[row], logs[:, j]))
    return values


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
