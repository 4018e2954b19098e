"""The flow of the data-driven paper, from zuko's transforms: the preset to compare with."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from scipy.special import ndtri
from torch import Tensor
from zuko.flows import MaskedAutoregressiveTransform
from zuko.transforms import LULinearTransform, MonotonicRQSTransform

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Rng
from gammastar.core.sampling import Sampler, mixed, uniform
from gammastar.flow.network import inside_limits, one_thread
from gammastar.flow.options import FlowOptions, TrainingReport

_LOG = logging.getLogger(__name__)
_BOUND = 3.0  # the splines' range; the paper gives none, this is the default of the library that it names
_CHUNK = 16_384
_ROUNDS = 200  # of redrawing unphysical points
_LOG_2PI = math.log(2.0 * math.pi)


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


def initial_paper_network(options: FlowOptions, rng: Rng) -> PaperNetwork:
    """Return a network with random weights of a generator; torch's own state is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**62)))
        return PaperNetwork(options.steps, options.bins, options.hidden, options.layers)


def _other_normal(normal: FloatArray, attempt: int) -> FloatArray:
    """Return normal numbers, shape (n, 2), that follow from the given ones but are independent."""
    word = np.ascontiguousarray(normal, dtype=np.float64).view(np.uint64)
    seed = mixed(word[:, 0] ^ mixed(word[:, 1] + np.uint64(attempt)))
    bits = mixed(np.stack([seed, mixed(seed)], axis=-1))
    return np.asarray(ndtri(uniform(bits) + 2.0**-54), dtype=np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class PaperFlow(Sampler):
    """A trained flow of the paper's architecture, of masses between `edges`; made by `fit_paper`.

    Notes
    -----
    Section III.C of Allison and Blinov. Logarithms keep pt and energy positive, but not inside
    √(m² + pt²) < E < E_beam: unphysical draws are made again and their share is logged.
    """

    scaler: Standardiser
    network: PaperNetwork
    beam_energy: float
    edges: tuple[float, float]
    report: TrainingReport

    @property
    def mass_range(self) -> tuple[float, float]:
        """Lowest and highest mass that can be sampled [GeV]."""
        return self.edges

    def sample(self, mass: FloatArray, rng: Rng) -> tuple[FloatArray, FloatArray]:
        """Draw one (pt, energy) per entry of `mass`; see `Sampler.sample`."""
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        return self.transform(mass, rng.standard_normal((mass.size, 2)))

    def transform(self, mass: FloatArray, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of masses, shape (n,), and normal numbers, shape (n, 2).

        The same numbers give the same physical point, so that events have numbers (see `draw_events`).

        Notes
        -----
        Where the point is unphysical, other normal numbers follow from the bits of the given ones, again and
        again; all of the block is computed, so that each point keeps its place in the matrix products.
        """
        mass = np.atleast_1d(np.asarray(mass, dtype=np.float64))
        self._check(mass)
        context = self.scaler.condition(mass)
        pt, energy = self.scaler.inverse(self._in_chunks(self.network.draw, normal, context))
        for attempt in range(1, _ROUNDS):
            left = ~inside_limits(mass, pt, energy, self.beam_energy)
            if not left.any():
                return pt, energy
            if attempt == 1:
                _LOG.info("%.3g of the draws are unphysical and drawn again", left.mean())
            x = self._in_chunks(self.network.draw, _other_normal(normal, attempt), context)
            pt, energy = (
                np.where(left, new, old)
                for new, old in zip(self.scaler.inverse(x), (pt, energy), strict=True)
            )
        msg = f"the paper's flow gives no physical point at mass = {mass[left][0]:.6g} GeV; train it longer"
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
            result: FloatArray = torch.cat(parts).double().numpy()
        return result

    def to_tensors(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return all numbers of the flow as named arrays."""
        tensors = {f"network.{name}": t.numpy() for name, t in self.network.named_parameters()}
        return tensors | {"scaler.centre": self.scaler.centre, "scaler.scale": self.scaler.scale}

    def card(self) -> dict[str, Any]:
        """Return what is not a tensor, ready for JSON."""
        report = {k: v for k, v in asdict(self.report).items() if k != "min_slope"}
        return {
            "preset": "paper",
            "beam_energy": self.beam_energy,
            "mass_range": list(self.mass_range),
            "architecture": dict(self.network.architecture),
            "report": report,
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray[Any, Any]], card: Mapping[str, Any]) -> PaperFlow:
        """Return the flow of the arrays of `to_tensors` and the mapping of `card`."""
        with torch.random.fork_rng(devices=[]):
            network = PaperNetwork(**{key: int(value) for key, value in card["architecture"].items()})
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                parameter.copy_(torch.from_numpy(np.array(tensors[f"network.{name}"])))
        low, high = (float(edge) for edge in card["mass_range"])
        return cls(
            Standardiser(np.array(tensors["scaler.centre"]), np.array(tensors["scaler.scale"])),
            network.requires_grad_(False),
            float(card["beam_energy"]),
            (low, high),
            TrainingReport.from_mapping({**card["report"], "min_slope": math.nan}),
        )
