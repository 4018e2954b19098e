"""Channels of the exact engine: unbinned, binned or counting, with named log-normal nuisances.

Of an event x the likelihood needs only r = f_s(x)/f_b(x), the ratio of the densities of signal and
background. A channel therefore knows r for the observed events, and its distribution under both densities.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.modifiers import counts_of, yields_of

Density: TypeAlias = Callable[[FloatArray], FloatArray]
Masked: TypeAlias = Literal["masked"]

SMALLEST_BACKGROUND = 1e-9  # events; without background the ratio of the likelihoods has no limit
FINE, CELLS = 32_769, 1024  # points on which densities are integrated, cells for toys


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One channel of an extended likelihood, Π_c e^{−(s+b)} Π_i (s f_s(x_i) + b f_b(x_i)).

    Attributes
    ----------
    signal, background : float
        Expected events at nominal nuisances; the medians of log-normal yields.
    ratio, signal_pmf, background_pmf : NDArray, shape (k,)
        Cells: f_s/f_b, and the probabilities of a signal and of a background event.
    observed : NDArray, shape (n,), or None
        f_s/f_b of each observed event; None while the data are masked.
    signal_sigma, background_sigma : mapping of str to float
        Standard deviation of the logarithm (ln κ) for each nuisance. The same name in several places is one
        nuisance.
    """

    name: str
    signal: float
    background: float
    ratio: FloatArray
    signal_pmf: FloatArray
    background_pmf: FloatArray
    observed: FloatArray | None
    signal_sigma: Mapping[str, float] = field(default_factory=dict)
    background_sigma: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for what, value in (("signal", self.signal), ("background", self.background)):
            if not (np.isfinite(value) and value >= 0):
                raise PhysicsError(
                    f"channel {self.name!r}: {what} = {value!r} events must be finite and not negative"
                )
        for what, sigmas in (("signal", self.signal_sigma), ("background", self.background_sigma)):
            for nuisance, sigma in sigmas.items():
                if not (np.isfinite(sigma) and abs(sigma) < 5):
                    raise PhysicsError(
                        f"channel {self.name!r}: ln κ = {sigma!r} of {nuisance!r} on {what} must be within ±5"
                    )
        if not len(self.ratio) == len(self.signal_pmf) == len(self.background_pmf):
            raise PhysicsError(f"channel {self.name!r}: cells of different length")


def counting_channel(
    name: str,
    *,
    signal: float,
    background: float,
    observed: int | Masked,
    signal_sigma: Mapping[str, float] | None = None,
    background_sigma: Mapping[str, float] | None = None,
) -> Channel:
    """Return a channel of one bin.

    Parameters
    ----------
    signal, background : float
        Expected events.
    observed : int or "masked"
        Events found.
    signal_sigma : mapping of str to float, optional
        ln κ of the signal by source.
    background_sigma : mapping of str to float, optional
        ln κ of the background by source.

    Examples
    --------
    >>> counting_channel("ee", signal=2.3, background=0.01, observed=0).observed
    array([], dtype=float64)
    """
    return binned_channel(
        name,
        signal=[signal],
        background=[background],
        observed="masked" if isinstance(observed, str) else [observed],
        signal_sigma=signal_sigma,
        background_sigma=background_sigma,
    )


def binned_channel(
    name: str,
    *,
    signal: npt.ArrayLike,
    background: npt.ArrayLike,
    observed: npt.ArrayLike | Masked,
    signal_sigma: Mapping[str, float] | None = None,
    background_sigma: Mapping[str, float] | None = None,
) -> Channel:
    """Return a channel of bins.

    Parameters
    ----------
    signal, background : array_like, shape (k,)
        Expected events per bin. Where no background is expected, 1e-9 of an event is put.
    observed : array_like of int, shape (k,), or "masked"
    signal_sigma, background_sigma : mapping of str to float, optional
        ln κ per nuisance, common to all bins.

    Returns
    -------
    Channel

    Raises
    ------
    NegativeYieldError, PhysicsError
        For negative bins, bins that do not fit, or counts that are not whole numbers.
    """
    s, b = yields_of(signal, f"channel {name!r}, signal"), yields_of(background, f"channel {name!r}")
    if s.shape != b.shape:
        raise PhysicsError(f"channel {name!r}: {s.size} bins of signal, {b.size} of background")
    b = np.maximum(b, SMALLEST_BACKGROUND)
    p_s = s / s.sum() if s.sum() > 0 else np.full(s.size, 1.0 / s.size)
    p_b = b / b.sum()
    seen = None
    if not isinstance(observed, str):
        seen = np.repeat(p_s / p_b, counts_of(observed, s.size, f"channel {name!r}").astype(np.int64))
    return Channel(
        name,
        float(s.sum()),
        float(b.sum()),
        p_s / p_b,
        p_s,
        p_b,
        seen,
        dict(signal_sigma or {}),
        dict(background_sigma or {}),
    )


