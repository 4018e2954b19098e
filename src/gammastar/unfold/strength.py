"""How strong the regularisation should be: scans, L-curve, least correlation."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from scipy.interpolate import CubicSpline

from gammastar.core.axes import filled
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.unfold.covariance import refolding
from gammastar.unfold.regularised import Penalty, fit, global_correlation

__all__ = [
    "Candidate",
    "TauScan",
    "Unfolder",
    "asimov",
    "best_candidate",
    "l_curve",
    "least_correlated",
    "scan",
    "true_cells",
]

log = logging.getLogger(__name__)

Unfolder: TypeAlias = Callable[[Spectrum, Response], Spectrum]


@dataclass(frozen=True, slots=True, eq=False)
class TauScan:
    """A scan of the strength τ.

    Attributes
    ----------
    tau, chi2, penalty, correlation : NDArray, shape (n,)
        Strength, χ² of the data, |L (x − x₀)|², mean global correlation.
    score : NDArray, shape (n,)
        What is largest at the best point: the curvature of the L-curve, or minus the mean correlation.
    best : float
        Chosen τ.
    """

    tau: FloatArray
    chi2: FloatArray
    penalty: FloatArray
    correlation: FloatArray
    score: FloatArray
    best: float


def _scanned(
    measured: Spectrum,
    response: Response,
    taus: Sequence[float] | FloatArray | None,
    penalty: Penalty,
    start: FloatArray | None,
    *,
    density: bool,
) -> tuple[FloatArray, FloatArray]:
    genuine = 1 - response.fakes
    y, cov = measured.values.ravel() * genuine, measured.cov * np.outer(genuine, genuine)
    if taus is None:
        # where the penalty starts to matter: its curvature matches that of χ²
        used = response.efficiency > 0
        variance = np.where(np.diag(cov) > 0, np.diag(cov), 1.0)
        matrix = response.migration[:, used] / np.sqrt(variance)[:, None]
        scale = np.sqrt(np.median(np.sum(matrix**2, axis=0)))
        taus = scale * np.geomspace(1e-3, 1e2, 60)
    tau = np.asarray(taus, dtype=np.float64)
    if tau.ndim != 1 or len(tau) < 5 or (tau <= 0).any() or (np.diff(tau) <= 0).any():
        msg = "unfold: a scan needs at least 5 positive, increasing values of tau"
        raise UserError(msg)
    fits = [fit(y, cov, response, tau=float(t), penalty=penalty, start=start, density=density) for t in tau]
    return tau, np.array([(f.chi2, f.penalty, f.mean_correlation) for f in fits]).T


def l_curve(
    measured: Spectrum,
    response: Response,
    *,
    taus: Sequence[float] | FloatArray | None = None,
    penalty: Penalty = "curvature",
    start: FloatArray | None = None,
    density: bool = False,
) -> TauScan:
    """Choose τ where the curve of (log₁₀ χ², log₁₀ |L (x − x₀)|²) bends most.

    Parameters
    ----------
    measured : Spectrum
    response : Response
    taus : sequence of float, optional
        Increasing; by default 60 values around where penalty and data balance.
    penalty, start, density
        As for `tikhonov`.

    Notes
    -----
    Signed curvature of a cubic spline in log τ. Hansen, SIAM Review 34 (1992) 561; Schmitt, arXiv:1205.6201.
    The position of the corner depends on the scan: two programs agree to a factor of about two.
    """
    tau, (chi2, size, rho) = _scanned(measured, response, taus, penalty, start, density=density)
    t = np.log10(tau)
    x, y = (CubicSpline(t, np.log10(np.maximum(a, np.finfo(float).tiny))) for a in (chi2, size))
    curvature = (x(t, 1) * y(t, 2) - y(t, 1) * x(t, 2)) / (x(t, 1) ** 2 + y(t, 1) ** 2) ** 1.5
    curvature[[0, -1]] = -np.inf
    _warn_at_the_end(tau, int(np.argmax(curvature)), 1)
    return TauScan(tau, chi2, size, rho, curvature, float(tau[np.argmax(curvature)]))


def least_correlated(
    measured: Spectrum,
    response: Response,
    *,
    taus: Sequence[float] | FloatArray | None = None,
    penalty: Penalty = "curvature",
    start: FloatArray | None = None,
    density: bool = False,
) -> TauScan:
    """Choose τ with the smallest mean global correlation of the cells; parameters as for `l_curve`.

    Notes
    -----
    Where data are precise this choice regularises too much: check it with `scan`.
    """
    tau, (chi2, size, rho) = _scanned(measured, response, taus, penalty, start, density=density)
    _warn_at_the_end(tau, int(np.argmin(rho)), 0)
    return TauScan(tau, chi2, size, rho, -rho, float(tau[np.argmin(rho)]))


def _warn_at_the_end(tau: FloatArray, chosen: int, margin: int) -> None:
    """Log that a scan found no inner best point."""
    if chosen <= margin or chosen >= len(tau) - 1 - margin:
        log.warning(
            "unfold: the best tau %.3g lies at an end of its scan, %.3g to %.3g: data and response fix the "
            "result without it (lower end), or leave it to the regularisation (upper end)",
            *(tau[chosen], tau[0], tau[-1]),
        )


def true_cells(values: FloatArray, response: Response, what: str) -> FloatArray:
    """Return a spectrum on the true cells in C order.

    Raises
    ------
    UserError
        If its size is not that of the response.
    """
    found = np.asarray(values, dtype=np.float64)
    if found.size != response.prior.size:
        shape = tuple(len(axis) for axis in response.true)
        msg = (
            f"{what} has the shape {found.shape}; the response has {response.prior.size} true cells, {shape}"
        )
        raise UserError(msg)
    return found.ravel()


def asimov(truth: FloatArray, measured: Spectrum, response: Response) -> Spectrum:
    """Return the expected measurement of a true spectrum, with the relative errors of a measured one.

    Parameters
    ----------
    truth : NDArray, shape of the true cells
    measured : Spectrum
        Supplies the covariance: V scaled to the expected contents.
    response : Response

    Raises
    ------
    UserError
        If the truth does not have the cells of the response.
    """
    genuine = np.where(response.fakes < 1, 1 - response.fakes, 1.0)
    expected = response.migration @ true_cells(truth, response, "asimov: truth") / genuine
    y = measured.values.ravel()
    # excess variance over Poisson (background, weights) is kept; the Poisson part follows the expectation
    excess = np.clip(np.diag(measured.cov) - np.clip(y, 0, None), 0, None)
    sigma = np.sqrt(np.maximum(np.diag(measured.cov), np.finfo(float).tiny))
    correlation = measured.cov / np.outer(sigma, sigma)
    np.fill_diagonal(correlation, 1.0)
    new = np.sqrt(expected + excess)
    cov = correlation * np.outer(new, new)
    shape = measured.values.shape
    hist = filled(tuple(measured.hist.axes), expected, np.diag(cov))
    return Spectrum(hist, cov, "counts", measured.exposure, np.ones(shape, dtype=bool))


@dataclass(frozen=True, slots=True)
class Candidate:
    """One strength in a scan.

    Attributes
    ----------
    name : str
    chi2_ndf : float
        Refolding χ² per cell.
    correlation : float
        Mean global correlation of the result.
    error : float
        Mean of σ_i/|x_i|, weighted with |x_i|.
    bias : float
        Mean |bias|/σ over cells, the largest of all alternatives (0 without any).
    bias_of : mapping of str to float
        The same for each alternative.
    """

    name: str
    chi2_ndf: float
    correlation: float
    error: float
    bias: float
    bias_of: Mapping[str, float]


def scan(
    measured: Spectrum,
    response: Response,
    candidates: Mapping[str, Unfolder],
    *,
    alternatives: Mapping[str, FloatArray] | None = None,
) -> tuple[Candidate, ...]:
    """Unfold with every candidate and see how far each would be wrong if the truth were another.

    Parameters
    ----------
    measured : Spectrum
    response : Response
    candidates : mapping of str to function (measured, response) → Spectrum
        From strong to weak regularisation, e.g. ``{"4": partial(iterative, n_iterations=4), …}``.
    alternatives : mapping of str to NDArray, shape of the true cells, optional
        True spectra, in pairs, that the data could hold. Their exact expectation is unfolded; the bias is
        compared with the error of the unfolded data.

    Returns
    -------
    tuple of Candidate
    """
    result = []
    for name, unfolder in candidates.items():
        found = unfolder(measured, response)
        use = found.domain.ravel() & (np.diag(found.cov) > 0)
        sigma = np.sqrt(np.diag(found.cov)[use])
        values = np.abs(found.values.ravel()[use])
        chi2, ndf = refolding(found, measured, response)
        bias = {}
        for label, truth in (alternatives or {}).items():
            shift = unfolder(asimov(truth, measured, response), response).values - np.reshape(
                truth, found.values.shape
            )
            bias[label] = float(np.mean(np.abs(shift.ravel()[use]) / sigma))
        rho = global_correlation(found.cov[np.ix_(use, use)])
        result.append(
            Candidate(
                name,
                chi2 / max(ndf, 1),
                float(rho.mean()),
                float(sigma.sum() / values.sum()) if values.sum() > 0 else float("nan"),
                max(bias.values(), default=0.0),
                bias,
            )
        )
    return tuple(result)


def best_candidate(candidates: Sequence[Candidate], *, most_bias: float = 0.25) -> Candidate:
    """Return the first candidate (strongest regularisation) whose stress bias is below `most_bias` σ.

    If none is, the one with the smallest bias.
    """
    if not candidates:
        msg = "unfold: best_candidate needs at least one candidate"
        raise UserError(msg)
    good = [c for c in candidates if c.bias < most_bias]
    return good[0] if good else min(candidates, key=lambda c: c.bias)
