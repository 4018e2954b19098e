"""The conditional spline flow p(pt, energy | mass): density and sampling."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import repeat
from typing import Any

import numpy as np
import torch

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampling import Sampler
from gammastar.flow.network import (
    Bijection,
    Gaussianiser,
    Network,
    density_at_one_mass,
    draw,
    inside_limits,
    log_density,
)
from gammastar.flow.options import TrainingReport

__all__ = ["KinematicFlow", "one_thread"]

_CHUNK = 8192  # intermediate arrays of this size stay in the cache
_MAPS = ("context", "transverse", "longitudinal")


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the context: the matrices are small, and more threads only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True, eq=False)
class KinematicFlow(Sampler):
    """A trained flow, from `fit` or `load`: density and sampler of (pt, energy) at given mass.

    Notes
    -----
    The virtual photon's kinematics at m are the dark photon's at m_A' = m: Eq. 10 of the data-driven paper
    (Allison and Blinov). The flow is p(x1 | m) p(x2 | x1, m), each factor one rational-quadratic spline
    (arXiv:1906.04032).
    """

    bijection: Bijection
    network: Network
    report: TrainingReport

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self.bijection.mass_range

    @property
    def beam_energy(self) -> float:
        """Energy of the proton beam [GeV]."""
        return self.bijection.beam_energy

    def sample(self, mass: FloatArray, rng: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`.

        Parameters
        ----------
        mass : NDArray, shape (n,) [GeV]
        rng : numpy.random.Generator
            Gives the 2 n normal numbers, so that the same generator gives the same sample.

        Returns
        -------
        pt, energy : NDArray, shape (n,) [GeV]
            √(mass² + pt²) ≤ energy < beam energy.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the training sample.
        """
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return self.transform(mass, rng.standard_normal((mass.size, 2)))

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of masses, shape (n,), and normal numbers, shape (n, 2).

        The same numbers give the same point; `sample` draws them.
        """
        context = self.bijection.condition(mass)
        x = self._in_chunks(draw, normal, context, torch.float32)
        lost = ~np.isfinite(x).all(axis=-1)  # single precision can make a discriminant negative
        if lost.any():
            x[lost] = self._in_chunks(draw, normal[lost], context[lost], torch.float64)
        return self.bijection.inverse(mass, x)

    def log_prob(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray, *, single: bool = False
    ) -> FloatArray:
        """Return ln p(pt, energy | mass), p in GeV⁻²; −inf outside the physical limits.

        Parameters
        ----------
        mass, pt, energy : NDArray, broadcast to shape (n,) [GeV]
        single : bool
            The network in single precision: good to 1e-4, in less than half the time.

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the training sample.
        """
        arrays = np.broadcast_arrays(mass, pt, energy)
        mass, pt, energy = (np.ascontiguousarray(a, dtype=np.float64) for a in arrays)
        result = np.full(mass.shape, -np.inf)
        inside = inside_limits(mass, pt, energy, self.beam_energy)
        one_mass = mass.size > 1 and bool((mass == mass.flat[0]).all())
        context = self.bijection.condition(mass.ravel()[:1] if one_mass else mass.ravel())
        x, log_jacobian = self.bijection.forward(mass[inside], pt[inside], energy[inside])
        dtype = torch.float32 if single else torch.float64
        if one_mass:
            result[inside] = self._in_chunks(density_at_one_mass, x, context, dtype) + log_jacobian
        else:
            result[inside] = self._in_chunks(log_density, x, context[inside.ravel()], dtype) + log_jacobian
        return result

    def _in_chunks(
        self, function: Any, values: FloatArray, context: FloatArray, dtype: torch.dtype
    ) -> FloatArray:
        network = self.network.to(dtype)
        with torch.inference_mode(), one_thread():
            x, c = (torch.split(torch.from_numpy(a).to(dtype), _CHUNK) for a in (values, context))
            contexts = c if len(context) == len(values) else repeat(c[0])  # one row is common to all
            parts = [function(network, a, b) for a, b in zip(x, contexts, strict=False)]
            result: FloatArray = torch.cat(parts).to(torch.float64).numpy()
        return result

    def to_tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all numbers of the flow as named arrays (network float32, knots float64)."""
        tensors = {f"network.weight{i}": t.numpy() for i, t in enumerate(self.network.weights)}
        tensors |= {f"network.bias{i}": t.numpy() for i, t in enumerate(self.network.biases)}
        for name in _MAPS:
            one: Gaussianiser = getattr(self.bijection, name)
            tensors |= {f"{name}.{key}": getattr(one, key) for key in ("x", "z", "slope")}
        return tensors

    def card(self) -> dict[str, Any]:
        """Return what is not a tensor, ready for JSON."""
        return {
            "beam_energy": self.beam_energy,
            "mass_range": list(self.mass_range),
            "architecture": {
                "bins": self.network.bins,
                "hidden": int(self.network.weights[0].shape[-1]),
                "layers": len(self.network.weights) - 1,
                "octaves": self.bijection.octaves,
                "knots": {name: len(getattr(self.bijection, name).x) for name in _MAPS},
            },
            "report": asdict(self.report),
        }

    @classmethod
    def from_tensors(
        cls, tensors: Mapping[str, np.ndarray[Any, Any]], card: Mapping[str, Any]
    ) -> KinematicFlow:
        """Return the flow of the arrays of `to_tensors` and the mapping of `card`.

        Raises
        ------
        PhysicsError
            If the knots are not those of a monotone map, or the architecture is not that of the card.
        KeyError
            If a tensor or an entry of the card is missing.
        """
        maps = {
            name: Gaussianiser(*(np.array(tensors[f"{name}.{key}"]) for key in ("x", "z", "slope")))
            for name in _MAPS
        }
        depth = int(card["architecture"]["layers"]) + 1
        network = Network(
            tuple(torch.from_numpy(np.array(tensors[f"network.weight{i}"])) for i in range(depth)),
            tuple(torch.from_numpy(np.array(tensors[f"network.bias{i}"])) for i in range(depth)),
        )
        if network.bins != card["architecture"]["bins"]:
            msg = f"the network has {network.bins} spline bins, its card says {card['architecture']['bins']}"
            raise PhysicsError(msg)
        octaves = int(card["architecture"].get("octaves", 0))
        beam_energy, low, high = (float(a) for a in (card["beam_energy"], *card["mass_range"]))
        bijection = Bijection(beam_energy, (low, high), **maps, octaves=octaves)
        return cls(bijection, network, TrainingReport.from_mapping(card["report"]))
