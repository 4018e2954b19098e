"""Exact CLs of unbinned, binned and counting channels by weighted toys, with a closed form without events."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import brentq

from gammastar.core.errors import PhysicsError
from gammastar.infer.channel import Channel
from gammastar.infer.cloud import Cloud, CLs, cloud
from gammastar.infer.ensemble import Convention, Model, Toys, compiled

__all__ = ["CLs", "StrengthLimit", "exact_cls", "exact_limit", "zero_event_cls"]

START, MOST = 2_000, 200_000  # toys per hypothesis of the first round and at most


@dataclass(frozen=True, slots=True)
class StrengthLimit:
    """Upper limit on the signal strength: couplings where it is below one are excluded.

    Attributes
    ----------
    strength, error : float
        Limit in units of the channels' nominal signal, and its Monte Carlo error.
    events : float
        The limit as the nominal signal summed over the channels.
    cl : float
    toys : int
    method : str
    """

    strength: float
    error: float
    events: float
    cl: float
    toys: int
    method: str


def exact_cls(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    convention: Convention | None = None,
    strength: float = 1.0,
    n_toys: int = 10_000,
    auxiliary: Mapping[str, float] | None = None,
) -> CLs:
    """Return CLs of a signal in one or several channels.

    Parameters
    ----------
    channels : sequence of Channel
        From `unbinned_channel`, `binned_channel` or `counting_channel`; equal names of nuisances are shared.
    rng : numpy.random.Generator
    convention : Convention, optional
        By default the ratio of profiled likelihoods with fixed auxiliary measurements, as NA62.
    strength : float
        Factor on the signal of all channels.
    n_toys : int
        Toys of each of the two hypotheses.
    auxiliary : mapping of str to float, optional
        Observed auxiliary measurements in standard deviations; 0 by default.

    Returns
    -------
    CLs

    Raises
    ------
    PhysicsError
        For masked channels, no signal, or names that do not fit.

    Notes
    -----
    arXiv:2312.12055, Appendix B (statistic and plug-in nuisances); A. L. Read, J. Phys. G 28 (2002) 2693.
    Without any observed event and with fixed auxiliaries the result is a closed form without toys.

    Examples
    --------
    >>> from gammastar.infer import counting_channel
    >>> ee = counting_channel("ee", signal=2.4857, background=0.0094, observed=0,
    ...     signal_sigma={"pot": np.log(1.2)}, background_sigma={"b_ee": np.log(4.0)})
    >>> round(exact_cls([ee], rng=np.random.default_rng(1)).cls, 4)
    0.1
    """
    convention = Convention() if convention is None else convention
    model, data = _ready(channels, convention, auxiliary)
    _positive(strength)
    if _closed(convention, data):
        return zero_event_cls(channels, strength=strength, convention=convention, auxiliary=auxiliary)
    return cloud(model, convention, data, (strength,), n_toys, rng).at(strength)


def zero_event_cls(
    channels: Sequence[Channel],
    *,
    strength: float = 1.0,
    convention: Convention | None = None,
    auxiliary: Mapping[str, float] | None = None,
) -> CLs:
    """Return CLs where no event is observed and auxiliary measurements are fixed: P(n = 0) is all there is.

    CLs = e^{−s−b} at the nuisances fitted with signal, over e^{−b} at those fitted without. If signal and
    background share no nuisance this is e^{−s}, whatever the background.
    """
    convention = Convention() if convention is None else convention
    model, data = _ready(channels, convention, auxiliary)
    if not _closed(convention, data):
        msg = (
            "the closed form needs no observed event, fixed auxiliaries and the statistic 'ratio' or 'qtilde'"
        )
        raise PhysicsError(msg)
    clsb = float(np.exp(-model.rates(model.fitted(data, strength), strength).sum()))
    clb = float(np.exp(-model.rates(model.fitted(data, 0.0), 0.0).sum()))
    label = f"exact CLs, closed form at n = 0, {convention}"
    return CLs(clsb / clb, 0.0, clsb, clb, np.nan, 0, np.inf, label)


def exact_limit(
    channels: Sequence[Channel],
    *,
    rng: np.random.Generator,
    cl: float = 0.90,
    convention: Convention | None = None,
    precision: float = 0.02,
    auxiliary: Mapping[str, float] | None = None,
) -> StrengthLimit:
    """Return the upper limit on the strength of a signal in one or several channels.

    Parameters
    ----------
    channels, rng, convention, auxiliary
        As in `exact_cls`.
    cl : float
        Signals with CLs < 1 − cl are excluded.
    precision : float
        Relative Monte Carlo error of the limit; toys are added until it is met (or 200 000 per hypothesis).

    Returns
    -------
    StrengthLimit

    Raises
    ------
    PhysicsError
        As `exact_cls`, and for `cl` outside (0, 1).

    Notes
    -----
    In one channel the limit in events serves all couplings of a mass (`reach`). Where the shares of several
    channels change with the coupling, compute the strength at each point and give its inverse to `reach` as
    the signal, with a limit of one: excluded is where the strength is below one.
    """
    convention = Convention() if convention is None else convention
    if not 0.0 < cl < 1.0 or convention.statistic == "q0":
        msg = f"exact_limit: cl = {cl!r} must lie between 0 and 1, and 'q0' is for discoveries"
        raise PhysicsError(msg)
    model, data = _ready(channels, convention, auxiliary)
    total = float(model.yields[0].sum())
    guess = (2.3 + 1.3 * np.sqrt(len(data.ratio)) + np.sqrt(model.yields[1].sum())) / total
    closed = _closed(convention, data)
    if closed:

        def excess(log_strength: float) -> float:
            at = zero_event_cls(
                channels, strength=np.exp(log_strength), convention=convention, auxiliary=auxiliary
            )
            return float(np.log(max(at.cls, 1e-300)) - np.log(1.0 - cl))

        strength = float(np.exp(_root(excess, np.log(guess))))
        label = f"exact CLs, closed form at n = 0, {convention}"
        return StrengthLimit(strength, 0.0, strength * total, cl, 0, label)
    n = START
    while True:
        toys = cloud(model, convention, data, (0.6 * guess, 1.2 * guess), n, rng)
        strength, relative = _solved(toys, guess, cl)
        if relative <= precision or n >= MOST:
            label = toys.at(strength).method
            return StrengthLimit(
                strength, strength * relative, strength * total, cl, len(toys.log_mixture), label
            )
        guess, n = strength, int(min(MOST, max(2 * n, 1.2 * n * (relative / precision) ** 2)))


def _solved(toys: Cloud, guess: float, cl: float) -> tuple[float, float]:
    """Return the strength at which CLs is 1 − cl and its relative Monte Carlo error."""

    def excess(log_strength: float) -> float:
        return _logit(toys.at(float(np.exp(log_strength))).cls) - _logit(1.0 - cl)

    root, step = _root(excess, float(np.log(guess))), 0.05
    slope = (excess(root + step) - excess(root - step)) / (2.0 * step)
    error = toys.at(float(np.exp(root))).error / ((1.0 - cl) * cl)
    return float(np.exp(root)), float(error / max(abs(slope), 1e-3))


def _ready(
    channels: Sequence[Channel], convention: Convention, auxiliary: Mapping[str, float] | None
) -> tuple[Model, Toys]:
    model = compiled(channels, convention, auxiliary)
    return model, model.data()


def _positive(strength: float) -> None:
    if not (np.isfinite(strength) and strength > 0):
        msg = f"signal strength {strength!r} must be positive and finite"
        raise PhysicsError(msg)


def _closed(convention: Convention, data: Toys) -> bool:
    return convention.auxiliary == "fixed" and convention.statistic != "q0" and not len(data.ratio)


def _logit(p: float) -> float:
    p = min(max(p, 1e-12), 1.0 - 1e-12)
    return float(np.log(p / (1.0 - p)))


def _root(function: Callable[[float], float], start: float) -> float:
    """Return the root of a falling function of the logarithm of the strength, bracketed around a start."""
    low = high = start
    for _ in range(60):
        if function(high) <= 0:
            break
        low, high = high, high + 0.5
    for _ in range(60):
        if function(low) > 0:
            break
        low -= 0.5
    return float(brentq(function, low, high, xtol=1e-4))
