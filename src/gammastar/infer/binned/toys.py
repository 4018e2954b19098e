"""Exact CLs of HistFactory workspaces with any nuisances: pseudo-experiments, all fitted in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import logit

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.fits import fitted
from gammastar.infer.binned.model import BinnedModel, binned_model
from gammastar.infer.counting import QUANTILES
from gammastar.infer.toys import CLs, Convention

SAME = 1e-6  # differences of the statistic below this are ties
TOYS = 4_000  # of each hypothesis
LEAST, MOST = 1e-6, 1e6  # strengths that are tried
FACTOR, FINE = 2.0, 4  # between strengths of a limit; further ones around the crossings


@dataclass(frozen=True, slots=True, eq=False)
class BinnedToys:
    """Data sets: counts (sets, bins) and auxiliary measurements (sets or 1, parameters)."""

    counts: FloatArray
    aux: FloatArray


def binned_cls(
    workspace: Mapping[str, Any],
    strength: float = 1.0,
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    n_toys: int = TOYS,
) -> tuple[CLs, FloatArray]:
    """Return CLs of a signal in a workspace with any nuisances, observed and expected.

    Notes
    -----
    A. L. Read, J. Phys. G 28 (2002) 2693; pyhf's toys are those of Convention("qtilde", "randomised").
    """
    if not (np.isfinite(strength) and strength > 0):
        msg = f"signal strength {strength!r} must be positive and finite"
        raise PhysicsError(msg)
    convention = Convention() if convention is None else convention
    if convention.statistic == "q0" or convention.constraint == "posterior":
        msg = f"exact CLs of a workspace: {convention} is not known; take 'ratio' or 'qtilde', 'auxiliary'"
        raise PhysicsError(msg)
    model = binned_model(workspace)
    data = BinnedToys(model.counts[None, :], model.aux)
    q = [
        statistic_of(model, drawn(model, data, mu, convention, n_toys, rng), strength, convention)
        for mu in (strength, 0.0)
    ]
    observed = float(statistic_of(model, data, strength, convention)[0])
    ordered = [np.sort(values) for values in q]
    levels = np.quantile(ordered[1], QUANTILES, method="inverted_cdf")
    tails = np.array([_beyond(values, np.r_[observed, levels]) for values in ordered])
    cls = tails[0] / np.maximum(tails[1], 1.0 / n_toys)
    relative = ((1.0 - tails) / np.maximum(tails, 1.0 / n_toys) / n_toys).sum(axis=0)
    label = f"exact CLs, {2 * n_toys} toys, {convention}"
    expected = np.sort(cls[1:])
    if model.masked:
        return CLs(np.nan, 0.0, np.nan, np.nan, np.nan, 2 * n_toys, float(n_toys), label), expected
    error = float(np.maximum(cls[0], 1.0 / n_toys) * np.sqrt(relative[0]))
    tail = tails[:, 0].tolist()
    return CLs(float(cls[0]), error, tail[0], tail[1], observed, 2 * n_toys, float(n_toys), label), expected


def statistic_of(model: BinnedModel, toys: BinnedToys, strength: float, convention: Convention) -> FloatArray:
    """Return the test statistic of each data set at a signal strength, shape (sets,)."""
    counts, aux = toys.counts, toys.aux
    one = fitted(model, counts, aux, strength=strength)
    none = fitted(model, counts, aux, strength=0.0, start=one.x)
    begin = one.x.copy()
    begin[:, model.poi] *= 0.7
    # q̃ is zero beyond the strength, so that the best one is sought up to it
    best = (
        none
        if convention.statistic == "ratio"
        else fitted(model, counts, aux, strength=(0.0, strength), start=(begin, none.x))
    )
    again = fitted(model, counts, aux, strength=strength, start=best.x, further=False)
    q = 2.0 * (np.minimum(one.nll, again.nll) - best.nll)
    return q if convention.statistic == "ratio" else np.maximum(q, 0.0)


def _beyond(values: FloatArray, bounds: FloatArray) -> FloatArray:
    """Return the fractions of sorted values at or above bounds."""
    return np.asarray(1.0 - np.searchsorted(values, bounds - SAME, side="left") / len(values))


def drawn(
    model: BinnedModel,
    data: BinnedToys,
    strength: float,
    convention: Convention,
    n: int,
    rng: np.random.Generator,
) -> BinnedToys:
    """Draw data sets of a hypothesis as the convention has them."""
    x = np.repeat(fitted(model, data.counts, data.aux, strength=strength).x, n, axis=0)
    gauss, counted = np.isfinite(model.width) & ~model.fixed, np.isfinite(model.tau) & ~model.fixed
    aux = data.aux
    if convention.auxiliary == "averaged":
        low, high = model.low[gauss], model.high[gauss]
        normal = model.centre[gauss] + model.width[gauss] * rng.standard_normal((n, int(gauss.sum())))
        x[:, gauss] = np.clip(normal, low, high)
        shape = model.tau[counted] + 1.0  # of the posterior of a Poisson mean, flat prior
        x[:, counted] = np.clip(
            rng.gamma(shape, 1.0 / model.tau[counted], (n, int(counted.sum()))), 1e-6, 10.0
        )
        if (~gauss & ~counted & ~model.fixed & (np.arange(len(gauss)) != model.poi)).any():
            every = np.repeat(data.counts, n, axis=0)
            x = fitted(model, every, aux, strength=strength, start=x, held=gauss | counted).x
    counts = rng.poisson(np.maximum(model.expected(x), 0.0)).astype(np.float64)
    if convention.auxiliary == "randomised":
        aux = np.repeat(aux, n, axis=0)
        aux[:, gauss] = x[:, gauss] + model.width[gauss] * rng.standard_normal((n, int(gauss.sum())))
        aux[:, counted] = rng.poisson(x[:, counted] * model.tau[counted])
    return BinnedToys(counts, aux)


def binned_limits(
    workspace: Mapping[str, Any],
    *,
    cl: float = 0.95,
    seed: int = 1,
    convention: Convention | None = None,
    n_toys: int = TOYS,
) -> tuple[float, FloatArray]:
    """Return observed and expected upper limits on the strength by toys.

    Notes
    -----
    The logit of CLs is tabulated over strengths in steps of two until all six values lie on both sides of
    1 − cl, then four times more finely, and interpolated in ln μ (PCHIP).
    """
    alpha, table = 1.0 - cl, dict[float, FloatArray]()

    def levels(strength: float) -> FloatArray:
        if strength not in table:
            rng = np.random.default_rng(seed)
            found, expected = binned_cls(workspace, strength, rng=rng, convention=convention, n_toys=n_toys)
            table[strength] = np.r_[found.cls, expected]
        return table[strength]

    high = low = 1.0
    while np.nanmax(levels(high)) > alpha and high < MOST:
        high *= FACTOR
    while np.nanmin(levels(low)) < alpha and low > LEAST:
        low /= FACTOR
    for start in sorted(table)[:-1]:
        pair = np.array([table[start], table[start * FACTOR]])
        if ((pair[0] > alpha) & (pair[1] <= alpha)).any():
            for k in range(1, FINE):
                levels(start * FACTOR ** (k / FINE))
    strengths = np.array(sorted(table))
    curves = logit(np.clip([table[mu] for mu in strengths], 0.1 / n_toys, 1.0 - 1e-9)) - logit(alpha)
    limits = [_crossing(np.log(strengths), curve) for curve in curves.T]
    return limits[0], np.array(limits[1:])


def _crossing(x: FloatArray, curve: FloatArray) -> float:
    """Return e to the point where a falling curve is zero for the first time."""
    if np.isnan(curve).any():
        return float("nan")
    below = np.flatnonzero((curve[:-1] > 0) & (curve[1:] <= 0))
    if not below.size:
        return float("inf") if curve[-1] > 0 else 0.0
    i = int(below[0])
    roots = PchipInterpolator(x, curve).solve(0.0, extrapolate=False)
    inside = roots[(roots >= x[i] - 1e-12) & (roots <= x[i + 1] + 1e-12)]
    return float(np.exp(inside[0]))
