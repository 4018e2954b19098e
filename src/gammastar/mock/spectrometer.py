"""The parametrised spectrometer: acceptance, efficiency, resolution, quantities of a real selection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng, divided
from gammastar.mock.card import Card, DetectorCard, Efficiency, Spectrometer, Target

TAIL_FREEDOM = 3  # of Student's t in the tail of offsets


def sextant(px: FloatArray, py: FloatArray, count: int) -> npt.NDArray[np.int8]:
    """Return the number of the magnet's sector that a muon is in, from 0."""
    phi = np.mod(np.arctan2(py, px), 2.0 * np.pi)
    return np.minimum(phi * (count / (2.0 * np.pi)), count - 1).astype(np.int8)


def fired(
    card: Card, p: FloatArray, charge: npt.NDArray[np.int8], present: BoolArray
) -> tuple[npt.NDArray[np.uint32], IntArray]:
    """Return trigger bits of events and the smallest prescale among the triggers that fired (0: none)."""
    bits = np.zeros(present.shape[1], dtype=np.uint32)
    prescale = np.zeros(present.shape[1], dtype=np.int64)
    if card.spectrometer is None:
        return bits, prescale
    sector = sextant(p[0], p[1], card.detector.sextants)
    slots = [(i, j) for i in range(len(present)) for j in range(i)]
    for trigger in card.spectrometer.triggers.values():
        good = present.sum(axis=0) >= trigger.muons
        if trigger.muons >= 2:
            some = np.zeros_like(good)
            for i, j in slots:
                pair = present[i] & present[j]
                if trigger.different_sextants:
                    pair &= sector[i] != sector[j]
                if trigger.charge != "any":
                    pair &= (charge[i] == charge[j]) == (trigger.charge == "like")
                some |= pair
            good &= some
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
    share = divided(1.0, prescale)
    return share if prescaled else np.asarray(prescale > 0, dtype=np.float64)


def vertex_z(target: Target, uniform: FloatArray) -> FloatArray:
    """Return the place of interactions along the target, about its middle [cm], from numbers in ±½.

    Attenuated: dN/dz ∝ exp(−L z/l) over the length l of a target of L interaction lengths.
    """
    if target.profile == "uniform":
        return np.asarray(uniform * target.z_size, dtype=np.float64)
    depth = -np.log1p((uniform + 0.5) * np.expm1(-target.thickness)) / target.thickness
    return np.asarray((depth - 0.5) * target.z_size, dtype=np.float64)


def pieces(target: Target, n: int, rng: Rng) -> tuple[npt.NDArray[np.int8], FloatArray]:
    """Return index and place [cm] of the target that each event comes from."""
    if target.pieces is None:
        return np.full(n, target.index, dtype=np.int8), np.zeros(n)
    index, z, share = zip(*((p.index, p.z, p.share) for p in target.pieces.values()), strict=True)
    chosen = rng.choice(len(share), n, p=np.array(share) / np.sum(share))
    return np.array(index, dtype=np.int8)[chosen], np.array(z)[chosen]


def bursts(n: int, pot: float, part: Spectrometer, rng: Rng) -> tuple[Any, int]:
    """Return the burst of every event, in order, and the number of bursts of the exposure."""
    count = max(int(np.ceil(pot / part.pot_per_burst)), 1)
    return np.sort(rng.integers(0, count, n)).astype(np.int32), count


def event_columns(part: Spectrometer, counts: npt.NDArray[Any], rng: Rng) -> dict[str, npt.NDArray[Any]]:
    """Return columns of the interaction vertex: its tracks and χ² per degree of freedom."""
    n = len(counts)
    tracks = counts + rng.poisson(part.tracks, n)
    dof = np.maximum(2 * tracks - 3, 1)
    return {"PV_ntrk": tracks.astype(np.int16), "PV_chi2": (rng.chisquare(dof) / dof).astype(np.float32)}


