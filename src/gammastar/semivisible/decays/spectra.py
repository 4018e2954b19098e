"""Spectra, widths and amplitudes of one transition ψ_j → ψ_i f f̄ through an off-shell dark photon.

Every width is per ε² and per α_D: both factor out while the dark photon is off its shell. Decays to three
dark states, or to a dark photon on its shell, need no mixing: where they are open they win by α_D/(α ε²).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, LEPTON_MASS, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable, lepton_width
from gammastar.semivisible.models import DarkSector, mediator_widths, partial_width

POINTS = 1024
NODES = 240
Pair: TypeAlias = Literal["e", "mu", "hadrons"]
PAIRS: tuple[Pair, ...] = ("e", "mu", "hadrons")


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
    """One transition ψ_j → ψ_i f f̄.

    Attributes
    ----------
    heavy, light, mediator : float
        m_j, m_i and the mass of the dark photon [GeV].
    g, d : float
        |V|² + |A|² and |V|² − |A|² of the vertex; a vector is (1, 1), an axial one (1, −1), a chiral one
        (½, 0).
    pair : {"e", "mu", "hadrons"}
    scalar : bool
        ψ are spin-0 fields; then `d` is not used.
    """

    heavy: float
    light: float
    mediator: float
    g: float
    d: float
    pair: Pair = "e"
    scalar: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.light < self.heavy:
            raise PhysicsError(
                f"transition: the daughter ({self.light!r} GeV) must be lighter than {self.heavy!r} GeV"
            )
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


def dark_factor(t: Transition | Vertex, s: FloatArray) -> FloatArray:
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
    """Return dΓ/ds per ε² and α_D [1/GeV], zero outside the phase space.

    Parameters
    ----------
    s : array_like
        Squared mass of the pair [GeV²].
    width : float
        Width of the dark photon in its propagator [GeV].
    r_table : RTable, optional
        Needed for hadrons.

    Notes
    -----
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
    density = _pair_factor(transition, safe, r_table) * dark_factor(transition, safe) / (np.pi * propagator)
    return np.asarray(np.where(inside, density, 0.0))


def crowded(low: float, high: float, n: int = POINTS) -> FloatArray:
    """Return n points between two, crowded at both ends."""
    return np.asarray(low + (high - low) * 0.5 * (1.0 - np.cos(np.pi * np.linspace(0.0, 1.0, n))))


def cumulated(x: FloatArray, density: Callable[[FloatArray], FloatArray]) -> FloatArray:
    """Return the integral of a density of s up to each x = ln s by Simpson's rule; its ends count as zero."""
    fine = np.sort(np.concatenate([x, 0.5 * (x[1:] + x[:-1])]))
    s = np.exp(fine)
    value = density(s) * s
    value[[0, -1]] = 0.0
    step = np.diff(x) / 6.0 * (value[:-2:2] + 4.0 * value[1::2] + value[2::2])
    return np.concatenate([[0.0], np.cumsum(step)])


@lru_cache(maxsize=2)
def _nodes(n: int) -> tuple[FloatArray, FloatArray]:
    """Return nodes and weights on [0, 1], crowded at both ends: there spectra rise like square roots."""
    x, w = np.polynomial.legendre.leggauss(n)
    t, w = 0.5 * (x + 1.0), 0.5 * w
    return 0.5 * (1.0 - np.cos(np.pi * t)), 0.5 * np.pi * np.sin(np.pi * t) * w


def width(transition: Transition, *, mediator_width: float = 0.0, r_table: RTable | None = None) -> float:
    """Return Γ(ψ_j → ψ_i f f̄) per ε² and α_D [GeV]; zero below threshold.

    Parameters
    ----------
    mediator_width : float
        [GeV]
    r_table : RTable, optional
        Needed for hadrons.

    Notes
    -----
    Gauss-Legendre in ln s, where the spectrum of e+e− has its weight, with both ends resolved.

    Examples
    --------
    >>> f"{0.5e-6 * width(Transition(0.462, 0.33, 1.0, 1.0, 1.0)):.4e}"
    '7.9866e-15'
    """
    if not transition.is_open:
        return 0.0
    low, high = np.log(transition.range)
    t, weight = _nodes(NODES)
    s = np.exp(low + (high - low) * t)
    density = spectrum(transition, s, width=mediator_width, r_table=r_table) * s
    return float((high - low) * (density * weight).sum())


def angular(transition: Transition, s: npt.ArrayLike) -> tuple[FloatArray, FloatArray]:
    """Return a and b of dΓ/dcos ∝ a − b cos².

    Parameters
    ----------
    s : array_like
        Squared mass of the pair [GeV²].

    Returns
    -------
    a, b : NDArray
        The angle is that between f and ψ_i in the rest frame of the pair; b < 0 for pions.

    Notes
    -----
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
    """Return the spin-averaged |M|² per ε² and α_D (dimensionless in GeV).

    Parameters
    ----------
    transition : Transition
        Into leptons.
    s, cosine : array_like
        Squared mass of the pair [GeV²] and cosine of `angular`.

    Notes
    -----
    |M|² = 16 (g_D ε e)² (a − b cos²)/(s − M²)² for fermions, width of the dark photon neglected.
    """
    a, b = angular(transition, s)
    strength = 16.0 * (4.0 * np.pi) ** 2 * ALPHA
    propagator = (np.asarray(s, dtype=np.float64) - transition.mediator**2) ** 2
    return np.asarray(strength * (a - b * np.square(cosine)) / propagator)


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
