"""All decays of a dark sector as arrays: branching ratios, lifetimes, tables to draw spectra from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import CTAU_PER_GEV
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.dark_sector import DarkSector, mediator_widths
from gammastar.physics.three_body import Pair, Transition, angular, spectrum, width
from gammastar.physics.widths import RTable

__all__ = ["DecayTable", "NeutrinoMixing", "decay_table"]

IntArray: TypeAlias = npt.NDArray[np.int64]

POINTS = 1024
PAIRS: tuple[Pair, ...] = ("e", "mu", "hadrons")


@dataclass(frozen=True, slots=True)
class NeutrinoMixing:
    """Mixing of a dark fermion with light neutrinos: ψ → ν f f̄ through the dark photon.

    Attributes
    ----------
    state : int
        Which mass state.
    squared : float
        |V|² of the vertex ν̄ γ ψ in units of g_D.
    nature : {"majorana", "dirac"}
        A Majorana fermion decays twice as fast.
    """

    state: int
    squared: float
    nature: Literal["majorana", "dirac"] = "majorana"

    @property
    def strength(self) -> float:
        """G of the vertex; D drops out for a massless neutrino."""
        return self.squared * (1.0 if self.nature == "majorana" else 0.5)


@dataclass(frozen=True, slots=True, eq=False)
class DecayTable:
    """Everything that the generator of cascades needs, as arrays.

    Attributes
    ----------
    mediator : float
        Mass of the dark photon [GeV].
    masses : NDArray, shape (n,)
    pairs, pair_fraction : NDArray, shapes (p, 2) and (p,)
        Decays of the dark photon and their branching ratios inside the dark sector.
    pair_angle : NDArray, shape (p, 2)
        a and b of a + b cos² for a transverse dark photon.
    dark_width : float
        Width of the dark photon into the dark sector [GeV].
    ctau : NDArray, shape (n,)
        Proper decay lengths at ε = 1 [m], inf if stable; they scale as 1/ε².
    first : NDArray of int, shape (n + 1,)
        Channels of state j are first[j] … first[j + 1].
    daughter : NDArray of int, shape (c,)
        State of the daughter, −1 for a neutrino.
    daughter_mass, particle_mass, fraction : NDArray, shape (c,)
        Masses of the daughter and of each visible particle [GeV]; branching ratio.
    kind : NDArray of int, shape (c,)
        0 electrons, 1 muons, 2 hadrons.
    log_s, cdf : NDArray, shape (c, k)
        Logarithm of the squared mass of the pair and its cumulative distribution.
    angle : NDArray, shape (c, k, 2)
        a and b of a − b cos², on the same grid.
    """

    mediator: float
    masses: FloatArray
    pairs: IntArray
    pair_fraction: FloatArray
    pair_angle: FloatArray
    dark_width: float
    ctau: FloatArray
    first: IntArray
    daughter: IntArray
    daughter_mass: FloatArray
    particle_mass: FloatArray
    fraction: FloatArray
    kind: IntArray
    log_s: FloatArray
    cdf: FloatArray
    angle: FloatArray

    @property
    def depth(self) -> IntArray:
        """Largest number of decays that follow from each state, shape (n,)."""
        steps = np.zeros(len(self.masses), dtype=np.int64)
        for j in range(len(steps)):  # daughters are lighter, so they come first
            daughters = self.daughter[self.first[j] : self.first[j + 1]]
            if daughters.size:
                below = np.where(daughters >= 0, steps[np.maximum(daughters, 0)], 0)
                steps[j] = 1 + int(below.max())
        return steps

    @property
    def slots(self) -> int:
        """Largest number of decays in one event."""
        return max(1, int(self.depth[self.pairs].sum(axis=1).max()))


def decay_table(
    sector: DarkSector,
    *,
    r_table: RTable | None = None,
    neutrino: NeutrinoMixing | None = None,
    include_width: bool = False,
) -> DecayTable:
    """Return branching ratios, lifetimes and sampling tables of a dark sector.

    Parameters
    ----------
    sector : DarkSector
    r_table : RTable, optional
        Opens hadronic decays above 2 m_π, as pairs of pions; without it they are left out.
    neutrino : NeutrinoMixing, optional
        Lets one state decay to a neutrino and a pair.
    include_width : bool
        Keep the width of the dark photon in the propagator of the three-body decays.

    Raises
    ------
    PhysicsError
        If the dark photon has no open decay into the dark sector.
    """
    pairs, partial = mediator_widths(sector)
    if not len(pairs):
        msg = (
            f"{sector.name}: a dark photon of {sector.mediator:g} GeV has no open decay into {sector.masses}"
        )
        raise PhysicsError(msg)
    broad = float(partial.sum()) if include_width else 0.0
    per_state = [_channels(sector, j, r_table, neutrino, broad) for j in range(len(sector.masses))]
    found = [channel for channels in per_state for channel in channels]
    total = np.array([sum(channel[2] for channel in channels) for channels in per_state])
    owner = np.repeat(np.arange(len(per_state)), [len(channels) for channels in per_state])
    grids = [_grid(transition, r_table, broad) for _, transition, _ in found]
    empty = np.empty((0, POINTS))
    with np.errstate(divide="ignore"):
        ctau = CTAU_PER_GEV / (total * sector.alpha_d)
    return DecayTable(
        mediator=sector.mediator,
        masses=sector.masses,
        pairs=pairs,
        pair_fraction=partial / partial.sum(),
        pair_angle=_transverse(sector, pairs),
        dark_width=float(partial.sum()),
        ctau=ctau,
        first=np.concatenate([[0], np.cumsum([len(c) for c in per_state])]).astype(np.int64),
        daughter=np.array([state for state, _, _ in found], dtype=np.int64),
        daughter_mass=np.array([t.light for _, t, _ in found], dtype=np.float64),
        particle_mass=np.array([t.particle for _, t, _ in found], dtype=np.float64),
        fraction=np.array([w for _, _, w in found], dtype=np.float64) / total[owner],
        kind=np.array([PAIRS.index(t.pair) for _, t, _ in found], dtype=np.int64),
        log_s=np.array([g[0] for g in grids]) if grids else empty,
        cdf=np.array([g[1] for g in grids]) if grids else empty,
        angle=np.array([g[2] for g in grids]) if grids else np.empty((0, POINTS, 2)),
    )


def _channels(
    sector: DarkSector,
    j: int,
    r_table: RTable | None,
    neutrino: NeutrinoMixing | None,
    broad: float,
) -> list[tuple[int, Transition, float]]:
    """Return daughter, transition and width per ε² and α_D of all decays of one state."""
    g, d = sector.strengths()
    scalar = sector.field == "scalar"
    daughters = [(i, float(sector.masses[i]), g[i, j], d[i, j]) for i in range(j)]
    if neutrino is not None and neutrino.state == j:
        daughters.append((-1, 0.0, neutrino.strength, 0.0))
    found = []
    for state, light, strength, difference in daughters:
        if strength <= 1e-20 or light >= sector.masses[j]:
            continue
        for pair in PAIRS if r_table is not None else PAIRS[:2]:
            heavy = float(sector.masses[j])
            transition = Transition(
                heavy, light, sector.mediator, float(strength), float(difference), pair, scalar
            )
            value = width(transition, mediator_width=broad, r_table=r_table)
            if value > 0:
                found.append((state, transition, value))
    return found


def _grid(t: Transition, r_table: RTable | None, broad: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return ln s, its cumulative distribution and the angle's a, b on a grid crowded at both ends."""
    low, high = np.log(t.range)
    x = low + (high - low) * 0.5 * (1.0 - np.cos(np.pi * np.linspace(0.0, 1.0, POINTS)))
    fine = np.sort(np.concatenate([x, 0.5 * (x[1:] + x[:-1])]))
    s = np.exp(fine)
    density = spectrum(t, s, width=broad, r_table=r_table) * s
    density[[0, -1]] = 0.0
    step = np.diff(x) / 6.0 * (density[:-2:2] + 4.0 * density[1::2] + density[2::2])  # Simpson
    cdf = np.concatenate([[0.0], np.cumsum(step)])
    s = np.clip(np.exp(x), t.range[0] * (1 + 1e-12), t.range[1] * (1 - 1e-12))
    return x, cdf / cdf[-1], np.stack(angular(t, s), axis=-1)


def _transverse(sector: DarkSector, pairs: IntArray) -> FloatArray:
    """Return a, b of a + b cos² for the decay of a transverse dark photon, shape (p, 2)."""
    i, j = pairs.T
    g, d = (x[i, j] for x in sector.strengths())
    m_i, m_j, m = sector.masses[i], sector.masses[j], sector.mediator
    e_i = (m**2 + m_i**2 - m_j**2) / (2.0 * m)
    e_j = m - e_i
    p2 = np.clip(e_i**2 - m_i**2, 0.0, None)
    if sector.field == "scalar":
        return np.column_stack([p2, -p2])
    return np.column_stack([g * e_i * e_j + d * m_i * m_j, g * p2])
