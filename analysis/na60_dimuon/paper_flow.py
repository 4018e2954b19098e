"""The flow of the data-driven paper, from zuko's transforms, to compare with.

Section III.C and Appendix A of Allison and Blinov: eight autoregressive rational-quadratic spline steps of
six bins with a linear mixing between them, conditioners of two hidden layers of 32, Adam at 1e-3 with weight
decay 1e-5, batches of 1024, 500 epochs of 5e4 pairs, 80 % for training. All epochs are run, and the best one
is kept.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from zuko.flows import MaskedAutoregressiveTransform
from zuko.transforms import LULinearTransform, MonotonicRQSTransform

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Rng
from gammastar.core.sampling import Sampler
from gammastar.flow import FlowOptions
from gammastar.flow.network import device_of, inside_limits, one_thread
from gammastar.flow.options import PairTable, split, validated
from gammastar.flow.training import Part, optimise

STEPS = 8
_LOG = logging.getLogger(__name__)
_BOUND = 3.0  # the splines' range; the paper gives none, this is the default of the library that it names
_CHUNK = 16_384
_ROUNDS = 200  # of redrawing unphysical points
_LOG_2PI = math.log(2.0 * math.pi)


def paper_options(**changes: Any) -> FlowOptions:
    """Return the training of the paper, with changes."""
    values: dict[str, Any] = {
        "bins": 6,
        "hidden": 32,
        "layers": 2,
        "epochs": 500,
        "epoch_size": 50_000,
        "learning_rate": 1e-3,
        "schedule": "constant",
        "clip": 0.0,
        "prior": 0.0,
        "patience": 500,
    }
    return FlowOptions(**(values | changes))


@dataclass(frozen=True, slots=True, eq=False)
class Standardiser:
    """Logarithms of mass, pt and energy, minus their mean, over their standard deviation."""

    # shape (3,)
    centre: FloatArray
    scale: FloatArray

    @classmethod
    def of(cls, mass: FloatArray, pt: FloatArray, energy: FloatArray, weight: FloatArray) -> Standardiser:
        """Return the map of a weighted sample."""
        logs = np.log(np.stack([mass, pt, energy]))
        share = weight / weight.sum()
        centre = logs @ share
        scale = np.sqrt(np.maximum((logs - centre[:, None]) ** 2 @ share, 0.0))
        return cls(centre, np.where(scale > 1e-12, scale, 1.0))

    def condition(self, mass: FloatArray) -> FloatArray:
        """Return the context, shape (n, 1)."""
        context: FloatArray = ((np.log(mass) - self.centre[0]) / self.scale[0])[:, None]
        return context

    def forward(
        self, mass: FloatArray, pt: FloatArray, energy: FloatArray
    ) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return x (n, 2), context (n, 1) and ln |∂x/∂(pt, energy)|."""
        logs = np.log(np.stack([pt, energy], axis=-1))
        log_jacobian = -logs.sum(axis=-1) - np.log(self.scale[1:]).sum()
        return (logs - self.centre[1:]) / self.scale[1:], self.condition(mass), log_jacobian

    def inverse(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV] of x, shape (n, 2)."""
        pt, energy = np.exp(np.clip(x * self.scale[1:] + self.centre[1:], -700.0, 700.0)).T
        return pt, energy


class PaperNetwork(torch.nn.Module):
    """Autoregressive spline steps with a linear mixing after each."""

    def __init__(self, steps: int, bins: int, hidden: int, layers: int, n_context: int = 1) -> None:
        super().__init__()
        self.architecture = {"steps": steps, "bins": bins, "hidden": hidden, "layers": layers}
        self.splines = torch.nn.ModuleList(
            MaskedAutoregressiveTransform(
                features=2,
                context=n_context,
                univariate=_bounded_spline,
                shapes=[(bins,), (bins,), (bins - 1,)],
                hidden_features=(hidden,) * layers,
                residual=True,
            )
            for _ in range(steps)
        )
        # each step exchanges the roles of pt and energy and then learns a mixing of the two
        self.mixing = torch.nn.Parameter(torch.eye(2).repeat(steps, 1, 1))

    @property
    def n_parameters(self) -> int:
        """Number of trained numbers."""
        return sum(parameter.numel() for parameter in self.parameters())

    def log_density(self, x: Tensor, context: Tensor) -> Tensor:
        """Return ln p(x | context), shape (n,)."""
        total = torch.zeros_like(x[:, 0])
        for spline, lu in zip(self.splines, self.mixing, strict=True):
            x, log_slope = spline(context).call_and_ladj(x)
            x = LULinearTransform(lu)(x.flip(-1))
            total = total + log_slope + lu.diagonal().abs().log().sum()
        return total - 0.5 * x.square().sum(dim=-1) - _LOG_2PI

    def draw(self, z: Tensor, context: Tensor) -> Tensor:
        """Return x of normal numbers z, shape (n, 2)."""
        for spline, lu in zip(reversed(self.splines), self.mixing.flip(0), strict=True):
            z = spline(context).inv(LULinearTransform(lu).inv(z).flip(-1))
        return z


def _bounded_spline(widths: Tensor, heights: Tensor, slopes: Tensor) -> MonotonicRQSTransform:
    return MonotonicRQSTransform(widths, heights, slopes, bound=_BOUND)


@dataclass(frozen=True, slots=True, eq=False)
class PaperFlow(Sampler):
    """A trained flow of the paper's architecture, of masses between `edges`; made by `fit_paper`.

    Logarithms keep pt and energy positive, but not inside √(m² + pt²) < E < E_beam: unphysical draws are made
    again and their share is logged.
    """

    scaler: Standardiser
    network: PaperNetwork
    beam_energy: float
    edges: tuple[float, float]

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self.edges

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`; see `Sampler.sample`."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        self._check(mass)
        pt, energy = np.zeros_like(mass), np.zeros_like(mass)
        left = np.arange(mass.size)
        for attempt in range(_ROUNDS):
            context = self.scaler.condition(mass[left])
            x = self._in_chunks(self.network.draw, rng.standard_normal((left.size, 2)), context)
            pt[left], energy[left] = self.scaler.inverse(x)
            left = left[~inside_limits(mass[left], pt[left], energy[left], self.beam_energy)]
            if not left.size:
                return pt, energy
            if attempt == 0:
                _LOG.info("%.3g of the draws are unphysical and drawn again", left.size / mass.size)
        msg = f"the paper's flow gives no physical point at mass = {mass[left[0]]:.6g} GeV; train it longer"
        raise PhysicsError(msg)

    def log_prob(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ln p(pt, energy | mass), p in GeV⁻², of the flow before the rejection; −inf at pt ≤ 0."""
        mass, pt, energy = (np.asarray(a, dtype=np.float64) for a in np.broadcast_arrays(mass, pt, energy))
        self._check(mass)
        result = np.full(mass.shape, -np.inf)
        good = (pt > 0) & (energy > 0)
        x, context, log_jacobian = self.scaler.forward(mass[good], pt[good], energy[good])
        result[good] = self._in_chunks(self.network.log_density, x, context) + log_jacobian
        return result

    def _check(self, mass: FloatArray) -> None:
        low, high = self.mass_range
        outside = ~((mass >= low) & (mass <= high))
        if outside.any():
            raise PhysicsError(
                f"mass = {float(mass[outside][0]):.6g} GeV lies outside the range [{low:.6g}, {high:.6g}] GeV"
            )

    def _in_chunks(self, function: Any, values: FloatArray, context: FloatArray) -> FloatArray:
        with torch.inference_mode(), one_thread():
            x, c = (torch.split(torch.from_numpy(a).float(), _CHUNK) for a in (values, context))
            parts = [function(a, b) for a, b in zip(x, c, strict=True)]
            return torch.cat(parts).double().numpy()


def fit_paper(
    pairs: PairTable,
    *,
    beam_energy: float,
    options: FlowOptions | None = None,
    steps: int = STEPS,
    rng: Rng,
) -> PaperFlow:
    """Train the flow of the paper on weighted pairs; arguments and errors as `gammastar.flow.fit_pairs`."""
    options = paper_options() if options is None else options
    table, mass_range = validated(pairs, beam_energy, options)
    train, validation = split(table, options.validation, rng)
    scaler = Standardiser.of(train.mass, train.pt, train.energy, train.weight)
    device = device_of(options.device)
    with torch.random.fork_rng(devices=[]):  # torch's own state is left alone
        torch.manual_seed(int(rng.integers(2**62)))
        network = PaperNetwork(steps, options.bins, options.hidden, options.layers).to(device)
    parts = []
    for part in (train, validation):
        x, context, log_jacobian = scaler.forward(part.mass, part.pt, part.energy)
        parts.append(Part.of(x, context, part.weight, log_jacobian).to(device))
    with one_thread():
        optimise(list(network.parameters()), network.log_density, parts, options, rng=rng)
    return PaperFlow(scaler, network.cpu().requires_grad_(False), beam_energy, mass_range)
