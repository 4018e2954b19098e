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
from gammastar.physics.polarisation import NO_SPIN
from gammastar.pipeline.context import Tell
from gammastar.pipeline.darkcast import write_darkcast
from gammastar.pipeline.producing import scan_masses
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.spin import spin_text
from gammastar.store.manifest import write_json
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
    Leptons follow the spin density of the record, or are emitted as from an unpolarised photon.
    """
    channel, ctau = record.channel(), np.geomspace(*CTAU)
    rows = []
    for mass in masses:
        sample = channel.produce(float(mass), n=n, rng=stream(seed, "export", f"{mass:.6f}"))
        norm = float(sample.weight.sum())
        scan = accept.lifetime_scan(
            sample,
            float(mass),
            ctau,
            detector,
            states={final_state: detector.efficiency[final_state]},
            rng=stream(seed, "export", detector.name, f"{mass:.6f}"),
            spins=(NO_SPIN if record.spin is None else record.spin,),
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
    channel = record.channel()
    section = record.steering.predict
    wanted = () if section is None else section.masses
    count = 40 if section is None else section.n_masses
    masses = np.array(wanted or scan_masses(channel, *channel.mass_range, count))
    _write_rate(record, masses, output)
    content: dict[str, Any] = {
        "mock": record.mock,
        "rate": "dark photons per proton on the measured target and squared kinetic mixing",
        "efficiency": "per produced particle that decays to the final state; branching ratios left out",
        "signal": "POT x target factor x rate x eps^2 x sum over states of BR x efficiency at c tau(eps)",
        "measured_fraction": "part of the efficiency from kinematics where dileptons were measured",
        "spin state of the decays": "unpolarised" if record.spin is None else spin_text(record.spin),
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
            write_darkcast(record, name, known, output / "darkcast")
    write_json(output / "export.json", content)
    return sorted(path for path in output.rglob("*") if path.is_file())


def _factor(record: Record, detector: Detector) -> float | None:
    section, exposure = record.steering.accept, record.spectrum.exposure
    if section is None or exposure is None or section.target_scaling == "power":
        return None
    return float(accept.Measured(exposure, section.target_scaling).factor(detector))
