"""Tables for other tools: rate, efficiency over mass and lifetime, and the reach as Darkcast takes it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from gammastar import accept
from gammastar.accept.expected_events import Sight
from gammastar.accept.importance import Flight, importance_of, turned
from gammastar.accept.lifetimes import LEPTONS
from gammastar.config import Accept
from gammastar.core.errors import InputFileError
from gammastar.core.files import writes_folder
from gammastar.core.records import Exposure, FloatArray
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.polarisation import NO_SPIN, Spin, SpinState
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.stages.accept import transfer_of
from gammastar.predict import scan_masses
from gammastar.results.publish import write_published
from gammastar.spectrum.angles import spin_text
from gammastar.store.guarded import of_this_version
from gammastar.store.manifest import read_json, write_json, write_text
from gammastar.store.records import write_table

CTAU = (1e-2, 1e5, 211)  # m; straight lines in both logarithms are 0.07 % off per decay length to the volume
SEED = 1
SMALL = 1e-6  # of all particles at cτ = 1 m: yields above it, at constant ε² cτ, have their particles


STATES = {"ee": "e_e", "mumu": "mu_mu", "hadrons": "hadrons"}
FAN = (0.3, 601)  # rad: angles to the beam at which the decay volume is looked for
N_PHI = 16
CLOSED, BESIDE = 1e-5, 1e-6  # half the relative distance of edges that meet, and beside a mass of the scan


def write_darkcast(record: Record, name: str, detector: Detector, folder: Path) -> list[Path]:
    """Write ``<name>.lmt`` and ``<name>.py``; nothing without a closed reach at two masses.

    Nor for another model than the dark photon: Darkcast would recast its couplings as ε.

    Notes
    -----
    As the reader of Darkcast 1.1 asks (arXiv:1801.04847): labels in the first row, masses that rise, one
    lower and one upper coupling per mass, plain ASCII. Islands of one mass are joined,
    gaps in mass stay.
    """
    main = record.folder / f"reach_{name}.json"
    path = main if main.is_file() else record.folder / "reach.json"
    if not path.is_file():
        return []
    with of_this_version(path):
        reach = read_json(path)  # `read_record` has compared it
        if reach.get("model", {}).get("plane", "dark_photon") != "dark_photon":
            return []
        rows = [row for row in reach["rows"] if row["part"] == "all"]
        lines = _table(rows, reach.get("mass_intervals", {}).get("all", []))
    states = [STATES[state] for state in detector.efficiency if state in STATES]
    if len(lines) < 2 or not states:
        return []
    table, module = folder / f"{name}.lmt", folder / f"{name}.py"
    write_text(table, "\n".join(["# mass lower upper", *lines]) + "\n")
    write_text(module, _description(record.mock, table.name, detector, states))
    return [table, module]


def _table(rows: list[dict[str, Any]], intervals: list[dict[str, Any]]) -> list[str]:
    """Return one line per mass that has both edges, the lower below the upper.

    Between two intervals of mass the edges meet at their ends: the reader draws straight lines, which
    would join what a gap separates.
    """
    edges: dict[float, tuple[float, float]] = {}
    for row in rows:
        if row["coupling_low"] is None or row["coupling_high"] is None:
            continue
        low, high = edges.get(row["mass"], (np.inf, 0.0))
        edges[row["mass"]] = min(low, row["coupling_low"]), max(high, row["coupling_high"])
    for left, right in pairwise(intervals):
        for mass, g, aside in (
            (left["high"], left["high_coupling"], 1.0 + BESIDE),
            (right["low"], right["low_coupling"], 1.0 - BESIDE),
        ):  # an end that is not closed is a mass of the scan, whose edges stay
            edges[mass * aside if mass in edges else mass] = (g * (1.0 - CLOSED), g * (1.0 + CLOSED))
    lines = {f"{mass:.8g}": (low, high) for mass, (low, high) in sorted(edges.items()) if low < high}
    return [f"{mass} {low:.6g} {high:.6g}" for mass, (low, high) in lines.items()]


def length_ratio(detector: Detector) -> float:
    """Return the length of the decay volume over its distance from the target.

    Along the beam or, if that misses the volume, along the longest way through it; infinite if the volume
    holds the target or has no end.
    """
    theta, phi = np.linspace(0.0, *FAN), np.linspace(0.0, 2 * np.pi, N_PHI, endpoint=False)
    theta, phi = np.repeat(theta, N_PHI), np.tile(phi, FAN[1])
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    chord = detector.volume.chord(np.tile(np.array(detector.target.position), (len(unit), 1)), unit)
    hit = np.flatnonzero(~np.isnan(chord).any(axis=1))
    if len(hit) == 0:
        return np.inf
    near, far = chord[0] if hit[0] == 0 else chord[hit[np.argmax(np.diff(chord[hit], axis=1))]]
    return float((far - near) / near) if near > 0 else np.inf


def _ascii(text: str) -> str:
    """Return text that a module in plain ASCII can hold between triple quotes."""
    return text.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")


def _description(mock: bool, table: str, detector: Detector, states: list[str]) -> str:
    kind, ratio = "MOCK expected reach" if mock else "Reach", length_ratio(detector)
    value = f"{ratio:.4g}" if np.isfinite(ratio) else 'float("inf")'
    return f'''import darkcast

notes = """
{kind} of {_ascii(detector.name)}, from measured dilepton pairs (gammastar).
Couplings are eps of a dark photon.
lratio: length of the decay volume over its distance from the target, near the beam.

