"""Further masses for the reach: the dark half runs again on a grid that follows the contour."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gammastar.core.errors import SteeringError
from gammastar.core.records import Exposure, FloatArray
from gammastar.infer.refinement import more_masses
from gammastar.pipeline.checkpoint import Arrays
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import Production
from gammastar.pipeline.search import Plane
from gammastar.pipeline.searching import accept_stage, detectors, predict_stage

__all__ = ["refined"]

ROUNDS = 4
Planes = tuple[Arrays, dict[str, Arrays]]


def refined(ctx: Context, made: Any, production: Production) -> Planes:
    """Return rates and yields, with masses added where the contour of any detector bends or ends.

    Parameters
    ----------
    ctx : Context
        ``[infer] refine`` bounds the number of added masses; 0 adds none.
    made : Products
        Its rates and yields are replaced if masses are added.
    production : Production

    Raises
    ------
    SteeringError
        Without rates or yields.
    """
    section, predicting = ctx.steering.infer, ctx.steering.predict
    if made.predicted is None or made.accepted is None:
        msg = "the sections [predict] and [accept] are missing: limits need their results"
        raise SteeringError(msg)
    planes: Planes = (made.predicted, made.accepted)
    if section is None or predicting is None or section.refine == 0:
        return planes
    first = len(planes[0]["mass"])
    for _ in range(ROUNDS):
        room = first + section.refine - len(planes[0]["mass"])
        new = _wanted(ctx, planes, production.exposure, room)
        if not len(new):
            break
        masses = np.unique(np.r_[planes[0]["mass"], new])
        ctx.tell("accept", None, f"{len(masses)} masses, {len(new)} of them new")
        denser = predicting.model_copy(update={"masses": tuple(masses.tolist())})
        run = replace(ctx, steering=ctx.steering.model_copy(update={"predict": denser}))
        predicted = predict_stage(run, production, made)
        planes = (predicted, accept_stage(run, production, predicted))
    made.predicted, made.accepted = planes
    added = len(planes[0]["mass"]) - first
    ctx.book.methods["masses of the reach"] = f"{first} of the grid, {added} where the contour bends or ends"
    return planes


def _wanted(ctx: Context, planes: Planes, exposure: Exposure, room: int) -> FloatArray:
    section, (predicted, accepted) = ctx.steering.infer, planes
    found: list[float] = []
    if section is None or room <= 0:
        return np.empty(0)
    for i, (name, detector) in enumerate(detectors(ctx).items()):
        plane = Plane(ctx, section, detector, predicted, accepted[name], exposure, main=i == 0)
        found += more_masses(plane.contour(), most=room).tolist()
    known = predicted["mass"]
    fresh = [m for m in dict.fromkeys(found) if np.abs(known / m - 1.0).min() > 1e-6]
    return np.array(fresh[:room])
