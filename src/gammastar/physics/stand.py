"""Anything that stands behind a target: what the scaling from one target to another needs to know."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

from pydantic import ConfigDict

from gammastar.core.errors import PhysicsError

__all__ = ["STRICT", "Stand", "Target", "check"]

STRICT = ConfigDict(extra="forbid", allow_inf_nan=True)


def check(condition: bool, message: str) -> None:
    """Refuse a number that no detector has."""
    if not condition:
        raise PhysicsError(message)


@dataclass(frozen=True, slots=True)
class Target:
    """Where the beam interacts.

    Attributes
    ----------
    a, z : float
        Mass and atomic number.
    thickness : float
        In nuclear interaction lengths; inf for a dump that stops every proton.
    position : tuple of float
        Centre of production in the frame of the planes [m]; the only place that holds it.
    """

    a: float
    z: float
    thickness: float
    position: tuple[float, float, float] = (0.0, 0.0, 0.0)
    __pydantic_config__: ClassVar[ConfigDict] = STRICT

    def __post_init__(self) -> None:
        for name in ("a", "z", "thickness"):
            check(getattr(self, name) > 0, f"target.{name} = {getattr(self, name)!r} must be positive")

    @property
    def interaction_probability(self) -> float:
        """Probability that a proton interacts, 1 − exp(−thickness)."""
        return -math.expm1(-self.thickness)


class Stand(Protocol):
    """A detector with its beam and target, of whatever kind."""

    @property
    def name(self) -> str:
        """Name for messages."""

    @property
    def beam_energy(self) -> float:
        """Energy of the beam [GeV]."""

    @property
    def target(self) -> Target:
        """Where the beam interacts."""
