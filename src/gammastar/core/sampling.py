"""Random streams by name, and what draws kinematics at a mass."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod

import numpy as np

from gammastar.core.records import FloatArray

__all__ = [
    "Sampler",
    "stream",
]


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """Return the random generator of a named purpose.

    Streams of different names are independent, and none depends on the order in which they are asked for.

    Parameters
    ----------
    seed : int
        Seed of the run.
    *names : str or int
        Purpose, e.g. ``"predict", 12``.

    Examples
    --------
    >>> stream(1, "toy").integers(100) == stream(1, "toy").integers(100)
    np.True_
    """
    words = [seed]
    for name in names:
        digest = hashlib.sha256(str(name).encode()).digest()
        words.append(int.from_bytes(digest[:8], "little"))
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(words)))


class Sampler(ABC):
    """Draws the kinematics of a virtual photon at a given mass."""

    @abstractmethod
    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        rng : numpy.random.Generator

        Returns
        -------
        pt, energy : NDArray, shape (n,) [GeV]
            Inside the physical limits energy ≥ √(mass² + pt²), energy < beam energy.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the sampler.
        """

    @property
    @abstractmethod
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
