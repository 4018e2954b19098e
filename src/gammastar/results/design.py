"""The calibration run that a detector asks for: ``gammastar design``, from the record of a finished run."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from gammastar import accept, flow, infer, predict
from gammastar.accept import AcceptedYield, Replicated
from gammastar.accept.calibration import (
    Cells,
    Origins,
    Windows,
    WindowScan,
    central_interval,
    dimuons_in_windows,
    in_cells,
    scan_windows,
)
from gammastar.accept.expected_events import Sight
from gammastar.accept.plane import importance_of, watched
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.errors import InputFileError, UserError, require
from gammastar.core.files import folder_names, from_toml, is_file
from gammastar.core.records import BoolArray, FloatArray, Rng, Sample, divided
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, DetectorLike, load_detector
from gammastar.physics.millicharge import MillichargeDetector, load_millicharge_detector, pair_factor
from gammastar.physics.qed import kappa
from gammastar.pipeline import record as run_record
from gammastar.pipeline.cache import StageCache
from gammastar.pipeline.context import Context, RunState, Tell, needed
from gammastar.pipeline.stages.accept import measured_of, transfer_of
from gammastar.pipeline.stages.flow import read_spin
from gammastar.pipeline.stages.predict import measured_pairs, model_of, production_of
from gammastar.predict import Production
from gammastar.predict.millicharge import conditional
from gammastar.report.figures.kinematics import ProductionMap, production_figure
from gammastar.report.pages import Table, text_table
from gammastar.report.style import save_figure
from gammastar.store.folder import working
from gammastar.store.manifest import read_spectrum, write_json

FLOOR = 0.1  # of its pairs are seen where a cell counts as covered: ten times the protons of a perfect one
POINTS = ("lower edge", "largest signal", "upper edge")
N_MASSES = 8
END = 1e-6
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class DesignRequest:
    """What the calibration run is to do."""

    masses: tuple[float, ...] = ()  # [GeV]; those of an even grid over the run's if empty
    precision: float = 0.1  # DesignRequest relative standard deviation of the signal from the number of pairs
    share: float = 0.9  # Part of the signal that the spectrometer covers at every point
    thickness: float = 0.1  # Of the target in interaction lengths
    # Of each lepton [GeV]; 3 GeV is what passes the absorber of NA60 (Allison and Blinov, section III.A)
    min_momentum: float = 3.0
    background: float = 0.0  # Random pairs per pair of a virtual photon
    # Smallest and largest angle [rad] of a spectrometer that is there; None proposes one
    angles: tuple[float, float] | None = None
    n: int = 30_000  # Sampled particles per mass

    def __post_init__(self) -> None:
        for name in ("precision", "thickness"):
            value = getattr(self, name)
            good = math.isfinite(value) and value > 0
            require(good, f"--{name} {value:g}: must be positive, e.g. 0.1", UserError)
        require(0 < self.share < 1, f"--share {self.share:g}: must lie between 0 and 1", UserError)
        for name in ("background", "min_momentum"):
            value = getattr(self, name)
            option = name.replace("_", "-")
            good = math.isfinite(value) and value >= 0
            require(good, f"--{option} {value:g}: must not be negative", UserError)
        require(self.n >= 1000, f"-n {self.n}: at least 1000 particles per mass are needed", UserError)
        if self.angles is not None:
            low, high = self.angles
            what = f"--angles {1e3 * low:g} {1e3 * high:g}: the smallest and the largest angle in mrad"
            require(0 <= low < high < math.pi / 2, what, UserError)


def wanted(masses: str = "", angles: tuple[float, float] | None = None, **options: Any) -> DesignRequest:
    """Return what is wanted, from the command line: masses as ``0.3,0.5`` [GeV], angles in mrad."""
    try:
        numbers = tuple(float(text) for text in masses.split(",") if text.strip())
    except ValueError as error:
        raise UserError(f"--masses {masses}: give numbers with commas between them, e.g. 0.3,0.5") from error
    rad = None if angles is None else (1e-3 * angles[0], 1e-3 * angles[1])
    return DesignRequest(numbers, angles=rad, **options)


@dataclass(frozen=True)
class OpenRun:
    """A finished run opened for a detector."""

    ctx: Context  # Its cache is never written
    state: RunState
    production: Production  # Without replicas of the kinematics
    detector: Detector | MillichargeDetector
    name: str  # Stem of the detector's file

    @property
    def m_lepton(self) -> float:
        """Of the measured pairs [GeV]."""
        return LEPTON_MASS["mu" if self.ctx.steering.spectrum is None else self.ctx.steering.spectrum.lepton]


@dataclass(frozen=True)
class _Particles:
    """Particles of one mass as produced in the detector's target, and the virtual photons behind them."""

    sample: Sample
    cell: Any
    photons: tuple[FloatArray, Any, FloatArray]  # Momenta (4, n), masses, pairs per interacting proton
    run: Callable[[Sample, FloatArray, int], AcceptedYield]  # (sample, couplings, part) -> yields


