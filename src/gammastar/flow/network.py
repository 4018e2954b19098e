"""Spline flow between physical limits and a normal distribution: bijection and network."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from scipy.interpolate import PchipInterpolator
from scipy.special import expit
from scipy.stats import norm
from torch import Tensor
from torch.nn.functional import pad, silu
from zuko.transforms import MonotonicRQSTransform

from gammastar.core.axes import effective_size
from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray

__all__ = [
    "Bijection",
    "Gaussianiser",
    "Network",
    "density_at_one_mass",
    "draw",
    "initial_network",
    "inside_limits",
    "log_density",
    "make_bijection",
]

_BOUND = 5.0  # the splines act on [-5, 5] standard deviations and are the identity outside
_LOG_RANGE = math.log(1e3)  # of zuko's spline: slopes and bins lie within factors of 1000
_LOG_2PI = math.log(2.0 * math.pi)


_KNOTS = 48  # quantiles of a large sample
_SCORE_MAX = 3.4  # outermost quantile, in standard deviations


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the context: the matrices are small, and more threads only wait."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def inside_limits(mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float) -> BoolArray:
    """Return where (mass, pt, energy) lies inside the physical limits.

    Parameters
    ----------
    mass, pt, energy : NDArray, shape (n,) [GeV]
    beam_energy : float [GeV]

    Returns
    -------
    NDArray of bool, shape (n,)
        mass > 0, pt > 0, √(mass² + pt²) < energy < `beam_energy`.

    Examples
    --------
    >>> inside_limits(np.array([0.5, 0.5]), np.array([0.3, 0.3]), np.array([50.0, 0.55]), 400.0)
    array([ True, False])
    """
    with np.errstate(invalid="ignore"):
        inside: BoolArray = (
            (mass > 0) & (pt > 0) & (energy > np.hypot(mass, pt)) & (energy < beam_energy) & np.isfinite(mass)
        )
    return inside


@dataclass(frozen=True, slots=True, eq=False)
class Gaussianiser:
    """A monotone map of one variable to a normal score, through quantiles.

    Between the knots it is the monotone rational-quadratic interpolant with the slopes of PCHIP: smooth, and
    of closed form in both directions; outside it continues linearly.

    Attributes
    ----------
    x, z, slope : NDArray, shape (n_knots,)
        Quantiles, their normal scores, and dz/dx; all strictly increasing or positive.

    Notes
    -----
    Interpolant: Gregory and Delbourgo, IMA J. Numer. Anal. 2 (1982) 123; slopes: Fritsch and Butland (1984).
    """

    x: FloatArray
    z: FloatArray
    slope: FloatArray

    def __post_init__(self) -> None:
        good = (
            self.x.shape == self.z.shape == self.slope.shape
            and self.x.ndim == 1
            and len(self.x) >= 2
            and bool((np.diff(self.x) > 0).all() and (np.diff(self.z) > 0).all() and (self.slope > 0).all())
        )
        if not good:
            msg = "Gaussianiser: the knots must be at least two, strictly increasing, with positive slopes"
            raise PhysicsError(msg)

    def forward(self, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return the normal score z(x) and ln dz/dx."""
        k = np.clip(np.searchsorted(self.x, x) - 1, 0, len(self.x) - 2)
        x0, z0, d0, d1 = self.x[k], self.z[k], self.slope[k], self.slope[k + 1]
        width, height = self.x[k + 1] - x0, self.z[k + 1] - z0
        secant = height / width
        t = np.clip((x - x0) / width, 0.0, 1.0)
        mixed = t * (1.0 - t)
        bottom = secant + (d0 + d1 - 2.0 * secant) * mixed
        z = z0 + height * (secant * t**2 + d0 * mixed) / bottom
        log_slope = (
            2.0 * np.log(secant)
            + np.log(d1 * t**2 + 2.0 * secant * mixed + d0 * (1.0 - t) ** 2)
            - 2.0 * np.log(bottom)
        )
        # The linear continuation: t is clipped to the outermost knot, whose slope is already in log_slope.
        below, above = np.minimum(x - self.x[0], 0.0), np.maximum(x - self.x[-1], 0.0)
        return z + below * self.slope[0] + above * self.slope[-1], log_slope

    def inverse(self, z: FloatArray) -> FloatArray:
        """Return x(z)."""
        k = np.clip(np.searchsorted(self.z, z) - 1, 0, len(self.z) - 2)
        x0, z0, d0, d1 = self.x[k], self.z[k], self.slope[k], self.slope[k + 1]
        width, height = self.x[k + 1] - x0, self.z[k + 1] - z0
        secant = height / width
        rise = np.clip(z - z0, 0.0, height)
        bend = rise * (d0 + d1 - 2.0 * secant)
        a = height * (secant - d0) + bend
        b = height * d0 - bend
        c = -secant * rise
        t = -2.0 * c / (b + np.sqrt(np.maximum(b**2 - 4.0 * a * c, 0.0)))
        below, above = np.minimum(z - self.z[0], 0.0), np.maximum(z - self.z[-1], 0.0)
        result: FloatArray = x0 + width * t + below / self.slope[0] + above / self.slope[-1]
        return result


