"""The network of the flow: spline parameters of both factors, and the density that they make."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import pad, silu
from zuko.transforms import MonotonicRQSTransform

__all__ = ["Network", "density_at_one_mass", "draw", "initial_network", "log_density"]

_BOUND = 5.0  # the splines act on [-5, 5] standard deviations and are the identity outside
_LOG_RANGE = math.log(1e3)  # of zuko's spline: slopes and bins lie within factors of 1000
_LOG_2PI = math.log(2.0 * math.pi)


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

    def _outputs(self, inputs: Tensor, factor: int | None = None) -> Tensor:
        weight, bias = self.weights[0], self.biases[0]
        if factor is None:
            return self._later_layers(torch.baddbmm(bias, inputs, weight))
        return self._later_layers(torch.addmm(bias[factor], inputs, weight[factor]), factor)

    def _later_layers(self, values: Tensor, factor: int | None = None) -> Tensor:
        """Return the outputs from what the first layer gives."""
        for weight, bias in zip(self.weights[1:], self.biases[1:], strict=True):
            values = silu(values, inplace=not values.requires_grad)
            if factor is None:
                values = torch.baddbmm(bias, values, weight)
            else:
                values = torch.addmm(bias[factor], values, weight[factor])
        return values

    def splines_at(self, context: Tensor, x1: Tensor) -> tuple[Any, Any]:
        """Return the splines of x1 and x2 at one context, shape (n_context,), without repeating its layer."""
        first = self._outputs(pad(context, (0, 1))[None], 0)
        weight = self.weights[0][1]
        common = torch.addmv(self.biases[0][1][0], weight[:-1].T, context)
        second = self._later_layers(common + x1[:, None] * weight[-1], 1)
        return self._spline(first), self._spline(second)

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

    def splines(self, inputs: Tensor) -> Any:
        """Return the splines (data → normal) of both factors at inputs of shape (2, n, n_in)."""
        return self._spline(self._outputs(inputs))

    def _spline(self, values: Tensor) -> Any:
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


def density_at_one_mass(network: Network, x: Tensor, context: Tensor) -> Tensor:
    """Return `log_density` of x, shape (n, 2), at one context, shape (1, n_context), faster."""
    both = network.splines_at(context[0], x[:, 0])
    result = torch.full_like(x[:, 0], -_LOG_2PI)
    for spline, values in zip(both, x.T, strict=True):
        z, log_slope = spline.call_and_ladj(values)
        result += log_slope - 0.5 * z.square()
    return result


def draw(network: Network, z: Tensor, context: Tensor) -> Tensor:
    """Return x, shape (n, 2), of normal numbers z, shape (n, 2), and context, shape (n, n_context)."""
    x1 = network.invert(pad(context, (0, 1)), z[:, 0], 0)
    x2 = network.invert(torch.cat([context, x1[:, None]], dim=-1), z[:, 1], 1)
    return torch.stack([x1, x2], dim=-1)
