"""What else the particles of one sample could weigh: replicas, extrapolation, channels and their theory."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from gammastar import accept, predict
from gammastar.core.records import FloatArray, Sample
from gammastar.pipeline import extrapolated
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.producing import Production
from gammastar.spectrum import Trend

__all__ = ["BAND", "PART", "Factors", "factors_of", "members_of", "rows_of", "with_factors"]

PART, BAND = "part|", "band|"
"""Of arrays: the signal of a channel, (n, k), and the signal at both edges of its theory, (2, n, k)."""

Factors = dict[str, FloatArray]
"""Factors on the weights of a sample, shape (r, n), by what they stand for."""


def members_of(production: Production, mass: float, n: int) -> npt.NDArray[np.int64] | None:
    """Return which part of a production makes each of `n` particles; None where there is one part alone."""
    channel = production.channel
    if isinstance(channel, predict.Scaled):
        channel = channel.channel
    if not isinstance(channel, predict.Mixture) or not isinstance(production.parts[0], predict.VirtualPhoton):
        return None
    return channel.members(mass, n)


def factors_of(production: Production, mass: float, sample: Sample) -> Factors:
    """Return all factors on the particles that a production made at one mass.

    Returns
    -------
    Factors
        ``signal_variations``: replicas of the kinematics. ``extrapolation``: the continued trend, for
        measured photons alone. With theory beside the photons ``part|<group>``, which picks the particles of
        one channel, and ``band|<group>``, both edges of its theory.
    """
    found: Factors = {}
    replicas = production.channel.replicas(mass, sample)
    if replicas is not None:
        found["signal_variations"] = replicas
    trend = extrapolated.alternatives(production.trend, mass, sample)
    members = members_of(production, mass, len(sample.weight))
    if trend is not None:
        found["extrapolation"] = trend if members is None else np.where(members == 0, trend, 1.0)
    if members is None:
        return found
    for i, part in enumerate(production.parts):
        own = members == i
        found[f"{PART}{part.group}"] = own[np.newaxis].astype(np.float64)
        band = part.band(mass, sample) if own.any() else None
        if band is not None:
            found[f"{BAND}{part.group}"] = np.where(own, band, 1.0)
    return found


def with_factors(sample: Sample, factors: Factors) -> Sample:
    """Return the sample with the factors as replicas, or the sample itself if there are none."""
    if not factors:
        return sample
    return accept.Replicated.of(sample, np.concatenate(list(factors.values())))


def rows_of(found: accept.AcceptedYield, factors: Factors) -> Arrays:
    """Return what the replicas of a yield mean, by the names of `factors_of`.

    ``extrapolation`` becomes a relative error (k,), ``part|<group>`` a signal (k,); the others stay (r, k).
    """
    if found.replicas is None:
        return {}
    row: dict[str, Any] = {}
    start = 0
    for name, weights in factors.items():
        rows = found.replicas[start : start + len(weights)]
        start += len(weights)
        if name == "extrapolation":
            row[name] = Trend.relative_error(found.signal, rows)
        else:
            row[name] = rows[0] if name.startswith(PART) else rows
    return row