def _weighted_quantiles(x: FloatArray, weight: FloatArray, probability: FloatArray) -> FloatArray:
    order = np.argsort(x, kind="stable")
    xs, ws = x[order], weight[order]
    cdf = (np.cumsum(ws) - 0.5 * ws) / ws.sum()
    # With signed weights the empirical distribution function falls in places: take the middle of envelopes.
    upper = np.maximum.accumulate(cdf)
    lower = np.minimum.accumulate(cdf[::-1])[::-1]
    quantiles: FloatArray = np.interp(probability, 0.5 * (upper + lower), xs)
    return quantiles


def make_gaussianiser(x: FloatArray, weight: FloatArray) -> Gaussianiser:
    """Return the map of `x` to normal scores, from weighted quantiles.

    The quantiles are equidistant in normal score; a small sample gets fewer of them and a shorter range.

    Parameters
    ----------
    x, weight : NDArray, shape (n,)
        The sum of the weights must be positive; single weights may be negative.
    """
    n_effective = max(effective_size(weight), 10.0)
    reach = min(_SCORE_MAX, float(norm.isf(5.0 / max(n_effective, 30.0))))
    z = np.linspace(-reach, reach, int(np.clip(n_effective / 200.0, 8, _KNOTS)))
    knots = _weighted_quantiles(x, weight, norm.cdf(z))
    span = float(knots[-1] - knots[0])
    if not span > 1e-12 * max(abs(float(knots[0])), 1.0):  # one value only, e.g. a sample of one mass
        centre = float(np.median(x))
        return Gaussianiser(centre + np.array([-1.0, 1.0]), np.array([-1.0, 1.0]), np.ones(2))
    # Ties (discrete values) give equal quantiles: the first of each group stays.
    distinct = np.concatenate(([True], np.diff(np.maximum.accumulate(knots)) > 1e-9 * span))
    knots, z = knots[distinct], z[distinct]
    slope = np.asarray(PchipInterpolator(knots, z).derivative()(knots), dtype=np.float64)
    secant = np.diff(z) / np.diff(knots)
    slope[0], slope[-1] = secant[0], secant[-1]
    return Gaussianiser(knots, z, slope)