def unbinned_channel(
    name: str,
    *,
    signal: float,
    background: float,
    densities: tuple[Density, Density],
    bounds: tuple[float, float],
    events: npt.ArrayLike | Masked,
    signal_sigma: Mapping[str, float] | None = None,
    background_sigma: Mapping[str, float] | None = None,
) -> Channel:
    """Return an unbinned channel.

    Parameters
    ----------
    signal, background : float
        Expected events inside `bounds`.
    densities : (callable, callable)
        Densities of the observable (the mass, say) of signal and background; functions of an array. They are
        normalised here inside `bounds`.
    bounds : (float, float)
        Range of the observable.
    events : array_like, shape (n,), or "masked"
        Observed values inside `bounds`.
    signal_sigma, background_sigma : mapping of str to float, optional
        ln κ per nuisance.

    Returns
    -------
    Channel

    Raises
    ------
    PhysicsError
        For densities that are negative, not finite or vanish, and events outside `bounds`.

    Notes
    -----
    For toys both densities are tabulated in 1024 cells of equal probability under their average; observed
    events use the densities themselves.

    Examples
    --------
    >>> from scipy.stats import norm, uniform
    >>> channel = unbinned_channel(
    ...     "mumu",
    ...     signal=3.0,
    ...     background=0.016,
    ...     densities=(norm(0.411, 0.0025).pdf, uniform(0.2, 0.6).pdf),
    ...     bounds=(0.2, 0.8),
    ...     events=[0.411],
    ... )
    >>> round(float(channel.observed[0]), 1)  # 0.6 / (√(2π) 0.0025)
    95.7
    """
    low, high = bounds
    if not (np.isfinite(low) and np.isfinite(high) and low < high):
        raise PhysicsError(f"channel {name!r}: bounds {bounds} must be finite and increase")
    x = np.linspace(low, high, FINE)
    cumulative, norms = [], []
    for what, density in zip(("signal", "background"), densities, strict=True):
        values = np.asarray(density(x), dtype=np.float64)
        if values.shape != x.shape or not np.all(np.isfinite(values) & (values >= 0)):
            raise PhysicsError(
                f"channel {name!r}: the {what} density must be finite and not negative inside {bounds}"
            )
        integral = np.r_[0.0, np.cumsum(0.5 * (values[1:] + values[:-1]) * np.diff(x))]
        if not integral[-1] > 0:
            raise PhysicsError(f"channel {name!r}: the {what} density vanishes inside {bounds}")
        cumulative.append(integral / integral[-1])
        norms.append(integral[-1])
    mixture = 0.5 * (cumulative[0] + cumulative[1])
    edges = np.unique(np.searchsorted(mixture, np.linspace(0.0, 1.0, CELLS + 1)[1:-1]))
    edges = np.unique(np.r_[0, edges, FINE - 1])
    p_s, p_b = (np.diff(c[edges]) for c in cumulative)
    p_s, p_b = p_s / p_s.sum(), np.maximum(p_b, 1e-12 * p_s + 1e-300)
    ratio = p_s / p_b
    observed = None
    if not isinstance(events, str):
        values = np.atleast_1d(np.asarray(events, dtype=np.float64)).ravel()
        if not np.all((values >= low) & (values <= high)):
            raise PhysicsError(f"channel {name!r}: observed events {values} must lie inside {bounds}")
        f_s = np.asarray(densities[0](values), dtype=np.float64) / norms[0]
        f_b = np.asarray(densities[1](values), dtype=np.float64) / norms[1]
        observed = f_s / np.maximum(f_b, 1e-12 * f_s + 1e-300)
    return Channel(
        name,
        float(signal),
        max(float(background), SMALLEST_BACKGROUND)
        if np.isfinite(background) and background >= 0
        else background,
        ratio,
        p_s,
        p_b / p_b.sum(),
        observed,
        dict(signal_sigma or {}),
        dict(background_sigma or {}),
    )
