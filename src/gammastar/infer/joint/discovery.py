"""Discoveries with a joint likelihood, the fit of its pairs alone, and what moves its fitted strength.

q₀ is twice ln L of the best fit with signal over that without (G. Cowan et al., Eur. Phys. J. C 71 (2011)
1554, Eq. 12). Where one bin of a search alone sees the signal, q₀ is that of its count: pairs say nothing
about a background, and the free strength takes any excess. In situ, and with several bins, they do.

Impacts: a parameter is fixed away from its fitted value, all others are fitted again, and μ moves. Cells,
like-sign contents and the finite simulation are parameters as the nuisances are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import gammaincc, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.infer.discovery import needed_count
from gammastar.infer.joint.expectation import (
    Arrays,
    Point,
    arrays_of,
    asimov,
    curvature,
    expected,
    fit,
    signal_of,
)
from gammastar.infer.joint.limits import FARTHEST, TOYS, JointLimits, crossings, draw_joint, unit_of
from gammastar.infer.joint.model import JointData, JointModel
from gammastar.infer.toys import TIE
from gammastar.physics.averaged_counts import at_most

NEAR = 1e-6  # contents this small rest at zero
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
    without = fit(arrays, data, 0.0)
    free = fit(arrays, data, None, most=FARTHEST)
    return np.asarray(2.0 * np.maximum(without.value - free.value, 0.0))


def p_zero(
    arrays: Arrays, data: JointData, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray]:
    """Return p₀ of each data set from pseudo-experiments without signal, and q₀, shape (sets,) each.

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
        raise PhysicsError(f"joint_significance: method = {method!r} must be 'asymptotic' or 'exact'")
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
    if asked.method == "asymptotic":
        return unit * _asymptotic(arrays, without, np.asarray(significances)), f"{ASYMPTOTIC}, Asimov data"
    background = float(np.sum(model.background))
    if len(model.background) != 1 or background <= 0:
        raise PhysicsError(
            f"discovery_strengths: enumeration needs a search of one bin with background, not "
            f"{len(model.background)} with {background:g} events; take method = 'asymptotic'"
        )
    rng = stream(seed, "joint discovery")
    toys = draw_joint(arrays, without, asked.n_toys, rng)
    again = fit(arrays, toys, 0.0).point
    signal = signal_of(arrays, again)[:, 0]
    sigma = float(np.sqrt(sum(effect.background**2 for effect in model.effects)))
    found = [_median(signal, background, sigma, z) for z in significances]
    return unit * np.array(found), COUNTED.format(asked.n_toys)


def _asymptotic(arrays: Arrays, without: Point, significances: FloatArray) -> FloatArray:
    """Return the strengths whose Asimov data have these significances."""

    def missing(strengths: FloatArray) -> FloatArray:
        every = np.zeros(len(strengths), dtype=np.intp)
        point = without.part(every)
        point.core[:, 0] = strengths
        return np.asarray(significances[:, None] - np.sqrt(q_zero(arrays, asimov(arrays, point)))[None])

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


PAIR_TOYS = 200


@dataclass(frozen=True, slots=True)
class PairsFit:
    """Comparison of the fit of the pairs with the saturated model, whose expectations are the counts."""

    statistic: float  # 2 ln of the ratio of the likelihoods, constraints included, without signal
    # Its mean and standard deviation in pseudo-experiments at the fit
    expected: float
    spread: float
    p_value: float  # From the Γ distribution of this mean and spread
    pairs: float  # Measured opposite-sign pairs


def pairs_fit(model: JointModel, *, rng: np.random.Generator, n_toys: int = PAIR_TOYS) -> PairsFit:
    """Return how well a window without signal describes its pairs; the search is left out.

    S. Baker and R. D. Cousins, Nucl. Instrum. Meth. 221 (1984) 437. With few pairs in a bin the statistic is
    no χ². A sum of the terms of many bins is near enough to a Γ distribution (F. E. Satterthwaite, Biometrics
    Bull. 2 (1946) 110) that a few hundred pseudo-experiments tell p-values far below one over their number.
    """
    none = np.zeros(0)  # of any signal: its strength is zero
    alone = replace(
        model, signal=np.zeros((len(model.pairs), 0)), background=none, observed=none, in_situ=model.response
    )
    arrays, data = arrays_of(alone), alone.data
    found = fit(arrays, data, 0.0)
    toys = _statistics(arrays, draw_joint(arrays, found.point, n_toys, rng))
    seen, mean, variance = 2.0 * float(found.value[0]), float(toys.mean()), float(toys.var(ddof=1))
    p = float(gammaincc(mean**2 / variance, seen * mean / variance)) if variance > 0 else 1.0
    return PairsFit(seen, mean, float(np.sqrt(variance)), p, float(model.counts[0].sum()))


def _statistics(arrays: Arrays, data: JointData) -> FloatArray:
    return 2.0 * fit(arrays, data, 0.0).value


@dataclass(frozen=True, slots=True, eq=False)
class JointImpacts:
    """Parameters in order of their impact."""

    names: tuple[str, ...]  # Nuisances by their names; ``cell_<j>``, ``like_sign_<i>``, ``simulation_<i>``
    strength: float  # Fitted μ
    # Fitted parameters and their standard deviations: factors of contents, nuisances in their own standard
    # deviations. A content that rests at zero has the distance at which −ln L is ½ higher, shape (n,)
    value: FloatArray
    error: FloatArray
    # Distance to the auxiliary measurement and standard deviation after the fit, both in standard deviations
    # before it; nan for free contents, shape (n,)
    pull: FloatArray
    constraint: FloatArray
    # Change of μ for the parameter one standard deviation below and above its fitted value, after and before
    # the fit; `prefit` is nan for free contents, shape (n, 2)
    postfit: FloatArray
    prefit: FloatArray


