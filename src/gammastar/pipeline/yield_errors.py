"""Uncertainties of rates and yields by source, each with its covariance between masses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gammastar import predict
from gammastar.core.records import FloatArray
from gammastar.pipeline.checkpoint import Arrays

__all__ = ["BUDGET", "rate_budget", "relative_errors", "source_shifts", "yield_budget"]

BUDGET = "budget|"
YIELD = "yield_budget|"


def rate_budget(
    rate: FloatArray,
    cov: FloatArray,
    pot_sigma: float,
    shifts: Mapping[str, FloatArray] | None = None,
    *,
    name: str = "measurement",
) -> Arrays:
    """Return the covariances of a rate by source as ``budget|<source>``, each of shape (n, n).

    Parameters
    ----------
    rate, cov : NDArray, shapes (n,), (n, n)
    pot_sigma : float
        Relative uncertainty of the protons on target, which is not in `cov`.
    shifts : mapping of str to NDArray, shape (n,), optional
        Shifts of the rate by one standard deviation of a source that is in `cov`, e.g. charm or the
        polarisation in the unfolding; they are taken out of it.
    name : str
        Of what is left of `cov`.
    """
    named = dict(shifts or {})
    rest = cov - sum((np.outer(shift, shift) for shift in named.values()), np.zeros_like(cov))
    rest[np.diag_indices_from(rest)] = np.clip(np.diag(rest), 0.0, None)
    found = predict.budget(
        rate, measured=rest, pot=pot_sigma, shifts={k: rate + shift for k, shift in named.items()}
    )
    parts = {name if key == "measurement" else key: part for key, part in found.parts.items()}
    return {f"{BUDGET}{key}": part for key, part in parts.items()}


def source_shifts(made: Any, centres: FloatArray, rates: FloatArray) -> dict[str, FloatArray]:
    """Return the shifts of the rate at the measured masses by the named sources of the unfolding.

    Parameters
    ----------
    made : Products
        With the unfolded spectrum and the unfolding's ``source_names`` and ``source_shifts`` per cell.
    centres, rates : NDArray, shape (n,)
        Of the channel of virtual photons.

    Returns
    -------
    mapping of str to NDArray, shape (n,)
        Empty without an unfolding or without sources.

    Notes
    -----
    Cells outside the measured domain follow those inside, so that the relative shift per mass is the same.
    """
    kept, unfolded = made.unfolding, made.unfolded
    if kept is None or unfolded is None or "source_names" not in kept:
        return {}
    shape = unfolded.values.shape
    names = [axis.name for axis in unfolded.hist.axes]
    others = tuple(i for i, name in enumerate(names) if name != "mass")
    total = unfolded.values.sum(axis=others)
    if len(total) != len(centres):
        return {}
    found: dict[str, FloatArray] = {}
    for name, cells in zip(kept["source_names"], kept["source_shifts"], strict=True):
        shift = np.asarray(cells, dtype=np.float64).reshape(shape).sum(axis=others)
        found[str(name)] = rates * np.divide(shift, total, out=np.zeros_like(shift), where=total > 0)
    return found


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
