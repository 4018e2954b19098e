"""Tuning a cocktail to a measured spectrum: yields of species, spectra in pt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from iminuit import Minuit

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray

__all__ = ["PtFit", "YieldFit", "fit_pt", "fit_yields", "power_law"]

BINS = 400  # of the likelihood of a pt spectrum


@dataclass(frozen=True, slots=True)
class PtFit:
    """Parameters of dN/dpt ∝ pt (1 + (pt/p0)²)^−n [GeV] and their errors."""

    p0: float
    n: float
    p0_error: float
    n_error: float


@dataclass(frozen=True, slots=True, eq=False)
class YieldFit:
    """Factors on templates that describe a spectrum.

    Attributes
    ----------
    factor, error : mapping of str to float
    covariance : NDArray, shape (k, k)
        In the order of `factor`.
    chi2, ndof : float, int
        Baker-Cousins likelihood ratio and degrees of freedom.
    """

    factor: Mapping[str, float]
    error: Mapping[str, float]
    covariance: FloatArray
    chi2: float
    ndof: int


def power_law(pt: npt.ArrayLike, p0: float, n: float) -> FloatArray:
    """Return dN/dpt = (2(n − 1)/p0²) pt (1 + (pt/p0)²)^−n, normalised to one [GeV⁻¹]."""
    pt = np.asarray(pt, dtype=np.float64)
    return np.asarray(2.0 * (n - 1.0) / p0**2 * pt * (1.0 + (pt / p0) ** 2) ** -n, dtype=np.float64)


def fit_pt(pt: FloatArray, weight: FloatArray | None = None) -> PtFit:
    """Fit a power law to transverse momenta by binned maximum likelihood.

    Parameters
    ----------
    pt : NDArray, shape (n,)
        [GeV]
    weight : NDArray, shape (n,), optional

    Raises
    ------
    PhysicsError
        If fewer than 100 mesons are given, or the fit does not converge.
    """
    if len(pt) < 100:
        msg = f"fit_pt: {len(pt)} mesons are too few; at least 100 are needed"
        raise PhysicsError(msg)
    total, edges = np.histogram(pt, BINS, (0.0, float(pt.max()) * (1 + 1e-6)), weights=weight)
    square, _ = np.histogram(pt, edges, weights=None if weight is None else weight**2)
    scale = total.sum() / square.sum()  # effective events per unit of weight
    counts = total * scale

    def cost(p0: float, n: float) -> float:
        upper = (1.0 + (edges / p0) ** 2) ** (1.0 - n)
        share = np.maximum(upper[:-1] - upper[1:], 1e-300) / (1.0 - upper[-1])
        return float(-2.0 * np.sum(counts * np.log(share)))

    minuit = Minuit(cost, p0=1.0, n=5.0)
    minuit.errordef = Minuit.LIKELIHOOD * 2
    minuit.limits["p0"], minuit.limits["n"] = (0.05, 50.0), (1.5, 200.0)
    minuit.migrad()
    minuit.hesse()
    if not minuit.valid:
        msg = "fit_pt: the power law does not fit these transverse momenta"
        raise PhysicsError(msg)
    values, errors = minuit.values, minuit.errors
    return PtFit(values["p0"], values["n"], errors["p0"], errors["n"])


def fit_yields(
    counts: npt.ArrayLike,
    templates: Mapping[str, npt.ArrayLike],
    *,
    variance: Mapping[str, npt.ArrayLike] | None = None,
    constraints: Mapping[str, tuple[float, float]] | None = None,
    fixed: Mapping[str, float] | None = None,
) -> YieldFit:
    """Fit factors on templates to the counts of a spectrum.

    Parameters
    ----------
    counts : array_like, shape (bins,)
        Measured entries.
    templates : mapping of str to array_like, shape (bins,)
        Expected entries of each source for a factor of one, as measured (smeared, accepted).
    variance : mapping of str to array_like, optional
        Variances of the templates from finite simulation; they join the statistical error of each bin.
    constraints : mapping of str to (value, error), optional
        Gaussian knowledge of factors, e.g. of the combinatorial background from like-sign pairs.
    fixed : mapping of str to float, optional
        Factors that are not fitted.

    Returns
    -------
    YieldFit

    Raises
    ------
    PhysicsError
        If shapes differ, a template is empty, or the fit does not converge.

    Notes
    -----
    Poisson likelihood ratio (S. Baker and R. D. Cousins, NIM 221 (1984) 437); with `variance` each bin's
    expectation is scaled as in H. Dembinski and A. Abdelmotteleb, Eur. Phys. J. C 82 (2022) 1043.
    """
    observed = np.asarray(counts, dtype=np.float64)
    fixed = dict(fixed or {})
    names = [name for name in templates if name not in fixed]
    shapes = {name: np.asarray(template, dtype=np.float64) for name, template in templates.items()}
    _check_templates(observed, shapes)
    spread = {k: np.asarray(v, dtype=np.float64) for k, v in (variance or {}).items()}
    known = dict(constraints or {})

    def expected(values: npt.NDArray[np.float64]) -> tuple[FloatArray, FloatArray]:
        factor = {**fixed, **dict(zip(names, values, strict=True))}
        mean = np.sum([factor[k] * shape for k, shape in shapes.items()], axis=0)
        noise = np.sum([factor[k] ** 2 * s for k, s in spread.items()], axis=0) if spread else 0.0 * mean
        return np.maximum(mean, 1e-12), noise

    def cost(values: npt.NDArray[np.float64]) -> float:
        mean, noise = expected(values)
        k = np.divide(mean**2, noise, out=np.full_like(mean, np.inf), where=noise > 0)
        safe = np.where(np.isfinite(k), k, 1.0)
        beta = np.where(np.isfinite(k), (observed + safe) / (mean + safe), 1.0)
        mu = mean * beta
        ratio = np.log(np.maximum(observed, 1e-300) / mu)
        poisson = 2.0 * np.sum(mu - observed + np.where(observed > 0, observed * ratio, 0.0))
        penalty = np.sum(np.where(np.isfinite(k), (beta - 1.0) ** 2 * safe, 0.0))
        factor = dict(zip(names, values, strict=True))
        pulls = [
            ((factor[name] - mean_) / error) ** 2 for name, (mean_, error) in known.items() if name in factor
        ]
        return float(poisson + penalty + sum(pulls))

    minuit = Minuit(cost, np.ones(len(names)), name=names)
    minuit.errordef = Minuit.LEAST_SQUARES
    minuit.limits = [(0.0, None)] * len(names)
    minuit.strategy = 2
    minuit.migrad()
    minuit.hesse()
    if not minuit.valid:
        msg = f"fit_yields: the templates {names} do not describe the spectrum (no valid minimum)"
        raise PhysicsError(msg)
    return YieldFit(
        factor=fixed | {name: float(minuit.values[name]) for name in names},
        error={name: float(minuit.errors[name]) for name in names},
        covariance=np.asarray(minuit.covariance, dtype=np.float64),
        chi2=float(minuit.fval),
        ndof=len(observed) - len(names) + len(known),
    )


def _check_templates(observed: FloatArray, shapes: Mapping[str, FloatArray]) -> None:
    for name, shape in shapes.items():
        if shape.shape != observed.shape or not shape.sum() > 0:
            msg = (
                f"fit_yields: template {name!r} has shape {shape.shape} and sum {shape.sum():g}; "
                f"the spectrum has shape {observed.shape}"
            )
            raise PhysicsError(msg)
