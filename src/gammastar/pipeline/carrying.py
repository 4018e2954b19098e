"""From where a rate holds to the target of a detector: scaling with A, depth, spin state."""

from __future__ import annotations

import numpy as np

from gammastar import accept, predict
from gammastar.config import Accept
from gammastar.core.errors import SteeringError
from gammastar.core.records import Sample
from gammastar.physics.stand import Stand
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import Production

__all__ = ["carried", "law"]


def law(ctx: Context, production: Production, longitudinal: float | None = None) -> accept.Measured:
    """Return where the rate holds, how it is carried to a detector's target, and the spin state."""
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        msg = "[predict] and [accept] are needed for expected events"
        raise SteeringError(msg)
    scaling = section.target_scaling
    if scaling == "power" or (scaling is None and predicting.source == "theory"):
        scaling = "per_interaction"  # the power of A is in the weights, as it may depend on pt
    share = section.longitudinal if longitudinal is None else longitudinal
    return accept.Measured(production.exposure, scaling, longitudinal=share)


def carried(
    sample: Sample,
    named: tuple[str, Stand],
    section: Accept,
    a_measured: float,
    rng: np.random.Generator,
) -> tuple[Sample, float]:
    """Return the sample as produced in a detector's target, and the relative error of the scaling with A."""
    name, detector = named
    sigma = 0.0
    if section.target_scaling == "power" and section.alpha is not None:
        points = section.alpha if isinstance(section.alpha, tuple) else ((0.0, section.alpha),)
        pt, alpha = np.array(points).T
        sample, sigma = predict.on_nucleus(
            sample,
            a_measured,
            detector.target.a,
            lambda x: np.interp(x, pt, alpha),
            alpha_inelastic=section.alpha_inelastic or 0.0,
            alpha_sigma=section.alpha_sigma,
        )
    length = section.interaction_length
    if isinstance(length, dict):
        length = length.get(name)
    if length is not None:
        sample = predict.in_depth(sample, detector.target.thickness, length, rng)
    return sample, sigma
