"""Tables for other tools: rate, efficiency over mass and lifetime, and the reach as Darkcast takes it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gammastar import accept, flow, report
from gammastar.accept.decay import LEPTONS
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import Flight, importance_of, turned
from gammastar.config import Accept
from gammastar.core.constants import ALPHA, LEPTON_MASS, M_PROTON
from gammastar.core.errors import InputFileError, SteeringError
from gammastar.core.files import data_path, writes_folder
from gammastar.core.records import KINEMATICS, MASS, Exposure, FloatArray, Spectrum, cell_of, divided, filled
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.polarisation import NO_SPIN, Spin, SpinState
from gammastar.physics.qed import dark_photon_rate
from gammastar.pipeline.cache import kept_arrays
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.stages.accept import transfer_of
from gammastar.predict import scan_masses
from gammastar.report.hepdata import write_spectrum_record
from gammastar.spectrum import relative_shifts
from gammastar.spectrum.angles import spin_text
from gammastar.spectrum.normalise import mass_shifts
from gammastar.store.folder import of_this_version
from gammastar.store.manifest import read_json, write_json, write_table, write_text

CTAU = (1e-2, 1e5, 211)  # m; straight lines in both logarithms are 0.07 % off per decay length to the volume
SEED = 1
SMALL = 1e-6  # of all particles at cτ = 1 m: yields above it, at constant ε² cτ, have their particles


STATES = {"ee": "e_e", "mumu": "mu_mu", "hadrons": "hadrons"}
FAN = (0.3, 601)  # rad: angles to the beam at which the decay volume is looked for
N_PHI = 16
CLOSED, BESIDE = 1e-5, 1e-6  # half the relative distance of edges that meet, and beside a mass of the scan


def write_darkcast(record: Record, name: str, detector: Detector, folder: Path) -> list[Path]:
    """Write ``<name>.lmt`` and ``<name>.py`` of a closed reach as Darkcast 1.1 asks (arXiv:1801.04847)."""
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
    """Return one line per mass that has both edges, which meet at both ends of a gap in mass."""
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
    """Return length over distance of the decay volume, along the beam or the longest way; inf if open."""
    theta, phi = np.linspace(0.0, *FAN), np.linspace(0.0, 2 * np.pi, N_PHI, endpoint=False)
    theta, phi = np.repeat(theta, N_PHI), np.tile(phi, FAN[1])
    unit = np.stack([np.sin(theta) * np.cos(phi), np.sin(theta) * np.sin(phi), np.cos(theta)], axis=1)
    chord = detector.volume.chord(np.tile(np.array(detector.target.position), (len(unit), 1)), unit)
    hit = np.flatnonzero(~np.isnan(chord).any(axis=1))
    if len(hit) == 0:
        return np.inf
    near, far = chord[0] if hit[0] == 0 else chord[hit[np.argmax(np.diff(chord[hit], axis=1))]]
    return float((far - near) / near) if near > 0 else np.inf


def _description(mock: bool, table: str, detector: Detector, states: list[str]) -> str:
    kind, ratio = "MOCK expected reach" if mock else "Reach", length_ratio(detector)
    name = detector.name.encode("ascii", "replace").decode().replace("\\", "/").replace('"', "'")
    value = f"{ratio:.4g}" if np.isfinite(ratio) else 'float("inf")'
    return f'''import darkcast

notes = """
{kind} of {name}, from measured dilepton pairs (gammastar).
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
    """Return the efficiency over mass and lifetime, per particle of the measured target that decays so."""
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
        part = divided(scan.in_domain, scan.accepted, np.nan)
        at_mass = np.full_like(ctau, mass)
        rows.append(np.stack([at_mass, ctau, scan.accepted / rate, scan.mc_error / rate, part]))
    names = ("mass_GeV", "ctau_m", "efficiency", "mc_error", "measured_fraction")
    return dict(zip(names, np.concatenate(rows, axis=1), strict=True))


