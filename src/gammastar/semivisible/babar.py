"""BaBar's monophoton search recast to semi-visible dark photons.

Small probabilities come from importance sampling. Three facts make a small probability cheap. The daughters
of the dark photon decay independently, so the probabilities m that each leaves nothing visible multiply. m
depends only on the state, its momentum and its polar angle: a coarse table of it is cheap. And what the dark
photon decays to is fixed by three numbers, the angle of the photon and the two of the daughters: cells in
them are filled as the table says they matter. Weights undo every choice, so the table need not be right.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from scipy.ndimage import map_coordinates

from gammastar.core.errors import PhysicsError
from gammastar.core.files import Pathlike
from gammastar.core.records import BoolArray, FloatArray, IntArray, Rng
from gammastar.physics.qed import RTable
from gammastar.semivisible.benchmarks import ColliderCard
from gammastar.semivisible.cascade import Cascade, decay, decay_states
from gammastar.semivisible.decays import DecayTable, Mixings, decay_table
from gammastar.semivisible.missing_momentum import Missing, exponential_sum, from_sums, no_visible_decay
from gammastar.semivisible.models import DarkSector
from gammastar.semivisible.production import (
    monophoton_cross_section,
    photon_cosine,
    s_channel_cross_section,
    sample_photons,
)

GRID, PER_NODE = 32, 250
CELLS, PILOT = 14, 40  # cells of each of the three numbers, dark photons in each of them
FEW = 1600  # events without a visible particle: a statistical error of 2.5 %
COPIES = 64
FLOOR = 2e-3  # smallest share of a cell or event relative to an even choice: bounds the weights


@dataclass(frozen=True, slots=True)
class BaBar(ColliderCard):
    """The selection at generator level."""

    title: ClassVar[str] = "BaBar"
    shipped: ClassVar[str] = "semivisible/babar.toml"
    # Beam energies [GeV]
    beam_minus: float
    beam_plus: float
    cos_max: float  # Largest |cos θ*| of the photon
    threshold: float  # Energy [GeV] above which a particle is visible
    # Polar angles in the laboratory between which it is visible [degrees]
    theta_min: float
    theta_max: float
    radius: float  # Decays farther from the beam are invisible [m]; inf: prompt decays everywhere
    transverse: bool = False  # The variable that the threshold cuts on is the transverse momentum
    # What spans the band: other thresholds [GeV], other polar angles, a factor on the probability that a
    # decay inside is not seen
    thresholds: Sequence[float] = ()
    angles: Sequence[Sequence[float]] = ()
    factor: float = 1.0
    sources: Mapping[str, str] | None = None


def load_babar(path: Pathlike | None = None) -> BaBar:
    """Return the selection of a card, by default the shipped one; each of its numbers needs a source."""
    return BaBar.load(path)


def cascades(table: DecayTable, card: BaBar, n: int, rng: Rng, *, polarised: bool = False) -> Cascade:
    """Return decays of dark photons from e+e− → γ A', in the laboratory (z along the electrons)."""
    dark = sample_photons(table.mediator, card.sqrt_s, card.cos_max, n, rng)[1]
    return decay(table, dark, rng, boost=card.boost, polarised=polarised)


def s_channel_cascades(
    sector: DarkSector,
    card: ColliderCard,
    n: int,
    rng: Rng,
    *,
    r_table: RTable | None = None,
    neutrino: Mixings = None,
) -> Cascade:
    """Return decays of e+e− → A'* → ψ_i ψ_j (all open pairs, transverse A'*), in the laboratory."""
    table = decay_table(sector, r_table=r_table, neutrino=neutrino, at=card.sqrt_s)
    rest = np.zeros((n, 4))
    rest[:, 3] = card.sqrt_s
    return decay(table, rest, rng, boost=card.boost, polarised=True)


def seen(cascade: Cascade, card: BaBar) -> BoolArray:
    """Return which decays have a visible particle, shape (n, slots)."""
    low, high = np.cos(np.radians(card.theta_max)), np.cos(np.radians(card.theta_min))
    visible = np.zeros(cascade.state.shape, dtype=bool)
    for p in (cascade.particle, cascade.antiparticle):
        pt2 = p[..., 0] ** 2 + p[..., 1] ** 2
        momentum = np.sqrt(pt2 + p[..., 2] ** 2)
        size = np.sqrt(pt2) if card.transverse else p[..., 3]
        inside = (p[..., 2] > low * momentum) & (p[..., 2] < high * momentum)
        visible |= inside & (size > card.threshold)
    return np.asarray(visible & cascade.filled)