def open_run(results: Path, detector: str, *, trust_code: bool = False) -> OpenRun:
    """Return the record of a finished run and the card of a detector, a file or a name, ready for yields."""
    manifest = run_record.checked_record(results)
    path = Path(detector) if is_file(Path(detector)) else None
    try:
        path = path or run_record.kept_detector(results, detector)
    except InputFileError as error:
        raise InputFileError(
            f"--detector {detector}: no such file, and none of {', '.join(folder_names('detectors'))}"
        ) from error
    card: Detector | MillichargeDetector
    card = load_millicharge_detector(path) if _millicharged(path) else load_detector(path)
    steering = run_record.kept_steering(results)
    if steering.predict is None or steering.accept is None:
        raise UserError(f"{results}/steering.json: a design needs the sections [predict] and [accept]")
    if not trust_code:
        run_record.refuse_code(steering, results)
    cache = StageCache(results, False, steering.analysis.seed, manifest["mock"], {})  # is never written
    ctx = Context(steering, Path().resolve(), results, cache, lambda *_: None)
    run_record.tell_code(ctx, results)
    domain, sampler = run_record.read_domain(results / "domain.safetensors"), flow.load(results / "flow")
    kept: Any = {"training": domain, "flow": sampler, "spin": read_spin(results), "record": results}
    state = RunState(spectrum=read_spectrum(results / "spectrum.json"), **kept)
    production = production_of(ctx, state, lambda: domain, lambda: (sampler, None, None))
    return OpenRun(ctx, state, production, card, path.stem)


def _masses(run: OpenRun, request: tuple[float, ...]) -> tuple[float, ...]:
    """Return the masses of the design [GeV]."""
    low, high = run.production.mass_range
    low = max(low, run.production.threshold)
    if isinstance(run.detector, MillichargeDetector):
        low, high = 0.0, 0.5 * high
        default = np.geomspace(0.02, 0.9 * high, N_MASSES)
    else:
        default = low + (high - low) * (np.arange(N_MASSES) + 0.5) / N_MASSES
    for mass in request:
        if not low < mass < high:
            ends = f"{low:.5g} to {high:.5g} GeV"
            raise UserError(f"--masses {mass:g}: lies outside what the run measured, {ends}")
    return request or tuple(np.round(default, 3).tolist())


