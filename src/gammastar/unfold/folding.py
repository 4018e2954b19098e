"""What every method shares: its form, expectations in measured cells, and χ² of a spectrum folded again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray, Response, Spectrum, filled

Unfolder: TypeAlias = Callable[[Spectrum, Response], Spectrum]
"""Measured spectrum and response → spectrum on the true axes, whose covariance is that of its statistics."""


@dataclass(frozen=True, slots=True)
class Options:
    """What methods can be told; each takes what it knows."""

    n_iterations: int = 4
    # Strength of a regularisation, or how it is chosen
    tau: float | Literal["l-curve", "least correlated"] = "l-curve"
    penalty: Literal["curvature", "difference", "size"] = "curvature"
    debias: bool = False  # Subtract the bias that the finite simulation makes
    efficiency_floor: float = 0.01  # True cells of lower efficiency are left out
    # Opposite-sign pairs before the subtraction, and their variances
    observed: tuple[FloatArray, FloatArray] | None = None


Candidates: TypeAlias = Callable[[Spectrum, Response, Options, Sequence[float]], Mapping[float, Unfolder]]


@dataclass(frozen=True, slots=True)
class Method:
    """A way to unfold, under a name of `methods.METHODS`."""

    # Returns the `Unfolder` and its strength: number of iterations, τ; 0 without one
    prepare: Callable[[Spectrum, Response, Options], tuple[Unfolder, float]]
    describe: Callable[[Options, float], str]  # Returns what the manifest says
    # Returns methods of several strengths by these, from strong to weak regularisation; its own choice of
    # strengths where none are given. None where there is no strength
    candidates: Candidates | None = None
    takes: frozenset[str] = frozenset()  # Keys of [unfold] that not every method knows
    linear: bool = False  # Whether data without a signal can be unfolded
    allows_smeared: bool = False  # Whether cells may keep the reconstructed mass
    # Whether cells beyond the axes and for narrow lines take part, and the spectrum of the simulation is
    # known to matter: its error is a source
    finer_cells: bool = False
    toys: bool = False  # Whether only toys tell the distribution of χ² of the spectrum folded again
    pairs: bool = False  # Whether it weights pairs: OmniFold, whose `prepare` is not called


def check_axes(found: Sequence[Any], wanted: Sequence[Any], what: str) -> None:
    """Refuse a spectrum whose axes are not those of the response."""
    same = len(found) == len(wanted) and all(
        a.name == b.name and len(a) == len(b) and np.allclose(a.edges, b.edges, rtol=1e-9, atol=0)
        for a, b in zip(found, wanted, strict=True)
    )
    if not same:
        names = [[f"{a.name}({len(a)})" for a in axes] for axes in (found, wanted)]
        msg = f"unfold: {what} has the axes {names[0]}, the response {names[1]}; names and edges must agree"
        raise UserError(msg)


def true_cells(values: FloatArray, response: Response, what: str) -> FloatArray:
    """Return a spectrum on the true cells in C order."""
    found = np.asarray(values, dtype=np.float64)
    if found.size != response.prior.size:
        shape = tuple(len(axis) for axis in response.true)
        raise UserError(
            f"{what} has the shape {found.shape}; the response has {response.prior.size} true cells, {shape}"
        )
    return found.ravel()


def asimov(truth: FloatArray, measured: Spectrum, response: Response) -> Spectrum:
    """Return the expected measurement of a true spectrum, with the relative errors of a measured one."""
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


def scaled_prior(measured: Spectrum, response: Response) -> FloatArray:
    """Return the true spectrum of the simulation, scaled to the data."""
    expected = float((response.migration @ response.prior).sum())
    return response.prior * float(measured.values.sum()) / max(expected, 1e-300)


def summed(spectrum: Spectrum) -> tuple[float, float]:
    """Return the sum of all cells and its standard deviation."""
    return float(spectrum.values.sum()), float(np.sqrt(max(float(spectrum.cov.sum()), 0.0)))


def propagated(derivative: FloatArray, cov: FloatArray) -> FloatArray:
    """Return D V Dᵀ, symmetric to rounding."""
    result: FloatArray = derivative @ cov @ derivative.T
    return (result + result.T) / 2


def chi2(difference: FloatArray, cov: FloatArray) -> tuple[float, int]:
    """Return χ² of a difference and its number of degrees of freedom."""
    return Metric.of(cov).chi2(difference)


@dataclass(frozen=True, slots=True, eq=False)
class Metric:
    """A covariance ready to measure differences with."""

    use: BoolArray  # Cells with a variance, shape (n,)
    sigma: FloatArray  # Their standard deviations, shape (m,)
    # Of their correlation: the directions that vary at all
    value: FloatArray
    vector: FloatArray

    @classmethod
    def of(cls, cov: FloatArray) -> Metric:
        """Return the metric of a covariance, shape (n, n)."""
        use = np.diag(cov) > 0
        sigma = np.sqrt(np.diag(cov)[use])
        value, vector = np.linalg.eigh(cov[np.ix_(use, use)] / np.outer(sigma, sigma))
        good = value > 1e-10 * value.max(initial=0.0)
        return cls(use, sigma, value[good], vector[:, good])

    def chi2(self, difference: FloatArray) -> tuple[float, int]:
        """Return χ² of a difference, shape (n,), and its number of degrees of freedom."""
        projected = self.vector.T @ (difference[self.use] / self.sigma)
        return float(np.sum(projected**2 / self.value)), len(self.value)


def refolding(unfolded: Spectrum, measured: Spectrum, response: Response) -> tuple[float, int]:
    """Return χ² between the unfolded spectrum folded again and the measured one, and its cells.

    The number of cells is not the expectation of the χ²: that comes from `refolding_test`.

    Notes
    -----
    The covariance is that of the measured spectrum: few iterations leave a χ² above the expectation where the
    prior is wrong. Cells without fakes-corrected expectation are left out.
    """
    difference, factor = refolded_difference(unfolded, measured, response)
    return chi2(difference, measured.cov * np.outer(factor, factor))


def folded_again(unfolded: Spectrum, response: Response) -> FloatArray:
    """Return what an unfolded spectrum puts into the measured cells, nan where `refolding` leaves one out."""
    genuine = 1 - response.fakes
    use = (response.migration @ response.prior > 0) & (genuine > 0)
    expected = response.migration @ unfolded.values.ravel()
    return np.asarray(np.divide(expected, genuine, out=np.full(len(genuine), np.nan), where=use))


def refolded_difference(
    unfolded: Spectrum, measured: Spectrum, response: Response
) -> tuple[FloatArray, FloatArray]:
    """Return the difference of `refolding`, and its share of the measured cells, both of shape (n,)."""
    folded, genuine = folded_again(unfolded, response), 1 - response.fakes
    use = np.isfinite(folded)
    return np.where(use, (folded - measured.values.ravel()) * genuine, 0.0), genuine * use
