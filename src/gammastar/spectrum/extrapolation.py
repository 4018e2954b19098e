"""What is not known outside the measured domain: trend of the data, fall towards the kinematic limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.optimize import least_squares

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray

CELLS = 6  # quantiles of each variable
FEWEST = 10.0  # effective pairs of a cell
LARGEST = 10.0  # of the factor on the simulated density, up and down


@dataclass(frozen=True, slots=True, eq=False)
class Trend:
    """Measured over simulated density inside the domain, as a function that continues outside.

    Attributes
    ----------
    mass : NDArray, shape (n,) [GeV]
        Centres of the mass bins that have a normalisation.
    norm : NDArray, shape (n,)
        Logarithm of the factor that keeps the measured yield of the bin.
    slopes : NDArray, shape (2,)
        With respect to ln(mT/GeV) and y*², y* the rapidity in the nucleon-nucleon frame.
    cov : NDArray, shape (2, 2)
    beam_energy : float [GeV]

    Notes
    -----
    ln(measured/simulated) = norm(m) + b₁ ln mT + b₂ y*²: a change of the power of the mT tail and of the
    width of the rapidity distribution. It vanishes where the simulation describes the measured kinematics.
    """

    mass: FloatArray
    norm: FloatArray
    slopes: FloatArray
    cov: FloatArray
    beam_energy: float

    def factors(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, in_domain: BoolArray
    ) -> FloatArray:
        """Return alternatives of the extrapolated density over the nominal one.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        in_domain : NDArray of bool, shape (n,)
            Where the density is measured, and the factor 1.

        Returns
        -------
        NDArray, shape (3, n)
            The continued trend, and the same with its slopes moved by one standard deviation along both
            axes of their error ellipse.
        """
        variables = _variables(np.stack([mass, pt, energy], axis=1), self.beam_energy)
        norm = np.interp(mass, self.mass, self.norm)
        value, vector = np.linalg.eigh(self.cov)
        vector = vector * np.sign(vector[np.abs(vector).argmax(axis=0), [0, 1]])  # else their sign is free
        moved = (vector * np.sqrt(np.clip(value, 0.0, None))).T
        exponent = norm + (self.slopes + np.vstack([np.zeros(2), moved])) @ variables
        bound = np.log(LARGEST)
        return np.where(in_domain, 1.0, np.exp(np.clip(exponent, -bound, bound)))

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        names = ("mass", "norm", "slopes", "cov")
        return {name: getattr(self, name) for name in names} | {"beam_energy": np.array([self.beam_energy])}

    @staticmethod
    def of(arrays: Mapping[str, FloatArray]) -> Trend:
        """Return the trend of a record.

        Parameters
        ----------
        arrays : mapping of str to NDArray
            Named arrays, as the record gives them.
        """
        mass, norm, slopes, cov = (arrays[name] for name in ("mass", "norm", "slopes", "cov"))
        return Trend(mass, norm, slopes, cov, float(arrays["beam_energy"][0]))

    @staticmethod
    def relative_error(signal: FloatArray, alternatives: FloatArray) -> FloatArray:
        """Return the relative standard deviation of a signal from its extrapolated part.

        Parameters
        ----------
        signal : NDArray, shape (k,)
        alternatives : NDArray, shape (3, k)
            The signal with the factors of `factors`.

        Notes
        -----
        σ² = (s₁ − s)² + Σ_j (s_j − s₁)²: the whole step from the simulated shape to the continued trend s₁,
        and the error of the trend.
        """
        first = alternatives[0]
        variance = (first - signal) ** 2 + np.sum((alternatives[1:] - first) ** 2, axis=0)
        nothing = np.zeros_like(signal)
        result: FloatArray = np.divide(np.sqrt(variance), signal, out=nothing, where=signal > 0)
        return result


def _variables(points: FloatArray, beam: float) -> FloatArray:
    """Return ln mT and y*², shape (2, n), of points (mass, pt, energy), shape (n, 3)."""
    mass, pt, energy = points.T
    mt2 = mass**2 + pt**2
    pz = np.sqrt(np.clip(energy**2 - mt2, 0.0, None))
    rapidity = np.log((energy + pz) / np.sqrt(mt2))
    centre = np.arctanh(np.sqrt(beam**2 - M_PROTON**2) / (beam + M_PROTON))
    return np.stack([0.5 * np.log(mt2), (rapidity - centre) ** 2])


def flat_trend(mass_edges: FloatArray, beam_energy: float) -> Trend:
    """Return the trend of a simulation that nobody compared with data: none, without error.

    Parameters
    ----------
    mass_edges : NDArray, shape (n + 1,) [GeV]
    beam_energy : float [GeV]
    """
    centres = 0.5 * (np.asarray(mass_edges)[:-1] + np.asarray(mass_edges)[1:])
    return Trend(centres, np.zeros(len(centres)), np.zeros(2), np.zeros((2, 2)), beam_energy)


def _filled(
    sample: tuple[FloatArray, FloatArray], mass_edges: FloatArray, cuts: list[FloatArray], beam: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return content, its variance and the mean of both variables in cells of mass, ln mT and y*²."""
    points, weight = sample
    variables = _variables(points, beam)
    coordinates = np.column_stack([points[:, 0], *variables])
    bins = [mass_edges, *cuts]

    def total(w: FloatArray) -> FloatArray:
        content: FloatArray = np.histogramdd(coordinates, bins=bins, weights=w)[0].ravel()
        return content

    content = total(weight)
    means = np.stack([total(weight * v) for v in variables])
    means = np.divide(means, content, out=np.zeros_like(means), where=content != 0)
    return content, total(weight**2), means


