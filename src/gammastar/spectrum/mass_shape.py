"""The spectrum as a function of exact mass: a smooth continuum, and ω and φ as natural lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.optimize import lsq_linear
from scipy.special import chdtrc

from gammastar.core.axes import MASS
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Spectrum
from gammastar.physics.hadrons import RHO_TEMPERATURE, Component, cocktail_components, rho_omega_phase
from gammastar.physics.resolution import MassResolution
from gammastar.spectrum.normalise import mass_density, mass_shifts

HIGHEST = 1.2  # GeV; heavier mesons than the φ have no line here
SPARE = 3  # bins more than components, at least
COARSEST = 0.06  # GeV; wider bins do not tell a line from the continuum
MIXED = ("rho", "omega")  # lines that may interfere
MISFIT = 1e-2  # p-value below which the bins know better than the components
BEYOND = 4.0  # resolutions, by which the smooth part goes on beyond bins of reconstructed mass
FLOOR = 1e-3  # relative error of a bin that keeps a covariance from being singular


@dataclass(frozen=True, slots=True, eq=False)
class MassShape:
    """dN/dm at exact masses: components with fitted yields.

    Attributes
    ----------
    yields, cov : NDArray, shapes (k,), (k, k)
        Of the components, in the unit of the spectrum; not negative. Without yield, no error. The
        covariance is that of the bins times χ²/ndf where this is above one.
    projection : NDArray, shape (k, n)
        Derivative of the yields by the contents of the n mass bins.
    edges, contents, bin_cov : NDArray, shapes (n + 1,) [GeV], (n,), (n, n)
        Of the bins.
    cells : NDArray, shape (k, n)
        What each component puts into the bins at unit yield.
    coherence : float
        Standard deviation of the coherence of ρ and ω: 0 adds their intensities, 1 allows for all of it.

    Notes
    -----
    Where the components do not describe the bins, with a p-value below 1 %, they are a shape between the
    bins only: the fit is multiplied by contents over fit, straight between the bins.
    """

    components: tuple[Component, ...]
    yields: FloatArray
    cov: FloatArray
    projection: FloatArray
    edges: FloatArray
    contents: FloatArray
    bin_cov: FloatArray
    cells: FloatArray
    chi2: float
    ndf: int
    coherence: float = 0.0

    @property
    def p_value(self) -> float:
        """Probability of a larger χ²."""
        return float(chdtrc(self.ndf, self.chi2))

    @property
    def follows_bins(self) -> bool:
        """Whether the components are too far from the bins to be more than a shape between them."""
        return self.p_value < MISFIT

    def _map(self, shapes: FloatArray, mass: FloatArray) -> FloatArray:
        """Return the derivative by the contents of values made of components (k, m), shape (n, m)."""
        if not self.follows_bins:
            return np.asarray(self.projection.T @ shapes)
        fitted = self.yields @ self.cells
        centres = 0.5 * (self.edges[1:] + self.edges[:-1])
        hats = np.stack([np.interp(mass, centres, row) for row in np.eye(len(centres))])
        share = np.divide(1.0, fitted, out=np.zeros_like(fitted), where=fitted > 0)
        return np.asarray(hats * share[:, None] * (self.yields @ shapes))

    def _values(self, shapes: FloatArray, mass: FloatArray) -> tuple[FloatArray, FloatArray]:
        if not self.follows_bins:
            return self.yields @ shapes, shapes.T @ self.cov @ shapes
        linear = self._map(shapes, mass)
        return np.clip(self.contents, 0.0, None) @ linear, linear.T @ self.bin_cov @ linear

    def interference(self, mass: npt.ArrayLike) -> FloatArray:
        """Return dN/dm of fully coherent ρ and ω beyond their sum [1/GeV], of unknown sign, shape (m,).

        Parameters
        ----------
        mass : array_like, shape (m,) [GeV]

        Notes
        -----
        2 √(y_ρ f_ρ y_ω f_ω) cos of the phase between the propagators.
        """
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        both = [
            y * c.density(m) for y, c in zip(self.yields, self.components, strict=True) if c.name in MIXED
        ]
        if len(both) < len(MIXED):
            return np.zeros_like(m)
        return np.asarray(2.0 * np.sqrt(np.clip(both[0] * both[1], 0.0, None)) * rho_omega_phase(m))

    def _shapes(self, mass: npt.ArrayLike) -> FloatArray:
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        outside = ~((m >= self.edges[0]) & (m <= self.edges[-1]))
        if outside.any():
            msg = (
                f"mass {m[outside][0]:g} GeV lies outside the measured {self.edges[0]:g} to "
                f"{self.edges[-1]:g} GeV: a measurement does not extrapolate; scan masses inside"
            )
            raise PhysicsError(msg)
        return np.stack([c.density(m) for c in self.components])

    def density(self, mass: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return dN/dm [1/GeV] and its covariance.

        Parameters
        ----------
        mass : array_like, shape (m,) [GeV]

        Returns
        -------
        density : NDArray, shape (m,)
        cov : NDArray, shape (m, m)

        Raises
        ------
        PhysicsError
            If a mass lies outside the bins.
        """
        value, cov = self._values(self._shapes(mass), np.atleast_1d(np.asarray(mass, dtype=np.float64)))
        mixed = self.coherence * self.interference(mass)
        return value, cov + np.outer(mixed, mixed)

    def binned(self, edges: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the contents of other bins of mass and their covariance, shapes (b,), (b, b).

        Parameters
        ----------
        edges : array_like, shape (b + 1,) [GeV]
        """
        bounds = np.asarray(edges, dtype=np.float64)
        cells = np.stack([c.cells(bounds) for c in self.components])
        return self._values(cells, 0.5 * (bounds[1:] + bounds[:-1]))

    def shifted(self, mass: npt.ArrayLike, relative: npt.ArrayLike) -> FloatArray:
        """Return by how much dN/dm moves when the contents of the bins move by relative shifts (n,).

        Parameters
        ----------
        mass : array_like, shape (m,) [GeV]
        relative : array_like, shape (n,)
            Relative shifts of the contents.
        """
        moved = np.asarray(relative, dtype=np.float64) * self.contents
        at = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return np.asarray(moved @ self._map(self._shapes(mass), at))


def fit_mass_shape(
    spectrum: Spectrum,
    *,
    m_lepton: float,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    coherence: float = 0.0,
    resolution: MassResolution | None = None,
) -> MassShape:
    """Fit continuum and lines to the mass bins of a spectrum.

    Parameters
    ----------
    spectrum : Spectrum
        With a mass axis; other axes are summed over.
    m_lepton : float [GeV]
    temperature : float
        Of the Boltzmann factor of the ρ [GeV].
    smooth : int
        Polynomials for what no meson explains.
    coherence : float
        Standard deviation of the coherence of ρ and ω, for the error beside the ω.
    resolution : MassResolution, optional
        The bins are of the reconstructed mass of selected pairs; densities stay those of all pairs at their
        exact mass, in the scale of the resolution's efficiency.

    Raises
    ------
    PhysicsError
        If the bins reach beyond 1.2 GeV, are wider than 60 MeV or too few for the components.

    Notes
    -----
    Least squares in the integrals of the components over the bins, weighted with the covariance of the bins
    without the named sources of the spectrum: with them in the weights a source that bends the spectrum
    otherwise than continuum and lines can would count as measured, and its error would vanish. The errors of
    the result, and χ², are of the whole covariance. Yields are not negative; a component that would be has no
    error. The rest is linear in the contents, so that every source of the measurement goes on to exact
    masses. A bin of 25 MeV says nothing about the mass inside it: straight lines between exact contents are
    wrong by factors of 3 to 8 at and beside ω and φ.
    """
    axis = next((a for a in spectrum.hist.axes if a.name == MASS), None)
    if axis is None:
        msg = f"mass shape: the spectrum has the axes {[a.name for a in spectrum.hist.axes]}, none of mass"
        raise PhysicsError(msg)
    edges = np.asarray(axis.edges, dtype=np.float64)
    components, cells = usable_components(
        edges, m_lepton=m_lepton, temperature=temperature, smooth=smooth, resolution=resolution
    )
    _, density, cov = mass_density(spectrum)
    width = np.diff(edges)
    contents, cov = density * width, cov * np.outer(width, width)
    cov = cov + np.diag((FLOOR * contents) ** 2 + np.where(np.diag(cov) > 0, 0.0, 1e-300))
    yields, projection = _solve(cells.T, contents, _without_sources(spectrum, cov))
    rest = contents - yields @ cells
    chi2 = float(rest @ np.linalg.solve(cov, rest))
    ndf = len(contents) - int((yields > 0).sum())
    spread = projection @ cov @ projection.T * max(1.0, chi2 / ndf)
    spread = (spread + spread.T) / 2
    fitted = (tuple(components), yields, spread, projection)
    return MassShape(*fitted, edges, contents, cov, cells, chi2, ndf, coherence)


def usable_components(
    edges: Sequence[float] | FloatArray,
    *,
    m_lepton: float,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    resolution: MassResolution | None = None,
) -> tuple[list[Component], FloatArray]:
    """Return the components that reach into mass bins, with their integrals; refuse bins that fix none."""
    edges = np.asarray(edges, dtype=np.float64)
    beyond = 0.0 if resolution is None else BEYOND * float(resolution.width.max())
    ends = max(edges[0] - beyond, 0.0), edges[-1] + beyond
    known = cocktail_components(ends, temperature=temperature, smooth=smooth, m_lepton=m_lepton)
    cells = np.stack(
        [c.cells(edges) if resolution is None else resolution.folded(c.density, edges) for c in known]
    )
    used = cells.sum(axis=1) > 0
    components, cells = [c for c, there in zip(known, used, strict=True) if there], cells[used]
    _usable(edges, len(components))
    return components, cells


def _usable(edges: FloatArray, components: int) -> None:
    widest = float(np.diff(edges).max())
    if edges[-1] > HIGHEST:
        why = f"the bins reach to {edges[-1]:g} GeV, beyond {HIGHEST} GeV"
    elif widest > COARSEST + 1e-9:
        why = f"bins of {widest:g} GeV are wider than {COARSEST} GeV"
    elif len(edges) - 1 < components + SPARE:
        why = f"{len(edges) - 1} bins are too few for {components} components"
    else:
        return
    msg = f"mass shape: {why}; ω and φ cannot be told from the continuum"
    raise PhysicsError(msg)


def _without_sources(spectrum: Spectrum, cov: FloatArray) -> FloatArray:
    """Return the covariance of the bins without named sources; the whole where that is none."""
    shifts = mass_shifts(spectrum).values()
    rest = cov - sum((np.outer(shift, shift) for shift in shifts), np.zeros_like(cov))
    return rest if np.linalg.eigvalsh(rest)[0] > 0 else cov


def _solve(design: FloatArray, contents: FloatArray, cov: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return yields and their derivative by the contents."""
    whiten = np.linalg.inv(np.linalg.cholesky(cov))
    a, b = whiten @ design, whiten @ contents
    scale = np.abs(a).max(axis=0)
    found = lsq_linear(a / scale, b, bounds=(0.0, np.inf), method="bvls", tol=1e-12)
    free: Sequence[bool] = found.x > 1e-9 * max(found.x.max(), 1e-300)
    projection = np.zeros(design.T.shape)
    projection[free] = np.linalg.pinv(a[:, free]) @ whiten
    return projection @ contents, projection
