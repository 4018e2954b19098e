"""Does the unfolding give back what was put in? Closure, stress, linearity, refolding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats

from gammastar.core.errors import UserError
from gammastar.core.records import BoolArray, FloatArray, Response, Rng, Spectrum, filled
from gammastar.unfold.folding import (
    Metric,
    Unfolder,
    asimov,
    chi2,
    refolded_difference,
    refolding,
    true_cells,
)
from gammastar.unfold.response_matrix import without_replicas


@dataclass(frozen=True, slots=True, eq=False)
class ToyStudy:
    """What toys of an unfolding show."""

    pulls: FloatArray  # (unfolded − truth)/σ of the cells in the domain, shape (n_toys, n_used)
    used: BoolArray  # shape (n_true,)
    chi2_ndf: float  # Mean of χ²/ndf to the truth with the full covariance
    refolding_ndf: float  # Mean of the refolding χ²/ndf

    @property
    def bias(self) -> FloatArray:
        """Mean pull of each cell."""
        return np.asarray(self.pulls.mean(axis=0))

    @property
    def width(self) -> FloatArray:
        """Standard deviation of the pulls of each cell."""
        return np.asarray(self.pulls.std(axis=0, ddof=1))

    @property
    def coverage(self) -> FloatArray:
        """Fraction of toys of each cell within one standard deviation of the truth."""
        return np.asarray(np.mean(np.abs(self.pulls) < 1, axis=0))

    def __str__(self) -> str:
        """Return the study in one line."""
        return (
            f"{len(self.pulls)} toys: |mean pull| {np.abs(self.bias).mean():.2f}, width "
            f"{self.width.mean():.3f}, coverage {self.coverage.mean():.3f} (lowest cell "
            f"{self.coverage.min():.2f}), chi2/ndf {self.chi2_ndf:.2f}, refolding {self.refolding_ndf:.2f}"
        )


def drawn_again(response: Response, n_replicas: int, rng: Rng) -> Response:
    """Return a response whose simulation is drawn again: independent Poisson counts of each element."""
    counts = response.migration * response.prior
    lost = np.clip(response.prior * (1 - response.efficiency), 0, None)
    drawn, missed = rng.poisson(counts).astype(np.float64), rng.poisson(lost).astype(np.float64)
    prior = drawn.sum(axis=0) + missed
    safe = np.maximum(prior, 1.0)
    copies = rng.poisson(drawn, (n_replicas, *drawn.shape)).astype(np.float64)
    total = np.maximum(copies.sum(axis=1) + rng.poisson(missed, (n_replicas, len(missed))), 1.0)
    matrix = drawn / safe
    axes, replicas = (response.reco, response.true), copies / total[:, None, :]
    return Response(matrix, matrix.sum(axis=0), response.fakes, *axes, prior, replicas, total)


def closure(
    response: Response,
    unfolder: Unfolder,
    *,
    rng: Rng,
    truth: FloatArray | None = None,
    n_toys: int = 300,
    mc_statistics: bool = True,
    n_replicas: int = 100,
) -> ToyStudy:
    """Unfold toys of a known truth.

    Parameters
    ----------
    response : Response
        Taken as exact. Its prior must be in simulated pairs: it sets the size of the toys' simulation.
    truth : NDArray, shape of the true cells, optional
        True pairs of the data; the prior by default.
    mc_statistics : bool
        Draw the simulation of every toy again, with replicas. Without, the toys know the exact response.

    Raises
    ------
    UserError
        If the truth does not have the cells of the response, n_toys is below 2, or no cell is left.

    Notes
    -----
    Fakes keep their fraction. Cells that leave the domain in any toy are not used.
    """
    t = response.prior if truth is None else true_cells(truth, response, "closure: truth")
    if n_toys < 2:
        raise UserError(f"closure: n_toys = {n_toys} must be at least 2")
    genuine = np.where(response.fakes < 1, 1 - response.fakes, 1.0)
    expected = response.migration @ t / genuine
    shape = tuple(len(axis) for axis in response.reco)
    everything = np.ones(shape, dtype=bool)
    used = np.ones(t.shape, dtype=bool)
    pulls, chi2s, folded = np.zeros((n_toys, len(t))), np.zeros(n_toys), np.zeros(n_toys)
    for i in range(n_toys):
        y = rng.poisson(expected).astype(np.float64)
        measured = Spectrum(filled(response.reco, y, y), np.diag(y), "counts", None, everything)
        known = drawn_again(response, n_replicas, rng) if mc_statistics else response
        found = unfolder(measured, known)
        sigma = np.sqrt(np.diag(found.cov))
        inside = found.domain.ravel() & (sigma > 0)
        used &= inside
        difference = np.where(inside, found.values.ravel() - t, 0.0)
        pulls[i] = difference / np.where(inside, sigma, 1.0)
        value, ndf = chi2(difference, found.cov)
        chi2s[i] = value / max(ndf, 1)
        value, ndf = refolding(found, measured, known)
        folded[i] = value / max(ndf, 1)
    if not used.any():
        raise UserError(
            f"closure: no true cell stays in the domain in all {n_toys} toys; truth of {t.sum():.3g} pairs, "
            f"simulation (the prior of the response) of {response.prior.sum():.3g}: give both in pairs"
        )
    return ToyStudy(pulls[:, used], used, float(chi2s.mean()), float(folded.mean()))


def linearity(
    response: Response,
    unfolder: Unfolder,
    distortion: FloatArray,
    *,
    amplitudes: Sequence[float] = (-0.2, -0.1, 0.0, 0.1, 0.2),
    scale: float = 1.0,
) -> tuple[float, float]:
    """Return slope and offset of the recovered against the injected amplitude of a distortion.

    Parameters
    ----------
    distortion : NDArray, shape of the true cells
        Relative: the truth is prior × (1 + amplitude × distortion).
    scale : float
        Data over simulation.

    Returns
    -------
    slope, offset : float
        1 and 0 for an unbiased unfolding; a slope below 1 pulls the result towards the prior.

    Notes
    -----
    The exact expectation is unfolded; the recovered amplitude is the projection of the relative change on
    `distortion`, weighted with the inverse variance of the prior's own unfolding.
    """
    prior = response.prior * scale
    shape = true_cells(distortion, response, "linearity: distortion")
    y = response.migration @ prior
    everything = np.ones(tuple(len(a) for a in response.reco), dtype=bool)
    measured = Spectrum(filled(response.reco, y, y), np.diag(y), "counts", None, everything)
    nominal = unfolder(asimov(prior, measured, response), response)
    variance = np.diag(nominal.cov)
    use = nominal.domain.ravel() & (variance > 0)
    direction = (prior * shape)[use]
    weight = direction / variance[use]
    found = []
    for amplitude in amplitudes:
        data = asimov(prior * (1 + amplitude * shape), measured, response)
        result = unfolder(data, response).values.ravel()[use]
        found.append(float(weight @ (result - prior[use]) / (weight @ direction)))
    slope, offset = np.polyfit(np.asarray(amplitudes), np.asarray(found), 1)
    return float(slope), float(offset)


def bottom_line(
    measured: Spectrum, unfolded: Spectrum, response: Response, models: Mapping[str, FloatArray]
) -> dict[str, tuple[float, float]]:
    """Return χ² of each model in the measured and in the unfolded space.

    Unfolding adds no information: the second must not exceed the first by much.

    Parameters
    ----------
    models : mapping of str to NDArray, shape of the true cells
    """
    genuine = 1 - response.fakes
    cov = measured.cov * np.outer(genuine, genuine)
    result = {}
    for name, model in models.items():
        t = true_cells(model, response, f"bottom_line: model {name!r}")
        before, _ = chi2(measured.values.ravel() * genuine - response.migration @ t, cov)
        difference = np.where(unfolded.domain.ravel(), unfolded.values.ravel() - t, 0.0)
        after, _ = chi2(difference, unfolded.cov)
        result[name] = (before, after)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class Refolding:
    """A refolding χ² beside those of toys."""

    chi2: float
    cells: int  # Measured cells that enter it
    toys: FloatArray  # χ² of toys in which nothing is wrong, shape (n_toys,)

    @property
    def expected(self) -> float:
        """Mean of the toys."""
        return float(self.toys.mean())

    @property
    def ndf(self) -> float:
        """Effective degrees of freedom, 2 E²/Var: χ² times ndf/expected follows their law nearly."""
        variance = float(self.toys.var(ddof=1))
        return 2 * self.expected**2 / variance if variance > 0 else float("inf")

    @property
    def p_value(self) -> float:
        """Chance of a larger χ², from the χ² law of the same mean and variance as the toys."""
        if self.expected <= 0 or not np.isfinite(self.ndf):
            return float(np.mean(self.toys >= self.chi2))
        return float(stats.chi2.sf(self.chi2 * self.ndf / self.expected, self.ndf))

    def __str__(self) -> str:
        """Return the test in one line."""
        return (
            f"refolding chi2 = {self.chi2:.1f} in {self.cells} cells, expected {self.expected:.1f} "
            f"(effective ndf {self.ndf:.1f}, {len(self.toys)} toys), p = {self.p_value:.2g}"
        )


def refolding_test(
    measured: Spectrum, response: Response, unfolder: Unfolder, *, rng: Rng, n_toys: int = 100
) -> Refolding:
    """Unfold, fold again, and tell which χ² that should give.

    Parameters
    ----------
    response : Response
        Its replicas are the simulations of the toys; without replicas it is taken as exact.

    Raises
    ------
    UserError
        If n_toys is below 10.

    Notes
    -----
    The number of measured cells is not the expectation: an unfolding fits up to as many numbers as there are
    true cells. With residuals A = P D − 1 of a method with derivative D, data of covariance V, and r times
    as many data as simulated pairs, E χ² = tr V⁻¹A V Aᵀ + r tr V⁻¹A C Aᵀ; C = V − Σ t_i P_i P_iᵀ is what
    the simulation adds to the folded spectrum of truth t. For least squares that is (n_reco − n_true)(1 + r).
    Toys need no derivative: the unfolded spectrum (the scaled prior outside its domain) is folded, fluctuates
    with the covariance of the data (Gaussian), and is unfolded with a replica of the response.
    """
    if n_toys < 10:
        raise UserError(f"refolding_test: n_toys = {n_toys} must be at least 10")
    found = unfolder(measured, response)
    chi2, cells = refolding(found, measured, response)
    inside = found.domain.ravel()
    known = float(response.prior[inside].sum())
    scale = float(found.values.sum()) / known if known > 0 else 1.0
    truth = np.where(inside, found.values.ravel(), response.prior * scale)
    genuine = np.where(response.fakes < 1, 1 - response.fakes, 1.0)
    expected = response.migration @ truth / genuine
    value, vector = np.linalg.eigh(measured.cov)
    root = (vector * np.sqrt(np.clip(value, 0, None))) @ vector.T  # the same on every processor
    metrics: dict[bytes, Metric] = {}
    toys = np.zeros(n_toys)
    for k in range(n_toys):
        y = expected + root @ rng.standard_normal(len(expected))
        hist = filled(response.reco, y.reshape(measured.values.shape), np.diag(measured.cov))
        data = replace(measured, hist=hist)
        simulated = _drawn(response, k)
        difference, factor = refolded_difference(unfolder(data, simulated), data, simulated)
        if (cells_seen := factor.tobytes()) not in metrics:  # nearly always those of all toys
            metrics[cells_seen] = Metric.of(measured.cov * np.outer(factor, factor))
        toys[k] = metrics[cells_seen].chi2(difference)[0]
    return Refolding(chi2, cells, toys)


def _drawn(response: Response, k: int) -> Response:
    """Return the k-th replica as a response without replicas."""
    plain, n = without_replicas(response), len(response.cov_replicas)
    if n == 0:
        return plain
    migration, priors = response.cov_replicas[k % n].astype(np.float64), response.prior_replicas
    prior = priors[k % n] if len(priors) else response.prior
    # replicas are kept in single precision: where everything is recorded, a column may sum to 1 + 1e-7
    migration /= np.maximum(migration.sum(axis=0), 1.0)
    return replace(plain, migration=migration, efficiency=migration.sum(axis=0), prior=prior)