def _write_rate(record: Record, masses: FloatArray, output: Path) -> None:
    rate, cov = record.channel().rate(masses)
    error = np.sqrt(np.clip(np.diag(cov), 0.0, None))
    columns = {"mass_GeV": masses, "rate_per_pot_per_eps2": rate, "error": error}
    write_table(output / "rate.csv", _text(columns))
    names = [f"{mass:.6g}" for mass in masses]
    rows = {name: [f"{x:.6g}" for x in cov[:, i]] for i, name in enumerate(names)}
    write_table(output / "rate_covariance.csv", {"mass_GeV": names} | rows)


def _text(columns: dict[str, FloatArray]) -> dict[str, list[str]]:
    numbers = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    return {name: ["" if np.isnan(x) else f"{x:.6g}" for x in row] for name, row in numbers.items()}


@writes_folder
def export(
    results: Path, *, output: Path, detector: Path | None = None, n: int = 20_000, events: int = 0, tell: Tell
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
    written = [output / "rate.csv", output / "rate_covariance.csv", output / "export.json"]
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
    accepting, exposure = record.steering.accept, record.spectrum.exposure
    law = None
    if accepting is not None and exposure is not None:
        law = accept.Measured(exposure, scaling_of(accepting))
    for name, known in found.items():
        for state in known.efficiency:
            if known.accept_on == "daughters" and state not in LEPTONS:
                continue
            tell("export", None, f"{known.name}, {state}")
            table = efficiency_table(record, name, known, masses.tolist(), final_state=state, n=n)
            written.append(output / f"efficiency_{name}_{state}.csv")
            write_table(written[-1], _text(table))
        content["detectors"][name] = {
            "name": known.name,
            "pot" if known.luminosity is None else "luminosity_per_pb": known.exposure,
            "target_factor": law and float(law.factor(known)),
            "source": known.source,
        }
        if detector is None:
            written += write_darkcast(record, name, known, output / "darkcast")
    write_json(output / "export.json", content)
    if events:
        tell("export", None, f"record for HEPData with {events} events")
        written += write_published(record, output / "hepdata", events=events)
    return sorted(written)


SCRIPT = "dark_photon_rate.py"
HALF_WINDOW = 2e-4  # GeV: well below the width of φ, 4.2 MeV
REPLICAS = 50
BLOCK = 50  # neighbouring events over which a replica of the kinematics keeps the rate
N_GRID = 400  # masses at which the replicas of the rate are drawn
Arrays = dict[str, npt.NDArray[Any]]


def mass_spectrum(spectrum: Spectrum) -> Spectrum:
    """Return a spectrum summed over every axis but the mass, with its named sources."""
    place = [axis.name for axis in spectrum.hist.axes].index(MASS)
    label = np.indices(spectrum.domain.shape)[place].ravel()
    axis = spectrum.hist.axes[place]
    total = (np.arange(len(axis))[:, None] == label).astype(np.float64)
    cov = total @ spectrum.cov @ total.T
    cov = (cov + cov.T) / 2
    hist = filled((axis,), total @ spectrum.values.ravel(), np.diag(cov))
    inside = total @ spectrum.domain.ravel() > 0
    shifts = mass_shifts(spectrum)
    return Spectrum(hist, cov, spectrum.quantity, spectrum.exposure, inside, shifts=shifts)


def write_published(record: Record, folder: Path, *, events: int = 100_000, seed: int = 1) -> list[Path]:
    """Write the record of a run."""
    section, exposure = record.steering.spectrum, record.spectrum.exposure
    if section is None or exposure is None:
        raise SteeringError(f"{record.folder}: the spectrum has no exposure, so no record per proton")
    mock = "MOCK: " if record.mock else ""
    lepton = {"e": "E+ E-", "mu": "MU+ MU-"}[section.lepton]
    says = report.Submission(
        title=f"{mock}Mass spectrum of lepton pairs from virtual photons",
        abstract=f"{mock}Pairs per proton on target after subtraction and unfolding, where nothing was "
        "measured with the extrapolation of the run. Beside the tables: weighted events with a description, "
        f"and {SCRIPT}, which makes rates of dark photons from them."
        + (f" {record.loss}." if record.loss else ""),
        coupling="",
        qualifiers={
            "SQRT(S) [GeV]": round(float(np.sqrt(2 * M_PROTON**2 + 2 * M_PROTON * exposure.beam_energy)), 2),
            "BEAM ENERGY [GeV]": exposure.beam_energy,
            "TARGET A": exposure.target_a,
            "TARGET Z": exposure.target_z,
            "TARGET [interaction lengths]": exposure.thickness,
            "POT": exposure.pot,
            "RELATIVE ERROR OF POT, NOT IN THE ERRORS": exposure.pot_sigma,
        },
        reaction=f"P NUCLEUS --> {lepton} X",
        method="Lepton pairs from virtual photons per proton on target.",
        phrases=("Dilepton", "Virtual Photon"),
    )
    resources: dict[str, tuple[str, bytes]] = {}
    samples = {"events": _flow_events(record, events, seed), "omnifold": _omnifold_events(record)}
    for name, (columns, about) in ((key, sample) for key, sample in samples.items() if sample is not None):
        text = json.dumps(_common(record, says.title) | about, indent=1, ensure_ascii=False, allow_nan=False)
        resources[f"{name}.json"] = (f"Columns, units and normalisation of {name}.npz", text.encode())
        resources[f"{name}.npz"] = ("Weighted events: one array of numpy per column", _npz(columns))
    script = data_path(f"publishing/{SCRIPT}").read_bytes()
    resources[SCRIPT] = ("Rates of dark photons from the events, with numpy alone", script)
    return write_spectrum_record(folder, mass_spectrum(record.spectrum), says, resources=resources)


def _npz(columns: Arrays) -> bytes:
    """Return an archive of plain arrays without time stamps: equal events give equal bytes."""
    whole = io.BytesIO()
    with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, column in columns.items():
            one = io.BytesIO()
            np.save(one, np.ascontiguousarray(column), allow_pickle=False)
            archive.writestr(zipfile.ZipInfo(f"{name}.npy"), one.getvalue(), zipfile.ZIP_DEFLATED)
    return whole.getvalue()


def _common(record: Record, title: str) -> dict[str, Any]:
    section, exposure = record.steering.spectrum, record.spectrum.exposure
    units = {
        "mass": ["GeV", "invariant mass of the virtual photon"],
        "pt": ["GeV", "transverse momentum to the beam"],
        "energy": ["GeV", "energy in the laboratory, fixed target"],
        "weight": ["1", "lepton pairs per proton on target that the event stands for"],
        "measured": ["1", "1 where lepton pairs of these kinematics were measured, 0 where extrapolated"],
        "replicas": ["1", "one row per replica: factors on weight; their spread is the statistical error"],
        "sources": ["1", "one row per source: one standard deviation adds this part of weight, all together"],
    }
    return {
        "layout": 1,
        "title": title,
        "mock": record.mock,
        "columns": {
            name: dict(zip(("unit", "description"), row, strict=True)) for name, row in units.items()
        },
        "normalisation": "the weights sum to the lepton pairs from virtual photons per proton on target",
        "rate": "dark photons per proton on target and squared kinetic mixing: m/(2 kappa) dN/dm, kappa = "
        "alpha/(3 pi) (1 + 2 ml^2/m^2) sqrt(1 - 4 ml^2/m^2), ml = lepton_mass (Allison and Blinov, Eq. 6)",
        "alpha": ALPHA,
        "lepton_mass": LEPTON_MASS["mu" if section is None else section.lepton],
        "exposure": None if exposure is None else asdict(exposure),
    }


def _flow_events(record: Record, n: int, seed: int) -> tuple[Arrays, dict[str, Any]]:
    """Return events at even masses, with the kinematics of the flow and dN/dm of the run's own rate."""
    channel = record.channel()
    low, high = channel.mass_range
    step = (high - low) / n
    mass: FloatArray = np.asarray(low + step * (np.arange(n) + 0.5), dtype=np.float64)
    rate = np.concatenate([channel.rate(part)[0] for part in np.array_split(mass, max(1, n // 500))])
    weight = rate / dark_photon_rate(np.ones(n), mass, channel.m_lepton) * step
    pt, energy = record.flow.sample(mass, stream(seed, "published events"))
    shifts = relative_shifts(record.spectrum)
    grid = np.linspace(low, high, N_GRID)
    values, cov = channel.rate(grid)
    moved = {name: channel.moved(grid, row) for name, row in shifts.items()}
    rest = cov - sum((np.outer(row, row) for row in moved.values()), np.zeros_like(cov))
    size, axes = np.linalg.eigh(rest)
    normal = stream(seed, "published replicas").standard_normal((REPLICAS, N_GRID))
    drawn = (normal * np.sqrt(np.clip(size, 0.0, None))) @ axes.T
    safe = np.where(values > 0, values, np.inf)
    replicas = np.stack([1.0 + np.interp(mass, grid, row / safe) for row in drawn])
    members = flow.load_variations(record.folder)
    if members is not None:
        kinematic = replace(members, local=None).weights(mass, pt, energy)
        for block in np.array_split(np.arange(n), max(1, n // BLOCK)):  # at one mass their mean is one
            kinematic[:, block] /= np.maximum(kinematic[:, block].mean(axis=1, keepdims=True), 1e-300)
        replicas *= kinematic[np.arange(REPLICAS) % len(kinematic)]
    columns: Arrays = {
        "mass": mass,
        "pt": pt,
        "energy": energy,
        "weight": weight,
        "measured": np.asarray(channel.in_domain(mass, pt, energy)).astype(np.uint8),
        "replicas": replicas.astype(np.float32),
    }
    if moved:
        rows = [np.interp(mass, grid, row / safe) for row in moved.values()]
        columns["sources"] = np.stack(rows).astype(np.float32)
    about = {
        "content": "virtual photons drawn from the density that the run learned, even and ordered in mass",
        "mass_range": [low, high],
        "half_window": max(HALF_WINDOW, 2 * step),
        "sources": list(moved),
        "replicas": f"{REPLICAS} draws of the error of dN/dm beside the sources"
        + (f", each with one of {len(members)} flows trained on bootstraps" if members is not None else ""),
    }
    return columns, about


def _omnifold_events(record: Record) -> tuple[Arrays, dict[str, Any]] | None:
    """Return simulated photons with kept weights of OmniFold, scaled in each cell of the spectrum."""
    places = [record.folder / "stages" / f"{name}.npz" for name in ("match", "unfold")]
    if not all(place.is_file() for place in places):
        return None
    truth, unfolding = (kept_arrays(record.folder, place.stem) for place in places)
    if "omnifold_weight" not in unfolding:
        return None
    true, simulated = truth["true"], truth["weight"]
    axes, content = record.spectrum.hist.axes, record.spectrum.values.ravel()
    cell = cell_of(axes, lambda name: true[:, KINEMATICS.index(name)])
    inside, known = cell >= 0, record.spectrum.domain.ravel()[cell]
    own = np.where(known, unfolding["omnifold_weight"], simulated) * inside
    sums = np.bincount(cell[inside], own[inside], content.size)
    weight = own * divided(content, sums)[cell]
    keep = weight != 0
    mass_edges = np.asarray(axes[MASS].edges, dtype=np.float64)
    columns: Arrays = {name: true[keep, k] for k, name in enumerate(KINEMATICS)}
    columns |= {"weight": weight[keep], "measured": known[keep].astype(np.uint8)}
    shifts = relative_shifts(record.spectrum)
    if shifts:
        bins = np.clip(np.searchsorted(mass_edges, columns[MASS], "right") - 1, 0, len(mass_edges) - 2)
        columns["sources"] = np.stack([row[bins] for row in shifts.values()]).astype(np.float32)
    about = {
        "content": "simulated virtual photons with weights of OmniFold (arXiv:1911.09107), "
        "scaled in each cell of the spectrum to its content",
        "mass_edges": mass_edges.tolist(),
        "sources": list(shifts),
        "replicas": "none: the statistical covariance is the table of the record",
    }
    return columns, about
