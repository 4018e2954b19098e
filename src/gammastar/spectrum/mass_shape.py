"""The spectrum at exact masses: continuum, ω and φ as natural lines, and what neither describes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy import linalg
from scipy.optimize import nnls
from scipy.special import chdtrc, log_ndtr

from gammastar.core.constants import branching
from gammastar.core.constants import mass as mass_of
from gammastar.core.errors import PhysicsError, require
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import MASS, FloatArray, Spectrum, divided
from gammastar.physics.detector import MassResolution, measured_resolution
from gammastar.physics.hadrons import (
    OMEGA,
    PHI,
    RHO_TEMPERATURE,
    Component,
    cocktail_components,
    rho_mass_density,
    rho_omega_phase,
)
from gammastar.spectrum.normalise import mass_density, mass_histogram, mass_shifts, relative_shifts

HIGHEST = 2.9  # GeV; the J/ψ has no line here, the wide mesons below it are continuum and residual
SPARE = 3  # bins more than components, at least
COARSEST = 0.06  # GeV; wider bins do not tell a line from the continuum
MISFIT = 1e-2  # p-value below which the components alone do not describe the bins
BEYOND = 4.0  # resolutions, by which the smooth part goes on beyond bins of reconstructed mass
FLOOR = 1e-3  # relative error of a bin that keeps a covariance from being singular
FINE = 5e-4  # GeV, of integrals over bins
NODES = 5  # of the residual, per bin
LINES = {"omega": mass_of(OMEGA), "phi": mass_of(PHI)}
OF_RESOLUTION = tuple(field.name for field in fields(MassResolution))

# Standard deviations before the data; of the ρ: logarithm, GeV, logarithm, share
RHO = {"temperature": 0.25, "pole": 0.010, "stretch": 0.1, "gounaris": 1.0}
COHERENCE = 0.7  # of each quadrature of the interference of ρ and ω; a full one is 1
EQUAL = branching("rho -> e e") / branching("omega -> e e")  # ρ over ω where they interfere
SLOPE = 5.0  # 1/GeV, tilt of a line about its pole; phase space, width and photon propagator make up to 4
YIELD, UNSEEN, LINE = 1.0, 1.0, 10.0  # of a yield over itself, over the bins it is largest in, of a line
AMPLITUDES = (0.03, 0.06, 0.12, 0.25, 0.5, 1.0)  # of the residual over the continuum, that are tried
LENGTHS = (0.025, 0.05, 0.1)  # its correlation lengths that are tried [GeV]
CENTRE, SPREAD = 0.1, 1.0  # the amplitude is log-normal
WIDTH, SCALE = 0.02, 0.001  # of the resolution of pairs, of their mass; relative
LOCAL = 0.7  # the residual over the errors of the bins, at least
JUMP = 1.0  # of a change of the residual between the bins on either side, as an error in between
STEPS = 4
UNSEEN_TAIL = 1e-9  # of the most that photons of one mass put into a bin
MOST = 10.0  # of the ratio of a cell to the simulation over that of its bin of mass, up and down


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """dN/dm of components with yields, and how their shapes may be different."""

    components: tuple[Component, ...]
    yields: FloatArray  # shape (k,)
    # In standard deviations: as `RHO`, both quadratures of the interference, tilts of ω and φ, shape (8,)
    moved: FloatArray
    m_lepton: float
    temperature: float
    coherence: float

    @property
    def point(self) -> FloatArray:
        """Yields and shapes, shape (k + 8,)."""
        return np.concatenate([self.yields, self.moved])

    def at(self, point: FloatArray) -> _Model:
        """Return the model with other yields and shapes."""
        k = len(self.yields)
        return replace(self, yields=point[:k], moved=np.clip(point[k:], -3.0, 3.0))

    def _rho(self, m: FloatArray, moved: FloatArray) -> FloatArray:
        t, pole, stretch, gounaris = moved * list(RHO.values())
        shape = float(pole), float(np.exp(stretch)), float(gounaris)
        return rho_mass_density(m, self.temperature * float(np.exp(t)), m_lepton=self.m_lepton, shape=shape)

    def slopes(self, m: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return what is smooth, the whole, and its derivatives, shapes (n,), (n,), (k + 8, n)."""
        names, n_rho = [c.name for c in self.components], len(RHO)
        shapes = np.stack([c.density(m) for c in self.components])
        changes = np.zeros((len(self.moved), len(m)))
        if "rho" in names:
            i, own, step = names.index("rho"), self.moved[:n_rho], 0.1
            shapes[i] = self._rho(m, own)
            for k, unit in enumerate(step * np.eye(n_rho)):
                changes[k] = self._rho(m, own + unit) - self._rho(m, own - unit)
            changes[:n_rho] *= self.yields[i] / (2 * step)
        for k, (name, pole) in enumerate(LINES.items(), start=n_rho + 2):
            if name in names:
                i = names.index(name)
                tilt = np.tanh(SLOPE * (m - pole)) * shapes[i]
                changes[k] = self.yields[i] * tilt
                shapes[i] = shapes[i] + self.moved[k] * tilt
        both = slice(n_rho, n_rho + 2)
        if {"rho", "omega"} <= set(names):
            r, o, phase = names.index("rho"), names.index("omega"), rho_omega_phase(m)
            size = np.sqrt(EQUAL * np.clip(shapes[r] * shapes[o], 0.0, None))
            size *= 2 * self.coherence * max(self.yields[o], 0.0)
            changes[both] = size * np.stack([np.cos(phase), np.sin(phase)])
        continuum = np.array([name not in LINES for name in names])
        whole = self.yields @ shapes + self.moved[both] @ changes[both]
        return self.yields[continuum] @ shapes[continuum], whole, np.vstack([shapes, changes])


