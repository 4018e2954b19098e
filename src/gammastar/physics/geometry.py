"""Decay volumes: where a straight line enters and leaves them (metres, z along the beam).

Intervals of a straight line x + t u inside half-spaces, balls and cones are the algebra of it.
Each function returns two arrays of shape (n,), the path lengths between which the line is inside; an
interval whose low end is not below its high end is empty.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import numpy as np
from pydantic import ConfigDict, Field

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray

_FROZEN = ConfigDict(extra="forbid", allow_inf_nan=True)
Interval: TypeAlias = tuple[FloatArray, FloatArray]


class Geometry(ABC):
    """A region of space that a straight line crosses in at most one piece."""

    @abstractmethod
    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        """Return the path lengths between which the (infinite) line is inside; low >= high is a miss."""

    @property
    def is_bounded(self) -> bool:
        """False where a line can stay inside for ever."""
        return True

    @property
    def z_range(self) -> tuple[float, float]:
        """First and last z of the volume [m]; infinite where it is open, or does not say."""
        return -math.inf, math.inf

    def holds(self, point: tuple[float, float, float]) -> bool:
        """Return whether a point [m] lies in the volume, or on the face where it begins."""
        return bool(self.chord(np.array([point], dtype=np.float64), np.array([[0.0, 0.0, 1.0]]))[0, 0] == 0)

    def _corners(self) -> FloatArray | None:
        """Return x and y of points (k, 2) whose convex hull holds the projection along the beam, if known."""
        return None

    def azimuths(self, x: float, y: float) -> tuple[float, float]:
        """Return centre and half-width of the azimuths about a line along the beam that hold the volume.

        `x`, `y`: where the line is [m]. Returns `centre`, `half`: [rad]; 0 and π where the volume goes around
        the line, or nothing better is known.

        Examples
        --------
        >>> box = Box(10.0, 30.0, 1.0, 1.0, x=2.0)
        >>> [round(a, 4) for a in box.azimuths(0.0, 0.0)]  # the near corners at x = 1 m, y = ±1 m
        [0.0, 0.7854]
        """
        corners = self._corners()
        if corners is None:
            return 0.0, math.pi
        across = corners - np.array([x, y])
        middle = across.mean(axis=0)
        if not np.hypot(*middle) > 0:
            return 0.0, math.pi
        centre = math.atan2(middle[1], middle[0])
        offset = np.arctan2(across[:, 1], across[:, 0]) - centre
        offset = np.abs((offset + math.pi) % (2 * math.pi) - math.pi)
        # a hull that is seen under less than half a turn does not hold the line
        return (centre, float(offset.max())) if offset.max() < math.pi / 2 else (0.0, math.pi)

    def chord(self, origin: FloatArray, direction: FloatArray) -> FloatArray:
        """Return where half-lines enter and leave the volume.

        `origin`, shape (n, 3) [m]; `direction` (shape (n, 3)): need not be normalised (momenta will do).
        Returns shape (n, 2) [m]; path lengths from `origin` to entry and exit; entry is 0 for an origin
        inside, exit is inf where the volume is open; nan in both columns for a miss.
        """
        origin, direction = np.asarray(origin, dtype=np.float64), np.asarray(direction, dtype=np.float64)
        if origin.ndim != 2 or origin.shape[1] != 3 or origin.shape != direction.shape:
            raise PhysicsError(f"chord: {origin.shape} and {direction.shape} must have shape (n, 3)")
        norm = np.linalg.norm(direction, axis=1, keepdims=True)
        if not (np.isfinite(origin).all() and np.isfinite(norm).all() and (norm > 0).all()):
            raise PhysicsError("chord: origins must be finite, directions of a finite, non-zero length")
        low, high = self._interval(origin, direction / norm)
        low = np.maximum(low, 0.0)
        return np.where((low < high)[:, None], np.stack([low, high], axis=1), np.nan)


@dataclass(frozen=True, slots=True)
class Cone(Geometry):
    """A shell between two polar angles about the beam axis."""

    # Polar angles seen from the apex [rad]
    theta_min: float
    theta_max: float
    # First and last z [m]; `z_max` may be inf
    z_min: float
    z_max: float = math.inf
    apex: float = 0.0  # z of the apex on the beam axis [m]
    # If true, `z_min` and `z_max` are distances from the apex, not planes: with an infinite end this is the
    # volume of Eq. B1 of Allison and Blinov, whose shield has the same length at every angle.
    spherical: bool = False
    kind: Literal["cone"] = "cone"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        low, high = self.theta_min, self.theta_max
        require(0 <= low < high < math.pi / 2, f"Cone: 0 <= theta_min < theta_max < pi/2, {low!r}, {high!r}")
        require(
            self.z_min < self.z_max and math.isfinite(self.z_min) and math.isfinite(self.apex),
            f"Cone: finite z_min below z_max needed, got {self.z_min!r}, {self.z_max!r}",
        )
        require(not self.spherical or self.z_min >= 0, f"Cone: distance z_min = {self.z_min!r} is negative")

    @property
    def is_bounded(self) -> bool:
        """False for a cone without an end."""
        return math.isfinite(self.z_max)

    @property
    def z_range(self) -> tuple[float, float]:
        """Of a spherical shell the z of its lowest rim and of its top."""
        if not self.spherical:
            return self.z_min, self.z_max
        return self.apex + self.z_min * math.cos(self.theta_max), self.apex + self.z_max

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
            pieces += slab(origin[:, 2], unit[:, 2], self.z_min, self.z_max)
        elif self.is_bounded:
            pieces.append(ball(local, unit, self.z_max))
        low, high = meet(pieces)
        low = np.maximum(low, 0.0)
        for cut_low, cut_high in self._hole(local, unit):
            low, high = cut(low, high, cut_low, cut_high)
        return low, high


def _check_ends(volume: Any) -> None:
    """Refuse a volume that does not begin before it ends, or stands nowhere."""
    name, z0, z1 = type(volume).__name__, volume.z0, volume.z1
    finite = all(map(math.isfinite, (z0, z1, volume.x, volume.y)))
    require(finite and z0 < z1, f"{name}: z0 = {z0!r} must lie before z1 = {z1!r}")


def _check_positive(volume: Any, *names: str) -> None:
    for name in names:
        value = getattr(volume, name)
        what = f"{type(volume).__name__}.{name}"
        require(math.isfinite(value) and value > 0, f"{what} = {value!r} m must be positive")


@dataclass(frozen=True, slots=True)
class Frustum(Geometry):
    """A rectangular volume whose cross-section changes linearly along z."""

    # First and last z [m]
    z0: float
    z1: float
    # Half-widths at `z0` and at `z1` [m]
    half_x0: float
    half_y0: float
    half_x1: float
    half_y1: float
    # Centre of the cross-section [m]
    x: float = 0.0
    y: float = 0.0
    kind: Literal["frustum"] = "frustum"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        _check_ends(self)
        _check_positive(self, "half_x0", "half_y0", "half_x1", "half_y1")

    @property
    def z_range(self) -> tuple[float, float]:
        """Between its two faces."""
        return self.z0, self.z1

    def _corners(self) -> FloatArray:
        halves = ((self.half_x0, self.half_y0), (self.half_x1, self.half_y1))
        signs = [(a, b) for a in (-1, 1) for b in (-1, 1)]
        return np.array([[self.x + a * p, self.y + b * q] for p, q in halves for a, b in signs])

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        pieces = slab(origin[:, 2], unit[:, 2], self.z0, self.z1)
        sides = ((0, self.x, self.half_x0, self.half_x1), (1, self.y, self.half_y0, self.half_y1))
        for axis, centre, half0, half1 in sides:
            slope = (half1 - half0) / (self.z1 - self.z0)
            half = half0 + slope * (origin[:, 2] - self.z0)
            for sign in (1.0, -1.0):
                distance = half - sign * (origin[:, axis] - centre)
                pieces.append(half_space(distance, slope * unit[:, 2] - sign * unit[:, axis]))
        return meet(pieces)


@dataclass(frozen=True, slots=True)
class Box(Geometry):
    """A rectangular volume beside the beam or on it, whose axis may be tilted."""

    # z of the centres of its first and last face [m]
    z0: float
    z1: float
    # Half-widths across its axis [m]
    half_x: float
    half_y: float
    # Centre of the first face [m]
    x: float = 0.0
    y: float = 0.0
    # Slopes of the axis in the horizontal and in the vertical plane, dx/dz = tan(angle_x) and dy/dz =
    # tan(angle_y) [rad]. The faces stand at right angles to the axis, and the edge of `half_x` stays in the
    # horizontal plane.
    angle_x: float = 0.0
    angle_y: float = 0.0
    kind: Literal["box"] = "box"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        _check_ends(self)
        _check_positive(self, "half_x", "half_y")
        for name in ("angle_x", "angle_y"):
            value = getattr(self, name)
            require(abs(value) < math.pi / 2, f"Box.{name} = {value!r} rad must lie between -π/2 and π/2")

    def _frame(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return unit vectors along the horizontal edge, the other edge and the axis."""
        axis = np.array([math.tan(self.angle_x), math.tan(self.angle_y), 1.0])
        horizontal = np.array([1.0, 0.0, -axis[0]])
        axis, horizontal = axis / np.linalg.norm(axis), horizontal / np.linalg.norm(horizontal)
        return horizontal, np.cross(axis, horizontal), axis

    @property
    def z_range(self) -> tuple[float, float]:
        """Of its outermost corners: beyond the centres of its faces where it is tilted."""
        horizontal, other, _ = self._frame()
        reach = self.half_x * abs(horizontal[2]) + self.half_y * abs(other[2])
        return self.z0 - float(reach), self.z1 + float(reach)

    def _corners(self) -> FloatArray:
        horizontal, other, axis = self._frame()
        first = np.array([self.x, self.y, self.z0])
        ends = (first, first + (self.z1 - self.z0) / axis[2] * axis)
        edges = [a * self.half_x * horizontal + b * self.half_y * other for a in (-1, 1) for b in (-1, 1)]
        return np.array([(end + edge)[:2] for end in ends for edge in edges])

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        horizontal, other, axis = self._frame()
        local = origin - np.array([self.x, self.y, self.z0])
        length = (self.z1 - self.z0) / axis[2]
        limits = [(horizontal, -self.half_x, self.half_x), (other, -self.half_y, self.half_y)]
        limits.append((axis, 0.0, length))
        slabs = (slab(local @ edge, unit @ edge, low, high) for edge, low, high in limits)
        return meet(piece for pieces in slabs for piece in pieces)


