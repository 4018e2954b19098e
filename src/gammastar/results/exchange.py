"""``gammastar export --for``: the measured photons of a finished run in the files of one tool."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np

from gammastar import accept, predict
from gammastar.accept import decay
from gammastar.accept.expected_events import LongLived, Measured
from gammastar.accept.lifetimes import LEPTONS, momenta
from gammastar.core.errors import PhysicsError, UserError, require
from gammastar.core.files import write_whole, writes_folder
from gammastar.core.records import FloatArray
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.polarisation import NO_SPIN
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.stages.accept import transfer_of
from gammastar.predict import scan_masses
from gammastar.predict.channel import Channel
from gammastar.predict.transfer import TargetTransfer
from gammastar.results import tool_tables
from gammastar.results.export import exposure_of, masses_of, scaling_of, spin_of, write_darkcast
from gammastar.results.tool_tables import Produced
from gammastar.store.events import EventTable, write_events
from gammastar.store.manifest import write_json

Tool: TypeAlias = Literal["foresee", "alpinist", "eventcalc", "darkcast", "geant"]
TOOLS: tuple[str, ...] = get_args(Tool)
FINE = 400  # masses of the yields for EventCalc
PDG = {"ee": 11, "mumu": 13}
DRAWN, MOST_DRAWN = 40, 400_000  # particles drawn per decay that is written, and in all


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
    detectors = record.detectors() if path is None else {path.stem: load_detector(path)}
    tell("export", None, f"for {tool}")
    none = ""
    if tool == "darkcast":
        written = [p for name, one in detectors.items() for p in write_darkcast(record, name, one, output)]
        none = "no detector of the run has a closed reach of the dark photon at two masses"
    elif tool == "geant":
        written = _for_simulation(record, detectors, output, asked.decays)
    else:
        produced, masses = _produced(record, asked.n), masses_of(record).tolist()
        if tool == "foresee":
            protons = {
                one.name: one.exposure * one.target.interaction_probability
                for one in detectors.values()
                if one.luminosity is None
            }
            written = tool_tables.write_foresee(produced, masses, output, protons=protons)
        elif tool == "eventcalc":
            fine = scan_masses(produced.channel, masses[0], masses[-1], FINE)
            written = tool_tables.write_eventcalc(produced, masses, output, fine=fine)
            note = f"{produced.note}\nCopy the tables to Distributions/Dark-photons.\n"
            write_whole(output / "README.txt", note.encode())
            written.append(output / "README.txt")
        else:
            ends, names = (masses[0], masses[-1]), [x for x in detectors if x in tool_tables.ALPINIST]
            tables = [tool_tables.write_alpinist(produced, x, output, mass_range=ends) for x in names]
            written = [path for pair in tables for path in pair]
            none = f"ALPINIST knows {', '.join(tool_tables.ALPINIST)}; none of them is a detector of the run"
    require(written, none, UserError)
    return written


def _produced(record: Record, n: int) -> Produced:
    exposure = exposure_of(record)
    kind = "MOCK dark photons" if record.mock else "Dark photons"
    note = (
        f"{kind} from measured dilepton pairs (gammastar), per interacting proton on A = "
        f"{exposure.target_a:g} at {exposure.beam_energy:g} GeV and unit kinetic mixing"
    )
    note = f"{note}. {record.loss}".strip(". ") if record.loss else note
    interaction = float(-np.expm1(-exposure.thickness))
    return Produced(record.channel(), exposure.beam_energy, interaction, n, note=note)


def _for_simulation(
    record: Record, detectors: Mapping[str, Detector], output: Path, decays: Decays | None
) -> list[Path]:
    """Write the decays in each detector, and what they are."""
    if decays is None:
        raise UserError("for geant give the point of the plane: --mass and --coupling")
    channel = record.channel()
    low, high = channel.mass_range
    measured = f"--mass {decays.mass:g} GeV: the run measured {low:.4g} to {high:.4g} GeV"
    require(low <= decays.mass <= high, measured, UserError)
    spins, scaling = (spin_of(record),), scaling_of(record.steering.accept)
    normalised = accept.Measured(exposure_of(record), scaling, spins=spins)
    model = predict.make_model("dark_photon", record.folder)
    point = Point(decays.mass, decays.coupling, decays.state)
    written: list[Path] = []
    content: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name, one in detectors.items():
        path = output / f"decays_{name}_{decays.state}.{decays.suffix}"
        stand = Stand(model, one, normalised, name, transfer_of(record.steering, [name]))
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
    none = "; ".join(left_out.values()) or "the run has no detector: give one with --detector"
    require(written, none, UserError)
    write_json(output / "decays.json", content | ({"left out": left_out} if left_out else {}))
    return [*written, output / "decays.json"]


@dataclass(frozen=True)
class Point:
    """A particle that decays in a detector."""

    mass: float  # [GeV]
    coupling: float
    state: str  # "ee", "mumu"


@dataclass(frozen=True)
class Stand:
    """Where and how particles decay."""

    model: LongLived  # Lifetime and branching ratio
    # Volume, beam and exposure; magnets, planes, cuts and efficiencies are left to the simulation
    detector: Detector
    # As for `gammastar.accept.yields`; its first spin state is that of the particles
    measured: Measured | None = None
    name: str = ""  # Of the detector, for the interaction length of its target in `transfer`
    # How particles of the measured target become those of the detector's
    transfer: TargetTransfer = field(default_factory=TargetTransfer)


def write_decays(
    path: Path, channel: Channel, stand: Stand, point: Point, *, n: int, seed: int = 1
) -> tuple[float, float]:
    """Write n decays to two leptons of equal weight inside the decay volume, before any cut on them.

    Return the expected decays to this state in the volume for the exposure of the detector, and the effective
    number of sampled decays behind the events (Kish); events repeat where it is below `n`.

    Notes
    -----
    The production vertex is at the target's position at time zero. The vertex of the decay carries c·t = its
    distance over β in HepMC3; the Les Houches line has the proper lifetime c·τ [mm] (VTIMUP).
    """
    lepton = LEPTONS.get(point.state)
    if lepton is None or point.mass <= 2 * lepton:
        known = ", ".join(LEPTONS)
        raise PhysicsError(f"state {point.state!r} at {point.mass:g} GeV: give one of {known} that is open")
    detector, model, measured = stand.detector, stand.model, stand.measured
    rng = stream(seed, "decays", detector.name, f"{point.mass:.6g}")
    sample = channel.produce(point.mass, n=min(DRAWN * n, MOST_DRAWN), rng=rng)
    if measured is not None:
        target = stand.name, detector.target
        sample, _ = stand.transfer.carry(sample, target, (measured.exposure.target_a, None), rng)
    p = momenta(sample, point.mass)
    origin = sample.origin + np.asarray(detector.target.position)
    chord = detector.volume.chord(origin, p[:3].T)
    hit = np.flatnonzero(~np.isnan(chord[:, 0]))
    many = f"{len(sample.weight)} particles of {point.mass:g} GeV"
    require(len(hit), f"{detector.name}: none of {many} crosses the decay volume")
    p, origin, chord = p[:, hit], origin[hit], chord[hit]
    momentum = np.linalg.norm(p[:3], axis=0)
    ctau = float(np.asarray(model.ctau(point.mass, np.array([point.coupling]))).ravel()[0])
    inverse = decay.inverse_decay_length(momentum, point.mass, np.array([ctau]))
    distance, density = decay.forced_decay(chord, rng, inverse)
    positive, negative = decay.lepton_pair(p, point.mass, lepton, rng)
    weight = sample.weight[hit] * decay.decay_weight(distance, density, momentum, point.mass, ctau)
    spins = (NO_SPIN,) if measured is None else measured.spins[:1]
    meson: FloatArray | None = None if sample.parent is None else sample.parent[hit]
    frame: dict[str, Any] = {"beam_energy": detector.beam_energy, "meson": meson}
    weight *= decay.angular_weights(p, point.mass, positive, lepton, spins, **frame)[0]
    factor = 1.0 if measured is None else measured.factor(detector)
    weight *= factor * detector.exposure * point.coupling**2 * model.branching(point.mass)[point.state]
    expected = float(weight.sum())
    where = f"{point.mass:g} GeV and coupling {point.coupling:g}"
    require(expected > 0, f"{detector.name}: no decay is expected at {where}")
    steps = (np.arange(n) + rng.uniform()) / n
    drawn = np.searchsorted(np.cumsum(weight) / expected, steps, side="right")
    drawn = rng.permutation(np.minimum(drawn, len(weight) - 1))
    vertex = origin + distance[:, None] * (p[:3] / momentum).T
    events = EventTable(
        number=np.arange(n),
        p4=p[:, drawn],
        mass=np.full(n, point.mass),
        weight=np.full(n, expected / n),
        origin=origin[drawn].T,
        daughters=((PDG[point.state], negative[:, drawn]), (-PDG[point.state], positive[:, drawn])),
        decay=vertex[drawn].T,
    )
    write_events(path, events, beam_energy=detector.beam_energy)
    return expected, expected**2 / float(np.sum(weight**2))
