"""Yields of four detectors at ten points each, for the same photons: the package beside `edges_truth`.

Points are those couplings at eight masses where the truth has 0.1 to 10⁴ events, ten of them evenly spread in
their order by mass and coupling. Both codes let every photon decay several times; what scatters between these
rounds is all that may separate them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from validation import edges_truth
from validation._rows import row
from validation.edges_campaigns import BEAM, COUPLINGS, MASSES, SEED, shared

from gammastar import accept
from gammastar.accept.plane import turned
from gammastar.core.files import data_path
from gammastar.core.records import Exposure
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.predict.channel import sample_at_origin

ROUNDS, N_POINTS, EVENTS, N_PHOTONS = 16, 10, (0.1, 1e4), 40_000


def rows() -> Iterator[dict]:
    """Yield mean and scatter of ln(ours/truth) over the points, in errors of the decays."""
    for name in edges_truth.DETECTORS:
        found = np.concatenate([compared(name, k) for k in range(len(MASSES))])
        found = found[(found[:, 0] > EVENTS[0]) & (found[:, 0] < EVENTS[1])]
        found = found[np.linspace(0, len(found) - 1, N_POINTS).round().astype(int)]
        _, log, error = found.T
        weight = 1 / error**2 / np.sum(1 / error**2)
        where, far = f"yields of {name} at {N_POINTS} points", np.abs(log).max()
        three = 3 * np.sqrt(1 / np.sum(1 / error**2))
        text = f"own Monte Carlo with the same photons, largest distance {100 * far:.1f} %"
        yield row(f"{where}: mean ln(ours/truth)", weight @ log, 0.0, three, f"{text}; three errors")
        chi2, spread = np.mean((log / error) ** 2), 3 * np.sqrt(2 / N_POINTS)
        yield row(
            f"{where}: χ² per point", chi2, 1.0, spread, "errors of the decays; three standard deviations"
        )


def compared(name: str, k: int) -> np.ndarray:
    """Return true events, ln(ours/truth) and its error at all couplings of a mass, shape (n, 3)."""
    common, mass = shared(), float(MASSES[k])
    (p, weight), model = common.photons[k], common.model
    rng = stream(SEED, "photons", name, k)
    chosen = rng.choice(p.shape[1], N_PHOTONS, p=weight / weight.sum())
    photons = p[:, chosen], np.full(N_PHOTONS, weight.sum() / N_PHOTONS)
    detector = load_detector(data_path(f"detectors/{name}.toml"))
    exposure = Exposure(BEAM, edges_truth.A_LEAD, 82.0, edges_truth.THIN, 1.0, 0.0)
    law = accept.Measured(exposure, "power", edges_truth.ALPHA, edges_truth.ALPHA_INELASTIC)
    turn, energy = rng.uniform(0, 2 * np.pi, N_PHOTONS), np.sqrt(mass**2 + np.sum(photons[0] ** 2, axis=0))
    pt, _, pz = photons[0]
    sample = sample_at_origin(np.stack([pt * np.cos(turn), pt * np.sin(turn), pz, energy]), photons[1])

    def ours(rng: np.random.Generator) -> np.ndarray:
        around = turned(sample, detector, rng)
        return accept.yields(around, mass, COUPLINGS, model, detector, measured=law, rng=rng).signal

    def truth(rng: np.random.Generator) -> np.ndarray:
        what = model.ctau, model.branching(mass)
        return edges_truth.events(photons, mass, name, COUPLINGS, what, rng)[0]

    (first, one), (second, other) = _mean(ours, name, k), _mean(truth, name, k)
    seen = (first > 0) & (second > 0)
    first, one, second, other = (a[seen] for a in (first, one, second, other))
    return np.stack([second, np.log(first / second), np.hypot(one / first, other / second)], axis=1)


def _mean(
    make: Callable[[np.random.Generator], np.ndarray], name: str, k: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and its error over rounds of decays."""
    every = np.array([make(stream(SEED, make.__name__, name, k, i)) for i in range(ROUNDS)])
    return every.mean(axis=0), every.std(axis=0, ddof=1) / np.sqrt(ROUNDS)
