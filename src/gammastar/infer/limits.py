"""Upper limits of a counting search: one, and one for each uncertainty of the signal over a plane."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, cast, get_args

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit
from gammastar.infer.channel_limits import asymptotic_limit
from gammastar.infer.channels import counting_channel
from gammastar.infer.counting import CountingMethod, counting_limit, expected_limits

__all__ = [
    "ASYMPTOTIC_FROM",
    "Method",
    "chosen_method",
    "label_at",
    "limits_at",
    "tabulated",
    "upper_limit",
]

Method: TypeAlias = Literal["exact", "marginalised", "none", "asymptotic", "auto"]

ASYMPTOTIC_FROM = 20.0
"""Events below which the asymptotic formulae give limits that are too strong (40 % at b = 0.01)."""


def upper_limit(
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    signal_sigma: float = 0.0,
    cl: float = 0.90,
    method: Method = "exact",
    randomise_pot: bool = True,
    asymptotic_from: float = ASYMPTOTIC_FROM,
) -> Limit:
    """Return the CLs upper limit on the number of signal events of a counting search.

    Parameters
    ----------
    background : float
        Expected background events; 0 means that none is assumed.
    background_sigma, signal_sigma : float
        Standard deviations of the logarithm (ln κ); for two POT nuisances add them in quadrature.
    observed : int or "masked" or "asimov"
        Without an observation `Limit.observed` is nan and the median of the bands is the result.
    cl : float
        Confidence level.
    method : {"exact", "marginalised", "none", "asymptotic", "auto"}
        "exact": all counts enumerated, nuisances at their fitted values; "marginalised": averaged over them;
        "none": without nuisances; "asymptotic": profile likelihood, for large counts; "auto": exact below
        `asymptotic_from` events, asymptotic from there on.
    randomise_pot : bool
        Let the measurement of the protons on target vary in the expected bands of the exact methods, which
        otherwise have no width without background.
    asymptotic_from : float
        Expected or observed events, whichever is smaller, from which "auto" trusts the asymptotic formulae.

    Returns
    -------
    Limit

    Raises
    ------
    PhysicsError
        For values outside their domain.

    Notes
    -----
    A. L. Read, J. Phys. G 28 (2002) 2693 (CLs); G. Cowan et al., Eur. Phys. J. C 71 (2011) 1554 (asymptotic).

    Examples
    --------
    >>> limit = upper_limit(0.0094, 1.386, 0, signal_sigma=0.1823)
    >>> round(limit.observed, 3), limit.method.split(",")[0]
    (2.486, 'exact CLs by enumeration')
    """
    if method not in get_args(Method):
        msg = f"upper_limit: method = {method!r} must be one of {', '.join(get_args(Method))}"
        raise PhysicsError(msg)
    if isinstance(observed, str) and observed not in {"masked", "asimov"}:
        msg = f"upper_limit: observed = {observed!r} must be a count, 'masked' or 'asimov'"
        raise PhysicsError(msg)
    count = None if isinstance(observed, str) else observed
    automatic = method == "auto"
    method = chosen_method(method, background, count, asymptotic_from)
    counting: CountingMethod = "none" if method == "asymptotic" else cast("CountingMethod", method)
    exact = counting_limit(  # it also checks every value
        np.rint(background) if count is None and np.isfinite(background) else (count or 0),
        background,
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
        cl=cl,
        method=counting,
    )
    if method == "asymptotic":
        return _asymptotic(background, (signal_sigma, background_sigma), count, cl, asymptotic_from)
    bands = expected_limits(
        background,
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
        cl=cl,
        method=counting,
        randomise_pot=randomise_pot,
    )
    label = _label(counting, (signal_sigma, background_sigma), varied=randomise_pot)
    if background == 0:
        label += ", b = 0 assumed"
    if automatic:
        label += f", chosen below {asymptotic_from:g} events"
    return Limit(np.nan if count is None else float(exact), bands, cl, label, 0.0)


def chosen_method(
    method: Method, background: float, count: float | None, asymptotic_from: float = ASYMPTOTIC_FROM
) -> Method:
    """Return the method itself, or the one that "auto" takes at so many expected and observed events."""
    if method != "auto":
        return method
    events = background if count is None else min(background, count)
    return "asymptotic" if events >= asymptotic_from else "exact"


def label_at(method: str, signal_sigma: float) -> str:
    """Return the label of a limit with the uncertainty of the signal at another point (ln κ).

    Examples
    --------
    >>> label_at("exact CLs by enumeration, nuisances averaged (signal κ 1.2, background κ 1)", 0.0)
    'exact CLs by enumeration, nuisances averaged (signal κ 1, background κ 1)'
    """
    return re.sub(r"signal κ [^,)]+", f"signal κ {np.exp(signal_sigma):.4g}", method)


def _label(method: CountingMethod, sigmas: tuple[float, float], *, varied: bool) -> str:
    treatment = {
        "exact": "nuisances at fitted values with fixed auxiliaries",
        "marginalised": "nuisances averaged",
        "none": "no nuisances",
    }[method]
    text = f"exact CLs by enumeration, {treatment}"
    if method != "none":
        text += f" (signal κ {np.exp(sigmas[0]):.4g}, background κ {np.exp(sigmas[1]):.4g})"
        if varied and sigmas[0] > 0:
            text += ", that of the signal varied in the bands"
    return text


def _asymptotic(
    background: float, sigmas: tuple[float, float], count: int | None, cl: float, threshold: float
) -> Limit:
    """Return the limit from the asymptotic formulae for q̃μ, with a warning in its label at few events."""
    channel = counting_channel(
        "counting",
        signal=1.0,
        background=background,
        observed="masked" if count is None else count,
        signal_sigma={"signal": sigmas[0]},
        background_sigma={"background": sigmas[1]},
    )
    limit = asymptotic_limit([channel], cl=cl)
    events = background if count is None else min(background, float(count))
    if events < threshold:
        label = f"{limit.method}, too strong at fewer than {threshold:g} events: use the exact method"
        return replace(limit, method=label)
    return limit


KNOTS = 9


def limits_at(
    sigma: npt.ArrayLike,
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    cl: float = 0.90,
    method: Method = "auto",
    **options: Any,
) -> tuple[FloatArray, FloatArray, Limit]:
    """Return observed and expected limits for each uncertainty of the signal.

    Parameters
    ----------
    sigma : array_like
        Standard deviations of the logarithm of the signal, all sources in quadrature.
    background, background_sigma, observed, cl, method, options
        As in `upper_limit`.

    Returns
    -------
    observed : NDArray, shape of `sigma`
        nan while masked.
    expected : NDArray, shape of `sigma` plus (5,)
    typical : Limit
        That of the median uncertainty, with the method.

    Notes
    -----
    Computed at nine uncertainties and interpolated in σ², in which ln of the limit is linear without observed
    events (s = ln 10 exp(σ² ln 10)).
    """
    spreads = np.asarray(sigma, dtype=np.float64)

    def solve(value: float) -> Limit:
        return upper_limit(
            background, background_sigma, observed, signal_sigma=value, cl=cl, method=method, **options
        )

    typical = solve(float(np.median(spreads)))
    hidden = not np.isfinite(typical.observed)

    def numbers(value: float) -> FloatArray:
        limit = solve(value)
        return np.array([limit.expected[2] if hidden else limit.observed, *limit.expected])

    values = tabulated(numbers, spreads)
    seen = np.full(spreads.shape, np.nan) if hidden else values[..., 0]
    return seen, values[..., 1:], typical


def tabulated(function: Callable[[float], npt.ArrayLike], sigma: npt.ArrayLike) -> FloatArray:
    """Return a positive function of σ at many values, from nine of them, interpolated in σ².

    Parameters
    ----------
    function : callable
        σ -> number or array of numbers.
    sigma : array_like

    Returns
    -------
    NDArray, shape of `sigma` plus that of the numbers
    """
    spreads = np.asarray(sigma, dtype=np.float64)
    low, high = float(spreads.min()), float(spreads.max())
    if high - low < 1e-12:
        value = np.asarray(function(low), dtype=np.float64)
        return np.broadcast_to(value, (*spreads.shape, *value.shape)).copy()
    knots = np.sqrt(np.linspace(low**2, high**2, KNOTS))
    table = np.log([np.asarray(function(float(value)), dtype=np.float64) for value in knots])
    curve = PchipInterpolator(knots**2, table, axis=0)
    return np.asarray(np.exp(curve(np.clip(spreads, low, high) ** 2)), dtype=np.float64)
