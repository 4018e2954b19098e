"""The other two strategies of Allison and Blinov (2025), III.C.2, for the kinematics of millicharged pairs.

The package draws virtual photons at masses of the spectrum from the conditional flow. Here are one flow of
mass, transverse momentum and energy, of which Eq. 8 rejects photons, and a generator made for each m_χ.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from zuko.flows import NSF

from gammastar.core.errors import PhysicsError, require
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler
from gammastar.flow.network import Bijection, inside_limits, make_bijection, one_thread
from gammastar.flow.options import Cloud, NetworkOptions
from gammastar.physics.millicharge import pair_factor
from gammastar.predict import VirtualPhotons
from gammastar.predict.channel import InDomain

Joint: TypeAlias = Callable[[int, np.random.Generator], tuple[FloatArray, FloatArray, FloatArray]]
"""(n, rng) -> mass, pt, energy [GeV], each (n,), distributed as the measured lepton pairs."""
_CHUNK = 16_384
_ROUNDS = 50  # of redrawing masses outside the range
_LOSS_MAX = 50.0


def by_rejection(
    m_chi: float,
    total: float,
    m_lepton: float,
    joint: Joint,
    in_domain: InDomain,
    *,
    n: int,
    rng: np.random.Generator,
    cap: float = 3.0,
) -> VirtualPhotons:
    """Sample from one joint generator for all m_χ; what Eq. 8 forbids is rejected."""
    mass, pt, energy = joint(n, rng)
    above = mass > 2 * m_lepton * (1 + 1e-12)
    factor = np.where(above, pair_factor(np.where(above, mass, 3 * m_lepton), m_chi, m_lepton), 0.0)
    keep = rng.uniform(size=n) * cap < factor
    if not keep.any():
        raise PhysicsError(
            f"by_rejection: none of {n} pairs lies above 2 m_chi = {2 * m_chi:g} GeV; draw more"
        )
    weight = np.maximum(factor[keep] / cap, 1.0)
    return photons_of(mass[keep], pt[keep], energy[keep], weight * (total / weight.sum()), in_domain)


def from_generator(
    total: float, generator: Joint, in_domain: InDomain, *, n: int, rng: np.random.Generator
) -> VirtualPhotons:
    """Sample from a generator made for one m_χ: all weights are equal; arguments as `by_rejection`."""
    mass, pt, energy = generator(n, rng)
    return photons_of(mass, pt, energy, np.full(n, total / n), in_domain)


@dataclass(frozen=True, slots=True, eq=False)
class PairCloud:
    """Measured pairs themselves as a joint generator: drawn again with their weights.

    The flow's twin without a network: an unconditional flow of (m, qT, E) may stand in its place.

    Attributes
    ----------
    mass, pt, energy, weight : NDArray, shape (n,)
        Pairs [GeV] with signed weights; a pair whose weight is not positive is not drawn.
    """

    mass: FloatArray
    pt: FloatArray
    energy: FloatArray
    weight: FloatArray

    def weighted_for(self, m_chi: float, m_lepton: float) -> PairCloud:
        """Return the pairs above 2 m_χ with weights times Eq. 8: the training set of one m_χ.

        Parameters
        ----------
        m_chi : float [GeV]
        m_lepton : float [GeV]
            Of the measured leptons.
        """
        keep = self.mass > 2 * max(m_chi, m_lepton) * (1 + 1e-12)
        if not keep.any():
            raise PhysicsError(f"no measured pair above 2 m_chi = {2 * m_chi:g} GeV")
        factor = pair_factor(self.mass[keep], m_chi, m_lepton)
        return PairCloud(self.mass[keep], self.pt[keep], self.energy[keep], self.weight[keep] * factor)

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (mass, pt, energy) of `n` pairs."""
        p = np.clip(self.weight, 0.0, None)
        require(p.sum() > 0, "no pair of positive weight to draw from")
        index = rng.choice(len(p), size=n, p=p / p.sum())
        return self.mass[index], self.pt[index], self.energy[index]


@dataclass(frozen=True, slots=True, eq=False)
class Trained:
    """A joint generator from a trained sampler: masses of the pairs it was trained on, kinematics from it."""

    # Trained on the pairs of `cloud`, for one m_χ with the weights of `PairCloud.weighted_for`
    sampler: Sampler
    cloud: PairCloud

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return (mass, pt, energy) of `n` virtual photons."""
        mass, _, _ = self.cloud(n, rng)
        pt, energy = self.sampler.sample(np.clip(mass, *self.sampler.mass_range), rng)
        return mass, pt, np.maximum(energy, np.sqrt(mass**2 + pt**2))


def photons_of(
    mass: FloatArray, pt: FloatArray, energy: FloatArray, weight: FloatArray, in_domain: InDomain
) -> VirtualPhotons:
    """Return virtual photons, told inside and outside the measured domain."""
    inside = np.asarray(in_domain(mass, pt, energy), dtype=np.bool_)
    return VirtualPhotons(mass, pt, energy, weight, inside)


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
    rejection, see `by_rejection`.
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
