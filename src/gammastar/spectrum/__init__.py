"""The spectrum per proton on target, and sampling from it."""

from __future__ import annotations

from gammastar.spectrum.extrapolation import Trend, fit_trend, flat_trend
from gammastar.spectrum.normalise import extrapolate, mass_density, per_pot
from gammastar.spectrum.sampler import HistSampler, in_domain

__all__ = [
    "HistSampler",
    "Trend",
    "extrapolate",
    "fit_trend",
    "flat_trend",
    "in_domain",
    "mass_density",
    "per_pot",
]
