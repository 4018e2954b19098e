"""The true mass spectrum by forward folding: line shapes with free yields instead of free cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gammastar.core.axes import MASS, filled, regular
from gammastar.core.constants import branching
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.physics.hadrons import Component, cocktail_components
from gammastar.unfold.folding import asimov, check_axes
from gammastar.unfold.response_matrix import response
from gammastar.unfold.simulation import fiducial, fiducial_fraction, reweighted

FINE = 0.005  # GeV, true cells of the forward fold; a tenth of the usual resolution of 30 to 60 MeV
TIES = {("omega_dalitz", "omega"): (branching("omega -> pi0 mu mu") / branching("omega -> e e"), 0.2)}
"""BR(ω → μμπ⁰)/BR(ω → μμ), the latter by lepton universality, and its relative error."""


@dataclass(frozen=True, slots=True, eq=False)
class LineShape:
    """A fitted sum of line shapes."""

    components: tuple[Component, ...]
    yields: FloatArray  # shape (n_components,)
    cov: FloatArray  # shape (n_components, n_components)
    chi2: float
    ndf: int
    measured: Spectrum  # What was fitted

    @property
    def sigma(self) -> FloatArray:
        """Standard deviations of the yields, shape (n_components,)."""
        return np.asarray(np.sqrt(np.diag(self.cov)))

    def __getitem__(self, name: str) -> tuple[float, float]:
        """Return yield and standard deviation of a component."""
        names = [c.name for c in self.components]
        if name not in names:
            msg = f"line shape: there is no component {name!r}; it has {', '.join(names)}"
            raise UserError(msg)
        i = names.index(name)
        return float(self.yields[i]), float(np.sqrt(self.cov[i, i]))

    def density(self, m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return dN/dm [GeV⁻¹] at true masses and its standard deviation."""
        shapes = np.stack([c.density(np.asarray(m, dtype=np.float64)) for c in self.components])
        sigma = np.sqrt(np.clip(np.einsum("im,ij,jm->m", shapes, self.cov, shapes), 0, None))
        return np.asarray(self.yields @ shapes), np.asarray(sigma)

    def spectrum(self, axis: Any) -> Spectrum:
        """Return the true spectrum on a mass axis, counts, with its covariance."""
        shapes = np.stack([c.cells(np.asarray(axis.edges)) for c in self.components])
        cov = shapes.T @ self.cov @ shapes
        cov = (cov + cov.T) / 2
        hist = filled((axis,), self.yields @ shapes, np.diag(cov))
        return Spectrum(hist, cov, "counts", self.measured.exposure, np.ones(len(axis), dtype=bool))


def _solve(
    design: FloatArray, y: FloatArray, cov: FloatArray, ties: tuple[FloatArray, FloatArray]
) -> tuple[FloatArray, FloatArray]:
    """Return the generalised least-squares yields and their covariance."""
    lower = np.linalg.cholesky(cov)
    rows = np.linalg.solve(lower, design)
    right = np.linalg.solve(lower, y)
    rows, right = np.concatenate([rows, ties[0]]), np.concatenate([right, ties[1]])
    scale = np.sqrt(np.sum(rows**2, axis=0))
    if (scale <= 0).any():
        msg = "forward_fold: a component has no reconstructed pair in the measured range; leave it out"
        raise UserError(msg)
    normal = (rows / scale).T @ (rows / scale)
    if np.linalg.cond(normal) > 1e12:
        msg = "forward_fold: two components look alike in the measured bins; leave one out or tie them"
        raise UserError(msg)
    inverse = np.linalg.inv(normal) / np.outer(scale, scale)
    return inverse @ (rows.T @ right), inverse


def forward_fold(
    measured: Spectrum,
    response: Response,
    components: Sequence[Component],
    *,
    ratios: Mapping[tuple[str, str], tuple[float, float]] | None = None,
) -> LineShape:
    """Fit line shapes of true mass, folded with the response, to a measured mass spectrum.

    The alternative to unfolding near ω and φ: the spectrum there is narrower than any cell that unfolding
    can resolve.

    Parameters
    ----------
    measured : Spectrum
        Counts on one mass axis, with their covariance.
    response : Response
        From true mass cells, fine against the resolution (5 to 10 MeV), to the cells of `measured`.
    ratios : mapping of (name, name) to (value, sigma), optional
        Gaussian ties, first yield = value × second yield, e.g. of two decays of one meson.

    Returns
    -------
    LineShape
        Its covariance holds the measured one and, if the response has replicas, that of the simulation.

    Raises
    ------
    UserError
        If the axes do not fit, or the components cannot be told apart.

    Notes
    -----
    Generalised least squares, linear in the yields. The Poisson part of the variance follows the fit (two
    rounds), so that low contents are not pulled down; the statistics of the simulation, independent between
    measured cells, add to it. Yields may come out negative.
    """
    check_axes(tuple(measured.hist.axes), response.reco, "the measured spectrum")
    if len(response.true) != 1 or response.true[0].name != MASS:
        found = [a.name for a in response.true]
        msg = f"forward_fold: the response has the true axes {found}; it needs the mass alone"
        raise UserError(msg)
    edges = np.asarray(response.true[0].edges)
    shapes = np.stack([c.cells(edges) for c in components], axis=1)
    genuine = 1 - response.fakes
    y = measured.values.ravel() * genuine
    names = [c.name for c in components]
    yields, now, truth = np.zeros(len(components)), measured, np.zeros(len(shapes))
    cov = measured.cov
    for _ in range(3):
        variance = now.cov * np.outer(genuine, genuine)
        variance = variance + np.diag(np.where(np.diag(variance) > 0, 0.0, 1.0) + _simulated(response, truth))
        ties = _ties(names, ratios or {}, yields)
        yields, cov = _solve(response.migration @ shapes, y, variance, ties)
        truth = np.clip(shapes @ yields, 0, None)
        now = asimov(truth, measured, response)
    residual = np.linalg.solve(np.linalg.cholesky(variance), y - response.migration @ shapes @ yields)
    ndf = len(y) + len(ties[0]) - len(components)
    return LineShape(tuple(components), yields, cov, float(residual @ residual), ndf, measured)


