"""Limits and contours of the search: zero events in ee, one event in mumu, both together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from plane import SIGMAS, THRESHOLD, Plane
from scipy.stats import landau, norm

from gammastar import infer
from gammastar.core.records import FloatArray, Reach
from gammastar.core.sampling import stream

BACKGROUND = {"ee": 0.0094, "mumu": 0.016}  # medians, appendix B of the letter
KAPPA = {"ee": 4.0, "mumu": 1.125}
OBSERVED = {"ee": (), "mumu": (0.411,)}  # GeV; the mumu event is quoted from memory (arXiv:2303.08666)
BOUNDS = {"ee": (0.001, 0.75), "mumu": (0.212, 0.75)}  # GeV, of the mass; ranges are not published
LANDAU = (14.86e-3, 3.48e-3)  # location and scale in RooLandau's sense [GeV]
BERNSTEIN = (1.886e-2, 1.945e-1, 9.183e-1, 2.769e-1, 1.196e-1, 6.845e-2)
BERNSTEIN_RANGE = (0.215, 0.700)  # GeV, not published
NEAR = 6.0  # standard deviations from an observed event within which it can matter


def roo_landau(x: FloatArray, location: float = LANDAU[0], scale: float = LANDAU[1]) -> FloatArray:
    """Return the density that RooLandau means: scipy's with loc + ln(π/2) ξ and (π/2) ξ."""
    half = math.pi / 2
    return np.asarray(landau.pdf(x, location + math.log(half) * scale, half * scale))


def bernstein(x: FloatArray) -> FloatArray:
    """Return the density of the dimuon background, Eq. B1 of the letter; zero outside its range."""
    low, high = BERNSTEIN_RANGE
    u = (np.asarray(x) - low) / (high - low)
    inside = (u >= 0) & (u <= 1)
    u = np.clip(u, 0.0, 1.0)
    total = sum(c * math.comb(5, k) * u**k * (1 - u) ** (5 - k) for k, c in enumerate(BERNSTEIN))
    return np.asarray(np.where(inside, total / (sum(BERNSTEIN) / 6 * (high - low)), 0.0))


DENSITY = {"ee": roo_landau, "mumu": bernstein}


def channel(state: str, signal: float, mass: float, sigma: float) -> infer.Channel:
    """Return the published likelihood of one channel at one point of the plane."""
    return infer.unbinned_channel(
        state,
        signal=signal,
        background=BACKGROUND[state],
        densities=(norm(mass, sigma).pdf, DENSITY[state]),
        bounds=BOUNDS[state],
        events=OBSERVED[state],
        signal_sigma={"pot": SIGMAS["pot"]},
        background_sigma={f"b_{state}": math.log(KAPPA[state])},
    )


def zero_event_limit() -> float:
    """Return the limit on the nominal signal where no observed event lies near."""
    return float(infer.counting_limit(0, 0.0, signal_sigma=SIGMAS["pot"], method="exact"))


def expected_limits(states: Sequence[str]) -> FloatArray:
    """Return the limits at −2 … +2 standard deviations, protons on target randomised."""
    total = sum(BACKGROUND[state] for state in states)
    return infer.expected_limits(total, signal_sigma=SIGMAS["pot"], method="exact", randomise_pot=True)


@dataclass(frozen=True)
class Found:
    """A contour with what it was made from: signal and limit, shape (masses, couplings)."""

    reach: Reach
    signal: FloatArray
    limit: FloatArray


def observed_limit(
    signal: dict[str, float], mass: float, sigma: dict[str, float], *, precision: float = 0.02, seed: int = 1
) -> float:
    """Return the limit on the summed nominal signal from the unbinned likelihood."""
    rng = stream(seed, "limit", f"{mass:.6f}", f"{sum(signal.values()):.9e}")
    channels = [channel(state, signal[state], mass, sigma[state]) for state in signal]
    return infer.exact_limit(channels, rng=rng, precision=precision).events


def contour(plane: Plane, states: Sequence[str], *, modes: Sequence[str], precision: float = 0.02) -> Found:
    """Return the observed contour of one or both channels.

    The toys run only where an observed event lies within a few standard deviations of the mass; elsewhere
    the closed form holds. There the limit is found at five couplings between the ends of the region that
    the closed form would exclude, and interpolated.
    """
    signals = {state: plane.signal(state, modes) for state in states}
    total = np.sum(list(signals.values()), axis=0)
    limit = np.full_like(total, zero_event_limit())
    sigmas = {state: plane.resolution(state, modes) for state in states}
    for i, mass in enumerate(plane.mass):
        reached = np.flatnonzero(total[i] > 1.0)
        open_states = [state for state in states if mass > THRESHOLD[state]]
        if not reached.size or not _near(open_states, float(mass), {s: sigmas[s][i] for s in open_states}):
            continue
        points = np.unique(np.linspace(reached[0], reached[-1], 5).astype(int))
        values = [
            observed_limit(
                {s: float(signals[s][i, k]) for s in open_states},
                float(mass),
                {s: float(sigmas[s][i, k]) for s in open_states},
                precision=precision,
            )
            for k in points
        ]
        limit[i] = np.exp(np.interp(np.arange(total.shape[1]), points, np.log(values)))
    reach = infer.reach(plane.mass, plane.coupling, total / limit, np.ones(len(plane.mass)))
    return Found(replace(reach, limit=np.ones_like(reach.mass)), total, limit)


