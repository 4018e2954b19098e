"""Sums of decaying exponentials for all couplings at once, where every line of flight has a single decay.

A decay at mean length λ ∝ 1/ε² survives to L with e^(−kε²). Products of such factors are sums of
exponentials: an event is a few (rate, weight) pairs and a sample is a histogram of rates, whatever the
couplings.
"""

from __future__ import annotations

import numpy as np

from gammastar.core.records import BoolArray, FloatArray

__all__ = ["exponential_sum", "missing_energy_sum"]

STEP = 1e-3
"""Width of the bins in ln(rate); the error is second order in it, below 1e-7 of the number of events."""

EXPANSION = np.array([[1.0, -1.0, 0.0], [0.0, 1.0, -1.0], [0.0, 0.0, 1.0]])
"""Decay in the first section, in the second, behind both, as sums over (1, e^(−first), e^(−second))."""


def exponential_sum(rate: FloatArray, weight: FloatArray, epsilon: FloatArray) -> FloatArray:
    """Return Σ w e^(−rate ε²) for every coupling.

    Parameters
    ----------
    rate, weight : NDArray, shape (n,)
        Rates are not negative; weights have any sign.
    epsilon : NDArray, shape (k,)

    Returns
    -------
    NDArray, shape (k,)

    Examples
    --------
    >>> exponential_sum(np.array([0.0, 1e4]), np.array([1.0, 1.0]), np.array([1e-2])).round(6)
    array([1.367879])
    """
    falling = (rate > 0) & (weight != 0)
    constant = float(weight[rate == 0].sum())
    if not falling.any():
        return np.full(len(epsilon), constant)
    k, w = rate[falling], weight[falling]
    x = np.log(k)
    low = float(x.min())
    index = ((x - low) / STEP).astype(np.int64)
    centre = np.exp(low + (np.arange(index.max() + 1) + 0.5) * STEP)
    total, first = np.bincount(index, w), np.bincount(index, w * (k - centre[index]))
    used = (total != 0) | (first != 0)
    centre, total, first = centre[used], total[used], first[used]
    square = epsilon[:, None] ** 2
    terms = np.exp(-np.minimum(centre * square, 700.0)) * (total - first * square)
    return np.asarray(constant + terms.sum(axis=1), dtype=np.float64)


def missing_energy_sum(
    photon: FloatArray,
    decays: tuple[FloatArray, BoolArray, FloatArray],
    ends: tuple[float, float],
    cuts: tuple[float, float],
    epsilon: FloatArray,
) -> FloatArray:
    """Return the mean of P("enough energy missing, little behind the first section"), shape (k,).

    Parameters
    ----------
    photon : NDArray, shape (n,)
        Energy of the dark photons [GeV].
    decays : tuple of NDArray, shape (n, slots)
        Visible energy [GeV], whether it leaks out of the first section, βγ cτ at ε = 1 [m] (inf in empty
        slots); at most two slots, both from the dark photon itself.
    ends, cuts, epsilon
        As in `gammastar.recast.flight.missing_energy`.
    """
    energy, leaks, flight = decays
    n, slots = energy.shape
    rates = np.zeros((2, 3, n))
    first, behind = np.zeros((2, 3, n)), np.zeros((2, 3, n))
    for slot in range(slots):
        rates[slot, 1], rates[slot, 2] = ends[0] / flight[:, slot], ends[1] / flight[:, slot]
        first[slot, 0] = np.where(leaks[:, slot], 0.0, energy[:, slot])
        behind[slot, 0] = np.where(leaks[:, slot], energy[:, slot], 0.0)
        behind[slot, 1] = energy[:, slot]
    missing = photon - first[0][:, None] - first[1][None] > cuts[0]
    passes = missing & (behind[0][:, None] + behind[1][None] < cuts[1])
    weight = np.einsum("abn,as,bt->stn", passes.astype(np.float64), EXPANSION, EXPANSION)
    total = rates[0][:, None] + rates[1][None]
    return exponential_sum(total.ravel(), weight.ravel() / n, epsilon)
