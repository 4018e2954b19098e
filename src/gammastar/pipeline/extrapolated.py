"""The error of the extrapolated part of a signal: how well the simulation describes the measured part."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from gammastar.core.pairs import MatchedPairs
from gammastar.core.records import FloatArray, Sample
from gammastar.core.rng import stream
from gammastar.core.whole import atomic
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context, axes_of
from gammastar.pipeline.learning import TrainingSet
from gammastar.predict import VirtualPhoton
from gammastar.spectrum import Trend, fit_trend
from gammastar.store.guarded import read_tensors

__all__ = [
    "FILE",
    "alternatives",
    "measured_trend",
    "of_rate",
    "read_trend",
    "trend_of",
    "write_trend",
]

FILE = "extrapolation.safetensors"
KINEMATICS = 4000  # particles of one mass: the measured part to one per cent


def measured_trend(ctx: Context, training: TrainingSet, matched: MatchedPairs) -> Trend:
    """Return the trend of measured over simulated density inside the measured domain."""
    section = ctx.steering.spectrum
    beam = np.inf if section is None else section.beam_energy
    edges = np.asarray(axes_of(ctx.steering.unfold, ctx.steering.select)[0].edges)
    own = training.measured & (training.mass > edges[0]) & (training.mass < edges[-1])
    data = np.stack([training.mass, training.pt, training.energy], axis=1)[own]
    true = matched.true
    inside = training.in_domain(*true.T) & (true[:, 2] < beam)
    found = fit_trend((data, training.reference[own]), (true[inside], matched.weight[inside]), edges, beam)
    (power, width), errors = found.slopes, np.sqrt(np.diag(found.cov))
    ctx.book.numbers["measured over simulated density, slopes in ln mT and y*^2"] = (
        f"{power:.3f} ± {errors[0]:.3f}, {width:.4f} ± {errors[1]:.4f}"
    )
    ctx.book.methods["error of the extrapolated part"] = (
        "step from the simulated shape to the trend of measured over simulated density (in ln mT and y*^2) "
        "continued outside the measured domain, and the error of that trend"
    )
    return found


def trend_of(ctx: Context, made: Any, training: Any) -> Trend | None:
    """Return the trend of a run, fitted once; that of the record in a reinterpretation."""
    if made.trend is None and made.matched is not None:
        made.trend = measured_trend(ctx, training, made.matched)
    found: Trend | None = made.trend
    return found


def write_trend(folder: Path, trend: Trend) -> None:
    """Write ``extrapolation.safetensors``."""
    with atomic(folder / FILE) as temporary:
        save_file({k: np.ascontiguousarray(v) for k, v in trend.arrays().items()}, temporary)


def read_trend(folder: Path) -> Trend | None:
    """Read the trend of a run; None if the run kept none.

    Raises
    ------
    InputFileError
        If the file is damaged.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    return Trend.of(read_tensors(path, {"mass": 1, "norm": 1, "slopes": 1, "cov": 2, "beam_energy": 1}))


def alternatives(trend: Trend | None, mass: float, sample: Sample) -> FloatArray | None:
    """Return factors on the particles of a sample, shape (3, n), or None without a trend."""
    if trend is None:
        return None
    pt, energy = (np.asarray(c, dtype=np.float64) for c in (sample.p4.pt, sample.p4.E))
    return trend.factors(np.full(len(pt), mass), pt, energy, sample.in_domain)


def of_rate(channel: VirtualPhoton, trend: Trend, masses: FloatArray, seed: int) -> Arrays:
    """Return the measured part of a rate and the relative error of the whole from what is extrapolated.

    Parameters
    ----------
    channel : VirtualPhoton
    trend : Trend
    masses : NDArray, shape (n,) [GeV]
        Where the channel is not known, the measured part is nan and the error zero.
    seed : int
        Of the run.

    Returns
    -------
    Arrays
        ``measured_part``, ``extrapolation`` and ``extrapolation_step``, each (n,). The last one is the
        relative change of the rate if the trend of measured over simulated density went on outside the
        measured domain; its size is part of the error.

    Notes
    -----
    As for a yield, with every particle accepted: `Trend.relative_error` of the sum of weights.
    """
    part, (error, step) = np.full(len(masses), np.nan), np.zeros((2, len(masses)))
    low, high = channel.mass_range
    for i in np.flatnonzero((masses >= low) & (masses <= high)):
        sample = channel.produce(float(masses[i]), n=KINEMATICS, rng=stream(seed, "measured part", int(i)))
        factors = alternatives(trend, float(masses[i]), sample)
        total = float(sample.weight.sum())
        if factors is None or not total > 0:
            continue
        part[i] = sample.weight[sample.in_domain].sum() / total
        sums = factors @ sample.weight[:, None]
        error[i] = Trend.relative_error(np.array([total]), sums)[0]
        step[i] = sums[0, 0] / total - 1.0
    return {"measured_part": part, "extrapolation": error, "extrapolation_step": step}
