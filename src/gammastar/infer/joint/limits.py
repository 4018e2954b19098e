"""Limits on the signal strength of a joint likelihood: asymptotic, and from full pseudo-experiments.

The statistic is q̃_μ, the profile likelihood ratio with 0 ≤ μ̂ ≤ μ (G. Cowan et al., Eur. Phys. J. C 71 (2011)
1554). A pseudo-experiment draws every count anew, of the pairs as of the search, and every auxiliary
measurement, at the parameters fitted to the data. Data sets with the same count of the search are ordered by
their pairs, so that no count is a tie: with pairs that leave no error a limit is that of
P(N < n) + ½ P(N = n).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.interpolate import CubicSpline
from scipy.special import log_ndtr, ndtr

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Limit
from gammastar.core.sampling import stream
from gammastar.infer.discovery import Ranking
from gammastar.infer.joint.expectation import Arrays, Fits, Point, arrays_of, asimov, fit
from gammastar.infer.joint.model import JointData, JointModel
from gammastar.infer.toys import TIE, CLs, cls_of_tails, toy_limits

TOYS = 1000  # of each hypothesis and strength
MEDIAN = 2
FEW = 3.0
SCARCE = 0.1  # measured pairs: fewer of them set no scale of the signal
NEAREST, COARSE, FINE = 1e-2, 45, 6  # strengths of a scan, and those next to a crossing
FARTHEST = 1e3  # times the strength of a few events: a signal that is not excluded there has no limit
BANDS = (-2.0, -1.0, 0.0, 1.0, 2.0)


def q_tilde(
    arrays: Arrays, data: JointData, strength: float | FloatArray, at: Fits | None = None
) -> FloatArray:
    """Return q̃ of each data set at its signal strength, shape (n,).

    Where −ln L falls with μ at the strength, μ̂ lies beyond it and q̃ is zero: no second fit is needed.
    """
    fixed = fit(arrays, data, strength) if at is None else at
    _check_ended(fixed)
    q, rows = np.zeros(len(data)), np.flatnonzero(fixed.slope > 0)
    if rows.size:
        most, start = np.broadcast_to(strength, (len(data),))[rows], fixed.point.part(rows)
        free = fit(arrays, data.part(rows), None, start, most=most)
        _check_ended(free)
        q[rows] = 2.0 * np.maximum(fixed.value[rows] - free.value, 0.0)
    return q


def _check_ended(fits: Fits) -> None:
    """Refuse fits that have not converged: their q̃ would count as small."""
    missed = int((~fits.done).sum())
    require(
        missed == 0,
        f"joint likelihood: {missed} of {fits.done.size} fits did not converge; merge cells or bins",
    )


def draw_joint(arrays: Arrays, point: Point, n: int, rng: np.random.Generator) -> JointData:
    """Return n pseudo-experiments at the parameters of each of some data sets, one lot after the other."""
    own = asimov(arrays, point).part(np.repeat(np.arange(len(point.core)), n))
    return JointData(
        rng.poisson(own.pairs).astype(np.float64),
        rng.poisson(own.search).astype(np.float64),
        own.auxiliary + rng.standard_normal(own.auxiliary.shape),
        own.simulated + arrays.sigma * rng.standard_normal(own.simulated.shape),
    )


def tail_probabilities(
    arrays: Arrays, data: JointData, strength: float, n: int, rng: np.random.Generator
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return P(q̃ ≥ observed) with and without signal, and q̃ itself, of each data set: shape (sets,) each."""
    if not (np.isfinite(strength) and strength > 0):
        raise PhysicsError(f"joint_cls: strength = {strength!r} must be positive")
    fits = [fit(arrays, data, mu) for mu in (strength, 0.0)]
    observed = q_tilde(arrays, data, strength, fits[0])
    beyond = []
    for found in fits:
        toys = draw_joint(arrays, found.point, n, rng)
        q = q_tilde(arrays, toys, strength).reshape(-1, n)
        beyond.append(np.mean(q >= observed[:, None] - TIE, axis=1))
    return beyond[0], beyond[1], observed


