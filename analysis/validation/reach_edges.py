"""Edges of a reach: importance sampling against plain draws, smoothness, effective numbers, measured part."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar import accept, infer, predict
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import Flight, importance_of, turned, watched
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.core.signal import SignalPlanes
from gammastar.infer.contours import with_errors
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.qed import RTable
from gammastar.pipeline.cache import load_arrays
from gammastar.pipeline.record import read_record

MASS, RATE = 0.4, 2.0  # GeV; dark photons per proton on target and ε²
COUPLINGS = np.geomspace(1e-9, 1e-4, 151)
BLOCK = 500_000
FLAGSHIP = "shadows_like"
LIMIT = 2.303


class LogNormal:
    """pt and longitudinal momentum of logarithms that are normal: a flow with a closed form."""

    mass_range = (0.2, 1.0)

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV] of normal numbers (n, 2)."""
        pt = np.minimum(0.35 * np.exp(0.6 * normal[:, 0]), 20.0)
        pz = np.minimum(14.0 * np.exp(0.6 * normal[:, 1]), 390.0)
        return pt, np.sqrt(mass**2 + pt**2 + pz**2)

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV] at masses (n,)."""
        return self.transform(mass, rng.standard_normal((len(mass), 2)))


def _photons() -> predict.VirtualPhoton:
    rates = np.full(2, RATE)
    return predict.VirtualPhoton(
        np.array([0.2, 1.0]),
        rates,
        np.zeros((2, 2)),
        LogNormal(),
        lambda mass, pt, energy: np.ones(len(mass), dtype=np.bool_),  # noqa: ARG005
    )


def importance(*, quick: bool) -> Iterator[dict]:
    """Compare yields of focused particles with plain ones, at twelve couplings of three detectors."""
    photons, pulls, effective = _photons(), [], []
    draws = 500_000 if quick else 10_000_000
    for name in (FLAGSHIP, "na62_dump", "ship_ecn3"):
        sight = _sight(load_detector(data_path(f"detectors/{name}.toml")), MASS)
        wanted = importance_of([sight], stream(1, name, "importance"))
        made = photons.focused(MASS, n=20_000, rng=stream(1, name, "focused"), importance=wanted)
        ours = sight.expected(watched(sight, made, stream(1, name, "decays"))[0])
        at = _contour(sight, made)
        sums, squares = np.zeros((2, len(COUPLINGS)))
        for block in range(draws // BLOCK):
            plain = photons.produce(MASS, n=BLOCK, rng=stream(2, name, block))
            found = sight.expected(sight.accepted(plain, stream(3, name, block)))
            sums += found.signal
            squares += found.mc_error**2
        blocks = draws // BLOCK
        signal, error = sums / blocks, np.sqrt(squares) / blocks
        pulls.append((ours.signal - signal)[at] / np.hypot(ours.mc_error, error)[at])
        effective.append(ours.n_effective[at])
    found = np.concatenate(pulls)
    yield {
        "quantity": f"yields of 20 000 focused particles and of {draws:.0e} plain ones, {len(found)} points: "
        "largest distance in σ",
        "ours": float(np.abs(found).max()),
        "expected": 0.0,
        "tolerance": 4.0,
        "source": "plain draws, three detectors from edge to edge",
    }
    yield {
        "quantity": "ditto: rms of the distances",
        "ours": float(np.sqrt(np.mean(found**2))),
        "expected": 1.0,
        "tolerance": 0.75,
        "source": "one; points of a detector share particles: about four are independent in each",
    }
    yield {
        "quantity": "ditto: effective number of focused particles, smallest",
        "ours": float(np.concatenate(effective).min()),
        "expected": 10_200.0,
        "tolerance": 9_800.0,
        "source": "at least 400",
    }


def _sight(detector: Detector, mass: float) -> Sight:
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    return Sight.of(mass, COUPLINGS, model, detector, ("ee", "mumu"), None)


def _contour(sight: Sight, sample: object) -> np.ndarray:
    """Return twelve couplings from the first to the last that matters."""
    here = turned(sample, sight.detector, stream(4))
    flight = Flight.of(sight, here)
    marks = flight.at[flight.marks(here.weight)]
    return np.unique(np.linspace(marks[0], marks[-1], 12).round().astype(int))


def main_job(results: Path) -> Iterator[dict]:
    """Look at the off-axis detector of the main job: numbers at its edges, measured part, smoothness."""
    planes = SignalPlanes.from_arrays(load_arrays(results / "stages" / "accept.npz")).by_detector
    yield from _numbers(planes[FLAGSHIP], results / "reach.csv")
    yield from _smoothness(results)


def _numbers(plane: object, reach: Path) -> Iterator[dict]:
    with reach.open(encoding="utf-8") as stream_:
        rows = [r for r in csv.DictReader(stream_) if r["part"] == "all" and r["coupling_low"]]
    mass, low, high = (
        np.array([float(r[k]) for r in rows]) for k in ("mass", "coupling_low", "coupling_high")
    )
    row = np.array([int(np.argmin(np.abs(plane.mass - m))) for m in mass])
    grid = np.log(plane.coupling)

    def at(values: FloatArray, coupling: FloatArray) -> FloatArray:
        return np.array([np.interp(np.log(g), grid, values[i]) for i, g in zip(row, coupling, strict=True)])

    effective = np.minimum(at(plane.n_effective, low), at(plane.n_effective, high))
    yield {
        "quantity": "main job, off-axis detector: share of masses with 400 effective particles at both edges",
        "ours": float((effective >= 400).mean()),
        "expected": 1.0,
        "tolerance": 0.0,
        "source": f"{len(mass)} masses; smallest number {effective.min():.0f}",
    }
    error = at(plane.mc_error / np.maximum(plane.signal, 1e-300), low)
    yield {
        "quantity": "ditto: relative error of the lower edge from the finite sample, largest",
        "ours": float(error.max() / 4),
        "expected": 0.0,
        "tolerance": 0.02,
        "source": "error of the yield over the slope of four",
    }
    inside = (mass > 0.3) & (mass < 1.05)
    part = at(plane.in_domain_fraction, low)[inside]
    yield {
        "quantity": "ditto: measured part of the signal at the lower edge, 0.3 to 1.05 GeV, smallest",
        "ours": float(part.min()),
        "expected": 0.725,
        "tolerance": 0.275,
        "source": f"at least 0.45; below it at {(part < 0.45).sum()} of {len(part)} masses",
    }
    ended = np.array(["upper" in r["clipped_side"].split(", ") for r in rows])
    pairs = at(plane.pairs, high)[ended]
    if len(pairs):
        yield {
            "quantity": "ditto: pairs on which a clipped upper edge rests, largest",
            "ours": float(pairs.max()),
            "expected": 10.0,
            "tolerance": 2.0,
            "source": f"[infer] min_effective: the data end, not the particles ({len(pairs)} masses)",
        }


def _smoothness(results: Path) -> Iterator[dict]:
    """Second differences of the edges at 5 MeV steps between the lines, over their errors."""
    record = read_record(results)
    photons = record.channel()
    detector = load_detector(data_path(f"detectors/{FLAGSHIP}.toml"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    law = accept.Measured(record.spectrum.exposure, "per_interaction")
    masses = np.arange(0.30, 0.601, 0.005)
    signal, error = np.zeros((2, len(masses), len(COUPLINGS)))
    for i, mass in enumerate(masses):
        sight = Sight.of(float(mass), COUPLINGS, model, detector, ("ee", "mumu"), law)
        wanted = importance_of([sight], stream(5, i))
        made = photons.focused(float(mass), n=24_000, rng=stream(6, i), importance=wanted)
        found = sight.expected(watched(sight, made, stream(7, i))[0])
        signal[i], error[i] = found.signal, found.mc_error
    reach = infer.reach(masses, COUPLINGS, signal, LIMIT)
    reach = with_errors(reach, masses, COUPLINGS, signal, LIMIT, signal_error=error)
    for side, name in enumerate(("lower", "upper")):
        edge, sigma = np.log10(reach.edges[:, side]), reach.errors[:, side, 0]
        second = edge[:-2] - 2 * edge[1:-1] + edge[2:]
        own = np.sqrt(sigma[:-2] ** 2 + 4 * sigma[1:-1] ** 2 + sigma[2:] ** 2)
        yield {
            "quantity": f"ditto: second differences of ln ε over their errors, {name} edge, 5 MeV steps, rms",
            "ours": float(np.sqrt(np.nanmean((second / own) ** 2))),
            "expected": 1.0,
            "tolerance": 0.35,
            "source": f"one; the differences are {np.nanmedian(np.abs(second)):.4f} in log10 ε in the median",
        }
