"""Cascades A' → ψ_a ψ_b → … → visible pairs in the laboratory, unweighted and without rejection.

The loop is compiled. Momenta stay in registers as tuples (px, py, pz, E): views of small arrays would cost
more than the physics.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numba import njit

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng
from gammastar.semivisible.decays import DecayTable

AT_ONCE = 1e-18  # m at ε = 1: stands for no flight at all

Slots: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, IntArray, IntArray, IntArray]
Vector: TypeAlias = tuple[float, float, float, float]


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """Decays of dark states, a fixed number of slots per event (px, py, pz, E in GeV, laboratory)."""

    # The decaying state, what stays dark, and the visible pair; empty slots hold zeros, shape (n, slots, 4)
    parent: FloatArray
    daughter: FloatArray
    particle: FloatArray
    antiparticle: FloatArray
    # Decaying state and its channel in the table; −1 in empty slots, shape (n, slots)
    state: IntArray
    channel: IntArray
    # Slot whose daughter decays here, or what it decayed to at once; −1 if the state comes from the dark
    # photon in this way. Sources stand before what they feed, shape (n, slots)
    source: IntArray
    table: DecayTable

    def __len__(self) -> int:
        return len(self.state)

    @property
    def filled(self) -> BoolArray:
        """True where a decay happened, shape (n, slots)."""
        return np.asarray(self.state >= 0)

    @property
    def kind(self) -> IntArray:
        """0 electrons, 1 muons, 2 hadrons; −1 in empty slots, shape (n, slots)."""
        kind = self.table.kind if self.table.kind.size else np.zeros(1, dtype=np.int64)
        return np.where(self.filled, kind[np.maximum(self.channel, 0)], -1)

    def ctau(self, epsilon: float) -> FloatArray:
        """Return cτ of each decaying state [m], inf in empty slots, shape (n, slots)."""
        length = np.maximum(self.table.ctau, AT_ONCE)[np.maximum(self.state, 0)]
        return np.where(self.filled, length / epsilon**2, np.inf)

    def flight(self, epsilon: float) -> FloatArray:
        """Return the mean decay length βγ cτ in the laboratory [m], inf in empty slots, shape (n, slots)."""
        return np.asarray(self.ctau(epsilon) * np.where(self.filled, np.maximum(self.beta_gamma, 1e-12), 1.0))

    @property
    def beta_gamma(self) -> FloatArray:
        """βγ of each decaying state, zero in empty slots, shape (n, slots)."""
        momentum = np.sqrt((self.parent[..., :3] ** 2).sum(axis=-1))
        mass = np.where(self.filled, self.table.masses[np.maximum(self.state, 0)], 1.0)
        return np.asarray(momentum / mass)


def decay(
    table: DecayTable, photons: FloatArray, rng: Rng, *, boost: float = 0.0, polarised: bool = False
) -> Cascade:
    """Decay dark photons through their cascades.

    The squared mass of each pair comes from its tabulated cumulative distribution, its angle from the
    mixture a − b cos² = (a − b) + b (1 − cos²); the ψ decay isotropically (their polarisation is not kept).
    """
    p4 = _checked(photons, table.mediator, "dark photons")
    out = _empty(len(p4), table.slots)
    pair_fraction = np.cumsum(table.pair_fraction)
    pair_fraction[-1] = 2.0  # above every uniform number
    frame = float(np.hypot(1.0, boost)), float(boost)
    primary = table.mediator, table.pairs, pair_fraction, table.pair_angle, polarised
    generate(p4, frame, primary, *_compiled(table), rng, out)
    return Cascade(*out, table)


def decay_states(table: DecayTable, state: int, momenta: FloatArray, rng: Rng) -> Cascade:
    """Decay dark states of one kind through their cascades, wherever they come from."""
    if not 0 <= state < len(table.masses) or table.depth[state] == 0:
        raise PhysicsError(f"state {state} of {len(table.masses)} does not exist, is stable or decays unseen")
    p4 = _checked(momenta, float(table.masses[state]), f"state {state}")
    out = _empty(len(p4), int(table.depth[state]))
    generate_states(p4, state, *_compiled(table), rng, out)
    return Cascade(*out, table)


def _checked(momenta: FloatArray, mass: float, what: str) -> FloatArray:
    p4 = np.ascontiguousarray(momenta, dtype=np.float64)
    if p4.ndim != 2 or p4.shape[1] != 4:
        raise PhysicsError(f"{what} of shape {p4.shape}: (n, 4) with px, py, pz, E expected")
    square = p4[:, 0] ** 2 + p4[:, 1] ** 2 + p4[:, 2] ** 2 + mass**2
    if not (np.abs(p4[:, 3] ** 2 - square) <= 2e-6 * square).all():
        raise PhysicsError(f"{what} off their mass of {mass:g} GeV: decay tables belong to one mass")
    return p4


def _empty(n: int, slots: int) -> Slots:
    """Return arrays for a cascade, without decays."""
    momenta, indices = np.zeros((4, n, slots, 4)), np.full((3, n, slots), -1)
    return *momenta, *indices


def _compiled(table: DecayTable) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return states and channels as the compiled loop takes them."""
    running = [np.cumsum(table.fraction[a:b]) for a, b in pairwise(table.first)]
    spectra = np.stack([table.cdf, np.exp(table.log_s), table.angle[..., 0], table.angle[..., 1]], axis=1)
    states = table.masses, table.first, table.daughter, np.concatenate(running), table.partner, table.room
    return states, (table.daughter_mass, table.particle_mass, np.ascontiguousarray(spectra))


