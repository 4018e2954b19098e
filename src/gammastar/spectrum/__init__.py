"""The spectrum per proton on target, where it was measured, and sampling from it."""

from __future__ import annotations

from gammastar.spectrum.normalise import relative_shifts
from gammastar.spectrum.normalise import extrapolate, mass_density, mass_histogram, per_pot
from gammastar.spectrum.mass_shape import MassCounts, MassShape, fit_mass_shape, mass_counts
from gammastar.spectrum.normalise import Domain, InDomain, efficiency_map, in_domain
from gammastar.spectrum.training import TrainingSet, histogram_sampler, training_set, unbinned_training_set
from gammastar.spectrum.training import HistSampler
from gammastar.spectrum.extrapolation import ForwardPower, Trend, fit_trend, forward_power
from gammastar.spectrum.angles import DecayAngles, fit_spin_densities, prior_weights

__all__ = [
    "per_pot",
    "relative_shifts",
    "extrapolate",
    "mass_density",
    "mass_histogram",
    "MassShape",
    "MassCounts",
    "mass_counts",
    "fit_mass_shape",
    "efficiency_map",
    "Domain",
    "InDomain",
    "in_domain",
    "TrainingSet",
    "training_set",
    "unbinned_training_set",
    "histogram_sampler",
    "HistSampler",
    "ForwardPower",
    "forward_power",
    "Trend",
    "fit_trend",
    "DecayAngles",
    "prior_weights",
    "fit_spin_densities",
]
