"""Unfolding as a likelihood of the counts: true contents are a field that is seen through the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import chdtrc

from gammastar.core.constants import mass, width
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import MASS, FloatArray, Response, Rng, Spectrum, divided, filled, variable
from gammastar.physics import pair_counts
from gammastar.unfold.folding import Method, Options, Unfolder, check_axes, scaled_prior
from gammastar.unfold.profile_intervals import profile_intervals
from gammastar.unfold.response_matrix import EFFICIENCY_FLOOR, gathered, guarded, parts_of
from gammastar.unfold.response_matrix import response as simulated_response

NARROW = (221, 223, 333, 443, 100443, 553, 100553, 200553)  # η, ω, φ, ψ, ψ(2S), Υ, Υ(2S), Υ(3S)
REACH = 0.25  # GeV, within which a line is a line
WINDOW, FINE = 3.0, 24  # half a window in widths of the line, and fine bins in it
NEAR, FEW = 0.1, 30  # relative distance from a line, and photons, from which the resolution there is taken
MOST_FAKES = 0.95
FREE = 0.15  # scatter of mass bins about the simulation at least: better measured ones do not borrow from it
UNMEASURED = 0.01  # of the simulated photons of a cell, at most, where it counts as measured


def likelihood(
    measured: Spectrum,
    response: Response | FineResponse,
    *,
    observed: tuple[FloatArray, FloatArray] | None = None,
    efficiency_floor: float = EFFICIENCY_FLOOR,
    hyper: FloatArray | None = None,
) -> Spectrum:
    """Unfold by the likelihood of the counts.

    Parameters
    ----------
    measured : Spectrum
        Subtracted pairs on the reconstructed axes of `response`.
    response : Response or FineResponse
        `fine_response` makes one with cells beyond the axes and for narrow lines; of a plain one its true
        cells are taken as they are.
    observed : (NDArray, NDArray), shapes (n_reco,)
        Opposite-sign pairs before the subtraction and their variances. Then the variance of a count is that
        of its expectation. By default the covariance of `measured` is taken as it is.
    efficiency_floor : float
        True cells of lower efficiency are left out of the result: value and covariance 0, not in the domain.
    hyper : NDArray, optional
        Smoothness of the result, see `gammastar.physics.pair_counts`; fitted by default.

    Returns
    -------
    Spectrum
        On the true axes, never negative. Its covariance holds data, background and, where the response
        knows its entries, the finite simulation; and what the data leave to the smoothness, so that no
        error vanishes with its value.

    Raises
    ------
    UserError
        If the axes do not fit.

    Notes
    -----
    N₊₋ = P λ + B, with λ = λ_sim exp(f) (1 + lines): f is normal, smooth along each axis with amplitudes of
    largest marginal likelihood; η, ω, φ and heavier lines may stand on top. Laplace's approximation.
    """
    if isinstance(response, FineResponse):
        asked: dict[str, Any] = {"observed": observed, "efficiency_floor": efficiency_floor, "hyper": hyper}
        return response.summed(likelihood(measured, response.response, **asked))
    check_axes(tuple(measured.hist.axes), response.reco, "the measured spectrum")
    counts, prior = _model(measured, response, observed)
    found = pair_counts.fit(counts, prior, hyper)
    shape = tuple(len(axis) for axis in response.true)
    n, domain = int(np.prod(shape)), response.efficiency >= efficiency_floor
    domain &= np.isin(np.arange(n), prior.used)
    values, cov = np.zeros(n), np.zeros((n, n))
    values[prior.used], cov[np.ix_(prior.used, prior.used)] = found.content, found.cov
    values, cov = np.where(domain, values, 0.0), np.where(np.outer(domain, domain), cov, 0.0)
    hist = filled(response.true, values, np.diag(cov))
    return Spectrum(hist, cov, "counts", measured.exposure, domain.reshape(shape))


def cell_intervals(
    measured: Spectrum,
    response: Response | FineResponse,
    *,
    observed: tuple[FloatArray, FloatArray],
    hyper: FloatArray | None = None,
    n_sigma: float = 1.0,
    rng: Rng | None = None,
) -> FloatArray:
    """Return asymmetric intervals of true cells by profile likelihood of the counts.

    Parameters
    ----------
    measured, response, observed, hyper
        As for `likelihood`.
    n_sigma : float
        Standard deviations; 1 for a probability of 0.683.
    rng : numpy.random.Generator, optional
        For pseudo-experiments that scale the intervals to their coverage; without it cells beside empty ones
        have longer intervals than need be, those of less than two pairs shorter ones.

    Returns
    -------
    NDArray, shape of the true axes + (2,)
        Lower and upper end, 0 or above; of statistics of data, background and simulation.

    Notes
    -----
    No smoothness is assumed: the contents of all cells around that share pairs by migration are free, so that
    the intervals hold whatever the spectrum is, and are longer than the errors of `likelihood`, which borrow
    from neighbours. Its value of a cell may lie outside: then the smooth spectrum and the counts of this cell
    differ by more than one standard deviation, as they should in up to a third of the cells.
    """
    fine = response if isinstance(response, FineResponse) else None
    plain = response.response if isinstance(response, FineResponse) else response
    counts, prior = _model(measured, plain, observed)
    content = pair_counts.fit(counts, prior, hyper).content
    sums = sparse.eye_array(len(plain.prior)) if fine is None else fine.sums
    axes = plain.true if fine is None else fine.true
    found = profile_intervals(counts, content, sums.toarray()[:, prior.used], n_sigma, rng=rng)
    return found.reshape(*(len(axis) for axis in axes), 2)


def _model(
    measured: Spectrum, response: Response, observed: tuple[FloatArray, FloatArray] | None
) -> tuple[pair_counts.Counts, pair_counts.Prior]:
    used = np.flatnonzero((response.efficiency > 0) & (response.prior > 0))
    purity = np.clip(1 - response.fakes, 1 - MOST_FAKES, None)[:, None]
    seen = sparse.csr_array(response.migration[:, used] / purity)
    signal = measured.values.ravel()
    if observed is None:
        counts, base, base_cov, fixed = signal, np.zeros_like(signal), measured.cov, measured.cov
        weight = np.ones_like(signal)
    else:
        counts, variance = observed
        base, base_cov, fixed = counts - signal, measured.cov - np.diag(variance), None
        weight = pair_counts.mean_weights(counts, variance, measured.values.shape)
    entries, squares = np.zeros(0), None
    if len(response.entries):
        entries = response.entries[used]
    if response.squares.size:
        squares = sparse.csr_array(response.squares[:, used] / purity**2)
    shape = tuple(len(axis) for axis in response.true)
    return (
        pair_counts.Counts(counts, seen, base, base_cov, weight, entries, squares, fixed),
        pair_counts.Prior(
            np.maximum(scaled_prior(measured, response).ravel()[used], 1e-300),
            shape,
            used,
            _lines(response.true),
            noise=1 / entries if len(entries) else np.zeros(1),
            free=FREE,
        ),
    )


def _lines(axes: Sequence[Any]) -> FloatArray:
    """Return narrow lines over the continuum in bins of mass; 1 is as much as that of a whole bin."""
    if axes[0].name != MASS:
        return np.zeros((0, 0))
    edges = np.asarray(axes[0].edges, dtype=np.float64)
    found, widths = [], np.diff(edges)
    for pole, gamma in ((mass(number), width(number)) for number in NARROW):
        if edges[0] < pole < edges[-1]:
            share = np.diff(np.arctan(2 * (edges - pole) / gamma))
            share[(edges[1:] < pole - REACH) | (edges[:-1] > pole + REACH)] = 0.0
            density = share / widths
            peak = int(np.argmax(density))
            found.append(density / density[peak] * max(1.0, float(np.median(widths)) / widths[peak]))
    return np.array(found).reshape(len(found), len(widths))


@dataclass(frozen=True, slots=True)
class Line:
    """A narrow line, and the window of true masses whose simulated photons stand for it [GeV]."""

    pole: float
    width: float
    half: float

    def grid(self, edges: FloatArray) -> FloatArray:
        """Return edges of fine bins in the window, those of bins of mass among them."""
        low, high = self.pole - self.half, self.pole + self.half
        inner = edges[(edges > low) & (edges < high)]
        return np.unique(np.round([*np.linspace(low, high, FINE + 1), *inner], 9))


def narrow_lines(axes: Sequence[Any], parts: Iterable[MatchedPairs]) -> list[Line]:
    """Return the lines in a first axis of mass; each as narrow as the resolution makes a difference."""
    if axes[0].name != MASS:
        return []
    poles = [number for number in NARROW if axes[0].edges[0] < mass(number) < axes[0].edges[-1]]
    off: list[list[FloatArray]] = [[] for _ in poles]
    for part in parts if poles else ():
        true, reco = part.true[:, 0], part.reco[:, 0]
        for number, found in zip(poles, off, strict=True):
            near = (np.abs(true / mass(number) - 1) < NEAR) & np.isfinite(reco)
            found.append(reco[near] - true[near])
    lines = []
    for number, found in zip(poles, off, strict=True):
        values = np.concatenate(found) if found else np.zeros(0)
        sigma = 0.5 * float(np.diff(np.quantile(values, (0.16, 0.84)))[0]) if len(values) > FEW else 0.0
        wide = max(width(number), 0.5 * sigma)
        lines.append(Line(mass(number), wide, max(WINDOW * width(number), sigma)))
    return lines


def with_lines(axes: Sequence[Any], lines: Sequence[Line]) -> tuple[Any, ...]:
    """Return axes with mass bins of their own for lines in wider bins, so that a line migrates alone."""
    first, *others = axes
    edges = np.asarray(first.edges, dtype=np.float64)
    inner = []
    for line in lines:
        place = int(np.searchsorted(edges, line.pole)) - 1
        if edges[place + 1] - edges[place] > line.half:
            cuts = (line.pole - line.half, line.pole + line.half)
            apart = [np.abs(edges - cut).min() > 0.3 * line.half for cut in cuts]
            inner += [cut for cut, far in zip(cuts, apart, strict=True) if far and edges[0] < cut < edges[-1]]
    return (variable(first.name, np.sort([*edges, *inner]).tolist()), *others) if inner else tuple(axes)


def line_shaped(
    lines: Sequence[Line], axes: Sequence[Any], parts: Iterable[MatchedPairs]
) -> Callable[[MatchedPairs], MatchedPairs]:
    """Return what gives simulated photons of narrow lines their Breit-Wigner form, bin by bin."""
    edges = np.asarray(axes[0].edges, dtype=np.float64)
    grids = [line.grid(edges) for line in lines]
    simulated = [np.zeros(len(grid) - 1) for grid in grids]
    for part in parts if lines else ():
        for grid, content in zip(grids, simulated, strict=True):
            content[:] += np.histogram(part.true[:, 0], grid, weights=part.weight)[0]
    factors = []
    for line, grid, content in zip(lines, grids, simulated, strict=True):
        share = np.diff(np.arctan(2 * (grid - line.pole) / line.width)) * (content > 0)
        _, cell = np.unique(np.searchsorted(edges, 0.5 * (grid[1:] + grid[:-1])), return_inverse=True)
        scale = np.bincount(cell, content) / np.maximum(np.bincount(cell, share), 1e-300)
        factors.append(divided(share * scale[cell], content, 1.0))

    def view(part: MatchedPairs) -> MatchedPairs:
        weight = part.weight.copy()
        for grid, factor in zip(grids, factors, strict=True):
            place = np.searchsorted(grid, part.true[:, 0], side="right") - 1
            inside = (place >= 0) & (place < len(factor))
            weight[inside] *= factor[place[inside]]
        return replace(part, weight=weight)

    return view


@dataclass(frozen=True, slots=True, eq=False)
class FineResponse:
    """A response whose true cells reach beyond the axes, and where narrow lines have cells of their own."""

    response: Response  # On the fine cells
    true: tuple[Any, ...]  # Axes of the result
    view: Callable[[MatchedPairs], MatchedPairs]  # Gives photons in windows of lines the masses of lines

    @property
    def sums(self) -> sparse.csr_array:
        """Matrix that sums fine cells into those of the result."""
        return gathered(self.response.true, self.true)

    def summed(self, spectrum: Spectrum) -> Spectrum:
        """Return a spectrum on the axes of the result; a cell is measured if its parts are, but for 1 %."""
        sums, prior = self.sums, self.response.prior
        cov, shape = sums @ spectrum.cov @ sums.T, tuple(len(axis) for axis in self.true)
        lost = sums @ (prior * spectrum.domain.ravel()) <= (1 - UNMEASURED) * (sums @ prior)
        cov[lost] = cov[:, lost] = 0.0
        values = np.where(lost, 0.0, sums @ spectrum.values.ravel())
        hist = filled(self.true, values, np.diag(cov))
        return replace(spectrum, hist=hist, cov=cov, domain=~lost.reshape(shape))


def fine_response(
    matched: MatchedPairs | Iterable[MatchedPairs], axes_reco: Sequence[Any], axes_true: Sequence[Any]
) -> FineResponse:
    """Return the response that `likelihood` should be given.

    Parameters
    ----------
    matched : MatchedPairs, or a sequence of parts of it
        Read several times.
    axes_reco, axes_true : sequence of hist axes
        As for `response`.

    Notes
    -----
    A response averages over its true cell as the simulation fills it. Pairs migrate into the axes from
    beyond, and where a narrow line stands in a wide bin they migrate from the line alone.
    """
    parts = parts_of(matched)
    lines = narrow_lines(axes_true, parts)
    wide = with_lines(guarded(axes_true, axes_reco, parts), lines)
    view = line_shaped(lines, wide, parts)
    found = simulated_response(map(view, parts), axes_reco, wide, n_replicas=0)
    return FineResponse(found, tuple(axes_true), view)


@dataclass(frozen=True, slots=True, eq=False)
class LikelihoodUnfolder:
    """`likelihood` with a smoothness that was fitted once."""

    hyper: FloatArray
    observed: tuple[FloatArray, FloatArray] | None
    efficiency_floor: float

    def __call__(self, measured: Spectrum, response: Response) -> Spectrum:
        """Unfold."""
        asked: dict[str, Any] = {"observed": self.observed, "efficiency_floor": self.efficiency_floor}
        return likelihood(measured, response, hyper=self.hyper, **asked)

    def judged(self, measured: Spectrum, response: FineResponse, rng: Rng) -> dict[str, FloatArray]:
        """Return χ² of the counts and its toys, what all true cells put into them, and ends of intervals."""
        counts, prior = _model(measured, response.response, self.observed)
        found = pair_counts.fit(counts, prior, self.hyper)
        chi2, mean, spread, n_counts = found.goodness
        scale = 0.5 * spread**2 / mean  # of a χ² distribution with this mean and variance
        p = float(chdtrc(mean / scale, chi2 / scale))
        judged = {"refolding_toys": np.array([chi2, n_counts, mean, spread, p])}
        judged["refolded"] = found.expected - counts.base
        if self.observed is not None:
            sums = response.sums.toarray()[:, prior.used]
            judged["intervals"] = profile_intervals(counts, found.content, sums, rng=rng)
        return judged


def _prepare(measured: Spectrum, response: Response, options: Options) -> tuple[Unfolder, float]:
    hyper = pair_counts.hyperparameters(*_model(measured, response, options.observed))
    return LikelihoodUnfolder(hyper, options.observed, options.efficiency_floor), float(np.exp(hyper[0]))


def _describe(_options: Options, strength: float) -> str:
    return f"likelihood of the counts, amplitude of the smooth ratio to the simulation {strength:.2g}"


LIKELIHOOD = Method(_prepare, _describe, linear=True, allows_smeared=True, finer_cells=True)
