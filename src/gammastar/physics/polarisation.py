"""Two-body decays, vertices of tracks, and the angles of pairs that spin states of their parent give.

Axes in the rest frame of the vector, frame "laboratory": z along its flight in the laboratory, y along flight
times beam, x = y × z, in the production plane on the side of the beam. Four-momenta are px, py, pz, E [GeV],
shape (4, n), in the laboratory, with the beam along z; lengths in metres.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, TypeAlias, get_args

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, divided


def momentum_in_rest_frame(parent_mass: npt.ArrayLike, m1: npt.ArrayLike, m2: npt.ArrayLike) -> FloatArray:
    """Return the momentum of either daughter in the rest frame of the parent [GeV]."""
    parent, a, b = (np.asarray(x, dtype=np.float64) for x in (parent_mass, m1, m2))
    total = a + b
    if bool(np.any(parent < total * (1.0 - 1e-9))):
        gap = np.broadcast_to(parent - total, np.broadcast_shapes(parent.shape, total.shape)).ravel()
        worst = int(np.argmin(gap))
        why = f"the parent is lighter than its daughters by {-gap[worst]:.6g} GeV"
        raise PhysicsError(f"two-body decay {worst}: {why}; draw masses inside the phase space")
    square = (parent**2 - total**2) * (parent**2 - (a - b) ** 2)
    return np.asarray(np.sqrt(np.clip(square, 0.0, None)) / (2.0 * parent), dtype=np.float64)


def daughter(
    parent: FloatArray,
    parent_mass: npt.ArrayLike,
    m1: npt.ArrayLike,
    m2: npt.ArrayLike,
    cos_theta: npt.ArrayLike,
    phi: npt.ArrayLike,
) -> FloatArray:
    """Return the four-momentum of the first daughter; the second is parent − first."""
    px, py, pz, energy = parent
    mass, cosine = np.asarray(parent_mass, dtype=np.float64), np.asarray(cos_theta, dtype=np.float64)
    p_star = momentum_in_rest_frame(mass, m1, m2)
    e_star = np.sqrt(p_star**2 + np.square(m1))
    along, across = p_star * cosine, p_star * np.sqrt(np.maximum(1.0 - cosine**2, 0.0))
    square = px**2 + py**2
    pt, p = np.sqrt(square), np.sqrt(square + pz**2)
    (cos_t, sin_t), (cos_p, sin_p) = _direction(pz, pt, p), _direction(px, py, pt)
    longitudinal = (energy * along + p * e_star) / mass
    x, y = across * np.cos(phi), across * np.sin(phi)
    radial = cos_t * x + sin_t * longitudinal
    momentum = np.empty(np.broadcast_shapes(parent.shape, (4, *radial.shape)))
    momentum[0] = cos_p * radial - sin_p * y
    momentum[1] = sin_p * radial + cos_p * y
    momentum[2] = cos_t * longitudinal - sin_t * x
    momentum[3] = (energy * e_star + p * along) / mass
    return momentum


def _direction(x: FloatArray, y: FloatArray, size: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return cosine and sine of the angle of (x, y) of a known size; those of zero where it vanishes."""
    if size.all():
        inverse = 1.0 / size
        return x * inverse, y * inverse
    inverse = 1.0 / np.where(size > 0, size, 1.0)
    return np.where(size > 0, x * inverse, 1.0), y * inverse


def lorentz(p: FloatArray, frame: FloatArray, frame_mass: FloatArray) -> FloatArray:
    """Return four-momenta, shape (4, n), from the rest frame of `frame` in the frame where that moves."""
    along = frame[0] * p[0] + frame[1] * p[1] + frame[2] * p[2]
    factor = along / (frame_mass * (frame[3] + frame_mass)) + p[3] / frame_mass
    return np.concatenate([p[:3] + frame[:3] * factor, [(frame[3] * p[3] + along) / frame_mass]])


