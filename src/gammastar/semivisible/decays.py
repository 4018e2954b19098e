"""Decays of dark states ψ_j → ψ_i f f̄ through an off-shell dark photon: exact spectra, tables to draw from.

Every width is per ε² and per α_D: both factor out as long as the dark photon is off its shell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gammastar.core.constants import ALPHA, CTAU_PER_GEV, LEPTON_MASS, M_MU, M_PI_CHARGED
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.qed import RTable
from gammastar.semivisible.models import DarkSector, mediator_widths

__all__ = [
    "DecayTable",
    "Mixings",
    "NeutrinoMixing",
    "Transition",
    "angular",
    "decay_table",
    "lifetimes",
    "spectrum",
    "squared_amplitude",
    "width",
]

IntArray: TypeAlias = npt.NDArray[np.int64]

POINTS = 1024
PAIRS: tuple[Pair, ...] = ("e", "mu", "hadrons")
Pair: TypeAlias = Literal["e", "mu", "hadrons"]
NODES = 240


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
            msg = f"mixing of state {self.state} with neutrinos: |V|² = {self.squared!r} must be >= 0"
            raise PhysicsError(msg)

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
    neutrino: Mixings = None,
    include_width: bool = False,
    at: float | None = None,
) -> DecayTable:
    """Return branching ratios, lifetimes and sampling tables of a dark sector.

    Parameters
    ----------
    sector : DarkSector
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
    pairs, partial = mediator_widths(virtual)
    if not len(pairs):
        msg = (
            f"{sector.name}: a dark photon of {virtual.mediator:g} GeV has no open decay into {sector.masses}"
        )
        raise PhysicsError(msg)
    broad = float(partial.sum()) if include_width else 0.0
    per_state = [_channels(sector, j, r_table, mixings, broad) for j in range(len(sector.masses))]
    found = [channel for channels in per_state for channel in channels]
    total = np.array([sum(channel[2] for channel in channels) for channels in per_state])
    owner = np.repeat(np.arange(len(per_state)), [len(channels) for channels in per_state])
    grids = [_grid(transition, r_table, broad) for _, transition, _ in found]
    empty = np.empty((0, POINTS))
    with np.errstate(divide="ignore"):
        ctau = CTAU_PER_GEV / (total * sector.alpha_d)
    return DecayTable(
        mediator=virtual.mediator,
        masses=sector.masses,
        pairs=pairs,
        pair_fraction=partial / partial.sum(),
        pair_angle=_transverse(virtual, pairs),
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


def lifetimes(sector: DarkSector, *, r_table: RTable | None = None, neutrino: Mixings = None) -> FloatArray:
    """Return the proper decay lengths of all states at ε = 1 [m], inf if stable; else as `decay_table`."""
    mixings = _mixings(neutrino, len(sector.masses))
    rows = [_channels(sector, j, r_table, mixings, 0.0) for j in range(len(sector.masses))]
    total = np.array([sum(value for _, _, value in row) for row in rows])
    with np.errstate(divide="ignore"):
        return np.asarray(CTAU_PER_GEV / (total * sector.alpha_d))


def _mixings(neutrino: Mixings, n: int) -> Sequence[NeutrinoMixing]:
    """Return the mixings with neutrinos as a sequence; n is the number of states."""
    mixings = (neutrino,) if isinstance(neutrino, NeutrinoMixing) else tuple(neutrino or ())
    for mixing in mixings:
        if mixing.state >= n:
            msg = f"mixing of state {mixing.state + 1} with neutrinos: there are {n} states"
            raise PhysicsError(msg)
    return mixings


def _channels(
    sector: DarkSector,
    j: int,
    r_table: RTable | None,
    mixings: Sequence[NeutrinoMixing],
    broad: float,
) -> list[tuple[int, Transition, float]]:
    """Return daughter, transition and width per ε² and α_D of all decays of one state."""
    g, d = sector.strengths()
    scalar = sector.field == "scalar"
    daughters = [(i, float(sector.masses[i]), g[i, j], d[i, j]) for i in range(j)]
    daughters += [(-1, 0.0, mixing.strength, 0.0) for mixing in mixings if mixing.state == j]
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
            msg = f"transition: the daughter ({self.light!r} GeV) must be lighter than {self.heavy!r} GeV"
            raise PhysicsError(msg)
        if self.heavy - self.light >= self.mediator:
            msg = (
                f"transition {self.heavy:g} -> {self.light:g} GeV: a dark photon of {self.mediator:g} GeV is "
                "on its shell; the three-body formula holds below that"
            )
            raise PhysicsError(msg)

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
            msg = "transition into hadrons: give the table of R"
            raise PhysicsError(msg)
        ratio = ratio * r_table.at(np.sqrt(s))  # the table is relative to the width into muons
    return np.asarray(ALPHA * s / 3.0 * ratio)


def _dark_factor(t: Transition, s: FloatArray) -> FloatArray:
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
    transition : Transition
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
    density = _pair_factor(transition, safe, r_table) * _dark_factor(transition, safe) / (np.pi * propagator)
    return np.asarray(np.where(inside, density, 0.0))


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
    transition : Transition
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
    transition : Transition
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
