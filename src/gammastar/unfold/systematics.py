"""Systematic sources of an unfolded spectrum: each unfolds once more, with other data or another response."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response, Spectrum, divided, filled
from gammastar.core.sources import EFFICIENCY, POLARISATION, OwnSource
from gammastar.unfold.folding import Unfolder
from gammastar.unfold.response_matrix import parts_of, polarised_response, without_replicas
from gammastar.unfold.response_matrix import response as simulated_response
from gammastar.unfold.simulation import View


@dataclass(frozen=True, slots=True, eq=False)
class Variation:
    """One standard deviation of one source.

    Attributes
    ----------
    name : str
        Two variations of the same name are up and down.
    measured : Spectrum or None
        Varied data, e.g. another R or charm yield; None leaves them.
    response : Response or None
        Varied response, e.g. another polarisation, final-state radiation or efficiency; None leaves it.
    """

    name: str
    measured: Spectrum | None = None
    response: Response | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Source:
    """What a source does to the spectrum."""

    name: str
    shift: FloatArray  # Of every cell, one standard deviation, shape (n,)
    total: float  # Relative shift of the sum
    mean: float  # Mean of |shift|/|value| over cells, weighted with |value|


def with_systematics(
    measured: Spectrum, response: Response, unfolder: Unfolder, variations: Sequence[Variation]
) -> tuple[Spectrum, tuple[Source, ...]]:
    """Unfold, and once more per variation; every source adds its shift to the covariance.

    Returns
    -------
    Spectrum
        Covariance: statistics + Monte Carlo statistics (those of `unfolder`) + Σ δ δᵀ.
    tuple of Source
        In the order of the names.

    Raises
    ------
    UserError
        If a name has more than two variations, or one that varies nothing.

    Notes
    -----
    δ is the shift from the nominal result, or half the difference of up and down, both without replicas of
    the response: a bias that the nominal result is rid of would count as a shift. It is fully correlated
    between cells, and sources are independent. The normalisation by the protons on target is no source here:
    it is one nuisance of its own.
    """
    nominal = unfolder(measured, response)
    values, cov = nominal.values.ravel(), nominal.cov.copy()
    plain = without_replicas(response)
    base = unfolder(measured, plain).values.ravel() if variations else values
    sources = []
    for name in dict.fromkeys(v.name for v in variations):
        same = [v for v in variations if v.name == name]
        if len(same) > 2 or any(v.measured is None and v.response is None for v in same):
            msg = f"systematics: {name!r} needs one variation, or up and down, each of data or response"
            raise UserError(msg)
        pairs = [(v.measured or measured, without_replicas(v.response or plain)) for v in same]
        unfolded = [unfolder(*pair) for pair in pairs]
        found = [one.values.ravel() for one in unfolded]
        shift = found[0] - base if len(found) == 1 else (found[0] - found[1]) / 2
        # a cell that crosses the efficiency floor moved by no more than the others
        inside = np.logical_and.reduce([one.domain.ravel() for one in (nominal, *unfolded)])
        shift = np.where(inside, shift, 0.0)
        cov += np.outer(shift, shift)
        size = float(np.abs(values).sum())
        total = float(shift.sum() / values.sum()) if values.sum() != 0 else float("nan")
        sources.append(Source(name, shift, total, float(np.abs(shift).sum() / size) if size else 0.0))
    hist = filled(tuple(nominal.hist.axes), values, np.diag(cov))
    return Spectrum(hist, cov, nominal.quantity, nominal.exposure, nominal.domain), tuple(sources)


def data_variations(
    subtracted: Spectrum, shifts: Sequence[tuple[str, FloatArray]], response: Response
) -> tuple[Spectrum, list[Variation]]:
    """Take named sources out of the covariance of the data; return them and a variation of each source."""
    cov = subtracted.cov.copy()
    for _, shift in shifts:
        cov -= np.outer(shift, shift)
    axes, values = tuple(subtracted.hist.axes), subtracted.values
    measured = replace(subtracted, hist=filled(axes, values, np.diag(cov)), cov=cov)
    varied = []
    for name, shift in shifts:
        moved = filled(axes, values + shift.reshape(values.shape), np.diag(cov))
        varied.append(Variation(name, replace(measured, hist=moved), response))
    return measured, varied


def response_variations(
    matched: MatchedPairs | Iterable[MatchedPairs],
    response: Response,
    *,
    views: Sequence[tuple[str, View]] = (),
    polarisation: float | None = None,
    efficiency: float | None = None,
    scale_factors: Sequence[tuple[str, str]] = (),
    own: Sequence[OwnSource] = (),
) -> list[Variation]:
    """Return one variation of the response, or up and down, per source.

    `views` are those of other pairs, `scale_factors` names and the columns of what multiplies pairs.
    """
    axes, varied = (response.reco, response.true), []
    if polarisation is not None:
        sizes = (polarisation, -polarisation)
        varied += [(POLARISATION, polarised_response(matched, *axes, size)) for size in sizes]
    for name, view in (*views, *((one.name, one.checked) for one in own if one.pairs is not None)):
        varied.append((name, simulated_response(map(view, parts_of(matched)), *axes, n_replicas=0)))
    if efficiency is not None:
        varied += [(EFFICIENCY, scaled_response(response, 1 + size)) for size in (efficiency, -efficiency)]
    for name, column in scale_factors:
        factor = functools.partial(_of_column, column)
        varied.append((name, with_efficiency(parts_of(matched), response, factor)))
    for source in own:
        if source.efficiency is not None:
            factor = functools.partial(_of_truth, source)
            varied.append((source.name, with_efficiency(parts_of(matched), response, factor)))
    return [Variation(name, None, one) for name, one in varied]


def statistical_cov(unfolded: Spectrum, sources: Sequence[Source]) -> FloatArray:
    """Return the covariance of an unfolded spectrum without its systematic sources."""
    shifts = (np.outer(source.shift, source.shift) for source in sources)
    return np.asarray(unfolded.cov - sum(shifts, np.zeros_like(unfolded.cov)))


def relative_errors(unfolded: Spectrum, statistical: FloatArray, data: FloatArray) -> FloatArray:
    """Return the relative errors of the sum from data and from simulation, shape (2,)."""
    simulation = max(float((statistical - data).sum()), 0.0)
    both = np.sqrt([max(float(data.sum()), 0.0), simulation])
    total = abs(float(unfolded.values.sum()))
    return np.asarray(both / total if total > 0 else both)


def scaled_response(response: Response, factor: float | FloatArray) -> Response:
    """Return a response whose efficiency is multiplied, per true cell; at most to one."""
    ratio = np.broadcast_to(np.asarray(factor, dtype=np.float64).ravel(), response.efficiency.shape)
    if not np.isfinite(ratio).all() or (ratio <= 0).any():
        raise UserError(f"scaled_response: factors must be positive, the smallest is {ratio.min()}")
    most = divided(1.0, response.efficiency, 1.0)
    ratio = np.minimum(ratio, np.maximum(most, 0))
    migration = response.migration * ratio
    replicas = response.cov_replicas * ratio
    return replace(response, migration=migration, efficiency=migration.sum(axis=0), cov_replicas=replicas)


def _of_column(column: str, part: MatchedPairs) -> FloatArray:
    return np.where(part.reconstructed, part.columns[column], 1.0)


def _of_truth(source: OwnSource, part: MatchedPairs) -> FloatArray:
    return source.factor(*part.true.T)


def with_efficiency(
    parts: Iterable[MatchedPairs], response: Response, factor: Callable[[MatchedPairs], FloatArray]
) -> Response:
    """Return a response whose efficiency is multiplied by a factor on each simulated photon.

    Σ w f over pairs reconstructed in j and true in i, over Σ w true in i; at most one in all. The same pairs
    stand above and below: no noise of the simulation is added.
    """
    weighted = (replace(part, weight=part.weight * factor(part)) for part in parts)
    moved = simulated_response(weighted, response.reco, response.true, n_replicas=0)
    ratio = divided(moved.prior, response.prior, 1.0)
    migration = moved.migration * ratio
    migration = migration / np.maximum(migration.sum(axis=0), 1.0)
    return replace(response, migration=migration, efficiency=migration.sum(axis=0))
