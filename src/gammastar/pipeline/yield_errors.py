"""Uncertainties of rates and yields by source, each with its covariance between masses."""

from __future__ import annotations

import numpy as np

from gammastar import predict
from gammastar.core.records import FloatArray
from gammastar.pipeline.checkpoint import Arrays

__all__ = ["BUDGET", "rate_budget", "relative_errors", "yield_budget"]

BUDGET = "budget|"
YIELD = "yield_budget|"


def rate_budget(rate: FloatArray, cov: FloatArray, pot_sigma: float) -> Arrays:
    """Return the covariances of a rate by source as ``budget|<source>``, each of shape (n, n)."""
    found = predict.budget(rate, measured=cov, pot=pot_sigma)
    return {f"{BUDGET}{name}": part for name, part in found.parts.items()}


def yield_budget(predicted: Arrays, accepted: Arrays) -> Arrays:
    """Return the covariances between masses of the yield at each mass's best coupling, by source.

    Parameters
    ----------
    predicted : Arrays
        With ``rate`` and ``budget|<source>`` (n, n).
    accepted : Arrays
        With ``signal`` (n, k), ``signal_sigma``, and ``signal_variations`` or ``polarisation_shifts``.

    Returns
    -------
    Arrays
        ``best_coupling`` and ``best_signal`` (n,), ``yield_budget|<source>`` (n, n).

    Notes
    -----
    Sources of the rate scale with the acceptance; the kinematics ("flow") come from the spread of the
    replicas' yields, the spin state from half the distance of its two ends, the scaling with A is common.
    """
    signal, rows = accepted["signal"], np.arange(len(accepted["signal"]))
    best = signal.argmax(axis=1)
    value = signal[rows, best]
    rate = predicted["rate"]
    factor = np.divide(value, rate, out=np.zeros_like(value), where=rate > 0)
    n, common = len(value), {}
    if float(accepted["signal_sigma"]) > 0:
        common["scaling with A"] = float(accepted["signal_sigma"])
    shifts, ensembles = {}, {}
    if "polarisation_shifts" in accepted:
        shifts["polarisation"] = accepted["polarisation_shifts"][:, rows, best]
    if "signal_variations" in accepted:
        ensembles["flow"] = accepted["signal_variations"][:, rows, best]
    found = predict.budget(
        value, measured=np.zeros((n, n)), common=common, shifts=shifts, ensembles=ensembles
    )
    own = {k: v for k, v in found.parts.items() if k not in ("measurement", "protons on target")}
    scaled = {
        k.removeprefix(BUDGET): v * np.outer(factor, factor)
        for k, v in predicted.items()
        if k.startswith(BUDGET)
    }
    simulated = np.diag(accepted["mc_error"][rows, best] ** 2)
    parts = scaled | own | {"finite sample": simulated}
    named: Arrays = {f"{YIELD}{name}": part for name, part in parts.items()}
    return named | {"best_coupling": accepted["couplings"][best], "best_signal": value}


def relative_errors(accepted: Arrays, masses: FloatArray, at: FloatArray) -> dict[str, list[float]]:
    """Return the relative standard deviation of the yield by source at the masses next to the wanted ones."""
    value = accepted["best_signal"]
    rows = np.unique(np.abs(masses[:, None] - np.asarray(at)[None, :]).argmin(axis=0))
    rows = rows[value[rows] > 0]
    table: dict[str, list[float]] = {"mass": [float(masses[i]) for i in rows]}
    total = np.zeros(len(rows))
    for name, cov in accepted.items():
        if name.startswith(YIELD):
            variance = np.clip(np.diag(cov)[rows], 0.0, None)
            total += variance
            table[name.removeprefix(YIELD)] = list(np.sqrt(variance) / value[rows])
    table["total"] = list(np.sqrt(total) / value[rows])
    return table
