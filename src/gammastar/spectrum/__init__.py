"""The spectrum per proton on target, and sampling from it."""

from __future__ import annotations

from gammastar.spectrum.angles import DecayAngles, fit_spin_densities, prior_weights
from gammastar.spectrum.extrapolation import Trend, fit_trend, flat_trend
from gammastar.spectrum.mass_shape import MassShape, fit_mass_shape
from gammastar.spectrum.normalise import extrapolate, mass_density, mass_histogram, per_pot
from gammastar.spectrum.sampler import HistSampler, in_domain

__all__ = [
    "DecayAngles",
    "HistSampler",
    "MassShape",
    "Trend",
    "extrapolate",
    "fit_mass_shape",
    "fit_spin_densities",
    "fit_trend",
    "flat_trend",
    "in_domain",
    "mass_density",
    "mass_histogram",
    "per_pot",
    "prior_weights",
]
