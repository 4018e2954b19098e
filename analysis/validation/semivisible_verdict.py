"""The inverse seesaw and (g−2)μ: P_miss against a second generator, and what the talk's verdict becomes.

The generator here shares no code with the package but constants and masses: photon angles and three-body
decays by rejection, amplitudes from invariants, boosts as matrices, decay positions drawn one by one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from validation._rows import row as _row

from gammastar import semivisible
from gammastar.core.constants import M_E, M_MU
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.qed import RTable
from gammastar.semivisible.decays import decay_table

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "semivisible"))
import cosmology
import verdict

M, ROOT_S, BOOST = 1.25, 2.0 * (9.0 * 3.1) ** 0.5, (9.0 - 3.1) / (9.0 + 3.1)
TALK = "M. Hostert, EVPA 2022: possible, but only for large dark couplings"
GENERATOR = "second generator (rejection, invariants, drawn positions)"
METRIC = np.array([-1.0, -1.0, -1.0, 1.0])


def rows(*, quick: bool) -> Iterator[dict]:
    """Yield rows of P_miss and of the verdict."""
    yield from _generators(100_000 if quick else 400_000)
    yield from _verdict(20_000 if quick else 40_000)


def _product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b * METRIC).sum(axis=-1)


def _boosted(k: np.ndarray, parent: np.ndarray) -> np.ndarray:
    """Return k, given in the rest frame of the parent, where the parent moves, by Lorentz matrices."""
    mass = np.sqrt(_product(parent, parent))
    u = parent / mass[:, None]
    matrix = np.zeros((len(k), 4, 4))
    matrix[:, :3, :3] = np.eye(3) + u[:, :3, None] * u[:, None, :3] / (1.0 + u[:, 3])[:, None, None]
    matrix[:, :3, 3] = matrix[:, 3, :3] = u[:, :3]
    matrix[:, 3, 3] = u[:, 3]
    return (matrix @ k[..., None])[..., 0]


def _directions(n: int, rng: np.random.Generator) -> np.ndarray:
    x = rng.normal(size=(n, 3))
    return x / np.linalg.norm(x, axis=1)[:, None]


def _momentum(m: float, a: np.ndarray | float, b: np.ndarray | float) -> np.ndarray:
    """Return the momentum of two bodies a, b at rest of m."""
    return np.sqrt(np.clip((m**2 - (a + b) ** 2) * (m**2 - (a - b) ** 2), 0.0, None)) / (2.0 * m)


def _dark_photons(n: int, rng: np.random.Generator) -> np.ndarray:
    """Return dark photons from e+e− → γA' with |cos θ*| < 0.6 of the photon, in the laboratory."""
    s = ROOT_S**2
    k = 4.0 * M**2 * s / (s - M**2) ** 2
    cosine = np.empty(0)
    while len(cosine) < n:
        c = rng.uniform(-0.6, 0.6, 3 * n)
        density = (1.0 + c**2 + k) / (1.0 - c**2)
        cosine = np.append(cosine, c[rng.random(len(c)) * (1.36 + k) / 0.64 < density])
    cosine = cosine[:n]
    energy = (s - M**2) / (2.0 * ROOT_S)
    phi, sine = rng.uniform(0, 2 * np.pi, n), np.sqrt(1 - cosine**2)
    p = -energy * np.column_stack([sine * np.cos(phi), sine * np.sin(phi), cosine])
    star = np.column_stack([p, np.full(n, np.hypot(energy, M))])
    frame = np.tile([0.0, 0.0, BOOST / np.sqrt(1 - BOOST**2), 1 / np.sqrt(1 - BOOST**2)], (n, 1))
    return _boosted(star, frame)


def _amplitude(dark: tuple, pair: tuple, mass: float, g: float, d: float) -> np.ndarray:
    """Return the contracted traces over the squared propagator, from invariants."""
    heavy, light = dark
    minus, plus = pair
    ll, pp = _product(minus, plus), _product(heavy, light)
    x = g * pp - d * np.sqrt(_product(heavy, heavy) * _product(light, light))
    crossed = _product(light, minus) * _product(heavy, plus) + _product(light, plus) * _product(heavy, minus)
    total = 2.0 * g * crossed - 2.0 * g * pp * (ll + mass**2) - 2.0 * ll * x + 4.0 * x * (ll + mass**2)
    return total / (2.0 * ll + 2.0 * mass**2 - M**2) ** 2