def _sums(cascade: Cascade, visible: BoolArray, radius: float, epsilon: FloatArray, rng: Rng) -> FloatArray:
    """Return Σ P and Σ P² of "no visible decay" for several selections, shape (2, selections, k)."""
    if np.isinf(radius):
        missed = (~visible.any(axis=1)).sum(axis=0).astype(np.float64)
        return np.array(np.broadcast_to(missed[:, None], (2, len(missed), len(epsilon))))
    momentum = np.sqrt((cascade.parent[..., :3] ** 2).sum(axis=-1))
    slope = np.hypot(cascade.parent[..., 0], cascade.parent[..., 1]) / np.where(cascade.filled, momentum, 1.0)
    flight = cascade.flight(1.0)
    if (cascade.source < 0).all():
        rate = np.where(cascade.filled, radius / (np.maximum(slope, 1e-12) * flight), 0.0)
        rates = (visible * rate[..., None]).sum(axis=1).T
        one = np.ones(len(cascade))
        return np.array([[exponential_sum(k * row, one, epsilon) for row in rates] for k in (1.0, 2.0)])
    source = np.where(cascade.filled, cascade.source, -2)
    uniform = rng.random(cascade.state.shape)
    return np.asarray(no_visible_decay(visible, source, flight, slope, uniform, radius, epsilon))


def missing(
    cascade: Cascade, card: BaBar, epsilon: npt.ArrayLike, rng: Rng, *, band: bool = True, prompt: int = 0
) -> Missing:
    """Return the probability that no visible particle is recorded inside the radius, with its band."""
    coupling = np.atleast_1d(np.asarray(epsilon, dtype=np.float64))
    cards = [card, *_variants(card)] if band else [card]
    # The last selection sees every decay: what it misses decays outside, whatever "visible" means.
    visible = np.stack([*(seen(cascade, c) for c in cards), cascade.filled], axis=-1)
    sums = _sums(cascade, visible, card.radius, coupling, rng)
    n, hidden = len(cascade), (~visible.any(axis=1)).sum(axis=0)
    if prompt > 0 and hidden[0] < FEW:
        share, spread = _prompt(cascade.table, cards, prompt, COPIES, rng)
        values, errors = from_sums(sums[:, :-1] - hidden[:-1, None], n)
        values, errors = np.minimum(values + share[:, None], 1.0), np.hypot(errors, spread[:, None])
    else:
        values, errors = from_sums(sums[:, :-1], n)
    value, outside = values[0], from_sums(sums[:, -1], n)[0]
    low, high = values.min(axis=0), values.max(axis=0)
    if band:
        unseen = np.maximum(value - outside, 0.0)
        low = np.minimum(low, outside + unseen / card.factor)
        high = np.maximum(high, np.minimum(outside + unseen * card.factor, 1.0))
    return Missing(coupling, value, errors[0], np.minimum(low, value), np.maximum(high, value))


def _variants(card: BaBar) -> list[BaBar]:
    """Return the selections that span the band."""
    other = [replace(card, threshold=t) for t in card.thresholds]
    return other + [replace(card, theta_min=low, theta_max=high) for low, high in card.angles]


def s_channel_ratio(sector: DarkSector, card: BaBar) -> float:
    """Return σ(e+e− → A'* → ψψ)/σ(e+e− → γA') with the photon inside the acceptance."""
    isr = float(monophoton_cross_section(sector.mediator, card.sqrt_s, card.cos_max))
    return float(s_channel_cross_section(sector, card.sqrt_s).sum()) / isr


@dataclass(frozen=True, slots=True, eq=False)
class _Pairs:
    """Pairs of dark states with weights: momenta (n, 2, 4), the two states (2,), weight (n,)."""

    momenta: FloatArray
    state: IntArray
    weight: FloatArray


