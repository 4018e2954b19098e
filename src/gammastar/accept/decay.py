"""Decays in flight, and what a detector sees of one sample of particles at every lifetime."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from types import EllipsisType
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.interpolate import PchipInterpolator

from gammastar.core.constants import M_E, M_MU
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import BoolArray, FloatArray, Rng, Sample, divided
from gammastar.physics.detector import Detector, Magnet, Plane
from gammastar.physics.polarisation import NO_SPIN, TRANSVERSE, Spin, cosine_between, daughter, lambda_theta

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
    """Return the lifetimes with which any particle comes so far: with others e^(−x) is zero as a float."""
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
    chord: FloatArray, rng: Rng, inverse: FloatArray | None = None
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
        steep = np.maximum(rate[own], _FLAT)
        fraction[own] = -np.log1p(u[own] * np.expm1(-steep)) / steep
    fraction = np.clip(fraction, 0.0, 1.0)
    density = 1.0 + 1.0 / ((fraction + _SHORTEST) * decades)
    for rate in rates:
        steep = np.maximum(rate, _FLAT)
        density += steep * np.exp(-steep * fraction) / -np.expm1(-steep)
    return chord[:, 0] + fraction * length, density / ((len(rates) + 2) * length)


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


def lepton_pair(parent: FloatArray, mass: float, m_lepton: float, rng: Rng) -> Pair:
    """Decay parents px, py, pz, E (4, n) [GeV] into a positive and a negative lepton, isotropically.

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
    """Return which decays pass the momentum cuts and every plane, shape (n,).

    Parameters
    ----------
    vertex : NDArray, shape (n, 3) [m]
    pair : two arrays, shape (4, n)
        Positive and negative lepton, px, py, pz, E [GeV].
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


LEPTONS = {"ee": M_E, "mumu": M_MU}
_BLOCK = 200_000  # elements of one (lifetimes, particles) matrix: it stays in the cache
_TINY = 1e-300


@dataclass(frozen=True, slots=True, eq=False)
class Replicated(Sample):
    """A sample with replicas of its kinematics: the same particles with other weights."""

    replicas: FloatArray  # Factors on the weights, of `gammastar.predict.Channel.replicas`, shape (r, n)

    @classmethod
    def of(cls, sample: Sample, replicas: FloatArray) -> Replicated:
        """Return a sample with replicas of it."""
        kept = {name: getattr(sample, name) for name in ("p4", "weight", "origin", "in_domain", "parent")}
        return cls(**kept, replicas=replicas)

    def __post_init__(self) -> None:
        Sample.__post_init__(self)
        if self.replicas.ndim != 2 or self.replicas.shape[1] != len(self.weight):
            shape, n = self.replicas.shape, len(self.weight)
            raise PhysicsError(f"Replicated: replicas {shape} do not fit {n} particles")


@dataclass(frozen=True, slots=True, eq=False)
class LifetimeScan:
    """Accepted particles per proton on target at unit coupling."""

    ctau: FloatArray  # shape (k,) [m]
    accepted: FloatArray  # Sum over the sample of weight × decay and detection probability, shape (k,)
    in_domain: FloatArray  # Its part from (mass, pt, energy) where lepton pairs were measured, shape (k,)
    mc_error: FloatArray  # Statistical error of `accepted` from the finite sample, shape (k,)
    n_effective: FloatArray  # Effective number of accepted particles (Kish), shape (k,)
    # `accepted` of each replica of the kinematics (r, k), and in each other spin state (s, k): same decays
    replicas: FloatArray | None = None
    spins: FloatArray | None = None

    def at(self, ctau: npt.ArrayLike) -> LifetimeScan:
        """Return the scan at other lifetimes, by monotone interpolation in both logarithms."""
        wanted = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
        if len(self.ctau) < 2 or not (np.diff(self.ctau) > 0).all() or not np.isfinite(self.ctau).all():
            raise PhysicsError("LifetimeScan.at: the scan must hold two or more finite, increasing lifetimes")
        outside = ~((wanted >= self.ctau[0]) & (wanted <= self.ctau[-1]))
        if outside.any():
            low, high = self.ctau[0], self.ctau[-1]
            raise PhysicsError(f"cτ = {wanted[outside][0]:g} m lies outside the scan, {low:g} to {high:g} m")
        x, columns = np.log(self.ctau), {}
        for name in (field.name for field in fields(self) if field.name != "ctau"):
            known: FloatArray | None = getattr(self, name)
            if known is not None:
                y = np.log(np.maximum(known, _TINY))
                value = np.exp(PchipInterpolator(x, y, axis=-1)(np.log(wanted)))
                columns[name] = np.where(value > 2 * _TINY, value, 0.0)
        return LifetimeScan(ctau=wanted, **columns)


@dataclass(frozen=True, slots=True, eq=False)
class Accepted:
    """The particles of a sample that a detector sees, for every lifetime."""

    index: npt.NDArray[np.intp]  # Their places in the sample, shape (n,)
    # Weight × Σ over final states of (state's weight × seen), in the first spin state and in the others,
    # shape (1 + s, n)
    weight: FloatArray
    in_domain: BoolArray  # shape (n,)
    factors: Callable[[FloatArray, slice], FloatArray]  # (cτ (k,), slice) -> decay factors (k, n)
    size: int  # Particles of the sample, rejected ones too

    def scan(self, ctau: FloatArray, replicas: FloatArray | None = None) -> LifetimeScan:
        """Return what is seen at lifetimes (k,) [m]; `replicas` (r, n) are factors on these particles."""
        total, square, inside, *rest = self._sums(ctau, replicas)
        split = [len(self.weight) - 1]
        others, members = (np.array(x).reshape(-1, len(ctau)) for x in np.split(rest, split))
        n = self.size  # rejected particles count as zero in the error of the sum
        variance = np.clip(square - total**2 / n, 0.0, None) * n / max(1, n - 1)
        return LifetimeScan(
            ctau=ctau,
            accepted=total,
            in_domain=inside,
            mc_error=np.sqrt(variance),
            n_effective=divided(total**2, square),
            replicas=None if replicas is None else members,
            spins=others if len(others) else None,
        )

    def _sums(self, ctau: FloatArray, replicas: FloatArray | None) -> FloatArray:
        """Return Σw, Σw², Σw in the domain, then Σw of other spin states and replicas, (3 + s + r, k)."""
        first, others = self.weight[0], self.weight[1:]
        members = np.zeros((0, len(first))) if replicas is None else replicas
        total = np.zeros((3 + len(others) + len(members), len(ctau)))
        step = max(1, _BLOCK // max(1, len(ctau)))
        for start in range(0, len(first), step):
            part = slice(start, start + step)
            factors, weight = self.factors(ctau, part), first[part]
            total[0] += factors @ weight
            total[2] += factors @ (weight * self.in_domain[part])
            total[3:] += np.concatenate([others[:, part], members[:, part] * weight]) @ factors.T
            total[1] += np.square(factors, out=factors) @ weight**2
        return total


def momenta(sample: Sample, mass: float) -> FloatArray:
    """Return px, py, pz, E of a sample, shape (4, n), once it is known to be fit for use."""
    p = sample.four_momenta
    require(p.shape[1] != 0, f"yields: the sample of {mass:g} GeV holds no particle; produce some first")
    for name, values in (("p4", p), ("weight", sample.weight), ("origin", sample.origin)):
        require(np.isfinite(values).all(), f"yields: Sample.{name} holds values that are not finite")
    off_shell = np.abs(p[3] ** 2 - (p[0] ** 2 + p[1] ** 2 + p[2] ** 2) - mass**2)
    if not (off_shell < 1e-3 * mass**2 + 1e-9 * p[3] ** 2).all():
        raise PhysicsError(f"yields: the sample holds particles of another mass than {mass:g} GeV")
    return p


@dataclass(frozen=True, slots=True, eq=False)
class Lines:
    """The particles of a sample whose line meets the decay volume of a detector."""

    index: npt.NDArray[np.intp]  # Their places in the sample, shape (h,)
    p: FloatArray  # shape (4, h) [GeV]
    origin: FloatArray  # shape (h, 3) [m]
    chord: FloatArray  # Path lengths to entry and exit, shape (h, 2) [m]
    momentum: FloatArray  # shape (h,) [GeV]
    mass: float  # [GeV]

    @classmethod
    def of(cls, sample: Sample, mass: float, detector: Detector) -> Lines:
        """Return those of a sample of one mass [GeV]."""
        p = momenta(sample, mass)
        origin = sample.origin + np.asarray(detector.target.position)
        chord = detector.volume.chord(origin, p[:3].T)
        hit = np.flatnonzero(~np.isnan(chord[:, 0]))
        p = p[:, hit]
        return cls(hit, p, origin[hit], chord[hit], np.sqrt(p[0] ** 2 + p[1] ** 2 + p[2] ** 2), mass)


def accepted(
    sample: Sample,
    lines: Lines,
    detector: Detector,
    *,
    states: Mapping[str, float],
    rng: Rng,
    spins: Sequence[Spin] = (NO_SPIN,),
    towards: FloatArray | None = None,
) -> Accepted:
    """Return the particles that a detector sees, each decayed once in its volume."""
    hit, p, origin, chord, momentum = lines.index, lines.p, lines.origin, lines.chord, lines.momentum
    mass = lines.mass
    weight, in_domain, size = sample.weight[hit], sample.in_domain[hit], len(sample.weight)
    if detector.accept_on == "parent":

        def factors(ctau: FloatArray, part: slice) -> FloatArray:
            return decay_probability(chord[part], momentum[part], mass, ctau)

        every = np.ones((len(spins), 1)) * weight * sum(states.values())
        return Accepted(hit, every, in_domain, factors, size)

    inverse = None if towards is None else inverse_decay_length(momentum, mass, towards)
    distance, density = forced_decay(chord, rng, inverse)
    vertex = origin + distance[:, None] * (p[:3] / momentum).T
    meson = None if sample.parent is None else sample.parent[hit]
    visible = np.zeros((len(spins), len(weight)))
    for state, value in states.items():
        if value > 0:
            leptons = lepton_pair(p, mass, LEPTONS[state], rng)
            found = np.flatnonzero(seen(vertex, leptons, detector))
            frame = {"beam_energy": detector.beam_energy, "meson": None if meson is None else meson[found]}
            pair = p[:, found], mass, leptons[0][:, found], LEPTONS[state]
            visible[:, found] += value * angular_weights(*pair, spins, **frame)  # type: ignore[arg-type]
    keep = visible.any(axis=0)
    distance, density, momentum = distance[keep], density[keep], momentum[keep]

    def point_factors(ctau: FloatArray, part: slice) -> FloatArray:
        return decay_weight(distance[part], density[part], momentum[part], mass, ctau)

    return Accepted(hit[keep], (weight * visible)[:, keep], in_domain[keep], point_factors, size)


def lifetime_scan(
    sample: Sample,
    mass: float,
    ctau: npt.ArrayLike,
    detector: Detector,
    *,
    states: Mapping[str, float],
    rng: Rng,
    spins: Sequence[Spin] = (NO_SPIN,),
) -> LifetimeScan:
    """Return the accepted particles for every lifetime from one sample.

    Parameters
    ----------
    sample : Sample
        Particles per proton on target at unit coupling; origins relative to the detector's target. A
        `Replicated` one gives the replicas too.
    mass : float [GeV]
    ctau : array_like, shape (k,) [m]
        inf for a stable particle.
    detector : Detector
        Its protons on target and its beam do not enter here.
    states : mapping of final state to float
        Weight of each final state, e.g. branching ratio × efficiency. On daughters: "ee" and "mumu".
    rng : numpy.random.Generator
        For decay positions and angles, drawn once for all lifetimes.
    spins : sequence of Spin
        The first is that of particles whose parent the sample does not carry; the others are those of
        `LifetimeScan.spins`.

    Raises
    ------
    PhysicsError
        If the sample is empty, of another mass or not finite, a lifetime is not positive, or a state weighs
        less than zero or has no leptons to follow.

    Notes
    -----
    Σ_i w_i Σ_f b_f a_if D_i(cτ). On the parent, a = 1 and D = e^(−a/λ) − e^(−b/λ), Eq. B1 of Allison and
    Blinov (2025) for an open volume. On daughters one decay per particle is placed in the volume
    (`forced_decay`) and D is its `decay_weight`; whether it is seen does not depend on the lifetime, so
    that all lifetimes use the same decays. Where a lifetime leans on few of them, `n_effective` tells.
    """
    lifetimes = np.atleast_1d(np.asarray(ctau, dtype=np.float64))
    allowed = LEPTONS if detector.accept_on == "daughters" else states
    for state, value in states.items():
        if state not in allowed or not (np.isfinite(value) and value >= 0):
            known = f"weights are >= 0, known are {sorted(allowed)}"
            raise PhysicsError(f"final state {state!r} with weight {value!r}: {known}")
    lines = Lines.of(sample, mass, detector)
    found = accepted(sample, lines, detector, states=states, rng=rng, spins=spins)
    return found.scan(lifetimes, sample.replicas[:, found.index] if isinstance(sample, Replicated) else None)
