"""Combinatorial background: pairs of decay muons, and the like-sign ratio R."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.simulate.card import Card
from gammastar.simulate.detector import efficiency, pair_kinematics
from gammastar.simulate.in_flight import N_BLOCKS, DecayMuons, decay_muons
from gammastar.simulate.spectrometer import recorded_share

__all__ = [
    "N_BLOCKS",
    "PAIRINGS",
    "DecayMuons",
    "MuonPairs",
    "Pairing",
    "charge_sums",
    "decay_muons",
    "like_sign_ratio",
    "measured_r",
    "muon_pairs",
    "recorded_weight",
]

Pairing: TypeAlias = Literal["same-event", "mixed"]
PAIRINGS: tuple[str, ...] = get_args(Pairing)
IntArray: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class MuonPairs:
    """Pairs of decay muons: indices into `muons`, and weights (pairs per interaction when summed)."""

    muons: DecayMuons
    first: IntArray
    second: IntArray
    weight: FloatArray

    @property
    def charge(self) -> npt.NDArray[np.int64]:
        """Sum of the charges: +2, 0, −2."""
        charge = self.muons.charge.astype(np.int64)
        return charge[self.first] + charge[self.second]


def muon_pairs(muons: DecayMuons, rng: np.random.Generator, *, pairing: Pairing = "same-event") -> MuonPairs:
    """Pair decay muons.

    Parameters
    ----------
    muons, rng
    pairing : {"same-event", "mixed"}
        ``"same-event"`` keeps charge conservation (R > 1); ``"mixed"`` joins muons of different
        interactions, for which R = 1 by construction.

    Returns
    -------
    MuonPairs
        The sum of weights is the number of pairs (any charges) per interaction.
    """
    if str(pairing) not in PAIRINGS:
        msg = f"pairing = {pairing!r} is not one of {list(PAIRINGS)}"
        raise PhysicsError(msg)
    if pairing == "same-event":
        first, second = _same_event(muons.event)
        return MuonPairs(muons, first, second, muons.weight[first] * muons.weight[second] / muons.n_events)
    n = len(muons.event)
    reach = np.concatenate([rng.permutation(n) for _ in range(4)])
    first, second = np.tile(np.arange(n), 4), reach
    other = muons.event[first] != muons.event[second]
    first, second = first[other], second[other]
    product = muons.weight[first] * muons.weight[second]
    rate = 0.5 * (float(muons.weight.sum()) / muons.n_events) ** 2  # pairs per interaction, independent muons
    return MuonPairs(muons, first, second, product * (rate / float(product.sum())))


def _same_event(event: IntArray) -> tuple[IntArray, IntArray]:
    """Return the indices of all pairs i < j of equal, sorted event numbers (one pass per distance j − i)."""
    first, second = [], []
    for distance in range(1, len(event)):
        i = np.flatnonzero(event[distance:] == event[:-distance])
        if len(i) == 0:
            break
        first.append(i)
        second.append(i + distance)
    empty = np.zeros(0, dtype=np.int64)
    return np.concatenate([empty, *first]), np.concatenate([empty, *second])


def recorded_weight(card: Card, pairs: MuonPairs) -> FloatArray:
    """Return the weights of pairs times their trigger and reconstruction efficiency, shape (n,)."""
    muon = pairs.muons.p
    kinematics = pair_kinematics(muon[:, pairs.first], muon[:, pairs.second])
    weight = pairs.weight * efficiency(*kinematics, card.efficiency)
    if card.spectrometer is None:
        return weight
    index = np.stack([pairs.first, pairs.second])
    both = np.ones(index.shape, dtype=np.bool_)
    return weight * recorded_share(card, muon[:3, index], pairs.muons.charge[index], both)


def charge_sums(pairs: MuonPairs, weight: FloatArray) -> FloatArray:
    """Return sums of `weight` of +−, ++ and −− pairs in blocks of interactions, shape (3, 50)."""
    block, charge = pairs.muons.event[pairs.first] * N_BLOCKS // pairs.muons.n_events, pairs.charge
    return np.stack(
        [np.bincount(block[charge == q], weight[charge == q], minlength=N_BLOCKS) for q in (0, 2, -2)]
    )


def like_sign_ratio(sums: FloatArray) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) and its error, the delete-one-block jackknife.

    Parameters
    ----------
    sums : NDArray, shape (3, n_blocks)
        +−, ++, −− in blocks of interactions.

    Raises
    ------
    PhysicsError
        If there are no like-sign pairs outside a block.
    """
    totals = sums.sum(axis=1, keepdims=True)
    os, pp, mm = np.concatenate([totals, totals - sums], axis=1)
    if bool(np.any(pp <= 0) | np.any(mm <= 0)):
        msg = f"R: too few like-sign pairs (++: {pp[0]:.3g}, --: {mm[0]:.3g}); use more interactions"
        raise PhysicsError(msg)
    ratio = os / (2.0 * np.sqrt(pp * mm))
    blocks = sums.shape[1]
    error = np.sqrt((blocks - 1) * np.mean((ratio[1:] - ratio[1:].mean()) ** 2))
    return float(ratio[0]), float(error)


def measured_r(
    card: Card, n: int, rng: np.random.Generator, *, pairing: Pairing = "same-event", recorded: bool = True
) -> tuple[float, float]:
    """Return R = N(+−)/(2 √(N(++) N(−−))) of decay-muon pairs, and its statistical error.

    Parameters
    ----------
    card, n, rng, pairing
        As `decay_muons` and `muon_pairs`.
    recorded : bool
        Weight accepted pairs with trigger and reconstruction efficiency; without, R of accepted pairs.

    Raises
    ------
    PhysicsError
        If there are too few like-sign pairs; raise `n`.
    """
    pairs = muon_pairs(decay_muons(card, n, rng), rng, pairing=pairing)
    return like_sign_ratio(charge_sums(pairs, recorded_weight(card, pairs) if recorded else pairs.weight))