@dataclass(frozen=True, slots=True, eq=False)
class MassShape:
    """dN/dm at exact masses: components with fitted yields and shapes, and a residual.

    Attributes
    ----------
    edges, contents : NDArray, shapes (n + 1,) [GeV], (n,)
        Of the bins of the spectrum.
    chi2, ndf : float, int
        Of the components without residual.
    amplitude, length : float
        Of the residual over the continuum, and its correlation length [GeV].

    Notes
    -----
    The residual is normal with an exponential correlation. Its amplitude is that of the largest posterior,
    and at least 0.7 of the error of the bins. Where it changes from one bin to the next but one, that change
    is an error in between, since nothing tells where it happens. A density is not negative: its value is the
    mean of what is left of its normal distribution above zero.
    """

    edges: FloatArray
    contents: FloatArray
    chi2: float
    ndf: int
    amplitude: float
    length: float
    # Model at the fit; nodes of the residual and its standard deviation there before the data; what the fit
    # adds to parameters and residual, and its covariance
    _model: _Model
    _residual: tuple[FloatArray, FloatArray]
    _change: FloatArray
    _cov: FloatArray
    _shifts: FloatArray  # Of the bins by named sources, relative, (k, n)

    @property
    def p_value(self) -> float:
        """Probability of a larger χ²."""
        return float(chdtrc(self.ndf, self.chi2))

    @property
    def flagged(self) -> bool:
        """Whether the components do not describe the bins without a residual."""
        return self.p_value < MISFIT

    def _design(self, m: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return dN/dm of the model, and its derivative by parameters and residual, shapes (n,), (n, u)."""
        return _design(self._model, self._residual, m)

    def _inside(self, mass: npt.ArrayLike) -> FloatArray:
        m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        outside = ~((m >= self.edges[0]) & (m <= self.edges[-1]))
        if outside.any():
            raise PhysicsError(
                f"mass {m[outside][0]:g} GeV lies outside the measured {self.edges[0]:g} to "
                f"{self.edges[-1]:g} GeV: it is not extrapolated; scan masses inside, see [predict]"
            )
        return m

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
        m = self._inside(mass)
        whole, design = self._design(m)
        cov = design @ self._cov @ design.T + self._jumps(m)
        return self._complete(m, whole + design @ self._change, cov)

    def _complete(self, m: FloatArray, value: FloatArray, cov: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return values that are not negative, and their covariance with that of named sources."""
        value = _positive(value, np.diag(cov))
        rows = [self._interpolated(m, shift) for shift in self._shifts]
        return value, cov + sum((np.outer(value * row, value * row) for row in rows), np.zeros_like(cov))

    def _interpolated(self, m: FloatArray, relative: npt.ArrayLike) -> FloatArray:
        return np.asarray(np.interp(m, 0.5 * (self.edges[1:] + self.edges[:-1]), np.asarray(relative)))

    def _jumps(self, m: FloatArray) -> FloatArray:
        """Return the covariance of a residual that changes between bins, who knows where, shape (m, m)."""
        nodes, size = self._residual
        f = self._change[-len(nodes) :]
        place = np.clip(np.searchsorted(self.edges, m, side="right") - 1, 0, len(self.edges) - 2)
        width = np.diff(self.edges)[place]
        half = JUMP * np.abs(np.interp(m + width, nodes, f) - np.interp(m - width, nodes, f))
        error = half * np.interp(m, nodes, size)
        return np.outer(error, error) * np.exp(-np.abs(m[:, None] - m) / width)

    def binned(self, edges: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
        """Return the contents of other bins of mass and their covariance, shapes (b,), (b, b).

        Parameters
        ----------
        edges : array_like, shape (b + 1,) [GeV]
        """
        bounds = np.asarray(edges, dtype=np.float64)
        m, weights = _integral(bounds)
        whole, design = self._design(m)
        design = np.einsum("bn,bnu->bu", weights, design.reshape(*weights.shape, -1))
        value = (weights * whole.reshape(weights.shape)).sum(axis=1) + design @ self._change
        return self._complete(0.5 * (bounds[1:] + bounds[:-1]), value, design @ self._cov @ design.T)

    def shifted(self, mass: npt.ArrayLike, relative: npt.ArrayLike) -> FloatArray:
        """Return by how much dN/dm moves when the contents of the bins move by relative shifts (n,).

        Parameters
        ----------
        mass : array_like, shape (m,) [GeV]
        relative : array_like, shape (n,)
            Relative shifts of the contents; straight between the centres of the bins.
        """
        m = self._inside(mass)
        return self.density(m)[0] * self._interpolated(m, relative)

    def parts(self, mass: FloatArray) -> dict[str, FloatArray]:
        """Return dN/dm of ω, φ and the "continuum" at any masses (m,); of an unseen line its shape.

        Without the residual, which would follow a peak that is searched for.
        """
        whole, design = self._design(mass)
        names = [c.name for c in self._model.components]
        there = {k: names.index(k) for k in LINES if k in names}
        lines = {k: self._model.yields[i] * design[:, i] for k, i in there.items()}
        p = len(self._model.point)
        rest = np.clip(whole + design[:, :p] @ self._change[:p] - sum(lines.values()), 0.0, None)
        unseen = {k: 1e-9 * design[:, i] for k, i in there.items() if self._model.yields[i] <= 0}
        return {k: np.clip(v, 0.0, None) for k, v in (lines | unseen).items()} | {"continuum": rest}

    def line_error(self, name: str) -> float:
        """Return the relative error of the yield of "omega" or "phi"; one where none is seen."""
        i = [c.name for c in self._model.components].index(name)
        seen = self._model.yields[i]
        return float(min(np.sqrt(self._cov[i, i]) / seen, 1.0)) if seen > 0 else 1.0


def _positive(value: FloatArray, variance: FloatArray) -> FloatArray:
    """Return the mean of a normal number that is not negative."""
    sigma = np.sqrt(np.clip(variance, 1e-300, None))
    z = np.clip(value / sigma, -30.0, None)
    return np.asarray(sigma * (z + np.exp(-0.5 * z**2 - log_ndtr(z)) / np.sqrt(2 * np.pi)))


def _integral(edges: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return masses (b n,) in bins and their weights (b, n) in the integral over each bin."""
    width = np.diff(edges)
    n = max(int(np.ceil(width.max() / FINE)), 4)
    m = edges[:-1, None] + width[:, None] * (np.arange(n) + 0.5) / n
    return m.ravel(), np.repeat(width[:, None] / n, n, axis=1)


def _design(
    model: _Model, residual: tuple[FloatArray, FloatArray], m: FloatArray
) -> tuple[FloatArray, FloatArray]:
    _, whole, slopes = model.slopes(m)
    nodes, size = residual
    place = np.clip(np.searchsorted(nodes, m) - 1, 0, len(nodes) - 2)
    right = np.clip((m - nodes[place]) / (nodes[place + 1] - nodes[place]), 0.0, 1.0)
    hats, rows = np.zeros((len(m), len(nodes))), np.arange(len(m))
    hats[rows, place], hats[rows, place + 1] = (1 - right) * size[place], right * size[place + 1]
    return whole, np.hstack([slopes.T, hats])


@dataclass(frozen=True, slots=True, eq=False)
class MassCounts:
    """What is fitted: contents of bins of mass, and how they follow from dN/dm.

    Attributes
    ----------
    edges, contents, cov : NDArray, shapes (n + 1,) [GeV], (n,), (n, n)
    resolution : MassResolution, optional
        Of bins of reconstructed mass; its efficiency is what a photon of the spectrum puts into all of them.
    """

    edges: FloatArray
    contents: FloatArray
    cov: FloatArray
    resolution: MassResolution | None = None
    NAMES: ClassVar[tuple[str, ...]] = ("edges", "contents", "cov", *OF_RESOLUTION)

    @property
    def ends(self) -> tuple[float, float]:
        """Masses from which pairs come into the bins."""
        beyond = 0.0 if self.resolution is None else BEYOND * float(self.resolution.width.max())
        return max(self.edges[0] - beyond, 1e-3), self.edges[-1] + beyond

    def fold(self) -> tuple[FloatArray, FloatArray]:
        """Return masses (m,) and the matrix (n, m) that makes contents of dN/dm there."""
        if self.resolution is None:
            m, weights = _integral(self.edges)
            matrix = np.zeros((len(weights), *weights.shape))
            matrix[np.arange(len(weights)), np.arange(len(weights))] = weights
            return m, matrix.reshape(len(weights), -1)
        low, high = self.ends
        n = int(np.ceil((high - low) / FINE))
        m = low + (high - low) * (np.arange(n) + 0.5) / n
        return m, (high - low) / n * self._seen(self.resolution, m)

    def _seen(self, resolution: MassResolution, m: FloatArray) -> FloatArray:
        return np.asarray(resolution.cells(m, self.edges).T * resolution.efficiency_at(m))

    def errors(self, m: FloatArray) -> FloatArray:
        """Return the errors of the bins as dN/dm at masses (m,)."""
        width, centres = np.diff(self.edges), 0.5 * (self.edges[1:] + self.edges[:-1])
        seen = 1.0 if self.resolution is None else np.maximum(self.resolution.efficiency_at(m), 1e-300)
        return np.asarray(np.interp(m, centres, np.sqrt(np.diag(self.cov)) / width) / seen)

    def response_errors(self, m: FloatArray, parts: FloatArray) -> FloatArray:
        """Return the covariance by efficiency and resolution of contents that masses (m,) make, (n, m)."""
        known = self.resolution
        if known is None:
            return np.zeros_like(self.cov)
        rows = [parts @ np.interp(m, known.mass, row) for row in np.diag(known.efficiency_error)]
        now = self._seen(known, m)
        some, one = now > UNSEEN_TAIL * now.max(), np.ones_like(now)  # farther out there is nothing to move
        moved = (self._seen(other, m) for other in (known.scaled(1 + WIDTH), known.scaled(scale=1 + SCALE)))
        ratios = [np.divide(other, now, out=one.copy(), where=some) for other in moved]
        rows += [(parts * (ratio - 1)).sum(axis=1) for ratio in ratios]
        return np.asarray(np.transpose(rows) @ rows)

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        found = {name: getattr(self, name) for name in ("edges", "contents", "cov")}
        return found | {name: np.asarray(getattr(self.resolution, name)) for name in OF_RESOLUTION}

    @staticmethod
    def of(arrays: Mapping[str, FloatArray]) -> MassCounts:
        """Return the counts of a record.

        Parameters
        ----------
        arrays : mapping of str to NDArray
        """
        resolution = MassResolution(*(arrays[name] for name in OF_RESOLUTION))
        return MassCounts(arrays["edges"], arrays["contents"], arrays["cov"], resolution)


def mass_counts(measured: Spectrum, resolution: MassResolution | None = None) -> MassCounts:
    """Return what is fitted of a spectrum in mass, or of subtracted pairs and their resolution.

    Notes
    -----
    Named sources are no part of the covariance: with them in the weights one that bends the spectrum
    otherwise than continuum and lines can would count as measured. Bins without error were not measured; a
    bin of reconstructed pairs is, and has at least the error of one pair.
    """
    axis = next((a for a in measured.hist.axes if a.name == MASS), None)
    if axis is None:
        msg = f"mass shape: the spectrum has the axes {[a.name for a in measured.hist.axes]}, none of mass"
        raise PhysicsError(msg)
    edges = np.asarray(axis.edges, dtype=np.float64)
    _, density, cov = mass_density(measured)
    width = np.diff(edges)
    contents, cov = density * width, cov * np.outer(width, width)
    rest = cov - sum((np.outer(s, s) for s in mass_shifts(measured).values()), np.zeros_like(cov))
    cov = rest if np.linalg.eigvalsh(rest)[0] > -1e-9 * np.trace(cov) else cov
    low, least = (1.0, 1.0) if resolution else (1e-300, max(float(contents.max()), 1e-300) ** 2)
    lifted = np.where(np.diag(cov) < low, least - np.diag(cov), 0.0)
    return MassCounts(edges, contents, cov + np.diag((FLOOR * contents) ** 2 + lifted), resolution)


def without_fakes(counts: MassCounts, simulated: MatchedPairs) -> MassCounts:
    """Return counts without the share of reconstructed pairs that no simulated photon made."""
    seen = simulated.reconstructed
    genuine, _ = np.histogram(simulated.reco[seen, 0], counts.edges, weights=simulated.weight[seen])
    fakes, _ = np.histogram(simulated.fakes[:, 0], counts.edges, weights=simulated.fake_weight)
    share = np.divide(genuine, genuine + fakes, out=np.ones_like(counts.contents), where=fakes > 0)
    return replace(counts, contents=share * counts.contents, cov=counts.cov * np.outer(share, share))


def resolution_of(simulated: MatchedPairs, spectrum: Spectrum) -> MassResolution:
    """Return resolution and efficiency of photons with the transverse momenta and energies of a spectrum.

    The efficiency is that of selected pairs per photon of the spectrum, times its protons on target.

    Simulated photons get the contents of their cells; those of cells that the spectrum leaves out make pairs
    as well, in the ratio of their bin of mass.
    """
    axes, n_mass = tuple(spectrum.hist.axes), len(spectrum.hist.axes[0])
    places = [np.asarray(axis.index(column)) for axis, column in zip(axes, simulated.true.T, strict=True)]
    inside = np.logical_and.reduce([(i >= 0) & (i < len(a)) for i, a in zip(places, axes, strict=True)])
    clipped = [np.clip(i, 0, len(axis) - 1) for i, axis in zip(places, axes, strict=True)]
    cell = np.ravel_multi_index(clipped, spectrum.values.shape)
    values = spectrum.values.ravel()
    prior = np.bincount(cell[inside], simulated.weight[inside], len(values))
    known = (values > 0) & (prior > 0)
    label = np.indices(spectrum.values.shape)[0].ravel()
    of_bins = [np.bincount(label, np.where(known, x, 0.0), n_mass) for x in (values, prior)]
    seen = of_bins[1] > 0
    require(seen.any(), "mass shape: no cell of the spectrum has both measured and simulated photons")
    mean = np.interp(np.arange(n_mass), np.flatnonzero(seen), of_bins[0][seen] / of_bins[1][seen])[label]
    ratio = np.where(known, np.divide(values, prior, out=np.zeros_like(values), where=known), mean)
    weight = simulated.weight * np.clip(ratio, mean / MOST, mean * MOST)[cell]
    exposed = 1.0 if spectrum.exposure is None else spectrum.exposure.pot
    photons = np.where(inside & known[cell], weight, 0.0) / exposed
    return measured_resolution(simulated.true[:, 0], simulated.reco[:, 0], weight, photons)


def fit_mass_shape(
    spectrum: Spectrum,
    *,
    m_lepton: float,
    counts: MassCounts | None = None,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    coherence: float = COHERENCE,
) -> MassShape:
    """Fit continuum and lines to the mass bins of a spectrum, or to the pairs it was made of.

    Parameters
    ----------
    spectrum : Spectrum
        With a mass axis; other axes are summed over.
    m_lepton : float [GeV]
    counts : MassCounts, optional
        Reconstructed pairs, to which the spectrum is folded; by default the bins of the spectrum are fitted.
    temperature : float
        Of the Boltzmann factor of the ρ [GeV], before the data.
    smooth : int
        Polynomials for what no meson explains.
    coherence : float
        Standard deviation of both quadratures of the interference of ρ and ω: their phase is free. 0: none.

    Raises
    ------
    PhysicsError
        If the bins reach beyond 2.9 GeV, are wider than 60 MeV or too few for the components.

    Notes
    -----
    Contents of the bins are integrals of the sum of components (Dalitz decays, ρ, ω, φ, Drell-Yan,
    polynomials) and of a residual (`MassShape`), through resolution and efficiency where `counts` are of
    pairs. Before the data, yields are those of a fit of the components alone, ± 100 % or what fills a bin (ω
    and φ ± ten times as much); the temperature of the ρ is known to 25 %, its pole to 10 MeV, its width to
    10 %, and Gounaris and Sakurai's propagator is as likely as that of the running width alone; ω and φ are
    tilted about their poles by ± 5 per GeV; the resolution is known to 2 %, its scale to 0.1 %. The posterior
    is taken as normal about its mean. Named sources do not weigh in the fit; their relative shift of the bins
    goes on to exact masses.
    """
    fitted = counts or mass_counts(spectrum)
    edges = np.asarray(spectrum.hist.axes[MASS].edges, dtype=np.float64)
    components = usable_components(
        fitted.edges, m_lepton=m_lepton, temperature=temperature, smooth=smooth, resolution=fitted.resolution
    )
    asked = np.zeros(len(RHO) + 2 + len(LINES)), m_lepton, temperature, coherence
    found = _fitted(fitted, *_start(fitted, _Model(components, np.zeros(len(components)), *asked)))
    contents = np.asarray(mass_histogram(spectrum).values(), dtype=np.float64)
    shifts = np.array(list(relative_shifts(spectrum).values())).reshape(-1, len(contents))
    return replace(found, edges=edges, contents=contents, _shifts=shifts)


def _start(data: MassCounts, model: _Model) -> tuple[_Model, FloatArray]:
    """Return the model with yields of a fit of its components alone, and the variances before the data."""
    m, fold = data.fold()
    cells = fold @ np.stack([c.density(m) for c in model.components]).T
    whiten = np.linalg.inv(np.linalg.cholesky(data.cov))
    scale = np.abs(whiten @ cells).max(axis=0)
    yields = nnls(whiten @ cells / scale, whiten @ data.contents)[0] / scale
    seen = np.maximum(data.contents, np.sqrt(np.diag(data.cov)))[:, None]
    unit = np.min(divided(seen, cells, np.inf), axis=0)
    narrow = np.array([c.name in LINES for c in model.components])
    sigma = np.where(narrow, LINE * np.maximum(yields, unit), np.maximum(YIELD * yields, UNSEEN * unit))
    return replace(model, yields=yields), np.concatenate([sigma**2, np.ones(len(model.moved))])


@dataclass(frozen=True, slots=True, eq=False)
class _Linear:
    """Contents about a point: `left` is normal with a covariance of parameters, residual and data."""

    left: FloatArray
    base: FloatArray  # covariance of the contents by parameters and data
    hats: FloatArray  # of the nodes of the residual in the bins
    continuum: FloatArray  # dN/dm in the nodes
    errors: FloatArray  # of the bins in the nodes, as dN/dm
    near: Mapping[float, FloatArray]  # correlation of the nodes for each length

    def size(self, amplitude: float) -> FloatArray:
        """Return the standard deviation of the residual in its nodes."""
        return np.hypot(amplitude * self.continuum, LOCAL * self.errors)

    def cov(self, amplitude: float, length: float) -> FloatArray:
        """Return the covariance of the contents."""
        rows = self.hats * self.size(amplitude)
        return np.asarray(self.base + rows @ self.near[length] @ rows.T)

    def loss(self, asked: tuple[float, float]) -> float:
        """Return minus the logarithm of the posterior of amplitude and length."""
        root = np.linalg.cholesky(self.cov(*asked))
        pulls = linalg.solve_triangular(root, self.left, lower=True)
        far = np.log(asked[0] / CENTRE) / SPREAD
        return float(0.5 * pulls @ pulls + np.log(np.diag(root)).sum() + 0.5 * far**2)


def _fitted(data: MassCounts, model: _Model, variance: FloatArray) -> MassShape:
    """Return the posterior, linear about its mean in parameters and residual."""
    m, fold = data.fold()
    low, high = data.ends
    nodes = np.linspace(low, high, int(np.ceil((high - low) / np.diff(data.edges).min() * NODES)) + 1)
    begin, p, n = model.point, len(variance), len(data.contents)
    hats = fold @ _design(model, (nodes, np.ones(len(nodes))), m)[1][:, p:]
    near = {length: np.exp(-np.abs(nodes[:, None] - nodes) / length) for length in LENGTHS}
    change = np.zeros(p)
    for _ in range(STEPS):
        model = model.at(begin + change)
        _, whole, slopes = model.slopes(m)
        columns = fold @ slopes.T
        about = _Linear(
            data.contents - fold @ whole + columns @ (model.point - begin),
            (columns * variance) @ columns.T + data.cov + data.response_errors(m, fold * whole),
            hats,
            np.clip(model.slopes(nodes)[0], 0.0, None),
            data.errors(nodes),
            near,
        )
        amplitude, length = min(product(AMPLITUDES, LENGTHS), key=about.loss)
        size = about.size(amplitude)
        rows = np.hstack([columns * variance, hats * size @ near[length]])
        gain = np.linalg.solve(about.cov(amplitude, length), rows).T
        change = (gain @ about.left)[:p]
    prior = linalg.block_diag(np.diag(variance), near[length])
    cov = prior - gain @ rows
    change = gain @ about.left - np.concatenate([model.point - begin, np.zeros(len(nodes))])
    chi2 = float(about.left @ np.linalg.solve(about.base, about.left))
    ndf = n - int((begin[: p - len(model.moved)] > 0).sum())
    kept = data.edges, data.contents, chi2, ndf, amplitude, length
    return MassShape(*kept, model, (nodes, size), change, (cov + cov.T) / 2, np.zeros((0, n)))


def usable_components(
    edges: Sequence[float] | FloatArray,
    *,
    m_lepton: float,
    temperature: float = RHO_TEMPERATURE,
    smooth: int = 2,
    resolution: MassResolution | None = None,
) -> tuple[Component, ...]:
    """Return the components that reach into mass bins; refuse bins that fix none."""
    edges = np.asarray(edges, dtype=np.float64)
    nothing = np.zeros(len(edges) - 1)
    data = MassCounts(edges, nothing, np.eye(len(nothing)), resolution)
    known = cocktail_components(data.ends, temperature=temperature, smooth=smooth, m_lepton=m_lepton)
    m, fold = data.fold()
    components = tuple(c for c in known if (fold @ c.density(m)).sum() > 0)
    widest = float(np.diff(edges).max())
    if edges[-1] > HIGHEST:
        why = f"the bins reach to {edges[-1]:g} GeV, beyond {HIGHEST} GeV"
    elif widest > COARSEST + 1e-9:
        why = f"bins of {widest:g} GeV are wider than {COARSEST} GeV"
    elif len(edges) - 1 < len(components) + SPARE:
        why = f"{len(edges) - 1} bins are too few for {len(components)} components"
    else:
        return components
    raise PhysicsError(f"mass shape: {why}; ω and φ cannot be told from the continuum")
