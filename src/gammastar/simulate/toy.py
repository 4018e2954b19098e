"""The toy engine: mesons from power laws in pt and Gaussians in rapidity, decayed to muon pairs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, ndtri

from gammastar.core import constants
from gammastar.core.constants import LEPTON_MASS, M_MU, M_PI0, M_PROTON
from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.physics.decays import daughter, lepton_cosine, lorentz
from gammastar.simulate.angles import polarised_decay, radiated
from gammastar.simulate.card import Card, Mode
from gammastar.simulate.cocktail import mode_rates, sample_mass

__all__ = [
    "Dimuons",
    "Kinematics",
    "beam_kinematics",
    "boosted",
    "dalitz_decay",
    "generate_pairs",
    "momentum",
    "photon_leg",
    "rapidity_limit",
    "sample_pt",
    "toy_mesons",
    "truncated_normal",
]

Kinematics: TypeAlias = Callable[[Card, Mode, FloatArray, np.random.Generator], FloatArray]

CHUNK = 100_000  # dimuons at a time: the work arrays stay in the cache


@dataclass(frozen=True, slots=True, eq=False)
class Dimuons:
    """Virtual photons and their muons.

    Attributes
    ----------
    process : NDArray of int8, shape (n,)
        Process codes of the card.
    mass, pt, energy : NDArray, shape (n,)
        Of the virtual photon, in the laboratory [GeV].
    plus, minus : NDArray, shape (4, n)
        px, py, pz, E of the muons [GeV].
    weight : NDArray, shape (n,)
        Dimuons per proton on target.
    kept : NDArray, shape (2, n)
        Share of its momentum that each lepton kept after radiation; one without. `plus` and `minus` are
        after radiation, momentum over `kept` is that of the Born level.
    """

    process: npt.NDArray[np.int8]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    plus: FloatArray
    minus: FloatArray
    weight: FloatArray
    kept: FloatArray

    def __len__(self) -> int:
        return len(self.mass)

    @staticmethod
    def concatenate(parts: list[Dimuons]) -> Dimuons:
        """Return one sample from several."""
        return Dimuons(
            **{
                f.name: np.concatenate([getattr(part, f.name) for part in parts], axis=-1)
                for f in fields(Dimuons)
            }
        )


def beam_kinematics(energy: float) -> tuple[float, float]:
    """Return √s of proton-nucleon collisions [GeV] and the rapidity of their centre of mass.

    Examples
    --------
    >>> [round(x, 3) for x in beam_kinematics(400.0)]
    [27.43, 3.374]
    """
    if not energy > M_PROTON:
        msg = f"beam energy {energy!r} GeV must exceed the proton mass {M_PROTON} GeV"
        raise PhysicsError(msg)
    momentum_ = np.sqrt(energy**2 - M_PROTON**2)
    sqrt_s = float(np.sqrt(2.0 * M_PROTON * (energy + M_PROTON)))
    return sqrt_s, float(np.arctanh(momentum_ / (energy + M_PROTON)))


def sample_pt(p0: float, n: float, uniform: npt.ArrayLike) -> FloatArray:
    """Return pt of dN/dpt ∝ pt (1 + (pt/p0)²)^−n by inversion [GeV]."""
    return np.asarray(p0 * np.sqrt((1.0 - np.asarray(uniform)) ** (-1.0 / (n - 1.0)) - 1.0), dtype=np.float64)


def rapidity_limit(
    sqrt_s: float, mass: npt.ArrayLike, mt: npt.ArrayLike, recoil: float = 2.0 * M_PROTON
) -> FloatArray:
    """Return the largest centre-of-mass rapidity of a particle with transverse mass `mt`.

    Notes
    -----
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


def momentum(mass: npt.ArrayLike, pt: FloatArray, rapidity: FloatArray, phi: FloatArray) -> FloatArray:
    """Return px, py, pz, E, shape (4, n) [GeV]."""
    mt = np.sqrt(np.square(mass) + pt**2)
    return np.stack([pt * np.cos(phi), pt * np.sin(phi), mt * np.sinh(rapidity), mt * np.cosh(rapidity)])


