"""Variations of the simulation for systematic sources: polarisation, final-state radiation, prior."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gammastar.core.constants import M_MU
from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Response, Spectrum
from gammastar.unfold.response import cells, response

__all__ = ["mixed_simulation", "polarised_response", "radiated_pairs", "reweighted_to"]

COSINE = "cos_theta"
LARGEST = 5.0  # of the factor on a simulated pair, up and down


def polarised_response(
    matched: MatchedPairs, axes_reco: Sequence[Any], axes_true: Sequence[Any], lambda_theta: float
) -> Response:
    """Return the response if the virtual photons were polarised otherwise than simulated.

    Parameters
    ----------
    matched : MatchedPairs
        With the column ``cos_theta`` of the reconstructed pairs (positive lepton, about the pair's flight
        in the laboratory).
    axes_reco, axes_true : sequence of hist axes
    lambda_theta : float
        Change of the coefficient of cos²θ in the angular distribution, from an unpolarised simulation.

    Returns
    -------
    Response
        Without replicas.

    Raises
    ------
    UserError
        If the angle is missing or λ lies outside [−1, 1].

    Notes
    -----
    W(cos θ) = (1 + λ cos²θ)/(1 + λ/3) multiplies reconstructed pairs alone: over all angles it averages to
    one, so the generated pairs of a true cell keep their number. The measured angle stands for the true one.
    """
    weight = cosine_weights(matched, lambda_theta)
    nominal = response(matched, axes_reco, axes_true, n_replicas=0)
    i, j = cells(matched.true, axes_true), cells(matched.reco, axes_reco)
    inside = (i >= 0) & (j >= 0)
    shape = nominal.migration.shape
    counts = np.bincount(
        j[inside] * shape[1] + i[inside], (matched.weight * weight)[inside], shape[0] * shape[1]
    ).reshape(shape)
    prior = nominal.prior
    migration = np.divide(counts, prior, out=np.zeros(shape), where=np.broadcast_to(prior > 0, shape))
    # a cell of few pairs may average to more than one
    migration = migration / np.maximum(migration.sum(axis=0), 1.0)
    return replace(nominal, migration=migration, efficiency=migration.sum(axis=0))


def cosine_weights(matched: MatchedPairs, lambda_theta: float) -> FloatArray:
    """Return the weights of `polarised_response`, 1 where nothing was reconstructed."""
    if not -1 <= lambda_theta <= 1:
        msg = f"polarised_response: lambda = {lambda_theta:g} must lie in [-1, 1]"
        raise UserError(msg)
    if COSINE not in matched.columns:
        msg = f"polarised_response: the simulated pairs have no column {COSINE!r}"
        raise UserError(msg)
    cosine = matched.columns[COSINE]
    seen = matched.reconstructed & np.isfinite(cosine)
    weight = np.ones(len(matched))
    weight[seen] = (1 + lambda_theta * cosine[seen] ** 2) / (1 + lambda_theta / 3)
    return weight


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
