"""Limits of a counting search at every point of a plane, where the uncertainty of the signal changes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Limit
from gammastar.infer.limit import Method, upper_limit

__all__ = ["limits_at", "signal_spread", "tabulated"]

KNOTS = 9


def signal_spread(
    signal: npt.ArrayLike,
    *,
    common: Mapping[str, npt.ArrayLike] | None = None,
    variations: Mapping[str, npt.ArrayLike] | None = None,
    shifts: Mapping[str, npt.ArrayLike] | None = None,
    in_domain: npt.ArrayLike | None = None,
    extrapolation: float = 0.0,
) -> dict[str, FloatArray]:
    """Return the standard deviations of the logarithm of a signal at each point, by source.

    Parameters
    ----------
    signal : array_like, shape (n, k)
        Expected events over masses and couplings.
    common : mapping of str to array_like, shape (), (n, 1) or (n, k)
        Relative errors: of the measured spectrum at each mass, of a scaling.
    variations : mapping of str to array_like, shape (r, n, k)
        The signal of each member of an ensemble (of flows); their spread counts.
    shifts : mapping of str to array_like, shape (2, n, k)
        The signal at both ends of an assumption; half their distance counts.
    in_domain : array_like, shape (n, k), optional
        The part of the signal from where dileptons were measured.
    extrapolation : float
        Standard deviation of the logarithm of the other part.

    Returns
    -------
    dict of str to NDArray, shape (n, k)
        Sources without any spread are left out.

    Raises
    ------
    PhysicsError
        For shapes that do not fit, and for two sources of one name.
    """
    names = [*(common or {}), *(variations or {}), *(shifts or {})]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or (extrapolation > 0 and "extrapolation" in names):
        msg = f"signal_spread: source {(twice or ['extrapolation'])[0]!r} is given twice; name sources apart"
        raise PhysicsError(msg)
    total = np.asarray(signal, dtype=np.float64)
    safe = np.where(total > 0, total, 1.0)
    found: dict[str, FloatArray] = {}
    for name, value in (common or {}).items():
        found[name] = np.broadcast_to(np.asarray(value, dtype=np.float64), total.shape)
    for name, members in (variations or {}).items():
        array = _fitting(name, members, total)
        found[name] = np.where(total > 0, array.std(axis=0, ddof=1) / safe, 0.0)
    for name, ends in (shifts or {}).items():
        array = _fitting(name, ends, total)
        found[name] = np.where(total > 0, 0.5 * np.abs(array[1] - array[0]) / safe, 0.0)
    if in_domain is not None and extrapolation > 0:
        outside = 1.0 - np.asarray(in_domain, dtype=np.float64) / safe
        found["extrapolation"] = np.where(total > 0, np.clip(outside, 0.0, 1.0) * extrapolation, 0.0)
    spreads = {name: np.log1p(np.clip(sigma, 0.0, 3.0)) for name, sigma in found.items()}
    return {name: sigma for name, sigma in spreads.items() if sigma.any()}


def _fitting(name: str, array: npt.ArrayLike, total: FloatArray) -> FloatArray:
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 3 or values.shape[1:] != total.shape or len(values) < 2:
        msg = f"signal_spread: {name!r} has shape {values.shape}, expected (at least 2, *{total.shape})"
        raise PhysicsError(msg)
    return values


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
