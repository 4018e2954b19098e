"""A spline flow at one mass: both splines in closed form, without torch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax

from gammastar.core.records import FloatArray
from gammastar.flow.bijection import Bijection, inside_limits, to_unbounded

__all__ = ["BOUND", "LOG_RANGE", "OneMass", "Perceptrons"]

BOUND = 5.0  # the splines act on [-5, 5] standard deviations and are the identity outside
LOG_RANGE = math.log(1e3)  # slopes and bins lie within factors of 1000
_LOG_2PI = math.log(2.0 * math.pi)
_REACH, _STEPS = 8.0, 16  # range of x1 and nodes per standard deviation, between which knots are straight

Knots: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]
Bins: TypeAlias = tuple[FloatArray, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]


@dataclass(frozen=True, slots=True, eq=False)
class Perceptrons:
    """Two perceptrons side by side, one for each factor of p(x1 | m) p(x2 | x1, m).

    Attributes
    ----------
    weights : tuple of NDArray, each of shape (2, n_in, n_out)
    biases : tuple of NDArray, each of shape (2, 1, n_out)
        The last layer gives the 3 n_bins − 1 parameters of a rational-quadratic spline. The input is the
        context followed by x1, which the first perceptron sees as zero. silu between the layers.
    """

    weights: tuple[npt.NDArray[np.float32], ...]
    biases: tuple[npt.NDArray[np.float32], ...]

    @property
    def bins(self) -> int:
        """Number of bins of each spline."""
        return (int(self.weights[-1].shape[-1]) + 1) // 3

    def knots(self, inputs: FloatArray, factor: int) -> Knots:
        """Return x, z and slopes dz/dx at the knots of the spline of a factor, each (n, n_bins + 1).

        Parameters
        ----------
        inputs : NDArray, shape (n, n_in)
        factor : {0, 1}

        Notes
        -----
        Rational-quadratic splines of C. Durkan et al., arXiv:1906.04032, with the limits on bins and slopes
        of zuko: widths are softmax(v/(1 + 2|v|/ln 1000)), slopes exp(v/(1 + |v|/ln 1000)).
        """
        values = np.asarray(inputs, dtype=np.float32)
        for layer, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if layer:
                values = values * expit(values)
            values = values @ weight[factor] + bias[factor]
        bins, n = self.bins, len(values)
        sizes = values[:, : 2 * bins].reshape(n, 2, bins)
        sizes = softmax(sizes / (1.0 + np.abs(sizes) * (2.0 / LOG_RANGE)), axis=-1)
        edges = np.full((n, 2, bins + 1), -BOUND)
        edges[..., 1:] += 2.0 * BOUND * np.cumsum(sizes, axis=-1, dtype=np.float64)
        slope = np.ones((n, bins + 1))
        inner = values[:, 2 * bins :]
        slope[:, 1:-1] = np.exp(inner / (1.0 + np.abs(inner) / LOG_RANGE))
        return edges[:, 0], edges[:, 1], slope


@dataclass(frozen=True, slots=True, eq=False)
class OneMass:
    """p(pt, energy) of a flow at one mass.

    Attributes
    ----------
    mass : float [GeV]
    bijection : Bijection
    first : three arrays, each of shape (1, k)
        x, z and slope at the knots of the spline of x1.
    second : three arrays, each of shape (n_nodes, k)
        Those of x2 at equidistant x1; between two of them the knots are straight, which keeps the spline
        monotone: a flow of its own, so that density and draws fit each other exactly. It differs from that
        of the network by 1e-4 of a standard deviation.
    """

    mass: float
    bijection: Bijection
    first: Knots
    second: Knots

    @classmethod
    def of(cls, mass: float, bijection: Bijection, network: Perceptrons) -> OneMass:
        """Return the flow of a network at one mass [GeV].

        Raises
        ------
        PhysicsError
            If the mass lies outside the range of the training sample.
        """
        context = bijection.condition(np.array([mass]))
        node = np.linspace(-_REACH, _REACH, int(2 * _REACH * _STEPS) + 1)
        inputs = np.concatenate([np.repeat(context, len(node), axis=0), node[:, None]], axis=1)
        return cls(
            mass, bijection, network.knots(np.pad(context, ((0, 0), (0, 1))), 0), network.knots(inputs, 1)
        )

    def __call__(self, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of normal numbers, shape (n, 2)."""
        x1 = _to_data(normal[:, 0], self._around(np.zeros(len(normal)), self.first, 1, normal[:, 0]))
        x2 = _to_data(normal[:, 1], self._around(x1, self.second, 1, normal[:, 1]))
        return self.bijection.inverse(np.broadcast_to(self.mass, x1.shape), np.stack([x1, x2], axis=-1))

    def log_prob(self, pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return ln p(pt, energy), p in GeV⁻², shape (n,); −inf outside the physical limits."""
        result: FloatArray = self.log_probs([self], pt, energy)[0]
        return result

    @staticmethod
    def log_probs(flows: Sequence[OneMass], pt: FloatArray, energy: FloatArray) -> FloatArray:
        """Return `log_prob` of several flows of one mass and beam, shape (k, n)."""
        mass, beam = np.full(np.shape(pt), flows[0].mass), flows[0].bijection.beam_energy
        result = np.full((len(flows), len(mass)), -np.inf)
        inside = inside_limits(mass, pt, energy, beam)
        with np.errstate(divide="ignore"):
            *u, log_jacobian = to_unbounded(mass[inside], pt[inside], energy[inside], beam)
        edge = ~np.isfinite(log_jacobian)  # closer to a limit than a float can tell
        u[0][edge], u[1][edge], log_jacobian[edge] = 0.0, 0.0, -np.inf
        for row, one in zip(result, flows, strict=True):
            row[inside] = log_jacobian + one._log_density(*u)
        return result

    def _log_density(self, u1: FloatArray, u2: FloatArray) -> FloatArray:
        """Return ln p of the unbounded variables of `bijection.to_unbounded`."""
        x1, total = self.bijection.transverse.forward(u1)
        x2, log_slope = self.bijection.longitudinal.forward(u2)
        total += log_slope
        for at, knots, x in ((x1, self.first, x1), (x1, self.second, x2)):
            z, log_slope = _to_normal(x, self._around(at, knots, 0, x))
            total += log_slope - 0.5 * np.square(z)
        return total - _LOG_2PI

    @staticmethod
    def _around(at: FloatArray, knots: Knots, axis: int, values: FloatArray) -> Bins:
        """Return x0, z0, width, height and both slopes of the bins that hold the values, each (n,).

        `axis` says what the values are: 0 for x, 1 for z.
        """
        nodes = len(knots[0])
        if nodes == 1:
            k = np.clip(np.searchsorted(knots[axis][0], values) - 1, 0, knots[axis].shape[1] - 2)
            (x0, z0, d0), (x1, z1, d1) = ([column[0][k + i] for column in knots] for i in (0, 1))
            return x0, z0, x1 - x0, z1 - z0, d0, d1
        place = np.clip((at + _REACH) * _STEPS, 0.0, nodes - 1.0)
        j = np.minimum(place.astype(np.intp), nodes - 2)
        share = place - j
        inner = knots[axis][:, 1:-1]
        edges = inner[j]
        edges += share[:, None] * (inner[j + 1] - edges)
        k = (edges < values[:, None]).sum(axis=1)

        def mixed(column: FloatArray, place: npt.NDArray[np.intp]) -> FloatArray:
            low = column[j, place]
            return np.asarray(low + share * (column[j + 1, place] - low))

        (x0, z0, d0), (x1, z1, d1) = ([mixed(column, k + i) for column in knots] for i in (0, 1))
        return x0, z0, x1 - x0, z1 - z0, d0, d1


def _to_data(z: FloatArray, around: Bins) -> FloatArray:
    """Return x of normal numbers in their bins; the identity beyond the bound."""
    x0, z0, width, height, d0, d1 = around
    secant, rise = height / width, z - z0
    bend = rise * (d0 + d1 - 2.0 * secant)
    a, b, c = height * (secant - d0) + bend, height * d0 - bend, secant * rise
    share = 2.0 * c / (b + np.sqrt(np.maximum(b**2 + 4.0 * a * c, 0.0)))
    return np.where(np.abs(z) < BOUND, x0 + share * width, z)


def _to_normal(x: FloatArray, around: Bins) -> tuple[FloatArray, FloatArray]:
    """Return the normal number z of x in its bin, and ln dz/dx."""
    x0, z0, width, height, d0, d1 = around
    secant, t = height / width, (x - x0) / width
    inside = np.abs(x) < BOUND
    t = np.where(inside, t, 0.5)
    mixed = t * (1.0 - t)
    bottom = secant + (d0 + d1 - 2.0 * secant) * mixed
    z = z0 + height * (secant * t**2 + d0 * mixed) / bottom
    top = np.square(secant) * (d1 * t**2 + 2.0 * secant * mixed + d0 * (1.0 - t) ** 2)
    return np.where(inside, z, x), np.where(inside, np.log(top / np.square(bottom)), 0.0)
