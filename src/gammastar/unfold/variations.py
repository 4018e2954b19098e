"""Systematic sources of an unfolded spectrum: variations of the simulation, one response or spectrum each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gammastar.core.axes import effective_size, filled
from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.unfold.response_matrix import COSINE, acceptance_weights, without_replicas
from gammastar.unfold.strength import Unfolder

__all__ = [
    "PairWeights",
    "Source",
    "Variation",
    "mixed_simulation",
    "pair_weights",
    "radiated_pairs",
    "reweighted_to",
    "scaled_response",
    "with_systematics",
]

LARGEST = 5.0  # of the factor on a simulated pair, up and down


def radiated_pairs(matched: MatchedPairs, kept: FloatArray, *, m_lepton: float = M_MU) -> MatchedPairs:
    """Return the simulated pairs with photons radiated off their reconstructed leptons.

    Parameters
    ----------
    matched : MatchedPairs
        With the column ``cos_theta`` of the reconstructed pairs.
    kept : NDArray, shape (2, n)
        Share of its momentum that each lepton keeps; the positive one first.
    m_lepton : float
        [GeV]

    Returns
    -------
    MatchedPairs
        Reconstructed mass, pt and energy after radiation; the truth stays at Born level.

    Raises
    ------
    UserError
        If the angle is missing or shares are not in (0, 1].

    Notes
    -----
    Photons go along their lepton. E₊ and E₋ follow from energy, mass and cos θ of the pair; the product of
    the momenta p₊·p₋ scales with both shares, so M² = 2m² + 2(E₊E₋ − p₊·p₋) is exact. The transverse
    momentum is scaled with the energy, and a lepton that loses so much that it would miss the detector is
    not removed: for the size of an uncertainty that suffices.
    """
    if COSINE not in matched.columns or np.shape(kept) != (2, len(matched)):
        msg = f"radiated_pairs: needs the column {COSINE!r} and shares of shape {(2, len(matched))}"
        raise UserError(msg)
    if not ((kept > 0) & (kept <= 1)).all():
        msg = f"radiated_pairs: shares must lie in (0, 1], found {kept.min():g} to {kept.max():g}"
        raise UserError(msg)
    mass, pt, energy = matched.reco.T
    velocity = np.sqrt(np.clip(1 - (2 * m_lepton / np.maximum(mass, 2 * m_lepton)) ** 2, 0, None))
    momentum = np.sqrt(np.clip(energy**2 - mass**2, 0, None))
    half = 0.5 * momentum * velocity * np.nan_to_num(matched.columns[COSINE])
    one, two = 0.5 * energy + half, 0.5 * energy - half
    dot = one * two - 0.5 * (mass**2 - 2 * m_lepton**2)
    after = [
        np.sqrt(z**2 * np.clip(e**2 - m_lepton**2, 0, None) + m_lepton**2)
        for z, e in zip(kept, (one, two), strict=True)
    ]
    square = 2 * m_lepton**2 + 2 * (after[0] * after[1] - kept[0] * kept[1] * dot)
    left = after[0] + after[1]
    reco = np.stack([np.sqrt(np.maximum(square, 4 * m_lepton**2)), pt * left / energy, left], axis=1)
    return replace(matched, reco=np.where(matched.reconstructed[:, None], reco, np.nan))


def reweighted_to(nominal: Spectrum, response: Response) -> Callable[[MatchedPairs], MatchedPairs]:
    """Return what gives the simulation the transverse momenta and energies of an unfolded spectrum.

    Parameters
    ----------
    nominal : Spectrum
        Unfolded, on axes with ``pt`` and ``energy``.
    response : Response
        That it was unfolded with.

    Returns
    -------
    callable
        MatchedPairs -> MatchedPairs with other weights; fakes stay as they are.

    Raises
    ------
    UserError
        If the spectrum has neither axis.

    Notes
    -----
    The factor is the product over both axes of unfolded over simulated yield inside the measured domain, each
    normalised to one on average and interpolated in its logarithm between the means of the bins: cells keep
    no step. How far the result moves is the error of the prior.
    """
    names = [axis.name for axis in nominal.hist.axes]
    prior = np.where(nominal.domain, response.prior.reshape(nominal.values.shape), 0.0)
    values = np.where(nominal.domain, np.clip(nominal.values, 0.0, None), 0.0)
    curves: list[tuple[int, FloatArray, FloatArray]] = []
    for column, name in ((1, "pt"), (2, "energy")):
        if name not in names:
            continue
        others = tuple(i for i, other in enumerate(names) if other != name)
        found, simulated = values.sum(axis=others), prior.sum(axis=others)
        use = (found > 0) & (simulated > 0)
        if use.sum() < 2:
            continue
        edges = np.asarray(nominal.hist.axes[names.index(name)].edges, dtype=np.float64)
        ratio = (found / found.sum())[use] / (simulated / simulated.sum())[use]
        centres = 0.5 * (edges[1:] + edges[:-1])[use]
        curves.append((column, centres, np.log(np.clip(ratio, 1 / LARGEST, LARGEST))))
    if not curves:
        msg = f"prior: the unfolded axes {', '.join(names)} hold no measured spectrum in pt or energy"
        raise UserError(msg)

    def view(part: MatchedPairs) -> MatchedPairs:
        exponent = sum(np.interp(part.true[:, column], x, y) for column, x, y in curves)
        return replace(
            part, weight=part.weight * np.exp(np.clip(exponent, -np.log(LARGEST), np.log(LARGEST)))
        )

    return view


def mixed_simulation(nominal: MatchedPairs, other: MatchedPairs, share: float) -> MatchedPairs:
    """Return a simulation of which a share is replaced by another version of the same events.

    Parameters
    ----------
    nominal, other : MatchedPairs
        The same true pairs.
    share : float
        Between 0 and 1.

    Raises
    ------
    UserError
        If the samples differ in size or the share is outside [0, 1].
    """
    if len(nominal) != len(other) or not 0 <= share <= 1:
        msg = f"mixed_simulation: {len(nominal)} and {len(other)} pairs, share {share:g} of [0, 1]"
        raise UserError(msg)
    parts = [
        replace(part, weight=part.weight * w, fake_weight=part.fake_weight * w)
        for part, w in ((nominal, 1.0 - share), (other, share))
    ]
    return MatchedPairs.concatenate(parts)


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
    """What a source does to the spectrum.

    Attributes
    ----------
    name : str
    shift : NDArray, shape (n,)
        Of every cell, one standard deviation.
    total : float
        Relative shift of the sum.
    mean : float
        Mean of |shift|/|value| over cells, weighted with |value|.
    """

    name: str
    shift: FloatArray
    total: float
    mean: float


def with_systematics(
    measured: Spectrum, response: Response, unfolder: Unfolder, variations: Sequence[Variation]
) -> tuple[Spectrum, tuple[Source, ...]]:
    """Unfold, and once more per variation; every source adds its shift to the covariance.

    Parameters
    ----------
    measured : Spectrum
    response : Response
    unfolder : function (measured, response) → Spectrum
    variations : sequence of Variation

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
        found = [unfolder(*pair).values.ravel() for pair in pairs]
        shift = found[0] - base if len(found) == 1 else (found[0] - found[1]) / 2
        shift = np.where(nominal.domain.ravel(), shift, 0.0)
        cov += np.outer(shift, shift)
        size = float(np.abs(values).sum())
        total = float(shift.sum() / values.sum()) if values.sum() != 0 else float("nan")
        sources.append(Source(name, shift, total, float(np.abs(shift).sum() / size) if size else 0.0))
    hist = filled(tuple(nominal.hist.axes), values, np.diag(cov))
    return Spectrum(hist, cov, nominal.quantity, nominal.exposure, nominal.domain), tuple(sources)


