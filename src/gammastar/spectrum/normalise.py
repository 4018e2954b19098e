"""Counts become photons per proton on target, in the full phase space, and what extrapolation costs."""

from __future__ import annotations

import logging
from typing import Any, Literal

import numpy as np
from hist import Hist

from gammastar.core.errors import PhysicsError, UserError
from gammastar.core.records import MASS, BoolArray, Exposure, FloatArray, Spectrum, filled, variable

log = logging.getLogger(__name__)


def per_pot(spectrum: Spectrum, exposure: Exposure, domain: BoolArray | None = None) -> Spectrum:
    """Return the spectrum per proton on target.

    Parameters
    ----------
    spectrum : Spectrum
        Quantity "counts", corrected for acceptance and efficiency.
    exposure : Exposure
        Its uncertainty `pot_sigma` stays there: it is one normalisation common to every cell, which cancels
        in situ and is a nuisance of its own elsewhere.
    domain : NDArray of bool, shape of the cells, optional
        Narrows the domain of the spectrum.

    Returns
    -------
    Spectrum
        Quantity "per_pot".

    Raises
    ------
    PhysicsError
        If the spectrum is no longer counts.
    UserError
        If `domain` does not have the shape of the cells.
    """
    if spectrum.quantity != "counts":
        msg = f"per_pot: the spectrum is already {spectrum.quantity!r}; give counts"
        raise PhysicsError(msg)
    inside = spectrum.domain
    if domain is not None:
        if domain.shape != inside.shape:
            msg = f"per_pot: domain has shape {domain.shape}, the cells have {inside.shape}"
            raise UserError(msg)
        inside = inside & domain
    cov = spectrum.cov / exposure.pot**2
    hist = filled(tuple(spectrum.hist.axes), spectrum.values / exposure.pot, np.diag(cov))
    shifts = {name: shift / exposure.pot for name, shift in spectrum.shifts.items()}
    return Spectrum(hist, cov, "per_pot", exposure, inside, shifts=shifts)


def _mass_axis(spectrum: Spectrum) -> int:
    names = [axis.name for axis in spectrum.hist.axes]
    if MASS not in names:
        msg = f"the spectrum has no mass axis; it has {names}"
        raise PhysicsError(msg)
    return names.index(MASS)


def _mass_label(spectrum: Spectrum) -> tuple[Any, FloatArray]:
    """Return the mass axis and the matrix (n_mass, n_cells) that sums over everything else."""
    position = _mass_axis(spectrum)
    label = np.indices(spectrum.domain.shape)[position].ravel()
    axis = spectrum.hist.axes[position]
    return axis, (np.arange(len(axis))[:, None] == label).astype(np.float64)