def toy_mesons(card: Card, mode: Mode, mass: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return four-momenta of mesons of the given masses."""
    meson = card.mesons[mode.meson]
    sqrt_s, y_cm = beam_kinematics(card.beam.energy)
    n = len(mass)
    u = rng.random((3, n))
    pt = np.minimum(sample_pt(meson.p0, meson.n, u[0]), 0.4 * sqrt_s)
    limit = rapidity_limit(sqrt_s, mass, np.sqrt(mass**2 + pt**2))
    y = truncated_normal(meson.y_width, -limit, limit, u[1])
    return momentum(mass, pt, y + y_cm, 2.0 * np.pi * u[2])


def boosted(p: FloatArray, frame: FloatArray, frame_mass: npt.ArrayLike) -> FloatArray:
    """Return four-momenta, shape (4, n), from the rest frame of `frame` in the frame where that moves."""
    return lorentz(p, frame, np.asarray(frame_mass, dtype=np.float64))


def dalitz_decay(
    parent: FloatArray,
    parent_mass: float,
    mass: FloatArray,
    recoil: float,
    rng: np.random.Generator,
    lepton: float = M_MU,
) -> tuple[FloatArray, FloatArray]:
    """Decay mesons to a virtual photon and a recoil, and the photon to muons.

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        px, py, pz, E of the mesons [GeV].
    parent_mass : float
    mass : NDArray, shape (n,)
        Of the virtual photons.
    recoil : float
        Mass of the recoil.
    rng : numpy.random.Generator
    lepton : float
        Mass of the lepton.

    Returns
    -------
    photon, plus : NDArray, shape (4, n)
        Virtual photon and its positive muon, in the frame of `parent`.

    Notes
    -----
    The photon leaves the meson isotropically; it is transverse to its flight in the meson's rest frame, which
    is the axis of the muons' angular distribution.
    """
    n = len(mass)
    masses = np.full(n, parent_mass)
    rest = np.stack([np.zeros(n), np.zeros(n), np.zeros(n), masses])
    cosine, phi = rng.uniform(-1.0, 1.0, n), rng.uniform(-np.pi, np.pi, n)
    photon = daughter(rest, masses, mass, recoil, cosine, phi)
    cosine, phi = lepton_cosine(mass**2, lepton, rng.random(n)), rng.uniform(-np.pi, np.pi, n)
    plus = daughter(photon, mass, lepton, lepton, cosine, phi)
    return boosted(photon, parent, masses), boosted(plus, parent, masses)


def photon_leg(parent: FloatArray, rng: np.random.Generator) -> FloatArray:
    """Return electrons of photons of π⁰ → γγ that materialise, shape (4, n).

    Parameters
    ----------
    parent : NDArray, shape (4, n)
        Neutral pions [GeV].
    rng : numpy.random.Generator

    Notes
    -----
    One photon, isotropic in the rest frame; the electron takes a uniform share of its energy along its
    flight: conversions in full screening to 10 %, and Dalitz decays at small mass.
    """
    n = parent.shape[1]
    u = rng.random((3, n))
    photon = daughter(parent, M_PI0, 0.0, 0.0, 2.0 * u[0] - 1.0, 2.0 * np.pi * u[1])
    p = photon[:3] * u[2]
    return np.concatenate([p, [np.sqrt(np.sum(p**2, axis=0) + LEPTON_MASS["e"] ** 2)]])


def _shortened(lepton: FloatArray, kept: FloatArray, mass: float) -> FloatArray:
    p = lepton[:3] * kept
    return np.concatenate([p, [np.sqrt(np.sum(p**2, axis=0) + mass**2)]])


def _generate_mode(
    card: Card, mode: Mode, n: int, weight: float, rng: np.random.Generator, mesons: Kinematics
) -> Dimuons:
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
        plus, minus = _shortened(plus, kept[0], lepton), _shortened(minus, kept[1], lepton)
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


def generate_pairs(
    card: Card, n: int, rng: np.random.Generator, *, mesons: Kinematics | None = None
) -> Dimuons:
    """Generate muon pairs of the cocktail in full phase space.

    Parameters
    ----------
    card : Card
    n : int
        Number of pairs; the modes share it in proportion to their rates (multinomial).
    rng : numpy.random.Generator
    mesons : callable, optional
        Where mesons of given masses come from (another engine): ``mesons(card, mode, mass, rng)`` returns
        four-momenta, shape (4, n).

    Returns
    -------
    Dimuons
        The sum of weights is the number of dimuons per proton on target. Ordered by mode: shuffle before
        taking a part.

    Raises
    ------
    PhysicsError
        If `n` is not positive.

    Notes
    -----
    Mesons: dN/dpt ∝ pt (1 + (pt/p0)²)^−n, truncated Gaussian y*, flat azimuth. Virtual photons of Dalitz
    decays follow Kroll and Wada with form factors and leave the meson isotropically; their muons follow
    1 + cos²θ + (4m²/q²)(1 − cos²θ); muons of vector mesons are isotropic.
    """
    if n <= 0:
        msg = f"generate_pairs: n = {n!r} must be positive"
        raise PhysicsError(msg)
    rates = mode_rates(card)
    keys, values = list(rates), np.array(list(rates.values()))
    weight = float(values.sum()) * card.target.interactions / n
    parts = []
    for start in range(0, n, CHUNK):
        counts = rng.multinomial(min(CHUNK, n - start), values / values.sum())
        parts += [
            _generate_mode(card, card.modes[key], int(count), weight, rng, mesons or toy_mesons)
            for key, count in zip(keys, counts, strict=True)
        ]
    return Dimuons.concatenate(parts)
