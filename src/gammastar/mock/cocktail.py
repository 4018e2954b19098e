"""The cocktail: rates and mass spectra of meson decays to lepton pairs, and the pairs of the toy engine.

Mesons follow power laws in pt and Gaussians in rapidity.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from gammastar.core import constants
from gammastar.core.constants import LEPTON_MASS, M_MU, M_PI0, M_PI_CHARGED, M_PROTON
from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray, Rng
from gammastar.mock.card import Card, Mode, Polarisation
from gammastar.physics.hadrons import RHO_MASS_MAX, breit_wigner, rho_mass_density
from gammastar.physics.mesons import FORM_FACTORS, beam_frame
from gammastar.physics.polarisation import daughter, lepton_cosine, lorentz, momentum_in_rest_frame
from gammastar.physics.qed import pseudoscalar_dalitz, radiated, vector_dalitz

MASS_MAX = 1.5  # GeV: upper end of the Breit-Wigner tails
SQRT_S = 27.43  # GeV: scale of the end of a continuum
GRID = 6001  # points of the tabulated mass spectra
Kinematics: TypeAlias = Callable[[Card, Mode, FloatArray, Rng], FloatArray]

CHUNK = 100_000  # dimuons at a time: the work arrays stay in the cache


def mass_range(mode: Mode, pdg: int, lepton: float = M_MU) -> tuple[float, float]:
    """Return lowest and highest mass of the virtual photon [GeV]; `lepton` is the mass of the lepton."""
    if mode.continuum is not None:
        return mode.continuum.low, mode.continuum.high
    parent = constants.mass(pdg)
    if mode.kind == "pseudoscalar_dalitz":
        return 2.0 * lepton, parent
    if mode.kind == "vector_dalitz":
        return 2.0 * lepton, parent - M_PI0
    if mode.kind == "rho":
        return 2.0 * M_PI_CHARGED, RHO_MASS_MAX
    if mode.kind == "narrow":
        return parent, parent
    return 2.0 * lepton, MASS_MAX


def _raw_density(mode: Mode, pdg: int, mass: FloatArray, lepton: float) -> FloatArray:
    """Return dΓ/dm over the reference width for Dalitz decays, the line shape otherwise [GeV⁻¹]."""
    if mode.continuum is not None:
        return mass**-mode.continuum.power * (1.0 - mass / SQRT_S) ** mode.continuum.end
    parent = constants.mass(pdg)
    if mode.kind == "pseudoscalar_dalitz":
        return 2.0 * mass * pseudoscalar_dalitz(mass**2, parent, lepton, FORM_FACTORS[mode.form_factor])
    if mode.kind == "vector_dalitz":
        return 2.0 * mass * vector_dalitz(mass**2, parent, M_PI0, lepton, FORM_FACTORS[mode.form_factor])
    if mode.kind == "rho":
        return rho_mass_density(mass, float(mode.temperature or 0.0), m_lepton=lepton)
    return breit_wigner(mass, parent, constants.width(pdg))


def _breit_wigner_limits(mode: Mode, pdg: int, lepton: float) -> tuple[float, float, float]:
    """Return MΓ and the angles atan((m² − M²)/MΓ) at both ends of the range."""
    pole, (low, high) = constants.mass(pdg), mass_range(mode, pdg, lepton)
    scale = pole * constants.width(pdg)
    return scale, float(np.arctan((low**2 - pole**2) / scale)), float(np.arctan((high**2 - pole**2) / scale))


@lru_cache(maxsize=256)
def _table(mode: Mode, pdg: int, lepton: float) -> tuple[FloatArray, FloatArray, float]:
    """Return mass grid, cumulative distribution and integral of the spectrum of a mode."""
    low, high = mass_range(mode, pdg, lepton)
    # denser towards threshold, where the lepton factor rises as a square root, and 1/m for electrons
    power = 1.5 if lepton > 0.01 else 4.0
    grid = low + (high - low) * np.linspace(0.0, 1.0, GRID) ** power
    density = _raw_density(mode, pdg, grid, lepton)
    steps = 0.5 * (density[1:] + density[:-1]) * np.diff(grid)
    total = float(np.sum(steps))
    return grid, np.concatenate([[0.0], np.cumsum(steps)]) / total, total


def mass_density(mode: Mode, pdg: int, mass: npt.ArrayLike, lepton: float = M_MU) -> FloatArray:
    """Return the mass spectrum of one mode of a meson, normalised to one [GeV⁻¹].

    Raises
    ------
    PhysicsError
        For a mode of kind "narrow", which has no density.
    """
    if mode.kind == "narrow":
        raise PhysicsError(f"mass_density: the mode of {mode.meson!r} is a line without width or density")
    m = np.asarray(mass, dtype=np.float64)
    low, high = mass_range(mode, pdg, lepton)
    inside = (m > low) & (m < high)
    safe = np.where(inside, m, 0.5 * (low + high))
    if mode.kind == "breit_wigner":
        _, first, last = _breit_wigner_limits(mode, pdg, lepton)
        norm = (last - first) / np.pi
    else:
        norm = _table(mode, pdg, lepton)[2]
    return np.where(inside, _raw_density(mode, pdg, safe, lepton) / norm, 0.0)


def sample_mass(mode: Mode, pdg: int, n: int, rng: Rng, lepton: float = M_MU) -> FloatArray:
    """Draw masses of the virtual photon by inversion, shape (n,) [GeV]."""
    if mode.kind == "narrow":
        return np.full(n, constants.mass(pdg))
    u = rng.random(n)
    if mode.kind == "breit_wigner":
        scale, first, last = _breit_wigner_limits(mode, pdg, lepton)
        square = constants.mass(pdg) ** 2 + scale * np.tan(first + u * (last - first))
        low, high = mass_range(mode, pdg, lepton)
        return np.asarray(np.sqrt(np.clip(square, low**2, high**2)), dtype=np.float64)
    grid, cumulative, _ = _table(mode, pdg, lepton)
    return np.interp(u, cumulative, grid)


def mode_rates(card: Card) -> dict[str, float]:
    """Return dimuons per inelastic interaction of every enabled mode, in full phase space.

    Notes
    -----
    multiplicity × A-factor × branching fraction (Allison and Blinov, Eq. 9, without efficiency). With
    ``normalisation = "form_factor"`` the branching fraction is that to real photons times the integral of
    the Dalitz spectrum.
    """
    rates = {}
    for key, mode in card.modes.items():
        if not mode.enabled:
            continue
        meson, branching = card.mesons[mode.meson], mode.branching
        if mode.normalisation == "form_factor":
            integral = _table(mode, meson.pdg, LEPTON_MASS[card.lepton])[2]
            branching = float(mode.branching_photon or 0.0) * integral
        rates[key] = meson.multiplicity * meson.a_factor * branching
    return rates


def mass_spectrum(card: Card, mass: npt.ArrayLike) -> FloatArray:
    """Return dN(γ* → ll)/dm of the cocktail per proton on target, in full phase space [GeV⁻¹].

    Lines without width (kind "narrow") are left out.

    Notes
    -----
    The exact spectrum that `generate_pairs` samples: the oracle for closure tests.
    """
    m = np.asarray(mass, dtype=np.float64)
    total = np.zeros_like(m)
    for key, rate in mode_rates(card).items():
        mode = card.modes[key]
        if mode.kind != "narrow":
            pdg = card.mesons[mode.meson].pdg
            total += rate * mass_density(mode, pdg, m, LEPTON_MASS[card.lepton])
    return total * card.target.interactions


def binned_mass_spectrum(card: Card, edges: FloatArray, points: int = 401) -> FloatArray:
    """Return the dileptons of `mass_spectrum` per bin and proton on target, from `points` in each bin."""
    fine = np.linspace(edges[:-1], edges[1:], points, axis=1)
    return np.asarray(np.trapezoid(mass_spectrum(card, fine), fine, axis=1), dtype=np.float64)


class Columns:
    """A record of arrays whose last axis counts the same things; fields of other kinds are of all of them."""

    __slots__ = ()

    def _arrays(self) -> dict[str, npt.NDArray[Any]]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return {name: value for name, value in values.items() if isinstance(value, np.ndarray)}

    def take(self, index: npt.NDArray[Any]) -> Self:
        """Return the entries at these indices."""
        rest = {field.name: getattr(self, field.name) for field in fields(self)}  # type: ignore[arg-type]
        return type(self)(**rest | {n: np.take(a, index, axis=-1) for n, a in self._arrays().items()})

    @classmethod
    def concatenate(cls, parts: Sequence[Self], **others: Any) -> Self:
        """Return one record from several; `others` are the fields that are no arrays."""
        columns = [part._arrays() for part in parts]
        joined = {name: np.concatenate([part[name] for part in columns], axis=-1) for name in columns[0]}
        return cls(**joined, **others)


@dataclass(frozen=True, slots=True, eq=False)
class Dimuons(Columns):
    """Virtual photons and their muons."""

    process: npt.NDArray[np.int8]  # Process codes of the card, shape (n,)
    # Of the virtual photon, in the laboratory [GeV], shape (n,)
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    # px, py, pz, E of the muons [GeV], shape (4, n)
    plus: FloatArray
    minus: FloatArray
    weight: FloatArray  # Dimuons per proton on target, shape (n,)
    # Share of its momentum that each lepton kept after radiation; one without. `plus` and `minus` are after
    # radiation, momentum over `kept` is that of the Born level, shape (2, n)
    kept: FloatArray

    def __len__(self) -> int:
        return len(self.mass)


def sample_pt(p0: float, n: float, uniform: npt.ArrayLike) -> FloatArray:
    """Return pt of dN/dpt ∝ pt (1 + (pt/p0)²)^−n by inversion [GeV]."""
    return np.asarray(p0 * np.sqrt((1.0 - np.asarray(uniform)) ** (-1.0 / (n - 1.0)) - 1.0), dtype=np.float64)


def rapidity_limit(
    sqrt_s: float, mass: npt.ArrayLike, mt: npt.ArrayLike, recoil: float = 2.0 * M_PROTON
) -> FloatArray:
    """Return the largest centre-of-mass rapidity of a particle with transverse mass `mt`.

    The recoil holds at least two nucleons: E* ≤ (s + m² − M_X²)/(2√s) with M_X = 2 m_p.
    """
    e_max = (sqrt_s**2 + np.square(mass) - recoil**2) / (2.0 * sqrt_s)
    return np.arccosh(np.maximum(e_max / np.asarray(mt, dtype=np.float64), 1.0))


def truncated_normal(
    width: npt.ArrayLike, low: npt.ArrayLike, high: npt.ArrayLike, uniform: npt.ArrayLike
) -> FloatArray:
    """Return values of a Gaussian about zero of standard deviation `width`, between `low` and `high`."""
    width = np.asarray(width, dtype=np.float64)
    first, last = ndtr(low / width), ndtr(high / width)
    value = width * ndtri(first + np.asarray(uniform) * (last - first))
    return np.asarray(np.clip(value, low, high), dtype=np.float64)


def with_energy(p: FloatArray, mass: float = M_MU) -> FloatArray:
    """Return four-momenta, shape (4, ...), from momenta of shape (3, ...) [GeV]."""
    return np.concatenate([p, np.sqrt(np.sum(p**2, axis=0, keepdims=True) + mass**2)])


def momentum(mass: npt.ArrayLike, pt: FloatArray, rapidity: FloatArray, phi: FloatArray) -> FloatArray:
    """Return px, py, pz, E, shape (4, n) [GeV]."""
    mt = np.sqrt(np.square(mass) + pt**2)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(rapidity), mt * np.cosh(rapidity)])


def toy_mesons(card: Card, mode: Mode, mass: FloatArray, rng: Rng) -> FloatArray:
    """Return four-momenta of mesons of the given masses."""
    meson = card.mesons[mode.meson]
    sqrt_s, y_cm = beam_frame(card.beam.energy)
    n = len(mass)
    u = rng.random((3, n))
    pt = np.minimum(sample_pt(meson.p0, meson.n, u[0]), 0.4 * sqrt_s)
    limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
    y = truncated_normal(meson.y_width, -limit, limit, u[1])
    return momentum(mass, pt, y + y_cm, 2.0 * np.pi * u[2])


def dalitz_decay(
    parent: FloatArray, parent_mass: float, mass: FloatArray, recoil: float, rng: Rng, lepton: float = M_MU
) -> tuple[FloatArray, FloatArray]:
    """Decay mesons to a recoil and a photon, transverse in the meson's rest frame, and it to muons."""
    n = len(mass)
    masses = np.full(n, parent_mass)
    rest = np.stack([np.zeros(n), np.zeros(n), np.zeros(n), masses])
    cosine, phi = rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n)
    photon = daughter(rest, masses, mass, recoil, cosine, phi)
    cosine, phi = lepton_cosine(mass**2, lepton, rng.random(n)), rng.uniform(-np.pi, np.pi, n)
    plus = daughter(photon, mass, lepton, lepton, cosine, phi)
    return lorentz(photon, parent, masses), lorentz(plus, parent, masses)