def _dark_photons(run: OpenRun, detector: Detector, mass: float, cells: Cells, n: int) -> _Particles:
    """Return dark photons of one mass; its virtual photons are those in the mass bin of the run."""
    ctx, production, seed = run.ctx, run.production, run.ctx.seed
    model, section, measured = model_of(ctx), ctx.steering.accept, measured_of(ctx, production)
    states = () if section is None else section.final_states
    states = tuple(state for state in states if state in detector.efficiency) or states
    name = "design", detector.name, f"{mass:.6f}"

    def run_yields(part: Sample, couplings: FloatArray, number: int) -> AcceptedYield:
        sight = Sight.of(mass, couplings, model, detector, states, measured)
        found, _ = watched(sight, part, stream(seed, *name, number))
        return sight.expected(found, part.replicas[:, found.index] if isinstance(part, Replicated) else None)

    sight = Sight.of(mass, _scan(run), model, detector, states, measured)
    importance = importance_of([sight], stream(seed, *name, "importance"))
    made = production.channel.focused(mass, n=n, rng=stream(seed, *name, "made"), importance=importance)
    sample, p = carried(run, detector, made, stream(seed, *name, "depth")), made.four_momenta
    pairs = _pairs_in_bin(run, mass) / float(production.channel.rate([mass])[0][0]) * sample.weight
    return _Particles(sample, cells.index(p), (p, mass, pairs), run_yields)


def _scan(run: OpenRun) -> FloatArray:
    """Return the couplings of the scan of the run, or its charges."""
    steering, accepting = run.ctx.steering.infer, run.ctx.steering.accept
    low, high, n = (1e-9, 1e-2, 141) if steering is None else (*steering.coupling, steering.n_couplings)
    if isinstance(run.detector, MillichargeDetector) and accepting is not None:
        low, high, n = *accepting.charge, accepting.n_charges
    return np.geomspace(low, high, n)


def _pairs_in_bin(run: OpenRun, mass: float) -> float:
    """Return the lepton pairs of the mass bin of the run around a mass, per interacting proton."""
    edges = np.asarray(needed(run.state.spectrum, "spectrum").hist.axes["mass"].edges)
    k = int(np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2))
    low, high = max(edges[k], run.production.mass_range[0]), min(edges[k + 1], run.production.mass_range[1])
    m = 0.5 * (high + low) + 0.5 * (high - low) * NODES
    rate = run.production.mixture[0].rate(m)[0]
    density = 2 * kappa(m, run.m_lepton) * rate / m  # equation 6 of Allison and Blinov, read backwards
    return float(0.5 * (high - low) * (WEIGHTS @ density)) / _interacting(run)


def _interacting(run: OpenRun) -> float:
    return float(-np.expm1(-run.production.exposure.thickness))


def _millicharges(
    run: OpenRun, detector: MillichargeDetector, m_chi: float, cells: Cells, n: int
) -> _Particles:
    """Return χ and χ̄ from all measured virtual photons that are heavy enough."""
    seed, production = run.ctx.seed, run.production
    edges, pairs, _ = needed(measured_pairs(run.ctx, production, run.state), "spectrum")
    rng = stream(seed, "design", "chi", f"{m_chi:.6f}")
    inside, sampler = needed(run.state.training, "flow").in_domain, needed(run.state.flow, "flow")
    photons = conditional(m_chi, (edges, pairs), run.m_lepton, sampler, inside, n=n, rng=rng)
    made = predict.chi_pairs(photons, m_chi, rng=rng, spin=production.spin)
    sample = carried(run, detector, made, stream(seed, "design", detector.name, "depth", f"{m_chi:.6f}"))
    measured = measured_of(run.ctx, production)

    def run_yields(part: Sample, charges: FloatArray, number: int) -> AcceptedYield:  # noqa: ARG001
        return accept.millicharge_yields(part, m_chi, charges, detector, measured=measured)

    pz = np.sqrt(np.clip(photons.energy**2 - photons.mass**2 - photons.pt**2, 0.0, None))
    p = np.stack([photons.pt, np.zeros_like(pz), pz, photons.energy])
    factor = pair_factor(photons.mass, m_chi, run.m_lepton)  # χχ̄ per pair and Q²
    pairs_of_chi = sample.weight[:n] / _interacting(run)
    dimuons = divided(pairs_of_chi, factor)
    return _Particles(sample, np.tile(cells.index(p), 2), (p, photons.mass, dimuons), run_yields)


def carried(run: OpenRun, detector: Detector | MillichargeDetector, made: Sample, rng: Rng) -> Sample:
    """Return a sample as produced in the detector's target."""
    transfer = transfer_of(run.ctx.steering, [run.name])
    target = run.production.exposure.target_a, None
    return transfer.carry(made, (run.name, detector.target), target, rng)[0]


