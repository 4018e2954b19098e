"""Decays of dark states that need no kinetic mixing: to three dark states, or to a dark photon on its shell.

ψ_j → ψ_i A'* → ψ_i ψ_k ψ_l has no ε in its rate: where it is open it beats ψ_j → ψ_i l+l− by α_D/(α ε²).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TypeAlias

import numpy as np

from gammastar.core.constants import LEPTON_MASS
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable, lepton_width
from gammastar.semivisible.decays.spectra import (
    PAIRS,
    POINTS,
    Transition,
    Vertex,
    angular,
    crowded,
    cumulated,
    dark_factor,
)
from gammastar.semivisible.models import DarkSector, mediator_widths, partial_width

Grid: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]

DARK = len(PAIRS)  # kind of a channel whose pair is dark
LEAST = 1e-8  # of the largest s: where the tables of massless pairs begin


@dataclass(frozen=True, slots=True, eq=False)
class Channel:
    """One decay of a dark state."""

    daughter: int  # −1 for a neutrino
    light: float  # Its mass [GeV]
    masses: tuple[float, float]  # Of the pair [GeV]
    partners: tuple[int, int]  # States of a dark pair, −1 of a visible one
    kind: int  # 0 electrons, 1 muons, 2 hadrons, 3 dark states
    width: float  # [GeV], per ε² and α_D unless the decay is prompt
    grid: Callable[[], Grid]  # Returns ln s of the pair, its cumulative distribution and the angle's a and b
    prompt: bool = False  # The rate holds no ε


def prompt_channels(
    sector: DarkSector, j: int, r_table: RTable | None = None, neutrino: float = 0.0
) -> list[Channel]:
    """Return the decays of a state into three dark states or with a dark photon on its shell.

    Notes
    -----
    dΓ/ds = (1/π) [√s Γ_kl(√s)/((s − M²)² + M²Γ²)] (α_D/2m_j³) λ^½ H(s), the pair factor of leptons replaced
    by the width of a dark photon of mass √s. Left out: interference of equal states, and the longitudinal
    part of the propagator, which belongs to the fields that give the dark photon its mass. The pair is
    isotropic.
    A dark photon on its shell that has no dark decay is narrow, and decays visibly at once.
    """
    g, d = sector.strengths()
    heavy = float(sector.masses[j])
    total = float(mediator_widths(sector)[1].sum())
    found: list[Channel] = []
    daughters = [(i, float(sector.masses[i]), float(g[i, j]), float(d[i, j])) for i in range(j)]
    for i, light, strength, difference in [*daughters, (-1, 0.0, neutrino, 0.0)]:
        if strength <= 1e-20 or light >= heavy:
            continue
        vertex = Vertex(heavy, light, strength, difference, sector.field == "scalar")
        pairs = mediator_widths(replace(sector, mediator=heavy - light))[0]
        found += [_dark(sector, vertex, (i, *pair), total) for pair in pairs.tolist()]
        if heavy - light > sector.mediator and not total > 0:
            found += _on_shell(sector, vertex, i, r_table)
    return [channel for channel in found if channel.width > 0]


def dark_widths(sector: DarkSector) -> FloatArray:
    """Return the widths of all states by `prompt_channels` [GeV], shape (n,)."""
    rows = [prompt_channels(sector, j) for j in range(len(sector.masses))]
    return np.array([sum(channel.width for channel in row) for row in rows])


def _dark(sector: DarkSector, vertex: Vertex, states: tuple[int, int, int], total: float) -> Channel:
    """Return ψ_j → ψ_i ψ_k ψ_l; `total` is the width of the dark photon on its shell [GeV]."""
    i, one, two = states
    masses = float(sector.masses[one]), float(sector.masses[two])
    high = (vertex.heavy - vertex.light) ** 2
    low = max(sum(masses) ** 2, LEAST * high)
    m2, width = sector.mediator**2, sector.mediator * total

    def density(s: FloatArray) -> FloatArray:
        root = np.sqrt(s)
        pair = root * partial_width(sector, one, two, root)
        return pair * sector.alpha_d * dark_factor(vertex, s) / (np.pi * ((s - m2) ** 2 + width**2))

    x = crowded(np.log(low), np.log(high))
    if low < m2 < high and width > 0:  # half of the points follow the resonance
        first, last = (float(np.arctan((end - m2) / width)) for end in (low, high))
        peak = np.log(m2 + width * np.tan(np.linspace(first, last, POINTS // 2 + 2)[1:-1]))
        x = np.sort(np.concatenate([crowded(np.log(low), np.log(high), POINTS - len(peak)), peak]))
    cdf = cumulated(x, density)
    angle = np.broadcast_to([1.0, 0.0], (POINTS, 2))
    value = float(cdf[-1])

    def grid() -> Grid:
        return x, cdf / value, angle

    return Channel(i, vertex.light, masses, (one, two), DARK, value, grid, prompt=True)


def _on_shell(sector: DarkSector, vertex: Vertex, i: int, r_table: RTable | None) -> list[Channel]:
    """Return ψ_j → ψ_i A', A' → a visible pair."""
    m = sector.mediator
    widths = [float(lepton_width(m, mass)) for mass in LEPTON_MASS.values()]
    widths.append(0.0 if r_table is None else widths[1] * float(r_table.at(m)))
    rate = sector.alpha_d * float(dark_factor(vertex, np.array([m**2]))[0])
    found = []
    for name, value in zip(PAIRS, widths, strict=True):
        if value > 0:
            # The mediator plays no part in the angle; a heavy one keeps the transition off its shell.
            t = Transition(
                vertex.heavy, vertex.light, 10.0 * vertex.heavy, vertex.g, vertex.d, name, vertex.scalar
            )
            share = rate * value / sum(widths)
            visible = (t.particle, t.particle), (-1, -1), PAIRS.index(t.pair)
            grid = partial(_line, t, m**2)
            found.append(Channel(i, vertex.light, *visible, share, grid, prompt=True))
    return found


def _line(t: Transition, s: float) -> Grid:
    """Return the grid of a pair of one mass."""
    share = np.linspace(0.0, 1.0, POINTS)
    a, b = (np.full(POINTS, float(x)) for x in angular(t, s))
    return np.log(s) + 1e-12 * (share - 0.5), share, np.stack([a, b], axis=-1)