The rate is that of virtual photons from all processes together, so no single production mode is right: with
another vector, replace `production` by the shares of its processes at each mass.
"""
bibtex = ""
model = darkcast.Model("dark_photon")
production = darkcast.Production("eta_gamma")
decay = {states!r}
bounds = darkcast.Datasets("{table}")
efficiency = darkcast.Efficiency(lratio={value})
'''


def spin_of(record: Record) -> Spin:
    """Return the spin state of the photons of a run."""
    section = record.steering.accept
    if section is None:
        return NO_SPIN if record.spin is None else record.spin
    return accept.spin_states(section.longitudinal, None, section.spin_frame, record.spin)[0]


def exposure_of(record: Record) -> Exposure:
    """Return the exposure of the measurement, which every rate per proton needs."""
    if record.spectrum.exposure is None:
        path = record.folder / "spectrum.json"
        raise InputFileError(f"{path}: has no exposure, so that nothing counts per proton")
    return record.spectrum.exposure


def masses_of(record: Record) -> FloatArray:
    """Return the masses at which rates are written [GeV]: those of the run, or as many over its range."""
    section, channel = record.steering.predict, record.channel()
    low, high = channel.mass_range
    inside = [mass for mass in (() if section is None else section.masses) if low <= mass <= high]
    count = 40 if section is None else section.n_masses
    return np.array(sorted(inside) if len(inside) > 1 else scan_masses(channel, low, high, count))


def scaling_of(section: Accept | None) -> Literal["per_interaction"] | None:
    """Return the law for another target that is left once the weights hold the powers of A."""
    return None if section is None or section.target_scaling is None else "per_interaction"


def efficiency_table(
    record: Record, name: str, detector: Detector, masses: Sequence[float], *, final_state: str, n: int
) -> dict[str, FloatArray]:
    """Return the efficiency of a detector over mass and lifetime.

    Notes
    -----
    Per particle that the measured target makes and that decays to the final state: geometry, decay in flight,
    cuts and selection, and where the run scales with A^α the ratio of the two nuclei.
    Particles are drawn where they count at lifetimes of a dark photon (`gammastar.accept.importance`), and
    leptons follow the spin state of the run.
    """
    channel, ctau = record.channel(), np.geomspace(*CTAU)
    spin, transfer = spin_of(record), transfer_of(record.steering, [name])
    exposure, states = record.spectrum.exposure, {final_state: detector.efficiency[final_state]}
    coupling = ctau[::-1] ** -0.5  # as that of dark photons goes with the lifetime
    rows = []
    for mass in (float(m) for m in masses):
        rng = stream(SEED, "export", detector.name, f"{mass:.6f}")
        rate = float(channel.rate([mass])[0][0]) or np.nan
        sight = Sight(detector, coupling, ctau[::-1], states, coupling**2 / (SMALL * rate), mass)
        sample = channel.focused(mass, n=n, rng=rng, importance=importance_of([sight], rng))
        if exposure is not None:
            target = name, detector.target
            sample, _ = transfer.carry(sample, target, (exposure.target_a, None), rng)
        sample = turned(sample, detector, rng)
        flight = Flight.of(sight, sample)
        towards = sight.ctau[flight.at[flight.marks(sample.weight)]]
        scan = sight.accepted(sample, rng, towards, spins=(spin,), lines=flight.lines).scan(ctau)
        none = np.full_like(ctau, np.nan)
        part = np.divide(scan.in_domain, scan.accepted, out=none, where=scan.accepted > 0)
        rows.append(
            np.stack([np.full_like(ctau, mass), ctau, scan.accepted / rate, scan.mc_error / rate, part])
        )
    names = ("mass_GeV", "ctau_m", "efficiency", "mc_error", "measured_fraction")
    return dict(zip(names, np.concatenate(rows, axis=1), strict=True))


def _write_rate(record: Record, masses: FloatArray, output: Path) -> None:
    rate, cov = record.channel().rate(masses)
    error = np.sqrt(np.clip(np.diag(cov), 0.0, None))
    columns = {"mass_GeV": masses, "rate_per_pot_per_eps2": rate, "error": error}
    write_table(output / "rate.csv", _text(columns))
    names = [f"{mass:.6g}" for mass in masses]
    write_table(
        output / "rate_covariance.csv",
        {"mass_GeV": names} | {name: [f"{x:.6g}" for x in cov[:, i]] for i, name in enumerate(names)},
    )


def _text(columns: dict[str, FloatArray]) -> dict[str, list[str]]:
    return {
        name: ["" if np.isnan(x) else f"{x:.6g}" for x in np.asarray(values, dtype=np.float64)]
        for name, values in columns.items()
    }


@writes_folder
def export(
    results: Path,
    *,
    output: Path,
    detector: Path | None = None,
    n: int = 20_000,
    events: int = 0,
    tell: Tell,
) -> list[Path]:
    """Write the tables of a finished run."""
    record = read_record(results)
    held, section = spin_of(record), record.steering.predict
    spin = "unpolarised"
    if isinstance(held, SpinState) and held.longitudinal != NO_SPIN.longitudinal:
        spin = f"{held.longitudinal:g} longitudinal, frame {held.frame}"
    found = record.detectors() if detector is None else {detector.stem: load_detector(detector)}
    channel = record.channel()
    wanted = () if section is None else section.masses
    count = 40 if section is None else section.n_masses
    masses = np.array(wanted or scan_masses(channel, *channel.mass_range, count))
    _write_rate(record, masses, output)
    content: dict[str, Any] = {
        "mock": record.mock,
        "rate": "dark photons per proton on the measured target and squared kinetic mixing",
        "efficiency": "per particle made in the measured target that decays to the final state, branching "
        "ratios left out, powers of A included; straight lines between the points in both logarithms",
        "signal": "POT x target factor x rate x eps^2 x sum over states of BR x efficiency at c tau(eps)",
        "measured_fraction": "part of the efficiency from kinematics where dileptons were measured",
        "spin state of the decays": spin if record.spin is None else spin_text(record.spin),
        "detectors": {},
    }
    for name, known in found.items():
        for state in known.efficiency:
            if known.accept_on == "daughters" and state not in LEPTONS:
                continue
            tell("export", None, f"{known.name}, {state}")
            table = efficiency_table(record, name, known, masses.tolist(), final_state=state, n=n)
            write_table(output / f"efficiency_{name}_{state}.csv", _text(table))
        content["detectors"][name] = {
            "name": known.name,
            "pot" if known.luminosity is None else "luminosity_per_pb": known.exposure,
            "target_factor": _factor(record, known),
            "source": known.source,
        }
        if detector is None:
            write_darkcast(record, name, known, output / "darkcast")
    write_json(output / "export.json", content)
    if events:
        tell("export", None, f"record for HEPData with {events} events")
        write_published(record, output / "hepdata", events=events)
    return sorted(path for path in output.rglob("*") if path.is_file())


def _factor(record: Record, detector: Detector) -> float | None:
    """Return the rate per proton on the detector's target over that on the measured one."""
    section, exposure = record.steering.accept, record.spectrum.exposure
    if section is None or exposure is None:
        return None
    return float(accept.Measured(exposure, scaling_of(section)).factor(detector))