def _points(
    run: OpenRun, made: _Particles, mass: float, limit: float
) -> tuple[tuple[str, ...], FloatArray] | None:
    """Return names and couplings of the edges and the largest signal; None where there is no signal."""
    grid = _scan(run)
    signal = made.run(made.sample, grid, -1).signal
    if not signal.max() > 0:
        return None
    edges = infer.reach([mass], grid, signal[np.newaxis], limit).edges
    edges = edges[np.isfinite(edges).all(axis=1)]
    top = grid[np.argmax(signal)]
    if not len(edges):
        return (POINTS[1],), np.array([top])
    couplings = np.array([edges[:, 0].min(), top, edges[:, 1].max()])
    # an end of the scan is no edge of the contour, and no largest signal
    inside = (couplings > grid[0] * (1 + END)) & (couplings < grid[-1] * (1 - END))
    return tuple(np.array(POINTS)[inside].tolist()), couplings[inside]


def origins(run: OpenRun, mass: float, request: DesignRequest, cells: Cells, limit: float) -> Origins | None:
    """Return what the detector sees at one mass; None if it sees nothing."""
    detector, n_cells = run.detector, cells.shape[0] * cells.shape[1]
    made = (
        _millicharges(run, detector, mass, cells, request.n)
        if isinstance(detector, MillichargeDetector)
        else _dark_photons(run, detector, mass, cells, request.n)
    )
    points = _points(run, made, mass, limit)
    if points is None or not points[0]:
        return None
    names, couplings = points
    signal, parts = in_cells(made.sample, made.cell, n_cells, lambda part, b: made.run(part, couplings, b))
    total = signal.mean(axis=0).sum(axis=0)
    p, masses, weight = made.photons
    weight = weight * -np.expm1(-request.thickness)
    cell = made.cell[: len(weight)]
    used = np.flatnonzero(signal.any(axis=(0, 2)))
    here = np.isin(cell, used)
    row = np.searchsorted(used, cell[here])
    photons = p[:, here], np.broadcast_to(masses, (len(weight),))[here], weight[here]
    rng = stream(run.ctx.seed, "design", "dimuons", f"{mass:.6f}")
    found = dimuons_in_windows(photons, row, len(used), _windows(run, request), rng)
    produced = np.bincount(row, weight[here], len(used)).astype(np.float64)
    asked = {"floor": FLOOR, "precision": request.precision, "background": request.background}
    share, protons, _ = scan_windows(signal[:, used], produced, found, **asked)
    measured = np.mean([part.in_domain_signal for part in parts], axis=0)
    return Origins(
        mass=mass,
        names=names,
        couplings=couplings,
        events=total,
        measured=divided(measured, total),
        n_effective=np.sum([part.n_effective for part in parts], axis=0),
        signal=signal.mean(axis=0),
        share=share,
        protons=protons,
        pairs=float(weight.sum()),
        photon_mass=float(np.median(photons[1])) if here.any() else mass,
    )


def _windows(run: OpenRun, request: DesignRequest) -> Windows:
    if request.angles is None:
        return Windows.usual(request.min_momentum, run.m_lepton)
    low, high = request.angles
    return Windows(np.array([low]), np.array([high]), request.min_momentum, run.m_lepton)


def _millicharged(path: Path) -> bool:
    """Return whether a card is that of a detector of millicharged particles."""
    try:
        return "detection" in from_toml(path)
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong


def _limit(run: OpenRun) -> tuple[float, str]:
    """Return the limit on events that makes a contour, and what it assumes."""
    section, b = run.ctx.steering.infer, run.detector.background
    cl = 0.9 if section is None else section.cl
    known = b or 0.0
    limit = float(infer.counting_limit(round(known), known, cl=cl))
    said = f"{known:g} background events" if b is not None else "no background, as the card gives none"
    return limit, f"contour: {limit:.3g} events at {100 * cl:g} % CL, {said}, signal without error"


