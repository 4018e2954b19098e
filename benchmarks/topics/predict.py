"""A dark-photon contour on 47 masses × 121 couplings from a trained generator: CPU seconds and memory.

FORESEE needs 123 to 210 CPU seconds and 331 to 447 MB for a grid of this size (47 masses, 121 couplings, one
detector; measured on another machine, not side by side).
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from gammastar.core import records
from gammastar.core.files import data_path
from gammastar.core.records import Exposure, Spectrum, filled
from gammastar.core.sampling import stream
from gammastar.flow import FlowOptions, fit, save
from gammastar.mock import generate_pairs, load_card
from gammastar.store.manifest import write_spectrum

N_MASSES, N_COUPLINGS, N_SAMPLE = 47, 121, 20_000
FORESEE = 122.7  # CPU s, the faster of its two settings

# Runs in a process of its own, so that time and memory are those of the contour, imports included.
CONTOUR = """
import json, resource, sys, time
from pathlib import Path
import numpy as np
from gammastar import accept, infer, predict, spectrum
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.sampling import stream
from gammastar.physics.detector import load_detector
from gammastar.physics.qed import RTable
from gammastar.store.manifest import read_spectrum

folder, kind, n_masses, n_couplings, n = Path(sys.argv[1]), sys.argv[2], *map(int, sys.argv[3:])
measured = read_spectrum(folder / "spectrum.json")
if kind == "flow":
    from gammastar import flow
    sampler = flow.load(folder / "flow")
else:
    sampler = spectrum.HistSampler(measured)
mass, density, cov = spectrum.mass_density(measured)
rates, rate_cov = predict.rate(mass, density, cov, M_MU)
inside = lambda m, pt, e: spectrum.in_domain(measured, m, pt, e)
channel = predict.VirtualPhoton(mass, rates, rate_cov, sampler, inside)
model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
detector = load_detector(data_path("detectors/ship_ecn3.toml"))
law = accept.Measured(measured.exposure, "per_interaction")
masses, couplings = np.linspace(mass[0], mass[-1], n_masses), np.geomspace(1e-9, 1e-3, n_couplings)
rows = []
for i, m in enumerate(masses):
    sample = channel.produce(float(m), n=n, rng=stream(1, "sample", i))
    rng = stream(1, "decay", i)
    found = accept.yields(sample, float(m), couplings, model, detector, measured=law, rng=rng)
    rows.append(found.signal)
reach = infer.reach(masses, couplings, np.array(rows), 2.303)
# The high-water mark of this process image: ru_maxrss would still hold that of the parent.
status = Path("/proc/self/status")
if status.is_file():
    peak = next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM"))
else:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps([time.process_time(), peak / 1024, int(np.isfinite(reach.edges[:, 0]).sum())]))
"""


def _train(folder: Path) -> None:
    """Write the spectrum, binned as the main analysis, and a flow of the MOCK cocktail."""
    card = load_card(data_path("cards/na60_mock.toml"))
    pairs = generate_pairs(card, 200_000, stream(1, "pairs"))
    edges = (
        records.regular("mass", 36, 0.2125, 1.1125),
        records.variable("pt", [0.0, 0.3, 0.6, 1.0, 6.0]),
        records.variable("energy", [0.2, 6.0, 12.0, 20.0, 30.0, 45.0, 80.0, 400.0]),
    )
    columns = (pairs.mass, pairs.pt, pairs.energy)
    values, _ = np.histogramdd(np.stack(columns, axis=1), [a.edges for a in edges], weights=pairs.weight)
    variances = values * pairs.weight.mean()
    exposure = Exposure(400.0, card.target.a, card.target.z, card.target.thickness, 1e13)
    domain = np.ones(values.shape, dtype=np.bool_)
    hist = filled(edges, values.ravel(), variances.ravel())
    spectrum = Spectrum(hist, np.diag(variances.ravel()), "per_pot", exposure, domain)
    write_spectrum(folder / "spectrum.json", spectrum)
    inside = (pairs.mass > 0.2125) & (pairs.mass < 1.1125)
    chosen = stream(1, "subset").choice(np.flatnonzero(inside), 40_000, replace=False)
    options = FlowOptions(epochs=3, epoch_size=20_000)
    flow = fit(*(c[chosen] for c in columns), beam_energy=400.0, options=options, rng=stream(1, "flow"))
    save(flow, folder / "flow")


def rows() -> Iterator[dict]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _train(folder)
        for kind, memory in (("histogram", 500.0), ("flow", 800.0)):
            sizes = map(str, (N_MASSES, N_COUPLINGS, N_SAMPLE))
            command = [sys.executable, "-c", CONTOUR, str(folder), kind, *sizes]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds, peak, found = json.loads(run.stdout)
            label = f"contour of {N_MASSES} × {N_COUPLINGS} points in SHiP, {kind} sampler"
            claim = f"{label}, {found} masses reached: CPU time"
            yield {"claim": claim, "measured": seconds, "goal": 20.0, "unit": " s", "higher": False}
            yield {
                "claim": f"{label}: peak memory",
                "measured": peak,
                "goal": memory,
                "unit": " MB",
                "higher": False,
            }
            yield {
                "claim": f"{label}: CPU time of FORESEE, another machine, over ours",
                "measured": FORESEE / seconds,
                "goal": 6.0,
            }
