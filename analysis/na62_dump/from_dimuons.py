"""The same contour from measured dimuons, and the calibration run that it would take to measure it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import plane
import production

from gammastar import accept, flow, infer, predict, spectrum
from gammastar.accept.calibration import Windows, dimuons_in_windows, scan_windows
from gammastar.core.constants import M_MU
from gammastar.core.files import data_path
from gammastar.core.records import BoolArray, FloatArray, Reach, Sample
from gammastar.core.sampling import stream
from gammastar.physics.detector import Detector, load_detector
from gammastar.physics.qed import dark_photon_rate
from gammastar.pipeline.stages.predict import photons_of
from gammastar.predict.production import scan_masses
from gammastar.store.manifest import read_spectrum

FLOOR = 0.01  # smallest dimuon efficiency of a measured cell
MIN_EFFECTIVE = 5.0  # sampled particles behind an edge


def channel(results: Path) -> tuple[predict.VirtualPhoton, accept.Measured]:
    """Return rate, flow and measured domain of a finished run of `gammastar run`."""
    measured = read_spectrum(results / "spectrum.json")
    if measured.exposure is None:
        msg = f"{results}: the spectrum has no exposure; run the analysis up to [spectrum]"
        raise ValueError(msg)

    def inside(mass: FloatArray, pt: FloatArray, energy: FloatArray) -> BoolArray:
        return spectrum.in_domain(measured, mass, pt, energy)

    made = photons_of(measured, M_MU, flow.load(results / "flow"), inside)
    return made, accept.Measured(measured.exposure, "per_interaction")


@dataclass(frozen=True)
class DataDriven:
    """Expected events (masses, couplings) from dimuons, their measured part, and contours of both."""

    mass: FloatArray
    signal: FloatArray
    in_domain: FloatArray
    reach: Reach
    measured_reach: Reach
    rate: FloatArray
    rate_error: FloatArray


def data_driven(
    results: Path, limit: float, *, n: int = 60_000, n_masses: int = 36, detector_name: str = "na62_dump"
) -> DataDriven:
    """Return the contour from the γ* rate and the flow, split by where dimuons were measured."""
    made, measured = channel(results)
    detector, dark = load_detector(data_path(f"detectors/{detector_name}.toml")), plane.model()
    low, high = made.mass_range
    masses = scan_masses(made, low, min(high, 1.1), n_masses)
    rows = []
    for i, mass in enumerate(masses):
        rng = stream(7, "dimuons", detector_name, i)
        sample = made.produce(float(mass), n=n, rng=rng)
        rows.append(
            accept.yields(sample, float(mass), plane.COUPLINGS, dark, detector, measured=measured, rng=rng)
        )
    signal = np.stack([row.signal for row in rows])
    part = np.stack([row.in_domain_signal for row in rows])
    reliable = np.stack([row.n_effective >= MIN_EFFECTIVE for row in rows])
    rate, cov = made.rate(masses)
    return DataDriven(
        mass=masses,
        signal=signal,
        in_domain=part,
        reach=infer.reach(masses, plane.COUPLINGS, signal, limit, reliable=reliable, threshold=2 * M_MU),
        measured_reach=infer.reach(masses, plane.COUPLINGS, part, limit, threshold=2 * M_MU),
        rate=rate,
        rate_error=np.sqrt(np.diag(cov)),
    )


@dataclass(frozen=True)
class Calibration:
    """What a calibration run needs, at one mass and coupling.

    theta_min: smallest polar angles of muons [rad], shape (k,); fraction: of the accepted signal inside the
    domain of such a spectrometer; pot: protons that give N_sig to 10 % (without background).
    """

    theta_min: FloatArray
    fraction: FloatArray
    pot: FloatArray

    def needed(self, share: float = 0.9) -> float:
        """Return the largest θ_min at which this share of the signal is in the domain; nan if none."""
        good = np.flatnonzero(self.fraction >= share)
        if not good.size:
            return float("nan")
        k = int(good[-1])
        if k + 1 == len(self.fraction):
            return float(self.theta_min[k])
        x, y = np.log(self.theta_min[k : k + 2]), self.fraction[k : k + 2]
        return float(np.exp(x[0] + (y[0] - share) / (y[0] - y[1]) * (x[1] - x[0])))

    def protons(self, share: float = 0.9) -> float:
        """Return the protons at that angle, interpolated in the logarithms."""
        finite = np.isfinite(self.pot)
        x, y = np.log(self.theta_min[finite]), np.log(self.pot[finite])
        return float(np.exp(np.interp(np.log(self.needed(share)), x, y)))


def calibration(
    mass: float,
    coupling: float,
    *,
    detector_name: str = "na62_dump",
    window: float = 0.02,
    thickness: float = 0.10,
    precision: float = 0.10,
    n: int = 60_000,
    theta_min: FloatArray | None = None,
) -> Calibration:
    """Return acceptance and protons of a dimuon run that would measure what a dump detector accepts.

    Parameters
    ----------
    mass, coupling : float
        Point of the plane [GeV, ε].
    window : float
        Mass window of the dimuons [GeV].
    thickness : float
        Target of the calibration run in interaction lengths.
    precision : float
        Relative error of N_sig from the number of dimuons.

    Notes
    -----
    Bremsstrahlung and mesons give γ* by Eq. 6 read backwards, dN/dm = 2κ N(A')/(m ε²). In cells of
    (E, pT) the signal is A_c and the dimuons per proton ν_c: `gammastar.accept.calibration.protons_needed`.
    Both muons lie above θ_min, below 120 mrad and above 5 GeV.
    """
    theta = np.geomspace(3e-4, 0.035, 15) if theta_min is None else theta_min
    detector, dark = load_detector(data_path(f"detectors/{detector_name}.toml")), plane.model()
    rng = stream(8, "calibration", detector_name, f"{mass:.4f}")
    sample = _theory(mass, n, rng)
    seen = _accepted(sample, mass, float(dark.ctau(mass, coupling)), detector, rng)
    cell, n_cells = _cells(np.asarray(sample.p4.E), np.asarray(sample.p4.pt))
    signal = np.bincount(cell, sample.weight * seen, n_cells)
    window_pairs = window / float(dark_photon_rate(1.0, mass, M_MU)) * -np.expm1(-thickness)
    p = np.stack([np.asarray(x) for x in (sample.p4.px, sample.p4.py, sample.p4.pz, sample.p4.E)])
    pairs, windows = sample.weight * window_pairs, Windows(theta, np.array([0.120]), 5.0)
    found = dimuons_in_windows((p, mass, pairs), cell, n_cells, windows, rng, n_decays=40)
    produced = np.bincount(cell, pairs, n_cells)
    fraction, pot, _ = scan_windows(signal[None, :, None], produced, found, floor=FLOOR, precision=precision)
    return Calibration(theta, fraction[0, :, 0], pot[0, :, 0])


@dataclass(frozen=True)
class Kinematics:
    """Accepted dark photons at one point (energy, pT [GeV], weight), and the measured cells at that mass."""

    accepted: dict[str, tuple[FloatArray, FloatArray, FloatArray]]
    energy_edges: FloatArray
    pt_edges: FloatArray
    domain: BoolArray


def kinematics(results: Path, mass: float, coupling: float, *, n: int = 60_000) -> Kinematics:
    """Return what NA62 and SHiP accept, from theory, beside the cells in which dimuons were measured."""
    measured = read_spectrum(results / "spectrum.json")
    axes = {axis.name: np.asarray(axis.edges) for axis in measured.hist.axes}
    i = int(np.clip(np.searchsorted(axes["mass"], mass, "right") - 1, 0, len(axes["mass"]) - 2))
    dark, accepted = plane.model(), {}
    for name, title in (("na62_dump", "NA62"), ("ship_ecn3", "SHiP")):
        detector = load_detector(data_path(f"detectors/{name}.toml"))
        rng = stream(9, "kinematics", name)
        sample = _theory(mass, n, rng)
        seen = _accepted(sample, mass, float(dark.ctau(mass, coupling)), detector, rng)
        values = (np.asarray(sample.p4.E), np.asarray(sample.p4.pt), sample.weight * seen)
        accepted[f"{title}, {1e3 * mass:g} MeV, ε = {coupling:g}"] = values
    return Kinematics(accepted, axes["energy"], axes["pt"], measured.domain[i])


def _theory(mass: float, n: int, rng: np.random.Generator) -> Sample:
    """Return dark photons from bremsstrahlung and mesons together."""
    parts = [source(mass, n, rng) for source in plane.sources().values()]
    made = [part for part in parts if part is not None]
    p = [np.stack([np.asarray(x) for x in (s.p4.px, s.p4.py, s.p4.pz, s.p4.E)]) for s in made]
    return production.sample_of(np.concatenate(p, axis=1), np.concatenate([s.weight for s in made]))


def _accepted(
    sample: Sample, mass: float, ctau: float, detector: Detector, rng: np.random.Generator
) -> FloatArray:
    """Return the chance of each particle to decay in the volume and be seen, from one forced decay each."""
    p = np.stack([np.asarray(x) for x in (sample.p4.px, sample.p4.py, sample.p4.pz, sample.p4.E)])
    origin = np.broadcast_to(np.asarray(detector.target.position), (p.shape[1], 3))
    chord = detector.volume.chord(origin, p[:3].T)
    hit = np.flatnonzero(~np.isnan(chord[:, 0]))
    distance, density = accept.forced_decay(chord[hit], rng)
    momentum = np.linalg.norm(p[:3, hit], axis=0)
    vertex = origin[hit] + distance[:, None] * (p[:3, hit] / momentum).T
    result = np.zeros(p.shape[1])
    weight = accept.decay_weight(distance, density, momentum, mass, ctau)
    if detector.accept_on == "daughters":
        pair = accept.lepton_pair(p[:, hit], mass, M_MU, rng)
        weight = weight * accept.seen(vertex, pair, detector)
    result[hit] = weight
    return result


def _cells(energy: FloatArray, pt: FloatArray) -> tuple[np.ndarray, int]:
    """Return the cell of each particle in (E, pT): steps of 15 % in E from 5 GeV, 0.1 GeV in pT."""
    i = np.clip((np.log(np.maximum(energy, 5.0) / 5.0) / 0.15).astype(int), 0, 29)
    j = np.clip((pt / 0.1).astype(int), 0, 14)
    return i * 15 + j, 30 * 15
