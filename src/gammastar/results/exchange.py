"""``gammastar export --for``: the measured photons of a finished run in the files of one tool.

Tables count dark photons per interacting proton and ε². FORESEE wants cross sections: yields times an
inelastic cross section, which cancels against the luminosity that its notes give for each detector.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import numpy.typing as npt
import uproot
from scipy.ndimage import maximum_filter

from gammastar import accept, predict
from gammastar.accept import decay
from gammastar.accept.decay import LEPTONS, momenta
from gammastar.accept.expected_events import LongLived, Measured
from gammastar.core.errors import PhysicsError, UserError, require
from gammastar.core.files import atomic, table_text, write_whole, writes_folder
from gammastar.core.records import KINEMATICS, FloatArray
from gammastar.core.sampling import stream, systematic
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.mesons import PB_PER_MB, Cells, write_cells
from gammastar.physics.polarisation import NO_SPIN
from gammastar.pipeline.context import Tell
from gammastar.pipeline.record import Record, read_record
from gammastar.pipeline.stages.accept import transfer_of
from gammastar.predict import scan_masses
from gammastar.predict.channel import Channel
from gammastar.predict.mixture import TargetTransfer
from gammastar.results.export import exposure_of, masses_of, scaling_of, spin_of, write_darkcast
from gammastar.store.events import EventTable, Layout, TreeWriter, write_events
from gammastar.store.manifest import write_json
from gammastar.store.pairs import read_pairs

Tool: TypeAlias = Literal["foresee", "eventcalc", "darkcast", "geant", "root"]
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
    suffix: str = "hepmc"  # Of the files: ``hepmc``, ``lhe``, ``root`` or ``parquet``


@dataclass(frozen=True)
class ExportRequest:
    """What is written."""

    detector: Path | None = None  # Another detector file; those of the run by default
    n: int = 20_000  # Sampled particles per mass
    decays: Decays | None = None  # Needed by "geant"
    layout: Layout = "ttree"  # Of the pairs of "root"


@writes_folder
def export_for(
    results: Path, tool: Tool, *, output: Path, request: ExportRequest | None = None, tell: Tell
) -> list[Path]:
    """Write rate and kinematics of the measured virtual photons as dark photons for another tool."""
    record, request = read_record(results), request or ExportRequest()
    path = request.detector
    detectors = record.detectors() if path is None else {path.stem: load_detector(path)}
    tell("export", None, f"for {tool}")
    none = ""
    if tool == "darkcast":
        written = [p for name, one in detectors.items() for p in write_darkcast(record, name, one, output)]
        none = "no detector of the run has a closed reach of the dark photon at two masses"
    elif tool == "root":
        written = [write_root(record, output / f"{record.folder.name}.root", request.layout)]
    elif tool == "geant":
        written = _for_simulation(record, detectors, output, request.decays)
    else:
        produced, masses = _produced(record, request.n), masses_of(record).tolist()
        if tool == "foresee":
            dumps = [one for one in detectors.values() if one.luminosity is None]
            protons = {one.name: one.exposure * one.target.interaction_probability for one in dumps}
            written = write_foresee(produced, masses, output, protons=protons)
        else:
            fine = scan_masses(produced.channel, masses[0], masses[-1], FINE)
            written = write_eventcalc(produced, masses, output, fine=fine)
            note = f"{produced.note}\nCopy the tables to Distributions/Dark-photons.\n"
            write_whole(output / "README.txt", note.encode())
            written.append(output / "README.txt")
    require(written, none, UserError)
    return written


def write_root(record: Record, path: Path, layout: Layout = "ttree") -> Path:
    """Write opposite- and like-sign pairs with their weights as a tree, and the spectrum per proton."""
    with atomic(path) as temporary, uproot.recreate(temporary) as file:
        writer = TreeWriter(file, layout)
        for part in read_pairs(record.folder / "pairs"):
            columns = {name: getattr(part.pairs, name) for name in (*KINEMATICS, "charge", "event")}
            weights = {"signed_weight": part.signed, "posterior_weight": part.posterior}
            columns |= {name: weight for name, weight in weights.items() if weight is not None}
            writer.extend("pairs", columns | dict(part.pairs.columns))
        file["spectrum"] = record.spectrum.hist
    return path


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
    drawn = systematic(weight, n, rng)
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


SIGMA_INELASTIC = 32.3  # mb, pp at 400 GeV (COMPETE fit of total less elastic); it cancels
STEP = 0.05  # of a cell of FORESEE in both logarithms
ANGLES = (-5.0, 0.0)  # log10 [rad] of its cells
MODE = "gammastar"  # label of `add_production_direct` of FORESEE
PRODUCTIONS = (MODE, "True")  # in names of its spectra: the label, until April 2025 the condition


@dataclass(frozen=True)
class Produced:
    """Dark photons of one channel, per interacting proton and ε²."""

    channel: Channel  # Its rate counts per proton on its target
    beam_energy: float  # [GeV]
    interaction: float = 1.0  # Probability that a proton interacts in that target, by which rates are divided
    n: int = 20_000  # Particles that are drawn per mass
    seed: int = 1
    note: str = ""  # First line of every file that may have one

    def rate(self, masses: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the rate and its standard deviation at masses [GeV]."""
        rate, cov = self.channel.rate(masses)
        return rate / self.interaction, np.sqrt(np.clip(np.diag(cov), 0.0, None)) / self.interaction

    def particles(self, mass: float) -> tuple[FloatArray, FloatArray, FloatArray, FloatArray]:
        """Return angle to the beam [rad], momentum and energy [GeV] and weight of particles of a mass."""
        sample = self.channel.produce(mass, n=self.n, rng=stream(self.seed, "exchange", f"{mass:.6g}"))
        px, py, pz, energy = sample.four_momenta
        pt = np.hypot(px, py)
        return np.arctan2(pt, pz), np.hypot(pt, pz), energy, sample.weight / self.interaction


