"""Fits and averages over the log-normal nuisances of one counting bin (used by `exact`).

Every yield is x = x₀ e^{σθ} with a unit-normal θ and a fixed auxiliary measurement at zero. Fitting one yield
to a count c minimises x − c ln x + θ²/2, which the Wright omega function solves: x = ω(ln(σ² x₀) + σ² c)/σ².
"""

from __future__ import annotations

import numpy as np
from scipy.special import gammaincc, gammainccinv, lambertw, wrightomega

from gammastar.core.records import FloatArray

__all__ = ["averaged_limit", "below", "fit_background", "fit_total", "nodes", "pulled_yield"]

FIXED = 1e-7  # a nuisance narrower than this does not move a yield
NODES = 61  # Gauss-Hermite nodes per nuisance: 1e-6 of the limit up to κ = 4, tested


def fit_background(count: FloatArray, background: float, sigma: float) -> FloatArray:
    """Return the background fitted to the count alone (a convex problem with one solution)."""
    return _fit_yield(count, np.full_like(count, background), sigma)


def pulled_yield(nominal: float, sigma: float, slope: FloatArray) -> FloatArray:
    """Return x = nominal·exp(−σ² x u): a yield pulled by the slope u of the likelihood."""
    strength = sigma**2 * nominal * slope
    moved = strength > 1e-12
    safe = np.where(moved, strength, 1.0)
    return np.asarray(np.where(moved, nominal * lambertw(safe).real / safe, nominal), dtype=np.float64)


def fit_total(
    signal: FloatArray, count: FloatArray, background: float, sigmas: tuple[float, float]
) -> FloatArray:
    """Return the fitted total λ̂ of s + b.

    Expectation-maximisation on the fraction of the count given to the signal: each step solves both yields
    exactly and never lowers the likelihood. Large κ can give two maxima, so it starts from both ends and the
    middle, and keeps the best one.
    """
    best_total, best_nll = np.zeros(signal.shape), np.full(signal.shape, np.inf)
    for start in (1e-9, 1.0 - 1e-9, 0.5):
        share = np.full(signal.shape, start)
        for _ in range(20_000):
            s = _fit_yield(share * count, signal, sigmas[0])
            b = _fit_yield((1.0 - share) * count, np.full_like(signal, background), sigmas[1])
            new = s / np.maximum(s + b, 1e-300)
            done = bool(np.all(np.abs(new - share) < 1e-13))
            share = new
            if done:
                break
        total = s + b
        penalty = _penalty(s, signal, sigmas[0]) + _penalty(b, np.full_like(signal, background), sigmas[1])
        nll = total - count * np.log(np.maximum(total, 1e-300)) + penalty
        better = nll < best_nll
        best_total, best_nll = np.where(better, total, best_total), np.where(better, nll, best_nll)
    return best_total


def _fit_yield(count: FloatArray, nominal: FloatArray, sigma: float) -> FloatArray:
    """Return the yield fitted to its own share of the count."""
    if sigma < FIXED:
        return nominal
    log_nominal = np.log(np.maximum(nominal, 1e-300))
    # ω(x) = W(e^x) does not overflow at large counts
    fitted = wrightomega(np.log(sigma**2) + log_nominal + sigma**2 * count) / sigma**2
    return np.asarray(np.where(nominal > 0, fitted, 0.0), dtype=np.float64)


def _penalty(fitted: FloatArray, nominal: FloatArray, sigma: float) -> FloatArray:
    if sigma < FIXED:
        return np.zeros_like(fitted)
    ratio = np.log(np.maximum(fitted, 1e-300) / np.maximum(nominal, 1e-300))
    return np.asarray(0.5 * (ratio / sigma) ** 2, dtype=np.float64)


def nodes(sigma: float) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights of the unit normal; one node when nothing varies."""
    if sigma < FIXED:
        return np.zeros(1), np.ones(1)
    node, weight = np.polynomial.hermite_e.hermegauss(NODES)
    return node, weight / weight.sum()


def below(
    signal: FloatArray, count: FloatArray, background: float, sigmas: tuple[float, float]
) -> FloatArray:
    """Return P(≤ n | s + b) averaged over both nuisances."""
    theta_s, weight_s = nodes(sigmas[0])
    theta_b, weight_b = nodes(sigmas[1])
    pulled = background * np.exp(sigmas[1] * theta_b)
    rate = (signal[..., None] * np.exp(sigmas[0] * theta_s))[..., None] + pulled
    return np.asarray(gammaincc(count[..., None, None] + 1.0, rate) @ weight_b @ weight_s, dtype=np.float64)


def averaged_limit(
    count: FloatArray, background: float, sigmas: tuple[float, float], cl: float
) -> FloatArray:
    """Bisect the marginalised CLs in the logarithm of the signal, all counts at once."""
    level = (1.0 - cl) * below(np.zeros_like(count), count, background, (0.0, sigmas[1]))
    log_low = np.full(count.shape, np.log(1e-6))
    # a signal that is excluded even four standard deviations low
    log_high = np.log(gammainccinv(count + 1.0, 1e-3 * (1.0 - cl)) + 1.0) + 4.0 * sigmas[0]
    for _ in range(50):
        middle = 0.5 * (log_low + log_high)
        excluded = below(np.exp(middle), count, background, sigmas) < level
        log_high = np.where(excluded, middle, log_high)
        log_low = np.where(excluded, log_low, middle)
    return np.asarray(np.exp(0.5 * (log_low + log_high)), dtype=np.float64)