@njit(cache=True, error_model="numpy", inline="always")
def _boost(parent: Vector, inverse: float, scale: float, k: Vector) -> Any:
    """Return k of the rest frame of a parent of mass 1/inverse where it moves; scale is its 1/(E + m)."""
    energy = (parent[3] * k[3] + parent[0] * k[0] + parent[1] * k[1] + parent[2] * k[2]) * inverse
    f = (k[3] + energy) * scale
    return k[0] + parent[0] * f, k[1] + parent[1] * f, k[2] + parent[2] * f, energy


@njit(cache=True, error_model="numpy", inline="always")
def _cosine(a: float, b: float, rng: Any) -> Any:
    """Draw c from a − b c² (b of either sign) as a mixture, without rejection.

    The median of three uniform numbers has the density of 1 − c², the largest of three that of c².
    """
    u = rng.random()
    if b > 0:
        flat = a - b
        x = 2.0 * rng.random() - 1.0
        if u * (flat + 2.0 * b / 3.0) < flat:
            return x
        y, z = 2.0 * rng.random() - 1.0, 2.0 * rng.random() - 1.0
        return max(min(x, y), min(max(x, y), z))
    if u * (a - b / 3.0) < a:
        return 2.0 * rng.random() - 1.0
    x = max(rng.random(), rng.random(), rng.random())
    return x if rng.random() < 0.5 else -x


