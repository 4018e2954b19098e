"""Subtract what is no virtual photon: combinatorial pairs, open charm, named corrections."""

from __future__ import annotations

from gammastar.subtract.weights import LowCountWarning, same_sign
from gammastar.subtract.mixing import Pool, mixed_pairs, mixed_spectrum, mixing_pool, r_factor
from gammastar.subtract.estimate import (
    ChargeRatio,
    combinatorial,
    control_ratio,
    few_like_sign,
    mixed_ratio,
    negative_yields,
    shift_by_r,
    with_bootstrap,
)
from gammastar.subtract.charm import fit_charm
from gammastar.subtract.charm import Correction, apply_corrections, eta_dimuon
from gammastar.subtract.weights import bootstrap_covariance, event_weights, pair_weights, posterior_weights

__all__ = [
    "same_sign",
    "LowCountWarning",
    "Pool",
    "mixing_pool",
    "mixed_pairs",
    "r_factor",
    "mixed_spectrum",
    "ChargeRatio",
    "mixed_ratio",
    "combinatorial",
    "shift_by_r",
    "with_bootstrap",
    "few_like_sign",
    "fit_charm",
    "Correction",
    "eta_dimuon",
    "apply_corrections",
    "negative_yields",
    "control_ratio",
    "event_weights",
    "pair_weights",
    "posterior_weights",
    "bootstrap_covariance",
]
