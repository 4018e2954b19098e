"""Every systematic effect of a search as HistFactory modifiers; `workspaces.assemble` puts them together.

| effect | builder |
|---|---|
| protons on target (two runs), R, charm, efficiency | `log_normal` with one shared name each |
| like-sign counts | `poisson_counts`; with empty bins `like_sign_channel` |
| size of a simulation or of a flow's sample | `poisson_counts` |
| members of a flow ensemble | `ensemble_shapes` |
| covariance of the unfolding | `covariance_shapes` |
| mass resolution, energy scale | `paired_shape`; of a template all at once `shape_modifiers` |
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.core.records import FloatArray, Template


def yields_of(values: npt.ArrayLike, what: str) -> FloatArray:
    """Return the bins of a template after checks."""
    bins = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if bins.ndim != 1 or not bins.size or not np.isfinite(bins).all():
        raise PhysicsError(f"{what}: expected events {values!r} must be finite, in one dimension")
    if (bins < 0).any():
        worst = int(np.argmin(bins))
        raise NegativeYieldError(
            f"{what}: bin {worst} holds {bins[worst]:g} events; merge bins until none is negative"
        )
    return bins


def check_modifiers(modifiers: Iterable[Mapping[str, Any]], what: str) -> None:
    """Refuse two modifiers of one name and type on a sample: pyhf would keep one of them, or fail late."""
    seen = set()
    for modifier in modifiers:
        key = (modifier["name"], modifier["type"])
        if key in seen:
            raise PhysicsError(
                f"{what}: two nuisances ({key[1]}) are called {key[0]!r}; each source needs a name of its own"
            )
        seen.add(key)


def log_normal(name: str, sigma: float) -> Modifiers:
    """Return a log-normal normalisation: protons on target, R, charm, an efficiency.

    With κ = e^σ and lo = 1/hi every interpolation code of HistFactory gives κ^θ at |θ| ≥ 1 and keeps the
    median. The list has one modifier, and none where σ = 0.
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        raise PhysicsError(
            f"{name}: standard deviation of the logarithm {sigma!r} must be finite and not negative"
        )
    if sigma == 0:
        return []
    kappa = float(np.exp(sigma))
    return [{"name": name, "type": "normsys", "data": {"hi": kappa, "lo": 1.0 / kappa}}]


Modifiers: TypeAlias = list[dict[str, Any]]

SMALLEST = 1e-6  # eigenvalues below this part of the trace are dropped
BEYOND = 3.0  # standard deviations up to which a bin must stay positive


def poisson_counts(name: str, nominal: npt.ArrayLike, variance: npt.ArrayLike) -> Modifiers:
    """Return bin-wise Poisson constraints of counts that were measured or simulated (shapesys)."""
    values, squares = yields_of(nominal, name), yields_of(variance, f"{name}, variance")
    if values.shape != squares.shape:
        raise PhysicsError(f"{name}: {values.size} bins, {squares.size} variances")
    empty = np.flatnonzero((values <= 0) | (squares <= 0))
    if empty.size:
        raise PhysicsError(
            f"{name}: bin {empty[0]} has no counts; use like_sign_channel, which keeps empty bins valid"
        )
    return [{"name": name, "type": "shapesys", "data": np.sqrt(squares).tolist()}]


def paired_shape(
    name: str, nominal: npt.ArrayLike, up: npt.ArrayLike, down: npt.ArrayLike, *, where: str = ""
) -> Modifiers:
    """Return a shape with its normalisation split off: one nuisance moves both (resolution, energy scale)."""
    what = where or name
    bins = yields_of(nominal, what)
    high, low = (yields_of(values, f"{what}, {side}") for values, side in ((up, "up"), (down, "down")))
    if not bins.shape == high.shape == low.shape:
        raise PhysicsError(f"{what}: {high.shape}, {low.shape} bins, the nominal has {bins.shape}")
    if min(bins.sum(), high.sum(), low.sum()) <= 0:
        raise PhysicsError(f"{what}: a variation without any events cannot be used")
    factors = float(high.sum() / bins.sum()), float(low.sum() / bins.sum())
    high, low = high / factors[0], low / factors[1]
    _positive(what, bins, np.stack([high - bins, low - bins]))
    return [
        {"name": name, "type": "normsys", "data": {"hi": factors[0], "lo": factors[1]}},
        _histosys(name, high, low),
    ]


