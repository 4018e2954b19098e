"""Decay volumes: where a straight line enters and leaves them (metres, z along the beam)."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from gammastar.core.errors import PhysicsError, SteeringError
from gammastar.core.records import FloatArray
from gammastar.physics.intervals import (
    Interval,
    ball,
    cut,
    forward_cone,
    half_space,
    infinite_cylinder,
    meet,
    slab,
)

__all__ = ["Cone", "Cylinder", "Frustum", "Geometry", "Volume", "volume_from"]

_FROZEN = ConfigDict(extra="forbid", allow_inf_nan=True)


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise PhysicsError(message)


class Geometry(ABC):
    """A region of space that a straight line crosses in at most one piece."""

    @abstractmethod
    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        """Return the path lengths between which the (infinite) line is inside; low >= high is a miss."""

    @property
    def is_bounded(self) -> bool:
        """False where a line can stay inside for ever."""
        return True

    def chord(self, origin: FloatArray, direction: FloatArray) -> FloatArray:
        """Return where half-lines enter and leave the volume.

        Parameters
        ----------
        origin : NDArray, shape (n, 3) [m]
        direction : NDArray, shape (n, 3)
            Need not be normalised (momenta will do).

        Returns
        -------
        NDArray, shape (n, 2) [m]
            Path lengths from `origin` to entry and exit; entry is 0 for an origin inside, exit is inf
            where the volume is open; nan in both columns for a miss.

        Raises
        ------
        PhysicsError
            If shapes differ, a direction has no length, or a line crosses a hollow volume in two pieces.
        """
        origin, direction = np.asarray(origin, dtype=np.float64), np.asarray(direction, dtype=np.float64)
        if origin.ndim != 2 or origin.shape[1] != 3 or origin.shape != direction.shape:
            msg = f"chord: origin {origin.shape} and direction {direction.shape} must both have shape (n, 3)"
            raise PhysicsError(msg)
        norm = np.linalg.norm(direction, axis=1, keepdims=True)
        if not (np.isfinite(origin).all() and np.isfinite(norm).all() and (norm > 0).all()):
            msg = "chord: origins must be finite and directions must have a finite, non-zero length"
            raise PhysicsError(msg)
        low, high = self._interval(origin, direction / norm)
        low = np.maximum(low, 0.0)
        return np.where((low < high)[:, None], np.stack([low, high], axis=1), np.nan)


@dataclass(frozen=True, slots=True)
class Cone(Geometry):
    """A shell between two polar angles about the beam axis.

    Attributes
    ----------
    theta_min, theta_max : float
        Polar angles seen from the apex [rad].
    z_min, z_max : float
        First and last z [m]; `z_max` may be inf.
    apex : float
        z of the apex on the beam axis [m].
    spherical : bool
        If true, `z_min` and `z_max` are distances from the apex, not planes: with an infinite end this is
        the volume of Eq. B1 of Allison and Blinov, whose shield has the same length at every angle.
    """

    theta_min: float
    theta_max: float
    z_min: float
    z_max: float = math.inf
    apex: float = 0.0
    spherical: bool = False
    kind: Literal["cone"] = "cone"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        _check(
            0 <= self.theta_min < self.theta_max < math.pi / 2,
            f"Cone: 0 <= theta_min < theta_max < pi/2 needed, got {self.theta_min!r}, {self.theta_max!r}",
        )
        _check(
            self.z_min < self.z_max and math.isfinite(self.z_min) and math.isfinite(self.apex),
            f"Cone: finite z_min below z_max needed, got {self.z_min!r}, {self.z_max!r}",
        )
        _check(not self.spherical or self.z_min >= 0, f"Cone: distance z_min = {self.z_min!r} is negative")

    @property
    def is_bounded(self) -> bool:
        """False for a cone without an end."""
        return math.isfinite(self.z_max)

    def _hole(self, origin: FloatArray, unit: FloatArray) -> list[Interval]:
        """Convex regions to cut out of the outer cone."""
        holes = []
        if self.spherical and self.z_min > 0:  # first: lines may cross the inner cone near the apex
            holes.append(ball(origin, unit, self.z_min))
        if self.theta_min > 0:
            holes.append(forward_cone(origin, unit, self.theta_min))
        return holes

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        local = origin - np.array([0.0, 0.0, self.apex])
        pieces = [forward_cone(local, unit, self.theta_max)]
        if not self.spherical:
            pieces += slab(origin, unit, self.z_min, self.z_max)
        elif self.is_bounded:
            pieces.append(ball(local, unit, self.z_max))
        low, high = meet(pieces)
        low = np.maximum(low, 0.0)
        for cut_low, cut_high in self._hole(local, unit):
            low, high = cut(low, high, cut_low, cut_high)
        return low, high


@dataclass(frozen=True, slots=True)
class Frustum(Geometry):
    """A rectangular volume whose cross-section changes linearly along z.

    Attributes
    ----------
    z0, z1 : float
        First and last z [m].
    half_x0, half_y0, half_x1, half_y1 : float
        Half-widths at `z0` and at `z1` [m].
    x, y : float
        Centre of the cross-section [m].
    """

    z0: float
    z1: float
    half_x0: float
    half_y0: float
    half_x1: float
    half_y1: float
    x: float = 0.0
    y: float = 0.0
    kind: Literal["frustum"] = "frustum"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        finite = all(math.isfinite(value) for value in (self.z0, self.z1, self.x, self.y))
        _check(finite and self.z0 < self.z1, f"Frustum: z0 = {self.z0!r} must lie before z1 = {self.z1!r}")
        for name in ("half_x0", "half_y0", "half_x1", "half_y1"):
            value = getattr(self, name)
            _check(math.isfinite(value) and value > 0, f"Frustum.{name} = {value!r} must be positive")

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        pieces = slab(origin, unit, self.z0, self.z1)
        sides = ((0, self.x, self.half_x0, self.half_x1), (1, self.y, self.half_y0, self.half_y1))
        for axis, centre, half0, half1 in sides:
            slope = (half1 - half0) / (self.z1 - self.z0)
            half = half0 + slope * (origin[:, 2] - self.z0)
            for sign in (1.0, -1.0):
                distance = half - sign * (origin[:, axis] - centre)
                pieces.append(half_space(distance, slope * unit[:, 2] - sign * unit[:, axis]))
        return meet(pieces)


@dataclass(frozen=True, slots=True)
class Cylinder(Geometry):
    """A cylinder parallel to the beam; an infinite radius makes it a slab.

    Attributes
    ----------
    radius, z0, z1 : float [m]
    x, y : float
        Axis [m].
    """

    radius: float
    z0: float
    z1: float
    x: float = 0.0
    y: float = 0.0
    kind: Literal["cylinder"] = "cylinder"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        _check(self.radius > 0, f"Cylinder.radius = {self.radius!r} must be positive")
        finite = all(math.isfinite(value) for value in (self.z0, self.z1, self.x, self.y))
        _check(finite and self.z0 < self.z1, f"Cylinder: z0 = {self.z0!r} must lie before z1 = {self.z1!r}")

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        pieces = slab(origin, unit, self.z0, self.z1)
        if math.isfinite(self.radius):
            pieces.append(infinite_cylinder(origin[:, :2] - np.array([self.x, self.y]), unit, self.radius))
        return meet(pieces)


Volume: TypeAlias = Annotated[Cone | Frustum | Cylinder, Field(discriminator="kind")]
_ADAPTER: TypeAdapter[Cone | Frustum | Cylinder] = TypeAdapter(Volume)


def volume_from(data: Mapping[str, Any]) -> Geometry:
    """Build a volume from a mapping with `kind` = "cone", "frustum" or "cylinder" and its attributes.

    Raises
    ------
    SteeringError
        If the kind is unknown, or a key is unknown, missing or of the wrong type; the message names it.

    Examples
    --------
    >>> volume_from({"kind": "cylinder", "radius": 1.0, "z0": 5.0, "z1": 10.0}).is_bounded
    True
    """
    try:
        return _ADAPTER.validate_python(dict(data))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in ("volume", *first["loc"]))
        msg = f"{key}: {first['msg']}"
        raise SteeringError(msg) from error
    except PhysicsError as error:
        msg = f"volume: {error}"
        raise SteeringError(msg) from error
