"""From where a rate holds to the target of a detector: scaling with A, depth, spin state."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from gammastar import accept, predict
from gammastar.config import Accept
from gammastar.core.errors import SteeringError
from gammastar.core.records import BoolArray, Sample
from gammastar.physics.polarisation import FRAMES, TRANSVERSE, Spin, SpinState
from gammastar.physics.spin_density import SpinDensities
from gammastar.physics.stand import Stand
from gammastar.pipeline.context import Context
from gammastar.pipeline.producing import Production

__all__ = ["carried", "law", "spins_of"]


def law(ctx: Context, production: Production) -> accept.Measured:
    """Return where the rate holds, how it is carried to a detector's target, and the spin state."""
    section, predicting = ctx.steering.accept, ctx.steering.predict
    if section is None or predicting is None:
        msg = "[predict] and [accept] are needed for expected events"
        raise SteeringError(msg)
    scaling = section.target_scaling
    if scaling == "power" or (scaling is None and predicting.source == "theory"):
        scaling = "per_interaction"  # the power of A is in the weights, as it may depend on pt
    return accept.Measured(production.exposure, scaling, spins=spins_of(section, production.spin))


def spins_of(section: Accept, measured: SpinDensities | None = None) -> tuple[Spin, ...]:
    """Return the spin state of the photons, and those whose yields with it span its error.

    The measured one and its shifts, or that of the steering.
    Without `longitudinal_sigma` photons that are transverse along the axis of each frame in turn: a Dalitz
    decay makes its photon transverse along an axis that no measurement of the photon alone knows.
    """
    if measured is not None:
        return (measured, *measured.shifted())
    sigma, centre = section.longitudinal_sigma, section.longitudinal
    if sigma is None:
        others = [SpinState(TRANSVERSE, frame) for frame in FRAMES]
    else:
        ends = np.clip([centre - sigma, centre + sigma], 0.0, 1.0).tolist() if sigma > 0 else []
        others = [SpinState(end, section.spin_frame) for end in ends]
    return (SpinState(centre, section.spin_frame), *others)


def carried(
    sample: Sample,
    named: tuple[str, Stand],
    section: Accept,
    measured: tuple[float, BoolArray | None],
    rng: np.random.Generator,
) -> tuple[Sample, float]:
    """Return the sample as produced in a detector's target, and the relative error of the scaling with A.

    `measured` is the nucleus of the measurement and which particles, (n,), it made; None for all of them.
    Theory beside it counts per interaction on any nucleus.
    """
    name, detector = named
    sigma = 0.0
    if section.target_scaling == "power" and section.alpha is not None:
        points = section.alpha if isinstance(section.alpha, tuple) else ((0.0, section.alpha),)
        pt, alpha = np.array(points).T
        a_measured, own = measured
        scaled, sigma = predict.on_nucleus(
            sample,
            a_measured,
            detector.target.a,
            lambda x: np.interp(x, pt, alpha),
            alpha_inelastic=section.alpha_inelastic or 0.0,
            alpha_sigma=section.alpha_sigma,
        )
        sample = (
            scaled if own is None else replace(scaled, weight=np.where(own, scaled.weight, sample.weight))
        )
    length = section.interaction_length
    if isinstance(length, dict):
        length = length.get(name)
    if length is not None:
        sample = predict.in_depth(sample, detector.target.thickness, length, rng)
    return sample, sigma
