"""Signals that would be discovered, the significance of a count, projections to other exposures."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.limits import ASYMPTOTIC_FROM, AVERAGED_FROM, chosen_method, upper_limit
from gammastar.physics.averaged_counts import at_least, at_most


def discovery_yield(
    background: float,
    background_sigma: float = 0.0,
    *,
    significance: float = 5.0,
    signal_sigma: float = 0.0,
) -> float:
    """Return the signal that reaches a significance in half of all experiments.

    Parameters
    ----------
    background : float
        Median expected background.
    background_sigma, signal_sigma : float
        Standard deviations of the logarithm, averaged over.
    significance : float
        One-sided, in standard deviations: 3 for evidence, 5 for a discovery.

    Returns
    -------
    float
        Expected signal events s with P(n ≥ n₀ | s + b) = 1/2, where n₀ is the smallest count with
        P(n ≥ n₀ | b) below the tail of the significance. Exact, by enumeration.

    Raises
    ------
    PhysicsError
        For negative values.

    Notes
    -----
    Without any background one event would do; s is then ln 2.

    Examples
    --------
    >>> round(discovery_yield(0.0), 4)
    0.6931
    >>> round(discovery_yield(0.01), 3)  # three events: P(n ≥ 3) = 1.7e-7
    2.664
    """
    for name, value in (
        ("background", background),
        ("background_sigma", background_sigma),
        ("signal_sigma", signal_sigma),
        ("significance", significance),
    ):
        if not (np.isfinite(value) and value >= 0):
            msg = f"discovery_yield: {name} = {value!r} must be finite and not negative"
            raise PhysicsError(msg)
    needed = needed_count(background, background_sigma, significance)

    def missing(log_signal: float) -> float:
        signal = np.array([np.exp(log_signal)])
        under = at_most(signal, np.array([needed - 1.0]), background, (signal_sigma, background_sigma))
        return float(under[0]) - 0.5

    if missing(-20.0) <= 0:
        return 0.0
    return float(np.exp(brentq(missing, -20.0, np.log(needed + 10.0) + 6.0 * signal_sigma, xtol=1e-10)))


def needed_count(background: float, background_sigma: float, significance: float) -> float:
    """Return the smallest count that reaches a significance over a background."""
    if background == 0:
        return 1.0
    tail = float(ndtr(-significance))
    low, high = 0.0, 1.0
    while at_least(high, background, background_sigma) > tail:
        low, high = high, 2.0 * high
    while high - low > max(1.0, 1e-12 * high):
        middle = np.floor((low + high) / 2)
        low, high = (middle, high) if at_least(middle, background, background_sigma) > tail else (low, middle)
    return float(high)


def observed_significance(
    observed: int | Literal["masked", "asimov"], background: float, background_sigma: float = 0.0
) -> float:
    """Return the significance of a count over its background, in standard deviations (one-sided).

    Parameters
    ----------
    observed : int or "masked" or "asimov"
        Without an observation the result is nan: a masked search has no significance either.
    background, background_sigma : float
        Median, and standard deviation of the logarithm, averaged over.

    Returns
    -------
    float
        z with P(n ≥ observed | b) = 1 − Φ(z); negative where fewer events than expected are seen, infinite
        for any event over a background of zero.

    Examples
    --------
    >>> round(observed_significance(3, 0.01), 2)  # P(n ≥ 3) = 1.7e-7
    5.1
    """
    if isinstance(observed, str):
        return float("nan")
    if observed < 0 or not (np.isfinite(background) and background >= 0 and background_sigma >= 0):
        msg = f"observed_significance: n = {observed!r} and b = {background!r} must not be negative"
        raise PhysicsError(msg)
    if observed == 0:
        return float("-inf")
    if background == 0:
        return float("inf")
    return float(-ndtri(at_least(observed, background, background_sigma)))


def projected_yields(
    background: float,
    exposure: npt.ArrayLike,
    *,
    background_sigma: float = 0.0,
    signal_sigma: float = 0.0,
    cl: float = 0.90,
    significance: float | None = None,
    observed: int | Literal["masked", "asimov"] = "masked",
    **options: Any,
) -> FloatArray:
    """Return the signal needed at the present exposure if there were more of it.

    Parameters
    ----------
    background : float
        Background expected at the present exposure; it grows with the exposure, its relative error stays.
    exposure : array_like, shape (n,)
        Protons on target in units of the present ones.
    background_sigma, signal_sigma : float
        Standard deviations of the logarithm.
    cl : float
        Of the median expected limit.
    significance : float, optional
        If given, the median discovery at this significance instead of the limit; it averages over nuisances
        whatever the method: a background at its fitted value follows any excess.
    observed : int or "masked" or "asimov"
        Of the present exposure. At other ones it only counts for the choice of "auto".
    options
        `method`, `asymptotic_from`, `averaged_from` and `randomise_pot` of `upper_limit`; events are those at
        each exposure.

    Returns
    -------
    NDArray, shape (n,)
        In events at the present exposure, to be given to `reach` as the limit. At an exposure of one it is
        the median of `upper_limit` with the same arguments.

    Examples
    --------
    >>> projected_yields(0.0, [1.0, 10.0]).round(3)  # without background ten times more is ten times better
    array([2.303, 0.23 ])
    """
    factors = np.atleast_1d(np.asarray(exposure, dtype=np.float64))
    if not np.all(np.isfinite(factors) & (factors > 0)):
        msg = f"projected_yields: exposure {exposure!r} must be positive and finite"
        raise PhysicsError(msg)
    method, bounds = options.get("method", "auto"), (ASYMPTOTIC_FROM, AVERAGED_FROM)
    bounds = options.get("asymptotic_from", bounds[0]), options.get("averaged_from", bounds[1])
    needed = []
    for factor in factors.tolist():
        if significance is None:
            count = None if isinstance(observed, str) else observed * factor
            engine = chosen_method(method, background * factor, count, signal_sigma, *bounds)
            found = upper_limit(
                background * factor,
                background_sigma,
                observed if factor == 1.0 else "masked",
                signal_sigma=signal_sigma,
                cl=cl,
                **(options | {"method": engine}),
            ).expected[2]
        else:
            found = discovery_yield(
                background * factor, background_sigma, significance=significance, signal_sigma=signal_sigma
            )
        needed.append(float(found) / factor)
    return np.array(needed)
