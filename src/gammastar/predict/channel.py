"""The abstract production channel, and the rule that no process is counted twice."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import combinations
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Sample

__all__ = ["Channel", "check_exclusive"]


class Channel(ABC):
    """A way to make dark particles at unit coupling.

    Attributes
    ----------
    group : str
        Name of the channel's kind; two channels of one group never add up.
    processes : frozenset of str
        What the channel contains, e.g. ``{"pseudoscalar_dalitz", "bremsstrahlung"}``.
    """

    group: ClassVar[str]
    processes: ClassVar[frozenset[str]]

    @abstractmethod
    def rate(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the rate per proton on target and unit coupling, with its covariance.

        Parameters
        ----------
        mass : array_like, shape (n,) [GeV]

        Returns
        -------
        rate : NDArray, shape (n,)
        cov : NDArray, shape (n, n)
        """

    @abstractmethod
    def produce(self, mass: float, *, n: int, rng: np.random.Generator) -> Sample:
        """Return `n` weighted particles whose weights sum to the rate at this mass."""

    def replicas(self, mass: float, sample: Sample) -> FloatArray | None:  # noqa: ARG002
        """Return what replicas of the kinematics would weigh the particles of a sample.

        Parameters
        ----------
        mass : float [GeV]
        sample : Sample
            From `produce` at this mass.

        Returns
        -------
        NDArray, shape (k, n), or None
            Density of each replica over that of the sample; None if the channel has no replicas.
        """
        return None


def check_exclusive(channels: Sequence[Channel]) -> None:
    """Check that no process is in two channels.

    Raises
    ------
    PhysicsError
        If two channels share their group or a process: their sum would count it twice.

    Notes
    -----
    A channel may bound the masses it covers with an attribute ``mass_range`` (low, high) [GeV]; channels that
    cover disjoint masses may share a process, as η Dalitz decays below and above the dimuon threshold.
    """
    for first, second in combinations(channels, 2):
        if _disjoint(first, second):
            continue
        shared = first.processes & second.processes
        if first.group == second.group or shared:
            what = sorted(shared) if shared else f"the group {first.group!r}"
            msg = f"channels {first.group!r} and {second.group!r} both contain {what}: remove one of them"
            raise PhysicsError(msg)


def _disjoint(first: Channel, second: Channel) -> bool:
    a: tuple[float, float] = getattr(first, "mass_range", (0.0, np.inf))
    b: tuple[float, float] = getattr(second, "mass_range", (0.0, np.inf))
    return a[1] <= b[0] or b[1] <= a[0]
