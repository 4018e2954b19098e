"""Number of true pairs: OmniFold and iterations against the MOCK truth, over toys (part of unfold)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from validation.unfolding_codes import row

from gammastar import unfold
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, regular, variable
from gammastar.core.sampling import stream
from gammastar.mock.card import Card

# data end at 0.9 GeV, below φ and the tail of ρ: a tenth of the simulation is reconstructed beyond
LAST, SOFT, HARD = 0.9, 10.0, 30.0  # mass and energies [GeV]
WINDOW = (
    regular("mass", 11, 0.2125, LAST),
    variable("pt", [0, 0.5, 6]),
    variable("energy", [0.2, SOFT, 14, 20, HARD, 400]),
)
FINE = (  # wide cells have the mean efficiency of the simulation, which has another prior
    WINDOW[0],
    variable("pt", [0, 0.25, 0.5, 0.8, 1.2, 6]),
    variable("energy", [0.2, 6, 8, SOFT, 12, 14, 17, 20, 25, HARD, 50, 400]),
)
EDGE = 0.05  # next to the window's end, twice the resolution
N_DATA, N_MC, PRESCALE, ITERATIONS = 100_000, 100_000, 10, 3

Simulated = Callable[[Card, int, np.random.Generator], MatchedPairs]


def rows(
    card: Card, simulated: Simulated, measured: Callable[[MatchedPairs, tuple], Spectrum], n_toys: int
) -> Iterator[dict]:
    """Compare with the truth of the same data; the simulation has another prior."""
    found = np.array([_one(card, simulated, measured, i) for i in range(n_toys)])
    mean, error = found.mean(axis=0), found.std(axis=0, ddof=1) / np.sqrt(n_toys)
    source = f"MOCK truth, another prior, {n_toys} samples of {int(mean[-1])} pairs below {LAST} GeV"
    where = f"pairs of {SOFT:g} to {HARD:g} GeV over true ones, cells of 1 % efficiency and more"
    labels = (
        f"{ITERATIONS} iterations: {where}",
        f"OmniFold: {where}",
        f"OmniFold: the same in the last {1e3 * EDGE:g} MeV of the data's window",
    )
    for k, label in enumerate(labels):
        text = f"{source}; statistical error {error[k]:.3f}"
        text += f"; in cells as wide as those of OmniFold {mean[4]:.3f} ± {error[4]:.3f}" if k == 0 else ""
        yield row(label, mean[k], 1, max(3 * error[k], 0.01), text)
    change = found[:, 3] - found[:, 2]
    text = f"{source}; lower by {-change.mean():.2f} ± {change.std(ddof=1) / np.sqrt(n_toys):.2f}"
    low = float(change.mean() < -3 * change.std(ddof=1) / np.sqrt(n_toys))
    yield row("OmniFold: lower there if pairs beyond are not missed (1 = yes)", low, 1, 0, text)


def _one(
    card: Card, simulated: Simulated, measured: Callable[[MatchedPairs, tuple], Spectrum], i: int
) -> list[float]:
    data = simulated(card, N_DATA, stream(41, "data", i))
    mc = _thinned(simulated(card.with_prior("varied"), N_MC, stream(42, "mc", i)), stream(43, i))
    kept = data.reco[unfold.response_matrix.cells(data.reco, WINDOW) >= 0]
    options = {"n_iterations": ITERATIONS}
    seen, everything = (
        unfold.omnifold(kept, sample, rng=stream(44, i), **options).weight
        for sample in (unfold.simulation.in_window(mc, WINDOW), mc)
    )
    wide, region = _binned(measured(data, WINDOW), data, mc)
    fine, _ = _binned(measured(data, FINE), data, mc)

    def inside(sample: MatchedPairs, low: float = 0.0) -> np.ndarray:
        cell = unfold.response_matrix.cells(sample.true, WINDOW)
        return (cell >= 0) & region.ravel()[cell] & (sample.true[:, 0] > low)

    truth, last = (data.weight[inside(data, low)].sum() for low in (0.0, LAST - EDGE))
    place, edge = inside(mc), inside(mc, LAST - EDGE)
    counts = (seen[place].sum() / truth, seen[edge].sum() / last, everything[edge].sum() / last)
    return [fine, *map(float, counts), wide, float(len(kept))]


def _binned(spectrum: Spectrum, data: MatchedPairs, mc: MatchedPairs) -> tuple[float, np.ndarray]:
    """Return unfolded over true pairs of the cells of 1 % efficiency from SOFT to HARD, and these cells."""
    axes = tuple(spectrum.hist.axes)
    response = unfold.response(mc, axes, axes, n_replicas=0)
    found = unfold.iterative(spectrum, response, n_iterations=ITERATIONS)
    centers = axes[2].centers
    region = found.domain & (centers > SOFT) & (centers < HARD)
    cell = unfold.response_matrix.cells(data.true, axes)
    truth = data.weight[(cell >= 0) & region.ravel()[cell]].sum()
    return float(found.values[region].sum() / truth), region


def _thinned(sample: MatchedPairs, rng: np.random.Generator) -> MatchedPairs:
    """Keep one in PRESCALE of the pairs that were not reconstructed, with its weight."""
    part = sample.select(sample.reconstructed | (rng.random(len(sample)) < 1 / PRESCALE))
    weight = np.where(part.reconstructed, 1.0, float(PRESCALE))
    return MatchedPairs(part.true, part.reco, weight, part.event, part.fakes, part.fake_weight)
