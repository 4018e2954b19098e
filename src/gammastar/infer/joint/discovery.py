"""Discoveries with a joint likelihood: q₀ and p₀ of data, and the signal of a median discovery.

q₀ is twice ln L of the best fit with signal over that without (G. Cowan et al., Eur. Phys. J. C 71 (2011)
1554, Eq. 12). Where one bin of a search alone sees the signal, q₀ is that of its count: pairs say nothing
about a background, and the free strength takes any excess. In situ, and with several bins, they do.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.infer.discovery import needed_count
from gammastar.infer.joint.expectation import Arrays, Point, arrays_of, expected
from gammastar.infer.joint.fits import fit
from gammastar.infer.joint.limits import (
    FARTHEST,
    TOY_PRECISION,
    TOYS,
    JointLimits,
    crossings,
    draw_joint,
    unit_of,
)
from gammastar.infer.joint.model import JointData, JointModel
from gammastar.infer.toys import TIE
from gammastar.physics.averaged_counts import at_most

ASYMPTOTIC = "asymptotic p-values of q0, pairs and search"
COUNTED = "exact p-value by enumeration, background averaged, signal from {} pseudo-experiments of the pairs"


@dataclass(frozen=True, slots=True)
class Significance:
    """How unlikely data are without signal."""

    q: float  # q₀
    # Of the hypothesis without signal, and its Monte Carlo error
    p_value: float
    error: float
    significance: float  # One-sided, in standard deviations
    method: str


def q_zero(arrays: Arrays, data: JointData) -> FloatArray:
    """Return q₀ of each data set, shape (n,); zero where a signal does not help."""
    without = fit(arrays, data, 0.0, precision=TOY_PRECISION)
    free = fit(arrays, data, None, most=FARTHEST, precision=TOY_PRECISION)
    return np.asarray(2.0 * np.maximum(without.value - free.value, 0.0))


def p_zero(
    arrays: Arrays, data: JointData, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return p₀ of each data set from pseudo-experiments without signal, and q₀, shape (sets,) each.

    Notes
    -----
    p₀ is (k + 1)/(n + 1) if k of them have no smaller q₀: the data count as one more, and p₀ is never zero
    (A. C. Davison, D. V. Hinkley, Bootstrap Methods and their Application (1997), Eq. 4.11).
    """
    toys = draw_joint(arrays, fit(arrays, data, 0.0).point, n, rng)
    observed = q_zero(arrays, data)
    beyond = q_zero(arrays, toys).reshape(-1, n) >= observed[:, None] - TIE
    return (beyond.sum(axis=1) + 1.0) / (n + 1.0), observed


def joint_significance(
    model: JointModel, method: str = "asymptotic", *, n_toys: int = TOYS, seed: int = 0
) -> Significance:
    """Return the significance of the observed data over the hypothesis without signal."""
    if method not in ("asymptotic", "exact"):
        msg = f"joint_significance: method = {method!r} must be 'asymptotic' or 'exact'"
        raise PhysicsError(msg)
    arrays, data = arrays_of(model.scaled(unit_of(model))), model.data
    if method == "asymptotic":
        q = float(q_zero(arrays, data)[0])
        return Significance(q, float(ndtr(-np.sqrt(q))), 0.0, float(np.sqrt(q)), ASYMPTOTIC)
    found, seen = p_zero(arrays, data, n_toys, stream(seed, "joint discovery"))
    p, q = float(found[0]), float(seen[0])
    error = float(np.sqrt(p * (1.0 - p) / n_toys))
    label = f"p-values of q0, {n_toys} pseudo-experiments of pairs and search"
    return Significance(q, p, error, float(-ndtri(p)), label)


def discovery_strengths(
    model: JointModel, significances: Sequence[float], options: JointLimits | None = None, *, seed: int = 0
) -> tuple[FloatArray, str]:
    """Return the signal strengths at which half of all experiments reach some significances, and the method.

    Notes
    -----
    Enumeration: the count that a discovery needs is that of `gammastar.infer.discovery_yield`, with the
    background averaged over its nuisances. The signal per strength is what pseudo-experiments of the pairs
    and of all auxiliary measurements, drawn at the parameters that are fitted without signal, find again:
    their spread stands for what is not known of it, as log-normal nuisances do in two steps.
    """
    asked = JointLimits() if options is None else options
    hidden = replace(model, observed=None)
    unit = unit_of(hidden)
    scaled = hidden.scaled(unit)
    arrays = arrays_of(scaled)
    without = fit(arrays, scaled.with_search(scaled.background), 0.0).point
    if asked.asymptotic(hidden, float(np.sum(model.background))):
        return unit * _asymptotic(arrays, without, np.asarray(significances)), f"{ASYMPTOTIC}, Asimov data"
    background = float(np.sum(model.background))
    if len(model.background) != 1 or background <= 0:
        msg = (
            f"discovery_strengths: enumeration needs a search of one bin with background, not "
            f"{len(model.background)} with {background:g} events; take method = 'asymptotic'"
        )
        raise PhysicsError(msg)
    rng = stream(seed, "joint discovery")
    toys = draw_joint(arrays, without, asked.n_toys, rng)
    start = Point(*(np.repeat(x, asked.n_toys, axis=0) for x in (without.core, without.like, without.gamma)))
    again = fit(arrays, toys, 0.0, start, precision=TOY_PRECISION).point
    signal = (expected(arrays, again).signal @ arrays.signal)[:, 0]
    sigma = float(np.sqrt(sum(effect.background**2 for effect in model.effects)))
    found = [_median(signal, background, sigma, z) for z in significances]
    return unit * np.array(found), COUNTED.format(asked.n_toys)


def _asymptotic(arrays: Arrays, without: Point, significances: FloatArray) -> FloatArray:
    """Return the strengths whose Asimov data have these significances."""

    def missing(strengths: FloatArray) -> FloatArray:
        every = np.zeros(len(strengths), dtype=np.intp)
        point = without.part(every)
        point.core[:, 0] = strengths
        means = expected(arrays, point)
        gamma = np.where(arrays.sigma > 0, point.gamma, 1.0)
        theta = point.core[:, 1 + arrays.cells.shape[1] :]
        found = q_zero(arrays, JointData(means.pairs, means.search, theta, gamma))
        return np.asarray(significances[:, None] - np.sqrt(found)[None])

    return crossings(missing)


def _median(signal: FloatArray, background: float, sigma: float, significance: float) -> float:
    """Return the strength at which half of the experiments have the count that a discovery needs."""
    count = np.full(len(signal), needed_count(background, sigma, significance) - 1.0)

    def under(log_strength: float) -> float:
        below = at_most(np.exp(log_strength) * signal, count, background, (0.0, sigma))
        return float(below.mean()) - 0.5

    low, high = np.log(1e-6), np.log(FARTHEST)
    if under(low) <= 0:
        return 0.0
    return float("inf") if under(high) > 0 else float(np.exp(brentq(under, low, high, xtol=1e-8)))
