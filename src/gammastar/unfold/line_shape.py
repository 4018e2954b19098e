"""The true mass spectrum by forward folding: line shapes with free yields instead of free cells."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from gammastar.core.axes import MASS
from gammastar.core.constants import M_MU, M_PI0, mass, width
from gammastar.core.errors import UserError
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.core.stats import filled
from gammastar.physics.form_factors import eta2, eta_prime2, omega2
from gammastar.physics.kroll_wada import pseudoscalar_dalitz, vector_dalitz
from gammastar.physics.line_shapes import breit_wigner, rho_mass_density
from gammastar.unfold.choose import asimov
from gammastar.unfold.iterative import check_axes

__all__ = ["Component", "LineShape", "cocktail_components", "forward_fold"]

ETA, ETA_PRIME, OMEGA, PHI = 221, 331, 223, 333
POINTS = 401  # per cell of an integral: a 10 MeV cell resolves the 4 MeV of the φ by a hundred points


@dataclass(frozen=True, slots=True)
class Component:
    """A line shape of true mass.

    Attributes
    ----------
    name : str
    density : function of mass [GeV] → dN/dm [GeV⁻¹]
        Any normalisation: the fit multiplies it.
    """

    name: str
    density: Callable[[FloatArray], FloatArray]

    def times(self, m: FloatArray, factor: FloatArray) -> Component:
        """Return the component times a factor that is interpolated between masses, e.g. a fiducial part."""
        return Component(self.name, partial(_interpolated, shape=self.density, grid=m, factor=factor))

    def cells(self, edges: FloatArray) -> FloatArray:
        """Return the integral over each cell of the edges [GeV]."""
        grid = np.linspace(edges[:-1], edges[1:], POINTS, axis=1)
        return np.asarray(np.trapezoid(self.density(grid), grid, axis=1))


def _bernstein(m: FloatArray, k: int, degree: int, low: float, high: float) -> FloatArray:
    from math import comb

    x = np.clip((m - low) / (high - low), 0, 1)
    inside = (m >= low) & (m <= high)
    return np.where(inside, comb(degree, k) * x**k * (1 - x) ** (degree - k), 0.0)


def _interpolated(
    m: FloatArray, shape: Callable[[FloatArray], FloatArray], grid: FloatArray, factor: FloatArray
) -> FloatArray:
    return np.asarray(shape(m) * np.interp(m, grid, factor))


def _scaled(m: FloatArray, shape: Callable[[FloatArray], FloatArray], norm: float) -> FloatArray:
    return np.asarray(shape(m) / norm)


def cocktail_components(
    mass_range: tuple[float, float],
    *,
    temperature: float = 0.161,
    smooth: int = 2,
    m_lepton: float = M_MU,
) -> tuple[Component, ...]:
    """Return the line shapes of a low-mass dilepton spectrum.

    η, η′ and ω Dalitz decays; ρ, ω and φ; and a positive basis of polynomials for what is smooth.

    Parameters
    ----------
    mass_range : (float, float) [GeV]
        Where the smooth part lives.
    temperature : float
        Of the ρ's Boltzmann factor [GeV].
    smooth : int
        Bernstein polynomials of degree ``smooth − 1``; 0 leaves them out.
    m_lepton : float
        [GeV]

    Notes
    -----
    Dalitz decays: Landsberg, Phys. Rept. 128 (1985) 301; ρ: NA60, Phys. Lett. B 677 (2009) 260; ω and φ:
    relativistic Breit-Wigner. All but the polynomials are normalised to one.
    """
    low, high = mass_range

    def dalitz(m: FloatArray, parent: int, daughter: float | None, form: Any) -> FloatArray:
        if daughter is None:
            return 2 * m * pseudoscalar_dalitz(m**2, mass(parent), m_lepton, form)
        return 2 * m * vector_dalitz(m**2, mass(parent), daughter, m_lepton, form)

    result = []
    for name, parent, daughter, form in (
        ("eta_dalitz", ETA, None, eta2),
        ("eta_prime_dalitz", ETA_PRIME, None, eta_prime2),
        ("omega_dalitz", OMEGA, M_PI0, omega2),
    ):
        shape = partial(dalitz, parent=parent, daughter=daughter, form=form)
        top = mass(parent) - (daughter or 0.0)
        grid = 2 * m_lepton + (top - 2 * m_lepton) * np.linspace(0, 1, 6001) ** 1.5
        norm = float(np.trapezoid(shape(grid), grid))
        result.append(Component(name, partial(_scaled, shape=shape, norm=norm)))
    result.append(Component("rho", partial(rho_mass_density, temperature=temperature, m_lepton=m_lepton)))
    for name, pdg in (("omega", OMEGA), ("phi", PHI)):
        result.append(Component(name, partial(breit_wigner, pole=mass(pdg), gamma=width(pdg))))
    result += [
        Component(f"smooth_{k}", partial(_bernstein, k=k, degree=smooth - 1, low=low, high=high))
        for k in range(smooth)
    ]
    return tuple(result)


@dataclass(frozen=True, slots=True, eq=False)
class LineShape:
    """A fitted sum of line shapes.

    Attributes
    ----------
    components : tuple of Component
    yields : NDArray, shape (n_components,)
    cov : NDArray, shape (n_components, n_components)
    chi2, ndf : float, int
    measured : Spectrum
        What was fitted.
    """

    components: tuple[Component, ...]
    yields: FloatArray
    cov: FloatArray
    chi2: float
    ndf: int
    measured: Spectrum

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
    components : sequence of Component
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
