"""A record for HEPData of what a run measured: mass spectrum, covariance, and weighted events."""

from __future__ import annotations

import io
import json
import zipfile
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import flow, report
from gammastar.core.axes import KINEMATICS, MASS, filled
from gammastar.core.constants import ALPHA, LEPTON_MASS, M_PROTON
from gammastar.core.errors import SteeringError
from gammastar.core.files import data_path
from gammastar.core.records import FloatArray, Spectrum
from gammastar.core.sampling import stream
from gammastar.physics.qed import dark_photon_rate
from gammastar.pipeline.cache import kept_arrays
from gammastar.pipeline.record import Record
from gammastar.report.hepdata import write_spectrum_record
from gammastar.spectrum import relative_shifts
from gammastar.spectrum.normalise import mass_shifts

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
        raise SteeringError(
            f"{record.folder}: the spectrum has no exposure, so no record per proton can be made"
        )
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
    for name, (columns, about) in _samples(record, events, seed).items():
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


def _samples(record: Record, events: int, seed: int) -> dict[str, tuple[Arrays, dict[str, Any]]]:
    found = {"events": _flow_events(record, events, seed)}
    weighted = _omnifold_events(record)
    return found if weighted is None else found | {"omnifold": weighted}


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
    """Return simulated virtual photons with the weights of OmniFold, if the run has kept them.

    In each cell of the spectrum the weights are scaled to its content; outside the measured domain the
    simulated weights are.
    """
    places = [record.folder / "stages" / f"{name}.npz" for name in ("match", "unfold")]
    if not all(place.is_file() for place in places):
        return None
    truth, unfolding = (kept_arrays(record.folder, place.stem) for place in places)
    if "omnifold_weight" not in unfolding:
        return None
    true, simulated = truth["true"], truth["weight"]
    names = [axis.name for axis in record.spectrum.hist.axes]
    shape, inside, cell = record.spectrum.domain.shape, np.ones(len(true), np.bool_), []
    for name, axis in zip(names, record.spectrum.hist.axes, strict=True):
        edges = np.asarray(axis.edges, dtype=np.float64)
        value = true[:, KINEMATICS.index(name)]
        place = np.searchsorted(edges, value, "right") - 1
        inside &= (place >= 0) & (place < len(edges) - 1)
        cell.append(np.clip(place, 0, len(edges) - 2))
    flat = np.ravel_multi_index(tuple(cell), shape)
    known = record.spectrum.domain.ravel()[flat]
    own = np.where(known, unfolding["omnifold_weight"], simulated) * inside
    sums = np.bincount(flat, own, record.spectrum.values.size)
    content = record.spectrum.values.ravel()
    weight = own * np.divide(content, sums, out=np.zeros_like(content), where=sums > 0)[flat]
    keep = weight != 0
    mass_edges = np.asarray(record.spectrum.hist.axes[names.index(MASS)].edges, dtype=np.float64)
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
