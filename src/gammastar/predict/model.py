"""The abstract dark-sector model: mass and coupling in, lifetime and branching ratios out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from gammastar.core.records import DarkState, FloatArray

__all__ = ["Model"]


class Model(ABC):
    """A model with one mass and one coupling."""

    charge: float = 0.0
    """Electric charge in units of e."""

    @abstractmethod
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray:
        """Return the proper decay length [m], inf if stable.

        Parameters
        ----------
        mass : float [GeV]
        coupling : array_like, any shape
        """

    @abstractmethod
    def branching(self, mass: float) -> Mapping[str, float]:
        """Return the branching ratios by final state; they sum to one, or are all zero if stable."""

    def at(self, mass: float, coupling: float) -> DarkState:
        """Return the particle at one point of the parameter space.

        Parameters
        ----------
        mass : float [GeV]
        coupling : float

        Raises
        ------
        PhysicsError
            If the mass or the coupling lies outside the domain of the model.
        """
        ctau = float(np.asarray(self.ctau(mass, coupling)))
        return DarkState(float(mass), float(coupling), ctau, self.charge, dict(self.branching(mass)))
