"""Exact CLs of HistFactory workspaces with any nuisances: pseudo-experiments, all fitted in step."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import chdtrc, ndtr, xlogy

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.binned.fits import Fitted, fitted, negative_log, vanished
from gammastar.infer.binned.model import BinnedModel, IntArray, binned_model
from gammastar.infer.channel_limits import BANDS, cls_of
from gammastar.infer.counting import QUANTILES
from gammastar.infer.toys import CLs, Convention, Ties, cls_of_tails, toy_limits

SAME = 1e-6  # differences of the statistic below this are ties
TOYS = 4_000  # of each hypothesis


@dataclass(frozen=True, slots=True, eq=False)
class BinnedToys:
    """Data sets: counts (sets, bins) and auxiliary measurements (sets or 1, parameters)."""

    counts: FloatArray
    aux: FloatArray

    def of(self, rows: IntArray) -> tuple[FloatArray, FloatArray]:
        """Return counts and measurements of some data sets."""
        return self.counts[rows], np.broadcast_to(self.aux, (len(self.counts), self.aux.shape[1]))[rows]


def binned_cls(
    workspace: Mapping[str, Any],
    strength: float = 1.0,
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    n_toys: int = TOYS,
) -> tuple[CLs, FloatArray]:
    """Return CLs of a signal in a workspace with any nuisances, observed and expected.

    A. L. Read, J. Phys. G 28 (2002) 2693; pyhf's toys are those of Convention("qtilde", "randomised").
    """
    if not (np.isfinite(strength) and strength > 0):
        raise PhysicsError(f"signal strength {strength!r} must be positive and finite")
    convention = Convention() if convention is None else convention
    if convention.statistic == "q0" or convention.constraint == "posterior":
        raise PhysicsError(
            f"exact CLs of a workspace: {convention} is not known; take 'ratio' or 'qtilde', 'auxiliary'"
        )
    model = binned_model(workspace)
    data = BinnedToys(model.counts[None, :], model.aux)
    q = [
        statistic_of(model, drawn(model, data, mu, convention, n_toys, rng), strength, convention)
        for mu in (strength, 0.0)
    ]
    observed = float(statistic_of(model, data, strength, convention)[0])
    ordered = [np.sort(values) for values in q]
    levels = np.quantile(ordered[1], QUANTILES, method="inverted_cdf")
    tails = np.array([_beyond(values, np.r_[observed, levels], convention.ties) for values in ordered])
    cls = cls_of_tails(*tails)
    relative = ((1.0 - tails) / np.maximum(tails, 1.0 / n_toys) / n_toys).sum(axis=0)
    label = f"exact CLs, {2 * n_toys} toys, {convention}"
    expected = np.sort(cls[1:])
    if model.masked:
        return CLs(np.nan, 0.0, np.nan, np.nan, np.nan, 2 * n_toys, float(n_toys), label), expected
    error = float(np.maximum(cls[0], 1.0 / n_toys) * np.sqrt(relative[0]))
    tail = tails[:, 0].tolist()
    return CLs(float(cls[0]), error, tail[0], tail[1], observed, 2 * n_toys, float(n_toys), label), expected


def statistic_of(model: BinnedModel, toys: BinnedToys, strength: float, convention: Convention) -> FloatArray:
    """Return the test statistic of each data set at a signal strength, shape (sets,).

    Where fits with and without signal lie in one valley, −ln L between them is convex: its slopes tell
    whether the best strength is one of theirs, or where it is sought. Elsewhere those fits, and the one with
    the best strength, begin at one another's minima too. Data sets that are equal are fitted once.
    """
    if len(toys.aux) == 1 < len(toys.counts):
        counts, place = np.unique(toys.counts, axis=0, return_inverse=True)
        toys = BinnedToys(counts, np.broadcast_to(toys.aux, (len(counts), len(model.start))))
        return statistic_of(model, toys, strength, convention)[place.ravel()]
    both, n = np.repeat([strength, 0.0], len(toys.counts)), len(toys.counts)
    first = fitted(model, *toys.of(np.tile(np.arange(n), 2)), strength=both)
    (one, none), (high, low), (rise, fall) = (np.split(part, 2) for part in (first.x, first.nll, first.slope))
    apart = ~_one_valley(model, toys, first, strength)
    if convention.statistic == "ratio":
        if (rows := np.flatnonzero(np.tile(apart, 2))).size:
            start = np.concatenate([none, one])[rows]
            again = fitted(model, *toys.of(rows % n), strength=both[rows], start=start, further=False)
            first.nll[rows] = np.minimum(first.nll[rows], again.nll)
        return 2.0 * (high - low)
    # q̃ is zero beyond the strength, so that the best one is sought up to it
    best = np.where(fall >= 0.0, low, high)
    if (rows := np.flatnonzero(~apart & (fall < 0.0) & (rise > 0.0))).size:
        part = (fall[rows] / (fall[rows] - rise[rows]))[:, None]
        begin = none[rows] + part * (one[rows] - none[rows])
        range_of = (0.0, strength)
        best[rows] = fitted(model, *toys.of(rows), strength=range_of, start=begin, further=False).nll
    if (rows := np.flatnonzero(apart)).size:
        begin = one[rows]
        begin[:, model.poi] *= 0.7
        free = fitted(model, *toys.of(rows), strength=(0.0, strength), start=(begin, none[rows]))
        again = fitted(model, *toys.of(rows), strength=strength, start=free.x, further=False)
        high[rows], best[rows] = np.minimum(high[rows], again.nll), np.minimum(free.nll, low[rows])
    return 2.0 * np.maximum(high - best, 0.0)


STRAIGHT = 0.05  # of the change of the slope between two fits: how far −ln L may be from a cubic half-way


def _one_valley(model: BinnedModel, toys: BinnedToys, fits: Fitted, strength: float) -> npt.NDArray[np.bool_]:
    """Return whether −ln L leads from fits with signal to those without it as in one smooth convex valley."""
    (one, none), (high, low) = np.split(fits.x, 2), np.split(fits.nll, 2)
    rise, fall = np.split(strength * fits.slope, 2)
    middle = negative_log(model, 0.5 * (one + none), toys.counts, toys.aux)
    bend = rise - fall
    away = np.abs(middle - 0.5 * (high + low) + bend / 8.0)
    convex = (high - low >= fall - SAME) & (high - low <= rise + SAME)
    kinks = vanished(model.events, one) | vanished(model.events, none)
    return (away <= STRAIGHT * bend + SAME) & convex & ~kinks


def _beyond(values: FloatArray, bounds: FloatArray, ties: Ties) -> FloatArray:
    """Return the fractions of sorted values at or above bounds; at mid-P equal ones count half."""
    below, up_to = (np.searchsorted(values, bounds + side * SAME, side="left") for side in (-1.0, 1.0))
    return np.asarray(1.0 - (below if ties == "whole" else 0.5 * (below + up_to)) / len(values))


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
    """Return observed and expected upper limits on the strength by toys."""

    def levels(strength: float) -> FloatArray:
        rng = np.random.default_rng(seed)
        found, expected = binned_cls(workspace, strength, rng=rng, convention=convention, n_toys=n_toys)
        return np.array([found.cls, *expected])

    limits, _ = toy_limits(levels, 1.0 - cl, 0.1 / n_toys)
    return float(limits[0]), limits[1:]


QTILDE = Convention("qtilde")


def binned_asymptotic(model: BinnedModel, strength: float) -> tuple[float, FloatArray]:
    """Return asymptotic CLs of a signal strength by q̃μ, observed (nan while masked) and expected.

    G. Cowan et al., Eur. Phys. J. C 71 (2011) 1554, Eqs. 62 and 64 to 66; the Asimov data are those of
    the fit without signal.
    """
    counts, aux = model.counts[None, :], model.aux
    x = fitted(model, counts, aux, strength=0.0).x
    measured = np.where(np.isfinite(model.tau), model.tau * x, np.where(np.isfinite(model.width), x, aux))
    free = np.where(model.fixed, aux, measured)
    asimov = BinnedToys(np.maximum(model.expected(x), 0.0), free)
    sets = [asimov] if model.masked else [asimov, BinnedToys(counts, aux)]
    every = BinnedToys(*(np.concatenate([getattr(one, name) for one in sets]) for name in ("counts", "aux")))
    q, *seen = statistic_of(model, every, strength, QTILDE).tolist()
    root = float(np.sqrt(q))
    expected = np.asarray(ndtr(-(root - BANDS)) / ndtr(BANDS), dtype=np.float64)
    return (cls_of(seen[0], root) if seen else float("nan")), expected


RANDOMISED = Convention("qtilde", "randomised")
LARGEST = 1e6  # strength up to which the best fit is sought
HALVINGS = 5  # of the step between strengths, at the ends of an interval
TIES = 1e-6  # of the statistic


@dataclass(frozen=True, slots=True)
class GoodnessOfFit:
    """Comparison of a fit with the saturated model, whose expectations are the counts."""

    statistic: float  # 2 ln of the ratio of the likelihoods, constraints of nuisances included
    freedom: int  # Bins minus free parameters without a constraint
    asymptotic: float  # p-value of a χ² of so many degrees of freedom
    # From toys at the fit with measurements drawn anew, and its Monte Carlo error
    p_value: float
    error: float
    toys: int
    strength: float  # Fitted signal strength


def goodness_of_fit(
    workspace: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    n_toys: int = 2_000,
    strength: float | None = None,
) -> GoodnessOfFit:
    """Return how well a workspace fits its data, against the saturated model.

    S. Baker and R. D. Cousins, Nucl. Instrum. Meth. 221 (1984) 437. At few events the statistic is no χ²:
    take the p-value of the toys.
    """
    model = binned_model(workspace)
    if model.masked:
        raise PhysicsError("goodness_of_fit: the workspace is masked, its counts are expected ones")
    range_of: float | tuple[float, float] = (0.0, LARGEST) if strength is None else float(strength)
    data = BinnedToys(model.counts[None, :], model.aux)
    best = fitted(model, data.counts, data.aux, strength=range_of)
    mu = float(best.x[0, model.poi])
    seen = float(_saturated(model, data, range_of)[0])
    every = _saturated(model, drawn(model, data, mu, RANDOMISED, n_toys, rng), range_of)
    p = float(np.mean(every >= seen - TIES))
    unconstrained = ~model.fixed & ~np.isfinite(model.width) & ~np.isfinite(model.tau)
    unconstrained[model.poi] = strength is None
    freedom = model.counts.size - int(unconstrained.sum())
    asymptotic = float(chdtrc(freedom, seen)) if freedom > 0 else float("nan")
    error = float(np.sqrt(max(p * (1.0 - p), 1.0 / n_toys) / n_toys))
    return GoodnessOfFit(seen, freedom, asymptotic, p, error, n_toys, mu)


def _saturated(model: BinnedModel, toys: BinnedToys, strength: float | tuple[float, float]) -> FloatArray:
    """Return 2 ln of the saturated likelihood over that of the fit for each data set."""
    counts, counted = toys.counts, np.isfinite(model.tau)
    aux = np.broadcast_to(toys.aux, (len(counts), len(model.start)))[:, counted]
    gamma = np.maximum(aux / model.tau[counted], 1e-300)
    least = (aux - xlogy(aux, gamma)).sum(axis=1)
    return np.asarray(
        2.0 * (fitted(model, counts, toys.aux, strength=strength).nll - least), dtype=np.float64
    )


def likelihood_scan(workspace: Mapping[str, Any], strengths: npt.ArrayLike) -> FloatArray:
    """Return −2 ln of the profile likelihood ratio of signal strengths, all fitted in step."""
    mu = np.atleast_1d(np.asarray(strengths, dtype=np.float64))
    if mu.ndim != 1 or not np.all(np.isfinite(mu) & (mu >= 0.0)):
        raise PhysicsError(f"likelihood_scan: strengths {strengths!r} must be finite and not negative")
    model = binned_model(workspace)
    data = BinnedToys(model.counts[None, :], model.aux)
    best = fitted(model, data.counts, data.aux, strength=(0.0, LARGEST)).nll[0]
    nll = [fitted(model, data.counts, data.aux, strength=value).nll[0] for value in mu.tolist()]
    return np.asarray(np.maximum(2.0 * (np.array(nll) - best), 0.0), dtype=np.float64)


def strength_interval(
    workspace: Mapping[str, Any],
    *,
    rng: np.random.Generator,
    cl: float = 0.90,
    n_toys: int = 2_000,
    points: int = 24,
) -> tuple[float, float]:
    """Return the Feldman-Cousins interval of the signal strength, nuisances profiled.

    G. J. Feldman and R. D. Cousins, Phys. Rev. D 57 (1998) 3873; toys at the profiled nuisances with
    measurements drawn anew, as B. Sen, M. Walker and M. Woodroofe, Statist. Sinica 19 (2009) 301.
    """
    model = binned_model(workspace)
    if model.masked or not 0.0 < cl < 1.0:
        raise PhysicsError(f"strength_interval: needs an unmasked workspace and cl = {cl!r} between 0 and 1")
    data = BinnedToys(model.counts[None, :], model.aux)
    top = 1.0
    while likelihood_scan(workspace, [top])[0] < 16.0 and top < LARGEST:
        top *= 1.5
    strengths = np.linspace(0.0, top, points)
    kept = np.flatnonzero([_p_value(model, data, mu, n_toys, rng) > 1.0 - cl for mu in strengths.tolist()])
    if not kept.size:
        raise PhysicsError(
            f"strength_interval: none of {points} strengths up to {top:g} is kept; ask for more points"
        )

    def crossing(outside: float, inside: float) -> float:
        for _ in range(HALVINGS):
            middle = 0.5 * (outside + inside)
            if _p_value(model, data, middle, n_toys, rng) > 1.0 - cl:
                inside = middle
            else:
                outside = middle
        return 0.5 * (outside + inside)

    first, last = int(kept[0]), int(kept[-1])
    low = 0.0 if first == 0 else crossing(*strengths[[first - 1, first]].tolist())
    return low, top if last == points - 1 else crossing(*strengths[[last + 1, last]].tolist())


def _p_value(model: BinnedModel, data: BinnedToys, mu: float, n: int, rng: np.random.Generator) -> float:
    """Return P(t ≥ t_obs) of t = −2 ln L(μ)/L(μ̂), μ̂ ≥ 0."""

    def statistic(toys: BinnedToys) -> FloatArray:
        one = fitted(model, toys.counts, toys.aux, strength=mu)
        start = one.x.copy()
        start[:, model.poi] = max(mu, 0.1)
        best = fitted(model, toys.counts, toys.aux, strength=(0.0, LARGEST), start=start)
        return np.maximum(2.0 * (one.nll - best.nll), 0.0)

    seen = float(statistic(data)[0])
    return float(np.mean(statistic(drawn(model, data, mu, RANDOMISED, n, rng)) >= seen - TIES))
