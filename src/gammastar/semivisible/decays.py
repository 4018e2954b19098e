"""Decays of dark states: spectra through an off-shell dark photon, prompt decays, tables to draw from.

A state decays to a lighter one and a visible pair through a dark photon that is off its shell, at a rate
∝ ε²; or, where there is room for it, to three dark states or to a dark photon on its shell, at once. Widths
of visible decays are per ε² and per α_D: both factor out. Decays without kinetic mixing win by α_D/(α ε²).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, LEPTON_MASS, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, IntArray
from gammastar.physics.qed import RTable, lepton_width
from gammastar.semivisible.models import DarkSector, mediator_widths, partial_width

Grid: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
Pair: TypeAlias = Literal["e", "mu", "hadrons"]
PAIRS: tuple[Pair, ...] = ("e", "mu", "hadrons")
DARK = len(PAIRS)  # kind of a channel whose pair is dark
POINTS = 1024  # of a tabulated distribution
NODES = 240  # of the integral of a width
LEAST = 1e-8  # of the largest s: where the tables of massless pairs begin
COMPARED_AT = 1e-2  # kinetic mixing at which rates ∝ ε² are compared with those of dark decays


@dataclass(frozen=True, slots=True)
class Vertex:
    """Two dark states and their coupling, as in `Transition`."""

    heavy: float
    light: float
    g: float
    d: float
    scalar: bool = False


@dataclass(frozen=True, slots=True)
class Transition:
    """One transition ψ_j → ψ_i f f̄."""

    # m_j, m_i and the mass of the dark photon [GeV]
    heavy: float
    light: float
    mediator: float
    # |V|² + |A|² and |V|² − |A|² of the vertex; a vector is (1, 1), an axial one (1, −1), a chiral one (½,
    # 0)
    g: float
    d: float
    pair: Pair = "e"  # "e", "mu", "hadrons"
    scalar: bool = False  # ψ are spin-0 fields; then `d` is not used

    def __post_init__(self) -> None:
        if not 0 <= self.light < self.heavy:
            raise PhysicsError(f"transition: {self.light!r} GeV must be lighter than {self.heavy!r} GeV")
        if self.heavy - self.light >= self.mediator:
            raise PhysicsError(
                f"transition {self.heavy:g} -> {self.light:g} GeV: a dark photon of {self.mediator:g} GeV is "
                "on its shell; the three-body formula holds below that"
            )

    @property
    def particle(self) -> float:
        """Mass of each fermion (or pion) of the pair [GeV]."""
        return M_PI_CHARGED if self.pair == "hadrons" else LEPTON_MASS[self.pair]

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest squared mass of the pair [GeV²]."""
        return 4.0 * self.particle**2, (self.heavy - self.light) ** 2

    @property
    def is_open(self) -> bool:
        """Whether there is phase space."""
        return self.range[0] < self.range[1]


def _pair_factor(transition: Transition, s: FloatArray, r_table: RTable | None) -> FloatArray:
    """Return (α s/3) times R(s) of the pair: the width of a virtual photon times its mass."""
    particle = M_MU if transition.pair == "hadrons" else transition.particle
    x = particle**2 / s
    ratio = np.sqrt(np.clip(1.0 - 4.0 * x, 0.0, None)) * (1.0 + 2.0 * x)
    if transition.pair == "hadrons":
        if r_table is None:
            raise PhysicsError("transition into hadrons: give the table of R")
        ratio = ratio * r_table.at(np.sqrt(s))  # the table is relative to the width into muons
    return np.asarray(ALPHA * s / 3.0 * ratio)


def _dark_factor(t: Transition | Vertex, s: FloatArray) -> FloatArray:
    """Return α_D/(2 m_j³) λ^½ H(s) without α_D (fermions), and its counterpart for scalars."""
    delta, total = t.heavy - t.light, t.heavy + t.light
    lam = np.clip((delta**2 - s) * (total**2 - s), 0.0, None)
    if t.scalar:
        return np.asarray(t.g * lam**1.5 / (4.0 * t.heavy**3 * s))
    square, difference = t.heavy**2 + t.light**2, (delta * total) ** 2
    h = t.g * (0.5 * square - s + 0.5 * difference / s) - 3.0 * t.heavy * t.light * t.d
    return np.asarray(np.sqrt(lam) * h / (2.0 * t.heavy**3))


