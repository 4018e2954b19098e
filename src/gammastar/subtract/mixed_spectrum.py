"""Subtraction of the mixed-event background, normalised to the like-sign pairs."""

from __future__ import annotations

import numpy as np

from gammastar.core.axes import filled, flow_free
from gammastar.core.errors import UserError
from gammastar.core.records import PairHists, Spectrum
from gammastar.subtract.same_sign import Coarse, regions

__all__ = ["mixed_spectrum"]


def mixed_spectrum(hists: PairHists, mixed: PairHists, *, coarse: Coarse | None = None) -> Spectrum:
    """Subtract the mixed-event background, normalised to the like-sign pairs (B4).

    Parameters
    ----------
    hists : PairHists
        Data.
    mixed : PairHists
        Mixed pairs on the same axes.
    coarse : mapping of axis name to edges, optional
        Regions of the normalisation; by default everything is one region.

    Returns
    -------
    Spectrum
        Quantity "counts".

    Notes
    -----
    B = a M₊₋, a = √(ΣN₊₊ ΣN₋₋/(ΣM₊₊ ΣM₋₋)); the error of a, Var a/a² = 1/4ΣN₊₊ + 1/4ΣN₋₋ + the same of the
    mixed pairs, is common to a region. PHENIX, arXiv:0912.0244. The smooth background stands in the variance
    of +- cells that hold fewer pairs than it.
    """
    if tuple(hists.os.axes) != tuple(mixed.os.axes):
        msg = "mixed_spectrum: data and mixed pairs have different axes"
        raise UserError(msg)
    region = regions(hists.os.axes, coarse)
    member = np.eye(int(region.max(initial=0)) + 1)[region]
    (os, var_os), (shape, var_shape) = flow_free(hists.os), flow_free(mixed.os)
    scale2, relative = np.ones(member.shape[1]), np.zeros(member.shape[1])
    for hist, power in ((hists.pp, 1), (hists.mm, 1), (mixed.pp, -1), (mixed.mm, -1)):
        value, variance = (part @ member for part in flow_free(hist))
        if (value <= 0).any():
            msg = "mixed_spectrum: a region has no like-sign pairs of one charge; widen `coarse`"
            raise UserError(msg)
        scale2 = scale2 * value**power
        relative = relative + variance / value**2 / 4
    a = np.sqrt(scale2)[region]
    size = a * shape
    # a cell without a pair still fluctuates: its variance is at least that of the expected background
    mean_weight = var_os.sum() / os.sum() if os.sum() > 0 else 1.0
    var_os = np.maximum(var_os, size * mean_weight)
    common = (np.outer(size, size) * relative[region]) * (region[:, None] == region)
    cov = np.diag(var_os + a**2 * var_shape) + (common + common.T) / 2
    hist = filled(tuple(hists.os.axes), os - size, np.diag(cov))
    shape_of = tuple(len(axis) for axis in hists.os.axes)
    return Spectrum(hist, cov, "counts", None, (os > 0).reshape(shape_of))