def _proposal(run: OpenRun, request: DesignRequest, tell: Tell) -> tuple[list[str], dict[str, Any], Any]:
    """Return lines, content of the JSON file and figure for a detector behind the measured beam."""
    cells, masses = Cells.below(run.detector.beam_energy), _masses(run, request.masses)
    limit, assumption = _limit(run)
    found = []
    for i, mass in enumerate(masses):
        at = origins(run, mass, request, cells, limit)
        found += [] if at is None else [at]
        tell("design", (i + 1) / len(masses), f"m = {mass:.3f} GeV")
    content: dict[str, Any] = {"contour": assumption, "masses_GeV": list(masses)}
    title = f"{run.detector.name}{', MOCK dimuons' if run.ctx.cache.mock else ''}"
    if not found:
        text = "no sampled particle reaches the detector at any of these masses: there is nothing to design"
        return [title, text], content | {"points": [], "proposal": None}, None
    share, protons = (np.concatenate([getattr(at, name) for at in found]) for name in ("share", "protons"))
    scan = WindowScan(_windows(run, request), share, protons)
    i, j = scan.narrowest(request.share)
    rows = [row for at in found for row in rows_of(at, cells, (i, j))]
    proposal = proposal_of(run.detector, scan, (i, j), rows, vars(request))
    charged = isinstance(run.detector, MillichargeDetector)
    symbol = "Q" if charged else model_of(run.ctx).labels.coupling
    lines = [title, table_of(rows, symbol), *sentences(run.detector, proposal, rows), assumption]
    measured, mock = functools.partial(_measured, run), run.ctx.cache.mock
    figure = figure_of(found, cells, proposal, measured, mock=mock, title=(run.detector.name, symbol))
    return lines, content | {"points": rows, "proposal": proposal}, figure


def _measured(run: OpenRun, mass: float, angles: FloatArray, energies: FloatArray) -> BoolArray:
    """Return where pairs of a mass were measured, shape (angles, energies)."""
    energy = np.broadcast_to(energies, (len(angles), len(energies)))
    momentum = np.sqrt(np.clip(energy**2 - mass**2, 0.0, None))
    pt = momentum * np.sin(angles)[:, None]
    in_domain = needed(run.state.training, "flow").in_domain
    inside = in_domain(np.full(energy.size, mass), pt.ravel(), energy.ravel())
    return np.asarray(inside.reshape(energy.shape) & (momentum > 0))


def _other_beam(run: OpenRun, beam: float) -> tuple[list[str], dict[str, Any]]:
    """Return which spectrum a detector behind another beam needs: no scaling carries one there."""
    detector, target = run.detector, run.detector.target
    energy = f"{detector.beam_energy:g} GeV"
    why = f"{detector.name} stands behind protons of {energy}, the run measured at {beam:g} GeV: no scaling "
    why += "carries a spectrum from one beam energy to another"
    what = f"needed: a spectrum of lepton pairs at {energy}, best on A = {target.a:g} as in its target"
    how = f"with results of `gammastar run` for data, or a MOCK card, of {energy} this command proposes "
    lines = [why, what, f"{how}angles, energies and protons"]
    needed = {"spectrum_at_GeV": detector.beam_energy, "target_a": target.a, "target_z": target.z}
    return lines, {"measured_at_GeV": beam, "points": [], "proposal": None, "needed": needed}


def design(
    results: Path,
    detector: str,
    request: DesignRequest,
    *,
    output: Path | None = None,
    tell: Tell,
    trust_code: bool = False,
) -> list[str]:
    """Show which dimuons a detector needs, and propose the run that measures them."""
    run = open_run(results, detector, trust_code=trust_code)
    folder = output or results.with_name(f"{results.name}_design")
    name = f"design_{run.name}"
    content: dict[str, Any] = {
        "detector": run.detector.name,
        "results": results.name,
        "mock": run.ctx.cache.mock,
        "beam_energy_GeV": run.detector.beam_energy,
        "wanted": {**vars(request), "masses": list(request.masses)},
    }
    beam, figure = run.production.exposure.beam_energy, None
    if math.isclose(beam, run.detector.beam_energy, rel_tol=1e-3):
        lines, proposed, figure = _proposal(run, request, tell)
    else:
        lines, proposed = _other_beam(run, beam)
    if figure is not None:
        save_figure(figure, folder / name)
    with working(folder):
        write_json(folder / f"{name}.json", content | proposed)
    return [*lines, f"written to {folder / name}.json"]


