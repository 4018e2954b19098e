"""Feldman-Cousins intervals of a count by enumeration."""

import numpy as np
from scipy.special import gammaln, xlogy
from scipy.stats import poisson


def counting_interval(count, background, *, cl=0.90):
    """Return the interval of the signal.

    G. J. Feldman and R. D. Cousins, Phys. Rev. D 57 (1998) 3873, Tables IV and V. Their tables lengthen
    intervals so that the upper end does not rise with the background; this does not.
    """
    signal = np.arange(0.0, count + 12.0 + 8.0 * np.sqrt(count + background + 1.0), 0.005)
    n = np.arange(int(poisson.isf(1e-12, signal[-1] + background)) + 1)
    mean = (signal + background)[:, None]
    own = np.exp(xlogy(n, mean) - mean - gammaln(n + 1.0))
    best = np.maximum(n, background)
    ratio = np.log(np.maximum(own, 1e-300)) - (xlogy(n, best) - best - gammaln(n + 1.0))
    order = np.argsort(-ratio, axis=1, kind="stable")
    ranked = np.take_along_axis(own, order, axis=1)
    before = np.cumsum(ranked, axis=1) - ranked  # of what is ranked higher
    accepted = np.take_along_axis(before, np.argsort(order, axis=1), axis=1)[:, int(count)] < cl
    kept = signal[accepted]
    return float(np.round(kept[0], 3)), float(np.round(kept[-1], 3))
