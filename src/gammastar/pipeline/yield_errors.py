"""Uncertainties of rates and yields by source, each with its covariance between masses."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gammastar.accept import width_shift
from gammastar.core.records import FloatArray
from gammastar.core.sources import (
    EXTRAPOLATION,
    FLOW,
    MEASUREMENT,
    POT,
    SAMPLE,
    SCALING,
    SEARCH_POT,
    SPIN,
    WIDTHS,
    Kind,
    Source,
    Sources,
)
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.variations import BAND, PART

__all__ = [
    "THEORY_OF",
    "measured_shares",
    "rate_budget",
    "rate_error",
    "rate_sources",
    "relative_errors",
    "source_shifts",
    "yield_budget",
    "yield_sources",
]

BUDGET = "budget|"
YIELD = "yield_budget|"
THEORY_OF = "theory, "
"""Before the group of a theory channel that stands beside measured photons."""


def rate_budget(
    rate: FloatArray,
    cov: FloatArray,
    pot_sigma: float,
    shifts: Mapping[str, FloatArray] | None = None,
    *,
    name: str = MEASUREMENT,
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

    Raises
    ------
    PhysicsError
        If a source has the name of another one.
    """
    named = [Source.shifted(key, "spectrum", shift) for key, shift in (shifts or {}).items()]
    rest = cov - sum((part.cov for part in named), np.zeros_like(cov))
    rest[np.diag_indices_from(rest)] = np.clip(np.diag(rest), 0.0, None)
    pot = Source.shifted(POT, "pot", pot_sigma * rate)
    found = Sources((Source(name, "spectrum", rest), pot, *named))
    return {f"{BUDGET}{part.name}": part.cov for part in found.parts}


def rate_sources(predicted: Arrays) -> Sources:
    """Return the sources of a rate: those of ``budget|<source>``, or ``cov`` alone where there are none."""
    found = {k.removeprefix(BUDGET): v for k, v in predicted.items() if k.startswith(BUDGET)}
    if not found:
        return Sources((Source(MEASUREMENT, "spectrum", predicted["cov"]),))
    return Sources(tuple(Source(name, _kind(name), cov) for name, cov in found.items()))


def _kind(name: str) -> Kind:
    if name.startswith(THEORY_OF):
        return "theory"
    return "pot" if name == POT else "spectrum"


def measured_shares(predicted: Arrays, accepted: Arrays) -> tuple[FloatArray, FloatArray]:
    """Return the parts of the rate (n,) and of the signal (n, k) that come from measured photons.

    One where nothing stands beside them, or where theory is all there is.
    """
    own = accepted.get(f"{PART}virtual_photon")
    if own is None:
        return np.ones_like(predicted["rate"]), np.ones_like(accepted["signal"])
    rate = _ratio(predicted["channel|virtual_photon"], predicted["rate"])
    return rate, _ratio(own, accepted["signal"])


def rate_error(predicted: Arrays) -> FloatArray:
    """Return the standard deviation of a rate from all sources, the extrapolation among them, shape (n,)."""
    variance = np.clip(np.diag(rate_sources(predicted).total()), 0.0, None)
    beyond = predicted.get("extrapolation", np.zeros(1)) * predicted["rate"]
    return np.asarray(np.sqrt(variance + beyond**2))


