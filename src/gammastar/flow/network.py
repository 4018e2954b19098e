"""The zuko flow that is trained, and the device that it is trained on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from zuko.flows import NSF

from gammastar.core.errors import PhysicsError


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


def spline_flow(
    n_context: int, *, bins: int, hidden: int, layers: int, rng: np.random.Generator | None = None
) -> Any:
    """Return ``zuko.flows.NSF`` of one autoregressive step, p(x1 | context) p(x2 | x1, context).

    The weights are random, of the generator, and the splines close to the identity.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0 if rng is None else int(rng.integers(2**62)))
        flow = NSF(
            2,
            n_context,
            transforms=1,
            bins=bins,
            hidden_features=(hidden,) * layers,
            activation=torch.nn.SiLU,
        )
    last = flow.transform.transforms[0].hyper[-1]
    with torch.no_grad():
        last.weight.mul_(0.1)
        last.bias.zero_()
    return flow


def log_density(flow: Any, x: Tensor, context: Tensor) -> Tensor:
    """Return ln p(x | context), shape (n,), of x, shape (n, 2), and context, shape (n, n_context)."""
    result: Tensor = flow(context).log_prob(x) if len(x) else x.new_zeros(0)
    return result


def draw(flow: Any, z: Tensor, context: Tensor) -> Tensor:
    """Return x, shape (n, 2), of normal numbers z, shape (n, 2), and context, shape (n, n_context)."""
    result: Tensor = flow(context).transform.inv(z)
    return result
