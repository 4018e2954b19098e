"""Asymptotic CLs of a workspace, with our own fits: templates below zero are cut as in exact ones."""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from gammastar.core.records import FloatArray
from gammastar.infer.binned.fits import fitted
from gammastar.infer.binned.model import BinnedModel
from gammastar.infer.binned.toys import BinnedToys, statistic_of
from gammastar.infer.channel_limits import BANDS, cls_of
from gammastar.infer.toys import Convention

QTILDE = Convention("qtilde")


def binned_asymptotic(model: BinnedModel, strength: float) -> tuple[float, FloatArray]:
    """Return asymptotic CLs of a signal strength by q̃μ, observed (nan while masked) and expected.

    Notes
    -----
    G. Cowan et al., Eur. Phys. J. C 71 (2011) 1554, Eqs. 62 and 64 to 66; the Asimov data are those of
    the fit without signal.
    """
    counts, aux = model.counts[None, :], model.aux
    x = fitted(model, counts, aux, strength=0.0).x
    measured = np.where(np.isfinite(model.tau), model.tau * x, np.where(np.isfinite(model.width), x, aux))
    free = np.where(model.fixed, aux, measured)
    asimov = BinnedToys(np.maximum(model.expected(x), 0.0), free)
    root = float(np.sqrt(statistic_of(model, asimov, strength, QTILDE)[0]))
    expected = np.asarray(ndtr(-(root - BANDS)) / ndtr(BANDS), dtype=np.float64)
    if model.masked:
        return float("nan"), expected
    return cls_of(float(statistic_of(model, BinnedToys(counts, aux), strength, QTILDE)[0]), root), expected
