"""Why the published edge holds a tenth of our mesons: what each explanation needs, and what it would do.

Dark photons from bremsstrahlung, from π⁰ and from all other mesons go through the simulated spectrometer and
the selection once per mass. Each explanation is one number (a tighter cut for all events, or a factor on one
mode) and is fitted to both published edges of both channels. What removes mesons must leave bremsstrahlung.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import likelihood
import numpy as np
import plane
import production
from cuts import Search, as_pairs
from published_edges import DIGITISED, edges
from simulated_decays import signal_events

from gammastar import accept
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream

GROUPS = ("bremsstrahlung", "pi0", "others")
COUPLINGS = np.geomspace(1e-7, 5e-4, 149)
POINTS = {  # GeV; away from the observed dimuon, and from masses where the isolation rules
    "ee": (0.03, 0.05, 0.07, 0.09, 0.10, 0.12, 0.15, 0.20, 0.25, 0.30, 0.35),
    "mumu": (0.23, 0.25, 0.30, 0.35, 0.45, 0.50),
}


@dataclass(frozen=True)
class Accepted:
    """Selected decays of one group at one mass.

    events: expected, shape (n, couplings); softest, energy: smaller momentum of the leptons and their sum
    [GeV]; cda, along: distance from the line of the beam and from the TAX along it [m]; radius, z: of the
    vertex [m]. Shape (n,) each.
    """

    events: FloatArray
    softest: FloatArray
    energy: FloatArray
    cda: FloatArray
    along: FloatArray
    radius: FloatArray
    z: FloatArray

    def signal(self) -> FloatArray:
        """Return the expected events per coupling."""
        return self.events.sum(axis=0)


def source(group: str) -> plane.Source:
    """Return a group of production modes as a function of (mass, n, rng)."""
    if group == "bremsstrahlung":
        return production.bremsstrahlung
    mesons = production.Mesons.read()
    return mesons.only([s for s in mesons.cells if (s == "pi0") == (group == "pi0")]).sample


def accepted(search: Search, group: str, state: str, mass: float, *, n: int = 60_000) -> Accepted | None:
    """Return the selected decays of one group, weighted for every coupling; None where closed."""
    rng = stream(21, group, state, f"{mass:.5f}")
    sample = source(group)(mass, n, rng)
    if sample is None:
        return None
    made = signal_events(sample, mass, state, search.detector, search.card, rng=rng)
    pairs = as_pairs(made.positive, made.negative, made.weight)
    keep = search.selected(pairs, state)[0]
    dark = plane.model()
    weight = accept.decay_weight(
        made.distance[keep], made.density[keep], made.momentum[keep], mass, dark.ctau(mass, COUPLINGS)
    )
    scale = plane.POT * COUPLINGS**2 * dark.branching(mass)[state]
    z, cda = search.tax(pairs)
    position, _ = search.vertex(pairs)
    return Accepted(
        events=(weight * scale[:, None]).T * made.weight[keep, None],
        softest=np.minimum(made.positive.momentum, made.negative.momentum)[keep],
        energy=(made.positive.momentum + made.negative.momentum)[keep],
        cda=cda[keep],
        along=np.abs(z - search.beam.z)[keep],
        radius=np.hypot(position[:, 0], position[:, 1])[keep],
        z=position[keep, 2],
    )


Decays = Mapping[tuple[str, float], Mapping[str, Accepted]]
# of the groups at one point and values of the one number, shape (k,): expected events, shape (k, couplings)
Reading = Callable[[Mapping[str, Accepted], FloatArray], FloatArray]


def decays(search: Search, points: Mapping[str, Sequence[float]] | None = None, *, n: int = 60_000) -> Decays:
    """Return the selected decays of all groups, by (state, mass)."""
    found = {}
    for state, masses in (POINTS if points is None else points).items():
        for mass in masses:
            made = {group: accepted(search, group, state, mass, n=n) for group in GROUPS}
            found[state, mass] = {group: a for group, a in made.items() if a is not None}
    return found


def edges_of(signal: FloatArray, limit: float | None = None) -> FloatArray:
    """Return log10 of the edges of what expected events of shape (k, couplings) exclude, shape (k, 2).

    Where the signal stays below the limit both edges lie at its largest value.
    """
    limit = likelihood.zero_event_limit() if limit is None else limit
    x, y = np.log10(COUPLINGS), np.log(np.maximum(signal, 1e-30) / limit)
    row, found = np.arange(len(y)), []
    above = y > 0
    first, last = above.argmax(axis=1), y.shape[1] - 1 - above[:, ::-1].argmax(axis=1)
    for inner, beside in ((first, first - 1), (last, last + 1)):
        outer = np.clip(beside, 0, y.shape[1] - 1)
        step = np.divide(
            y[row, inner], y[row, inner] - y[row, outer], out=np.zeros(len(y)), where=inner != outer
        )
        found.append(x[inner] + step * (x[outer] - x[inner]))
    return np.where(above.any(axis=1)[:, None], np.array(found).T, x[y.argmax(axis=1)][:, None])


def at_lower_edge(signal: FloatArray, state: str, mass: float) -> FloatArray:
    """Return the expected events at the published lower edge, of a signal of shape (…, couplings)."""
    x, at = np.log(COUPLINGS), edges(state, mass)[0] * np.log(10)
    k = int(np.clip(np.searchsorted(x, at), 1, len(x) - 1))
    part = (at - x[k - 1]) / (x[k] - x[k - 1])
    y = np.log(np.maximum(signal[..., k - 1 : k + 1], 1e-30))
    return np.exp((1 - part) * y[..., 0] + part * y[..., 1])


def share_allowed(
    found: Mapping[str, Accepted], state: str, mass: float, groups: Sequence[str] = ("pi0", "others")
) -> tuple[float, float]:
    """Return the part of some mesons that the published lower edge holds, and its error.

    Beside all of bremsstrahlung, at the limit without events. The error is that of the digitised edge, where
    the yield goes as the fourth power of the coupling.
    """
    events = {group: float(at_lower_edge(a.signal(), state, mass)) for group, a in found.items()}
    mesons = sum(events.get(group, 0.0) for group in groups)
    limit = likelihood.zero_event_limit()
    share = (limit - events["bremsstrahlung"]) / mesons
    return share, limit * 4 * np.log(10) * DIGITISED / mesons


def _tighter(attribute: str, *, above: bool = False) -> Reading:
    def total(found: Mapping[str, Accepted], values: FloatArray) -> FloatArray:
        sums = np.zeros((len(values), len(COUPLINGS)))
        for a in found.values():
            x = getattr(a, attribute)
            order = np.argsort(-x if above else x)
            summed = np.vstack([np.zeros(len(COUPLINGS)), np.cumsum(a.events[order], axis=0)])
            ordered = (-x if above else x)[order]
            sums += summed[np.searchsorted(ordered, -values if above else values)]
        return sums

    return total


def _scaled(*groups: str, without: Sequence[str] = ()) -> Reading:
    def total(found: Mapping[str, Accepted], values: FloatArray) -> FloatArray:
        sums = np.zeros((len(values), len(COUPLINGS)))
        for group, a in found.items():
            if group not in without:
                sums += (values if group in groups else np.ones(len(values)))[:, None] * a.signal()
        return sums

    return total


def _softer(found: Mapping[str, Accepted], values: FloatArray) -> FloatArray:
    """Return the events with a softer spectrum of mesons: times exp(−E/value), bremsstrahlung as it is."""
    sums = np.zeros((len(values), len(COUPLINGS)))
    for group, a in found.items():
        falling = np.exp(-a.energy / values[:, None]) if group != "bremsstrahlung" else np.ones((1, len(a.z)))
        sums += falling @ a.events
    return sums


@dataclass(frozen=True)
class Explanation:
    """One reading of the letter: expected events at values of its one number, and the values to try."""

    name: str
    unit: str
    total: Reading
    values: FloatArray


ONE, FACTORS = np.ones(1), np.geomspace(2e-3, 1, 60)
EXPLANATIONS = (
    Explanation("all mesons at our yield", "", _scaled(), ONE),
    Explanation("one efficiency for all modes", "", _scaled(*GROUPS), FACTORS),
    Explanation("pointing: CDA at the TAX below", "m", _tighter("cda"), np.geomspace(2e-4, 0.03, 60)),
    Explanation("pointing: along the beam within", "m", _tighter("along"), np.geomspace(0.05, 12, 60)),
    Explanation("vertex: radius below", "m", _tighter("radius"), np.geomspace(0.05, 1.0, 60)),
    Explanation("vertex: volume ends at", "m", _tighter("z"), np.linspace(106, 180, 75)),
    Explanation(
        "soft pairs: both momenta above", "GeV", _tighter("softest", above=True), np.linspace(10, 90, 81)
    ),
    Explanation("soft pairs: energy above", "GeV", _tighter("energy", above=True), np.linspace(20, 220, 81)),
    Explanation("one factor on all mesons", "", _scaled("pi0", "others"), FACTORS),
    Explanation("softer mesons: times exp(−E/E₀)", "GeV", _softer, np.geomspace(5, 200, 60)),
    Explanation("no mesons", "", _scaled(without=("pi0", "others")), ONE),
    Explanation("π⁰ alone, with a factor", "", _scaled("pi0", without=("others",)), FACTORS),
)


@dataclass(frozen=True)
class Verdict:
    """How an explanation fits.

    value: best number; kept: part of bremsstrahlung and of mesons left at the published lower edges, mean
    over points; share: part of bremsstrahlung in what is left, shape (points,); residual: log10 of published
    over ours, shape (points, 2), lower and upper edge; chi2: with the digitisation as their error;
    needed: number that each lower edge alone asks for, nan where none does, shape (points,).
    """

    explanation: Explanation
    value: float
    kept: tuple[float, float]
    share: FloatArray
    residual: FloatArray
    chi2: float
    needed: FloatArray


def fit(explanation: Explanation, made: Decays) -> Verdict:
    """Fit the one number of an explanation to the published edges of both channels."""
    values, limit = explanation.values, likelihood.zero_event_limit()
    residuals, needed, parts = [], [], []
    for key, found in made.items():
        total = explanation.total(found, values)
        residuals.append(edges(*key) - edges_of(total))
        events = at_lower_edge(total, *key)
        order = np.argsort(events)
        needed.append(np.interp(limit, events[order], values[order], np.nan, np.nan))
        alone = {"bremsstrahlung": found["bremsstrahlung"]}
        whole = [at_lower_edge(_scaled()(f, ONE), *key)[0] for f in (alone, found)]
        brem = at_lower_edge(explanation.total(alone, values), *key)
        parts.append(np.array([brem / whole[0], (events - brem) / (whole[1] - whole[0]), brem / events]))
    residual = np.array(residuals)  # (points, values, edges)
    chi2 = np.square(residual / DIGITISED).sum(axis=(0, 2))
    best = int(chi2.argmin())
    brem, mesons, share = np.moveaxis(np.array(parts)[..., best], 1, 0)
    return Verdict(
        explanation,
        float(values[best]),
        (float(brem.mean()), float(mesons.mean())),
        share,
        residual[:, best],
        float(chi2[best]),
        np.array(needed),
    )


def study(search: Search, *, n: int = 60_000) -> tuple[Decays, list[Verdict]]:
    """Return the selected decays and the verdict on every explanation."""
    made = decays(search, n=n)
    return made, [fit(explanation, made) for explanation in EXPLANATIONS]
