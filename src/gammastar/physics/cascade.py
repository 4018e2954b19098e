"""Cascades A' → ψ_a ψ_b → … → visible pairs in the laboratory, unweighted and without rejection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.cascade_kernel import generate, generate_states
from gammastar.physics.decay_table import DecayTable

__all__ = ["Cascade", "decay", "decay_states"]

GUIDE = 2048

IntArray: TypeAlias = npt.NDArray[np.int64]
Slots: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, IntArray, IntArray, IntArray]


@dataclass(frozen=True, slots=True, eq=False)
class Cascade:
    """Decays of dark states, a fixed number of slots per event (px, py, pz, E in GeV, laboratory).

    Attributes
    ----------
    parent, daughter, particle, antiparticle : NDArray, shape (n, slots, 4)
        The decaying state, what stays dark, and the visible pair; empty slots hold zeros.
    state, channel : NDArray of int, shape (n, slots)
        Decaying state and its channel in the table; −1 in empty slots.
    source : NDArray of int, shape (n, slots)
        Slot whose daughter decays here; −1 if the state comes from the dark photon itself. Sources stand
        before what they feed.
    table : DecayTable
    """

    parent: FloatArray
    daughter: FloatArray
    particle: FloatArray
    antiparticle: FloatArray
    state: IntArray
    channel: IntArray
    source: IntArray
    table: DecayTable

    def __len__(self) -> int:
        return len(self.state)

    @property
    def filled(self) -> npt.NDArray[np.bool_]:
        """True where a decay happened, shape (n, slots)."""
        return np.asarray(self.state >= 0)

    @property
    def kind(self) -> IntArray:
        """0 electrons, 1 muons, 2 hadrons; −1 in empty slots, shape (n, slots)."""
        kind = self.table.kind if self.table.kind.size else np.zeros(1, dtype=np.int64)
        return np.where(self.filled, kind[np.maximum(self.channel, 0)], -1)

    def ctau(self, epsilon: float) -> FloatArray:
        """Return cτ of each decaying state [m], inf in empty slots, shape (n, slots)."""
        return np.where(self.filled, self.table.ctau[np.maximum(self.state, 0)] / epsilon**2, np.inf)

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
    table: DecayTable,
    photons: FloatArray,
    rng: np.random.Generator,
    *,
    boost: float = 0.0,
    polarised: bool = False,
) -> Cascade:
    """Decay dark photons through their cascades.

    Parameters
    ----------
    table : DecayTable
    photons : NDArray, shape (n, 4)
        px, py, pz, E [GeV] in the frame of production; they must have the mass of the table's dark photon.
    rng : numpy.random.Generator
    boost : float
        βγ along z from the frame of production to the laboratory.
    polarised : bool
        True: dark photons are transverse with respect to their flight in the frame of production, as initial
        state radiation and bremsstrahlung make them far above threshold. False: isotropic decay.

    Returns
    -------
    Cascade

    Raises
    ------
    PhysicsError
        If the shape is wrong or a dark photon is off its mass.

    Notes
    -----
    The squared mass of each pair comes from its tabulated cumulative distribution, its angle from the
    mixture a − b cos² = (a − b) + b (1 − cos²); the ψ decay isotropically (their polarisation is not kept).
    """
    p4 = _checked(photons, table.mediator, "dark photons")
    out = _empty(len(p4), table.slots)
    generate(
        p4,
        (float(np.hypot(1.0, boost)), float(boost)),
        (table.mediator, table.pairs, _closed(np.cumsum(table.pair_fraction)), table.pair_angle),
        *_compiled(table),
        polarised,
        rng,
        out,
    )
    return Cascade(*out, table)


def decay_states(table: DecayTable, state: int, momenta: FloatArray, rng: np.random.Generator) -> Cascade:
    """Decay dark states of one kind through their cascades, wherever they come from.

    Parameters
    ----------
    table : DecayTable
    state : int
        Which mass state.
    momenta : NDArray, shape (n, 4)
        px, py, pz, E [GeV] of the decaying states; they must have the mass of the state.
    rng : numpy.random.Generator

    Raises
    ------
    PhysicsError
        If the state does not exist or is stable, the shape is wrong, or a momentum is off the mass.
    """
    if not 0 <= state < len(table.masses) or table.depth[state] == 0:
        msg = f"state {state} of {len(table.masses)}: it does not exist or is stable"
        raise PhysicsError(msg)
    p4 = _checked(momenta, float(table.masses[state]), f"state {state}")
    out = _empty(len(p4), int(table.depth[state]))
    generate_states(p4, state, *_compiled(table), rng, out)
    return Cascade(*out, table)


def _checked(momenta: FloatArray, mass: float, what: str) -> FloatArray:
    p4 = np.ascontiguousarray(momenta, dtype=np.float64)
    if p4.ndim != 2 or p4.shape[1] != 4:
        msg = f"{what} of shape {p4.shape}: (n, 4) with px, py, pz, E expected"
        raise PhysicsError(msg)
    square = p4[:, 0] ** 2 + p4[:, 1] ** 2 + p4[:, 2] ** 2 + mass**2
    if not (np.abs(p4[:, 3] ** 2 - square) <= 2e-6 * square).all():
        msg = f"{what} off their mass of {mass:g} GeV: decay tables belong to one mass"
        raise PhysicsError(msg)
    return p4


def _empty(n: int, slots: int) -> Slots:
    """Return arrays for a cascade, without decays."""
    return (
        *(np.zeros((n, slots, 4)), np.zeros((n, slots, 4)), np.zeros((n, slots, 4)), np.zeros((n, slots, 4))),
        *(np.full((n, slots), -1), np.full((n, slots), -1), np.full((n, slots), -1)),
    )


def _compiled(table: DecayTable) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return states and channels as the compiled loop takes them."""
    owner = np.repeat(np.arange(len(table.masses)), np.diff(table.first))
    running = np.cumsum(table.fraction) if table.fraction.size else np.empty(0)
    spectra = np.stack([table.cdf, np.exp(table.log_s), table.angle[..., 0], table.angle[..., 1]], axis=-1)
    return (
        (table.masses, table.first, table.daughter, running - _before(table.fraction, owner)),
        (table.daughter_mass, table.particle_mass, np.ascontiguousarray(spectra), _guide(table.cdf)),
    )


def _guide(cdf: FloatArray) -> IntArray:
    """Return the first point of each distribution above i/n, from 1 on, shape (channels, n)."""
    steps = np.arange(GUIDE) / GUIDE
    found = [np.searchsorted(row, steps, side="right") for row in cdf]
    return np.array(found, dtype=np.int64).reshape(len(cdf), GUIDE).clip(1, None)


def _closed(cumulative: FloatArray) -> FloatArray:
    """Return a cumulative distribution whose last entry exceeds every uniform number."""
    cumulative[-1] = 2.0
    return cumulative


def _before(fraction: FloatArray, owner: IntArray) -> FloatArray:
    """Return what the states before have summed up to, per channel."""
    totals = np.bincount(owner, weights=fraction, minlength=int(owner.max(initial=-1)) + 1)
    return np.asarray((np.cumsum(totals) - totals)[owner])