def daughter_about(
    parent: FloatArray,
    parent_mass: FloatArray,
    m_daughter: float,
    about: FloatArray,
    cos_theta: FloatArray,
    phi: FloatArray,
) -> FloatArray:
    """Return one of two equal daughters, whose angles are about the momentum of a third particle."""
    back = parent * np.array([[-1.0], [-1.0], [-1.0], [1.0]])
    z = lorentz(about, back, parent_mass)[:3]
    z = z / np.linalg.norm(z, axis=0)
    flat = np.eye(3)[np.abs(z).argmin(axis=0)].T  # the coordinate axis that is least along z
    x = np.cross(flat, z, axis=0)
    x = x / np.linalg.norm(x, axis=0)
    y = np.cross(z, x, axis=0)
    across = np.sqrt(np.clip(1.0 - cos_theta**2, 0.0, None))
    direction = x * (across * np.cos(phi)) + y * (across * np.sin(phi)) + z * cos_theta
    p = momentum_in_rest_frame(parent_mass, m_daughter, m_daughter)
    rest = np.concatenate([direction * p, [np.hypot(p, m_daughter)]])
    return lorentz(rest, parent, parent_mass)


def lepton_cosine(q2: npt.ArrayLike, m_lepton: float, uniform: npt.ArrayLike) -> FloatArray:
    """Return cos θ of the lepton in the frame of a transverse virtual photon, by inversion.

    dN/dcos θ ∝ 1 + cos²θ + (4 mₗ²/q²)(1 − cos²θ) with respect to the photon's flight in the rest frame of
    its parent; exact for P → γγ* and unpolarised ω → π⁰γ*. The cumulative distribution A c + B c³ is
    inverted with Cardano's formula (one real root, as A > 0 and B ≥ 0).
    """
    ratio = np.minimum(4.0 * m_lepton**2 / np.asarray(q2, dtype=np.float64), 1.0)
    a = 1.0 + ratio
    b = np.maximum((1.0 - ratio) / 3.0, 1e-9)  # keeps the closed form finite at threshold
    target = (2.0 * np.asarray(uniform, dtype=np.float64) - 1.0) * (a + b)
    root = np.sqrt(a / (3.0 * b))
    cosine = 2.0 * root * np.sinh(np.arcsinh(1.5 * target / (a * root)) / 3.0)
    return np.asarray(np.clip(cosine, -1.0, 1.0), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Vertices:
    """Vertices of pairs of straight tracks."""

    # Midpoint of the shortest segment between the two lines; nan for parallel tracks, shape (n, 3) [m]
    position: FloatArray
    distance: FloatArray  # Length of that segment, shape (n,) [m]


def _points(name: str, array: npt.ArrayLike) -> FloatArray:
    values = np.asarray(array, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != 3:
        raise PhysicsError(f"vertex: {name} has shape {values.shape}, expected (n, 3)")
    return values


def two_track_vertex(
    point1: npt.ArrayLike, direction1: npt.ArrayLike, point2: npt.ArrayLike, direction2: npt.ArrayLike
) -> Vertices:
    """Return the points of closest approach of two lines each."""
    a, b = _points("point1", point1), _points("point2", point2)
    u, v = _points("direction1", direction1), _points("direction2", direction2)
    u, v = (w / np.linalg.norm(w, axis=1, keepdims=True) for w in (u, v))
    between = a - b
    cosine = np.sum(u * v, axis=1)
    # 1 − cos² loses the small opening angles of a dump: the sine comes from the cross product
    sine2 = np.sum(np.cross(u, v) ** 2, axis=1)
    along1, along2 = np.sum(u * between, axis=1), np.sum(v * between, axis=1)
    safe = np.where(sine2 > 0, sine2, np.nan)
    t1 = (cosine * along2 - along1) / safe
    t2 = (along2 - cosine * along1) / safe
    first, second = a + t1[:, None] * u, b + t2[:, None] * v
    return Vertices(0.5 * (first + second), np.linalg.norm(first - second, axis=1))


Frame: TypeAlias = Literal["laboratory", "helicity", "collins_soper"]
FRAMES: tuple[Frame, ...] = get_args(Frame)
UNPOLARISED, TRANSVERSE = 1.0 / 3.0, 0.0
COEFFICIENTS = ("λθ", "λφ", "λθφ")
_PARALLEL = 1e-3  # rad between beam and target in the frame of a vector, below which no bisector is formed


"""Longitudinal shares: the average over spins; the photon of a Dalitz decay in its parent's rest frame."""


class Spin(Protocol):
    """The spin of vectors, as far as the angles of their two fermions go."""

    def weight(
        self, photon: FloatArray, mass: float, fermion: FloatArray, m_fermion: float, beam_energy: float
    ) -> FloatArray:
        """Return the angular density of a decay over that of isotropic ones, shape (n,)."""


@dataclass(frozen=True, slots=True)
class SpinState:
    """Share of helicity zero along a named axis; the rest is shared by both transverse helicities."""

    longitudinal: float = UNPOLARISED  # 1/3 is unpolarised, whatever the axis
    # The axis: the flight in the laboratory; the flight in the nucleon-nucleon system; the bisector of beam
    # and reversed target direction
    frame: Frame = "laboratory"

    def __post_init__(self) -> None:
        if not 0 <= self.longitudinal <= 1 or self.frame not in FRAMES:
            share = f"longitudinal = {self.longitudinal!r} must lie between 0 and 1"
            frames = f"frame = {self.frame!r} be one of {', '.join(FRAMES)}"
            raise PhysicsError(f"spin state: {share}, and {frames}")

    def weight(
        self, photon: FloatArray, mass: float, fermion: FloatArray, m_fermion: float, beam_energy: float
    ) -> FloatArray:
        """Return the angular density over that of isotropic decays, (1 + λ cos²θ)/(1 + λ/3), shape (n,)."""
        lam = float(lambda_theta(self.longitudinal, mass, m_fermion))
        if abs(lam) < 1e-12:
            return np.ones(photon.shape[1])
        along = axis_cosine(photon, mass, fermion, self.frame, beam_energy)
        return np.asarray((1.0 + lam * along**2) / (1.0 + lam / 3.0))


NO_SPIN = SpinState()
"""The average over spins."""


def cosine_between(photon: FloatArray, mass: float, first: FloatArray, second: FloatArray) -> FloatArray:
    """Return the cosine of the angle between two momenta in the rest frame of a vector, shape (n,).

    From invariants: E* = p·q/m, and first·second = E₁*E₂* − |p₁*||p₂*| cos θ. nan where one of them is at
    rest.
    """
    one, two = (_product(photon, q) / mass for q in (first, second))
    sizes = [np.sqrt(np.clip(e**2 - _product(q, q), 0.0, None)) for e, q in ((one, first), (two, second))]
    size = sizes[0] * sizes[1]
    nowhere = np.full_like(size, np.nan)
    angle = np.divide(one * two - _product(first, second), size, out=nowhere, where=size > 0)
    return np.asarray(np.clip(angle, -1.0, 1.0), dtype=np.float64)


def axis_cosine(
    photon: FloatArray, mass: float, fermion: FloatArray, frame: Frame, beam_energy: float
) -> FloatArray:
    """Return cos θ of a fermion about the axis of a frame, in the rest frame of its vector, shape (n,)."""
    momentum = float(np.sqrt(beam_energy**2 - M_PROTON**2))
    n = photon.shape[1]
    beam = np.broadcast_to(np.array([[0.0], [0.0], [momentum], [beam_energy]]), (4, n))
    target = np.broadcast_to(np.array([[0.0], [0.0], [0.0], [M_PROTON]]), (4, n))
    if frame == "collins_soper":  # unit vectors along the beam and against the target
        one, two = (cosine_between(photon, mass, fermion, q) for q in (beam, target))
        apart = np.sqrt(2.0 - 2.0 * cosine_between(photon, mass, beam, target))
        # a vector faster than the beam, along it, sees both from one side: no bisector, the flight instead
        axis = np.divide(one - two, apart, out=one.copy(), where=apart > _PARALLEL)
        return np.asarray(np.clip(axis, -1.0, 1.0))
    back = target if frame == "laboratory" else beam + target  # flies against the vector's own flight there
    return -cosine_between(photon, mass, fermion, back)


def _product(p: FloatArray, q: FloatArray) -> FloatArray:
    return np.asarray(p[3] * q[3] - (p[0] * q[0] + p[1] * q[1] + p[2] * q[2]), dtype=np.float64)


def lambda_theta(longitudinal: npt.ArrayLike, mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return λ of dN/dcos θ ∝ 1 + λ cos²θ for a vector with a given longitudinal fraction.

    Transverse: 1 + cos²θ + r sin²θ; longitudinal: 2 (sin²θ + r cos²θ), r = 4 m_f²/m². Both integrate to the
    same, so λ = (1 − r)(1 − 3f)/[(1 + r) + f (1 − r)].
    """
    f, m = np.asarray(longitudinal, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    if not ((f >= 0) & (f <= 1)).all():
        raise PhysicsError(f"longitudinal fraction {f.min():g} to {f.max():g} must lie between 0 and 1")
    _check_threshold(m, m_fermion)
    r = np.square(2 * m_fermion / m)
    return np.asarray((1 - r) * (1 - 3 * f) / ((1 + r) + f * (1 - r)), dtype=np.float64)


def longitudinal_fraction(lambda_: npt.ArrayLike, mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return the longitudinal fraction of a measured λ; `lambda_theta` makes λ of other fermions of it."""
    value, m = np.asarray(lambda_, dtype=np.float64), np.asarray(mass, dtype=np.float64)
    _check_threshold(m, m_fermion)
    r = np.square(2 * m_fermion / m)
    f = (1 - r - value * (1 + r)) / ((1 - r) * (3 + value))
    if not ((f >= -1e-9) & (f <= 1 + 1e-9)).all():
        raise PhysicsError(
            f"λ = {value.min():g} to {value.max():g} cannot come from a vector of this mass: "
            f"allowed are {float(np.max(r - 1)):g} to {float(np.min((1 - r) / (1 + r))):g}"
        )
    return np.asarray(np.clip(f, 0.0, 1.0), dtype=np.float64)


def cosine(lambda_: npt.ArrayLike, uniform: npt.ArrayLike) -> FloatArray:
    """Return cos θ of dN/dcos θ ∝ 1 + λ cos²θ by inversion.

    The root of c + λ c³/3 = (2u − 1)(1 + λ/3) inside −1 to 1: hyperbolic for λ > 0, trigonometric for λ < 0.
    """
    lam, u = np.broadcast_arrays(np.asarray(lambda_, dtype=np.float64), np.asarray(uniform, dtype=np.float64))
    if not (np.abs(lam) <= 1 + 1e-12).all():
        raise PhysicsError(f"λ = {lam.min():g} to {lam.max():g} must lie between -1 and 1")
    target = (2 * u - 1) * (1 + lam / 3)
    size = np.maximum(np.abs(lam), 1e-9)
    scale = 2 / np.sqrt(size)
    argument = 1.5 * target * np.sqrt(size)
    positive = scale * np.sinh(np.arcsinh(argument) / 3)
    negative = scale * np.sin(np.arcsin(np.clip(argument, -1.0, 1.0)) / 3)
    return np.asarray(np.clip(np.where(lam >= 0, positive, negative), -1.0, 1.0), dtype=np.float64)


def _check_threshold(mass: FloatArray, m_fermion: float) -> None:
    if not (mass > 2 * m_fermion).all():
        raise PhysicsError(f"mass {mass.min():g} GeV is not above the threshold {2 * m_fermion:g} GeV")


def azimuth(vector: FloatArray, fermion: FloatArray) -> FloatArray:
    """Return φ of a fermion about the flight of its vector, from the production plane, shape (n,) [rad].

    x and y stand across the flight, so that a boost along it leaves the components of a momentum there as
    they are: φ = atan2(p·y, p·x) in the laboratory. 0 for a vector along the beam, which has no such plane.
    """
    (x, y, z), (a, b, c) = vector[:3], fermion[:3]
    square = x**2 + y**2
    across = (a * y - b * x) * np.sqrt(square + z**2)
    return np.asarray(np.where(square > 0, np.arctan2(across, c * square - z * (a * x + b * y)), 0.0))


def harmonics(cos_theta: npt.ArrayLike, phi: npt.ArrayLike) -> FloatArray:
    """Return cos²θ − 1/3, sin²θ cos 2φ and sin 2θ cos φ, shape (3, n), of mean zero over isotropic decays."""
    c, f = np.asarray(cos_theta, dtype=np.float64), np.asarray(phi, dtype=np.float64)
    square = np.clip(1.0 - c**2, 0.0, None)
    return np.stack([c**2 - 1.0 / 3.0, square * np.cos(2 * f), 2 * c * np.sqrt(square) * np.cos(f)])


def mass_factor(mass: npt.ArrayLike, m_fermion: float) -> FloatArray:
    """Return by how much the anisotropy of a decay is smaller than that of massless fermions.

    2(1 − r)/(2 + r), r = 4 m_f²/m²; 0 at and below threshold. The sum of the current over the fermions' spins
    is ∝ δ_ij − (1 − r) n_i n_j in the rest frame: a vector with density matrix ρ (of trace one) decays as
    1 − (1 − r) nρn, whose mean is (2 + r)/3.
    """
    r = np.square(2 * m_fermion / np.asarray(mass, dtype=np.float64))
    return np.asarray(np.clip(2 * (1 - r) / (2 + r), 0.0, None), dtype=np.float64)


def lambdas_of(moments: npt.ArrayLike) -> FloatArray:
    """Return λθ, λφ, λθφ of a density 1 + Σ a_k g_k, g of `harmonics`, shape (3,).

    λ_k = a_k/(1 − a₁/3): the same density as 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ over its mean.
    """
    a = np.asarray(moments, dtype=np.float64)
    return np.asarray(a / (1.0 - a[0] / 3.0), dtype=np.float64)


def moments_of(lambdas: npt.ArrayLike) -> FloatArray:
    """Return a_k of 1 + Σ a_k g_k from λθ, λφ, λθφ, shape (3,); the inverse of `lambdas_of`."""
    found = np.asarray(lambdas, dtype=np.float64)
    return np.asarray(found / (1.0 + found[0] / 3.0), dtype=np.float64)


def physical(moments: npt.ArrayLike) -> FloatArray:
    """Return the moments, for massless fermions, of the nearest spin density that can be, shape (3,).

    ρ = 1/3 − (2/3) Q with nQn = Σ a_k g_k must have no negative eigenvalue; if it has, its eigenvalues are
    moved to the nearest ones that are not negative and of sum one.
    """
    a, b, c = np.asarray(moments, dtype=np.float64)
    form = np.array([[b - a / 3, 0.0, c], [0.0, -b - a / 3, 0.0], [c, 0.0, 2 * a / 3]])
    values, vectors = np.linalg.eigh(np.eye(3) / 3 - 2 / 3 * form)
    if values[0] >= 0:
        return np.array([a, b, c])
    falling = values[::-1]
    shift = (np.cumsum(falling) - 1) / np.arange(1, 4)
    values = np.clip(values - shift[np.flatnonzero(falling > shift)[-1]], 0.0, None)
    form = 1.5 * (np.eye(3) / 3 - (vectors * values) @ vectors.T)
    return np.array([1.5 * form[2, 2], 0.5 * (form[0, 0] - form[1, 1]), form[0, 2]])


@dataclass(frozen=True, slots=True, eq=False)
class SpinDensities:
    """Spin densities of virtual photons in regions of mass, about the axes of the frame "laboratory"."""

    edges: FloatArray  # Of the regions. Masses beside them follow the nearest region, shape (n + 1,) [GeV]
    moments: FloatArray  # a_k of 1 + Σ a_k g_k with g of `harmonics`, for massless fermions, shape (n, 3)
    cov: FloatArray  # Their covariance; regions are independent, shape (n, 3, 3)
    pairs: FloatArray  # Subtracted number of pairs behind each region, shape (n,)

    def __post_init__(self) -> None:
        n = len(self.pairs)
        shapes = {"edges": (n + 1,), "moments": (n, 3), "cov": (n, 3, 3), "pairs": (n,)}
        for name, shape in shapes.items():
            found = np.asarray(getattr(self, name))
            if found.shape != shape or not np.isfinite(found).all() or not n:
                raise PhysicsError(
                    f"SpinDensities.{name}: {found.shape} must be {shape} finite numbers, one or more regions"
                )
        if not (np.diff(self.edges) > 0).all():
            raise PhysicsError(f"SpinDensities.edges = {np.asarray(self.edges).tolist()} must increase")

    @classmethod
    def of(cls, arrays: Mapping[str, Any]) -> SpinDensities:
        """Return the densities of a record, as `arrays` gives them."""
        keys = ("edges", "moments", "cov", "pairs")
        return cls(*(np.asarray(arrays[key], dtype=np.float64) for key in keys))

    @classmethod
    def known(cls, lambdas: npt.ArrayLike) -> SpinDensities:
        """Return one density for all masses, without error, from λθ, λφ, λθφ of massless fermions."""
        edges = np.array([0.0, np.finfo(float).max])
        return cls(edges, moments_of(lambdas)[np.newaxis], np.zeros((1, 3, 3)), np.zeros(1))

    def arrays(self) -> dict[str, FloatArray]:
        """Return what a record keeps."""
        return {key: np.asarray(getattr(self, key)) for key in ("edges", "moments", "cov", "pairs")}

    def coefficients(self, m_fermion: float) -> tuple[FloatArray, FloatArray]:
        """Return λθ, λφ, λθφ of fermions of a mass in the middle of each region, and their errors, (n, 3)."""
        scale = mass_factor(0.5 * (self.edges[1:] + self.edges[:-1]), m_fermion)
        seen = self.moments * scale[:, np.newaxis]
        below = 1.0 - seen[:, :1] / 3.0
        slope = np.eye(3) / below[:, :, np.newaxis]
        slope[:, :, 0] += seen / (3.0 * below**2)
        cov = slope @ (self.cov * scale[:, np.newaxis, np.newaxis] ** 2) @ slope.transpose(0, 2, 1)
        return seen / below, np.sqrt(np.clip(np.einsum("nii->ni", cov), 0.0, None))

    def weight(
        self,
        photon: FloatArray,
        mass: npt.ArrayLike,
        fermion: FloatArray,
        m_fermion: float,
        beam_energy: float,  # noqa: ARG002 - the axes need the direction of the beam alone
    ) -> FloatArray:
        """Return 1 + 2(1 − r)/(2 + r) Σ a_k g_k, of mean one, of the nearest `physical` moments, (n,)."""
        m = np.broadcast_to(np.asarray(mass, dtype=np.float64), photon.shape[1:])
        own = np.stack([physical(row) for row in self.moments])
        region = np.clip(np.searchsorted(self.edges, m, "right") - 1, 0, len(own) - 1)
        square = np.sum(photon[:3] ** 2, axis=0)
        size = np.sqrt(np.clip(0.25 * m**2 - m_fermion**2, 0.0, None)) * np.sqrt(square)
        above = m * fermion[3] - 0.5 * m * photon[3]  # E = (E_γ + 2 |P| p* cos θ/m)/2
        cosine = np.clip(divided(above, size), -1.0, 1.0)
        seen = np.einsum("nk,kn->n", own[region], harmonics(cosine, azimuth(photon, fermion)))
        return np.asarray(np.clip(1.0 + mass_factor(m, m_fermion) * seen, 0.0, None))

    def shifted(self) -> tuple[SpinDensities, ...]:
        """Return the six densities one σ up and down along each eigenvector of the covariance, everywhere."""
        values, vectors = np.linalg.eigh(self.cov)
        steps = vectors * np.sqrt(np.clip(values, 0.0, None))[:, np.newaxis, :]
        moved = (self.moments + sign * steps[:, :, k] for k in range(3) for sign in (1.0, -1.0))
        return tuple(replace(self, moments=moments) for moments in moved)
