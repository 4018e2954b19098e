"""What is not known outside the measured domain: trend of the data, fall towards the kinematic limit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.optimize import least_squares

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import UserError
from gammastar.core.records import KINEMATICS, BoolArray, FloatArray, divided, effective_size

START = 0.3  # x_R from which a power law stands, or where measured pairs end, if that is farther
GRID = np.linspace(0.2, 0.95, 31)  # x_R
GROUP = 1000.0  # effective simulated pairs beyond the first x_R, of which a shape is fitted
SMALLEST = 1e-4  # of a factor on the simulated density


def radial(mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float) -> FloatArray:
    """Return x_R = E*/E*_max in the nucleon-nucleon frame, 1 at the kinematic limit of pp → X pp."""
    root = np.sqrt(2.0 * M_PROTON * (M_PROTON + beam_energy))
    pz = np.sqrt(np.clip(energy**2 - mass**2 - pt**2, 0.0, None))
    centre = (energy * (beam_energy + M_PROTON) - pz * np.sqrt(beam_energy**2 - M_PROTON**2)) / root
    largest = (root**2 + mass**2 - 4.0 * M_PROTON**2) / (2.0 * root)
    return np.asarray(centre / largest)


@dataclass(frozen=True, slots=True, eq=False)
class ForwardPower:
    """The density beyond the measured x_R: dN/dy ∝ (1 − x_R)^n in the place of the simulated fall.

    Attributes
    ----------
    edges : NDArray, shape (k + 1,) [GeV]
        Of groups of mass.
    measured, start : NDArray, shape (k,)
        x_R at which measured pairs end and n becomes uncertain, and from which the power law holds.
    shape : NDArray, shape (k, 4)
        ln of the simulated dN/dy in powers 1, x, x² and ln(1 − x) of x = x_R.
    power : NDArray, shape (2,)
        n and its standard deviation.
    beam_energy : float [GeV]

    Notes
    -----
    x_R: F. E. Taylor et al., Phys. Rev. D 14 (1976) 1217; at small q_T it is x_F. Powers of mesons from
    protons by counting spectators (S. J. Brodsky and J. F. Gunion, Phys. Rev. D 17 (1978) 848): 3 with a
    valence quark of the proton, 5 without.
    """

    edges: FloatArray
    measured: FloatArray
    start: FloatArray
    shape: FloatArray
    power: FloatArray
    beam_energy: float

    def _place(self, mass: FloatArray) -> npt.NDArray[np.intp]:
        return np.clip(np.searchsorted(self.edges, mass, "right") - 1, 0, len(self.start) - 1)

    def factor(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return the density over the simulated one, shape (n,); 1 before the start.

        Parameters
        ----------
        mass, pt, energy : NDArray, shape (n,) [GeV]
        """
        x, k = radial(mass, pt, energy, self.beam_energy), self._place(mass)
        start = self.start[k]
        beyond = np.clip(x, start, 1.0 - 1e-6)
        simulated = np.sum((_basis(beyond) - _basis(start)) * self.shape[k], axis=-1)
        exponent = self.power[0] * _log(x, start) - simulated
        found = np.exp(np.clip(exponent, np.log(SMALLEST), np.log(LARGEST)))
        return np.where(_forward(mass, pt, energy, self.beam_energy), np.where(x < 1.0, found, 0.0), 1.0)

    def moved(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return the density with n one standard deviation down and up over that with n, shape (2, n)."""
        x, end = radial(mass, pt, energy, self.beam_energy), self.measured[self._place(mass)]
        exponent = self.power[1] * _log(x, end)
        exponent = np.where(_forward(mass, pt, energy, self.beam_energy), exponent, 0.0)
        return np.asarray(np.exp(np.stack([-exponent, exponent])))

    def cells(self, axes: Sequence[Any], simulated: tuple[FloatArray, FloatArray]) -> FloatArray:
        """Return the mean factor in cells of mass, pt and energy, or some of them; 1 in empty cells.

        Parameters
        ----------
        axes : sequence of hist axes
        simulated : tuple of (points, weights)
            Points (mass, pt, energy), shape (n, 3) [GeV].
        """
        points, weight = simulated
        columns = np.stack([points[:, KINEMATICS.index(axis.name)] for axis in axes], axis=1)
        bins = [np.asarray(axis.edges) for axis in axes]
        both = weight, weight * self.factor(*points.T)
        before, after = (np.histogramdd(columns, bins, weights=w)[0] for w in both)
        return divided(after, before, 1.0)


def _log(x: FloatArray, start: FloatArray) -> FloatArray:
    """Return ln (1 − x_R) over that at a start, 0 before it."""
    return np.asarray(np.log((1.0 - np.clip(x, start, 1.0 - 1e-6)) / (1.0 - start)))


def _basis(x: FloatArray) -> FloatArray:
    return np.stack([np.ones_like(x), x, x**2, np.log1p(-x)], axis=-1)


def _forward(mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float) -> BoolArray:
    """Return where y* > 0: energies above that of a particle at rest in the nucleon-nucleon frame."""
    gamma = (beam_energy + M_PROTON) / np.sqrt(2.0 * M_PROTON * (M_PROTON + beam_energy))
    return np.asarray(energy > gamma * np.hypot(mass, pt))


def forward_power(
    simulated: tuple[FloatArray, FloatArray],
    inside: BoolArray,
    mass_edges: FloatArray,
    beam_energy: float,
    power: tuple[float, float] = (4.0, 1.5),
) -> ForwardPower:
    """Return the power law beyond the measured x_R, for simulated pairs of all kinematics.

    Parameters
    ----------
    simulated : tuple of (points, weights)
        True (mass, pt, energy), shape (n, 3) [GeV].
    inside : NDArray of bool, shape (n,)
        Where dileptons are measured.
    mass_edges : NDArray, shape (n_bins + 1,) [GeV]
    beam_energy : float [GeV]
    power : (float, float)
        n and its standard deviation.

    Notes
    -----
    Groups of neighbouring bins of mass hold 1000 effective pairs beyond x_R = 0.2 each. dN/dy at given m_T is
    x_R tanh(y*) dN/dx_R.
    """
    points, weight = simulated
    edges = np.asarray(mass_edges, dtype=np.float64)
    (mass, pt, energy), rapidity = points.T, np.sqrt(_variables(points, beam_energy)[1])
    x = radial(mass, pt, energy, beam_energy)
    use = _forward(mass, pt, energy, beam_energy) & (energy < beam_energy)
    far = np.flatnonzero(use & (x > GRID[0]) & (x < 1.0))
    bounds = _groups(mass[far], weight[far], edges)
    ends, shapes = [], []
    for low, high in pairwise(bounds):
        near = far[(mass[far] >= low) & (mass[far] < high)]
        shapes.append(_log_shape(x[near], weight[near] * x[near] * np.tanh(rapidity[near]), power[0]))
        own = x[use & inside & (mass >= low) & (mass < high)]
        ends.append(min(float(np.quantile(own, 0.99)), 0.9) if len(own) else START)
    measured = np.array(ends)
    start = np.maximum(measured, START)
    return ForwardPower(bounds, measured, start, np.array(shapes), np.array(power), beam_energy)


def _groups(mass: FloatArray, weight: FloatArray, edges: FloatArray) -> FloatArray:
    """Return edges between which there are enough pairs."""
    bounds = [edges[0]]
    for edge in edges[1:]:
        own = (mass >= bounds[-1]) & (mass < edge)
        if effective_size(weight[own]) >= GROUP:
            bounds.append(edge)
    return np.array([*bounds[:-1], edges[-1]] if len(bounds) > 1 else edges[[0, -1]])


def _log_shape(x: FloatArray, weight: FloatArray, power: float) -> FloatArray:
    """Return the coefficients of the logarithm of a density in x; the power law itself for too few points."""
    content, square = (np.histogram(x, GRID, weights=w)[0] for w in (weight, weight**2))
    full = content > 0
    if full.sum() < 2 * 4:
        return np.array([0.0, 0.0, 0.0, power])
    precision = content[full] / np.sqrt(square[full])
    columns = _basis(0.5 * (GRID[1:] + GRID[:-1])[full]) * precision[:, None]
    return np.asarray(np.linalg.lstsq(columns, np.log(content[full]) * precision, rcond=None)[0])


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
    forward : ForwardPower, optional
        Of the extrapolated density, whose error counts with that of the trend.
    energy : NDArray, shape (n,), optional
        Highest measured energy at each mass [GeV].
    farthest : float
        y*² up to which the trend goes on: at twice the measured rapidities.

    Notes
    -----
    ln(measured/simulated) = norm(m) + b₁ ln mT + b₂ y*²: a change of the power of the mT tail and of the
    width of the rapidity distribution. It vanishes where the simulation describes the measured kinematics. A
    slope that was measured near y* = 0 says nothing of 20 times the y*²; the error of the forward power does.
    """

    mass: FloatArray
    norm: FloatArray
    slopes: FloatArray
    cov: FloatArray
    beam_energy: float
    forward: ForwardPower | None = None
    energy: FloatArray | None = None
    farthest: float = 100.0

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
        NDArray, shape (5, n)
            The continued trend, the same with its slopes moved by one standard deviation along both axes of
            their error ellipse, and the power of the forward fall moved down and up.
        """
        variables = _variables(np.stack([mass, pt, energy], axis=1), self.beam_energy)
        variables[1] = np.minimum(variables[1], self.farthest)
        power = np.ones((2, len(mass))) if self.forward is None else self.forward.moved(mass, pt, energy)
        norm = np.interp(mass, self.mass, self.norm)
        value, vector = np.linalg.eigh(self.cov)
        vector = vector * np.sign(vector[np.abs(vector).argmax(axis=0), [0, 1]])  # else their sign is free
        moved = (vector * np.sqrt(np.clip(value, 0.0, None))).T
        exponent = norm + (self.slopes + np.vstack([np.zeros(2), moved])) @ variables
        bound = np.log(LARGEST)
        rows = np.concatenate([np.exp(np.clip(exponent, -bound, bound)), power])
        return np.where(in_domain, 1.0, rows)

    def beyond(self, mass: FloatArray, energy: FloatArray) -> BoolArray:
        """Return where energies are higher than any measured at their mass, shape (n,)."""
        known = np.full(len(self.mass), np.inf) if self.energy is None else self.energy
        return np.asarray(energy > np.interp(mass, self.mass, known))

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        kept = {name: getattr(self, name) for name in ("mass", "norm", "slopes", "cov")}
        kept |= {name: np.array([getattr(self, name)]) for name in ("beam_energy", "farthest")}
        if self.energy is not None:
            kept["energy"] = self.energy
        if self.forward is not None:
            kept |= {f"forward_{name}": getattr(self.forward, name) for name in FORWARD}
        return kept

    @staticmethod
    def of(arrays: Mapping[str, FloatArray]) -> Trend:
        """Return the trend of a record.

        Parameters
        ----------
        arrays : mapping of str to NDArray
            Named arrays, as the record gives them.
        """
        beam = float(arrays["beam_energy"][0])
        kept = {name.removeprefix("forward_"): row for name, row in arrays.items() if "forward_" in name}
        forward = ForwardPower(**kept, beam_energy=beam) if kept else None
        mass, norm, slopes, cov = (arrays[name] for name in ("mass", "norm", "slopes", "cov"))
        farthest = float(arrays["farthest"][0])
        return Trend(mass, norm, slopes, cov, beam, forward, arrays.get("energy"), farthest)

    @staticmethod
    def relative_error(signal: FloatArray, alternatives: FloatArray) -> FloatArray:
        """Return the relative standard deviation of a signal from its extrapolated part.

        Parameters
        ----------
        signal : NDArray, shape (k,)
        alternatives : NDArray, shape (5, k)
            The signal with the factors of `factors`.

        Notes
        -----
        σ² = ln²(s₁/s) + Σ_j ln²(s_j/s₁) + ½ Σ_± ln²(s_±/s), of which e^σ − 1 is returned: the whole step from
        the central shape to the continued trend s₁, the error of the trend, and that of the forward power.
        Logarithms, since the alternatives differ by factors.
        """
        some = signal > 0
        logs = np.log(np.maximum(alternatives, 1e-300) / np.maximum(signal, 1e-300))
        variance = logs[0] ** 2 + np.sum((logs[1:3] - logs[0]) ** 2, axis=0)
        variance += 0.5 * np.sum(logs[3:] ** 2, axis=0)
        return np.where(some, np.expm1(np.sqrt(variance)), 0.0)


FORWARD = ("edges", "measured", "start", "shape", "power")


def _variables(points: FloatArray, beam: float) -> FloatArray:
    """Return ln mT and y*², shape (2, n), of points (mass, pt, energy), shape (n, 3)."""
    mass, pt, energy = points.T
    mt2 = mass**2 + pt**2
    pz = np.sqrt(np.clip(energy**2 - mt2, 0.0, None))
    rapidity = np.log((energy + pz) / np.sqrt(mt2))
    centre = np.arctanh(np.sqrt(beam**2 - M_PROTON**2) / (beam + M_PROTON))
    return np.stack([0.5 * np.log(mt2), (rapidity - centre) ** 2])


def highest_energies(measured: FloatArray, mass: FloatArray) -> FloatArray:
    """Return the energy of the tenth hardest `measured` pair within 0.1 GeV of masses, (n,) [GeV]."""
    near = [measured[np.abs(measured[:, 0] - m) < 0.1, 2] for m in mass]
    return np.array([np.partition(one, -10)[-10] if len(one) >= 10 else 0.0 for one in near])


def flat_trend(mass_edges: FloatArray, beam_energy: float) -> Trend:
    """Return the trend of a simulation that nobody compared with data: none, without error."""
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
        return np.histogramdd(coordinates, bins=bins, weights=w)[0].ravel()

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
    counts = divided(found**2, variance)
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
    farthest = 4.0 * float(np.quantile(variables[1], 0.99))
    return Trend(centres[bins], fit.x[2:], fit.x[:2], cov, beam_energy, farthest=farthest)
