"""The spectrum per proton on target, and sampling from it."""

from __future__ import annotations

from gammastar.spectrum.normalise import extrapolate, mass_density, per_pot
from gammastar.spectrum.sampler import HistSampler, in_domain

__all__ = ["HistSampler", "extrapolate", "in_domain", "mass_density", "per_pot"]