@dataclass(frozen=True, slots=True, eq=False)
class Bijection:
    """The map (pt, energy) → (x1, x2) at given mass, for one beam energy.

    Attributes
    ----------
    beam_energy : float [GeV]
    mass_range : (float, float) [GeV]
    context, transverse, longitudinal : Gaussianiser
        Of mass, of u1 = logit(pt / pt_max) and of u2 = logit(y / y_max), with pt_max = √(E_beam² − m²), y the
        rapidity in the laboratory and y_max = arcosh(E_beam / m_T): every (x1, x2) is inside the limits.
    octaves : int
        Of sine and cosine of the position in the range of masses, beside the two smooth features: kinematics
        change within tens of MeV at an end point of Dalitz decays or a narrow resonance.
    """

    beam_energy: float
    mass_range: tuple[float, float]
    context: Gaussianiser
    transverse: Gaussianiser
    longitudinal: Gaussianiser
    octaves: int = 0

    def condition(self, mass: FloatArray) -> FloatArray:
        """Return the context features of the mass, shape (n, 2 + 2 octaves).

        Normal score, position t in the range from −1 to 1, sin and cos of π 2^k t/2 for k = 0, 1, …

        Raises
        ------
        PhysicsError
            If a mass lies outside the range of the training sample.
        """
        low, high = self.mass_range
        outside = ~((mass >= low) & (mass <= high))
        if outside.any():
            msg = (
                f"mass = {float(mass[outside][0]):.6g} GeV ({int(outside.sum())} of {mass.size} values) lies "
                f"outside the range [{low:.6g}, {high:.6g}] GeV where the flow was trained; stay inside "
                "it or train on a wider sample"
            )
            raise PhysicsError(msg)
        position = 2.0 * (mass - low) / (high - low) - 1.0 if high > low else np.zeros_like(mass)
        result = np.empty((len(mass), 2 + 2 * self.octaves))
        result[:, 0], result[:, 1] = self.context.forward(mass)[0], position
        sine, cosine = np.sin(0.5 * np.pi * position), np.cos(0.5 * np.pi * position)
        for k in range(self.octaves):
            # the finer, the smaller: fast changes with the mass cost more of the weights' prior
            result[:, 2 + k], result[:, 2 + self.octaves + k] = 0.5**k * sine, 0.5**k * cosine
            sine, cosine = 2.0 * sine * cosine, 1.0 - 2.0 * sine**2  # of twice the angle
        return result

    def forward(self, mass: FloatArray, pt: FloatArray, energy: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return x, shape (n, 2), and ln |∂x/∂(pt, energy)| [ln GeV⁻²], shape (n,); all inside the limits."""
        u1, u2, log_jacobian = to_unbounded(mass, pt, energy, self.beam_energy)
        x1, log_slope1 = self.transverse.forward(u1)
        x2, log_slope2 = self.longitudinal.forward(u2)
        return np.stack([x1, x2], axis=-1), log_jacobian + log_slope1 + log_slope2

    def inverse(self, mass: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of x, shape (n, 2)."""
        u1, u2 = self.transverse.inverse(x[:, 0]), self.longitudinal.inverse(x[:, 1])
        return from_unbounded(mass, u1, u2, self.beam_energy)


def to_unbounded(
    mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return u1 = logit(pt/pt_max), u2 = logit(y/y_max) and ln |∂(u1, u2)/∂(pt, energy)|."""
    mt = np.hypot(mass, pt)
    pt_max = np.sqrt(beam_energy**2 - mass**2)
    y, y_max = np.arccosh(energy / mt), np.arccosh(beam_energy / mt)
    u1 = np.log(pt) - np.log(pt_max - pt)
    u2 = np.log(y) - np.log(y_max - y)
    pz = np.sqrt((energy - mt) * (energy + mt))  # dE/dy at fixed pt
    log_jacobian = np.log(pt_max / (pt * (pt_max - pt))) + np.log(y_max / (y * (y_max - y))) - np.log(pz)
    return u1, u2, log_jacobian


def from_unbounded(
    mass: FloatArray, u1: FloatArray, u2: FloatArray, beam_energy: float
) -> tuple[FloatArray, FloatArray]:
    """Return pt and energy [GeV] of (u1, u2): the inverse of `to_unbounded`."""
    pt_max = np.sqrt(beam_energy**2 - mass**2)
    # Rounding must not carry a point of the far tail over the edge.
    pt = pt_max * np.clip(expit(u1), 1e-300, 1.0 - 1e-12)
    mt = np.hypot(mass, pt)
    y = np.arccosh(np.maximum(beam_energy / mt, 1.0)) * expit(u2)
    energy = np.clip(mt * np.cosh(y), mt, np.nextafter(beam_energy, 0.0))
    return pt, energy


def make_bijection(
    mass: FloatArray,
    pt: FloatArray,
    energy: FloatArray,
    weight: FloatArray,
    *,
    beam_energy: float,
    mass_range: tuple[float, float],
    octaves: int = 0,
) -> Bijection:
    """Return the bijection fitted to a weighted sample that lies inside the limits."""
    u1, u2, _ = to_unbounded(mass, pt, energy, beam_energy)
    return Bijection(
        beam_energy=beam_energy,
        mass_range=mass_range,
        context=make_gaussianiser(mass, weight),
        transverse=make_gaussianiser(u1, weight),
        longitudinal=make_gaussianiser(u2, weight),
        octaves=octaves,
    )


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
