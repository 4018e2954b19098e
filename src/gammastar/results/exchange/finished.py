"""``gammastar export --for``: the measured photons of a finished run in the files of one tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gammastar import accept, predict
from gammastar.core.errors import InputFileError, PhysicsError, UserError
from gammastar.core.files import write_whole, writes_folder
from gammastar.core.records import FloatArray
from gammastar.physics.detector import Detector, load_detector
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.stages.accept import transfer_of
from gammastar.predict import scan_masses
from gammastar.results.exchange.decays import Point, Stand, write_decays
from gammastar.results.exchange.tables import (
    ALPINIST,
    Produced,
    write_alpinist,
    write_eventcalc,
    write_foresee,
)
from gammastar.results.export import scaling_of, spin_of, write_darkcast
from gammastar.store.manifest import write_json

Tool: TypeAlias = Literal["foresee", "alpinist", "eventcalc", "darkcast", "geant"]
TOOLS: tuple[str, ...] = get_args(Tool)
FINE = 400  # masses of the yields for EventCalc


@dataclass(frozen=True)
class Decays:
    """Decays that are written for a simulation."""

    mass: float  # [GeV]
    coupling: float
    state: str = "mumu"
    events: int = 10_000
    suffix: str = "hepmc"  # Of the files: ``hepmc``, ``lhe``, ``csv``, ``root`` or ``parquet``


@dataclass(frozen=True)
class Asked:
    """What is written."""

    detector: Path | None = None  # Another detector file; those of the run by default
    n: int = 20_000  # Sampled particles per mass
    decays: Decays | None = None  # Needed by "geant"


@writes_folder
def export_for(
    results: Path, tool: Tool, *, output: Path, asked: Asked | None = None, tell: Tell
) -> list[Path]:
    """Write rate and kinematics of the measured virtual photons as dark photons for another tool."""
    record, asked = read_record(results), asked or Asked()
    path = asked.detector
    found = record.detectors() if path is None else {path.stem: load_detector(path)}
    tell("export", None, f"for {tool}")
    if tool == "darkcast":
        written = [path for name, one in found.items() for path in write_darkcast(record, name, one, output)]
        return _some(written, "no detector of the run has a closed reach of the dark photon at two masses")
    if tool == "geant":
        return _for_simulation(record, found, output, asked.decays)
    produced, masses = _produced(record, asked.n), _masses(record)
    if tool == "foresee":
        protons = {
            one.name: one.exposure * one.target.interaction_probability
            for one in found.values()
            if one.luminosity is None
        }
        return write_foresee(produced, masses.tolist(), output, protons=protons)
    if tool == "eventcalc":
        fine = scan_masses(produced.channel, float(masses[0]), float(masses[-1]), FINE)
        written = write_eventcalc(produced, masses.tolist(), output, fine=fine)
        note = output / "README.txt"
        write_whole(note, f"{produced.note}\nCopy the tables to Distributions/Dark-photons.\n".encode())
        return [*written, note]
    known = [name for name in found if name in ALPINIST]
    ends = float(masses[0]), float(masses[-1])
    written = [path for name in known for path in write_alpinist(produced, name, output, mass_range=ends)]
    return _some(written, f"ALPINIST knows {', '.join(ALPINIST)}; none of them is a detector of the run")


def _some(written: list[Path], otherwise: str) -> list[Path]:
    if not written:
        raise UserError(otherwise)
    return written


def _produced(record: Record, n: int) -> Produced:
    exposure = record.spectrum.exposure
    if exposure is None:
        raise InputFileError(
            f"{record.folder}/spectrum.json: has no exposure, so that nothing counts per proton"
        )
    kind = "MOCK dark photons" if record.mock else "Dark photons"
    note = (
        f"{kind} from measured dilepton pairs (gammastar), per interacting proton on A = "
        f"{exposure.target_a:g} at {exposure.beam_energy:g} GeV and unit kinetic mixing"
    )
    return Produced(
        record.channel(),
        exposure.beam_energy,
        float(-np.expm1(-exposure.thickness)),
        n,
        note=f"{note}. {record.loss}".strip(". ") if record.loss else note,
    )


def _masses(record: Record) -> FloatArray:
    section, channel = record.steering.predict, record.channel()
    wanted = () if section is None else section.masses
    low, high = channel.mass_range
    inside = [mass for mass in wanted if low <= mass <= high]
    count = 40 if section is None else section.n_masses
    return np.array(sorted(inside) if len(inside) > 1 else scan_masses(channel, low, high, count))


def _for_simulation(
    record: Record, found: Mapping[str, Detector], output: Path, decays: Decays | None
) -> list[Path]:
    """Write the decays in each detector, and what they are."""
    if decays is None:
        raise UserError("for geant give the point of the plane: --mass and --coupling")
    channel = record.channel()
    low, high = channel.mass_range
    if not low <= decays.mass <= high:
        raise UserError(f"--mass {decays.mass:g} GeV: the run measured {low:.4g} to {high:.4g} GeV")
    exposure = record.spectrum.exposure
    if exposure is None:
        raise InputFileError(
            f"{record.folder}/spectrum.json: has no exposure, so that nothing counts per proton"
        )
    measured = accept.Measured(exposure, scaling_of(record.steering.accept), spins=(spin_of(record),))
    model = predict.make_model("dark_photon", record.folder)
    point = Point(decays.mass, decays.coupling, decays.state)
    written: list[Path] = []
    content: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, one in found.items():
        path = output / f"decays_{name}_{decays.state}.{decays.suffix}"
        stand = Stand(model, one, measured, name, transfer_of(record.steering, [name]))
        try:
            expected, effective = write_decays(path, channel, stand, point, n=decays.events)
        except PhysicsError as error:  # an open volume, or nothing decays there
            left_out[name] = str(error)
            continue
        written.append(path)
        content[path.name] = {
            "mock": record.mock,
            "detector": one.name,
            "mass_GeV": decays.mass,
            "epsilon": decays.coupling,
            "expected_decays_in_the_volume": expected,
            "effective_number_behind_the_events": effective,
            "target_position_m": list(one.target.position),
            "what": "all decays in the volume before cuts; their weights sum to the expected number",
        }
    _some(written, "; ".join(left_out.values()) or "the run has no detector: give one with --detector")
    write_json(output / "decays.json", content | ({"left out": left_out} if left_out else {}))
    return [*written, output / "decays.json"]