def _named(masses: Sequence[float]) -> list[float]:
    """Return increasing masses [GeV] with the six digits that stand in the names of files."""
    rounded = sorted({float(f"{mass:.6g}") for mass in masses})
    good = rounded and rounded[0] > 0
    require(good, f"masses {list(masses)[:5]} GeV: at least one, and all positive", UserError)
    return rounded


def write_foresee(
    produced: Produced,
    masses: Sequence[float],
    folder: Path,
    *,
    protons: Mapping[str, float],
    sigma_inelastic: float = SIGMA_INELASTIC,
) -> list[Path]:
    """Write spectra for FORESEE: ``model/LLP_spectra`` and ``model/direct`` with notes how to use them.

    `protons` are the interacting protons of each detector, for the luminosity in the notes. FORESEE
    (arXiv:2105.07077): events are cross section [pb] × luminosity [1/fb] × 1000. Cells are 0.05 wide in
    log10 of angle and momentum; the content is spread evenly on reading, cells below 1e-6 pb are left
    out. The names are those of ``add_production_direct(label="gammastar", energy=…, coupling_ref=1,
    masses=…)``, of FORESEE today and before April 2025.
    """
    names, energy = _named(masses), f"{produced.beam_energy / 1e3:g}"
    top = np.ceil(np.log10(produced.beam_energy) / STEP) * STEP
    edges = [np.linspace(low, high, round((high - low) / STEP) + 1) for low, high in (ANGLES, (0.0, top))]
    centres = np.meshgrid(*(0.5 * (e[1:] + e[:-1]) for e in edges), indexing="ij")
    scale = sigma_inelastic * PB_PER_MB
    written, outside = [], {}
    for mass in names:
        theta, p, _, weight = produced.particles(mass)
        with np.errstate(divide="ignore"):
            place = np.log10(np.maximum(theta, 1e-300)), np.log10(p)
        content, *_ = np.histogram2d(*place, bins=edges, weights=weight * scale)
        total = float(weight.sum()) * scale
        outside[mass] = 1.0 - float(content.sum()) / total if total > 0 else 0.0
        cells = Cells(centres[0].ravel(), centres[1].ravel(), content.ravel(), (STEP, STEP))
        stem = folder / "model" / "LLP_spectra" / f"{energy}TeV_{MODE}"
        spectra = [Path(f"{stem}_{production}_m_{mass}.npy") for production in PRODUCTIONS]
        direct = folder / "model" / "direct" / f"{energy}TeV" / f"{MODE}_{energy}TeV_{mass}.txt"
        for path in spectra:
            write_cells(path, cells)
        write_cells(direct, cells, f"{produced.note}\nmass: {mass} GeV\nNormalization: {total:.5e} pb")
        written += [*spectra, direct]
    lines = [
        f"{produced.note}",
        "Dark photons at unit kinetic mixing, all processes together: use no other production beside them.",
        f"Cross sections [pb] = dark photons per interacting proton x {sigma_inelastic:g} mb.",
        "The luminosity [1/fb] of a beam dump is its interacting protons over that cross section:",
        *(f"  {name}: luminosity = {value / scale / 1e3:.6g}" for name, value in protons.items()),
        "",
        f'model.add_production_direct(label="{MODE}", energy="{energy}", coupling_ref=1,',
        f"    masses={names})",
        "",
        f'get_events(mass=…, energy="{energy}", couplings=[…], preselectioncuts="th<2"):',
        "the cut that FORESEE makes by itself leaves out angles above 0.01 rad.",
        "",
        "Part of the rate outside the cells (1e-5 to 1 rad, momenta above 1 GeV), by mass [GeV]:",
        *(f"  {mass}: {part:.3g}" for mass, part in outside.items()),
    ]
    notes = folder / "README.txt"
    write_whole(notes, ("\n".join(lines) + "\n").encode())
    return [*written, notes]


