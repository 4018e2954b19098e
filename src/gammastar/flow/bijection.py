"""The map between (pt, energy) and two unbounded variables that are nearly normal, at given mass."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.interpolate import PchipInterpolator
from scipy.special import expit, ndtr, ndtri

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, effective_size

_KNOTS = 48  # quantiles of a large sample
_SCORE_MAX = 3.4  # outermost quantile, in standard deviations


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

    Notes
    -----
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
    order = np.argsort(x)
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
    """
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
