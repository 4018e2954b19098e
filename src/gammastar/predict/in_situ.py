"""Dark photons in the measured pairs themselves: a prompt peak, and displaced decays behind a thin target."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from math import comb
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import eval_legendre, ndtr, ndtri

from gammastar.core.errors import PhysicsError, require
from gammastar.core.pairs import VertexPairs
from gammastar.core.records import ArrayRecord, BoolArray, FloatArray, IntArray
from gammastar.core.sources import Source, Sources
from gammastar.physics.detector import MassResolution, VertexTelescope
from gammastar.physics.qed import dark_photon_rate

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

    Maximum of the Poisson likelihood by reweighted least squares, as all is linear in its coefficients; σ
    from the Fisher information of the fit without peak. With fewer than some twenty pairs in a peak take
    exact counting limits instead.
    """
    e, n = np.asarray(edges, dtype=np.float64), np.asarray(pairs, dtype=np.float64)
    m = np.atleast_1d(np.asarray(mass, dtype=np.float64))
    known = Background() if background is None else background
    fits = e.ndim == 1 and n.shape in {(len(e) - 1,), (len(m), len(e) - 1)}
    if not fits or not (np.diff(e) > 0).all() or not (n >= 0).all():
        raise PhysicsError(f"peak search: {e.shape} edges must increase, {n.shape} contents be non-negative")
    n = np.broadcast_to(n, (len(m), len(e) - 1))
    peak = resolution.cells(m, e)
    design, prior, offset, inside = _designs(e, m, peak, resolution.sigma(m), half_window, known)
    free = design.shape[2]
    short = (inside & (n > 0)).sum(axis=1) < free + 1
    if short.any():
        raise PhysicsError(
            f"[in_situ]: too few filled bins about {m[short][0]:g} GeV for {free} terms; take other masses, "
            "more resolutions to either side (half_window) or a lower degree"
        )
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

    Normal approximation: √q = (S − Ŝ)/s and √q_A = S/s with s² = σ² + (S δ)², and 1 − CL = [1 − Φ(√q)] /
    Φ(√q_A − √q); G. Cowan, K. Cranmer, E. Gross, O. Vitells, Eur. Phys. J. C 71 (2011) 1554. Without δ it is
    Ŝ + σ Φ⁻¹[1 − (1 − CL) Φ(Ŝ/σ)].
    """
    require(0.5 <= cl < 1, f"peak search: cl = {cl!r} must lie between 0.5 and 1")
    s, width, delta = np.broadcast_arrays(*(np.asarray(x, np.float64) for x in (fitted, sigma, relative)))
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

    bins: IntArray  # Those of the histogram, shape (b,)
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
    names = background.names
    lines = tuple((names[j - terms], columns[:, j], float(value[j]), float(error[j])) for j in free)
    shifts = columns[:, [j for j in range(terms, columns.shape[1]) if j not in free]].T
    small = SMALL * np.sqrt(np.clip(expected, 0.0, None)).max()
    head = bins, peak[0, bins], expected, offset[0, bins], columns[:, :terms].T
    return Window(*head, value[:terms], error[:terms], lines, shifts[np.abs(shifts).max(axis=1) > small])


RESOLUTION = "mass resolution"


def signal_per_coupling(
    mass: npt.ArrayLike, pair_density: npt.ArrayLike, branching: npt.ArrayLike, m_lepton: float
) -> FloatArray:
    """Return reconstructed A' → l⁺l⁻ per ε² from the pairs of virtual photons in the same sample.

    Eq. 6 of Allison and Blinov (2025) times the branching ratio: S = ε² (m/2κ) (dN/dm) BR. Acceptance and
    efficiency are those of the pairs, as long as the decay is prompt and the spin states agree; protons on
    target and cross sections cancel.
    """
    return dark_photon_rate(pair_density, mass, m_lepton) * np.asarray(branching, dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Templates:
    """What a search in situ compares."""

    # Opposite-sign pairs after the selection, in bins finer than the resolution [GeV]
    edges: FloatArray
    pairs: FloatArray
    background: Background
    resolution: MassResolution
    half_window: float  # In resolutions

    def fits(self, pairs: npt.ArrayLike, mass: FloatArray) -> PeakFits:
        """Return the fits of a peak at each mass to pairs, shape (n,) or (k, n)."""
        given: dict[str, Any] = {"background": self.background, "half_window": self.half_window}
        return peak_search(self.edges, pairs, mass, self.resolution, **given)

    def spurious(self, truths: npt.ArrayLike, mass: FloatArray) -> FloatArray:
        """Return the largest peak within one resolution that the model leaves without signal, shape (k,)."""
        found, sigma = np.zeros(len(mass)), self.fits(self.pairs, mass).sigma
        for truth in np.atleast_2d(np.asarray(truths, dtype=np.float64)):
            found = np.maximum(found, np.abs(self.fits(truth, mass).fitted) / sigma)
        near = np.abs(mass[None, :] - mass[:, None]) <= self.resolution.sigma(mass)[:, None]
        return np.asarray(sigma * np.where(near, found[None, :], 0.0).max(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class InSitu(ArrayRecord):
    """A finished search."""

    templates: Templates
    signal: FloatArray  # Expected pairs per ε², shape (k,)
    sources: Sources  # Of the errors of `signal`
    fits: PeakFits  # At k masses
    # Pairs that the background model may leave as a peak; an error beside that of the statistics, shape (k,)
    spurious: FloatArray

    @property
    def mass(self) -> FloatArray:
        """Masses of the search [GeV], shape (k,)."""
        return self.fits.mass

    @property
    def sigma(self) -> FloatArray:
        """Standard deviation of the fitted pairs without signal, statistics and model, shape (k,)."""
        return np.hypot(self.fits.sigma, self.spurious)

    def relative(self, nuisances: Collection[str]) -> FloatArray:
        """Return the relative error of the signal from some kinds or names of sources, shape (k,)."""
        cov = self.sources.of(nuisances).total()
        return np.sqrt(np.clip(np.diag(cov), 0.0, None)) / self.signal if cov.size else 0.0 * self.signal

    def expected(self, nuisances: Collection[str], cl: float) -> FloatArray:
        """Return the limits on ε² expected at −2 … +2 standard deviations, shape (k, 5)."""
        limits = expected_limits(self.sigma, self.relative(nuisances), cl=cl)
        return np.asarray(limits / self.signal[:, None])

    def observed(self, nuisances: Collection[str], cl: float) -> FloatArray:
        """Return the observed limits on ε², shape (k,)."""
        sigma = np.hypot(self.fits.error, self.spurious)
        return np.asarray(cls_limits(self.fits.fitted, sigma, self.relative(nuisances), cl=cl) / self.signal)

    @property
    def significance(self) -> FloatArray:
        """Local significance of the fitted peak in standard deviations, shape (k,)."""
        return np.asarray(self.fits.fitted / np.hypot(self.fits.error, self.spurious))

    def blind(self, most: float) -> BoolArray:
        """Return True where peak and a line of free yield look alike, with a correlation above `most`."""
        return np.asarray(self.fits.correlation > most)

    def window(self, i: int) -> Window:
        """Return the parts of the window of mass number `i`."""
        known = self.templates
        given: dict[str, Any] = {"background": known.background, "half_window": known.half_window}
        return window_of(known.edges, self.fits, i, known.resolution, **given)


def search_in_situ(
    templates: Templates,
    mass: npt.ArrayLike,
    signal: npt.ArrayLike,
    sources: Sources,
    *,
    truths: npt.ArrayLike = (),
    resolution_error: float = 0.0,
) -> InSitu:
    """Return a search with its fits, its spurious signal, and the error of the signal from the resolution.

    Parameters
    ----------
    mass : array_like, shape (k,) [GeV]
    signal : array_like, shape (k,)
        Expected pairs per ε², of `signal_per_coupling`.
    sources : Sources
        Of its errors.
    truths : array_like, shape (t, n)
        Smooth expectations without signal, for the test of the background; none leaves it out.
    resolution_error : float
        Relative, of the width of the peak.
    """
    mass, signal = np.asarray(mass, dtype=np.float64), np.asarray(signal, dtype=np.float64)
    fits = templates.fits(templates.pairs, mass)
    spurious = templates.spurious(truths, mass) if np.size(truths) else np.zeros(len(mass))
    if resolution_error:
        # a wider peak seen as one of the nominal width, over the expectation of each window
        strength, seen = np.maximum(fits.sigma, 1.0), []
        for width in (1.0, 1.0 + resolution_error):
            peak = templates.resolution.scaled(width).cells(mass, templates.edges)
            pairs = np.clip(np.nan_to_num(fits.expected) + strength[:, None] * peak, 0.0, None)
            seen.append(templates.fits(pairs, mass).fitted)
        moved = (seen[1] - seen[0]) / strength
        sources += Sources((Source.shifted(RESOLUTION, "kinematics", moved * signal),))
    return InSitu(templates, signal, sources, fits, spurious)


MAX_PAIRS = 2_000  # measured pairs that stand for the kinematics of one mass
MIN_PAIRS = 20


def displaced_shares(
    pairs: VertexPairs,
    telescope: VertexTelescope,
    cuts: npt.ArrayLike,
    *,
    mass: float,
    half_window: float,
    ctau: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the shares of dark photons of a mass behind the cut, before its mirror image, and error."""
    near = pairs.select(np.abs(pairs.mass - mass) < half_window)
    total = near.weight.sum()
    near = near.select(near.good & (near.z < 0))
    kept = near.weight.sum()
    if len(near) < MIN_PAIRS or not min(kept, total) > 0:
        raise PhysicsError(
            f"displaced_shares: {len(near)} pairs within {half_window:g} GeV of {mass:g} GeV with a vertex "
            f"before the interaction, {kept:.4g} after subtraction; at least {MIN_PAIRS} are needed"
        )
    order = np.argsort(near.pz, kind="stable")
    near = near.select(order[:: max(1, -(-len(near) // MAX_PAIRS))])
    path = near.pz[:, None] / mass * np.asarray(ctau, dtype=np.float64)
    share = near.weight * (kept / (near.weight.sum() * total))
    first, last = telescope.fiducial
    behind, before, error = [], [], []
    flight = _Flight(*telescope.efficiency_steps(), 1.0 / path)
    # the vertex as it was measured, and its mirror image: which decays end behind `last`, on either side
    ends = [np.maximum(last - prompt, 0.0) for prompt in (near.z, -near.z)]
    starts = [np.maximum(-last - prompt, 0.0) for prompt in (near.z, -near.z)]
    all_after, all_ahead = (flight.seen(one) + flight.seen(two) for one, two in (ends, starts))
    for cut in np.asarray(cuts, dtype=np.float64):
        least = np.maximum(cut * near.sigma, first)
        after, ahead = all_after.copy(), -all_ahead
        for prompt, end, start in zip((near.z, -near.z), ends, starts, strict=True):
            flight.add(after, np.minimum(np.maximum(least - prompt, 0.0), end), -1.0)
            flight.add(ahead, np.maximum(-least - prompt, start), 1.0)
        behind.append(share @ after)
        before.append(share @ ahead)
        error.append(np.sqrt(share**2 @ (after - 2.0 * ahead) ** 2))
    return np.array(behind), np.array(before), np.array(error)


@dataclass(frozen=True, slots=True, eq=False)
class _Flight:
    """Decays of pairs along their flight, seen with an efficiency that is constant between places."""

    edges: FloatArray  # (s + 1,) [m]; the first is the interaction
    value: FloatArray  # (s,), over that at the interaction
    rate: FloatArray  # (n, k), one over the mean decay length along the beam, (p_z/m) cτ [1/m]

    def seen(self, z: FloatArray) -> FloatArray:
        """Return the share of decays before z that is seen, shape (n, k): ∫₀ᶻ (dz/λ) e^{−z/λ} η(z)."""
        total = np.zeros(self.rate.shape)
        self.add(total, z, 1.0)
        return total

    def add(self, total: FloatArray, z: FloatArray, sign: float) -> None:
        """Add `sign` times the share before z ≥ 0 to `total`: the steps of η, each with its own beginning."""
        rows = np.flatnonzero(z > 0)
        z, rate = np.minimum(z[rows], self.edges[-1]), self.rate[rows]
        steps = np.diff(self.value, prepend=0.0)
        last = np.clip(np.searchsorted(self.edges, z, side="right") - 1, 0, len(steps) - 1)
        found = np.expm1(rate * -z[:, None]) * (-sign * self.value[last, None])
        for step, edge in zip(steps[1:], self.edges[1:-1], strict=True):
            beyond = np.flatnonzero(z > edge)
            found[beyond] += sign * step * np.expm1(rate[beyond] * -edge)
        total[rows] += found


def best_cut(signal: FloatArray, limit: FloatArray) -> npt.NDArray[np.intp]:
    """Return the cut of each mass with the largest expected signal over the expected limit."""
    return np.asarray((signal.max(axis=2) / limit).argmax(axis=1))


@dataclass(frozen=True, slots=True, eq=False)
class DisplacedYields(ArrayRecord):
    """What a search behind the target expects, over n masses, c cuts and k couplings."""

    mass: FloatArray  # shape (n,) [GeV]
    coupling: FloatArray  # shape (k,)
    cuts: FloatArray  # In standard deviations of the vertex, shape (c,)
    # Expected dark photons behind the cut, and in front of its mirror image: as many more does their own
    # prompt tail make the background expect, shape (n, c, k)
    behind: FloatArray
    before: FloatArray
    # Standard deviation of `behind` less twice `before` from the finite number of pairs, shape (n, c, k)
    error: FloatArray
    signal_sigma: FloatArray  # Relative error of the signal, shape (n,)
    # Expected pairs without signal and their standard deviation, shape (n, c)
    background: FloatArray
    background_sigma: FloatArray
    names: npt.NDArray[np.str_]  # Origins of the background, shape (p,)
    parts: FloatArray  # Background by origin, shape (n, p, c)
    supported: FloatArray  # Pull from which on the tail of measured pairs is extrapolated, shape (n,)
    count: FloatArray  # Pairs found; nan while masked, shape (n, c)
    # Pairs behind the target over their prediction below the cuts of the search, and its error, shape (2,)
    sides: FloatArray

    @property
    def signal(self) -> FloatArray:
        """Expected signal in excess of its own prompt tail, (n, c, k); zero where that is half of it."""
        own = self.behind - 2.0 * self.before > 3.0 * self.error
        return np.where(own, np.maximum(self.behind - np.maximum(self.before, 0.0), 0.0), 0.0)

    @property
    def log_sigma(self) -> FloatArray:
        """Standard deviation of ln background, (n, c), with what both sides differ by below the cuts."""
        ratio = self.background_sigma / np.maximum(self.background, 1e-12)
        return np.asarray(np.sqrt(np.log1p(ratio**2) + (self.sides[0] - 1.0) ** 2 + self.sides[1] ** 2))

    def times(self, factor: float) -> DisplacedYields:
        """Return the expectations for a multiple of the data; relative errors stay, nothing is counted."""
        names = ("behind", "before", "error", "background", "background_sigma", "parts")
        scaled = {name: factor * getattr(self, name) for name in names}
        return replace(self, **scaled, count=np.full_like(self.count, np.nan))