THETAS = np.concatenate([[1e-5, 1e-4, 3e-4, 6e-4], np.arange(1e-3, 0.02, 1e-3), np.geomspace(0.02, 1.5, 40)])
ENERGIES = 60  # nodes between the lightest mass and the beam energy


def _nodes(values: FloatArray, nodes: FloatArray) -> tuple[npt.NDArray[np.intp], FloatArray]:
    """Return the node below each value, and how far the next one is, in [0, 1]."""
    i: npt.NDArray[np.intp] = np.clip(np.searchsorted(nodes, values, side="right") - 1, 0, len(nodes) - 2)
    return i, np.clip((values - nodes[i]) / (nodes[i + 1] - nodes[i]), 0.0, 1.0)


def _volumes(nodes: FloatArray) -> FloatArray:
    """Return the integral of the straight lines that are one at each node and zero at the others."""
    steps = np.diff(nodes)
    return np.asarray(0.5 * (np.concatenate([steps, [0.0]]) + np.concatenate([[0.0], steps])))


def write_eventcalc(
    produced: Produced, masses: Sequence[float], folder: Path, *, fine: FloatArray | None = None
) -> list[Path]:
    """Write ``DoubleDistr``, ``Emax`` and ``Total-yield`` of dark photons for EventCalc and SensCalc.

    arXiv:2305.13383. The density is given at `masses`, the yields at the masses `fine` [GeV] as well, closer
    where they bend. Each particle is shared among the four nodes around it, so that the integral of the
    straight lines between the nodes is one exactly. The files ``lower`` and ``upper`` hold the yields one
    standard deviation away, with the same density. Lifetimes and branching ratios stay those of EventCalc.
    """
    names = _named(masses)
    few = f"EventCalc draws straight lines between masses: give two or more, not {names}"
    require(len(names) >= 2, few, UserError)
    energies = np.geomspace(0.5 * names[0], produced.beam_energy, ENERGIES)
    volume = np.outer(_volumes(THETAS), _volumes(energies))
    density, limits = [], []
    for mass in names:
        theta, _, energy, weight = produced.particles(mass)
        (i, x), (j, y) = _nodes(theta, THETAS), _nodes(energy, energies)
        content = np.zeros(volume.shape)
        for di, a in ((0, 1 - x), (1, x)):
            for dj, b in ((0, 1 - y), (1, y)):
                np.add.at(content, (i + di, j + dj), weight * a * b)
        density.append(content / volume / weight.sum())
        filled = np.where(content > 0, np.arange(ENERGIES), 0).max(axis=1)
        limits.append(energies[np.minimum(filled + 1, ENERGIES - 1)])
    grid = np.meshgrid(names, THETAS, energies, indexing="ij")
    rows = np.stack([*grid, np.stack(density)], axis=-1).reshape(-1, 4)
    mass, theta = np.meshgrid(names, THETAS, indexing="ij")
    # the largest of neighbouring limits: lines between them then cut nothing that a node holds
    highest = maximum_filter(np.stack(limits), 3, mode="nearest")
    tops = np.stack([mass, theta, highest], axis=-1).reshape(-1, 3)
    wanted = np.unique(np.concatenate([names, [] if fine is None else fine]))
    rate, sigma = produced.rate(wanted)
    yields = {"lower": np.clip(rate - sigma, 0.0, None), "central": rate, "upper": rate + sigma}
    written = []
    for label, values in yields.items():
        tables = {"DoubleDistr": rows, "Emax": tops, "Total-yield": np.stack([wanted, values], axis=1)}
        for what, table in tables.items():
            written.append(folder / f"{what}-DP-{label}.txt")
            write_whole(written[-1], table_text(np.asarray(table), "%.9g", "\t").encode())
    return written
