"""Small probabilities of missing momentum by importance sampling.

Three facts make a small probability cheap. The daughters of the dark photon decay independently, so the
probabilities m that each leaves nothing visible multiply. m depends only on the state, its momentum and its
polar angle: a coarse table of it is cheap. And what the dark photon decays to is fixed by three numbers, the
angle of the photon and the two of the daughters: cells in them are filled as the table says they matter.
Weights undo every choice, so the table need not be right.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.cascade import decay_states
from gammastar.physics.decay_table import DecayTable
from gammastar.physics.monophoton import photon_cosine
from gammastar.recast.babar import BaBar, seen
from gammastar.recast.missing_momentum import Missing

__all__ = ["prompt_missing"]

GRID, PER_NODE = 32, 1_000
CELLS, PILOT = 14, 40  # cells of each of the three numbers, dark photons in each of them
FLOOR = 2e-3  # smallest share of a cell or event relative to an even choice: bounds the weights


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of dark states with weights: momenta (n, 2, 4), the two states (2,), weight (n,)."""

    momenta: FloatArray
    state: npt.NDArray[np.int64]
    weight: FloatArray


def prompt_missing(
    table: DecayTable, card: BaBar, n: int, rng: np.random.Generator, *, copies: int = 64
) -> Missing:
    """Return the probability that prompt decays leave no visible particle, with its band.

    Parameters
    ----------
    table : DecayTable
    card : BaBar
        Its radius is not used: all decays happen where they can be seen.
    n : int
        Dark photons that are decayed further.
    rng : numpy.random.Generator
    copies : int
        Decays of each dark state.

    Returns
    -------
    Missing
        With one entry, at ε = 1: prompt probabilities do not depend on the coupling. Dark photons decay
        isotropically, as in `gammastar.recast.babar.cascades`.

    Raises
    ------
    PhysicsError
        If fewer than two events or one copy are asked for.
    """
    if n < 2 or copies < 1:
        msg = f"prompt probabilities: n = {n}, copies = {copies}; at least 2 and 1 are needed"
        raise PhysicsError(msg)
    cards = [card, *(replace(card, threshold=t) for t in card.thresholds)]
    cards += [replace(card, theta_min=low, theta_max=high) for low, high in card.angles]
    tables = {
        int(state): _table(table, int(state), card, rng)
        for state in np.unique(table.pairs)
        if table.depth[state] > 0
    }
    parts = []
    for pair, fraction in zip(table.pairs, table.pair_fraction, strict=True):
        chosen = _chosen(table, pair, (card, tables), max(int(n * np.sqrt(fraction)), 2), rng)
        terms = chosen.weight * _probability(table, cards, chosen, copies, rng)
        parts.append((fraction * terms.mean(axis=1), fraction**2 * terms[0].var() / (terms.shape[1] - 1)))
    value = np.sum([mean for mean, _ in parts], axis=0)
    error = np.sqrt([sum(variance for _, variance in parts)])
    low = min(float(value.min()), float(value[0]) / card.factor)
    high = max(float(value.max()), min(float(value[0]) * card.factor, 1.0))
    return Missing(np.ones(1), value[:1], error, np.array([low]), np.array([high]))


def _table(table: DecayTable, state: int, card: BaBar, rng: np.random.Generator) -> tuple[float, FloatArray]:
    """Return the largest momentum of the table and m on its nodes, even in momentum and polar angle."""
    top = 1.001 * (card.beam_minus + card.beam_plus)
    p, theta = np.meshgrid(
        np.linspace(0.0, 1.0, GRID) ** 2 * top, np.linspace(0.0, np.pi, GRID), indexing="ij"
    )
    energy = np.hypot(p, table.masses[state])
    nodes = np.stack([p * np.sin(theta), np.zeros_like(p), p * np.cos(theta), energy], axis=-1).reshape(-1, 4)
    found = decay_states(table, state, np.repeat(nodes, PER_NODE, axis=0), rng)
    missed = ~seen(found, card).any(axis=1)
    return top, missed.reshape(GRID, GRID, PER_NODE).mean(axis=2) + 0.2 / PER_NODE


