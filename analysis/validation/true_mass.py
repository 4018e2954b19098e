"""The true mass near ω and φ of MOCK dimuons, beside the smeared preset (part of unfold)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from validation._rows import row as _row

from gammastar import unfold
from gammastar.core.axes import regular, variable
from gammastar.core.constants import branching
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum
from gammastar.core.sampling import stream
from gammastar.mock.card import Card
from gammastar.physics.hadrons import cocktail_components

RECO, FINE = (regular("mass", 45, 0.2125, 1.1125),), (regular("mass", 200, 0.2, 1.2),)
SHOWN = regular("mass", 225, 0.2125, 1.1125)  # 4 MeV
COARSE = (
    variable("mass", [0.2125, 0.45, 0.7, 1.1125]),
    variable("pt", [0, 0.25, 0.5, 0.8, 1.2, 3.0]),
    variable("energy", [5, 9, 12, 15, 20, 30, 400]),
)
WINDOWS = {"ω, 0.77–0.79 GeV": (0.7705, 0.7945), "φ, 1.01–1.03 GeV": (1.0105, 1.0285)}
RATIOS = {
    ("omega_dalitz", "omega"): (branching("omega -> pi0 mu mu") / branching("omega -> e e"), 0.2)
}  # 0.2: 13 % of the Dalitz decay and the form factor

Simulated = Callable[[Card, int, np.random.Generator], MatchedPairs]


def rows(
    card: Card, simulated: Simulated, measured: Callable[[MatchedPairs, tuple], Spectrum], n_toys: int
) -> Iterator[dict]:
    """Compare inside the domain; simulation of another prior, reweighted to the unfolded kinematics."""
    n, factor = 300_000, 8
    big = simulated(card, factor * n, stream(7, "truth"))
    pulls: dict[str, list[float]] = {name: [] for name in WINDOWS}
    smeared: dict[str, list[float]] = {name: [] for name in WINDOWS}
    chi2 = []
    for i in range(n_toys):
        mc = simulated(card.with_prior("varied"), 2 * n, stream(6, "mc", i))
        data = simulated(card, n, stream(5, "true mass", i))
        coarse = unfold.iterative(
            measured(data, COARSE),
            unfold.response(mc, COARSE, COARSE, n_replicas=0),
            n_iterations=3,
            efficiency_floor=0.03,
        )
        same = unfold.simulation.reweighted(mc, coarse)
        part = unfold.simulation.fiducial_fraction(same, coarse, FINE[0])
        response = unfold.response(
            unfold.simulation.fiducial(same, coarse), RECO, FINE, n_replicas=50, rng=stream(14, i)
        )
        components = [c.times(FINE[0].centers, part) for c in cocktail_components((0.2, 1.2))]
        found = unfold.forward_fold(measured(data, RECO), response, components, ratios=RATIOS)
        chi2.append(found.chi2 / found.ndf)
        spectrum = found.spectrum(SHOWN)
        inside = unfold.simulation.fiducial(big, coarse).true[:, 0]
        truth = np.histogram(inside, SHOWN.edges)[0] / factor
        kept = unfold.simulation.fiducial(same, coarse)
        plain = unfold.iterative(
            measured(data, (SHOWN,)),
            unfold.response(unfold.simulation.unsmeared(kept), (SHOWN,), (SHOWN,), n_replicas=0),
            n_iterations=1,
        )
        for name, (low, high) in WINDOWS.items():
            use = (SHOWN.centers > low) & (SHOWN.centers < high)
            sigma = np.sqrt(spectrum.cov[np.ix_(use, use)].sum())
            pulls[name].append((spectrum.values[use].sum() - truth[use].sum()) / sigma)
            smeared[name].append(plain.values[use].sum() / truth[use].sum())
    source = f"MOCK truth, {n_toys} samples"
    for name in WINDOWS:
        bias = f"{source}; smeared preset: {np.mean(smeared[name]):.2f} of the truth"
        tolerance = 0.5 + 3 / np.sqrt(n_toys)
        yield _row(f"forward-folded true mass at {name}: mean pull", np.mean(pulls[name]), 0, tolerance, bias)
        if n_toys > 5:
            width = np.std(pulls[name], ddof=1)
            yield _row(f"forward-folded true mass at {name}: width of pulls", width, 1, 0.5, source)
    yield _row("forward fold: χ²/ndf", np.mean(chi2), 1, 0.2 + 3 * np.sqrt(2 / 38 / n_toys), source)