def _simulated(response: Response, truth: FloatArray) -> FloatArray:
    """Return the variance of the folded spectrum from the finite simulation."""
    if len(response.cov_replicas) < 2:
        return np.zeros(len(response.fakes))
    return np.asarray(np.var(response.cov_replicas.astype(np.float64) @ truth, axis=0, ddof=1))


def _ties(
    names: Sequence[str], ratios: Mapping[tuple[str, str], tuple[float, float]], yields: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return the rows (a − r b)/(σ_r b) of Gaussian ties; without a yield of b yet, they are exact-ish."""
    rows = np.zeros((len(ratios), len(names)))
    for row, ((one, other), (value, sigma)) in zip(rows, ratios.items(), strict=True):
        missing = {one, other} - set(names)
        if missing or sigma <= 0:
            msg = (
                f"forward_fold: tie {(one, other)} = {(value, sigma)} needs known names and a positive sigma"
            )
            raise UserError(msg)
        i, j = names.index(one), names.index(other)
        scale = sigma * max(abs(float(yields[j])), 1.0)
        row[i], row[j] = 1 / scale, -value / scale
    return rows, np.zeros(len(rows))


def mass_sums(spectrum: Spectrum) -> tuple[Any, FloatArray]:
    """Return the mass axis of a spectrum and the matrix (n_mass, n_cells) that sums over all others."""
    position = [axis.name for axis in spectrum.hist.axes].index(MASS)
    label = np.indices(spectrum.domain.shape)[position].ravel()
    axis = spectrum.hist.axes[position]
    return axis, (np.arange(len(axis))[:, None] == label).astype(np.float64)


def mass_spectrum(spectrum: Spectrum) -> Spectrum:
    """Return the counts of a spectrum as a function of the mass alone."""
    axis, total = mass_sums(spectrum)
    cov, values = total @ spectrum.cov @ total.T, total @ spectrum.values.ravel()
    hist = filled((axis,), values, np.diag(cov))
    return Spectrum(hist, cov, "counts", None, np.ones(len(axis), dtype=bool))


def line_shape_spectrum(
    measured: Spectrum, matched: MatchedPairs, unfolded: Spectrum
) -> tuple[Spectrum, LineShape]:
    """Replace the mass dependence of an unfolded spectrum by fitted line shapes."""
    axis, total = mass_sums(unfolded)
    flat = mass_spectrum(measured)
    reco = flat.hist.axes[0]
    low, high = float(reco.edges[0]), float(reco.edges[-1])
    low, high = max(0.2115, low - 0.05), high + 0.1  # pairs from outside enter by the resolution
    same = reweighted(matched, unfolded)
    fine = regular(MASS, max(round((high - low) / FINE), 1), low, high)
    part = fiducial_fraction(same, unfolded, axis)
    centres = 0.5 * (np.asarray(axis.edges)[1:] + np.asarray(axis.edges)[:-1])
    folding = response(fiducial(same, unfolded), (reco,), (fine,), n_replicas=0)
    components = [c.times(centres, part) for c in cocktail_components((low, high))]
    folded = [float((folding.migration @ c.cells(np.asarray(fine.edges))).sum()) for c in components]
    components = [c for c, seen in zip(components, folded, strict=True) if seen > 1e-9]
    if len(components) > len(reco):
        msg = f"unfold.preset = 'line shape': {len(reco)} mass bins cannot fix {len(components)} line shapes"
        raise UserError(msg)
    known = {c.name for c in components}
    ties = {pair: value for pair, value in TIES.items() if set(pair) <= known}
    fitted = forward_fold(flat, folding, components, ratios=ties)
    return _distributed(fitted.spectrum(axis), unfolded, total), fitted


def _distributed(shape: Spectrum, unfolded: Spectrum, total: FloatArray) -> Spectrum:
    """Divide each mass bin of `shape` among the cells as `unfolded` does; first-order covariance of both."""
    u = np.where(unfolded.domain.ravel(), unfolded.values.ravel(), 0.0)
    per_bin = total @ u
    safe = np.where(per_bin > 0, per_bin, 1.0)
    share = np.where(total.T @ per_bin > 0, u / (total.T @ safe), 0.0)
    line = np.where(per_bin > 0, shape.values.ravel(), 0.0)
    values = share * (total.T @ line)
    # d value = share dL + L/U (dU − share dΣU)
    by_line = total.T * share[:, None]
    by_cell = (total.T @ (line / safe))[:, None] * (np.eye(len(u)) - share[:, None] * (total.T @ total))
    cov = by_line @ shape.cov @ by_line.T + by_cell @ unfolded.cov @ by_cell.T
    cov = (cov + cov.T) / 2
    hist = filled(tuple(unfolded.hist.axes), values, np.diag(cov))
    return Spectrum(hist, cov, "counts", unfolded.exposure, unfolded.domain)
