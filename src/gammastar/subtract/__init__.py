"""Subtract what is no virtual photon: combinatorial pairs, open charm, named corrections."""

from __future__ import annotations

from gammastar.subtract.charm import CharmFit, fit_charm, subtract_component
from gammastar.subtract.corrections import (
    ETA_DIMUON_RATIO,
    Applied,
    Correction,
    apply_corrections,
    correction_table,
    eta_dimuon,
    scaled_shape,
)
from gammastar.subtract.diagnostics import (
    Diagnostics,
    NegativeYield,
    control_ratio,
    diagnose,
    negative_yields,
)
from gammastar.subtract.mixed_event import Pool, mixed_pairs, r_factor, with_multiplicity
from gammastar.subtract.mixed_spectrum import mixed_spectrum
from gammastar.subtract.pooling import streamed_pool
from gammastar.subtract.posterior import (
    Closure,
    PosteriorModel,
    fit_posterior,
    posterior_weights,
    projection_closure,
    too_few_for_posterior,
)
from gammastar.subtract.profile import ProfileInterval, profile_interval, with_profile
from gammastar.subtract.replicas import event_seeds, replica_weights
from gammastar.subtract.same_sign import (
    LOW_COUNT,
    LOW_FRACTION,
    LowCountWarning,
    charge_factors,
    low_count_fraction,
    same_sign,
)
from gammastar.subtract.weights import bootstrap_covariance, chunk_weights, chunked_bootstrap, event_weights

__all__ = [
    "ETA_DIMUON_RATIO",
    "LOW_COUNT",
    "LOW_FRACTION",
    "Applied",
    "CharmFit",
    "Closure",
    "Correction",
    "Diagnostics",
    "LowCountWarning",
    "NegativeYield",
    "Pool",
    "PosteriorModel",
    "ProfileInterval",
    "apply_corrections",
    "bootstrap_covariance",
    "charge_factors",
    "chunk_weights",
    "chunked_bootstrap",
    "control_ratio",
    "correction_table",
    "diagnose",
    "eta_dimuon",
    "event_seeds",
    "event_weights",
    "fit_charm",
    "fit_posterior",
    "low_count_fraction",
    "mixed_pairs",
    "mixed_spectrum",
    "negative_yields",
    "posterior_weights",
    "profile_interval",
    "projection_closure",
    "r_factor",
    "replica_weights",
    "same_sign",
    "scaled_shape",
    "streamed_pool",
    "subtract_component",
    "too_few_for_posterior",
    "with_multiplicity",
    "with_profile",
]
