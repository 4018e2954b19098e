"""Decays in flight to two leptons, and whether a detector sees both."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import EllipsisType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray
from gammastar.physics.detector import Detector, Magnet, Plane
from gammastar.physics.kinematics import daughter
from gammastar.physics.polarisation import TRANSVERSE, Spin, cosine_between, lambda_theta

_SHORTEST = 1e-3  # of a chord: decay lengths down to this are sampled well
_NOTHING = 750.0  # decay lengths after which e^(−x) is zero
_FLAT = 1e-9  # chords over decay length below which an exponential law is flat


def inverse_decay_length(momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike) -> FloatArray:
    """Return m/(p cτ) [1/m] for every lifetime and particle, 0 for a stable one."""
    p, lifetime = np.asarray(momentum, dtype=np.float64), np.asarray(ctau, dtype=np.float64)
    for name, value in (("mass", np.float64(mass)), ("momentum", p), ("cτ", lifetime)):
        bad = ~(value > 0)  # nan too
        if bad.any():
            raise PhysicsError(f"decay length: {name} = {np.extract(bad, value)[0]!r} must be positive")
    with np.errstate(over="ignore"):  # a subnormal cτ: decays at once
        return np.minimum(np.multiply.outer(1.0 / lifetime, mass / p), 1e150)


def decay_probability(
    chord: FloatArray, momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike
) -> FloatArray:
    """Return the probability to decay between entry and exit of a volume.

    Parameters
    ----------
    chord : NDArray, shape (n, 2) [m]
        Path lengths to entry and exit; exit may be inf, nan is a miss.
    momentum : array_like, shape (n,) [GeV]
    mass : float [GeV]
    ctau : array_like, scalar or shape (k,) [m]

    Returns
    -------
    NDArray, shape (n,) or (k, n)

    Notes
    -----
    e^(−a/λ) − e^(−b/λ) with λ = cτ p/m, formed without cancellation for λ much longer than the volume.

    Examples
    --------
    >>> decay_probability(np.array([[0.0, np.inf], [5.0, np.inf]]), [1.0, 1.0], 1.0, 5.0).round(4)
    array([1.    , 0.3679])
    """
    hit = ~np.isnan(chord[:, 0])
    entry, length = np.where(hit, chord[:, 0], 0.0), np.where(hit, chord[:, 1] - chord[:, 0], 0.0)
    left = _left(entry, momentum, mass, ctau)
    inverse = inverse_decay_length(momentum, mass, np.asarray(ctau)[left])
    reached: FloatArray = np.exp(-inverse * entry)
    if np.isinf(length).all():  # an open volume: whatever reaches it decays in it, unless stable
        return _filled(np.where(inverse > 0, reached, 0.0), left, ctau)
    # A stable particle in an open volume would be 0 × inf.
    exponent = np.multiply(inverse, length, out=np.zeros_like(inverse), where=inverse > 0)
    return _filled(reached * -np.expm1(-exponent), left, ctau)


Rows: TypeAlias = slice | EllipsisType


def _left(distance: FloatArray, momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike) -> Rows:
    """Return the lifetimes between the first and the last with which any particle comes so far.

    With the others e^(−x) is zero to the precision of a float, which is not worth computing.
    """
    lifetime, p = np.asarray(ctau, dtype=np.float64), np.asarray(momentum, dtype=np.float64)
    if not lifetime.ndim or not p.size or not ((lifetime > 0).all() and (p > 0).all()):
        return ...
    with np.errstate(over="ignore"):
        rows = np.flatnonzero(float((mass / p * distance).min()) / lifetime < _NOTHING)
    return slice(int(rows[0]), int(rows[-1]) + 1) if len(rows) else slice(0, 0)


def _filled(values: FloatArray, left: Rows, ctau: npt.ArrayLike) -> FloatArray:
    """Return values of some lifetimes as those of all, zero elsewhere."""
    count = np.shape(ctau)[:1]
    if left is ... or len(values) == count[0]:
        return values
    found = np.zeros((*count, *values.shape[1:]))
    found[left] = values
    return found


def forced_decay(
    chord: FloatArray, rng: np.random.Generator, inverse: FloatArray | None = None
) -> tuple[FloatArray, FloatArray]:
    """Place one decay on each chord, fit for all decay lengths from 1/1000 of it upwards.

    Parameters
    ----------
    chord : NDArray, shape (n, 2) [m]
        Path lengths to entry and exit, both finite.
    inverse : NDArray, shape (t, n) [1/m], optional
        Inverse decay lengths that count most: each gets its share of the decays.

    Returns
    -------
    distance : NDArray, shape (n,) [m]
        Path length from the origin to the decay.
    density : NDArray, shape (n,) [1/m]
        Probability density with which it was placed.

    Raises
    ------
    PhysicsError
        If a chord is a miss or has no end.

    Notes
    -----
    Half of the decays are uniform along the chord, half have a density falling as 1/(x + ℓ/1000) from the
    entry. The uniform half bounds the weights by twice those of uniform placing (long lifetimes); the other
    half keeps as many decays per decade of x, so that short lifetimes do not hang on a few of them. With
    `inverse` the two of them and the exponential laws, cut at the exit, share the decays evenly.
    """
    length = chord[:, 1] - chord[:, 0]
    require(np.isfinite(length).all(), "forced decays need chords that hit and that end: bound the volume")
    n, rates = len(length), np.zeros((0, len(length))) if inverse is None else inverse * length
    u, choice = rng.uniform(size=n), rng.uniform(size=n) * (len(rates) + 2)
    decades = math.log1p(1.0 / _SHORTEST)
    fraction = np.where(choice < 1.0, u, _SHORTEST * np.expm1(u * decades))
    for k, rate in enumerate(rates):
        own = choice >= k + 2
        fraction[own] = _exponential(u[own], rate[own])
    fraction = np.clip(fraction, 0.0, 1.0)
    density = 1.0 + 1.0 / ((fraction + _SHORTEST) * decades)
    for rate in rates:
        steep = np.maximum(rate, _FLAT)
        density += steep * np.exp(-steep * fraction) / -np.expm1(-steep)
    return chord[:, 0] + fraction * length, density / ((len(rates) + 2) * length)


def _exponential(u: FloatArray, rate: FloatArray) -> FloatArray:
    """Return numbers in (0, 1) with the density of e^(−rate x) from uniform ones."""
    steep = np.maximum(rate, _FLAT)
    return np.asarray(-np.log1p(u * np.expm1(-steep)) / steep)


def decay_weight(
    distance: FloatArray, density: FloatArray, momentum: npt.ArrayLike, mass: float, ctau: npt.ArrayLike
) -> FloatArray:
    """Return the weight of a decay that was placed with a known density.

    Parameters
    ----------
    distance : NDArray, shape (n,) [m]
        Path length from the origin to the decay.
    density : NDArray, shape (n,) [1/m]
        Density along the path with which it was placed there.
    momentum, mass, ctau
        As for `decay_probability`.

    Returns
    -------
    NDArray, shape (n,) or (k, n)
        e^(−d/λ)/(λ density); its mean over positions is the decay probability of the chord.
    """
    left = _left(distance, momentum, mass, ctau)
    inverse = inverse_decay_length(momentum, mass, np.asarray(ctau)[left])
    return _filled(inverse / density * np.exp(-inverse * distance), left, ctau)


Pair: TypeAlias = tuple[FloatArray, FloatArray]


def lepton_pair(parent: FloatArray, mass: float, m_lepton: float, rng: np.random.Generator) -> Pair:
    """Decay parents into two leptons, isotropically.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E [GeV].
    mass, m_lepton : float [GeV]

    Returns
    -------
    p1, p2 : NDArray, shape (4, n)
        Positive and negative lepton.

    Raises
    ------
    PhysicsError
        If the parents are below threshold.
    """
    n = parent.shape[1]
    cos_theta: FloatArray = rng.uniform(-1, 1, size=(n,))
    phi = rng.uniform(-np.pi, np.pi, n)
    first = daughter(parent, mass, m_lepton, m_lepton, cos_theta, phi)
    return first, parent - first


def angular_weights(
    p: FloatArray,
    mass: float,
    lepton: FloatArray,
    m_lepton: float,
    spins: Sequence[Spin],
    *,
    beam_energy: float,
    meson: FloatArray | None = None,
) -> FloatArray:
    """Return the density of lepton angles over that of isotropic decays, shape (s, n).

    Parameters
    ----------
    p, lepton : NDArray, shape (4, n)
        The vector and one of its leptons, px, py, pz, E [GeV].
    mass, m_lepton : float [GeV]
    spins : sequence of Spin
        For vectors whose parent is not known, one row each.
    beam_energy : float [GeV]
    meson : NDArray, shape (n, 4), optional
        The meson that decayed to the vector: it is transverse along its flight in the meson's rest frame in
        every row. nan where there is none.

    Notes
    -----
    1 + cos²θ + (4 m²/M²) sin²θ about that flight is exact for P → γA′ and for an unpolarised V → PA′.
    """
    rows = np.stack([spin.weight(p, mass, lepton, m_lepton, beam_energy) for spin in spins])
    if meson is None:
        return rows
    known = np.flatnonzero(~np.isnan(meson[:, 0]))
    # against the meson's momentum in the vector's rest frame; the sign does not matter
    along = cosine_between(p[:, known], mass, lepton[:, known], meson[known].T)
    lam = float(lambda_theta(TRANSVERSE, mass, m_lepton))
    rows[:, known] = np.where(np.isnan(along), 1.0, (1.0 + lam * along**2) / (1.0 + lam / 3.0))
    return rows


def position_at(
    z: float, vertex: FloatArray, p: FloatArray, charge: int, magnet: Magnet | None
) -> tuple[FloatArray, FloatArray]:
    """Return x and y of tracks at a plane [m], nan for tracks that do not reach it."""
    px, py, pz, _ = p
    reach = (pz > 0) & (vertex[:, 2] < z)
    safe = np.where(reach, pz, np.nan)
    step = (z - vertex[:, 2]) / safe
    x, y = vertex[:, 0] + px * step, vertex[:, 1] + py * step
    if magnet is not None and z > magnet.z:
        bent = vertex[:, 2] < magnet.z
        x += np.where(bent, charge * magnet.kick * (z - magnet.z), 0.0) / safe
    return x, y


def _inside(plane: Plane, x: FloatArray, y: FloatArray) -> BoolArray:
    dx, dy = np.abs(x - plane.x), np.abs(y - plane.y)
    box: BoolArray = (dx < plane.half_x) & (dy < plane.half_y)  # nan is outside
    if np.isfinite(plane.octagon):
        box &= dx + dy < plane.octagon
    if plane.r_min > 0 or np.isfinite(plane.r_max):
        r = np.hypot(dx, dy)
        box &= (r >= plane.r_min) & (r < plane.r_max)
    return box & ~np.isnan(dx)


def seen(vertex: FloatArray, pair: Pair, detector: Detector) -> BoolArray:
    """Return which decays pass the momentum cuts and every plane.

    Parameters
    ----------
    vertex : NDArray, shape (n, 3) [m]
    pair : two arrays, shape (4, n)
        Positive and negative lepton, px, py, pz, E [GeV].

    Returns
    -------
    NDArray of bool, shape (n,)
    """
    cuts = detector.cuts
    squares = [p[0] ** 2 + p[1] ** 2 + p[2] ** 2 for p in pair]
    accepted: BoolArray = np.sqrt(np.minimum(*squares)) >= cuts.min_momentum
    energy = pair[0][3] + pair[1][3]
    accepted &= (energy >= cuts.min_energy_sum) & (energy <= cuts.max_energy_sum)
    index = np.flatnonzero(accepted)  # planes are asked only for pairs that all others let pass
    vertex, pair = vertex[index], (pair[0][:, index], pair[1][:, index])
    for plane in detector.planes:
        x1, y1 = position_at(plane.z, vertex, pair[0], 1, detector.magnet)
        x2, y2 = position_at(plane.z, vertex, pair[1], -1, detector.magnet)
        kept = _inside(plane, x1, y1) & _inside(plane, x2, y2)
        if plane.min_separation > 0:
            kept &= np.hypot(x1 - x2, y1 - y2) > plane.min_separation
        if not kept.all():
            index, vertex, pair = index[kept], vertex[kept], (pair[0][:, kept], pair[1][:, kept])
    accepted = np.zeros(len(accepted), dtype=np.bool_)
    accepted[index] = True
    return accepted
