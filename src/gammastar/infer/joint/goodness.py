"""Whether a joint likelihood describes the measured pairs of its window at all."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy.stats import gamma

from gammastar.core.records import FloatArray
from gammastar.infer.joint.expectation import Arrays, arrays_of
from gammastar.infer.joint.fits import fit
from gammastar.infer.joint.limits import TOY_PRECISION, draw_joint
from gammastar.infer.joint.model import JointData, JointModel

TOYS = 200


@dataclass(frozen=True, slots=True)
class PairsFit:
    """Comparison of the fit of the pairs with the saturated model, whose expectations are the counts."""

    statistic: float  # 2 ln of the ratio of the likelihoods, constraints included, without signal
    # Its mean and standard deviation in pseudo-experiments at the fit
    expected: float
    spread: float
    p_value: float  # From the Γ distribution of this mean and spread
    pairs: float  # Measured opposite-sign pairs


def pairs_fit(model: JointModel, *, rng: np.random.Generator, n_toys: int = TOYS) -> PairsFit:
    """Return how well a window without signal describes its pairs; the search is left out.

    Notes
    -----
    S. Baker and R. D. Cousins, Nucl. Instrum. Meth. 221 (1984) 437. With few pairs in a bin the statistic is
    no χ². A sum of the terms of many bins is near enough to a Γ distribution (F. E. Satterthwaite, Biometrics
    Bull. 2 (1946) 110) that a few hundred pseudo-experiments tell p-values far below one over their number.
    """
    none = np.zeros(0)  # of any signal: its strength is zero
    alone = replace(
        model,
        signal=np.zeros((len(model.pairs), 0)),
        background=none,
        observed=none,
        in_situ=model.response,
    )
    arrays, data = arrays_of(alone), alone.data
    found = fit(arrays, data, 0.0)
    toys = _statistics(arrays, draw_joint(arrays, found.point, n_toys, rng))
    seen, mean, variance = 2.0 * float(found.value[0]), float(toys.mean()), float(toys.var(ddof=1))
    p = float(gamma.sf(seen, mean**2 / variance, scale=variance / mean)) if variance > 0 else 1.0
    return PairsFit(seen, mean, float(np.sqrt(variance)), p, float(model.counts[0].sum()))


def _statistics(arrays: Arrays, data: JointData) -> FloatArray:
    return 2.0 * fit(arrays, data, 0.0, precision=TOY_PRECISION).value
