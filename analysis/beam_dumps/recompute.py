"""CHARM and NuCal recomputed: ``python3 analysis/beam_dumps/recompute.py``.

Dark photons from proton bremsstrahlung (the kernel of arXiv:1311.3870) and, at 400 GeV, from decays of π⁰ and
η, to e⁺e⁻ in the detectors of ``data/detectors/``. Nothing is tuned to the published curves. They are not
shipped: a folder with ``charm_foresee_polygon.csv`` and ``nucal_foresee_polygon.csv`` may be named in
``GAMMASTAR_CURVES``.
"""

from __future__ import annotations

import csv
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "analysis"))

from _venv import reenter  # noqa: E402

LIMITS = {"charm": 2.3026, "nucal": 3.6}  # events: none seen; 5 seen with 3.5 expected, as ALPINIST takes it
KERNEL = "fww_vmd"
COUPLINGS = (1e-9, 1e-3, 241)
MASSES = (0.02, 0.6, 45)  # GeV
N_SAMPLE = 100_000


def published(name: str):
    """Return the published polygon, shape (n, 2), or None where the user has no copy."""
    import numpy as np

    folder = os.environ.get("GAMMASTAR_CURVES", "")
    path = Path(folder) / f"{name}_foresee_polygon.csv"
    if not folder or not path.is_file():
        return None
    with path.open() as stream:
        rows = [row for row in csv.reader(stream) if row and row[0][:1].isdigit()]
    return np.array(rows, dtype=float)


def crossings(polygon, mass: float):
    """Return log10 of the couplings where a polygon crosses a mass."""
    import numpy as np

    x, y = np.log(polygon[:, 0]) - np.log(mass), np.log10(polygon[:, 1])
    u, v = np.roll(x, -1), np.roll(y, -1)
    cut = (x * u <= 0) & (x != u)
    return np.sort(y[cut] - x[cut] * (v[cut] - y[cut]) / (u[cut] - x[cut]))


def channels(name: str, beam_energy: float) -> list:
    """Return the production channels of a dump."""
    from gammastar.core.data import data_path
    from gammastar.physics import bremsstrahlung
    from gammastar.physics.mesons import MesonTable
    from gammastar.predict.channels import theory

    found = [theory.Bremsstrahlung(bremsstrahlung.preset(KERNEL), beam_energy)]
    if name == "charm":
        table = MesonTable.read(data_path("measurements/mesons_400gev.toml"))
        found += [theory.PionDalitz(table, beam_energy), theory.PseudoscalarDalitz(table, beam_energy)]
    return found


def events(name: str, masses, couplings):
    """Return expected e⁺e⁻ events, shape (n_masses, n_couplings)."""
    import numpy as np

    from gammastar import accept, predict
    from gammastar.core.data import data_path
    from gammastar.core.rng import stream
    from gammastar.physics.detector import load_detector
    from gammastar.physics.widths import RTable

    detector = load_detector(data_path(f"detectors/{name}.toml"))
    model = predict.DarkPhoton(RTable.read(data_path("measurements/r_ratio.csv")))
    total = np.zeros((len(masses), len(couplings)))
    for i, mass in enumerate(map(float, masses)):
        for channel in channels(name, detector.beam_energy):
            if channel.rate(mass)[0] <= 0:
                continue
            rng = stream(1, name, channel.group, i)
            sample = channel.produce(mass, n=N_SAMPLE, rng=rng)
            total[i] += accept.yields(
                sample, mass, couplings, model, detector, final_states=("ee",), rng=rng
            ).signal
    return total


def edges(name: str, masses):
    """Return log10 of lower and upper edge, shape (n, 2), and the reach."""
    import numpy as np

    from gammastar import infer

    couplings = np.geomspace(*COUPLINGS)
    reach = infer.reach(np.asarray(masses), couplings, events(name, masses, couplings), LIMITS[name])
    return np.log10(reach.edges), reach


def main() -> None:
    reenter("all")
    import numpy as np

    from gammastar import report
    from gammastar.core.data import data_path
    from gammastar.physics.detector import load_detector

    masses = np.geomspace(*MASSES)
    for name in LIMITS:
        _, reach = edges(name, masses)
        detector = load_detector(data_path(f"detectors/{name}.toml"))
        polygon = published(name)
        figure = report.reach_figure(
            [report.Contour("recomputed, ee", reach, "observed")],
            mock=False,
            pot=detector.pot,
            limits=[] if polygon is None else [("published recast (arXiv:1311.3870)", polygon)],
            plane=report.Plane(mass_range=(0.02, 0.6), coupling_range=(1e-8, 1e-3), threshold=None),
        )
        report.save_figure(figure, ROOT / "results" / "beam_dumps" / name)
        if polygon is None:
            print(f"{name}: GAMMASTAR_CURVES not set, nothing to compare with")
            continue
        at = np.array([0.05, 0.1, 0.2, 0.3, 0.4])
        for mass, found in zip(at, edges(name, at)[0], strict=True):
            wanted = crossings(polygon, mass)
            print(f"{name} {mass:.2f} GeV: log10 edges {found.round(3)}, published {wanted.round(3)}")


if __name__ == "__main__":
    main()