NOTHING = 1e-3  # part of a signal that counts as none
FEW = 30.0  # effective particles below which the protons of a point are not known


def rows_of(at: Origins, cells: Cells, chosen: tuple[int, int]) -> list[dict[str, Any]]:
    """Return what is known of each point of one mass."""
    rows: list[dict[str, Any]] = []
    maps = at.signal.reshape(*cells.shape, -1)
    for k, name in enumerate(at.names):
        over_theta, over_energy = maps[:, :, k].sum(axis=1), maps[:, :, k].sum(axis=0)
        theta = {s: central_interval(cells.theta, over_theta, s) for s in (0.68, 0.9)}
        energy = central_interval(cells.energy, over_energy, 0.9)
        protons = float(at.protons[k, *chosen])
        known = np.isfinite(protons) and at.n_effective[k] >= FEW
        rows.append(
            {
                "mass_GeV": at.mass,
                "point": name,
                "coupling": float(at.couplings[k]),
                "events": float(at.events[k]),
                "n_effective": float(at.n_effective[k]),
                "measured": float(at.measured[k]),
                "theta_68_mrad": [1e3 * angle for angle in theta[0.68]],
                "theta_90_mrad": [1e3 * angle for angle in theta[0.9]],
                "energy_90_GeV": list(energy),
                "covered": float(at.share[k, *chosen]),
                "protons": protons if known else None,
                "pairs_of_the_mass_bin": protons * at.pairs if known else None,
            }
        )
    return rows


def proposal_of(
    detector: DetectorLike,
    scan: WindowScan,
    chosen: tuple[int, int],
    rows: list[dict[str, Any]],
    request: dict[str, Any],
) -> dict[str, Any]:
    """Return spectrometer, target and protons of the run that would measure the signal as `request` asks."""
    (i, j), target = chosen, detector.target
    known = [row["protons"] for row in rows if row["protons"] is not None]
    energies = np.array([row["energy_90_GeV"] for row in rows])
    return {
        "given": request["angles"] is not None,
        "theta_min_mrad": 1e3 * float(scan.windows.theta_min[i]),
        "theta_max_mrad": 1e3 * float(scan.windows.theta_max[j]),
        "energy_GeV": [float(energies[:, 0].min()), float(energies[:, 1].max())],
        "beam_energy_GeV": detector.beam_energy,
        "target_a": target.a,
        "target_z": target.z,
        "covers": float(scan.share[:, i, j].min()),
        "protons": {"least": min(known), "most": max(known)} if known else None,
        "points_without_protons": len(rows) - len(known),
        **{key: request[key] for key in ("share", "precision", "thickness", "min_momentum", "background")},
    }


def table_of(rows: list[dict[str, Any]], coupling: str) -> str:
    """Return the rows as text."""

    def span(row: dict[str, Any], key: str) -> str:
        return f"{row[key][0]:.3g} – {row[key][1]:.3g}"

    columns: dict[str, Callable[[dict[str, Any]], Any]] = {
        "m [GeV]": lambda row: row["mass_GeV"],
        "point": lambda row: row["point"] + (" *" if row["n_effective"] < FEW else ""),
        coupling: lambda row: f"{row['coupling']:.3g}",
        "events": lambda row: f"{row['events']:.3g}",
        "measured": lambda row: f"{row['measured']:.1%}",
        "θ, 68 % [mrad]": lambda row: span(row, "theta_68_mrad"),
        "θ, 90 % [mrad]": lambda row: span(row, "theta_90_mrad"),
        "E, 90 % [GeV]": lambda row: span(row, "energy_90_GeV"),
        "covered": lambda row: f"{row['covered']:.0%}",
        "protons": lambda row: "–" if row["protons"] is None else f"{row['protons']:.2g}",
    }
    return text_table(Table({name: [cell(row) for row in rows] for name, cell in columns.items()}))


