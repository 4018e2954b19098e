"""The zuko flow that is trained, the device that it is trained on, and the same flow compiled at one mass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numba
import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray
from gammastar.flow.bijection import Bijection, inside_limits, to_unbounded

if TYPE_CHECKING:
    import torch

BOUND = 5.0  # zuko's splines act on [-5, 5] standard deviations and are the identity outside
_LOG_2PI = math.log(2.0 * math.pi)
_REACH, _STEPS = 8.0, 16  # range of x1 and nodes per standard deviation, between which knots are straight

Knots: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


def has_cuda() -> bool:
    """Return whether torch can train on a CUDA device here."""
    import torch

    return bool(torch.cuda.is_available())


def device_of(name: str) -> torch.device:
    """Return the device of a name: "auto" is a CUDA device if there is one, else the processor."""
    import torch

    if name == "auto":
        return torch.device("cuda" if has_cuda() else "cpu")
    if name.startswith("cuda") and not has_cuda():
        msg = f"device = {name!r}: no CUDA device is available; use 'cpu' or 'auto'"
        raise PhysicsError(msg)
    return torch.device(name)


@contextmanager
def one_thread() -> Iterator[None]:
    """Run torch on one thread inside the context: the matrices are small, and more threads only wait."""
    import torch

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
    import torch
    from zuko.flows import NSF

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


def log_density(flow: Any, x: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Return ln p(x | context), shape (n,), of x, shape (n, 2), and context, shape (n, n_context)."""
    result: torch.Tensor = flow(context).log_prob(x) if len(x) else x.new_zeros(0)
    return result


