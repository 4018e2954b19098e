"""Unfolding as a likelihood of the counts: true contents are a field that is seen through the response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy import sparse
from scipy.special import chdtrc

from gammastar.core.axes import MASS, filled, variable
from gammastar.core.constants import mass, width
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.physics import pair_counts
from gammastar.unfold.folding import Method, Options, Unfolder, check_axes, scaled_prior
from gammastar.unfold.response_matrix import EFFICIENCY_FLOOR

NARROW = (221, 223, 333, 443, 100443, 553, 100553, 200553)  # η, ω, φ, ψ, ψ(2S), Υ, Υ(2S), Υ(3S)
REACH = 0.25  # GeV, within which a line is a line
WINDOW, LEAST_WINDOW = 1.5, 0.1  # half width of the bin of a line: its width, or of the bin around it
STEPS_OF_A_LINE = 9
MOST_FAKES = 0.95


def likelihood(
    measured: Spectrum,
    response: Response,
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
    response : Response
        Should hold true cells beyond the reconstructed axes from which pairs migrate into them.
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


def cell_intervals(spectrum: Spectrum, n_sigma: float = 1.0) -> FloatArray:
    """Return asymmetric intervals of the cells of a spectrum that `likelihood` unfolded.

    Parameters
    ----------
    spectrum : Spectrum
        As counts, or per proton on target.
    n_sigma : float
        Standard deviations; 1 for a probability of 0.683.

    Returns
    -------
    NDArray, shape of the histogram + (2,)
        Lower and upper end, positive also where no pair was seen; 0 and 0 outside the measured domain.

    Notes
    -----
    Log-normal, as the posterior of a cell. In pseudo-experiments with a known response they hold the truth of
    cells with 3 expected pairs or more in 0.74 to 0.89 of the cases where the spectrum is smooth, up to 0.96
    where it has the shape of the simulation; in cells beside a sharp structure that the simulation does not
    have in 0.54 to 0.58.
    """
    found = pair_counts.intervals(spectrum.values.ravel(), np.diag(spectrum.cov), n_sigma)
    return found.reshape(*spectrum.values.shape, 2)


def _model(
    measured: Spectrum, response: Response, observed: tuple[FloatArray, FloatArray] | None
) -> tuple[pair_counts.Counts, pair_counts.Prior]:
    used = np.flatnonzero((response.efficiency > 0) & (response.prior > 0))
    seen = response.migration[:, used] / np.clip(1 - response.fakes, 1 - MOST_FAKES, None)[:, None]
    signal = measured.values.ravel()
    if observed is None:
        counts, base, base_cov, weight, fixed = signal, np.zeros_like(signal), measured.cov, 1.0, measured.cov
    else:
        counts, variance = observed
        base, base_cov, fixed = counts - signal, measured.cov - np.diag(variance), None
        weight = float(variance.sum() / counts.sum()) if counts.sum() > 0 else 1.0
    entries = response.entries[used] if len(response.entries) else np.zeros(0)
    shape = tuple(len(axis) for axis in response.true)
    return (
        pair_counts.Counts(counts, sparse.csr_array(seen), base, base_cov, weight, entries, fixed),
        pair_counts.Prior(
            np.maximum(scaled_prior(measured, response).ravel()[used], 1e-300),
            shape,
            used,
            _lines(response.true),
            np.sqrt(pair_counts.ROUGH**2 + (1 / entries if len(entries) else 0.0)),
        ),
    )


def _lines(axes: Sequence[Any]) -> FloatArray:
    """Return narrow lines in bins of mass; 1 in the highest is as much as the continuum of a whole bin."""
    if axes[0].name != MASS:
        return np.zeros((0, 0))
    edges = np.asarray(axes[0].edges, dtype=np.float64)
    found, typical = [], float(np.median(np.diff(edges)))
    for pole, gamma in ((mass(number), width(number)) for number in NARROW):
        if edges[0] < pole < edges[-1]:
            share = np.diff(np.arctan(2 * (edges - pole) / gamma))
            share[(edges[1:] < pole - REACH) | (edges[:-1] > pole + REACH)] = 0.0
            density = share / np.diff(edges)
            peak = int(np.argmax(density))
            found.append(density / density[peak] * max(1.0, typical / (edges[peak + 1] - edges[peak])))
    return np.array(found).reshape(len(found), len(edges) - 1)


def _windows(edges: FloatArray) -> list[tuple[float, float, float]]:
    """Return pole, width and half the window of every narrow line in bins of mass."""
    found = []
    for pole, gamma in ((mass(number), width(number)) for number in NARROW):
        place = int(np.searchsorted(edges, pole)) - 1
        if 0 <= place < len(edges) - 1:
            found.append((pole, gamma, max(WINDOW * gamma, LEAST_WINDOW * (edges[place + 1] - edges[place]))))
    return found


def with_lines(axes: Sequence[Any]) -> tuple[Any, ...]:
    """Return axes whose first one, of mass, has bins of their own for narrow lines.

    A response averages over its true cell as the simulation fills it; where a line stands in it, photons
    migrate from the line alone.
    """
    first, *others = axes
    if first.name != MASS:
        return tuple(axes)
    edges = np.asarray(first.edges, dtype=np.float64)
    cuts = [(cut, half) for pole, _, half in _windows(edges) for cut in (pole - half, pole + half)]
    inner = [
        cut for cut, half in cuts if edges[0] < cut < edges[-1] and np.abs(edges - cut).min() > 0.3 * half
    ]
    return variable(MASS, np.sort([*edges, *inner]).tolist()), *others


def line_shaped(axes: Sequence[Any], parts: Iterable[MatchedPairs]) -> Callable[[MatchedPairs], MatchedPairs]:
    """Return what gives the simulated photons in the windows of narrow lines the masses of the lines.

    Their number stays, and Breit and Wigner's form replaces whatever form the simulation has there.
    """
    windows = _windows(np.asarray(axes[0].edges, dtype=np.float64)) if axes[0].name == MASS else []
    grids = [np.linspace(pole - half, pole + half, STEPS_OF_A_LINE + 1) for pole, _, half in windows]
    simulated = np.zeros((len(windows), STEPS_OF_A_LINE))
    for part in parts if windows else ():
        for k, grid in enumerate(grids):
            simulated[k] += np.histogram(part.true[:, 0], grid, weights=part.weight)[0]
    factors = []
    for (pole, gamma, _), grid, content in zip(windows, grids, simulated, strict=True):
        share = np.where(content > 0, np.diff(np.arctan(2 * (grid - pole) / gamma)), 0.0)
        total = share.sum()
        factors.append(
            np.divide(share * content.sum(), content * total, out=np.ones_like(share), where=content > 0)
        )

    def view(part: MatchedPairs) -> MatchedPairs:
        weight = part.weight.copy()
        for grid, factor in zip(grids, factors, strict=True):
            place = np.searchsorted(grid, part.true[:, 0], side="right") - 1
            inside = (place >= 0) & (place < len(factor))
            weight[inside] *= factor[place[inside]]
        return replace(part, weight=weight)

    return view


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

    def goodness(self, measured: Spectrum, response: Response) -> tuple[FloatArray, FloatArray]:
        """Return what `refolding_test` tells of the counts, with their number for the cells, and the fit.

        χ², number of counts, mean and standard deviation of χ², its p-value; and what all true cells put into
        the measured ones, also those that are not in the result.
        """
        counts, prior = _model(measured, response, self.observed)
        found = pair_counts.fit(counts, prior, self.hyper)
        chi2, mean, spread = found.goodness
        scale = 0.5 * spread**2 / mean  # of a χ² distribution with this mean and variance
        p = float(chdtrc(mean / scale, chi2 / scale))
        return np.array([chi2, len(counts.observed), mean, spread, p]), found.expected - counts.base


def _prepare(measured: Spectrum, response: Response, options: Options) -> tuple[Unfolder, float]:
    hyper = pair_counts.hyperparameters(*_model(measured, response, options.observed))
    return LikelihoodUnfolder(hyper, options.observed, options.efficiency_floor), float(np.exp(hyper[0]))


def _describe(_options: Options, strength: float) -> str:
    return f"likelihood of the counts, amplitude of the smooth ratio to the simulation {strength:.2g}"


LIKELIHOOD = Method(_prepare, _describe, linear=True)