def mass_density(
    spectrum: Spectrum, part: Literal["all", "measured", "extrapolated"] = "all"
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return dN/dm, summed over every other axis.

    Parameters
    ----------
    part : {"all", "measured", "extrapolated"}
        All cells, those in the domain, or those outside.

    Returns
    -------
    mass : NDArray, shape (n,) [GeV]
        Centres of the mass bins.
    density : NDArray, shape (n,) [1/GeV]
    cov : NDArray, shape (n, n) [1/GeV²]

    Raises
    ------
    PhysicsError
        If the spectrum has no mass axis.
    UserError
        If `part` is unknown.

    Examples
    --------
    >>> from gammastar.core import axes
    >>> axis = (axes.regular("mass", 2, 0.2, 1.2),)
    >>> hist = filled(axis, np.array([3.0, 4.0]), np.array([3.0, 4.0]))
    >>> spectrum = Spectrum(hist, np.diag([3.0, 4.0]), "counts", None, np.ones(2, bool))
    >>> mass_density(spectrum)[1]
    array([6., 8.])
    """
    inside = spectrum.domain.ravel()
    masks = {"all": np.ones_like(inside), "measured": inside, "extrapolated": ~inside}
    if part not in masks:
        msg = f"mass_density: part {part!r} is unknown; choose one of {', '.join(masks)}"
        raise UserError(msg)
    axis, total = _mass_label(spectrum)
    edges = np.asarray(axis.edges, dtype=np.float64)
    operator = total * masks[part] / np.diff(edges)[:, None]
    cov = operator @ spectrum.cov @ operator.T
    return (edges[1:] + edges[:-1]) / 2, operator @ spectrum.values.ravel(), (cov + cov.T) / 2


def mass_shifts(spectrum: Spectrum) -> dict[str, FloatArray]:
    """Return what one standard deviation of each named source adds to the mass bins, (n,)."""
    _, total = _mass_label(spectrum)
    return {name: total @ shift for name, shift in spectrum.shifts.items()}


def relative_shifts(spectrum: Spectrum) -> dict[str, FloatArray]:
    """Return the relative shifts of the mass bins by each named source, (n,), zero where a bin holds nothing.

    Notes
    -----
    Cells outside the measured domain follow those inside, so that the relative shift per mass is the same.
    """
    _, total = _mass_label(spectrum)
    contents = total @ spectrum.values.ravel()
    return {
        name: np.divide(shift, contents, out=np.zeros_like(contents), where=contents > 0)
        for name, shift in mass_shifts(spectrum).items()
    }


def extrapolate(spectrum: Spectrum, prior_hist: Hist[Any]) -> Spectrum:
    """Fill the cells outside the domain with a simulated shape, scaled per mass bin to the measured yield.

    Parameters
    ----------
    prior_hist : Hist
        Simulated spectrum before acceptance, on the same axes.

    Returns
    -------
    Spectrum
        The domain stays as it was: filled cells remain outside it.

    Raises
    ------
    UserError
        If the axes differ or the prior holds negative cells.

    Notes
    -----
    The result is A s with A the identity inside the domain and A_oi = p_o / Σ_i p_i for an outer cell o and
    the measured cells i of its mass bin; its covariance A V Aᵀ is fully correlated with the measured part and
    knows nothing of a wrong shape of the simulation. Mass bins without any measured cell stay empty.
    """
    if tuple(prior_hist.axes) != tuple(spectrum.hist.axes):
        names = [[f"{a.name}({len(a)})" for a in h.axes] for h in (prior_hist, spectrum.hist)]
        msg = f"extrapolate: the prior has the axes {names[0]}, the spectrum {names[1]}; they must agree"
        raise UserError(msg)
    prior = np.asarray(prior_hist.values(), dtype=np.float64).ravel()
    if not np.isfinite(prior).all() or (prior < 0).any():
        msg = f"extrapolate: the prior must be finite and not negative; its smallest cell is {prior.min()}"
        raise UserError(msg)
    axis, total = _mass_label(spectrum)
    inside = spectrum.domain.ravel()
    measured = total @ (prior * inside)
    lost = np.flatnonzero((measured <= 0) & (total @ (prior * ~inside) > 0))
    if lost.size:
        log.warning(
            "extrapolate: %d of %d mass bins have no measured cell and stay empty", lost.size, len(axis)
        )
    share = np.divide(1.0, measured, out=np.zeros_like(measured), where=measured > 0)
    # the rows of outer cells repeat per mass bin: keep (n_mass) sums instead of an (n, n) operator
    spread = (total.T * share) * (prior * ~inside)[:, None]
    sums = total * inside
    inner = np.where(np.outer(inside, inside), spectrum.cov, 0.0)
    cross = spread @ (sums @ inner)
    cov = inner + cross + cross.T + spread @ (sums @ inner @ sums.T) @ spread.T

    def whole(cells: FloatArray) -> FloatArray:
        return np.where(inside, cells, spread @ (sums @ cells))

    hist = filled(tuple(spectrum.hist.axes), whole(spectrum.values.ravel()), np.diag(cov))
    shifts = {name: whole(shift) for name, shift in spectrum.shifts.items()}
    kept = spectrum.quantity, spectrum.exposure, spectrum.domain
    return Spectrum(hist, (cov + cov.T) / 2, *kept, shifts=shifts)


def mass_histogram(spectrum: Spectrum, part: Any = "all") -> Hist[Any]:
    """Return the contents of a spectrum per mass bin, with the variances of its covariance.

    Parameters
    ----------
    part : str
        "all" or "measured".
    """
    edges = np.asarray(spectrum.hist.axes[MASS].edges)
    _, density, cov = mass_density(spectrum, part)
    width = np.diff(edges)
    return filled((variable(MASS, edges.tolist()),), density * width, np.diag(cov) * width**2)