def source_shifts(made: Any, n_masses: int) -> dict[str, FloatArray]:
    """Return the relative shifts of the mass bins by the named sources of the unfolding.

    Parameters
    ----------
    made : Products
        With the unfolded spectrum and the unfolding's ``source_names`` and ``source_shifts`` per cell.
    n_masses : int
        Bins of mass of the spectrum.

    Returns
    -------
    mapping of str to NDArray, shape (n_masses,)
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
    if len(total) != n_masses:
        return {}
    found: dict[str, FloatArray] = {}
    for name, cells in zip(kept["source_names"], kept["source_shifts"], strict=True):
        shift = np.asarray(cells, dtype=np.float64).reshape(shape).sum(axis=others)
        found[str(name)] = np.divide(shift, total, out=np.zeros_like(shift), where=total > 0)
    return found


def yield_sources(predicted: Arrays, accepted: Arrays) -> tuple[FloatArray, FloatArray, Sources]:
    """Return the yield of each mass at its best coupling, that coupling, and the sources of its error.

    Parameters
    ----------
    predicted : Arrays
        With ``rate`` and ``budget|<source>`` (n, n), or ``cov``.
    accepted : Arrays
        With ``signal`` (n, k), ``mc_error``, ``couplings``, and what else there is of ``signal_sigma``,
        ``pot_search_sigma``, ``width_sigma``, ``signal_variations``, ``polarisation_shifts``,
        ``extrapolation``, ``part|<group>`` and ``band|<group>``.

    Returns
    -------
    value, coupling : NDArray, shape (n,)
    Sources

    Notes
    -----
    Sources of the measured rate scale with the acceptance of the measured photons, and theory beside them has
    the yields of both its edges; the kinematics ("flow") come from the spread of the replicas' yields, the
    spin state from half the distance of its two ends; the scaling with A and the protons on target of the
    search are common; what is extrapolated follows one trend, and R(s) has common errors, so that masses move
    together.
    """
    signal, rows = accepted["signal"], np.arange(len(accepted["signal"]))
    best = signal.argmax(axis=1)
    value, rate = signal[rows, best], predicted["rate"]
    of_rate, of_signal = measured_shares(predicted, accepted)
    acceptance = _ratio(value * of_signal[rows, best], rate * of_rate)
    parts = [p.scaled(acceptance) for p in rate_sources(predicted).parts if not p.name.startswith(THEORY_OF)]
    for name in (name for name in accepted if name.startswith(BAND)):
        ends = accepted[name][:, rows, best]
        parts.append(Source.ranged(f"{THEORY_OF}{name.removeprefix(BAND)}", "theory", ends))
    search, scaling = (float(accepted.get(key, 0.0)) for key in ("pot_search_sigma", "signal_sigma"))
    if search > 0:
        parts.append(Source.shifted(SEARCH_POT, "pot", search * value))
    if scaling > 0:
        parts.append(Source.shifted(SCALING, "scaling", scaling * value))
    if np.any(accepted.get("width_sigma", 0.0)):
        shift = width_shift(signal, accepted["couplings"], accepted["width_sigma"])[rows, best]
        parts.append(Source.shifted(WIDTHS, "widths", shift * value))
    if "polarisation_shifts" in accepted:
        parts.append(Source.ranged(SPIN, "polarisation", accepted["polarisation_shifts"][:, rows, best]))
    if "signal_variations" in accepted:
        parts.append(Source.spread(FLOW, "kinematics", accepted["signal_variations"][:, rows, best]))
    if "extrapolation" in accepted:
        shift = accepted["extrapolation"][rows, best] * value
        parts.append(Source.shifted(EXTRAPOLATION, "extrapolation", shift))
    parts.append(Source(SAMPLE, "sample", np.diag(accepted["mc_error"][rows, best] ** 2)))
    return value, accepted["couplings"][best], Sources(tuple(parts))


def yield_budget(predicted: Arrays, accepted: Arrays) -> Arrays:
    """Return what `yield_sources` finds as arrays.

    Returns
    -------
    Arrays
        ``best_coupling`` and ``best_signal`` (n,), ``yield_budget|<source>`` (n, n).
    """
    value, coupling, found = yield_sources(predicted, accepted)
    named: Arrays = {f"{YIELD}{part.name}": part.cov for part in found.parts}
    return named | {"best_coupling": coupling, "best_signal": value}


def relative_errors(
    predicted: Arrays, accepted: Arrays, at: FloatArray, nuisances: Collection[str] = ()
) -> dict[str, list[float]]:
    """Return the relative standard deviation of the yield by source at the masses next to the wanted ones.

    Parameters
    ----------
    predicted, accepted : Arrays
        As in `yield_sources`.
    at : NDArray [GeV]
    nuisances : collection of str
        Kinds of sources that the limit takes.

    Returns
    -------
    dict of str to list of float
        ``mass``, one column per source, ``total`` of all of them, and ``in the limit`` of those whose kind is
        among the nuisances.
    """
    value, _, found = yield_sources(predicted, accepted)
    masses = predicted["mass"]
    rows = np.unique(np.abs(masses[:, None] - np.asarray(at)[None, :]).argmin(axis=0))
    rows = rows[value[rows] > 0]

    def sigma(cov: FloatArray) -> list[float]:
        variance = np.diag(cov)[rows] if cov.size else np.zeros(len(rows))
        return list(np.sqrt(np.clip(variance, 0.0, None)) / value[rows])

    table: dict[str, list[float]] = {"mass": [float(masses[i]) for i in rows]}
    table |= {part.name: sigma(part.cov) for part in found.parts}
    table["total"] = sigma(found.total())
    table["in the limit"] = sigma(found.of(nuisances).total())
    return table


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    return np.divide(above, below, out=np.zeros_like(above), where=below > 0)
