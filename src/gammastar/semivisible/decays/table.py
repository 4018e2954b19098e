"""Branching ratios, lifetimes and sampling tables of a dark sector.

A state decays to a lighter one and a visible pair through a dark photon that is off its shell, at a rate
∝ ε²; or, where there is room for it, to three dark states or to a dark photon on its shell, at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import CTAU_PER_GEV
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable
from gammastar.semivisible.decays.spectra import (
    PAIRS,
    POINTS,
    Channel,
    Grid,
    Transition,
    angular,
    crowded,
    cumulated,
    prompt_channels,
    spectrum,
    width,
)
from gammastar.semivisible.models import DarkSector, mediator_widths

IntArray: TypeAlias = npt.NDArray[np.int64]

COMPARED_AT = 1e-2  # kinetic mixing at which rates ∝ ε² are compared with those of dark decays


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

    def __post_init__(self) -> None:
        if not (np.isfinite(self.squared) and self.squared >= 0) or self.state < 0:
            raise PhysicsError(
                f"mixing of state {self.state} with neutrinos: |V|² = {self.squared!r} must be >= 0"
            )

    @property
    def strength(self) -> float:
        """G of the vertex; D drops out for a massless neutrino."""
        return self.squared * (1.0 if self.nature == "majorana" else 0.5)


Mixings: TypeAlias = NeutrinoMixing | Sequence[NeutrinoMixing] | None


@dataclass(frozen=True, slots=True, eq=False)
class DecayTable:
    """Everything that the generator of cascades needs, as arrays.

    Attributes
    ----------
    mediator : float
        Mass of the decaying dark photon [GeV], √s of a virtual one.
    masses : NDArray, shape (n,)
    pairs, pair_fraction : NDArray, shapes (p, 2) and (p,)
        Decays of the dark photon and their branching ratios inside the dark sector.
    pair_angle : NDArray, shape (p, 2)
        a and b of a + b cos² for a transverse dark photon.
    dark_width : float
        Width of the dark photon into the dark sector [GeV].
    ctau : NDArray, shape (n,)
        Proper decay lengths at ε = 1 [m], inf if stable; they scale as 1/ε². Zero: decays at once.
    first : NDArray of int, shape (n + 1,)
        Channels of state j are first[j] … first[j + 1].
    daughter : NDArray of int, shape (c,)
        State of the daughter, −1 for a neutrino.
    daughter_mass, fraction : NDArray, shape (c,)
        Mass of the daughter [GeV]; branching ratio.
    particle_mass : NDArray, shape (c, 2)
        Of the pair [GeV].
    partner : NDArray of int, shape (c, 2)
        States of the pair if it is dark, −1 if it is visible.
    kind : NDArray of int, shape (c,)
        0 electrons, 1 muons, 2 hadrons, 3 dark states.
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
    partner: IntArray
    fraction: FloatArray
    kind: IntArray
    log_s: FloatArray
    cdf: FloatArray
    angle: FloatArray

    def _summed(self, visible: int, *, goes_on: bool, stable: int) -> IntArray:
        """Return the largest sum over the decays that follow from each state, shape (n,).

        A visible decay counts `visible`, and its daughter too if it `goes_on`; a state that is stable counts
        `stable`, as a neutrino does.
        """
        found = np.full(len(self.masses), stable, dtype=np.int64)
        for j in range(len(found)):  # daughters are lighter, so they come first
            sums = []
            for c in range(int(self.first[j]), int(self.first[j + 1])):
                daughter = int(self.daughter[c])
                after = int(found[daughter]) if daughter >= 0 else stable
                dark = self.partner[c, 0] >= 0
                sums.append(after + int(found[self.partner[c]].sum()) if dark else visible + goes_on * after)
            if sums:
                found[j] = max(sums)
        return found

    @property
    def depth(self) -> IntArray:
        """Largest number of visible decays that follow from each state, shape (n,)."""
        return self._summed(1, goes_on=True, stable=0)

    @property
    def lines(self) -> IntArray:
        """Largest number of states that fly from where each state is made, and decay visibly, shape (n,)."""
        return self._summed(1, goes_on=False, stable=0)

    @property
    def slots(self) -> int:
        """Largest number of visible decays in one event."""
        return max(1, int(self.depth[self.pairs].sum(axis=1).max()))

    @property
    def room(self) -> int:
        """Largest number of dark states at a time in one event."""
        return 1 + int(2 * self._summed(0, goes_on=True, stable=1).max())


