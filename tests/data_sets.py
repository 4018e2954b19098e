"""Single data sets of toys, and −ln L with all constants, as pyhf has it."""

import numpy as np
from scipy.special import gammaln, xlogy

from gammastar.infer.binned.fits import negative_log
from gammastar.infer.toys import Toys


def one_of(toys, index, channels):
    """Return a single data set of toys."""
    offsets = toys.offsets[index * channels : (index + 1) * channels + 1]
    aux = toys.aux[index % len(toys.aux)][None, :]
    return Toys(toys.ratio[offsets[0] : offsets[-1]], offsets - offsets[0], aux)


def full_nll(model, x, counts, aux):
    """Return −ln L of data sets of a binned model, shape (sets,)."""
    gauss, counted = np.isfinite(model.width), np.isfinite(model.tau)
    perfect = (counts - xlogy(counts, counts) + gammaln(counts + 1.0)).sum(axis=1)
    widths = np.log(model.width[gauss] * np.sqrt(2.0 * np.pi)).sum()
    seen = aux[:, counted]
    measured = (gammaln(seen + 1.0) - seen * np.log(model.tau[counted])).sum(axis=1)
    return negative_log(model, x, counts, aux) + perfect + widths + measured


def joint_nll(arrays, point, data):
    """Return −ln L of data sets of a joint likelihood, shape (n,)."""
    return full_nll(arrays.binned, point.x, *arrays.data(data))
