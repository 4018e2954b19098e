"""Numbered events of a flow: masses, kinematics, decays, and a joint flow of all three."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from scipy.special import ndtri
from zuko.flows import NSF

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Transport
from gammastar.flow.bijection import Bijection, inside_limits, make_bijection
from gammastar.flow.network import one_thread
from gammastar.flow.options import Cloud, NetworkOptions
from gammastar.physics.kinematics import daughter

BLOCK = 8192  # events that are always computed together, so that matrix products keep their shape
WORDS = 8  # uniform numbers of each event; a multiple of the four of one Philox counter
MassSource: TypeAlias = float | FloatArray | tuple[FloatArray, FloatArray]
"""One mass [GeV], one mass per event, or bin edges and contents of a mass spectrum."""


_CHUNK = 16_384
_ROUNDS = 50  # of redrawing masses outside the range
_LOSS_MAX = 50.0


@dataclass(frozen=True, slots=True)
class JointOptions(NetworkOptions):
    """Network and training; see `NetworkOptions`. The rate falls to zero along half a cosine."""

    transforms: int = 3  # Autoregressive spline steps
    bins: int = 12

    def __post_init__(self) -> None:
        NetworkOptions.__post_init__(self)
        self._positive("transforms")


@dataclass(frozen=True, slots=True, eq=False)
class JointFlow:
    """A trained p(mass, pt, energy)."""

    bijection: Bijection  # Its normal scores of mass, pt and rapidity are the variables of the network
    network: Any
    loss: tuple[float, ...]  # Mean −ln p of the training pairs in the network's variables, per epoch

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return mass, pt and energy [GeV] of `n` pairs, inside the physical limits and the range of mass."""
        low, high = self.bijection.mass_range
        mass, x = np.empty(0), np.empty((0, 2))
        for _ in range(_ROUNDS):
            z = rng.standard_normal((max(n - len(mass), 16), 3))
            drawn = self._inverse(z)
            found = self.bijection.context.inverse(drawn[:, 0])
            good = (found >= low) & (found <= high) & np.isfinite(drawn).all(axis=1)
            mass, x = np.concatenate([mass, found[good]]), np.concatenate([x, drawn[good, 1:]])
            if len(mass) >= n:
                pt, energy = self.bijection.inverse(mass[:n], x[:n])
                return mass[:n], pt, energy
        msg = f"joint flow: masses hardly fall into {low:g} to {high:g} GeV; train it longer"
        raise PhysicsError(msg)

    def _inverse(self, z: FloatArray) -> FloatArray:
        with torch.inference_mode(), one_thread():
            inverse = self.network().transform.inv
            parts = [inverse(part) for part in torch.split(torch.from_numpy(z).float(), _CHUNK)]
        return np.asarray(torch.cat(parts).double().numpy(), dtype=np.float64)


def fit_joint(
    cloud: Cloud, *, beam_energy: float, options: JointOptions | None = None, rng: np.random.Generator
) -> JointFlow:
    """Train one flow of mass, pt and energy on weighted pairs.

    Notes
    -----
    The first strategy of Allison and Blinov (2025), III.C.2, for millicharged particles: Eq. 8 is applied by
    rejection, see `gammastar.predict.millicharge.by_rejection`.
    """
    options = JointOptions() if options is None else options
    keep = (cloud.weight > 0) & inside_limits(cloud.mass, cloud.pt, cloud.energy, beam_energy)
    if np.count_nonzero(keep) < 100:
        msg = f"fit_joint: {np.count_nonzero(keep)} pairs of positive weight; at least 100 are needed"
        raise PhysicsError(msg)
    mass, pt, energy, weight = (a[keep] for a in (cloud.mass, cloud.pt, cloud.energy, cloud.weight))
    edges = (float(mass.min()), float(mass.max()))
    bijection = make_bijection(mass, pt, energy, weight, beam_energy=beam_energy, mass_range=edges)
    score = bijection.context.forward(mass)[0]
    x = np.concatenate([score[:, None], bijection.forward(mass, pt, energy)[0]], axis=1)
    with torch.random.fork_rng(devices=[]), one_thread():
        torch.manual_seed(int(rng.integers(2**62)))
        network = NSF(
            features=3,
            transforms=options.transforms,
            bins=options.bins,
            hidden_features=(options.hidden,) * options.layers,
        )
        loss = _train(network, x, weight, options, rng)
    return JointFlow(bijection, network.requires_grad_(False), loss)