def spectrum(
    transition: Transition, s: npt.ArrayLike, *, width: float = 0.0, r_table: RTable | None = None
) -> FloatArray:
    """Return dΓ/ds per ε² and α_D [1/GeV] in the squared mass of the pair [GeV²], zero where closed.

    dΓ/ds = (1/π) [(α ε² s/3) β (1 + 2m²/s)/((s − M²)² + M²Γ²)] (α_D/2m_j³) λ^½(m_j², m_i², s) H(s) with
    H = G [(m_j² + m_i²)/2 − s + (m_j² − m_i²)²/2s] − 3 m_i m_j D. Derived; checked against amplitudes of
    DarkNews (arXiv:2207.04137).
    """
    low, high = transition.range
    values = np.asarray(s, dtype=np.float64)
    inside = (values > low) & (values < high)
    safe = np.where(inside, values, 0.5 * (low + high))
    m2 = transition.mediator**2
    propagator = (safe - m2) ** 2 + m2 * width**2
    density = _pair_factor(transition, safe, r_table) * _dark_factor(transition, safe) / (np.pi * propagator)
    return np.asarray(np.where(inside, density, 0.0))


def _crowded(low: float, high: float, n: int = POINTS) -> FloatArray:
    """Return n points between two, crowded at both ends."""
    return np.asarray(low + (high - low) * 0.5 * (1.0 - np.cos(np.pi * np.linspace(0.0, 1.0, n))))


