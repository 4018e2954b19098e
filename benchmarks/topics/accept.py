"""One sample for all couplings against one simulation per coupling, in the NA62 dump and behind a shield."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import numpy as np
import vector

from gammastar import accept
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.predict import DarkPhoton

MASS, N_EVENTS = 0.3, 20_000
COUPLINGS = np.geomspace(1e-8, 1e-4, 200)


def _sample(rng: np.random.Generator) -> Sample:
    """Dark photons with the transverse momenta and energies of a hadron beam of 400 GeV."""
    pt, phi = rng.exponential(0.3, N_EVENTS), rng.uniform(-np.pi, np.pi, N_EVENTS)
    pz = 10.0 + rng.exponential(50.0, N_EVENTS)
    energy = np.sqrt(pt**2 + pz**2 + MASS**2)
    p4 = vector.array({"px": pt * np.cos(phi), "py": pt * np.sin(phi), "pz": pz, "E": energy})
    weight = np.full(N_EVENTS, 1e-3 / N_EVENTS)
    return Sample(p4, weight, np.zeros((N_EVENTS, 3)), pz < 60.0)


def _timed(run: Callable[[], FloatArray]) -> tuple[FloatArray, float]:
    start = time.perf_counter()
    return run(), time.perf_counter() - start


def rows() -> Iterator[dict]:
    sample = _sample(stream(1, "sample"))
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    for name in ("na62_dump", "appendix_b"):
        detector = load_detector(data_path(f"detectors/{name}.toml"))

        def run(couplings=COUPLINGS, detector=detector):
            return accept.yields(sample, MASS, couplings, model, detector, rng=stream(2, "decays")).signal

        def loop(run=run):
            return np.array([run(coupling)[0] for coupling in COUPLINGS])

        at_once, fast = min((_timed(run) for _ in range(5)), key=lambda pair: pair[1])
        one_by_one, slow = _timed(loop)
        if not np.allclose(at_once, one_by_one, rtol=1e-9):
            msg = f"{name}: the two ways do not agree"
            raise RuntimeError(msg)
        label = f"{detector.name}, accept on {detector.accept_on}"
        yield {
            "claim": f"{label}: {len(COUPLINGS)} couplings at once over one by one",
            "measured": slow / fast,
            "goal": 20.0,
        }
        yield {
            "claim": f"{label}: events × couplings",
            "measured": N_EVENTS * len(COUPLINGS) / fast / 1e6,
            "goal": 5.0,
            "unit": " M/s",
        }
