"""The dimuon run that would measure what a detector accepts: where, with which angles, how many protons."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from gammastar.accept.decay import Replicated
from gammastar.accept.expected_events import AcceptedYield
from gammastar.core.constants import M_MU
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Rng, Sample, divided
from gammastar.physics.polarisation import daughter

IntArray = npt.NDArray[np.intp]
STEP = 0.15  # of the cells in ln θ and ln E: 15 %
THETA = (1e-4, 1.0)  # rad; what lies outside goes to the first or last cell
NEARLY = 0.98
SOFTEST = 0.5  # GeV, upper end of the first cell in energy
ROUND = np.array([1.0, 1.2, 1.5, 2.0, 2.5, 3.0, 4.0, 5.0, 6.0, 8.0])


@dataclass(frozen=True, slots=True, eq=False)
class Cells:
    """Cells of polar angle and energy, flattened in C order."""

    theta: FloatArray  # shape (a + 1,) [rad]
    # Edges, increasing; what lies outside belongs to the cell next to it, shape (b + 1,) [GeV]
    energy: FloatArray

    @staticmethod
    def below(beam_energy: float, step: float = STEP) -> Cells:
        """Return cells of one relative width up to the energy of the beam [GeV]."""
        n_theta = round(float(np.log(THETA[1] / THETA[0])) / step)
        n_energy = max(2, round(float(np.log(beam_energy / SOFTEST)) / step))
        return Cells(np.geomspace(*THETA, n_theta + 1), np.geomspace(SOFTEST, beam_energy, n_energy + 1))

    @property
    def shape(self) -> tuple[int, int]:
        """Number of cells in angle and in energy."""
        return len(self.theta) - 1, len(self.energy) - 1

    def index(self, p: FloatArray) -> IntArray:
        """Return the cell of each four-momentum px, py, pz, E [GeV], shape (4, n) -> (n,)."""
        theta = np.arctan2(np.hypot(p[0], p[1]), p[2])
        i = np.clip(np.searchsorted(self.theta, theta, "right") - 1, 0, self.shape[0] - 1)
        j = np.clip(np.searchsorted(self.energy, p[3], "right") - 1, 0, self.shape[1] - 1)
        return np.asarray(i * self.shape[1] + j)


def in_cells(
    sample: Sample,
    cell: IntArray,
    n_cells: int,
    run: Callable[[Sample, int], AcceptedYield],
    *,
    batches: int = 8,
) -> tuple[FloatArray, list[AcceptedYield]]:
    """Return the signal of each cell of production, from independent parts of a sample."""
    found, yields = [], []
    for b in range(batches):
        part = slice(b, None, batches)
        here, row = np.unique(cell[part], return_inverse=True)
        members = np.zeros((len(here), len(row)))
        members[row, np.arange(len(row))] = 1.0
        own = sample.part(np.arange(len(cell))[part])
        accepted = run(Replicated.of(replace(own, weight=own.weight * batches), members), b)
        whole = np.zeros((n_cells, len(accepted.couplings)))
        whole[here] = accepted.replicas
        found.append(whole)
        yields.append(accepted)
    return np.stack(found), yields


def protons_needed(
    signal: npt.ArrayLike, pairs: npt.ArrayLike, precision: float, *, background: float = 0.0
) -> FloatArray:
    """Return the protons on target of a calibration run that knows a signal to a wanted precision.

    Cell c has N_POT ν_c pairs and gives the signal A_c, known as 1/√(N_POT ν_c) relative to it. Independent
    Poisson counts add: σ²/N² = (1 + 2 B/S) Σ_c A_c²/ν_c / (N_POT (Σ_c A_c)²), which is equation 18 of
    `docs/physics.md`. Statistics of the pairs alone: errors of efficiency, protons and unfolding come on top.
    """
    a = np.atleast_2d(np.asarray(signal, dtype=np.float64))
    nu = np.asarray(pairs, dtype=np.float64)
    if a.ndim != 2 or nu.shape[:1] != a.shape[1:]:
        raise PhysicsError(f"protons_needed: signal {a.shape} and pairs {nu.shape} are not of the same cells")
    if not (np.isfinite(precision) and precision > 0 and background >= 0):
        good = f"precision = {precision!r} must be positive, background = {background!r} not negative"
        raise PhysicsError(f"protons_needed: {good}")
    seen, top = nu > 0, float(a.max(initial=0.0))
    a = a / top if top > 0 else a  # of tiny signals the squares would be zero
    inverse = np.divide(1.0, nu, out=np.zeros_like(nu), where=seen)
    n, square = len(a), a.sum(axis=0) ** 2  # of expected signals, without what the finite sample adds
    square = square if n == 1 else (square - np.sum(a**2, axis=0)) / (n * (n - 1))
    variance = np.tensordot(square, inverse, axes=1)
    total = np.tensordot(a.mean(axis=0), seen, axes=1)
    needed = np.full(np.shape(total), np.inf)
    np.divide((1 + 2 * background) * variance, (precision * total) ** 2, out=needed, where=total > 0)
    return np.where((needed > 0) | (total <= 0), needed, np.nan)


@dataclass(frozen=True, slots=True, eq=False)
class Windows:
    """Spectrometers to choose from: both leptons above an angle, below another, and above a momentum."""

    # Increasing [rad]
    theta_min: FloatArray
    theta_max: FloatArray
    min_momentum: float  # [GeV]
    m_lepton: float = M_MU  # [GeV]

    @staticmethod
    def usual(min_momentum: float, m_lepton: float = M_MU) -> Windows:
        """Return round angles from 0.1 to 80 mrad for the smallest, 2 to 500 mrad for the largest."""
        angles = 1e-3 * np.concatenate([ROUND * 10.0**k for k in range(-1, 3)])
        inner, outer = angles[angles < 0.081], angles[(angles > 0.0019) & (angles < 0.51)]
        return Windows(inner, outer, min_momentum, m_lepton)


def dimuons_in_windows(
    photons: tuple[FloatArray, npt.ArrayLike, FloatArray],
    cell: IntArray,
    n_cells: int,
    windows: Windows,
    rng: Rng,
    *,
    n_decays: int = 10,
) -> FloatArray:
    """Return the lepton pairs of each cell that each spectrometer sees."""
    (p, masses, weight), m_lepton = photons, windows.m_lepton
    n_i, n_j, n = len(windows.theta_min), len(windows.theta_max), p.shape[1]
    found = np.zeros(n_cells * (n_i + 1) * (n_j + 1))
    mass = np.broadcast_to(np.asarray(masses, dtype=np.float64), (n,))
    for _ in range(n_decays):  # decays of one photon, not photons
        first = daughter(p, mass, m_lepton, m_lepton, rng.uniform(-1, 1, n), rng.uniform(-np.pi, np.pi, n))
        both = first, p - first
        angles = np.stack([np.arctan2(np.hypot(q[0], q[1]), q[2]) for q in both])
        hard = np.minimum(*(np.linalg.norm(q[:3], axis=0) for q in both)) > windows.min_momentum
        i = np.searchsorted(windows.theta_min, angles.min(axis=0), "left")  # so many are smaller
        j = np.searchsorted(windows.theta_max, angles.max(axis=0), "right")
        place = (cell * (n_i + 1) + i) * (n_j + 1) + j
        found += np.bincount(place[hard], weight[hard], len(found))
    table = found.reshape(n_cells, n_i + 1, n_j + 1) / n_decays
    above = table[:, ::-1].cumsum(axis=1)[:, ::-1][:, 1:]
    return np.asarray(above.cumsum(axis=2)[:, :, :n_j], dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class WindowScan:
    """What spectrometers would measure of a signal at some points (mass, coupling)."""

    windows: Windows
    share: FloatArray  # Part of the signal from cells that the spectrometer covers, shape (points, i, j)
    protons: FloatArray  # Protons on target for the wanted precision of that part, shape (points, i, j)

    def narrowest(self, share: float) -> tuple[int, int]:
        """Return the spectrometer of smallest θ_max/θ_min with this share (or `NEARLY` all) everywhere."""
        widest = self.share.max(axis=(1, 2), keepdims=True)
        ratio = self.windows.theta_max / self.windows.theta_min[:, None]
        good = (self.share >= np.minimum(share, NEARLY * widest)).all(axis=0) & (ratio > 1)
        i, j = np.unravel_index(int(np.argmax(np.where(good, -ratio, -np.inf))), ratio.shape)
        return int(i), int(j)


def scan_windows(
    signal: FloatArray,
    produced: FloatArray,
    found: FloatArray,
    *,
    floor: float,
    precision: float,
    background: float = 0.0,
) -> tuple[FloatArray, FloatArray, BoolArray]:
    """Return covered share and protons of every spectrometer for the signals of one mass."""
    covered = (found >= floor * produced[:, None, None]) & (found > 0)
    mean = signal.mean(axis=0)
    total = mean.sum(axis=0)
    inside = np.tensordot(mean.T, covered, axes=1)
    share = divided(inside.T, total).T
    pairs = np.where(covered, found, 0.0)
    need = functools.partial(protons_needed, pairs=pairs, precision=precision, background=background)
    protons = [need(signal[:, :, k]) for k in range(signal.shape[2])]
    return share, np.stack(protons), covered


@dataclass(frozen=True, slots=True, eq=False)
class Origins:
    """Where the particles come from that a detector sees at one mass, at k points of its contour."""

    # Of the particle, and the median of the virtual photons behind it [GeV]
    mass: float
    photon_mass: float
    names: tuple[str, ...]  # Of the points
    # Expected events, their part from where pairs were measured, effective number of sampled particles, shape
    # (k,)
    couplings: FloatArray
    events: FloatArray
    measured: FloatArray
    n_effective: FloatArray
    signal: FloatArray  # Events by the cell of production, shape (cells, k)
    # What every spectrometer covers, and the protons on target that it needs, shape (k, i, j)
    share: FloatArray
    protons: FloatArray
    pairs: float  # Lepton pairs of the mass bin per proton of the calibration run, wherever they go


def central_interval(edges: FloatArray, contents: FloatArray, share: float) -> tuple[float, float]:
    """Return the ends of the central part of a histogram, straight in the logarithm inside a cell."""
    total = float(contents.sum())
    if not total > 0:
        return np.nan, np.nan
    sums = np.concatenate([[0.0], np.cumsum(contents)]) / total
    low, high = np.exp(np.interp([0.5 - share / 2, 0.5 + share / 2], sums, np.log(edges)))
    return float(low), float(high)
