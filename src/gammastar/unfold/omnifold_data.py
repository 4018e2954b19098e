"""What OmniFold is given: simulation in the window of the data, replicas with the like-sign fluctuations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import UserError
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray
from gammastar.unfold.response import cells

__all__ = ["in_window", "subtracted_replicas"]


def in_window(matched: MatchedPairs, axes: Sequence[Any]) -> MatchedPairs:
    """Return the simulation as data see it that were cut to a window: pairs outside are not reconstructed.

    Parameters
    ----------
    matched : MatchedPairs
    axes : sequence of hist axes
        Of the reconstructed mass, pt or energy; their outer edges are the window.

    Returns
    -------
    MatchedPairs
        The same true pairs; those reconstructed outside the window are misses, fakes there are left out.

    Notes
    -----
    The binned response has the same rule. Where it is not kept, OmniFold takes the cut of the data for an
    absence of pairs, weights the simulated ones near and beyond the window down to nothing, and counts them
    in the total that is scaled to the data.
    """
    inside = cells(matched.reco, axes) >= 0
    kept = cells(matched.fakes, axes) >= 0
    return replace(
        matched,
        reco=np.where(inside[:, None], matched.reco, np.nan),
        fakes=matched.fakes[kept],
        fake_weight=matched.fake_weight[kept],
    )


def subtracted_replicas(
    values: FloatArray,
    *,
    signed: FloatArray,
    posterior: FloatArray,
    event: npt.NDArray[Any],
    axes: Sequence[Any],
    rng: np.random.Generator,
    n_replicas: int = 20,
) -> FloatArray:
    """Return bootstrapped posterior weights whose sum in each cell fluctuates like the subtracted yield.

    A bootstrap of the posterior weights alone knows nothing of the like-sign pairs: its variance is Σw² of
    weights below one, smaller than that of the signed weights.

    Parameters
    ----------
    values : NDArray, shape (n, 3) [GeV]
        mass, pt and energy of all pairs, like-sign ones too.
    signed, posterior : NDArray, shape (n,)
        Event weights of the subtraction; the posterior of like-sign pairs is 0.
    event : NDArray, shape (n,)
        Event identifiers: pairs of an event share their Poisson(1) weight.
    axes : sequence of hist axes
        Cells of mass, pt or energy that hold a few tens of pairs each at least.
    rng : numpy.random.Generator
    n_replicas : int

    Returns
    -------
    NDArray, shape (n_replicas, n)
        For `data_weight` of `omnifold_replicas`, like-sign pairs (weight 0) taken out.

    Raises
    ------
    UserError
        If shapes do not fit or a posterior weight is negative.

    Notes
    -----
    With draws d of the events the sum of a cell becomes Σ p + Σ s (d − 1), for posterior weights p and signed
    ones s: its variance is that of the subtraction, Σ s² over events. It is shared among the opposite-sign
    pairs in proportion to p d, and not below zero. Pairs outside the axes keep p d. The posterior is not
    trained again: its own error within a cell is not in the replicas.
    """
    n = len(values)
    if not np.shape(signed) == np.shape(posterior) == np.shape(event) == (n,) or np.shape(values) != (n, 3):
        msg = (
            f"subtracted_replicas: values {np.shape(values)}, signed {np.shape(signed)}, posterior "
            f"{np.shape(posterior)}, event {np.shape(event)}; give (n, 3) and three times (n,)"
        )
        raise UserError(msg)
    if n and float(np.min(posterior)) < 0:
        msg = f"subtracted_replicas: the lowest posterior weight, below zero, is {posterior.min():.3g}"
        raise UserError(msg)
    cell = cells(values, axes)
    inside, size = cell >= 0, int(np.prod([len(axis) for axis in axes]))
    place = cell[inside]
    nominal = np.bincount(place, posterior[inside], size)
    _, group = np.unique(event, return_inverse=True)
    result = np.zeros((n_replicas, n))
    for k in range(n_replicas):
        draw = rng.poisson(1.0, int(group.max(initial=-1)) + 1)[group].astype(np.float64)
        drawn = posterior * draw
        before = np.bincount(place, drawn[inside], size)
        after = nominal + np.bincount(place, (signed * (draw - 1))[inside], size)
        factor = np.divide(np.maximum(after, 0.0), before, out=np.zeros(size), where=before > 0)
        drawn[inside] *= factor[place]
        result[k] = drawn
    return result
