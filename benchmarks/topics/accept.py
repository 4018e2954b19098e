"""One sample for all couplings against one simulation per coupling, in the NA62 dump and behind a shield."""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import vector

from gammastar import accept, flow
from gammastar.accept.expected_events import Sight
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.pipeline.record import read_record
from gammastar.pipeline.stages.accept import yields_at
from gammastar.pipeline.stages.flow import pairs_near
from gammastar.predict import DarkPhoton
from gammastar.predict.mixture import TargetTransfer
from gammastar.predict.production import measured_production

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
    yield from beside_the_beam()
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


def beside_the_beam() -> Iterator[dict]:
    """Time the yields of a detector beside the beam with all bands, from the flow of the main job."""
    results = Path(__file__).resolve().parents[2] / "results" / "na60_dimuon"
    claim = "60 masses of the off-axis detector with bands from eight replicas, 24 000 particles each: CPU"
    if not (results / "flow_pairs.json").is_file():
        print(f"{claim}: left out, python3 analysis/run.py makes results/na60_dimuon", file=sys.stderr)
        return
    record, variations = read_record(results), flow.load_variations(results)
    photons = replace(
        record.channel(),
        replica_weights=None if variations is None else variations.weights,
        near=pairs_near(results),
    )
    model = DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    production = measured_production(photons, (), model, record.spectrum.exposure, lambda mass: {})  # noqa: ARG005
    masses = np.linspace(*photons.mass_range, 60)
    sight = functools.partial(
        Sight.of,
        couplings=np.geomspace(1e-9, 1e-3, 141),
        model=model,
        detector=load_detector(data_path("detectors/shadows_like.toml")),
        final_states=("ee", "mumu"),
        measured=accept.Measured(record.spectrum.exposure, "per_interaction"),
    )
    settings = 1, 24_000, TargetTransfer(), ()
    yields_at(production, masses, {"shadows_like": sight}, settings, 0)  # compiles what is compiled
    start = time.process_time()
    for i in range(len(masses)):
        yields_at(production, masses, {"shadows_like": sight}, settings, i)
    seconds = time.process_time() - start
    yield {"claim": claim, "measured": seconds, "goal": 10.0, "unit": " s", "higher": False}