def joint_impacts(
    model: JointModel, strength: float = 1.0, *, data: JointData | None = None, most: int = 20
) -> JointImpacts:
    """Return the impacts of the parameters on μ.

    A content, which cannot be negative, is moved by a factor e^{±σ/value}.
    """
    unit = unit_of(replace(model, observed=None))
    arrays = arrays_of(model.scaled(unit))
    seen = _predicted(model, arrays, strength / unit) if data is None else data
    found = fit(arrays, seen, None, most=FARTHEST).point
    if found.core[0, 0] <= NEAR:
        raise PhysicsError(
            "joint_impacts: the fit finds no signal, on whose strength a parameter could have an impact"
        )
    every = _Parameters.of(arrays, seen, found)
    chosen = np.argsort(-np.abs(every.slope * every.error), kind="stable")[:most]
    moved = [every.moved(chosen, sign * every.error[chosen]) for sign in (-1.0, 1.0)]
    moved += [every.moved(chosen, sign * every.prior[chosen]) for sign in (-1.0, 1.0)]
    shifts = every.refitted(arrays, seen, np.tile(chosen, 4), np.concatenate(moved)).reshape(4, -1).T * unit
    postfit, prefit = shifts[:, :2], shifts[:, 2:]
    order = np.argsort(-np.abs(postfit).max(axis=1), kind="stable")
    rows = chosen[order]
    return JointImpacts(
        tuple(arrays.binned.names[1 + k] for k in rows),
        unit * float(found.core[0, 0]),
        every.value[rows],
        every.error[rows],
        (every.value - every.centre)[rows] / every.prior[rows],
        every.error[rows] / every.prior[rows],
        postfit[order],
        np.where(np.isfinite(every.prior[rows])[:, None], prefit[order], np.nan),
    )


def _predicted(model: JointModel, arrays: Arrays, strength: float) -> JointData:
    """Return the measured pairs with the search that they and a strength predict."""
    if model.in_situ is not None:
        raise PhysicsError("joint_impacts: pairs with signal in themselves predict no search; give `data`")
    point = fit(arrays, model.with_search(model.background), 0.0).point
    point.core[:, 0] = strength
    return model.with_search(expected(arrays, point).search)


@dataclass(frozen=True, slots=True, eq=False)
class _Parameters:
    """All parameters but μ of one fit, shape (p − 1,) each.

    `prior` is the standard deviation before the fit (nan: free), `centre` its centre, `slope` dμ/dp with all
    others fitted again; a `content` cannot be negative.
    """

    x: FloatArray  # With μ, shape (p,)
    value: FloatArray
    error: FloatArray
    slope: FloatArray
    prior: FloatArray
    centre: FloatArray
    content: npt.NDArray[np.bool_]

    @classmethod
    def of(cls, arrays: Arrays, data: JointData, point: Point) -> _Parameters:
        model, value = arrays.binned, point.x[0]
        (gradient,), (hessian,) = curvature(arrays, point, data)
        content = np.isfinite(model.low)
        resting = content & (value <= NEAR) & (gradient > 0)
        free = ~model.fixed & ~resting
        inverse = np.linalg.pinv(hessian[np.ix_(free, free)], hermitian=True)
        error, slope = np.zeros(len(value)), np.zeros(len(value))
        variance = np.maximum(np.diag(inverse), 0.0)
        error[free] = np.sqrt(variance)
        slope[free] = np.divide(inverse[0], variance, out=np.zeros_like(variance), where=variance > 0)
        answer = -inverse @ hessian[np.ix_(free, resting)]  # of the free parameters to one that rests
        slope[resting] = answer[0]
        bend = np.diag(hessian)[resting] + (hessian[np.ix_(resting, free)] * answer.T).sum(axis=1)
        error[resting] = 1.0 / (gradient[resting] + np.sqrt(gradient[resting] ** 2 + np.maximum(bend, 0.0)))
        centre = arrays.data(data)[1][0]
        known = (error[1:], slope[1:], model.width[1:], centre[1:], content[1:])
        return cls(value, value[1:], *known)

    def moved(self, rows: npt.NDArray[np.intp], step: FloatArray) -> FloatArray:
        """Return the values of some parameters after a step; contents stay positive."""
        value, step, content = self.value[rows], np.nan_to_num(step), self.content[rows]
        above = content & (value > NEAR)
        factor = np.exp(np.clip(np.divide(step, value, out=np.zeros_like(step), where=above), -20.0, 20.0))
        plain = np.where(content, np.maximum(value + step, 0.0), value + step)
        return np.where(above, value * factor, plain)

    def refitted(
        self, arrays: Arrays, data: JointData, rows: npt.NDArray[np.intp], values: FloatArray
    ) -> FloatArray:
        """Return the changes of μ with one parameter each fixed at a value, all others fitted again."""
        n, i = len(rows), len(arrays.cells)
        start = np.repeat(self.x[None], n, axis=0)
        held, at = np.zeros(start.shape), (np.arange(n), 1 + rows)
        start[at], held[at] = values, 1.0
        own, begin = data.part(np.zeros(n, dtype=np.intp)), Point.of(start, i)
        found = fit(arrays, own, None, begin, most=FARTHEST, held=Point.of(held, i))
        return np.asarray(found.point.core[:, 0] - self.x[0], dtype=np.float64)
