"""What an inverse seesaw needs to explain (g−2)μ: splittings, mixings, dark coupling, neutrinos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from gammastar import semivisible
from gammastar.core.sampling import stream
from gammastar.semivisible import babar, gm2, models, na64
from gammastar.semivisible.cascade import Cascade
from gammastar.semivisible.decays import NeutrinoMixing, decay_table
from gammastar.semivisible.missing_momentum import Missing

M = 1.25
ALPHA_D = np.geomspace(1e-3, 10.0, 33)
SIZE = len(ALPHA_D)
MIDDLE = (0.146, 0.3, 0.5)  # GeV, masses of the second state


@dataclass(frozen=True)
class Point:
    """A named inverse seesaw: masses [GeV], and Λ_L/Λ_R where charge conjugation is broken."""

    label: str
    masses: tuple[float, float, float]
    ratio: float = 1.0

    def sector(self, mediator: float = M, alpha_d: float = 1.0) -> models.DarkSector:
        """Return the sector; Λ_L² + Λ_R² is kept where they differ."""
        symmetric = {"mediator": mediator, "alpha_d": alpha_d}
        if self.ratio == 1.0:
            return models.symmetric_seesaw(*self.masses, **symmetric)
        light, middle, heavy = self.masses
        mu = heavy - light - middle
        right = np.sqrt((mu * middle + light * heavy) / (1.0 + self.ratio**2))
        return models.inverse_seesaw(mu, self.ratio * right, right, middle, **symmetric)


POINTS = (
    Point("AHP2020-B: 74, 146, 220 MeV", (0.074, 0.146, 0.220)),
    Point("AHP2020-A: 35, 120, 185 MeV", (0.035, 0.120, 0.185)),
    Point("B with a light third state: 74, 146, 160 MeV", (0.074, 0.146, 0.160)),
    Point(r"B with $Λ_L = 0.8\,Λ_R$", (0.074, 0.146, 0.220), 0.8),
    Point("wide: 50, 300, 330 MeV", (0.050, 0.300, 0.330)),
    Point("wide: 100, 500, 600 MeV", (0.100, 0.500, 0.600)),
)


def needed(epsilon: float, limit: float) -> float:
    """Return the largest P_miss with which a coupling is not excluded."""
    return float((limit / epsilon) ** 2)


def by_coupling(
    sector: models.DarkSector, strength: np.ndarray, n: int, *, prompt: int = 0, band: bool = True
) -> Missing:
    """Return P_miss against ε √α_D, on which lifetimes depend, from one sample; the sector has α_D = 1."""
    rng = stream(5, *(round(float(m), 9) for m in sector.masses))
    card = semivisible.load_babar()
    events = babar.cascades(decay_table(sector), card, n, rng)
    return babar.missing(events, card, strength, rng, prompt=prompt, band=band)


def smallest(alphas: np.ndarray, p: np.ndarray, largest: float) -> float:
    """Return the α_D from which P falls below a value, straight in the logarithms; inf if never."""
    below = np.flatnonzero(p <= largest)
    if not len(below):
        return np.inf
    k = int(below[0])
    if k == 0:
        return float(alphas[0])
    x, y = np.log(alphas[k - 1 : k + 1]), np.log(np.maximum(p[k - 1 : k + 1], 1e-300))
    return float(np.exp(x[0] + (np.log(largest) - y[0]) / (y[1] - y[0]) * (x[1] - x[0])))


def couplings() -> dict[str, float]:
    """Return ε at 1.25 GeV for the centre and both ends (2σ) of the anomaly of 2020."""
    reference = gm2.reference("wp20")
    low, high = reference.band(M)
    centre = gm2.epsilon_for(M, reference.difference)
    return {"lower end": float(low), "centre": float(centre), "upper end": float(high)}


@dataclass(frozen=True)
class Found:
    """What a named point gives at 1.25 GeV; pairs are values with their statistical errors.

    Attributes
    ----------
    prompt : mapping
        Prompt P_miss by threshold.
    missing : mapping
        P_miss by α_D at the centre of the anomaly.
    least : mapping
        Smallest α_D by ε and definition of "visible"; inf if there is none.
    curve : Missing
        Against α_D at the centre; its `epsilon` holds ε √α_D.
    """

    point: Point
    sector: models.DarkSector
    share: dict[tuple[int, int], float]
    prompt: dict[float, tuple[float, float]]
    missing: dict[float, tuple[float, float]]
    least: dict[tuple[str, str], float]
    curve: Missing


def named(limit: float, n: int, prompt: int) -> list[Found]:
    """Return what the named points give at 1.25 GeV."""
    card, found = semivisible.load_babar(), []
    epsilon = couplings()
    ends = min(epsilon.values()) * np.sqrt(ALPHA_D[0]), max(epsilon.values()) * np.sqrt(ALPHA_D[-1])
    strength = np.geomspace(0.999 * ends[0], 1.001 * ends[1], 49)
    for point in POINTS:
        sector = point.sector()
        table = decay_table(sector)
        pairs = zip(table.pairs.tolist(), table.pair_fraction, strict=True)
        p = by_coupling(sector, strength, n, prompt=prompt)
        along = {name: _along(p, e * np.sqrt(ALPHA_D)) for name, e in epsilon.items()}
        least = {
            (name, kind): smallest(ALPHA_D, getattr(along[name], kind), needed(e, limit))
            for name, e in epsilon.items()
            for kind in ("value", "low", "high")
        }
        thresholds = {}
        for threshold in (0.05, 0.1, 0.15):
            chosen = replace(card, threshold=threshold, thresholds=(), angles=())
            q = semivisible.prompt_missing(table, chosen, prompt, stream(6, point.label))
            thresholds[threshold] = float(q.value[0]), float(q.error[0])
        places = np.array([0.1, 0.3, 1.0, 3.0])
        there = _along(p, epsilon["centre"] * np.sqrt(places))
        at = {
            float(a): (float(v), float(e)) for a, v, e in zip(places, there.value, there.error, strict=True)
        }
        share = {(i, j): float(w) for (i, j), w in pairs}
        found.append(Found(point, sector, share, thresholds, at, least, along["centre"]))
    return found


def _along(p: Missing, strength: np.ndarray) -> Missing:
    """Return probabilities at other ε √α_D, straight in the logarithms."""
    x, at = np.log(p.epsilon), np.log(strength)
    columns = (
        np.exp(np.interp(at, x, np.log(np.maximum(column, 1e-300)))) for column in (p.value, p.low, p.high)
    )
    value, low, high = columns
    return Missing(strength, value, np.interp(at, x, p.error), low, high)


@dataclass(frozen=True)
class Map:
    """Smallest α_D on a grid of splitting and mixing for one m₂; inf: none, nan: no such decay."""

    middle: float
    splitting: np.ndarray
    mixing: np.ndarray
    alpha: np.ndarray
    prompt: np.ndarray
    error: np.ndarray


def maps(limit: float, n: int, size: tuple[int, int]) -> list[Map]:
    """Return the smallest α_D of symmetric seesaws at the centre of the 2020 band, for three m₂."""
    centre = couplings()["centre"]
    largest = needed(centre, limit)
    coarse = np.append(np.geomspace(1e-3, 10.0, 17), 1e4)  # the last one: prompt
    found = []
    for middle in MIDDLE:
        splitting = np.linspace(0.1, 0.97, size[0]) * middle
        mixing = np.geomspace(0.01, 0.45, size[1])
        alpha, prompt, error = np.full((3, *size), np.nan)
        for i, step in enumerate(splitting):
            light = middle - step
            for j, square in enumerate(mixing):
                heavy = (middle + square * light) / (1.0 - square)
                if middle + heavy >= 0.98 * M:
                    continue
                sector = models.symmetric_seesaw(light, middle, heavy, mediator=M, alpha_d=1.0)
                p = by_coupling(sector, centre * np.sqrt(coarse), n, band=False)
                alpha[i, j] = smallest(coarse[:-1], p.value[:-1], largest)
                prompt[i, j], error[i, j] = p.value[-1], p.error[-1]
        found.append(Map(middle, splitting, mixing, alpha, prompt, error))
    return found


@dataclass(frozen=True)
class ByMass:
    """Ratio of P_miss to what is allowed over (mass, α_D) along (g−2)μ; above one is excluded."""

    label: str
    mass: np.ndarray
    alpha: np.ndarray
    babar: dict[str, np.ndarray]
    strict: np.ndarray
    inclusive: np.ndarray


def by_mass(point: Point, limits: dict, n: int, count: int) -> ByMass:
    """Return where BaBar and NA64 leave the couplings of (g−2)μ to a point, against mass and α_D."""
    first = 1.02 * (point.masses[1] + point.masses[2])
    last = 3.0 if limits["babar"].full else limits["babar"].straight[1]
    mass = np.geomspace(first, last, count)
    reference = gm2.reference("wp20")
    centre, low = gm2.epsilon_for(mass, reference.difference), reference.band(mass)[0]
    rows = []
    for m, e, edge in zip(mass, centre, low, strict=True):
        sector = point.sector(float(m))
        table = decay_table(sector)
        rng, cards = stream(7, point.label, float(m)), (semivisible.load_babar(), semivisible.load_na64())
        events = babar.cascades(table, cards[0], n, rng)
        bound = float(limits["babar"].at(m))
        both = np.concatenate([e * np.sqrt(ALPHA_D), edge * np.sqrt(ALPHA_D)])
        p = babar.missing(events, cards[0], both, rng, prompt=2000)
        value, lower, at_edge = p.value[:SIZE], p.low[:SIZE], p.low[SIZE:]
        energy, decays = na64.cascades(table, na64.production(float(m), cards[1]), n // 4, rng)
        other = float(limits["na64_2016_18"].at(m))
        hidden = [
            na64.missing(energy, decays, cards[1], e * np.sqrt(ALPHA_D), rng, mode=mode).value
            / needed(e, other)
            for mode in ("strict", "inclusive")
        ]
        largest = needed(e, bound)
        rows.append((value / largest, lower / largest, at_edge / needed(edge, bound), *hidden))
    nominal, lower, edge, strict, inclusive = (np.array(column) for column in zip(*rows, strict=True))
    named = {"centre": nominal, "centre, low end of the band": lower, "lower 2σ, low end of the band": edge}
    return ByMass(point.label, mass, ALPHA_D, named, strict, inclusive)


def with_neutrinos(
    point: Point, alphas: tuple[float, ...], squared: np.ndarray, n: int
) -> dict[float, Missing]:
    """Return P_miss against the squared mixing of ψ₁ with neutrinos, ψ₁ → νee, for some α_D."""
    centre = couplings()["centre"]
    sector, card, rng = point.sector(), semivisible.load_babar(), stream(8, point.label)
    table = decay_table(sector, neutrino=NeutrinoMixing(0, 1.0))
    events = babar.cascades(table, card, n, rng)
    found = {}
    for alpha in alphas:
        parts = [
            babar.missing(_lived(events, v), card, [centre * np.sqrt(alpha)], stream(9), band=True)
            for v in squared
        ]
        columns = (np.array([getattr(p, key)[0] for p in parts]) for key in ("value", "error", "low", "high"))
        found[alpha] = Missing(squared, *columns)
    return found


def _lived(events: Cascade, squared: float) -> Cascade:
    """Return the same events with the lifetime of the lightest state for another mixing."""
    ctau = events.table.ctau.copy()
    ctau[0] /= squared
    return replace(events, table=replace(events.table, ctau=ctau))


def everything(limits: dict, *, quick: bool, tell: Callable[[str], None]) -> dict:
    """Return all that the figures and the table show."""
    limit = float(limits["babar"].at(M))
    n = 20_000 if quick else 60_000
    tell("inverse seesaw: named points")
    points = named(limit, n, 2_000 if quick else 8_000)
    tell("inverse seesaw: splittings and mixings")
    size = (6, 5) if quick else (13, 10)
    drawn = maps(limit, 10_000 if quick else 30_000, size)
    tell("inverse seesaw: masses")
    masses = [by_mass(POINTS[k], limits, n // 2, 8 if quick else 16) for k in (0, 5)]
    tell("inverse seesaw: neutrinos")
    squared = np.geomspace(1e-8, 1.0, 9 if quick else 25)
    neutrinos = with_neutrinos(POINTS[0], (0.3, 3.0), squared, n // 2)
    return {"points": points, "maps": drawn, "masses": masses, "neutrinos": neutrinos}
