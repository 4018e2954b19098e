"""The reach as a limit of Darkcast: a table of both edges and the module that describes it."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from gammastar.physics.detector import Detector
from gammastar.pipeline.record import Record
from gammastar.store.manifest import read_json, write_text

__all__ = ["length_ratio", "write_darkcast"]

STATES = {"ee": "e_e", "mumu": "mu_mu", "hadrons": "hadrons"}
FAN = (0.3, 601)  # rad: angles to the beam at which the decay volume is looked for
N_PHI = 16
CLOSED, BESIDE = 1e-5, 1e-6  # half the relative distance of edges that meet, and beside a mass of the scan


def write_darkcast(record: Record, name: str, detector: Detector, folder: Path) -> list[Path]:
    """Write ``<name>.lmt`` and ``<name>.py``; nothing without a closed reach at two masses.

    Nor for another model than the dark photon: Darkcast would recast its couplings as ε.

    Parameters
    ----------
    record : Record
    name : str
        Of the detector, also of the files.
    detector : Detector
    folder : Path

    Returns
    -------
    list of Path
        What was written.

    Notes
    -----
    As the reader of Darkcast 1.1 asks (arXiv:1801.04847): labels in the first row, masses that rise, one
    lower and one upper coupling per mass, plain ASCII. Islands of one mass are joined,
    gaps in mass stay.
    """
    main = record.folder / f"reach_{name}.json"
    path = main if main.is_file() else record.folder / "reach.json"
    reach = read_json(path) if path.is_file() else {"rows": []}
    if reach.get("model", {}).get("plane", "dark_photon") != "dark_photon":
        return []
    rows = [row for row in reach["rows"] if row["part"] == "all"]
    lines = _table(rows, reach.get("mass_intervals", {}).get("all", []))
    states = [STATES[state] for state in detector.efficiency if state in STATES]
    if len(lines) < 2 or not states:
        return []
    folder.mkdir(parents=True, exist_ok=True)
    table, module = folder / f"{name}.lmt", folder / f"{name}.py"
    write_text(table, "\n".join(["# mass lower upper", *lines]) + "\n")
    write_text(module, _description(record.mock, table.name, detector, states))
    return [table, module]


def _table(rows: list[dict[str, Any]], intervals: list[dict[str, Any]]) -> list[str]:
    """Return one line per mass that has both edges, the lower below the upper.

    Between two intervals of mass the edges meet at their ends: the reader draws straight lines, which
    would join what a gap separates.
    """
    found: dict[float, tuple[float, float]] = {}
    for row in rows:
        if row["coupling_low"] is None or row["coupling_high"] is None:
            continue
        low, high = found.get(row["mass"], (np.inf, 0.0))
        found[row["mass"]] = min(low, row["coupling_low"]), max(high, row["coupling_high"])
    for left, right in pairwise(intervals):
        for mass, g, aside in (
            (left["high"], left["high_coupling"], 1.0 + BESIDE),
            (right["low"], right["low_coupling"], 1.0 - BESIDE),
        ):  # an end that is not closed is a mass of the scan, whose edges stay
            found[mass * aside if mass in found else mass] = (g * (1.0 - CLOSED), g * (1.0 + CLOSED))
    lines = {f"{mass:.8g}": (low, high) for mass, (low, high) in sorted(found.items()) if low < high}
    return [f"{mass} {low:.6g} {high:.6g}" for mass, (low, high) in lines.items()]


def length_ratio(detector: Detector) -> float:
    """Return the length of the decay volume over its distance from the target.

    Along the beam or, if that misses the volume, along the longest way through it; infinite if the volume
    holds the target or has no end.

    Examples
    --------
    >>> from gammastar.core.data import data_path
    >>> from gammastar.physics.detector import load_detector
    >>> round(length_ratio(load_detector(data_path("detectors/nucal.toml"))), 4)
    0.3594
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