def draw(flow: Any, z: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Return x, shape (n, 2), of normal numbers z, shape (n, 2), and context, shape (n, n_context)."""
    result: torch.Tensor = flow(context).transform.inv(z)
    return result


@dataclass(frozen=True, slots=True, eq=False)
class OneMass:
    """p(pt, energy) of a flow at one mass."""

    mass: float  # [GeV]
    bijection: Bijection
    first: Knots  # x, z and slope at the knots of the spline of x1, shape (1, k)
    # Those of x2 at equidistant x1; between two of them the knots are straight, which keeps the spline
    # monotone: a flow of its own, so that density and draws fit each other exactly. It differs from that of
    # the network by 1e-4 of a standard deviation, shape (n_nodes, k)
    second: Knots

    @classmethod
    def of(cls, mass: float, bijection: Bijection, flow: Any) -> OneMass:
        """Return a zuko flow, in double precision, at one mass [GeV] inside the range of the training."""
        import torch

        context = torch.from_numpy(bijection.condition(np.array([mass])))
        node = np.linspace(-_REACH, _REACH, int(2 * _REACH * _STEPS) + 1)
        x = torch.from_numpy(np.stack([node, np.zeros_like(node)], axis=1))
        with torch.inference_mode():
            spline = flow.transform.transforms[0].meta(context.expand(len(x), -1), x).base
            knots = [t.numpy() for t in (spline.horizontal, spline.vertical, spline.derivatives)]
        x1, z1, slope1 = (np.ascontiguousarray(k[:1, 0]) for k in knots)
        x2, z2, slope2 = (np.ascontiguousarray(k[:, 1]) for k in knots)
        return cls(mass, bijection, (x1, z1, slope1), (x2, z2, slope2))

    def __call__(self, normal: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return pt and energy [GeV], shape (n,), of normal numbers, shape (n, 2)."""
        x = np.empty((len(normal), 2))
        _draw(np.asarray(normal, dtype=np.float64), self.first, self.second, x)
        return self.bijection.inverse(np.broadcast_to(self.mass, len(x)), x)

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
        logs = np.empty(len(log_jacobian))
        for row, one in zip(result, flows, strict=True):
            scores = (one.bijection.transverse, one.bijection.longitudinal)
            maps = tuple((score.x, score.z, score.slope) for score in scores)
            _log_density(u[0], u[1], maps, one.first, one.second, logs)
            row[inside] = log_jacobian + logs
        return result


@numba.njit(cache=True)
def _place(knots, value):  # type: ignore[no-untyped-def]
    """Return the bin of increasing knots that holds a value; the outermost bin beyond them."""
    low, high = 0, len(knots) - 1
    while high - low > 1:
        middle = (low + high) // 2
        if knots[middle] < value:
            low = middle
        else:
            high = middle
    return low


@numba.njit(cache=True)
def _between(rows, j, share, k):  # type: ignore[no-untyped-def]
    """Return knot k between the nodes j and j + 1."""
    return rows[j, k] + share * (rows[j + 1, k] - rows[j, k])


@numba.njit(cache=True)
def _around(at, knots, axis, value):  # type: ignore[no-untyped-def]
    """Return x0, z0, width, height and both slopes of the bin that holds a value of x (axis 0) or z (1)."""
    x, z, slope = knots
    if len(x) == 1:
        k = _place(x[0] if axis == 0 else z[0], value)
        return x[0, k], z[0, k], x[0, k + 1] - x[0, k], z[0, k + 1] - z[0, k], slope[0, k], slope[0, k + 1]
    place = min(max((at + _REACH) * _STEPS, 0.0), len(x) - 1.0)
    j = min(int(place), len(x) - 2)
    share = place - j
    rows = x if axis == 0 else z
    k, high = 0, rows.shape[1] - 1
    while high - k > 1:
        middle = (k + high) // 2
        if _between(rows, j, share, middle) < value:
            k = middle
        else:
            high = middle
    x0, z0 = _between(x, j, share, k), _between(z, j, share, k)
    width, height = _between(x, j, share, k + 1) - x0, _between(z, j, share, k + 1) - z0
    return x0, z0, width, height, _between(slope, j, share, k), _between(slope, j, share, k + 1)


@numba.njit(cache=True)
def _to_data(z, around):  # type: ignore[no-untyped-def]
    """Return x of a normal number in its bin; the identity beyond the bound."""
    if not abs(z) < BOUND:
        return z
    x0, z0, width, height, d0, d1 = around
    secant, rise = height / width, z - z0
    bend = rise * (d0 + d1 - 2.0 * secant)
    a, b, c = height * (secant - d0) + bend, height * d0 - bend, secant * rise
    return x0 + 2.0 * c / (b + math.sqrt(max(b * b + 4.0 * a * c, 0.0))) * width


@numba.njit(cache=True)
def _to_normal(x, around):  # type: ignore[no-untyped-def]
    """Return the normal number z of x in its bin, and dz/dx."""
    x0, z0, width, height, d0, d1 = around
    secant, t = height / width, (x - x0) / width
    mixed = t * (1.0 - t)
    bottom = secant + (d0 + d1 - 2.0 * secant) * mixed
    top = secant * secant * (d1 * t * t + 2.0 * secant * mixed + d0 * (1.0 - t) * (1.0 - t))
    return z0 + height * (secant * t * t + d0 * mixed) / bottom, top / (bottom * bottom)


@numba.njit(cache=True)
def _score(u, knots):  # type: ignore[no-untyped-def]
    """Return `Gaussianiser.forward` of one value, and its slope: straight beyond the outermost knots."""
    x, z, slope = knots
    k, last = _place(x, u), len(x) - 1
    if u <= x[0]:
        return z[0] + (u - x[0]) * slope[0], slope[0]
    if u >= x[last]:
        return z[last] + (u - x[last]) * slope[last], slope[last]
    return _to_normal(u, (x[k], z[k], x[k + 1] - x[k], z[k + 1] - z[k], slope[k], slope[k + 1]))


@numba.njit(cache=True)
def _log_density(u1, u2, maps, first, second, out):  # type: ignore[no-untyped-def]
    """Fill in ln p of the unbounded variables of `bijection.to_unbounded`."""
    for i in range(len(u1)):
        x1, rise1 = _score(u1[i], maps[0])
        x2, rise2 = _score(u2[i], maps[1])
        z1, z2, slope = x1, x2, rise1 * rise2
        if abs(x1) < BOUND:
            z1, more = _to_normal(x1, _around(x1, first, 0, x1))
            slope *= more
        if abs(x2) < BOUND:
            z2, more = _to_normal(x2, _around(x1, second, 0, x2))
            slope *= more
        out[i] = math.log(slope) - 0.5 * (z1 * z1 + z2 * z2) - _LOG_2PI


@numba.njit(cache=True)
def _draw(normal, first, second, out):  # type: ignore[no-untyped-def]
    """Fill in x of normal numbers, shape (n, 2)."""
    for i in range(len(normal)):
        x1 = _to_data(normal[i, 0], _around(0.0, first, 1, normal[i, 0]))
        out[i, 0] = x1
        out[i, 1] = _to_data(normal[i, 1], _around(x1, second, 1, normal[i, 1]))
