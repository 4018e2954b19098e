"""The calibration run that a detector asks for: ``gammastar design``, from the record of a finished run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gammastar import accept, flow, infer, predict
from gammastar.accept import AcceptedYield
from gammastar.accept.calibration import (
    Cells,
    Windows,
    WindowScan,
    central_interval,
    dimuons_in_windows,
    in_cells,
    scan_windows,
)
from gammastar.core.constants import LEPTON_MASS
from gammastar.core.documents import from_toml
from gammastar.core.errors import InputFileError, UserError
from gammastar.core.files import folder_names, is_file
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.millicharge import MillichargeDetector, load_millicharge_detector, pair_factor
from gammastar.physics.qed import kappa
from gammastar.pipeline.cache import StageCache
from gammastar.pipeline.context import Context, RunState, Tell
from gammastar.pipeline.record import checked_record, kept_detector, kept_steering, read_domain
from gammastar.pipeline.stages.accept import measured_of, transfer_of
from gammastar.pipeline.stages.flow import read_spin
from gammastar.pipeline.stages.predict import measured_pairs, model_of, production_of
from gammastar.predict import Production
from gammastar.predict.millicharge import conditional
from gammastar.store.folder import working
from gammastar.store.manifest import write_json
from gammastar.store.records import read_spectrum

__all__ = ["Wanted", "design"]

FLOOR = 0.1  # of its pairs are seen where a cell counts as covered: ten times the protons of a perfect one
POINTS = ("lower edge", "largest signal", "upper edge")
FEW = 30.0  # effective particles below which numbers of a point are marked
N_MASSES = 8
FAN = (1.0, 2000, 16)  # rad, angles and azimuths at which the volume is looked for from the target
NODES, WEIGHTS = np.polynomial.legendre.leggauss(16)


@dataclass(frozen=True)
class Wanted:
    """What the calibration run is to do.

    Attributes
    ----------
    masses : tuple of float
        [GeV]; those of an even grid over the run's if empty.
    precision : float
        Wanted relative standard deviation of the signal from the number of pairs.
    share : float
        Part of the signal that the spectrometer covers at every point.
    thickness : float
        Of the target in interaction lengths.
    min_momentum : float
        Of each lepton [GeV]; 3 GeV is what passes the absorber of NA60 (Allison and Blinov, section III.A).
    background : float
        Random pairs per pair of a virtual photon.
    angles : tuple of float, or None
        Smallest and largest angle [rad] of a spectrometer that is there; None proposes one.
    n : int
        Sampled particles per mass.
    """

    masses: tuple[float, ...] = ()
    precision: float = 0.1
    share: float = 0.9
    thickness: float = 0.1
    min_momentum: float = 3.0
    background: float = 0.0
    angles: tuple[float, float] | None = None
    n: int = 40_000

    def __post_init__(self) -> None:
        for name in ("precision", "thickness"):
            value = getattr(self, name)
            _require(math.isfinite(value) and value > 0, f"--{name} {value:g}: must be positive, e.g. 0.1")
        _require(0 < self.share < 1, f"--share {self.share:g}: must lie between 0 and 1")
        for name in ("background", "min_momentum"):
            value = getattr(self, name)
            option = name.replace("_", "-")
            _require(math.isfinite(value) and value >= 0, f"--{option} {value:g}: must not be negative")
        _require(self.n >= 1000, f"-n {self.n}: at least 1000 particles per mass are needed")
        if self.angles is not None:
            low, high = self.angles
            _require(
                0 <= low < high < math.pi / 2,
                f"--angles {1e3 * low:g} {1e3 * high:g}: the smallest and the largest angle in mrad",
            )


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise UserError(message)


@dataclass(frozen=True)
class _Run:
    """A finished run opened for a detector."""

    ctx: Context
    state: RunState
    production: Production
    detector: Detector | MillichargeDetector
    name: str

    @property
    def m_lepton(self) -> float:
        """Of the measured pairs [GeV]."""
        return LEPTON_MASS["mu" if self.ctx.steering.spectrum is None else self.ctx.steering.spectrum.lepton]


@dataclass(frozen=True)
class _Particles:
    """Particles of one mass as produced in the detector's target, and the virtual photons behind them.

    `photons`: four-momenta (4, n), masses, and lepton pairs per interacting proton; `pairs` in the window of
    mass, `cell` of each particle. ``run(sample, couplings, part)`` gives yields.
    """

    sample: Sample
    cell: Any
    photons: tuple[FloatArray, Any, FloatArray]
    run: Callable[[Sample, FloatArray, int], AcceptedYield]


def _open(results: Path, detector: str) -> _Run:
    """Open the record of a run, and the card of a detector."""
    manifest = checked_record(results)
    path = Path(detector) if is_file(Path(detector)) else None
    try:
        path = path or kept_detector(results, detector)
    except InputFileError as error:
        msg = f"--detector {detector}: no such file, and none of {', '.join(folder_names('detectors'))}"
        raise InputFileError(msg) from error
    card: Detector | MillichargeDetector
    card = load_millicharge_detector(path) if _millicharged(path) else load_detector(path)
    steering = kept_steering(results)
    if steering.predict is None or steering.accept is None:
        msg = f"{results}/steering.json: a design needs the sections [predict] and [accept]"
        raise UserError(msg)
    cache = StageCache(results, False, steering.analysis.seed, manifest["mock"], {})  # is never written
    ctx = Context(steering, Path().resolve(), results, cache, lambda *_: None)
    domain, sampler = read_domain(results / "domain.safetensors"), flow.load(results / "flow")
    state = RunState(
        spectrum=read_spectrum(results / "spectrum.json"),
        training=domain,
        flow=sampler,
        spin=read_spin(results),
        record=results,
    )
    production = production_of(ctx, state, lambda: domain, lambda: (sampler, None))
    return _Run(ctx, state, production, card, path.stem)



def _masses(run: _Run, asked: tuple[float, ...]) -> tuple[float, ...]:
    """Return the masses of the design [GeV]."""
    low, high = run.production.mass_range
    low, high = (max(low, run.production.threshold), high)
    if isinstance(run.detector, MillichargeDetector):
        low, high = 0.0, 0.5 * high
        default = np.geomspace(0.02, 0.9 * high, N_MASSES)
    else:
        default = low + (high - low) * (np.arange(N_MASSES) + 0.5) / N_MASSES
    for mass in asked:
        if not low < mass < high:
            msg = f"--masses {mass:g}: lies outside what the run measured, {low:.4g} to {high:.4g} GeV"
            raise UserError(msg)
    return asked or tuple(np.round(default, 3).tolist())


def _dark_photons(run: _Run, detector: Detector, mass: float, cells: Cells, n: int) -> _Particles:
    """Return dark photons of one mass; its virtual photons are those in the mass bin of the run."""
    ctx, production, seed = run.ctx, run.production, run.ctx.seed
    made = production.channel.produce(mass, n=n, rng=stream(seed, "design", f"{mass:.6f}"))
    sample = _carried(run, detector, made, stream(seed, "design", detector.name, "depth", f"{mass:.6f}"))
    model, section, measured = model_of(ctx), ctx.steering.accept, measured_of(ctx, production)
    states = () if section is None else section.final_states
    states = tuple(state for state in states if state in detector.efficiency) or states

    def run_yields(part: Sample, couplings: FloatArray, number: int) -> AcceptedYield:
        rng = stream(seed, "design", detector.name, f"{mass:.6f}", number)
        return accept.yields(
            part, mass, couplings, model, detector, final_states=states, measured=measured, rng=rng
        )

    p = _momenta(made)
    pairs = _pairs_in_bin(run, mass) * sample.weight / made.weight.sum()
    return _Particles(sample, cells.index(p), (p, mass, pairs), run_yields)


def _pairs_in_bin(run: _Run, mass: float) -> float:
    """Return the lepton pairs of the mass bin of the run around a mass, per interacting proton."""
    edges = np.asarray(run.state.spectrum.hist.axes["mass"].edges)
    k = int(np.clip(np.searchsorted(edges, mass, "right") - 1, 0, len(edges) - 2))
    low, high = max(edges[k], run.production.mass_range[0]), min(edges[k + 1], run.production.mass_range[1])
    m = 0.5 * (high + low) + 0.5 * (high - low) * NODES
    rate = run.production.mixture[0].rate(m)[0]
    density = 2 * kappa(m, run.m_lepton) * rate / m  # equation 6 of Allison and Blinov, read backwards
    return float(0.5 * (high - low) * (WEIGHTS @ density)) / _interacting(run)


def _interacting(run: _Run) -> float:
    return float(-np.expm1(-run.production.exposure.thickness))


def _millicharges(run: _Run, detector: MillichargeDetector, m_chi: float, cells: Cells, n: int) -> _Particles:
    """Return χ and χ̄ from all measured virtual photons that are heavy enough."""
    seed, production = run.ctx.seed, run.production
    edges, pairs, _ = measured_pairs(run.ctx, production, run.state) or (None, None, None)
    rng = stream(seed, "design", "chi", f"{m_chi:.6f}")
    inside = run.state.training.in_domain
    photons = conditional(m_chi, edges, pairs, run.m_lepton, run.state.flow, inside, n=n, rng=rng)
    made = predict.chi_pairs(photons, m_chi, rng=rng, spin=production.spin)
    sample = _carried(run, detector, made, stream(seed, "design", detector.name, "depth", f"{m_chi:.6f}"))
    measured = measured_of(run.ctx, production)

    def run_yields(part: Sample, charges: FloatArray, number: int) -> AcceptedYield:  # noqa: ARG001
        return accept.millicharge_yields(part, m_chi, charges, detector, measured=measured)

    pz = np.sqrt(np.clip(photons.energy**2 - photons.mass**2 - photons.pt**2, 0.0, None))
    p = np.stack([photons.pt, np.zeros_like(pz), pz, photons.energy])
    factor = pair_factor(photons.mass, m_chi, run.m_lepton)  # χχ̄ per pair and Q²
    carried = sample.weight[:n] / _interacting(run)
    dimuons = np.divide(carried, factor, out=np.zeros(n), where=factor > 0)
    return _Particles(sample, np.tile(cells.index(p), 2), (p, photons.mass, dimuons), run_yields)


def _carried(
    run: _Run, detector: Detector | MillichargeDetector, made: Sample, rng: np.random.Generator
) -> Sample:
    """Return a sample as produced in the detector's target."""
    transfer = transfer_of(run.ctx, {run.name: detector})
    target = run.production.exposure.target_a, None
    return transfer.carry(made, (run.name, detector.target), target, rng)[0]


