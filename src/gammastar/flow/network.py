"""The network of a spline flow, its device, the density that it is trained with, and a step of training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import pad, silu

from gammastar.core.errors import PhysicsError
from gammastar.flow.one_mass import BOUND, LOG_RANGE, Perceptrons

_LOG_2PI = math.log(2.0 * math.pi)
_SECOND, _SMALL = 0.999, 1e-8  # forgetting of the squares, and what keeps steps finite: as usual
_SIZE, _SLOPE = np.float32(2.0 / LOG_RANGE), 1.0 / LOG_RANGE
# sums in any order, but a number that is none stays none: a training that diverges must be seen
_ORDER = {"reassoc", "contract", "arcp", "nsz"}

Row = npt.NDArray[np.float32]


def has_cuda() -> bool:
    """Return whether torch can train on a CUDA device here."""
    return bool(torch.cuda.is_available())


def device_of(name: str) -> torch.device:
    """Return the device of a name: "auto" is a CUDA device if there is one, else the processor."""
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
    """`Perceptrons` that torch can train."""

    weights: tuple[Tensor, ...]  # shape (2, n_in, n_out)
    biases: tuple[Tensor, ...]  # shape (2, 1, n_out)

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

    def aligned(self, inputs: Tensor) -> Tensor:
        """Return the raw splines of both factors, shape (2, n, 3 n_bins): with a last column of zeros."""
        weights, biases = (
            (*group[:-1], pad(group[-1], (0, 1))) for group in (self.weights, self.biases)
        )  # on a processor, products of 3 n_bins columns take two thirds of the time of 3 n_bins - 1
        return Network(weights, biases)._outputs(inputs)

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
        from zuko.transforms import MonotonicRQSTransform

        widths, heights, slopes = torch.split(values, [self.bins, self.bins, self.bins - 1], dim=-1)
        return MonotonicRQSTransform(widths, heights, slopes, bound=BOUND)


def initial_network(
    n_context: int, *, bins: int, hidden: int, layers: int, rng: np.random.Generator
) -> Network:
    """Return a network whose splines start close to the identity."""
    sizes = [n_context + 1, *[hidden] * layers, 3 * bins - 1]
    weights, biases = [], []
    for layer, (n_in, n_out) in enumerate(pairwise(sizes)):
        last = layer == len(sizes) - 2
        bound = (0.1 if last else 1.0) / math.sqrt(n_in)
        weights.append(torch.from_numpy(rng.uniform(-bound, bound, (2, n_in, n_out)).astype(np.float32)))
        start = np.zeros((2, 1, n_out)) if last else rng.uniform(-bound, bound, (2, 1, n_out))
        biases.append(torch.from_numpy(start.astype(np.float32)))
    return Network(tuple(weights), tuple(biases))


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _limited(values, sizes):  # type: ignore[no-untyped-def]
    """Write v/(1 + 2|v|/ln 1000) of the first columns, the logarithms of widths and heights."""
    for i in range(sizes.shape[0]):
        for j in range(sizes.shape[1]):
            v = values[i, j]
            sizes[i, j] = v / (np.float32(1.0) + _SIZE * abs(v))


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _bin(sizes, i, x):  # type: ignore[no-untyped-def]
    """Return index, both edges, width and height of the bin that holds x in row i, and the sums of sizes."""
    bins = sizes.shape[1] // 2
    wide, high = np.float32(0.0), np.float32(0.0)
    for j in range(bins):
        wide += sizes[i, j]
    for j in range(bins):
        high += sizes[i, bins + j]
    target = 0.5 * (x / BOUND + 1.0) * wide
    k, left, low = 0, 0.0, 0.0
    while k < bins - 1 and left + sizes[i, k] < target:
        left += sizes[i, k]
        low += sizes[i, bins + k]
        k += 1
    per_width, per_height = 2.0 * BOUND / wide, 2.0 * BOUND / high
    edge, start = left * per_width - BOUND, low * per_height - BOUND
    return k, edge, start, sizes[i, k] * per_width, sizes[i, bins + k] * per_height, wide, high


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _sizes_gradient(values, sizes, gradient, i, k, by):  # type: ignore[no-untyped-def]
    """Write the gradient in the raw widths and heights of row i; `by` is what `_less_mean` gives for both.

    The derivative of softmax is a product with the size of the bin, that of the limit with its square.
    """
    bins = sizes.shape[1] // 2
    (before, wide, after), (below, high, above) = by
    for j in range(bins):
        limit = np.float32(1.0) / (np.float32(1.0) + _SIZE * abs(values[i, j]))
        gradient[i, j] = sizes[i, j] * limit * limit * (before if j < k else after)
    for j in range(bins):
        limit = np.float32(1.0) / (np.float32(1.0) + _SIZE * abs(values[i, bins + j]))
        gradient[i, bins + j] = sizes[i, bins + j] * limit * limit * (below if j < k else above)
    for j, own in ((k, wide), (bins + k, high)):
        limit = np.float32(1.0) / (np.float32(1.0) + _SIZE * abs(values[i, j]))
        gradient[i, j] = sizes[i, j] * limit * limit * own


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _less_mean(before, own, mean, total):  # type: ignore[no-untyped-def]
    """Return the derivatives in the sizes of bins, less their mean over the axis, over the sum of sizes.

    For a bin before that of x, for its own, and for one after it.
    """
    share = 2.0 * BOUND
    return (
        np.float32((share * before - mean) / total),
        np.float32((share * own - mean) / total),
        np.float32(-mean / total),
    )


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _slope(values, i, inner, number):  # type: ignore[no-untyped-def]
    """Return an inner slope of row i and its derivative in the raw number; the outermost ones are one."""
    if inner < 0 or inner >= number:
        return 1.0, 0.0
    v = float(values[i, 2 * (number + 1) + inner])
    limit = 1.0 / (1.0 + _SLOPE * abs(v))
    slope = math.exp(v * limit)
    return slope, slope * limit * limit


@numba.njit(cache=True, fastmath=_ORDER, error_model="numpy")
def _log_density(values, sizes, x, result, gradient):  # type: ignore[no-untyped-def]
    """Write ln dz/dx − z²/2 of every row, and its gradient in the values if that has rows."""
    bins = sizes.shape[1] // 2
    for i in range(len(x)):
        here = float(x[i])
        if not abs(here) < BOUND:
            result[i] = -0.5 * here * here
            for j in range(gradient.shape[1] if len(gradient) else 0):
                gradient[i, j] = 0.0
            continue
        k, x0, z0, w, h, wide, high = _bin(sizes, i, here)
        d0, from0 = _slope(values, i, k - 1, bins - 1)
        d1, from1 = _slope(values, i, k, bins - 1)
        s, t = h / w, (here - x0) / w
        u = 1.0 - t
        m, bend = t * u, d0 + d1 - 2.0 * s
        bottom, share = s + bend * m, (s * t + d0 * u) * t
        top = d1 * t * t + 2.0 * s * m + d0 * u * u
        z = z0 + h * share / bottom
        result[i] = math.log(s * s * top / (bottom * bottom)) - 0.5 * z * z
        if len(gradient) == 0:
            continue
        # derivatives of ln dz/dx − z²/2 in t, s and slopes; those of z carry the factor −z h/bottom
        part, pull = share / bottom, z * h / bottom
        over, under = 1.0 / top, 2.0 / bottom
        by_t = 2.0 * (d1 * t + s * (u - t) - d0 * u) * over - bend * (u - t) * under
        by_t -= z * h * s * top / (bottom * bottom)
        rest = 1.0 - 2.0 * m
        by_s = 2.0 / s + 2.0 * m * over - rest * under - pull * (t * t - part * rest)
        by_d0 = u * u * over - m * under - pull * m * (1.0 - part)
        by_d1 = t * t * over - m * under + pull * m * part
        by_edge, by_w, by_h = -by_t / w, -(by_t * t + by_s * s) / w, by_s / w - z * part
        widths = _less_mean(by_edge, by_w, by_edge * (x0 + BOUND) + by_w * w, wide)
        heights = _less_mean(-z, by_h, by_h * h - z * (z0 + BOUND), high)
        _sizes_gradient(values, sizes, gradient, i, k, (widths, heights))
        for j in range(2 * bins, gradient.shape[1]):
            gradient[i, j] = by_d0 * from0 if j == 2 * bins + k - 1 else 0.0
        if k < bins - 1:
            gradient[i, 2 * bins + k] = by_d1 * from1


def _computed(values: Row, x: Row, *, learn: bool) -> tuple[Row, Row]:
    """Return ln p of rows of spline parameters, shape (n,), and its gradient, shape as `values`."""
    sizes = np.empty((len(x), 2 * ((values.shape[1] + 1) // 3)), dtype=np.float32)
    _limited(values, sizes)
    np.exp(sizes, out=sizes)
    result, gradient = np.empty(len(x), dtype=np.float32), np.empty_like(values if learn else values[:0])
    _log_density(values, sizes, x, result, gradient)
    return result, gradient


class SplineDensity(torch.autograd.Function):
    """ln dz/dx − z²/2 of monotone rational-quadratic splines that map x to z, differentiable in the splines.

    Notes
    -----
    Torch builds the splines from some thirty operations on whole arrays and differentiates each of them; on a
    processor the bin that holds x is found first, and the gradient is written down for it, in one compiled
    pass over the pairs.

    The splines are those of `Perceptrons.knots`: C. Durkan et al., arXiv:1906.04032, within ±5 and the
    identity outside. Single precision, but double inside a bin.
    """

    @staticmethod
    def forward(ctx: Any, values: Tensor, x: Tensor) -> Tensor:
        """Return the density of x, shape (n,), with raw parameters of shape (n, 3 n_bins − 1)."""
        learn = bool(ctx.needs_input_grad[0])
        found, gradient = _computed(
            np.ascontiguousarray(values.detach().numpy()), np.ascontiguousarray(x.numpy()), learn=learn
        )
        if learn:
            ctx.save_for_backward(torch.from_numpy(gradient))
        return torch.from_numpy(found)

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None]:
        """Return the gradient in the raw parameters."""
        (gradient,) = ctx.saved_tensors
        return gradient * outer[0][:, None], None


def log_density(network: Network, x: Tensor, context: Tensor) -> Tensor:
    """Return ln p(x | context), shape (n,), of x, shape (n, 2), and context, shape (n, n_context)."""
    inputs = torch.stack([pad(context, (0, 1)), torch.cat([context, x[:, :1]], dim=-1)])
    if inputs.dtype == torch.float32 and not inputs.is_cuda:
        values = network.aligned(inputs)
        both: Tensor = SplineDensity.apply(values.flatten(0, 1), x.T.flatten())  # type: ignore[no-untyped-call]
        return both.view(2, -1).sum(dim=0) - _LOG_2PI
    z, log_slope = network.splines(inputs).call_and_ladj(x.T)
    result: Tensor = (log_slope - 0.5 * z.square()).sum(dim=0) - _LOG_2PI
    return result


def draw(network: Network, z: Tensor, context: Tensor) -> Tensor:
    """Return x, shape (n, 2), of normal numbers z, shape (n, 2), and context, shape (n, n_context)."""
    x1 = network.invert(pad(context, (0, 1)), z[:, 0], 0)
    x2 = network.invert(torch.cat([context, x1[:, None]], dim=-1), z[:, 1], 1)
    return torch.stack([x1, x2], dim=-1)


@dataclass(frozen=True, slots=True, eq=False)
class Adam:
    """Adam (arXiv:1412.6980) with weight decay: ``torch.optim.Adam(fused=True)``, step for step.

    The class of torch looks at groups, hooks and compilers in every step, and imports torch's compiler, which
    takes a second, before the first one.
    """

    parameters: list[Tensor]  # Changed in place, by their ``grad``
    # Running means of the gradients and of their squares
    first: list[Tensor]
    second: list[Tensor]
    steps: list[Tensor]  # Number of steps so far, one number per parameter, as the kernel takes it
    weight_decay: float

    @classmethod
    def of(cls, parameters: list[Tensor], weight_decay: float) -> Adam:
        """Return the state before the first step."""
        first, second = ([torch.zeros_like(p, requires_grad=False) for p in parameters] for _ in range(2))
        return cls(
            parameters, first, second, [torch.zeros((), device=p.device) for p in parameters], weight_decay
        )

    def step(self, rate: float, momentum: float) -> None:
        """Change the parameters by one step."""
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        with torch.no_grad():
            torch._foreach_add_(self.steps, 1.0)
            torch._fused_adam_(
                self.parameters,
                gradients,
                self.first,
                self.second,
                [],
                self.steps,
                lr=rate,
                beta1=momentum,
                beta2=_SECOND,
                weight_decay=self.weight_decay,
                eps=_SMALL,
                amsgrad=False,
                maximize=False,
            )

    def to_arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return the running means and the number of steps as named arrays."""
        groups = {"first": self.first, "second": self.second, "step": self.steps[:1]}
        return {f"{name}{i}": t.cpu().numpy() for name, group in groups.items() for i, t in enumerate(group)}

    def take(self, arrays: dict[str, np.ndarray[Any, Any]]) -> None:
        """Go on from the arrays of `to_arrays`."""
        for i, step in enumerate(self.steps):
            self.first[i].copy_(torch.from_numpy(arrays[f"first{i}"]))
            self.second[i].copy_(torch.from_numpy(arrays[f"second{i}"]))
            step.copy_(torch.from_numpy(arrays["step0"]))


def limit_norm(parameters: list[Tensor], largest: float) -> None:
    """Scale the gradients down to a largest norm of all of them, as ``torch.nn.utils.clip_grad_norm_``."""
    gradients = [p.grad for p in parameters if p.grad is not None]
    norm = torch.linalg.vector_norm(torch.stack(torch._foreach_norm(gradients)))
    torch._foreach_mul_(gradients, torch.clamp(largest / (norm + 1e-6), max=1.0))
