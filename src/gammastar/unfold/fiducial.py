"""Simulated pairs made fit for one-dimensional work: kinematics as in the data, inside the domain only."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import BoolArray, FloatArray, Response, Spectrum
from gammastar.unfold.response import cells

__all__ = ["fiducial", "fiducial_fraction", "reweighted"]


def reweighted(
    matched: MatchedPairs,
    unfolded: Spectrum | None = None,
    *,
    weight: FloatArray | None = None,
    most: float = 10,
) -> MatchedPairs:
    """Return simulated pairs whose true distribution is the unfolded one, cell by cell.

    A response in the mass alone averages the efficiency over pt and energy; with these weights it averages
    over those of the data.

    Parameters
    ----------
    matched : MatchedPairs
    unfolded : Spectrum, optional
        Counts on any of mass, pt and energy.
    weight : NDArray, shape (n,), optional
        Ready weights instead, those of `omnifold`.
    most : float
        Ratios to the simulation, scaled to one on average, are clipped to [1/most, most].

    Raises
    ------
    UserError
        If neither or both of `unfolded` and `weight` are given.
    """
    if (unfolded is None) == (weight is None):
        msg = "reweighted: give either an unfolded spectrum or ready weights"
        raise UserError(msg)
    if unfolded is not None:
        axes = tuple(unfolded.hist.axes)
        cell = cells(matched.true, axes)
        n = int(np.prod([len(a) for a in axes]))
        prior = np.bincount(cell[cell >= 0], matched.weight[cell >= 0], n)
        use = unfolded.domain.ravel() & (prior > 0) & (unfolded.values.ravel() > 0)
        scale = unfolded.values.ravel()[use].sum() / max(float(prior[use].sum()), 1e-300)
        ratio = np.ones(n)
        ratio[use] = np.clip(unfolded.values.ravel()[use] / prior[use] / scale, 1 / most, most)
        weight = matched.weight * np.where(cell >= 0, ratio[cell], 1.0)
    final = matched.weight if weight is None else np.asarray(weight, dtype=np.float64)
    return replace(matched, weight=final)


def fiducial(matched: MatchedPairs, domain: Spectrum | Response) -> MatchedPairs:
    """Return the simulated pairs inside the measured domain; reconstructed pairs from outside become fakes.

    Parameters
    ----------
    matched : MatchedPairs
    domain : Spectrum or Response
        Its domain, or its cells of non-zero efficiency.
    """
    axes, inside = _domain(domain)
    cell = cells(matched.true, axes)
    kept = (cell >= 0) & inside[cell]
    if not kept.any():
        msg = "fiducial: no simulated pair lies inside the domain"
        raise UserError(msg)
    spill = ~kept & matched.reconstructed
    return replace(
        matched.select(kept),
        fakes=np.concatenate([matched.fakes, matched.reco[spill]]),
        fake_weight=np.concatenate([matched.fake_weight, matched.weight[spill]]),
    )


def fiducial_fraction(matched: MatchedPairs, domain: Spectrum | Response, mass_axis: Any) -> FloatArray:
    """Return the part of simulated true pairs inside the domain, per cell of a mass axis; 0 without pairs."""
    axes, inside = _domain(domain)
    cell, place = cells(matched.true, axes), cells(matched.true, (mass_axis,))
    kept = (cell >= 0) & inside[cell] & (place >= 0)
    total = np.bincount(place[place >= 0], matched.weight[place >= 0], len(mass_axis))
    part = np.bincount(place[kept], matched.weight[kept], len(mass_axis))
    return np.asarray(np.divide(part, total, out=np.zeros(len(mass_axis)), where=total > 0))


def _domain(domain: Spectrum | Response) -> tuple[Sequence[Any], BoolArray]:
    if isinstance(domain, Response):
        return domain.true, np.asarray(domain.efficiency > 0)
    return tuple(domain.hist.axes), domain.domain.ravel()
