"""Uncertainties of rates and yields by source, and of the signal in limits; which part of it was measured."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from gammastar import infer
from gammastar.accept import width_shift
from gammastar.config import Infer
from gammastar.core.records import FloatArray, Reach
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
from gammastar.pipeline.cache import Arrays

__all__ = [
    "BAND",
    "PART",
    "THEORY_OF",
    "in_use",
    "measured_part",
    "measured_shares",
    "rate_budget",
    "rate_error",
    "rate_sources",
    "relative_errors",
    "source_shifts",
    "spreads_of",
    "yield_budget",
    "yield_sources",
]

PART, BAND = "part|", "band|"
"""Of arrays: the signal of a channel, (n, k), and the signal at both edges of its theory, (2, n, k)."""
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
