"""The likelihood of an HS3 document of HistFactory channels, computed from the document alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["chosen", "hs3_nll", "interpolated_factor", "interpolated_shape", "point_of"]

NORMSYS, HISTOSYS = (1, 4, 5), (0, 2, 4)
"""Interpolation codes that are understood; 5 is ROOT's name of 4 in exported models."""


def hs3_nll(
    document: Mapping[str, Any], parameters: Mapping[str, float], *, likelihood: str | None = None
) -> float:
    """Return −ln L of a document: Poisson terms of all bins and all constraints.

    Parameters
    ----------
    document : mapping
        HS3 with distributions of the type ``histfactory_dist``.
    parameters : mapping of str to float
        By their names in the document; others take their values of the first parameter point.
    likelihood : str, optional
        Of several ones.

    Raises
    ------
    PhysicsError
        For distributions, modifiers or interpolation codes that are not of HistFactory, by name.

    Notes
    -----
    K. Cranmer et al., CERN-OPEN-2012-016 (HistFactory). Poisson terms with counts that are not whole use the
    gamma function, as pyhf does.
    """
    values = point_of(document) | dict(parameters)
    channels, data = chosen(document, likelihood)
    distributions = {d["name"]: d for d in document["distributions"]}
    total = 0.0
    constrained: dict[str, tuple[str, float]] = {}  # bin-wise parameter: kind and relative error
    gaussians: set[str] = set()
    for channel, observed in zip(channels, data, strict=True):
        expected = np.zeros(len(observed))
        errors = _summed_errors(channel)
        for sample in channel["samples"]:
            expected = expected + _expected(sample, values)
            for modifier in sample["modifiers"]:
                if "constraint_name" in modifier:
                    gaussians.add(modifier["constraint_name"])
                constrained |= _bin_constraints(modifier, errors)
        total -= float(_log_poisson(np.asarray(observed, np.float64), expected).sum())
    for name in gaussians:
        total += _gaussian(distributions[name], values)
    for name, (kind, relative) in constrained.items():
        total += _bin_term(kind, relative, values[name])
    return total


def point_of(document: Mapping[str, Any]) -> dict[str, float]:
    """Return the values of the first parameter point (none if there is none)."""
    points = document.get("parameter_points") or [{"parameters": []}]
    return {entry["name"]: float(entry["value"]) for entry in points[0]["parameters"]}


def chosen(
    document: Mapping[str, Any], likelihood: str | None
) -> tuple[list[Mapping[str, Any]], list[list[float]]]:
    """Return the channels of a likelihood and their counts; by default the one whose data are observed."""
    entries = {entry["name"]: entry for entry in document["likelihoods"]}
    if likelihood is None:
        observed = [name for name in entries if "asimov" not in name.casefold()]
        likelihood = (observed or list(entries))[0] if len(observed) == 1 or len(entries) == 1 else None
    if likelihood not in entries:
        msg = f"HS3: choose one of the likelihoods {sorted(entries)}, not {likelihood!r}"
        raise PhysicsError(msg)
    distributions = {d["name"]: d for d in document["distributions"]}
    data = {d["name"]: d for d in document["data"]}
    entry = entries[likelihood]
    channels = [distributions[name] for name in entry["distributions"]]
    for channel in channels:
        if channel["type"] != "histfactory_dist":
            msg = f"HS3: distribution {channel['name']!r} is a {channel['type']}, not a histfactory_dist"
            raise PhysicsError(msg)
    counts = [[float(n) for n in data[name]["contents"]] for name in entry["data"]]
    return channels, counts


def interpolated_factor(alpha: float, low: float, high: float, code: int) -> float:
    """Return the factor of a normsys: exponential (1), or a polynomial of order six inside ±1 (4, 5)."""
    if code not in NORMSYS:
        msg = f"HS3: interpolation {code} of a normsys is not one of {NORMSYS}"
        raise PhysicsError(msg)
    if code == 1 or abs(alpha) >= 1.0:
        return float(high**alpha if alpha >= 0 else low ** (-alpha))
    logs = np.log(high), np.log(low)
    # value, slope and curvature at both ends fix the six coefficients
    ends = [high - 1, low - 1, high * logs[0], -low * logs[1], high * logs[0] ** 2, low * logs[1] ** 2]
    powers = np.arange(1, 7)
    matrix = []
    for order in (0, 1, 2):
        down = np.maximum(powers - order, 0)
        scale = np.prod([powers - k for k in range(order)], axis=0) if order else np.ones(6)
        matrix += [scale * np.where(powers >= order, 1.0, 0.0), scale * (-1.0) ** down * (powers >= order)]
    coefficients = np.linalg.solve(np.array(matrix, dtype=np.float64), np.array(ends))
    return float(1.0 + coefficients @ alpha**powers)


