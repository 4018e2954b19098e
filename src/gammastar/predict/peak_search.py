"""A narrow peak over a background that the data fix: fit, expected limits with bands, bias of the model."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import comb

import numpy as np
import numpy.typing as npt
from scipy.special import eval_legendre, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.resolution import MassResolution

BANDS = (-2.0, -1.0, 0.0, 1.0, 2.0)  # standard deviations of the expected limits
ROUNDS = 4  # of weights from the fit before: least squares become the maximum of the Poisson likelihood
EMPTY = 1e-3  # of the mean content of a window, the least expectation of a bin
ALIKE = 1e-10  # keeps a peak and a line of one shape from being a singular fit: their errors are huge
SMALL = 1e-3  # of the statistical error of a bin, below which a shift is left out of a likelihood
NEAR = 1.4  # resolutions about the mass in which the background is counted
INNER = 1.0  # resolutions inside the window from where on the yield of a line is free
NEAREST_ONE = 0.98  # largest z δ of an error of the signal: beyond it nothing is excluded at any strength


@dataclass(frozen=True, slots=True, eq=False)
class Background:
    """What a window holds without signal: smooth pairs times a polynomial, and lines of free yield."""

    degree: int | None = 3  # Of the polynomial; None: everything is known exactly
    # Expected smooth pairs of each bin, which the polynomial multiplies; None: equal per GeV, shape (n,)
    smooth: FloatArray | None = None
    # Expected pairs of narrow resonances. Inside a window their yields are free, shape (l, n)
    lines: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    # Masses of the resonances, shape (l,) [GeV]
    places: FloatArray = field(default_factory=lambda: np.zeros(0))
    # Relative errors of their yields, for windows that see but a tail, shape (l,)
    errors: FloatArray = field(default_factory=lambda: np.zeros(0))
    # What one standard deviation of mass scale or resolution makes of the lines, shape (s, n)
    shifts: FloatArray = field(default_factory=lambda: np.zeros((0, 0)))
    names: tuple[str, ...] = ()  # Of the resonances

    @property
    def terms(self) -> int:
        """Number of coefficients of the polynomial."""
        return 0 if self.degree is None else self.degree + 1


@dataclass(frozen=True, slots=True, eq=False)
class PeakFits:
    """Fits of a peak, one entry per mass."""

    mass: FloatArray  # shape (k,) [GeV]
    sigma: FloatArray  # Standard deviation of the fitted pairs of the peak where there are none, shape (k,)
    # Pairs of the peak that the fit finds, with their standard deviation, shape (k,)
    fitted: FloatArray
    error: FloatArray
    # Expected pairs within ± 1.4 resolutions of the mass, from the fit without peak, shape (k,)
    background: FloatArray
    # Largest correlation of the peak with the yield of a line, without sign, shape (k,)
    correlation: FloatArray
    expected: FloatArray  # The fit without peak in every bin; nan outside the window, shape (k, n)


def _designs(
    edges: FloatArray,
    mass: FloatArray,
    peak: FloatArray,
    width: FloatArray,
    half_window: float,
    known: Background,
) -> tuple[FloatArray, FloatArray, FloatArray, BoolArray]:
    """Return columns (k, n, p), the peak first, their priors (k, p), what is known and the windows (k, n)."""
    centre = 0.5 * (edges[1:] + edges[:-1])
    x = (centre[None, :] - mass[:, None]) / (half_window * width[:, None])
    inside = np.abs(x) <= 1
    near = np.abs(known.places[None, :] - mass[:, None]) <= (half_window - INNER) * width[:, None]
    smooth = np.diff(edges) if known.smooth is None else known.smooth
    offset = np.where(near, 0.0, 1.0) @ known.lines if len(known.places) else np.zeros(x.shape)
    columns = [peak] + [smooth * eval_legendre(k, np.clip(x, -1, 1)) for k in range(known.terms)]
    if known.terms:
        free = np.where(near, 1.0, known.errors)
        columns += [free[:, i, None] * line for i, line in enumerate(known.lines)]
        columns += [np.broadcast_to(shift, x.shape) for shift in known.shifts]
    design = np.where(inside[:, :, None], np.stack(columns, axis=-1), 0.0)
    prior = np.zeros((len(mass), design.shape[2]))
    if known.terms:
        prior[:, 1 + known.terms : 1 + known.terms + len(known.lines)] = ~near
        prior[:, 1 + known.terms + len(known.lines) :] = 1.0
    return design, prior, offset, inside


def _solve(
    design: FloatArray, prior: FloatArray, weight: FloatArray, content: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return coefficients (k, p) and covariance (k, p, p) of weighted least squares; absent columns are 0."""
    scale = np.sqrt(np.einsum("kbi,kb->ki", design**2, weight) + prior)
    there = scale > 0
    scale = np.where(there, scale, 1.0)
    scaled = design / scale[:, None, :]
    information = np.einsum("kbi,kb,kbj->kij", scaled, weight, scaled)
    step = np.arange(design.shape[2])
    information[:, step, step] += prior / scale**2 + ~there + ALIKE
    covariance = np.linalg.inv(information)
    right = np.einsum("kbi,kb,kb->ki", scaled, weight, content)
    found = np.einsum("kij,kj->ki", covariance, right) / scale
    covariance = covariance * (there / scale)[:, :, None] * (there / scale)[:, None, :]
    return np.where(there, found, 0.0), covariance


