"""Pseudo-events of single tracks that a downscaled trigger recorded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray


@dataclass(frozen=True, slots=True, eq=False)
class RandomPairs:
    """Pseudo-events of two single tracks.

    Attributes
    ----------
    first, second : NDArray of int, shape (n,)
        Indices of the positive and the negative track.
    weight : NDArray, shape (n,)
        Expected events per pseudo-event.
    """

    first: npt.NDArray[np.int64]
    second: npt.NDArray[np.int64]
    weight: FloatArray

    def expected(self, passed: npt.NDArray[np.bool_]) -> tuple[float, float]:
        """Return the expected events among those that pass, and the statistical error.

        Tracks are used again in many pairs, so the error counts each track once: the two terms are the
        variances over the positive and over the negative tracks.

        Parameters
        ----------
        passed : NDArray of bool, shape (n,)
            Which of the pairs.
        """
        weight = np.where(passed, self.weight, 0.0)
        total = float(weight.sum())
        square = 0.0
        for index in (self.first, self.second):
            if index.size:
                square += float(np.sum(np.bincount(index, weight) ** 2))
        return total, float(np.sqrt(square))


def accidental_rate(
    n_positive: float, n_negative: float, *, window: float, live_time: float, downscaling: float
) -> float:
    """Return the expected random pairs inside a coincidence window.

    Parameters
    ----------
    n_positive, n_negative : float
        Single tracks recorded by a trigger that keeps one event in `downscaling`.
    window : float
        Half-width of the coincidence: |t₁ − t₂| < window [s].
    live_time : float
        Time with beam [s].

    Notes
    -----
    N = (D N₊)(D N₋) 2w/T for tracks that come at random in time.
    """
    for name, value in (("window", window), ("live_time", live_time)):
        if not (np.isfinite(value) and value > 0):
            raise PhysicsError(f"random pairs: {name} = {value!r} must be positive")
    require(downscaling >= 1, f"random pairs: downscaling = {downscaling!r} must be at least one")
    return float(downscaling**2 * n_positive * n_negative * 2 * window / live_time)


def random_pairs(
    charge: npt.NDArray[np.int8],
    *,
    window: float,
    live_time: float,
    downscaling: float,
    n_max: int,
    rng: np.random.Generator,
) -> RandomPairs:
    """Pair single tracks of opposite charge at random.

    Parameters
    ----------
    charge : NDArray of int, shape (n,)
        +1 or −1 of each single-track event.
    window, live_time, downscaling
        As in `accidental_rate`; the tracks themselves need not be close in time, the weight says how often
        they would be.
    n_max : int
        Pairs to make at most; all of them if there are not more.

    Notes
    -----
    Every pair stands for D² 2w/T events: the time window and the downscaling of NA62, arXiv:2312.12055,
    section IV. If only `n_max` of the pairs are made, their weight grows accordingly.
    """
    positive, negative = np.flatnonzero(charge > 0), np.flatnonzero(charge < 0)
    total = len(positive) * len(negative)
    expected = accidental_rate(
        len(positive), len(negative), window=window, live_time=live_time, downscaling=downscaling
    )
    if total == 0:
        empty = np.zeros(0, dtype=np.int64)
        return RandomPairs(empty, empty, np.zeros(0))
    n = min(total, n_max)
    code = np.arange(total) if n == total else rng.integers(total, size=n)
    return RandomPairs(
        positive[code // len(negative)], negative[code % len(negative)], np.full(n, expected / n)
    )
