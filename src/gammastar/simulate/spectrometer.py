"""Quantities of a real selection: sextants and triggers, hits and χ², offsets, targets, bursts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.records import BoolArray, FloatArray
from gammastar.simulate.card import Card, Target
from gammastar.simulate.card_parts import Spectrometer

__all__ = ["bursts", "event_columns", "fired", "muon_columns", "recorded_share", "sextant", "vertex_z"]


def sextant(px: FloatArray, py: FloatArray, count: int) -> npt.NDArray[np.int8]:
    """Return the number of the magnet's sector that a muon is in, from 0."""
    phi = np.mod(np.arctan2(py, px), 2.0 * np.pi)
    return np.minimum(phi * (count / (2.0 * np.pi)), count - 1).astype(np.int8)


def fired(
    card: Card, p: FloatArray, charge: npt.NDArray[np.int8], present: BoolArray
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return trigger bits of events and the smallest prescale among the triggers that fired (0: none).

    Parameters
    ----------
    card : Card
        With a section ``[spectrometer]``.
    p : NDArray, shape (3, k, n)
        Momenta of up to k muons of n events.
    charge, present : NDArray, shape (k, n)
    """
    bits = np.zeros(present.shape[1], dtype=np.uint32)
    prescale = np.zeros(present.shape[1], dtype=np.int64)
    if card.spectrometer is None:
        return bits, prescale
    sector = sextant(p[0], p[1], card.detector.sextants)
    slots = [(i, j) for i in range(len(present)) for j in range(i)]
    for trigger in card.spectrometer.triggers.values():
        if trigger.muons < 2:
            good = present.sum(axis=0) >= trigger.muons
        else:
            good = np.zeros(present.shape[1], dtype=np.bool_)
            for i, j in slots:
                pair = present[i] & present[j]
                if trigger.different_sextants:
                    pair &= sector[i] != sector[j]
                if trigger.charge != "any":
                    pair &= (charge[i] == charge[j]) == (trigger.charge == "like")
                good |= pair
            good &= present.sum(axis=0) >= trigger.muons
        bits |= np.where(good, np.uint32(1) << np.uint32(trigger.bit), np.uint32(0)).astype(np.uint32)
        better = good & ((prescale == 0) | (trigger.prescale < prescale))
        prescale[better] = trigger.prescale
    return bits, prescale


def recorded_share(
    card: Card, p: FloatArray, charge: npt.NDArray[np.int8], present: BoolArray, *, prescaled: bool = True
) -> FloatArray:
    """Return the share of events that the triggers record: one over the prescale, or zero."""
    if card.spectrometer is None:
        return np.ones(present.shape[1])
    _, prescale = fired(card, p, charge, present)
    share = np.divide(1.0, prescale, out=np.zeros(len(prescale)), where=prescale > 0)
    return share if prescaled else np.asarray(prescale > 0, dtype=np.float64)


def vertex_z(target: Target, uniform: FloatArray) -> FloatArray:
    """Return the place of interactions along the target, about its middle [cm], from numbers in ±½.

    Notes
    -----
    Attenuated: dN/dz ∝ exp(−L z/l) over the length l of a target of L interaction lengths.
    """
    if target.profile == "uniform":
        return np.asarray(uniform * target.z_size, dtype=np.float64)
    depth = -np.log1p((uniform + 0.5) * np.expm1(-target.thickness)) / target.thickness
    return np.asarray((depth - 0.5) * target.z_size, dtype=np.float64)


def pieces(target: Target, n: int, rng: np.random.Generator) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return index and place [cm] of the target that each event comes from."""
    if target.pieces is None:
        return np.full(n, target.index, dtype=np.int8), np.zeros(n)
    found = list(target.pieces.values())
    share = np.array([piece.share for piece in found])
    chosen = rng.choice(len(found), n, p=share / share.sum())
    return (
        np.array([piece.index for piece in found], dtype=np.int8)[chosen],
        np.array([piece.z for piece in found])[chosen],
    )


def bursts(n: int, pot: float, part: Spectrometer, rng: np.random.Generator) -> tuple[Any, int]:
    """Return the burst of every event, in order, and the number of bursts of the exposure."""
    count = max(int(np.ceil(pot / part.pot_per_burst)), 1)
    return np.sort(rng.integers(0, count, n)).astype(np.int32), count


def event_columns(
    part: Spectrometer, counts: npt.NDArray[Any], rng: np.random.Generator
) -> dict[str, npt.NDArray[Any]]:
    """Return columns of the interaction vertex: its tracks and χ² per degree of freedom."""
    n = len(counts)
    tracks = counts + rng.poisson(part.tracks, n)
    dof = np.maximum(2 * tracks - 3, 1)
    return {"PV_ntrk": tracks.astype(np.int16), "PV_chi2": (rng.chisquare(dof) / dof).astype(np.float32)}


def muon_columns(
    card: Card, part: Spectrometer, p: FloatArray, wide: FloatArray, rng: np.random.Generator
) -> Mapping[str, npt.NDArray[Any]]:
    """Return hits, χ², offsets and sextant of muons.

    Parameters
    ----------
    card : Card
    part : Spectrometer
    p : NDArray, shape (3, n)
        [GeV]
    wide : NDArray of bool, shape (n,)
        Muons of decays in flight, whose kink widens offset and match.
    rng : numpy.random.Generator
    """
    n = p.shape[1]
    factor = np.where(wide, part.kink, 1.0)
    size = np.sqrt(np.sum(p**2, axis=0))
    sigma = np.hypot(part.offset_constant, part.offset_scattering / size) * factor
    pixels = np.asarray(rng.binomial(part.planes, part.hit_efficiency, n))
    stations = np.asarray(rng.binomial(part.stations, part.hit_efficiency, n))
    freedom = np.maximum(2 * pixels - 5, 1)
    return {
        "chi2trk": (rng.chisquare(freedom) / freedom).astype(np.float32),
        "chi2match": (factor**2 * rng.chisquare(5, n) / 5.0).astype(np.float32),
        "nPix": pixels.astype(np.int16),
        "nMS": stations.astype(np.int16),
        "dx": sigma * rng.standard_normal(n),
        "dy": sigma * rng.standard_normal(n),
        "sextant": sextant(p[0], p[1], card.detector.sextants),
    }
