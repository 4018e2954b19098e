"""Yields, names and log-normal factors of HistFactory samples; `workspaces.assemble` puts them together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.core.records import FloatArray


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


def counts_of(values: npt.ArrayLike, bins: int, what: str) -> FloatArray:
    """Return observed counts after checks."""
    counts = np.atleast_1d(np.asarray(values, dtype=np.float64))
    whole = np.isfinite(counts) & (counts >= 0) & (counts == np.rint(counts))
    if counts.shape != (bins,) or not whole.all():
        raise PhysicsError(f"{what}: observed = {values!r} must be {bins} whole number(s) >= 0")
    return counts


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