def sentences(detector: DetectorLike, proposal: dict[str, Any], rows: list[dict[str, Any]]) -> list[str]:
    """Return the sentences below the table."""
    parts = np.array([row["measured"] for row in rows])
    if parts.max() < NOTHING:
        measured = (
            f"no measured pair lies in the region of {detector.name}: its whole signal is extrapolated, "
            "and what follows rests on that extrapolation"
        )
    else:
        measured = f"measured: {parts.min():.1%} to {parts.max():.1%} of the signal"
        measured += "; the rest of the map is extrapolated" if parts.min() < 1 - NOTHING else ""
    low, high = proposal["theta_min_mrad"], proposal["theta_max_mrad"]
    first, last = proposal["energy_GeV"]
    word, covered = "given" if proposal["given"] else "proposed", proposal["covers"]
    spectrometer = (
        f"{word}: both leptons between {low:g} and {high:g} mrad and "
        f"above {proposal['min_momentum']:g} GeV, pairs of {first:.3g} to {last:.3g} GeV; protons of "
        f"{detector.beam_energy:g} GeV on {proposal['thickness']:g} interaction lengths of A = "
        f"{detector.target.a:g}"
    )
    cells = "cells of angle and energy of which it sees a tenth of the pairs"
    covers = f"it covers {covered:.1%} of the signal at the least ({cells})"
    if covered < proposal["share"]:
        why = "other angles would cover more" if proposal["given"] else "softer leptons would have to be seen"
        covers += f"; less than the wanted {proposal['share']:.1%}: {why}"
    lines = [measured, spectrometer, covers]
    protons, number = proposal["protons"], "unknown"
    if protons is not None:
        ends = dict.fromkeys(f"{protons[end]:.2g}" for end in ("least", "most"))
        number = " to ".join(ends)
    lines.append(
        f"protons on target to know the signal to {100 * proposal['precision']:.3g} % from the number of "
        f"pairs: {number}" + ("" if proposal["background"] else "; random pairs multiply them by 1 + 2 B/S")
    )
    if any(row["n_effective"] < FEW for row in rows):
        lines.append(f"* fewer than {FEW:g} effective particles behind this point: raise -n for its protons")
    return lines


def figure_of(
    found: Sequence[Origins],
    cells: Cells,
    proposal: dict[str, Any],
    measured: Callable[[float, FloatArray, FloatArray], BoolArray],
    *,
    mock: bool,
    title: tuple[str, str],
) -> Figure:
    """Return maps of the signal of at most three masses, what was measured, and the spectrometer."""
    name_of_detector, symbol = title
    chosen = found if len(found) <= 3 else [found[0], found[len(found) // 2], found[-1]]
    angles, energies = (np.geomspace(x[0], x[-1], 240) for x in (cells.theta, cells.energy))
    rows = []
    for at in chosen:
        domain = measured(at.photon_mass, angles, energies)
        maps = np.moveaxis(at.signal.reshape(*cells.shape, -1), 2, 0)
        points = zip(at.names, at.couplings, maps, at.measured, strict=True)
        maps_of = [(f"{at.mass:g} GeV, {name}, {symbol} = {g:.2g}", s, part) for name, g, s, part in points]
        rows.append([ProductionMap(label, signal, part, domain) for label, signal, part in maps_of])
    corner = 2 * proposal["min_momentum"]
    box = (1e-3 * proposal["theta_min_mrad"], 1e-3 * proposal["theta_max_mrad"]), corner
    axes = (cells.theta, cells.energy), (angles, energies)
    return production_figure(rows, *axes, box, mock=mock, title=name_of_detector)
