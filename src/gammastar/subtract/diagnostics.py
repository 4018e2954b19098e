"""Alarms of the same-sign subtraction: negative yields and the control ratio."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gammastar.core.axes import flow_free
from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray, PairHists, Spectrum
from gammastar.subtract.same_sign import (
    Coarse,
    Method,
    background,
    checked_r_factor,
    low_count_fraction,
    regions,
)

__all__ = ["Diagnostics", "NegativeYield", "control_ratio", "diagnose", "negative_yields"]


@dataclass(frozen=True, slots=True)
class NegativeYield:
    """A cell whose subtracted yield is negative beyond its error.

    Attributes
    ----------
    index : tuple of int
        Position along each axis.
    bounds : tuple of (str, float, float)
        Name, lower and upper edge of each axis.
    value, sigma : float
    """

    index: tuple[int, ...]
    bounds: tuple[tuple[str, float, float], ...]
    value: float
    sigma: float

    def __str__(self) -> str:
        """Return the alarm as a sentence."""
        place = ", ".join(f"{name} {low:g}-{high:g}" for name, low, high in self.bounds)
        return (
            f"{place}: {self.value:.1f} ± {self.sigma:.1f}; look for split tracks"
            " (like-sign pairs at small opening angle) or a wrong R"
        )


@dataclass(frozen=True, slots=True, eq=False)
class Diagnostics:
    """What to look at before a subtracted spectrum is used.

    Attributes
    ----------
    background_fraction : float
        Background over opposite-sign pairs.
    low_count_fraction : float
        Fraction of the background that rests on fewer than 5 pairs of one charge.
    charge_ratio : float
        ΣN₊₊/ΣN₋₋; nan without -- pairs.
    negative : tuple of NegativeYield
    """

    background_fraction: float
    low_count_fraction: float
    charge_ratio: float
    negative: tuple[NegativeYield, ...]


def negative_yields(spectrum: Spectrum, *, threshold: float = 3.0) -> tuple[NegativeYield, ...]:
    """Return the cells whose yield lies more than `threshold` standard deviations below zero.

    Parameters
    ----------
    spectrum : Spectrum
    threshold : float
        In standard deviations, positive.
    """
    values = spectrum.values
    sigma = np.sqrt(np.clip(np.diag(spectrum.cov), 0, None)).reshape(values.shape)
    edges = [np.asarray(axis.edges) for axis in spectrum.hist.axes]
    found = []
    for index in np.argwhere((values < -threshold * sigma) & (values < 0)):
        place = tuple(int(i) for i in index)
        bounds = tuple(
            (axis.name, float(edge[i]), float(edge[i + 1]))
            for axis, edge, i in zip(spectrum.hist.axes, edges, place, strict=True)
        )
        found.append(NegativeYield(place, bounds, float(values[place]), float(sigma[place])))
    return tuple(found)


def control_ratio(
    hists: PairHists,
    region: BoolArray,
    *,
    method: Method = "B5",
    r_factor: float | FloatArray = 1.0,
    coarse: Coarse | None = None,
) -> tuple[float, float]:
    """Return opposite-sign pairs over estimated background in a region without signal, and its error.

    A ratio away from 1 means that R lacks its multiplicity part, or that there is signal.

    Parameters
    ----------
    hists : PairHists
    region : NDArray of bool, shape of the cells
        Cells without signal, for example a vertex sideband.
    method, r_factor, coarse
        As for `same_sign`.

    Returns
    -------
    ratio, sigma : float
        nan without background in the region.

    Raises
    ------
    UserError
        If `region` does not have the shape of the cells.
    """
    shape = tuple(len(axis) for axis in hists.os.axes)
    if region.shape != shape:
        msg = f"control_ratio: region has shape {region.shape}, the cells have {shape}"
        raise UserError(msg)
    chosen = region.ravel()
    r_cell = checked_r_factor(method, r_factor, shape)
    size, cov = background(hists, method=method, r_factor=r_cell, region=regions(hists.os.axes, coarse))
    os, var_os = flow_free(hists.os)
    total, estimate = float(os[chosen].sum()), float(size[chosen].sum())
    if estimate <= 0:
        return float("nan"), float("nan")
    ratio = total / estimate
    variance = float(var_os[chosen].sum()) + ratio**2 * float(cov[np.ix_(chosen, chosen)].sum())
    return ratio, float(np.sqrt(variance)) / estimate


def diagnose(
    hists: PairHists, spectrum: Spectrum, *, method: Method = "B5", coarse: Coarse | None = None
) -> Diagnostics:
    """Return the diagnostics of a subtraction.

    Parameters
    ----------
    hists : PairHists
    spectrum : Spectrum
        Result of `same_sign` on `hists` with the same `method` and `coarse`.
    method, coarse
        As for `same_sign`.
    """
    (os, _), (pp, _), (mm, _) = (flow_free(h) for h in (hists.os, hists.pp, hists.mm))
    total = float(os.sum())
    like_minus = float(mm.sum())
    return Diagnostics(
        (total - float(spectrum.values.sum())) / total if total > 0 else 0.0,
        low_count_fraction(hists, method=method, coarse=coarse),
        float(pp.sum()) / like_minus if like_minus > 0 else float("nan"),
        negative_yields(spectrum),
    )
