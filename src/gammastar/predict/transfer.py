"""Carried over: to another nucleus and a thick target; limits on dark photons to another vector."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.physics.detector import Target

OMITTED = (
    "first inelastic interaction of each proton only; secondary cascades, which would add soft particles, "
    "and the energy loss of the beam are omitted"
)


def in_depth(sample: Sample, thickness: float, length: float, rng: np.random.Generator) -> Sample:
    """Return the sample with production points along a thick target.

    Notes
    -----
    The depth of the first interaction is exponential, cut at the end of the target; see `OMITTED`.
    """
    if not (thickness > 0 and np.isfinite(length) and length > 0):
        raise PhysicsError(f"in_depth: thickness {thickness!r}, interaction length {length!r} m not positive")
    inside = -np.expm1(-thickness)
    depth = -length * np.log1p(-inside * rng.uniform(size=len(sample.weight)))
    origin = sample.origin.copy()
    origin[:, 2] += depth
    return replace(sample, origin=origin)


def on_nucleus(
    sample: Sample,
    a_measured: float,
    a_wanted: float,
    alpha: Callable[[FloatArray], FloatArray],
    *,
    alpha_inelastic: float,
    alpha_sigma: float = 0.0,
) -> tuple[Sample, float]:
    """Return the sample per interaction on another nucleus, and its relative uncertainty."""
    if not (a_measured > 0 and a_wanted > 0 and alpha_sigma >= 0):
        raise PhysicsError(
            f"on_nucleus: A = {a_measured!r}, {a_wanted!r} sigma = {alpha_sigma!r} not positive"
        )
    ratio = np.log(a_wanted / a_measured)
    exponent = np.asarray(alpha(np.asarray(sample.p4.pt, dtype=np.float64)), dtype=np.float64)
    weight = sample.weight * np.exp(ratio * (exponent - alpha_inelastic))
    return replace(sample, weight=weight), float(alpha_sigma * abs(ratio))


@dataclass(frozen=True)
class TargetTransfer:
    """How particles of one target become those of a detector's target."""

    # Points (pT [GeV], α) of σ ∝ A^α, straight between them; None leaves the weights
    alpha: Sequence[tuple[float, float]] | None = None
    # As in `on_nucleus`
    alpha_inelastic: float = 0.0
    alpha_sigma: float = 0.0
    # Interaction length [m] by the detector's name; others produce at the target's position
    depth: Mapping[str, float] | None = None

    def carry(
        self,
        sample: Sample,
        to: tuple[str, Target],
        measured: tuple[float, BoolArray | None],
        rng: np.random.Generator,
    ) -> tuple[Sample, float]:
        """Return the sample of a detector's target, and the relative error of the scaling with A."""
        (name, target), (a_measured, own), sigma = to, measured, 0.0
        if self.alpha is not None:
            pt, alpha = np.array(self.alpha).T
            scaled, sigma = on_nucleus(
                sample,
                a_measured,
                target.a,
                lambda x: np.interp(x, pt, alpha),
                alpha_inelastic=self.alpha_inelastic,
                alpha_sigma=self.alpha_sigma,
            )
            weight = scaled.weight if own is None else np.where(own, scaled.weight, sample.weight)
            sample = replace(sample, weight=weight)
        length = (self.depth or {}).get(name)
        if length is not None:
            sample = in_depth(sample, target.thickness, length, rng)
        return sample, sigma


class _Decaying(Protocol):
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray: ...

    def branching(self, mass: float) -> Mapping[str, float]: ...


def displaced(
    mass: npt.ArrayLike,
    edges: npt.ArrayLike,
    old: _Decaying,
    new: _Decaying,
    *,
    state: str,
    ratio: npt.ArrayLike = 1.0,
    length_ratio: float = 2.0,
) -> FloatArray:
    """Return both edges of a beam-dump limit for another model.

    Notes
    -----
    N ∝ g² ratio BR [exp(−t₀/τ) − exp(−t₁/τ)] with one effective proper time t₀ from the target to the volume
    and t₁ = length_ratio t₀. Both edges of the old limit hold the same N, which fixes t₀; the new edges are
    where the new model gives that N. It stands for the spectrum by one momentum: good to tens of per cent
    between vectors with the same production, not for others.
    """
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    limits = np.asarray(edges, dtype=np.float64)
    if limits.shape != (len(m), 2) or not ((limits[:, 0] > 0) & (limits[:, 1] > limits[:, 0])).all():
        raise PhysicsError(f"displaced: edges of shape {limits.shape} must be increasing pairs, one per mass")
    require(length_ratio > 1, f"displaced: length_ratio = {length_ratio!r} must exceed one")
    one = np.ones(len(m))
    tau_old = np.array([float(old.ctau(float(x), 1.0)) for x in m])  # τ at unit coupling; τ ∝ 1/g²
    tau_new = np.array([float(new.ctau(float(x), 1.0)) for x in m])

    def log_yield(g: FloatArray, t0: FloatArray, tau: FloatArray) -> FloatArray:
        x = t0 * g**2 / tau
        return np.asarray(2 * np.log(g) - x + np.log(-np.expm1(-(length_ratio - 1) * x)), dtype=np.float64)

    low, high = limits.T

    def gap(log_t: FloatArray) -> FloatArray:
        t0 = np.exp(log_t)
        return log_yield(low, t0, tau_old) - log_yield(high, t0, tau_old)

    # The upper edge gains on the lower one as t0 falls.
    t0 = np.exp(_bisect(gap, np.log(1e-12 * tau_old / high**2), np.log(700.0 * tau_old / high**2)))
    level = log_yield(low, t0, tau_old) + np.log(_branching(m, old, state))
    with np.errstate(divide="ignore"):
        level = level - np.log(np.asarray(ratio) * one * _branching(m, new, state))
    grid = np.linspace(-12.0, 6.0, 721)[None, :] + 0.5 * np.log(tau_new / t0)[:, None]
    values = log_yield(np.exp(grid), t0[:, None], tau_new[:, None])
    top = np.argmax(values, axis=1)
    rows = np.arange(len(m))
    peak, found = grid[rows, top], values[rows, top] > level
    safe = np.where(found, level, values[rows, top] - 1e-6)

    def above(log_g: FloatArray) -> FloatArray:
        return log_yield(np.exp(log_g), t0, tau_new) - safe

    lower = _bisect(lambda x: -above(x), peak, grid[:, 0])
    upper = _bisect(lambda x: -above(x), peak, grid[:, -1])
    return np.where(found[:, None], np.exp(np.stack([lower, upper], axis=1)), np.nan)


def _branching(mass: FloatArray, model: _Decaying, state: str) -> FloatArray:
    values = [model.branching(float(m)) for m in mass]
    if state not in values[0]:
        raise PhysicsError(f"recast: final state {state!r} is none of {sorted(values[0])}")
    return np.array([value[state] for value in values])


def _bisect(f: Callable[[FloatArray], FloatArray], negative: FloatArray, positive: FloatArray) -> FloatArray:
    """Return roots of f between points where it is negative and points where it is positive, all at once."""
    a, b = negative.copy(), positive.copy()
    for _ in range(80):
        middle = 0.5 * (a + b)
        below = f(middle) < 0
        a, b = np.where(below, middle, a), np.where(below, b, middle)
    return np.asarray(0.5 * (a + b), dtype=np.float64)