def _weights(expected: FloatArray, inside: BoolArray) -> FloatArray:
    """Return 1/variance of the bins of each window from an expectation."""
    mean = np.where(inside, expected, 0.0).sum(axis=1) / np.maximum(inside.sum(axis=1), 1)
    least = np.maximum(EMPTY * mean, 1e-300)[:, None]
    return np.where(inside, 1.0 / np.maximum(expected, least), 0.0)


def peak_search(
    edges: npt.ArrayLike,
    pairs: npt.ArrayLike,
    mass: npt.ArrayLike,
    resolution: MassResolution,
    *,
    background: Background | None = None,
    half_window: float = 6.0,
) -> PeakFits:
    """Fit a peak at each mass over the background of a window about it.

    Notes
    -----
    Maximum of the Poisson likelihood by reweighted least squares, as all is linear in its coefficients; σ
    from the Fisher information of the fit without peak. With fewer than some twenty pairs in a peak take
    exact counting limits instead.
    """
    e, n = np.asarray(edges, dtype=np.float64), np.asarray(pairs, dtype=np.float64)
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    known = Background() if background is None else background
    fits = e.ndim == 1 and n.shape in {(len(e) - 1,), (len(m), len(e) - 1)}
    if not fits or not (np.diff(e) > 0).all() or not (n >= 0).all():
        msg = f"peak search: {e.shape} edges must increase and hold one non-negative content each, {n.shape}"
        raise PhysicsError(msg)
    n = np.broadcast_to(n, (len(m), len(e) - 1))
    peak = resolution.cells(m, e)
    design, prior, offset, inside = _designs(e, m, peak, resolution.sigma(m), half_window, known)
    free = design.shape[2]
    short = (inside & (n > 0)).sum(axis=1) < free + 1
    if short.any():
        msg = f"peak search: too few filled bins about {m[short][0]:g} GeV for {free} terms"
        raise PhysicsError(msg)
    expected = n
    if known.terms:
        for _ in range(ROUNDS):
            found, _ = _solve(design[:, :, 1:], prior[:, 1:], _weights(expected, inside), n - offset)
            expected = offset + np.einsum("kbi,ki->kb", design[:, :, 1:], found)
    weight = _weights(expected, inside)
    _, cov = _solve(design, prior, weight, n)
    sigma = np.sqrt(cov[:, 0, 0])
    lines = slice(1 + known.terms, 1 + known.terms + (len(known.lines) if known.terms else 0))
    spread = np.sqrt(np.einsum("kii->ki", cov))
    with np.errstate(invalid="ignore", divide="ignore"):
        alike = np.abs(cov[:, 0, lines]) / (spread[:, :1] * spread[:, lines])
    fitted, error = np.full(len(m), np.nan), np.full(len(m), np.nan)
    if known.terms:
        total = expected
        for _ in range(ROUNDS):
            both, cov = _solve(design, prior, _weights(total, inside), n - offset)
            total = offset + np.einsum("kbi,ki->kb", design, both)
        fitted, error = both[:, 0], np.sqrt(cov[:, 0, 0])
    centre = 0.5 * (e[1:] + e[:-1])
    near = np.abs(centre[None, :] - m[:, None]) < NEAR * resolution.sigma(m)[:, None]
    correlation = np.nan_to_num(alike).max(axis=1, initial=0.0)
    shown = np.where(inside, expected, np.nan)
    return PeakFits(m, sigma, fitted, error, (near * expected).sum(axis=1), correlation, shown)


