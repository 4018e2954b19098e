"""Modifiers of HistFactory that tests and checks put into workspaces: shapes, counts, like-sign channels."""

import numpy as np

from gammastar.infer.histfactory.workspaces import sample


def paired_shape(name, nominal, up, down):
    """Return a shape with its normalisation split off: one nuisance moves both."""
    bins, high, low = (np.asarray(values, dtype=np.float64) for values in (nominal, up, down))
    factors = [float(side.sum() / bins.sum()) for side in (high, low)]
    ends = {"hi_data": (high / factors[0]).tolist(), "lo_data": (low / factors[1]).tolist()}
    return [
        {"name": name, "type": "normsys", "data": dict(zip(("hi", "lo"), factors, strict=True))},
        {"name": name, "type": "histosys", "data": ends},
    ]


def poisson_counts(name, variance):
    """Return bin-wise Poisson constraints of counts with a variance."""
    return [{"name": name, "type": "shapesys", "data": np.sqrt(variance).tolist()}]


def like_sign_channel(name, counts, *, r_factor=1.0, modifiers=()):
    """Return like-sign counts as a channel of their own, also where a bin has none, and what they predict."""
    start = np.maximum(counts, 1.0)
    free = [{"name": f"like_sign_{name}", "type": "shapefactor", "data": None}]
    channel = {"name": f"{name}_like_sign", "samples": [sample("like_sign", start, free)]}
    return channel, counts, sample("combinatorial", r_factor * start, free, modifiers)
