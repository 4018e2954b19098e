"""Tikhonov-regularised and plain least squares, and how strong the regularisation should be."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
from scipy.interpolate import CubicSpline

from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray, Response, Spectrum, filled
from gammastar.unfold.folding import Method, Options, Unfolder, check_axes, propagated, scaled_prior
from gammastar.unfold.response_matrix import EFFICIENCY_FLOOR

Penalty: TypeAlias = Literal["size", "difference", "curvature"]
PENALTIES = ("size", "difference", "curvature")
TAUS = (10.0, 3.0, 1.0, 0.3, 0.1)  # of a scan, times the one that is chosen
EMPTY_VARIANCE = 1.0  # of measured cells without variance: 0 ± 1 pairs
log = logging.getLogger(__name__)
STENCIL = {"size": (1.0,), "difference": (-1.0, 1.0), "curvature": (1.0, -2.0, 1.0)}


@dataclass(frozen=True, slots=True, eq=False)
class Fit:
    """One regularised fit, before it becomes a spectrum."""

    values: FloatArray  # shape (n_true,)
    derivative: FloatArray  # With respect to the measured content, shape (n_true, n_reco)
    cov: FloatArray  # From the covariance of the measured content, shape (n_true, n_true)
    chi2: float  # (y − P x)ᵀ V⁻¹ (y − P x)
    penalty: float  # |L (x − x₀)|², without τ²
    used: BoolArray  # Cells that are reconstructed at all; the others are 0, shape (n_true,)
    inverse: FloatArray  # E = (PᵀV⁻¹P + τ²LᵀL)⁻¹, shape (n_true, n_true)

    @property
    def mean_correlation(self) -> float:
        """Mean global correlation coefficient of the cells."""
        return float(global_correlation(self.cov[np.ix_(self.used, self.used)]).mean())


def global_correlation(cov: FloatArray) -> FloatArray:
    """Return ρ_i = √(1 − 1/(C_ii (C⁻¹)_ii)), the correlation of each cell with all others together."""
    sigma = np.sqrt(np.diag(cov))
    inverse = np.linalg.pinv(cov / np.outer(sigma, sigma), hermitian=True)
    return np.asarray(np.sqrt(np.clip(1 - 1 / np.maximum(np.diag(inverse), 1.0), 0, 1)))


def penalty_matrix(axes: Sequence[Any], penalty: Penalty, used: BoolArray | None = None) -> FloatArray:
    """Return L, whose rows are the penalised combinations of cells."""
    if penalty not in PENALTIES:
        raise UserError(f"unfold: penalty {penalty!r} is unknown; choose one of {', '.join(PENALTIES)}")
    shape = tuple(len(axis) for axis in axes)
    number = np.arange(int(np.prod(shape))).reshape(shape)
    stencil = STENCIL[penalty]
    blocks = []
    for position in range(len(shape) if penalty != "size" else 1):
        n_rows = shape[position] - len(stencil) + 1
        if n_rows < 1:
            continue
        ranges = (np.arange(k, k + n_rows) for k in range(len(stencil)))
        parts = [np.take(number, rows, axis=position).ravel() for rows in ranges]
        block = np.zeros((parts[0].size, number.size))
        for cell, factor in zip(parts, stencil, strict=True):
            block[np.arange(cell.size), cell] = factor
        blocks.append(block)
    matrix = np.concatenate(blocks) if blocks else np.zeros((0, number.size))
    if used is not None:
        matrix = matrix[~(np.abs(matrix) @ ~used > 0)]
    return matrix


def _whitening(cov: FloatArray, empty_variance: float) -> FloatArray:
    """Return W with WᵀW = V⁻¹; cells without variance get that of `empty_variance`."""
    variance = np.diag(cov)
    filled_up = cov + np.diag(np.where(variance > 0, 0.0, empty_variance))
    try:
        lower = np.linalg.cholesky(filled_up)
    except np.linalg.LinAlgError as error:
        msg = "unfold: the covariance of the measured spectrum is not positive definite; check its errors"
        raise UserError(msg) from error
    return np.asarray(np.linalg.solve(lower, np.eye(len(cov))))


def fit(
    y: FloatArray,
    cov: FloatArray,
    response: Response,
    *,
    tau: float,
    penalty: Penalty = "curvature",
    start: FloatArray | None = None,
) -> Fit:
    """Minimise (y − P x)ᵀ V⁻¹ (y − P x) + τ² |L (x − x₀)|².

    Notes
    -----
    x = E (PᵀV⁻¹y + τ²LᵀL x₀), E = (PᵀV⁻¹P + τ²LᵀL)⁻¹, covariance D V Dᵀ with D = E PᵀV⁻¹; Schmitt,
    TUnfold, arXiv:1205.6201, eqs. 3 to 15. True cells that are never reconstructed are left out, and so are
    the rows of L that touch them.
    """
    if not np.isfinite(tau) or tau < 0:
        raise UserError(f"unfold: tau = {tau!r} must be zero or positive")
    used = response.efficiency > 0
    x0 = np.zeros(used.size) if start is None else np.asarray(start, dtype=np.float64).ravel()
    rows = penalty_matrix(response.true, penalty, used)[:, used]
    white = _whitening(cov, EMPTY_VARIANCE)
    matrix = white @ response.migration[:, used]
    inverse = _inverse(matrix.T @ matrix + tau**2 * rows.T @ rows, len(y))
    full = np.zeros((used.size, used.size))
    full[np.ix_(used, used)] = inverse
    derivative = np.zeros((used.size, len(y)))
    derivative[used] = inverse @ matrix.T @ white
    values = derivative @ y
    values[used] += inverse @ (tau**2 * rows.T @ (rows @ x0[used]))
    residual = white @ (y - response.migration @ values)
    size = rows @ (values - x0)[used]
    return Fit(
        values,
        derivative,
        propagated(derivative, cov + np.diag(np.where(np.diag(cov) > 0, 0.0, EMPTY_VARIANCE))),
        float(residual @ residual),
        float(size @ size),
        used,
        full,
    )


def _inverse(matrix: FloatArray, n_reco: int) -> FloatArray:
    """Return the inverse of a normal matrix after scaling it; refuse a singular one."""
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), np.finfo(float).tiny))
    scaled = matrix * np.outer(scale, scale)
    if np.linalg.eigvalsh(scaled)[0] <= len(matrix) * np.finfo(float).eps:
        few = f"{n_reco} measured cells do not fix {len(matrix)} true cells"
        raise UserError(f"unfold: {few}; use fewer true cells or regularise (tau > 0)")
    result: FloatArray = np.linalg.inv(scaled) * np.outer(scale, scale)
    return (result + result.T) / 2


def _replicated(y: FloatArray, found: Fit, cov: FloatArray, response: Response) -> FloatArray:
    """Return the covariance from the finite simulation.

    First order in the deviation dP of each replica: dx = E (dPᵀ V⁻¹ (y − P x) − PᵀV⁻¹ dP x). Fits with the
    replicas themselves would scatter more, since their noise comes on top of that of the response.
    """
    n_true = response.efficiency.size
    if len(response.cov_replicas) < 2:
        return np.zeros((n_true, n_true))
    white = _whitening(cov, EMPTY_VARIANCE)
    change = response.cov_replicas.astype(np.float64) - response.migration
    pulled = white.T @ (white @ (y - response.migration @ found.values))
    shift = np.einsum("kji,j->ki", change, pulled) @ found.inverse.T
    shift -= np.einsum("kji,i->kj", change, found.values) @ found.derivative.T
    return np.asarray(np.cov(shift, rowvar=False), dtype=np.float64).reshape(n_true, n_true)


def tikhonov(
    measured: Spectrum,
    response: Response,
    *,
    tau: float,
    penalty: Penalty = "curvature",
    start: FloatArray | None = None,
    efficiency_floor: float = EFFICIENCY_FLOOR,
) -> Spectrum:
    """Unfold by regularised least squares.

    Parameters
    ----------
    measured : Spectrum
        On the reconstructed axes of `response`.
    tau : float
        Strength of the regularisation, see `l_curve` and `least_correlated`; 0 is least squares.
    penalty : {"curvature", "difference", "size"}
        What is kept small, along every axis.
    start : NDArray, shape of the true cells, optional
        Deviations from it are penalised; 0 by default.
    efficiency_floor : float
        True cells of lower efficiency are left out of the result: value and covariance 0, not in the domain.

    Returns
    -------
    Spectrum
        On the true axes. Its covariance is statistical plus, if the response has replicas, that of the
        Monte Carlo statistics; the choice of τ is not in it (see `scan`).

    Raises
    ------
    UserError
        If axes or options do not fit, or the measured cells do not fix the true ones.

    Notes
    -----
    Schmitt, arXiv:1205.6201. Measured cells without variance count as 0 ± 1 pairs.
    """
    check_axes(tuple(measured.hist.axes), response.reco, "the measured spectrum")
    genuine = 1 - response.fakes
    y, cov = measured.values.ravel() * genuine, measured.cov * np.outer(genuine, genuine)
    found = fit(y, cov, response, tau=tau, penalty=penalty, start=start)
    total = found.cov + _replicated(y, found, cov, response)
    domain = response.efficiency >= efficiency_floor
    values = np.where(domain, found.values, 0.0)
    total = np.where(np.outer(domain, domain), total, 0.0)
    shape = tuple(len(axis) for axis in response.true)
    hist = filled(response.true, values, np.diag(total))
    return Spectrum(hist, total, "counts", measured.exposure, domain.reshape(shape))


def least_squares(
    measured: Spectrum, response: Response, *, efficiency_floor: float = EFFICIENCY_FLOOR
) -> Spectrum:
    """Unfold by plain least squares: no bias from a prior, large correlated errors.

    Needs at least as many measured as true cells; otherwise as `tikhonov` with ``tau=0``.

    Parameters
    ----------
    measured : Spectrum
        Subtracted pairs.
    efficiency_floor : float
        Cells below it are not unfolded.
    """
    return tikhonov(measured, response, tau=0.0, efficiency_floor=efficiency_floor)


@dataclass(frozen=True, slots=True, eq=False)
class TauScan:
    """A scan of the strength τ."""

    # Strength, χ² of the data, |L (x − x₀)|², mean global correlation, shape (n,)
    tau: FloatArray
    chi2: FloatArray
    penalty: FloatArray
    correlation: FloatArray
    # What is largest at the best point: the curvature of the L-curve, or minus the mean correlation, shape
    # (n,)
    score: FloatArray
    best: float  # Chosen τ


def _scanned(
    measured: Spectrum,
    response: Response,
    taus: Sequence[float] | FloatArray | None,
    penalty: Penalty,
    start: FloatArray | None,
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
        raise UserError("unfold: a scan needs at least 5 positive, increasing values of tau")
    fits = [fit(y, cov, response, tau=float(t), penalty=penalty, start=start) for t in tau]
    return tau, np.array([(f.chi2, f.penalty, f.mean_correlation) for f in fits]).T


def l_curve(
    measured: Spectrum,
    response: Response,
    *,
    taus: Sequence[float] | FloatArray | None = None,
    penalty: Penalty = "curvature",
    start: FloatArray | None = None,
) -> TauScan:
    """Choose τ where the curve of (log₁₀ χ², log₁₀ |L (x − x₀)|²) bends most.

    Parameters
    ----------
    taus : sequence of float, optional
        Increasing; by default 60 values around where penalty and data balance.
    penalty, start
        As for `tikhonov`.

    Notes
    -----
    Signed curvature of a cubic spline in log τ. Hansen, SIAM Review 34 (1992) 561; Schmitt, arXiv:1205.6201.
    The position of the corner depends on the scan: two programs agree to a factor of about two.
    """
    tau, (chi2, size, rho) = _scanned(measured, response, taus, penalty, start)
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
) -> TauScan:
    """Choose τ with the smallest mean global correlation, too strong for precise data (see `scan`)."""
    tau, (chi2, size, rho) = _scanned(measured, response, taus, penalty, start)
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


def _chosen(measured: Spectrum, response: Response, options: Options, start: FloatArray) -> float:
    """Return τ by the criterion of the options, the L-curve's where they give a number."""
    choose = least_correlated if options.tau == "least correlated" else l_curve
    return choose(measured, response, penalty=options.penalty, start=start).best