@dataclass(frozen=True, slots=True)
class Cylinder(Geometry):
    """A cylinder parallel to the beam; an infinite radius makes it a slab."""

    # [m]
    radius: float
    z0: float
    z1: float
    # Axis [m]
    x: float = 0.0
    y: float = 0.0
    kind: Literal["cylinder"] = "cylinder"
    __pydantic_config__: ClassVar[ConfigDict] = _FROZEN

    def __post_init__(self) -> None:
        require(self.radius > 0, f"Cylinder.radius = {self.radius!r} must be positive")
        _check_ends(self)

    @property
    def z_range(self) -> tuple[float, float]:
        """Between its two faces."""
        return self.z0, self.z1

    def _corners(self) -> FloatArray | None:
        if not math.isfinite(self.radius):
            return None
        r = self.radius
        return np.array([[self.x + a * r, self.y + b * r] for a in (-1, 1) for b in (-1, 1)])

    def _interval(self, origin: FloatArray, unit: FloatArray) -> Interval:
        pieces = slab(origin[:, 2], unit[:, 2], self.z0, self.z1)
        if math.isfinite(self.radius):
            pieces.append(infinite_cylinder(origin[:, :2] - np.array([self.x, self.y]), unit, self.radius))
        return meet(pieces)


Volume: TypeAlias = Annotated[Cone | Frustum | Box | Cylinder, Field(discriminator="kind")]