def fit_trend(
    data: tuple[FloatArray, FloatArray],
    simulated: tuple[FloatArray, FloatArray],
    mass_edges: FloatArray,
    beam_energy: float,
) -> Trend:
    """Fit the ratio of measured to simulated density inside the domain.

    Parameters
    ----------
    data, simulated : tuple of (points, weights)
        Points (mass, pt, energy), shape (n, 3) [GeV], inside the domain only; weights of the density before
        acceptance.
    mass_edges : NDArray, shape (n_bins + 1,) [GeV]
        Each bin has its own normalisation.
    beam_energy : float [GeV]

    Returns
    -------
    Trend
        With the covariance of its slopes scaled by χ²/ndf where that exceeds one.

    Raises
    ------
    UserError
        If there is nothing in the domain.
    """
    edges = np.asarray(mass_edges, dtype=np.float64)
    if not len(simulated[1]) or not len(data[1]) or not np.sum(data[1]) > 0:
        msg = "[spectrum] extrapolate: no measured or no simulated pairs inside the measured domain"
        raise UserError(msg)
    variables = _variables(simulated[0], beam_energy)
    cuts = [np.unique(np.quantile(v, np.linspace(0.0, 1.0, CELLS + 1))) for v in variables]
    found, variance, _ = _filled(data, edges, cuts, beam_energy)
    prior, prior_variance, means = _filled(simulated, edges, cuts, beam_energy)
    label = np.arange(len(found)) // (len(found) // (len(edges) - 1))
    n_bins = len(edges) - 1
    scale = np.bincount(label, found, n_bins) / np.maximum(np.bincount(label, prior, n_bins), 1e-300)
    use = (prior > 0) & (scale[label] > 0)
    counts = np.divide(found**2, variance, out=np.zeros_like(found), where=variance > 0)
    use &= (counts >= FEWEST) & (prior**2 >= FEWEST * prior_variance)
    if use.sum() < 4 + len(np.unique(label[use])):
        return flat_trend(edges, beam_energy)
    ratio = found[use] / (scale[label] * prior)[use]
    sigma = ratio * np.sqrt(1.0 / counts[use] + prior_variance[use] / prior[use] ** 2)
    bins, place = np.unique(label[use], return_inverse=True)
    x = means[:, use]

    def residual(p: FloatArray) -> FloatArray:
        return (np.exp(p[2:][place] + p[:2] @ x) - ratio) / sigma

    fit = least_squares(residual, np.zeros(2 + len(bins)))
    cov = np.linalg.pinv(fit.jac.T @ fit.jac)[:2, :2]
    ndf = max(1, int(use.sum()) - len(fit.x))
    cov = cov * max(1.0, 2.0 * fit.cost / ndf)
    centres = 0.5 * (edges[:-1] + edges[1:])
    return Trend(centres[bins], fit.x[2:], fit.x[:2], cov, beam_energy)
