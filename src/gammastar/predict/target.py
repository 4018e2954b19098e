"""From the measured target to another: dependence on the nucleus with pT, and depth in a thick target."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import BoolArray, FloatArray, Sample
from gammastar.physics.detector import Target

OMITTED = (
    "first inelastic interaction of each proton only; secondary cascades, which would add soft particles, "
    "and the energy loss of the beam are omitted"
)


def in_depth(sample: Sample, thickness: float, length: float, rng: np.random.Generator) -> Sample:
    """Return the sample with production points along a thick target.

    Notes
    -----
    The depth of the first interaction is exponential, cut at the end of the target; see `OMITTED`.
    """
    if not (thickness > 0 and np.isfinite(length) and length > 0):
        raise PhysicsError(
            f"in_depth: thickness {thickness!r} and interaction length {length!r} m must be positive"
        )
    inside = -np.expm1(-thickness)
    depth = -length * np.log1p(-inside * rng.uniform(size=len(sample.weight)))
    origin = sample.origin.copy()
    origin[:, 2] += depth
    return replace(sample, origin=origin)


def on_nucleus(
    sample: Sample,
    a_measured: float,
    a_wanted: float,
    alpha: Callable[[FloatArray], FloatArray],
    *,
    alpha_inelastic: float,
    alpha_sigma: float = 0.0,
) -> tuple[Sample, float]:
    """Return the sample per interaction on another nucleus, and its relative uncertainty."""
    if not (a_measured > 0 and a_wanted > 0 and alpha_sigma >= 0):
        raise PhysicsError(
            f"on_nucleus: A = {a_measured!r}, {a_wanted!r} and sigma = {alpha_sigma!r} must be positive"
        )
    ratio = np.log(a_wanted / a_measured)
    exponent = np.asarray(alpha(np.asarray(sample.p4.pt, dtype=np.float64)), dtype=np.float64)
    weight = sample.weight * np.exp(ratio * (exponent - alpha_inelastic))
    return replace(sample, weight=weight), float(alpha_sigma * abs(ratio))


@dataclass(frozen=True)
class TargetTransfer:
    """How particles of one target become those of a detector's target."""

    # Points (pT [GeV], α) of σ ∝ A^α, straight between them; None leaves the weights
    alpha: Sequence[tuple[float, float]] | None = None
    # As in `on_nucleus`
    alpha_inelastic: float = 0.0
    alpha_sigma: float = 0.0
    # Interaction length [m] by the detector's name; others produce at the target's position
    depth: Mapping[str, float] | None = None

    def carry(
        self,
        sample: Sample,
        to: tuple[str, Target],
        measured: tuple[float, BoolArray | None],
        rng: np.random.Generator,
    ) -> tuple[Sample, float]:
        """Return the sample of a detector's target, and the relative error of the scaling with A."""
        (name, target), (a_measured, own), sigma = to, measured, 0.0
        if self.alpha is not None:
            pt, alpha = np.array(self.alpha).T
            scaled, sigma = on_nucleus(
                sample,
                a_measured,
                target.a,
                lambda x: np.interp(x, pt, alpha),
                alpha_inelastic=self.alpha_inelastic,
                alpha_sigma=self.alpha_sigma,
            )
            weight = scaled.weight if own is None else np.where(own, scaled.weight, sample.weight)
            sample = replace(sample, weight=weight)
        length = (self.depth or {}).get(name)
        if length is not None:
            sample = in_depth(sample, target.thickness, length, rng)
        return sample, sigma