def half_space(distance: FloatArray, speed: FloatArray) -> Interval:
    """Where distance + t speed >= 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        crossing = -distance / speed
    low = np.where(speed > 0, crossing, np.where((speed == 0) & (distance < 0), np.inf, -np.inf))
    return low, np.where(speed < 0, crossing, np.inf)


def meet(pieces: Iterable[Interval]) -> Interval:
    """Intersection."""
    lows, highs = zip(*pieces, strict=True)
    return np.max(lows, axis=0), np.min(highs, axis=0)


def infinite_cylinder(offset: FloatArray, unit: FloatArray, radius: float) -> Interval:
    """Inside a cylinder along z; `offset` (n, 2) is measured from its axis [m]."""
    a = np.sum(unit[:, :2] ** 2, axis=1)
    c = np.sum(offset**2, axis=1) - radius**2
    discriminant, low, high = _roots(a, np.sum(offset * unit[:, :2], axis=1), c)
    parallel = a == 0
    miss = np.where(parallel, c >= 0, discriminant <= 0)
    low, high = np.where(parallel, -np.inf, low), np.where(parallel, np.inf, high)
    return np.where(miss, np.inf, low), np.where(miss, -np.inf, high)


def _roots(a: FloatArray, b: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return discriminant/4 and the ordered roots of a t² + 2 b t + c, nan if none, without cancellation."""
    discriminant = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        q = -(b + np.copysign(np.sqrt(discriminant), b))
        first, second = q / a, c / q
    return discriminant, np.fmin(first, second), np.fmax(first, second)


