"""−ln L of HS3 documents of HistFactory channels, written out: the judge of what is written and read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from scipy.special import gammaln

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.infer.histfactory.hs3 import chosen, point_of, with_names


def hs3_parameters(model: Any, values: Any) -> dict[str, float]:
    """Return parameters of a pyhf model under their names in the document."""
    kinds: dict[str, str] = dict(model.config.modifiers)
    named: dict[str, float] = {}
    for name, place in model.config.par_map.items():
        part = np.asarray(values)[place["slice"]].tolist()
        if kinds[name] in {"normsys", "histosys"}:
            named[f"alpha_{name}"] = part[0]
        elif kinds[name] in {"normfactor", "lumi"}:
            named[name] = part[0]
        else:
            named |= {f"gamma_{name}_bin_{i}": value for i, value in enumerate(part)}
    return named


NORMSYS, HISTOSYS = (1, 4, 5), (0, 2, 4)
"""Interpolation codes that are understood; 5 is ROOT's name of 4 in exported models."""


def hs3_nll(
    document: Mapping[str, Any], parameters: Mapping[str, float], *, likelihood: str | None = None
) -> float:
    """Return −ln L of a document: Poisson terms of all bins and all constraints.

    Notes
    -----
    K. Cranmer et al., CERN-OPEN-2012-016 (HistFactory). Poisson terms with counts that are not whole use the
    gamma function, as pyhf does.
    """
    document = with_names(document)
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
        total += _gaussian_term(distributions[name], values)
    for name, (kind, relative) in constrained.items():
        total += _bin_term(kind, relative, values[name])
    return total


def interpolated_factor(alpha: float, low: float, high: float, code: int) -> float:
    """Return the factor of a normsys: exponential (1), or a polynomial of order six inside ±1 (4, 5)."""
    if code not in NORMSYS:
        raise PhysicsError(f"HS3: interpolation {code} of a normsys is not one of {NORMSYS}")
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
        raise PhysicsError(f"HS3: interpolation {code} of a histosys is not one of {HISTOSYS}")
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
            raise PhysicsError(
                f"HS3: sample {sample['name']!r} has the unknown modifier {modifier['name']!r} ({kind})"
            )
    if any(modifier["type"] == "histosys" for modifier in sample["modifiers"]):
        shape = np.maximum(shape, 0.0)  # as ROOT's PiecewiseInterpolation
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


def _gaussian_term(constraint: Mapping[str, Any], values: Mapping[str, float]) -> float:
    mean = constraint["mean"]
    centre = values[mean] if isinstance(mean, str) else float(mean)
    sigma = float(constraint["sigma"])
    pull = (values[constraint["x"]] - centre) / sigma
    return 0.5 * pull**2 + float(np.log(sigma * np.sqrt(2.0 * np.pi)))


def _log_poisson(count: FloatArray, mean: FloatArray) -> FloatArray:
    safe = np.maximum(mean, 1e-300)
    return np.asarray(count * np.log(safe) - mean - gammaln(count + 1.0), dtype=np.float64)