def photon_leg(parent: FloatArray, rng: Rng) -> FloatArray:
    """Return electrons of photons of π⁰ → γγ that materialise, (4, n), of a uniform share of its energy."""
    n = parent.shape[1]
    u = rng.random((3, n))
    photon = daughter(parent, M_PI0, 0.0, 0.0, 2.0 * u[0] - 1.0, 2.0 * np.pi * u[1])
    return with_energy(photon[:3] * u[2], LEPTON_MASS["e"])


def _generate_mode(card: Card, mode: Mode, n: int, weight: float, rng: Rng, mesons: Kinematics) -> Dimuons:
    pdg, lepton = card.mesons[mode.meson].pdg, LEPTON_MASS[card.lepton]
    mass = sample_mass(mode, pdg, n, rng, lepton)
    if mode.kind in {"pseudoscalar_dalitz", "vector_dalitz"}:
        parent_mass = constants.mass(pdg)
        parent = mesons(card, mode, np.full(n, parent_mass), rng)
        recoil = M_PI0 if mode.kind == "vector_dalitz" else 0.0
        photon, plus = dalitz_decay(parent, parent_mass, mass, recoil, rng, lepton)
    else:
        photon = mesons(card, mode, mass, rng)
        if mode.polarisation is None:
            cosine, phi = rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n)
            plus = daughter(photon, mass, lepton, lepton, cosine, phi)
        else:
            plus = polarised_decay(photon, mass, lepton, mode.polarisation, card.beam.energy, rng)
    minus, kept = photon - plus, np.ones((2, n))
    if card.radiation:
        kept = radiated(mass, lepton, rng)
        plus, minus = (with_energy(p[:3] * part, lepton) for p, part in zip((plus, minus), kept, strict=True))
    return Dimuons(
        process=np.full(n, mode.process, dtype=np.int8),
        mass=mass,
        pt=np.hypot(photon[0], photon[1]),
        energy=photon[3],
        plus=plus,
        minus=minus,
        weight=np.full(n, weight),
        kept=kept,
    )


