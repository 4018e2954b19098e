"""Normal numbers and kinematics at a mass: quantile maps, the zuko flow between them, both at one mass."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numba
import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Rng, effective_size

if TYPE_CHECKING:
    import torch

_KNOTS = 48  # quantiles of a large sample
_SCORE_MAX = 3.4  # outermost quantile, in standard deviations
BOUND = 5.0  # zuko's splines act on [-5, 5] standard deviations and are the identity outside
_LOG_2PI = math.log(2.0 * math.pi)
_REACH, _STEPS = 8.0, 16  # range of x1 and nodes per standard deviation, between which knots are straight

Knots: TypeAlias = tuple[FloatArray, FloatArray, FloatArray]


def inside_limits(mass: FloatArray, pt: FloatArray, energy: FloatArray, beam_energy: float) -> BoolArray:
    """Return where (mass, pt, energy) lies inside the physical limits."""
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

    Interpolant: Gregory and Delbourgo, IMA J. Numer. Anal. 2 (1982) 123; slopes: Fritsch and Butland (1984).
    """

    # Quantiles, their normal scores, and dz/dx; all strictly increasing or positive, shape (n_knots,)
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
        steepness = d1 * t**2 + 2.0 * secant * mixed + d0 * (1.0 - t) ** 2
        log_slope = 2.0 * np.log(secant) + np.log(steepness) - 2.0 * np.log(bottom)
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
    order = np.argsort(x)
    xs, ws = x[order], weight[order]
    cdf = (np.cumsum(ws) - 0.5 * ws) / ws.sum()
    # With signed weights the empirical distribution function falls in places: take the middle of envelopes.
    upper = np.maximum.accumulate(cdf)
    lower = np.minimum.accumulate(cdf[::-1])[::-1]
    return np.interp(probability, 0.5 * (upper + lower), xs)


def make_gaussianiser(x: FloatArray, weight: FloatArray) -> Gaussianiser:
    """Return the map of `x` to normal scores through weighted quantiles, fewer of a small sample."""
    n_effective = max(effective_size(weight), 10.0)
    reach = min(_SCORE_MAX, -float(ndtri(5.0 / max(n_effective, 30.0))))
    z = np.linspace(-reach, reach, int(np.clip(n_effective / 200.0, 8, _KNOTS)))
    knots = _weighted_quantiles(x, weight, ndtr(z))
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
    """The map (pt, energy) → (x1, x2) at given mass, for one beam energy."""

    beam_energy: float  # [GeV]
    mass_range: tuple[float, float]  # [GeV]
    # Of mass, of u1 = logit(pt / pt_max) and of u2 = logit(y / y_max), with pt_max = √(E_beam² − m²), y the
    # rapidity in the laboratory and y_max = arcosh(E_beam / m_T): every (x1, x2) is inside the limits
    context: Gaussianiser
    transverse: Gaussianiser
    longitudinal: Gaussianiser
    # Of sine and cosine of the position in the range of masses, beside the two smooth features: kinematics
    # change within tens of MeV at an end point of Dalitz decays or a narrow resonance
    octaves: int = 0

    def condition(self, mass: FloatArray) -> FloatArray:
        """Return the context features of the mass, shape (n, 2 + 2 octaves).

        Normal score, position t in the range from −1 to 1, sin and cos of π 2^k t/2 for k = 0, 1, …
        """
        low, high = self.mass_range
        outside = ~((mass >= low) & (mass <= high))
        if outside.any():
            raise PhysicsError(
                f"mass = {float(mass[outside][0]):.6g} GeV ({int(outside.sum())} of {mass.size} values) lies "
                f"outside the range [{low:.6g}, {high:.6g}] GeV where the flow was trained; stay inside "
                "it or train on a wider sample"
            )
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
        raise PhysicsError(f"device = {name!r}: no CUDA device is available; use 'cpu' or 'auto'")
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


def spline_flow(n_context: int, *, bins: int, hidden: int, layers: int, rng: Rng | None = None) -> Any:
    """Return ``zuko.flows.NSF`` of one step, p(x1 | context) p(x2 | x1, context), close to the identity."""
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
    return flow(context).log_prob(x) if len(x) else x.new_zeros(0)


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
    """Fill in ln p of the unbounded variables of `to_unbounded`."""
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
