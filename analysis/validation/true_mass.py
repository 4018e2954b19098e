"""The true mass near ω and φ of MOCK dimuons, beside the smeared preset (part of unfold)."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from validation._rows import row as _row

from gammastar import unfold
from gammastar.core.constants import M_MU
from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import Spectrum, regular, variable
from gammastar.core.sampling import stream
from gammastar.mock.card import Card
from gammastar.spectrum import fit_mass_shape, mass_counts
from gammastar.spectrum.mass_shape import resolution_of

RECO = regular("mass", 45, 0.2125, 1.1125)
SHOWN = regular("mass", 225, 0.2125, 1.1125)  # 4 MeV
COARSE = (
    variable("mass", [0.2125, 0.45, 0.7, 1.1125]),
    variable("pt", [0, 0.25, 0.5, 0.8, 1.2, 3.0]),
    variable("energy", [5, 9, 12, 15, 20, 30, 400]),
)
WINDOWS = {"ω, 0.77–0.79 GeV": (0.7705, 0.7945), "φ, 1.01–1.03 GeV": (1.0105, 1.0285)}

Simulated = Callable[[Card, int, np.random.Generator], MatchedPairs]


def rows(
    card: Card, simulated: Simulated, measured: Callable[[MatchedPairs, tuple], Spectrum], n_toys: int
) -> Iterator[dict]:
    """Compare inside the domain; simulation of another prior, reweighted to the unfolded kinematics."""
    n, factor = 300_000, 8
    big = simulated(card, factor * n, stream(7, "truth"))
    pulls: dict[str, list[float]] = {name: [] for name in WINDOWS}
    smeared: dict[str, list[float]] = {name: [] for name in WINDOWS}
    p_values = []
    for i in range(n_toys):
        mc = simulated(card.with_prior("varied"), 2 * n, stream(6, "mc", i))
        data = simulated(card, n, stream(5, "true mass", i))
        coarse = unfold.iterative(
            measured(data, COARSE),
            unfold.response(mc, COARSE, COARSE, n_replicas=0),
            n_iterations=3,
            efficiency_floor=0.03,
        )
        seen = unfold.simulation.in_window(mc, (RECO, *COARSE[1:]))
        pairs = mass_counts(measured(data, (RECO, *COARSE[1:])), resolution_of(seen, coarse))
        found = fit_mass_shape(coarse, m_lepton=M_MU, counts=pairs)
        p_values.append(found.p_value)
        inside = unfold.simulation.fiducial(big, coarse).true[:, 0]
        kept = unfold.simulation.fiducial(unfold.simulation.reweighted(mc, coarse), coarse)
        plain = unfold.iterative(
            measured(data, (SHOWN,)),
            unfold.response(unfold.simulation.unsmeared(kept), (SHOWN,), (SHOWN,), n_replicas=0),
            n_iterations=1,
        )
        for name, window in WINDOWS.items():
            value, cov = found.binned(window)
            truth = np.histogram(inside, window)[0][0] / factor
            use = (SHOWN.centers > window[0]) & (SHOWN.centers < window[1])
            pulls[name].append((value[0] - truth) / np.sqrt(cov[0, 0]))
            smeared[name].append(plain.values[use].sum() / truth)
    source = f"MOCK truth, {n_toys} samples"
    for name in WINDOWS:
        bias = f"{source}; smeared preset: {np.mean(smeared[name]):.2f} of the truth"
        tolerance = 0.5 + 3 / np.sqrt(n_toys)
        yield _row(f"forward-folded true mass at {name}: mean pull", np.mean(pulls[name]), 0, tolerance, bias)
        if n_toys > 5:
            width = np.std(pulls[name], ddof=1)
            yield _row(f"forward-folded true mass at {name}: width of pulls", width, 1, 0.5, source)
    label = "forward fold: smallest p-value of the components without residual"
    yield _row(label, min(p_values), 0.5, 0.5 - 0.003 / n_toys, f"{source}; 0.3 % by chance")