def generate_pairs(card: Card, n: int, rng: Rng, *, mesons: Kinematics | None = None) -> Dimuons:
    """Generate muon pairs of the cocktail in full phase space.

    Parameters
    ----------
    n : int
        Number of pairs; the modes share it in proportion to their rates (multinomial).
    mesons : callable, optional
        Where mesons of given masses come from (another engine): ``mesons(card, mode, mass, rng)`` returns
        four-momenta, shape (4, n).

    Notes
    -----
    The sum of weights is the number of dimuons per proton on target. Pairs are ordered by mode: shuffle
    before taking a part.

    Mesons: dN/dpt ∝ pt (1 + (pt/p0)²)^−n, truncated Gaussian y*, flat azimuth. Virtual photons of Dalitz
    decays follow Kroll and Wada with form factors and leave the meson isotropically; their muons follow
    1 + cos²θ + (4m²/q²)(1 − cos²θ); muons of vector mesons are isotropic.
    """
    require(n > 0, f"generate_pairs: n = {n!r} must be positive")
    rates = mode_rates(card)
    keys, values = list(rates), np.array(list(rates.values()))
    weight = float(values.sum()) * card.target.interactions / n
    parts = []
    for start in range(0, n, CHUNK):
        counts = rng.multinomial(min(CHUNK, n - start), values / values.sum())
        make, parts_of = mesons or toy_mesons, zip(keys, counts, strict=True)
        parts += [_generate_mode(card, card.modes[key], int(n), weight, rng, make) for key, n in parts_of]
    return Dimuons.concatenate(parts)


