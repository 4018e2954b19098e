"""Templates as HistFactory modifiers: the normalisation of a variation split from its shape."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import NegativeYieldError, PhysicsError
from gammastar.core.records import FloatArray, Template

__all__ = ["check_modifiers", "normsys", "shape_modifiers", "yields_of"]


def yields_of(values: npt.ArrayLike, what: str) -> FloatArray:
    """Return the bins of a template after checks.

    Parameters
    ----------
    values : array_like, shape (n,) or ()
        Expected events per bin.
    what : str
        Name for messages.

    Returns
    -------
    NDArray, shape (n,)

    Raises
    ------
    NegativeYieldError, PhysicsError
        For a negative bin; for anything but a finite one-dimensional array of at least one bin.
    """
    bins = np.atleast_1d(np.asarray(values, dtype=np.float64))
    if bins.ndim != 1 or not bins.size or not np.isfinite(bins).all():
        msg = f"{what}: expected events {values!r} must be finite, in one dimension"
        raise PhysicsError(msg)
    if (bins < 0).any():
        worst = int(np.argmin(bins))
        msg = f"{what}: bin {worst} holds {bins[worst]:g} events; merge bins until none is negative"
        raise NegativeYieldError(msg)
    return bins


def check_modifiers(modifiers: Iterable[Mapping[str, Any]], what: str) -> None:
    """Refuse two modifiers of one name and type on a sample: pyhf would keep one of them, or fail late.

    Raises
    ------
    PhysicsError
    """
    seen = set()
    for modifier in modifiers:
        key = (modifier["name"], modifier["type"])
        if key in seen:
            msg = (
                f"{what}: two nuisances ({key[1]}) are called {key[0]!r}; each source needs a name of its own"
            )
            raise PhysicsError(msg)
        seen.add(key)


def normsys(name: str, sigma: float) -> list[dict[str, Any]]:
    """Return a log-normal normalisation with κ = e^σ as a list of one modifier (none when σ = 0).

    With lo = 1/hi every interpolation code of HistFactory gives κ^θ at |θ| ≥ 1 and keeps the median.

    Raises
    ------
    PhysicsError
        If `sigma` is negative or not finite.
    """
    if not (np.isfinite(sigma) and sigma >= 0):
        msg = f"{name}: standard deviation of the logarithm {sigma!r} must be finite and not negative"
        raise PhysicsError(msg)
    if sigma == 0:
        return []
    kappa = float(np.exp(sigma))
    return [{"name": name, "type": "normsys", "data": {"hi": kappa, "lo": 1.0 / kappa}}]


def shape_modifiers(template: Template) -> list[dict[str, Any]]:
    """Return the variations of a template as pairs of normalisation and shape.

    Parameters
    ----------
    template : Template
        One-dimensional histograms.

    Returns
    -------
    list of dict
        For each variation a normsys with the ratio of the sums and a histosys, of the same name, with up and
        down scaled to the nominal sum: one nuisance moves both.

    Raises
    ------
    NegativeYieldError
        If a bin falls below zero within three standard deviations of the variation.
    """
    nominal = yields_of(template.nominal.values(), template.name)
    modifiers: list[dict[str, Any]] = []
    for name, pair in template.variations.items():
        up, down = (yields_of(hist.values(), f"{template.name}, {name}") for hist in pair)
        if up.shape != nominal.shape or down.shape != nominal.shape:
            msg = f"{template.name}, {name}: {up.shape}, {down.shape} bins, the nominal has {nominal.shape}"
            raise PhysicsError(msg)
        if min(up.sum(), down.sum(), nominal.sum()) <= 0:
            msg = f"{template.name}, {name}: a variation without any events cannot be used"
            raise PhysicsError(msg)
        factors = up.sum() / nominal.sum(), down.sum() / nominal.sum()
        high, low = up / factors[0], down / factors[1]
        lowest = nominal + 3.0 * np.minimum.reduce([high - nominal, low - nominal, np.zeros_like(nominal)])
        if (lowest < 0).any():
            worst = int(np.argmin(lowest))
            msg = (
                f"{template.name}, {name}: bin {worst} is {lowest[worst]:g} at three standard deviations; "
                "merge bins or smooth the variation"
            )
            raise NegativeYieldError(msg)
        modifiers += [
            {"name": name, "type": "normsys", "data": {"hi": float(factors[0]), "lo": float(factors[1])}},
            {
                "name": name,
                "type": "histosys",
                "data": {"hi_data": high.tolist(), "lo_data": low.tolist()},
            },
        ]
    return modifiers
