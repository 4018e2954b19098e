"""Every systematic effect of a search as HistFactory modifiers; `workspaces.assemble` puts them together.

| effect | builder |
|---|---|
| protons on target (two runs), R, charm, efficiency | `log_normal` with one shared name each |
| like-sign counts | `poisson_counts`; with empty bins `like_sign_channel` |
| size of a simulation or of a flow's sample | `poisson_counts` |
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
        {"name": name, "type": "histosys", "data": {"hi_data": high.tolist(), "lo_data": low.tolist()}},
    ]


def shape_modifiers(template: Template) -> Modifiers:
    """Return the variations of a template as pairs of normalisation and shape (`paired_shape`)."""
    modifiers: Modifiers = []
    for name, (up, down) in template.variations.items():
        values = (template.nominal.values(), up.values(), down.values())
        modifiers += paired_shape(name, *values, where=f"{template.name}, {name}")
    return modifiers


def _positive(name: str, nominal: FloatArray, shifts: FloatArray) -> None:
    lowest = nominal + BEYOND * np.minimum(shifts, 0.0).min(axis=0)
    if (lowest < -1e-12).any():
        worst = int(np.argmin(lowest))
        raise NegativeYieldError(
            f"{name}: bin {worst} is {lowest[worst]:g} at {BEYOND:g} standard deviations; "
            "merge bins or smooth the variation"
        )