def _near(states: Sequence[str], mass: float, sigma: dict[str, FloatArray]) -> bool:
    """Return whether an observed event can matter at this mass."""
    widest = {state: np.nanmax(sigma[state], initial=1e-3) for state in states}
    return any(abs(event - mass) < NEAR * widest[state] for state in states for event in OBSERVED[state])


def expected_contour(plane: Plane, states: Sequence[str], *, modes: Sequence[str]) -> Reach:
    """Return the median expected contour with its bands."""
    total = np.sum([plane.signal(state, modes) for state in states], axis=0)
    limits = expected_limits(states)
    return infer.reach(plane.mass, plane.coupling, total, limits[2], expected=limits)


def edges_at(reach: Reach, mass: float) -> tuple[float, float]:
    """Return the outer edges of a contour at a mass, interpolated in the logarithm of the coupling."""
    good = np.isfinite(reach.edges[:, 0])
    masses = np.unique(reach.mass[good])
    low = [reach.edges[good & (reach.mass == m), 0].min() for m in masses]
    high = [reach.edges[good & (reach.mass == m), 1].max() for m in masses]
    return tuple(float(np.exp(np.interp(mass, masses, np.log(e), np.nan, np.nan))) for e in (low, high))


def notch(mass: FloatArray, edge: FloatArray, base: tuple[float, float]) -> tuple[float, float]:
    """Return depth [log10 of the coupling] and full width at half depth [GeV] of a notch in an edge.

    Measured from the straight line, in the logarithm of the coupling, between the edges at the masses `base`.
    """
    y = np.log10(edge)
    left, right = np.interp(base, mass, y)
    line = left + (right - left) * (mass - base[0]) / (base[1] - base[0])
    inside = (mass >= base[0]) & (mass <= base[1])
    x, deep = mass[inside], np.abs(y - line)[inside]
    depth, top = float(deep.max()), int(deep.argmax())
    ends = [
        float(np.interp(depth / 2, part_y, part_x))
        for part_y, part_x in ((deep[: top + 1], x[: top + 1]), (deep[top:][::-1], x[top:][::-1]))
    ]
    return depth, ends[1] - ends[0]


def histfactory(signal: dict[str, float], mass: float, sigma: dict[str, float]) -> dict[str, Any]:
    """Return one point of the plane as a pyhf workspace, and a warning about its use.

    Bins of σ/2 within ±5 σ around the mass and one for the rest of the range; the protons on target are one
    modifier of both channels.
    """
    channels, observations = [], []
    for state, events in signal.items():
        edges = mass + sigma[state] * np.linspace(-5, 5, 21)
        edges = edges[(edges > BOUNDS[state][0]) & (edges < BOUNDS[state][1])]
        shape = np.diff(norm(mass, sigma[state]).cdf(edges))
        grid = np.linspace(*BOUNDS[state], 20_001)
        cumulative = np.cumsum(DENSITY[state](grid))
        below = np.diff(np.interp(edges, grid, cumulative / cumulative[-1]))
        bins = {
            "signal": np.append(events * shape, events * (1 - shape.sum())),
            "background": BACKGROUND[state] * np.append(below, 1 - below.sum()),
        }
        names = {"signal": ("pot", math.exp(SIGMAS["pot"])), "background": (f"b_{state}", KAPPA[state])}
        samples = []
        for sample, values in bins.items():
            name, kappa = names[sample]
            data = {"hi": kappa, "lo": 1 / kappa}
            modifiers: list[dict[str, Any]] = [{"name": name, "type": "normsys", "data": data}]
            if sample == "signal":
                modifiers.append({"name": "mu", "type": "normfactor", "data": None})
            content = np.maximum(values, 1e-9).tolist()
            samples.append({"name": sample, "data": content, "modifiers": modifiers})
        counts = np.histogram(OBSERVED[state], edges)[0].tolist()
        observations.append({"name": state, "data": [*counts, len(OBSERVED[state]) - sum(counts)]})
        channels.append({"name": state, "samples": samples})
    parameters = [{"name": "mu", "bounds": [[0.0, 30.0]], "inits": [1.0]}]
    measurement = {"name": "na62_dump", "config": {"poi": "mu", "parameters": parameters}}
    total = sum(BACKGROUND[state] + len(OBSERVED[state]) for state in signal)
    return {
        "workspace": {
            "channels": channels,
            "observations": observations,
            "measurements": [measurement],
            "version": "1.0.0",
        },
        "warning": (
            f"background plus observation is {total:.3g} events: asymptotic limits of this file are too "
            "strong (1.40 instead of 2.49 events at n = 0); use toys or the exact engine"
        ),
    }
