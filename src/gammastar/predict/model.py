"""The abstract dark-sector model: mass and coupling in, lifetime, branching ratios and rate out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import DarkState, FloatArray

__all__ = ["Labels", "Limits", "Model"]

Limits = Literal["published", "recast", "none"]

_TEX = {"ε": r"\varepsilon"}  # where the plain letter looks otherwise
_FORBIDDEN = set("$\\{}^%#&~\n")


@dataclass(frozen=True, slots=True)
class Labels:
    """What a model is called on axes, in captions and in tables, and which published limits are its own.

    The defaults are those of a vector of which nothing else is known; no limit of a dark photon is drawn.

    Attributes
    ----------
    particles : str
        In words, e.g. "dark photons".
    particle, coupling : str
        Symbols in plain Unicode; what follows an underscore is an index: "A′", "g_X".
    coupling_name : str
        In words and ASCII, for tables, e.g. "kinetic mixing".
    unit : str
        Of the coupling, e.g. "1/GeV"; empty for a number.
    limits : {"published", "recast", "none"}
        Published limits on dark photons hold for the model as they are; after they were carried over by
        ratios of rate, branching ratio and lifetime; or not at all, so that no grey area is drawn. A
        coupling that is recast has cτ ∝ 1/g².
    plane : str
        Which files of one's own limits belong to the model: those with this `plane`.

    Raises
    ------
    PhysicsError
        If a text is empty or holds signs that an axis cannot show, or `limits` is none of the three.
    """

    particles: str = "particles of the model"
    particle: str = "X"
    coupling: str = "g"
    coupling_name: str = "coupling"
    unit: str = ""
    limits: Limits = "none"
    plane: str = ""

    def __post_init__(self) -> None:
        for name in ("particles", "particle", "coupling", "coupling_name", "unit", "plane"):
            text = getattr(self, name)
            if not isinstance(text, str) or _FORBIDDEN & set(text) or not (text or name in {"unit", "plane"}):
                msg = f"Labels: {name} = {text!r} must be plain text without any of $ \\ {{ }} ^ % # & ~"
                raise PhysicsError(msg)
        if self.limits not in get_args(Limits):
            msg = f"Labels: limits = {self.limits!r} is none of {', '.join(get_args(Limits))}"
            raise PhysicsError(msg)

    @property
    def mass_axis(self) -> str:
        """Label of a mass axis.

        Examples
        --------
        >>> Labels(particle="A′").mass_axis
        '$m_{A′}$ [GeV]'
        """
        return f"$m_{{{self.particle.replace('_', '')}}}$ [GeV]"

    @property
    def coupling_symbol(self) -> str:
        """The coupling as mathematics, without dollar signs.

        Examples
        --------
        >>> Labels(coupling="g_X").coupling_symbol
        'g_{X}'
        """
        base, _, index = self.coupling.partition("_")
        return _TEX.get(base, base) + (f"_{{{index.replace('_', '')}}}" if index else "")

    @property
    def coupling_axis(self) -> str:
        """Label of an axis of couplings, with the unit if there is one."""
        return f"${self.coupling_symbol}$" + (f" [{self.unit}]" if self.unit else "")


class Model(ABC):
    """A model with one mass and one coupling; the rate goes as the square of the coupling.

    Attributes
    ----------
    charge : float
        Electric charge in units of e.
    labels : Labels
        Names, axes and the published limits that belong to the model; a model says its own.
    """

    charge: float = 0.0

    @property
    def labels(self) -> Labels:
        """What the model is called, and which published limits are its own: by default none."""
        return Labels(particles=f"particles of {type(self).__name__}")

    def rate_ratio(self, mass: npt.ArrayLike) -> FloatArray:
        """Return particles made per squared coupling over dark photons per ε², shape (n,).

        Production is measured, or computed, for dark photons: every other model says what a rate of these
        means for its own particles. One, for a model with kinetic mixing.

        Parameters
        ----------
        mass : array_like, shape (n,) [GeV]

        Raises
        ------
        PhysicsError
            If the model does not say it.
        """
        msg = (
            f"{type(self).__name__}: define rate_ratio(self, mass), particles per squared coupling over dark "
            f"photons per ε², here {np.size(mass)} of them; np.ones_like(mass) for kinetic mixing"
        )
        raise PhysicsError(msg)

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

    def width_error(self, mass: float) -> float:  # noqa: ARG002
        """Return the relative standard deviation of the total width at a mass [GeV], that of hadrons.

        Widths into leptons are taken as known. Zero, the default, says nothing about it.
        """
        return 0.0

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