def _momenta(sample: Sample) -> FloatArray:
    p4 = sample.p4
    return np.stack([np.asarray(c, dtype=np.float64) for c in (p4.px, p4.py, p4.pz, p4.E)])


@dataclass(frozen=True, eq=False)
class _AtMass:
    """What a detector sees at one mass, at the k points of its contour, by the cells of production.

    `signal` (parts, cells, k); `dimuons` (cells, i, j) per proton of the calibration run, `share` and
    `protons` (k, i, j) of every spectrometer; `pairs`: dimuons of the mass bin per proton, wherever they go.
    """

    mass: float
    names: tuple[str, ...]
    couplings: FloatArray
    events: FloatArray
    measured: FloatArray
    n_effective: FloatArray
    signal: FloatArray
    share: FloatArray
    protons: FloatArray
    pairs: float


def _points(
    run: _Run, made: _Particles, mass: float, limit: float
) -> tuple[tuple[str, ...], FloatArray] | None:
    """Return names and couplings of the edges and the largest signal; None where there is no signal."""
    steering, accepting = run.ctx.steering.infer, run.ctx.steering.accept
    low, high, n = (1e-9, 1e-2, 141) if steering is None else (*steering.coupling, steering.n_couplings)
    if isinstance(run.detector, MillichargeDetector) and accepting is not None:
        low, high, n = *accepting.charge, accepting.n_charges
    grid = np.geomspace(low, high, n)
    signal = made.run(made.sample, grid, -1).signal
    if not signal.max() > 0:
        return None
    edges = infer.reach([mass], grid, signal[np.newaxis], limit).edges
    edges = edges[np.isfinite(edges).all(axis=1)]
    top = float(grid[np.argmax(signal)])
    if not len(edges):
        return (POINTS[1],), np.array([top])
    return POINTS, np.array([edges[:, 0].min(), top, edges[:, 1].max()])


