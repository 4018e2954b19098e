"""One flow of mass, pt and energy together: the unconditional generator of the data-driven paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from zuko.flows import NSF

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.flow.bijection import Bijection, inside_limits, make_bijection
from gammastar.flow.model import one_thread
from gammastar.flow.options import NetworkOptions

__all__ = ["JointFlow", "JointOptions", "fit_joint"]

_CHUNK = 16_384
_ROUNDS = 50  # of redrawing masses outside the range
_LOSS_MAX = 50.0


class Cloud(Protocol):
    """Weighted pairs."""

    @property
    def mass(self) -> FloatArray:
        """Mass [GeV]."""

    @property
    def pt(self) -> FloatArray:
        """Transverse momentum [GeV]."""

    @property
    def energy(self) -> FloatArray:
        """Energy [GeV]."""

    @property
    def weight(self) -> FloatArray:
        """Weight; pairs whose weight is not positive are left out."""


@dataclass(frozen=True, slots=True)
class JointOptions(NetworkOptions):
    """Network and training; see `NetworkOptions`. The rate falls to zero along half a cosine.

    Attributes
    ----------
    transforms : int
        Autoregressive spline steps.
    """

    transforms: int = 3
    bins: int = 12
    hidden: int = 64

    def __post_init__(self) -> None:
        NetworkOptions.__post_init__(self)
        self._positive("transforms")


@dataclass(frozen=True, slots=True, eq=False)
class JointFlow:
    """A trained p(mass, pt, energy).

    Attributes
    ----------
    bijection : Bijection
        Its normal scores of mass, pt and rapidity are the variables of the network.
    network : torch.nn.Module
    loss : tuple of float
        Mean −ln p of the training pairs in the network's variables, per epoch.
    """

    bijection: Bijection
    network: Any
    loss: tuple[float, ...]

    def __call__(self, n: int, rng: np.random.Generator) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return mass, pt and energy [GeV] of `n` pairs, inside the physical limits and the range of mass.

        Raises
        ------
        PhysicsError
            If the flow gives too few masses inside its range.
        """
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

    Parameters
    ----------
    cloud : Cloud
        Pairs with weights; those of weight zero or below are left out, so use posterior weights.
    beam_energy : float [GeV]
    options : JointOptions, optional
    rng : numpy.random.Generator
        Decides start and order; the same generator gives the same flow.

    Raises
    ------
    PhysicsError
        If fewer than 100 pairs have a positive weight, or the training diverges.

    Notes
    -----
    The first strategy of Allison and Blinov (2025), III.C.2, for millicharged particles: Eq. 8 is applied by
    rejection, see `gammastar.predict.by_rejection`.
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
