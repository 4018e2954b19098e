"""Uncertainties of the signal by source, and which part of it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import infer
from gammastar.config import Infer
from gammastar.core.records import FloatArray, Reach
from gammastar.pipeline.checkpoint import Arrays

__all__ = ["measured_part", "spreads_of"]


def spreads_of(section: Infer, predicted: Arrays, accepted: Arrays) -> dict[str, FloatArray]:
    """Return ln κ of the signal at each point by source, of those sources that the steering asks for."""
    signal = accepted["signal"]
    rate = predicted["rate"]
    relative = np.sqrt(np.clip(np.diag(predicted["cov"]), 0.0, None)) / np.where(rate > 0, rate, np.inf)
    common: dict[str, Any] = {"spectrum": relative[:, None], "scaling": accepted.get("signal_sigma", 0.0)}
    variations = {"kinematics": accepted["signal_variations"]} if "signal_variations" in accepted else {}
    shifts = {"polarisation": accepted["polarisation_shifts"]} if "polarisation_shifts" in accepted else {}
    wanted, typed = set(section.nuisances), section.extrapolation_sigma
    if typed is None and "extrapolation" in accepted:
        common["extrapolation"] = accepted["extrapolation"]
    return infer.signal_spread(
        signal,
        common={k: v for k, v in common.items() if k in wanted},
        variations={k: v for k, v in variations.items() if k in wanted},
        shifts={k: v for k, v in shifts.items() if k in wanted},
        in_domain=accepted["in_domain_signal"],
        extrapolation=(typed or 0.0) if "extrapolation" in wanted else 0.0,
    )


def measured_part(
    reach: Reach, mass: FloatArray, couplings: FloatArray, inside: FloatArray, total: FloatArray
) -> FloatArray:
    """Return the measured part of the signal on both edges of every entry, shape (n, 2)."""
    part = np.divide(inside, total, out=np.zeros_like(total), where=total > 0)
    row = np.searchsorted(mass, reach.mass)
    known = np.isfinite(reach.edges)
    log_edges = np.log(np.where(known, reach.edges, couplings[0]))
    grid = np.log(couplings)
    index = np.clip(np.searchsorted(grid, log_edges), 1, len(grid) - 1)
    share = (log_edges - grid[index - 1]) / (grid[index] - grid[index - 1])
    low, high = part[row[:, None], index - 1], part[row[:, None], index]
    return np.where(known, low + share * (high - low), np.nan)