def decay_table(
    sector: DarkSector,
    *,
    r_table: RTable | None = None,
    neutrino: Mixings = None,
    include_width: bool = False,
    at: float | None = None,
) -> DecayTable:
    """Return branching ratios, lifetimes and sampling tables of a dark sector.

    Parameters
    ----------
    r_table : RTable, optional
        Opens hadronic decays above 2 m_π, as pairs of pions; without it they are left out.
    neutrino : NeutrinoMixing or several, optional
        Let states decay to a neutrino and a pair.
    include_width : bool
        Keep the width of the dark photon in the propagator of the three-body decays.
    at : float, optional
        Mass of the decaying dark photon where it is off its shell, √s of e+e− → A'* → ψ_i ψ_j [GeV]: all
        pairs that are open there. The dark states decay through a dark photon of its own mass in any case.

    Raises
    ------
    PhysicsError
        If the dark photon has no open decay into the dark sector, or a state that mixes does not exist.
    """
    mixings = _mixings(neutrino, len(sector.masses))
    virtual = sector if at is None else replace(sector, mediator=at)
    pairs, widths = mediator_widths(virtual)
    if not len(pairs):
        raise PhysicsError(
            f"{sector.name}: a dark photon of {virtual.mediator:g} GeV has no open decay into {sector.masses}"
        )
    broad = float(widths.sum()) if include_width else 0.0
    per_state = [_channels(sector, j, r_table, mixings, broad) for j in range(len(sector.masses))]
    found = [channel for channels in per_state for channel in channels]
    total = np.array([sum(channel.width for channel in channels) for channels in per_state])
    owner = np.repeat(np.arange(len(per_state)), [len(channels) for channels in per_state])
    grids = [channel.grid() for channel in found]
    empty = np.empty((0, POINTS))
    table = DecayTable(
        mediator=virtual.mediator,
        masses=sector.masses,
        pairs=pairs,
        pair_fraction=widths / widths.sum(),
        pair_angle=_transverse(virtual, pairs),
        dark_width=float(widths.sum()),
        ctau=_ctau(sector, per_state),
        first=np.concatenate([[0], np.cumsum([len(c) for c in per_state])]).astype(np.int64),
        daughter=np.array([c.daughter for c in found], dtype=np.int64),
        daughter_mass=np.array([c.light for c in found], dtype=np.float64),
        particle_mass=np.array([c.masses for c in found], dtype=np.float64).reshape(-1, 2),
        partner=np.array([c.partners for c in found], dtype=np.int64).reshape(-1, 2),
        fraction=np.array([c.width for c in found], dtype=np.float64) / total[owner],
        kind=np.array([c.kind for c in found], dtype=np.int64),
        log_s=np.array([g[0] for g in grids]) if grids else empty,
        cdf=np.array([g[1] for g in grids]) if grids else empty,
        angle=np.array([g[2] for g in grids]) if grids else np.empty((0, POINTS, 2)),
    )
    _one_line(sector, table)
    return table


def _one_line(sector: DarkSector, table: DecayTable) -> None:
    """Refuse a state that is made in flight and splits into several that fly on and are seen."""
    fed = {int(d) for d, (k, _) in zip(table.daughter, table.partner, strict=True) if k < 0 <= d}
    for state in sorted(fed):
        if table.lines[state] > 1:
            raise PhysicsError(
                f"{sector.name}: state {state + 1} comes from decays in flight and splits into dark states, "
                f"{table.lines[state]} of which are seen later: such a tree of flights is not modelled"
            )