def _at(run: _Run, mass: float, wanted: Wanted, cells: Cells, limit: float) -> _AtMass | None:
    """Return what the detector sees at one mass; None if it sees nothing."""
    detector, n_cells = run.detector, cells.shape[0] * cells.shape[1]
    made = (
        _millicharges(run, detector, mass, cells, wanted.n)
        if isinstance(detector, MillichargeDetector)
        else _dark_photons(run, detector, mass, cells, wanted.n)
    )
    points = _points(run, made, mass, limit)
    if points is None:
        return None
    names, couplings = points
    signal, parts = in_cells(
        made.sample, made.cell, n_cells, lambda part, b: made.run(part, couplings, b)
    )
    total = signal.mean(axis=0).sum(axis=0)
    p, masses, weight = made.photons
    weight = weight * -np.expm1(-wanted.thickness)
    cell = made.cell[: len(weight)]
    used = np.flatnonzero(signal.any(axis=(0, 2)))
    here = np.isin(cell, used)
    row = np.searchsorted(used, cell[here])
    photons = p[:, here], np.broadcast_to(masses, (len(weight),))[here], weight[here]
    rng = stream(run.ctx.seed, "design", "dimuons", f"{mass:.6f}")
    found = dimuons_in_windows(photons, row, len(used), _windows(wanted), run.m_lepton, rng)
    produced = np.bincount(row, weight[here], len(used))
    share, protons, _ = scan_windows(
        signal[:, used],
        produced,
        found,
        floor=FLOOR,
        precision=wanted.precision,
        background=wanted.background,
    )
    measured = np.mean([part.in_domain_signal for part in parts], axis=0)
    return _AtMass(
        mass=mass,
        names=names,
        couplings=couplings,
        events=total,
        measured=np.divide(measured, total, out=np.zeros_like(total), where=total > 0),
        n_effective=np.sum([part.n_effective for part in parts], axis=0),
        signal=signal,
        share=share,
        protons=protons,
        pairs=float(weight.sum()),
    )