def cls_limits(
    fitted: npt.ArrayLike, sigma: npt.ArrayLike, relative: npt.ArrayLike = 0.0, *, cl: float = 0.90
) -> FloatArray:
    """Return CLs upper limits on the pairs of a peak from its fitted number.

    Notes
    -----
    Normal approximation: √q = (S − Ŝ)/s and √q_A = S/s with s² = σ² + (S δ)², and 1 − CL = [1 − Φ(√q)] /
    Φ(√q_A − √q); G. Cowan, K. Cranmer, E. Gross, O. Vitells, Eur. Phys. J. C 71 (2011) 1554. Without δ it is
    Ŝ + σ Φ⁻¹[1 − (1 − CL) Φ(Ŝ/σ)].
    """
    if not 0.5 <= cl < 1:
        msg = f"peak search: cl = {cl!r} must lie between 0.5 and 1"
        raise PhysicsError(msg)
    s, width, delta = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (fitted, sigma, relative))
    )
    low, high = np.zeros(s.shape), np.maximum(s, 0.0) + 10.0 * width
    if (delta > 0).any():
        high = high / np.maximum(1.0 - 3.0 * delta, 0.02)

    def excess(at: FloatArray) -> FloatArray:
        total = np.sqrt(width**2 + (at * delta) ** 2)
        return np.asarray(ndtr((s - at) / total) - (1 - cl) * ndtr(s / total))

    for _ in range(60):
        middle = 0.5 * (low + high)
        allowed = excess(middle) > 0
        low, high = np.where(allowed, middle, low), np.where(allowed, high, middle)
    beyond = delta * ndtri(1 - (1 - cl) / 2) > NEAREST_ONE
    return np.where(beyond, np.inf, 0.5 * (low + high))


def expected_limits(sigma: FloatArray, relative: npt.ArrayLike = 0.0, *, cl: float = 0.90) -> FloatArray:
    """Return the limits expected without signal at −2 … +2 standard deviations of the data, shape (k, 5)."""
    delta = np.broadcast_to(np.asarray(relative, dtype=np.float64), sigma.shape)
    return cls_limits(sigma[:, None] * np.array(BANDS), sigma[:, None], delta[:, None], cl=cl)


@dataclass(frozen=True, slots=True, eq=False)
class Window:
    """The parts of one window, as a binned likelihood takes them."""

    bins: npt.NDArray[np.int64]  # Those of the histogram, shape (b,)
    peak: FloatArray  # Part of the peak in each bin, shape (b,)
    expected: FloatArray  # Fit without peak, shape (b,)
    fixed: FloatArray  # Tails of lines that lie outside, shape (b,)
    # Bernstein polynomials times the smooth pairs: none is negative, and they span what the fit has, shape
    # (t, b)
    smooth: FloatArray
    # Their fitted coefficients and standard deviations, shape (t,)
    factors: FloatArray
    errors: FloatArray
    # Name of the line, expected pairs, fitted factor and its error, of those inside the window
    lines: tuple[tuple[str, FloatArray, float, float], ...]
    # What one standard deviation makes of the bins: of the lines as `Background` has them, and of the yields
    # of those outside the window, shape (s, b)
    shifts: FloatArray


def window_of(
    edges: FloatArray,
    fits: PeakFits,
    i: int,
    resolution: MassResolution,
    *,
    background: Background,
    half_window: float,
) -> Window:
    """Return the parts of the window of mass number `i`; arguments as for `peak_search`."""
    mass = fits.mass[i : i + 1]
    peak, width = resolution.cells(mass, edges), resolution.sigma(mass)
    design, prior, offset, inside = _designs(edges, mass, peak, width, half_window, background)
    bins = np.flatnonzero(inside[0])
    columns, terms = design[0, bins], background.terms
    x = (0.5 * (edges[1:] + edges[:-1])[bins] - mass[0]) / (half_window * width[0])
    basis = [comb(terms - 1, k) * (0.5 + x / 2) ** k * (0.5 - x / 2) ** (terms - 1 - k) for k in range(terms)]
    columns = np.concatenate([columns[:, 1:2] * np.stack(basis, axis=1), columns[:, 1 + terms :]], axis=1)
    expected = fits.expected[i, bins]
    weight = _weights(expected[None], np.ones((1, len(bins)), dtype=np.bool_))
    found, cov = _solve(columns[None], prior[:, 1:], weight, expected[None] - offset[:, bins])
    value, error = found[0], np.sqrt(np.diag(cov[0]))
    free = [j for j in range(terms, terms + len(background.lines)) if not prior[0, 1 + j]]
    lines = tuple(
        (background.names[j - terms], columns[:, j], float(value[j]), float(error[j])) for j in free
    )
    shifts = columns[:, [j for j in range(terms, columns.shape[1]) if j not in free]].T
    small = SMALL * np.sqrt(np.clip(expected, 0.0, None)).max()
    head = bins, peak[0, bins], expected, offset[0, bins], columns[:, :terms].T
    return Window(*head, value[:terms], error[:terms], lines, shifts[np.abs(shifts).max(axis=1) > small])