def _ctau(sector: DarkSector, per_state: Sequence[Sequence[Channel]]) -> FloatArray:
    """Return the proper decay lengths at ε = 1 [m]; zero where a state decays at once, inf where never."""
    total = np.array([sum(c.width for c in channels) for channels in per_state])
    prompt = np.array([any(c.prompt for c in channels) for channels in per_state])
    with np.errstate(divide="ignore"):
        return np.where(prompt, 0.0, CTAU_PER_GEV / (total * sector.alpha_d))


def lifetimes(sector: DarkSector, *, r_table: RTable | None = None, neutrino: Mixings = None) -> FloatArray:
    """Return the proper decay lengths of all states at ε = 1 [m], inf if stable; else as `decay_table`."""
    mixings = _mixings(neutrino, len(sector.masses))
    rows = [_channels(sector, j, r_table, mixings, 0.0) for j in range(len(sector.masses))]
    return _ctau(sector, rows)


def _mixings(neutrino: Mixings, n: int) -> Sequence[NeutrinoMixing]:
    """Return the mixings with neutrinos as a sequence; n is the number of states."""
    mixings = (neutrino,) if isinstance(neutrino, NeutrinoMixing) else tuple(neutrino or ())
    for mixing in mixings:
        if mixing.state >= n:
            raise PhysicsError(f"mixing of state {mixing.state + 1} with neutrinos: there are {n} states")
    return mixings


def visible_widths(sector: DarkSector) -> FloatArray:
    """Return the widths of all states into a lighter one and leptons per ε² [GeV], shape (n,)."""
    rows = [_visible(sector, j, None, (), 0.0) for j in range(len(sector.masses))]
    return sector.alpha_d * np.array([sum(channel.width for channel in row) for row in rows])


def _channels(
    sector: DarkSector, j: int, r_table: RTable | None, mixings: Sequence[NeutrinoMixing], broad: float
) -> list[Channel]:
    """Return the decays of one state: those at once if they are faster, else those per ε² and α_D."""
    found = _visible(sector, j, r_table, mixings, broad)
    strength = sum(mixing.strength for mixing in mixings if mixing.state == j)
    at_once = prompt_channels(sector, j, r_table, strength)
    slow = sum(channel.width for channel in found) * COMPARED_AT**2 * sector.alpha_d
    return at_once if sum(channel.width for channel in at_once) > slow else found


def _visible(
    sector: DarkSector, j: int, r_table: RTable | None, mixings: Sequence[NeutrinoMixing], broad: float
) -> list[Channel]:
    """Return the decays of one state to a lighter one and a visible pair."""
    g, d = sector.strengths()
    scalar = sector.field == "scalar"
    heavy = float(sector.masses[j])
    daughters = [(i, float(sector.masses[i]), g[i, j], d[i, j]) for i in range(j)]
    daughters += [(-1, 0.0, mixing.strength, 0.0) for mixing in mixings if mixing.state == j]
    found = []
    for state, light, strength, difference in daughters:
        if strength <= 1e-20 or not 0 < heavy - light < sector.mediator:
            continue
        for pair in PAIRS if r_table is not None else PAIRS[:2]:
            t = Transition(heavy, light, sector.mediator, float(strength), float(difference), pair, scalar)
            value = width(t, mediator_width=broad, r_table=r_table)
            if value > 0:
                visible = (t.particle, t.particle), (-1, -1), PAIRS.index(pair)
                grid = partial(_grid, t, r_table, broad)
                found.append(Channel(state, light, *visible, value, grid))
    return found


def _grid(t: Transition, r_table: RTable | None, broad: float) -> Grid:
    """Return ln s, its cumulative distribution and the angle's a, b on a grid crowded at both ends."""
    low, high = np.log(t.range)
    x = crowded(low, high)
    cdf = cumulated(x, lambda s: spectrum(t, s, width=broad, r_table=r_table))
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