def _proposals(
    masses: tuple[float, float], lepton: float, strength: tuple[float, float], size: int, rng
) -> tuple:
    """Return weights and momenta of ψ_j → ψ_i l⁺l⁻ at rest, flat in the angles and in ln m_ll."""
    m_j, m_i = masses
    low, high = 2 * np.log(2 * lepton), 2 * np.log(m_j - m_i)
    s = np.exp(rng.uniform(low, high, size))
    root = np.sqrt(s)
    p, q = _momentum(m_j, m_i, root), np.sqrt(np.clip(0.25 * s - lepton**2, 0.0, None))
    away, inner = _directions(size, rng), _directions(size, rng)
    light = np.column_stack([-p[:, None] * away, np.hypot(p, m_i)])
    system = np.column_stack([p[:, None] * away, np.hypot(p, root)])
    minus = _boosted(np.column_stack([q[:, None] * inner, 0.5 * root]), system)
    plus = system - minus
    heavy = np.tile([0.0, 0.0, 0.0, m_j], (size, 1))
    weight = (high - low) * s * p * q / root * _amplitude((heavy, light), (minus, plus), lepton, *strength)
    return weight, light, minus, plus


def _at_rest(masses: tuple, lepton: float, strength: tuple, n: int, rng: np.random.Generator) -> tuple:
    """Return momenta of one lepton flavour by rejection."""
    parts: list[tuple[np.ndarray, ...]] = []
    count, largest = 0, 0.0
    while count < n:
        weight, *momenta = _proposals(masses, lepton, strength, max(4 * n, 10_000), rng)
        largest = largest or 1.2 * weight.max()
        if weight.max() > largest:
            msg = "rejection from too low a maximum"
            raise ValueError(msg)
        keep = rng.random(len(weight)) * largest < weight
        parts.append(tuple(k[keep] for k in momenta))
        count += int(keep.sum())
    return tuple(np.concatenate(column)[:n] for column in zip(*parts, strict=True))


def _three_body(
    parent: np.ndarray, masses: tuple[float, float], strength: tuple[float, float], rng: np.random.Generator
) -> tuple:
    """Return daughter and pair of ψ_j → ψ_i l⁺l⁻, electrons and, where they are open, muons."""
    rates = [
        _proposals(masses, lepton, strength, 200_000, rng)[0].mean()
        if 2 * lepton < masses[0] - masses[1]
        else 0.0
        for lepton in (M_E, M_MU)
    ]
    muons = rng.random(len(parent)) * sum(rates) < rates[1]
    out = tuple(np.empty((len(parent), 4)) for _ in range(3))
    for chosen, lepton in ((~muons, M_E), (muons, M_MU)):
        if chosen.any():
            found = _at_rest(masses, lepton, strength, int(chosen.sum()), rng)
            for where, k in zip(out, found, strict=True):
                where[chosen] = _boosted(k, parent[chosen])
    return out


def _seen(k: np.ndarray) -> np.ndarray:
    theta = np.degrees(np.arctan2(np.hypot(k[:, 0], k[:, 1]), k[:, 2]))
    return (k[:, 3] > 0.1) & (theta > 17.0) & (theta < 142.0)


def _events(point: verdict.Point, n: int, rng: np.random.Generator) -> list[list[tuple]]:
    """Return decays of both dark photon channels of a symmetric seesaw: (parent, visible) by line and event.

    A' → ψ₁ψ₂ has one line with one decay; A' → ψ₂ψ₃ a line with one and a line with two.
    """
    m = dict(enumerate(point.masses))
    axial = (m[2] - m[1]) / (m[2] + m[0])  # |C₁₂|², the vector has the rest
    strength = {(0, 1): (axial, -axial), (1, 2): (1.0 - axial, 1.0 - axial)}

    def rate(i: int, j: int) -> float:
        g, d = strength[i, j]
        with_current = (
            0.5 * (M**2 - m[i] ** 2 - m[j] ** 2) + 0.5 * (M**4 - (m[i] ** 2 - m[j] ** 2) ** 2) / M**2
        )
        return float(_momentum(M, m[i], m[j])) * (g * with_current + 3.0 * d * m[i] * m[j])

    share = rate(0, 1) / (rate(0, 1) + rate(1, 2))
    dark = _dark_photons(n, rng)
    single = rng.random(n) < share
    found = []
    for chosen, (i, j) in ((single, (0, 1)), (~single, (1, 2))):
        parent = dark[chosen]
        p, direction = _momentum(M, m[i], m[j]), _directions(len(parent), rng)
        first = _boosted(np.column_stack([p * direction, np.full(len(parent), np.hypot(p, m[i]))]), parent)
        lines = []
        for state, k in ((i, first), (j, parent - first)):
            line = []
            current = k
            for upper in range(state, 0, -1):
                pair = (upper - 1, upper)
                light, minus, plus = _three_body(current, (m[upper], m[upper - 1]), strength[pair], rng)
                line.append((upper, current, _seen(minus) | _seen(plus)))
                current = light
            if line:
                lines.append(line)
        found.append(lines)
    return found


