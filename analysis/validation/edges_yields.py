"""Yields of four detectors at ten points each, for the same photons: the package beside `edges_truth`.

A point is a mass and a coupling: in turn where the truth rises above a tenth of an event, half-way (in the
logarithm) to its largest yield on either side, at that, and where it falls below a tenth of an event, or
fewer than 200 decays (effective) make it. In both codes every photon decays several times; what scatters
between these rounds is all that may separate them.
"""

from __future__ import annotations

from collections.abc import Iterator

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

ROUNDS, N_POINTS, LEAST, FEWEST, N_PHOTONS = 16, 10, 0.1, 200, 40_000


def rows() -> Iterator[dict]:
    """Yield mean and scatter of ln(ours/truth) over the points, in errors of the decays."""
    for name in edges_truth.DETECTORS:
        log, error = np.array([compared(name, *point) for point in points(name)]).T
        weight, where = error**-2 / np.sum(error**-2), f"yields of {name} at {N_POINTS} points"
        text = f"own Monte Carlo with the same photons, largest distance {100 * np.abs(log).max():.1f} %"
        three = 3 / np.sqrt(np.sum(error**-2))
        yield row(f"{where}: mean ln(ours/truth)", weight @ log, 0.0, three, f"{text}; three errors")
        chi2, spread = np.mean((log / error) ** 2), 3 * np.sqrt(2 / N_POINTS)
        yield row(f"{where}: χ² per point", chi2, 1.0, spread, "errors of the decays")


def points(name: str) -> list[tuple[int, float]]:
    """Return numbers of masses and couplings."""
    found = []
    for k, mass in enumerate(map(float, MASSES)):
        model, rng = shared().model, stream(SEED, "points", name, k)
        decays = edges_truth.seen(_photons(name, k), mass, name, model.branching(mass), rng)
        lifetimes = zip(COUPLINGS, model.ctau(mass, COUPLINGS), strict=True)
        curve, square = np.array(
            [(e.sum(), np.sum(e**2)) for e in (decays.events(g, ctau) for g, ctau in lifetimes)]
        ).T
        above = np.flatnonzero((curve > LEAST) & (curve**2 > FEWEST * square))
        if len(above):
            low, peak, high = above[0], int(np.argmax(curve)), above[-1]
            places = low, (low + peak) // 2, peak, (peak + high) // 2, high
            found.append([(k, float(COUPLINGS[i])) for i in places])
    return [found[i % len(found)][(i + i // len(found)) % 5] for i in range(N_POINTS)]


def _photons(name: str, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Return some of the photons at a mass, hard ones more often: edges live on them."""
    p, weight = (np.concatenate(a, axis=-1) for a in zip(*shared().photons[k], strict=True))
    chance = weight * (1 + p[2] / 20.0)
    chance /= chance.sum()
    chosen = stream(SEED, "photons", name, k).choice(len(weight), N_PHOTONS, p=chance)
    return p[:, chosen], weight[chosen] / (chance[chosen] * N_PHOTONS * len(shared().photons[k]))


def compared(name: str, k: int, coupling: float) -> tuple[float, float]:
    """Return ln(ours/truth) and its error at one mass and coupling."""
    model, mass, photons = shared().model, float(MASSES[k]), _photons(name, k)
    detector, couplings = load_detector(data_path(f"detectors/{name}.toml")), np.array([coupling])
    exposure = Exposure(BEAM, edges_truth.A_LEAD, 82.0, edges_truth.THIN, 1.0, 0.0)
    law = accept.Measured(exposure, "power", edges_truth.ALPHA, edges_truth.ALPHA_INELASTIC)
    pt, _, pz = photons[0]
    energy = np.sqrt(mass**2 + pt**2 + pz**2)

    def ours(rng: np.random.Generator) -> float:
        phi = rng.uniform(0, 2 * np.pi, N_PHOTONS)
        p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy])
        around = turned(sample_at_origin(p, photons[1]), detector, rng)
        return accept.yields(around, mass, couplings, model, detector, measured=law, rng=rng).signal[0]

    def truth(rng: np.random.Generator) -> float:
        what = model.ctau, model.branching(mass)
        return edges_truth.events(photons, mass, name, couplings, what, rng)[0]

    means, errors = [], []
    for make in (ours, truth):
        every = np.array([make(stream(SEED, make.__name__, name, k, coupling, i)) for i in range(ROUNDS)])
        means.append(every.mean())
        errors.append(every.std(ddof=1) / np.sqrt(ROUNDS) / every.mean())
    return float(np.log(means[0] / means[1])), float(np.hypot(*errors))