def _windows(wanted: Wanted) -> Windows:
    if wanted.angles is None:
        return Windows.usual(wanted.min_momentum)
    low, high = wanted.angles
    return Windows(np.array([low]), np.array([high]), wanted.min_momentum)


def _millicharged(path: Path) -> bool:
    """Return whether a card is that of a detector of millicharged particles."""
    try:
        return "detection" in from_toml(path)
    except (OSError, ValueError):
        return False  # whoever reads it says what is wrong


def design(results: Path, detector: str, wanted: Wanted, *, output: Path | None = None, tell: Tell) -> list[str]:
    """Say which dimuons a detector asks for, and propose the run that measures them.

    Parameters
    ----------
    results : Path
        Folder of a finished run with a flow.
    detector : str
        A file, or the name of a shipped detector, of dark photons or of millicharged particles.
    wanted : Wanted
    output : Path, optional
        Folder of ``design_<detector>.json`` and its figure; ``<results>_design`` by default.
    tell : callable
        Receives progress.

    Returns
    -------
    list of str
        Lines that say what was found.

    Raises
    ------
    InputFileError
        If there is no such detector, or a file of the record is missing.
    UserError
        If a mass lies outside the run.

    Notes
    -----
    The signal of each (angle, energy) cell of production at the edges and the largest signal of the contour,
    for an expected limit on counts with the background of the card; `accept.calibration.protons_needed` for
    the protons. Where the run measured nothing the signal is its extrapolation, and so is the proposal.
    """
    run = _open(results, detector)
    folder = output or results.with_name(f"{results.name}_design")
    name = f"design_{run.name}"
    content: dict[str, Any] = {
        "detector": run.detector.name,
        "results": results.name,
        "mock": run.ctx.cache.mock,
        "beam_energy_GeV": run.detector.beam_energy,
        "wanted": {**vars(wanted), "masses": list(wanted.masses)},
    }
    beam = run.production.exposure.beam_energy
    if not math.isclose(beam, run.detector.beam_energy, rel_tol=1e-3):
        lines, found = _other_beam(run, beam)
        content |= found
    else:
        lines, found, figure = _proposal(run, wanted, tell)
        content |= found
        if figure is not None:
            from gammastar import report

            report.save_figure(figure, folder / name)
    with working(folder):
        write_json(folder / f"{name}.json", content)
    return [*lines, f"written to {folder / name}.json"]