def _pairs(table: DecayTable, pair: npt.NDArray[np.int64], card: BaBar, uniform: FloatArray) -> FloatArray:
    """Return both dark states in the laboratory for (angle of the photon, two angles of the first state)."""
    m, sqrt_s = table.mediator, card.sqrt_s
    m_i, m_j = table.masses[pair]
    cosine = photon_cosine(uniform[:, 0], m, sqrt_s, card.cos_max)
    momentum = (sqrt_s**2 - m**2) / (2.0 * sqrt_s)
    energy = np.hypot(momentum, m)
    flight = -momentum * np.stack([np.sqrt(1.0 - cosine**2), np.zeros_like(cosine), cosine], axis=1)
    z, phi = 2.0 * uniform[:, 1] - 1.0, 2.0 * np.pi * uniform[:, 2]
    r = np.sqrt(1.0 - z**2)
    e_i = (m**2 + m_i**2 - m_j**2) / (2.0 * m)
    star = np.sqrt(max(e_i**2 - m_i**2, 0.0)) * np.stack([r * np.cos(phi), r * np.sin(phi), z], axis=1)
    out = np.empty((len(z), 2, 4))
    along = (flight * star).sum(axis=1)
    gamma = float(np.hypot(1.0, card.boost))
    for side, (sign, e) in enumerate(((1.0, e_i), (-1.0, m - e_i))):
        total = (energy * e + sign * along) / m
        p = sign * star + flight * ((e + total) / (energy + m))[:, None]
        out[:, side, :2] = p[:, :2]
        out[:, side, 2] = gamma * p[:, 2] + card.boost * total
        out[:, side, 3] = gamma * total + card.boost * p[:, 2]
    return out


def _importance(
    tables: dict[int, tuple[float, FloatArray]], momenta: FloatArray, pair: npt.NDArray[np.int64]
) -> FloatArray:
    """Return the product of the coarse m of both states."""
    product = np.ones(len(momenta))
    for side, state in enumerate(pair):
        if int(state) in tables:
            top, grid = tables[int(state)]
            p = momenta[:, side]
            size = np.sqrt((p[:, :3] ** 2).sum(axis=1))
            theta = np.arccos(np.clip(p[:, 2] / np.maximum(size, 1e-300), -1.0, 1.0))
            at = np.stack([np.sqrt(size / top), theta / np.pi]) * (GRID - 1)
            product *= map_coordinates(grid, at, order=1, mode="nearest")
    return product


def _chosen(
    table: DecayTable,
    pair: npt.NDArray[np.int64],
    setting: tuple[BaBar, dict[int, tuple[float, FloatArray]]],
    n: int,
    rng: np.random.Generator,
) -> _Pairs:
    """Return pairs from cells that were filled as a pilot run says."""
    card, tables = setting
    cells = CELLS**3

    def inside(cell: npt.NDArray[np.int64]) -> FloatArray:
        corner = np.stack(np.unravel_index(cell, (CELLS,) * 3), axis=1)
        return _pairs(table, pair, card, (corner + rng.random(corner.shape)) / CELLS)

    pilot = _importance(tables, inside(np.repeat(np.arange(cells), PILOT)), pair)
    share = np.sqrt((pilot.reshape(cells, PILOT) ** 2).mean(axis=1))
    share = np.maximum(share / share.sum(), FLOOR / cells)
    share /= share.sum()
    drawn = rng.choice(cells, n, p=share)
    return _Pairs(inside(drawn), pair, 1.0 / (cells * share[drawn]))


def _probability(
    table: DecayTable, cards: list[BaBar], pairs: _Pairs, copies: int, rng: np.random.Generator
) -> FloatArray:
    """Return the product of the unseen fractions of both daughters, shape (cards, n)."""
    unseen = np.ones((len(cards), len(pairs.weight), 2))
    for side in range(2):
        state = int(pairs.state[side])
        if table.depth[state] > 0:
            again = decay_states(table, state, np.repeat(pairs.momenta[:, side], copies, axis=0), rng)
            for row, card in zip(unseen, cards, strict=True):
                missed = ~seen(again, card).any(axis=1)
                row[:, side] = missed.reshape(-1, copies).mean(axis=1)
    return np.asarray(unseen.prod(axis=2), dtype=np.float64)