@njit(cache=True, error_model="numpy", inline="always")
def _three_body(parent: Vector, mass: float, channel: int, table: Any, rng: Any) -> Any:
    """Decay one state; return the daughter, the particle and the antiparticle."""
    daughter_mass, particle_mass, spectra = table
    u = rng.random()
    cdf, squares, flat, bent = spectra[channel]
    k = min(max(np.searchsorted(cdf, u, side="right"), 1), len(cdf) - 1)
    rise = cdf[k] - cdf[k - 1]
    f = (u - cdf[k - 1]) / rise if rise > 0 else 0.5
    s = squares[k - 1] + f * (squares[k] - squares[k - 1])
    a = flat[k - 1] + f * (flat[k] - flat[k - 1])
    b = bent[k - 1] + f * (bent[k] - bent[k - 1])
    root, light = np.sqrt(s), daughter_mass[channel]
    m_1, m_2 = particle_mass[channel, 0], particle_mass[channel, 1]
    inverse, scale = 1.0 / mass, 1.0 / (parent[3] + mass)
    sum_, difference = light + root, light - root
    p2 = (mass - sum_) * (mass + sum_) * (mass - difference) * (mass + difference)
    p = 0.5 * inverse * np.sqrt(max(p2, 0.0))
    e_pair = 0.5 * inverse * (mass * mass + s - light * light)
    # The daughter flies along `axis` in the rest frame of the parent, the pair against it.
    z = 2.0 * rng.random() - 1.0
    r = np.sqrt((1.0 - z) * (1.0 + z))
    phi = 2.0 * np.pi * rng.random()
    cos_phi, sin_phi = np.cos(phi), np.sin(phi)
    x, y = r * cos_phi, r * sin_phi
    cosine = _cosine(a, b, rng)
    psi = 2.0 * np.pi * rng.random()
    e_1 = 0.5 * (s + (m_1 - m_2) * (m_1 + m_2)) / root
    e_2 = root - e_1
    q = np.sqrt(max((e_1 - m_1) * (e_1 + m_1), 0.0))
    along = q * cosine
    across = q * np.sqrt((1.0 - cosine) * (1.0 + cosine))
    t1, t2 = across * np.cos(psi), across * np.sin(psi)
    tx, ty, tz = t1 * z * cos_phi - t2 * sin_phi, t1 * z * sin_phi + t2 * cos_phi, -t1 * r
    stretch, ratio = e_pair / root, p / root
    moved, energy = stretch * along - ratio * e_1, stretch * e_1 - ratio * along
    back, other = -stretch * along - ratio * e_2, stretch * e_2 + ratio * along
    daughter = _boost(parent, inverse, scale, (x * p, y * p, z * p, mass - e_pair))
    particle = _boost(parent, inverse, scale, (tx + moved * x, ty + moved * y, tz + moved * z, energy))
    antiparticle = _boost(parent, inverse, scale, (back * x - tx, back * y - ty, back * z - tz, other))
    return daughter, particle, antiparticle


@njit(cache=True, error_model="numpy", inline="always")
def _pair(event: Vector, mediator: float, masses: Any, angle: Any, polarised: bool, rng: Any) -> Any:
    """Decay the dark photon; return the two dark states in the production frame."""
    m_i, m_j = masses
    phi = 2.0 * np.pi * rng.random()
    cosine = _cosine(angle[0], -angle[1], rng) if polarised else 2.0 * rng.random() - 1.0
    sine = np.sqrt((1.0 - cosine) * (1.0 + cosine))
    x, y, z = sine * np.cos(phi), sine * np.sin(phi), cosine
    p = np.sqrt(event[0] ** 2 + event[1] ** 2 + event[2] ** 2)
    if polarised and p > 0:  # the angle is one to the flight of the dark photon
        nx, ny, nz = event[0] / p, event[1] / p, event[2] / p
        t = np.sqrt(nx * nx + ny * ny)
        if t > 1e-12:
            rotated = cosine * nx + (x * nx * nz - y * ny) / t, cosine * ny + (x * ny * nz + y * nx) / t
            x, y, z = rotated[0], rotated[1], cosine * nz - x * t
    e_i = (mediator * mediator + m_i * m_i - m_j * m_j) / (2.0 * mediator)
    star = np.sqrt(max(e_i * e_i - m_i * m_i, 0.0))
    inverse, scale = 1.0 / mediator, 1.0 / (event[3] + mediator)
    first = _boost(event, inverse, scale, (star * x, star * y, star * z, e_i))
    second = _boost(event, inverse, scale, (-star * x, -star * y, -star * z, mediator - e_i))
    return first, second


