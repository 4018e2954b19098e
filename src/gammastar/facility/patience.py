"""How long workers are waited for: the limits, and who is stuck."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field

__all__ = ["Clock", "Idle", "Patience", "Times"]

ENOUGH = 3  # finished tasks whose median says something
LONGEST_STEP = 5.0  # s between two looks; more means that this process was stopped itself


@dataclass(frozen=True)
class Patience:
    """Limits in seconds. Whoever computes is never stuck, however long its task takes.

    Attributes
    ----------
    start : float
        For a scheduler and its first worker to answer when a run begins.
    silence : float
        A stopped process, a Dask worker without heartbeat, a scheduler that does not answer: for so long.
    factor : float
        A task is given to somebody else when its worker has not computed for `factor` times the median
        time of the finished tasks, and not before `silence`.
    unknown : float
        The same while fewer than three tasks are finished; and how long no worker at all may be there.

    Examples
    --------
    >>> Patience().limit([1.0, 2.0, 30.0]), Patience().limit([20.0] * 3), Patience().limit([])
    (60.0, 200.0, 600.0)
    """

    start: float = 60.0
    silence: float = 60.0
    factor: float = 10.0
    unknown: float = 600.0

    def limit(self, seconds: deque[float] | list[float], attempt: int = 0) -> float:
        """Return how long a worker may rest on a task; every further attempt has twice the time."""
        known = self.factor * statistics.median(seconds) if len(seconds) >= ENOUGH else self.unknown
        return float(max(self.silence, known) * 2**attempt)


@dataclass
class Times:
    """Seconds that the finished tasks of a kind took, and the attempt that runs."""

    seconds: deque[float] = field(default_factory=lambda: deque(maxlen=1000))
    attempt: int = 0


class Clock:
    """Seconds during which this process was awake: a run that is stopped itself suspects nobody."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self.now = 0.0

    def tick(self) -> float:
        """Return the time now."""
        last, self._last = self._last, time.monotonic()
        self.now += min(self._last - last, LONGEST_STEP)
        return self.now


class Idle:
    """For how long a worker has shown the same and nothing else."""

    def __init__(self) -> None:
        self._seen: dict[Hashable, tuple[Hashable, float]] = {}

    def seconds(self, worker: Hashable, sign: Hashable, now: float) -> float:
        """Return since when the worker has given this sign; None is one of life."""
        known = self._seen.get(worker)
        if sign is None or known is None or known[0] != sign:
            self._seen[worker] = (sign, now)
            return 0.0
        return now - known[1]
