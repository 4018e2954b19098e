"""Anything that stands behind a target: what the scaling from one target to another needs to know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gammastar.physics.detector import Target

__all__ = ["Stand"]


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