def _train(
    network: Any, x: FloatArray, weight: FloatArray, options: JointOptions, rng: np.random.Generator
) -> tuple[float, ...]:
    """Minimise −Σ w ln p/Σ w on batches drawn with the weights."""
    data = torch.from_numpy(x).float()
    p, steps = weight / weight.sum(), max(1, len(x) // options.batch)
    optimiser = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    course = []
    for epoch in range(options.epochs):
        drawn = rng.choice(len(x), size=steps * options.batch, p=p).reshape(steps, options.batch)
        total = 0.0
        for step, index in enumerate(drawn):
            progress = (epoch * steps + step) / (options.epochs * steps)
            optimiser.param_groups[0]["lr"] = options.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
            loss = -network().log_prob(data[torch.from_numpy(index)]).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimiser.step()
            total += float(loss.detach()) / steps
        if not total < _LOSS_MAX:
            msg = f"fit_joint: the training diverges (loss {total:g} after epoch {epoch + 1})"
            raise PhysicsError(msg)
        course.append(total)
    return tuple(course)


@dataclass(frozen=True, slots=True, eq=False)
class GeneratedEvents:
    """Virtual photons with their numbers."""

    number: npt.NDArray[np.int64]  # shape (n,)
    # shape (n,) [GeV]
    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    azimuth: FloatArray  # shape (n,) [rad]
    # Numbers in (0, 1) that belong to the events and are not used yet: for decays and vertices, shape (n, 4)
    uniform: FloatArray

    def __len__(self) -> int:
        return len(self.mass)

    @property
    def p4(self) -> FloatArray:
        """px, py, pz, E, shape (4, n) [GeV]; the beam is along z."""
        pz = np.sqrt(np.maximum((self.energy - self.mass) * (self.energy + self.mass) - self.pt**2, 0.0))
        return np.stack([self.pt * np.cos(self.azimuth), self.pt * np.sin(self.azimuth), pz, self.energy])


def event_uniform(seed: int, first: int, n: int) -> FloatArray:
    """Return uniform numbers in (0, 1) of the events `first` to `first` + n − 1, shape (n, 8).

    Notes
    -----
    Counter-based: Philox 4x64 (Salmon et al., SC 2011), two counter values per event.
    """
    key = int.from_bytes(hashlib.sha256(f"gammastar events {seed}".encode()).digest()[:16], "little")
    bits = np.random.Philox(key=key, counter=first * (WORDS // 4))
    # + 2⁻⁵⁴: never zero, where the normal quantile is infinite
    return np.asarray(np.random.Generator(bits).random((n, WORDS)) + 2.0**-54, dtype=np.float64)


def draw_events(source: Transport, n: int, *, seed: int, mass: MassSource, first: int = 0) -> GeneratedEvents:
    """Draw the events `first` to `first` + n − 1.

    Parameters
    ----------
    mass : float, NDArray of shape (n,), or (edges, contents)
        One mass, one for each of these events, or a spectrum (piecewise constant; contents not negative)
        whose masses are drawn, e.g. above 2 m_χ for millicharged particles [GeV].
    first : int
        Number of the first event.

    Returns
    -------
    GeneratedEvents

    Raises
    ------
    PhysicsError
        If a mass lies outside the range of `source`, or the spectrum is empty or negative.
    """
    if n < 0 or first < 0:
        msg = f"draw_events: n = {n} and first = {first} must not be negative"
        raise PhysicsError(msg)
    start = first // BLOCK * BLOCK
    stop = -((first + n) // -BLOCK) * BLOCK
    uniform = event_uniform(seed, start, stop - start)
    inner = slice(first - start, first - start + n)
    masses = _masses(mass, uniform[:, 2], inner, source.mass_range)
    pt, energy = np.empty_like(masses), np.empty_like(masses)
    normal = ndtri(uniform[:, :2])
    for low in range(0, len(masses), BLOCK):
        part = slice(low, low + BLOCK)
        pt[part], energy[part] = source.transform(masses[part], normal[part])
    return GeneratedEvents(
        number=np.arange(first, first + n),
        mass=masses[inner],
        pt=pt[inner],
        energy=energy[inner],
        azimuth=np.pi * (2.0 * uniform[inner, 3] - 1.0),
        uniform=uniform[inner, 4:],
    )


def _masses(mass: MassSource, uniform: FloatArray, inner: slice, limits: tuple[float, float]) -> FloatArray:
    """Return a mass for every event of the blocks; those outside `inner` only fill the blocks."""
    low, high = limits
    if isinstance(mass, tuple):
        edges, contents = (np.asarray(a, dtype=np.float64) for a in mass)
        if edges.shape != (len(contents) + 1,) or (contents < 0).any() or not contents.sum() > 0:
            msg = (
                f"mass spectrum: {edges.shape} edges and {contents.shape} contents; contents must be one "
                "fewer than edges, not negative and not all zero"
            )
            raise PhysicsError(msg)
        filled = np.flatnonzero(contents > 0)
        _inside(edges[[filled[0], filled[-1] + 1]], low, high)
        cumulative = np.concatenate([[0.0], np.cumsum(contents)]) / contents.sum()
        drawn = np.interp(uniform, cumulative, edges)
        return np.clip(drawn, edges[filled[0]], edges[filled[-1] + 1])
    given = np.asarray(mass, dtype=np.float64)
    if given.ndim and given.shape != (inner.stop - inner.start,):
        msg = f"draw_events: mass has shape {given.shape}, expected ({inner.stop - inner.start},)"
        raise PhysicsError(msg)
    _inside(given, low, high)
    result = np.full(len(uniform), given if given.ndim == 0 else (given[0] if given.size else low))
    result[inner] = given
    return result


def _inside(mass: FloatArray, low: float, high: float) -> None:
    bad = ~((mass >= low) & (mass <= high))
    if bad.any():
        worst = float(np.atleast_1d(mass)[np.atleast_1d(bad)][0])
        msg = f"mass {worst:.6g} GeV lies outside the range of the flow, [{low:.6g}, {high:.6g}] GeV"
        raise PhysicsError(msg)


def two_leptons(events: GeneratedEvents, m_lepton: float) -> tuple[FloatArray, FloatArray]:
    """Decay every particle to two leptons, isotropically in its rest frame (no polarisation)."""
    parent = events.p4
    cosine, phi = 2.0 * events.uniform[:, 0] - 1.0, np.pi * (2.0 * events.uniform[:, 1] - 1.0)
    minus = daughter(parent, events.mass, m_lepton, m_lepton, cosine, phi)
    return minus, parent - minus


def decay_vertices(events: GeneratedEvents, ctau: float, origin: FloatArray | None = None) -> FloatArray:
    """Return where the particles decay, shape (3, n) [m]; no detector's volume is imposed."""
    if not ctau >= 0:
        msg = f"decay_vertices: ctau = {ctau!r} m must not be negative"
        raise PhysicsError(msg)
    flight: FloatArray = -ctau * np.log(events.uniform[:, 2]) * events.p4[:3] / events.mass
    return flight if origin is None else flight + origin
