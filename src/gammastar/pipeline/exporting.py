"""Tables for other tools: rate, efficiency over mass and lifetime, and the reach as Darkcast takes it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import accept
from gammastar.core.records import FloatArray
from gammastar.core.rng import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.store.manifest import read_json, write_json, write_text
from gammastar.store.records import write_table

__all__ = ["efficiency_table", "export"]

CTAU = (1e-2, 1e5, 71)  # m


def efficiency_table(
    record: Record,
    detector: Detector,
    masses: Sequence[float],
    *,
    final_state: str,
    n: int,
    seed: int = 1,
) -> dict[str, FloatArray]:
    """Return the efficiency of a detector over mass and lifetime.

    Parameters
    ----------
    record : Record
    detector : Detector
    masses : sequence of float [GeV]
    final_state : str
        Of the detector.
    n : int
        Sampled particles per mass.
    seed : int

    Returns
    -------
    dict
        ``mass_GeV``, ``ctau_m``, ``efficiency``, ``mc_error`` and ``measured_fraction``, one row per point.

    Notes
    -----
    Per produced particle that decays to the final state: geometry, decay in flight, cuts and selection.
    Leptons are emitted as from an unpolarised photon.
    """
    channel, ctau = record.channel(), np.geomspace(*CTAU)
    exposure = record.spectrum.exposure
    law = None if exposure is None else accept.Measured(exposure, "per_interaction")
    rows = []
    for mass in masses:
        sample = channel.produce(float(mass), n=n, rng=stream(seed, "export", f"{mass:.6f}"))
        norm = float(sample.weight.sum())
        spin: Any = 0.0 if law is None else law.polarisation(float(mass), [final_state])
        scan = accept.lifetime_scan(
            sample,
            float(mass),
            ctau,
            detector,
            states={final_state: detector.efficiency[final_state]},
            rng=stream(seed, "export", detector.name, f"{mass:.6f}"),
            polarisation=spin,
        )
        none = np.full_like(ctau, np.nan)
        part = np.divide(scan.in_domain, scan.accepted, out=none, where=scan.accepted > 0)
        rows.append(
            np.stack([np.full_like(ctau, mass), ctau, scan.accepted / norm, scan.mc_error / norm, part])
        )
    names = ("mass_GeV", "ctau_m", "efficiency", "mc_error", "measured_fraction")
    columns = np.concatenate(rows, axis=1)
    return dict(zip(names, columns, strict=True))


def _write_rate(record: Record, masses: FloatArray, output: Path) -> None:
    rate, cov = record.channel().rate(masses)
    write_table(
        output / "rate.csv",
        _text(
            {
                "mass_GeV": masses,
                "rate_per_pot_per_eps2": rate,
                "error": np.sqrt(np.clip(np.diag(cov), 0.0, None)),
            }
        ),
    )
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


def export(
    results: Path, *, output: Path, detector: Path | None = None, n: int = 20_000, tell: Tell
) -> list[Path]:
    """Write the tables of a finished run.

    Parameters
    ----------
    results : Path
        Folder of a finished run with a flow.
    output : Path
        Folder of the tables.
    detector : Path, optional
        Another detector file; those of the run by default.
    n : int
        Sampled particles per mass.
    tell : callable
        Receives progress.

    Returns
    -------
    list of Path
        What was written: ``rate.csv``, ``rate_covariance.csv``, ``efficiency_<detector>_<state>.csv``, and
        for detectors of the run with a reach ``darkcast/<detector>.lmt`` and ``.py``; ``export.json`` says
        what the columns are.

    Raises
    ------
    InputFileError
        If a file of the record is missing.
    """
    record = read_record(results)
    output.mkdir(parents=True, exist_ok=True)
    found = record.detectors() if detector is None else {detector.stem: load_detector(detector)}
    centres = record.channel().mass_centres
    section = record.steering.predict
    wanted = () if section is None else section.masses
    count = 40 if section is None else section.n_masses
    masses = np.array(wanted or np.linspace(centres[0], centres[-1], count))
    _write_rate(record, masses, output)
    content: dict[str, Any] = {
        "mock": record.mock,
        "rate": "dark photons per proton on the measured target and squared kinetic mixing",
        "efficiency": "per produced particle that decays to the final state; branching ratios left out",
        "signal": "POT x target factor x rate x eps^2 x sum over states of BR x efficiency at c tau(eps)",
        "measured_fraction": "part of the efficiency from kinematics where dileptons were measured",
        "detectors": {},
    }
    for name, known in found.items():
        for state in known.efficiency:
            if known.accept_on == "daughters" and state not in accept.scan.LEPTONS:
                continue
            tell("export", None, f"{known.name}, {state}")
            table = efficiency_table(record, known, masses.tolist(), final_state=state, n=n)
            write_table(output / f"efficiency_{name}_{state}.csv", _text(table))
        content["detectors"][name] = {
            "name": known.name,
            "pot": known.pot,
            "target_factor": _factor(record, known),
            "source": known.source,
        }
        if detector is None:
            _write_darkcast(record, name, known, output / "darkcast")
    write_json(output / "export.json", content)
    return sorted(path for path in output.rglob("*") if path.is_file())


def _factor(record: Record, detector: Detector) -> float | None:
    section, exposure = record.steering.accept, record.spectrum.exposure
    if section is None or exposure is None or section.target_scaling == "power":
        return None
    return float(accept.Measured(exposure, section.target_scaling).factor(detector))


def _write_darkcast(record: Record, name: str, detector: Detector, folder: Path) -> None:
    """Write the reach in the layout of a Darkcast limit: a table of both edges and its description."""
    main = record.folder / f"reach_{name}.json"
    path = main if main.is_file() else record.folder / "reach.json"
    rows = [row for row in read_json(path)["rows"] if row["part"] == "all"] if path.is_file() else []
    rows = [row for row in rows if row["coupling_low"] is not None and row["coupling_high"] is not None]
    if len({row["mass"] for row in rows}) < 2:
        return
    folder.mkdir(parents=True, exist_ok=True)
    lines = ["mass lower upper"]
    for mass in sorted({row["mass"] for row in rows}):
        mine = [row for row in rows if row["mass"] == mass]
        low, high = min(r["coupling_low"] for r in mine), max(r["coupling_high"] for r in mine)
        lines.append(f"{mass:.6g} {low:.6g} {high:.6g}")
    write_text(folder / f"{name}.lmt", "\n".join(lines) + "\n")
    chord = detector.volume.chord(np.array([detector.target.position]), np.array([[0.0, 0.0, 1.0]]))[0]
    ratio = (chord[1] - chord[0]) / chord[0] if np.isfinite(chord).all() and chord[0] > 0 else np.inf
    write_text(folder / f"{name}.py", _description(record, name, detector, float(ratio)))


def _description(record: Record, name: str, detector: Detector, ratio: float) -> str:
    kind = "MOCK expected reach" if record.mock else "Reach"
    states = [{"ee": "e_e", "mumu": "mu_mu"}[s] for s in detector.efficiency if s in ("ee", "mumu")]
    value = f"{ratio:.4g}" if np.isfinite(ratio) else 'float("inf")'
    return f'''import darkcast

notes = """
{kind} of {detector.name}, from measured dilepton pairs (gammastar). Couplings are eps of a dark photon.
lratio: length of the decay volume over its distance from the target, along the beam.

The rate is that of virtual photons from all processes together, so no single production mode is right: with
another vector, replace `production` by the shares of its processes at each mass.
"""
bibtex = ""
model = darkcast.Model("dark_photon")
production = darkcast.Production("eta_gamma")
decay = {states!r}
bounds = darkcast.Datasets("{name}.lmt")
efficiency = darkcast.Efficiency(lratio={value})
'''