def sample_angles(polarisation: Polarisation, n: int, rng: Rng) -> tuple[FloatArray, FloatArray]:
    """Draw cos θ and φ of the positive lepton, by rejection.

    dN/dΩ ∝ 1 + λθ cos²θ + λφ sin²θ cos 2φ + λθφ sin 2θ cos φ.
    """
    cosine, phi = np.empty(n), np.empty(n)
    left = np.arange(n)
    while len(left):
        c, f = rng.uniform(-1.0, 1.0, len(left)), rng.uniform(-np.pi, np.pi, len(left))
        sine2 = 1.0 - c**2
        density = 1.0 + polarisation.theta * c**2 + polarisation.phi * sine2 * np.cos(2.0 * f)
        density = density + polarisation.theta_phi * 2.0 * c * np.sqrt(sine2) * np.cos(f)
        good = rng.random(len(left)) * polarisation.highest < density
        cosine[left[good]], phi[left[good]] = c[good], f[good]
        left = left[~good]
    return cosine, phi


def _unit(v: FloatArray) -> FloatArray:
    size = np.sqrt(np.sum(v**2, axis=0))
    return np.asarray(v / np.where(size > 0, size, 1.0), dtype=np.float64)


def _axes(photon: FloatArray, mass: FloatArray, beam_energy: float, frame: str) -> FloatArray:
    """Return the x, y, z axes of the frame in the photon's rest frame, shape (3, 3, n)."""
    momentum = float(np.sqrt(beam_energy**2 - M_PROTON**2))
    beam = np.array([0.0, 0.0, momentum, beam_energy])[:, np.newaxis]
    target = np.array([0.0, 0.0, 0.0, M_PROTON])[:, np.newaxis]
    back = photon * np.array([-1.0, -1.0, -1.0, 1.0])[:, np.newaxis]
    first, second = (lorentz(np.broadcast_to(p, photon.shape), back, mass)[:3] for p in (beam, target))
    if frame == "collins_soper":
        z = _unit(_unit(first) - _unit(second))
    else:  # against the momentum of what stands still in this frame: the laboratory is the target's
        z = -_unit(first + second if frame == "helicity" else second)
    normal = np.cross(first, second, axis=0)
    flat = np.sum(normal**2, axis=0) <= 1e-24 * np.sum(first**2, axis=0) * np.sum(second**2, axis=0)
    normal[:, flat] = np.array([[0.0], [1.0], [0.0]])  # no transverse momentum: any plane
    y = _unit(normal)
    return np.stack([np.cross(y, z, axis=0), y, z])


def polarised_decay(
    photon: FloatArray,
    mass: FloatArray,
    lepton: float,
    polarisation: Polarisation,
    beam_energy: float,
    rng: Rng,
) -> FloatArray:
    """Return the positive lepton, shape (4, n), of polarised virtual photons.

    Collins-Soper: z bisects beam and reversed target direction in the photon's rest frame. Helicity: z is
    opposite to the nucleon-nucleon system, the photon's flight in the centre of mass. Laboratory: z is the
    photon's flight in the laboratory, opposite to the target at rest.
    """
    cosine, phi = sample_angles(polarisation, photon.shape[1], rng)
    x, y, z = _axes(photon, mass, beam_energy, polarisation.frame)
    sine = np.sqrt(1.0 - cosine**2)
    direction = x * (sine * np.cos(phi)) + y * (sine * np.sin(phi)) + z * cosine
    p = momentum_in_rest_frame(mass, lepton, lepton)
    rest = np.concatenate([direction * p, [np.sqrt(p**2 + lepton**2)]])
    return lorentz(rest, photon, mass)