def scaled_response(response: Response, factor: float | FloatArray) -> Response:
    """Return a response whose efficiency is multiplied, per true cell; at most to one.

    Parameters
    ----------
    response : Response
    factor : float or NDArray, shape (n_true,) or that of the true cells
        E.g. 1.02 for a 2 % uncertainty of the muon efficiency squared.
    """
    ratio = np.broadcast_to(np.asarray(factor, dtype=np.float64).ravel(), response.efficiency.shape)
    if not np.isfinite(ratio).all() or (ratio <= 0).any():
        msg = f"scaled_response: factors must be positive, the smallest is {ratio.min()}"
        raise UserError(msg)
    most = np.divide(1.0, response.efficiency, out=np.ones_like(ratio), where=response.efficiency > 0)
    ratio = np.minimum(ratio, np.maximum(most, 0))
    migration = response.migration * ratio
    return replace(
        response,
        migration=migration,
        efficiency=migration.sum(axis=0),
        cov_replicas=response.cov_replicas * ratio,
    )


@dataclass(frozen=True, slots=True, eq=False)
class PairWeights:
    """Training weights of pairs.

    Attributes
    ----------
    weight : NDArray, shape (n,)
        Subtraction weight × unfolding weight; 0 outside the domain.
    in_domain : NDArray of bool, shape (n,)
    effective : float
        (Σw)²/Σw².
    """

    weight: FloatArray
    in_domain: np.typing.NDArray[np.bool_]
    effective: float


def pair_weights(
    values: FloatArray, subtraction: FloatArray, response: Response, *, floor: float = 0.01
) -> PairWeights:
    """Return what the flow learns with: subtraction weight over efficiency, and its effective size.

    Parameters
    ----------
    values : NDArray, shape (n, 3) [GeV]
        mass, pt, energy of the measured pairs.
    subtraction : NDArray, shape (n,)
        Signed or posterior weights.
    response : Response
    floor : float
        Lowest efficiency that is corrected for: where it is exceeded is the measured domain.
    """
    unfolding = acceptance_weights(values, response, floor=floor)
    if np.shape(subtraction) != np.shape(unfolding):
        msg = f"pair_weights: {np.shape(subtraction)} subtraction weights for {len(unfolding)} pairs"
        raise UserError(msg)
    weight = np.asarray(subtraction, dtype=np.float64) * unfolding
    return PairWeights(weight, unfolding > 0, effective_size(weight))