@njit(cache=True, error_model="numpy")
def _chains(event: int, top: int, pending: Any, states: Any, table: Any, rng: Any, out: Any) -> None:
    """Decay all pending states of one event and what they decay to."""
    momenta, pending_state, pending_source = pending
    masses, first, daughters, channel_cdf, partners, _ = states
    parents, kept, particles, antiparticles, state_of, channel_of, source_of = out
    slot = 0
    while top > 0:
        top -= 1
        state, source = pending_state[top], pending_source[top]
        begin, end = first[state], first[state + 1]
        if begin == end:
            continue
        channel = begin
        if end - begin > 1:
            u = rng.random()
            while channel < end - 1 and channel_cdf[channel] <= u:
                channel += 1
        parent = (momenta[top, 0], momenta[top, 1], momenta[top, 2], momenta[top, 3])
        daughter, particle, antiparticle = _three_body(parent, masses[state], channel, table, rng)
        if partners[channel, 0] >= 0:  # at once, and nothing is seen: all three go on from where it was made
            for c in range(4):
                momenta[top, c], momenta[top + 1, c] = particle[c], antiparticle[c]
                momenta[top + 2, c] = daughter[c]
            pending_state[top], pending_source[top] = partners[channel, 0], source
            pending_state[top + 1], pending_source[top + 1] = partners[channel, 1], source
            pending_state[top + 2], pending_source[top + 2] = daughters[channel], source
            top += 3 if daughters[channel] >= 0 else 2
            continue
        for c in range(4):
            parents[event, slot, c], kept[event, slot, c] = parent[c], daughter[c]
            particles[event, slot, c], antiparticles[event, slot, c] = particle[c], antiparticle[c]
        state_of[event, slot], channel_of[event, slot] = state, channel
        source_of[event, slot] = source
        if daughters[channel] >= 0:
            momenta[top] = kept[event, slot]
            pending_state[top], pending_source[top] = daughters[channel], slot
            top += 1
        slot += 1


@njit(cache=True, error_model="numpy")
def generate(
    production: FloatArray,
    boost: tuple[float, float],
    primary: Any,
    states: Any,
    table: Any,
    rng: Any,
    out: Any,
) -> None:
    """Decay every dark photon through its cascade."""
    mediator, pairs, pair_cdf, pair_angle, polarised = primary
    masses = states[0]
    room = states[5]
    momenta = np.empty((room, 4))
    pending = (momenta, np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64))
    gamma, beta_gamma = boost
    for event in range(len(production)):
        k = 0
        if len(pair_cdf) > 1:
            u = rng.random()
            while pair_cdf[k] <= u:
                k += 1
        i, j = pairs[k, 0], pairs[k, 1]
        photon = (production[event, 0], production[event, 1], production[event, 2], production[event, 3])
        angle = (pair_angle[k, 0], pair_angle[k, 1])
        two = _pair(photon, mediator, (masses[i], masses[j]), angle, polarised, rng)
        for side in range(2):
            psi = two[side]
            momenta[side, 0], momenta[side, 1] = psi[0], psi[1]
            momenta[side, 2] = gamma * psi[2] + beta_gamma * psi[3]
            momenta[side, 3] = gamma * psi[3] + beta_gamma * psi[2]
            pending[1][side], pending[2][side] = (i if side == 0 else j), -1
        _chains(event, 2, pending, states, table, rng, out)


@njit(cache=True, error_model="numpy")
def generate_states(production: FloatArray, state: int, states: Any, table: Any, rng: Any, out: Any) -> None:
    """Decay given dark states, all of one kind, through their cascades; arguments as in `generate`."""
    room = states[5]
    momenta = np.empty((room, 4))
    pending = (momenta, np.empty(room, dtype=np.int64), np.empty(room, dtype=np.int64))
    for event in range(len(production)):
        momenta[0] = production[event]
        pending[1][0], pending[2][0] = state, -1
        _chains(event, 1, pending, states, table, rng, out)
