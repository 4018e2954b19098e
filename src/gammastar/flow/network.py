"""The network of a spline flow, its device, and the densities that it is trained with."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, silu
from zuko.transforms import MonotonicRQSTransform

from gammastar.core.errors import PhysicsError
from gammastar.flow.one_mass import BOUND, LOG_RANGE, Perceptrons

__all__ = [
    "Network",
    "device_of",
    "draw",
    "has_cuda",
    "initial_network",
    "log_density",
    "one_thread",
]

_LOG_2PI = math.log(2.0 * math.pi)


def has_cuda() -> bool:
    """Return whether torch can train on a CUDA device here."""
    return bool(torch.cuda.is_available())


def device_of(name: str) -> torch.device:
    """Return the device of a name: "auto" is a CUDA device if there is one, else the processor.

    Raises
    ------
    PhysicsError
        If a CUDA device is asked for and there is none.
    """
    if name == "auto":
        return torch.device("cuda" if has_cuda() else "cpu")
    if name.startswith("cuda") and not has_cuda():
        msg = f"device = {name!r}: no CUDA device is available; use 'cpu' or 'auto'"
        raise PhysicsError(msg)
    return torch.device(name)


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
    """`Perceptrons` that torch can train.

    Attributes
    ----------
    weights : tuple of Tensor, each of shape (2, n_in, n_out)
    biases : tuple of Tensor, each of shape (2, 1, n_out)
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

    @classmethod
    def of(cls, trained: Perceptrons, dtype: torch.dtype) -> Network:
        """Return a copy of trained perceptrons in some precision."""
        return cls(
            tuple(torch.tensor(a, dtype=dtype) for a in trained.weights),
            tuple(torch.tensor(a, dtype=dtype) for a in trained.biases),
        )

    def to(self, device: torch.device | str) -> Network:
        """Return the same network on another device."""
        return Network(*(tuple(t.to(device) for t in group) for group in (self.weights, self.biases)))

    def trained(self) -> Perceptrons:
        """Return what was trained, as arrays."""
        return Perceptrons(
            tuple(t.detach().cpu().numpy() for t in self.weights),
            tuple(t.detach().cpu().numpy() for t in self.biases),
        )

    def _outputs(self, values: Tensor, factor: int | None = None) -> Tensor:
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                values = silu(values, inplace=not values.requires_grad)
            if factor is None:
                values = torch.baddbmm(bias, values, weight)
            else:
                values = torch.addmm(bias[factor], values, weight[factor])
        return values

    def invert(self, inputs: Tensor, z: Tensor, factor: int) -> Tensor:
        """Return x of normal numbers z, shape (n,): the inverse of `splines` of one factor, and faster."""
        bins, values = self.bins, self._outputs(inputs, factor)
        slopes = values[:, 2 * bins :]
        knots = values[:, : 2 * bins].reshape(-1, 2, bins)
        knots = torch.softmax(knots / (1.0 + knots.abs().mul_(2.0 / LOG_RANGE)), dim=-1)
        edges = knots.cumsum(dim=-1).mul_(2.0 * BOUND).sub_(BOUND)
        k = (edges[:, 1, :-1] < z[:, None]).sum(dim=-1, keepdim=True)  # bins below z, but not beyond the last
        high = edges.gather(2, k[:, None].expand(-1, 2, -1))[..., 0]
        size = knots.gather(2, k[:, None].expand(-1, 2, -1))[..., 0] * (2.0 * BOUND)
        # the outermost slopes are one
        around = torch.cat([k - 1, k], dim=-1)
        inner = slopes.gather(1, around.clamp(0, bins - 2))
        inner = torch.exp(inner / (1.0 + inner.abs() / LOG_RANGE))
        slope = torch.where((around < 0) | (around > bins - 2), 1.0, inner)
        width, height = size.unbind(-1)
        x0, z0 = (high - size).unbind(-1)
        secant, rise = height / width, z - z0
        bend = rise * (slope.sum(dim=-1) - 2.0 * secant)
        a, b = height * (secant - slope[:, 0]) + bend, height * slope[:, 0] - bend
        share = 2.0 * secant * rise / (b + (b.square() + 4.0 * a * secant * rise).sqrt())
        return torch.where(z.abs() < BOUND, x0 + share * width, z)

    def splines(self, inputs: Tensor) -> Any:
        """Return the splines (data → normal) of both factors at inputs of shape (2, n, n_in)."""
        return self._spline(self._outputs(inputs))

    def _spline(self, values: Tensor) -> Any:
        widths, heights, slopes = torch.split(values, [self.bins, self.bins, self.bins - 1], dim=-1)
        return MonotonicRQSTransform(widths, heights, slopes, bound=BOUND)


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


def draw(network: Network, z: Tensor, context: Tensor) -> Tensor:
    """Return x, shape (n, 2), of normal numbers z, shape (n, 2), and context, shape (n, n_context)."""
    x1 = network.invert(pad(context, (0, 1)), z[:, 0], 0)
    x2 = network.invert(torch.cat([context, x1[:, None]], dim=-1), z[:, 1], 1)
    return torch.stack([x1, x2], dim=-1)
