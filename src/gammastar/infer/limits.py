"""Upper limits of a counting search: one, and one for each uncertainty of the signal over a plane."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal, TypeAlias, TypedDict, Unpack, cast, get_args

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit
from gammastar.infer.channel_limits import asymptotic_limit
from gammastar.infer.channels import counting_channel
from gammastar.infer.counting import CountingMethod, counting_limit, expected_limits

Method: TypeAlias = Literal["exact", "marginalised", "none", "asymptotic", "auto"]

ASYMPTOTIC_FROM = 20.0
"""Events below which the asymptotic formulae give limits that are too strong (40 % at b = 0.01)."""

AVERAGED_FROM = 1.25
"""κ of the signal beyond which "auto" averages over the nuisances.

Limits at their fitted values then exclude a true signal in less than some 5 % of all experiments, where 10 %
are asked for: docs/howto/limits.md has the table.
"""


class Auto(TypedDict, total=False):
    """From where "auto" takes another method: `ASYMPTOTIC_FROM` and `AVERAGED_FROM` by default."""

    asymptotic_from: float
    averaged_from: float


def upper_limit(
    background: float,
    background_sigma: float,
    observed: int | Literal["masked", "asimov"],
    *,
    signal_sigma: float = 0.0,
    cl: float = 0.90,
    method: Method = "auto",
    randomise_pot: bool = True,
    **auto: Unpack[Auto],
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
        "none": without nuisances; "asymptotic": profile likelihood, for large counts; "auto": asymptotic from
        `asymptotic_from` events on, below "marginalised" if the signal's κ is beyond `averaged_from`, else
        "exact". `Limit.method` says which.
    randomise_pot : bool
        Let the measurement of the protons on target vary in the expected bands of the exact methods, which
        otherwise have no width without background.
    **auto
        `asymptotic_from`: expected or observed events, whichever is smaller, from which "auto" trusts the
        asymptotic formulae; `averaged_from`: κ of the signal, e^σ, beyond which it averages.

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
    >>> round(limit.observed, 3), limit.method.split(",")[1]
    (2.486, ' nuisances at fitted values with fixed auxiliaries (signal κ 1.2')
    """
    if method not in get_args(Method):
        msg = f"upper_limit: method = {method!r} must be one of {', '.join(get_args(Method))}"
        raise PhysicsError(msg)
    if isinstance(observed, str) and observed not in {"masked", "asimov"}:
        msg = f"upper_limit: observed = {observed!r} must be a count, 'masked' or 'asimov'"
        raise PhysicsError(msg)
    count = None if isinstance(observed, str) else observed
    note = ""
    asymptotic_from = auto.get("asymptotic_from", ASYMPTOTIC_FROM)
    averaged_from = auto.get("averaged_from", AVERAGED_FROM)
    if method == "auto":
        method = chosen_method(method, background, count, signal_sigma, asymptotic_from, averaged_from)
        note = f", chosen below {asymptotic_from:g} events"
        if 0.0 < averaged_from < np.inf:
            note += f" {'beyond' if method == 'marginalised' else 'up to'} a signal κ of {averaged_from:g}"
    counting: CountingMethod = "none" if method == "asymptotic" else cast("CountingMethod", method)
    exact = counting_limit(  # it also checks every value
        np.rint(background) if count is None and np.isfinite(background) else (count or 0),
        background,
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
        cl=cl,
        method="none" if count is None else counting,
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
    return Limit(np.nan if count is None else float(exact), bands, cl, label + note, 0.0)


def chosen_method(
    method: Method,
    background: float,
    count: float | None,
    signal_sigma: float,
    asymptotic_from: float = ASYMPTOTIC_FROM,
    averaged_from: float = AVERAGED_FROM,
) -> Method:
    """Return the method itself, or what "auto" takes at so many events and such a signal (ln κ)."""
    if method != "auto":
        return method
    events = background if count is None else min(background, count)
    if events >= asymptotic_from:
        return "asymptotic"
    return "marginalised" if np.exp(signal_sigma) > averaged_from else "exact"


def one_treatment(signal_sigma: float, averaged_from: float = AVERAGED_FROM) -> float:
    """Return the `averaged_from` with which "auto" treats every signal like one of this ln κ."""
    return 0.0 if np.exp(signal_sigma) > averaged_from else np.inf


def label_at(method: str, signal_sigma: float) -> str:
    """Return the label of a limit with the uncertainty of the signal at another point (ln κ)."""
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

    Notes
    -----
    Computed at nine uncertainties and interpolated in σ², in which ln of the limit is linear without observed
    events (s = ln 10 exp(σ² ln 10)). "auto" treats the nuisances alike at all of them, as the median asks.
    """
    spreads = np.asarray(sigma, dtype=np.float64)

    def solve(value: float) -> Limit:
        return upper_limit(
            background, background_sigma, observed, signal_sigma=value, cl=cl, method=method, **options
        )

    middle = float(np.median(spreads))
    typical = solve(middle)
    options = options | {"averaged_from": one_treatment(middle, options.get("averaged_from", AVERAGED_FROM))}
    hidden = not np.isfinite(typical.observed)

    def numbers(value: float) -> FloatArray:
        limit = solve(value)
        return np.array([limit.expected[2] if hidden else limit.observed, *limit.expected])

    values = tabulated(numbers, spreads)
    seen = np.full(spreads.shape, np.nan) if hidden else values[..., 0]
    return seen, values[..., 1:], typical


def tabulated(function: Callable[[float], npt.ArrayLike], sigma: npt.ArrayLike) -> FloatArray:
    """Return a positive function of σ at many values, from nine of them, interpolated in σ²."""
    spreads = np.asarray(sigma, dtype=np.float64)
    low, high = float(spreads.min()), float(spreads.max())
    if high - low < 1e-12:
        value = np.asarray(function(low), dtype=np.float64)
        return np.broadcast_to(value, (*spreads.shape, *value.shape)).copy()
    knots = np.sqrt(np.linspace(low**2, high**2, KNOTS))
    table = np.log([np.asarray(function(float(value)), dtype=np.float64) for value in knots])
    curve = PchipInterpolator(knots**2, table, axis=0)
    return np.asarray(np.exp(curve(np.clip(spreads, low, high) ** 2)), dtype=np.float64)