def joint_cls(arrays: Arrays, data: JointData, strength: float, n: int, rng: np.random.Generator) -> CLs:
    """Return CLs of a signal strength from pseudo-experiments of pairs and search."""
    clsb, clb, q = (float(x[0]) for x in tail_probabilities(arrays, data, strength, n, rng))
    label = f"q̃μ of pairs and search, {n} + {n} pseudo-experiments"
    cls = float(cls_of_tails(clsb, clb))
    if clb <= 0 or clsb <= 0:
        return CLs(cls, max(cls, 1.0 / n), clsb, clb, q, 2 * n, float(n), label)
    error = cls * float(np.sqrt((1 - clsb) / (n * clsb) + (1 - clb) / (n * clb)))
    return CLs(cls, error, clsb, clb, q, 2 * n, float(n), label)


@dataclass(frozen=True, slots=True)
class JointLimits:
    """How limits of a joint likelihood are set."""

    cl: float = 0.90
    method: str = "auto"  # Pseudo-experiments at any count, as "exact"; or "asymptotic"
    n_toys: int = TOYS  # Of each hypothesis and strength
    hopeless: bool = False  # Look first whether any strength is excluded
    bands: bool = True  # Set all expected limits; else the median alone, the others are nan


def joint_asymptotic(model: JointModel, *, cl: float = 0.90) -> Limit:
    """Return the asymptotic limit on μ, and those expected without signal.

    Eqs. 62-66 and 80 of Cowan et al. The expected data are those of the fit without signal: the pairs as
    fitted, the search at its background. While masked the pairs are as measured, which gives the same fit.
    """
    unit = unit_of(model)
    model, masked = model.scaled(unit), model.observed is None
    arrays = arrays_of(model)
    data = model.with_search(model.background) if masked else model.data
    without = fit(arrays, data, 0.0)
    _check_ended(without)
    fitted = asimov(arrays, without.point)
    known = (
        {"asimov": replace(data, search=fitted.search)} if masked else {"asimov": fitted, "observed": data}
    )

    def roots(strengths: FloatArray) -> dict[str, FloatArray]:
        every = np.arange(len(strengths)) * 0
        return {name: np.sqrt(q_tilde(arrays, one.part(every), strengths)) for name, one in known.items()}

    def levels(strengths: FloatArray) -> FloatArray:
        """Return ln of CLs over its level: bands and observation, shape (6, strengths)."""
        found = roots(strengths)
        a, bands = found["asimov"], np.array(BANDS)[:, None]
        rows = log_ndtr(bands - a) - log_ndtr(bands)
        if not masked:
            root = found["observed"]
            t = np.where(root <= a, root - a, (root**2 - a**2) / (2.0 * np.maximum(a, 1e-12)))
            rows = np.concatenate([rows, [log_ndtr(-t - a) - log_ndtr(-t)]])
        return np.asarray(rows - np.log(1.0 - cl))

    found = unit * crossings(levels)
    observed = np.nan if masked else float(found[5])
    return Limit(observed, found[:5], cl, "asymptotic CLs, q̃μ of pairs and search", 0.0)


def unit_of(model: JointModel) -> float:
    """Return the strength at which the fitted pairs predict a few events, in which fits are well scaled."""
    own = model.with_search(model.background)
    fitted = fit(arrays_of(model), own, 0.0).point.core[0, 1 : 1 + len(model.pairs)] * model.pairs
    each, background = model.signal.sum(axis=1), float(np.sum(model.background))
    excess = 0.0 if model.observed is None else float(np.sum(model.observed)) - background
    size = max(FEW, 2.0 * float(np.sqrt(background)), excess)
    if model.in_situ is not None:
        each = each + model.in_situ.sum(axis=0)
        size = max(size, 2.0 * float(np.sqrt(model.counts[0].sum())))
    # pairs that are fitted to almost nothing predict almost nothing, which is no scale
    per_pair = float(model.pairs @ each) / float((model.response @ model.pairs).sum())
    return size / max(float(fitted @ each), SCARCE * per_pair)


