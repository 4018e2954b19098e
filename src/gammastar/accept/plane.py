"""From the yields at each mass to the signal over masses and couplings, with every source of uncertainty."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.accept.expected_events import AcceptedYield, width_shift
from gammastar.accept.importance import turned
from gammastar.accept.lifetimes import Replicated, accepted
from gammastar.core.records import FloatArray, Sample
from gammastar.core.signal import (
    BEYOND,
    MOST,
    VIRTUAL_PHOTON,
    AcceptanceCurves,
    Effect,
    Rate,
    SignalPlane,
    Variation,
)
from gammastar.core.sources import EXTRAPOLATION, FLOW, PAIRS, SCALING, SEARCH_POT, SPIN, WIDTHS, Kind
from gammastar.physics.detector import Detector
from gammastar.physics.polarisation import FRAMES, TRANSVERSE, Frame, Spin, SpinDensities, SpinState


def spin_states(
    longitudinal: float, sigma: float | None, frame: Frame, measured: SpinDensities | None = None
) -> tuple[Spin, ...]:
    """Return the spin state of the photons, and those whose yields with it span its error.

    Parameters
    ----------
    longitudinal : float
        Share of helicity zero along the axis of `frame`, where nothing is measured.
    sigma : float or None
        Its error. None: photons that are transverse along the axis of each frame in turn, as a Dalitz decay
        makes its photon transverse along an axis that no measurement of the photon alone knows.
    measured : SpinDensities, optional
        Then the states are the measured one and its shifts, up and down in turn.
    """
    if measured is not None:
        return (measured, *measured.shifted())
    if sigma is None:
        others = [SpinState(TRANSVERSE, axis) for axis in FRAMES]
    else:
        ends = np.clip([longitudinal - sigma, longitudinal + sigma], 0.0, 1.0).tolist() if sigma > 0 else []
        others = [SpinState(end, frame) for end in ends]
    return (SpinState(longitudinal, frame), *others)


def spin_ends(signal: FloatArray, others: FloatArray, *, paired: bool) -> FloatArray:
    """Return the two ends of the yields that the error of the spin state spans, shape (2, k)."""
    if not paired:
        every = np.concatenate([signal[np.newaxis], others])
        return np.stack([every.min(axis=0), every.max(axis=0)])
    half = 0.5 * np.sqrt(np.sum((others[::2] - others[1::2]) ** 2, axis=0))
    return np.stack([np.clip(signal - half, 0.0, None), signal + half])


def stacked(variations: Sequence[Variation]) -> FloatArray | None:
    """Return the factors of all variations, shape (r, n), or None if nothing varies."""
    return np.concatenate([v.factors for v in variations]) if variations else None


def varied(sample: Sample, variations: Sequence[Variation]) -> Sample:
    """Return the sample with all factors as replicas, or the sample itself if nothing varies it.

    Parameters
    ----------
    variations : sequence of Variation
        What changes the weights of the sample.
    """
    factors = stacked(variations)
    return sample if factors is None else Replicated.of(sample, factors)


@dataclass(frozen=True, slots=True, eq=False)
class PlaneRow:
    """The yields of one detector at one mass."""

    accepted: AcceptedYield
    # What each variation makes of the signal: a relative error (k,), a part (k,), or rows (r, k)
    varied: Sequence[tuple[Variation, FloatArray]]
    spins: FloatArray | None  # Ends of the signal that the error of the spin state spans, shape (2, k)
    scaling: float  # Relative error of the scaling with A
    # Effective number of pairs whose kinematics the signal rests on, shape (k,)
    pairs: FloatArray | float = np.inf


def row_of(
    accepted: AcceptedYield,
    variations: Sequence[Variation],
    scaling: float,
    *,
    measured_spin: bool = False,
    pairs: FloatArray | float = np.inf,
) -> PlaneRow:
    """Return the row of a yield whose replicas are those of `varied`.

    `measured_spin` says that its other spin states are shifts of a measured one; `pairs` as for `PlaneRow`.

    Parameters
    ----------
    variations : sequence of Variation
        What changes the weights of the sample.
    scaling : float
        Of the yield, from the measured target to that of the search.
    measured_spin : bool
        The decays follow the measured spin density.
    pairs : NDArray, shape (k,), or float
        Effective number of pairs behind the kinematics.
    """
    rows, start = [], 0
    for variation in variations if accepted.replicas is not None else ():
        own = np.asarray(accepted.replicas)[start : start + len(variation.factors)]
        start += len(variation.factors)
        if variation.form == "relative":
            own = variation.estimate(accepted.signal, own)
        elif variation.form == "share":
            own = own[0]
        rows.append((replace(variation, factors=np.zeros((0, 0))), own))
    spins = accepted.spins
    ends = None if spins is None else spin_ends(accepted.signal, spins, paired=measured_spin)
    return PlaneRow(accepted, rows, ends, scaling, pairs)


def plane_of(
    rate: Rate,
    rows: Sequence[PlaneRow],
    *,
    width_sigma: FloatArray,
    pot_sigma: float = 0.0,
    curves: AcceptanceCurves | None = None,
) -> SignalPlane:
    """Return the plane of one detector from its rows, one per mass of the rate.

    Parameters
    ----------
    width_sigma : NDArray, shape (n,)
        Relative standard deviation of the total width.
    pot_sigma : float
        Relative uncertainty of the protons on target of the search.

    Notes
    -----
    A source counts as varied where every row has it; a band of theory is closed at the masses without it, and
    moves nothing there.
    """
    coupling = rows[0].accepted.couplings
    pairs = np.stack([np.broadcast_to(row.pairs, coupling.shape) for row in rows])
    signal, inside, error, effective = (
        np.stack([getattr(row.accepted, name) for row in rows])
        for name in ("signal", "in_domain_signal", "mc_error", "n_effective")
    )
    seen: dict[str, Variation] = {v.name + v.form: v for row in rows for v, _ in row.varied}
    parts: dict[str, FloatArray] = {}
    effects: dict[str, Effect] = {}
    for key, variation in seen.items():
        found = [next((x for v, x in row.varied if v.name + v.form == key), None) for row in rows]
        name, kind, form = variation.name, variation.kind, variation.form
        if form == "ends":
            whole = [np.repeat(row[np.newaxis], 2, axis=0) for row in signal]
            filled = [w if x is None else x for x, w in zip(found, whole, strict=True)]
            effects[name] = Effect(name, kind, form, np.stack(filled, axis=1))
        elif any(x is None for x in found):
            continue
        elif form == "share":
            parts[name] = np.stack([np.asarray(x) for x in found])
        else:
            axis = 0 if form == "relative" else 1
            effects[name] = Effect(name, kind, form, np.stack([np.asarray(x) for x in found], axis=axis))
    ordered = [effect for effect in effects.values() if effect.kind == "theory"]
    for name, sigma in ((SEARCH_POT, pot_sigma), (SCALING, max(row.scaling for row in rows))):
        if sigma > 0:
            of_kind: Kind = "pot" if name == SEARCH_POT else "scaling"
            ordered.append(Effect(name, of_kind, "relative", np.array([[sigma]])))
    if np.any(width_sigma):
        ordered.append(Effect(WIDTHS, "widths", "relative", width_shift(signal, coupling, width_sigma)))
    if all(row.spins is not None for row in rows):
        ends = np.stack([np.asarray(row.spins) for row in rows], axis=1)
        ordered.append(Effect(SPIN, "polarisation", "ends", ends))
    ordered += [effect for effect in effects.values() if effect.kind != "theory"]
    if FLOW not in effects and np.isfinite(pairs).any():
        values = np.where(signal > 0, 1.0 / np.sqrt(np.maximum(pairs, 1.0 / MOST**2)), 0.0)
        ordered.append(Effect(PAIRS, "kinematics", "relative", values))
    beyond = parts.pop(BEYOND, None)
    return SignalPlane(
        *(rate, coupling, signal, inside, error, effective, tuple(ordered), parts),
        *(width_sigma, curves, pairs, beyond),
    )


def _measured_share(plane: SignalPlane) -> FloatArray:
    """Return the part of the signal from where dileptons were measured, zero where there is no signal."""
    return np.clip(np.nan_to_num(plane.in_domain_fraction), 0.0, 1.0)


def measured_only(plane: SignalPlane) -> SignalPlane:
    """Return the plane with the measured part of the signal alone.

    It has no error of an extrapolation and no theory; replicas and spin states keep their relative spread.
    """
    share = _measured_share(plane)
    effects = [e.times(share) for e in plane.effects if e.kind not in ("extrapolation", "theory")]
    moved = [
        replace(e, values=width_shift(plane.in_domain, plane.coupling, plane.width_sigma))
        if e.name == WIDTHS
        else e
        for e in effects
    ]
    parts = {VIRTUAL_PHOTON: plane.in_domain} if VIRTUAL_PHOTON in plane.parts else {}
    return replace(plane, signal=plane.in_domain, effects=tuple(moved), parts=parts, beyond=None)


def with_extrapolation(plane: SignalPlane, sigma: float) -> SignalPlane:
    """Return the plane with one given ln κ of the signal outside the measured domain."""
    share = _measured_share(plane)
    values = np.where(plane.signal > 0, (1.0 - share) * sigma, 0.0)
    given = Effect(EXTRAPOLATION, "extrapolation", "relative", values)
    return replace(plane, effects=(*(e for e in plane.effects if e.name != EXTRAPOLATION), given))


def acceptance_curves(
    samples: Mapping[float, tuple[Sample, np.random.Generator]],
    replicas: Callable[[float, npt.NDArray[np.intp]], FloatArray | None],
    ctau: FloatArray,
    detector: Detector,
    state: str,
    spin: Spin,
) -> AcceptanceCurves:
    """Return acceptance over the lifetime at a few masses.

    Notes
    -----
    Eq. B1 and Fig. 9 of Allison and Blinov (2025).
    """
    curves, errors = np.zeros((2, len(samples), len(ctau)))
    for i, (mass, (sample, rng)) in enumerate(samples.items()):
        norm = sample.weight.sum()
        particles = turned(sample, detector, rng)
        seen = accepted(particles, mass, detector, states={state: 1.0}, rng=rng, spins=(spin,))
        members = replicas(mass, seen.index) if len(seen.index) else None
        scan = seen.scan(ctau, members)
        spread = 0.0 if scan.replicas is None else scan.replicas.std(axis=0, ddof=1)
        curves[i], errors[i] = scan.accepted / norm, np.hypot(scan.mc_error, spread) / norm
    return AcceptanceCurves(np.array(list(samples)), ctau, curves, errors)
