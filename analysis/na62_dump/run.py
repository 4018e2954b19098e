"""The whole search by one command: ``python3 analysis/na62_dump/run.py [--dimuons RESULTS] [--output DIR]``.

Writes figures, contours, a table of numbers and one pyhf point to ``results/na62_dump/``. With the results of
``gammastar run analysis/na60_dimuon/steering.toml`` it also draws the contour from (MOCK) dimuons.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(ROOT / "analysis")]

from _venv import reenter  # noqa: E402

CHANNELS = {"ee": ("ee",), "mumu": ("mumu",), "combined": ("ee", "mumu")}
NOTCH = (0.400, 0.425)  # GeV: masses on both sides of the observed dimuon that it does not reach
POINTS = ((0.3, 4.7e-7), (0.3, 2.5e-6), (0.5, 6e-7))  # near the edges of the contour and at its end


@dataclass
class Job:
    """Where results go, and the numbers found so far."""

    output: Path
    start: float = field(default_factory=time.perf_counter)
    numbers: dict[str, Any] = field(default_factory=dict)

    @property
    def folder(self) -> Path:
        """Folder of the figures."""
        return self.output / "figures"

    def tell(self, text: str) -> None:
        """Print what is being done, with the time since the start."""
        print(f"{time.perf_counter() - self.start:6.0f} s  {text}", flush=True)

    def contour(self, name: str, reach: Any) -> None:
        """Write a contour as CSV."""
        from gammastar.store.manifest import write_table

        columns = {
            "mass": reach.mass.tolist(),
            "coupling_low": reach.edges[:, 0].tolist(),
            "coupling_high": reach.edges[:, 1].tolist(),
            "clipped_side": list(reach.clipped_side),
        }
        write_table(self.output / f"contour_{name}.csv", columns)


def backgrounds(job: Job, search: Any) -> None:
    """Estimate the background from MOCK control samples and from the published shape."""
    import control_samples
    import draw
    import rejection

    from gammastar.core.sampling import stream

    job.tell("MOCK control samples and background")
    ntuple = job.output / "mock_control.root"
    control_samples.prompt_sample(search, ntuple)
    estimate = control_samples.prompt_estimate(search, ntuple)
    one = [rejection.PassFraction("vetoes", 0, 100)]
    shape = rejection.expectation(1.0, one, n=1_000_000, rng=stream(1, "published"))
    shape = shape.scaled(9.4e-3 / shape.median)
    found = {
        "one factor without survivors, median set": shape,
        "MOCK, signal region": estimate.signal_region,
        "MOCK, control region": estimate.control_region,
    }
    for name, expected in found.items():
        low, high = expected.interval
        values = {"median": expected.median, "16 %": low, "84 %": high, "P(0)": expected.p_zero}
        job.numbers[f"ee background, {name}"] = values
    job.numbers["ee background, MOCK, random pairs (value, error)"] = control_samples.combinatorial_estimate(
        search
    )
    job.numbers["MOCK vertices by kind"] = estimate.counts
    draw.layout(search, job.folder)
    draw.control(search, estimate, job.folder)
    draw.posterior({name: found[name].draws for name in list(found)[:2]}, job.folder)


def contours(job: Job, search: Any, n: int) -> dict[str, Any]:
    """Return the contours of all channels with and without mesons."""
    import draw
    import likelihood
    import numpy as np
    import plane

    job.tell("plane of masses and couplings")
    made = plane.full_plane(search, n=n)
    draw.maps(made, job.folder)
    job.tell("contours")
    found = {}
    for name, states in CHANNELS.items():
        for label, modes in (("bremsstrahlung", draw.BREM), ("all mesons", plane.MODES)):
            reach = likelihood.contour(made, states, modes=modes).reach
            found[f"{name} {label}"] = reach
            job.contour(f"{name}_{label}".replace(" ", "_"), reach)
            job.numbers[f"tip, {name}, {label} [GeV, ε]"] = reach.tip
    job.tell("isolation at the sides of its range")
    chosen = plane.MASSES[plane.MASSES < 0.5]
    isolation = {
        side: likelihood.contour(loose, ("ee",), modes=draw.BREM).reach
        for side, loose in plane.isolation_planes(search, masses=chosen, n=n).items()
    }
    job.numbers["isolation, log10 of the edges of ee: 1 cm and 10 cm over 3 cm and 30 cm"] = {
        f"{1e3 * mass:g} MeV": np.log10(
            np.divide(*(likelihood.edges_at(isolation[side], mass) for side in ("low", "high")))
        ).tolist()
        for mass in (0.01, 0.02, 0.05, 0.1, 0.3)
    }
    draw.exclusion(made, found, isolation, job.folder)
    job.numbers["notch of the observed event, mumu: depth [log10 ε], width [GeV]"] = {
        side: likelihood.notch(reach.mass, reach.edges[:, k], NOTCH)
        for reach in [found["mumu bremsstrahlung"]]
        for k, side in enumerate(("lower edge", "upper edge"))
    }
    job.numbers["limit without events"] = likelihood.zero_event_limit()
    job.numbers["relative uncertainty of the efficiency"] = plane.efficiency_sigma()
    i, k = made.mass.searchsorted(0.3), made.coupling.searchsorted(6e-7)
    signal = {state: float(made.signal(state)[i, k]) for state in plane.STATES}
    sigma = {state: float(made.resolution(state)[i, k]) for state in plane.STATES}
    content = likelihood.histfactory(signal, float(made.mass[i]), sigma)
    (job.output / "workspace.json").write_text(json.dumps(content["workspace"], indent=1))
    job.numbers["workspace.json"] = content["warning"]
    return found


def mesons(job: Job, search: Any, n: int) -> None:
    """Say what each explanation of the published edge needs."""
    import draw
    import meson_study
    import numpy as np

    job.tell("mesons and the published edge")
    made, verdicts = meson_study.study(search, n=n)
    job.numbers["mesons that the published lower edge holds (part, error)"] = {
        f"{state}, {1e3 * mass:g} MeV": meson_study.share_allowed(found, state, mass)
        for (state, mass), found in made.items()
    }
    job.numbers["explanations of the published edges"] = {
        verdict.explanation.name: {
            "value": verdict.value,
            "unit": verdict.explanation.unit,
            "value that single lower edges need": [np.nanmin(verdict.needed), np.nanmax(verdict.needed)]
            if np.isfinite(verdict.needed).any()
            else None,
            "bremsstrahlung kept": verdict.kept[0],
            "mesons kept": verdict.kept[1],
            "bremsstrahlung among the events, smallest and largest": [
                verdict.share.min(),
                verdict.share.max(),
            ],
            "χ²": verdict.chi2,
            "edges": verdict.residual.size,
        }
        for verdict in verdicts
    }
    draw.mesons(made, verdicts, job.folder)


def calibrations(job: Job) -> None:
    """Say which dimuon run would measure what the dumps accept."""
    import draw
    import from_dimuons

    job.tell("calibration run")
    found = {}
    for detector, title in (("na62_dump", "NA62"), ("ship_ecn3", "SHiP")):
        for mass, epsilon in POINTS:
            label = f"{title}, {1e3 * mass:g} MeV, ε = {epsilon:g}"
            found[label] = from_dimuons.calibration(mass, epsilon, detector_name=detector)
            job.numbers[f"calibration run, {label}"] = {
                "smallest muon angle for 90 % [mrad]": 1e3 * found[label].needed(),
                "protons for 10 %, target of 0.1 interaction lengths": found[label].protons(),
            }
    draw.calibrations(found, job.folder)


def dimuons(job: Job, results: Path, theory: dict[str, Any]) -> None:
    """Draw the contour from dimuons, if there are results to read."""
    import draw
    import from_dimuons
    import likelihood

    if not (results / "spectrum.json").is_file():
        job.tell(f"no dimuons in {results}: gammastar run analysis/na60_dimuon/steering.toml makes them")
        return
    job.tell(f"contour from the dimuons of {results}")
    data = from_dimuons.data_driven(results, likelihood.zero_event_limit())
    draw.dimuons(data, theory, job.folder)
    draw.kinematics(from_dimuons.kinematics(results, 0.3, 4.7e-7), job.folder)
    job.contour("dimuons_MOCK", data.reach)
    total = float(data.signal.sum())
    job.numbers["MOCK dimuons, part of the signal measured"] = float(data.in_domain.sum()) / total
    job.numbers["MOCK dimuons, tip [GeV, ε]"] = data.reach.tip


def conventions(search: Any) -> dict[str, Any]:
    """Return the choices that the letter leaves open, as made here; they go into every result."""
    import likelihood
    import production

    from gammastar import infer
    from gammastar.physics.bremsstrahlung import preset

    mesons = production.Mesons.read()
    return {
        "bremsstrahlung": preset("na62").describe(),
        "mesons": f"multiplicities {mesons.card['multiplicity']['default']}, {mesons.card['efficiency']}",
        "statistic": str(infer.Convention()),
        "confidence": "CLs < 0.10",
        "nuisances": "protons on target (kappa 1.2) on the signal, kappa of each background; medians",
        "expected bands": "protons on target randomised",
        "mass ranges [GeV]": {**likelihood.BOUNDS, "Bernstein": likelihood.BERNSTEIN_RANGE},
        "signal regions": search.numbers["signal_region"],
        "control region": search.numbers["control_region"],
        "fiducial volume [m]": search.numbers["vertex"]["z"],
        "isolation [m]": search.isolation,
        "masked regions": search.numbers["masked"],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=ROOT / "results" / "na62_dump")
    parser.add_argument("--dimuons", type=Path, default=ROOT / "results" / "na60_dimuon")
    parser.add_argument("-n", type=int, default=50_000, help="dark photons per mass, mode and channel")
    options = parser.parse_args()
    reenter("all")
    import draw
    import likelihood
    from cuts import Search

    job = Job(options.output)
    job.folder.mkdir(parents=True, exist_ok=True)
    search = Search.read()
    job.numbers["conventions"] = conventions(search)
    backgrounds(job, search)
    found = contours(job, search, options.n)
    mesons(job, search, options.n)
    job.tell("axion-like particles")
    smallest = draw.alps(likelihood.zero_event_limit(), job.folder)
    job.numbers["ALP, smallest product of branching ratios"] = smallest
    calibrations(job)
    theory = {label: found[f"combined {label}"] for label in ("bremsstrahlung", "all mesons")}
    dimuons(job, options.dimuons, theory)
    text = json.dumps(job.numbers, indent=1, ensure_ascii=False)
    (job.output / "numbers.json").write_text(text + "\n")
    job.tell(f"written to {job.output}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