def crossings(levels: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return where falling functions of ln μ cross zero; inf where they do not up to `FARTHEST`.

    On a coarse grid of strengths, then on fine ones around each crossing, with a cubic between their points.
    """
    coarse = np.geomspace(NEAREST, FARTHEST, COARSE)
    rows = levels(coarse)
    below = rows < 0
    at = np.clip(below.argmax(axis=1), 1, len(coarse) - 1)
    fine = [np.geomspace(coarse[k - 1], coarse[k], FINE) for k in at]
    values = levels(np.concatenate(fine)).reshape(len(rows), len(at), FINE)
    result = np.full(len(rows), np.inf)
    for r, points in enumerate(fine):
        if below[r].any():
            x, y = np.log(points), values[r, r]
            roots = CubicSpline(x, y).roots(extrapolate=False)
            result[r] = np.exp(roots[0]) if roots.size else points[-1 if y[-1] > 0 else 0]
    return result


def joint_limit(model: JointModel, options: JointLimits | None = None, *, seed: int = 0) -> Limit:
    """Return the CLs limit on μ, observed and expected.

    A limit is inf where the pairs do not bound the signal from below: a content of zero of every cell that
    the search sees is then as likely as needed, and no strength is excluded. Where pseudo-experiments are too
    few to say so, it is an error for observed events, and the method names the counts of expected ones.
    """
    asked = JointLimits() if options is None else options
    background = float(np.sum(model.background))
    seen = None if model.observed is None else float(np.sum(model.observed))
    if asked.method == "asymptotic":
        return joint_asymptotic(model, cl=asked.cl)
    from scipy.stats import poisson

    if len(model.background) != 1:
        raise PhysicsError(
            f"joint_limit: pseudo-experiments need a search of one bin, not {len(model.background)}; "
            "take method = 'asymptotic'"
        )
    unit = unit_of(model)
    arrays = arrays_of(model.scaled(unit))
    counts = poisson.ppf(ndtr(BANDS), background) if background > 0 else np.zeros(5)
    wanted = set(counts.tolist() if asked.bands else counts[MEDIAN : MEDIAN + 1].tolist())
    wanted |= set() if seen is None else {seen}
    start = float(joint_asymptotic(replace(model, observed=None), cl=asked.cl).expected[MEDIAN]) / unit
    asked = asked if np.isfinite(start) else replace(asked, hopeless=True)
    start = start if np.isfinite(start) else 1.0
    found: dict[float, tuple[float, float]] = {}
    unclear: list[float] = []
    for count in sorted(wanted):
        limit, error, told = _toy_limit(arrays, model.with_search([count]), asked, seed, start)
        found[count] = limit, error
        unclear += [] if told else [count]
        if not told and count == seen:
            raise PhysicsError(
                f"joint limit: none of {asked.n_toys} pseudo-experiments without signal is as extreme as the "
                f"{count:g} observed events, background {background:g}: raise n_toys, or mend the background"
            )
        start = limit if 0.0 < limit < np.inf else start
    bands = np.array([found.get(count, (np.nan, 0.0))[0] for count in counts.tolist()])
    observed, error = found[float(counts[MEDIAN]) if seen is None else seen]
    label = f"CLs by {asked.n_toys} + {asked.n_toys} pseudo-experiments of pairs and search, q̃μ"
    if unclear:
        label += (
            f"; too few for limits at {', '.join(f'{count:g}' for count in unclear)} events: raise n_toys"
        )
    return Limit(np.nan if seen is None else unit * observed, unit * bands, asked.cl, label, unit * error)


def _toy_limit(
    arrays: Arrays, data: JointData, asked: JointLimits, seed: int, start: float
) -> tuple[float, float, bool]:
    """Return the limit of one data set, its error, and whether pseudo-experiments tell it."""
    alpha, errors, ratios = 1.0 - asked.cl, dict[float, float](), list[float]()

    def levels(strength: float) -> list[float]:
        found = joint_cls(arrays, data, strength, asked.n_toys, stream(seed, "joint"))
        ratios.append(found.clb)
        errors[strength] = found.error / found.cls if found.cls > 0 else 1.0
        return [found.cls]

    if asked.hopeless and levels(FARTHEST)[0] > alpha:
        return float("inf"), 0.0, min(ratios) > 0.0
    smallest, farthest = 0.5 / asked.n_toys, FARTHEST / start
    limits, slopes = toy_limits(levels, alpha, smallest, start=start, farthest=farthest)
    limit, slope = float(limits[0]), abs(float(slopes[0])) * asked.cl  # of ln CLs
    if not np.isfinite(limit) or limit == 0.0:
        return limit, 0.0, min(ratios) > 0.0
    nearest = min(errors, key=lambda mu: abs(np.log(mu / limit)))
    return limit, limit * errors[nearest] / max(slope, 0.1), True


LARGEST = 1e12
"""Events that stand for no limit at all."""
LEAST = 0.3  # events below which a coupling is of no interest


@dataclass(frozen=True, slots=True, eq=False)
class JointLevels:
    """Limits over a plane of n masses and k couplings."""

    observed: FloatArray  # Events; nan while masked, shape (n, k)
    expected: FloatArray  # shape (n, k, 5)
    typical: Limit  # In the middle of the plane, with the method
    # Events of a median discovery by its significance, shape (n, k)
    discovery: Mapping[float, FloatArray] = field(default_factory=dict)
    # Events at the present exposure that are the median limit of another one, by this exposure, shape (n, k)
    projections: Mapping[float, FloatArray] = field(default_factory=dict)
    methods: Mapping[str, str] = field(default_factory=dict)  # How "discovery" and "projection" were found
    # (mass, coupling, d ln N/d ln g) -> pulls and impacts there; None where there is no limit
    ranked: Callable[[int, int, float], Ranking | None] | None = None


def couplings_of(signal: FloatArray, n: int) -> npt.NDArray[np.intp]:
    """Return the places of at most n couplings at which a limit is worth its time."""
    if not signal.any():
        return np.zeros(0, dtype=np.intp)
    here = np.flatnonzero(signal >= LEAST)
    if not here.size:
        return np.array([signal.argmax()])
    return np.unique(np.rint(np.linspace(here[0], here[-1], n)).astype(np.intp))


def levels_over(
    signal: FloatArray, places: Sequence[npt.NDArray[np.intp]], limit: Callable[[int, int], Limit]
) -> JointLevels:
    """Return limits over a plane from those on μ at some couplings of each mass.

    A limit on μ times the signal is one in events. It changes with the coupling as the cells of the search
    do; its logarithm is straight between the couplings, constant beyond, in the number of the coupling.
    """
    found: list[Limit] = []

    def both(row: int, column: int) -> list[float]:
        found.append(limit(row, column))
        return [found[-1].observed, *found[-1].expected.tolist()]

    values = events_over(signal, places, both)
    if not found:
        values = np.full((*signal.shape, 6), LARGEST)
    masked = not found or not np.isfinite([x.observed for x in found]).any()
    observed = np.full(signal.shape, np.nan) if masked else values[..., 0]
    return JointLevels(observed, values[..., 1:], _typical(found, values, signal))


def events_over(
    signal: FloatArray,
    places: Sequence[npt.NDArray[np.intp]],
    strengths: Callable[[int, int], Sequence[float]],
) -> FloatArray:
    """Return strengths at some couplings of each mass as events over a plane, shape (n, k, strengths)."""
    n, k = signal.shape
    known = {
        row: np.array([strengths(row, int(column)) for column in columns]) * signal[row, columns, None]
        for row, columns in enumerate(places)
        if len(columns)
    }
    values = np.full((n, k, next((x.shape[1] for x in known.values()), 1)), LARGEST)
    for row, events in known.items():
        logs = np.log(np.clip(np.nan_to_num(events, nan=LARGEST, posinf=LARGEST), 1e-12, LARGEST))
        for j in range(events.shape[1]):
            values[row, :, j] = np.exp(np.interp(np.arange(k), places[row], logs[:, j]))
    return values


def _typical(found: Sequence[Limit], values: FloatArray, signal: FloatArray) -> Limit:
    """Return the limit in events where the signal is farthest above it."""
    row, column = np.unravel_index(int(np.argmax(signal / values[..., 3])), signal.shape)
    seen, expected = values[row, column, 0], values[row, column, 1:]
    if not found:
        return Limit(np.nan, np.full(5, LARGEST), 0.9, "no signal in any cell", 0.0)
    methods = list(dict.fromkeys(x.method for x in found))
    relative = [x.mc_error / x.expected[2] for x in found if np.isfinite(x.expected[2]) and x.expected[2] > 0]
    error = float(np.median(relative or [0.0]) * expected[2])
    masked = not np.isfinite([x.observed for x in found]).any()
    return Limit(
        np.nan if masked else float(seen), expected, found[0].cl, f"joint: {' or '.join(methods)}", error
    )
