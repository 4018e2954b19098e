"""The estimate of combinatorial pairs by any method: R, the spectrum without them, its error, alarms."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.pairs import Pairs
from gammastar.core.records import BoolArray, FloatArray, PairHists, Spectrum, divided, filled, flow_free
from gammastar.subtract.fields import smooth_background
from gammastar.subtract.mixing import mixed_spectrum, r_factor, with_multiplicity
from gammastar.subtract.weights import (
    LOW_COUNT,
    LOW_FRACTION,
    Coarse,
    Formula,
    LowCountWarning,
    Removed,
    background,
    bootstrap_covariance,
    cell_values,
    checked_r_factor,
    event_weights,
    low_count_fraction,
    pair_cells,
    regions,
    same_sign,
)


@dataclass(frozen=True, eq=False)
class ChargeRatio:
    """R of the combinatorial pairs.

    Attributes
    ----------
    value, sigma : float or NDArray, shape of the cells
    mixed : Pairs or None
        The mixed pairs, where there are any.
    """

    value: float | FloatArray
    sigma: float | FloatArray
    mixed: Pairs | None = None

    @property
    def mean(self) -> tuple[float, float]:
        """R and its error, averaged over cells."""
        return float(np.mean(self.value)), float(np.mean(self.sigma))

    def with_multiplicity(self, r_mult: float, sigma: float) -> ChargeRatio:
        """Return R of the acceptance times that of the multiplicities.

        Parameters
        ----------
        r_mult : float
            R of the multiplicities.
        sigma : float
            Its standard deviation.
        """
        r, error = with_multiplicity(self.value, self.sigma, r_mult, sigma)
        if np.ndim(self.value):
            return replace(self, value=r, sigma=error)
        return replace(self, value=float(r), sigma=float(error))

    def of(self, method: Any) -> tuple[float | FloatArray, float | FloatArray]:
        """Return R and its error for a method as `combinatorial` takes it: 1 ± 0 where it knows no R."""
        return (self.value, self.sigma) if method_of(method).takes_r else (1.0, 0.0)


def mixed_ratio(mixed: Pairs, axes: Sequence[Any], *, coarse: Coarse | None = None) -> ChargeRatio:
    """Return R of mixed pairs: one number, or one per coarse region; parameters as for `r_factor`.

    Parameters
    ----------
    mixed : Pairs
        Of mixed events.
    coarse : Coarse, optional
        Groups of bins with a ratio of their own.
    """
    r, sigma = r_factor(mixed, axes, coarse=coarse)
    if coarse:
        return ChargeRatio(r, sigma, mixed)
    return ChargeRatio(float(r.flat[0]), float(sigma.flat[0]), mixed)


@dataclass(frozen=True, eq=False)
class Combinatorial:
    """The subtraction of combinatorial pairs."""

    spectrum: Spectrum  # Without them
    sign: Callable[[Pairs], FloatArray]  # Returns the signed weights of pairs
    mixed: Removed | None = None  # Mixed pairs to remove, with weights


def own_subtraction(function: object, name: str) -> Callable[[PairHists], Spectrum]:
    """Return a function of the user that subtracts, whose result is checked."""
    if not callable(function):
        msg = f"{name}: {type(function).__name__} is no function of PairHists that returns a Spectrum"
        raise UserError(msg)

    def checked(hists: PairHists) -> Spectrum:
        found: Any = function(hists)
        problem = _wrong_spectrum(found, hists)
        if problem:
            raise UserError(f"{name}: {problem}")
        subtracted: Spectrum = found
        return subtracted

    return checked


def _wrong_spectrum(found: object, hists: PairHists) -> str:
    """Return what is wrong with the result of a subtraction of the user, "" if nothing is."""
    if not isinstance(found, Spectrum):
        return f"returns {type(found).__name__}; it must return a gammastar Spectrum"
    scale = max(float(np.abs(found.cov).max(initial=0.0)), np.finfo(float).tiny)
    rules = (
        (tuple(found.hist.axes) != tuple(hists.os.axes), "its axes are not those of hists.os"),
        (found.quantity != "counts", f"its result is {found.quantity!r}; it must be 'counts'"),
        (
            not np.allclose(found.cov, found.cov.T, rtol=0, atol=1e-9 * scale),
            "its covariance is not symmetric",
        ),
        (bool((np.diag(found.cov) < 0).any()), "its covariance has a negative variance"),
    )
    return next((text for broken, text in rules if broken), "")


def combinatorial(
    hists: PairHists,
    ratio: ChargeRatio,
    *,
    method: Any,
    coarse: Coarse | None = None,
    mixed: PairHists | None = None,
) -> Combinatorial:
    """Return the spectrum without combinatorial pairs, and how pairs are weighted for it.

    Parameters
    ----------
    hists : PairHists
        Of all pairs.
    method : {"likelihood", "regions", "geometric mean", "sum", "mixed events"} or function
        "likelihood": ++ and −− pairs are counts of smooth fields; "mixed events": `mixed_spectrum`; others as
        for `same_sign`; a function is one of the user (`own_subtraction`), and a pair weighs the share of
        its cell that is left.
    mixed : PairHists, optional
        The mixed pairs of `ratio` on the same axes, for "mixed events".

    Raises
    ------
    UserError
        If "mixed events" has no mixed pairs.
    """
    if callable(method):
        axes = tuple(hists.os.axes)
        left, all_pairs = method(hists), np.asarray(hists.os.values(), dtype=np.float64)
        part_left = divided(left.values, all_pairs)
        return Combinatorial(
            left, lambda part: np.where(part.os, part.weight * cell_values(part, axes, part_left), 0.0)
        )
    return method_of(method).estimate(hists, ratio, coarse, mixed)


def _by_likelihood(
    hists: PairHists, ratio: ChargeRatio, _coarse: Coarse | None, _mixed: PairHists | None
) -> Combinatorial:
    axes, smooth = tuple(hists.os.axes), smooth_background(hists, ratio.value, ratio.sigma)
    common = 0.0 if np.ndim(ratio.value) else float(ratio.sigma) / float(ratio.value)
    slope = smooth.r_factor * smooth.ratio, smooth.r_factor / smooth.ratio
    factors = np.stack([np.ones_like(smooth.ratio), -slope[0], -slope[1]])

    def signed(part: Pairs) -> FloatArray:
        cell, kind = pair_cells(part, axes), part.pp + 2 * part.mm
        return np.where(cell >= 0, part.weight * factors[kind, cell], 0.0)

    return Combinatorial(smooth.subtracted(hists, common), signed)


def _by_formula(
    formula: Formula, hists: PairHists, ratio: ChargeRatio, coarse: Coarse | None, _mixed: PairHists | None
) -> Combinatorial:
    r, sigma = ratio.of(formula)
    with warnings.catch_warnings():  # `few_like_sign` says it in more words
        warnings.simplefilter("ignore", LowCountWarning)
        spectrum = same_sign(hists, method=formula, r_factor=r, r_factor_sigma=sigma, coarse=coarse)
    axes = tuple(hists.os.axes)
    options: Any = {"hists": hists, "method": formula, "r_factor": r, "coarse": coarse}
    return Combinatorial(spectrum, lambda part: event_weights(part, axes, **options))


def _by_mixed_events(
    hists: PairHists, ratio: ChargeRatio, coarse: Coarse | None, mixed: PairHists | None
) -> Combinatorial:
    axes = tuple(hists.os.axes)
    if ratio.mixed is None or mixed is None:
        raise UserError("subtract.method = 'mixed events' needs mixed events")
    spectrum = mixed_spectrum(hists, mixed, coarse=coarse)
    shape: FloatArray = np.asarray(mixed.os.values(), dtype=np.float64)
    taken = hists.os.values() - spectrum.values
    scale: FloatArray = divided(taken, shape)
    os = ratio.mixed.select(ratio.mixed.os)
    inside = np.ones_like(shape)
    return Combinatorial(
        spectrum,
        lambda part: np.where(part.os, part.weight * cell_values(part, axes, inside), 0.0),
        (os, os.weight * cell_values(os, axes, scale)),
    )


@dataclass(frozen=True, slots=True)
class Method:
    """A way to estimate combinatorial pairs: how, and what it takes."""

    estimate: Callable[[PairHists, ChargeRatio, Coarse | None, PairHists | None], Combinatorial]
    takes_r: bool = True  # R multiplies the estimate
    takes_regions: bool = False  # `coarse`
    signed: bool = True  # Pairs of like sign have weights
    # Neither R nor the counts per cell say its covariance: no bootstrap, no alarm of few pairs
    gives_covariance: bool = False
    formula: Formula = "regions"  # What stands for it where pairs are binned in other ways
    mixes: bool = False  # Needs mixed events
    by_cell: bool = False  # R is one of each cell, with its error, where mixed events give it


METHODS: Mapping[str, Method] = {
    "likelihood": Method(_by_likelihood, gives_covariance=True, by_cell=True),
    "regions": Method(partial(_by_formula, "regions"), takes_regions=True),
    "geometric mean": Method(partial(_by_formula, "geometric mean"), formula="geometric mean"),
    "sum": Method(partial(_by_formula, "sum"), formula="sum", takes_r=False),
    "mixed events": Method(
        _by_mixed_events, takes_r=False, takes_regions=True, signed=False, gives_covariance=True, mixes=True
    ),
}
"""By name; a new one is a line."""
_OWN = replace(METHODS["mixed events"], mixes=False, takes_regions=False)


def method_of(method: Any) -> Method:
    """Return the method of a name; one of the user, a function or ``file.py:function``, takes nothing."""
    return METHODS.get(method, _OWN) if isinstance(method, str) else _OWN


def shift_by_r(hists: PairHists, spectrum: Spectrum, ratio: ChargeRatio) -> FloatArray:
    """Return what one standard deviation of R does to the spectrum, shape (n_cells,); it is linear in R."""
    size = hists.os.values() - spectrum.values
    return np.asarray(-size * np.asarray(ratio.sigma) / np.asarray(ratio.value)).ravel()


def with_bootstrap(
    parts: Iterable[Pairs],
    hists: PairHists,
    spectrum: Spectrum,
    ratio: ChargeRatio,
    *,
    method: Any,
    n_replicas: int,
    **options: Any,
) -> Spectrum:
    """Return the spectrum with the covariance of a bootstrap of events, and that of R.

    Parameters
    ----------
    parts : iterable of Pairs
        All pairs.
    hists, spectrum, ratio, method
        As for and from `combinatorial`.
    n_replicas, options
        As for `bootstrap_covariance`: `coarse` and `dataset`.

    Raises
    ------
    UserError
        If there are too few replicas for the cells.
    """
    axes, n_cells = tuple(hists.os.axes), spectrum.cov.shape[0]
    if n_replicas < n_cells + 2:
        msg = f"subtract.bootstrap = {n_replicas}: {n_cells} cells need at least {n_cells + 2} replicas"
        raise UserError(msg)
    r, sigma = ratio.of(method)
    cov = bootstrap_covariance(parts, axes, method=method, r_factor=r, n_replicas=n_replicas, **options)
    shift = shift_by_r(hists, spectrum, ChargeRatio(r, sigma))
    # cells that no replica fills keep the variance of the formula
    empty = np.where(np.diag(cov) > 0, 0.0, np.diag(spectrum.cov))
    cov = cov + np.diag(empty) + np.outer(shift, shift)
    return replace(spectrum, hist=filled(axes, spectrum.values, np.diag(cov)), cov=cov)


def few_like_sign(hists: PairHists, *, method: Any = "regions", coarse: Coarse | None = None) -> str:
    """Say where the like-sign pairs are too few for the estimate, or for its error; "" if they are not.

    Parameters
    ----------
    method : str
        As `combinatorial` takes it.
    coarse : Coarse, optional
        Groups of bins with a ratio of their own.
    """
    n_pp, n_mm = float(hists.pp.values().sum()), float(hists.mm.values().sum())
    cure = "; method = 'likelihood' gives such cells a variance"
    seen = f"{n_pp:g} ++ and {n_mm:g} -- pairs inside the axes"
    if min(n_pp, n_mm) == 0:
        none = n_pp + n_mm == 0 or method == "geometric mean"
        size = "none" if none else "that of the other charge alone"
        return (
            f"subtract: {seen}: the background is {size}, and its error does not know of the missing ones"
            + cure
        )
    low = low_count_fraction(hists, method=method, coarse=coarse)
    if low <= LOW_FRACTION:
        return ""
    where, cure = ("coarse regions", "widen `coarse`") if method == "regions" else ("cells", "use 'regions'")
    return (
        f"subtract: {seen}, {low:.0%} of them in {where} with fewer than {LOW_COUNT:g} of one "
        f"charge, where 2R√(N++ N--) is biased low; {cure}{cure}"
    )


@dataclass(frozen=True, slots=True)
class NegativeYield:
    """A cell whose subtracted yield is negative beyond its error."""

    index: tuple[int, ...]  # Position along each axis
    bounds: tuple[tuple[str, float, float], ...]  # Name, lower and upper edge of each axis
    value: float
    sigma: float

    def __str__(self) -> str:
        """Return the alarm as a sentence."""
        place = ", ".join(f"{name} {low:g}-{high:g}" for name, low, high in self.bounds)
        cure = "look for split tracks (like-sign pairs at small opening angle) or a wrong R"
        return f"{place}: {self.value:.1f} ± {self.sigma:.1f}; {cure}"


def negative_yields(spectrum: Spectrum, *, threshold: float = 3.0) -> tuple[NegativeYield, ...]:
    """Return the cells whose yield lies more than `threshold` standard deviations below zero.

    Parameters
    ----------
    threshold : float
        In standard deviations, positive.
    """
    values = spectrum.values
    sigma = np.sqrt(np.clip(np.diag(spectrum.cov), 0, None)).reshape(values.shape)
    edges = [np.asarray(axis.edges) for axis in spectrum.hist.axes]
    found = []
    for index in np.argwhere((values < -threshold * sigma) & (values < 0)):
        place = tuple(int(i) for i in index)
        at = zip(spectrum.hist.axes, edges, place, strict=True)
        bounds = tuple((axis.name, float(edge[i]), float(edge[i + 1])) for axis, edge, i in at)
        found.append(NegativeYield(place, bounds, float(values[place]), float(sigma[place])))
    return tuple(found)


def control_cells(axes: Sequence[Any], ranges: Mapping[str, tuple[float, float]]) -> BoolArray:
    """Return the cells whose centre lies inside a range per axis, shape of the cells."""
    inside = np.ones(tuple(len(axis) for axis in axes), dtype=bool)
    for position, axis in enumerate(axes):
        low, high = ranges.get(axis.name, (-np.inf, np.inf))
        along = [1] * inside.ndim
        along[position] = len(axis)
        inside &= ((axis.centers >= low) & (axis.centers < high)).reshape(along)
    if not inside.any():
        raise UserError(f"subtract.control = {dict(ranges)}: no cell of [select] has its centre in there")
    return inside


def control_ratio(
    hists: PairHists,
    region: BoolArray,
    *,
    method: Any = "regions",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> tuple[float, float]:
    """Return opposite-sign pairs over estimated background in a region without signal, and its error.

    A ratio away from 1 means that R lacks its multiplicity part, or that there is signal.

    Parameters
    ----------
    region : NDArray of bool, shape of the cells
        Cells without signal, for example a vertex sideband.
    method, r_factor, coarse
        As for `same_sign`.

    Returns
    -------
    ratio, sigma : float
        nan without background in the region.

    Raises
    ------
    UserError
        If `region` does not have the shape of the cells.
    """
    shape = tuple(len(axis) for axis in hists.os.axes)
    if region.shape != shape:
        raise UserError(f"control_ratio: region has shape {region.shape}, the cells have {shape}")
    chosen = region.ravel()
    r_cell = checked_r_factor(method, r_factor, shape)
    size, cov = background(hists, method=method, r_factor=r_cell, region=regions(hists.os.axes, coarse))
    os, var_os = flow_free(hists.os)
    total, estimate = float(os[chosen].sum()), float(size[chosen].sum())
    if estimate <= 0:
        return float("nan"), float("nan")
    ratio = total / estimate
    variance = float(var_os[chosen].sum()) + ratio**2 * float(cov[np.ix_(chosen, chosen)].sum())
    return ratio, float(np.sqrt(variance)) / estimate
