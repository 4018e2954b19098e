"""Pulls of the nuisances and their impacts on the limit and on the coupling."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import brentq

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.channel_limits import fft_cls
from gammastar.infer.channels import Channel
from gammastar.infer.counting import poisson_quantile
from gammastar.infer.toys import ToyModel, toy_model


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
        msg = f"ranking: exponent = {exponent!r} must not be zero, cl = {cl!r} must lie between 0 and 1"
        raise PhysicsError(msg)
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
    def excess(log_strength: float) -> float:
        found = fft_cls(channels, strength=float(np.exp(log_strength))).cls
        return float(np.log(max(found, 1e-300)) - np.log(1.0 - cl))

    low, high = np.log(guess) - 0.7, np.log(guess) + 0.7
    while excess(high) > 0:
        low, high = high, high + 0.7
    while excess(low) <= 0:
        low, high = low - 0.7, low
    return float(np.exp(brentq(excess, low, high, xtol=1e-5)))


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