def shape_modifiers(template: Template) -> Modifiers:
    """Return the variations of a template as pairs of normalisation and shape (`paired_shape`)."""
    modifiers: Modifiers = []
    for name, (up, down) in template.variations.items():
        values = (template.nominal.values(), up.values(), down.values())
        modifiers += paired_shape(name, *values, where=f"{template.name}, {name}")
    return modifiers


def covariance_shapes(name: str, nominal: npt.ArrayLike, covariance: npt.ArrayLike) -> Modifiers:
    """Return one shape per eigenvector of a covariance (unfolding), whose squares sum to it."""
    bins, matrix = yields_of(nominal, name), np.asarray(covariance, dtype=np.float64)
    if matrix.shape != (bins.size, bins.size) or not np.allclose(matrix, matrix.T, rtol=1e-6, atol=0):
        raise PhysicsError(
            f"{name}: covariance of shape {matrix.shape} must be symmetric, {bins.size} by {bins.size}"
        )
    values, vectors = np.linalg.eigh(matrix)
    trace = max(float(np.trace(matrix)), 0.0)
    if values[0] < -SMALLEST * trace:
        raise PhysicsError(f"{name}: the covariance has the negative eigenvalue {values[0]:g}")
    modifiers = []
    for i, k in enumerate(np.flatnonzero(values > SMALLEST * trace)[::-1]):
        shift = np.sqrt(values[k]) * vectors[:, k]
        _positive(f"{name}_{i}", bins, np.stack([shift, -shift]))
        modifiers.append(_histosys(f"{name}_{i}", bins + shift, bins - shift))
    return modifiers


def ensemble_shapes(name: str, members: npt.ArrayLike, *, kept: float = 0.99) -> tuple[FloatArray, Modifiers]:
    """Return the mean of an ensemble (of flows) and its spread as principal components."""
    templates = np.atleast_2d(np.asarray(members, dtype=np.float64))
    if len(templates) < 2:
        raise PhysicsError(f"{name}: an ensemble needs at least two members, got {len(templates)}")
    for i, template in enumerate(templates):
        yields_of(template, f"{name}, member {i}")
    nominal, sums = templates.mean(axis=0), templates.sum(axis=1)
    if not sums.min() > 0:
        raise PhysicsError(f"{name}: member {int(np.argmin(sums))} has no events")
    modifiers = log_normal(f"{name}_norm", float(np.log(sums).std(ddof=1)))
    shapes = templates * (nominal.sum() / sums)[:, None]
    left, singular, right = np.linalg.svd(shapes - shapes.mean(axis=0), full_matrices=False)
    variance = singular**2 / (len(templates) - 1)
    if not variance.sum() > 1e-12 * nominal.sum() ** 2:
        return nominal, modifiers
    count = int(np.searchsorted(np.cumsum(variance) / variance.sum(), kept)) + 1
    for i in range(min(count, left.shape[1])):
        shift = np.sqrt(variance[i]) * right[i]
        _positive(f"{name}_{i}", nominal, np.stack([shift, -shift]))
        modifiers.append(_histosys(f"{name}_{i}", nominal + shift, nominal - shift))
    rest = np.sqrt((variance[count:, None] * right[count:] ** 2).sum(axis=0))
    if (rest > 1e-4 * nominal).any() and (nominal > 0).all():
        rest = np.maximum(rest, 1e-4 * nominal)  # a Poisson constraint of 1e8 counts is as good as fixed
        modifiers.append({"name": f"{name}_rest", "type": "shapesys", "data": rest.tolist()})
    return nominal, modifiers


def _histosys(name: str, high: FloatArray, low: FloatArray) -> dict[str, Any]:
    return {"name": name, "type": "histosys", "data": {"hi_data": high.tolist(), "lo_data": low.tolist()}}


def _positive(name: str, nominal: FloatArray, shifts: FloatArray) -> None:
    lowest = nominal + BEYOND * np.minimum(shifts, 0.0).min(axis=0)
    if (lowest < -1e-12).any():
        worst = int(np.argmin(lowest))
        raise NegativeYieldError(
            f"{name}: bin {worst} is {lowest[worst]:g} at {BEYOND:g} standard deviations; "
            "merge bins or smooth the variation"
        )