def _prepare(measured: Spectrum, response: Response, options: Options) -> tuple[Unfolder, float]:
    start, tau = scaled_prior(measured, response), options.tau
    if isinstance(tau, str):
        tau = _chosen(measured, response, options, start)
    floor = options.efficiency_floor
    unfolder = partial(tikhonov, tau=tau, penalty=options.penalty, start=start, efficiency_floor=floor)
    return unfolder, float(tau)


def _describe(options: Options, strength: float) -> str:
    return f"Tikhonov, {options.penalty}, tau = {strength:.4g} ({options.tau})"


def _candidates(
    measured: Spectrum, response: Response, options: Options, strengths: Sequence[float]
) -> dict[float, Unfolder]:
    start, floor = scaled_prior(measured, response), options.efficiency_floor
    taus = tuple(strengths)
    if not taus:
        best = _chosen(measured, response, options, start)
        taus = tuple(factor * best for factor in TAUS)
    how: Any = {"penalty": options.penalty, "start": start, "efficiency_floor": floor}
    return {tau: partial(tikhonov, tau=tau, **how) for tau in taus}


def _plain(_measured: Spectrum, _response: Response, options: Options) -> tuple[Unfolder, float]:
    return partial(least_squares, efficiency_floor=options.efficiency_floor), 0.0


TIKHONOV = Method(_prepare, _describe, _candidates, frozenset({"tau", "penalty", "scan"}))
LEAST_SQUARES = Method(_plain, lambda *_: "least squares", linear=True)
