"""Signals that would be discovered, the significance of a count, projections to other exposures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.channel_limits import fft_cls, strength_at
from gammastar.infer.channels import Channel
from gammastar.infer.counting import poisson_quantile, upper_limit
from gammastar.infer.toys import ToyModel, toy_model
from gammastar.physics.averaged_counts import at_least, at_most


def discovery_yield(
    background: float, background_sigma: float = 0.0, *, significance: float = 5.0, signal_sigma: float = 0.0
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
    names = "background", "background_sigma", "signal_sigma", "significance"
    for name, value in zip(names, (background, background_sigma, signal_sigma, significance), strict=True):
        if not (np.isfinite(value) and value >= 0):
            raise PhysicsError(f"discovery_yield: {name} = {value!r} must be finite and not negative")
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
        raise PhysicsError(
            f"observed_significance: n = {observed!r} and b = {background!r} must not be negative"
        )
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
        Of the present exposure, whose asymptotic limits follow the fit to it.
    options
        `method` and `randomise_pot` of `upper_limit`.

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
        raise PhysicsError(f"projected_yields: exposure {exposure!r} must be positive and finite")
    sizes: dict[str, Any] = {"background_sigma": background_sigma, "signal_sigma": signal_sigma}

    def at(factor: float) -> float:
        events, seen = background * factor, observed if factor == 1.0 else "masked"
        if significance is not None:
            return discovery_yield(events, significance=significance, **sizes)
        return float(upper_limit(events, observed=seen, cl=cl, **sizes, **options).expected[2])

    return np.array([at(factor) / factor for factor in factors.tolist()])


@dataclass(frozen=True, slots=True, eq=False)
class Ranking:
    """Nuisances in order of their impact."""

    names: tuple[str, ...]
    pull: FloatArray  # Fitted nuisances at the limit [standard deviations], shape (n,)
    # Their standard deviations after the fit; 1 where the data say nothing, shape (n,)
    constraint: FloatArray
    # Change of log10 of the coupling at the limit for the nuisance fixed at −1 and at +1 instead of 0, shape
    # (n, 2)
    impact: FloatArray
    # Of a joint likelihood, whose `impact` is that of one standard deviation after the fit: that before it,
    # shape (n, 2)
    prefit: FloatArray | None = None
    basis: str = ""  # Which data it is of, if not those of a counting search


def ranking(channels: Sequence[Channel], *, cl: float = 0.90, exponent: float = 4.0) -> Ranking:
    """Return pulls, constraints and impacts of all nuisances on a limit.

    Parameters
    ----------
    channels : sequence of Channel
        A masked channel takes the data expected without signal: the median count, shared out over its cells
        by largest remainders. Pulls are then those of expected data.
    exponent : float
        d ln N/d ln g of the yield at the edge of interest: 4 on the lower edge of a dump's contour, negative
        on the upper edge, 2 for prompt decays.

    Returns
    -------
    Ranking

    Raises
    ------
    PhysicsError
        For an exponent of zero or a `cl` outside (0, 1).

    Notes
    -----
    The other nuisances stay at their fitted values, and limits come from the compound Poisson distribution:
    there are no toys, whose noise would hide small differences.
    """
    if not (np.isfinite(exponent) and exponent != 0 and 0 < cl < 1):
        raise PhysicsError(
            f"ranking: exponent = {exponent!r} must not be zero, cl = {cl!r} must lie between 0 and 1"
        )
    channels = [expected_data(channel) if channel.observed is None else channel for channel in channels]
    model = toy_model(channels)
    nominal = _limit(channels, cl, 2.3 / float(model.yields[0].sum()))
    theta = model.fitted(model.data(), nominal)
    impact = np.zeros((len(model.nuisances), 2))
    for j, name in enumerate(model.nuisances):
        low, middle, high = (
            _limit([_fixed(c, name, v) for c in channels], cl, nominal) for v in (-1.0, 0.0, 1.0)
        )
        impact[j] = np.log10(np.array([low, high]) / middle) / exponent
    order = np.argsort(-np.abs(impact).max(axis=1), kind="stable")
    widths = _widths(model, theta, nominal)
    names = tuple(model.nuisances[k] for k in order)
    return Ranking(names, theta[order], widths[order], impact[order])


def expected_data(channel: Channel) -> Channel:
    """Return a channel that holds the median count expected without signal."""
    total = int(poisson_quantile(0.5, channel.background))
    expected = total * channel.background_pmf
    counts = np.floor(expected).astype(np.int64)
    rest = np.argsort(counts - expected, kind="stable")[: total - int(counts.sum())]
    counts[rest] += 1
    return replace(channel, observed=np.repeat(channel.ratio, counts))


def _limit(channels: Sequence[Channel], cl: float, guess: float) -> float:
    return strength_at(lambda x: fft_cls(channels, strength=x).cls, 1.0 - cl, guess)


def _fixed(channel: Channel, name: str, value: float) -> Channel:
    """Return a channel whose yields have a nuisance built in at a value."""
    s, b = channel.signal_sigma.get(name, 0.0), channel.background_sigma.get(name, 0.0)
    return replace(
        channel,
        signal=channel.signal * float(np.exp(s * value)),
        background=channel.background * float(np.exp(b * value)),
        signal_sigma={key: sigma for key, sigma in channel.signal_sigma.items() if key != name},
        background_sigma={key: sigma for key, sigma in channel.background_sigma.items() if key != name},
    )


def _widths(model: ToyModel, theta: FloatArray, strength: float) -> FloatArray:
    """Return standard deviations from the inverse Hessian at the fit."""
    data = model.data()
    hessian = np.eye(len(theta))
    rates = model.rates(theta, strength)
    for c, (a, d) in enumerate(zip(*model.exponents, strict=True)):
        s, b = rates[:, c]
        part = s * data.ratio[data.offsets[c] : data.offsets[c + 1]]
        w = part / (part + b)
        hessian += s * np.outer(a, a) + b * np.outer(d, d)
        hessian -= float((w * (1.0 - w)).sum()) * np.outer(a - d, a - d)
    return np.asarray(np.sqrt(np.diag(np.linalg.inv(hessian))), dtype=np.float64)