def prompt_missing(table: DecayTable, card: BaBar, n: int, rng: Rng, *, copies: int = COPIES) -> Missing:
    """Return the probability that prompt decays leave no visible particle, with its band.

    Parameters
    ----------
    card : BaBar
        Its radius is not used: all decays happen where they can be seen.
    n : int
        Dark photons that are decayed further.
    copies : int
        Decays of each dark state.

    Returns
    -------
    Missing
        With one entry, at ε = 1: prompt probabilities do not depend on the coupling. Dark photons decay
        isotropically, as in `gammastar.semivisible.babar.cascades`.
    """
    if n < 2 or copies < 1:
        raise PhysicsError(f"prompt probabilities: n = {n}, copies = {copies}; at least 2 and 1 are needed")
    values, errors = _prompt(table, [card, *_variants(card)], n, copies, rng)
    value = float(values[0])
    low, high = min(float(values.min()), value / card.factor), min(value * card.factor, 1.0)
    high = max(float(values.max()), high)
    return Missing(np.ones(1), values[:1], errors[:1], np.array([low]), np.array([high]))


def _prompt(
    table: DecayTable, cards: list[BaBar], n: int, copies: int, rng: Rng
) -> tuple[FloatArray, FloatArray]:
    """Return prompt P and its error for several selections, by importance for the first of them."""
    card = cards[0]
    decaying = [int(state) for state in np.unique(table.pairs) if table.depth[state] > 0]
    tables = {state: _table(table, state, card, rng) for state in decaying}
    parts = []
    for pair, fraction in zip(table.pairs, table.pair_fraction, strict=True):
        chosen = _chosen(table, pair, (card, tables), max(int(n * np.sqrt(fraction)), 2), rng)
        terms = chosen.weight * _probability(table, cards, chosen, copies, rng)
        parts.append((fraction * terms.mean(axis=1), fraction**2 * terms.var(axis=1) / (terms.shape[1] - 1)))
    value, variance = (np.sum([part[k] for part in parts], axis=0) for k in (0, 1))
    return np.asarray(value), np.sqrt(variance)


def _table(table: DecayTable, state: int, card: BaBar, rng: Rng) -> tuple[float, FloatArray]:
    """Return the largest momentum of the table and m on its nodes, even in momentum and polar angle."""
    top = 1.001 * (card.beam_minus + card.beam_plus)
    size, polar = np.linspace(0.0, 1.0, GRID) ** 2 * top, np.linspace(0.0, np.pi, GRID)
    p, theta = np.meshgrid(size, polar, indexing="ij")
    energy = np.hypot(p, table.masses[state])
    nodes = np.stack([p * np.sin(theta), np.zeros_like(p), p * np.cos(theta), energy], axis=-1).reshape(-1, 4)
    found = decay_states(table, state, np.repeat(nodes, PER_NODE, axis=0), rng)
    missed = ~seen(found, card).any(axis=1)
    return top, missed.reshape(GRID, GRID, PER_NODE).mean(axis=2) + 0.2 / PER_NODE


def _pairs(table: DecayTable, pair: IntArray, card: BaBar, uniform: FloatArray) -> FloatArray:
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
    tables: dict[int, tuple[float, FloatArray]], momenta: FloatArray, pair: IntArray
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
    pair: IntArray,
    setting: tuple[BaBar, dict[int, tuple[float, FloatArray]]],
    n: int,
    rng: Rng,
) -> _Pairs:
    """Return pairs from cells that were filled as a pilot run says."""
    card, tables = setting
    cells = CELLS**3

    def inside(cell: IntArray) -> FloatArray:
        corner = np.stack(np.unravel_index(cell, (CELLS,) * 3), axis=1)
        return _pairs(table, pair, card, (corner + rng.random(corner.shape)) / CELLS)

    pilot = _importance(tables, inside(np.repeat(np.arange(cells), PILOT)), pair)
    share = np.sqrt((pilot.reshape(cells, PILOT) ** 2).mean(axis=1))
    share = np.maximum(share / share.sum(), FLOOR / cells)
    share /= share.sum()
    drawn = rng.choice(cells, n, p=share)
    return _Pairs(inside(drawn), pair, 1.0 / (cells * share[drawn]))


def _probability(table: DecayTable, cards: list[BaBar], pairs: _Pairs, copies: int, rng: Rng) -> FloatArray:
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