def _unseen(
    events: list[list[tuple]], ctau: np.ndarray, rng: np.random.Generator, radius: float = 0.9
) -> np.ndarray:
    """Return which events leave nothing visible inside the radius, positions drawn; ctau of zero: prompt."""
    missed = []
    for lines in events:
        hidden = np.ones(len(lines[0][0][1]), dtype=bool)
        for line in lines:
            where = np.zeros(len(hidden))
            for state, k, visible in line:
                transverse = np.hypot(k[:, 0], k[:, 1]) / np.sqrt(_product(k, k))
                where = where + rng.exponential(1.0, len(where)) * ctau[state] * transverse
                hidden &= ~(visible & (where < radius))
        missed.append(hidden)
    return np.concatenate(missed)


def _generators(n: int) -> Iterator[dict]:
    """Yield P_miss of two points against the second generator, prompt and with flight."""
    epsilon = verdict.couplings()["centre"]
    for point, couplings in ((verdict.POINTS[0], (0.1, 0.3, 1.0, 3.0)), (verdict.POINTS[5], ())):
        rng = stream(31, point.label)
        events = _events(point, n, rng)
        table = decay_table(point.sector())
        name = point.label.split(":", maxsplit=1)[0] if couplings else "seesaw of 100, 500, 600 MeV"
        card = semivisible.load_babar()
        ours = semivisible.prompt_missing(table, card, 8_000, stream(32))
        truth = _unseen(events, np.zeros(3), rng).mean()
        tolerance = 3.0 * np.hypot(ours.error[0], np.sqrt(truth / n))
        yield _row(f"P_miss of {name} at 1.25 GeV, prompt", ours.value[0], truth, tolerance, GENERATOR)
        p = verdict.by_coupling(
            point.sector(), epsilon * np.sqrt(np.array(couplings or (1.0,))), n // 5, prompt=8_000
        )
        for k, alpha in enumerate(couplings):
            truth = _unseen(events, table.ctau / (alpha * epsilon**2), rng).mean()
            tolerance = 3.0 * np.hypot(p.error[k], np.sqrt(truth / n))
            text = f"P_miss of {name} at 1.25 GeV and the centre of 2020, α_D = {alpha:g}"
            yield _row(text, p.value[k], truth, tolerance, GENERATOR)


def _verdict(n: int) -> Iterator[dict]:
    """Yield what becomes of the verdict: by mass of the dark photon, by symmetry, with neutrinos."""
    limits = {name: semivisible.published(name) for name in ("babar", "na64_2016_18")}
    limit = float(limits["babar"].at(M))
    largest = verdict.needed(verdict.couplings()["centre"], limit)
    b = verdict.POINTS[0]
    floor = semivisible.prompt_missing(decay_table(b.sector()), semivisible.load_babar(), 8_000, stream(33))
    text = "AHP2020-B at 1.25 GeV: prompt P_miss, its limit for large α_D, over what is needed"
    yield _row(text, floor.value[0] / largest, 1.0, 0.0, TALK) | {"measured": True}
    found = verdict.by_mass(b, limits, n, 12)
    for name, table in found.babar.items():
        at = verdict.smallest(found.mass[::-1], table[::-1, -1], 1.0)
        text = f"AHP2020-B: heaviest dark photon that α_D = 10 leaves to (g−2)μ of 2020, {name} [GeV]"
        yield _row(text, at, M, 0.0, TALK) | {"measured": True}
    half = np.argmin(np.abs(found.mass - 0.5))
    least = verdict.smallest(found.alpha, found.babar["centre"][half], 1.0)
    text = f"AHP2020-B: smallest α_D at {found.mass[half]:.2g} GeV, centre of 2020"
    yield _row(text, least, 0.3, 0.0, "α_D of the benchmark") | {"measured": True}
    broken = verdict.POINTS[3].sector()
    table = decay_table(broken)
    both = float(table.pair_fraction[(table.pairs == 0).all(axis=1)][0])
    p = semivisible.prompt_missing(table, semivisible.load_babar(), 8_000, stream(34))
    text = "B with Λ_L = 0.8 Λ_R: part of P_miss that is A′ → ψ₁ψ₁ and no search can see"
    yield _row(text, both / p.value[0], 1.0, 0.0, "1 if nothing else is missed") | {"measured": True}
    hadrons = RTable.read(data_path("measurements/r_ratio.csv"))
    dense = cosmology.omega(b.sector(alpha_d=0.3), 2.2e-2, r_table=hadrons)
    text = "AHP2020-B: a stable ψ₁ would be more than the dark matter (1 yes)"
    source = "M. Hostert, EVPA 2022: must mix with neutrinos, else overproduced"
    yield _row(text, dense > cosmology.load_cosmology().omega, 1.0, 0.0, source)
