"""Inference per detector: limits, reach in all and in the measured domain, discoveries, projections."""

from __future__ import annotations

import numpy as np

from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure, FloatArray
from gammastar.infer.limits import limits_at
from gammastar.pipeline import likelihood_files, reach_files
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.search import MEDIAN, Plane, Search
from gammastar.pipeline.searching import detectors
from gammastar.store.manifest import digest

__all__ = ["Search", "infer_stage", "limits_of"]


def infer_stage(
    ctx: Context, predicted: Arrays, accepted: dict[str, Arrays], exposure: Exposure
) -> dict[str, Search]:
    """Return limit and reach of every detector and write their files; the first one is the main one."""
    section = ctx.steering.infer
    if section is None:
        msg = "[infer] is needed for a reach"
        raise SteeringError(msg)
    found = {}
    for i, (name, detector) in enumerate(detectors(ctx).items()):
        ctx.tell("infer", None, detector.name)
        arrays = accepted[name]
        plane = Plane(ctx, section, detector, predicted, arrays, exposure, main=i == 0)
        search = plane.search()
        suffix = "" if i == 0 else f"_{name}"
        likelihood_files.write(ctx, search, plane, exposure, suffix=suffix)
        reach_files.write(ctx, search, suffix=suffix)
        found[name] = search
        ctx.book.methods[f"limit, {detector.name}"] = f"{search.limit.method}; {search.assumption}"
    content = digest({name: [s.reach.edges, s.measured.edges, s.limit.expected] for name, s in found.items()})
    ctx.book.done("infer", ctx.book.key(section, ctx.book.key_of("accept")), content)
    return found


def limits_of(search: Search, cl: float) -> float | FloatArray:
    """Return the median expected limit of a search at another confidence level.

    A number if the uncertainty of the signal is the same everywhere, else an array over masses and couplings.
    """
    total = np.full((1, 1), search.signal_sigma**2)
    for spread in search.spreads.values():
        total = total + spread**2
    _, expected, _ = limits_at(
        np.sqrt(total), search.background, search.background_sigma, "masked", cl=cl, **search.options
    )
    median: FloatArray = expected[..., MEDIAN]
    return float(median[0, 0]) if median.size == 1 else median
