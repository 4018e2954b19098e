"""Rows of the topic `accept`: thrown calibration runs of the proposed size know the signal as wanted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar.accept.calibration import Cells
from gammastar.core.constants import M_MU
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.results.design import DesignRequest, OpenRun, open_run, origins

RESULTS = Path(__file__).resolve().parents[2] / "results" / "na60_dimuon"
POINTS = (("shadows_like", 0.6), ("ship_ecn3", 0.6), ("shadows_like", 0.9))
WINDOW, LEAST, PRECISION, THROWS = (0.012, 0.2), 3.0, 0.1, 300


def rows(*, quick: bool) -> Iterator[dict]:
    for name, mass in POINTS[: 1 if quick else None]:
        throws = 100 if quick else THROWS
        label = f"calibration run for {name} at {mass} GeV, {throws} thrown"
        source = "Poisson pairs of the flow, decays of this file; proposed protons for 0.1"
        if not (RESULTS / "domain.safetensors").is_file():
            yield _row(f"{label}: relative error", np.nan, PRECISION, 0.0, source) | {
                "skipped": "python3 analysis/run.py first"
            }
            continue
        found = _thrown(open_run(RESULTS, name), mass, throws, 300_000 if quick else 2_000_000)
        error = 3 * PRECISION / np.sqrt(2 * throws)
        yield _row(f"{label}: relative error", float(found.std(ddof=1)), PRECISION, error, source)
        bias = 3 * PRECISION / np.sqrt(throws) + 0.02
        yield _row(f"{label}: mean over expected", float(found.mean()), 1.0, bias, source)


def _row(quantity: str, ours: float, expected: float, tolerance: float, source: str) -> dict:
    return {
        "quantity": quantity,
        "ours": ours,
        "expected": expected,
        "tolerance": tolerance,
        "source": source,
    }


def _thrown(run: OpenRun, mass: float, throws: int, least: int) -> FloatArray:
    """Return the signal from the pairs of each thrown run over that of the cells it covers.

    The response is that of a run of at least `least` pairs, larger than the thrown ones by far.
    """
    wanted, cells = DesignRequest((mass,), PRECISION, angles=WINDOW, min_momentum=LEAST), Cells.below(400.0)
    at = origins(run, mass, wanted, cells, 2.3)
    k = at.names.index("largest signal")
    protons, n_cells = float(at.protons[k, 0, 0]), int(np.prod(cells.shape))
    rng = stream(5, "thrown", run.name, f"{mass:g}")
    expected = protons * at.pairs
    many = int(max(60 * expected, least))
    cell, seen = _run(run, mass, cells, many, rng)
    made, found = (np.bincount(c, minlength=n_cells) * expected / many for c in (cell, cell[seen]))
    covered = found >= 0.1 * made
    signal = np.where(covered, at.signal[:, k], 0.0)
    response = np.divide(signal, found, out=np.zeros(n_cells), where=covered & (found > 0)) / signal.sum()
    sums = []
    for _ in range(throws):
        cell, seen = _run(run, mass, cells, rng.poisson(expected), rng)
        sums.append(response[cell[seen]].sum())
    return np.array(sums)


def _run(run: OpenRun, mass: float, cells: Cells, n: int, rng: np.random.Generator) -> tuple:
    """Return the cell of each of n pairs, and which of them the spectrometer sees."""
    pt, energy = run.state.flow.sample(np.full(n, mass), rng)
    phi = rng.uniform(-np.pi, np.pi, n)
    pz = np.sqrt(np.clip(energy**2 - mass**2 - pt**2, 0.0, None))
    p = np.stack([pt * np.cos(phi), pt * np.sin(phi), pz, energy])
    direction = rng.normal(size=(3, n))
    direction *= np.sqrt(mass**2 / 4 - M_MU**2) / np.linalg.norm(direction, axis=0)
    beta, gamma = p[:3] / p[3], p[3] / mass
    seen = np.ones(n, dtype=bool)
    for q in (direction, -direction):  # back to back at rest, boosted
        along = np.sum(beta * q, axis=0)
        muon = q + (gamma**2 / (gamma + 1) * along + gamma * mass / 2) * beta
        theta = np.arctan2(np.hypot(muon[0], muon[1]), muon[2])
        seen &= (theta > WINDOW[0]) & (theta < WINDOW[1]) & (np.linalg.norm(muon, axis=0) > LEAST)
    return cells.index(p), seen