def muon_columns(
    card: Card, part: Spectrometer, p: FloatArray, wide: FloatArray, rng: Rng
) -> Mapping[str, npt.NDArray[Any]]:
    """Return hits, χ², offsets and sextant of muons."""
    n = p.shape[1]
    factor = np.where(wide, part.kink, 1.0)
    size = np.sqrt(np.sum(p**2, axis=0))
    sigma = np.hypot(part.offset_constant, part.offset_scattering / size) * factor
    tail = _offset_tail(part, n, rng)
    pixels = np.asarray(rng.binomial(part.planes, part.hit_efficiency, n))
    stations = np.asarray(rng.binomial(part.stations, part.hit_efficiency, n))
    freedom = np.maximum(2 * pixels - 5, 1)
    return {
        "chi2trk": (rng.chisquare(freedom) / freedom).astype(np.float32),
        "chi2match": (factor**2 * rng.chisquare(5, n) / 5.0).astype(np.float32),
        "nPix": pixels.astype(np.int16),
        "nMS": stations.astype(np.int16),
        "dx": sigma * tail[0] * rng.standard_normal(n),
        "dy": sigma * tail[1] * rng.standard_normal(n),
        "sextant": sextant(p[0], p[1], card.detector.sextants),
    }


def _offset_tail(part: Spectrometer, n: int, rng: Rng) -> FloatArray:
    """Return how many times wider the offsets (x, y) of muons are, (2, n): one but for a Student's-t tail."""
    if not part.offset_tail:
        return np.ones((2, n))
    own = rng.spawn(1)[0]
    wide = part.offset_tail_scale * np.sqrt(TAIL_FREEDOM / own.chisquare(TAIL_FREEDOM, (2, n)))
    return np.asarray(np.where(own.random(n) < part.offset_tail, wide, 1.0))


def accepted(muon: FloatArray, card: DetectorCard) -> BoolArray:
    """Return where a muon, px, py, pz, E (4, …) [GeV], reaches the spectrometer: energy, angles, coils."""
    px, py, pz, energy = muon
    slope2 = px**2 + py**2
    inside = (slope2 > (np.tan(card.theta_min) * pz) ** 2) & (slope2 < (np.tan(card.theta_max) * pz) ** 2)
    inside &= (pz > 0) & (energy > card.e_min)
    if card.pt_min > 0:
        inside &= slope2 > card.pt_min**2
    if card.coil > 0:
        sector = 2.0 * np.pi / card.sextants
        into = np.mod(np.arctan2(py, px), sector)
        inside &= np.minimum(into, sector - into) > card.coil
    return np.asarray(inside, dtype=np.bool_)


def pair_kinematics(first: FloatArray, second: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return mass, pt and energy of pairs of four-momenta px, py, pz, E, shape (4, n) each [GeV]."""
    px, py, pz, energy = first + second
    pt2 = px**2 + py**2
    return np.sqrt(np.maximum(energy**2 - pz**2 - pt2, 0.0)), np.sqrt(pt2), energy


def efficiency(mass: FloatArray, pt: FloatArray, energy: FloatArray, card: Efficiency) -> FloatArray:
    """Return the trigger and reconstruction efficiency of pairs of accepted muons [GeV], shape (n,).

    Notes
    -----
    plateau × [1 − d exp(−(m² + pt²)/2s²)] × 1/(1 + exp(−(E − E½)/w)): soft pairs and low energies lose, and
    it does not depend on the charges, so that it cancels in the like-sign ratio R.
    """
    soft = 1.0 - card.soft_depth * np.exp(-(mass**2 + pt**2) / (2.0 * card.soft_scale**2))
    turn_on = 1.0 / (1.0 + np.exp(-(energy - card.energy_half) / card.energy_width))
    return np.asarray(card.plateau * soft * turn_on, dtype=np.float64)


def smear(momentum: FloatArray, card: DetectorCard, rng: Rng) -> FloatArray:
    """Return measured three-momenta: Gaussian errors of the momentum, relative, and of the two slopes."""
    px, py, pz = momentum
    p = np.sqrt(px**2 + py**2 + pz**2)
    measured = p * np.maximum(1.0 + card.sigma_p * rng.standard_normal(p.shape), 0.05)
    safe = np.where(pz > 0, pz, 1.0)
    slope_x = px / safe + card.sigma_theta * rng.standard_normal(p.shape)
    slope_y = py / safe + card.sigma_theta * rng.standard_normal(p.shape)
    z = measured / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    return np.stack([z * slope_x, z * slope_y, z])
