"""Boxes beside the beam: chords by rays against the twelve triangles of their surface, and by small steps."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial.transform import Rotation

from gammastar.core.sampling import stream
from gammastar.physics.geometry import Box

BOXES = (
    ("parallel to the beam, 2.25 m beside it", Box(10.0, 30.0, 1.25, 1.25, x=2.25)),
    ("tilted by 62 mrad", Box(10.0, 30.0, 1.25, 1.25, x=0.62, angle_x=0.0624)),
    ("tilted both ways", Box(8.0, 12.0, 0.8, 0.5, x=0.5, y=-0.2, angle_x=-0.4, angle_y=0.3)),
)
FACES = ((0, 1, 3, 2), (4, 5, 7, 6), (0, 1, 5, 4), (2, 3, 7, 6), (0, 2, 6, 4), (1, 3, 7, 5))


def chords(*, quick: bool) -> Iterator[dict]:
    n = 2000 if quick else 20_000
    for name, box in BOXES:
        rng = stream(5, "box", name)
        origin = rng.normal(0, [0.05, 0.05, 0.2], (n, 3))
        middle = _corners(box).mean(axis=0)
        unit = middle + rng.normal(0, [1.2, 1.0, 3.0], (n, 3)) - origin
        unit /= np.linalg.norm(unit, axis=1, keepdims=True)
        chord = box.chord(origin, unit)
        ours = np.nan_to_num(chord[:, 1] - chord[:, 0])
        rays = _through_triangles(box, origin, unit)
        yield {
            "quantity": f"box {name}: largest difference of chords, {n} rays [m]",
            "ours": float(np.abs(ours - rays).max()),
            "expected": 0.0,
            "tolerance": 1e-9,
            "source": "each ray against the twelve triangles between the turned corners",
        }
        step = 1e-3
        some = slice(0, n // 100)
        marched = _marched(box, origin[some], unit[some], step)
        yield {
            "quantity": f"box {name}: largest difference of chords, {n // 100} rays in steps of 1 mm [m]",
            "ours": float(np.abs(ours[some] - marched).max()),
            "expected": 0.0,
            "tolerance": 2 * step,
            "source": "points along the ray, turned back into the frame of the box and counted",
        }


def _turn(box: Box) -> Rotation:
    climb = math.atan(math.tan(box.angle_y) * math.cos(box.angle_x))
    return Rotation.from_euler("YX", [box.angle_x, -climb])


def _length(box: Box) -> float:
    return float((box.z1 - box.z0) / _turn(box).apply([0.0, 0.0, 1.0])[2])


def _corners(box: Box) -> np.ndarray:
    sides = ([-box.half_x, box.half_x], [-box.half_y, box.half_y], [0.0, _length(box)])
    corners = np.array([[x, y, z] for x in sides[0] for y in sides[1] for z in sides[2]])
    return _turn(box).apply(corners) + np.array([box.x, box.y, box.z0])


def _through_triangles(box: Box, origin: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """Return the distance between the first and the last triangle that a ray meets, zero for a miss."""
    corners = _corners(box)
    first, last = np.full(len(unit), np.inf), np.full(len(unit), -np.inf)
    for a, b, c, d in FACES:
        for triangle in ((a, b, c), (a, c, d)):
            start, *others = corners[list(triangle)]
            edges = np.array(others) - start
            system = np.stack([-unit, *np.broadcast_to(edges[:, None], (2, *unit.shape))], axis=2)
            t, u, v = np.linalg.solve(system, (origin - start)[:, :, None])[:, :, 0].T
            hit = (u >= 0) & (v >= 0) & (u + v <= 1) & (t > 0)
            first, last = np.where(hit, np.minimum(first, t), first), np.where(hit, np.maximum(last, t), last)
    return np.where(last > first, last - first, 0.0)


def _marched(box: Box, origin: np.ndarray, unit: np.ndarray, step: float) -> np.ndarray:
    t = np.arange(step / 2, 40.0, step)
    frame, length = _turn(box).inv(), _length(box)
    inside = np.zeros(len(unit))
    for i, (start, along) in enumerate(zip(origin, unit, strict=True)):
        local = frame.apply(start + t[:, None] * along - [box.x, box.y, box.z0])
        wide = (np.abs(local[:, 0]) < box.half_x) & (np.abs(local[:, 1]) < box.half_y)
        inside[i] = step * (wide & (local[:, 2] > 0) & (local[:, 2] < length)).sum()
    return inside
