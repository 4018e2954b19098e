"""Existing limits for another vector: by ratios of rate, branching fraction and lifetime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray

State: TypeAlias = str


class _Decaying(Protocol):
    def ctau(self, mass: float, coupling: npt.ArrayLike) -> FloatArray: ...

    def branching(self, mass: float) -> Mapping[str, float]: ...


def prompt(
    mass: npt.ArrayLike,
    limit: npt.ArrayLike,
    old: _Decaying,
    new: _Decaying,
    *,
    state: State,
    ratio: npt.ArrayLike = 1.0,
) -> FloatArray:
    """Return the coupling of the new model that gives the events excluded in the old one.

    Notes
    -----
    g = ε √(BR_old/(ratio BR_new)): decays must be prompt for both, lifetimes do not enter (the idea of
    arXiv:1801.04847).
    """
    m, coupling = _curve(mass, limit)
    br_old, br_new = _branching(m, old, state), _branching(m, new, state)
    rate = np.asarray(ratio, dtype=np.float64) * br_new
    quotient = np.divide(br_old, rate, out=np.full(m.shape, np.inf), where=rate > 0)
    return np.asarray(coupling * np.sqrt(quotient), dtype=np.float64)


def displaced(
    mass: npt.ArrayLike,
    edges: npt.ArrayLike,
    old: _Decaying,
    new: _Decaying,
    *,
    state: State,
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
        raise PhysicsError(
            f"displaced: edges of shape {limits.shape} must be increasing positive pairs, one per mass"
        )
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


def _curve(mass: npt.ArrayLike, limit: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    m, coupling = (np.atleast_1d(np.asarray(x, dtype=np.float64)) for x in (mass, limit))
    if m.shape != coupling.shape or not (np.isfinite(coupling) & (coupling > 0)).all():
        raise PhysicsError(
            f"recast: limits of shape {coupling.shape} must be positive, one per mass ({m.shape})"
        )
    return m, coupling


def _branching(mass: FloatArray, model: _Decaying, state: State) -> FloatArray:
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