def interpolated_shape(
    alpha: float, nominal: FloatArray, low: FloatArray, high: FloatArray, code: int
) -> FloatArray:
    """Return what a histosys adds: linear (0), parabolic (2) or smooth inside ±1 (4), linear outside."""
    if code not in HISTOSYS:
        msg = f"HS3: interpolation {code} of a histosys is not one of {HISTOSYS}"
        raise PhysicsError(msg)
    up, down = high - nominal, nominal - low
    if code == 0 or (code == 4 and abs(alpha) >= 1.0):
        return np.asarray(alpha * (up if alpha >= 0 else down), dtype=np.float64)
    even, odd = 0.5 * (up - down), 0.5 * (up + down)
    if code == 2:
        if abs(alpha) < 1.0:
            return np.asarray(even * alpha**2 + odd * alpha, dtype=np.float64)
        sign = np.sign(alpha)
        return np.asarray((odd + 2 * sign * even) * (alpha - sign) + even + sign * odd, dtype=np.float64)
    smooth = alpha**2 * (15.0 - 10.0 * alpha**2 + 3.0 * alpha**4) / 8.0
    return np.asarray(odd * alpha + even * smooth, dtype=np.float64)


def _expected(sample: Mapping[str, Any], values: Mapping[str, float]) -> FloatArray:
    nominal = np.asarray(sample["data"]["contents"], dtype=np.float64)
    shape, factor = nominal.copy(), np.ones(len(nominal))
    for modifier in sample["modifiers"]:
        kind, data = modifier["type"], modifier.get("data", {})
        if kind == "normfactor":
            factor = factor * values[modifier["parameter"]]
        elif kind == "normsys":
            code = int(modifier.get("interpolation", 4))
            factor = factor * interpolated_factor(values[modifier["parameter"]], data["lo"], data["hi"], code)
        elif kind == "histosys":
            low, high = (np.asarray(data[side]["contents"], dtype=np.float64) for side in ("lo", "hi"))
            code = int(modifier.get("interpolation", 4))
            shape = shape + interpolated_shape(values[modifier["parameter"]], nominal, low, high, code)
        elif kind in {"shapesys", "staterror", "shapefactor"}:
            factor = factor * np.array([values[name] for name in modifier["parameters"]])
        else:
            msg = f"HS3: sample {sample['name']!r} has the unknown modifier {modifier['name']!r} ({kind})"
            raise PhysicsError(msg)
    return np.asarray(shape * factor, dtype=np.float64)


def _summed_errors(channel: Mapping[str, Any]) -> FloatArray:
    """Return the relative errors of all samples of a channel that share a staterror."""
    sums = np.zeros((2, len(channel["samples"][0]["data"]["contents"])))
    for sample in channel["samples"]:
        if any(m["type"] == "staterror" for m in sample["modifiers"]):
            sums[0] += np.asarray(sample["data"]["contents"], dtype=np.float64)
            sums[1] += np.asarray(sample["data"]["errors"], dtype=np.float64) ** 2
    relative: FloatArray = np.divide(
        np.sqrt(sums[1]), sums[0], out=np.zeros(sums.shape[1]), where=sums[0] > 0
    )
    return relative


def _bin_constraints(modifier: Mapping[str, Any], errors: FloatArray) -> dict[str, tuple[str, float]]:
    if modifier["type"] not in {"shapesys", "staterror"}:
        return {}
    relative = errors if modifier["type"] == "staterror" else modifier["data"]["vals"]
    pairs = zip(modifier["parameters"], map(float, relative), strict=True)
    return {name: (modifier["constraint_type"], e) for name, e in pairs if e > 0}


def _bin_term(kind: str, relative: float, gamma: float) -> float:
    if kind == "Poisson":
        counts = relative**-2
        return -float(_log_poisson(np.array([counts]), np.array([gamma * counts]))[0])
    return 0.5 * ((gamma - 1.0) / relative) ** 2 + float(np.log(relative * np.sqrt(2.0 * np.pi)))


def _gaussian(constraint: Mapping[str, Any], values: Mapping[str, float]) -> float:
    mean = constraint["mean"]
    centre = values[mean] if isinstance(mean, str) else float(mean)
    sigma = float(constraint["sigma"])
    pull = (values[constraint["x"]] - centre) / sigma
    return 0.5 * pull**2 + float(np.log(sigma * np.sqrt(2.0 * np.pi)))


def _log_poisson(count: FloatArray, mean: FloatArray) -> FloatArray:
    safe = np.maximum(mean, 1e-300)
    return np.asarray(count * np.log(safe) - mean - gammaln(count + 1.0), dtype=np.float64)