def _cumulated(x: FloatArray, density: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the integral of a density of s up to each x = ln s by Simpson's rule; its ends count as zero."""
    fine = np.sort(np.concatenate([x, 0.5 * (x[1:] + x[:-1])]))
    s = np.exp(fine)
    value = density(s) * s
    value[[0, -1]] = 0.0
    step = np.diff(x) / 6.0 * (value[:-2:2] + 4.0 * value[1::2] + value[2::2])
    return np.concatenate([[0.0], np.cumsum(step)])


@lru_cache(maxsize=1)
def _nodes() -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights on [0, 1], crowded at both ends: there spectra rise like square roots."""
    x, w = np.polynomial.legendre.leggauss(NODES)
    t, w = 0.5 * (x + 1.0), 0.5 * w
    return 0.5 * (1.0 - np.cos(np.pi * t)), 0.5 * np.pi * np.sin(np.pi * t) * w


def width(transition: Transition, *, mediator_width: float = 0.0, r_table: RTable | None = None) -> float:
    """Return Γ(ψ_j → ψ_i f f̄) per ε² and α_D [GeV], by Gauss-Legendre in ln s; zero below threshold."""
    if not transition.is_open:
        return 0.0
    low, high = np.log(transition.range)
    t, weight = _nodes()
    s = np.exp(low + (high - low) * t)
    density = spectrum(transition, s, width=mediator_width, r_table=r_table) * s
    return float((high - low) * (density * weight).sum())


def angular(transition: Transition, s: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return a and b of dΓ/dcos ∝ a − b cos² of the angle between f and ψ_i in the frame of the pair.

    With E_j = (m_j² − m_i² + s)/2√s, E_i = E_j − √s and p² = λ/4s, leptons have b = G (s/2) β² p² and
    a = G[(s/2) E_i E_j + m² (m_j² + m_i² − s)/2] − D m_i m_j (s/2 + m²); the identity
    a − b/3 = (s/6)(1 + 2m²/s) H(s) ties them to the spectrum. Hadrons are treated as a pair of pions.
    """
    t = transition
    s = np.asarray(s, dtype=np.float64)
    delta, total = t.heavy - t.light, t.heavy + t.light
    root = np.sqrt(s)
    e_j = (delta * total + s) / (2.0 * root)
    e_i = e_j - root
    p2 = np.clip((delta**2 - s) * (total**2 - s), 0.0, None) / (4.0 * s)
    beta2 = np.clip(1.0 - 4.0 * t.particle**2 / s, 0.0, None)
    product = t.heavy * t.light * t.d
    if t.pair == "hadrons":
        if t.scalar:
            return np.zeros_like(s), -np.ones_like(s)
        return np.asarray(t.g * (e_i * e_j - p2) - product), np.asarray(-2.0 * t.g * p2)
    if t.scalar:
        return np.ones_like(s), np.asarray(beta2)
    m2 = t.particle**2
    b = 0.5 * t.g * s * beta2 * p2
    a = t.g * (0.5 * s * e_i * e_j + 0.5 * m2 * (t.heavy**2 + t.light**2 - s)) - (0.5 * s + m2) * product
    return np.asarray(a), np.asarray(b)


def squared_amplitude(transition: Transition, s: npt.ArrayLike, cosine: npt.ArrayLike) -> FloatArray:
    """Return the spin-averaged |M|² of a decay to leptons per ε² and α_D, at the cosine of `angular`.

    |M|² = 16 (g_D ε e)² (a − b cos²)/(s − M²)² for fermions, width of the dark photon neglected.
    """
    a, b = angular(transition, s)
    strength = 16.0 * (4.0 * np.pi) ** 2 * ALPHA
    propagator = (np.asarray(s, dtype=np.float64) - transition.mediator**2) ** 2
    return np.asarray(strength * (a - b * np.square(cosine)) / propagator)


@dataclass(frozen=True, slots=True, eq=False)
class _Channel:
    """One decay of a dark state."""

    daughter: int  # −1 for a neutrino
    light: float  # Its mass [GeV]
    masses: tuple[float, float]  # Of the pair [GeV]
    partners: tuple[int, int]  # States of a dark pair, −1 of a visible one
    kind: int  # 0 electrons, 1 muons, 2 hadrons, 3 dark states
    width: float  # [GeV], per ε² and α_D unless the decay is prompt
    grid: Callable[[], Grid]  # Returns ln s of the pair, its cumulative distribution and the angle's a and b
    prompt: bool = False  # The rate holds no ε


def _prompt_channels(
    sector: DarkSector, j: int, r_table: RTable | None = None, neutrino: float = 0.0
) -> list[_Channel]:
    """Return the decays of a state into three dark states or with a dark photon on its shell.

    dΓ/ds = (1/π) [√s Γ_kl(√s)/((s − M²)² + M²Γ²)] (α_D/2m_j³) λ^½ H(s), the pair factor of leptons replaced
    by the width of a dark photon of mass √s. Left out: interference of equal states, and the longitudinal
    part of the propagator, which belongs to the fields that give the dark photon its mass. The pair is
    isotropic.
    A dark photon on its shell that has no dark decay is narrow, and decays visibly at once.
    """
    g, d = sector.strengths()
    heavy = float(sector.masses[j])
    total = float(mediator_widths(sector)[1].sum())
    channels: list[_Channel] = []
    daughters = [(i, float(sector.masses[i]), float(g[i, j]), float(d[i, j])) for i in range(j)]
    for i, light, strength, difference in [*daughters, (-1, 0.0, neutrino, 0.0)]:
        if strength <= 1e-20 or light >= heavy:
            continue
        vertex = Vertex(heavy, light, strength, difference, sector.field == "scalar")
        pairs = mediator_widths(replace(sector, mediator=heavy - light))[0]
        channels += [_dark(sector, vertex, (i, *pair), total) for pair in pairs.tolist()]
        if heavy - light > sector.mediator and not total > 0:
            channels += _on_shell(sector, vertex, i, r_table)
    return [channel for channel in channels if channel.width > 0]


def dark_widths(sector: DarkSector) -> FloatArray:
    """Return the widths of all states for decays at once [GeV], shape (n,)."""
    rows = [_prompt_channels(sector, j) for j in range(len(sector.masses))]
    return np.array([sum(channel.width for channel in row) for row in rows])


def _dark(sector: DarkSector, vertex: Vertex, states: tuple[int, int, int], total: float) -> _Channel:
    """Return ψ_j → ψ_i ψ_k ψ_l; `total` is the width of the dark photon on its shell [GeV]."""
    i, one, two = states
    masses = float(sector.masses[one]), float(sector.masses[two])
    high = (vertex.heavy - vertex.light) ** 2
    low = max(sum(masses) ** 2, LEAST * high)
    m2, width = sector.mediator**2, sector.mediator * total

    def density(s: FloatArray) -> FloatArray:
        root = np.sqrt(s)
        pair = root * partial_width(sector, one, two, root)
        return pair * sector.alpha_d * _dark_factor(vertex, s) / (np.pi * ((s - m2) ** 2 + width**2))

    x = _crowded(np.log(low), np.log(high))
    if low < m2 < high and width > 0:  # half of the points follow the resonance
        first, last = (float(np.arctan((end - m2) / width)) for end in (low, high))
        peak = np.log(m2 + width * np.tan(np.linspace(first, last, POINTS // 2 + 2)[1:-1]))
        x = np.sort(np.concatenate([_crowded(np.log(low), np.log(high), POINTS - len(peak)), peak]))
    cdf = _cumulated(x, density)
    value = float(cdf[-1])
    grid = x, cdf / value, np.broadcast_to([1.0, 0.0], (POINTS, 2))
    return _Channel(i, vertex.light, masses, (one, two), DARK, value, lambda: grid, prompt=True)


def _on_shell(sector: DarkSector, vertex: Vertex, i: int, r_table: RTable | None) -> list[_Channel]:
    """Return ψ_j → ψ_i A', A' → a visible pair."""
    m = sector.mediator
    widths = [float(lepton_width(m, mass)) for mass in LEPTON_MASS.values()]
    widths.append(0.0 if r_table is None else widths[1] * float(r_table.at(m)))
    rate = sector.alpha_d * float(_dark_factor(vertex, np.array([m**2]))[0])
    channels, cdf = [], np.linspace(0.0, 1.0, POINTS)
    log_s = np.log(m**2) + 1e-12 * (cdf - 0.5)  # a line
    for name, value in zip(PAIRS, widths, strict=True):
        if value > 0:
            # The mediator plays no part in the angle; a heavy one keeps the transition off its shell.
            couplings = vertex.g, vertex.d, name, vertex.scalar
            t = Transition(vertex.heavy, vertex.light, 10.0 * vertex.heavy, *couplings)
            angle = np.broadcast_to(np.stack(angular(t, m**2)), (POINTS, 2))
            grid = partial(tuple, (log_s, cdf, angle))
            visible = (t.particle, t.particle), (-1, -1), PAIRS.index(t.pair)
            width = rate * value / sum(widths)
            channels.append(_Channel(i, vertex.light, *visible, width, grid, prompt=True))
    return channels


@dataclass(frozen=True, slots=True)
class NeutrinoMixing:
    """Mixing of a dark fermion with light neutrinos: ψ → ν f f̄ through the dark photon."""

    state: int  # Which mass state
    squared: float  # |V|² of the vertex ν̄ γ ψ in units of g_D
    # A Majorana fermion decays twice as fast, "majorana", "dirac"
    nature: Literal["majorana", "dirac"] = "majorana"

    def __post_init__(self) -> None:
        if not (np.isfinite(self.squared) and self.squared >= 0) or self.state < 0:
            what = f"|V|² = {self.squared!r} must be >= 0"
            raise PhysicsError(f"mixing of state {self.state} with neutrinos: {what}")

    @property
    def strength(self) -> float:
        """G of the vertex; D drops out for a massless neutrino."""
        return self.squared * (1.0 if self.nature == "majorana" else 0.5)


Mixings: TypeAlias = NeutrinoMixing | Sequence[NeutrinoMixing] | None


@dataclass(frozen=True, slots=True, eq=False)
class DecayTable:
    """Everything that the generator of cascades needs, as arrays."""

    mediator: float  # Mass of the decaying dark photon [GeV], √s of a virtual one
    masses: FloatArray  # shape (n,)
    # Decays of the dark photon and their branching ratios inside the dark sector, shapes (p, 2) and (p,)
    pairs: IntArray
    pair_fraction: FloatArray
    pair_angle: FloatArray  # a and b of a + b cos² for a transverse dark photon, shape (p, 2)
    dark_width: float  # Width of the dark photon into the dark sector [GeV]
    # Proper decay lengths at ε = 1 [m], inf if stable; they scale as 1/ε². Zero: decays at once, shape (n,)
    ctau: FloatArray
    first: IntArray  # Channels of state j are first[j] … first[j + 1], shape (n + 1,)
    daughter: IntArray  # State of the daughter, −1 for a neutrino, shape (c,)
    # Mass of the daughter [GeV]; branching ratio, shape (c,)
    daughter_mass: FloatArray
    particle_mass: FloatArray  # Of the pair [GeV], shape (c, 2)
    partner: IntArray  # States of the pair if it is dark, −1 if it is visible, shape (c, 2)
    fraction: FloatArray
    kind: IntArray  # 0 electrons, 1 muons, 2 hadrons, 3 dark states, shape (c,)
    # Logarithm of the squared mass of the pair and its cumulative distribution, shape (c, k)
    log_s: FloatArray
    cdf: FloatArray
    angle: FloatArray  # a and b of a − b cos², on the same grid, shape (c, k, 2)

    def _summed(self, visible: int, *, goes_on: bool, stable: int) -> IntArray:
        """Return the largest sum over the decays that follow from each state, shape (n,)."""
        largest = np.full(len(self.masses), stable, dtype=np.int64)
        for j in range(len(largest)):  # daughters are lighter, so they come first
            sums = []
            for c in range(int(self.first[j]), int(self.first[j + 1])):
                daughter, dark = int(self.daughter[c]), self.partner[c, 0] >= 0
                after = int(largest[daughter]) if daughter >= 0 else stable
                below = int(largest[self.partner[c]].sum())
                sums.append(after + below if dark else visible + goes_on * after)
            largest[j] = max(sums, default=stable)
        return largest

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
    sector: DarkSector, *, r_table: RTable | None = None, neutrino: Mixings = None, at: float | None = None
) -> DecayTable:
    """Return branching ratios, lifetimes and sampling tables; `at`: √s of a virtual dark photon [GeV]."""
    mixings = _mixings(neutrino, len(sector.masses))
    virtual = sector if at is None else replace(sector, mediator=at)
    pairs, widths = mediator_widths(virtual)
    if not len(pairs):
        raise PhysicsError(
            f"{sector.name}: a dark photon of {virtual.mediator:g} GeV has no open decay into {sector.masses}"
        )
    per_state = [_channels(sector, j, r_table, mixings) for j in range(len(sector.masses))]
    every = [channel for channels in per_state for channel in channels]
    total = np.array([sum(channel.width for channel in channels) for channels in per_state])
    owner = np.repeat(np.arange(len(per_state)), [len(channels) for channels in per_state])
    grids = [channel.grid() for channel in every]
    log_s, cdf = (np.array([grid[k] for grid in grids]).reshape(-1, POINTS) for k in (0, 1))
    table = DecayTable(
        mediator=virtual.mediator,
        masses=sector.masses,
        pairs=pairs,
        pair_fraction=widths / widths.sum(),
        pair_angle=_transverse(virtual, pairs),
        dark_width=float(widths.sum()),
        ctau=_ctau(sector, per_state),
        first=np.concatenate([[0], np.cumsum([len(c) for c in per_state])]).astype(np.int64),
        daughter=np.array([c.daughter for c in every], dtype=np.int64),
        daughter_mass=np.array([c.light for c in every], dtype=np.float64),
        particle_mass=np.array([c.masses for c in every], dtype=np.float64).reshape(-1, 2),
        partner=np.array([c.partners for c in every], dtype=np.int64).reshape(-1, 2),
        fraction=np.array([c.width for c in every], dtype=np.float64) / total[owner],
        kind=np.array([c.kind for c in every], dtype=np.int64),
        log_s=log_s,
        cdf=cdf,
        angle=np.array([grid[2] for grid in grids]).reshape(-1, POINTS, 2),
    )
    fed = {int(d) for d, (k, _) in zip(table.daughter, table.partner, strict=True) if k < 0 <= d}
    for state in sorted(fed):
        if table.lines[state] > 1:
            raise PhysicsError(
                f"{sector.name}: state {state + 1} comes from decays in flight and splits into dark states, "
                f"{table.lines[state]} of which are seen later: such a tree of flights is not modelled"
            )
    return table


def _ctau(sector: DarkSector, per_state: Sequence[Sequence[_Channel]]) -> FloatArray:
    """Return the proper decay lengths at ε = 1 [m]; zero where a state decays at once, inf where never."""
    total = np.array([sum(c.width for c in channels) for channels in per_state])
    prompt = np.array([any(c.prompt for c in channels) for channels in per_state])
    with np.errstate(divide="ignore"):
        return np.where(prompt, 0.0, CTAU_PER_GEV / (total * sector.alpha_d))


def lifetimes(sector: DarkSector, *, r_table: RTable | None = None, neutrino: Mixings = None) -> FloatArray:
    """Return the proper decay lengths of all states at ε = 1 [m], inf if stable; else as `decay_table`."""
    mixings = _mixings(neutrino, len(sector.masses))
    rows = [_channels(sector, j, r_table, mixings) for j in range(len(sector.masses))]
    return _ctau(sector, rows)


def _mixings(neutrino: Mixings, n: int) -> Sequence[NeutrinoMixing]:
    """Return the mixings with neutrinos as a sequence; n is the number of states."""
    mixings = (neutrino,) if isinstance(neutrino, NeutrinoMixing) else tuple(neutrino or ())
    for mixing in mixings:
        require(mixing.state < n, f"mixing of state {mixing.state + 1} with neutrinos: there are {n} states")
    return mixings


def visible_widths(sector: DarkSector) -> FloatArray:
    """Return the widths of all states into a lighter one and leptons per ε² [GeV], shape (n,)."""
    rows = [_visible(sector, j, None, ()) for j in range(len(sector.masses))]
    return sector.alpha_d * np.array([sum(channel.width for channel in row) for row in rows])


def _channels(
    sector: DarkSector, j: int, r_table: RTable | None, mixings: Sequence[NeutrinoMixing]
) -> list[_Channel]:
    """Return the decays of one state: those at once if they are faster, else those per ε² and α_D."""
    visible = _visible(sector, j, r_table, mixings)
    strength = sum(mixing.strength for mixing in mixings if mixing.state == j)
    prompt = _prompt_channels(sector, j, r_table, strength)
    slow = sum(channel.width for channel in visible) * COMPARED_AT**2 * sector.alpha_d
    return prompt if sum(channel.width for channel in prompt) > slow else visible


def _visible(
    sector: DarkSector, j: int, r_table: RTable | None, mixings: Sequence[NeutrinoMixing]
) -> list[_Channel]:
    """Return the decays of one state to a lighter one and a visible pair."""
    g, d = sector.strengths()
    scalar = sector.field == "scalar"
    heavy = float(sector.masses[j])
    daughters = [(i, float(sector.masses[i]), g[i, j], d[i, j]) for i in range(j)]
    daughters += [(-1, 0.0, mixing.strength, 0.0) for mixing in mixings if mixing.state == j]
    channels = []
    for state, light, strength, difference in daughters:
        if strength <= 1e-20 or not 0 < heavy - light < sector.mediator:
            continue
        for pair in PAIRS if r_table is not None else PAIRS[:2]:
            t = Transition(heavy, light, sector.mediator, float(strength), float(difference), pair, scalar)
            value = width(t, r_table=r_table)
            if value > 0:
                visible = (t.particle, t.particle), (-1, -1), PAIRS.index(pair)
                channels.append(_Channel(state, light, *visible, value, partial(_grid, t, r_table)))
    return channels


def _grid(t: Transition, r_table: RTable | None) -> Grid:
    """Return ln s, its cumulative distribution and the angle's a, b on a grid crowded at both ends."""
    low, high = np.log(t.range)
    x = _crowded(low, high)
    cdf = _cumulated(x, lambda s: spectrum(t, s, r_table=r_table))
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
