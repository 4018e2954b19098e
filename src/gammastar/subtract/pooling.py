"""A mixing pool of leptons that come chunk by chunk and are too many to hold."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray
from gammastar.subtract.mixed_event import MOST, Pool
from gammastar.subtract.replicas import SeedArray, event_seeds

__all__ = ["Leptons", "streamed_pool"]

IntArray: TypeAlias = npt.NDArray[np.int64]
Leptons: TypeAlias = tuple[FloatArray, npt.NDArray[np.int8], IntArray, IntArray]


def streamed_pool(chunks: Iterable[Leptons], *, dataset: str = "", most: int = MOST) -> Pool:
    """Return a pool of at most `most` leptons of each class, holding twice that and one chunk at most.

    Parameters
    ----------
    chunks : iterable of (momentum, charge, event, group)
        As from ``select.singles``; whole events, which no two chunks share.
    dataset : str
        Of the hash that orders the events.
    most : int
        Leptons of one class.

    Returns
    -------
    Pool
        Of each class the events of smallest hash that fit into `most`, ordered by their hash. Its `share`
        holds which part of the events of the class that is.

    Raises
    ------
    UserError
        If `most` is not positive.

    Notes
    -----
    The hash knows the identifier of an event and nothing of its leptons, so the chosen events are a fair
    sample of their class, and the same for every order and size of the chunks (bottom-k sampling, Cohen and
    Kaplan, PODC 2007).
    """
    if most < 1:
        msg = f"streamed_pool: most = {most} leptons must be positive"
        raise UserError(msg)
    held: dict[int, _Class] = {}
    for momentum, charge, event, group in chunks:
        seed = event_seeds(event, dataset=dataset)
        for label in map(int, np.unique(group)):
            inside = group == label
            found = _Class(
                momentum[inside],
                charge[inside],
                event[inside],
                seed[inside],
                len(np.unique(event[inside])),
            )
            if label in held:
                found = held[label].joined(found)
            held[label] = found.smallest(most) if len(found.seed) > 2 * most else found
    parts = {label: found.smallest(most) for label, found in held.items()}
    if not parts:
        none = np.zeros(0, np.int64)
        return Pool(np.zeros((0, 4)), np.zeros(0, np.int8), none, none)
    return Pool(
        np.concatenate([part.momentum for part in parts.values()]),
        np.concatenate([part.charge for part in parts.values()]),
        np.concatenate([part.event for part in parts.values()]),
        np.concatenate([np.full(len(part.seed), label, np.int64) for label, part in parts.items()]),
        {label: len(np.unique(part.event)) / part.n_events for label, part in parts.items()},
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Class:
    """Leptons of one class, of so many events that were seen of it."""

    momentum: FloatArray
    charge: npt.NDArray[np.int8]
    event: IntArray
    seed: SeedArray
    n_events: int

    def joined(self, other: _Class) -> _Class:
        return _Class(
            np.concatenate([self.momentum, other.momentum]),
            np.concatenate([self.charge, other.charge]),
            np.concatenate([self.event, other.event]),
            np.concatenate([self.seed, other.seed]),
            self.n_events + other.n_events,
        )

    def smallest(self, most: int) -> _Class:
        """Return the leptons of the events of smallest hash, whole events: at most `most`, or one event."""
        order = np.argsort(self.seed, kind="stable")
        ordered, stop = self.seed[order], len(order)
        if stop > most:
            # the event that `most` would cut goes as a whole
            stop = int(np.searchsorted(ordered, ordered[most], side="left"))
            stop = stop or int(np.searchsorted(ordered, ordered[0], side="right"))
        kept = order[:stop]
        return _Class(self.momentum[kept], self.charge[kept], self.event[kept], ordered[:stop], self.n_events)
