"""Intervals of a straight line x + t u inside half-spaces, balls and cones: the algebra of geometry.

Each function returns two arrays of shape (n,), the path lengths between which the line is inside; an
interval whose low end is not below its high end is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TypeAlias

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["Interval", "ball", "cut", "forward_cone", "half_space", "infinite_cylinder", "meet", "slab"]

Interval: TypeAlias = tuple[FloatArray, FloatArray]


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
    """Inside a cylinder along z; `offset` (n, 2) is measured from its axis."""
    a = np.sum(unit[:, :2] ** 2, axis=1)
    c = np.sum(offset**2, axis=1) - radius**2
    discriminant, low, high = _roots(a, np.sum(offset * unit[:, :2], axis=1), c)
    parallel = a == 0
    miss = np.where(parallel, c >= 0, discriminant <= 0)
    low, high = np.where(parallel, -np.inf, low), np.where(parallel, np.inf, high)
    return np.where(miss, np.inf, low), np.where(miss, -np.inf, high)


def _roots(a: FloatArray, b: FloatArray, c: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return discriminant/4 and the ordered roots of a t² + 2 b t + c (nan where a = 0 or complex).

    The root of larger modulus is formed first and the other from the product c/a: no cancellation.
    """
    discriminant = b * b - a * c
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        q = -(b + np.copysign(np.sqrt(discriminant), b))
        first, second = q / a, c / q
    return discriminant, np.fmin(first, second), np.fmax(first, second)


def slab(origin: FloatArray, unit: FloatArray, z_min: float, z_max: float) -> list[Interval]:
    """Between two planes of constant z, as pieces to meet; `z_max` may be infinite."""
    pieces = [half_space(origin[:, 2] - z_min, unit[:, 2])]
    if math.isfinite(z_max):
        pieces.append(half_space(z_max - origin[:, 2], -unit[:, 2]))
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
        msg = (
            f"Cone: {int((before & after).sum())} line(s) cross the hole and re-enter the shell; "
            "divide the volume along z, or move z_min away from the production points"
        )
        raise PhysicsError(msg)
    gone = hits & ~before & ~after
    new_high = np.where(before, cut_low, high)
    return np.where(gone, np.inf, np.where(after, cut_high, low)), np.where(gone, -np.inf, new_high)
