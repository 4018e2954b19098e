"""The abstract sampler of p(pt, energy | mass): its leaves are the histogram sampler and the flow."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from gammastar.core.records import FloatArray

__all__ = ["Sampler"]


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
