"""The conditional spline flow p(pt, energy | mass): network, density and sampling."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, silu
from zuko.transforms import MonotonicRQSTransform

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.core.sampler import Sampler
from gammastar.flow.bijection import Bijection, Gaussianiser, inside_limits
from gammastar.flow.options import TrainingReport

__all__ = ["KinematicFlow", "Network", "initial_network", "log_density", "one_thread"]

_BOUND = 5.0  # the splines act on [-5, 5] standard deviations and are the identity outside
_CHUNK = 8192  # intermediate arrays of this size stay in the cache
_LOG_RANGE = math.log(1e3)  # of zuko's spline: slopes and bins lie within factors of 1000
_LOG_2PI = math.log(2.0 * math.pi)
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
class Network:
    """Two perceptrons side by side, one for each factor of p(x1 | m) p(x2 | x1, m).

    Attributes
    ----------
    weights : tuple of Tensor, each of shape (2, n_in, n_out)
    biases : tuple of Tensor, each of shape (2, 1, n_out)
        The last layer gives the 3 n_bins − 1 parameters of a rational-quadratic spline. The input is the
        context followed by x1, which the first perceptron sees as zero.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]

    @property
    def bins(self) -> int:
        """Number of bins of each spline."""
        return (int(self.weights[-1].shape[-1]) + 1) // 3

    @property
    def parameters(self) -> list[Tensor]:
        """All tensors, weights first."""
        return [*self.weights, *self.biases]

    def to(self, dtype: torch.dtype) -> Network:
        """Return a detached copy in another precision."""
        return Network(
            tuple(t.detach().to(dtype, copy=True) for t in self.weights),
            tuple(t.detach().to(dtype, copy=True) for t in self.biases),
        )

    def _outputs(self, inputs: Tensor, factor: int | None) -> Tensor:
        values = inputs
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if factor is None:
                values = torch.baddbmm(bias, values, weight)
            else:
                values = torch.addmm(bias[factor], values, weight[factor])
            if layer < len(self.weights) - 1:
                values = silu(values, inplace=not values.requires_grad)
        return values

    def invert(self, inputs: Tensor, z: Tensor, factor: int) -> Tensor:
        """Return x of normal numbers z, shape (n,): the inverse of `splines` of one factor, and faster."""
        bins, values = self.bins, self._outputs(inputs, factor)
        slopes = values[:, 2 * bins :]
        knots = values[:, : 2 * bins].reshape(-1, 2, bins)
        knots = torch.softmax(knots / (1.0 + knots.abs().mul_(2.0 / _LOG_RANGE)), dim=-1)
        edges = knots.cumsum(dim=-1).mul_(2.0 * _BOUND).sub_(_BOUND)
        k = (edges[:, 1, :-1] < z[:, None]).sum(dim=-1, keepdim=True)  # bins below z, but not beyond the last
        high = edges.gather(2, k[:, None].expand(-1, 2, -1))[..., 0]
        size = knots.gather(2, k[:, None].expand(-1, 2, -1))[..., 0] * (2.0 * _BOUND)
        # the outermost slopes are one
        around = torch.cat([k - 1, k], dim=-1)
        inner = slopes.gather(1, around.clamp(0, bins - 2))
        inner = torch.exp(inner / (1.0 + inner.abs() / _LOG_RANGE))
        slope = torch.where((around < 0) | (around > bins - 2), 1.0, inner)
        width, height = size.unbind(-1)
        x0, z0 = (high - size).unbind(-1)
        secant, rise = height / width, z - z0
        bend = rise * (slope.sum(dim=-1) - 2.0 * secant)
        a, b = height * (secant - slope[:, 0]) + bend, height * slope[:, 0] - bend
        share = 2.0 * secant * rise / (b + (b.square() + 4.0 * a * secant * rise).sqrt())
        return torch.where(z.abs() < _BOUND, x0 + share * width, z)

    def splines(self, inputs: Tensor, factor: int | None = None) -> Any:
        """Return the splines (data → normal) of both factors, inputs (2, n, n_in), or of one, (n, n_in)."""
        values = self._outputs(inputs, factor)
        widths, heights, slopes = torch.split(values, [self.bins, self.bins, self.bins - 1], dim=-1)
        return MonotonicRQSTransform(widths, heights, slopes, bound=_BOUND)


def initial_network(
    n_context: int, *, bins: int, hidden: int, layers: int, rng: np.random.Generator
) -> Network:
    """Return a network whose splines start close to the identity.

    Parameters
    ----------
    n_context, bins, hidden, layers : int
        Context features, spline bins, width and number of hidden layers.
    rng : numpy.random.Generator
    """
    sizes = [n_context + 1, *[hidden] * layers, 3 * bins - 1]
    weights, biases = [], []
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        bound = (0.1 if last else 1.0) / math.sqrt(n_in)
        weights.append(torch.from_numpy(rng.uniform(-bound, bound, (2, n_in, n_out)).astype(np.float32)))
        start = np.zeros((2, 1, n_out)) if last else rng.uniform(-bound, bound, (2, 1, n_out))
        biases.append(torch.from_numpy(start.astype(np.float32)))
    return Network(tuple(weights), tuple(biases))


def log_density(network: Network, x: Tensor, context: Tensor) -> Tensor:
    """Return ln p(x | context), shape (n,), of x, shape (n, 2), and context, shape (n, n_context)."""
    inputs = torch.stack([pad(context, (0, 1)), torch.cat([context, x[:, :1]], dim=-1)])
    z, log_slope = network.splines(inputs).call_and_ladj(x.T)
    result: Tensor = (log_slope - 0.5 * z.square()).sum(dim=0) - _LOG_2PI
    return result


def _draw(network: Network, z: Tensor, context: Tensor) -> Tensor:
    x1 = network.invert(pad(context, (0, 1)), z[:, 0], 0)
    x2 = network.invert(torch.cat([context, x1[:, None]], dim=-1), z[:, 1], 1)
    return torch.stack([x1, x2], dim=-1)


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
        x = self._in_chunks(_draw, normal, context, torch.float32)
        lost = ~np.isfinite(x).all(axis=-1)  # single precision can make a discriminant negative
        if lost.any():
            x[lost] = self._in_chunks(_draw, normal[lost], context[lost], torch.float64)
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
        context = self.bijection.condition(mass.ravel())[inside.ravel()]
        x, log_jacobian = self.bijection.forward(mass[inside], pt[inside], energy[inside])
        dtype = torch.float32 if single else torch.float64
        result[inside] = self._in_chunks(log_density, x, context, dtype) + log_jacobian
        return result

    def _in_chunks(
        self, function: Any, values: FloatArray, context: FloatArray, dtype: torch.dtype
    ) -> FloatArray:
        network = self.network.to(dtype)
        with torch.inference_mode(), one_thread():
            x, c = (torch.split(torch.from_numpy(a).to(dtype), _CHUNK) for a in (values, context))
            parts = [function(network, a, b) for a, b in zip(x, c, strict=True)]
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
