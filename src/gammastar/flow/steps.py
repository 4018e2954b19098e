"""The steps of the optimiser: which pairs they take, at which rate, and on which device they run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from gammastar.core.errors import PhysicsError
from gammastar.flow.options import FlowOptions

__all__ = ["Order", "Part", "device_of", "gradient", "has_cuda", "held_out_loss", "learning_rate"]

_WARM_UP = 0.2  # share of the steps of the OneCycle schedule with a rising rate
_MOMENTUM = (0.85, 0.95)  # Adam's first moment runs against the rate
_CHUNK = 16_384
_TRIES = 3  # passes before a graph is recorded, in which the libraries choose their kernels

LogDensity: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Gradient: TypeAlias = Callable[[Tensor], Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Tensors of the training or of the validation sample; `offset` is −Σ w ln|Jacobian| / Σ w."""

    x: Tensor
    context: Tensor
    weight: Tensor
    offset: float

    def to(self, device: torch.device) -> Part:
        """Return the same sample on another device."""
        return Part(self.x.to(device), self.context.to(device), self.weight.to(device), self.offset)


@dataclass(frozen=True, slots=True)
class Order:
    """Which pairs each step takes: permutations by pass, of a seed, so that any epoch can be entered."""

    seed: int
    n: int
    batch: int
    steps: int

    def epoch(self, epoch: int, device: torch.device) -> Iterator[Tensor]:
        """Yield the indices of each step of an epoch."""
        first = epoch * self.steps * self.batch
        last = first + self.steps * self.batch
        passes = range(first // self.n, (last - 1) // self.n + 1)
        index = np.concatenate([np.random.default_rng([self.seed, k]).permutation(self.n) for k in passes])
        index = index[first - passes[0] * self.n :][: last - first]
        yield from torch.split(torch.from_numpy(index).to(device), self.batch)


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


def learning_rate(step: int, n_steps: int, options: FlowOptions) -> tuple[float, float]:
    """Return learning rate and first momentum of Adam at a step.

    Notes
    -----
    ``schedule = "one-cycle"``: a cosine up from 1/25 of the rate in a fifth of the steps and down to 1e-5 of
    it (arXiv:1708.07120); "constant": as in Appendix A of the data-driven paper.
    """
    peak = options.learning_rate
    if options.schedule == "constant":
        return peak, 0.9
    turn = max(_WARM_UP * n_steps, 2.0) - 1.0
    rising = step <= turn
    share = step / turn if rising else min((step - turn) / max(n_steps - turn, 1.0), 1.0)
    start, end = (peak / 25.0, peak) if rising else (peak, peak / 2.5e5)
    first, last = _MOMENTUM[::-1] if rising else _MOMENTUM
    weight = 0.5 * (1.0 + math.cos(math.pi * share))
    return end + (start - end) * weight, last + (first - last) * weight


def held_out_loss(log_density: LogDensity, part: Part) -> float:
    """Return −Σ w ln p / n of a sample, with the Jacobian."""
    with torch.no_grad():  # in parts, for the memory
        pieces = [
            -(w * log_density(x, c)).sum()
            for x, c, w in zip(
                *(torch.split(t, _CHUNK) for t in (part.x, part.context, part.weight)), strict=True
            )
        ]
    return float(torch.stack(pieces).sum()) / len(part.weight) + part.offset


def gradient(
    parameters: list[Tensor], log_density: LogDensity, train: Part, options: FlowOptions, batch: int
) -> Gradient:
    """Return the function that takes the indices of a batch and leaves the gradients in the parameters.

    It returns the loss. On a CUDA device its kernels, hundreds of some microseconds each, are recorded once
    and started together; the numbers are those of single starts.

    Parameters
    ----------
    parameters : list of Tensor
    log_density : callable
        ln p(x | context) with these parameters.
    train : Part
    options : FlowOptions
        `clip` limits the norm of the gradient.
    batch : int
        Number of indices of each call.
    """

    def plain(index: Tensor) -> Tensor:
        for tensor in parameters:
            tensor.grad = None
        x, context, weight = train.x[index], train.context[index], train.weight[index]
        loss = -(weight * log_density(x, context)).mean()
        torch.autograd.backward(loss)
        if options.clip > 0:
            torch.nn.utils.clip_grad_norm_(parameters, options.clip)
        return loss.detach()

    return _recorded(plain, train, batch) if train.x.is_cuda else plain


def _recorded(plain: Gradient, train: Part, batch: int) -> Gradient:
    """Return a function recorded as a CUDA graph, for indices of one length."""
    fixed = torch.arange(batch, device=train.x.device) % len(train.weight)
    aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):  # as torch.cuda.graph asks for
        for _ in range(_TRIES):
            plain(fixed)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = plain(fixed)

    def replayed(index: Tensor) -> Tensor:
        fixed.copy_(index)
        graph.replay()
        return result

    return replayed
