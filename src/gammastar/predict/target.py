"""From the measured target to another: dependence on the nucleus with pT, and depth in a thick target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from gammastar.core.errors import PhysicsError
from gammastar.core.records import FloatArray, Sample

__all__ = ["OMITTED", "in_depth", "on_nucleus"]

OMITTED = (
    "first inelastic interaction of each proton only; secondary cascades, which would add soft particles, "
    "and the energy loss of the beam are omitted"
)


def in_depth(sample: Sample, thickness: float, length: float, rng: np.random.Generator) -> Sample:
    """Return the sample with production points along a thick target.

    Parameters
    ----------
    sample : Sample
    thickness : float
        Of the target in interaction lengths; inf for a dump.
    length : float
        Nuclear interaction length [m].
    rng : numpy.random.Generator

    Returns
    -------
    Sample
        Weights as before. Origins move downstream from where they were: the detector's target position must
        be the front face of the target.

    Notes
    -----
    The depth of the first interaction is exponential, cut at the end of the target; see `OMITTED`.
    """
    if not (thickness > 0 and np.isfinite(length) and length > 0):
        msg = f"in_depth: thickness {thickness!r} and interaction length {length!r} m must be positive"
        raise PhysicsError(msg)
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
    """Return the sample per interaction on another nucleus, and its relative uncertainty.

    Parameters
    ----------
    sample : Sample
    a_measured, a_wanted : float
        Mass numbers.
    alpha : callable
        pT [GeV] (n,) -> exponent of σ ∝ A^α; it rises with pT (NA60, arXiv:2012.14385).
    alpha_inelastic : float
        Exponent of the inelastic cross section.
    alpha_sigma : float
        Common uncertainty of α.

    Returns
    -------
    sample : Sample
        Weights times (A_wanted/A_measured)^(α(pT) − α_inelastic).
    relative : float
        alpha_sigma |ln(A_wanted/A_measured)|, common to all particles.
    """
    if not (a_measured > 0 and a_wanted > 0 and alpha_sigma >= 0):
        msg = f"on_nucleus: A = {a_measured!r}, {a_wanted!r} and sigma = {alpha_sigma!r} must be positive"
        raise PhysicsError(msg)
    ratio = np.log(a_wanted / a_measured)
    exponent = np.asarray(alpha(np.asarray(sample.p4.pt, dtype=np.float64)), dtype=np.float64)
    weight = sample.weight * np.exp(ratio * (exponent - alpha_inelastic))
    return replace(sample, weight=weight), float(alpha_sigma * abs(ratio))
