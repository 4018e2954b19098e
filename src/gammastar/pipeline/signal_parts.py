"""Uncertainties of the signal by source, and which part of it was measured."""

from __future__ import annotations

from typing import Any

import numpy as np

from gammastar import infer
from gammastar.accept import width_shift
from gammastar.config import Infer
from gammastar.core.records import FloatArray, Reach
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.variations import BAND, PART
from gammastar.pipeline.yield_errors import measured_shares, rate_sources

__all__ = ["in_use", "measured_part", "spreads_of"]


def in_use(accepted: Arrays, *, extrapolate: bool, extrapolation_sigma: float | None = None) -> Arrays:
    """Return the yields of a detector as limits, likelihoods and tables of errors take them.

    Parameters
    ----------
    accepted : Arrays
        Of one detector, over masses and couplings (n, k).
    extrapolate : bool
        [spectrum] extrapolate; without it the signal is the measured part alone, which has no error of an
        extrapolation, and its replicas keep their relative spread.
    extrapolation_sigma : float, optional
        [infer] extrapolation_sigma; takes the place of the fitted ``extrapolation``.
    """
    signal, inside = accepted["signal"], accepted["in_domain_signal"]
    share = np.clip(np.divide(inside, signal, out=np.zeros_like(signal), where=signal > 0), 0.0, 1.0)
    found = dict(accepted)
    if not extrapolate:
        found.pop("extrapolation", None)
        found["signal"] = inside
        for name in ("signal_variations", "polarisation_shifts"):
            if name in found:
                found[name] = found[name] * share
        for name in [name for name in found if name.startswith((PART, BAND))]:
            del found[name]  # the measured part holds no theory
        if f"{PART}virtual_photon" in accepted:
            found[f"{PART}virtual_photon"] = inside
    elif extrapolation_sigma is not None:
        found["extrapolation"] = np.where(signal > 0, (1.0 - share) * extrapolation_sigma, 0.0)
    return found


def spreads_of(section: Infer, predicted: Arrays, accepted: Arrays) -> dict[str, FloatArray]:
    """Return ln κ of the signal at each point by source, of those sources that the steering asks for.

    Protons on target are left out: they are nuisances of the workspace itself. The sources are those of
    `yield_sources`, grouped by kind.
    """
    signal, rate, wanted = accepted["signal"], predicted["rate"], set(section.nuisances)
    cov = rate_sources(predicted).of(["spectrum"]).total()
    of_rate, share = measured_shares(predicted, accepted)
    measured = rate * of_rate
    relative = np.sqrt(np.clip(np.diag(cov), 0.0, None)) / np.where(measured > 0, measured, np.inf)
    common: dict[str, Any] = {
        "spectrum": relative[:, None] * share,
        "scaling": accepted.get("signal_sigma", 0.0),
        "extrapolation": accepted.get("extrapolation", 0.0),
        "sample": np.divide(accepted["mc_error"], signal, out=np.zeros_like(signal), where=signal > 0),
    }
    if "width_sigma" in accepted:
        moved = width_shift(signal, accepted["couplings"], accepted["width_sigma"])
        common["widths"] = np.abs(moved)
    halves = [0.5 * (accepted[name][1] - accepted[name][0]) for name in accepted if name.startswith(BAND)]
    if halves:
        theory = np.sqrt(np.sum(np.square(halves), axis=0))
        common["theory"] = np.divide(theory, signal, out=np.zeros_like(signal), where=signal > 0)
    variations = {"kinematics": accepted["signal_variations"]} if "signal_variations" in accepted else {}
    shifts = {"polarisation": accepted["polarisation_shifts"]} if "polarisation_shifts" in accepted else {}
    return infer.signal_uncertainties(
        signal,
        common={k: v for k, v in common.items() if k in wanted},
        variations={k: v for k, v in variations.items() if k in wanted},
        shifts={k: v for k, v in shifts.items() if k in wanted},
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