def slab(position: FloatArray, speed: FloatArray, low: float, high: float) -> list[Interval]:
    """Where a coordinate that changes with `speed` lies between two values, maybe inf, as pieces to meet."""
    pieces = [half_space(position - low, speed)]
    if math.isfinite(high):
        pieces.append(half_space(high - position, -speed))
    return pieces


def ball(origin: FloatArray, unit: FloatArray, radius: float) -> Interval:
    """Inside a ball centred at zero."""
    b = np.sum(origin * unit, axis=1)
    discriminant, low, high = _roots(np.ones_like(b), b, np.sum(origin**2, axis=1) - radius**2)
    miss = discriminant <= 0
    return np.where(miss, np.inf, low), np.where(miss, -np.inf, high)


def forward_cone(origin: FloatArray, unit: FloatArray, theta: float) -> Interval:
    """Inside the solid forward cone with its apex at zero and half-opening `theta` < π/2."""
    k = math.tan(theta) ** 2
    x, u = origin, unit
    # f(t) = x² + y² − k z² = a t² + 2 b t + c is negative inside the double cone.
    a = u[:, 0] ** 2 + u[:, 1] ** 2 - k * u[:, 2] ** 2
    a = np.where(a == 0, -np.finfo(np.float64).tiny, a)  # parallel to the surface: count as flatter
    b = x[:, 0] * u[:, 0] + x[:, 1] * u[:, 1] - k * x[:, 2] * u[:, 2]
    c = x[:, 0] ** 2 + x[:, 1] ** 2 - k * x[:, 2] ** 2
    discriminant, low, high = _roots(a, b, c)
    steep, real = a > 0, discriminant > 0
    forward = u[:, 2] > 0
    # A line steeper than the cone is inside between the roots, if that is on the forward nappe; a flatter
    # one is inside the forward nappe beyond its last root (or before its first, if it flies backwards).
    middle_z = x[:, 2] - np.where(steep, b, 0.0) / a * u[:, 2]
    inside = steep & real & (middle_z > 0)
    apex = ~steep & ~real  # flatter line through the apex
    through = np.divide(-x[:, 2], u[:, 2], out=np.zeros_like(b), where=u[:, 2] != 0)
    low, high = np.where(apex, through, low), np.where(apex, through, high)
    start = np.where(steep, np.where(inside, low, np.inf), np.where(forward, high, -np.inf))
    stop = np.where(steep, np.where(inside, high, -np.inf), np.where(forward, np.inf, low))
    return start, stop


def cut(low: FloatArray, high: FloatArray, cut_low: FloatArray, cut_high: FloatArray) -> Interval:
    """Remove one interval from another; two remaining pieces are refused."""
    hits = (cut_low < cut_high) & (cut_low < high) & (cut_high > low) & (low < high)
    before, after = hits & (cut_low > low), hits & (cut_high < high)
    if (before & after).any():
        raise PhysicsError(
            f"Cone: {int((before & after).sum())} line(s) cross the hole and re-enter the shell; "
            "divide the volume along z, or move z_min away from the production points"
        )
    gone = hits & ~before & ~after
    new_high = np.where(before, cut_low, high)
    return np.where(gone, np.inf, np.where(after, cut_high, low)), np.where(gone, -np.inf, new_high)
