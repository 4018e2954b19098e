"""The compiled loop that decays dark photons down to visible particles: no rejection, no weights."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gammastar.core.records import FloatArray

__all__ = ["generate"]


@njit(cache=True, error_model="numpy")
def _boost(out: FloatArray, parent: FloatArray, mass: float, k: FloatArray) -> None:
    """Write k (px, py, pz, E), given in the rest frame of the parent, as seen where the parent moves."""
    energy = (parent[3] * k[3] + parent[0] * k[0] + parent[1] * k[1] + parent[2] * k[2]) / mass
    scale = (k[3] + energy) / (parent[3] + mass)
    out[0] = k[0] + parent[0] * scale
    out[1] = k[1] + parent[1] * scale
    out[2] = k[2] + parent[2] * scale
    out[3] = energy


@njit(cache=True, error_model="numpy")
def _around(out: FloatArray, axis: FloatArray, cosine: float, phi: float) -> None:
    """Write the unit vector at an angle to an axis."""
    x, y, z = axis[0], axis[1], axis[2]
    sine = np.sqrt(max(1.0 - cosine * cosine, 0.0))
    u, v = sine * np.cos(phi), sine * np.sin(phi)
    t = np.sqrt(x * x + y * y)
    if t < 1e-12:
        out[0], out[1], out[2] = u, v, cosine * (1.0 if z >= 0 else -1.0)
        return
    out[0] = cosine * x + (u * x * z - v * y) / t
    out[1] = cosine * y + (u * y * z + v * x) / t
    out[2] = cosine * z - u * t


@njit(cache=True, error_model="numpy")
def _cosine(a: float, b: float, rng: Any) -> Any:
    """Draw c from a − b c² (b of either sign) as a mixture, without rejection."""
    u = rng.random()
    if b > 0:
        flat = a - b
        if u * (flat + 2.0 * b / 3.0) < flat:
            return 2.0 * rng.random() - 1.0
        return 2.0 * np.sin(np.arcsin(2.0 * rng.random() - 1.0) / 3.0)
    if u * (a - b / 3.0) < a:
        return 2.0 * rng.random() - 1.0
    return np.cbrt(2.0 * rng.random() - 1.0)


@njit(cache=True, error_model="numpy")
def _three_body(
    parent: FloatArray, mass: float, channel: int, table: Any, rng: Any, work: FloatArray, out: FloatArray
) -> None:
    """Decay one state: out gets the daughter, the particle and the antiparticle, shape (3, 4)."""
    daughter_mass, particle_mass, log_s, cdf, angle, guide = table
    u = rng.random()
    k = guide[channel, int(u * guide.shape[1])]
    while k < cdf.shape[1] - 1 and cdf[channel, k] <= u:
        k += 1
    rise = cdf[channel, k] - cdf[channel, k - 1]
    f = (u - cdf[channel, k - 1]) / rise if rise > 0 else 0.5
    s = np.exp(log_s[channel, k - 1] + f * (log_s[channel, k] - log_s[channel, k - 1]))
    a = angle[channel, k - 1, 0] + f * (angle[channel, k, 0] - angle[channel, k - 1, 0])
    b = angle[channel, k - 1, 1] + f * (angle[channel, k, 1] - angle[channel, k - 1, 1])
    root, light, m = np.sqrt(s), daughter_mass[channel], particle_mass[channel]
    e_pair = (mass * mass + s - light * light) / (2.0 * mass)
    p = np.sqrt(max((mass * mass - (light + root) ** 2) * (mass * mass - (light - root) ** 2), 0.0)) / (
        2.0 * mass
    )
    z = work[0]
    axis, pointing, k4 = work[1], work[2], work[3]
    z[0], z[1], z[2] = 0.0, 0.0, 1.0
    _around(axis, z, 2.0 * rng.random() - 1.0, 2.0 * np.pi * rng.random())
    for c in range(3):
        k4[c] = axis[c] * p
    k4[3] = mass - e_pair
    _boost(out[0], parent, mass, k4)
    _around(pointing, axis, _cosine(a, b, rng), 2.0 * np.pi * rng.random())
    momentum = np.sqrt(max(0.25 * s - m * m, 0.0))
    along = momentum * (pointing[0] * axis[0] + pointing[1] * axis[1] + pointing[2] * axis[2])
    for sign in (1, -1):  # from the rest frame of the pair, which flies against ψ_i
        moved = (e_pair * sign * along - p * 0.5 * root) / root
        for c in range(3):
            k4[c] = sign * momentum * pointing[c] + (moved - sign * along) * axis[c]
        k4[3] = (e_pair * 0.5 * root - p * sign * along) / root
        _boost(out[1 if sign > 0 else 2], parent, mass, k4)


@njit(cache=True, error_model="numpy")
def _pair(
    event: FloatArray, mediator: float, m_i: float, m_j: float, cosine: float, rng: Any, work: FloatArray
) -> None:
    """Decay the dark photon: work[4] and work[5] get the two dark states in the production frame."""
    axis, pointing, k4 = work[1], work[2], work[3]
    p = np.sqrt(event[0] ** 2 + event[1] ** 2 + event[2] ** 2)
    axis[0], axis[1], axis[2] = 0.0, 0.0, 1.0
    if p > 0:
        axis[0], axis[1], axis[2] = event[0] / p, event[1] / p, event[2] / p
    _around(pointing, axis, cosine, 2.0 * np.pi * rng.random())
    m2 = mediator * mediator
    e_i = (m2 + m_i * m_i - m_j * m_j) / (2.0 * mediator)
    star = np.sqrt(max(e_i * e_i - m_i * m_i, 0.0))
    for c in range(3):
        k4[c] = star * pointing[c]
    k4[3] = e_i
    _boost(work[4], event, mediator, k4)
    for c in range(3):
        k4[c] = -k4[c]
    k4[3] = mediator - e_i
    _boost(work[5], event, mediator, k4)


@njit(cache=True, error_model="numpy")
def generate(
    production: FloatArray,
    boost: tuple[float, float],
    primary: Any,
    states: Any,
    table: Any,
    polarised: bool,
    rng: Any,
    out: Any,
) -> None:
    """Decay every dark photon through its cascade.

    Parameters
    ----------
    production : NDArray, shape (n, 4)
        Dark photons (px, py, pz, E) where their polarisation is defined [GeV].
    boost : tuple of float
        γ and βγ along z from there to the laboratory.
    primary : tuple
        Mass of the dark photon, pairs, cumulative branching ratios, angular coefficients.
    states : tuple
        Masses, first channel of each state, daughters, cumulative branching ratios per state.
    table : tuple
        Daughter mass, particle mass, ln s, cumulative distribution, angular coefficients and a guide into
        the distribution (first point above i/n), per channel.
    polarised : bool
        Transverse dark photon; otherwise isotropic.
    rng : numpy.random.Generator
    out : tuple
        Arrays that are filled: parent, daughter, particle, antiparticle (n, slots, 4), state, channel, source
        (n, slots).
    """
    mediator, pairs, pair_cdf, pair_angle = primary
    masses, first, daughters, channel_cdf = states
    parents, kept, particles, antiparticles, state_of, channel_of, source_of = out
    work, decay = np.empty((6, 4)), np.empty((3, 4))
    slots = state_of.shape[1]
    pending = np.empty((slots + 2, 4))
    pending_state, pending_source = np.empty(slots + 2), np.empty(slots + 2)
    gamma, beta_gamma = boost
    for event in range(len(production)):
        k = np.searchsorted(pair_cdf, rng.random(), side="right")
        i, j = pairs[k, 0], pairs[k, 1]
        cosine = 2.0 * rng.random() - 1.0
        if polarised:
            cosine = _cosine(pair_angle[k, 0], -pair_angle[k, 1], rng)
        _pair(production[event], mediator, masses[i], masses[j], cosine, rng, work)
        for side in range(2):
            primary_psi = work[4 + side]
            pending[side] = primary_psi
            pending[side, 2] = gamma * primary_psi[2] + beta_gamma * primary_psi[3]
            pending[side, 3] = gamma * primary_psi[3] + beta_gamma * primary_psi[2]
            pending_state[side], pending_source[side] = (i if side == 0 else j), -1
        top, slot = 2, 0
        while top > 0:
            top -= 1
            state, source = int(pending_state[top]), int(pending_source[top])
            begin, end = first[state], first[state + 1]
            if begin == end:
                continue
            channel = begin + np.searchsorted(channel_cdf[begin:end], rng.random(), side="right")
            channel = min(channel, end - 1)
            parents[event, slot] = pending[top]
            _three_body(pending[top], masses[state], channel, table, rng, work, decay)
            kept[event, slot], particles[event, slot] = decay[0], decay[1]
            antiparticles[event, slot] = decay[2]
            state_of[event, slot], channel_of[event, slot] = state, channel
            source_of[event, slot] = source
            if daughters[channel] >= 0:
                pending[top] = decay[0]
                pending_state[top], pending_source[top] = daughters[channel], slot
                top += 1
            slot += 1
